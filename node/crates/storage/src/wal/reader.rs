//! Reads old entries from the WAL's segments, on any thread, while the writer goes on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_consensus::{Entry, LogIndex};

use super::frame::Frame;
use super::hold::{Hold, Holds};
use super::map::{LogMap, Region};
use super::segment::segment_path;
use super::window::{Found, Window};
use crate::damage::Damage;
use crate::limits::{FETCH_ATTEMPTS_MAX, FETCH_READ_BYTES};

/// Fetches entries that are durable in the WAL. Clones share one map; only looking something up takes its lock.
#[derive(Clone)]
pub struct WalReader {
    pub(crate) directory: Arc<PathBuf>,
    pub(crate) map: Arc<Mutex<LogMap>>,
    pub(crate) holds: Holds,
}

/// Why entries that are in the log could not be read. Both mean that this member must stop.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The disk refused to read.
    #[error(
        "reading old entries from {path} failed: the log cannot be served; check the disk, then start again"
    )]
    Disk {
        /// The segment.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error(transparent)]
    Corrupt(#[from] Damage),
}

/// What one look into a segment gave.
enum Read {
    Entries,
    /// The cost is reached.
    Enough,
    /// The bytes are of somebody else by now, or damaged: the map knows which.
    Unreadable {
        offset: u64,
    },
}

impl WalReader {
    /// Entries from `from` to `to`, consecutive, of at most `bytes_max` in cost but at least one. Empty when `from` is
    /// not there: purged, not durable yet, or just being replaced by another leader.
    ///
    /// # Errors
    /// When the disk fails or the bytes are damaged. Neither passes by itself.
    pub fn fetch(
        &self,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, FetchError> {
        for _ in 0..FETCH_ATTEMPTS_MAX {
            if let Some(entries) = self.try_fetch(from, to, bytes_max)? {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }

    /// `None` when entries were replaced or purged while it read.
    fn try_fetch(
        &self,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Option<Vec<Entry>>, FetchError> {
        let mut wanted = Wanted { next: from, to, bytes_left: bytes_max, entries: Vec::new() };
        let mut replacements = None;
        while wanted.next <= to {
            let Some(region) = self.map.lock().locate(wanted.next) else { break };
            if *replacements.get_or_insert(region.replacements) != region.replacements {
                return Ok(None);
            }
            let read = wanted.read(&region);
            if !self.map.lock().still_valid(&region) {
                return Ok(None);
            }
            let path = || segment_path(&self.directory, region.segment.number);
            match read.map_err(|source| FetchError::Disk { path: path(), source })? {
                Read::Entries => {}
                Read::Enough => break,
                Read::Unreadable { offset } => {
                    let what = "a frame that was durable does not match its checksum";
                    return Err(Damage::new(path(), offset, what).into());
                }
            }
        }
        Ok(Some(wanted.entries))
    }

    /// The first and the last index that can be fetched; the first is behind the last when there are none.
    #[must_use]
    pub fn bounds(&self) -> (LogIndex, LogIndex) {
        let map = self.map.lock();
        (map.base().next(), map.last())
    }

    /// Keeps the entries from `index` on from being purged, while a transfer that ends there is under way. `None` when
    /// the entry is gone already, or too many hold.
    #[must_use]
    pub fn hold(&self, index: LogIndex) -> Option<Hold> {
        // The hold first, the look second: a purge between the two then sees the hold.
        let hold = self.holds.take(index)?;
        (index > self.map.lock().base()).then_some(hold)
    }

    /// Bytes of frames and headers in all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.map.lock().segments().map(|segment| segment.end).sum()
    }
}

struct Wanted {
    next: LogIndex,
    to: LogIndex,
    bytes_left: usize,
    entries: Vec<Entry>,
}

impl Wanted {
    fn read(&mut self, region: &Region) -> io::Result<Read> {
        let segment = &region.segment;
        let last = region.last.min(self.to);
        let mut window = Window::new(segment.file.clone(), FETCH_READ_BYTES)?;
        let (mut offset, mut sequence) = (region.offset, region.sequence);
        while self.next <= last {
            if offset >= segment.end {
                return Ok(Read::Unreadable { offset });
            }
            let Found::Frame(header, body) = window.frame(offset, segment.epoch, sequence)? else {
                return Ok(Read::Unreadable { offset });
            };
            let Ok(frame) = Frame::decode(&header, body) else {
                return Ok(Read::Unreadable { offset });
            };
            for entry in frame.entries {
                if entry.index < self.next {
                    continue;
                }
                if entry.index > self.next {
                    return Ok(Read::Unreadable { offset });
                }
                if entry.index > last {
                    break;
                }
                if entry.cost() > self.bytes_left && !self.entries.is_empty() {
                    return Ok(Read::Enough);
                }
                self.bytes_left = self.bytes_left.saturating_sub(entry.cost());
                self.next = entry.index.next();
                self.entries.push(entry);
            }
            offset += header.stride();
            sequence += 1;
        }
        Ok(Read::Entries)
    }
}
