//! The rows: every change of every key in revision order, in append-only segments, and the store built of them.
//!
//! ```text
//!  apply thread ── RowStore ──append──► pending ──flush──► active segment │ sealed segment │ sealed segment ...
//!                     │                                                         ▲
//!                     └─► index (one write lock per put) ◄── Compaction ────────┘ drops versions, rewrites segments
//!                             ▲
//!  everybody else ── RowReader┘ (a read lock per page of keys; rows are read without any lock)
//! ```
//!
//! Lock order: index, then table. Nobody reads or writes a file while holding either, but for the apply thread's own flush,
//! which holds none.

mod compaction;
mod cursor;
pub(crate) mod frame;
mod pins;
mod reader;
mod scrub;
pub(crate) mod segment;
mod shared;
mod store;

use std::io;
use std::path::{Path, PathBuf};

use quorate_machine::ReadFault;

use crate::damage::Damage;
use crate::limits::{CHECKPOINT_DUE_BYTES, ROWS_SEGMENT_BYTES};
pub use compaction::{Compaction, Work};
pub use frame::ROWS_FORMAT;
pub use pins::{Pin, PinRefused};
pub use reader::{RowReader, Sizes};
pub use scrub::Scrub;
pub(crate) use shared::Shared;
pub use store::{Opened, RowStore};

/// What tests and the simulator choose smaller than a server would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSettings {
    /// A segment is full above this.
    pub segment_bytes: u32,
    /// A checkpoint is due after so many bytes of rows, or half the last checkpoint if that is more.
    pub checkpoint_due_bytes: u64,
}

impl Default for RowSettings {
    fn default() -> RowSettings {
        RowSettings {
            segment_bytes: ROWS_SEGMENT_BYTES,
            checkpoint_due_bytes: CHECKPOINT_DUE_BYTES,
        }
    }
}

/// Why rows, index or checkpoint cannot be read or written. Any is fatal (INV-S3): the process stops.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A call to the disk failed.
    #[error(
        "cannot {action} {path}: what is durable is now unknown, so this member stops; free space or repair the disk, \
         then start it again"
    )]
    Disk {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes are not what was written; the verdict is `Corrupt`.
    #[error(transparent)]
    Corrupt(#[from] Damage),
    /// The data was written by a later version; the verdict is `FormatTooNew`.
    #[error(
        "{path} has format {format} and this version knows none above {known}: a later version wrote it; start that version again, or \
         remove this member, empty its data directory and add it again"
    )]
    FormatTooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The latest format known here.
        known: u32,
    },
    /// An earlier write failed.
    #[error(
        "an earlier write of rows or checkpoint failed; this process must stop and recover from disk"
    )]
    Failed,
}

impl StoreError {
    /// Makes an error of what the system said.
    pub(crate) fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_path_buf();
        move |source| StoreError::Disk { action, path, source }
    }

    /// The same for the machine, which knows no files.
    pub(crate) fn into_fault(self) -> ReadFault {
        let message = match &self {
            StoreError::Disk { source, .. } => format!("{self}: {source}"),
            StoreError::Corrupt(_) | StoreError::FormatTooNew { .. } | StoreError::Failed => {
                self.to_string()
            }
        };
        ReadFault { message }
    }
}

#[cfg(test)]
mod tests;
