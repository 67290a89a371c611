//! The figures of the comparison that are not arguments, each with its reason.

use std::time::Duration;

/// How far a ratio may be on the wrong side of 1: what two runs of the same server differ by on a quiet host.
pub(crate) const TOLERANCE: f64 = 0.05;

/// Members of a cluster: the smallest number that survives the loss of one, and the one that most people run.
pub(crate) const MEMBERS: usize = 3;

/// Bytes of a key and of a value, as in etcd's own published comparisons.
pub(crate) const KEY_BYTES: usize = 64;
/// See [`KEY_BYTES`].
pub(crate) const VALUE_BYTES: usize = 256;

/// Puts of one transaction of the fill: etcd's default `--max-txn-ops`.
pub(crate) const FILL_TXN_PUTS: usize = 128;

/// Transactions of the fill in flight, over all members: enough to keep both servers busy, far from etcd's limit of 5000
/// entries between commit and apply.
pub(crate) const FILL_IN_FLIGHT: usize = 24;

/// Clients that share a connection of the tool.
pub(crate) const CLIENTS_PER_CONNECTION: usize = 10;

/// Between two looks at the memory of the members.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// A cluster counts as idle when, over one window, its members together use less than this share of one core. Idle etcd
/// members use about 1 % each for their heartbeats.
pub(crate) const IDLE_SHARE: f64 = 0.06;
/// See [`IDLE_SHARE`].
pub(crate) const IDLE_WINDOW: Duration = Duration::from_millis(500);
/// What is still busy after this long is measured as it is: the host is noisy, or the server never rests.
pub(crate) const IDLE_WAIT_MAX: Duration = Duration::from_secs(10);

/// From the start of three processes to a linearizable read from each; an election takes one to two seconds.
pub(crate) const START_MAX: Duration = Duration::from_secs(60);

/// The fill of a million keys takes about a minute on two cores.
pub(crate) const FILL_MAX: Duration = Duration::from_secs(900);

/// Restart of a killed member, before it is called failed; etcd takes about 8 s with a million keys.
pub(crate) const RESTART_MAX: Duration = Duration::from_secs(120);

/// Between two attempts to read from a starting member: the resolution of the restart time.
pub(crate) const ATTEMPT_INTERVAL: Duration = Duration::from_millis(10);
/// An attempt that hangs is given up after this; younger ones are under way beside it.
pub(crate) const ATTEMPT_MAX: Duration = Duration::from_secs(1);

/// A run of the tool may take this many times the seconds asked for, and this much more.
pub(crate) const LOAD_SLOWNESS_MAX: u32 = 5;
/// See [`LOAD_SLOWNESS_MAX`].
pub(crate) const LOAD_GRACE: Duration = Duration::from_secs(60);

/// The short run that says how many operations the wanted seconds have: so many, and so many for each client.
pub(crate) const CALIBRATION_OPERATIONS: usize = 200;
/// See [`CALIBRATION_OPERATIONS`].
pub(crate) const CALIBRATION_ROUNDS: usize = 10;
