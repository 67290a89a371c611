//! How long is waited for each thing, and how hard a store is worked, with the reason of each figure.

use std::time::Duration;

/// An operator's pod starts within seconds; ten times that beside compilers.
pub const ROLLOUT: Duration = Duration::from_secs(120);

/// A cluster of three forms in about 20 s on 2 free cores: a Job, then two joins of 7 s each, of
/// which 5 s are a name that DNS has just denied and remembers.
pub const FORMED: Duration = Duration::from_secs(180);

/// One member joins in about 7 s and leaves in 3 s; the longest change here is of four members.
pub const SCALED: Duration = Duration::from_secs(180);

/// Three members are restarted in turn, each in at most the time of [`HEALED`]'s usual ten seconds
/// and the wait for a name that DNS has denied; this is for compilers beside them.
pub const ROLLED: Duration = Duration::from_secs(300);

/// A pod that was deleted is back and ready within 10 s: 1 s to stop, 5 s of denied names, an
/// election.
pub const HEALED: Duration = Duration::from_secs(120);

/// The operator looks at each cluster at least every 1.5 s; this is for what it says, beside
/// compilers.
pub const TOLD: Duration = Duration::from_secs(60);

/// A namespace goes when its pods have stopped, which take up to 30 s each.
pub const NAMESPACE_GONE: Duration = Duration::from_secs(120);

/// Between two looks at a condition: each costs the API server a read.
pub const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A wait that has said nothing for this long says why it still waits.
pub const HEARTBEAT: Duration = Duration::from_secs(20);

/// Between two looks of the witness. The operator moves leadership off a member and removes it 150 ms later: each state must be
/// seen, on a busy machine too.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(25);

/// Between two looks at which pods there are, by whoever follows a cluster's addresses.
pub const ADDRESSES_INTERVAL: Duration = Duration::from_millis(500);

/// A member that has not answered for this long counts as silent. What it is asked it answers from
/// memory, so only a machine that is very busy takes a tenth of this.
pub const SAMPLE_ANSWER: Duration = Duration::from_secs(2);

/// A connection that is not made by now never will be, on one host.
pub const CONNECT: Duration = Duration::from_secs(2);

/// What etcd's own clients give a request.
pub const REQUEST: Duration = Duration::from_secs(5);

/// From the first ready member on, or from the end of the load: what is in flight ends within [`REQUEST`].
pub const LOAD_ENDS: Duration = Duration::from_secs(30);

/// Connections of the load, as a fleet's clients have them.
pub const LOAD_CONNECTIONS: usize = 8;

/// Writes in flight on each connection: enough that the rate holds while a write takes 200 ms, as it
/// does on two cores with five members and compilers.
pub const LOAD_LANES: usize = 16;

/// Between two writes of a lane: 640 writes a second are offered in all, so that 500 go through even
/// when two handovers of leadership fall into a minute.
pub const LOAD_PERIOD: Duration = Duration::from_millis(200);

/// The writes a second, over the whole of a run, that a test of faults under load must have seen.
pub const LOAD_RATE_MIN: f64 = 500.0;

/// The slowest write of a rollout under load: a handover of leadership, and nothing that is worse.
pub const LOAD_SLOWEST: Duration = Duration::from_secs(2);

/// Between the starts of two etcdctl beside a load: one takes some 15 ms of a core, and thirteen are a round.
pub const ETCDCTL_PERIOD: Duration = Duration::from_secs(1);

/// The invocations of etcdctl a second, over the whole of a run, that a test of faults under load must have seen: half of
/// those that are due.
pub const ETCDCTL_RATE_MIN: f64 = 0.5;

/// Keys that the check after a load reads at once.
pub const PAGE: i64 = 2_000;

/// How long nothing must be done about a fault that is none of the operator's business: ten of its looks.
pub const UNTOUCHED: Duration = Duration::from_secs(15);

/// For how long what a watch tells is held back from a drilled operator: several of its looks, and longer than any single step takes.
pub const WATCHES_LATE: Duration = Duration::from_secs(3);

/// A drilled operator that is done and has not come to its point within this time will not: it looks every 1.5 s.
pub const LAST_WRITE: Duration = Duration::from_secs(5);

/// Lives that may miss a point before it counts as one that is not there.
pub const ATTEMPTS: u32 = 3;

/// Clusters that are drilled at once: most of a life is waiting.
pub const LANES: usize = 3;

/// Between two writes of a lane of the load that accompanies a drill: 64 writes a second are offered to each cluster, of which there
/// are three at once.
pub const LOAD_PERIOD_LIGHT: Duration = Duration::from_secs(2);
