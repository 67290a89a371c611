//! Fear: a changed setting restarts the cluster at noon although I restart it myself, or is forgotten.

use quorate_e2e_cluster::audit::no_pod_is_taken;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::store::Store;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_delete_it_waits_for_a_restart_and_says_for_whose() {
    let turn = turn().await.unwrap();
    let store = Store::namespace(&turn, "fear-settings").await.unwrap();
    let strategy = json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}});
    store.create(strategy).await.unwrap();
    store.settled(3).await.unwrap();
    let before = store.pods().await.unwrap();

    let change = json!({"spec": {
        "options": {"maxTxnOps": 256},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    }});
    store.patch(change).await.unwrap();
    let message = store.told("RestartPending", "True", "SettingsChanged").await.unwrap();
    for member in ["db-0", "db-1", "db-2"] {
        assert!(message.contains(member), "{message}");
    }

    // Restarted by hand, one after the other, each takes the new settings up.
    for (number, member) in ["db-0", "db-1", "db-2"].into_iter().enumerate() {
        let others = store.pods().await.unwrap();
        let untouched = &before[number..];
        assert!(
            untouched
                .iter()
                .all(|old| others.iter().any(|pod| pod.metadata.uid == old.metadata.uid)),
            "nobody was restarted but by hand"
        );
        let old = store.delete_pod(member).await.unwrap();
        let new = store.replaced(member, &old).await.unwrap();
        let arguments = new.spec.unwrap().containers.remove(0).args.unwrap_or_default();
        assert!(arguments.iter().any(|it| it == "--max-txn-ops=256"), "{arguments:?}");
        store.settled(3).await.unwrap();
    }
    store.told("RestartPending", "False", "UpToDate").await.unwrap();
    no_pod_is_taken(&store.audit.requests().unwrap()).unwrap();
}
