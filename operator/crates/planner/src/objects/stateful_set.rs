//! The StatefulSet of one member: replicas 0 or 1, OnDelete, Parallel, and nothing in it that
//! depends on membership.

use crate::desired::Desired;
use crate::limits::{DRAIN_SECONDS, STARTUP_PROBES};
use crate::naming::{CLIENT_PORT, CONTAINER, DATA_DIR, PEER_PORT, hex};
use crate::objects::labels::{Labels, Owner};
use crate::objects::pod;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{Container, ContainerPort, HTTPGetAction, PodTemplateSpec, Probe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_crds::names;
use std::collections::BTreeMap;

/// What of one member goes into its set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat<'a> {
    /// Its ordinal.
    pub ordinal: i32,
    /// Name of its claim.
    pub claim: &'a str,
    /// Whether it has a vote: a label of the pod, which no restart depends on.
    pub voter: bool,
    /// Incarnation of the cluster.
    pub incarnation: i64,
    /// Id of the cluster that it belongs to; serving pods join and never form (INV-O5).
    pub cluster_id: u64,
}

/// The set of one member.
#[must_use]
pub fn member(owner: &Owner<'_>, desired: &Desired, seat: &Seat<'_>) -> StatefulSet {
    let mut selector = owner.member_selector();
    selector.insert(names::LABEL_ORDINAL.to_owned(), seat.ordinal.to_string());
    let mut labels = owner.labels();
    labels.insert(names::LABEL_ORDINAL.to_owned(), seat.ordinal.to_string());
    labels.insert(names::LABEL_INCARNATION.to_owned(), seat.incarnation.to_string());
    StatefulSet {
        metadata: owner.metadata(owner.name.member(seat.ordinal), labels),
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::from(!desired.hibernated)),
            service_name: Some(owner.name.peer_service()),
            selector: LabelSelector { match_labels: Some(selector), ..LabelSelector::default() },
            pod_management_policy: Some("Parallel".to_owned()),
            // Nothing is restarted because a template changed; what restarts a member is a decision
            // of the planner.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels(owner, desired, seat)),
                    annotations: Some(pod_annotations(desired)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod::spec(owner, desired, seat.claim, container(owner, desired, seat))),
            },
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

/// Labels of a member's pod; the operator's own win.
#[must_use]
pub fn pod_labels(owner: &Owner<'_>, desired: &Desired, seat: &Seat<'_>) -> Labels {
    let mut labels = desired.pod.labels.clone();
    labels.extend(owner.labels());
    labels.extend(owner.member_selector());
    labels.insert(names::LABEL_ORDINAL.to_owned(), seat.ordinal.to_string());
    labels.insert(names::LABEL_INCARNATION.to_owned(), seat.incarnation.to_string());
    let role = if seat.voter { names::ROLE_VOTER } else { names::ROLE_LEARNER };
    labels.insert(names::LABEL_ROLE.to_owned(), role.to_owned());
    labels
}

fn pod_annotations(desired: &Desired) -> BTreeMap<String, String> {
    let mut annotations = desired.pod.annotations.clone();
    let own = [
        (names::ANNOTATION_SETTINGS, pod::settings_digest(desired)),
        (names::ANNOTATION_VERSION, desired.version.clone()),
        ("kubectl.kubernetes.io/default-container", CONTAINER.to_owned()),
    ];
    annotations.extend(own.map(|(key, value)| (key.to_owned(), value)));
    annotations
}

fn container(owner: &Owner<'_>, desired: &Desired, seat: &Seat<'_>) -> Container {
    let name = owner.name;
    let mut args = vec![
        format!("--name={}", name.member(seat.ordinal)),
        format!("--data-dir={DATA_DIR}"),
        format!("--listen-client-urls=http://0.0.0.0:{CLIENT_PORT}"),
        format!("--advertise-client-urls={}", name.client_url(seat.ordinal)),
        format!("--listen-peer-urls=http://0.0.0.0:{PEER_PORT}"),
        format!("--initial-advertise-peer-urls={}", name.peer_url(seat.ordinal)),
        "--initial-cluster-state=existing".to_owned(),
        format!("--join-cluster-id={}", hex(seat.cluster_id)),
        format!("--join-peers=http://{}:{PEER_PORT}", name.peer_domain()),
        format!("--drain-delay={DRAIN_SECONDS}s"),
    ];
    args.extend(desired.options.flags());
    Container {
        args: Some(args),
        env: if desired.env.is_empty() { None } else { Some(desired.env.clone()) },
        resources: desired.resources.clone(),
        ports: Some(vec![port("client", CLIENT_PORT), port("peer", PEER_PORT)]),
        startup_probe: Some(probe("/livez", 1, STARTUP_PROBES)),
        liveness_probe: Some(probe("/livez", 5, 6)),
        readiness_probe: Some(probe("/readyz", 1, 2)),
        ..Container::default()
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(CLIENT_PORT),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}
