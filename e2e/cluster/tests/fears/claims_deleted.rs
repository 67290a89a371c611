//! Fear: a claim is deleted, and its member comes back empty, or is lost for good, or takes the others with it.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::DeleteParams;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::{HEALED, UNTOUCHED};
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::wait::{stays, until};
use quorate_e2e_cluster::witness::Witness;
use serde_json::json;

/// Deletes a member's claim. Kubernetes keeps a claim that a pod uses until the pod is gone: it is on its way out then.
async fn delete_claim(store: &Store, claim: &str) {
    let api = store.api::<PersistentVolumeClaim>();
    api.delete(claim, &DeleteParams::default()).await.unwrap();
    let now = api.get(claim).await.unwrap();
    assert!(now.metadata.deletion_timestamp.is_some(), "{claim} is going");
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
    store.consists_of(&["db-0", "db-2", "db-3"]).await.unwrap();

    let leader = store.let_lead("db-2").await.unwrap();
    delete_claim(&store, "db-2-1").await;
    store.told("Degraded", "True", "VolumeLost").await.unwrap();
    store.consists_of(&["db-0", "db-3", "db-4"]).await.unwrap();
    store.told("Degraded", "False", "AsExpected").await.unwrap();

    let claims = store.claims().await.unwrap();
    let claims: Vec<String> = claims.iter().map(ResourceExt::name_any).collect();
    assert_eq!(claims, ["db-0-1", "db-3-1", "db-4-1"], "those of the lost are gone");
    let outcome = load.stop().await.unwrap();
    let seen = witness.stop().await.unwrap();
    outcome.verify(&store).await.unwrap();
    outcome.heavy().unwrap();
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
#[ignore = "a second case of its fear, of minutes: cargo xtask soak"]
async fn of_two_and_then_of_all_and_nothing_is_guessed() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-claims-all", 3).await.unwrap();
    store.put("lost", "for good").await.unwrap();
    let before = store.status().await.unwrap();

    // At once, and their pods with them: no quorum is left to say who the members are. Paused, or the operator replaces the first
    // before the second is gone.
    store.patch(json!({"spec": {"paused": true}})).await.unwrap();
    for member in ["db-1", "db-2"] {
        delete_claim(&store, &format!("{member}-1")).await;
    }
    let now = DeleteParams::default().grace_period(0);
    for member in ["db-1", "db-2"] {
        store.api::<Pod>().delete(&format!("{member}-0"), &now).await.unwrap();
    }
    until("the servers to be gone with their pods", HEALED, async || {
        for member in ["db-1", "db-2"] {
            if let Ok(server) = store.server(&turn, member) {
                return Err(format!("{} runs", server.command_line));
            }
        }
        Ok(())
    })
    .await
    .unwrap();
    let message = store.told("QuorumHealthy", "False", "QuorumLost").await.unwrap();
    store.patch(json!({"spec": {"paused": false}})).await.unwrap();
    for known in ["db-0 answers", "db-1 has lost its volume", "db-2 has lost its volume"] {
        assert!(message.contains(known), "{message}");
    }
    untouched(&store).await;

    delete_claim(&store, "db-0-1").await;
    store.api::<Pod>().delete("db-0-0", &now).await.unwrap();
    let message = store.told("QuorumHealthy", "False", "AllMembersLost").await.unwrap();
    assert!(message.contains("restore"), "{message}");
    untouched(&store).await;
    let after = store.status().await.unwrap();
    assert_eq!(after.cluster_id, before.cluster_id);
    assert_eq!(after.members.len(), 3);
    assert_eq!(after.next_ordinal, before.next_ordinal);
}

/// Nothing is made and nothing is taken where only a person can decide.
async fn untouched(store: &Store) {
    stays("the quiet around a lost quorum", UNTOUCHED, async || {
        let requests = store.audit.requests().map_err(|error| format!("{error:#}"))?;
        let made = |resource: &str| requests.iter().filter(|it| it.made(resource)).count();
        let all = (made("jobs"), made("persistentvolumeclaims"), made("statefulsets"));
        let taken = ["persistentvolumeclaims", "statefulsets"]
            .iter()
            .any(|resource| requests.iter().any(|it| it.deleted(resource)));
        if all == (1, 3, 3) && !taken { Ok(()) } else { Err(format!("{all:?} made, {taken}")) }
    })
    .await
    .unwrap();
}
