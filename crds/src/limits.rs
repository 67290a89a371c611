//! The bounds of the resources, each with its reason.

/// Longest name of a cluster, in characters. `<name>-<ordinal>-<incarnation>` and the
/// controller-revision-hash label of its StatefulSets must stay within the 63 characters of a
/// label.
pub const NAME_MAX: usize = 40;

/// Most members of a cluster. More than seven cost every write and are warned about; the bound is
/// where a number is a slip rather than a choice.
pub const REPLICAS_MAX: i32 = 15;

/// Longest quantity, in characters. Generous; a bound keeps the cost estimate of the CEL rules
/// small.
pub const QUANTITY_MAX: u32 = 32;

/// Most tolerations, pull secrets, spread constraints of a cluster: more than any cluster has, so
/// that the object stays small.
pub const LIST_MAX: u32 = 32;

/// Most environment variables of a member.
pub const ENV_MAX: u32 = 64;

/// Least time that a member may take to stop, in seconds: a drain of three, the hand-over of
/// leadership, GOAWAY and a last checkpoint (`docs/contract.md`) must fit, or requests fail.
pub const GRACE_MIN: i64 = 30;

/// Longest time that a member may take to stop, in seconds: less than the two minutes after which one
/// that leaves is removed although its pod still runs.
pub const GRACE_MAX: i64 = 110;
