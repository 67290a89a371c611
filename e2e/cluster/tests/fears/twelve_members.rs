//! Fear: with ordinals of two digits the wrong member leaves.

use quorate_e2e_cluster::audit::one_stop_at_a_time;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::witness::Witness;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of it: cargo xtask soak"]
async fn become_three_and_the_highest_leave_first() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-twelve", 12).await.unwrap();
    store.put("kept", "by twelve").await.unwrap();
    let witness = Witness::start(&store);

    store.scale(3).await.unwrap();
    store.consists_of(&["db-0", "db-1", "db-2"]).await.unwrap();
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("by twelve"));
    let seen = witness.stop().await.unwrap();
    seen.one_cluster().unwrap();
    seen.one_change_at_a_time().unwrap();
    let requests = store.audit.requests().unwrap();
    assert_eq!(one_stop_at_a_time(&requests).unwrap(), 9);
    let left: Vec<&str> = requests
        .iter()
        .filter(|request| request.deleted("statefulsets"))
        .map(|request| request.name.as_str())
        .collect();
    let expected: Vec<String> = (3..12).rev().map(|ordinal| format!("db-{ordinal}")).collect();
    assert_eq!(left, expected, "by number, not by letter");
}
