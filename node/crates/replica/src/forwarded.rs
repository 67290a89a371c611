//! What other members ask of this leader: each request id gets a place in the log at most once a term.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::{MemberId, Term};
use quorate_machine::RequestId;

use crate::limits::FORWARDED_IDS_MAX;

/// The request ids that this leader has seen in its term.
#[derive(Debug, Default)]
pub(crate) struct Forwarded {
    term: Term,
    seen: BTreeMap<(MemberId, u64), Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Every sequence up to here counts as seen.
    floor: u64,
    above: BTreeSet<u64>,
}

impl Forwarded {
    /// Notes a request of this term; false if it was noted before, or is older than what is remembered.
    pub(crate) fn note(&mut self, term: Term, request: RequestId) -> bool {
        if self.term != term {
            self.term = term;
            self.seen.clear();
        }
        let key = (MemberId(request.member.0), request.life);
        let seen = self.seen.entry(key).or_default();
        if request.sequence <= seen.floor || !seen.above.insert(request.sequence) {
            return false;
        }
        if seen.above.len() > FORWARDED_IDS_MAX {
            seen.floor = seen.above.pop_first().expect("it is longer than its bound");
        }
        true
    }

    /// The request got no place after all: the same member may ask again.
    pub(crate) fn forget(&mut self, request: RequestId) {
        if let Some(seen) = self.seen.get_mut(&(MemberId(request.member.0), request.life)) {
            seen.above.remove(&request.sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(sequence: u64) -> RequestId {
        RequestId { member: quorate_machine::MemberId(2), life: 1, sequence }
    }

    #[test]
    fn a_repeated_message_is_noticed_whatever_came_between() {
        let mut forwarded = Forwarded::default();
        assert!(forwarded.note(Term(1), request(5)));
        assert!(forwarded.note(Term(1), request(3)));
        assert!(!forwarded.note(Term(1), request(5)));
        assert!(!forwarded.note(Term(1), request(3)));
    }

    #[test]
    fn what_was_refused_may_be_asked_again() {
        let mut forwarded = Forwarded::default();
        assert!(forwarded.note(Term(1), request(5)));
        forwarded.forget(request(5));
        assert!(forwarded.note(Term(1), request(5)));
    }

    #[test]
    fn memory_is_bounded_and_what_it_lost_counts_as_seen() {
        let mut forwarded = Forwarded::default();
        let last = u64::try_from(FORWARDED_IDS_MAX).unwrap() + 10;
        for sequence in 1..=last {
            assert!(forwarded.note(Term(1), request(sequence)));
        }
        assert!(!forwarded.note(Term(1), request(1)));
        assert!(!forwarded.note(Term(1), request(last)));
    }
}
