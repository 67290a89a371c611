//! Stock etcdctl against three of our members and three of etcd's: each answer as expected, and both the same.

#![allow(clippy::unwrap_used, reason = "a test says that it failed by a panic")]

use std::time::{Duration, Instant};

use quorate_e2e_store::cluster::{Cluster, Server};
use quorate_e2e_store::etcdctl::Etcdctl;
use quorate_e2e_store::limits;
use quorate_e2e_store::transcript::Transcript;
use quorate_kubernetes::{Progress, wait};
use serde_json::Value;

/// One side of the comparison.
struct Side {
    cluster: Cluster,
    etcdctl: Etcdctl,
    transcript: Transcript,
    leases: usize,
}

impl Side {
    fn start(server: Server) -> Self {
        let cluster = Cluster::start(server, 3, &[]).unwrap();
        let etcdctl = cluster.etcdctl().unwrap();
        let mut side = Self { cluster, etcdctl, transcript: Transcript::default(), leases: 0 };
        side.name_members();
        side
    }

    /// Names every member by its place, in ids and addresses.
    fn name_members(&mut self) {
        let list = self.etcdctl.json(&["member", "list"]).unwrap();
        self.transcript.name_id(list["header"]["cluster_id"].as_u64().unwrap(), "cluster");
        for member in list["members"].as_array().unwrap() {
            let url = member["peerURLs"][0].as_str().unwrap();
            let at = self.cluster.members.iter().position(|made| made.peer_url() == url).unwrap();
            self.transcript.name_id(member["ID"].as_u64().unwrap(), &format!("member {at}"));
        }
        for (at, member) in self.cluster.members.iter().enumerate() {
            self.transcript.name(member.client_url(), &format!("client {at}"));
            self.transcript.name(member.peer_url(), &format!("peer {at}"));
        }
    }

    /// Runs a command, notes what it said, and returns it.
    fn run(&mut self, words: &[&str]) -> String {
        let said = self.etcdctl.run(words).unwrap();
        self.transcript.add(words, &said);
        said
    }

    fn run_with_input(&mut self, words: &[&str], input: &str) -> String {
        let said = self.etcdctl.run_with_input(words, input).unwrap();
        self.transcript.add(words, &said);
        said
    }

    fn json(&mut self, words: &[&str]) -> Value {
        let said = self.etcdctl.json(words).unwrap();
        self.transcript.add_json(words, &said);
        said
    }

    fn refused(&mut self, words: &[&str]) -> String {
        let said = self.etcdctl.refused(words).unwrap();
        self.transcript.add(words, &said);
        said
    }

    /// Grants a lease and gives it the name of its number.
    fn grant(&mut self, seconds: &str) -> String {
        let said = self.etcdctl.run(&["lease", "grant", seconds]).unwrap();
        let id = said.split(' ').nth(1).unwrap().to_owned();
        assert!(said.ends_with(&format!("granted with TTL({seconds}s)\n")), "{said}");
        self.leases += 1;
        let number = u64::from_str_radix(&id, 16).unwrap();
        let name = format!("lease {}", self.leases);
        self.transcript.name_id(number, &name);
        self.transcript.name(format!("{number:016x}"), &name);
        self.transcript.add(&["lease", "grant", seconds], &said);
        id
    }

    /// The keys of a JSON answer to a range.
    fn keys(answer: &Value) -> Vec<String> {
        let pairs = answer["kvs"].as_array().cloned().unwrap_or_default();
        pairs.iter().map(|pair| unbase64(pair["key"].as_str().unwrap())).collect()
    }
}

/// Plays a script against etcd, which shows that it asks for the right thing, and against ours; both must answer alike.
fn compare(script: impl Fn(&mut Side)) {
    let mut etcd = Side::start(Server::Etcd);
    script(&mut etcd);
    let mut ours = Side::start(Server::Quorate);
    script(&mut ours);
    assert!(etcd.transcript.len() > 5, "a comparison of nothing");
    if let Some(difference) = etcd.transcript.difference(&ours.transcript) {
        panic!("etcd is one, ours is the other: {difference}");
    }
}

fn unbase64(text: &str) -> String {
    let value = |digit: u8| -> u32 {
        match digit {
            b'A'..=b'Z' => u32::from(digit - b'A'),
            b'a'..=b'z' => u32::from(digit - b'a') + 26,
            b'0'..=b'9' => u32::from(digit - b'0') + 52,
            b'+' => 62,
            _ => 63,
        }
    };
    let digits: Vec<u8> = text.bytes().filter(|&digit| digit != b'=').collect();
    let mut bytes = Vec::new();
    for four in digits.chunks(4) {
        let bits =
            four.iter().fold(0, |bits, &digit| bits << 6 | value(digit)) << (6 * (4 - four.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn keys_are_put_read_and_deleted() {
    compare(|side| {
        assert_eq!(side.run(&["put", "a", "1"]), "OK\n");
        for (key, value) in [("b/1", "x"), ("b/2", "w"), ("b/3", "v"), ("c", ""), ("a", "2")] {
            side.run(&["put", key, value]);
        }
        assert_eq!(side.run(&["put", "a", "3", "--prev-kv"]), "OK\na\n2\n");
        assert!(side.refused(&["put", "none", "--ignore-value"]).contains("key not found"));
        side.run(&["put", "a", "--ignore-value"]);
        assert_eq!(side.run(&["get", "a"]), "a\n3\n");
        assert_eq!(side.run(&["get", "a", "--rev=2", "--print-value-only"]), "1\n");
        let all = side.json(&["get", "b/", "--prefix"]);
        assert_eq!(Side::keys(&all), ["b/1", "b/2", "b/3"]);
        assert_eq!(all["count"], 3);
        assert_eq!(Side::keys(&side.json(&["get", "a", "b/3"])), ["a", "b/1", "b/2"]);
        assert_eq!(Side::keys(&side.json(&["get", "b/2", "--from-key"])), ["b/2", "b/3", "c"]);
        let limited = side.json(&["get", "", "--prefix", "--limit=2"]);
        assert_eq!((Side::keys(&limited).len(), &limited["more"]), (2, &Value::from(true)));
        assert_eq!(limited["count"], 5);
        for order in ["ASCEND", "DESCEND"] {
            for field in ["KEY", "VERSION", "CREATE", "MODIFY", "VALUE"] {
                let (order, field) = (format!("--order={order}"), format!("--sort-by={field}"));
                side.json(&["get", "", "--prefix", &order, &field]);
                side.json(&["get", "", "--prefix", &order, &field, "--limit=2"]);
            }
        }
        let sorted = side.json(&["get", "b/", "--prefix", "--sort-by=VALUE", "--order=ASCEND"]);
        assert_eq!(Side::keys(&sorted), ["b/3", "b/2", "b/1"]);
        let words = ["get", "", "--prefix", "--count-only", "--write-out=fields"];
        let fields = side.etcdctl.run(&words).unwrap();
        let told: Vec<&str> =
            fields.lines().filter(|line| !line.contains("ID") && !line.contains("Term")).collect();
        side.transcript.add(&words, &told.join("\n"));
        assert!(fields.contains("\"Count\" : 5") && !fields.contains("\"Key\""), "{fields}");
        let keys = side.json(&["get", "", "--prefix", "--keys-only"]);
        assert!(keys["kvs"].as_array().unwrap().iter().all(|pair| pair["value"].is_null()));
        side.json(&["get", "", "--prefix", "--min-mod-rev=4", "--max-create-rev=6"]);
        side.json(&["get", "", "--prefix", "--stream"]);
        side.json(&["get", "b/2", "--consistency=s"]);
        assert!(side.refused(&["get", "a", "--rev=100"]).contains("future revision"));
        assert_eq!(side.run(&["del", "none"]), "0\n");
        assert_eq!(side.run(&["del", "b/1", "--prev-kv"]), "1\nb/1\nx\n");
        assert_eq!(side.run(&["del", "b/", "--prefix"]), "2\n");
        assert_eq!(side.run(&["get", "b/", "--prefix"]), "");
        side.json(&["get", "b/", "--prefix", "--rev=7"]);
    });
}

#[test]
fn transactions_compare_and_branch() {
    compare(|side| {
        side.run(&["put", "a", "1"]);
        side.run(&["put", "b", "2"]);
        let taken =
            "value(\"a\") = \"1\"\nmod(\"b\") > \"1\"\n\nput a 10\nget a\nput c 3\n\nput a 20\n\n";
        let said = side.run_with_input(&["txn"], taken);
        assert!(said.starts_with("SUCCESS") && said.contains("a\n10"), "{said}");
        let said = side.run_with_input(&["txn"], taken);
        assert!(said.starts_with("FAILURE"), "{said}");
        assert_eq!(side.run(&["get", "a"]), "a\n20\n");
        let said = side.run_with_input(
            &["txn", "--interactive"],
            "create(\"new\") = \"0\"\nversion(\"a\") != \"0\"\n\nput new 1\ndel a\nget n --prefix\n\n\n",
        );
        assert!(said.contains("SUCCESS"), "{said}");
        let words = ["txn", "--write-out=json"];
        let script = "version(\"new\") < \"1\"\n\n\nget new\ndel new --prev-kv\n\n";
        let said = side.etcdctl.run_with_input(&words, script).unwrap();
        side.transcript.add_json(&words, &serde_json::from_str(&said).unwrap());
        side.json(&["get", "", "--prefix"]);
    });
}

#[test]
fn watches_tell_history_prefix_and_what_was_before() {
    compare(|side| {
        for (key, value) in [("w/1", "a"), ("w/2", "b"), ("other", "c"), ("w/1", "d")] {
            side.run(&["put", key, value]);
        }
        let directory = side.cluster.directory().to_owned();
        let (all, one) = (directory.join("all.txt"), directory.join("one.txt"));
        let words = ["watch", "w/", "--prefix", "--rev=2", "--prev-kv"];
        let mut history = side.etcdctl.spawn(&words, &all).unwrap();
        history
            .wait_text("history", limits::SETTLED, |text| text.matches("PUT").count() == 3)
            .unwrap();
        let live = ["watch", "w/2", "--write-out=json"];
        let mut single = side.etcdctl.spawn(&[&live[..], &["--rev=3"]].concat(), &one).unwrap();
        single
            .wait_text("the past of one key", limits::SETTLED, |text| text.contains("Events"))
            .unwrap();
        side.run(&["del", "w/", "--prefix"]);
        side.run(&["put", "w/2", "e"]);
        side.run_with_input(&["txn"], "\nput w/1 f\nput w/3 g\nput other h\n\n\n");
        let text = history
            .wait_text("everything", limits::SETTLED, |text| text.contains("w/3\ng"))
            .unwrap();
        side.transcript.add(&words, &text);
        assert_eq!((text.matches("PUT").count(), text.matches("DELETE").count()), (6, 2), "{text}");
        assert!(text.contains("PUT\nw/1\na\nw/1\nd\n"), "the pair before is told: {text}");
        let text = single
            .wait_text("the present of one key", limits::SETTLED, |text| {
                text.matches("mod_revision").count() == 3
            })
            .unwrap();
        // How events are bundled into answers is a matter of timing; the events are not.
        for line in text.lines() {
            let answer: Value = serde_json::from_str(line).unwrap();
            for event in answer["Events"].as_array().unwrap() {
                side.transcript.add_json(&live, event);
            }
        }
        side.run(&["compaction", "5"]);
        assert!(side.refused(&["watch", "w/1", "--rev=3"]).contains("canceled by the server"));
        assert!(side.refused(&["get", "w/1", "--rev=3"]).contains("has been compacted"));
    });
}

#[test]
fn leases_keep_their_keys_until_they_end() {
    compare(|side| {
        let long = side.grant("600");
        side.run(&["put", "kept", "1", &format!("--lease={long}")]);
        side.run(&["put", "kept/2", "2", &format!("--lease={long}")]);
        let ttl = side.etcdctl.json(&["lease", "timetolive", &long, "--keys"]).unwrap();
        assert_eq!(ttl["granted-ttl"], 600);
        assert!((595..=600).contains(&ttl["ttl"].as_i64().unwrap()), "{ttl}");
        assert_eq!(ttl["keys"].as_array().unwrap().len(), 2);
        let listed = side.run(&["lease", "list"]);
        assert!(listed.contains(&long), "{listed}");
        side.run(&["lease", "keep-alive", &long, "--once"]);
        side.json(&["get", "kept", "--prefix"]);
        assert!(
            side.refused(&["put", "x", "1", "--lease=77"]).contains("requested lease not found")
        );
        side.run(&["lease", "revoke", &long]);
        assert_eq!(side.run(&["get", "kept", "--prefix"]), "");
        assert!(side.refused(&["lease", "revoke", &long]).contains("requested lease not found"));
        side.run(&["lease", "timetolive", &long]);

        // Expiry, not before its time.
        let asked = Instant::now();
        let short = side.grant("3");
        side.run(&["put", "short", "1", &format!("--lease={short}")]);
        wait_gone(&side.etcdctl, "short");
        assert!(asked.elapsed() >= Duration::from_secs(3), "gone after {:?}", asked.elapsed());

        // Kept alive well beyond its time, then left alone.
        let renewed = side.grant("3");
        side.run(&["put", "renewed", "1", &format!("--lease={renewed}")]);
        let output = side.cluster.directory().join("keep-alive.txt");
        let mut keeping = side.etcdctl.spawn(&["lease", "keep-alive", &renewed], &output).unwrap();
        keeping
            .wait_text("seven renewals", limits::SETTLED, |text| text.lines().count() >= 7)
            .unwrap();
        assert_eq!(side.run(&["get", "renewed"]), "renewed\n1\n");
        drop(keeping);
        wait_gone(&side.etcdctl, "renewed");
        side.json(&["get", "", "--prefix"]);
    });
}

/// etcd knows the version of its storage either at once or, if its backend had not written a term when it looked, four
/// seconds later; until then the field is not there.
fn wait_storage_version(cluster: &Cluster) {
    let what = "every member to know its storage version";
    wait::until(&Progress::start(), what, limits::SETTLED, || {
        for member in 0..cluster.members.len() {
            let status = cluster.status(member)?;
            if status["storageVersion"] != "3.7.0" {
                return Ok(Err(format!("member {member}: {status}")));
            }
        }
        Ok(Ok(()))
    })
    .unwrap();
}

fn wait_gone(etcdctl: &Etcdctl, key: &str) {
    wait::until(&Progress::start(), &format!("{key} to expire"), limits::SETTLED, || {
        let said = etcdctl.run(&["get", key])?;
        Ok(if said.is_empty() { Ok(()) } else { Err("it is there".to_owned()) })
    })
    .unwrap();
}

#[test]
fn compaction_and_maintenance_answer_like_etcd() {
    compare(|side| {
        for number in 0..20 {
            side.run(&["put", &format!("k{}", number % 4), &number.to_string()]);
        }
        side.run(&["del", "k3"]);
        let hashes = |side: &Side, revision: &str| -> Vec<u64> {
            let words = ["endpoint", "hashkv", "--rev", revision];
            let answer = side.etcdctl.json(&words).unwrap();
            let members = answer.as_array().unwrap().iter();
            members.map(|member| member["HashKV"]["hash"].as_u64().unwrap()).collect()
        };
        side.cluster.wait_level().unwrap();
        let whole = hashes(side, "0");
        assert!(whole.len() == 3 && whole.iter().all(|hash| *hash == whole[0]), "{whole:?}");
        side.transcript.add(&["endpoint", "hashkv"], &format!("{whole:?} {:?}", hashes(side, "9")));
        assert_eq!(side.run(&["compaction", "12", "--physical"]), "compacted revision 12\n");
        assert!(side.refused(&["compaction", "12"]).contains("has been compacted"));
        assert!(side.refused(&["compaction", "500"]).contains("future revision"));
        assert!(side.refused(&["get", "k0", "--rev=11"]).contains("has been compacted"));
        side.json(&["get", "", "--prefix", "--rev=12"]);
        side.cluster.wait_level().unwrap();
        let kept = hashes(side, "0");
        assert!(kept.iter().all(|hash| *hash == kept[0]) && kept != whole, "{kept:?}");
        side.transcript.add(&["endpoint", "hashkv"], &format!("{kept:?}"));
        wait_storage_version(&side.cluster);
        side.json(&["endpoint", "status"]);
        // In the order in which members answered.
        let health = side.etcdctl.run(&["endpoint", "health"]).unwrap();
        assert_eq!(health.matches("is healthy").count(), 3, "{health}");
        assert_eq!(side.run(&["defrag"]).matches("Finished defragmenting").count(), 3);
        assert_eq!(side.run(&["alarm", "list"]), "");
        side.run(&["alarm", "disarm"]);
        side.run(&["version"]);
    });
}

#[test]
fn leadership_moves_where_it_is_told_to() {
    compare(|side| {
        side.run(&["put", "a", "1"]);
        let leader = side.cluster.leader().unwrap();
        let (target, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let id = side.cluster.status(target).unwrap()["header"]["member_id"].as_u64().unwrap();
        let id = format!("{id:x}");
        // Which member leads at first is chance: none of this goes into the transcript by number.
        let of_follower = side.cluster.etcdctl_of(other).unwrap();
        assert!(
            of_follower
                .refused(&["move-leader", &id])
                .unwrap()
                .contains("no leader endpoint given")
        );
        let said = side.etcdctl.run(&["move-leader", &id]).unwrap();
        assert!(said.starts_with("Leadership transferred from"), "{said}");
        assert_eq!(side.cluster.leader().unwrap(), target);
        let leaders = side.etcdctl.json(&["endpoint", "status"]).unwrap();
        let leaders = leaders.as_array().unwrap().iter();
        assert!(
            leaders
                .map(|member| &member["Status"]["leader"])
                .all(|leader| leader.as_u64() == u64::from_str_radix(&id, 16).ok())
        );
        side.run(&["put", "a", "2"]);
        side.json(&["get", "a"]);
    });
}

#[test]
fn members_are_added_promoted_updated_and_removed() {
    compare(|side| {
        side.cluster.allow(&[
            "removed from the cluster",
            "cannot reach",
            "lost the connection",
            "refused",
            "waiting to join",
        ]);
        side.run(&["put", "before", "1"]);
        // etcd refuses changes until every member has been connected for five seconds.
        let initial: Vec<String> = side
            .cluster
            .members
            .iter()
            .map(|member| format!("{}={}", member.name, member.peer_url()))
            .collect();
        let joiner = side.cluster.push_member().unwrap();
        let (name, peer) = (joiner.name.clone(), joiner.peer_url());
        let initial = format!("{},{name}={peer}", initial.join(","));
        joiner.arguments.push(format!("--initial-cluster={initial}"));
        joiner.arguments.push("--initial-cluster-state=existing".to_owned());
        let add = ["member", "add", &name, &format!("--peer-urls={peer}"), "--learner"];
        let added = wait_accepted(&side.etcdctl, &add);
        side.name_members();
        // The list of members behind the first line is in the order of ids, which differ.
        side.transcript.add(&add, added.lines().next().unwrap());
        assert!(added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""), "{added}");
        let second = ["member", "add", "e", "--peer-urls=http://127.0.0.1:9", "--learner"];
        assert!(side.refused(&second).contains("too many learner members"));
        let id = member_id(&side.etcdctl, &peer);
        assert!(side.refused(&["member", "promote", "77"]).contains("member not found"));
        side.cluster.members[3].start().unwrap();
        side.etcdctl = side.cluster.etcdctl().unwrap();
        let promote = ["member", "promote", &id];
        let promoted = wait_accepted(&side.etcdctl, &promote);
        side.transcript.add(&promote, &promoted);
        side.cluster.members[3].wait_ready().unwrap();
        assert!(side.refused(&promote).contains("can only promote a learner"));
        assert_eq!(
            side.cluster.etcdctl_of(3).unwrap().run(&["get", "before"]).unwrap(),
            "before\n1\n"
        );
        let list = wait_listed(&side.etcdctl, &peer);
        side.transcript.add(&["member", "list"], &sorted(&list));
        assert_eq!(list.matches("started").count(), 4, "{list}");
        // Not through the member itself: nobody can answer it while its address is wrong, or once it is removed.
        side.etcdctl = side.cluster.etcdctl_of(0).unwrap();
        let update = ["member", "update", &id, "--peer-urls=http://127.0.0.1:9"];
        side.run(&update);
        assert!(side.etcdctl.run(&["member", "list"]).unwrap().contains("http://127.0.0.1:9,"));
        side.run(&["member", "update", &id, &format!("--peer-urls={peer}")]);
        let remove = ["member", "remove", &id];
        // Asked of another member: the one that leaves may be gone before it has answered, and the next try would be refused.
        let removed = wait_accepted(&side.cluster.etcdctl_of(0).unwrap(), &remove);
        side.transcript.add(&remove, &removed);
        side.cluster.members[3].wait_exit(limits::STOPPED).unwrap();
        side.cluster.members.pop();
        side.etcdctl = side.cluster.etcdctl().unwrap();
        assert!(side.refused(&remove).contains("member not found"));
        let list = side.etcdctl.run(&["member", "list"]).unwrap();
        side.transcript.add(&["member", "list"], &sorted(&list));
        assert_eq!(side.run(&["get", "before"]), "before\n1\n");
    });
}

/// The lines of a list in an order that does not depend on ids.
fn sorted(list: &str) -> String {
    let mut lines: Vec<&str> =
        list.lines().map(|line| line.split_once(", ").map_or(line, |(_, rest)| rest)).collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn member_id(etcdctl: &Etcdctl, peer: &str) -> String {
    let list = etcdctl.run(&["member", "list"]).unwrap();
    let line = list.lines().find(|line| line.contains(peer)).unwrap();
    line.split(',').next().unwrap().to_owned()
}

/// Repeats a change that is refused until members are connected, or a learner has caught up.
fn wait_accepted(etcdctl: &Etcdctl, words: &[&str]) -> String {
    wait::until(&Progress::start(), &words.join(" "), limits::SETTLED, || {
        Ok(etcdctl.run(words).map_err(|error| format!("{error:#}")))
    })
    .unwrap()
}

/// The list once a member has published its name.
fn wait_listed(etcdctl: &Etcdctl, peer: &str) -> String {
    wait::until(&Progress::start(), "the member to be listed as started", limits::SETTLED, || {
        let list = etcdctl.run(&["member", "list"])?;
        let started = list.lines().any(|line| line.contains(peer) && line.contains("started"));
        Ok(if started { Ok(list) } else { Err(list) })
    })
    .unwrap()
}
