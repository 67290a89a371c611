//! Reconcile: one pass over one StoreCluster, and when the next one is due.
//!
//! observe → validate → plan → check → execute → report. What is decided is decided in the planner;
//! the shell's own judgement is confined to time: when to look again, and for how long an object
//! whose acts fail is left to reporting.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use quorate_crds::{StoreCluster, StoreClusterStatus};
use quorate_planner::{Apply, Defaults, Desired, Event, GrowthRefusal, Observed, Plan, Violation};

use crate::args::Args;
use crate::cluster_series::Figures;
use crate::error_policy::{Backoffs, ClusterKey, Failed};
use crate::events::{Recorder, Saying};
use crate::execute::{self, Failure, Hands, Progress, World};
use crate::lease::Authority;
use crate::limits;
use crate::metrics::Metrics;
use crate::observe::{self, Children, Contacts, Sight, Silences};
use crate::refusals::Refusals;
use crate::status;
use crate::watches::{Caches, Guarded};
use crate::words;

/// What every reconciliation of this process uses.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) backoffs: Backoffs,
    pub(crate) authority: Authority,
    pub(crate) defaults: Defaults,
    pub(crate) silences: Mutex<Silences>,
    pub(crate) refusals: Mutex<Refusals>,
}

impl Shared {
    async fn observe(&self, cluster: &StoreCluster, children: Children) -> Sight {
        let (silences, refusals) = (&self.silences, &self.refusals);
        observe::observe(cluster, children, silences, refusals, &self.metrics).await
    }

    /// What the API server did not let a claim ask for.
    fn note_refusal(&self, key: &ClusterKey, claim_uid: &str, refusal: GrowthRefusal) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.note(key, claim_uid, refusal);
    }

    /// A cluster is gone: nothing of it stays behind in this process.
    fn forget(&self, key: &ClusterKey) {
        self.backoffs.succeeded(key);
        self.silences.lock().unwrap_or_else(PoisonError::into_inner).forget(key);
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).forget(key);
        self.metrics.forget(key);
        self.metrics.backing_off(self.backoffs.count());
    }

    /// Counts a failure of a cluster.
    fn failed(&self, key: &ClusterKey) -> Failed {
        let failed = self.backoffs.failed(key, rand::random(), Instant::now());
        self.metrics.backing_off(self.backoffs.count());
        failed
    }

    /// Forgets the failures of a cluster.
    fn succeeded(&self, key: &ClusterKey) {
        self.backoffs.succeeded(key);
        self.metrics.backing_off(self.backoffs.count());
    }
}

/// What the reconciliations of one scope use.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) caches: Caches,
}

/// What the flags say about every cluster.
pub(crate) fn defaults(args: &Args) -> Defaults {
    Defaults { image_repository: args.store_image_repository.clone() }
}

/// Why a pass could not even plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The object is of a schema that this version does not know.
    #[error(
        "the StoreCluster cannot be decoded ({0}): it is left alone until it changes; is the \
         operator older than the resource definitions?"
    )]
    Undecodable(String),
    /// The API server does not give the object.
    #[error(transparent)]
    Unread(Failure),
    /// The planner contradicts itself.
    #[error("a plan was refused, which is a bug of the operator; nothing was done ({0})")]
    Violation(#[from] Violation),
}

impl Error {
    fn word(&self) -> &'static str {
        match self {
            Error::Undecodable(_) => "undecodable",
            Error::Unread(_) => "unread",
            Error::Violation(_) => "violation",
        }
    }
}

/// One pass. kube runs it in a span that names the object.
pub(crate) async fn reconcile(
    guarded: Arc<Guarded>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let begun = Instant::now();
    let _running = context.shared.metrics.begin();
    let result = pass(&guarded, &context).await;
    let (outcome, action) = match result {
        Ok((outcome, look_again)) => (outcome, Ok(Action::requeue(look_again))),
        Err(error) => (error.word(), Err(error)),
    };
    context.shared.metrics.reconciled(outcome, begun.elapsed());
    action
}

async fn pass(guarded: &Guarded, context: &Context) -> Result<(&'static str, Duration), Error> {
    let shared = &context.shared;
    let cluster = match &guarded.0 {
        Ok(cluster) => cluster,
        Err(invalid) => {
            let error = Error::Undecodable(invalid.error.clone());
            shared.metrics.cannot_decode(&key(guarded));
            let note = error.to_string();
            let saying = Saying { warning: true, reason: "Undecodable", note: &note };
            shared.recorder.tell(guarded, saying).await;
            return Err(error);
        }
    };
    let key = key(guarded);
    if !context.caches.unfilled().is_empty() {
        return Ok(("filling", limits::REQUEUE_SHORTEST));
    }

    // NB: the order. The memory in status is read first and past the cache, the children next, the
    // membership last: an older list of members beside a newer memory would look like a removal.
    let api: Api<StoreCluster> = Api::namespaced(shared.client.clone(), &key.0);
    let live = execute::call("read the StoreCluster", api.get_opt(&key.1)).await;
    let cluster = match live.map_err(Error::Unread)? {
        Some(live) if live.uid() == cluster.uid() => live,
        // Deleted, and perhaps made anew: that object has a pass of its own.
        Some(_) | None => return Ok(("gone", limits::REQUEUE_LONGEST)),
    };
    let children = Children::cached(&shared.client, &context.caches, &cluster);
    let children = execute::call("read the children", children).await.map_err(Error::Unread)?;
    let sight = shared.observe(&cluster, children).await;
    let plan = think(&cluster, &sight.observed, &shared.defaults)?;
    shared.metrics.saw(&key, &Figures::of(cluster.spec.replicas, &sight.observed, &plan));
    let look_again = plan.look_again.clamp(limits::REQUEUE_SHORTEST, limits::REQUEUE_LONGEST);
    let may_act = shared.backoffs.may_act(&key, Instant::now());
    let caches = &context.caches;
    let mut world = Pass { shared, caches, key: &key, cluster, contacts: sight.contacts };
    let carried_out = execute::carry_out(plan, may_act, &mut world).await;
    Ok(conclude(shared, &key, &world.cluster, carried_out, may_act, look_again).await)
}

/// validate → plan → check.
fn think(
    cluster: &StoreCluster,
    observed: &Observed,
    defaults: &Defaults,
) -> Result<Plan, Violation> {
    let plan = match Desired::validate(cluster, defaults) {
        Ok(desired) => {
            let plan = quorate_planner::plan(&desired, observed);
            quorate_planner::check(&desired, observed, &plan)?;
            plan
        }
        Err(invalid) => quorate_planner::plan_invalid(&invalid, observed),
    };
    let reasons: BTreeSet<&str> =
        plan.waiting.iter().map(|waiting| waiting.reason.as_str()).collect();
    tracing::debug!(
        objects = plan.objects.len(),
        actions = plan.actions.len(),
        waiting = ?reasons,
        "planned"
    );
    Ok(plan)
}

/// What the outcome of a pass means for the next one.
async fn conclude(
    shared: &Shared,
    key: &ClusterKey,
    cluster: &StoreCluster,
    carried_out: Result<Progress, Failure>,
    may_act: bool,
    look_again: Duration,
) -> (&'static str, Duration) {
    let soon = limits::REQUEUE_AFTER_ACTION.min(look_again);
    match carried_out {
        Ok(progress) => {
            if may_act {
                shared.succeeded(key);
            }
            match progress {
                Progress::Settled => ("settled", look_again),
                Progress::Reported => ("reported", look_again),
                Progress::Acted => ("acted", soon),
                Progress::Unconfirmed => ("unconfirmed", soon),
            }
        }
        Err(Failure::Stale { step, detail }) => {
            tracing::debug!(step, detail, "looking again");
            ("stale", soon)
        }
        Err(failure @ Failure::Refused { .. }) => {
            tracing::info!(%failure, "a member refuses for now");
            ("refused", look_again)
        }
        Err(failure @ Failure::Withheld { .. }) => {
            tracing::info!(%failure, "the budget lets nobody go for now");
            ("withheld", look_again)
        }
        Err(failure @ (Failure::Silent { .. } | Failure::Api { .. } | Failure::Denied { .. })) => {
            let failed = shared.failed(key);
            tracing::warn!(%failure, retry_in = ?failed.delay, "a step failed");
            // Once is an accident (a cache that was behind); twice is worth a person's attention.
            if failed.in_a_row >= 2 {
                let note = failure.to_string();
                let saying = Saying { warning: true, reason: "StepFailed", note: &note };
                shared.recorder.tell(cluster, saying).await;
            }
            ("failed", look_again.min(failed.delay))
        }
    }
}

/// The world as one pass acts upon it.
struct Pass<'a> {
    shared: &'a Shared,
    caches: &'a Caches,
    key: &'a ClusterKey,
    /// As last read or written: its resourceVersion is the precondition of the next status write.
    cluster: StoreCluster,
    contacts: Contacts,
}

impl Pass<'_> {
    fn api(&self) -> Api<StoreCluster> {
        Api::namespaced(self.shared.client.clone(), &self.key.0)
    }

    /// Nothing is written by a process whose Lease has run out, even if it has not noticed yet.
    fn authorised(&self, step: &str) -> Result<(), Failure> {
        if self.shared.authority.holds() {
            return Ok(());
        }
        let detail = "the lease has run out".to_owned();
        Err(Failure::Stale { step: step.to_owned(), detail })
    }

    fn hands<'b>(&'b self, uid: &'b str) -> Hands<'b> {
        Hands {
            client: &self.shared.client,
            namespace: &self.key.0,
            name: &self.key.1,
            uid,
            contacts: &self.contacts,
        }
    }

    /// Looks past the caches and plans again. `None` when the cluster is not there any more.
    async fn plan_again(&mut self) -> Result<Option<Plan>, Failure> {
        const STEP: &str = "observe again";
        let uid = self.cluster.uid();
        let live = execute::call(STEP, self.api().get_opt(&self.key.1)).await?;
        let Some(cluster) = live.filter(|cluster| cluster.uid() == uid) else { return Ok(None) };
        let children = Children::live(&self.shared.client, self.caches, &cluster);
        let children = execute::call(STEP, children).await?;
        let sight = self.shared.observe(&cluster, children).await;
        self.contacts = sight.contacts;
        let planned = think(&cluster, &sight.observed, &self.shared.defaults);
        self.cluster = cluster;
        match planned {
            Ok(plan) => Ok(Some(plan)),
            Err(violation) => {
                tracing::error!(%violation, "the second plan was refused, which is a bug");
                Ok(None)
            }
        }
    }
}

impl World for Pass<'_> {
    async fn write_status(&mut self, next: StoreClusterStatus) -> Result<(), Failure> {
        self.authorised("write status")?;
        let api = self.api();
        let write = status::write(&api, &self.cluster, next.clone());
        self.cluster = execute::call("write status", write).await?;
        if !status::is_kept(&next, self.cluster.status.as_ref()) {
            let note = "the API server dropped a part of the status, because its resource \
                        definitions are older than the operator: apply those of the operator's \
                        chart (kubectl apply --server-side -f crds/)";
            tracing::warn!("{note}");
            let saying = Saying { warning: true, reason: "DefinitionsOutdated", note };
            self.shared.recorder.tell(&self.cluster, saying).await;
        }
        Ok(())
    }

    async fn tell(&mut self, event: &Event) {
        tracing::info!(reason = event.reason, "{}", event.message);
        let Event { warning, reason, message } = event;
        let saying = Saying { warning: *warning, reason, note: message };
        self.shared.recorder.tell(&self.cluster, saying).await;
    }

    async fn apply(&mut self, apply: &Apply) -> Result<(), Failure> {
        let (kind, name) = (apply.object.kind(), apply.object.name());
        self.authorised(name)?;
        tracing::info!(kind, name, "applying");
        let uid = self.cluster.uid().unwrap_or_default();
        let result = self.hands(&uid).apply(apply).await;
        self.shared.metrics.acted("Apply", result.is_ok());
        result
    }

    async fn confirm(&mut self, action: &quorate_planner::Action) -> Result<bool, Failure> {
        let Some(again) = self.plan_again().await? else { return Ok(false) };
        if !execute::still_planned(action, &again) {
            tracing::info!(%action, "a second look does not confirm the action");
            return Ok(false);
        }
        // What the second look adds to the memory is written before the act, as ever.
        if let Some(next) = again.status {
            self.write_status(next).await?;
        }
        for event in &again.events {
            self.tell(event).await;
        }
        Ok(true)
    }

    async fn act(&mut self, action: &quorate_planner::Action) -> Result<(), Failure> {
        self.authorised(execute::word(action))?;
        tracing::info!(%action, "acting");
        let uid = self.cluster.uid().unwrap_or_default();
        let result = self.hands(&uid).act(action).await;
        self.shared.metrics.acted(execute::word(action), result.is_ok());
        match (action, result) {
            // An answer and no failure: the next plan reads it.
            (
                quorate_planner::Action::GrowClaim { claim, size },
                Err(Failure::Denied { detail, .. }),
            ) => {
                tracing::info!(%action, detail, "the API server does not let it grow");
                let refusal =
                    GrowthRefusal { size: size.clone(), at: Timestamp::now(), words: detail };
                self.shared.note_refusal(self.key, &claim.uid, refusal);
                Ok(())
            }
            (_, result) => result,
        }
    }
}

/// When a pass that failed is tried again.
#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
pub(crate) fn error_policy(guarded: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    match error {
        Error::Undecodable(_) => Action::await_change(),
        Error::Unread(_) | Error::Violation(_) => {
            Action::requeue(context.shared.failed(&key(&guarded)).delay)
        }
    }
}

/// Handles what the controller says about a finished pass: everything, or failures would vanish.
pub(crate) fn note(
    shared: &Shared,
    item: Result<(ObjectRef<Guarded>, Action), controller::Error<Error, watcher::Error>>,
) {
    match item {
        Ok(_) => {}
        Err(controller::Error::ObjectNotFound(gone)) => {
            shared.forget(&(gone.namespace.clone().unwrap_or_default(), gone.name.clone()));
        }
        Err(controller::Error::ReconcilerFailed(error @ Error::Violation(_), cluster)) => {
            tracing::error!(%cluster, "{error}");
        }
        Err(controller::Error::ReconcilerFailed(error, cluster)) => {
            tracing::warn!(%cluster, "{error}");
        }
        Err(controller::Error::QueueError(error)) => {
            let error = words::of_watch(&error);
            tracing::warn!(kind = "StoreCluster", error, "a watch failed and begins again");
        }
        Err(controller::Error::RunnerError(error)) => {
            tracing::warn!(%error, "the controller's queue failed");
        }
    }
}

fn key(guarded: &Guarded) -> ClusterKey {
    (guarded.namespace().unwrap_or_default(), guarded.name_any())
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// What an operator asked of its API server: method, path.
    type Asked = Arc<Mutex<Vec<(String, String)>>>;

    /// A context whose API server takes everything and knows nothing.
    fn context() -> (Arc<Context>, Asked) {
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let line = (request.method().to_string(), request.uri().path().to_owned());
            let status = if line.0 == "GET" { 404 } else { 201 };
            log.lock().unwrap().push(line);
            let nothing = json!({"kind": "Status", "status": "Failure", "reason": "NotFound",
                "code": 404, "message": "nothing is here"});
            let body = Body::from(nothing.to_string().into_bytes());
            async move { Response::builder().status(status).body(body) }
        });
        let client = Client::new(service, "default");
        let (caches, _triggers) = Caches::watch(&client, None);
        let shared = Shared {
            client: client.clone(),
            recorder: Recorder::new(client, "test".into()),
            metrics: Arc::new(Metrics::new()),
            backoffs: Backoffs::default(),
            authority: Authority::unlimited(),
            defaults: Defaults { image_repository: "quorate".into() },
            silences: Mutex::default(),
            refusals: Mutex::default(),
        };
        (Arc::new(Context { shared: Arc::new(shared), caches }), asked)
    }

    fn guarded(name: &str, replicas: &Value) -> Arc<Guarded> {
        let object = json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "StoreCluster",
            "metadata": {"name": name, "namespace": "ns", "uid": "u"},
            "spec": {"replicas": replicas, "version": "0.1.0", "storage": {"size": "8Gi"}},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[tokio::test]
    async fn an_undecodable_cluster_is_told_and_counted_and_stops_no_other() {
        let (context, asked) = context();
        let bad = guarded("bad", &json!("many"));
        let error = reconcile(Arc::clone(&bad), Arc::clone(&context)).await.unwrap_err();
        assert!(error.to_string().contains("is the operator older"), "{error}");
        let said = asked.lock().unwrap().clone();
        let events = "/apis/events.k8s.io/v1/namespaces/ns/events";
        assert_eq!(said, [("POST".to_owned(), events.to_owned())]);
        let action = error_policy(bad, &error, Arc::clone(&context));
        assert_eq!(action, Action::await_change(), "it is tried again although nothing changed");
        let page = context.shared.metrics.text().unwrap();
        for line in [
            "quorate_operator_cluster_undecodable{namespace=\"ns\",name=\"bad\"} 1",
            "quorate_operator_reconciliations_total{outcome=\"undecodable\"} 1",
            "quorate_operator_clusters_backing_off 0",
        ] {
            assert!(page.lines().any(|have| have == line), "no line `{line}` in\n{page}");
        }
        // The next one is read, and found to be gone.
        let next = reconcile(guarded("good", &json!(3)), Arc::clone(&context)).await.unwrap();
        assert_eq!(next, Action::requeue(limits::REQUEUE_LONGEST));
        assert!(context.shared.metrics.text().unwrap().contains("outcome=\"gone\"} 1"));
        let gone = ObjectRef::<Guarded>::new("bad").within("ns").erase();
        note(&context.shared, Err(controller::Error::ObjectNotFound(Box::new(gone))));
        assert!(
            !context.shared.metrics.text().unwrap().contains("\"bad\""),
            "gone, and still counted"
        );
    }

    #[test]
    fn a_list_with_an_undecodable_cluster_has_all_the_others() {
        let list = json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "StoreClusterList", "metadata": {},
            "items": [*guarded("a", &json!(3)).0.as_ref().unwrap(), {
                "metadata": {"name": "bad", "namespace": "ns"}, "spec": {"replicas": "many"},
            }],
        });
        let list: kube::core::ObjectList<Guarded> = serde_json::from_value(list).unwrap();
        let decoded: Vec<bool> = list.items.iter().map(|item| item.0.is_ok()).collect();
        assert_eq!(decoded, [true, false]);
    }

    #[tokio::test]
    async fn failures_of_one_cluster_are_counted_until_it_succeeds() {
        let (context, _asked) = context();
        let shared = &context.shared;
        let (sick, other) = (("ns".to_owned(), "a".to_owned()), ("ns".to_owned(), "b".to_owned()));
        let first = shared.failed(&sick).delay;
        assert!(first >= limits::BACKOFF_FIRST / 2 && first <= limits::BACKOFF_FIRST);
        assert!(!shared.backoffs.may_act(&sick, Instant::now()));
        assert!(shared.backoffs.may_act(&other, Instant::now()), "another one waits too");
        let page = |shared: &Shared| shared.metrics.text().unwrap();
        assert!(page(shared).contains("clusters_backing_off 1"));
        shared.succeeded(&sick);
        assert!(page(shared).contains("clusters_backing_off 0"));
    }
}
