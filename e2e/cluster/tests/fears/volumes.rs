//! Fear: a disk fills up, and to enlarge it means to stop members, to lose half of the claims on the way, or to be
//! nagged for ever about a storage that cannot.

use std::collections::BTreeMap;
use std::process::Command;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use quorate_e2e_cluster::audit::{Audit, Request, no_pod_is_taken};
use quorate_e2e_cluster::fixture::{Turn, turn};
use quorate_e2e_cluster::limits::{HEALED, SCALED};
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::store::{Store, restart_count};
use quorate_e2e_cluster::wait::until;
use quorate_e2e_cluster::witness::Witness;
use quorate_kubernetes::command;
use quorate_kubernetes::storage_driver::EXPANDABLE;
use serde_json::json;

use crate::operator_killed::{fresh_operator, kill_operator};

/// Where a member's volume is mounted in its pod.
const MOUNT: &str = "var/lib/quorate";

/// A store of three on volumes of this size that can grow.
async fn on_volumes_that_grow(turn: &Turn, fear: &str, size: &str) -> Store {
    turn.bed.start_storage_driver().unwrap();
    let store = Store::namespace(turn, fear).await.unwrap();
    let storage = json!({"size": size, "storageClassName": EXPANDABLE});
    store.create(json!({"replicas": 3, "storage": storage})).await.unwrap();
    store.settled(3).await.unwrap();
    store
}

async fn resize(store: &Store, size: &str) {
    store.patch(json!({"spec": {"storage": {"size": size}}})).await.unwrap();
}

/// What each claim asks for and what it has.
async fn sizes(store: &Store) -> Vec<(String, String)> {
    let text = |size: Option<&Quantity>| size.map(|size| size.0.clone()).unwrap_or_default();
    let both = |claim: PersistentVolumeClaim| {
        let resources = claim.spec.and_then(|spec| spec.resources);
        let requests = resources.and_then(|resources| resources.requests).unwrap_or_default();
        let capacity = claim.status.and_then(|status| status.capacity).unwrap_or_default();
        (text(requests.get("storage")), text(capacity.get("storage")))
    };
    store.claims().await.unwrap().into_iter().map(both).collect()
}

/// The size of the file system that each member's process has, in bytes, as its own kernel tells it.
fn space(turn: &Turn, store: &Store) -> BTreeMap<&'static str, u64> {
    let size = |member| {
        let process = store.server(turn, member).unwrap();
        let mut df = Command::new("df");
        df.args(["--block-size=1", "--output=size"]);
        df.arg(format!("/proc/{}/root/{MOUNT}", process.pid));
        let told = command::output(&mut df).unwrap();
        let size = told.lines().last().and_then(|line| line.trim().parse().ok());
        (member, size.unwrap())
    };
    ["db-0", "db-1", "db-2"].map(size).into()
}

/// Waits until all three claims have this size and each member sees it.
async fn grown(turn: &Turn, store: &Store, size: &str, bytes: u64) {
    until(&format!("three volumes of {size}"), SCALED, async || {
        let sizes = sizes(store).await;
        let all = sizes.iter().all(|(asked, has)| asked == size && has == size);
        if all && sizes.len() == 3 { Ok(()) } else { Err(format!("{sizes:?}")) }
    })
    .await
    .unwrap();
    until("each member to see it", HEALED, async || {
        let space = space(turn, store);
        let all = space.values().all(|seen| *seen == bytes);
        if all { Ok(()) } else { Err(format!("{space:?}")) }
    })
    .await
    .unwrap();
    store.told("ResizePending", "False", "UpToDate").await.unwrap();
    store.settled(3).await.unwrap();
}

/// Pods by UID, with the restarts of their containers.
async fn lives(store: &Store) -> Vec<(Option<String>, i32)> {
    let life = |pod: Pod| (pod.metadata.uid.clone(), restart_count(&pod));
    store.pods().await.unwrap().into_iter().map(life).collect()
}

/// The claims that the operator has changed, in order.
fn claims_changed(requests: &[Request]) -> Vec<&str> {
    let patched = requests.iter().filter(|request| {
        let patch = request.resource == "persistentvolumeclaims" && request.verb == "patch";
        patch && request.is_operators() && request.succeeded()
    });
    patched.map(|request| request.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_grow_in_use_and_nobody_notices() {
    let turn = turn().await.unwrap();
    let store = on_volumes_that_grow(&turn, "fear-volumes", "512Mi").await;
    let before = space(&turn, &store);
    assert!(before.values().all(|size| *size == 512 << 20), "{before:?}");
    let lived = lives(&store).await;
    let witness = Witness::start(&store);
    let load = Load::start(&store).await.unwrap();

    let audit = Audit::from_now(&turn.bed.audit_log(), "fear-volumes").unwrap();
    resize(&store, "1Gi").await;
    grown(&turn, &store, "1Gi", 1 << 30).await;

    let outcome = load.stop().await.unwrap();
    let seen = witness.stop().await.unwrap();
    assert_eq!(lives(&store).await, lived, "no pod is another one and none was restarted");
    let requests = audit.requests().unwrap();
    no_pod_is_taken(&requests).unwrap();
    assert_eq!(claims_changed(&requests), ["db-0-1", "db-1-1", "db-2-1"], "each once, in order");
    seen.never_two_silent().unwrap();
    seen.one_cluster().unwrap();
    outcome.verify(&store).await.unwrap();
    outcome.untroubled().unwrap();
    assert_eq!(store.status().await.unwrap().volume_size.as_deref(), Some("1Gi"));
    let shrunk = store.patch(json!({"spec": {"storage": {"size": "512Mi"}}})).await;
    let text = format!("{:#}", shrunk.expect_err("a volume cannot shrink"));
    assert!(text.contains("storage.size cannot shrink"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a second case of its fear, of minutes: cargo xtask soak"]
async fn an_operator_that_dies_between_two_claims_is_continued() {
    let turn = turn().await.unwrap();
    fresh_operator(&turn).await;
    let store = on_volumes_that_grow(&turn, "fear-volumes-killed", "512Mi").await;
    // While the storage gives nothing, the operator stands between the first claim and the second.
    turn.bed.kill_resizer().unwrap();
    let audit = Audit::from_now(&turn.bed.audit_log(), "fear-volumes-killed").unwrap();
    resize(&store, "768Mi").await;
    let message = store.told("ResizePending", "True", "VolumesGrowing").await.unwrap();
    until("the first claim to ask for more", HEALED, async || {
        let sizes = sizes(&store).await;
        if sizes[0].0 == "768Mi" { Ok(()) } else { Err(format!("{sizes:?}; {message}")) }
    })
    .await
    .unwrap();
    kill_operator(&turn).await;
    let asked: Vec<String> = sizes(&store).await.into_iter().map(|(asked, _has)| asked).collect();
    assert_eq!(asked, ["768Mi", "512Mi", "512Mi"], "it died between two claims");

    turn.bed.start_storage_driver().unwrap();
    grown(&turn, &store, "768Mi", 768 << 20).await;
    let requests = audit.requests().unwrap();
    assert_eq!(claims_changed(&requests), ["db-0-1", "db-1-1", "db-2-1"], "nothing was done twice");
    no_pod_is_taken(&requests).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_grow_is_said_once_and_taken_back_by_the_spec() {
    let turn = turn().await.unwrap();
    fresh_operator(&turn).await;
    let store = Store::formed(&turn, "fear-volumes-fixed", 1).await.unwrap();
    let audit = Audit::from_now(&turn.bed.audit_log(), "fear-volumes-fixed").unwrap();
    resize(&store, "128Mi").await;
    let message = store.told("ResizePending", "True", "ClassCannotExpand").await.unwrap();
    for words in ["db-0", "host-path", "allowVolumeExpansion", "set storage.size back to 64Mi"] {
        assert!(message.contains(words), "{message}");
    }
    // Neither its successor nor another look at it says it again.
    kill_operator(&turn).await;
    store.patch(json!({"spec": {"service": {"labels": {"looked": "at"}}}})).await.unwrap();
    store.settled(1).await.unwrap();
    let events = store.kubectl(&["get", "events", "-o", "json"]).unwrap();
    let events: serde_json::Value = serde_json::from_str(&events).unwrap();
    let of_resizing = |event: &&serde_json::Value| {
        let message = event["message"].as_str().unwrap_or_default();
        message.contains("allowVolumeExpansion")
    };
    let told: Vec<_> = events["items"].as_array().unwrap().iter().filter(of_resizing).collect();
    assert_eq!(told.len(), 1, "exactly one event: {told:#?}");
    assert!(told[0]["series"].is_null(), "and not repeated: {told:#?}");
    assert_eq!(told[0]["reason"], "ClassCannotExpand");

    resize(&store, "64Mi").await;
    store.told("ResizePending", "False", "UpToDate").await.unwrap();
    store.settled(1).await.unwrap();
    assert_eq!(sizes(&store).await, [("64Mi".to_owned(), "64Mi".to_owned())]);
    let requests = audit.requests().unwrap();
    assert!(claims_changed(&requests).is_empty(), "nothing was asked of a class that cannot");
}
