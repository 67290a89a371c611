//! Fear: an image that does not exist, or a setting that cannot work, takes the whole cluster down, and
//! the way back asks for more than editing the spec.

use k8s_openapi::api::core::v1::Pod;
use quorate_e2e_cluster::audit::one_restart_at_a_time;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::images::VERSION;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::witness::Witness;
use serde_json::{Value, json};

/// Asks for what cannot come up, waits until that is said, and edits it back.
async fn breaks_one_and_heals(store: &Store, bad: Value, good: Value, says: &str) {
    let before = store.pods().await.unwrap();
    store.patch(bad).await.unwrap();
    let message = store.told("Degraded", "True", "RolloutFailed").await.unwrap();
    assert!(message.contains(says), "{message}");
    assert!(message.contains("edit it back"), "{message}");
    let events = store.kubectl(&["get", "events", "--field-selector=reason=RolloutFailed"]);
    assert!(events.unwrap().contains(says), "an event says so too");

    let broken = store.pods().await.unwrap();
    let touched = touched(&before, &broken);
    assert_eq!(touched.len(), 1, "one member and no other: {touched:?}");
    assert!(message.contains(&touched[0]), "{message}");
    assert_eq!(store.status().await.unwrap().ready.as_deref(), Some("2/3"));
    store.put("kept", says).await.unwrap();

    store.patch(good).await.unwrap();
    store.settled(3).await.unwrap();
    store.told("Degraded", "False", "AsExpected").await.unwrap();
    store.told("RestartPending", "False", "UpToDate").await.unwrap();
    assert_eq!(self::touched(&before, &store.pods().await.unwrap()), touched, "and still no other");
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some(says));
}

/// Members whose pod is another one than before.
fn touched(before: &[Pod], after: &[Pod]) -> Vec<String> {
    assert_eq!(before.len(), after.len(), "every member has a pod");
    let other = before.iter().zip(after).filter(|(old, new)| old.metadata.uid != new.metadata.uid);
    other
        .filter_map(|(old, _new)| old.metadata.name.as_deref()?.strip_suffix("-0"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_is_touched_and_the_edited_spec_heals_it() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-bad-image", 3).await.unwrap();
    let witness = Witness::start(&store);

    let absent = VERSION.rsplit_once('.').map(|(minor, _patch)| format!("{minor}.999")).unwrap();
    let version = |version: &str| json!({"spec": {"version": version}});
    breaks_one_and_heals(&store, version(&absent), version(VERSION), "ImagePullBackOff").await;

    let nowhere = json!({"spec": {"scheduling": {"nodeSelector": {"no-such": "node"}}}});
    let anywhere = json!({"spec": {"scheduling": null}});
    breaks_one_and_heals(&store, nowhere, anywhere, "Unschedulable").await;

    // Admission cannot tell that these do not go together.
    let number = "must be a number of revisions";
    let options = json!({"autoCompactionMode": "Revision", "autoCompactionRetention": "1h"});
    let with = |options: Value| json!({"spec": {"options": options}});
    breaks_one_and_heals(&store, with(options), with(Value::Null), number).await;

    let seen = witness.stop().await.unwrap();
    seen.never_two_silent().unwrap();
    seen.one_cluster().unwrap();
    let requests = store.audit.requests().unwrap();
    let order = one_restart_at_a_time(&requests).unwrap();
    assert_eq!(order.len(), 6, "there and back, three times, all by the operator: {order:?}");
    let by_others = requests.iter().filter(|request| {
        let kubelet = request.user.starts_with("system:");
        request.resource == "pods" && request.verb == "delete" && !kubelet
    });
    assert_eq!(by_others.count(), 0, "no pod was deleted by hand");
}
