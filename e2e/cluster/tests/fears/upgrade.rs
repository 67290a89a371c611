//! Fear: an upgrade fails requests, stops two members at once, leaves the cluster without a leader, or shows an old member what only
//! new ones know.

use quorate_crds::StoreClusterStatus;
use quorate_e2e_cluster::audit::{one_restart_at_a_time, restarts};
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::images::{VERSION, next_minor_version, next_version};
use quorate_e2e_cluster::limits::{HEALED, ROLLED};
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::store::{Store, version_of};
use quorate_e2e_cluster::wait::until;
use quorate_e2e_cluster::witness::Witness;
use serde_json::json;

/// Upgrades to the next feature level in the gate; there is no way back, so each has a cluster of its own. The soak sets
/// `QUORATE_UPGRADES=10`.
const UPGRADES: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a second case of its fear, of minutes: cargo xtask soak"]
async fn forth_and_back_under_load_the_leader_last_each_time() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-upgrade", 3).await.unwrap();
    let witness = Witness::start(&store);
    let load = Load::start(&store).await.unwrap();

    let next = next_version();
    let mut leaders = Vec::new();
    for version in [next.as_str(), VERSION] {
        leaders.push(store.leader().await.unwrap());
        roll(&store, version, async || {}).await;
    }
    nobody_noticed(&store, witness, load, &leaders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_the_next_minor_version_whose_command_and_rows_no_old_member_meets() {
    let rounds = std::env::var("QUORATE_UPGRADES").map_or(UPGRADES, |text| text.parse().unwrap());
    let next = next_minor_version();
    for round in 0..rounds {
        let turn = turn().await.unwrap();
        turn.bring_next_minor().unwrap();
        let store = Store::formed(&turn, "fear-next-level", 3).await.unwrap();
        for (level, rows) in levels(&store).await.unwrap() {
            assert_eq!((level, rows), (1, None), "an old member knows nothing of the next level");
        }
        let witness = Witness::start(&store);
        let load = Load::start(&store).await.unwrap();
        let leader = store.leader().await.unwrap();
        roll(&store, &next, async || risen_only_if_all_are_new(&store, &next).await).await;
        let told = until("level 2 and its rows on every member", HEALED, async || {
            let seen = levels(&store).await.map_err(|error| format!("{error:#}"))?;
            let reached =
                |(level, rows): &(u64, Option<u64>)| *level == 2 && rows.is_some_and(|n| n > 0);
            if seen.iter().all(reached) { Ok(seen) } else { Err(format!("{seen:?}")) }
        });
        println!("round {round}: (level, rows) of each member: {:?}", told.await.unwrap());
        // The data are of the new level now: no template gets the old version, and nobody is restarted for it.
        let pods = store.pods().await.unwrap();
        store.patch(json!({"spec": {"version": VERSION}})).await.unwrap();
        store.told("Degraded", "True", "VersionRefused").await.unwrap();
        store.patch(json!({"spec": {"version": next}})).await.unwrap();
        store.told("Degraded", "False", "AsExpected").await.unwrap();
        for (before, after) in pods.iter().zip(store.pods().await.unwrap()) {
            assert_eq!(after.metadata.uid, before.metadata.uid, "nobody was touched");
        }
        nobody_noticed(&store, witness, load, &[leader]).await;
    }
}

/// Brings three members to a version they do not run yet; `look` is called again and again meanwhile.
async fn roll(store: &Store, version: &str, look: impl AsyncFn()) -> StoreClusterStatus {
    let before = store.pods().await.unwrap();
    assert!(before.iter().all(|pod| version_of(pod) != Some(version)), "it is not there yet");
    store.patch(json!({"spec": {"version": version}})).await.unwrap();
    until(&format!("three pods of version {version}"), ROLLED, async || {
        look().await;
        let pods = store.pods().await.map_err(|error| format!("{error:#}"))?;
        let new = pods.iter().filter(|pod| version_of(pod) == Some(version)).count();
        if new == 3 { Ok(()) } else { Err(format!("{new} are there")) }
    })
    .await
    .unwrap();
    let status = store.rolled(3, version).await.unwrap();
    assert_eq!(status.version.as_deref(), Some(version));
    for (old, new) in before.iter().zip(store.pods().await.unwrap()) {
        assert_ne!(new.metadata.uid, old.metadata.uid, "every pod is another one");
        let image = new.spec.unwrap().containers.remove(0).image.unwrap();
        assert!(image.ends_with(&format!(":{version}")), "{image}");
    }
    store.told("RestartPending", "False", "UpToDate").await.unwrap();
    status
}

/// Feature level and number of new rows of each member that answers.
async fn levels(store: &Store) -> anyhow::Result<Vec<(u64, Option<u64>)>> {
    let mut levels = Vec::new();
    for member in ["db-0", "db-1", "db-2"] {
        let member = store.member(member).await?;
        let level = member.metric("quorate_feature_level").await?.unwrap_or(0);
        levels.push((level, member.metric("quorate_next_level_rows").await?));
    }
    Ok(levels)
}

/// The levels are read first: what has risen then had every member's word, and no pod goes back.
async fn risen_only_if_all_are_new(store: &Store, version: &str) {
    for member in ["db-0", "db-1", "db-2"] {
        // One of them is always on its way.
        let Ok(member) = store.member(member).await else { continue };
        let Ok(Some(level)) = member.metric("quorate_feature_level").await else { continue };
        let rows = member.metric("quorate_next_level_rows").await.ok().flatten().unwrap_or(0);
        if level > 1 || rows > 0 {
            let pods = store.pods().await.unwrap();
            let old = pods.iter().find(|pod| version_of(pod) != Some(version));
            assert!(old.is_none(), "level {level}, {rows} rows, and an old member: {old:?}");
        }
    }
}

/// Ends load and witness: no request failed, and members were restarted one by one, each leader last in its roll.
async fn nobody_noticed(store: &Store, witness: Witness, load: Load, leaders: &[String]) {
    let outcome = load.stop().await.unwrap();
    let seen = witness.stop().await.unwrap();
    outcome.verify(store).await.unwrap();
    outcome.heavy().unwrap();
    seen.never_two_silent().unwrap();
    seen.one_cluster().unwrap();
    seen.one_change_at_a_time().unwrap();

    let requests = store.audit.requests().unwrap();
    let order = one_restart_at_a_time(&requests).unwrap();
    println!("restarted: {order:?}; leaders before: {leaders:?}");
    assert_eq!(order.len(), 3 * leaders.len(), "each member once in each roll: {order:?}");
    for (roll, leader) in order.chunks(3).zip(leaders) {
        let mut members = roll.to_vec();
        members.sort();
        assert_eq!(members, ["db-0", "db-1", "db-2"], "each once: {order:?}");
        assert_eq!(roll.last(), Some(leader), "who led comes last");
    }
    seen.nobody_led_when_restarted(&restarts(&requests)).unwrap();
    outcome.untroubled().unwrap();
}
