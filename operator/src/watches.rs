//! The caches: one watch for each kind of child in each served scope, which also says which
//! cluster to look at when a child changes, and one for StorageClasses.
//!
//! A child belongs to the cluster that its label names. Whether it *really* does (the owner's UID)
//! is the planner's question; here a wrong label costs one reconciliation of nothing.

use std::fmt::Debug;

use futures::future::FutureExt as _;
use futures::stream::{self, BoxStream, StreamExt as _};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::Api;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource, ResourceExt as _};
use quorate_crds::StoreCluster;
use quorate_crds::names::LABEL_CLUSTER;
use quorate_planner::StorageClasses;
use serde::de::DeserializeOwned;

use crate::words;

/// A StoreCluster as the API server sent it, decodable or not: one that this version cannot read
/// must not end the watch of all others.
pub(crate) type Guarded = DeserializeGuard<StoreCluster>;

/// Which clusters to look at, as changes of their children arrive.
pub(crate) type Triggers = BoxStream<'static, ObjectRef<Guarded>>;

/// The children of all clusters of one scope, as the API server last told them.
#[derive(Clone)]
pub(crate) struct Caches {
    pub(crate) sets: Store<StatefulSet>,
    pub(crate) pods: Store<Pod>,
    pub(crate) claims: Store<PersistentVolumeClaim>,
    pub(crate) services: Store<Service>,
    pub(crate) budgets: Store<PodDisruptionBudget>,
    pub(crate) jobs: Store<Job>,
    /// Of all clusters; `None` where the scope is one namespace, whose Role cannot give the right to
    /// read them.
    classes: Option<Store<StorageClass>>,
    /// Not waited for: an operator that is confined to namespaces may not read nodes.
    pub(crate) nodes: Store<Node>,
}

impl Caches {
    /// Makes the caches of a scope (`None`: all namespaces). They fill while the triggers are
    /// polled, and only then.
    pub(crate) fn watch(client: &Client, namespace: Option<&str>) -> (Caches, Triggers) {
        let (sets, sets_changed) = watch(client, namespace);
        let (pods, pods_changed) = watch(client, namespace);
        let (claims, claims_changed) = watch(client, namespace);
        let (services, services_changed) = watch(client, namespace);
        let (budgets, budgets_changed) = watch(client, namespace);
        let (jobs, jobs_changed) = watch(client, namespace);
        let (classes, classes_changed) = watch_classes(client, namespace);
        let (nodes, nodes_changed) = watch_nodes(client);
        let triggers = stream::select_all([
            nodes_changed,
            sets_changed,
            pods_changed,
            claims_changed,
            services_changed,
            budgets_changed,
            jobs_changed,
            classes_changed,
        ]);
        (Caches { sets, pods, claims, services, budgets, jobs, classes, nodes }, triggers.boxed())
    }

    /// What is known of StorageClasses.
    pub(crate) fn storage_classes(&self) -> StorageClasses {
        let Some(classes) = &self.classes else { return StorageClasses::Unreadable };
        let known = classes
            .state()
            .into_iter()
            .map(|class| (class.name_any(), class.allow_volume_expansion.unwrap_or_default()));
        StorageClasses::Known(known.collect())
    }

    /// The kinds whose first list has not arrived. Whoever needs them looks again later: a store
    /// wakes only the last of those that wait for it (`Store::wait_until_ready` of kube-runtime 5
    /// polls one oneshot for all), so after a start the passes of all clusters but one would wait
    /// for ever.
    pub(crate) fn unfilled(&self) -> Vec<&'static str> {
        [
            ("statefulsets", filled(&self.sets)),
            ("pods", filled(&self.pods)),
            ("persistentvolumeclaims", filled(&self.claims)),
            ("services", filled(&self.services)),
            ("poddisruptionbudgets", filled(&self.budgets)),
            ("jobs", filled(&self.jobs)),
            ("storageclasses", self.classes.as_ref().is_none_or(filled)),
        ]
        .into_iter()
        .filter_map(|(kind, filled)| (!filled).then_some(kind))
        .collect()
    }
}

/// Whether the first list of a cache has arrived.
pub(crate) fn filled<K: reflector::Lookup<DynamicType = ()> + Clone + 'static>(
    store: &Store<K>,
) -> bool {
    store.wait_until_ready().now_or_never().is_some()
}

/// An API handle on a scope.
pub(crate) fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn watch<K>(client: &Client, namespace: Option<&str>) -> (Store<K>, Triggers)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let config = watcher::Config::default().labels(LABEL_CLUSTER);
    let changed = watcher(scoped::<K>(client, namespace), config)
        .modify(|object| object.managed_fields_mut().clear())
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .filter_map(|item| async move {
            match item {
                Ok(object) => cluster_of(&object),
                Err(error) => {
                    let (kind, error) = (K::kind(&()), words::of_watch(&error));
                    tracing::warn!(%kind, error, "a watch failed and begins again");
                    None
                }
            }
        });
    (store, changed.boxed())
}

/// The cache of StorageClasses. A class that changes triggers nothing: every cluster is looked at
/// again within seconds anyway.
fn watch_classes(
    client: &Client,
    namespace: Option<&str>,
) -> (Option<Store<StorageClass>>, Triggers) {
    if namespace.is_some() {
        return (None, stream::empty().boxed());
    }
    let (store, writer) = reflector::store();
    let config = watcher::Config::default();
    let changed = watcher(Api::<StorageClass>::all(client.clone()), config)
        .modify(|class| class.managed_fields_mut().clear())
        .default_backoff()
        .reflect(writer)
        .filter_map(|item| async move {
            if let Err(error) = item {
                let error = words::of_watch(&error);
                tracing::warn!(kind = "StorageClass", error, "a watch failed and begins again");
            }
            None
        });
    (Some(store), changed.boxed())
}

/// The nodes, of which only what says whether they are there is kept. A change of one triggers nobody:
/// who waits for one looks again anyway. That they may not be read is logged once.
fn watch_nodes(client: &Client) -> (Store<Node>, Triggers) {
    let (store, writer) = reflector::store();
    let mut told = false;
    let changed = watcher(Api::<Node>::all(client.clone()), watcher::Config::default())
        .modify(|node| {
            let taints = node.spec.take().and_then(|spec| spec.taints);
            let conditions = node.status.take().and_then(|status| status.conditions);
            node.spec = Some(NodeSpec { taints, ..NodeSpec::default() });
            node.status = Some(NodeStatus { conditions, ..NodeStatus::default() });
            node.managed_fields_mut().clear();
            node.annotations_mut().clear();
        })
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .filter_map(move |item| {
            if let Err(error) = item
                && !std::mem::replace(&mut told, true)
            {
                let error = words::of_watch(&error);
                tracing::warn!(
                    error,
                    "cannot watch nodes: members on a lost node are not replaced"
                );
            }
            std::future::ready(None)
        });
    (store, changed.boxed())
}

/// The cluster that a child's label names.
fn cluster_of<K: Resource>(child: &K) -> Option<ObjectRef<Guarded>> {
    let name = child.meta().labels.as_ref()?.get(LABEL_CLUSTER)?;
    let namespace = child.meta().namespace.as_ref()?;
    Some(ObjectRef::new(name).within(namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_names_its_cluster_by_label() {
        let mut pod = Pod::default();
        assert_eq!(cluster_of(&pod), None);
        pod.metadata.namespace = Some("ns".to_owned());
        pod.labels_mut().insert(LABEL_CLUSTER.to_owned(), "demo".to_owned());
        let cluster = cluster_of(&pod).unwrap();
        assert_eq!((cluster.name.as_str(), cluster.namespace.as_deref()), ("demo", Some("ns")));
    }

    #[test]
    fn a_cluster_that_cannot_be_decoded_keeps_its_name() {
        let newer = serde_json::json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "StoreCluster",
            "metadata": {"name": "demo", "namespace": "ns"},
            "spec": {"replicas": "many"},
        });
        let guarded: Guarded = serde_json::from_value(newer).unwrap();
        assert!(guarded.0.is_err());
        assert_eq!(guarded.name_any(), "demo");
    }
}
