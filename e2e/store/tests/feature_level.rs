//! Two builds of the server, one a feature level ahead: an upgrade under load, the way back that is refused, a member that comes too
//! late with the old build.

#![allow(clippy::unwrap_used, reason = "a test says that it failed by a panic")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use quorate_e2e_store::cluster::{Cluster, Server};
use quorate_e2e_store::damage::content;
use quorate_e2e_store::load::Load;
use quorate_e2e_store::member::Member;
use quorate_e2e_store::observer::change_log;
use quorate_e2e_store::{binary, http, limits};
use quorate_kubernetes::{Progress, wait};
use quorate_sim::judge::{Operation, Request, check_history};

/// Acknowledged writes between two restarts.
const WRITES_BETWEEN: u64 = 1000;

/// How long so many may take, with an election between and compilers beside.
const WRITES_IN: Duration = Duration::from_secs(60);

/// A metric of a member, if it has it.
fn metric(member: &Member, name: &str) -> Option<u64> {
    let (code, page) = http::get(member.client_port, "/metrics").unwrap();
    assert_eq!(code, 200, "{page}");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

fn level(member: &Member) -> u64 {
    metric(member, "quorate_feature_level").unwrap()
}

/// Rows of the new kind; none in a build that does not know them.
fn rows(member: &Member) -> Option<u64> {
    metric(member, "quorate_next_level_rows")
}

/// Waits until every member is at level 2 and has a row of the new kind.
fn wait_reached(cluster: &Cluster) {
    wait::until(&Progress::start(), "level 2 and its rows", limits::SETTLED, || {
        let seen: Vec<_> =
            cluster.members.iter().map(|member| (level(member), rows(member))).collect();
        let reached = seen.iter().all(|(level, rows)| *level == 2 && rows.is_some_and(|r| r > 0));
        Ok(if reached { Ok(()) } else { Err(format!("{seen:?}")) })
    })
    .unwrap();
}

/// Starts a member that must end by itself because it is too old. Returns what it says.
fn is_too_old(cluster: &mut Cluster, member: usize) -> String {
    cluster.members[member].start().unwrap();
    let status = cluster.members[member].wait_exit(limits::STOPPED).unwrap();
    assert_eq!(status.code(), Some(14), "{}", cluster.members[member].log_tail());
    let (class, message) = cluster.members[member].last_word().unwrap();
    assert_eq!(class, "FormatTooNew", "{message}");
    cluster.allow(&[&message]);
    message
}

fn run_with(cluster: &mut Cluster, member: usize, program: &Path) {
    cluster.members[member].program = program.to_owned();
    cluster.members[member].start().unwrap();
    cluster.members[member].wait_ready().unwrap();
}

/// A cluster of one that was formed by the old build and has reached level 2 under the new one.
fn upgraded_alone() -> Cluster {
    let mut cluster = Cluster::start(Server::Quorate, 1, &[]).unwrap();
    let etcdctl = cluster.etcdctl().unwrap();
    for key in 0..20 {
        etcdctl.run(&["put", &format!("k{key:02}"), "old"]).unwrap();
    }
    assert_eq!((level(&cluster.members[0]), rows(&cluster.members[0])), (1, None));
    assert_eq!(cluster.members[0].terminate().unwrap().code(), Some(0));
    run_with(&mut cluster, 0, &binary::next_quorate().unwrap());
    etcdctl.run(&["put", "new", "1"]).unwrap();
    wait_reached(&cluster);
    cluster
}

#[test]
fn the_two_builds_say_which_version_they_are() {
    let says = |program: &Path| {
        let output = Command::new(program).arg("--version").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(says(&binary::quorate().unwrap()).contains("quorate Version: 0.1.0"));
    assert!(says(&binary::next_quorate().unwrap()).contains("quorate Version: 0.2.0"));
}

#[test]
fn an_upgrade_under_load_reaches_the_level_with_the_last_member_and_not_before() {
    let progress = Progress::start();
    let mut cluster = Cluster::start(Server::Quorate, 3, &[]).unwrap();
    let next = binary::next_quorate().unwrap();
    let load = Load::start(cluster.members.iter().map(Member::client_url).collect()).unwrap();
    load.wait_writes(WRITES_BETWEEN, WRITES_IN).unwrap();
    let leader = cluster.leader().unwrap();
    for (before, member) in [(leader + 1) % 3, (leader + 2) % 3, leader].into_iter().enumerate() {
        for (at, other) in cluster.members.iter().enumerate() {
            let is_new = other.program == next;
            assert_eq!(level(other), 1, "{before} of three are upgraded");
            assert_eq!(rows(other), is_new.then_some(0), "member {at} has none of the new rows");
        }
        assert_eq!(cluster.members[member].terminate().unwrap().code(), Some(0));
        run_with(&mut cluster, member, &next);
        load.wait_writes(WRITES_BETWEEN, WRITES_IN).unwrap();
        progress.say(format!("{} upgraded; {} writes so far", before + 1, load.writes()));
    }
    wait_reached(&cluster);
    // A crash at the new level: what was applied of it is applied again.
    cluster.members[leader].kill().unwrap();
    cluster.allow(&["a crash cut off the log's last write"]);
    load.wait_writes(WRITES_BETWEEN, WRITES_IN).unwrap();
    cluster.members[leader].start().unwrap();
    cluster.members[leader].wait_ready().unwrap();
    wait_reached(&cluster);
    let evidence = load.stop().unwrap();
    cluster.wait_level().unwrap();
    let hashes = cluster.hashes().unwrap();
    assert!(hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let counts: Vec<_> = cluster.members.iter().map(rows).collect();
    assert!(counts.iter().all(|rows| *rows == counts[0]), "{counts:?}");
    // As in kill9: what a renewal does is judged by the law of leases, not by its header's revision.
    let log = change_log(&evidence.observations[0], &evidence.observations[1..]);
    let is_renewal = |operation: &&Operation| matches!(operation.request, Request::Renew(_));
    let history: Vec<Operation> =
        evidence.operations.iter().filter(|operation| !is_renewal(operation)).cloned().collect();
    let report = check_history(&history, &log).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(report.writes as u64 > WRITES_BETWEEN * 4);
}

#[test]
fn the_way_back_is_refused_and_the_data_are_left_as_they_are() {
    let mut cluster = upgraded_alone();
    let (old, next) = (binary::quorate().unwrap(), binary::next_quorate().unwrap());
    let before = cluster.hashes().unwrap();
    // An orderly stop leaves a checkpoint of the new level.
    assert_eq!(cluster.members[0].terminate().unwrap().code(), Some(0));
    let files = content(&cluster.members[0].data).unwrap();
    cluster.members[0].program.clone_from(&old);
    let message = is_too_old(&mut cluster, 0);
    assert!(message.contains("newer") || message.contains("feature level 2"), "{message}");
    assert_eq!(
        content(&cluster.members[0].data).unwrap(),
        files,
        "what an old build refuses it leaves alone"
    );
    run_with(&mut cluster, 0, &next);
    assert_eq!(cluster.hashes().unwrap(), before);
    // After a kill there are rows behind the checkpoint; not even those are cut.
    cluster.etcdctl().unwrap().run(&["put", "new", "2"]).unwrap();
    let before = cluster.hashes().unwrap();
    cluster.allow(&["a crash cut off the log's last write"]);
    cluster.members[0].kill().unwrap();
    let files = content(&cluster.members[0].data).unwrap();
    cluster.members[0].program = old;
    is_too_old(&mut cluster, 0);
    assert_eq!(content(&cluster.members[0].data).unwrap(), files, "nor after a kill");
    run_with(&mut cluster, 0, &next);
    assert_eq!(cluster.hashes().unwrap(), before);
    assert_eq!(cluster.etcdctl().unwrap().run(&["get", "new"]).unwrap(), "new\n2\n");
}

#[test]
fn a_log_of_the_new_level_stops_the_old_build_and_loses_nothing() {
    let mut cluster = upgraded_alone();
    let (old, next) = (binary::quorate().unwrap(), binary::next_quorate().unwrap());
    let before = cluster.hashes().unwrap();
    let kept = rows(&cluster.members[0]);
    // A kill leaves the old build's checkpoint, and everything of the new level in the log behind it.
    cluster.allow(&["a crash cut off the log's last write"]);
    cluster.members[0].kill().unwrap();
    cluster.members[0].program = old;
    let message = is_too_old(&mut cluster, 0);
    assert!(message.contains("entry"), "an entry of the log stopped it: {message}");
    run_with(&mut cluster, 0, &next);
    assert_eq!(cluster.hashes().unwrap(), before);
    assert_eq!((level(&cluster.members[0]), rows(&cluster.members[0])), (2, kept));
}

#[test]
fn a_joiner_with_the_old_build_is_told_so_and_joins_with_the_new_one() {
    let mut cluster = upgraded_alone();
    cluster.allow(&["waiting to join", "lost the connection"]);
    let (old, next) = (binary::quorate().unwrap(), binary::next_quorate().unwrap());
    let first = format!("a={}", cluster.members[0].peer_url());
    let joiner = cluster.push_member().unwrap();
    joiner.program = old;
    let (name, peer) = (joiner.name.clone(), joiner.peer_url());
    joiner.arguments.push(format!("--initial-cluster={first},{name}={peer}"));
    joiner.arguments.push("--initial-cluster-state=existing".to_owned());
    let etcdctl = cluster.etcdctl_of(0).unwrap();
    let add = ["member", "add", &name, &format!("--peer-urls={peer}"), "--learner"];
    wait::until(&Progress::start(), "a member to be added", limits::SETTLED, || {
        Ok(etcdctl.run(&add).map_err(|error| format!("{error:#}")))
    })
    .unwrap();
    let message = is_too_old(&mut cluster, 1);
    assert!(message.contains("feature level"), "{message}");
    cluster.members[1].program = next;
    cluster.members[1].start().unwrap();
    // A learner is not ready, but it has the rows: they came in its snapshot.
    wait::until(&Progress::start(), "the joiner to catch up", limits::SETTLED, || {
        let page = http::get(cluster.members[1].client_port, "/metrics");
        let text = page.map_or_else(|error| format!("{error:#}"), |(_, text)| text);
        let has = |line: &str| text.lines().any(|other| other == line);
        let rows = rows(&cluster.members[0]).unwrap_or(0);
        let caught_up =
            has("quorate_feature_level 2") && has(&format!("quorate_next_level_rows {rows}"));
        Ok(if caught_up { Ok(()) } else { Err("not yet".to_owned()) })
    })
    .unwrap();
}
