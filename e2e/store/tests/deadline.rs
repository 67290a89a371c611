//! A write whose caller was told that its time is over is not brought about later by a member that kept it in hand.

#![allow(clippy::unwrap_used, reason = "a test says that it failed by a panic")]

use quorate_e2e_store::cluster::{Cluster, Server};

#[test]
fn a_write_that_found_no_leader_in_time_is_not_sent_to_the_next_one() {
    let mut cluster = Cluster::start(Server::Quorate, 3, &[]).unwrap();
    cluster.allow(&["a crash cut off the log's last write"]);
    let alone = (cluster.leader().unwrap() + 1) % 3;
    let others = [(alone + 1) % 3, (alone + 2) % 3];
    for other in others {
        cluster.members[other].kill().unwrap();
    }
    let etcdctl = cluster.etcdctl_of(alone).unwrap();
    // The client's own deadline: it cancels the call long before the server would give up.
    let late = etcdctl.run(&["put", "late", "1", "--command-timeout=3s"]).unwrap_err();
    assert!(format!("{late:#}").contains("deadline"), "nobody took it: {late:#}");

    for other in others {
        cluster.members[other].start().unwrap();
    }
    for member in &mut cluster.members {
        member.wait_ready().unwrap();
    }
    // What a member has in hand goes in order of asking: had it kept the first, this one would come behind it.
    etcdctl.run(&["put", "in time", "1"]).unwrap();
    assert_eq!(etcdctl.run(&["get", "in time", "--print-value-only"]).unwrap().trim(), "1");
    assert_eq!(etcdctl.run(&["get", "late"]).unwrap(), "", "nobody waits for it any more");
}
