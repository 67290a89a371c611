//! The interpreter of golden scripts: blocks of commands, `---`, and what they are expected to print.
//!
//! ```text
//!   cluster 3 [learners=4] [window=2] …      members 1..3, formed together at index 1; settings by name
//!   join 4                                   a member with an empty disk
//!   campaign 1 · tick 1,2 [n]                time passes for one member, several, or `all`
//!   propose 1 a b · change 1 add-learner 4   one batch of proposals · add-voter, add-learner, remove
//!   read 1 7 8 · transfer 1 2|best           reads under these tickets · leadership handed over
//!   deliver · drop · duplicate [from=1] [to=2] [kind=Append] [first=1]
//!   stabilize                                deliver until nobody has anything to say
//!   partition 3 · block 1 2 · heal           nothing to or from 3 · nothing from 1 to 2
//!   hold persist|apply|fetch|stream 1        from now on only by hand (release undoes it):
//!   persist 1 [n] · apply 1 n · fetch 1 · stream 3 arrives|breaks
//!   crash 1 · restart 1 [tail]               unwritten records are lost · memory gets only what it must
//!   checkpoint 1 [purge] · stalled 1 yes|no · unreachable 1 2
//!   status 1 · log 1                         what a member knows · what its log holds, durable or not
//! ```
//!
//! A command that ends in `quiet` prints nothing. Entries print as index@term.

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use quorate_consensus::{
    Body, ConfigurationChange, Input, LogIndex, MemberId, Payload, ProposalTicket, ReadTicket,
};

use crate::cluster::{Cluster, Hold, settings};
use crate::print;

/// Runs one script and compares what it prints with what it says. `UPDATE=1` rewrites it instead: read the diff
/// as code before committing it.
pub(crate) fn run(topic: &str, name: &str) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scripts/{topic}/{name}.txt"));
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    assert!(expected.starts_with("# "), "{name} does not say what it shows");
    let actual = Interpreter::default().replay(&expected);
    #[expect(clippy::disallowed_methods, reason = "a switch of the test run, read by no pure code")]
    let update = std::env::var("UPDATE").is_ok_and(|value| value == "1");
    if update {
        std::fs::write(&path, &actual).expect("rewrite script");
        return;
    }
    let line =
        actual.lines().zip(expected.lines()).position(|(actual, expected)| actual != expected);
    let line = line.unwrap_or(actual.lines().count().min(expected.lines().count()));
    assert!(
        actual == expected,
        "{topic}/{name}.txt differs from line {} on; it now reads:\n{actual}",
        line + 1,
    );
}

#[derive(Default)]
struct Interpreter {
    cluster: Option<Cluster>,
    proposals: u64,
}

impl Interpreter {
    /// The script with its outputs replaced by what happens.
    fn replay(mut self, script: &str) -> String {
        let mut result = String::new();
        let mut block = Vec::new();
        let mut skipping = false;
        for line in script.lines().chain([""]) {
            if line.is_empty() {
                skipping = false;
                if !block.is_empty() {
                    panic!("the block before line {:?} has no `---`", result.lines().count() + 1);
                }
                result.push('\n');
            } else if line == "---" {
                result.push_str("---\n");
                for command in block.drain(..) {
                    for line in self.command(command) {
                        let _ = writeln!(result, "{line}");
                    }
                }
                skipping = true;
            } else if !skipping {
                let _ = writeln!(result, "{line}");
                if !line.starts_with('#') {
                    block.push(line);
                }
            }
        }
        let trimmed = result.trim_end().len();
        result.truncate(trimmed);
        result.push('\n');
        result
    }

    fn command(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, mut args) =
            words.split_first().map(|(v, a)| (*v, a.to_vec())).expect("not empty");
        let quiet = args.last() == Some(&"quiet");
        if quiet {
            args.pop();
        }
        if verb == "cluster" {
            self.form(&args);
        } else {
            let cluster = self.cluster.as_mut().expect("`cluster` comes first");
            cluster.tracing = !quiet;
            let known =
                self.shell(verb, &args) || self.member(verb, &args) || self.world(verb, &args);
            assert!(known, "no such verb, or not with these words: {line}");
        }
        let cluster = self.cluster.as_mut().expect("just made");
        let mut lines = std::mem::take(&mut cluster.trace);
        if lines.is_empty() {
            lines.push(if quiet { "(quiet)" } else { "(nothing)" }.to_owned());
        }
        lines
    }

    /// `cluster 3 [learners=4,5] [election=10] ...`
    fn form(&mut self, args: &[&str]) {
        let mut settings = settings();
        let mut learners = Vec::new();
        for arg in &args[1..] {
            let (key, value) = arg.split_once('=').expect("key=value");
            let number = || value.parse::<usize>().expect("a number");
            match key {
                "learners" => {
                    learners = value.split(',').map(|id| id.parse().expect("id")).collect();
                }
                "election" => settings.election_ticks = number() as u32,
                "heartbeat" => settings.heartbeat_ticks = number() as u32,
                "window" => settings.inflight_messages_max = number(),
                "window-bytes" => settings.inflight_bytes_max = number(),
                "append-bytes" => settings.append_bytes_max = number(),
                "committed-bytes" => settings.committed_bytes_max = number(),
                "uncommitted-bytes" => settings.uncommitted_bytes_max = number(),
                "memory-bytes" => settings.memory_bytes_max = number(),
                other => panic!("no setting {other}"),
            }
        }
        let voters: Vec<u64> = (1..=args[0].parse().expect("a number")).collect();
        self.cluster = Some(Cluster::new(&voters, &learners, settings));
    }

    /// What the shell does: disk, machine, streams, lives.
    fn shell(&mut self, verb: &str, args: &[&str]) -> bool {
        let cluster = self.cluster.as_mut().expect("made");
        match (verb, args) {
            ("hold", [what, who]) => {
                let what = hold(what);
                each(cluster, who, |cluster, id| {
                    cluster.member_mut(id).holds.insert(what);
                });
            }
            ("release", [what, who]) => {
                let what = hold(what);
                each(cluster, who, |cluster, id| {
                    cluster.member_mut(id).holds.remove(&what);
                    cluster.settle(id);
                });
            }
            ("persist", [who]) => each(cluster, who, |cluster, id| {
                cluster.persist(id, usize::MAX);
                cluster.settle(id);
            }),
            ("persist", [who, count]) => {
                let count = count.parse().expect("a number");
                each(cluster, who, |cluster, id| {
                    cluster.persist(id, count);
                    cluster.settle(id);
                });
            }
            ("apply", [who, count]) => {
                let count = count.parse().expect("a number");
                each(cluster, who, |cluster, id| {
                    cluster.apply(id, count);
                    cluster.settle(id);
                });
            }
            ("fetch", [who]) => each(cluster, who, |cluster, id| {
                cluster.fetch(id);
                cluster.settle(id);
            }),
            ("stream", [who, end]) => {
                let to = member_id(who);
                let at =
                    cluster.streams.iter().position(|stream| stream.to == to).expect("a stream");
                cluster.end_stream(at, *end == "arrives");
            }
            ("crash", [who]) => each(cluster, who, |cluster, id| cluster.crash(id, 0)),
            ("restart", [who]) => each(cluster, who, |cluster, id| cluster.restart(id, false)),
            ("restart", [who, "tail"]) => {
                each(cluster, who, |cluster, id| cluster.restart(id, true));
            }
            ("checkpoint", [who]) => {
                each(cluster, who, |cluster, id| cluster.checkpoint(id, LogIndex(0)));
            }
            ("checkpoint", [who, "purge"]) => each(cluster, who, |cluster, id| {
                cluster.checkpoint(id, LogIndex(u64::MAX));
            }),
            _ => return false,
        }
        true
    }

    /// What one member is told.
    fn member(&mut self, verb: &str, args: &[&str]) -> bool {
        let proposals = &mut self.proposals;
        let cluster = self.cluster.as_mut().expect("made");
        match (verb, args) {
            ("tick", [who]) => each(cluster, who, |cluster, id| cluster.step(id, Input::Tick)),
            ("tick", [who, count]) => {
                for _ in 0..count.parse().expect("a number") {
                    each(cluster, who, |cluster, id| cluster.step(id, Input::Tick));
                }
            }
            ("campaign", [who]) => campaign(cluster, member_id(who)),
            ("propose", [who, texts @ ..]) => {
                let id = member_id(who);
                for text in texts {
                    *proposals += 1;
                    let text = text.strip_prefix("bytes:").map_or((*text).to_owned(), |count| {
                        "x".repeat(count.parse().expect("a number"))
                    });
                    let payload = Payload::Command(Bytes::from(text));
                    let input = Input::Propose { ticket: ProposalTicket(*proposals), payload };
                    cluster.step_undrained(id, input);
                }
                cluster.settle(id);
            }
            ("change", [who, what, whom]) => {
                let whom = member_id(whom);
                let change = match *what {
                    "add-voter" => ConfigurationChange::AddVoter(whom),
                    "add-learner" => ConfigurationChange::AddLearner(whom),
                    "remove" => ConfigurationChange::Remove(whom),
                    other => panic!("no change {other}"),
                };
                *proposals += 1;
                let payload = Payload::Change(change, Bytes::new());
                let ticket = ProposalTicket(*proposals);
                cluster.step(member_id(who), Input::Propose { ticket, payload });
            }
            ("read", [who, tickets @ ..]) => {
                let id = member_id(who);
                for ticket in tickets {
                    let ticket = ReadTicket(ticket.parse().expect("a number"));
                    cluster.step_undrained(id, Input::ReadIndex(ticket));
                }
                cluster.settle(id);
            }
            ("transfer", [who, to]) => {
                let to = if *to == "best" { MemberId::NONE } else { member_id(to) };
                cluster.step(member_id(who), Input::TransferLeader(to));
            }
            ("unreachable", [who, whom]) => {
                cluster.step(member_id(who), Input::Unreachable(member_id(whom)));
            }
            ("stalled", [who, what]) => {
                cluster.step(member_id(who), Input::DiskStalled(*what == "yes"));
            }
            _ => return false,
        }
        true
    }

    /// The network, and what can be looked at.
    fn world(&mut self, verb: &str, args: &[&str]) -> bool {
        let cluster = self.cluster.as_mut().expect("made");
        match (verb, args) {
            ("join", [who]) => cluster.join(member_id(who)),
            ("stabilize", []) => cluster.stabilize(),
            ("deliver", selectors) => {
                for at in select(cluster, selectors) {
                    cluster.deliver(at);
                }
            }
            ("drop", selectors) => {
                for at in select(cluster, selectors) {
                    let message = cluster.network.remove(at).expect("selected");
                    cluster.note(|| format!("dropped: {}", print::message(&message)));
                }
            }
            ("duplicate", selectors) => {
                for at in select(cluster, selectors) {
                    let message = cluster.network[at].clone();
                    cluster.note(|| format!("twice: {}", print::message(&message)));
                    cluster.network.push_back(message);
                }
            }
            ("partition", [who]) => each(cluster, who, |cluster, id| {
                for other in cluster.members.keys().copied().collect::<Vec<_>>() {
                    cluster.blocked.insert((id, other));
                    cluster.blocked.insert((other, id));
                }
            }),
            ("block", [from, to]) => {
                cluster.blocked.insert((member_id(from), member_id(to)));
            }
            ("heal", []) => cluster.blocked.clear(),
            ("status", [who]) => each(cluster, who, status),
            ("log", [who]) => each(cluster, who, |cluster, id| {
                let log: Vec<_> = cluster.member(id).log().into_values().collect();
                cluster.note(|| format!("{id} has {}", print::entries(&log)));
            }),
            _ => return false,
        }
        true
    }
}

/// Lets a member's time pass until it campaigns.
fn campaign(cluster: &mut Cluster, id: MemberId) {
    let asked = |cluster: &Cluster| {
        let asks = |message: &&quorate_consensus::Message| {
            message.from == id && matches!(message.body, Body::PreVote { .. } | Body::Vote { .. })
        };
        let consensus = cluster.member(id).consensus.as_ref().expect("a live member");
        (cluster.network.iter().filter(asks).count(), consensus.soft_state().role)
    };
    let before = asked(cluster);
    let mut ticks = 2 * cluster.settings.election_ticks;
    loop {
        cluster.step(id, Input::Tick);
        ticks -= 1;
        if asked(cluster) != before {
            return;
        }
        if ticks == 0 {
            cluster.note(|| format!("{id} does not campaign"));
            return;
        }
    }
}

/// `status 1`: what the member is, and what it knows of the others if it leads.
fn status(cluster: &mut Cluster, id: MemberId) {
    let member = cluster.member(id);
    let Some(consensus) = &member.consensus else {
        cluster.note(|| format!("{id} is down"));
        return;
    };
    let mut lines = vec![format!(
        "{id} {}, applied {}, durable {}, last {}, {}",
        print::state(&consensus.soft_state()),
        consensus.applied_index(),
        consensus.durable_index(),
        consensus.last_index(),
        print::configuration(consensus.configuration()),
    )];
    // The first line says how far the leader itself is.
    for view in consensus.progress().into_iter().filter(|view| view.member != id) {
        let learner = if view.learner { ", learner" } else { "" };
        let silent = if view.active { "" } else { ", silent" };
        lines.push(format!("  {} holds {}{learner}{silent}", view.member, view.matched));
    }
    for line in lines {
        cluster.note(|| line);
    }
}

/// The places of the messages that fit: `to=2 from=1 kind=Append` and so on, or none for all. In the order in which
/// to take them: each place is right once those before it were taken.
fn select(cluster: &Cluster, selectors: &[&str]) -> Vec<usize> {
    let fits = |message: &quorate_consensus::Message| {
        selectors.iter().all(|selector| {
            let (key, value) = selector.split_once('=').expect("key=value");
            match key {
                "to" => message.to == member_id(value),
                "from" => message.from == member_id(value),
                "kind" => print::kind(&message.body) == value,
                "first" => true,
                other => panic!("no selector {other}"),
            }
        })
    };
    let first = selectors.iter().find_map(|selector| selector.strip_prefix("first="));
    let count = first.map_or(usize::MAX, |count| count.parse().expect("a number"));
    let places = cluster.network.iter().enumerate().filter(|(_, message)| fits(message));
    places.take(count).enumerate().map(|(taken, (at, _))| at - taken).collect()
}

/// One member, several (`1,3`), or `all`.
fn each(cluster: &mut Cluster, who: &str, mut act: impl FnMut(&mut Cluster, MemberId)) {
    let ids: Vec<MemberId> = if who == "all" {
        cluster.members.keys().copied().collect()
    } else {
        who.split(',').map(member_id).collect()
    };
    for id in ids {
        act(cluster, id);
    }
}

fn member_id(word: &str) -> MemberId {
    MemberId(word.parse().unwrap_or_else(|_| panic!("no member {word}")))
}

fn hold(word: &str) -> Hold {
    match word {
        "persist" => Hold::Persist,
        "apply" => Hold::Apply,
        "fetch" => Hold::Fetch,
        "stream" => Hold::Stream,
        other => panic!("nothing called {other} can be held"),
    }
}
