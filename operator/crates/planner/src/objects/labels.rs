//! Labels, owner reference and metadata that the children share.

use crate::naming::ClusterName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use quorate_crds::names;
use std::collections::BTreeMap;

/// A map of strings.
pub type Labels = BTreeMap<String, String>;

/// Whose children are built: name, namespace and UID of the StoreCluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Name and namespace.
    pub name: &'a ClusterName,
    /// UID of the StoreCluster.
    pub uid: &'a str,
}

impl Owner<'_> {
    /// Labels of every child.
    #[must_use]
    pub fn labels(&self) -> Labels {
        [
            ("app.kubernetes.io/name", "quorate"),
            ("app.kubernetes.io/instance", self.name.name.as_str()),
            ("app.kubernetes.io/managed-by", "quorate-operator"),
            (names::LABEL_CLUSTER, self.name.name.as_str()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
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
