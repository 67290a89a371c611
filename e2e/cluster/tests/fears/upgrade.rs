//! Fear: an upgrade fails requests, stops two members at once, or leaves the cluster without a leader.

use quorate_e2e_cluster::audit::{one_restart_at_a_time, restarts};
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::images::{VERSION, next_version};
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::store::{Store, version_of};
use quorate_e2e_cluster::witness::Witness;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forth_and_back_under_load_the_leader_last_each_time() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-upgrade", 3).await.unwrap();
    let witness = Witness::start(&store);
    let load = Load::start(&store).await.unwrap();

    let next = next_version();
    let mut leaders = Vec::new();
    for version in [next.as_str(), VERSION] {
        let before = store.pods().await.unwrap();
        assert!(before.iter().all(|pod| version_of(pod) != Some(version)), "it is not there yet");
        leaders.push(store.leader().await.unwrap());
        store.patch(json!({"spec": {"version": version}})).await.unwrap();
        let status = store.rolled(3, version).await.unwrap();
        assert_eq!(status.version.as_deref(), Some(version));
        for (old, new) in before.iter().zip(store.pods().await.unwrap()) {
            assert_ne!(new.metadata.uid, old.metadata.uid, "every pod is another one");
            let image = new.spec.unwrap().containers.remove(0).image.unwrap();
            assert!(image.ends_with(&format!(":{version}")), "{image}");
        }
        store.told("RestartPending", "False", "UpToDate").await.unwrap();
    }

    let outcome = load.stop().await.unwrap();
    let seen = witness.stop().await.unwrap();
    outcome.verify(&store).await.unwrap();
    outcome.heavy().unwrap();
    seen.never_two_silent().unwrap();
    seen.one_cluster().unwrap();
    seen.one_change_at_a_time().unwrap();

    let requests = store.audit.requests().unwrap();
    let order = one_restart_at_a_time(&requests).unwrap();
    println!("restarted: {order:?}; leaders before: {leaders:?}");
    assert_eq!(order.len(), 6, "each member once in each direction: {order:?}");
    for (roll, leader) in order.chunks(3).zip(&leaders) {
        let mut members = roll.to_vec();
        members.sort();
        assert_eq!(members, ["db-0", "db-1", "db-2"], "each once: {order:?}");
        assert_eq!(roll.last(), Some(leader), "who led comes last");
    }
    seen.nobody_led_when_restarted(&restarts(&requests)).unwrap();
    outcome.untroubled().unwrap();
}
