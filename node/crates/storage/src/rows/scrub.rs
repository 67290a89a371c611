//! A look at everything that a store holds, in steps: every row is read, and every version of the index must name one of them.

use std::sync::Arc;

use quorate_machine::Revision;

use crate::damage::Damage;
use crate::index::RowAt;
use crate::limits::ROWS_READ_BYTES;
use crate::rows::compaction::Work;
use crate::rows::cursor::{RowCursor, WalkedRow};
use crate::rows::frame::{SEGMENT_HEADER_BYTES, key_of};
use crate::rows::segment::SegmentFile;
use crate::rows::{Shared, StoreError};

/// A scrub of a store that nobody writes meanwhile. It holds [`ROWS_READ_BYTES`], or one row if that is more.
pub struct Scrub {
    shared: Arc<Shared>,
    /// Those that are not begun, with their lengths.
    segments: std::vec::IntoIter<(Arc<SegmentFile>, u32)>,
    reading: Option<(Arc<SegmentFile>, RowCursor)>,
    last: Option<Revision>,
    /// Versions of the index whose row was found.
    found: u64,
    bytes: u64,
    bytes_total: u64,
}

impl Scrub {
    pub(crate) fn new(shared: Arc<Shared>) -> Scrub {
        let segments: Vec<_> = {
            let table = shared.table.read();
            table.ordered().map(|segment| (segment.file.clone(), segment.bytes)).collect()
        };
        let header = SEGMENT_HEADER_BYTES as u64;
        let bytes_total = segments.iter().map(|(_, bytes)| u64::from(*bytes) - header).sum();
        let segments = segments.into_iter();
        Scrub { shared, segments, reading: None, last: None, found: 0, bytes: 0, bytes_total }
    }

    /// Looks at what one read of the disk brings. [`Work::None`]: that was all, and all is whole.
    ///
    /// # Errors
    /// Damage, or a read that fails.
    pub fn step(&mut self) -> Result<Work, StoreError> {
        let Some((file, mut cursor)) = self.reading.take() else {
            let Some((file, bytes)) = self.segments.next() else {
                return self.end().map(|()| Work::None);
            };
            let start = SEGMENT_HEADER_BYTES as u32;
            let cursor = RowCursor::new(file.clone(), start, bytes, ROWS_READ_BYTES);
            self.reading = Some((file, cursor));
            return Ok(Work::Some);
        };
        let mut row = cursor.next()?;
        while let Some(found) = row {
            self.look_at(&file, &found)?;
            if !cursor.has_buffered() {
                self.reading = Some((file, cursor));
                return Ok(Work::Some);
            }
            row = cursor.next()?;
        }
        Ok(Work::Some)
    }

    /// Bytes of rows looked at, and of all rows.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.bytes, self.bytes_total)
    }

    /// The cursor has seen to its checksum; here it is held against the rows before it and against the index.
    fn look_at(&mut self, file: &SegmentFile, row: &WalkedRow) -> Result<(), StoreError> {
        let damage = |what: &str| Damage::new(file.path.clone(), u64::from(row.offset), what);
        if self.last.is_some_and(|last| last >= row.revision) {
            return Err(damage("the row here is not younger than the one before it").into());
        }
        self.last = Some(row.revision);
        let kv = row.kv();
        let key = key_of(&kv).expect("the cursor has found the key");
        let known = self.shared.index.read().get(key, row.revision);
        if let Some(known) = known.filter(|known| known.revision == row.revision) {
            let len = row.frame.len() as u32;
            let at = RowAt { segment: file.id, offset: row.offset, len };
            if (known.at, known.tombstone) != (at, row.tombstone) {
                return Err(damage("the row here is not the one that the index expects").into());
            }
            self.found += 1;
        }
        self.bytes += row.frame.len() as u64;
        Ok(())
    }

    fn end(&self) -> Result<(), StoreError> {
        let versions = self.shared.index.read().versions();
        if versions != self.found {
            let found = self.found;
            let what =
                format!("the index names {versions} rows, and {found} of them are in the segments");
            return Err(Damage::new(self.shared.directory.clone(), 0, what).into());
        }
        Ok(())
    }
}
