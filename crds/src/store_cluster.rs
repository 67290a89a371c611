//! StoreCluster: one replicated store, as a person asks for it.

use crate::options::StoreOptions;
use crate::pod_template::{DisruptionBudget, PodTemplate};
use crate::status::StoreClusterStatus;
use crate::{limits, reserved};
use k8s_openapi::api::core::v1::{EnvVar, LocalObjectReference, ResourceRequirements, Toleration};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A replicated key-value store that speaks etcd's v3 API: members that agree by Raft, each with a
/// volume of its own.
#[derive(CustomResource, Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "quorate.dev",
    version = "v1alpha1",
    kind = "StoreCluster",
    plural = "storeclusters",
    singular = "storecluster",
    shortname = "qsc",
    category = "all",
    category = "quorate",
    namespaced,
    status = "StoreClusterStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A replicated key-value store that speaks etcd's v3 API.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready", description = "Ready voters of wanted members"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader", description = "Member that leads"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", description = "Lowest version that a member runs"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.conditions[?(@.type=='Available')].status", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Progressing')].reason", priority = 1),
    printcolumn(name = "Cluster ID", type_ = "string", json_path = ".status.clusterID", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = ("size(self.metadata.name) <= 40",
        "the name of a StoreCluster may have at most 40 characters, because the names of its \
            members and claims are made from it; choose a shorter one"),
    validation = ("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "the name of a StoreCluster must begin with a lower-case letter and have only \
            lower-case letters, digits and dashes (no dots), because Services are named after \
            it; choose another name"),
    // A size that no volume was ever asked to be may be taken back: so ends a wait for a class that
    // cannot expand.
    validation = ("quantity(self.spec.storage.size).compareTo(quantity(oldSelf.spec.storage.size)) >= 0 \
            || has(oldSelf.status) && has(oldSelf.status.volumeSize) \
            && quantity(self.spec.storage.size).compareTo(quantity(oldSelf.status.volumeSize)) >= 0",
        "storage.size cannot shrink below what volumes have been asked to be \
            (status.volumeSize), because a volume cannot; set it back to at least that, or make a \
            smaller cluster and move the data")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoreClusterSpec {
    /// Number of members, 1 to 15. Use an odd number: an even one costs a member and tolerates no
    /// more failures. Members are added and removed one at a time. To stop the cluster and keep its
    /// data, set `hibernated: true`.
    #[x_kube(
        validation = ("self >= 1", "replicas must be at least 1; to stop the cluster and keep \
            its data set hibernated: true, to remove it delete the StoreCluster"),
        validation = ("self <= 15", "replicas may be at most 15: each member beyond \
            seven only makes every write slower"),
    )]
    pub replicas: i32,
    /// Version of the server, such as "0.1.0". Names the image unless `image` does. A change
    /// restarts the members one at a time, the leader last (see `updateStrategy`). At most one minor
    /// version at a time and never back across one: anything else is refused in the condition
    /// Degraded (VersionRefused) and touches no member.
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$"), length(max = 64))]
    pub version: String,
    /// Image of the server, in place of the operator's default repository with `version` as tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Secrets in the same namespace with which the image is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::LIST_MAX))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// The volume of each member.
    pub storage: Storage,
    /// CPU and memory of the server container, as in a pod. A change restarts the members one at a
    /// time (see `updateStrategy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Where members may run. A change restarts the members one at a time (see `updateStrategy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
    /// Options of the server, under etcd's names. A change restarts the members one at a time (see
    /// `updateStrategy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<StoreOptions>,
    /// Environment of the server container. Names that begin with `ETCD_` are refused: they would
    /// be a second way to set what `options` sets. A change restarts the members one at a time (see
    /// `updateStrategy`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ENV_MAX))]
    pub env: Vec<EnvVar>,
    /// Labels of every object that is made for this cluster, in addition to the operator's own. A
    /// change reaches Services, sets, the budget and running pods without a restart; volumes keep the
    /// labels that they were made with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "reserved::labels")]
    pub labels: BTreeMap<String, String>,
    /// A part of the members' pods: labels, annotations, service account, user and groups, runtime
    /// class, time to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// The PodDisruptionBudget of the voters. A change restarts nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption_budget: Option<DisruptionBudget>,
    /// The Service that clients connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSpec>,
    /// What becomes of the volumes of members that leave and of a cluster that is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_retention: Option<VolumeRetention>,
    /// How a change of `version`, `image`, `options`, `env`, `resources`, `scheduling` or `podTemplate`
    /// (its labels apart) reaches the members that run. The annotation quorate.dev/restart of the StoreCluster restarts them without
    /// such a change, each time that its value is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
    /// What is done about members whose node is lost. Members whose volume or data are lost are
    /// replaced without being asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// The operator changes nothing while this is true; it goes on reporting. A deletion is still
    /// carried out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// All members are stopped and their volumes kept while this is true. `replicas` stays as it
    /// is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hibernated: bool,
}

/// The volume of each member.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// Size of a volume as a Kubernetes quantity, such as "8Gi". When it grows, the volumes grow with
    /// it, one after the other and in use, where their StorageClass has allowVolumeExpansion; the
    /// condition ResizePending says whose volumes are on their way, and whose cannot grow and why. It
    /// cannot shrink below what a volume has already been asked to be (status.volumeSize).
    #[schemars(
        regex(pattern = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"),
        length(max = limits::QUANTITY_MAX)
    )]
    #[x_kube(validation = ("quantity(self).isGreaterThan(quantity('0'))", "storage.size must be more than \
        nothing, for instance 8Gi"))]
    pub size: String,
    /// StorageClass of volumes that are made from now on; absent: the default class of the
    /// Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// Where members may run.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scheduling {
    /// Whether two members may share a node: Preferred (the default) avoids it where possible,
    /// Required never does it, None does not care.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anti_affinity: Option<AntiAffinity>,
    /// How members are spread over zones or other groups of nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::LIST_MAX))]
    pub topology_spread: Vec<TopologySpread>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that members tolerate, as in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::LIST_MAX))]
    pub tolerations: Vec<Toleration>,
    /// PriorityClass of the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class: Option<String>,
}

/// Whether two members may share a node.
#[derive(
    Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
pub enum AntiAffinity {
    /// Avoided where possible.
    #[default]
    Preferred,
    /// Never: a member that finds no node of its own waits.
    Required,
    /// No rule.
    None,
}

/// One rule of spreading members over groups of nodes; the selector is the cluster's own pods.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopologySpread {
    /// Node label whose values are the groups, such as topology.kubernetes.io/zone.
    #[schemars(length(min = 1, max = 316))]
    pub topology_key: String,
    /// Largest difference between the numbers of members of two groups. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_skew: Option<i32>,
    /// What happens to a member that would break the rule: ScheduleAnyway (the default) or
    /// DoNotSchedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_unsatisfiable: Option<WhenUnsatisfiable>,
}

/// What happens to a member that would break a rule of spreading.
#[derive(
    Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
pub enum WhenUnsatisfiable {
    /// It is scheduled where it breaks the rule least.
    #[default]
    ScheduleAnyway,
    /// It waits.
    DoNotSchedule,
}

impl WhenUnsatisfiable {
    /// The word of the pod API for this value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScheduleAnyway => "ScheduleAnyway",
            Self::DoNotSchedule => "DoNotSchedule",
        }
    }
}

/// The Service that clients connect to, `<name>-client`, port 2379.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// ClusterIP (the default), NodePort or LoadBalancer.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ServiceType>,
    /// Annotations of the Service, for instance for the load balancer of a cloud.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels of the Service, in addition to the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "reserved::labels")]
    #[schemars(extend("maxProperties" = limits::LIST_MAX))]
    pub labels: BTreeMap<String, String>,
}

/// How the client Service is reached.
#[derive(
    Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
pub enum ServiceType {
    /// From inside the Kubernetes cluster.
    #[default]
    ClusterIP,
    /// On a port of every node.
    NodePort,
    /// Through a load balancer of the cloud.
    LoadBalancer,
}

impl ServiceType {
    /// The word of the Service API for this value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// How changed settings reach the members that run.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateStrategy {
    /// RollingUpdate (the default): members are restarted one at a time, each only when all voters
    /// have caught up and the one before serves, the leader last, after leadership has been moved
    /// off it; the first that fails stops the rollout (RolloutFailed), and editing the spec back
    /// heals it. OnDelete: nobody is restarted; the condition RestartPending names the members, and
    /// a pod that is deleted comes back with the new settings.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<UpdateType>,
    /// The rollout stops where it is while this is true: members that were restarted keep the new
    /// settings, the others the old ones. Everything else goes on, unlike `spec.paused`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
}

/// Who restarts members whose settings have changed.
#[derive(
    Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
pub enum UpdateType {
    /// The operator, one at a time, the leader last.
    #[default]
    RollingUpdate,
    /// Whoever deletes pods.
    OnDelete,
}

/// What is done about members whose node is lost.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recovery {
    /// How long a node must have been not ready before a member on it that does not answer is
    /// replaced by a new one elsewhere: "10m", "1h30m". Absent: never for that alone; Degraded says
    /// NodeLost. A Node object that was deleted, and the taint node.kubernetes.io/out-of-service,
    /// need no waiting and no opting in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,6}[smh])+$"), length(max = limits::QUANTITY_MAX))]
    pub replace_after: Option<String>,
}

/// What becomes of volumes that are no longer used.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeRetention {
    /// The volume of a member that left by scale-in: Delete (the default, as other members hold the
    /// same data) or Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_scaled: Option<RetentionPolicy>,
    /// The volumes of a cluster that is deleted: Retain (the default, so that a deletion by mistake
    /// loses nothing) or Delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_deleted: Option<RetentionPolicy>,
}

/// What becomes of a volume.
#[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionPolicy {
    /// It is kept.
    Retain,
    /// It is deleted, and the data with it.
    Delete,
}

pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}
