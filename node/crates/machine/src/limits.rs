//! The bounds of this crate, each with its reason.

/// Transactions within one another in an entry. The shell's decoders stop far below (prost refuses at 100 messages within
/// one another, which is 50 transactions), so what is refused here was made by no client: reading it means damaged bytes.
pub const TXN_DEPTH_MAX: usize = 128;

/// Keys taken from the index at once while a comparison or a deletion walks a range: bounds what is held beside the
/// result.
pub const SCAN_CHUNK_KEYS: usize = 1000;

/// Rows looked up at once while the hash walks compacted history.
pub const HASH_CHUNK_ROWS: usize = 1000;

/// Elements that a decoder reserves room for before it has seen them: a damaged count must not take memory.
pub const RESERVED_ELEMENTS_MAX: usize = 128;
