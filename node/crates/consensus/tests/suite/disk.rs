//! A member's disk as the shell would keep it: a WAL, and a checkpoint of the machine.

use std::collections::BTreeMap;

use quorate_consensus::{Entry, Fetch, HardState, LogIndex, Record, Recovered, SnapshotMeta, Term};

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    /// The WAL's entries by index; older ones go when purged.
    pub(crate) wal: BTreeMap<u64, Entry>,
    /// Where the machine stands durably.
    pub(crate) checkpoint: SnapshotMeta,
}

impl Disk {
    /// Makes one record durable.
    pub(crate) fn write(&mut self, record: &Record) {
        self.hard_state = record.hard_state;
        if record.snapshot.is_some() {
            self.wal.clear();
        }
        if let Some(first) = record.entries.first() {
            self.wal.split_off(&first.index.0);
        }
        for entry in &record.entries {
            self.wal.insert(entry.index.0, entry.clone());
        }
    }

    /// The last durable index.
    pub(crate) fn last_index(&self) -> LogIndex {
        let last = self.wal.keys().next_back().copied().unwrap_or(0);
        LogIndex(last).max(self.checkpoint.index)
    }

    /// Recovery as storage does it: a log that does not continue the checkpoint is dropped; with `tail_only`,
    /// memory gets no more than it must.
    pub(crate) fn recover(&mut self, tail_only: bool) -> Recovered {
        let at = self.checkpoint.index.0;
        let continues = match self.wal.get(&at) {
            Some(entry) => entry.term == self.checkpoint.term,
            None => self.wal.keys().next().is_none_or(|first| *first == at + 1),
        };
        if !continues {
            self.wal.clear();
        }
        let commit = self.hard_state.commit.0.max(at);
        let from = if tail_only { commit.max(at + 1) } else { at + 1 };
        let entries: Vec<Entry> = self.wal.range(from..).map(|(_, entry)| entry.clone()).collect();
        Recovered {
            hard_state: self.hard_state,
            snapshot: self.checkpoint.clone(),
            last_index: entries.last().map_or(self.checkpoint.index, |entry| entry.index),
            entries,
        }
    }

    /// Reads old entries, or none when the first is gone.
    pub(crate) fn fetch(&self, fetch: &Fetch) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in fetch.from.0..=fetch.to.0 {
            let Some(entry) = self.wal.get(&index) else { break };
            bytes += entry.cost();
            if bytes > fetch.bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }

    /// Forgets the WAL up to `index`.
    pub(crate) fn purge(&mut self, index: LogIndex) {
        self.wal = self.wal.split_off(&(index.0 + 1));
    }

    /// The durable term at an index.
    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.checkpoint.index {
            return Some(self.checkpoint.term);
        }
        self.wal.get(&index.0).map(|entry| entry.term)
    }
}
