//! Wiring and the order of start and stop: every thread and every long-lived task of the member begins here.
//!
//! ```text
//!              tokio: client and peer connections
//!                │ inputs                     ▲ replies, deliveries
//!                ▼                            │
//!   ticker ► consensus ──records──► wal      apply ──jobs──► files
//!                ▲   │                │        ▲  │
//!                │   └──committed─────┼────────┘  │
//!                └────────────────────┴───────────┘ Persisted, Applied
//! ```

use std::{
    sync::{Arc, atomic::AtomicU64, mpsc as std_mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quorate_consensus::{Fetch, LogIndex, MemberId, SnapshotMeta};
use quorate_machine::{ClusterId, CompactionHashes, FEATURE_LEVEL_KNOWN, Incarnation, Store};
use quorate_replica::{Applier, Input, Replica, Settings};
use quorate_storage::{
    directory::DataDirectory,
    disk::FileSystem,
    recovery::Recovery,
    rows::RowStore,
    wal::{TornTail, Wal, WalReader},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    apply_loop::{self, ApplyInput, ApplyLoop, ApplySender},
    auto_compaction,
    boot::{self, Booted},
    clock::Ticker,
    compaction_hashing::CompactionHashing,
    config::Config,
    consensus_loop::{self, Outlets},
    fatal::{Fatal, Verdict},
    files_loop::{FilesLoop, Generation},
    grpc::{Api, Options},
    handle::{Handle, Inner, Leadership, Published, Reply},
    http, limits,
    metrics::Metrics,
    peers::{
        Exclusion, Identity, Membership, PeerEvents, PeerSet, receiver::Receiver,
        snapshot::Outgoing,
    },
    pending::Pending,
    publication::{self, Publication},
    renewals::{self, Renewal},
    snapshots::{self, Receiving},
    wal_loop,
    watchdog::DiskWatchdog,
};

/// A running member: what stopping needs.
struct Member {
    handle: Handle,
    identity: Arc<Identity>,
    apply: ApplySender,
    ticker: Ticker,
    /// The apply and files threads.
    writers: Vec<JoinHandle<()>>,
    /// The first failure of a thread, if there is one.
    failures: mpsc::Receiver<Fatal>,
    /// Set when a peer says that this member has no place any more.
    excluded: watch::Receiver<Option<Exclusion>>,
    tasks: JoinSet<()>,
}

/// Serves until SIGTERM or SIGINT, or until it cannot go on.
///
/// # Errors
/// Why the process must end, as a verdict of docs/contract.md.
pub async fn run(config: Config) -> Result<(), Fatal> {
    let doors = http::bind(&config)
        .map_err(|error| Fatal::new(Verdict::Configuration, error.to_string()))?;
    // One future for the whole life: a signal that comes during the long work of a start is not lost.
    let mut stop = std::pin::pin!(stop_signal());
    let booted = tokio::select! {
        biased;
        () = &mut stop => return Ok(()),
        booted = boot::boot(&config, rand::random()) => booted?,
    };
    if let Some(TornTail { path, offset, bytes }) = &booted.recovery.torn_tail {
        let path = path.display();
        warn!(%path, offset, bytes, "a crash cut off the log's last write; it is dropped, nobody was told of it");
    }
    // Not before: a joiner that asks a name which also names itself must not find itself there.
    let mut peer_listeners = Vec::new();
    for url in &config.listen_peer_urls {
        peer_listeners.push(listen(url).await?);
    }
    let metrics = Arc::new(Metrics::new(config.extensive_metrics, config.warning_apply_duration));
    let mut member = start(&config, booted, peer_listeners, &metrics)?;
    let api = Api::new(member.handle.clone(), Options::new(&config), metrics);
    let serving = doors.open(api);
    info!(
        member = %format!("{:x}", member.identity.member.0),
        cluster = %format!("{:x}", member.identity.cluster.0),
        "the listeners are open"
    );
    let outcome = tokio::select! {
        () = stop => Ok(()),
        Some(fatal) = member.failures.recv() => Err(fatal),
        Ok(why) = member.excluded.wait_for(Option::is_some) => Err(exclusion_fatal(*why)),
    };
    match outcome {
        Ok(()) => {
            serving.unready();
            tokio::time::sleep(config.drain_delay).await;
            member.hand_over(config.election_timeout).await;
            if !serving.close(limits::CLOSE_GRACE).await {
                warn!("some calls did not finish in time and were cut");
            }
            member.stop()
        }
        // Nothing is wrong here but that nobody listens: clients are sent away in words rather than cut off.
        Err(fatal) if fatal.verdict == Verdict::Removed => {
            serving.unready();
            member.handle.end_waiting();
            serving.close(limits::REMOVED_GRACE).await;
            Err(fatal)
        }
        // The state may be unusable: nothing more is written.
        Err(fatal) => Err(fatal),
    }
}

fn exclusion_fatal(why: Option<Exclusion>) -> Fatal {
    match why {
        Some(Exclusion::Outdated) => Fatal::new(
            Verdict::FormatTooNew,
            "the cluster has reached a feature level that this version does not know; its data are untouched: start the version that \
             the other members run",
        ),
        Some(Exclusion::Removed) | None => Fatal::new(
            Verdict::Removed,
            "this member was removed from the cluster; add it anew, with an empty data directory, if it is still wanted",
        ),
    }
}

async fn listen(url: &crate::config::Url) -> Result<TcpListener, Fatal> {
    let address = url.bind_address().map_err(|error| Fatal::new(Verdict::Configuration, error))?;
    TcpListener::bind(address).await.map_err(|error| {
        Fatal::new(
            Verdict::Configuration,
            format!("cannot listen on {address}: {error}; stop what listens there, or choose another URL"),
        )
    })
}

/// What happens on SIGTERM and SIGINT.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("signal handlers can be installed");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signal handlers can be installed");
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
    }
}

/// What threads and tasks share: queues' sending ends, and what one publishes for the others.
struct Shared {
    identity: Arc<Identity>,
    life: u64,
    inputs: mpsc::Sender<Input>,
    apply: ApplySender,
    requests: Arc<Pending<Reply>>,
    reads: Arc<Pending<()>>,
    membership: Membership,
    directory: Arc<Mutex<DataDirectory>>,
    published: Arc<ArcSwap<Published>>,
    hashes: Arc<Mutex<CompactionHashes>>,
    leadership: watch::Sender<Leadership>,
    wanted: watch::Sender<Option<(MemberId, SnapshotMeta)>>,
    events: PeerEvents,
}

/// The receiving ends, each for one thread or task.
struct Queues {
    inputs: mpsc::Receiver<Input>,
    apply: std_mpsc::Receiver<ApplyInput>,
    snapshots: mpsc::Receiver<(MemberId, TcpStream)>,
    excluded: watch::Receiver<Option<Exclusion>>,
}

impl Shared {
    fn new(
        directory: DataDirectory,
        applier: &Applier<RowStore>,
        identity: Arc<Identity>,
        life: u64,
    ) -> (Self, Queues) {
        let hashes = CompactionHashes::new(applier.machine().compacted());
        let hashes = Arc::new(Mutex::new(hashes));
        let (inputs, inputs_rx) = mpsc::channel(limits::INPUTS_MAX);
        let (apply, apply_rx) = ApplySender::channel();
        let (snapshots, snapshots_rx) = mpsc::channel(1);
        let (excluded, excluded_rx) = watch::channel(None);
        // Before the first connection: what the peers must know is part of the handshake.
        let (machine, membership) = (applier.machine(), Membership::default());
        membership.publish_if_changed(
            &applier.members(),
            machine.members(),
            machine.feature_level(),
        );
        let shared = Self {
            identity,
            life,
            apply,
            requests: Arc::default(),
            reads: Arc::default(),
            membership,
            directory: Arc::new(Mutex::new(directory)),
            published: Arc::new(ArcSwap::from_pointee(Published::of(applier, hashes.clone()))),
            hashes,
            leadership: watch::Sender::default(),
            wanted: watch::Sender::default(),
            events: PeerEvents::new(inputs.clone(), snapshots, excluded),
            inputs,
        };
        let queues = Queues {
            inputs: inputs_rx,
            apply: apply_rx,
            snapshots: snapshots_rx,
            excluded: excluded_rx,
        };
        (shared, queues)
    }

    fn handle(&self, config: &Config, renewals: mpsc::Sender<Renewal>) -> Handle {
        Handle::new(Inner {
            identity: self.identity.clone(),
            life: self.life,
            request_timeout: config.request_timeout(),
            inputs: self.inputs.clone(),
            apply: self.apply.clone(),
            requests: self.requests.clone(),
            reads: self.reads.clone(),
            published: self.published.clone(),
            leadership: self.leadership.subscribe(),
            quota: config.quota_bytes.unwrap_or(0),
            renewals,
            next_stream: AtomicU64::new(1),
        })
    }

    /// Sends a snapshot on a task of its own.
    fn snapshot_sender(&self) -> Box<dyn Fn(Outgoing, LogIndex) + Send> {
        let runtime = tokio::runtime::Handle::current();
        let (identity, membership, inputs) =
            (self.identity.clone(), self.membership.clone(), self.inputs.clone());
        Box::new(move |outgoing, index| {
            let addresses = membership.addresses(outgoing.announcement.to);
            runtime.spawn(snapshots::send_one(
                outgoing,
                addresses,
                identity.clone(),
                inputs.clone(),
                index,
            ));
        })
    }
}

/// Starts every thread and task but the client listeners.
fn start(
    config: &Config,
    booted: Booted,
    peer_listeners: Vec<TcpListener>,
    metrics: &Metrics,
) -> Result<Member, Fatal> {
    let Booted { recovery, mut machine, term, introduced } = booted;
    let Recovery { directory, wal, recovered, .. } = recovery;
    let manifest = directory.manifest();
    let identity = Arc::new(Identity {
        cluster: ClusterId(manifest.cluster.0),
        member: manifest.member,
        incarnation: Incarnation(manifest.incarnation),
        feature_level: FEATURE_LEVEL_KNOWN,
        peer_urls: config.advertise_peer_urls.iter().map(ToString::to_string).collect(),
    });
    let life = rand::random_range(1..=u64::MAX);
    let (reader, compaction) = (machine.store().reader(), machine.store_mut().compaction());
    let mut applier = Applier::new(identity.member, life, machine, term);
    let replica = Replica::new(settings(config, &identity, life), recovered, applier.report());
    let (shared, queues) = Shared::new(directory, &applier, identity.clone(), life);
    let hashing = CompactionHashing::new(reader, shared.hashes.clone());
    let generation = Generation { compaction, hashing };
    let (threads, failures) = start_threads(
        config,
        &shared,
        metrics,
        Loops { replica, wal, applier, generation, introduced },
        (queues.inputs, queues.apply),
    )?;
    let ticking = shared.inputs.clone();
    let ticker = Ticker::start(config.heartbeat_interval, move |elapsed_ms| {
        // Fails only while the process stops.
        ticking.blocking_send(Input::Tick { elapsed_ms }).ok();
    })
    .map_err(thread_fatal)?;
    let (renewals, renewals_rx) = mpsc::channel(limits::RENEWALS_MAX);
    let handle = shared.handle(config, renewals);
    let mut tasks = JoinSet::new();
    for listener in peer_listeners {
        tasks.spawn(receiver(&shared, metrics).run(listener));
    }
    tasks.spawn(receiving(&shared).run(queues.snapshots));
    tasks.spawn(renewals::run(handle.clone(), renewals_rx));
    tasks.spawn(publication::run(handle.clone(), publication(config, &identity)));
    tasks.spawn(notify_progress(shared.apply.clone(), config.watch_progress_notify_interval));
    tasks.spawn(revoke_old_pins(handle.clone()));
    if let Some(mode) = config.auto_compaction {
        tasks.spawn(auto_compaction::run(handle.clone(), mode));
    }
    let Shared { apply, .. } = shared;
    Ok(Member {
        handle,
        identity,
        apply,
        ticker,
        writers: threads,
        failures,
        excluded: queues.excluded,
        tasks,
    })
}

/// What the threads own.
struct Loops {
    replica: Replica,
    wal: Wal,
    applier: Applier<RowStore>,
    generation: Generation,
    introduced: Vec<quorate_machine::Member>,
}

/// Starts the threads; those that must be waited for at the end are returned.
fn start_threads(
    config: &Config,
    shared: &Shared,
    metrics: &Metrics,
    loops: Loops,
    (inputs_rx, apply_rx): (mpsc::Receiver<Input>, std_mpsc::Receiver<ApplyInput>),
) -> Result<(Vec<JoinHandle<()>>, mpsc::Receiver<Fatal>), Fatal> {
    let Loops { replica, wal, applier, generation, introduced } = loops;
    let (threads, failures) = Threads::new();
    let members = applier.members();
    let (wal_tx, wal_rx) = std_mpsc::channel();
    let (files_tx, files_rx) = std_mpsc::channel();
    let watchdog = Arc::new(DiskWatchdog::new(config.election_timeout));
    let files_loop = FilesLoop {
        directory: shared.directory.clone(),
        generation,
        filler: wal.filler(),
        wal: wal_tx.clone(),
        inputs: shared.inputs.clone(),
        metrics: metrics.disk.clone(),
    };
    let outlets = Outlets {
        peers: peers(shared, metrics, if introduced.is_empty() { &members } else { &introduced }),
        wal: wal_tx,
        apply: shared.apply.clone(),
        wanted: shared.wanted.clone(),
        fetch: threads.fetches(wal.reader(), shared.inputs.clone())?,
        requests: shared.requests.clone(),
        reads: shared.reads.clone(),
        leadership: shared.leadership.clone(),
        watchdog: watchdog.clone(),
    };
    let apply_loop = ApplyLoop {
        applier,
        directory: shared.directory.clone(),
        files: files_tx,
        inputs: shared.inputs.clone(),
        requests: shared.requests.clone(),
        published: shared.published.clone(),
        hashes: shared.hashes.clone(),
        membership: shared.membership.clone(),
        log: wal.reader(),
        send_snapshot: shared.snapshot_sender(),
        leadership: shared.leadership.subscribe(),
        identity: shared.identity.clone(),
        metrics: metrics.apply.clone(),
        since_checkpoint: 0,
    };
    let (wal_inputs, wal_metrics) = (shared.inputs.clone(), metrics.disk.clone());
    threads.spawn("consensus", move || {
        consensus_loop::run(replica, inputs_rx, outlets);
        Ok(())
    })?;
    threads
        .spawn("wal", move || wal_loop::run(wal, &wal_rx, &wal_inputs, &watchdog, &wal_metrics))?;
    let files = threads.spawn("files", move || files_loop.run(&files_rx))?;
    let apply = threads.spawn("apply", move || apply_loop::run(apply_loop, &apply_rx))?;
    Ok((vec![apply, files], failures))
}

fn peers(shared: &Shared, metrics: &Metrics, members: &[quorate_machine::Member]) -> PeerSet {
    let runtime = tokio::runtime::Handle::current();
    let mut peers = PeerSet::new(
        shared.identity.clone(),
        shared.events.clone(),
        shared.membership.clone(),
        metrics.peers.clone(),
        runtime,
    );
    peers.set_members(members);
    peers
}

fn receiver(shared: &Shared, metrics: &Metrics) -> Receiver {
    Receiver {
        identity: shared.identity.clone(),
        membership: shared.membership.clone(),
        events: shared.events.clone(),
        metrics: metrics.peers.clone(),
    }
}

fn receiving(shared: &Shared) -> Receiving {
    Receiving {
        directory: shared.directory.clone(),
        disk: Arc::new(FileSystem),
        inputs: shared.inputs.clone(),
        wanted: shared.wanted.subscribe(),
        apply: shared.apply.clone(),
        identity: shared.identity.clone(),
    }
}

fn settings(config: &Config, identity: &Identity, life: u64) -> Settings {
    let ticks = config.election_timeout.as_millis() / config.heartbeat_interval.as_millis().max(1);
    Settings {
        consensus: quorate_consensus::Settings {
            id: identity.member,
            election_ticks: u32::try_from(ticks).unwrap_or(u32::MAX).max(2),
            heartbeat_ticks: 1,
            inflight_messages_max: limits::INFLIGHT_MESSAGES_MAX,
            inflight_bytes_max: limits::INFLIGHT_BYTES_MAX,
            append_bytes_max: limits::APPEND_BYTES_MAX,
            committed_bytes_max: limits::COMMITTED_BYTES_MAX,
            uncommitted_bytes_max: limits::UNCOMMITTED_BYTES_MAX,
            memory_bytes_max: limits::LOG_MEMORY_BYTES_MAX,
            seed: rand::random(),
        },
        life,
        strict_reconfig: config.strict_reconfig_check,
        learners_max: config.max_learners,
        feature_level_known: FEATURE_LEVEL_KNOWN,
        request_timeout_ms: u64::try_from(config.request_timeout().as_millis()).unwrap_or(u64::MAX),
    }
}

fn publication(config: &Config, identity: &Identity) -> Publication {
    Publication {
        name: config.name.clone(),
        client_urls: config.advertise_client_urls.iter().map(ToString::to_string).collect(),
        incarnation: identity.incarnation,
        feature_level: identity.feature_level,
    }
}

async fn notify_progress(apply: ApplySender, interval: Duration) {
    let mut clock = tokio::time::interval(interval);
    loop {
        clock.tick().await;
        apply.send(ApplyInput::NotifyProgress);
    }
}

/// A reader that never ends may not keep all history.
async fn revoke_old_pins(handle: Handle) {
    let mut clock = tokio::time::interval(limits::PIN_AGE_MAX / 4);
    loop {
        clock.tick().await;
        let age = u64::try_from(limits::PIN_AGE_MAX.as_millis()).expect("minutes");
        let revoked = handle.reader().revoke_pins(crate::clock::now_ms().saturating_sub(age));
        if revoked > 0 {
            warn!(
                revoked,
                "readers of old revisions took too long; compaction no longer waits for them"
            );
        }
    }
}

/// Starts threads whose failures end the process.
struct Threads {
    failed: mpsc::Sender<Fatal>,
}

impl Threads {
    fn new() -> (Self, mpsc::Receiver<Fatal>) {
        let (failed, failures) = mpsc::channel(8);
        (Self { failed }, failures)
    }

    fn spawn(
        &self,
        name: &str,
        body: impl FnOnce() -> Result<(), Fatal> + Send + 'static,
    ) -> Result<JoinHandle<()>, Fatal> {
        let failed = self.failed.clone();
        let run = move || {
            if let Err(fatal) = body() {
                failed.blocking_send(fatal).ok();
            }
        };
        thread::Builder::new().name(name.into()).spawn(run).map_err(thread_fatal)
    }

    /// Reads old entries from the WAL, off the consensus thread.
    fn fetches(
        &self,
        reader: WalReader,
        inputs: mpsc::Sender<Input>,
    ) -> Result<std_mpsc::Sender<Fetch>, Fatal> {
        let (requests, queue) = std_mpsc::channel::<Fetch>();
        self.spawn("fetch", move || {
            for fetch in queue {
                let entries = wal_loop::fetch(&reader, &fetch)?;
                if inputs.blocking_send(Input::Fetched { fetch, entries }).is_err() {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(requests)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn thread_fatal(error: std::io::Error) -> Fatal {
    Fatal::new(
        Verdict::Failed,
        format!("cannot start a thread: {error}; raise the limit of processes"),
    )
}

impl Member {
    /// A leader that stops hands leadership over first, so that nobody has to wait for an election (etcd does likewise).
    async fn hand_over(&self, election_timeout: Duration) {
        let voters =
            self.handle.published().members.iter().filter(|member| !member.learner).count();
        if !self.handle.leadership().is_leader || voters < 2 {
            return;
        }
        // Consensus gives a transfer up after an election timeout; nobody is there to take it then.
        let moved = self.handle.move_leader(quorate_machine::MemberId(0));
        match tokio::time::timeout(election_timeout, moved).await {
            Ok(Ok(())) => info!("handed leadership over"),
            Ok(Err(_)) | Err(_) => info!("nobody took leadership over"),
        }
    }

    /// Ends tasks, then the threads that write: apply captures a last checkpoint and the files thread writes it, so that the
    /// next start replays nothing. The other threads hold nothing that is not durable and end with the process.
    fn stop(mut self) -> Result<(), Fatal> {
        self.tasks.abort_all();
        self.ticker.stop();
        self.apply.send(ApplyInput::Stop);
        for thread in self.writers {
            thread.join().expect("a panic on any thread ends the process");
        }
        if let Ok(fatal) = self.failures.try_recv() {
            return Err(fatal);
        }
        info!("stopped");
        Ok(())
    }
}
