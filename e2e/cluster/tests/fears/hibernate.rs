//! Fear: a cluster that is stopped for the night has forgotten everything in the morning.

use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::HEALED;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::wait::until;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_every_member_and_resumes_with_its_data() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-hibernate", 3).await.unwrap();
    store.put("kept", "over night").await.unwrap();
    let before = store.status().await.unwrap();

    store.patch(json!({"spec": {"hibernated": true}})).await.unwrap();
    until("the last pod to go", HEALED, async || {
        let pods = store.pods().await.map_err(|error| format!("{error:#}"))?;
        if pods.is_empty() { Ok(()) } else { Err(format!("{} are there", pods.len())) }
    })
    .await
    .unwrap();
    store.told("Available", "False", "Hibernated").await.unwrap();
    store.told("Progressing", "False", "Hibernated").await.unwrap();
    assert_eq!(store.claims().await.unwrap().len(), 3, "the volumes are kept");
    assert_eq!(store.get().await.unwrap().spec.replicas, 3, "and so is the wanted size");

    store.patch(json!({"spec": {"hibernated": false}})).await.unwrap();
    let after = store.settled(3).await.unwrap();
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("over night"));
    assert_eq!(after.cluster_id, before.cluster_id);
    let ids = |members: &[quorate_crds::MemberStatus]| -> Vec<Option<String>> {
        members.iter().map(|member| member.id.clone()).collect()
    };
    assert_eq!(ids(&after.members), ids(&before.members), "the same members");
    let requests = store.audit.requests().unwrap();
    assert_eq!(requests.iter().filter(|it| it.made("jobs")).count(), 1, "formed once");
    assert_eq!(requests.iter().filter(|it| it.deleted("persistentvolumeclaims")).count(), 0);
}
