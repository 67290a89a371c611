//! Writes from eight stock clients without a pause and etcdctl beside them, and the proof afterwards that no acknowledged one is lost.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate_kubernetes::Progress;
use quorate_kubernetes::components::WRITERS;
use quorate_proto::etcdserverpb::RangeRequest;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::addresses::Addresses;
use crate::etcdctl::Etcdctl;
use crate::limits::{
    LOAD_CONNECTIONS, LOAD_ENDS, LOAD_LANES, LOAD_PERIOD, LOAD_PERIOD_LIGHT, LOAD_RATE_MIN,
    LOAD_SLOWEST, PAGE, REQUEST,
};
use crate::store::Store;
use crate::wait::until;

/// All keys of a load begin so; `load0` is the first key after them.
pub(crate) const PREFIX: &str = "load/";

/// A write, of a key of its own.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Write {
    pub(crate) key: String,
    pub(crate) value: String,
    /// Set for an acknowledged one; any other may have happened or not.
    pub(crate) revision: Option<i64>,
}

/// How a write ended: a line of `writers` (`e2e/kubernetes/go/writers`).
#[derive(Clone, Debug, Deserialize)]
struct Ended {
    #[serde(flatten)]
    write: Write,
    /// What the client library said instead of an acknowledgement.
    error: Option<String>,
    /// Nanoseconds since the epoch.
    began: u64,
    ended: u64,
}

impl Ended {
    fn took(&self) -> Duration {
        Duration::from_nanos(self.ended.saturating_sub(self.began))
    }
}

/// Eight stock clients, half of them with the client Service and half with members, each with several writes in flight and none
/// tried twice. Every write is a key of its own, so that a lost one cannot hide behind a later one.
#[derive(Debug)]
pub struct Load {
    started: Instant,
    stop: watch::Sender<bool>,
    writers: Child,
    telling: JoinHandle<Result<()>>,
    hearing: JoinHandle<Result<Vec<Ended>>>,
    etcdctl: JoinHandle<Result<Etcdctl>>,
    _addresses: Addresses,
}

/// What the clients saw, all together, in the order in which it ended.
#[derive(Debug)]
pub struct Outcome {
    ended: Vec<Ended>,
    etcdctl: Etcdctl,
    took: Duration,
}

impl Load {
    /// Begins to write, once a member is ready.
    ///
    /// # Errors
    /// There is no client Service, or the clients cannot be built or started.
    pub async fn start(store: &Store) -> Result<Self> {
        Self::with_period(store, LOAD_PERIOD).await
    }

    /// Begins to write a tenth as much: what is judged is which writes are there afterwards.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub async fn light(store: &Store) -> Result<Self> {
        Self::with_period(store, LOAD_PERIOD_LIGHT).await
    }

    async fn with_period(store: &Store, period: Duration) -> Result<Self> {
        let build = tokio::task::spawn_blocking(|| WRITERS.ensure(&Progress::start()));
        build.await.context("build the clients")??;
        let addresses = Addresses::follow(store);
        let members = addresses.ready.clone();
        until("a ready member", LOAD_ENDS, async || {
            if members.borrow().is_empty() { Err("none".to_owned()) } else { Ok(()) }
        })
        .await?;
        let service = store.service_address().await?;
        let mut command = Command::new(WRITERS.program("writers"));
        command.arg(format!("-service={service}"));
        command.arg(format!("-connections={LOAD_CONNECTIONS}")).arg(format!("-lanes={LOAD_LANES}"));
        command.arg(format!("-period={}ms", period.as_millis()));
        command.arg(format!("-timeout={}s", REQUEST.as_secs())).arg(format!("-prefix={PREFIX}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut writers = command.spawn().context("start the clients")?;
        let input = writers.stdin.take().context("the clients have an input")?;
        let output = writers.stdout.take().context("the clients have an output")?;
        let (stop, stopped) = watch::channel(false);
        let etcdctl = tokio::spawn(Etcdctl::run(service, members.clone(), stopped.clone()));
        let telling = tokio::spawn(tell(input, members, stopped));
        let hearing = tokio::spawn(hear(output));
        let started = Instant::now();
        Ok(Self { started, stop, writers, telling, hearing, etcdctl, _addresses: addresses })
    }

    /// Ends the load and gathers what the clients saw.
    ///
    /// # Errors
    /// The clients ended before, or do not end; or etcdctl got a wrong answer.
    pub async fn stop(mut self) -> Result<Outcome> {
        self.stop.send_replace(true);
        let took = self.started.elapsed();
        self.telling.await??;
        let hearing = tokio::time::timeout(LOAD_ENDS, self.hearing);
        let mut ended = hearing.await.context("the clients do not end")???;
        let status = self.writers.wait().await.context("wait for the clients")?;
        ensure!(status.success(), "the clients ended with {status}");
        ended.sort_by_key(|write| write.ended);
        let etcdctl = self.etcdctl.await??;
        Ok(Outcome { ended, etcdctl, took })
    }
}

/// Names the members to the clients, each time they change, until the load is over.
async fn tell(
    mut input: ChildStdin,
    mut members: watch::Receiver<BTreeMap<String, String>>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    while !*stopped.borrow() {
        let known: Vec<String> = members.borrow_and_update().values().cloned().collect();
        if !known.is_empty() {
            let line = format!("{}\n", known.join(","));
            input.write_all(line.as_bytes()).await.context("tell the clients of the members")?;
        }
        tokio::select! {
            changed = members.changed() => changed.context("the addresses are followed")?,
            changed = stopped.changed() => changed.context("the load is dropped")?,
        }
    }
    Ok(())
}

async fn hear(output: ChildStdout) -> Result<Vec<Ended>> {
    let mut lines = BufReader::new(output).lines();
    let mut ended = Vec::new();
    while let Some(line) = lines.next_line().await.context("listen to the clients")? {
        let write = serde_json::from_str(&line);
        ended.push(write.with_context(|| format!("what the clients say: {line}"))?);
    }
    Ok(ended)
}

impl Outcome {
    /// Reads everything back and compares: each acknowledged write is there, with its value and at its
    /// revision; of the others there is either nothing or what was written; and nothing else is there.
    ///
    /// # Errors
    /// A write is lost, or there was none.
    pub async fn verify(&self, store: &Store) -> Result<()> {
        println!(
            "load: {} writes acknowledged in {:.1} s ({:.0}/s), the slowest in {:.2} s ({}), longest silence {:.2} s, errors {:?}",
            self.acknowledged().count(),
            self.took.as_secs_f64(),
            self.rate(),
            self.slowest().as_secs_f64(),
            // The first number is the client's: the even ones use the Service, the odd ones members.
            self.slowest_write().map_or("none", |ended| ended.write.key.as_str()),
            self.longest_silence().as_secs_f64(),
            self.errors()
        );
        println!("load: {}", self.etcdctl.summary());
        ensure!(self.acknowledged().next().is_some(), "no write was acknowledged: no load at all");
        let mut found = read_all(store).await?;
        let mut unknown = BTreeMap::new();
        let of_writers = self.ended.iter().map(|ended| &ended.write);
        for write in of_writers.chain(&self.etcdctl.writes) {
            let Some(revision) = write.revision else {
                unknown.insert(&write.key, &write.value);
                continue;
            };
            let pair = found.remove(&write.key);
            let expected = (write.value.clone(), revision);
            ensure!(
                pair.as_ref() == Some(&expected),
                "an acknowledged write is lost: {} should be {expected:?} and is {pair:?}",
                write.key
            );
        }
        for (key, (value, revision)) in found {
            ensure!(
                unknown.get(&key) == Some(&&value),
                "{key} at revision {revision} holds {value:?}, which nobody wrote"
            );
        }
        Ok(())
    }

    /// Law: the history is linearizable. Each write has a key of its own and nothing depends on what is there, so that is: a write
    /// that began after another was acknowledged has the higher revision.
    ///
    /// # Errors
    /// Two writes have their revisions the wrong way round.
    pub fn in_order(&self) -> Result<()> {
        let mut by_start: Vec<&Ended> = self.acknowledged().collect();
        by_start.sort_by_key(|ended| ended.began);
        let mut ended = self.acknowledged().peekable();
        let mut last: Option<&Ended> = None;
        for later in by_start {
            while let Some(earlier) = ended.next_if(|earlier| earlier.ended < later.began) {
                last = last.into_iter().chain([earlier]).max_by_key(|ended| ended.write.revision);
            }
            if let Some(last) = last {
                let right = later.write.revision > last.write.revision;
                ensure!(right, "{later:?} began after {last:?} had ended");
            }
        }
        Ok(())
    }

    /// Law: the load was as heavy as a test of faults under load needs it.
    ///
    /// # Errors
    /// It was less than [`LOAD_RATE_MIN`], or etcdctl was not run all the time.
    pub fn heavy(&self) -> Result<()> {
        let rate = self.rate();
        ensure!(rate >= LOAD_RATE_MIN, "{rate:.0} writes a second are not {LOAD_RATE_MIN}");
        self.etcdctl.heavy(self.took)
    }

    /// Acknowledged writes a second, over the whole of it.
    fn rate(&self) -> f64 {
        self.acknowledged().count() as f64 / self.took.as_secs_f64()
    }

    fn acknowledged(&self) -> impl Iterator<Item = &Ended> {
        self.ended.iter().filter(|ended| ended.write.revision.is_some())
    }

    /// What was said instead of an acknowledgement, and how often.
    #[must_use]
    pub fn errors(&self) -> BTreeMap<&str, usize> {
        let mut errors = BTreeMap::new();
        for words in self.ended.iter().filter_map(|write| write.error.as_deref()) {
            *errors.entry(words).or_default() += 1;
        }
        errors
    }

    /// Law: every write was acknowledged at the first attempt, every etcdctl ended well, and none was slow.
    ///
    /// # Errors
    /// One was refused or not answered, or took longer than [`LOAD_SLOWEST`].
    pub fn untroubled(&self) -> Result<()> {
        let errors = self.errors();
        ensure!(errors.is_empty(), "clients saw errors: {errors:?}");
        let slowest = self.slowest();
        ensure!(slowest < LOAD_SLOWEST, "a write took {:.2} s", slowest.as_secs_f64());
        self.etcdctl.untroubled()
    }

    /// How long the slowest acknowledged write took.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        self.slowest_write().map(Ended::took).unwrap_or_default()
    }

    fn slowest_write(&self) -> Option<&Ended> {
        self.acknowledged().max_by_key(|write| write.took())
    }

    /// The longest time during which no write was acknowledged to anybody.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        let times = self.acknowledged().map(|write| write.ended);
        let next = self.acknowledged().map(|write| write.ended).skip(1);
        let gaps = times.zip(next).map(|(one, next)| Duration::from_nanos(next - one));
        gaps.max().unwrap_or(self.took)
    }
}

async fn read_all(store: &Store) -> Result<BTreeMap<String, (String, i64)>> {
    let door = store.service().await?;
    let mut found = BTreeMap::new();
    let mut request = RangeRequest {
        key: PREFIX.into(),
        range_end: "load0".into(),
        limit: PAGE,
        ..RangeRequest::default()
    };
    loop {
        let page = door.range(request.clone()).await?;
        // All pages are of the moment of the first.
        request.revision = match request.revision {
            0 => page.header.as_ref().map_or(0, |header| header.revision),
            revision => revision,
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for pair in &page.kvs {
            found.insert(text(&pair.key), (text(&pair.value), pair.mod_revision));
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok(found) };
        request.key = [&last.key[..], &[0]].concat().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_writers_say_is_read() {
        let said = r#"{"key":"load/0/1/1","value":"v","revision":7,"began":5,"ended":9}"#;
        let ended: Ended = serde_json::from_str(said).unwrap();
        assert_eq!((ended.write.key.as_str(), ended.write.revision), ("load/0/1/1", Some(7)));
        let said = r#"{"key":"load/0/1/2","value":"v","error":"no leader","began":5,"ended":9}"#;
        let ended: Ended = serde_json::from_str(said).unwrap();
        assert_eq!((ended.write.revision, ended.error.as_deref()), (None, Some("no leader")));
    }
}
