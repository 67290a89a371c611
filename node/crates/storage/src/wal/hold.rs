//! Holds: promises that entries stay in the WAL while a transfer needs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_consensus::LogIndex;

use crate::limits::HOLDS_MAX;

/// Who holds what. Shared by the writer, which purges, and the readers, which hold.
#[derive(Clone, Default)]
pub(crate) struct Holds(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    next: u64,
    indexes: BTreeMap<u64, LogIndex>,
}

/// Keeps the entries from an index on until it is dropped. It yields to [`crate::limits::WAL_HELD_BYTES_MAX`]: what it
/// promises is effort, and who fetches after that finds nothing and begins anew.
pub struct Hold {
    holds: Holds,
    id: u64,
    index: LogIndex,
}

impl Holds {
    pub(crate) fn take(&self, index: LogIndex) -> Option<Hold> {
        let mut held = self.0.lock();
        if held.indexes.len() >= HOLDS_MAX {
            return None;
        }
        held.next += 1;
        let id = held.next;
        held.indexes.insert(id, index);
        Some(Hold { holds: self.clone(), id, index })
    }

    /// The lowest index that anybody holds.
    pub(crate) fn lowest(&self) -> Option<LogIndex> {
        self.0.lock().indexes.values().min().copied()
    }
}

impl Hold {
    /// The first index that is held.
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.index
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.0.lock().indexes.remove(&self.id);
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").field("index", &self.index).finish_non_exhaustive()
    }
}
