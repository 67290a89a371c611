//! An outside witness of Raft's safety properties (thesis figure 3.2): it sees every record, message and answer.

use std::collections::BTreeMap;

use quorate_consensus::{
    Body, Entry, LogIndex, MemberId, Message, Payload, ReadTicket, Record, Role, SoftState, Term,
};

use crate::disk::Disk;

/// What has been seen so far, all members and all lives of them together.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    leaders: BTreeMap<Term, MemberId>,
    /// Every entry ever written, with the term of the one before it: (index, term) → (payload, previous term).
    written: BTreeMap<(u64, Term), (Payload, Option<Term>)>,
    /// Every entry known to be committed.
    pub(crate) committed: BTreeMap<u64, Entry>,
    /// The greatest commit index that any leader announced.
    pub(crate) commit: LogIndex,
    /// Reads in progress: the commit index when they were asked.
    asked: BTreeMap<(MemberId, ReadTicket), LogIndex>,
    pub(crate) reads_answered: usize,
    /// Proposals refused.
    pub(crate) refusals: usize,
}

impl Witness {
    /// Whether there is anything new to see in a member's state.
    pub(crate) fn wants_log(&self, id: MemberId, state: SoftState) -> bool {
        let known = self.leaders.get(&state.term) == Some(&id) && state.commit <= self.commit;
        state.role == Role::Leader && !known
    }

    /// Election safety: at most one leader a term. Leader completeness: a leader's log has all that is committed.
    pub(crate) fn see_leader(
        &mut self,
        id: MemberId,
        state: SoftState,
        log: &BTreeMap<u64, Entry>,
        base: LogIndex,
    ) {
        let term = state.term;
        let first = *self.leaders.entry(term).or_insert(id);
        assert_eq!(first, id, "two leaders of term {term}");
        for (index, entry) in self.committed.range(base.0 + 1..) {
            assert_eq!(
                log.get(index),
                Some(entry),
                "leader {id} of term {term} lacks committed entry {index}"
            );
        }
        for index in self.commit.0 + 1..=state.commit.0 {
            if let Some(entry) = log.get(&index) {
                self.see_committed(entry);
            }
        }
        self.commit = self.commit.max(state.commit);
    }

    /// Log matching: one index and term means one entry, and one entry before it; by induction one history.
    pub(crate) fn see_record(&mut self, record: &Record, before: Option<Term>) {
        let mut previous = before;
        for entry in &record.entries {
            let seen = self
                .written
                .entry((entry.index.0, entry.term))
                .or_insert((entry.payload.clone(), previous));
            assert_eq!(seen.0, entry.payload, "two entries {}@{}", entry.index, entry.term);
            if let (Some(known), Some(now)) = (seen.1, previous) {
                assert_eq!(known, now, "two histories before {}@{}", entry.index, entry.term);
            }
            previous = Some(entry.term);
        }
    }

    /// State machine safety: everybody applies the same entry at an index.
    pub(crate) fn see_committed(&mut self, entry: &Entry) {
        let first = self.committed.entry(entry.index.0).or_insert_with(|| entry.clone());
        assert_eq!(first, entry, "two entries were committed at {}", entry.index);
    }

    /// INV-R2 from outside: a promise is on the sender's disk when it leaves.
    pub(crate) fn see_message(&self, message: &Message, disk: &Disk) {
        match &message.body {
            Body::VoteResponse { granted: true, .. } => assert_eq!(
                (disk.hard_state.term, disk.hard_state.vote),
                (message.term, message.to),
                "a vote left before it was durable",
            ),
            Body::AppendResponse { index, rejection: None, commit } => {
                assert_eq!(
                    disk.hard_state.term, message.term,
                    "an acknowledgement left before its term was durable"
                );
                assert!(
                    disk.last_index() >= *index,
                    "entry {index} was acknowledged before it was durable"
                );
                let known = disk.hard_state.commit.max(disk.checkpoint.index);
                assert!(known >= *commit, "commit {commit} was reported before it was durable");
            }
            Body::Append { .. } | Body::Heartbeat { .. } => {
                assert_eq!(
                    self.leaders.get(&message.term),
                    Some(&message.from),
                    "{message:?} comes from no leader"
                );
            }
            _ => {}
        }
    }

    pub(crate) fn see_ask(&mut self, id: MemberId, ticket: ReadTicket) {
        self.asked.insert((id, ticket), self.commit);
    }

    /// Linearizable reads: what was committed when the read was asked is below its index.
    pub(crate) fn see_read(&mut self, id: MemberId, ticket: ReadTicket, index: LogIndex) {
        let asked = self.asked.remove(&(id, ticket));
        let Some(commit) = asked else {
            panic!("read {} of {id} was answered twice, or never asked", ticket.0)
        };
        assert!(
            index >= commit,
            "stale read: {id} may read at {index}, and {commit} was committed when it asked"
        );
        self.reads_answered += 1;
    }

    /// In how many terms somebody led.
    pub(crate) fn terms_led(&self) -> usize {
        self.leaders.len()
    }

    /// The asker died; nobody waits for its reads.
    pub(crate) fn forget_reads(&mut self, id: MemberId) {
        self.asked.retain(|(asker, _), _| *asker != id);
    }
}
