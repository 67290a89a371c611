//! The labels, annotations and finalizers of quorate.dev.

/// API group of all resources.
pub const GROUP: &str = "quorate.dev";
/// Label: name of the StoreCluster that an object belongs to.
pub const LABEL_CLUSTER: &str = "quorate.dev/cluster";
/// Label: ordinal of the member that an object belongs to.
pub const LABEL_ORDINAL: &str = "quorate.dev/ordinal";
/// Label: incarnation of the cluster (raised by a restore); the client Service selects the current
/// one.
pub const LABEL_INCARNATION: &str = "quorate.dev/incarnation";
/// Label: `voter` on pods of voters; the PodDisruptionBudget counts those and no other.
pub const LABEL_ROLE: &str = "quorate.dev/role";
/// Label: what an object is for: `member` or `formation`.
pub const LABEL_COMPONENT: &str = "quorate.dev/component";
/// Annotation of a pod and its template: digest of the settings that take a restart to change.
pub const ANNOTATION_SETTINGS: &str = "quorate.dev/settings";
/// Annotation of a pod and its template: version of the server that it runs, as in `spec.version`.
pub const ANNOTATION_VERSION: &str = "quorate.dev/version";
/// Annotation of every declarative child: digest of the object as the operator last built it.
pub const ANNOTATION_BUILT: &str = "quorate.dev/built";
/// Annotation of a claim: UID of the StoreCluster that made it.
pub const ANNOTATION_CLUSTER_UID: &str = "quorate.dev/cluster-uid";
/// Annotation of a claim: id of the store cluster whose data it holds, in hexadecimal.
pub const ANNOTATION_CLUSTER_ID: &str = "quorate.dev/cluster-id";
/// Annotation of a claim: id of the member whose data it holds, in hexadecimal.
pub const ANNOTATION_MEMBER_ID: &str = "quorate.dev/member-id";
/// Annotation of a claim: token with which the cluster was formed.
pub const ANNOTATION_TOKEN: &str = "quorate.dev/token";
/// Annotation of a claim: ordinal that the next member would have got.
pub const ANNOTATION_NEXT_ORDINAL: &str = "quorate.dev/next-ordinal";
/// Annotation of a claim: its member was removed; kept because `volumeRetention.whenScaled` says
/// so.
pub const ANNOTATION_RETIRED: &str = "quorate.dev/retired";
/// Annotation of a StoreCluster: what to do with claims of an earlier cluster of its name: `adopt`
/// or `discard`.
pub const ANNOTATION_EARLIER_VOLUMES: &str = "quorate.dev/earlier-volumes";
/// Annotation of a StoreCluster: each new value restarts every member once, one at a time. It counts
/// as a setting as long as it is there, so that taking it off restarts them too.
pub const ANNOTATION_RESTART: &str = "quorate.dev/restart";
/// Finalizer of a StoreCluster: its claims are kept or deleted as `volumeRetention.whenDeleted`
/// says before it goes.
pub const FINALIZER: &str = "quorate.dev/volumes";
/// Value of [`LABEL_ROLE`] on a voter.
pub const ROLE_VOTER: &str = "voter";
/// Value of [`LABEL_ROLE`] on a learner.
pub const ROLE_LEARNER: &str = "learner";
/// Value of [`LABEL_COMPONENT`] on a member's objects.
pub const COMPONENT_MEMBER: &str = "member";
/// Value of [`LABEL_COMPONENT`] on the formation Job's objects.
pub const COMPONENT_FORMATION: &str = "formation";
