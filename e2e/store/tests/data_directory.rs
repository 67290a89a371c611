//! What a member makes of its data directory, how it ends, and what it says then: docs/contract.md on real processes.

#![allow(clippy::unwrap_used, reason = "a test says that it failed by a panic")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use quorate_e2e_store::cluster::{Cluster, Server};
use quorate_e2e_store::damage::content;
use quorate_e2e_store::{binary, damage, http, limits};
use quorate_kubernetes::{Progress, wait};
use rustix::process::Signal;
use serde_json::Value;

/// A cluster of one with these keys in it.
fn filled(keys: usize) -> Cluster {
    let cluster = Cluster::start(Server::Quorate, 1, &[]).unwrap();
    let etcdctl = cluster.etcdctl().unwrap();
    for key in 0..keys {
        etcdctl.run(&["put", &format!("k{key:03}"), &"v".repeat(500)]).unwrap();
    }
    cluster
}

/// The keys that can be read.
fn count(cluster: &Cluster) -> i64 {
    let answer = cluster.etcdctl_of(0).unwrap().json(&["get", "k", "--prefix", "--keys-only"]);
    answer.unwrap()["count"].as_i64().unwrap_or(0)
}

/// Starts a member that must end by itself, with this code and verdict. Returns its message.
fn ends_with(cluster: &mut Cluster, member: usize, code: i32, verdict: &str) -> String {
    cluster.members[member].start().unwrap();
    verdict_of(cluster, member, code, verdict)
}

/// Waits for the end of a running member and reads its last word.
fn verdict_of(cluster: &mut Cluster, member: usize, code: i32, verdict: &str) -> String {
    let status = cluster.members[member].wait_exit(limits::STOPPED).unwrap();
    assert_eq!(status.code(), Some(code), "{status}: {}", cluster.members[member].log_tail());
    let (class, message) = cluster.members[member].last_word().unwrap();
    assert_eq!(class, verdict, "{message}");
    assert!(message.len() > 30, "a message says what happened and what to do: {message}");
    cluster.allow(&[&message]);
    message
}

#[test]
fn a_torn_tail_is_cut_and_everything_before_it_is_there() {
    let mut cluster = filled(40);
    cluster.allow(&["a crash cut off the log's last write"]);
    cluster.members[0].kill().unwrap();
    let frames = |cluster: &Cluster| {
        let segments = damage::segments(&cluster.members[0].data).unwrap();
        damage::frames(segments.last().unwrap()).unwrap().len()
    };
    let before = frames(&cluster);
    assert!(before > 20, "{before} frames");
    damage::tear_last_frame(&cluster.members[0].data).unwrap();
    cluster.members[0].start().unwrap();
    cluster.members[0].wait_ready().unwrap();
    assert!(cluster.members[0].log_text().contains("a crash cut off the log's last write"));
    // The frame held the last put, or nothing but the news that it is committed.
    assert!(count(&cluster) >= 39, "{} of 40 keys are left", count(&cluster));
    cluster.etcdctl().unwrap().run(&["put", "after", "1"]).unwrap();
}

#[test]
fn a_flipped_bit_in_the_log_is_no_start() {
    let mut cluster = filled(40);
    cluster.members[0].kill().unwrap();
    damage::flip_bit_of_log(&cluster.members[0].data).unwrap();
    let message = ends_with(&mut cluster, 0, 11, "Corrupt");
    assert!(message.contains("wal"), "{message}");
}

/// Flips one bit of a value in the rows, or flips it back. Returns the file's name.
fn flip_in_rows(cluster: &Cluster) -> String {
    let rows = damage::rows(&cluster.members[0].data).unwrap();
    let file = rows.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    damage::alter(file, |bytes| {
        let at = bytes.windows(20).position(|bytes| bytes == b"vvvvvvvvvvvvvvvvvvvv").unwrap() + 5;
        // Behind the first twenty: flipped back it is found at the same place.
        bytes[at + 20] ^= 1;
    })
    .unwrap();
    file.file_name().unwrap().to_string_lossy().into_owned()
}

/// Reads all keys of a running member until it has met the damage and ended. Returns its message.
fn meets_damage(cluster: &mut Cluster) -> String {
    let etcdctl = cluster.etcdctl().unwrap();
    wait::until(&Progress::start(), "the damage to be noticed", limits::SETTLED, || {
        // A read that meets the damage is not answered with what it found.
        let read = etcdctl.run(&["get", "k", "--prefix"]);
        assert!(read.is_err(), "damaged rows were served: {read:?}");
        Ok(if cluster.members[0].is_running() { Err("it runs".to_owned()) } else { Ok(()) })
    })
    .unwrap();
    cluster.allow(&["damage", "Corrupt", "checksum"]);
    verdict_of(cluster, 0, 11, "Corrupt")
}

/// What the mark of a Corrupt end says, if it is there.
fn mark(cluster: &Cluster) -> Option<String> {
    fs::read_to_string(cluster.members[0].data.join("CORRUPT")).ok()
}

#[test]
fn a_flipped_bit_in_old_rows_stops_the_member_until_all_is_whole() {
    let mut cluster = filled(40);
    assert_eq!(cluster.members[0].terminate().unwrap().code(), Some(0));
    let file = flip_in_rows(&cluster);
    cluster.members[0].start().unwrap();
    let first = meets_damage(&mut cluster);
    assert!(first.contains("rows"), "{first}");
    let left = mark(&cluster).expect("it leaves a mark");
    assert!(left.contains(&first) && left.contains("Z this member ended Corrupt"), "{left}");

    // Whoever starts it again hears the same, and nobody is answered meanwhile.
    for _ in 0..2 {
        let said = cluster.members[0].log_text().len();
        cluster.members[0].start().unwrap();
        while cluster.members[0].is_running() {
            let answer = http::get(cluster.members[0].client_port, "/livez");
            assert!(answer.is_err(), "it answers: {answer:?}");
        }
        let again = verdict_of(&mut cluster, 0, 11, "Corrupt");
        assert!(again.contains(&file) && again.contains("is damaged at byte"), "{again}");
        let log = cluster.members[0].log_text().split_off(said);
        assert!(log.contains("this member ended Corrupt"), "{log}");
        assert!(!log.contains("serving clients") && !log.contains("\"recovered;"), "{log}");
        assert_eq!(mark(&cluster).as_ref(), Some(&left), "the first finding stays");
    }

    assert_eq!(flip_in_rows(&cluster), file);
    cluster.members[0].start().unwrap();
    cluster.members[0].wait_ready().unwrap();
    let log = cluster.members[0].log_text();
    assert!(log.contains("every row is whole") && log.contains("CORRUPT is removed"), "{log}");
    assert_eq!((mark(&cluster), count(&cluster)), (None, 40));
    cluster.etcdctl().unwrap().run(&["put", "after", "1"]).unwrap();
}

#[test]
fn damage_in_young_rows_is_mended_from_the_log() {
    let mut cluster = filled(40);
    // No checkpoint holds them: the next start writes them anew, and finds all whole.
    let file = flip_in_rows(&cluster);
    let message = meets_damage(&mut cluster);
    assert!(message.contains(&file), "{message}");
    assert!(mark(&cluster).is_some());
    cluster.members[0].start().unwrap();
    cluster.members[0].wait_ready().unwrap();
    assert_eq!((mark(&cluster), count(&cluster)), (None, 40));
    assert!(cluster.etcdctl().unwrap().run(&["get", "k", "--prefix"]).is_ok());
}

#[test]
fn a_missing_segment_is_no_start() {
    let mut cluster = Cluster::start(Server::Quorate, 1, &[]).unwrap();
    let value = cluster.directory().join("value");
    fs::write(&value, "x".repeat(1_400_000)).unwrap();
    let etcdctl = cluster.etcdctl().unwrap();
    let text = fs::read_to_string(&value).unwrap();
    for number in 0..110 {
        etcdctl.run_with_input(&["put", &format!("big{}", number % 3)], &text).unwrap();
    }
    cluster.members[0].kill().unwrap();
    let segments = damage::segments(&cluster.members[0].data).unwrap();
    assert!(segments.len() >= 3, "{segments:?}");
    fs::remove_file(&segments[1]).unwrap();
    let message = ends_with(&mut cluster, 0, 11, "Corrupt");
    assert!(message.contains("wal"), "{message}");
}

#[test]
fn a_newer_format_is_left_to_the_version_that_wrote_it() {
    let mut cluster = filled(3);
    assert_eq!(cluster.members[0].terminate().unwrap().code(), Some(0));
    let manifest = cluster.members[0].data.join("MANIFEST");
    damage::raise_format(&manifest, crc32c::crc32c).unwrap();
    let before = content(&cluster.members[0].data).unwrap();
    let message = ends_with(&mut cluster, 0, 14, "FormatTooNew");
    assert!(message.contains("1000"), "{message}");
    assert_eq!(
        content(&cluster.members[0].data).unwrap(),
        before,
        "a newer directory is not touched"
    );
}

#[test]
fn a_directory_of_another_cluster_is_not_served() {
    let mut cluster = Cluster::prepare(Server::Quorate, 1, &[]).unwrap();
    let member = &mut cluster.members[0];
    let (data, peer, client) = (member.data.clone(), member.peer_url(), member.client_url());
    prepare(&data, "token-a", &peer, &client).unwrap();
    member.arguments.retain(|flag| !flag.starts_with("--initial-cluster="));
    member.arguments.push("--initial-cluster-state=existing".to_owned());
    member.arguments.push("--join-cluster-id=77".to_owned());
    member.arguments.push("--join-peers=http://127.0.0.1:9".to_owned());
    let message = ends_with(&mut cluster, 0, 13, "ForeignCluster");
    assert!(message.contains("cluster"), "{message}");
}

/// `quorate prepare form`: its exit code, and what it says on standard output.
fn prepare(data: &Path, token: &str, peer: &str, client: &str) -> Result<Value, i32> {
    let mut form = Command::new(binary::quorate().unwrap());
    form.args(["prepare", "form", "--name=a", "--token", token, "--data-dir"]).arg(data);
    let output = form.args(["--peer-url", peer, "--client-url", client]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let word = said
        .lines()
        .chain(complaint.lines())
        .filter_map(|line| serde_json::from_str(line).ok())
        .next_back();
    match output.status.code() {
        Some(0) => Ok(word.unwrap_or_else(|| panic!("no message in {said:?} {complaint:?}"))),
        code => Err(code.unwrap_or(-1)),
    }
}

#[test]
fn forming_is_repeatable_with_its_token_and_refused_with_another() {
    let mut cluster = Cluster::prepare(Server::Quorate, 1, &[]).unwrap();
    let (data, peer) = (cluster.members[0].data.clone(), cluster.members[0].peer_url());
    let client = cluster.members[0].client_url();
    fs::create_dir_all(data.join("lost+found")).unwrap();
    let first = prepare(&data, "token-a", &peer, &client).unwrap();
    assert!(first["clusterID"].is_string() && first["memberID"].is_string(), "{first}");
    let made = content(&data).unwrap();
    assert_eq!(prepare(&data, "token-a", &peer, &client).unwrap(), first);
    assert_eq!(content(&data).unwrap(), made, "the same token changes nothing");
    assert_eq!(prepare(&data, "token-b", &peer, &client), Err(13));
    assert_eq!(content(&data).unwrap(), made, "another token leaves the directory as it is");
    // What was formed can be served, under the ids that were told.
    cluster.members[0].arguments.retain(|flag| !flag.starts_with("--initial-cluster="));
    cluster.members[0].arguments.push("--initial-cluster-state=existing".to_owned());
    let id = first["clusterID"].as_str().unwrap().to_owned();
    cluster.members[0].arguments.push(format!("--join-cluster-id={id}"));
    cluster.members[0].arguments.push(format!("--join-peers={peer}"));
    cluster.members[0].start().unwrap();
    cluster.members[0].wait_ready().unwrap();
    let header = &cluster.status(0).unwrap()["header"];
    assert_eq!(format!("{:x}", header["cluster_id"].as_u64().unwrap()), id);
    assert_eq!(
        Value::from(format!("{:x}", header["member_id"].as_u64().unwrap())),
        first["memberID"]
    );
}

#[test]
fn a_member_that_lost_its_directory_does_not_vote_again() {
    let mut cluster = Cluster::start(Server::Quorate, 3, &[]).unwrap();
    cluster.etcdctl().unwrap().run(&["put", "k", "1"]).unwrap();
    cluster.wait_level().unwrap();
    cluster.members[2].kill().unwrap();
    fs::remove_dir_all(&cluster.members[2].data).unwrap();
    cluster.members[2].arguments.push("--initial-cluster-state=existing".to_owned());
    let message = ends_with(&mut cluster, 2, 10, "Empty");
    assert!(message.contains("remove"), "{message}");
    // The two that are left go on.
    cluster.etcdctl_of(0).unwrap().run(&["put", "k", "2"]).unwrap();
}

#[test]
fn a_removed_member_says_so_whether_it_ran_or_not() {
    let mut cluster = Cluster::start(Server::Quorate, 5, &[]).unwrap();
    let etcdctl = cluster.etcdctl_of(0).unwrap();
    etcdctl.run(&["put", "k", "1"]).unwrap();
    let id = |cluster: &Cluster, at: usize| {
        format!("{:x}", cluster.status(at).unwrap()["header"]["member_id"].as_u64().unwrap())
    };
    let (running, stopped) = (id(&cluster, 3), id(&cluster, 4));
    let remove = |id: &str| {
        wait::until(&Progress::start(), "a removal", limits::SETTLED, || {
            Ok(etcdctl.run(&["member", "remove", id]).map_err(|error| format!("{error:#}")))
        })
    };
    remove(&running).unwrap();
    verdict_of(&mut cluster, 3, 12, "Removed");
    cluster.members[4].kill().unwrap();
    remove(&stopped).unwrap();
    ends_with(&mut cluster, 4, 12, "Removed");
    assert_eq!(etcdctl.run(&["get", "k"]).unwrap(), "k\n1\n");
}

#[test]
fn a_restart_applies_again_only_what_lies_behind_the_checkpoint() {
    let mut cluster = filled(30);
    assert_eq!(cluster.members[0].terminate().unwrap().code(), Some(0));
    cluster.members[0].start().unwrap();
    cluster.members[0].wait_ready().unwrap();
    let (checkpoint, last) = recovered(&cluster);
    assert!(
        checkpoint >= 30 && last - checkpoint <= 1,
        "after an orderly stop: {checkpoint}, {last}"
    );
    let etcdctl = cluster.etcdctl().unwrap();
    for key in 30..37 {
        etcdctl.run(&["put", &format!("k{key:03}"), "v"]).unwrap();
    }
    let before = etcdctl.json(&["endpoint", "hashkv"]).unwrap()[0]["HashKV"]["hash"].clone();
    cluster.members[0].kill().unwrap();
    cluster.members[0].start().unwrap();
    cluster.members[0].wait_ready().unwrap();
    let (again, last) = recovered(&cluster);
    assert_eq!(again, checkpoint, "a kill leaves no checkpoint");
    assert!((7..15).contains(&(last - again)), "seven writes are behind it: {again}, {last}");
    assert_eq!(count(&cluster), 37);
    let after = etcdctl.json(&["endpoint", "hashkv"]).unwrap()[0]["HashKV"]["hash"].clone();
    assert_eq!(before, after);
}

/// Checkpoint and last index of the last start, from the log.
fn recovered(cluster: &Cluster) -> (u64, u64) {
    let log = cluster.members[0].log_text();
    let line = log.lines().rfind(|line| line.contains("\"recovered;")).unwrap();
    let fields: Value = serde_json::from_str(line).unwrap();
    let number = |name: &str| fields["fields"][name].as_u64().unwrap();
    (number("checkpoint"), number("last"))
}

#[test]
fn sigterm_drains_hands_over_and_ends_well() {
    let mut cluster = Cluster::start(Server::Quorate, 3, &["--drain-delay=3s"]).unwrap();
    let leader = cluster.leader().unwrap();
    let port = cluster.members[leader].client_port;
    let etcdctl = cluster.etcdctl_of(leader).unwrap();
    etcdctl.run(&["put", "k", "1"]).unwrap();
    cluster.members[leader].signal(Signal::TERM).unwrap();
    wait::until(&Progress::start(), "/readyz to fail", Duration::from_secs(2), || {
        let (code, body) = http::get(port, "/readyz")?;
        Ok(if code == 503 && body.contains("draining") {
            Ok(())
        } else {
            Err(format!("{code} {body}"))
        })
    })
    .unwrap();
    // It serves, and lives, until the endpoints have moved away.
    assert!(cluster.members[leader].is_running());
    etcdctl.run(&["put", "k", "2"]).unwrap();
    assert_eq!(http::get(port, "/livez").unwrap().0, 200);
    let status = cluster.members[leader].wait_exit(limits::STOPPED).unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    let log = cluster.members[leader].log_text();
    let place = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text:?} in {log}"));
    assert!(place("SIGTERM") < place("handed leadership over"));
    assert!(place("handed leadership over") < place("\"stopped\""));
    let next = cluster.leader().unwrap();
    assert_ne!(next, leader);
    assert_eq!(cluster.etcdctl_of(next).unwrap().run(&["get", "k"]).unwrap(), "k\n2\n");
}

#[test]
fn sigterm_is_heard_while_a_start_waits() {
    let mut cluster = Cluster::prepare(Server::Quorate, 1, &[]).unwrap();
    cluster.allow(&["waiting to join"]);
    let member = &mut cluster.members[0];
    member.arguments.retain(|flag| !flag.starts_with("--initial-cluster="));
    let joins = ["--initial-cluster-state=existing", "--join-cluster-id=77"];
    member.arguments.extend(joins.map(str::to_owned));
    member.arguments.push("--join-peers=http://127.0.0.1:9".to_owned());
    member.start().unwrap();
    wait::until(&Progress::start(), "a start that waits", limits::SETTLED, || {
        let log = member.log_text();
        Ok(if log.contains("waiting to join") { Ok(()) } else { Err(log) })
    })
    .unwrap();
    let status = member.terminate().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

#[test]
fn a_frozen_member_is_not_ready_and_catches_up_when_it_thaws() {
    let mut cluster = Cluster::start(Server::Quorate, 3, &[]).unwrap();
    let leader = cluster.leader().unwrap();
    cluster.members[leader].signal(Signal::STOP).unwrap();
    let other = (leader + 1) % 3;
    let etcdctl = cluster.etcdctl_of(other).unwrap();
    wait::until(&Progress::start(), "another leader", limits::SETTLED, || {
        Ok(etcdctl.run(&["put", "k", "frozen"]).map_err(|error| format!("{error:#}")))
    })
    .unwrap();
    cluster.members[leader].signal(Signal::CONT).unwrap();
    cluster.members[leader].wait_ready().unwrap();
    let thawed = cluster.etcdctl_of(leader).unwrap();
    assert_eq!(thawed.run(&["get", "k"]).unwrap(), "k\nfrozen\n");
    assert_ne!(cluster.leader().unwrap(), leader, "an old leader does not come back by itself");
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    for (flag, words) in [
        ("--cert-file=/tmp/x", "cert-file"),
        ("--no-such-flag=1", "no-such-flag"),
        ("--election-timeout=fast", "election-timeout"),
    ] {
        let mut cluster = Cluster::prepare(Server::Quorate, 1, &[flag]).unwrap();
        cluster.allow(&[words]);
        let message = ends_with(&mut cluster, 0, 2, "Configuration");
        assert!(message.contains(words), "{message}");
    }
}
