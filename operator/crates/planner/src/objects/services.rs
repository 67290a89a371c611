//! The two Services: headless for the peers, one address for the clients.

use crate::desired::Desired;
use crate::naming::{CLIENT_PORT, PEER_PORT};
use crate::objects::labels::Owner;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_crds::names;

/// The headless Service. It publishes addresses of pods that are not ready, because members find
/// each other through it before any of them can be ready.
#[must_use]
pub fn peers(owner: &Owner<'_>) -> Service {
    Service {
        metadata: owner.metadata(owner.name.peer_service(), owner.labels()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(owner.member_selector()),
            ports: Some(vec![port("client", CLIENT_PORT), port("peer", PEER_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The Service of the clients: ready pods of the current incarnation, so that a restore can switch
/// all clients at once.
#[must_use]
pub fn clients(owner: &Owner<'_>, desired: &Desired, incarnation: i64) -> Service {
    let mut labels = desired.service_labels.clone();
    labels.extend(owner.labels());
    let mut metadata = owner.metadata(owner.name.client_service(), labels);
    if !desired.service_annotations.is_empty() {
        metadata.annotations = Some(desired.service_annotations.clone());
    }
    let mut selector = owner.member_selector();
    selector.insert(names::LABEL_INCARNATION.to_owned(), incarnation.to_string());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(desired.service_type.as_str().to_owned()),
            selector: Some(selector),
            ports: Some(vec![port("client", CLIENT_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::Int(number)),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
