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
use quorate_consensus::{Fetch, LogIndex};
use quorate_machine::{ClusterId, FEATURE_LEVEL_KNOWN, Incarnation, Store};
use quorate_replica::{Applier, Input, Replica, Settings};
use quorate_storage::{
    disk::FileSystem,
    recovery::Recovery,
    wal::{TornTail, WalReader},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    apply_loop::{self, ApplyInput, ApplyLoop, ApplySender},
    auto_compaction,
    boot::{self, Booted},
    clock::Ticker,
    config::Config,
    consensus_loop::{self, Outlets},
    fatal::{Fatal, Verdict},
    files_loop::FilesLoop,
    handle::{Handle, Inner, Leadership, Published},
    grpc::{Api, Options},
    http, limits,
    metrics::Metrics,
    peers::{Identity, Membership, PeerEvents, PeerSet, receiver::Receiver},
    pending::Pending,
    publication::{self, Publication},
    renewals,
    snapshots::{self, Receiving},
    wal_loop,
    watchdog::DiskWatchdog,
};

/// A running member: what stopping needs.
struct Member {
    handle: Handle,
    identity: Arc<Identity>,
    inputs: mpsc::Sender<Input>,
    apply: ApplySender,
    ticker: Ticker,
    threads: Vec<JoinHandle<()>>,
    /// The first failure of a thread, if there is one.
    failures: mpsc::Receiver<Fatal>,
    /// Set when a peer says that this member is no longer one.
    removed: watch::Receiver<bool>,
    tasks: JoinSet<()>,
}

/// Serves until SIGTERM or SIGINT, or until it cannot go on.
///
/// # Errors
/// Why the process must end, as a verdict of docs/contract.md.
pub async fn run(config: Config) -> Result<(), Fatal> {
    let peer_listener = listen(&config.listen_peer_urls[0]).await?;
    let doors = http::bind(&config).map_err(|error| Fatal::new(Verdict::Configuration, error.to_string()))?;
    let booted = boot::boot(&config, rand::random()).await?;
    if let Some(TornTail { path, offset, bytes }) = &booted.recovery.torn_tail {
        let path = path.display();
        warn!(%path, offset, bytes, "a crash cut off the log's last write; it is dropped, nobody was told of it");
    }
    let metrics = Arc::new(Metrics::new(config.extensive_metrics, config.warning_apply_duration));
    let mut member = start(&config, booted, peer_listener, &metrics)?;
    let api = Api::new(member.handle.clone(), Options::new(&config), metrics);
    let serving = doors.open(api);
    info!(
        member = %format!("{:x}", member.identity.member.0),
        cluster = %format!("{:x}", member.identity.cluster.0),
        "ready to serve client requests"
    );
    let outcome = tokio::select! {
        () = stop_signal() => Ok(()),
        Some(fatal) = member.failures.recv() => Err(fatal),
        Ok(_) = member.removed.wait_for(|removed| *removed) => Err(Fatal::new(
            Verdict::Removed,
            "this member was removed from the cluster; add it anew, with an empty data directory, if it is still wanted",
        )),
    };
    match outcome {
        Ok(()) => {
            serving.unready();
            tokio::time::sleep(config.drain_delay).await;
            member.hand_over().await;
            if !serving.close(limits::CLOSE_GRACE).await {
                warn!("some calls did not finish in time and were cut");
            }
            member.stop()
        }
        // The state may be unusable: nothing more is written.
        Err(fatal) => Err(fatal),
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

/// Starts every thread and task but the client listeners.
fn start(
    config: &Config,
    booted: Booted,
    peer_listener: TcpListener,
    metrics: &Metrics,
) -> Result<Member, Fatal> {
    let Booted { recovery, mut machine, term } = booted;
    let Recovery { directory, wal, recovered, .. } = recovery;
    let manifest = directory.manifest();
    let identity = Arc::new(Identity {
        cluster: ClusterId(manifest.cluster.0),
        member: manifest.member,
        incarnation: Incarnation(manifest.incarnation),
        feature_level: FEATURE_LEVEL_KNOWN,
    });
    let life = rand::random_range(1..=u64::MAX);
    let compaction = machine.store_mut().compaction();
    let mut applier = Applier::new(identity.member, life, machine, term);
    let replica = Replica::new(settings(config, &identity, life), recovered, applier.report());

    let (inputs, inputs_rx) = mpsc::channel(limits::INPUTS_MAX);
    let (apply, apply_rx) = ApplySender::channel();
    let (wal_tx, wal_rx) = std_mpsc::channel();
    let (files, files_rx) = std_mpsc::channel();
    let (leadership_tx, leadership) = watch::channel(Leadership::default());
    let (progress_tx, progress) = watch::channel(Vec::new());
    let (wanted_tx, wanted) = watch::channel(None);
    let (removed_tx, removed) = watch::channel(false);
    let (snapshot_tx, snapshot_rx) = mpsc::channel(1);
    let (renewal_tx, renewal_rx) = mpsc::channel(limits::RENEWALS_MAX);
    let requests = Arc::new(Pending::default());
    let reads = Arc::new(Pending::default());
    let membership = Membership::default();
    let directory = Arc::new(Mutex::new(directory));
    let reader = Arc::new(ArcSwap::from_pointee(applier.machine().store().reader()));
    let published = Arc::new(ArcSwap::from_pointee(Published::of(&applier)));
    let events = PeerEvents::new(inputs.clone(), snapshot_tx, removed_tx);
    let runtime = tokio::runtime::Handle::current();

    let mut peers = PeerSet::new(identity.clone(), events.clone(), metrics.peers.clone(), runtime.clone());
    peers.set_members(&applier.members());
    let (threads, failures) = {
        let mut threads = Threads::new();
        let watchdog = Arc::new(DiskWatchdog::new(config.election_timeout));
        let (wal_reader, filler) = (wal.reader(), wal.filler());
        let fetch = threads.fetches(wal_reader, inputs.clone())?;
        let outlets = Outlets {
            peers,
            wal: wal_tx.clone(),
            apply: apply.clone(),
            wanted: wanted_tx,
            fetch: Box::new(move |request| fetch.send(request).unwrap_or_default()),
            requests: requests.clone(),
            reads: reads.clone(),
            leadership: leadership_tx,
            progress: progress_tx,
            watchdog: watchdog.clone(),
        };
        threads.spawn("consensus", move || {
            consensus_loop::run(replica, inputs_rx, outlets);
            Ok(())
        })?;
        let (wal_inputs, wal_metrics) = (inputs.clone(), metrics.disk.clone());
        threads.spawn("wal", move || wal_loop::run(wal, &wal_rx, &wal_inputs, &watchdog, &wal_metrics))?;
        let files_loop = FilesLoop {
            directory: directory.clone(),
            compaction,
            filler,
            wal: wal_tx,
            inputs: inputs.clone(),
            metrics: metrics.disk.clone(),
        };
        threads.spawn("files", move || files_loop.run(&files_rx))?;
        let apply_loop = ApplyLoop {
            applier,
            directory: directory.clone(),
            files,
            inputs: inputs.clone(),
            requests: requests.clone(),
            published: published.clone(),
            reader: reader.clone(),
            membership: membership.clone(),
            send_snapshot: snapshot_sender(&runtime, &identity, &membership, &inputs),
            leadership: leadership.clone(),
            identity: identity.clone(),
            metrics: metrics.apply.clone(),
            since_checkpoint: 0,
        };
        threads.spawn("apply", move || apply_loop::run(apply_loop, &apply_rx))?;
        threads.into_parts()
    };
    let ticking = inputs.clone();
    let ticker = Ticker::start(config.heartbeat_interval, move |elapsed_ms| {
        // Fails only while the process stops.
        ticking.blocking_send(Input::Tick { elapsed_ms }).ok();
    })
    .map_err(thread_fatal)?;

    let handle = Handle::new(Inner {
        identity: identity.clone(),
        life,
        request_timeout: config.request_timeout(),
        inputs: inputs.clone(),
        apply: apply.clone(),
        requests,
        reads,
        published,
        leadership,
        progress,
        reader,
        quota: config.quota_bytes.unwrap_or(0),
        renewals: renewal_tx,
        next_stream: AtomicU64::new(1),
    });
    let mut tasks = JoinSet::new();
    let receiver =
        Receiver { identity: identity.clone(), membership, events, metrics: metrics.peers.clone() };
    tasks.spawn(receiver.run(peer_listener));
    let receiving = Receiving {
        directory,
        disk: Arc::new(FileSystem),
        inputs: inputs.clone(),
        wanted,
        apply: apply.clone(),
        identity: identity.clone(),
    };
    tasks.spawn(receiving.run(snapshot_rx));
    tasks.spawn(renewals::run(handle.clone(), renewal_rx));
    tasks.spawn(publication::run(handle.clone(), publication(config, &identity)));
    tasks.spawn(notify_progress(apply.clone(), config.watch_progress_notify_interval));
    tasks.spawn(revoke_old_pins(handle.clone()));
    if let Some(mode) = config.auto_compaction {
        tasks.spawn(auto_compaction::run(handle.clone(), mode));
    }
    Ok(Member { handle, identity, inputs, apply, ticker, threads, failures, removed, tasks })
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

/// Sends a snapshot on a task of its own.
fn snapshot_sender(
    runtime: &tokio::runtime::Handle,
    identity: &Arc<Identity>,
    membership: &Membership,
    inputs: &mpsc::Sender<Input>,
) -> Box<dyn Fn(crate::peers::snapshot::Outgoing, LogIndex) + Send> {
    let (runtime, identity) = (runtime.clone(), identity.clone());
    let (membership, inputs) = (membership.clone(), inputs.clone());
    Box::new(move |outgoing, index| {
        let addresses = membership.addresses(outgoing.announcement.to);
        runtime.spawn(snapshots::send_one(outgoing, addresses, identity.clone(), inputs.clone(), index));
    })
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
            warn!(revoked, "readers of old revisions took too long; compaction no longer waits for them");
        }
    }
}

/// The threads of a member, and where their failures go.
struct Threads {
    threads: Vec<JoinHandle<()>>,
    failed: mpsc::Sender<Fatal>,
    failures: mpsc::Receiver<Fatal>,
}

impl Threads {
    fn new() -> Self {
        let (failed, failures) = mpsc::channel(8);
        Self { threads: Vec::new(), failed, failures }
    }

    fn spawn(
        &mut self,
        name: &str,
        body: impl FnOnce() -> Result<(), Fatal> + Send + 'static,
    ) -> Result<(), Fatal> {
        let failed = self.failed.clone();
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                if let Err(fatal) = body() {
                    failed.blocking_send(fatal).ok();
                }
            })
            .map_err(thread_fatal)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Reads old entries from the WAL, off the consensus thread.
    fn fetches(
        &mut self,
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

    fn into_parts(self) -> (Vec<JoinHandle<()>>, mpsc::Receiver<Fatal>) {
        (self.threads, self.failures)
    }
}

fn thread_fatal(error: std::io::Error) -> Fatal {
    Fatal::new(Verdict::Failed, format!("cannot start a thread: {error}; raise the limit of processes"))
}

impl Member {
    /// A leader that stops hands leadership over first, so that nobody has to wait for an election (etcd does likewise).
    async fn hand_over(&self) {
        let voters = self.handle.published().members.iter().filter(|member| !member.learner).count();
        if !self.handle.leadership().is_leader || voters < 2 {
            return;
        }
        match self.handle.move_leader(quorate_machine::MemberId(0)).await {
            Ok(()) => info!("handed leadership over"),
            Err(error) => warn!("could not hand leadership over: {error}"),
        }
    }

    /// Ends tasks, then threads in the order in which they feed each other.
    fn stop(mut self) -> Result<(), Fatal> {
        self.tasks.abort_all();
        self.ticker.stop();
        self.apply.send(ApplyInput::Stop);
        drop(self.inputs);
        drop(self.handle);
        drop(self.apply);
        if let Ok(fatal) = self.failures.try_recv() {
            return Err(fatal);
        }
        info!("stopped");
        Ok(())
    }
}
