//! Fear: a drained node takes the quorum with it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::EvictParams;
use quorate_e2e_cluster::fixture::{Turn, turn};
use quorate_e2e_cluster::limits::TOLD;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::wait::until;

/// Opens all nodes again, whatever the test comes to.
struct Open<'a>(&'a Turn);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        for node in self.0.bed.nodes() {
            if let Err(error) = self.0.bed.kubectl_output(&["uncordon", &node.name()]) {
                println!("{} stays closed: {error:#}", node.name());
            }
        }
    }
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_takes_one_member_and_the_budget_guards_the_others() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-drain", 3).await.unwrap();
    let nodes: BTreeSet<String> = store.pods().await.unwrap().iter().map(node_of).collect();
    assert_eq!(nodes.len(), 3, "members avoid each other's nodes");
    store.put("kept", "before").await.unwrap();

    let leader = store.leader().await.unwrap();
    let led = store.pod(&leader).await.unwrap();
    let node = node_of(&led);
    let _open = Open(&turn);
    let drain = ["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"];
    turn.bed.kubectl_output(&drain).unwrap();
    assert!(store.pods().await.unwrap().iter().all(|pod| node_of(pod) != node), "{node} is empty");
    store.put("kept", "drained").await.unwrap();
    let moved = store.replaced(&leader, &led).await.unwrap();
    assert_ne!(node_of(&moved), node, "the drained node takes nobody");
    store.settled(3).await.unwrap();
    turn.bed.kubectl_output(&["uncordon", &node]).unwrap();

    // Nowhere to go: whoever is evicted now stays away, and the budget keeps the other two.
    for node in turn.bed.nodes() {
        turn.bed.kubectl_output(&["cordon", &node.name()]).unwrap();
    }
    let pods = store.pods().await.unwrap();
    let api = store.api::<Pod>();
    let evict = EvictParams::default();
    api.evict(&pods[0].name_any(), &evict).await.unwrap();
    until("the evicted member to wait for a node", TOLD, async || {
        let pod = store.pod("db-0").await.map_err(|error| format!("{error:#}"))?;
        let waits = pod.metadata.uid != pods[0].metadata.uid && node_of(&pod).is_empty();
        if waits { Ok(()) } else { Err(node_of(&pod)) }
    })
    .await
    .unwrap();
    let second = node_of(&pods[2]);
    let drain = ["drain", &second, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=7s"];
    let refused = turn.bed.kubectl_output(&drain).unwrap_err().to_string();
    assert!(refused.contains("disruption budget"), "{refused}");
    let now = store.pods().await.unwrap();
    for index in [1, 2] {
        assert_eq!(now[index].metadata.uid, pods[index].metadata.uid, "the budget holds it");
    }
    store.put("kept", "by two").await.unwrap();
    for node in turn.bed.nodes() {
        turn.bed.kubectl_output(&["uncordon", &node.name()]).unwrap();
    }
    store.replaced("db-0", &pods[0]).await.unwrap();
    store.settled(3).await.unwrap();
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("by two"));
}
