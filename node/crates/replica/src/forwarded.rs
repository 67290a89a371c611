//! What other members ask of this leader: each request id gets a place in the log at most once a term.

use std::collections::BTreeMap;

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
    /// The requests above, each with the attempt that it came by last.
    above: BTreeMap<u64, u64>,
}

impl Forwarded {
    /// Notes a request of this term; false if it was noted before, or is older than what is remembered. A later attempt is news:
    /// within one term a member sends a request again only after this leader refused it.
    pub(crate) fn note(&mut self, term: Term, request: RequestId, attempt: u64) -> bool {
        if self.term != term {
            self.term = term;
            self.seen.clear();
        }
        let key = (MemberId(request.member.0), request.life);
        let seen = self.seen.entry(key).or_default();
        if request.sequence <= seen.floor {
            return false;
        }
        let last = seen.above.entry(request.sequence).or_default();
        if attempt <= *last {
            return false;
        }
        *last = attempt;
        if seen.above.len() > FORWARDED_IDS_MAX {
            let (oldest, _) = seen.above.pop_first().expect("it is longer than its bound");
            seen.floor = oldest;
        }
        true
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
        assert!(forwarded.note(Term(1), request(5), 1));
        assert!(forwarded.note(Term(1), request(3), 1));
        assert!(!forwarded.note(Term(1), request(5), 1));
        assert!(!forwarded.note(Term(1), request(3), 1));
    }

    #[test]
    fn what_was_refused_may_be_asked_again_and_a_late_copy_may_not() {
        let mut forwarded = Forwarded::default();
        assert!(forwarded.note(Term(1), request(5), 1));
        assert!(forwarded.note(Term(1), request(5), 2));
        assert!(!forwarded.note(Term(1), request(5), 1));
        assert!(!forwarded.note(Term(1), request(5), 2));
    }

    #[test]
    fn memory_is_bounded_and_what_it_lost_counts_as_seen() {
        let mut forwarded = Forwarded::default();
        let last = u64::try_from(FORWARDED_IDS_MAX).unwrap() + 10;
        for sequence in 1..=last {
            assert!(forwarded.note(Term(1), request(sequence), 1));
        }
        assert!(!forwarded.note(Term(1), request(1), 2));
        assert!(!forwarded.note(Term(1), request(last), 1));
    }
}
