//! The one-shot Job that forms the cluster on the seed's claim.

use crate::desired::Desired;
use crate::limits::FORMATION_TRIES;
use crate::naming::DATA_DIR;
use crate::objects::labels::Owner;
use crate::objects::pod;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_crds::names;
use std::collections::BTreeMap;

/// The Job. It has the set's scheduling, because under WaitForFirstConsumer it is the Job's pod
/// that picks the node of the seed's volume. `prepare form` refuses a directory that holds another
/// token's data and succeeds again on its own, so that the Job may run more than once.
#[must_use]
pub fn form(
    owner: &Owner<'_>,
    desired: &Desired,
    token: &str,
    ordinal: i32,
    incarnation: i64,
) -> Job {
    let name = owner.name;
    let mut labels = owner.labels();
    labels.insert(names::LABEL_ORDINAL.to_owned(), ordinal.to_string());
    labels.insert(names::LABEL_INCARNATION.to_owned(), incarnation.to_string());
    labels.insert(names::LABEL_COMPONENT.to_owned(), names::COMPONENT_FORMATION.to_owned());
    let settings =
        BTreeMap::from([(names::ANNOTATION_SETTINGS.to_owned(), pod::settings_digest(desired))]);
    let container = Container {
        args: Some(vec![
            "prepare".to_owned(),
            "form".to_owned(),
            format!("--token={token}"),
            format!("--name={}", name.member(ordinal)),
            format!("--data-dir={DATA_DIR}"),
            format!("--peer-url={}", name.peer_url(ordinal)),
            format!("--client-url={}", name.client_url(ordinal)),
        ]),
        resources: desired.resources.clone(),
        ..Container::default()
    };
    let mut spec = pod::spec(owner, desired, &name.claim(ordinal, incarnation), container);
    spec.restart_policy = Some("Never".to_owned());
    let mut metadata = owner.metadata(name.formation_job(incarnation), labels.clone());
    // What is injected into members, or kept away from them, is so here too: a sidecar that never
    // ends would keep the Job from ending.
    let mut pod_annotations = desired.pod.annotations.clone();
    pod_annotations.extend(settings.clone());
    let mut pod_labels = desired.pod.labels.clone();
    pod_labels.extend(labels);
    metadata.annotations = Some(settings);
    Job {
        metadata,
        spec: Some(JobSpec {
            backoff_limit: Some(FORMATION_TRIES),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels),
                    annotations: Some(pod_annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(spec),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}
