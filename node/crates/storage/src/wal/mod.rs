//! The write-ahead log: records in, durable when `sync` returns, found again after a crash.
//!
//! ```text
//!   records ──► Batch ──► one frame ──► one write ──► one sync ──► durable: acknowledged, readable
//!               merged    one CRC       write()       sync()
//! ```
//!
//! One thread owns the [`Wal`] and alternates [`Wal::write`] and [`Wal::sync`]; any thread reads old entries through a
//! [`WalReader`]; one more may fill spare segments through a [`SpareFiller`]. Nothing here starts a thread.
//!
//! # What a crash can do, and what recovery makes of it
//!
//! The next frame is not written before the sync of the last one returned. So at most **one** frame is not durable when
//! the machine stops, it is the last one, and nobody was told of it. Recovery reads frame after frame; each must have
//! the segment's epoch (random, so that bytes from before a file was recycled never count), the next sequence and a
//! checksum that holds. Where that ends, it searches the rest of the segment for the front of any *later* frame of the
//! same epoch, whole or not:
//!
//! - one is found: the frame before it had been durable, so this is damage, and fatal (INV-S2);
//! - none is found: the frame was being written when the machine stopped. It is cut off and reported.
//!
//! A segment that is not the last must end exactly where the next one's header says it does. A segment gets its name
//! only when its header is durable, so a damaged header is never mistaken for one that was not finished.
//!
//! **The one ambiguity.** Damage to the last frame of the log, or to all frames behind a point, looks like a frame
//! that was being written, and is cut off though it was acknowledged. It is noticed all the same when the checkpoint
//! or the commit index of an earlier frame lies behind the cut. [`Wal::close`] puts an empty frame behind the last record, so after an
//! orderly stop only that empty frame can be lost so. What is lost is then lost at one member, as if its disk had
//! ignored a sync; no design with the log in one place can tell the two apart.
//!
//! # Failures
//!
//! A failed write or sync leaves unknown what is on disk, and a second sync may report success for pages that the
//! kernel has thrown away. So it is fatal: the log refuses everything after it (INV-S3). Since such pages may still be
//! *seen* after the process starts again, recovery writes the last frame once more before it believes it.

mod frame;
mod header;
mod hold;
mod map;
mod reader;
mod scan;
mod segment;
mod window;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::{Path, PathBuf};

#[cfg(test)]
pub(crate) use header::HEADER_BYTES;
pub use header::WAL_FORMAT;
pub use hold::Hold;
pub use reader::{FetchError, WalReader};
pub use scan::TornTail;
pub(crate) use scan::{Anchor, ScanError, Scanned, scan};
pub use segment::SpareFiller;
pub(crate) use segment::Spares;
pub use writer::{Durable, Purged, Wal};

use crate::identity::ClusterId;
use crate::limits;
use quorate_consensus::MemberId;

/// Sizes of the WAL, in bytes, and the seed of its epochs.
#[derive(Clone, Debug)]
pub struct WalSettings {
    /// A segment; a larger frame gets a segment of its own size.
    pub segment_bytes: u64,
    /// Kept behind the checkpoint for slow followers.
    pub keep_bytes: u64,
    /// Beyond this, holds no longer keep segments.
    pub held_bytes_max: u64,
    /// Cost of the committed entries that recovery hands over in memory; older ones are fetched.
    pub recovered_bytes_max: usize,
    /// Random for each start of the process: the epochs of the segments that it begins are drawn from it.
    pub epoch_seed: u64,
}

impl WalSettings {
    /// The sizes of [`crate::limits`].
    #[must_use]
    pub fn new(epoch_seed: u64) -> Self {
        Self {
            segment_bytes: limits::SEGMENT_BYTES,
            keep_bytes: limits::WAL_KEEP_BYTES,
            held_bytes_max: limits::WAL_HELD_BYTES_MAX,
            recovered_bytes_max: limits::RECOVERED_BYTES_MAX,
            epoch_seed,
        }
    }
}

/// Whose log it is; every segment says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
    /// The incarnation of its data directory.
    pub incarnation: u64,
}

/// Why the log cannot go on. All but [`WalError::TooLarge`] mean that this process must stop.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A call to the disk failed.
    #[error(
        "cannot {action} {path}: what is durable is now unknown, so this member stops; free space or repair the disk, \
         then start it again"
    )]
    Disk {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier call failed; nothing is tried after that.
    #[error(
        "the log failed before and takes nothing more; this process must stop and recover from disk"
    )]
    Failed,
    /// The batch does not fit into a frame. Nothing was written; the log goes on.
    #[error(
        "a batch of {bytes} bytes exceeds the {max} bytes of a frame; write fewer records at a time"
    )]
    TooLarge {
        /// What the batch would take.
        bytes: usize,
        /// What a frame may take.
        max: usize,
    },
}

impl WalError {
    /// Turns an I/O error into a [`WalError::Disk`].
    pub(crate) fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Disk { action, path, source }
    }
}
