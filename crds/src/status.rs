//! The status of a StoreCluster: a report for people and the operator's memory in one.

use crate::limits;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the operator saw and what it must remember.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StoreClusterStatus {
    /// Generation of the spec that this status speaks about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Members of the store, learners included, as the store itself lists them.
    #[serde(default)]
    pub replicas: i32,
    /// Members that are ready and have a vote.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Ready voters of wanted members, such as "3/3".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Label selector of the member pods, as a string for `kubectl scale` and autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Name of the member that leads, if the members agree on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// URL of the client Service, for programs in the same Kubernetes cluster, once it is formed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Lowest version that a ready member runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The largest size that a member's volume has been asked to be; `spec.storage.size` cannot go
    /// below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::QUANTITY_MAX))]
    pub volume_size: Option<String>,
    /// Id of the store cluster, in hexadecimal. Memory: once set, no cluster is formed again.
    #[serde(default, rename = "clusterID", skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Memory: which life of the cluster this is; a restore raises it. Part of the names of the
    /// claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<i64>,
    /// Memory: ordinal of the next member. Ordinals are never used again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ordinal: Option<i32>,
    /// Memory: the one formation of the cluster, written before it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formation: Option<FormationStatus>,
    /// Memory: the membership change that is under way, written before its first act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationStatus>,
    /// Memory: how many joiners in a row were given up because they made no progress; each doubles
    /// the time that the next one gets. Absent when the last one was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joins_given_up: Option<i32>,
    /// Memory and report: the members, one for each ordinal in use.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["ordinal".to_owned()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
    /// Available, Progressing, Degraded, QuorumHealthy, RestartPending, ResizePending,
    /// EarlierVolumesFound, SizeWarning, PlacementWarning.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The one formation of a cluster.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FormationStatus {
    /// Token of the formation: the UID of the StoreCluster that began it.
    pub token: String,
    /// Ordinal of the seed.
    pub ordinal: i32,
}

/// A membership change that is under way.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OperationStatus {
    /// What is being done.
    pub kind: OperationKind,
    /// Ordinal of the member that it is done with.
    pub ordinal: i32,
    /// When it began.
    pub since: Time,
}

/// The membership changes that take more than one step.
#[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// A new member joins as a learner and is promoted.
    Join,
    /// A member leaves: leadership off it, removed, its set deleted, its claim as the retention
    /// says.
    Leave,
}

/// One member as the operator knows it.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Ordinal of the member; part of all its names.
    pub ordinal: i32,
    /// Name of the member in the store, and of its StatefulSet.
    pub name: String,
    /// Id of the member in the store, in hexadecimal, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Pending until the store lists it, then Learner, then Voter; Removed once the store lists it
    /// no more.
    pub role: MemberRole,
    /// Name of its claim.
    pub claim: String,
    /// UID of its claim as it was first seen bound to this member.
    #[serde(default, rename = "claimUID", skip_serializing_if = "Option::is_none")]
    pub claim_uid: Option<String>,
    /// Node that its pod runs on, or ran on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// URL at which it serves clients, once the store lists it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether its pod is ready.
    #[serde(default)]
    pub ready: bool,
    /// What it does now: Healthy, Starting, Lagging, NoLeader, Unreachable, Refusing or Stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<MemberHealth>,
    /// How many entries it has applied less than the leader has committed. Fewer than a thousand count
    /// as 0, since the two are read at different moments; more are rounded down to a power of two, so
    /// that a status which says the same stays the same. Absent while the member or a leader cannot be
    /// asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Whether it has been ready once since it was last started on purpose; a member that was not
    /// is starting, not down.
    #[serde(default)]
    pub started: bool,
    /// Memory: whether it ever had a vote. The volume of such a member is kept until there are as many
    /// voters as wanted without it.
    #[serde(default, skip_serializing_if = "crate::store_cluster::is_false")]
    pub voted: bool,
    /// Memory and report: the version that its pod ran when it was ready last; what may be upgraded
    /// to, and back to, is judged by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Memory and report: the last verdict of the server about its data (Empty, Corrupt, Removed,
    /// ForeignCluster, FormatTooNew), until it answers again. Empty, Corrupt and Removed are reasons
    /// to replace the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// When the member was decided upon.
    pub since: Time,
}

/// What a member is in the store.
#[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    /// Decided upon, not yet listed by the store.
    Pending,
    /// Receives the log, has no vote.
    Learner,
    /// Has a vote.
    Voter,
    /// The store lists it no more; what is left of it is being cleared away.
    Removed,
}

impl MemberRole {
    /// Whether the store lists a member of this role.
    #[must_use]
    pub fn is_listed(self) -> bool {
        match self {
            Self::Learner | Self::Voter => true,
            Self::Pending | Self::Removed => false,
        }
    }
}

/// What a member does now, as its pod and its answers show it.
#[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberHealth {
    /// It follows the leader and keeps up; a voter is ready too.
    Healthy,
    /// It has not been ready since it was decided upon or restarted, or is just not ready.
    Starting,
    /// It follows the leader and is a thousand entries behind, or more.
    Lagging,
    /// It answers and knows no leader, or another than the others.
    NoLeader,
    /// It does not answer, although it has been ready before.
    Unreachable,
    /// Its server does not start on its data; `verdict` says why.
    Refusing,
    /// It is stopped because the cluster is hibernated, or has left.
    Stopped,
}
