//! Every bound of this room, and what happens when it is reached.

/// Committed and not yet applied entries beyond which proposals are refused, as etcd does
/// (`server/etcdserver/v3_server.go`, maxGapBetweenApplyAndCommitIndex).
pub const APPLY_GAP_MAX: u64 = 5000;

/// Read rounds in flight; further reads wait for one to end and then share the next.
pub const READ_ROUNDS_MAX: usize = 32;

/// Ticks after which an unanswered read round is asked again, with a new context (etcd: 500 ms at 100 ms a tick).
pub const READ_RETRY_TICKS: u32 = 5;

/// Request ids of forwarded proposals that a leader remembers per member within its term, so that a repeated
/// message appends once. Beyond it the oldest are forgotten and anything as old is refused.
pub const FORWARDED_IDS_MAX: usize = 65_536;

/// Milliseconds of the lease clock between clock entries while leases exist and nothing else is written. An
/// election can expire a lease late by at most this and the leaderless time (design §3 Leases).
pub const CLOCK_INTERVAL_MS: u64 = 2_000;

/// Leases revoked by one entry; etcd revokes at most 1000 a second.
pub const EXPIRED_LEASES_MAX: usize = 500;

/// The longest step of the lease clock that one tick may account for. A process that was paused longer lost its
/// leadership to check-quorum; counting the pause would expire leases that nobody could renew.
pub const TICK_ELAPSED_MS_MAX: u64 = 1_000;

/// Ticks after which the leader proposes an expiry again that has not been applied.
pub const EXPIRY_RETRY_TICKS: u32 = 50;

/// Watches of one stream that may be lagging at a time before the client must wait for its creations to be served.
pub const WATCHES_PER_STREAM_MAX: usize = 100_000;
