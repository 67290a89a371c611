//! This member's own requests on their way into the log: with whom they are, and what became of them.
//!
//! ```text
//!            no leader known, or one that hands over
//!   ask ──► Waiting ──────────────► forwarded to the leader ──► accepted ──► committed: answered by apply
//!             ▲  │ this member leads       │ refused              │
//!             │  └────► consensus ─────────┼──────────► accepted ─┤ overwritten: another entry was
//!             └────────────────────────────┴──────────────────────┘ committed in its place
//! ```
//!
//! A request is in the log at most once: it is sent again only after it was refused *before* acceptance, or once it is certain
//! that the leader which may have accepted it lost the entry: another one was committed in its place, or one of a later term.
//! Terms in a log never fall, so with that entry every one of the earlier term that will ever be committed has been seen.
//! While its fate is unknown it just waits; apply answers it, or its asker's patience ends: after its deadline it is not sent
//! any more, whether or not somebody came to say that it is to be forgotten.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_consensus::{ConfigurationChange, LogIndex, Term};
use quorate_machine::FeatureLevel;

/// A request's number within this process life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// What is proposed: an encoded envelope, and the configuration change that goes with it, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The requester's number for it (the sequence of the request id inside).
    pub sequence: Sequence,
    /// The encoded envelope.
    pub envelope: Bytes,
    /// Set for a membership command.
    pub change: Option<ConfigurationChange>,
    /// The feature level that the command needs.
    pub needs: FeatureLevel,
}

/// Where a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Here, to be sent to the leader once one is known.
    Waiting,
    /// With consensus of this member, not yet in the log.
    Proposing,
    /// On its way to the leader of a term; its fate there is unknown. A refusal counts only if it names this attempt.
    Forwarded { attempt: u64, term: Term },
    /// In the log of a leader.
    Accepted { term: Term, index: LogIndex },
    /// It may be in an installed snapshot or nowhere: nobody here can tell. It is never sent again unless it was refused.
    Superseded { attempt: u64 },
}

/// A request that is not answered.
#[derive(Debug)]
struct Request {
    proposal: Proposal,
    place: Place,
    /// From this moment on its asker has been told that it may or may not have happened.
    deadline_ms: u64,
}

/// All of this member's requests that are not answered. Times are milliseconds of one monotonic clock, which the caller reads.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    pending: BTreeMap<Sequence, Request>,
    /// Those in `Place::Waiting`, in order of asking.
    waiting: BTreeMap<Sequence, ()>,
    /// Those in `Place::Accepted`, by place: leaders of two terms may each have given the same index away.
    accepted: BTreeMap<(LogIndex, Term), Sequence>,
    /// Counts the rounds of forwarding.
    attempts: u64,
    /// An installed snapshot stands for every entry up to here: what they held is not known here.
    superseded: LogIndex,
    /// The term of the last entry committed.
    committed_term: Term,
}

impl Proposals {
    /// A request comes in, whose asker waits until the deadline.
    pub(crate) fn ask(&mut self, proposal: Proposal, deadline_ms: u64) {
        let sequence = proposal.sequence;
        let request = Request { proposal, place: Place::Waiting, deadline_ms };
        let before = self.pending.insert(sequence, request);
        assert!(before.is_none(), "INV-R4: request {} was asked twice", sequence.0);
        self.waiting.insert(sequence, ());
    }

    /// Takes what waits, for this member's own consensus.
    pub(crate) fn take_for_consensus(&mut self, now_ms: u64) -> Vec<Proposal> {
        self.take(&Place::Proposing, now_ms)
    }

    /// Takes what waits, for another member that leads. The number of the attempt goes with the message and comes back
    /// in a refusal, so that a late copy of an earlier refusal cannot send a request twice.
    pub(crate) fn take_for_leader(&mut self, term: Term, now_ms: u64) -> (u64, Vec<Proposal>) {
        self.attempts += 1;
        let attempt = self.attempts;
        (attempt, self.take(&Place::Forwarded { attempt, term }, now_ms))
    }

    /// What waited beyond its deadline is dropped: nobody asks for it any more, and it would be a surprise.
    fn take(&mut self, place: &Place, now_ms: u64) -> Vec<Proposal> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut taken = Vec::with_capacity(waiting.len());
        for sequence in waiting.into_keys() {
            let Some(request) = self.pending.get_mut(&sequence) else { continue };
            if request.deadline_ms <= now_ms {
                self.pending.remove(&sequence);
                continue;
            }
            request.place = place.clone();
            taken.push(request.proposal.clone());
        }
        taken
    }

    /// It got a place in a leader's log. Said too late, after the place was lost, it changes nothing.
    pub(crate) fn accepted(&mut self, sequence: Sequence, term: Term, index: LogIndex) {
        let Some(Request { place, .. }) = self.pending.get_mut(&sequence) else { return };
        let current = match place {
            Place::Proposing => true,
            Place::Forwarded { term: of, .. } => *of == term,
            Place::Waiting | Place::Accepted { .. } | Place::Superseded { .. } => false,
        };
        if current {
            *place = Place::Accepted { term, index };
            if index > self.superseded {
                self.accepted.insert((index, term), sequence);
            }
        }
    }

    /// A snapshot took the place of all entries up to this index. Whether a request that was accepted there, or is with a
    /// leader, is in it or was overwritten, nobody here can tell: it is left alone, since to send it again could apply it twice.
    pub(crate) fn superseded(&mut self, index: LogIndex) {
        self.superseded = self.superseded.max(index);
        self.accepted = self.accepted.split_off(&(index.next(), Term(0)));
        for Request { place, .. } in self.pending.values_mut() {
            if let Place::Forwarded { attempt, .. } = *place {
                *place = Place::Superseded { attempt };
            }
        }
    }

    /// It was refused before acceptance, by consensus here (no attempt) or by the leader it was forwarded to: it may be
    /// sent again. Whether this refusal was news.
    pub(crate) fn refused(&mut self, sequence: Sequence, attempt: Option<u64>) -> bool {
        let Some(Request { place, .. }) = self.pending.get_mut(&sequence) else { return false };
        let current = match (&*place, attempt) {
            (Place::Proposing, None) => true,
            (
                Place::Forwarded { attempt: sent, .. } | Place::Superseded { attempt: sent },
                Some(refused),
            ) => *sent == refused,
            (Place::Proposing, Some(_))
            | (Place::Forwarded { .. } | Place::Superseded { .. }, None)
            | (Place::Waiting | Place::Accepted { .. }, _) => false,
        };
        if current {
            *place = Place::Waiting;
            self.waiting.insert(sequence, ());
        }
        current
    }

    /// An entry was committed; `own` is the request in it, if it is one of this life of this member. Whatever was
    /// accepted at or below this index under another term has lost its place and waits again, and so does what went to the
    /// leader of an earlier term than the entry's.
    pub(crate) fn committed(&mut self, term: Term, index: LogIndex, own: Option<Sequence>) {
        if let Some(sequence) = own {
            self.forget(sequence);
        }
        if term > self.committed_term {
            self.committed_term = term;
            self.wait_again(term);
        }
        while let Some(entry) = self.accepted.first_entry() {
            let ((at, _), sequence) = (*entry.key(), *entry.get());
            if at > index {
                break;
            }
            entry.remove();
            if let Some(Request { place, .. }) = self.pending.get_mut(&sequence) {
                assert!(
                    at < index || *place != Place::Accepted { term, index },
                    "INV-R4: the entry that holds request {} was committed without it",
                    sequence.0
                );
                *place = Place::Waiting;
                self.waiting.insert(sequence, ());
            }
        }
    }

    /// What went to a leader of an earlier term, and was not in what that one got committed, is in no log that counts.
    fn wait_again(&mut self, term: Term) {
        for (sequence, Request { place, .. }) in &mut self.pending {
            if matches!(place, Place::Forwarded { term: earlier, .. } if *earlier < term) {
                *place = Place::Waiting;
                self.waiting.insert(*sequence, ());
            }
        }
    }

    /// Its asker gave up, or it failed for good. Whether it was pending.
    pub(crate) fn forget(&mut self, sequence: Sequence) -> bool {
        self.waiting.remove(&sequence);
        self.pending.remove(&sequence).is_some()
    }

    /// Whether anything waits to be sent.
    #[must_use]
    pub(crate) fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many requests are not answered.
    #[must_use]
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;
    /// A deadline that no test reaches.
    const LATER: u64 = 8_000;

    fn proposal(sequence: u64) -> Proposal {
        Proposal {
            sequence: Sequence(sequence),
            envelope: Bytes::from_static(b"x"),
            change: None,
            needs: FeatureLevel(1),
        }
    }

    fn sequences(proposals: &[Proposal]) -> Vec<u64> {
        proposals.iter().map(|proposal| proposal.sequence.0).collect()
    }

    #[test]
    fn what_was_refused_goes_to_the_next_leader_and_what_is_unknown_stays() {
        let mut proposals = Proposals::default();
        proposals.ask(proposal(1), LATER);
        proposals.ask(proposal(2), LATER);
        let (first, sent) = proposals.take_for_leader(Term(1), NOW);
        assert_eq!(sequences(&sent), [1, 2]);
        assert!(proposals.refused(Sequence(2), Some(first)));
        assert!(!proposals.refused(Sequence(2), Some(first)), "it waits already");
        let (_, sent) = proposals.take_for_leader(Term(1), NOW);
        assert_eq!(sequences(&sent), [2]);
        assert!(!proposals.refused(Sequence(2), Some(first)), "a late copy of an old refusal");
        assert_eq!(proposals.pending(), 2);
    }

    #[test]
    fn an_overwritten_entry_is_proposed_again_and_a_committed_one_is_not() {
        let mut proposals = Proposals::default();
        proposals.ask(proposal(1), LATER);
        proposals.ask(proposal(2), LATER);
        proposals.take_for_consensus(NOW);
        proposals.accepted(Sequence(1), Term(1), LogIndex(5));
        proposals.accepted(Sequence(2), Term(1), LogIndex(6));
        proposals.committed(Term(1), LogIndex(5), Some(Sequence(1)));
        assert!(!proposals.any_waiting());
        proposals.committed(Term(2), LogIndex(6), None);
        assert_eq!(sequences(&proposals.take_for_consensus(NOW)), [2]);
        assert_eq!(proposals.pending(), 1);
    }

    #[test]
    fn a_request_whose_entry_a_snapshot_swallowed_is_not_sent_again() {
        let mut proposals = Proposals::default();
        for sequence in 1..=3 {
            proposals.ask(proposal(sequence), LATER);
        }
        proposals.take_for_leader(Term(1), NOW);
        proposals.accepted(Sequence(1), Term(1), LogIndex(5));
        proposals.accepted(Sequence(3), Term(1), LogIndex(8));
        proposals.superseded(LogIndex(6));
        // The leader's answer may come later than the snapshot that holds the entry.
        proposals.accepted(Sequence(2), Term(1), LogIndex(6));
        proposals.committed(Term(1), LogIndex(7), None);
        assert!(!proposals.any_waiting());
        proposals.committed(Term(2), LogIndex(8), None);
        assert_eq!(sequences(&proposals.take_for_consensus(NOW)), [3], "not in the snapshot");
        assert_eq!(proposals.pending(), 3);
    }

    #[test]
    fn two_terms_may_have_given_the_same_place_away() {
        let mut proposals = Proposals::default();
        proposals.ask(proposal(1), LATER);
        proposals.ask(proposal(2), LATER);
        proposals.take_for_leader(Term(1), NOW);
        proposals.accepted(Sequence(1), Term(1), LogIndex(5));
        proposals.accepted(Sequence(2), Term(2), LogIndex(5));
        proposals.committed(Term(2), LogIndex(5), Some(Sequence(2)));
        assert_eq!(
            sequences(&proposals.take_for_leader(Term(3), NOW).1),
            [1],
            "only the first has lost it"
        );
    }

    #[test]
    fn a_request_found_in_the_log_by_another_way_is_not_sent_again() {
        let mut proposals = Proposals::default();
        proposals.ask(proposal(1), LATER);
        let (attempt, _) = proposals.take_for_leader(Term(1), NOW);
        proposals.committed(Term(1), LogIndex(9), Some(Sequence(1)));
        assert_eq!(proposals.pending(), 0);
        assert!(!proposals.refused(Sequence(1), Some(attempt)));
    }

    #[test]
    fn what_a_lost_leader_was_sent_goes_to_the_next_one_once_an_entry_of_a_later_term_is_committed()
    {
        let mut proposals = Proposals::default();
        proposals.ask(proposal(1), LATER);
        proposals.ask(proposal(2), LATER);
        proposals.take_for_leader(Term(4), NOW);
        proposals.committed(Term(4), LogIndex(7), None);
        assert!(!proposals.any_waiting(), "the leader of that term may still have it");
        // The first one was in what the lost leader replicated.
        proposals.committed(Term(4), LogIndex(8), Some(Sequence(1)));
        proposals.committed(Term(5), LogIndex(9), None);
        assert_eq!(sequences(&proposals.take_for_leader(Term(5), NOW).1), [2]);
        // The lost leader's answer comes at last: its entry was overwritten.
        proposals.accepted(Sequence(2), Term(4), LogIndex(9));
        proposals.committed(Term(5), LogIndex(10), None);
        assert!(!proposals.any_waiting(), "it is with the leader of term 5");
    }

    #[test]
    fn what_may_be_in_a_snapshot_is_sent_again_only_if_it_was_refused() {
        let mut proposals = Proposals::default();
        proposals.ask(proposal(1), LATER);
        proposals.ask(proposal(2), LATER);
        let (attempt, _) = proposals.take_for_leader(Term(4), NOW);
        proposals.superseded(LogIndex(20));
        assert!(proposals.refused(Sequence(2), Some(attempt)));
        proposals.committed(Term(5), LogIndex(21), None);
        assert_eq!(sequences(&proposals.take_for_leader(Term(5), NOW).1), [2]);
    }

    #[test]
    fn what_waits_beyond_its_deadline_is_dropped_and_what_lost_its_place_is_no_exception() {
        let mut proposals = Proposals::default();
        for (sequence, deadline_ms) in [(1, 999), (2, 1_000), (3, 1_001), (4, 900)] {
            proposals.ask(proposal(sequence), deadline_ms);
        }
        // The fourth was with a leader when its time ran out, and lost its place there.
        assert_eq!(sequences(&proposals.take_for_leader(Term(1), 0).1), [1, 2, 3, 4]);
        for sequence in 1..=3 {
            assert!(proposals.refused(Sequence(sequence), Some(1)));
        }
        assert_eq!(sequences(&proposals.take_for_leader(Term(1), NOW).1), [3]);
        assert_eq!(proposals.pending(), 2, "of what may be in a log nothing is known");
        proposals.committed(Term(2), LogIndex(9), None);
        assert_eq!(sequences(&proposals.take_for_consensus(NOW)), [3]);
        assert_eq!(proposals.pending(), 1);
    }
}
