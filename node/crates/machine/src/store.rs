//! The seam to storage: how the machine reads keys and appends rows. Storage implements it; tests bring a model.

use std::{fmt, ops::ControlFlow};

use bytes::Bytes;

use crate::{EncodedKeyValue, KeyRange, Revision};

/// One version of a key as the index knows it: everything but lease and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The revision of this put.
    pub modified: Revision,
    /// The main revision of the key's creation.
    pub created: i64,
    /// Counts puts since the creation, from 1.
    pub version: i64,
    /// Where the row is; storage's own.
    pub row: RowAddress,
}

/// Where a row is: a segment and a place in it. Opaque to the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowAddress {
    /// The segment's number.
    pub segment: u32,
    /// The byte at which the row's frame starts.
    pub offset: u32,
}

/// A read of the disk failed or its bytes are not what was written: fatal (INV-S3), the process stops with the
/// verdict `Corrupt` or `DiskFailed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFault {
    /// What happened, where, and what to do.
    pub message: String,
}

impl fmt::Display for ReadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadFault {}

/// Reading at a revision. `at` is always given and everything newer is ignored, so readers need no lock against
/// later writes (design §3 Reads).
pub trait View {
    /// The newest version of `key` at `at`; none if it does not exist or was deleted by then.
    ///
    /// # Errors
    /// A failed read.
    fn lookup(&self, key: &[u8], at: Revision) -> Result<Option<Version>, ReadFault>;

    /// Visits the keys of `range` that exist at `at`, in key order, with their newest version then, until the visitor
    /// breaks. One step per key, not per version.
    ///
    /// # Errors
    /// A failed read.
    fn scan(
        &self,
        range: &KeyRange,
        at: Revision,
        visit: &mut dyn FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) -> Result<(), ReadFault>;

    /// How many keys of `range` exist at `at`.
    ///
    /// # Errors
    /// A failed read.
    fn count(&self, range: &KeyRange, at: Revision) -> Result<u64, ReadFault> {
        let mut count = 0;
        self.scan(range, at, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// The pair that a version stands for. `key` helps to find the row again if it moved since the version was looked up.
    ///
    /// # Errors
    /// A failed read, or a row that has been reclaimed.
    fn read(&self, key: &[u8], version: &Version) -> Result<EncodedKeyValue, ReadFault>;

    /// Visits the rows with `from` ≤ revision ≤ `to` in revision order, tombstones included, until the visitor breaks.
    /// Rows that compaction has superseded (at or below the compacted revision) may or may not be visited; rows above it all are.
    ///
    /// # Errors
    /// A failed read.
    fn rows(
        &self,
        from: Revision,
        to: Revision,
        visit: &mut dyn FnMut(&RowView<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadFault>;
}

/// A row as it stands on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowView<'a> {
    /// Its revision.
    pub revision: Revision,
    /// Whether it is a deletion.
    pub tombstone: bool,
    /// The key.
    pub key: &'a [u8],
    /// The encoded pair.
    pub kv: &'a Bytes,
}

/// A row to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its revision; greater than every earlier row's.
    pub revision: Revision,
    /// The key.
    pub key: Bytes,
    /// The encoded pair (for a deletion: key and mod_revision… exactly what etcd stores, the key only).
    pub kv: EncodedKeyValue,
    /// Main revision of the key's creation; 0 for a deletion.
    pub created: i64,
    /// The version count; 0 for a deletion.
    pub version: i64,
    /// Whether it is a deletion.
    pub tombstone: bool,
}

/// What apply needs: reading (its own unfinished write included) and appending. Only the apply thread holds one.
pub trait Store: View {
    /// What readers on other threads use; cheap to clone.
    type Reader: View + Clone + Send + Sync + 'static;

    /// A reader of what has been published.
    fn reader(&self) -> Self::Reader;

    /// Appends a row and makes it visible to this store's own reads at once, to readers when they read at its revision.
    fn append(&mut self, row: Row);

    /// History before `revision` may be forgotten: superseded versions go in the background, at this member's own pace.
    fn compact(&mut self, revision: i64);
}
