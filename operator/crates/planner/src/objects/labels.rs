//! Labels, owner reference and metadata that the children share.

use crate::naming::ClusterName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use quorate_crds::names;
use std::collections::BTreeMap;

/// A map of strings.
pub type Labels = BTreeMap<String, String>;

/// Whose children are built: name, namespace and UID of the StoreCluster, and the labels that a
/// person wants on all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Name and namespace.
    pub name: &'a ClusterName,
    /// UID of the StoreCluster.
    pub uid: &'a str,
    /// Labels of every child, in addition to the operator's own.
    pub extra: &'a Labels,
}

impl Owner<'_> {
    /// Labels of every child. The operator's own come last, so that nothing takes their place.
    #[must_use]
    pub fn labels(&self) -> Labels {
        let mut labels = self.extra.clone();
        labels.extend(self.own_labels());
        labels
    }

    fn own_labels(&self) -> impl Iterator<Item = (String, String)> {
        [
            ("app.kubernetes.io/name", "quorate"),
            ("app.kubernetes.io/instance", self.name.name.as_str()),
            ("app.kubernetes.io/managed-by", "quorate-operator"),
            (names::LABEL_CLUSTER, self.name.name.as_str()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
    }

    /// What selects the pods of all members, whatever their role.
    #[must_use]
    pub fn member_selector(&self) -> Labels {
        BTreeMap::from([
            (names::LABEL_CLUSTER.to_owned(), self.name.name.clone()),
            (names::LABEL_COMPONENT.to_owned(), names::COMPONENT_MEMBER.to_owned()),
        ])
    }

    /// Metadata of a child that the StoreCluster owns and that goes with it.
    #[must_use]
    pub fn metadata(&self, name: String, labels: Labels) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.name.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![OwnerReference {
                api_version: format!("{}/v1alpha1", names::GROUP),
                kind: "StoreCluster".to_owned(),
                name: self.name.name.clone(),
                uid: self.uid.to_owned(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        }
    }
}

/// A selector as a string, as the scale subresource wants it in status.
#[must_use]
pub fn selector_text(selector: &Labels) -> String {
    let terms: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    terms.join(",")
}
