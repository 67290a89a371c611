//! Stock etcdctl beside a load: short-lived invocations one after the other, each tried once, and how each ended.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate_kubernetes::components::ETCD;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::limits::{ETCDCTL_PERIOD, ETCDCTL_RATE_MIN, LOAD_ENDS, LOAD_SLOWEST};
use crate::load::{PREFIX, Write};

/// Which way an invocation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    Service,
    /// The list of all ready members.
    Members,
}

/// What an invocation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Errand {
    Put,
    /// Linearizable, of what was put last.
    Get,
    /// Serializable, of the same.
    GetSerializable,
    /// Puts a key if it is not there.
    Txn,
    Grant,
    /// Of the lease that was granted last.
    KeepAlive,
    Health,
}

/// The invocations in their order, again and again. Health is not asked of the list: etcdctl then asks every member of it, and one
/// that is being restarted is rightly called unhealthy.
const ROUND: [(Door, Errand); 13] = [
    (Door::Service, Errand::Put),
    (Door::Service, Errand::Get),
    (Door::Service, Errand::GetSerializable),
    (Door::Service, Errand::Txn),
    (Door::Service, Errand::Grant),
    (Door::Service, Errand::KeepAlive),
    (Door::Service, Errand::Health),
    (Door::Members, Errand::Put),
    (Door::Members, Errand::Get),
    (Door::Members, Errand::GetSerializable),
    (Door::Members, Errand::Txn),
    (Door::Members, Errand::Grant),
    (Door::Members, Errand::KeepAlive),
];

/// One invocation.
#[derive(Clone, Debug)]
struct Run {
    what: (Door, Errand),
    /// From before the process is started until it has ended.
    took: Duration,
    /// What it said on its standard error, if it failed.
    failure: Option<String>,
}

/// All invocations beside one load.
#[derive(Debug, Default)]
pub(crate) struct Etcdctl {
    runs: Vec<Run>,
    /// What it wrote, acknowledged or not.
    pub(crate) writes: Vec<Write>,
    latest: Write,
    lease: Option<i64>,
}

impl Etcdctl {
    /// Runs one invocation after the other until told to stop.
    ///
    /// # Errors
    /// etcdctl cannot be started, or an answer is wrong: a linearizable read misses what was acknowledged.
    pub(crate) async fn run(
        service: String,
        members: watch::Receiver<BTreeMap<String, String>>,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<Self> {
        let mut own = Self::default();
        let mut known = String::new();
        let mut starts = tokio::time::interval(ETCDCTL_PERIOD);
        starts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for (number, what) in ROUND.iter().cycle().enumerate() {
            tokio::select! {
                _ = starts.tick() => {}
                // Told to, or the load is dropped.
                _ = stopped.changed() => break,
            }
            let ready: Vec<String> = members.borrow().values().cloned().collect();
            if !ready.is_empty() {
                known = ready.join(",");
            }
            let endpoints = match what.0 {
                Door::Service => &service,
                Door::Members => &known,
            };
            own.invoke(number, *what, endpoints).await?;
        }
        Ok(own)
    }

    async fn invoke(&mut self, number: usize, what: (Door, Errand), endpoints: &str) -> Result<()> {
        let (_door, errand) = what;
        if matches!(errand, Errand::Put | Errand::Txn) {
            let key = format!("{PREFIX}etcdctl/{number}");
            self.latest = Write { value: format!("value of {key}"), key, revision: None };
        }
        let Some((line, input)) = self.line(errand) else { return Ok(()) };
        let began = Instant::now();
        let answer = answer(endpoints, &line, &input).await?;
        let took = began.elapsed();
        let failure = match answer {
            Ok(words) => {
                self.hear(errand, &words).with_context(|| format!("etcdctl {}", line.join(" ")))?;
                None
            }
            Err(words) => Some(words),
        };
        if matches!(errand, Errand::Put | Errand::Txn) {
            self.writes.push(self.latest.clone());
        }
        self.runs.push(Run { what, took, failure });
        Ok(())
    }

    /// The arguments and the standard input; nothing where there is no lease to keep alive.
    fn line(&mut self, errand: Errand) -> Option<(Vec<String>, String)> {
        let Write { key, value, .. } = &self.latest;
        let (line, input) = match errand {
            Errand::Put => (vec!["put", key, value], String::new()),
            Errand::Get => (vec!["get", "--consistency=l", key], String::new()),
            Errand::GetSerializable => (vec!["get", "--consistency=s", key], String::new()),
            // Conditions, what to do if they hold, and what otherwise; an empty line ends each.
            Errand::Txn => {
                (vec!["txn"], format!("mod(\"{key}\") = \"0\"\n\nput {key} \"{value}\"\n\n\n"))
            }
            Errand::Grant => {
                self.lease = None;
                (vec!["lease", "grant", "60"], String::new())
            }
            Errand::KeepAlive => {
                let lease = format!("{:x}", self.lease?);
                let line = ["lease", "keep-alive", "--once", &lease];
                return Some((line.map(str::to_owned).to_vec(), String::new()));
            }
            Errand::Health => (vec!["endpoint", "health"], String::new()),
        };
        Some((line.into_iter().map(str::to_owned).collect(), input))
    }

    /// Takes an answer in, and holds it against what was acknowledged before.
    fn hear(&mut self, errand: Errand, words: &str) -> Result<()> {
        let answer: Value =
            serde_json::from_str(words).with_context(|| format!("read {words:?}"))?;
        let revision = answer["header"]["revision"].as_i64();
        let found = answer["kvs"][0]["mod_revision"].as_i64();
        let put = self.latest.revision;
        let right = match errand {
            Errand::Put => {
                self.latest.revision = revision;
                revision.is_some()
            }
            Errand::Txn => {
                self.latest.revision = revision;
                revision.is_some() && answer["succeeded"] == true
            }
            // What was not acknowledged is there or not.
            Errand::Get => put.is_none() || found == put,
            Errand::GetSerializable => put.is_none() || found.is_none() || found == put,
            Errand::Grant => {
                self.lease = answer["ID"].as_i64();
                self.lease.is_some()
            }
            Errand::KeepAlive => answer["TTL"].as_i64().is_some_and(|seconds| seconds > 0),
            Errand::Health => answer[0]["health"] == true,
        };
        ensure!(right, "it answered {answer}, which is wrong after {:?}", self.latest);
        Ok(())
    }

    /// One line about all of it.
    pub(crate) fn summary(&self) -> String {
        format!(
            "etcdctl ran {} times, the slowest in {:.2} s, failures {:?}",
            self.runs.len(),
            self.slowest().as_secs_f64(),
            self.failures()
        )
    }

    fn slowest(&self) -> Duration {
        self.runs.iter().map(|run| run.took).max().unwrap_or_default()
    }

    fn failures(&self) -> Vec<((Door, Errand), &str)> {
        self.runs.iter().filter_map(|run| Some((run.what, run.failure.as_deref()?))).collect()
    }

    /// Law: it was run all the time, and each command each way.
    ///
    /// # Errors
    /// Fewer than [`ETCDCTL_RATE_MIN`] a second, or one of [`ROUND`] never.
    pub(crate) fn heavy(&self, time: Duration) -> Result<()> {
        let rate = self.runs.len() as f64 / time.as_secs_f64();
        ensure!(rate >= ETCDCTL_RATE_MIN, "{rate:.2} etcdctl a second are not {ETCDCTL_RATE_MIN}");
        let seen: BTreeSet<(Door, Errand)> = self.runs.iter().map(|run| run.what).collect();
        let never: Vec<_> = ROUND.iter().filter(|what| !seen.contains(what)).collect();
        ensure!(never.is_empty(), "etcdctl was never run for {never:?}");
        Ok(())
    }

    /// Law: every invocation ended well, and none was slow.
    ///
    /// # Errors
    /// One failed, or took longer than [`LOAD_SLOWEST`].
    pub(crate) fn untroubled(&self) -> Result<()> {
        let failures = self.failures();
        ensure!(failures.is_empty(), "etcdctl failed: {failures:?}");
        let slowest = self.slowest();
        ensure!(slowest < LOAD_SLOWEST, "an etcdctl took {:.2} s", slowest.as_secs_f64());
        Ok(())
    }
}

/// Runs etcdctl once, with its own options but for the form of its answer. Answers with what it said: on its standard output if it
/// ended well, else on its standard error.
async fn answer(endpoints: &str, line: &[String], input: &str) -> Result<Result<String, String>> {
    let mut command = Command::new(ETCD.program("etcdctl"));
    command.arg(format!("--endpoints={endpoints}")).arg("--write-out=json").args(line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("start etcdctl")?;
    let mut pipe = child.stdin.take().context("etcdctl has an input")?;
    // One that has failed already reads nothing; its end says so.
    pipe.write_all(input.as_bytes()).await.ok();
    drop(pipe);
    // Its --command-timeout does not bound a keep-alive.
    let Ok(ended) = tokio::time::timeout(LOAD_ENDS, child.wait_with_output()).await else {
        return Ok(Err(format!("it did not end within {} s", LOAD_ENDS.as_secs())));
    };
    let ended = ended.context("wait for etcdctl")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if ended.status.success() {
        Ok(Ok(text(&ended.stdout)))
    } else {
        Ok(Err(format!("{}: {}", ended.status, text(&ended.stderr))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As etcdctl 3.7.3 prints them.
    const PUT: &str = r#"{"header":{"cluster_id":7,"member_id":9,"revision":2,"raft_term":2}}"#;
    const FOUND: &str = r#"{"header":{"revision":2},"kvs":[{"key":"YQ==","create_revision":2,"mod_revision":2,"version":1,"value":"YQ=="}],"count":1}"#;
    const NOTHING: &str = r#"{"header":{"cluster_id":7,"member_id":9,"revision":2,"raft_term":2}}"#;
    const GRANTED: &str =
        r#"{"cluster_id":7,"revision":3,"ID":7587899113157658378,"TTL":60,"Error":""}"#;

    #[test]
    fn a_read_that_misses_an_acknowledged_put_is_wrong() {
        let mut etcdctl = Etcdctl::default();
        etcdctl.hear(Errand::Get, NOTHING).unwrap();
        etcdctl.hear(Errand::Put, PUT).unwrap();
        assert_eq!(etcdctl.latest.revision, Some(2));
        etcdctl.hear(Errand::Get, FOUND).unwrap();
        etcdctl.hear(Errand::GetSerializable, FOUND).unwrap();
        assert!(etcdctl.hear(Errand::Get, NOTHING).is_err());
        // It may be behind, and is never ahead.
        etcdctl.hear(Errand::GetSerializable, NOTHING).unwrap();
        etcdctl.latest.revision = Some(1);
        assert!(etcdctl.hear(Errand::GetSerializable, FOUND).is_err());
        assert!(etcdctl.hear(Errand::Put, "{}").is_err(), "nothing is acknowledged by it");
    }

    #[test]
    fn a_txn_must_succeed_and_a_lease_live() {
        let mut etcdctl = Etcdctl::default();
        let txn = r#"{"header":{"revision":3},"succeeded":true,"responses":[{"Response":{}}]}"#;
        etcdctl.hear(Errand::Txn, txn).unwrap();
        assert_eq!(etcdctl.latest.revision, Some(3));
        assert!(etcdctl.hear(Errand::Txn, NOTHING).is_err(), "the key is new");
        assert!(etcdctl.line(Errand::KeepAlive).is_none(), "nothing is granted yet");
        etcdctl.hear(Errand::Grant, GRANTED).unwrap();
        let (line, _input) = etcdctl.line(Errand::KeepAlive).unwrap();
        assert_eq!(line.last().map(String::as_str), Some("694da20a7f43870a"));
        etcdctl.hear(Errand::KeepAlive, GRANTED).unwrap();
        assert!(etcdctl.hear(Errand::KeepAlive, NOTHING).is_err());
    }

    #[test]
    fn neither_failures_nor_slowness_nor_idleness_passes() {
        let run = |what| Run { what, took: Duration::from_millis(15), failure: None };
        let mut etcdctl = Etcdctl { runs: ROUND.map(run).to_vec(), ..Etcdctl::default() };
        etcdctl.heavy(Duration::from_secs(13)).unwrap();
        etcdctl.untroubled().unwrap();
        assert!(etcdctl.heavy(Duration::from_secs(60)).is_err(), "13 in a minute");
        etcdctl.runs[0].took = LOAD_SLOWEST;
        assert!(etcdctl.untroubled().is_err());
        etcdctl.runs[0] = Run { failure: Some("no leader".to_owned()), ..run(ROUND[0]) };
        assert!(etcdctl.untroubled().unwrap_err().to_string().contains("no leader"));
        etcdctl.runs[0] = run(ROUND[1]);
        assert!(etcdctl.heavy(Duration::from_secs(13)).is_err(), "no put through the Service");
    }
}
