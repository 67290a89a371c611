//! Every bound of this crate, each with its reason.

/// A leaf of the index is split above this. Measured (ADR 2): half as large costs 7 % more memory for directories and
/// allocator rounding, twice as large a sixth more CPU on the apply thread.
pub const LEAF_BYTES_MAX: usize = 4096;

/// Leaves grow by multiples of this. Small, since what a leaf does not fill is paid for once per leaf and never used.
pub const LEAF_GROWTH_BYTES: usize = 128;

/// Versions in one entry; a key with more has further entries. Bounds what a lookup decodes.
pub const VERSIONS_PER_ENTRY_MAX: usize = 16;

/// Leaves under one branch. Bounds what the first write under a branch copies while a snapshot is alive, and what a
/// snapshot clones (the branches, not the leaves).
pub const BRANCH_LEAVES_MAX: usize = 256;

/// A WAL segment, unless the settings say otherwise. Large enough that a rotation (two syncs and a directory sync) is
/// rare, small enough that little is kept for one old entry and that the search behind the last frame after a crash
/// takes milliseconds.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// What one frame may take. Consensus bounds a record far below; a larger batch is a defect of the caller and is
/// refused before anything is written.
pub const FRAME_BYTES_MAX: usize = 512 << 20;

/// The frame buffer is given back above this after an unusually large batch.
pub const FRAME_BUFFER_BYTES_KEPT: usize = 4 << 20;

/// One mark of the WAL's map for this many bytes: 1024 marks, 32 KB, for a full segment, and a fetch reads at most
/// this much (and one frame) more than it was asked for.
pub const MARK_SPACING_BYTES: u64 = 64 << 10;

/// How much of a segment is read at once for a fetch.
pub const FETCH_READ_BYTES: usize = 128 << 10;

/// How much of a segment is read at once by recovery.
pub const RECOVERY_READ_BYTES: usize = 1 << 20;

/// WAL kept behind the checkpoint for slow followers, unless the settings say otherwise: a follower that missed less
/// than this needs no snapshot.
pub const WAL_KEEP_BYTES: u64 = 4 * SEGMENT_BYTES;

/// Beyond this a hold no longer keeps segments: a stuck transfer may not fill the disk. The transfer then ends without
/// its entries and begins anew.
pub const WAL_HELD_BYTES_MAX: u64 = 32 * SEGMENT_BYTES;

/// Holds at one time: one for each member that receives a snapshot, and some. Another one is refused.
pub const HOLDS_MAX: usize = 64;

/// Zero-filled or recycled segments that wait for their use. One is in use soon; the second covers a burst.
pub const SPARES_MAX: usize = 2;

/// Zeros written by one step of filling a spare segment, so that a step takes about a millisecond.
pub const FILL_STEP_BYTES: usize = 1 << 20;

/// Bytes of one write of such a step. The page cache keeps what one write brought in one folio, and each small write into a large
/// folio with its sync costs more later: 1500 bytes took 63 to 75 µs in a file filled by writes of 1 MiB, 45 to 50 µs here.
pub const FILL_WRITE_BYTES: usize = 64 << 10;

/// Files that are written in the background are synced each time so much of them is new: the log's own sync waits for whatever
/// the disk is doing, and tens of megabytes at once were seen in its 99th percentile.
pub const BACKGROUND_SYNC_BYTES: u64 = 4 << 20;

/// Entries that recovery hands to consensus in memory, unless the settings say otherwise; older ones are fetched.
pub const RECOVERED_BYTES_MAX: usize = 32 << 20;

/// How often a fetch looks again when entries were replaced while it read, before it answers with none.
pub const FETCH_ATTEMPTS_MAX: usize = 4;

/// A manifest larger than this is damage: it holds one configuration and a token.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// What is read of the mark of a corrupt member: one message for people.
pub const CORRUPT_MARK_BYTES_MAX: usize = 4 << 10;

/// A rows segment is full above this. Large enough that a million rows are six files, small enough that rewriting one is a matter of
/// a second. Offsets are `u32`, so nothing above 4 GiB would do.
pub const ROWS_SEGMENT_BYTES: u32 = 64 << 20;

/// Rows that apply may hold back before it writes them; a batch usually ends long before.
pub const ROWS_PENDING_BYTES_MAX: usize = 4 << 20;

/// The rows buffer is given back above this after an unusually large batch.
pub const ROWS_BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Each so many bytes of a rows segment its first revision is noted: a catch-up reads at most this much in vain.
pub const ROWS_MARK_SPACING_BYTES: u32 = 256 << 10;

/// What a point read fetches before it knows the row's length: one read for rows of up to this, two for larger ones.
pub const ROW_READ_BYTES: usize = 512;

/// What a scan of rows reads at once.
pub const ROWS_READ_BYTES: usize = 256 << 10;

/// Keys visited under one read lock, so that a large range does not hold up apply: some 20 µs.
pub const PAGE_KEYS: usize = 256;

/// Keys counted under one read lock, 50 ns each.
pub const COUNT_PAGE_KEYS: usize = 1024;

/// Leaves that one step of a compaction visits under the write lock; passing one costs 0.1 µs, compacting one 10 µs.
pub const COMPACTION_STEP_LEAVES: usize = 32;

/// What one step of rewriting a rows segment reads and copies, and what one step of switching addresses holds the write lock for.
pub const REWRITE_STEP_BYTES: usize = 64 << 10;

/// A sealed segment is rewritten when less than this many per cent of it is live: each byte of space won costs at most one byte copied.
pub const REWRITE_LIVE_PERCENT: u64 = 50;

/// A checkpoint is due after this many bytes of rows, or half the last checkpoint if that is more (ADR 2): about 100,000 puts of
/// 64 + 256 bytes, which replay in a quarter of a second.
pub const CHECKPOINT_DUE_BYTES: u64 = 36 << 20;

/// What one step of writing a checkpoint collects and writes.
pub const CHECKPOINT_STEP_BYTES: usize = 1 << 20;

/// Leaves of one frame of a checkpoint: about 64 KiB.
pub const CHECKPOINT_FRAME_LEAVES: usize = 16;

/// Readers that hold compaction back at one time; one more is refused and the client may try again.
pub const PINS_MAX: usize = 4096;
