//! Clients at full load: writers, readers, transactions, leases, watchers, each recorded for the judge.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use quorate_kubernetes::{Progress, wait};
use quorate_sim::judge::{
    Compare, CompareTarget, Delete, Operation, Outcome, Put, Range, Relation, Request, Response,
    Selector, Sort, Txn,
};
use rand::RngExt;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::observer::{Observation, observe};
use crate::session::Session;

/// Clients that write one key after the other.
const WRITERS: u64 = 24;

/// Clients that read, compare and delete.
const MIXED: u64 = 6;

/// Clients that hold leases.
const LEASEHOLDERS: u64 = 4;

/// Keys of the writers. Few, so that transactions meet.
const KEYS: u32 = 64;

/// The life of a lease, in seconds: longer than an election, short enough that many end within a run.
pub const LEASE_SECONDS: u64 = 6;

/// How often a leaseholder looks whether its key is there.
const LOOK: Duration = Duration::from_millis(200);

/// How long the clients may take to see the last write, once they have stopped.
const CATCH_UP: Duration = Duration::from_secs(60);

/// What clients share.
#[derive(Debug)]
struct Shared {
    started: Instant,
    urls: Vec<String>,
    stop: AtomicBool,
    operations: Mutex<Vec<Operation>>,
    /// When each write was acknowledged, in nanoseconds of the run.
    acknowledged: Mutex<Vec<u64>>,
    writes: AtomicU64,
    /// Leases that were left alone and whose key was seen to be gone.
    ended_leases: AtomicU64,
    /// The highest revision that anybody was told.
    revision: AtomicI64,
    next_lease: AtomicI64,
}

/// A load that goes on until it is stopped.
#[derive(Debug)]
pub struct Load {
    runtime: Runtime,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    /// Watches everything: what it is told is what happened.
    first: JoinHandle<Observation>,
    first_until: watch::Sender<Option<i64>>,
    others: Vec<JoinHandle<Observation>>,
    others_until: watch::Sender<Option<i64>>,
}

/// What a load leaves behind.
#[derive(Debug)]
pub struct Evidence {
    /// What clients asked, by the time of asking.
    pub operations: Vec<Operation>,
    /// What watchers of all keys and of a part of them were told; the first one watched everything.
    pub observations: Vec<Observation>,
    /// When each write was acknowledged, in nanoseconds of the run, in order.
    pub acknowledged: Vec<u64>,
}

impl Load {
    /// Starts all clients.
    ///
    /// # Errors
    /// No runtime can be started.
    pub fn start(urls: Vec<String>) -> Result<Self> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().context("start a runtime")?;
        // Connections are made here, but driven there.
        let driver = runtime.handle().clone();
        let _entered = driver.enter();
        let shared = Arc::new(Shared {
            started: Instant::now(),
            urls,
            stop: AtomicBool::new(false),
            operations: Mutex::new(Vec::new()),
            acknowledged: Mutex::new(Vec::new()),
            writes: AtomicU64::new(0),
            ended_leases: AtomicU64::new(0),
            revision: AtomicI64::new(1),
            next_lease: AtomicI64::new(1),
        });
        let (first_until, until_first) = watch::channel(None);
        let (others_until, until_others) = watch::channel(None);
        let watching = |at: usize, keys: &[u8], until: &watch::Receiver<Option<i64>>| {
            runtime.spawn(observe(
                format!("watcher {at}"),
                shared.urls.clone(),
                at,
                Selector::prefix(keys),
                shared.started,
                until.clone(),
            ))
        };
        let first = watching(0, b"", &until_first);
        let others = vec![watching(1, b"", &until_others), watching(2, b"w/1", &until_others)];
        let clients = Vec::new();
        let mut load = Self { runtime, shared, clients, first, first_until, others, others_until };
        for client in 0..WRITERS {
            load.spawn(write(Client::new(client, load.shared.clone())));
        }
        for client in WRITERS..WRITERS + MIXED {
            load.spawn(mix(Client::new(client, load.shared.clone())));
        }
        for client in WRITERS + MIXED..WRITERS + MIXED + LEASEHOLDERS {
            load.spawn(hold_leases(Client::new(client, load.shared.clone())));
        }
        Ok(load)
    }

    fn spawn(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        self.clients.push(self.runtime.spawn(client));
    }

    /// Writes that were acknowledged so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes were acknowledged.
    ///
    /// # Errors
    /// They were not in time, or a client ended with a panic.
    pub fn wait_writes(&self, more: u64, deadline: Duration) -> Result<()> {
        self.wait("more writes", &self.shared.writes, self.writes() + more, deadline)
    }

    /// Waits until so many leases have ended by themselves since the start.
    ///
    /// # Errors
    /// They did not in time, or a client ended with a panic.
    pub fn wait_ended_leases(&self, leases: u64, deadline: Duration) -> Result<()> {
        self.wait("ended leases", &self.shared.ended_leases, leases, deadline)
    }

    fn wait(&self, what: &str, count: &AtomicU64, target: u64, deadline: Duration) -> Result<()> {
        wait::until(&Progress::start(), &format!("{target} {what}"), deadline, || {
            if let Some(at) = self.clients.iter().position(JoinHandle::is_finished) {
                bail!("client {at} ended early: see its panic above");
            }
            let now = count.load(Ordering::Relaxed);
            Ok(if now >= target { Ok(()) } else { Err(format!("{} are left", target - now)) })
        })
    }

    /// Stops all clients, waits until the watchers have seen everything, and hands over what was seen.
    ///
    /// # Errors
    /// A client ended with a panic, or a watcher does not get to the end.
    pub fn stop(self) -> Result<Evidence> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let (runtime, shared) = (self.runtime, self.shared);
        let observations = runtime.block_on(async {
            for client in self.clients {
                client.await.context("a client of the load")?;
            }
            let last = shared.last_revision().await?;
            self.others_until.send_replace(Some(last));
            let mut others = Vec::new();
            for other in self.others {
                others.push(seen_by(other, last).await?);
            }
            // Leases that are still there end meanwhile. Whatever the others were told of that, the first one waits for too:
            // it is what they are judged by.
            let told = others.iter().filter_map(Observation::told_up_to).fold(last, i64::max);
            self.first_until.send_replace(Some(told));
            let mut observations = vec![seen_by(self.first, told).await?];
            observations.append(&mut others);
            anyhow::Ok(observations)
        })?;
        runtime.shutdown_timeout(Duration::from_secs(1));
        let take = |list: &Mutex<Vec<u64>>| {
            std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let mut operations =
            std::mem::take(&mut *shared.operations.lock().unwrap_or_else(PoisonError::into_inner));
        operations.sort_by_key(|operation| operation.invoked);
        let mut acknowledged = take(&shared.acknowledged);
        acknowledged.sort_unstable();
        Ok(Evidence { operations, observations, acknowledged })
    }
}

async fn seen_by(observer: JoinHandle<Observation>, revision: i64) -> Result<Observation> {
    let seen = tokio::time::timeout(CATCH_UP, observer).await;
    Ok(seen.with_context(|| format!("a watcher never got to {revision}"))??)
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("less than centuries")
    }

    /// Writes one key more and returns its revision: everything acknowledged before is at or below it.
    async fn last_revision(&self) -> Result<i64> {
        let mut session = Session::new(&self.urls, 0);
        for _ in 0..20 {
            let put = Put { key: b"last".to_vec(), value: b"1".to_vec(), ..Put::default() };
            let invoked = self.now();
            let request = Request::Put(put);
            let outcome = session.perform(&request).await;
            let answered = match outcome {
                Outcome::Answered { revision, .. } => Some(revision),
                _ => None,
            };
            self.record(u64::MAX, request, invoked, outcome);
            if let Some(revision) = answered {
                return Ok(revision);
            }
        }
        bail!("the cluster takes no write after the load")
    }

    fn record(&self, client: u64, request: Request, invoked: u64, outcome: Outcome) {
        let returned = self.now();
        if let Outcome::Answered { revision, .. } = &outcome {
            self.revision.fetch_max(*revision, Ordering::Relaxed);
            if matches!(request, Request::Put(_) | Request::Delete(_)) {
                self.writes.fetch_add(1, Ordering::Relaxed);
                self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(returned);
            }
        }
        let operation = Operation { client, request, invoked, returned, outcome };
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }
}

struct Client {
    number: u64,
    shared: Arc<Shared>,
    session: Session,
    done: u64,
}

impl Client {
    fn new(number: u64, shared: Arc<Shared>) -> Self {
        let first = usize::try_from(number).expect("few clients");
        Self { number, session: Session::new(&shared.urls, first), shared, done: 0 }
    }

    fn goes_on(&self) -> bool {
        !self.shared.stop.load(Ordering::Relaxed)
    }

    async fn perform(&mut self, request: Request) -> Outcome {
        let invoked = self.shared.now();
        let outcome = self.session.perform(&request).await;
        self.shared.record(self.number, request, invoked, outcome.clone());
        self.done += 1;
        outcome
    }

    /// A value that is written once in the whole run.
    fn value(&self) -> Vec<u8> {
        format!("{}-{}", self.number, self.done).into_bytes()
    }
}

fn some_key() -> Vec<u8> {
    format!("w/{:02}", rand::rng().random_range(0..KEYS)).into_bytes()
}

async fn write(mut client: Client) {
    while client.goes_on() {
        let put = Put {
            key: some_key(),
            value: client.value(),
            prev: client.done.is_multiple_of(8),
            ..Put::default()
        };
        client.perform(Request::Put(put)).await;
    }
}

async fn mix(mut client: Client) {
    while client.goes_on() {
        let key = some_key();
        let kind = rand::rng().random_range(0..10);
        let request = match kind {
            0..4 => Request::Range(Range { keys: Selector::key(&key), ..Range::default() }),
            4 => Request::Range(Range {
                keys: Selector::key(&key),
                serializable: true,
                ..Range::default()
            }),
            5 => Request::Range(Range {
                keys: Selector::prefix(b"w/"),
                limit: 5,
                sort: Sort::ModifiedDescending,
                ..Range::default()
            }),
            6 => {
                // A revision that was told to somebody is readable at every member that is up to date.
                let revision = client.shared.revision.load(Ordering::Relaxed);
                let keys = Selector::prefix(b"w/1");
                Request::Range(Range { keys, revision, ..Range::default() })
            }
            7 | 8 => compare_and_put(&mut client, &key).await,
            _ => Request::Delete(Delete { keys: Selector::key(&key), prev: true }),
        };
        client.perform(request).await;
    }
}

/// Reads a key and makes the transaction that changes it if nobody did meanwhile.
async fn compare_and_put(client: &mut Client, key: &[u8]) -> Request {
    let read = Range { keys: Selector::key(key), ..Range::default() };
    let outcome = client.perform(Request::Range(read)).await;
    let seen = match outcome {
        Outcome::Answered { response: Response::Range { pairs, .. }, .. } => {
            pairs.first().map_or(0, |pair| pair.mod_revision)
        }
        _ => 0,
    };
    let put = Put { key: key.to_vec(), value: client.value(), ..Put::default() };
    let beside = Put { key: b"count".to_vec(), value: client.value(), ..Put::default() };
    let get = Range { keys: Selector::key(key), ..Range::default() };
    Request::Txn(Txn {
        compare: vec![Compare {
            keys: Selector::key(key),
            relation: Relation::Equal,
            target: CompareTarget::Modified(seen),
        }],
        success: vec![Request::Put(put), Request::Put(beside), Request::Range(get.clone())],
        failure: vec![Request::Range(get)],
    })
}

/// Grants one lease after the other, keeps it alive for a while, then leaves it alone until its key is gone.
async fn hold_leases(mut client: Client) {
    while client.goes_on() {
        let id = client.shared.next_lease.fetch_add(1, Ordering::Relaxed);
        let ttl = LEASE_SECONDS * 1_000_000_000;
        let granted = client.perform(Request::Grant { id, ttl }).await;
        if !matches!(granted, Outcome::Answered { .. }) {
            continue;
        }
        let key = format!("lease/{id}").into_bytes();
        let put = Put { key: key.clone(), value: client.value(), lease: id, ..Put::default() };
        client.perform(Request::Put(put)).await;
        let renewals = rand::rng().random_range(0..4);
        let mut beat = tokio::time::interval(Duration::from_secs(LEASE_SECONDS / 3));
        beat.tick().await;
        for _ in 0..renewals {
            beat.tick().await;
            if !client.goes_on() {
                return;
            }
            client.perform(Request::Renew(id)).await;
        }
        // Reading the key until it is gone also shows that it is there until then.
        let mut look = tokio::time::interval(LOOK);
        while is_there(&mut client, &key).await {
            if !client.goes_on() {
                return;
            }
            look.tick().await;
        }
        client.shared.ended_leases.fetch_add(1, Ordering::Relaxed);
    }
}

async fn is_there(client: &mut Client, key: &[u8]) -> bool {
    let read = Range { keys: Selector::key(key), ..Range::default() };
    match client.perform(Request::Range(read)).await {
        Outcome::Answered { response: Response::Range { count, .. }, .. } => count > 0,
        _ => true,
    }
}
