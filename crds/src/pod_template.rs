//! The part of a member's pod that a spec may shape.
//!
//! What is here cannot break what the operator promises. What is not: containers, init containers
//! and volumes (a sidecar that crashes makes a voter unready, and evictions and restarts are judged
//! by that), the probes (a liveness probe that fails on a lost quorum would restart members that
//! must not be), the host's network and DNS settings (members find each other by the cluster's DNS).
//! A sidecar that everybody needs is injected at admission, by an annotation.

use crate::{limits, reserved};
use k8s_openapi::api::core::v1::SELinuxOptions;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A part of the members' pods, in the pod's own words. Reserved keys are refused.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodTemplate {
    /// Labels of the pods, in addition to the operator's own. A change reaches running pods without
    /// a restart; a label that is taken away here leaves a pod at its next restart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "reserved::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods. A change restarts the members one at a time, because those who read
    /// annotations mostly read them when a pod is made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = (reserved::ANNOTATION_RULE, reserved::ANNOTATION_MESSAGE))]
    #[schemars(extend("maxProperties" = limits::LIST_MAX))]
    pub annotations: BTreeMap<String, String>,
    /// ServiceAccount of the pods, for instance one that brings pull secrets or is allowed a security
    /// context. Its token is not mounted: the server asks the API server nothing. A change restarts
    /// the members one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// User and groups of the server, in place of 65532. Where it is given, what it leaves out is
    /// left to the platform, as OpenShift wants it: `securityContext: {}`. The server never runs as
    /// root, and always under the runtime's default seccomp profile. A change restarts the members
    /// one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<PodSecurity>,
    /// Seconds that a member may take to stop before it is killed: 30 (the default, time for the
    /// drain, the hand-over of leadership and a last checkpoint) to 110. A change restarts the members
    /// one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = limits::GRACE_MIN, max = limits::GRACE_MAX))]
    pub termination_grace_period_seconds: Option<i64>,
    /// RuntimeClass of the pods, such as that of a sandboxed runtime. A change restarts the members
    /// one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
}

/// User and groups of the server, as in a pod's security context.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSecurity {
    /// User that the server runs as; not root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub run_as_user: Option<i64>,
    /// First group of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub run_as_group: Option<i64>,
    /// Group that owns the volume. It must be one that the server has, or the server cannot write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub fs_group: Option<i64>,
    /// Further groups of the server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::LIST_MAX))]
    pub supplemental_groups: Vec<i64>,
    /// SELinux labels of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se_linux_options: Option<SELinuxOptions>,
}

/// How evictions treat the voters.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisruptionBudget {
    /// AlwaysAllow (the default): a voter that is not ready may be evicted at any time, so that one
    /// broken member does not block every drain; its volume stays, and it comes back. IfHealthyBudget:
    /// it may be evicted only while enough others are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_pod_eviction_policy: Option<UnhealthyPodEviction>,
}

/// When a pod that is not ready may be evicted.
#[derive(
    Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq,
)]
pub enum UnhealthyPodEviction {
    /// At any time.
    #[default]
    AlwaysAllow,
    /// While the budget is met without it.
    IfHealthyBudget,
}

impl UnhealthyPodEviction {
    /// The word of the policy API for this value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlwaysAllow => "AlwaysAllow",
            Self::IfHealthyBudget => "IfHealthyBudget",
        }
    }
}
