//! The key index in memory: which versions a key has, and where their rows stand.
//!
//! ```text
//! Index ─ branches ─┬─ (least key, base) ─► Branch ─┬─ (least key, base) ─► Leaf: packed entries, up to 4 KiB
//!                   ├─ ...                          ├─ ...                  of (key, up to 16 versions)
//! ```
//!
//! Everything below the top is behind an `Arc`: a [`Snapshot`] clones the top, and whoever writes next copies the branch and
//! the leaf on its way, once. Why this and not a library: ADR 2. The index knows revisions and addresses; it does not know rows,
//! files or locks.

mod leaf;
mod snapshot;
mod version;

use std::ops::ControlFlow;
use std::sync::Arc;

use quorate_machine::Revision;

use crate::limits::{BRANCH_LEAVES_MAX, LEAF_BYTES_MAX};
use leaf::{Cut, Leaf};
pub use snapshot::{Builder, FrozenLeaf, LeafImage, Snapshot};
pub use version::{RowAt, Version};

/// Entries of one key that a scan walks before it seeks past them instead.
const WALK_ENTRIES_MAX: usize = 4;

/// Below every write.
const ZERO: Revision = Revision { main: 0, sub: 0 };

/// Above every write.
const NEWEST: Revision = Revision { main: i64::MAX, sub: i64::MAX };

/// The index.
#[derive(Debug)]
pub struct Index {
    branches: Vec<Slot<Branch>>,
}

/// A child and the least (key, base) that it may hold.
#[derive(Clone, Debug)]
struct Slot<T> {
    key: Box<[u8]>,
    base: Revision,
    node: Arc<T>,
}

#[derive(Clone, Debug, Default)]
struct Branch {
    leaves: Vec<Slot<Leaf>>,
}

impl<T> Slot<T> {
    fn first(node: T) -> Slot<T> {
        Slot { key: Box::default(), base: ZERO, node: Arc::new(node) }
    }
}

/// The child that holds (key, base): the last whose least is not above it.
#[inline]
fn child<T>(slots: &[Slot<T>], key: &[u8], base: Revision) -> usize {
    let above = slots.partition_point(|slot| match (*slot.key).cmp(key) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal => slot.base <= base,
        std::cmp::Ordering::Greater => false,
    });
    above.saturating_sub(1)
}

/// Where a paced walk over the leaves goes on.
#[derive(Clone, Debug)]
pub struct Cursor {
    key: Box<[u8]>,
    base: Revision,
}

impl Default for Cursor {
    fn default() -> Cursor {
        Cursor { key: Box::default(), base: ZERO }
    }
}

impl Default for Index {
    fn default() -> Index {
        Index::new()
    }
}

impl Index {
    /// An index without keys.
    #[must_use]
    pub fn new() -> Index {
        let branch = Branch { leaves: vec![Slot::first(Leaf::default())] };
        Index { branches: vec![Slot::first(branch)] }
    }

    /// The key's newest version at or below the revision `at`; a tombstone says that it was deleted there.
    #[must_use]
    pub fn get(&self, key: &[u8], at: Revision) -> Option<Version> {
        let branch = &self.branches[child(&self.branches, key, at)].node;
        branch.leaves[child(&branch.leaves, key, at)].node.get(key, at)
    }

    /// Adds a version, newer than all that the key has.
    ///
    /// # Panics
    /// If it is not newer (INV-M1).
    pub fn put(&mut self, key: &[u8], version: &Version) {
        let b = child(&self.branches, key, NEWEST);
        let branch = Arc::make_mut(&mut self.branches[b].node);
        let l = child(&branch.leaves, key, NEWEST);
        let leaf = Arc::make_mut(&mut branch.leaves[l].node);
        let written = leaf.put(key, version);
        if !leaf.is_over_full() {
            return;
        }
        let Some(split) = leaf.split(written.at_end) else { return };
        let slot = Slot { key: split.key.into(), base: split.base, node: Arc::new(split.right) };
        branch.leaves.insert(l + 1, slot);
        if branch.leaves.len() > BRANCH_LEAVES_MAX {
            let cut = if written.at_end { BRANCH_LEAVES_MAX } else { BRANCH_LEAVES_MAX / 2 };
            let right = branch.leaves.split_off(cut);
            let (key, base) = (right[0].key.clone(), right[0].base);
            let node = Arc::new(Branch { leaves: right });
            self.branches.insert(b + 1, Slot { key, base, node });
        }
    }

    /// Tells the version of `key` at exactly `revision` that its row has moved; false if there is none.
    pub fn relocate(&mut self, key: &[u8], revision: Revision, to: RowAt) -> bool {
        let b = child(&self.branches, key, revision);
        let branch = Arc::make_mut(&mut self.branches[b].node);
        let l = child(&branch.leaves, key, revision);
        Arc::make_mut(&mut branch.leaves[l].node).relocate(key, revision, to)
    }

    /// Visits the live keys of `start..end` (`None`: to the last key) as they were at `at`, in order, with their newest
    /// versions, one step for each key however many versions it has.
    pub fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        at: Revision,
        mut visit: impl FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) {
        let mut from = start.to_vec();
        while let Some(next) = self.scan_until_run(&from, end, at, &mut visit) {
            from = next;
        }
    }

    /// Scans until the end (`None`) or until a key with a long run of entries has been dealt with by seeking; then the
    /// key to go on from.
    fn scan_until_run(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        at: Revision,
        visit: &mut impl FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) -> Option<Vec<u8>> {
        let mut b = child(&self.branches, start, ZERO);
        let mut l = child(&self.branches[b].node.leaves, start, ZERO);
        let mut entries = self.branches[b].node.leaves[l].node.entries_from(start);
        let mut candidate: Option<Version> = None;
        let mut run = 0;
        loop {
            while let Some(entry) = entries.next() {
                if end.is_some_and(|end| entry.key >= end) {
                    return None;
                }
                candidate = entry.versions().newest(at).or(candidate);
                if entry.goes_on || (entry.is_last && self.continues(b, l, entry.key)) {
                    run += 1;
                    if run < WALK_ENTRIES_MAX {
                        continue;
                    }
                    candidate = self.get(entry.key, at);
                }
                if let Some(version) = candidate.take().filter(|version| !version.tombstone)
                    && visit(entry.key, &version).is_break()
                {
                    return None;
                }
                if run >= WALK_ENTRIES_MAX {
                    let mut next = entry.key.to_vec();
                    next.push(0);
                    return Some(next);
                }
                run = 0;
            }
            l += 1;
            if l == self.branches[b].node.leaves.len() {
                (b, l) = (b + 1, 0);
            }
            entries = self.branches.get(b)?.node.leaves[l].node.entries();
        }
    }

    /// The leaf behind (b, l) begins with a further entry of `key`.
    fn continues(&self, b: usize, l: usize, key: &[u8]) -> bool {
        let next = self.branches[b].node.leaves.get(l + 1);
        match next.or_else(|| self.branches.get(b + 1).map(|branch| &branch.node.leaves[0])) {
            Some(slot) => slot.base > ZERO && *slot.key == *key,
            None => false,
        }
    }

    /// Live keys of a range at a revision.
    #[must_use]
    pub fn count(&self, start: &[u8], end: Option<&[u8]>, at: Revision) -> u64 {
        let mut count = 0;
        self.scan(start, end, at, |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        count
    }

    /// How many versions there are of all keys together. Visits every one.
    #[must_use]
    pub fn versions(&self) -> u64 {
        let mut count = 0;
        for leaf in self.branches.iter().flat_map(|branch| &branch.node.leaves) {
            let mut entries = leaf.node.entries();
            while let Some(entry) = entries.next() {
                count += entry.versions().count() as u64;
            }
        }
        count
    }

    /// Drops what a compaction at the main revision `at` allows from up to `leaves_max` leaves, and says where to go on; `None`
    /// when the last leaf is done. Leaves without anything to drop are passed without a look inside.
    pub fn compact_step(
        &mut self,
        from: &Cursor,
        at: i64,
        leaves_max: usize,
        mut dropped: impl FnMut(&Version),
    ) -> Option<Cursor> {
        let mut b = child(&self.branches, &from.key, from.base);
        let mut l = child(&self.branches[b].node.leaves, &from.key, from.base);
        for _ in 0..leaves_max {
            let next = self
                .slot_behind(b, l)
                .map(|slot| Cursor { key: slot.key.clone(), base: slot.base });
            if self.branches[b].node.leaves[l].node.superseded() > 0 {
                self.compact_leaf(b, l, at, &mut dropped);
            }
            let next = next?;
            // Leaves may have gone: look the place up again rather than count.
            b = child(&self.branches, &next.key, next.base);
            l = child(&self.branches[b].node.leaves, &next.key, next.base);
        }
        let slot = &self.branches[b].node.leaves[l];
        Some(Cursor { key: slot.key.clone(), base: slot.base })
    }

    fn slot_behind(&self, b: usize, l: usize) -> Option<&Slot<Leaf>> {
        let next = self.branches[b].node.leaves.get(l + 1);
        next.or_else(|| self.branches.get(b + 1).map(|branch| &branch.node.leaves[0]))
    }

    /// Compacts one leaf; an empty one goes, a small one joins its left neighbour.
    fn compact_leaf(&mut self, b: usize, l: usize, at: i64, dropped: &mut impl FnMut(&Version)) {
        let leaf = &self.branches[b].node.leaves[l].node;
        let last_key = leaf.last_key();
        let continued = self.continues(b, l, &last_key);
        let newest = if continued { self.get(&last_key, Revision::end_of(at)) } else { None };
        let cut = Cut { at, last_key_newest: newest.map(|version| version.revision), continued };
        let mut any = false;
        let compacted = leaf.compacted(&cut, |version| {
            any = true;
            dropped(version);
        });
        if !any {
            return;
        }
        let branch = Arc::make_mut(&mut self.branches[b].node);
        if l > 0
            && branch.leaves[l - 1].node.bytes().len() + compacted.bytes().len()
                <= LEAF_BYTES_MAX / 2
        {
            Arc::make_mut(&mut branch.leaves[l - 1].node).absorb(&compacted);
            branch.leaves.remove(l);
            return;
        }
        if !compacted.bytes().is_empty() {
            branch.leaves[l].node = Arc::new(compacted);
            return;
        }
        self.remove_leaf(b, l);
    }

    /// Removes an empty leaf. The one behind takes over its least key where nothing stands before it, so that a least key
    /// stays a lower bound.
    fn remove_leaf(&mut self, b: usize, l: usize) {
        let branch = Arc::make_mut(&mut self.branches[b].node);
        if branch.leaves.len() > 1 {
            let gone = branch.leaves.remove(l);
            if l == 0 {
                (branch.leaves[0].key, branch.leaves[0].base) = (gone.key, gone.base);
            }
            return;
        }
        if self.branches.len() == 1 {
            *self = Index::new();
            return;
        }
        let gone = self.branches.remove(b);
        if b == 0 {
            let first = &mut self.branches[0];
            (first.key, first.base) = (gone.key.clone(), gone.base);
            let leaf = &mut Arc::make_mut(&mut first.node).leaves[0];
            (leaf.key, leaf.base) = (gone.key, gone.base);
        }
    }

    /// Memory that leaves and directories hold, allocator rounding aside.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        let mut bytes = 0;
        for branch in &self.branches {
            bytes += branch.node.leaves.capacity() * size_of::<Slot<Leaf>>();
            for slot in &branch.node.leaves {
                bytes += slot.node.resident_bytes() + slot.key.len();
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests;
