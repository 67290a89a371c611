//! Observed: everything that `plan` sees of the world, the clock included.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::Timestamp;
use quorate_crds::StoreClusterStatus;
use std::collections::BTreeMap;
use std::time::Duration;

/// The world as one observation found it.
///
/// The shell fills it: children by the label `quorate.dev/cluster=<name>` in the cluster's
/// namespace, whoever owns them (the planner compares owners), members by asking them. What could
/// not be observed is data: see [`Membership::Unreachable`] and [`MemberView::Unreachable`].
#[derive(Clone, Debug)]
pub struct Observed {
    /// The time of the observation.
    pub now: Timestamp,
    /// What is known of the StoreCluster object itself, apart from its spec.
    pub cluster: ClusterFacts,
    /// Its status as stored: memory of the operator and the conditions as last reported. Default
    /// when absent.
    pub status: StoreClusterStatus,
    /// StatefulSets labelled with the cluster's name.
    pub stateful_sets: Vec<StatefulSet>,
    /// Pods labelled with the cluster's name: members' and the formation Job's.
    pub pods: Vec<Pod>,
    /// Claims labelled with the cluster's name, of earlier clusters too.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Services labelled with the cluster's name.
    pub services: Vec<Service>,
    /// PodDisruptionBudgets labelled with the cluster's name.
    pub budgets: Vec<PodDisruptionBudget>,
    /// Jobs labelled with the cluster's name.
    pub jobs: Vec<Job>,
    /// Which StorageClasses have volumes that can grow.
    pub storage_classes: StorageClasses,
    /// Claims that the API server did not let grow, by their UID: its last answer for each.
    pub refused_growths: BTreeMap<String, GrowthRefusal>,
    /// The nodes that members run on or ran on last.
    pub nodes: Nodes,
    /// What the store says about its membership.
    pub membership: Membership,
    /// What each member says about itself, by member id. A member without an entry counts as
    /// unreachable.
    pub members: BTreeMap<u64, MemberView>,
}

/// What the operator knows of StorageClasses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageClasses {
    /// It serves some namespaces and may not read what belongs to all: whether a volume can grow is
    /// seen by asking for it.
    Unreadable,
    /// Whether volumes can grow (`allowVolumeExpansion`), by name of the class.
    Known(BTreeMap<String, bool>),
}

/// The API server's answer to a claim that asked for more.
#[derive(Clone, Debug, PartialEq)]
pub struct GrowthRefusal {
    /// The size that was asked for.
    pub size: Quantity,
    /// When.
    pub at: Timestamp,
    /// Its words.
    pub words: String,
}

/// What is known of the StoreCluster object itself, apart from its spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFacts {
    /// Its UID: the token of the formation and the owner of the children.
    pub uid: String,
    /// Its generation, for observedGeneration.
    pub generation: i64,
    /// Its resourceVersion: the precondition of the status write.
    pub resource_version: String,
    /// Whether it has a deletionTimestamp.
    pub deleting: bool,
    /// Whether it carries our finalizer.
    pub has_finalizer: bool,
    /// Its annotations (`quorate.dev/earlier-volumes`).
    pub annotations: BTreeMap<String, String>,
}

/// The nodes of the Kubernetes cluster, as far as members run on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// They could not be read: an operator that is confined to namespaces may not be allowed to.
    Unseen {
        /// Why, in stable words.
        error: String,
    },
    /// Those that there are, by name: one that is not among them was deleted.
    Seen(BTreeMap<String, NodeView>),
}

/// What is known of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Since when it is not ready; `None` while it is. A node whose kubelet has fallen silent is not
    /// ready.
    pub unready_since: Option<Timestamp>,
    /// Whether it carries the taint `node.kubernetes.io/out-of-service`: somebody vouches that
    /// nothing runs on it.
    pub out_of_service: bool,
}

/// What the store says about its membership, from a *linearizable* MemberList.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Nobody was asked: the cluster is not formed yet, or no pod of it runs.
    NotAsked,
    /// Everybody who could answer was asked and nobody did.
    Unreachable {
        /// Since when nobody answers.
        since: Timestamp,
        /// The last error, in stable words (no ports, no times).
        error: String,
    },
    /// A quorum confirmed this list.
    Known {
        /// Cluster id of the answer's header.
        cluster_id: u64,
        /// All members, learners included.
        members: Vec<StoreMember>,
    },
}

/// One entry of MemberList.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreMember {
    /// Id of the member.
    pub id: u64,
    /// Its name; empty until it has started once.
    pub name: String,
    /// URLs for its peers.
    pub peer_urls: Vec<String>,
    /// URLs for clients; empty until it has started once.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub learner: bool,
}

/// What asking one member gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberView {
    /// It did not answer.
    Unreachable {
        /// Since when.
        since: Timestamp,
        /// The last error, in stable words.
        error: String,
        /// What it said when it was heard last, if this process ever heard it.
        last: Option<LastWords>,
    },
    /// It answered `Maintenance.Status`.
    Answered(MemberAnswer),
}

/// How far a member that is silent was when it was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastWords {
    /// Its term.
    pub term: u64,
    /// Its Raft index.
    pub index: u64,
}

/// What `Maintenance.Status` of one member said, and whether it reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberAnswer {
    /// Whom it takes for the leader; `None` for etcd's 0.
    pub leader: Option<u64>,
    /// Its term.
    pub term: u64,
    /// Its Raft index (etcd's raftIndex: committed).
    pub raft_index: u64,
    /// Its applied index.
    pub applied_index: u64,
    /// For how long its applied index has stood still, as far as this process has seen.
    pub stalled_for: Duration,
    /// For how long no linearizable read through it was answered, as far as this process has seen.
    pub unread_for: Duration,
    /// Bytes of live data.
    pub size_in_use: u64,
    /// Bytes of live data at which it raises NOSPACE; 0 if it does not say.
    pub quota: u64,
    /// Whether it has no vote.
    pub learner: bool,
    /// Whether a linearizable read through it was answered: it has applied everything that was
    /// committed when it was asked.
    pub reads: bool,
    /// Alarms and errors that it reports.
    pub errors: Vec<String>,
}

impl Observed {
    /// The answer of a member, if it gave one.
    #[must_use]
    pub fn answer(&self, id: u64) -> Option<&MemberAnswer> {
        match self.members.get(&id) {
            Some(MemberView::Answered(answer)) => Some(answer),
            Some(MemberView::Unreachable { .. }) | None => None,
        }
    }

    /// The member that leads: the one that says so itself in the highest term that anybody reports.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        let answers = || self.members.keys().filter_map(|id| Some((*id, self.answer(*id)?)));
        let term = answers().map(|(_id, answer)| answer.term).max()?;
        answers()
            .find(|(id, answer)| answer.term == term && answer.leader == Some(*id))
            .map(|(id, _answer)| id)
    }
}
