//! Fear: a namespace is deleted with a store in it, and it never goes, or the operator works against it, or trips over it.

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams};
use quorate_e2e_cluster::audit::Request;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::{NAMESPACE_GONE, TOLD};
use quorate_e2e_cluster::store::{Store, restart_count};
use quorate_e2e_cluster::wait::until;
use serde_json::json;

const NAMESPACE: &str = "fear-namespace";

/// Kubernetes deletes children and StoreCluster in an order of its own. An operator that looks in between may ask for what is
/// missing once (two Services, the budget, three sets), and say so in an event or two; then it must wait.
const REFUSALS_MAX: usize = 10;

/// When the API server had taken the deletion of the namespace in.
fn deleted_at(requests: &[Request]) -> Timestamp {
    let deletion = |request: &&Request| {
        request.verb == "delete" && request.resource == "namespaces" && request.succeeded()
    };
    requests.iter().rfind(deletion).unwrap().at
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_nothing_is_made_anew_and_the_name_is_free_again() {
    let turn = turn().await.unwrap();
    let bystander = Store::formed(&turn, "fear-bystander", 1).await.unwrap();
    bystander.put("kept", "beside").await.unwrap();
    let beside = bystander.pod("db-0").await.unwrap();
    let store = Store::formed(&turn, NAMESPACE, 3).await.unwrap();
    store.put("lost", "with its namespace").await.unwrap();
    let before = store.status().await.unwrap();
    let members = ["db-0", "db-1", "db-2"];
    assert!(members.iter().all(|member| store.server(&turn, member).is_ok()), "all are found");
    let operator = turn.operator().await.unwrap();

    turn.bed.kubectl_output(&["delete", "namespace", NAMESPACE, "--wait=false"]).unwrap();
    let namespaces = Api::<Namespace>::all(turn.client().await.unwrap());
    let going = namespaces.get(NAMESPACE).await.unwrap();
    assert!(going.metadata.deletion_timestamp.is_some(), "it is going, and not gone yet");
    // Meanwhile the operator has time for another.
    let services = bystander.api::<Service>();
    let service = services.get("db-client").await.unwrap();
    services.delete("db-client", &DeleteParams::default()).await.unwrap();
    until("the bystander's Service to be back", TOLD, async || {
        let found = services.get_opt("db-client").await.map_err(|error| error.to_string())?;
        let other = found.filter(|it| it.metadata.uid != service.metadata.uid);
        other.map(drop).ok_or_else(|| "it is gone".to_owned())
    })
    .await
    .unwrap();
    until("the namespace to be gone", NAMESPACE_GONE, async || {
        let found = namespaces.get_opt(NAMESPACE).await.map_err(|error| error.to_string())?;
        let Some(namespace) = found else { return Ok(()) };
        let conditions = namespace.status.and_then(|status| status.conditions);
        let why = conditions.into_iter().flatten().filter(|it| it.status == "True");
        Err(why.filter_map(|it| it.message).collect::<Vec<_>>().join("; "))
    })
    .await
    .unwrap();
    for member in members {
        assert!(store.server(&turn, member).is_err(), "{member} runs without its namespace");
    }

    let requests = store.audit.requests().unwrap();
    let deleted_at = deleted_at(&requests);
    let since = requests.iter().filter(|it| it.is_operators() && it.began > deleted_at);
    // An apply of what is absent is a patch by name: made, forbidden by the namespace's end, or without a namespace at last.
    let creations = since.filter(|it| {
        it.verb == "create" || it.verb == "patch" && matches!(it.code, 201 | 403 | 404)
    });
    let (made, refused): (Vec<_>, Vec<_>) = creations.partition(|it| it.succeeded());
    assert!(made.is_empty(), "made in a namespace that goes: {made:?}");
    println!("refused since the namespace goes: {}", refused.len());
    assert!(refused.len() <= REFUSALS_MAX, "the operator works against it: {refused:?}");
    let operator_now = turn.operator().await.unwrap();
    assert_eq!(operator_now.metadata.uid, operator.metadata.uid, "the same pod");
    assert_eq!(restart_count(&operator_now), restart_count(&operator), "that did not restart");

    // The name is free, and what had it is forgotten.
    store.make_namespace().unwrap();
    store.create(json!({"replicas": 3})).await.unwrap();
    let after = store.settled(3).await.unwrap();
    assert_ne!(after.cluster_id, before.cluster_id, "it is another cluster");
    assert_eq!(after.next_ordinal, Some(3), "ordinals begin anew");
    assert_eq!(store.value("lost").await.unwrap(), None);
    store.put("kept", "anew").await.unwrap();

    bystander.settled(1).await.unwrap();
    let beside_now = bystander.pod("db-0").await.unwrap();
    assert_eq!(beside_now.metadata.uid, beside.metadata.uid, "nobody touched it");
    assert_eq!(restart_count(&beside_now), restart_count(&beside));
    assert_eq!(bystander.value("kept").await.unwrap().as_deref(), Some("beside"));
}
