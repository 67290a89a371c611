//! The claim of one member.

use crate::desired::Desired;
use crate::objects::labels::Owner;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use quorate_crds::names;
use std::collections::BTreeMap;

/// A new claim. It has no owner reference: what becomes of it is decided by the retention policy,
/// never by garbage collection.
#[must_use]
pub fn claim(
    owner: &Owner<'_>,
    desired: &Desired,
    ordinal: i32,
    incarnation: i64,
) -> PersistentVolumeClaim {
    let mut labels = owner.labels();
    labels.insert(names::LABEL_ORDINAL.to_owned(), ordinal.to_string());
    labels.insert(names::LABEL_INCARNATION.to_owned(), incarnation.to_string());
    let mut metadata = owner.metadata(owner.name.claim(ordinal, incarnation), labels);
    metadata.owner_references = None;
    metadata.annotations =
        Some(BTreeMap::from([(names::ANNOTATION_CLUSTER_UID.to_owned(), owner.uid.to_owned())]));
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: desired.storage_class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    desired.storage_size.clone(),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
