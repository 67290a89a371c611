//! Where the members of a cluster are now: followed in the background, for whoever must not miss a newcomer.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::limits::ADDRESSES_INTERVAL;
use crate::store::{self, Store};

/// Addresses by pod name, kept up to date until this is dropped.
#[derive(Debug)]
pub struct Addresses {
    /// All pods of members that have an address.
    pub all: watch::Receiver<BTreeMap<String, String>>,
    /// Those of them that are ready.
    pub ready: watch::Receiver<BTreeMap<String, String>>,
    task: JoinHandle<()>,
}

impl Addresses {
    /// Begins to follow the pods of a cluster.
    #[must_use]
    pub fn follow(store: &Store) -> Self {
        let api = store.api::<Pod>();
        let (all_tx, all) = watch::channel(BTreeMap::new());
        let (ready_tx, ready) = watch::channel(BTreeMap::new());
        let task = tokio::spawn(async move {
            let mut looks = tokio::time::interval(ADDRESSES_INTERVAL);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let Some(pods) = pods(&api).await else { continue };
                let of = |which: fn(&Pod) -> bool| {
                    let chosen = pods.iter().filter(|pod| which(pod));
                    chosen.filter_map(|pod| Some((pod.name_any(), store::address(pod)?))).collect()
                };
                all_tx.send_replace(of(|_| true));
                ready_tx.send_replace(of(store::is_ready));
            }
        });
        Self { all, ready, task }
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// None while the API server does not answer: who was there is then still there.
async fn pods(api: &Api<Pod>) -> Option<Vec<Pod>> {
    let members = ListParams::default().labels(store::MEMBERS);
    api.list(&members).await.ok().map(|list| list.items)
}
