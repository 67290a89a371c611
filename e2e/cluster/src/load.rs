//! Writes from eight clients without a pause, and the proof afterwards that no acknowledged one is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quorate_proto::etcdserverpb::RangeRequest;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::addresses::Addresses;
use crate::limits::{LOAD_CONNECTIONS, LOAD_LANES, LOAD_PERIOD, LOAD_RATE_MIN, LOAD_SLOWEST, PAGE};
use crate::member::Member;
use crate::store::Store;

/// All keys of a load begin so; `load0` is the first key after them.
const PREFIX: &str = "load/";

/// A write that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Acknowledged {
    key: String,
    value: String,
    revision: i64,
    at: Instant,
    /// How long its answer took.
    took: Duration,
}

/// What a lane has seen.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: Vec<Acknowledged>,
    /// Without an answer, or refused: they may have happened or not.
    unknown: BTreeMap<String, String>,
    /// What was said instead of an acknowledgement, and how often.
    refusals: BTreeMap<String, u64>,
}

/// Eight connections, half of them through the client Service and half to members, each with several
/// writes in flight. Every write is a key of its own, so that a lost one cannot hide behind a later one.
#[derive(Debug)]
pub struct Load {
    started: Instant,
    stop: watch::Sender<bool>,
    lanes: JoinSet<Seen>,
    _addresses: Addresses,
}

/// What the clients saw, all together.
#[derive(Debug)]
pub struct Outcome {
    seen: Seen,
    took: Duration,
}

impl Load {
    /// Begins to write.
    ///
    /// # Errors
    /// There is no client Service.
    pub async fn start(store: &Store) -> Result<Self> {
        let addresses = Addresses::follow(store);
        let service = store.service_address().await?;
        let (stop, stopped) = watch::channel(false);
        let mut lanes = JoinSet::new();
        for number in 0..LOAD_CONNECTIONS {
            let connection = Arc::new(Connection {
                number,
                service: (number % 2 == 0).then(|| service.clone()),
                members: addresses.ready.clone(),
                current: Mutex::default(),
            });
            for lane in 0..LOAD_LANES {
                lanes.spawn(write(connection.clone(), lane, stopped.clone()));
            }
        }
        Ok(Self { started: Instant::now(), stop, lanes, _addresses: addresses })
    }

    /// Ends the load and gathers what the clients saw.
    ///
    /// # Errors
    /// A client ended before.
    pub async fn stop(mut self) -> Result<Outcome> {
        self.stop.send_replace(true);
        let took = self.started.elapsed();
        let mut seen = Seen::default();
        while let Some(lane) = self.lanes.join_next().await {
            let lane = lane?;
            seen.acknowledged.extend(lane.acknowledged);
            seen.unknown.extend(lane.unknown);
            for (words, times) in lane.refusals {
                *seen.refusals.entry(words).or_default() += times;
            }
        }
        seen.acknowledged.sort_by_key(|write| write.at);
        Ok(Outcome { seen, took })
    }
}

impl Outcome {
    /// Reads everything back and compares: each acknowledged write is there, with its value and at its
    /// revision; of the others there is either nothing or what was written; and nothing else is there.
    ///
    /// # Errors
    /// A write is lost, or the load was less than it should have been.
    pub async fn verify(&self, store: &Store) -> Result<()> {
        let (count, seconds) = (self.seen.acknowledged.len(), self.took.as_secs_f64());
        let rate = count as f64 / seconds;
        println!(
            "load: {count} writes acknowledged in {seconds:.1} s ({rate:.0}/s), {} of unknown end, \
             slowest {:.2} s, longest silence {:.2} s, refusals {:?}",
            self.seen.unknown.len(),
            self.slowest().as_secs_f64(),
            self.longest_silence().as_secs_f64(),
            self.seen.refusals
        );
        let mut found = read_all(store).await?;
        for write in &self.seen.acknowledged {
            let pair = found.remove(&write.key);
            let expected = (write.value.clone(), write.revision);
            ensure!(
                pair.as_ref() == Some(&expected),
                "an acknowledged write is lost: {} should be {expected:?} and is {pair:?}",
                write.key
            );
        }
        for (key, (value, revision)) in found {
            ensure!(
                self.seen.unknown.get(&key) == Some(&value),
                "{key} at revision {revision} holds {value:?}, which nobody wrote"
            );
        }
        ensure!(rate >= LOAD_RATE_MIN, "{rate:.0} writes a second are not {LOAD_RATE_MIN}");
        Ok(())
    }

    /// Law: every write was acknowledged at the first attempt, and none was slow.
    ///
    /// # Errors
    /// One was refused or not answered, or took longer than [`LOAD_SLOWEST`].
    pub fn untroubled(&self) -> Result<()> {
        let refusals = &self.seen.refusals;
        ensure!(refusals.is_empty(), "clients saw errors: {refusals:?}");
        let slowest = self.slowest();
        ensure!(slowest < LOAD_SLOWEST, "a write took {:.2} s", slowest.as_secs_f64());
        Ok(())
    }

    /// How long the slowest of the acknowledged writes took.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        self.seen.acknowledged.iter().map(|write| write.took).max().unwrap_or_default()
    }

    /// The longest time during which no write was acknowledged to anybody.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        let times = self.seen.acknowledged.iter().map(|write| write.at);
        let gaps = times.clone().zip(times.skip(1)).map(|(one, next)| next - one);
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

/// One client's connection: to the Service, or to one ready member after the other.
struct Connection {
    number: usize,
    service: Option<String>,
    members: watch::Receiver<BTreeMap<String, String>>,
    /// The connection in use, whereto, and how often it was made anew.
    current: Mutex<Current>,
}

#[derive(Clone, Debug, Default)]
struct Current {
    generation: usize,
    member: Option<Member>,
    address: Option<String>,
}

impl Connection {
    /// The connection in use, or a new one in place of that of this generation, which has failed.
    async fn get(&self, failed: Option<usize>) -> (usize, Option<Member>) {
        let mut current = self.current.lock().await;
        let useless = current.member.is_none() || failed == Some(current.generation);
        if useless || self.is_stopping(&current) {
            current.generation += 1;
            current.address = self.address(current.generation);
            current.member = match &current.address {
                Some(address) => Member::connect(address).await.ok(),
                None => None,
            };
        }
        (current.generation, current.member.clone())
    }

    /// A client that knows all members leaves one that says it stops, as stock clients do.
    fn is_stopping(&self, current: &Current) -> bool {
        let members = self.members.borrow();
        let ready = |address: &String| members.values().any(|ready| ready == address);
        let left = current.address.as_ref().is_some_and(|address| !ready(address));
        self.service.is_none() && !members.is_empty() && left
    }

    fn address(&self, generation: usize) -> Option<String> {
        if self.service.is_some() {
            return self.service.clone();
        }
        let members = self.members.borrow();
        let chosen = (self.number + generation) % members.len().max(1);
        members.values().nth(chosen).cloned()
    }
}

async fn write(connection: Arc<Connection>, lane: usize, stopped: watch::Receiver<bool>) -> Seen {
    let mut seen = Seen::default();
    let mut turns = tokio::time::interval(LOAD_PERIOD);
    // After an election what was due meanwhile is written at once, as waiting users would.
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut failed = None;
    let mut number = 0_u64;
    while !*stopped.borrow() {
        turns.tick().await;
        let (generation, member) = connection.get(failed.take()).await;
        let Some(member) = member else {
            *seen.refusals.entry("no connection".to_owned()).or_default() += 1;
            continue;
        };
        number += 1;
        let key = format!("{PREFIX}{}/{lane}/{number}", connection.number);
        let value = format!("{key} of lane {lane}");
        let asked = Instant::now();
        match member.put(&key, &value).await {
            Ok(revision) => {
                let (at, took) = (Instant::now(), asked.elapsed());
                seen.acknowledged.push(Acknowledged { key, value, revision, at, took });
            }
            Err(status) => {
                let words = format!("{:?}: {}", status.code(), status.message());
                *seen.refusals.entry(words).or_default() += 1;
                seen.unknown.insert(key, value);
                failed = Some(generation);
            }
        }
    }
    seen
}
