//! How long the test bed waits for each thing before it gives up, with the reason of each figure.

use std::time::Duration;

/// Between two looks at a condition. Short against everything that is waited for here (the quickest, a bridge port,
/// takes some ten milliseconds), long enough that looking costs nothing.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A command or step that says nothing for this long gets a line that says it is still running.
pub const HEARTBEAT: Duration = Duration::from_secs(20);

/// From the start of etcd to an API server that answers `/readyz`: about 6 s on 2 free cores; twenty times that, since
/// compilers may be running beside it.
pub(crate) const API_READY: Duration = Duration::from_secs(120);

/// From the start of a node's containerd to its Ready condition: about 10 s on 2 free cores.
pub(crate) const NODES_READY: Duration = Duration::from_secs(180);

/// A containerd answers its socket within a second or two of its start.
pub(crate) const CONTAINERD_READY: Duration = Duration::from_secs(60);

/// From the start of a node's storage driver until its kubelet has made it known: about 2 s on 2 free cores.
pub(crate) const DRIVER_KNOWN: Duration = Duration::from_secs(60);

/// A killed process is gone at once, unless it sleeps uninterruptibly on a frozen disk; then nothing but a thaw helps,
/// and the error says which process it is.
pub(crate) const PROCESSES_GONE: Duration = Duration::from_secs(30);

/// The kernel refuses to remove a control group for a moment after its last process died.
pub(crate) const CGROUPS_GONE: Duration = Duration::from_secs(20);

/// Another `up` or `down` on the same host finishes within this time, even one that builds nothing but waits for nodes.
pub(crate) const LOCK_FREE: Duration = Duration::from_secs(600);

/// How long the API server is given for one question of the status.
pub(crate) const STATUS_REQUEST: &str = "5s";

/// A pod of the smoke test starts within seconds; three of them one after the other, on a host that compiles beside.
pub(crate) const SMOKE_READY: Duration = Duration::from_secs(180);

/// A name is resolved and a connection made within seconds of a pod's readiness: the rules are written at most once a
/// second, and a negative answer is kept for five.
pub(crate) const SMOKE_ANSWER: Duration = Duration::from_secs(60);

/// The most nodes that the address plan has room for (198.18.N.0/24 for the pods of node N, N from 1 to 9).
pub const NODES_MAX: usize = 9;

/// Lines of a log that an error quotes: enough to hold the last words of a process, few enough to read.
pub(crate) const LOG_TAIL_LINES: usize = 12;
