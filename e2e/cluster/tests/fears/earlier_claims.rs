//! Fear: a cluster is deleted and made again, and its data is silently used, or silently gone.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use quorate_crds::StoreCluster;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::{HEALED, NAMESPACE_GONE};
use quorate_e2e_cluster::store::{NAME, Store};
use quorate_e2e_cluster::wait::until;
use serde_json::json;

/// Deletes the StoreCluster and waits until it and its pods are gone.
async fn delete(store: &Store) {
    store.api::<StoreCluster>().delete(NAME, &kube::api::DeleteParams::default()).await.unwrap();
    until("the StoreCluster to be gone", NAMESPACE_GONE, async || {
        let left =
            store.api::<StoreCluster>().get_opt(NAME).await.map_err(|error| error.to_string())?;
        let pods = store.pods().await.map_err(|error| format!("{error:#}"))?;
        if left.is_none() && pods.is_empty() { Ok(()) } else { Err(format!("{} pods", pods.len())) }
    })
    .await
    .unwrap();
}

fn uids(claims: &[PersistentVolumeClaim]) -> Vec<Option<String>> {
    claims.iter().map(|claim| claim.metadata.uid.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_found_and_a_person_decides() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-earlier-claims", 3).await.unwrap();
    store.put("kept", "by the claims").await.unwrap();
    let before = store.status().await.unwrap();
    let claims = store.claims().await.unwrap();

    delete(&store).await;
    assert_eq!(uids(&store.claims().await.unwrap()), uids(&claims), "retained by default");

    // Made again: nothing is formed and nothing used until somebody says so.
    store.create(json!({"replicas": 3})).await.unwrap();
    let message = store.told("EarlierVolumesFound", "True", "EarlierVolumesFound").await.unwrap();
    assert!(message.contains("db-0-1") && message.contains("adopt"), "{message}");
    assert!(store.pods().await.unwrap().is_empty(), "nothing was started");
    let annotate = ["annotate", "storecluster", NAME, "quorate.dev/earlier-volumes=adopt"];
    store.kubectl(&annotate).unwrap();
    let adopted = store.settled(3).await.unwrap();
    assert_eq!(adopted.cluster_id, before.cluster_id, "the earlier cluster lives on");
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("by the claims"));
    assert_eq!(uids(&store.claims().await.unwrap()), uids(&claims));

    // The other answer.
    delete(&store).await;
    store.create(json!({"replicas": 1})).await.unwrap();
    store.told("EarlierVolumesFound", "True", "EarlierVolumesFound").await.unwrap();
    store
        .kubectl(&["annotate", "storecluster", NAME, "quorate.dev/earlier-volumes=discard"])
        .unwrap();
    let fresh = store.settled(1).await.unwrap();
    assert_ne!(fresh.cluster_id, before.cluster_id, "a new cluster");
    assert_eq!(store.value("kept").await.unwrap(), None);
    until("the discarded claims to go", HEALED, async || {
        let left = store.claims().await.map_err(|error| format!("{error:#}"))?;
        let old = uids(&left).iter().filter(|uid| uids(&claims).contains(uid)).count();
        if old == 0 { Ok(()) } else { Err(format!("{old} of the old ones")) }
    })
    .await
    .unwrap();

    // And the policy that leaves nothing to be found.
    store.patch(json!({"spec": {"volumeRetention": {"whenDeleted": "Delete"}}})).await.unwrap();
    delete(&store).await;
    assert!(store.claims().await.unwrap().is_empty(), "deleted as asked");
}
