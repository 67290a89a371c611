//! The bounds of the planner, each with its reason.

use std::time::Duration;

/// When to look again while something is under way or waits. Members are not watched, they are
/// asked; half a second keeps status within the second or two that people are promised.
pub const LOOK_AGAIN_BUSY: Duration = Duration::from_millis(500);

/// When to look again when all is as wanted: a leader that moved or a member that died is reported
/// within this time even if no object of Kubernetes shows it.
pub const LOOK_AGAIN_STEADY: Duration = Duration::from_millis(1500);

/// Most members that failures can justify: seven tolerate the loss of three at once. Each more takes
/// part in every write and is warned about (as etcd's FAQ, "What is the maximum cluster size?").
pub const VOTERS_WORTH_IT: i32 = 7;

/// How many entries a learner may be behind the leader and still be promoted. The two indexes are
/// read at different moments, so that a busy store shows a gap of some hundred entries even for a
/// member in step; the store itself refuses a learner that is too far behind, and 5000 is the gap
/// at which it refuses proposals.
pub const PROMOTION_GAP: u64 = 5000;

/// How many entries a restarted voter may be behind the leader and still count as recovered. As above
/// the two indexes are read at different moments. It is less than for a promotion, because the next
/// member that is restarted takes a vote away; that nothing is missing is proved by the linearizable
/// read through the member.
pub const RECOVERY_GAP: u64 = 1000;

/// How long a restarted member may take to be ready, from when its pod was made, before its start
/// counts as failed: pulling an image and replaying a log take seconds, and five minutes are half of
/// what the startup probe allows. Nothing is undone then: people are told, and if it does become ready
/// after all, the rollout goes on.
pub const RESTART_LIMIT: Duration = Duration::from_secs(300);

/// How long a voter must have been unreachable before a scale-in prefers it to the member of the
/// highest ordinal. Longer than a restart or a drained pod's move takes, so that a flap never
/// chooses the victim.
pub const LONG_UNREACHABLE: Duration = Duration::from_secs(60);

/// How long a claim that the API server did not let grow is left alone: what refused it (a quota, a
/// class that the operator may not read) is changed by people, and a request every ten minutes is no
/// load.
pub const REFUSAL_STANDS: Duration = Duration::from_mins(10);

/// How long a joiner may make no progress before it is given up and another takes its place: pulling
/// an image and receiving a snapshot of a full store take minutes. Whoever comes after it gets twice
/// the time, since what hinders one (no node, no volume) mostly hinders the next.
pub const JOIN_LIMIT: Duration = Duration::from_secs(600);

/// How often the time of a joiner is doubled at most: two hours and forty minutes then.
pub const JOIN_DOUBLINGS_MAX: u32 = 4;

/// How long a pod that was asked to stop may take before its member is removed all the same: four
/// times its grace. Longer means that nobody carries out the stopping: the kubelet is gone.
pub const STOP_LIMIT: Duration = Duration::from_secs(120);

/// How long a member may take to stop unless the spec says otherwise, in seconds: hand over
/// leadership, drain connections, flush (`docs/contract.md`).
pub const GRACE_SECONDS: i64 = quorate_crds::limits::GRACE_MIN;

/// How long a member that was asked to stop still takes connections, in seconds: kube-proxy and the clients of the headless
/// Service go on sending new ones until every node has heard that its endpoint is going.
pub const DRAIN_SECONDS: i64 = 3;

/// How often the formation Job tries again before it counts as failed: image pulls and mounts do
/// not count as failures, so that these are crashes of `prepare form` itself.
pub const FORMATION_TRIES: i32 = 6;

/// Seconds that a member may take from start to `/livez`, at one probe a second: replay of the log,
/// or a joiner that waits for its peers.
pub const STARTUP_PROBES: i32 = 600;

/// Longest text of a message from outside (termination messages, errors) that is carried into a
/// condition.
pub const FOREIGN_TEXT_MAX: usize = 256;
