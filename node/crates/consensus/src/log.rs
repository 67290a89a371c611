//! The tail of the log that memory holds, with the configuration changes in it.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    ConfigurationChange, Entry, LogIndex, Payload, Recovered, Rejection, SnapshotMeta, Term,
};

/// ```text
///   1 ....... base ....... start | start+1 ... commit ... last
///   in rows and checkpoint       | in memory (`entries`)
///             └── in the WAL, fetched when wanted ─┘
/// ```
///
/// Only committed, durable entries leave memory. What is fetched later is therefore immutable, and an answer to an
/// old fetch can never bring an entry that was overwritten meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    /// The index before the first entry in memory.
    start: LogIndex,
    /// Its term; unknown only after a restart whose memory began behind the checkpoint.
    start_term: Option<Term>,
    /// A point whose term stays known: the checkpoint at recovery, or the last snapshot installed.
    base: (LogIndex, Term),
    commit: LogIndex,
    bytes: usize,
    /// Changes that are not applied yet, as far as they were seen.
    changes: BTreeMap<LogIndex, ConfigurationChange>,
    /// Entries up to here were in the WAL at the start and never in memory: they may hold unseen changes.
    unseen_to: LogIndex,
}

impl Log {
    /// Recovery must bring everything that is not known to be committed, and the entry at the commit index (unless
    /// the checkpoint stands there), since only committed entries may be absent from memory.
    pub(crate) fn new(recovered: &Recovered) -> Self {
        let base = (recovered.snapshot.index, recovered.snapshot.term);
        let commit = recovered.hard_state.commit.max(base.0);
        let start = recovered.entries.first().map_or(base.0, |entry| entry.index.previous());
        assert!(
            start >= base.0,
            "INV-R1: recovery brought entry {} at or below its checkpoint {}",
            start.next(),
            base.0
        );
        assert!(
            start == base.0 || start < commit,
            "INV-R1: recovery left out entries from {} to {start}, which are not all committed (commit {commit}): \
             memory must hold the entry at the commit index and all after it",
            base.0.next(),
        );
        let mut log = Self {
            entries: VecDeque::new(),
            start,
            start_term: (start == base.0).then_some(base.1),
            base,
            commit,
            bytes: 0,
            changes: BTreeMap::new(),
            unseen_to: if start == base.0 { LogIndex(0) } else { start },
        };
        for entry in &recovered.entries {
            log.push(entry.clone());
        }
        assert!(
            log.last_index() == recovered.last_index,
            "INV-R1: recovery says that the log ends at {} and brought entries up to {}",
            recovered.last_index,
            log.last_index(),
        );
        assert!(
            log.commit <= log.last_index(),
            "INV-R1: the log ends at {} before its durable commit index {}: the WAL lost entries; replace this member",
            log.last_index(),
            log.commit,
        );
        log
    }

    pub(crate) fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The index before the first entry in memory.
    pub(crate) fn start(&self) -> LogIndex {
        self.start
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        LogIndex(self.start.0 + self.entries.len() as u64)
    }

    pub(crate) fn last_term(&self) -> Term {
        self.term(self.last_index())
            .expect("the last entry is in memory, or the log is empty behind its base")
    }

    /// The term at an index: none beyond the end, and where memory has forgotten it.
    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        if index > self.start {
            return self.entry(index).map(|entry| entry.term);
        }
        if index == self.start && self.start_term.is_some() {
            return self.start_term;
        }
        if index == self.base.0 {
            return Some(self.base.1);
        }
        (index.0 == 0).then_some(Term(0))
    }

    /// Whether the log holds this very entry (the log matching property, thesis §3.5).
    pub(crate) fn matches(&self, index: LogIndex, term: Term) -> bool {
        self.term(index) == Some(term)
    }

    fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.start.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Entries from `from` to `to`, as many as cost at most `bytes_max`, but one at least. All must be in memory.
    pub(crate) fn slice(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Vec<Entry> {
        assert!(
            from > self.start,
            "INV-R1: entry {from} was asked of memory, which begins after {}",
            self.start
        );
        let mut taken = Vec::new();
        let mut bytes = 0usize;
        let first = (from.0 - self.start.0 - 1) as usize;
        for entry in self.entries.range(first..) {
            bytes = bytes.saturating_add(entry.cost());
            if entry.index > to || (bytes > bytes_max && !taken.is_empty()) {
                break;
            }
            taken.push(entry.clone());
        }
        taken
    }

    /// The cost of the entries in memory from `from` to `to`.
    pub(crate) fn cost(&self, from: LogIndex, to: LogIndex) -> usize {
        let first = from.0.saturating_sub(self.start.0 + 1) as usize;
        let first = first.min(self.entries.len());
        self.entries.range(first..).take_while(|entry| entry.index <= to).map(Entry::cost).sum()
    }

    /// Puts an entry at the end.
    pub(crate) fn push(&mut self, entry: Entry) {
        assert!(
            entry.index == self.last_index().next(),
            "INV-R1: entry {} does not follow the last one, {}",
            entry.index,
            self.last_index(),
        );
        self.see_change(&entry);
        self.bytes += entry.cost();
        self.entries.push_back(entry);
    }

    /// Notes a configuration change that was fetched rather than pushed.
    pub(crate) fn see_change(&mut self, entry: &Entry) {
        if let Payload::Change(change, _) = &entry.payload {
            self.changes.insert(entry.index, *change);
        }
    }

    /// Drops the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        assert!(
            from > self.commit,
            "INV-R1: a leader asks to overwrite entry {from}, and {} is committed: two histories; stop this cluster \
             and restore it",
            self.commit,
        );
        while self.last_index() >= from {
            let Some(entry) = self.entries.pop_back() else { break };
            self.bytes -= entry.cost();
        }
        self.changes.split_off(&from);
    }

    pub(crate) fn commit_to(&mut self, index: LogIndex) {
        assert!(
            index <= self.last_index(),
            "INV-R1: the leader knows entry {index} to be durable here, and the log ends at {}: the disk lost what it \
             had confirmed; replace this member",
            self.last_index(),
        );
        self.commit = self.commit.max(index);
    }

    /// The greatest index, at most `index`, whose term is at most `term`: below it logs may agree, above they
    /// cannot. Skips a whole term at a time (etcd-io/raft's refinement of thesis §3.5). Never below what memory holds.
    pub(crate) fn hint(&self, index: LogIndex, term: Term) -> Rejection {
        let index = index.min(self.last_index());
        if index <= self.start {
            return Rejection {
                hint_index: index,
                hint_term: self.term(index).unwrap_or_default(),
            };
        }
        let considered = (index.0 - self.start.0) as usize;
        // Terms never fall along a log, so the cut is found by halving.
        let below = self.entries.partition_point(|entry| entry.term <= term).min(considered);
        let hint_index = LogIndex(self.start.0 + below as u64);
        Rejection { hint_index, hint_term: self.term(hint_index).unwrap_or_default() }
    }

    /// Forgets entries up to `index`, which must be committed and durable; they stay in the WAL.
    pub(crate) fn forget(&mut self, index: LogIndex) {
        let index = index.min(self.commit);
        while self.start < index {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.cost();
            self.start = entry.index;
            self.start_term = Some(entry.term);
        }
    }

    /// Forgets the oldest entries, up to `index` at most, until memory holds no more than `bytes_max`.
    pub(crate) fn trim(&mut self, index: LogIndex, bytes_max: usize) {
        while self.bytes > bytes_max && self.start < index.min(self.commit) {
            self.forget(self.start.next());
        }
    }

    /// Starts over behind an installed snapshot.
    pub(crate) fn reset(&mut self, meta: &SnapshotMeta) {
        self.entries.clear();
        self.bytes = 0;
        self.start = meta.index;
        self.start_term = Some(meta.term);
        self.base = (meta.index, meta.term);
        self.commit = meta.index;
        self.changes.clear();
        self.unseen_to = LogIndex(0);
    }

    /// The machine stands at an installed snapshot whose last entry the log holds.
    pub(crate) fn rebase(&mut self, meta: &SnapshotMeta) {
        self.base = (meta.index, meta.term);
    }

    /// The index of the checkpoint that the machine started from, or of the last snapshot installed.
    pub(crate) fn base_index(&self) -> LogIndex {
        self.base.0
    }

    /// The machine refused the change at this index: it will take no effect.
    pub(crate) fn void_change(&mut self, index: LogIndex) {
        self.changes.remove(&index);
    }

    /// The changes up to `applied` have taken effect; hands them out in order.
    pub(crate) fn take_changes(
        &mut self,
        applied: LogIndex,
    ) -> Vec<(LogIndex, ConfigurationChange)> {
        let later = self.changes.split_off(&applied.next());
        std::mem::replace(&mut self.changes, later).into_iter().collect()
    }

    /// Whether an entry up to `to`, not applied yet, changes the configuration, or may.
    pub(crate) fn change_unapplied(&self, applied: LogIndex, to: LogIndex) -> bool {
        applied < self.unseen_to || self.change_between(applied, to)
    }

    /// Where the first change after `after` stands that has not taken effect.
    pub(crate) fn first_change_after(&self, after: LogIndex) -> Option<LogIndex> {
        self.changes.range(after.next()..).next().map(|(index, _)| *index)
    }

    /// Whether a change stands after `after` and up to `to`.
    pub(crate) fn change_between(&self, after: LogIndex, to: LogIndex) -> bool {
        self.first_change_after(after).is_some_and(|change| change <= to)
    }

    /// How many changes in the log are not known to be committed: at most one (INV-R7).
    pub(crate) fn changes_uncommitted(&self) -> usize {
        self.changes.range(self.commit.next()..).count()
    }

    /// The cost of what memory holds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
