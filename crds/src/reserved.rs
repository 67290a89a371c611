//! Reserved: keys of labels and annotations that a spec may not set, because the operator or
//! Kubernetes finds things by them.

use crate::limits;
use schemars::{Schema, SchemaGenerator, json_schema};

/// CEL over a map of labels: no key is one that something finds pods, sets or Jobs by. Only
/// `startsWith` and equality, whose cost does not grow with the length of a key.
const LABEL_RULE: &str = "self.all(key, !key.startsWith('quorate.dev/') && \
    !key.startsWith('statefulset.kubernetes.io/') && !key.startsWith('apps.kubernetes.io/') && \
    !key.startsWith('batch.kubernetes.io/') && !(key in ['app.kubernetes.io/name', \
    'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by', 'controller-revision-hash', \
    'controller-uid', 'job-name']))";

/// What a person reads when [`LABEL_RULE`] refuses.
const LABEL_MESSAGE: &str = "labels of quorate.dev/, statefulset.kubernetes.io/, \
    apps.kubernetes.io/ and batch.kubernetes.io/, app.kubernetes.io/name, instance and managed-by, \
    and controller-revision-hash, controller-uid and job-name are reserved: the operator and \
    Kubernetes find the cluster's objects by them; choose another key, such as \
    app.kubernetes.io/part-of or one of your own domain";

/// CEL over a map of annotations: no key is one that the operator writes itself.
pub(crate) const ANNOTATION_RULE: &str = "self.all(key, !key.startsWith('quorate.dev/') && \
    !key.startsWith('kubectl.kubernetes.io/'))";

/// What a person reads when [`ANNOTATION_RULE`] refuses.
pub(crate) const ANNOTATION_MESSAGE: &str = "annotations of quorate.dev/ and kubectl.kubernetes.io/ are \
    reserved: the operator writes them itself; to restart the members annotate the StoreCluster \
    with quorate.dev/restart, otherwise choose another key";

/// What a label's value may be (apimachinery `IsValidLabelValue`; its length is bounded beside it).
const LABEL_VALUE_PATTERN: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// Longest value of a label, in characters (apimachinery `LabelValueMaxLength`).
const LABEL_VALUE_MAX: u32 = 63;

/// The schema of a map of labels that a person may set.
pub(crate) fn labels(_generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {
            "type": "string",
            "maxLength": LABEL_VALUE_MAX,
            "pattern": LABEL_VALUE_PATTERN
        },
        "maxProperties": limits::LIST_MAX,
        "x-kubernetes-validations": [{"rule": LABEL_RULE, "message": LABEL_MESSAGE}]
    })
}

/// Whether a label's key is reserved: `LABEL_RULE` in Rust, for objects that were stored before
/// the rule was there.
#[must_use]
pub fn is_reserved_label(key: &str) -> bool {
    let families = [
        "quorate.dev/",
        "statefulset.kubernetes.io/",
        "apps.kubernetes.io/",
        "batch.kubernetes.io/",
    ];
    let names = [
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/managed-by",
        "controller-revision-hash",
        "controller-uid",
        "job-name",
    ];
    families.iter().any(|family| key.starts_with(family)) || names.contains(&key)
}

/// Whether an annotation's key is reserved: `ANNOTATION_RULE` in Rust.
#[must_use]
pub fn is_reserved_annotation(key: &str) -> bool {
    key.starts_with("quorate.dev/") || key.starts_with("kubectl.kubernetes.io/")
}
