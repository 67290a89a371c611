//! Reads runs of a segment through a buffer, so that small frames cost no system call each.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::disk::DiskFile;

/// A moving view of one file.
pub(crate) struct Window {
    file: Arc<dyn DiskFile>,
    length: u64,
    read_bytes: usize,
    start: u64,
    buffer: Bytes,
}

/// What stands at an offset.
pub(crate) enum Found {
    /// A frame of the chain asked for, whole.
    Frame(FrameHeader, Bytes),
    /// The front of a frame of the same segment, but not the frame asked for as it was written: its body does not match
    /// or is cut off, or, since a front may lie across two sectors, the rest of its front is older than its beginning.
    Torn(FrameHeader),
    /// Nothing of this segment: zeros, or what the file held before it was recycled.
    Nothing,
}

impl Window {
    pub(crate) fn new(file: Arc<dyn DiskFile>, read_bytes: usize) -> io::Result<Self> {
        let length = file.len()?;
        Ok(Self { file, length, read_bytes, start: 0, buffer: Bytes::new() })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// `count` bytes at `offset`, or fewer where the file ends.
    pub(crate) fn bytes(&mut self, offset: u64, count: usize) -> io::Result<Bytes> {
        let available = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = count.min(available);
        let held =
            offset >= self.start && offset + count as u64 <= self.start + self.buffer.len() as u64;
        if !held {
            let mut buffer = BytesMut::zeroed(self.read_bytes.max(count).min(available));
            let read = self.file.read_at(offset, &mut buffer)?;
            if read < count {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter while it was read",
                ));
            }
            buffer.truncate(read);
            (self.start, self.buffer) = (offset, buffer.freeze());
        }
        let from = usize::try_from(offset - self.start).expect("within the buffer");
        Ok(self.buffer.slice(from..from + count))
    }

    /// What stands at `offset`, where the frame `sequence` of the segment with this epoch belongs.
    pub(crate) fn frame(&mut self, offset: u64, epoch: u64, sequence: u64) -> io::Result<Found> {
        let front = self.bytes(offset, FRAME_HEADER_BYTES)?;
        let Some(header) = FrameHeader::parse(&front).filter(|header| header.epoch == epoch) else {
            return Ok(Found::Nothing);
        };
        let body_at = offset + FRAME_HEADER_BYTES as u64;
        if header.sequence != sequence || body_at + u64::from(header.body_bytes) > self.length {
            return Ok(Found::Torn(header));
        }
        let body = self.bytes(body_at, header.body_bytes as usize)?;
        if header.matches(&front, &body) {
            Ok(Found::Frame(header, body))
        } else {
            Ok(Found::Torn(header))
        }
    }
}
