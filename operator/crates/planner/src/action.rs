//! Action: one executable step, with everything in it that must still hold when it is carried out.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::fmt;

/// Which very object an action speaks about. The executor passes both as preconditions
/// (`preconditions.uid` and `preconditions.resourceVersion` of a delete, `metadata.uid` and
/// `metadata.resourceVersion` in a patch), so that an object that was replaced or changed since is
/// left alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exactly {
    /// Name of the object.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its resourceVersion as observed.
    pub resource_version: String,
}

/// What must be there when an object is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing of that name: the executor creates (POST) and an AlreadyExists is an error, not an
    /// adoption.
    Absent,
    /// The object that was observed, which is ours: the executor applies server-side with force,
    /// with its UID in the patch. No resourceVersion: the apply only sets what we own, whatever
    /// others changed since.
    Present {
        /// UID of the object.
        uid: String,
    },
}

/// A declarative child, built completely.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Service.
    Service(Box<Service>),
    /// A member's StatefulSet.
    StatefulSet(Box<StatefulSet>),
    /// The budget of the voters.
    PodDisruptionBudget(Box<PodDisruptionBudget>),
}

impl Object {
    /// Name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        let metadata = match self {
            Self::Service(object) => &object.metadata,
            Self::StatefulSet(object) => &object.metadata,
            Self::PodDisruptionBudget(object) => &object.metadata,
        };
        metadata.name.as_deref().unwrap_or_default()
    }

    /// Kind of the object.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Service(_) => "Service",
            Self::StatefulSet(_) => "StatefulSet",
            Self::PodDisruptionBudget(_) => "PodDisruptionBudget",
        }
    }
}

/// A declarative child that differs from what was observed.
#[derive(Clone, Debug, PartialEq)]
pub struct Apply {
    /// The object as it shall be.
    pub object: Object,
    /// What must be there now.
    pub expect: Expect,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Add our finalizer to the StoreCluster of this UID.
    AddFinalizer {
        /// UID of the StoreCluster.
        uid: String,
    },
    /// Remove our finalizer from the StoreCluster of this UID: nothing is left to be done.
    RemoveFinalizer {
        /// UID of the StoreCluster.
        uid: String,
    },
    /// Create a claim; AlreadyExists is an error.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Set annotations of a claim (merge patch).
    AnnotateClaim {
        /// The claim.
        claim: Exactly,
        /// Annotations to set; others stay.
        annotations: BTreeMap<String, String>,
    },
    /// Let a claim ask for more (merge patch of `spec.resources.requests.storage`). Kubernetes refuses
    /// it where the volume cannot grow; that answer is an observation ([`crate::GrowthRefusal`]).
    GrowClaim {
        /// The claim.
        claim: Exactly,
        /// The size to ask for.
        size: Quantity,
    },
    /// Delete a claim that no current member uses.
    DeleteClaim(Exactly),
    /// Create the formation Job; AlreadyExists is an error.
    CreateJob(Box<Job>),
    /// Delete a Job and its pods (propagation Background).
    DeleteJob(Exactly),
    /// Set labels of a running pod (merge patch).
    LabelPod {
        /// The pod.
        pod: Exactly,
        /// Labels to set; others stay.
        labels: BTreeMap<String, String>,
    },
    /// Stop the pod of a member, so that its set brings it back with the wanted settings.
    RestartPod {
        /// The pod.
        pod: Exactly,
        /// Ordinal of the member.
        ordinal: i32,
        /// Whether the disruption budget is asked (the Eviction API), as a drain asks it; otherwise
        /// the pod is deleted. An eviction that the budget does not allow is tried again later.
        evict: bool,
    },
    /// Ask a member that leaves to stop: its set gets no pod any more (merge patch of
    /// `spec.replicas`). It drains its clients and hands over before it goes (`docs/contract.md`).
    StopMember {
        /// Its set.
        set: Exactly,
        /// Its ordinal.
        ordinal: i32,
    },
    /// Delete a member's pod that has ended (phase Failed or Succeeded), so that its set makes
    /// another.
    DeletePod(Exactly),
    /// Delete a StatefulSet that belongs to no member (propagation Background: the pod goes with
    /// it).
    DeleteStatefulSet(Exactly),
    /// Delete the PodDisruptionBudget: fewer than three voters are left.
    DeleteBudget(Exactly),
    /// `Cluster.MemberAdd` as a learner. The store refuses a peer URL that it already lists, so
    /// that a repeated call adds nobody.
    AddLearner {
        /// Ordinal of the joiner.
        ordinal: i32,
        /// Its one peer URL.
        peer_url: String,
    },
    /// `Cluster.MemberPromote`. The store refuses a learner that has not caught up.
    Promote {
        /// Id of the learner.
        id: u64,
        /// Its ordinal.
        ordinal: i32,
    },
    /// `Maintenance.MoveLeader`, asked of the leader.
    MoveLeader {
        /// The member that leads; the call goes to it and it refuses if it does not lead any more.
        from: u64,
        /// Ordinal of that member: where to send the call.
        from_ordinal: i32,
        /// The voter that shall lead.
        to: u64,
    },
    /// `Cluster.MemberRemove`.
    RemoveMember {
        /// Id of the member.
        id: u64,
        /// Its ordinal.
        ordinal: i32,
        /// Whether it had a vote when this was planned.
        voter: bool,
    },
    /// `Maintenance.Alarm`, deactivate: what a member that was removed had raised, which nobody else
    /// takes back.
    DisarmAlarm {
        /// Id of the member that is no more.
        id: u64,
        /// The alarm.
        alarm: Alarm,
    },
}

/// An alarm of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// A member has no room left under its quota.
    NoSpace,
    /// A member's data differ from those of the others.
    Corrupt,
}

impl Alarm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::NoSpace, Self::Corrupt];

    /// etcd's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSpace => "NOSPACE",
            Self::Corrupt => "CORRUPT",
        }
    }
}

impl Action {
    /// Whether members or leadership are disturbed: at most one such action in a plan, and it is
    /// then the only action (INV-O2). Before one, the shell observes live again, plans again, and
    /// acts only if the same action comes first.
    #[must_use]
    pub fn is_disruptive(&self) -> bool {
        match self {
            Self::MoveLeader { .. }
            | Self::RemoveMember { .. }
            | Self::RestartPod { .. }
            | Self::StopMember { .. } => true,
            Self::AddFinalizer { .. }
            | Self::RemoveFinalizer { .. }
            | Self::CreateClaim(_)
            | Self::AnnotateClaim { .. }
            | Self::GrowClaim { .. }
            | Self::DeleteClaim(_)
            | Self::CreateJob(_)
            | Self::DeleteJob(_)
            | Self::LabelPod { .. }
            | Self::DeletePod(_)
            | Self::DisarmAlarm { .. }
            | Self::DeleteStatefulSet(_)
            | Self::DeleteBudget(_)
            | Self::AddLearner { .. }
            | Self::Promote { .. } => false,
        }
    }

    /// Whether a live observation must confirm the action before it is carried out: everything
    /// disruptive, everything that cannot be undone, every change of membership, and what a stale
    /// memory would make a second time.
    #[must_use]
    pub fn needs_confirmation(&self) -> bool {
        match self {
            Self::MoveLeader { .. }
            | Self::RemoveMember { .. }
            | Self::RestartPod { .. }
            | Self::StopMember { .. }
            | Self::DeletePod(_)
            | Self::DisarmAlarm { .. }
            | Self::DeleteClaim(_)
            | Self::DeleteStatefulSet(_)
            | Self::AddLearner { .. }
            | Self::Promote { .. }
            | Self::CreateClaim(_)
            | Self::CreateJob(_)
            | Self::RemoveFinalizer { .. } => true,
            // A claim that has changed since is left alone by the precondition, and the spec is read live.
            Self::AddFinalizer { .. }
            | Self::AnnotateClaim { .. }
            | Self::GrowClaim { .. }
            | Self::DeleteJob(_)
            | Self::LabelPod { .. }
            | Self::DeleteBudget(_) => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddFinalizer { .. } => f.write_str("add finalizer"),
            Self::RemoveFinalizer { .. } => f.write_str("remove finalizer"),
            Self::CreateClaim(claim) => {
                write!(f, "create claim {}", claim.metadata.name.as_deref().unwrap_or_default())
            }
            Self::AnnotateClaim { claim, annotations } => {
                write!(f, "annotate claim {}", claim.name)?;
                annotations.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))
            }
            Self::GrowClaim { claim, size } => write!(f, "grow claim {} to {}", claim.name, size.0),
            Self::DeleteClaim(claim) => write!(f, "delete claim {}", claim.name),
            Self::CreateJob(job) => {
                write!(f, "create job {}", job.metadata.name.as_deref().unwrap_or_default())
            }
            Self::DeleteJob(job) => write!(f, "delete job {}", job.name),
            Self::LabelPod { pod, labels } => {
                write!(f, "label pod {}", pod.name)?;
                labels.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))
            }
            Self::RestartPod { pod, evict, ordinal: _ } => {
                write!(f, "restart pod {} ({})", pod.name, if *evict { "evict" } else { "delete" })
            }
            Self::StopMember { set, ordinal: _ } => write!(f, "stop member {}", set.name),
            Self::DeletePod(pod) => write!(f, "delete ended pod {}", pod.name),
            Self::DisarmAlarm { id, alarm } => write!(f, "disarm {} of {id:x}", alarm.as_str()),
            Self::DeleteStatefulSet(set) => write!(f, "delete set {}", set.name),
            Self::DeleteBudget(budget) => write!(f, "delete budget {}", budget.name),
            Self::AddLearner { ordinal, peer_url } => {
                write!(f, "add learner {ordinal} {peer_url}")
            }
            Self::Promote { id, ordinal } => write!(f, "promote {ordinal} ({id:x})"),
            Self::MoveLeader { from, to, .. } => write!(f, "move leader {from:x} -> {to:x}"),
            Self::RemoveMember { id, ordinal, voter } => {
                write!(f, "remove {} {ordinal} ({id:x})", if *voter { "voter" } else { "learner" })
            }
        }
    }
}
