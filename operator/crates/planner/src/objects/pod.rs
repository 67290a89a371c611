//! What the pods of members and of the formation Job have in common: security, scheduling, the
//! volume, the container.

use crate::desired::Desired;
use crate::digest::digest;
use crate::limits::GRACE_SECONDS;
use crate::naming::{CONTAINER, MOUNT_PATH};
use crate::objects::labels::Owner;
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, PersistentVolumeClaimVolumeSource, PodAffinityTerm,
    PodAntiAffinity, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
    TopologySpreadConstraint, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::serde_json::json;
use quorate_crds::{AntiAffinity, PodSecurity, PodTemplate};
use std::collections::BTreeMap;

/// The user and group that the server runs as: `nonroot` of the usual minimal images.
const NONROOT: i64 = 65532;

/// Fingerprint of the settings that take a restart to change, and of no others: the script
/// `exactly_what_needs_a_restart_causes_one` goes through all of them. Only what the user asked for
/// goes in: a template that an operator upgrade alone has changed waits for the next restart and
/// pends nothing.
#[must_use]
pub fn settings_digest(desired: &Desired) -> String {
    let mut settings = json!({
        "version": desired.version,
        "image": desired.image,
        "options": desired.options.flags(),
        "resources": desired.resources,
        "env": desired.env,
        "antiAffinity": desired.anti_affinity,
        "topologySpread": desired.topology_spread,
        "nodeSelector": desired.node_selector,
        "tolerations": desired.tolerations,
        "priorityClass": desired.priority_class,
    });
    // Only where it is: the digests of clusters without it stay what they were.
    if let Some(restart) = &desired.restart {
        settings["restart"] = restart.clone().into();
    }
    // Labels are written to pods that run.
    let pod = PodTemplate { labels: BTreeMap::new(), ..desired.pod.clone() };
    if pod != PodTemplate::default() {
        settings["podTemplate"] = json!(pod);
    }
    digest(&settings)
}

/// The pod around one container that works on one claim, under the "restricted" pod security
/// standard.
#[must_use]
pub fn spec(owner: &Owner<'_>, desired: &Desired, claim: &str, container: Container) -> PodSpec {
    PodSpec {
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: Some(desired.image.clone()),
            command: Some(vec!["/quorate".to_owned()]),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            volume_mounts: Some(vec![VolumeMount {
                name: "data".to_owned(),
                mount_path: MOUNT_PATH.to_owned(),
                ..VolumeMount::default()
            }]),
            security_context: Some(container_security()),
            ..container
        }],
        volumes: Some(vec![Volume {
            name: "data".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.to_owned(),
                ..PersistentVolumeClaimVolumeSource::default()
            }),
            ..Volume::default()
        }]),
        security_context: Some(pod_security(desired)),
        // The server speaks to no API server.
        automount_service_account_token: Some(false),
        // The environment variables that Services inject would only be noise.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(
            desired.pod.termination_grace_period_seconds.unwrap_or(GRACE_SECONDS),
        ),
        service_account_name: desired.pod.service_account_name.clone(),
        runtime_class_name: desired.pod.runtime_class_name.clone(),
        affinity: affinity(owner, desired.anti_affinity),
        topology_spread_constraints: spread(owner, desired),
        node_selector: some(desired.node_selector.clone(), BTreeMap::is_empty),
        tolerations: some(desired.tolerations.clone(), Vec::is_empty),
        priority_class_name: desired.priority_class.clone(),
        image_pull_secrets: some(desired.image_pull_secrets.clone(), Vec::is_empty),
        ..PodSpec::default()
    }
}

fn some<T>(value: T, empty: impl Fn(&T) -> bool) -> Option<T> {
    if empty(&value) { None } else { Some(value) }
}

/// What the spec says of user and groups, or ours. What the spec leaves out is left to the platform.
fn pod_security(desired: &Desired) -> PodSecurityContext {
    let ours = || PodSecurity {
        run_as_user: Some(NONROOT),
        run_as_group: Some(NONROOT),
        fs_group: Some(NONROOT),
        ..PodSecurity::default()
    };
    let wanted = desired.pod.security_context.clone().unwrap_or_else(ours);
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: wanted.run_as_user,
        run_as_group: wanted.run_as_group,
        fs_group: wanted.fs_group,
        supplemental_groups: some(wanted.supplemental_groups, Vec::is_empty),
        se_linux_options: wanted.se_linux_options,
        // Changing the owner of every file at each start would make a restart grow with the data.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        ..SecurityContext::default()
    }
}

fn members(owner: &Owner<'_>) -> LabelSelector {
    LabelSelector { match_labels: Some(owner.member_selector()), ..LabelSelector::default() }
}

fn affinity(owner: &Owner<'_>, rule: AntiAffinity) -> Option<Affinity> {
    let apart = PodAffinityTerm {
        label_selector: Some(members(owner)),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodAffinityTerm::default()
    };
    let anti_affinity = match rule {
        AntiAffinity::None => return None,
        AntiAffinity::Preferred => PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm { weight: 100, pod_affinity_term: apart },
            ]),
            ..PodAntiAffinity::default()
        },
        AntiAffinity::Required => PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![apart]),
            ..PodAntiAffinity::default()
        },
    };
    Some(Affinity { pod_anti_affinity: Some(anti_affinity), ..Affinity::default() })
}

fn spread(owner: &Owner<'_>, desired: &Desired) -> Option<Vec<TopologySpreadConstraint>> {
    let constraints = desired
        .topology_spread
        .iter()
        .map(|rule| TopologySpreadConstraint {
            topology_key: rule.topology_key.clone(),
            max_skew: rule.max_skew.unwrap_or(1),
            when_unsatisfiable: rule.when_unsatisfiable.unwrap_or_default().as_str().to_owned(),
            label_selector: Some(members(owner)),
            ..TopologySpreadConstraint::default()
        })
        .collect();
    some(constraints, Vec::is_empty)
}
