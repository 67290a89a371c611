//! The hashes of the last compactions: what HashKV answered at each of those revisions before it was compacted.
//!
//! A hash is comparable only under one compacted revision, so a compaction to R would change the answer of HashKV at R, on
//! one member earlier than on another. As in etcd (`server/storage/mvcc/hash.go`, `hashStorage`), the hash of R under the
//! compacted revision *before* is kept, and it is what HashKV at R answers from then on. This is a member's memory, no part
//! of the replicated state: empty after a start, and it ends with the rows that it vouches for.
//!
//! ```text
//!   begin ──► due: the rows of `previous` must stay ──record──► taken ──ten later ones──► forgotten
//! ```
//!
//! Where it parts from etcd: a hash that is still due is found as well, as the compacted revision to compute it under, so
//! that the answer does not depend on when it is asked for; a compaction that overtakes the one before it keeps its hash,
//! since rows that were meant to go never count; and revision 0 means now, although it may have been compacted to.

use std::collections::VecDeque;

use crate::{KeyValueHash, limits::COMPACTION_HASHES_MAX};

/// A compaction, as applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The compacted revision before; −1 if it was the first.
    pub previous: i64,
    /// The compacted revision from then on.
    pub revision: i64,
}

/// What is known of the hash of a revision that was compacted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionHash {
    /// It was taken.
    Taken(KeyValueHash),
    /// It will be; until then the rows are there from which HashKV computes it under this compacted revision.
    Due {
        /// The compacted revision before.
        previous: i64,
    },
}

/// The last [`COMPACTION_HASHES_MAX`] compactions, in order, with the hashes that were taken.
#[derive(Clone, Debug)]
pub struct CompactionHashes {
    /// The last compacted revision.
    last: i64,
    slots: VecDeque<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    of: Compacted,
    hash: Option<KeyValueHash>,
}

impl CompactionHashes {
    /// No hash, for a store that is compacted at `compacted` (−1 = never).
    #[must_use]
    pub fn new(compacted: i64) -> Self {
        Self { last: compacted, slots: VecDeque::new() }
    }

    /// A compaction was applied: its hash is due. The oldest makes room, whether it was taken or not.
    ///
    /// # Panics
    /// If one was left out (INV-M2).
    pub fn begin(&mut self, of: Compacted) {
        assert!(
            of.previous == self.last && of.revision > of.previous,
            "INV-M2: a compaction from {} to {} came after one to {}",
            of.previous,
            of.revision,
            self.last
        );
        self.last = of.revision;
        if of.revision <= 0 {
            // Nothing lies at or below 0, and nobody can ask for its hash.
            return;
        }
        if self.slots.len() == COMPACTION_HASHES_MAX {
            self.slots.pop_front();
        }
        self.slots.push_back(Slot { of, hash: None });
    }

    /// The oldest compaction whose hash is due.
    #[must_use]
    pub fn due(&self) -> Option<Compacted> {
        self.slots.iter().find(|slot| slot.hash.is_none()).map(|slot| slot.of)
    }

    /// How far physical compaction may go: what lies below is in no hash that is due.
    #[must_use]
    pub fn floor(&self) -> i64 {
        self.due().map_or(self.last, |of| of.previous)
    }

    /// Keeps a hash, unless its compaction is forgotten already.
    pub fn record(&mut self, hash: KeyValueHash) {
        let KeyValueHash { compact_revision: previous, hash_revision: revision, .. } = hash;
        let of = Compacted { previous, revision };
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.of == of) {
            slot.hash = Some(hash);
        }
    }

    /// What HashKV at a revision that was compacted to goes by; none if there was no such compaction, or too long ago.
    #[must_use]
    pub fn find(&self, revision: i64) -> Option<CompactionHash> {
        let slot = self.slots.iter().find(|slot| slot.of.revision == revision)?;
        Some(match slot.hash {
            Some(hash) => CompactionHash::Taken(hash),
            None => CompactionHash::Due { previous: slot.of.previous },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(previous: i64, revision: i64) -> Compacted {
        Compacted { previous, revision }
    }

    fn hash(previous: i64, revision: i64) -> KeyValueHash {
        let hash = u32::try_from(revision).unwrap();
        KeyValueHash { hash, compact_revision: previous, hash_revision: revision }
    }

    #[test]
    fn a_hash_is_due_then_taken_and_only_then_may_its_rows_go() {
        let mut hashes = CompactionHashes::new(-1);
        assert_eq!((hashes.due(), hashes.floor(), hashes.find(5)), (None, -1, None));
        hashes.begin(of(-1, 5));
        hashes.begin(of(5, 9));
        assert_eq!(hashes.find(5), Some(CompactionHash::Due { previous: -1 }));
        assert_eq!(hashes.find(9), Some(CompactionHash::Due { previous: 5 }));
        assert_eq!((hashes.due(), hashes.floor()), (Some(of(-1, 5)), -1));
        hashes.record(hash(-1, 5));
        assert_eq!(hashes.find(5), Some(CompactionHash::Taken(hash(-1, 5))));
        assert_eq!((hashes.due(), hashes.floor()), (Some(of(5, 9)), 5));
        hashes.record(hash(5, 9));
        assert_eq!((hashes.due(), hashes.floor()), (None, 9));
        assert_eq!(hashes.find(6), None);
    }

    #[test]
    fn the_eleventh_makes_room_and_what_comes_for_a_forgotten_one_is_dropped() {
        let mut hashes = CompactionHashes::new(0);
        for revision in 1..=10 {
            hashes.begin(of(revision - 1, revision));
        }
        hashes.record(hash(1, 2));
        assert_eq!(hashes.floor(), 0, "the first is still due");
        hashes.begin(of(10, 11));
        assert_eq!(hashes.find(1), None);
        assert_eq!((hashes.due(), hashes.floor()), (Some(of(2, 3)), 2), "the second was taken");
        hashes.record(hash(0, 1));
        assert_eq!(hashes.find(1), None);
        for revision in 3..=11 {
            hashes.record(hash(revision - 1, revision));
        }
        assert_eq!((hashes.due(), hashes.floor()), (None, 11));
        assert_eq!((2..=11).filter_map(|revision| hashes.find(revision)).count(), 10);
    }

    #[test]
    fn a_hash_under_another_compacted_revision_fits_nowhere() {
        let mut hashes = CompactionHashes::new(3);
        hashes.begin(of(3, 8));
        hashes.record(hash(2, 8));
        assert_eq!(hashes.due(), Some(of(3, 8)));
    }

    #[test]
    fn revision_zero_means_now_even_if_it_was_compacted_to() {
        let mut hashes = CompactionHashes::new(-1);
        hashes.begin(of(-1, 0));
        assert_eq!((hashes.find(0), hashes.due(), hashes.floor()), (None, None, 0));
        hashes.begin(of(0, 4));
        assert_eq!(hashes.due(), Some(of(0, 4)));
    }

    #[test]
    #[should_panic(expected = "INV-M2: a compaction from 4 to 6 came after one to 3")]
    fn no_compaction_is_left_out() {
        CompactionHashes::new(3).begin(of(4, 6));
    }
}
