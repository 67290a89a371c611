//! Fear: a node dies with a member on it, and the member is never replaced, or is replaced while it lives.

use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::api::Api;
use quorate_e2e_cluster::fixture::{Turn, turn};
use quorate_e2e_cluster::limits::{HEALED, TOLD, UNTOUCHED};
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::wait::{stays, until};
use quorate_e2e_cluster::witness::Witness;
use quorate_kubernetes::{Node, Progress};
use serde_json::json;

/// A member beside which the operator does not run, and its node: this fear is about the member.
async fn victim(turn: &Turn, store: &Store) -> (String, Node) {
    let operator = turn.operator().await.unwrap();
    let node_of = |pod: &Pod| pod.spec.as_ref().unwrap().node_name.clone().unwrap();
    let pods = store.pods().await.unwrap();
    let pod = pods.iter().rev().find(|pod| node_of(pod) != node_of(&operator)).unwrap();
    let name = pod.metadata.name.as_deref().unwrap().strip_suffix("-0").unwrap().to_owned();
    (name, turn.bed.node(&node_of(pod)).unwrap())
}

async fn is_not_ready(turn: &Turn, node: &Node) {
    let nodes = Api::<NodeObject>::all(turn.client().await.unwrap());
    until("the node to count as not ready", HEALED, async || {
        let now = nodes.get(&node.name()).await.map_err(|error| error.to_string())?;
        let conditions = now.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True");
        if ready { Err("it is ready".to_owned()) } else { Ok(()) }
    })
    .await
    .unwrap();
}

/// Nobody joins and nobody leaves.
async fn nobody_is_replaced(store: &Store) {
    let members = store.members().await.unwrap().len();
    stays("the quiet around a node that nobody has declared lost", UNTOUCHED, async || {
        let now = store.members().await.map_err(|error| format!("{error:#}"))?.len();
        if now == members { Ok(()) } else { Err(format!("{now} members")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_processes_dead_the_member_is_replaced_once_that_is_allowed() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-node-dead", 3).await.unwrap();
    let witness = Witness::start(&store);
    let load = Load::start(&store).await.unwrap();
    let (member, node) = victim(&turn, &store).await;

    node.lose(&Progress::start()).unwrap();
    is_not_ready(&turn, &node).await;
    let message = store.told("Degraded", "True", "NodeLost").await.unwrap();
    assert!(message.contains("replaceAfter") && message.contains(&member), "{message}");
    nobody_is_replaced(&store).await;

    store.patch(json!({"spec": {"recovery": {"replaceAfter": "10s"}}})).await.unwrap();
    let left: Vec<&str> = ["db-0", "db-1", "db-2"].into_iter().filter(|it| *it != member).collect();
    let expected = [left[0], left[1], "db-3"];
    store.voters_are(&expected).await.unwrap();
    // The old pod is on its way out, which only its kubelet can say that it is.
    store.told("Progressing", "True", "PodStopping").await.unwrap();

    turn.bed.revive(&node).unwrap();
    store.consists_of(&expected).await.unwrap();
    let pods = store.pods().await.unwrap();
    assert!(!pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(&format!("{member}-0"))));
    load.stop().await.unwrap().verify(&store).await.unwrap();
    let seen = witness.stop().await.unwrap();
    seen.one_cluster().unwrap();
    seen.one_change_at_a_time().unwrap();
    assert_eq!(seen.joiners_learned_first().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a second case of its fear, of minutes: cargo xtask soak"]
async fn cut_off_but_alive_the_member_comes_back_to_a_cluster_that_it_has_left() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-node-cut", 3).await.unwrap();
    store.patch(json!({"spec": {"recovery": {"replaceAfter": "10s"}}})).await.unwrap();
    let (member, node) = victim(&turn, &store).await;
    store.let_lead(&member).await.unwrap();
    let witness = Witness::start(&store);

    node.cut_network().unwrap();
    assert!(!node.network_is_up().unwrap(), "the cable is pulled");
    is_not_ready(&turn, &node).await;
    let left: Vec<&str> = ["db-0", "db-1", "db-2"].into_iter().filter(|it| *it != member).collect();
    let expected = [left[0], left[1], "db-3"];
    store.voters_are(&expected).await.unwrap();
    store.put("kept", "without it").await.unwrap();

    node.restore_network().unwrap();
    turn.bed.wait_for_nodes(&Progress::start()).unwrap();
    // What ran on behind the cut finds itself removed and goes, with all that was its own.
    until("the old pod to be gone", TOLD, async || {
        let pods = store.pods().await.map_err(|error| format!("{error:#}"))?;
        let stays =
            pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(&format!("{member}-0")));
        if stays { Err("it is there".to_owned()) } else { Ok(()) }
    })
    .await
    .unwrap();
    store.consists_of(&expected).await.unwrap();
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("without it"));
    let seen = witness.stop().await.unwrap();
    seen.one_cluster().unwrap();
    seen.one_change_at_a_time().unwrap();
}
