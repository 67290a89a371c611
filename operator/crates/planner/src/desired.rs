//! Desired: the spec, validated and with every default filled in.

use crate::naming::ClusterName;
use k8s_openapi::api::core::v1::{EnvVar, LocalObjectReference, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use quorate_crds::{
    AntiAffinity, PodTemplate, RetentionPolicy, ServiceType, StoreCluster, StoreOptions,
    TopologySpread, UnhealthyPodEviction,
};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What the operator adds to every spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Image repository of the server; `spec.version` is the tag.
    pub image_repository: String,
}

/// The spec, validated and with every default filled in. Nothing in the planner reads the raw spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Name and namespace.
    pub name: ClusterName,
    /// Labels of every child, in addition to the operator's own.
    pub labels: BTreeMap<String, String>,
    /// Wanted number of members.
    pub replicas: i32,
    /// Version of the server.
    pub version: String,
    /// Complete image reference.
    pub image: String,
    /// Pull secrets.
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Size of new claims.
    pub storage_size: Quantity,
    /// StorageClass of new claims; `None` for the default class.
    pub storage_class: Option<String>,
    /// Resources of the server container.
    pub resources: Option<ResourceRequirements>,
    /// Anti-affinity over nodes.
    pub anti_affinity: AntiAffinity,
    /// Spreading over groups of nodes.
    pub topology_spread: Vec<TopologySpread>,
    /// Node labels.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// PriorityClass.
    pub priority_class: Option<String>,
    /// Options of the server.
    pub options: StoreOptions,
    /// Environment of the server container.
    pub env: Vec<EnvVar>,
    /// What the spec shapes of the pods.
    pub pod: PodTemplate,
    /// When the budget lets a voter go that is not ready.
    pub unhealthy_pod_eviction: UnhealthyPodEviction,
    /// Type of the client Service.
    pub service_type: ServiceType,
    /// Annotations of the client Service.
    pub service_annotations: BTreeMap<String, String>,
    /// Labels of the client Service.
    pub service_labels: BTreeMap<String, String>,
    /// What becomes of claims of removed members.
    pub when_scaled: RetentionPolicy,
    /// What becomes of claims when the cluster is deleted.
    pub when_deleted: RetentionPolicy,
    /// Whether changed settings wait for somebody who deletes pods.
    pub on_delete: bool,
    /// Whether the rollout of changed settings stops where it is.
    pub rollout_paused: bool,
    /// Value of the annotation that restarts every member, if it is there.
    pub restart: Option<String>,
    /// How long a node must have been not ready before its silent members are replaced; `None` for
    /// never.
    pub replace_after: Option<Duration>,
    /// Whether to change nothing.
    pub paused: bool,
    /// Whether all members shall be stopped.
    pub hibernated: bool,
}

/// A spec that cannot be served, with a message that says what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

impl Desired {
    /// Checks what admission could not, and fills in the defaults.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the spec cannot be served; its message goes into the condition Progressing
    /// (InvalidSpec).
    pub fn validate(cluster: &StoreCluster, defaults: &Defaults) -> Result<Self, Invalid> {
        crate::validate::validate(cluster, defaults)
    }
}
