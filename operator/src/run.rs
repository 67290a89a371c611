//! Wiring: starts the long-lived tasks, waits for the first that ends, shuts down in order.
//!
//! ```text
//!  signals ──────┐                          ┌─ Signalled → stop the controllers, start the grace
//!  /healthz page ┤                          ├─ PageEnded → fail
//!  /metrics page ┼─► one set of tasks, one ─┼─ Leads     → start renewal and controllers
//!  lease ────────┤   loop                   ├─ Lost      → fail at once, write nothing more
//!  controllers ──┤                          ├─ Stopped   → release the lease, end
//!  grace timer ──┘                          └─ GraceOver → end; the lease expires by itself
//! ```
//!
//! The Lease is released only after the controllers have stopped: whoever takes it next must be
//! the only one that writes. When it is lost, the process ends without waiting for anything.
//!
//! # The room
//!
//! This package is the shell around the planner: it fetches what the planner sees, does what the
//! planner says, and decides nothing about a cluster. The path of one pass is
//! `watches` (what changed) → `reconcile` (the pass) → `observe` (caches, members) → the planner →
//! `execute` (the order and the preconditions) → `status`. Around it stand `lease` (who may act),
//! `error_policy` (when to try again), `admin`, `metrics` and `cluster_series` (what people see), `store_client` (the
//! only file that speaks to members).
//!
//! # What it does not know
//!
//! What a quorum is, which objects a cluster has, what a step means for the next. There is no plan
//! in memory between two passes: every step is recognisable from the cluster's own state, so an
//! operator that is killed anywhere is continued by the next one. The only memory is since when a
//! member is silent, how often an object failed and which claims may not grow; forgetting the first
//! two makes the operator patient, forgetting the last makes it ask once more.
//!
//! # What it holds to
//!
//! * A write is a server-side apply under one field manager, or carries the UID and resourceVersion
//!   that it was planned on. The status is written before the act that it announces.
//! * What cannot be taken back is observed a second time past the caches and planned again, and is
//!   done only if the same action comes out (INV-O2's other half: `check` saw what `plan` saw).
//! * Failing to observe is an observation. A cluster whose acts fail backs off from acting, not
//!   from being looked at.
//! * Every request has a deadline, every queue a bound (`limits`). One object that cannot be
//!   decoded or reconciled delays no other.
//!
//! # What was left out
//!
//! Webhooks (what can be refused at admission is refused by CEL) and TLS towards members (it comes
//! with certificates).

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use futures::future::join_all;
use futures::stream::StreamExt as _;
use kube::client::ClientBuilder;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{self, Readiness};
use crate::args::Args;
use crate::error_policy::Backoffs;
use crate::events::Recorder;
use crate::lease::{Authority, Candidate, Lost, Periods};
use crate::limits;
use crate::metrics::Metrics;
use crate::reconcile::{self, Context, Shared};
use crate::watches::{self, Caches, Guarded};

/// The name under which the operator writes.
pub(crate) const OPERATOR: &str = "quorate-operator";

/// Everything that can wake the main loop: the end of one of its tasks.
enum Wake {
    Signalled(&'static str),
    PageEnded(anyhow::Result<()>),
    /// This process may act; with the candidate that holds the Lease, if there is one.
    Leads(Option<Box<Candidate>>),
    Lost(Lost),
    Stopped,
    GraceOver,
}

/// The process from start to end.
///
/// # Errors
///
/// When it cannot start, when a part ends that should not, or when the Lease is lost.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = connect(&args).await?;
    let identity = args.identity();
    let metrics = Arc::new(Metrics::new());
    let fleet = Arc::new(Fleet::default());
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();

    start_signals(&mut tasks)?;
    start_pages(&mut tasks, &args, &metrics, &fleet, &stopping);
    let campaign = Campaign::new(&args, &client, &identity)?;
    campaign.start(&mut tasks);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %identity, "operator started");

    let mut leading = false;
    while let Some(ended) = tasks.join_next().await {
        match ended.context("a task of the operator panicked")? {
            Wake::Leads(candidate) => {
                leading = true;
                metrics.leads(true);
                let authority = candidate
                    .as_ref()
                    .map_or_else(Authority::unlimited, |candidate| candidate.authority());
                if let Some(mut candidate) = candidate {
                    tasks.spawn(async move { Wake::Lost(candidate.hold().await) });
                }
                let shared = share(&args, &client, &identity, &metrics, authority);
                fleet.start(&mut tasks, &args, &client, &shared, &stopping);
            }
            Wake::Lost(lost) => {
                metrics.leads(false);
                return Err(lost.into());
            }
            Wake::PageEnded(Ok(())) => {}
            Wake::PageEnded(Err(error)) => return Err(error),
            Wake::Signalled(_) if !leading => return Ok(()),
            Wake::Signalled(name) => {
                tracing::info!(signal = name, "stopping");
                stop.send_replace(true);
                tasks.spawn(async {
                    tokio::time::sleep(limits::SHUTDOWN_GRACE).await;
                    Wake::GraceOver
                });
            }
            Wake::Stopped if *stop.borrow() => {
                campaign.release().await;
                return Ok(());
            }
            Wake::Stopped => bail!("a controller ended by itself: restart the operator"),
            Wake::GraceOver => {
                tracing::warn!("reconciliations did not finish in time and are abandoned");
                return Ok(());
            }
        }
    }
    bail!("every task of the operator ended: restart it")
}

/// A client for the API server that the flags name.
async fn connect(args: &Args) -> anyhow::Result<Client> {
    let config = match &args.kubeconfig {
        None => Config::infer().await.context("find an API server: give --kubeconfig")?,
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path)
                .with_context(|| format!("read kubeconfig {}", path.display()))?;
            let options = kube::config::KubeConfigOptions {
                context: args.context.clone(),
                ..kube::config::KubeConfigOptions::default()
            };
            Config::from_custom_kubeconfig(file, &options)
                .await
                .with_context(|| format!("use kubeconfig {}", path.display()))?
        }
    };
    let client = ClientBuilder::try_from(config).context("make a client for the API server")?;
    #[cfg(feature = "drill")]
    let client = client
        .with_layer(&crate::crash_points::ApiWrites)
        .with_layer(&crate::late_watches::LateWatches::from_environment());
    Ok(client.build())
}

fn start_signals(tasks: &mut JoinSet<Wake>) -> anyhow::Result<()> {
    for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")]
    {
        let mut arrivals = signal(kind).with_context(|| format!("listen for {name}"))?;
        tasks.spawn(async move {
            arrivals.recv().await;
            Wake::Signalled(name)
        });
    }
    Ok(())
}

fn start_pages(
    tasks: &mut JoinSet<Wake>,
    args: &Args,
    metrics: &Arc<Metrics>,
    fleet: &Arc<Fleet>,
    stopping: &watch::Receiver<bool>,
) {
    let (bind, readiness) = (args.health_bind, Arc::clone(fleet));
    let until = until_true(stopping.clone());
    tasks.spawn(async move { Wake::PageEnded(admin::serve_health(bind, readiness, until).await) });
    let (bind, metrics) = (args.metrics_bind, Arc::clone(metrics));
    let until = until_true(stopping.clone());
    tasks.spawn(async move { Wake::PageEnded(admin::serve_metrics(bind, metrics, until).await) });
}

async fn until_true(mut flag: watch::Receiver<bool>) {
    // An error means that the sender is gone, and then the process is ending too.
    let _ = flag.wait_for(|set| *set).await;
}

/// What every reconciliation of this process uses.
fn share(
    args: &Args,
    client: &Client,
    identity: &str,
    metrics: &Arc<Metrics>,
    authority: Authority,
) -> Arc<Shared> {
    Arc::new(Shared {
        client: client.clone(),
        recorder: Recorder::new(client.clone(), identity.to_owned()),
        metrics: Arc::clone(metrics),
        backoffs: Backoffs::default(),
        authority,
        defaults: reconcile::defaults(args),
        silences: Mutex::default(),
        refusals: Mutex::default(),
    })
}

/// Who may act: the candidate for the Lease, or everybody when leader election is off.
struct Campaign {
    lease: Option<LeaseName>,
    client: Client,
    identity: String,
}

struct LeaseName {
    namespace: String,
    name: String,
}

impl Campaign {
    fn new(args: &Args, client: &Client, identity: &str) -> anyhow::Result<Self> {
        let lease = if args.leader_elect {
            Some(LeaseName { namespace: args.lease_namespace()?, name: args.lease_name.clone() })
        } else {
            None
        };
        Ok(Campaign { lease, client: client.clone(), identity: identity.to_owned() })
    }

    fn candidate(&self) -> Option<Candidate> {
        let LeaseName { namespace, name } = self.lease.as_ref()?;
        let identity = self.identity.clone();
        Some(Candidate::new(self.client.clone(), namespace, name, identity, Periods::DEFAULT))
    }

    /// Wakes the loop once this process may act.
    fn start(&self, tasks: &mut JoinSet<Wake>) {
        let candidate = self.candidate().map(Box::new);
        tasks.spawn(async move {
            match candidate {
                None => Wake::Leads(None),
                Some(mut candidate) => {
                    candidate.acquire().await;
                    Wake::Leads(Some(candidate))
                }
            }
        });
    }

    async fn release(&self) {
        if let Some(mut candidate) = self.candidate() {
            candidate.release().await;
        }
    }
}

/// The controllers of this process, one for each served scope, and what the probes say of them.
#[derive(Default)]
struct Fleet {
    served: Mutex<Vec<Served>>,
}

/// One served scope.
struct Served {
    clusters: Store<Guarded>,
    children: Caches,
}

impl Served {
    fn unfilled(&self) -> Vec<&'static str> {
        let mut kinds = self.children.unfilled();
        if !watches::filled(&self.clusters) {
            kinds.push("storeclusters");
        }
        kinds
    }
}

impl Fleet {
    fn start(
        &self,
        tasks: &mut JoinSet<Wake>,
        args: &Args,
        client: &Client,
        shared: &Arc<Shared>,
        stopping: &watch::Receiver<bool>,
    ) {
        let mut controllers = Vec::new();
        let scopes = args.scopes();
        shared.metrics.bounded(scopes.len() * usize::from(args.concurrency));
        for scope in scopes {
            let (caches, triggers) = Caches::watch(client, scope.as_deref());
            let clusters = watches::scoped::<Guarded>(client, scope.as_deref());
            let bounds = controller::Config::default()
                .concurrency(args.concurrency)
                .debounce(limits::DEBOUNCE);
            let controller = Controller::new(clusters, watcher::Config::default());
            let served = Served { clusters: controller.store(), children: caches.clone() };
            self.served.lock().unwrap_or_else(PoisonError::into_inner).push(served);
            let context = Arc::new(Context { shared: Arc::clone(shared), caches });
            let items = controller
                .with_config(bounds)
                .reconcile_on(triggers)
                .graceful_shutdown_on(until_true(stopping.clone()))
                .run(reconcile::reconcile, reconcile::error_policy, Arc::clone(&context));
            controllers.push(items.for_each(move |item| {
                reconcile::note(&context.shared, item);
                std::future::ready(())
            }));
        }
        tasks.spawn(async move {
            join_all(controllers).await;
            Wake::Stopped
        });
    }
}

impl Readiness for Fleet {
    fn waiting_for(&self) -> Vec<String> {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.iter().flat_map(Served::unfilled).map(str::to_owned).collect()
    }
}
