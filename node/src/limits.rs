//! Every bound of the shell, and what happens when it is reached.

use std::time::Duration;

/// Inputs that wait for the consensus thread; who has more to say waits, until its own deadline.
pub const INPUTS_MAX: usize = 16_384;

/// Renewals of leases that wait for the next entry.
pub const RENEWALS_MAX: usize = 16_384;

/// Appends on their way to one follower, in messages and bytes (etcd: 512 messages); more wait for acknowledgements.
pub const INFLIGHT_MESSAGES_MAX: usize = 512;
/// See [`INFLIGHT_MESSAGES_MAX`].
pub const INFLIGHT_BYTES_MAX: usize = 8 << 20;

/// Entries of one append (etcd: maxSizePerMsg); a larger single entry goes alone.
pub const APPEND_BYTES_MAX: usize = 1 << 20;

/// Committed entries handed to apply at once.
pub const COMMITTED_BYTES_MAX: usize = 4 << 20;

/// Entries of the leader's log that are not committed; beyond it proposals are refused as too many requests.
pub const UNCOMMITTED_BYTES_MAX: usize = 64 << 20;

/// Entries kept in memory for followers; older ones are read from the WAL. Several times [`INFLIGHT_BYTES_MAX`], or a follower
/// under load would be served from the WAL.
pub const LOG_MEMORY_BYTES_MAX: usize = 32 << 20;

/// How long a reader of an old revision holds compaction back.
pub const PIN_AGE_MAX: Duration = Duration::from_secs(10 * 60);

/// How long a disk may take to hold the mark of a Corrupt end. A sound one needs milliseconds.
pub const CORRUPT_MARK_GRACE: Duration = Duration::from_secs(5);

/// How often a scrub says how far it is: gigabytes take tens of seconds.
pub const SCRUB_TOLD_EVERY: Duration = Duration::from_secs(10);

/// How long calls in progress may take to finish when the member stops.
pub const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// How long they may take when the member was removed: nothing that waits for the log is among them.
pub const REMOVED_GRACE: Duration = Duration::from_secs(1);
