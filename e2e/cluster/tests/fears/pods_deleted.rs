//! Fear: a pod that is deleted by hand does not come back, or comes back as somebody else.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::witness::Witness;

/// Ids, names and roles of the members.
async fn identities(store: &Store) -> Vec<(u64, String, bool)> {
    let members = store.members().await.unwrap();
    let mut all: Vec<_> = members.into_iter().map(|it| (it.id, it.name, it.is_learner)).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_at_a_time_and_all_at_once() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-pods-deleted", 3).await.unwrap();
    let before = identities(&store).await;
    let witness = Witness::start(&store);
    store.put("kept", "0").await.unwrap();

    for (round, member) in ["db-0", "db-1", "db-2"].into_iter().enumerate() {
        let old = store.delete_pod(member).await.unwrap();
        // Two of three serve meanwhile.
        store.put("kept", &round.to_string()).await.unwrap();
        let new = store.replaced(member, &old).await.unwrap();
        assert_ne!(new.metadata.uid, old.metadata.uid, "the pod was deleted");
        store.settled(3).await.unwrap();
        assert_eq!(store.value("kept").await.unwrap(), Some(round.to_string()));
    }

    let old = store.pods().await.unwrap();
    let now = DeleteParams::default().grace_period(0);
    for pod in &old {
        store.api::<Pod>().delete(&pod.name_any(), &now).await.unwrap();
    }
    for (member, old) in ["db-0", "db-1", "db-2"].into_iter().zip(&old) {
        store.replaced(member, old).await.unwrap();
    }
    store.settled(3).await.unwrap();
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("2"));
    assert_eq!(identities(&store).await, before, "the same members as before");

    witness.stop().await.unwrap().one_cluster().unwrap();
    let requests = store.audit.requests().unwrap();
    assert_eq!(requests.iter().filter(|it| it.made("jobs")).count(), 1, "formed once");
    assert_eq!(requests.iter().filter(|it| it.deleted("persistentvolumeclaims")).count(), 0);
}
