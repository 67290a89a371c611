//! How long the tests wait for each thing before they give up, with the reason of each figure.

use std::time::Duration;

/// From the start of a process to `/readyz`: an election (1 to 2 s) and the replay of a log; ten times that, since
/// compilers may be running beside it on two cores.
pub const READY: Duration = Duration::from_secs(40);

/// A killed process is gone at once, unless the disk holds it up.
pub const GONE: Duration = Duration::from_secs(20);

/// An orderly stop: hand-over, calls in progress (5 s at most), a last checkpoint.
pub const STOPPED: Duration = Duration::from_secs(30);

/// One question to one process on this host.
pub const ANSWER: Duration = Duration::from_secs(5);

/// A change that spreads through a cluster at rest: a leader known everywhere, members at the same applied index.
pub const SETTLED: Duration = Duration::from_secs(30);

/// One call of etcdctl, an election included.
pub const COMMAND: &str = "20s";

/// Lines of a server's log that a failed test prints: enough to see the last minute of a member.
pub const LOG_TAIL_LINES: usize = 60;

/// The first port that tests use. Below the kernel's range for outgoing connections (32768 and up), or a connection
/// of somebody else would now and then hold a port that a restarted member needs; away from the test bed's 2379 and
/// from etcd's suite, which takes 20000 and up.
pub const PORT_FIRST: u16 = 11_000;

/// The port behind the last one.
pub const PORT_END: u16 = 19_000;
