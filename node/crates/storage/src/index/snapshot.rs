//! The index frozen at one moment: given away leaf by leaf to a checkpoint, put together again from its leaves.

use std::sync::Arc;

use quorate_machine::Revision;

use super::leaf::Leaf;
use super::{Branch, Index, Slot};
use crate::limits::BRANCH_LEAVES_MAX;

/// A frozen index, given away leaf by leaf: what has been taken is no longer held, so that the longer a checkpoint
/// takes, the fewer leaves its writers have to copy.
#[derive(Debug)]
pub struct Snapshot {
    branches: std::vec::IntoIter<Slot<Branch>>,
    leaves: std::vec::IntoIter<Slot<Leaf>>,
}

/// One leaf of a snapshot.
#[derive(Debug)]
pub struct FrozenLeaf(Slot<Leaf>);

/// One leaf, as a checkpoint holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafImage<'a> {
    /// Least key that the leaf may hold.
    pub key: &'a [u8],
    /// Least base of that key.
    pub base: Revision,
    /// Versions that a compaction might drop.
    pub superseded: u32,
    /// The packed entries.
    pub bytes: &'a [u8],
}

impl FrozenLeaf {
    /// What a checkpoint writes.
    #[must_use]
    pub fn image(&self) -> LeafImage<'_> {
        let Slot { key, base, node } = &self.0;
        LeafImage { key, base: *base, superseded: node.superseded(), bytes: node.bytes() }
    }
}

impl Index {
    /// The index as it is now, for a checkpoint; costs a clone of one pointer per branch. While it lives, a leaf's first write
    /// copies the leaf.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { branches: self.branches.clone().into_iter(), leaves: Vec::new().into_iter() }
    }
}

impl Iterator for Snapshot {
    type Item = FrozenLeaf;

    fn next(&mut self) -> Option<FrozenLeaf> {
        loop {
            if let Some(slot) = self.leaves.next() {
                return Some(FrozenLeaf(slot));
            }
            let branch = self.branches.next()?;
            self.leaves = Arc::unwrap_or_clone(branch.node).leaves.into_iter();
        }
    }
}

/// Puts an index together from the leaves of a snapshot, in their order.
#[derive(Debug, Default)]
pub struct Builder {
    branches: Vec<Slot<Branch>>,
    leaves: Vec<Slot<Leaf>>,
}

impl Builder {
    /// Adds the next leaf.
    pub fn push(&mut self, image: &LeafImage<'_>) {
        let leaf = Leaf::from_parts(image.bytes.to_vec(), image.superseded);
        self.leaves.push(Slot { key: image.key.into(), base: image.base, node: Arc::new(leaf) });
        // Not filled to the brim: the first split below would split the branch at once.
        if self.leaves.len() == BRANCH_LEAVES_MAX * 3 / 4 {
            self.close();
        }
    }

    fn close(&mut self) {
        if let Some(first) = self.leaves.first() {
            let (key, base) = (first.key.clone(), first.base);
            let node = Arc::new(Branch { leaves: std::mem::take(&mut self.leaves) });
            self.branches.push(Slot { key, base, node });
        }
    }

    /// The index.
    #[must_use]
    pub fn finish(mut self) -> Index {
        self.close();
        if self.branches.is_empty() {
            return Index::new();
        }
        Index { branches: self.branches }
    }
}
