//! What is durable: records on their way to the WAL, and what each will certify when it arrives.

use std::collections::VecDeque;

use crate::{HardState, LogIndex, Token};

/// Records are made durable in the order of their tokens, so "durable" is one number. What a record certifies is
/// not: a later record may overwrite its entries while it is still on its way. So each record in flight keeps the
/// last index of *today's* log that it certifies, and each truncation lowers it. That is what makes the sequence
/// "write (5, term 1); overwrite by (5, term 2); overwrite by (5, term 1) again" safe: the first record's
/// confirmation names the very entry that the log holds, yet certifies nothing at 5 (etcd-io/raft's
/// `async_storage_writes_append_aba_race`; INV-R6).
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    /// The last record issued.
    issued: u64,
    /// The last record known to be durable; everything before it is too.
    durable: u64,
    in_flight: VecDeque<InFlight>,
    /// The last index of the log that is durable here.
    persisted: LogIndex,
    /// The last index that some record carries.
    written: LogIndex,
    /// The hard state of the last record issued.
    written_state: HardState,
    /// The hard state of the last durable record.
    durable_state: HardState,
}

#[derive(Clone, Debug)]
struct InFlight {
    token: Token,
    hard_state: HardState,
    certifies: LogIndex,
}

impl Journal {
    /// Everything that recovery found is durable.
    pub(crate) fn new(hard_state: HardState, last_index: LogIndex) -> Self {
        Self {
            issued: 0,
            durable: 0,
            in_flight: VecDeque::new(),
            persisted: last_index,
            written: last_index,
            written_state: hard_state,
            durable_state: hard_state,
        }
    }

    pub(crate) fn persisted(&self) -> LogIndex {
        self.persisted
    }

    pub(crate) fn written(&self) -> LogIndex {
        self.written
    }

    pub(crate) fn written_state(&self) -> HardState {
        self.written_state
    }

    pub(crate) fn durable_state(&self) -> HardState {
        self.durable_state
    }

    /// The sequence of the last record known to be durable.
    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Whether every record issued is durable.
    pub(crate) fn idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The sequence that certifies everything as of now, given whether a record is still to be issued for it.
    pub(crate) fn covering(&self, unwritten: bool) -> u64 {
        self.issued + u64::from(unwritten)
    }

    /// Issues a record; returns its token's sequence.
    pub(crate) fn issue(&mut self, hard_state: HardState, mut token: Token) -> Token {
        self.issued += 1;
        token.sequence = self.issued;
        self.in_flight.push_back(InFlight { token, hard_state, certifies: token.last_index });
        self.written = token.last_index;
        self.written_state = hard_state;
        token
    }

    /// The log dropped its entries from `from` on: nothing issued so far certifies them any more.
    pub(crate) fn truncated(&mut self, from: LogIndex) {
        let kept = from.previous();
        self.persisted = self.persisted.min(kept);
        self.written = self.written.min(kept);
        for record in &mut self.in_flight {
            record.certifies = record.certifies.min(kept);
        }
    }

    /// A durable snapshot took the log's place: the log now ends at `index`, and no record in flight certifies
    /// anything after it.
    pub(crate) fn replaced(&mut self, index: LogIndex) {
        self.truncated(index.next());
        self.persisted = index;
        self.written = index;
    }

    /// A record came back as durable. False when the token is stale or unknown: it changes nothing (INV-R6).
    pub(crate) fn settle(&mut self, token: Token) -> bool {
        let known = self.in_flight.iter().any(|record| record.token == token);
        while known && self.durable < token.sequence {
            let Some(record) = self.in_flight.pop_front() else { break };
            self.durable = record.token.sequence;
            self.durable_state = record.hard_state;
            self.persisted = self.persisted.max(record.certifies);
        }
        known
    }

    /// Records not yet durable, oldest first, must rise and never certify more than the log holds.
    pub(crate) fn check(&self, last_index: LogIndex) {
        let mut previous = self.durable;
        for record in &self.in_flight {
            assert!(
                record.token.sequence == previous + 1,
                "INV-R6: record {} follows record {previous} on the way to the disk",
                record.token.sequence,
            );
            assert!(
                record.certifies <= self.written,
                "INV-R6: record {} certifies entry {} of a log written up to {}",
                record.token.sequence,
                record.certifies,
                self.written,
            );
            previous = record.token.sequence;
        }
        assert!(
            self.persisted <= self.written,
            "INV-R6: entry {} is called durable, and records end at {}",
            self.persisted,
            self.written,
        );
        assert!(
            self.written <= last_index,
            "INV-R6: records end at {}, and the log at {last_index}",
            self.written,
        );
    }
}
