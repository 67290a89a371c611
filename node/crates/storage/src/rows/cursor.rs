//! A walk over the rows of one segment, in the order in which they stand.

use std::sync::Arc;

use bytes::Bytes;
use quorate_machine::Revision;

use crate::damage::Damage;
use crate::rows::StoreError;
use crate::rows::frame::{ROW_HEADER_BYTES, RowHeader, key_of};
use crate::rows::segment::SegmentFile;

/// Where a walk is.
pub(crate) struct RowCursor {
    file: Arc<SegmentFile>,
    at: u32,
    end: u32,
    read_bytes: usize,
    /// What has been read and not yet walked; begins at `at`.
    chunk: Bytes,
}

/// A row of a walk.
pub(crate) struct WalkedRow {
    /// Where its frame begins.
    pub(crate) offset: u32,
    pub(crate) revision: Revision,
    pub(crate) tombstone: bool,
    /// The whole frame.
    pub(crate) frame: Bytes,
}

impl WalkedRow {
    /// The encoded pair.
    pub(crate) fn kv(&self) -> Bytes {
        self.frame.slice(ROW_HEADER_BYTES..)
    }
}

impl RowCursor {
    /// A walk over `at..end`, which reads `read_bytes` at once.
    pub(crate) fn new(file: Arc<SegmentFile>, at: u32, end: u32, read_bytes: usize) -> RowCursor {
        RowCursor { file, at, end, read_bytes, chunk: Bytes::new() }
    }

    /// The next row, checked.
    pub(crate) fn next(&mut self) -> Result<Option<WalkedRow>, StoreError> {
        if self.at == self.end {
            return Ok(None);
        }
        self.need(ROW_HEADER_BYTES)?;
        let header: &[u8; ROW_HEADER_BYTES] =
            self.chunk[..ROW_HEADER_BYTES].try_into().expect("as many bytes as needed");
        let Some(header) = RowHeader::read(header) else {
            return Err(self.damage("a row should begin here"));
        };
        self.need(header.frame_len())?;
        let frame = self.chunk.slice(..header.frame_len());
        if !header.holds(&frame) {
            return Err(self.damage("the row here does not have its checksum"));
        }
        if key_of(&frame[ROW_HEADER_BYTES..]).is_none() {
            return Err(self.damage("the row here has no key"));
        }
        let RowHeader { revision, tombstone, .. } = header;
        let row = WalkedRow { offset: self.at, revision, tombstone, frame };
        self.chunk = self.chunk.slice(header.frame_len()..);
        self.at += header.frame_len() as u32;
        Ok(Some(row))
    }

    /// Whether a next row would be read from memory.
    pub(crate) fn has_buffered(&self) -> bool {
        !self.chunk.is_empty()
    }

    /// Reads until `bytes` are there.
    fn need(&mut self, bytes: usize) -> Result<(), StoreError> {
        if self.chunk.len() >= bytes {
            return Ok(());
        }
        let left = (self.end - self.at) as usize;
        if bytes > left {
            return Err(self.damage("the row here claims more bytes than its segment has"));
        }
        let mut buffer = vec![0; bytes.max(self.read_bytes).min(left)];
        let path = &self.file.path;
        let read = self.file.file.read_at(u64::from(self.at), &mut buffer);
        let read = read.map_err(StoreError::disk("read", path))?;
        if read < buffer.len() {
            return Err(self.damage("the file ends early"));
        }
        self.chunk = Bytes::from(buffer);
        Ok(())
    }

    fn damage(&self, what: &str) -> StoreError {
        Damage::new(self.file.path.clone(), u64::from(self.at), what).into()
    }
}
