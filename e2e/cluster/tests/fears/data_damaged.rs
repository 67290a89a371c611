//! Fear: a disk returns other bytes than were written, and they are served, or spread, or the member is lost for good.

use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::HEALED;
use quorate_e2e_cluster::store::{Store, kill_dead};
use quorate_e2e_cluster::wait::until;
use quorate_e2e_cluster::witness::Witness;
use quorate_e2e_store::damage;
use quorate_proto::etcdserverpb::RangeRequest;

/// A value that is found again in the file that holds it.
const MARK: &str = "here-is-a-value-to-be-damaged";

/// Waits until the operator has noted the member's own verdict.
async fn says_corrupt(store: &Store, member: &str) {
    until(&format!("{member} to say Corrupt"), HEALED, async || {
        let status = store.status().await.map_err(|error| format!("{error:#}"))?;
        let verdict =
            status.members.iter().find(|it| it.name == member).map(|it| it.verdict.clone());
        match verdict {
            // Replaced already: so it was said.
            None => Ok(()),
            Some(Some(verdict)) if verdict == "Corrupt" => Ok(()),
            Some(verdict) => Err(format!("{verdict:?}")),
        }
    })
    .await
    .unwrap();
}

/// Puts values in that are found again.
async fn fill(store: &Store) {
    for number in 0..40 {
        store.put(&format!("mark/{number:02}"), MARK).await.unwrap();
    }
}

/// All of them, as the asked member itself has them.
fn all() -> RangeRequest {
    RangeRequest {
        key: "mark/".into(),
        range_end: "mark0".into(),
        serializable: true,
        ..RangeRequest::default()
    }
}

/// Flips a bit of one of them in the rows behind a claim, and lets its member meet the damage: it does not answer with it.
async fn meets_damaged_rows(store: &Store, member: &str, claim: &str) {
    let rows = damage::rows(&store.directory(claim).await.unwrap().join("data")).unwrap();
    let mark = MARK.as_bytes();
    let held = |file: &&std::path::PathBuf| {
        std::fs::read(file).unwrap().windows(mark.len()).any(|bytes| bytes == mark)
    };
    let file = rows.iter().find(held).expect("the rows hold the values");
    damage::alter(file, |bytes| {
        let at = bytes.windows(mark.len()).position(|bytes| bytes == mark).unwrap();
        bytes[at + 5] ^= 1;
    })
    .unwrap();
    let read = store.member(member).await.unwrap().range(all()).await;
    assert!(read.is_err(), "damaged rows were served: {read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_log_it_costs_the_member_and_in_young_rows_a_restart() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-damage", 3).await.unwrap();
    store.let_lead("db-0").await.unwrap();
    fill(&store).await;
    let witness = Witness::start(&store);

    let log = store.directory("db-2-1").await.unwrap().join("data");
    damage::flip_bit_of_log(&log).unwrap();
    kill_dead(&store.server(&turn, "db-2").unwrap()).unwrap();
    says_corrupt(&store, "db-2").await;
    store.consists_of(&["db-0", "db-1", "db-3"]).await.unwrap();

    meets_damaged_rows(&store, "db-1", "db-1-1").await;
    // The server ends. No checkpoint holds these rows yet, so they are written anew from the log.
    until("db-1 to serve what was written", HEALED, async || {
        let member = store.member("db-1").await.map_err(|error| format!("{error:#}"))?;
        let page = member.range(all()).await.map_err(|error| format!("{error:#}"))?;
        let whole =
            page.kvs.len() == 40 && page.kvs.iter().all(|pair| pair.value == MARK.as_bytes());
        if whole { Ok(()) } else { Err(format!("{} keys", page.kvs.len())) }
    })
    .await
    .unwrap();
    store.consists_of(&["db-0", "db-1", "db-3"]).await.unwrap();
    let seen = witness.stop().await.unwrap();
    seen.one_cluster().unwrap();
    seen.one_change_at_a_time().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a second case of its fear, of minutes: cargo xtask soak"]
async fn in_old_rows_it_costs_the_member_however_often_it_is_started_again() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-old-damage", 3).await.unwrap();
    store.let_lead("db-0").await.unwrap();
    fill(&store).await;
    // An orderly stop leaves a checkpoint that holds the rows: the log does not write them anew.
    let old = store.delete_pod("db-1").await.unwrap();
    store.replaced("db-1", &old).await.unwrap();
    store.consists_of(&["db-0", "db-1", "db-2"]).await.unwrap();
    let witness = Witness::start(&store);

    meets_damaged_rows(&store, "db-1", "db-1-1").await;
    // Nobody reads them a second time: each start looks for itself before it answers, and so does not void its verdict.
    says_corrupt(&store, "db-1").await;
    store.consists_of(&["db-0", "db-2", "db-3"]).await.unwrap();
    for number in 0..40 {
        let value = store.value(&format!("mark/{number:02}")).await.unwrap();
        assert_eq!(value.as_deref(), Some(MARK), "{number}");
    }
    let seen = witness.stop().await.unwrap();
    seen.one_cluster().unwrap();
    seen.one_change_at_a_time().unwrap();
}
