//! Fear: a member holds other data than its copies, and goes on serving them or gives them to its successor.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::TOLD;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::wait::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_store_accuses_of_corruption_is_out_before_another_joins() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-corrupt", 3).await.unwrap();
    store.put("kept", "before").await.unwrap();
    let accused = store.let_lead("db-1").await.unwrap();
    let leader = store.member("db-1").await.unwrap();
    leader.accuse(accused).await.unwrap();

    let refused = leader.put("kept", "meanwhile").await.unwrap_err();
    assert!(refused.message().contains("corrupt cluster"), "writes are refused: {refused}");
    store.told("Degraded", "True", "CorruptAlarm").await.unwrap();
    store.put("kept", "after").await.unwrap();
    let members = store.members().await.unwrap();
    assert!(members.iter().all(|member| member.id != accused), "it is out first: {members:?}");

    let left = ["db-0", "db-2", "db-3"];
    store.consists_of(&left).await.unwrap();
    for name in left {
        let errors = store.member(name).await.unwrap().status().await.unwrap().errors;
        assert!(errors.is_empty(), "{name} reports no alarm of who is gone: {errors:?}");
    }
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("after"));
    until("the old claim to go", TOLD, async || {
        let found = store.api::<PersistentVolumeClaim>().get_opt("db-1-1").await;
        match found {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}
