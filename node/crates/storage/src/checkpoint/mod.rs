//! The checkpoint: one file that says what a generation holds at one applied index.
//!
//! ```text
//!   sealed header │ frame │ frame │ ... │ end frame
//!   applied index, term, revision, compaction, segments with lengths and marks
//!
//!   frame   length u32 │ crc32c u32 │ kind u8 │ body          kinds: 1 machine's small state, 2 leaves of the index, 3 end
//! ```
//!
//! The checksum of a frame continues the one before it, from the header's fields on: a frame that is missing, doubled or from
//! another file is damage. A checkpoint is written under another name, in steps, while apply goes on, and published by a rename:
//!
//! ```text
//!   capture (apply thread) ─► sync rows ─► write ─► sync ─► [own log durable up to the index] ─► rename ─► sync directory ─► remove what
//!                                                                                                           it no longer names
//! ```

mod format;
mod job;
mod load;

use quorate_consensus::{LogIndex, Term};

pub use format::CHECKPOINT_FORMAT;
pub(crate) use job::Capture;
pub use job::{CheckpointJob, Published, Step};
pub(crate) use load::load;
pub use load::machine_state;

/// The name of a generation's checkpoint.
pub const CHECKPOINT_NAME: &str = "checkpoint";

/// The name of a checkpoint that is not published.
pub(crate) const CHECKPOINT_NEW_NAME: &str = "checkpoint.new";

/// What a checkpoint is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointAt {
    /// The last applied index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The store's revision.
    pub revision: i64,
}
