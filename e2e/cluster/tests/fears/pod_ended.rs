//! Fear: a pod that has ended for good, as an eviction or the shutdown of a node leaves it, is never replaced.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::HEALED;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::wait::until;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_deleted_and_its_member_comes_back() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-pod-ended", 3).await.unwrap();
    store.put("kept", "before").await.unwrap();
    let old = store.pod("db-1").await.unwrap();

    // The kubelet ends a pod at its deadline and leaves it Failed, as after a node's shutdown.
    let deadline = json!({"spec": {"activeDeadlineSeconds": 1}});
    let api = store.api::<Pod>();
    api.patch(&old.name_any(), &PatchParams::default(), &Patch::Merge(&deadline)).await.unwrap();
    until("the pod to fail", HEALED, async || {
        let now = api.get_opt(&old.name_any()).await.map_err(|error| error.to_string())?;
        let Some(now) = now else { return Ok(()) };
        let phase = now.status.and_then(|status| status.phase);
        let other = now.metadata.uid != old.metadata.uid;
        if other || phase.as_deref() == Some("Failed") { Ok(()) } else { Err(format!("{phase:?}")) }
    })
    .await
    .unwrap();
    store.replaced("db-1", &old).await.unwrap();
    store.consists_of(&["db-0", "db-1", "db-2"]).await.unwrap();
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("before"));
}
