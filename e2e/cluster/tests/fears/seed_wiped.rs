//! Fear: the first member loses its directory, comes back empty, and forms a second cluster of its own.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::HEALED;
use quorate_e2e_cluster::member::Member;
use quorate_e2e_cluster::store::{Store, address, condition};
use quorate_e2e_cluster::wait::until;
use quorate_e2e_cluster::witness::Witness;

/// Removes everything in a directory while a member runs on it, then kills the member's pod.
async fn wipe(store: &Store, member: &str) -> Pod {
    let directory = store.directory(&format!("{member}-1")).await.unwrap();
    assert!(!entries(&directory).is_empty(), "there is something to lose");
    let old = store.pod(member).await.unwrap();
    for entry in entries(&directory) {
        fs::remove_dir_all(&entry).unwrap();
    }
    assert!(entries(&directory).is_empty(), "{} is wiped", directory.display());
    let now = DeleteParams::default().grace_period(0);
    store.api::<Pod>().delete(&old.name_any(), &now).await.unwrap();
    until("another pod", HEALED, async || {
        let pod = store.pod(member).await.map_err(|error| format!("{error:#}"))?;
        if pod.metadata.uid == old.metadata.uid { Err("the old one".to_owned()) } else { Ok(pod) }
    })
    .await
    .unwrap()
}

fn entries(directory: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_it_ends_empty_the_others_go_on_and_another_takes_its_place() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-seed-wiped", 3).await.unwrap();
    store.put("kept", "before").await.unwrap();
    let before = store.status().await.unwrap();
    let witness = Witness::start(&store);

    wipe(&store, "db-0").await;
    let status = until("the verdict Empty", HEALED, async || {
        let status = store.status().await.map_err(|error| format!("{error:#}"))?;
        let seed = status.members.iter().find(|member| member.name == "db-0");
        let verdict = seed.and_then(|member| member.verdict.clone());
        if verdict.as_deref() == Some("Empty") { Ok(status) } else { Err(format!("{verdict:?}")) }
    });
    let status = status.await.unwrap();
    assert_eq!(status.cluster_id, before.cluster_id);
    let message = store.told("Degraded", "True", "MemberRefuses").await.unwrap();
    assert!(message.contains("db-0"), "{message}");
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("before"));
    store.put("kept", "by two").await.unwrap();
    // Another member takes its place, under another ordinal and on another volume.
    let healed = store.settled(3).await.unwrap();
    let names: Vec<_> = healed.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["db-1", "db-2", "db-3"]);
    assert_eq!(condition(&healed, "Available").unwrap().status, "True");
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("by two"));

    witness.stop().await.unwrap().one_cluster().unwrap();
    let requests = store.audit.requests().unwrap();
    assert_eq!(requests.iter().filter(|it| it.made("jobs")).count(), 1, "formed once");
    let claims = requests.iter().filter(|it| it.deleted("persistentvolumeclaims"));
    let claims: Vec<_> = claims.map(|it| it.name.as_str()).collect();
    assert_eq!(claims, ["db-0-1"], "of the member that was replaced, and no other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a second case of its fear, of minutes: cargo xtask soak"]
async fn alone_it_waits_and_serves_nothing() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-only-one-wiped", 1).await.unwrap();
    store.put("lost", "for good").await.unwrap();
    let before = store.status().await.unwrap();

    wipe(&store, "db-0").await;
    until("the member to say that it waits", HEALED, async || {
        let log = store.kubectl(&["logs", "db-0-0"]).map_err(|error| format!("{error:#}"))?;
        if log.contains("waiting to join") { Ok(()) } else { Err(log) }
    })
    .await
    .unwrap();
    store.told("Available", "False", "QuorumLost").await.unwrap();
    let pod = store.pod("db-0").await.unwrap();
    // Its port is taken so that nobody else has it, and nothing is answered there.
    if let Ok(member) = Member::connect(&address(&pod).unwrap()).await {
        assert!(member.status().await.is_err(), "an empty member serves nobody");
    }
    let after = store.status().await.unwrap();
    assert_eq!(after.cluster_id, before.cluster_id);
    assert_eq!(after.members.len(), 1);
    let requests = store.audit.requests().unwrap();
    assert_eq!(requests.iter().filter(|it| it.made("jobs")).count(), 1, "formed once");
}
