//! Files behind a [`disk::Disk`]: the write-ahead log, the rows, their index, checkpoints, generations.
//!
//! # What this room is
//!
//! Everything of a member that survives it. Two things are stored, and they never wait for each other:
//!
//! ```text
//!  data directory ─┬─ WAL segments        what consensus decided, durable before anybody hears of it
//!                  ├─ manifest            which generation is in use
//!                  └─ gen-N/ ─┬─ rows-…   what the machine made of it: one row per change, in revision order
//!                             └─ checkpoint   the index and the machine's small state at one applied index
//! ```
//!
//! *State = checkpoint + deterministic replay.* Rows and index are not recovered each for itself. A checkpoint at applied
//! index A names the rows segments with their lengths, holds the whole index and the machine's small state as bytes that only
//! the machine reads. A restart loads it, cuts the rows back to what it names, removes what it does not name, and the machine
//! applies the WAL from A + 1 again, which appends the same rows again (INV-M2). So rows are synced only before a checkpoint
//! is published, applied index and data are durable in one rename (INV-S1), and the WAL is kept back to the
//! last published checkpoint.
//!
//! # Rooms within
//!
//! - [`disk`]: the seam to the file system, and the disk of tests and the simulator, which loses and tears.
//! - [`index`]: key → versions in memory (ADR 2). Knows no files.
//! - [`rows`]: segments of rows, the store that the machine writes, the readers that everybody else has, compaction.
//! - [`checkpoint`]: the file format of a checkpoint, its writer in steps and its reader.
//! - [`wal`]: the log: one write and one sync a batch, recovery that cuts or refuses, old entries for followers.
//! - [`manifest`], [`directory`]: the file that says what counts, the lock, the switch of generations.
//! - [`prepare`], [`recovery`]: how a data directory begins, and what a start makes of whatever is there.
//! - [`corrupt_mark`]: what a member that met damage leaves, so that its next start looks at everything ([`rows::Scrub`]).
//! - [`identity`]: ids of members and clusters, hashed as etcd hashes them.
//!
//! # What this room does not know
//!
//! Threads and time: everything is a synchronous step that the shell gives to a thread and the simulator to its schedule. What a
//! command means, who is leader, what a client asked. The bytes of a `KeyValue` are the machine's, except that the key comes
//! first in them.
//!
//! # Invariants
//!
//! - **INV-S1** applied index and data are durable together: both are in the checkpoint, published by one rename.
//! - **INV-S2** a torn tail is cut, damage in the middle is fatal: rows beyond a checkpoint are cut unread, rows and frames that it
//!   names must have their checksum.
//! - **INV-S3** a failed write or sync is fatal and never retried: the first one is kept and every later step returns it.
//! - **INV-R5** synced rows ≤ applied ≤ own durable log: a checkpoint is not published before the log holds its index durably.
//! - **INV-M1** a key's versions rise.
//!
//! # Left out, and why
//!
//! mmap (an I/O error would be a signal), a cache of rows (the page cache is one), per-row recovery (the WAL has it all),
//! incremental checkpoints and an index on disk (ADR 2), compression.

pub mod checkpoint;
pub mod corrupt_mark;
pub mod damage;
pub mod directory;
pub mod disk;
mod fields;
pub mod identity;
pub mod index;
pub mod limits;
pub mod manifest;
pub mod prepare;
pub mod recovery;
pub mod rows;
mod sealed;
mod varint;
pub mod wal;
