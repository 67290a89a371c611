//! The bounds of this crate, each with its reason.

/// Transactions within one another in an entry. The shell's decoders stop far below (prost refuses at 100 messages within
/// one another, which is 50 transactions), so what is refused here was made by no client: reading it means damaged bytes.
pub const TXN_DEPTH_MAX: usize = 128;

/// Keys taken from the index at once while a comparison or a deletion walks a range: bounds what is held beside the
/// result.
pub const SCAN_CHUNK_KEYS: usize = 1000;

/// Rows held at once while the hash walks them, and so what one of its steps does: under two milliseconds (measured with a
/// million keys: 0.4 µs a row, 1.8 µs if its key is looked up).
pub const HASH_CHUNK_ROWS: usize = 1000;

/// Bytes of the rows held at once by the hash; the last may be larger than that alone.
pub const HASH_CHUNK_BYTES: usize = 1 << 20;

/// Compactions whose hash is kept or still to be taken (etcd: hashStorageMaxSize). A comparison of members finds a
/// revision that all of them know as long as none is more compactions behind.
pub const COMPACTION_HASHES_MAX: usize = 10;

/// Milliseconds of the lease clock between two milestones (feature level 2): finer than any age that compaction is asked for.
pub const MILESTONE_INTERVAL_MS: u64 = 5_000;

/// Milestones that are kept, the oldest going first: a thousand of about ten bytes each in every checkpoint.
pub const MILESTONES_MAX: usize = 1000;

/// Elements that a decoder reserves room for before it has seen them: a damaged count must not take memory.
pub const RESERVED_ELEMENTS_MAX: usize = 128;
