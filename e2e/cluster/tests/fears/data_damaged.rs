//! Fear: a disk returns other bytes than were written, and they are served, or spread, or the member is lost for good.

use quorate_e2e_cluster::fixture::{Turn, turn};
use quorate_e2e_cluster::limits::HEALED;
use quorate_e2e_cluster::store::{Store, kill_dead};
use quorate_e2e_cluster::wait::until;
use quorate_e2e_cluster::witness::Witness;
use quorate_e2e_store::damage;
use quorate_kubernetes::Part;
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

/// kill -9 of a member's server.
async fn kill(turn: &Turn, store: &Store, member: &str) {
    let pod = store.pod(member).await.unwrap();
    let node = turn.bed.node(&pod.spec.unwrap().node_name.unwrap()).unwrap();
    let name = format!("--name={member}");
    let of_it = |command_line: &str| command_line.split(' ').any(|word| word == name);
    let mut servers = node.processes(Part::Pods).unwrap();
    servers.retain(|process| of_it(&process.command_line));
    assert_eq!(servers.len(), 1, "{member} runs once: {servers:?}");
    kill_dead(&servers[0]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_log_and_in_the_rows_and_the_member_is_replaced() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-damage", 3).await.unwrap();
    store.let_lead("db-0").await.unwrap();
    for number in 0..40 {
        store.put(&format!("mark/{number:02}"), MARK).await.unwrap();
    }
    let witness = Witness::start(&store);

    let log = store.directory("db-2-1").await.unwrap().join("data");
    damage::flip_bit_of_log(&log).unwrap();
    kill(&turn, &store, "db-2").await;
    says_corrupt(&store, "db-2").await;
    store.consists_of(&["db-0", "db-1", "db-3"]).await.unwrap();

    let rows = damage::rows(&store.directory("db-1-1").await.unwrap().join("data")).unwrap();
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
    let member = store.member("db-1").await.unwrap();
    let all = RangeRequest {
        key: "mark/".into(),
        range_end: "mark0".into(),
        serializable: true,
        ..RangeRequest::default()
    };
    let read = member.range(all).await;
    assert!(read.is_err(), "damaged rows were served: {read:?}");
    says_corrupt(&store, "db-1").await;
    store.consists_of(&["db-0", "db-3", "db-4"]).await.unwrap();

    for number in 0..40 {
        let value = store.value(&format!("mark/{number:02}")).await.unwrap();
        assert_eq!(value.as_deref(), Some(MARK));
    }
    let seen = witness.stop().await.unwrap();
    seen.one_cluster().unwrap();
    seen.one_change_at_a_time().unwrap();
}
