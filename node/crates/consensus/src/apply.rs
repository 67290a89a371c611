//! Between log and machine: pages of committed entries out, what is applied, compacted and installed in.

use crate::limits::APPLYING_PAGES_MAX;
use crate::{Consensus, Entry, Fetch, LogIndex, MemberId, Role, SnapshotMeta};

impl Consensus {
    /// Hands out the next page. Entries reach the machine only once they are durable in *this* member's log, even
    /// if others have committed them (INV-R5): a machine ahead of its own log could not be explained by it. A change
    /// waits longer, until this member's record says that it is committed.
    pub(crate) fn hand_out(&mut self) {
        let to = self.log.commit().min(self.durable_index()).min(self.change_held_back());
        let outstanding: usize = self.applying.iter().map(|(_, bytes)| bytes).sum();
        let bytes_max = self.settings.committed_bytes_max;
        if outstanding >= bytes_max.saturating_mul(APPLYING_PAGES_MAX) {
            return;
        }
        let mut page = std::mem::take(&mut self.fetched);
        if page.is_empty() && self.handed < to && self.fetching.is_none() {
            let from = self.handed.next();
            if from > self.log.start() {
                page = self.log.slice(from, to, bytes_max);
            } else {
                let to = to.min(self.log.start());
                let fetch = Fetch { for_member: self.id(), from, to, bytes_max };
                self.fetching = Some(fetch);
                self.outbox.output.fetch.push(fetch);
            }
        }
        let Some(last) = page.last() else { return };
        self.handed = last.index;
        self.applying.push_back((last.index, page.iter().map(Entry::cost).sum()));
        self.outbox.output.committed = page;
    }

    /// The last index before a change whose commitment a crash here would forget. Once a change is applied, others act on
    /// it: a removed member is told so and stops. If the last voter that knows of the removal forgot it, it would ask the
    /// removed one for a vote, for ever.
    fn change_held_back(&self) -> LogIndex {
        let first = self.log.first_change_after(self.journal.durable_state().commit);
        first.map_or(LogIndex(u64::MAX), LogIndex::previous)
    }

    /// Old entries for the machine came back from the WAL.
    pub(crate) fn fetched_for_machine(&mut self, fetch: Fetch, entries: Vec<Entry>) {
        if self.fetching != Some(fetch) {
            return;
        }
        self.fetching = None;
        assert!(
            !entries.is_empty(),
            "INV-R1: the WAL purged entry {} before the machine applied it: restore this member",
            fetch.from,
        );
        for entry in &entries {
            self.log.see_change(entry);
        }
        self.fetched = entries;
    }

    /// The machine applied everything up to here; changes among it take effect now (INV-R7).
    pub(crate) fn advance_applied(&mut self, index: LogIndex) {
        assert!(
            index <= self.handed,
            "INV-R1: entry {index} is called applied, and only entries up to {} were handed out",
            self.handed,
        );
        if index <= self.applied {
            return;
        }
        self.applied = index;
        while self.applying.front().is_some_and(|(last, _)| *last <= index) {
            self.applying.pop_front();
        }
        for (at, change) in self.log.take_changes(index) {
            self.take_effect(at, change);
        }
    }

    /// A durable checkpoint holds everything up to here: memory keeps only what a live follower still lacks.
    pub(crate) fn compact(&mut self, index: LogIndex) {
        assert!(
            index <= self.applied,
            "INV-R1: a checkpoint at {index} is ahead of the machine, which applied {}",
            self.applied,
        );
        self.compacted = self.compacted.max(index);
        let election_ticks = self.settings.election_ticks;
        let lacking = self.leadership.iter().flat_map(|leadership| leadership.progress.values());
        let kept = lacking
            .filter(|progress| progress.active(election_ticks))
            .map(|progress| progress.matched)
            .fold(self.compacted, LogIndex::min);
        self.log.forget(kept.min(self.journal.persisted()));
    }

    /// Keeps memory within its budget; what is forgotten is fetched when wanted.
    pub(crate) fn trim_memory(&mut self) {
        self.log.trim(self.journal.persisted(), self.settings.memory_bytes_max);
    }

    /// A snapshot is installed and durable: the machine stands behind it. What was handed out at or below it is
    /// superseded; what was handed out above it still counts.
    pub(crate) fn installed(&mut self, meta: &SnapshotMeta) {
        if meta.index <= self.applied {
            return;
        }
        if meta.index <= self.log.commit() || self.log.matches(meta.index, meta.term) {
            self.advance_commit(meta.index);
            self.log.rebase(meta);
            self.log.take_changes(meta.index);
        } else {
            assert!(
                self.role != Role::Leader && meta.index > self.log.commit(),
                "INV-R1: snapshot {}/{} contradicts a committed log (commit {})",
                meta.term,
                meta.index,
                self.log.commit(),
            );
            self.log.reset(meta);
            self.journal.replaced(meta.index);
            self.snapshot = Some(meta.clone());
        }
        self.applied = meta.index;
        self.compacted = meta.index;
        self.fetching = None;
        self.fetched.clear();
        if self.handed < meta.index {
            self.handed = meta.index;
        }
        while self.applying.front().is_some_and(|(last, _)| *last <= meta.index) {
            self.applying.pop_front();
        }
        self.adopt(meta.configuration.clone());
        let leader = self.leader;
        if self.role == Role::Follower && leader != MemberId::NONE {
            self.acknowledge(leader, meta.index);
        }
    }
}
