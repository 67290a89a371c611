//! Fear: a volume is deleted by mistake, or holds other data than its copies, and somebody has to get up
//! at night for it.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::DeleteParams;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::TOLD;
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::wait::until;
use quorate_e2e_cluster::witness::Witness;

/// Deletes a claim under the member that runs on it, which keeps it there until its pod is gone.
async fn delete_claim(store: &Store, name: &str) {
    let api = store.api::<PersistentVolumeClaim>();
    api.delete(name, &DeleteParams::default()).await.unwrap();
    let claim = api.get(name).await.unwrap();
    assert!(claim.metadata.deletion_timestamp.is_some(), "{name} is on its way out");
}

fn names(status: &quorate_crds::StoreClusterStatus) -> Vec<&str> {
    status.members.iter().map(|member| member.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_and_the_leaders_claim_are_deleted_and_no_client_sees_it() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-claims", 3).await.unwrap();
    store.let_lead("db-0").await.unwrap();
    let witness = Witness::start(&store);
    let load = Load::start(&store).await.unwrap();

    delete_claim(&store, "db-1-1").await;
    let message = store.told("Degraded", "True", "VolumeLost").await.unwrap();
    assert!(message.contains("db-1"), "{message}");
    let status = store.settled(3).await.unwrap();
    assert_eq!(names(&status), ["db-0", "db-2", "db-3"]);

    let leader = store.let_lead("db-2").await.unwrap();
    delete_claim(&store, "db-2-1").await;
    store.told("Degraded", "True", "VolumeLost").await.unwrap();
    let status = store.settled(3).await.unwrap();
    assert_eq!(names(&status), ["db-0", "db-3", "db-4"]);
    store.told("Degraded", "False", "AsExpected").await.unwrap();

    let outcome = load.stop().await.unwrap();
    let seen = witness.stop().await.unwrap();
    outcome.verify(&store).await.unwrap();
    outcome.untroubled().unwrap();
    seen.one_cluster().unwrap();
    seen.never_two_silent().unwrap();
    seen.one_change_at_a_time().unwrap();
    seen.leadership_left_before(leader).unwrap();
    assert_eq!(seen.joiners_learned_first().unwrap(), 2);
    let requests = store.audit.requests().unwrap();
    assert_eq!(requests.iter().filter(|it| it.made("jobs")).count(), 1, "formed once");
}

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

    let status = store.settled(3).await.unwrap();
    assert_eq!(names(&status), ["db-0", "db-2", "db-3"]);
    for name in names(&status) {
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
