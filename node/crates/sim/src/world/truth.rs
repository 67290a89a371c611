//! What is true in a world whoever says it: the log as committed, the state at each index, leaders, durable promises.

use std::collections::BTreeMap;

use quorate_consensus::{Entry, LogIndex, MemberId, Payload, Term};
use quorate_machine::Event;

use super::translate;
use crate::judge::{ChangeLog, Transaction};

/// Everything that was ever seen to be so and may never be seen otherwise.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    entries: BTreeMap<LogIndex, (Term, u64)>,
    digests: BTreeMap<LogIndex, (u64, MemberId)>,
    leaders: BTreeMap<Term, MemberId>,
    /// Everything that happened to the keys.
    pub(crate) log: ChangeLog,
}

impl Truth {
    /// A member was handed a committed entry: it is the same on all (state machine safety, thesis §3.6.3).
    pub(crate) fn committed(&mut self, member: MemberId, entry: &Entry) {
        let known = *self.entries.entry(entry.index).or_insert((entry.term, hash(&entry.payload)));
        assert!(
            known == (entry.term, hash(&entry.payload)),
            "INV-R1: member {member} was handed another entry {} (term {}) than was committed before (term {})",
            entry.index,
            entry.term,
            known.0
        );
    }

    /// A member's machine stands at an index: its digest is that of everybody there (INV-M2).
    pub(crate) fn applied(&mut self, member: MemberId, index: LogIndex, digest: u64) {
        let (known, by) = *self.digests.entry(index).or_insert((digest, member));
        assert!(
            known == digest,
            "INV-M2: at index {index} member {member} has digest {digest:x}, member {by} had {known:x}"
        );
    }

    /// A member leads (INV-R3).
    pub(crate) fn leads(&mut self, member: MemberId, term: Term) -> bool {
        let new = !self.leaders.contains_key(&term);
        let known = *self.leaders.entry(term).or_insert(member);
        assert!(known == member, "INV-R3: {member} leads term {term}, and {known} did");
        new
    }

    /// A member's machine made changes at a revision: the same as everybody's.
    pub(crate) fn changed(&mut self, member: MemberId, events: &[Event], now: u64) {
        let revision = events[0].revision.main;
        let changes: Vec<_> = events.iter().map(translate::change).collect();
        if let Some(known) = self.log.at(revision) {
            assert!(
                known.changes == changes,
                "INV-M2: member {member} made {changes:?} of revision {revision}, it was {:?}",
                known.changes
            );
            return;
        }
        assert!(
            revision == self.log.last() + 1,
            "INV-M1: member {member} made revision {revision} after {}",
            self.log.last()
        );
        self.log.transactions.push(Transaction { revision, changes, first_seen: now });
    }

    /// The highest index that any machine has applied.
    pub(crate) fn last_applied(&self) -> LogIndex {
        self.digests.last_key_value().map_or(LogIndex(0), |(index, _)| *index)
    }
}

fn hash(payload: &Payload) -> u64 {
    let (kind, bytes) = match payload {
        Payload::Empty => (0, None),
        Payload::Command(bytes) => (1, Some(bytes)),
        Payload::Change(_, bytes) => (2, Some(bytes)),
    };
    let bytes = bytes.map_or(&[][..], |bytes| &bytes[..]);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325 ^ kind, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
