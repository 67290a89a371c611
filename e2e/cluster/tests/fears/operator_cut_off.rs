//! Fear: an operator that cannot see takes what it does not see for gone, or two of them act at once.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::api::Api;
use quorate_e2e_cluster::audit::no_pod_is_taken;
use quorate_e2e_cluster::fixture::{Turn, turn};
use quorate_e2e_cluster::limits::{HEALED, TOLD, UNTOUCHED};
use quorate_e2e_cluster::store::{Store, is_ready, restart_count, sever};
use quorate_e2e_cluster::wait::{stays, until};

/// Every address under which a pod reaches the API server: its Service's and its own.
async fn api_server(turn: &Turn) -> Vec<String> {
    let client = turn.client().await.unwrap();
    let services = Api::<Service>::namespaced(client.clone(), "default");
    let service = services.get("kubernetes").await.unwrap();
    let mut addresses = service.spec.unwrap().cluster_ips.unwrap();
    let endpoints =
        Api::<Endpoints>::namespaced(client, "default").get("kubernetes").await.unwrap();
    for subset in endpoints.subsets.unwrap() {
        addresses.extend(subset.addresses.unwrap().into_iter().map(|address| address.ip));
    }
    addresses
}

async fn untouched(store: &Store) {
    stays("the quiet around members that are only unseen", UNTOUCHED, async || {
        let requests = store.audit.requests().map_err(|error| format!("{error:#}"))?;
        no_pod_is_taken(&requests).map_err(|error| format!("{error:#}"))?;
        let made = requests.iter().filter(|it| it.made("statefulsets")).count();
        let deleted = requests.iter().filter(|it| it.deleted("statefulsets")).count();
        if (made, deleted) == (3, 0) {
            Ok(())
        } else {
            Err(format!("{made} made, {deleted} deleted"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_members_it_waits_and_says_so() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-unseen", 3).await.unwrap();
    let mut unseen: Vec<String> = Vec::new();
    for pod in store.pods().await.unwrap() {
        unseen.push(pod.status.unwrap().pod_ip.unwrap());
    }
    let service = store.service_address().await.unwrap();
    unseen.extend(service.split(':').next().map(str::to_owned));

    let cut = sever(&turn, &turn.operator().await.unwrap(), &unseen).unwrap();
    let message = store.told("QuorumHealthy", "Unknown", "MembersUnseen").await.unwrap();
    println!("it says: {message}");
    // To grow and to shrink are the same to somebody who cannot see: neither is begun.
    store.scale(5).await.unwrap();
    untouched(&store).await;
    store.scale(1).await.unwrap();
    untouched(&store).await;
    store.put("kept", "unseen").await.unwrap();

    drop(cut);
    store.settled(1).await.unwrap();
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("unseen"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_api_server_it_ends_and_its_successor_goes_on() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-leaseless", 3).await.unwrap();
    let before = turn.operator().await.unwrap();

    let cut = sever(&turn, &before, &api_server(&turn).await).unwrap();
    store.scale(5).await.unwrap();
    // It cannot renew its lease, so it must not act any more: it ends, and cannot begin.
    until("the operator to end", HEALED, async || {
        let now = turn.operator().await.map_err(|error| format!("{error:#}"))?;
        let ended = restart_count(&now) > restart_count(&before);
        if ended { Ok(()) } else { Err("it runs".to_owned()) }
    })
    .await
    .unwrap();
    untouched(&store).await;

    drop(cut);
    store.settled(5).await.unwrap();
    let requests = store.audit.requests().unwrap();
    assert_eq!(requests.iter().filter(|it| it.made("statefulsets")).count(), 5, "each once");
    until("the operator to be ready", TOLD, async || {
        let ready = is_ready(&turn.operator().await.map_err(|error| format!("{error:#}"))?);
        if ready { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await
    .unwrap();
}
