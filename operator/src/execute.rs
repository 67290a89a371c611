//! Execute: carries out a plan in its order, each step under the precondition that it was planned on.
//!
//! ```text
//! status ──► events ──► objects ──► actions (each that needs it: confirm first)
//!   │ conflict             │ failure     │ failure, refusal, not confirmed
//!   └──────────────────────┴─────────────┴──► stop; the next observation starts anew
//! ```
//!
//! [`carry_out`] is the order and knows no client; [`Hands`] are the clients and know no order.
//!
//! Objects are applied server-side with one field manager. Where the plan expects none, a look comes
//! first, and the apply goes without force: an object of somebody else makes it fail instead of
//! being taken over. Creating by POST would be the stricter guard and is not used on
//! declarative objects, because the API server would note our fields under operation `Update`, and
//! a later apply that no longer names a field could never remove it. Claims and Jobs are created
//! once and never applied; they are POSTed.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    self as meta, DeleteOptions, ObjectMeta, Status,
};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt as _};
use quorate_crds::names::FINALIZER;
use quorate_crds::{StoreCluster, StoreClusterStatus};
use quorate_planner::{Action, Apply, Event, Exactly, Expect, Object, Plan};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits;
use crate::observe::Contacts;
use crate::run::OPERATOR;
use crate::store_client::{AskError, StoreClient};
use crate::words;

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The world is not what the plan was made on any more: look again. Happens in good health.
    #[error("{step}: the world has changed since it was planned ({detail})")]
    Stale {
        /// What was to be done.
        step: String,
        /// What the API server said.
        detail: String,
    },
    /// A member said no; the reason may pass by itself (a learner that lags).
    #[error("{step}: {source}")]
    Refused {
        /// What was to be done.
        step: String,
        /// Its answer.
        source: AskError,
    },
    /// No member could be asked, or the one asked fell silent.
    #[error("{step}: {detail}")]
    Silent {
        /// What was to be done.
        step: String,
        /// Why nobody answered.
        detail: String,
    },
    /// The disruption budget does not allow an eviction now: somebody else has taken a voter, or one
    /// is not ready. Happens in good health.
    #[error("{step}: the disruption budget does not allow it now ({detail})")]
    Withheld {
        /// What was to be done.
        step: String,
        /// What the API server said.
        detail: String,
    },
    /// The API server does not let a claim grow, for a reason that is not ours to remove.
    #[error("{step}: {detail}")]
    Denied {
        /// What was to be done.
        step: String,
        /// What it said.
        detail: String,
    },
    /// The API server refused, or did not answer.
    #[error("{step}: {detail}")]
    Api {
        /// What was to be done.
        step: String,
        /// What it said.
        detail: String,
    },
}

/// How far a plan was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There was nothing to do.
    Settled,
    /// The status was written, and nothing else was to be done or allowed.
    Reported,
    /// Objects or actions were carried out, all of them.
    Acted,
    /// A live look did not confirm an action: it and what follows was left alone.
    Unconfirmed,
}

/// What carrying out a plan needs of the world.
pub(crate) trait World: Send {
    /// Writes the status under the resourceVersion that was observed.
    fn write_status(
        &mut self,
        status: StoreClusterStatus,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Publishes an event, best effort.
    fn tell(&mut self, event: &Event) -> impl Future<Output = ()> + Send;
    /// Makes a declarative child as planned.
    fn apply(&mut self, apply: &Apply) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Whether a live observation, planned again, asks for the same action.
    fn confirm(&mut self, action: &Action) -> impl Future<Output = Result<bool, Failure>> + Send;
    /// Does one step.
    fn act(&mut self, action: &Action) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Carries out a plan. With `may_act` false (the object is backing off after a failure) it only
/// reports: status tells the truth however often the acts fail.
pub(crate) async fn carry_out(
    plan: Plan,
    may_act: bool,
    world: &mut impl World,
) -> Result<Progress, Failure> {
    let Plan { status, objects, actions, waiting: _, events, look_again: _ } = plan;
    let mut progress = Progress::Settled;
    if let Some(status) = status {
        world.write_status(status).await?;
        progress = Progress::Reported;
    }
    for event in &events {
        world.tell(event).await;
    }
    if !may_act {
        return Ok(progress);
    }
    for object in &objects {
        world.apply(object).await?;
        progress = Progress::Acted;
    }
    for action in &actions {
        if action.needs_confirmation() && !world.confirm(action).await? {
            return Ok(Progress::Unconfirmed);
        }
        world.act(action).await?;
        progress = Progress::Acted;
    }
    Ok(progress)
}

/// Whether a second plan, made on a live observation, still asks for `action`: at the first place
/// if it is disruptive (it is then the only one), anywhere otherwise.
pub(crate) fn still_planned(action: &Action, again: &Plan) -> bool {
    if action.is_disruptive() {
        again.actions.first() == Some(action)
    } else {
        again.actions.contains(action)
    }
}

/// The word of an action in metrics: its variant.
pub(crate) fn word(action: &Action) -> &'static str {
    match action {
        Action::AddFinalizer { .. } => "AddFinalizer",
        Action::RemoveFinalizer { .. } => "RemoveFinalizer",
        Action::CreateClaim(_) => "CreateClaim",
        Action::AnnotateClaim { .. } => "AnnotateClaim",
        Action::GrowClaim { .. } => "GrowClaim",
        Action::DeleteClaim(_) => "DeleteClaim",
        Action::CreateJob(_) => "CreateJob",
        Action::DeleteJob(_) => "DeleteJob",
        Action::LabelPod { .. } => "LabelPod",
        Action::RestartPod { .. } => "RestartPod",
        Action::StopMember { .. } => "StopMember",
        Action::DeletePod(_) => "DeletePod",
        Action::DisarmAlarm { .. } => "DisarmAlarm",
        Action::DeleteStatefulSet(_) => "DeleteStatefulSet",
        Action::DeleteBudget(_) => "DeleteBudget",
        Action::AddLearner { .. } => "AddLearner",
        Action::Promote { .. } => "Promote",
        Action::MoveLeader { .. } => "MoveLeader",
        Action::RemoveMember { .. } => "RemoveMember",
    }
}

/// The clients with which the steps for one cluster are done.
pub(crate) struct Hands<'a> {
    /// For the API server.
    pub(crate) client: &'a Client,
    /// Namespace of the cluster and all its children.
    pub(crate) namespace: &'a str,
    /// Name of the cluster.
    pub(crate) name: &'a str,
    /// UID of the cluster.
    pub(crate) uid: &'a str,
    /// The members that can be asked.
    pub(crate) contacts: &'a Contacts,
}

impl Hands<'_> {
    /// Applies a declarative child under its expectation.
    pub(crate) async fn apply(&self, apply: &Apply) -> Result<(), Failure> {
        let step = format!("apply {} {}", apply.object.kind(), apply.object.name());
        match &apply.object {
            Object::Service(service) => self.apply_one(&step, &**service, &apply.expect).await,
            Object::StatefulSet(set) => self.apply_one(&step, &**set, &apply.expect).await,
            Object::PodDisruptionBudget(budget) => {
                self.apply_one(&step, &**budget, &apply.expect).await
            }
        }
    }

    /// Does one step.
    pub(crate) async fn act(&self, action: &Action) -> Result<(), Failure> {
        let step = action.to_string();
        match action {
            Action::AddFinalizer { uid } => self.set_finalizer(&step, uid, true).await,
            Action::RemoveFinalizer { uid } => self.set_finalizer(&step, uid, false).await,
            Action::CreateClaim(claim) => self.create(&step, &**claim).await,
            Action::CreateJob(job) => self.create(&step, &**job).await,
            Action::AnnotateClaim { claim, annotations } => {
                let change = change_of("annotations", annotations);
                self.merge::<PersistentVolumeClaim>(&step, claim, change).await
            }
            Action::GrowClaim { claim, size } => self.grow(&step, claim, size).await,
            Action::LabelPod { pod, labels } => {
                self.merge::<Pod>(&step, pod, change_of("labels", labels)).await
            }
            Action::DeleteClaim(claim) => self.delete::<PersistentVolumeClaim>(&step, claim).await,
            Action::DeleteJob(job) => self.delete::<Job>(&step, job).await,
            Action::DeleteStatefulSet(set) => self.delete::<StatefulSet>(&step, set).await,
            Action::RestartPod { pod, evict: true, .. } => self.evict(&step, pod).await,
            Action::RestartPod { pod, evict: false, .. } | Action::DeletePod(pod) => {
                self.delete::<Pod>(&step, pod).await
            }
            Action::StopMember { set, ordinal: _ } => {
                let change = serde_json::json!({ "metadata": {}, "spec": { "replicas": 0 } });
                self.merge::<StatefulSet>(&step, set, change).await
            }
            Action::DisarmAlarm { id, alarm } => {
                let member = self.somebody(&step)?;
                answered(step, member.disarm(*id, *alarm).await)
            }
            Action::DeleteBudget(budget) => self.delete::<PodDisruptionBudget>(&step, budget).await,
            Action::AddLearner { ordinal: _, peer_url } => {
                let member = self.somebody(&step)?;
                answered(step, member.add_learner(peer_url).await).map(|_| ())
            }
            Action::Promote { id, ordinal: _ } => {
                let member = self.somebody(&step)?;
                answered(step, member.promote(*id).await)
            }
            Action::RemoveMember { id, ordinal: _, voter: _ } => {
                match self.somebody(&step)?.remove(*id).await {
                    // Removed by an earlier attempt whose answer was lost.
                    Err(error) if error.is_not_found() => Ok(()),
                    result => answered(step, result),
                }
            }
            Action::MoveLeader { from: _, from_ordinal, to } => {
                let member = self
                    .contacts
                    .of_ordinal(*from_ordinal)
                    .ok_or_else(|| silent(&step, "the leader does not answer"))?;
                answered(step, member.move_leader(*to).await)
            }
        }
    }

    fn somebody(&self, step: &str) -> Result<&StoreClient, Failure> {
        self.contacts.for_changes().ok_or_else(|| silent(step, "no voter answers"))
    }

    async fn apply_one<K>(&self, step: &str, object: &K, expect: &Expect) -> Result<(), Failure>
    where
        K: Child + Serialize,
    {
        let api: Api<K> = self.api();
        let name = object.name_any();
        let ours = match expect {
            Expect::Present { uid } => Some(uid.clone()),
            Expect::Absent => match call(step, api.get_metadata_opt(&name)).await? {
                Some(found) => Some(self.uid_if_ours(step, &found.metadata)?),
                None => None,
            },
        };
        let manager = PatchParams::apply(OPERATOR);
        let mut object = object.clone();
        let params = if ours.is_some() { manager.force() } else { manager };
        object.meta_mut().uid = ours;
        call(step, api.patch(&name, &params, &Patch::Apply(&object))).await.map(|_| ())
    }

    /// The UID of an object where none was expected, if it is ours: the cache was behind, or
    /// somebody took our label off it. What belongs to somebody else is not taken over.
    fn uid_if_ours(&self, step: &str, found: &ObjectMeta) -> Result<String, Failure> {
        let owners = found.owner_references.as_deref().unwrap_or_default();
        let ours =
            owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == self.uid);
        match &found.uid {
            Some(uid) if ours => Ok(uid.clone()),
            _ => Err(Failure::Api {
                step: step.to_owned(),
                detail: "an object of this name exists and does not belong to the StoreCluster: \
                         delete it, or give the StoreCluster another name"
                    .to_owned(),
            }),
        }
    }

    async fn create<K: Child + Serialize>(&self, step: &str, object: &K) -> Result<(), Failure> {
        let params =
            PostParams { field_manager: Some(OPERATOR.to_owned()), ..PostParams::default() };
        call(step, self.api::<K>().create(&params, object)).await.map(|_| ())
    }

    /// Lets a claim ask for more. What Kubernetes refuses by its own rules is told apart from failures:
    /// the class does not allow it or a quota is used up (403, by admission), or the claim is not bound
    /// (422, by validation).
    async fn grow(&self, step: &str, claim: &Exactly, size: &Quantity) -> Result<(), Failure> {
        let resources = serde_json::json!({ "requests": { "storage": size } });
        let change = serde_json::json!({ "spec": { "resources": resources } });
        match self.patch::<PersistentVolumeClaim>(step, claim, change).await? {
            Ok(()) => Ok(()),
            Err(error) => Err(denied_or(step, &error)),
        }
    }

    async fn merge<K: Child>(
        &self,
        step: &str,
        target: &Exactly,
        change: serde_json::Value,
    ) -> Result<(), Failure> {
        self.patch::<K>(step, target, change).await?.map_err(|error| classify(step, &error))
    }

    /// A merge patch of one very object, and the API server's answer to it.
    async fn patch<K: Child>(
        &self,
        step: &str,
        target: &Exactly,
        mut change: serde_json::Value,
    ) -> Result<Result<(), kube::Error>, Failure> {
        change["metadata"]["uid"] = target.uid.clone().into();
        change["metadata"]["resourceVersion"] = target.resource_version.clone().into();
        let params =
            PatchParams { field_manager: Some(OPERATOR.to_owned()), ..PatchParams::default() };
        let api: Api<K> = self.api();
        let change = Patch::Merge(&change);
        let answer = within(step, api.patch_metadata(&target.name, &params, &change)).await?;
        Ok(answer.map(|_| ()))
    }

    async fn delete<K: Child>(&self, step: &str, target: &Exactly) -> Result<(), Failure> {
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: Some(target.uid.clone()),
            resource_version: Some(target.resource_version.clone()),
        });
        let api: Api<K> = self.api();
        match within(step, api.delete(&target.name, &params)).await? {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(classify(step, &error)),
        }
    }

    /// Asks the disruption budget for a pod. The object is written here: that of `Api::evict` spells
    /// `delete_options`, which the API server passes over, and the preconditions with it.
    async fn evict(&self, step: &str, pod: &Exactly) -> Result<(), Failure> {
        let (api, params): (Api<Pod>, _) = (self.api(), PostParams::default());
        let body = eviction(self.namespace, pod);
        let request = api.create_subresource::<_, Status>("eviction", &pod.name, &params, &body);
        match within(step, request).await? {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(classify(step, &error)),
        }
    }

    /// Adds or removes our finalizer. The list is one value to a merge patch, so the patch carries
    /// the resourceVersion that the list was read at: a finalizer of somebody else is never lost.
    async fn set_finalizer(&self, step: &str, uid: &str, present: bool) -> Result<(), Failure> {
        let api: Api<StoreCluster> = self.api();
        let Some(cluster) = call(step, api.get_metadata_opt(self.name)).await? else {
            return if present { Err(stale(step, "the StoreCluster is gone")) } else { Ok(()) };
        };
        if cluster.metadata.uid.as_deref() != Some(uid) {
            return Err(stale(step, "another StoreCluster has this name now"));
        }
        let mut finalizers = cluster.metadata.finalizers.clone().unwrap_or_default();
        if finalizers.iter().any(|name| name == FINALIZER) == present {
            return Ok(());
        }
        if present {
            finalizers.push(FINALIZER.to_owned());
        } else {
            finalizers.retain(|name| name != FINALIZER);
        }
        let target = Exactly {
            name: self.name.to_owned(),
            uid: uid.to_owned(),
            resource_version: cluster.metadata.resource_version.clone().unwrap_or_default(),
        };
        let change = serde_json::json!({ "metadata": { "finalizers": finalizers } });
        self.merge::<StoreCluster>(step, &target, change).await
    }

    fn api<K: Child>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), self.namespace)
    }
}

/// What all namespaced kinds that the operator writes have in common.
pub(crate) trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + DeserializeOwned
    + Debug
    + Send
    + Sync
{
}

impl<K> Child for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
{
}

/// Makes a request to the API server within its deadline.
pub(crate) async fn call<T>(
    step: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    within(step, request).await?.map_err(|error| classify(step, &error))
}

async fn within<T>(step: &str, request: impl Future<Output = T>) -> Result<T, Failure> {
    const DEADLINE: Duration = limits::API_REQUEST_TIMEOUT;
    tokio::time::timeout(DEADLINE, request).await.map_err(|_| Failure::Api {
        step: step.to_owned(),
        detail: format!("the API server did not answer within {DEADLINE:?}"),
    })
}

/// Tells a precondition that no longer holds from every other refusal.
fn classify(step: &str, error: &kube::Error) -> Failure {
    let (step, detail) = (step.to_owned(), words::of_request(error));
    match error {
        kube::Error::Api(status) if status.is_conflict() => Failure::Stale { step, detail },
        // Of all that is asked here only an eviction is answered so by design; a server that is
        // overrun answers the same and is met with the same patience.
        kube::Error::Api(status) if status.code == TOO_MANY_REQUESTS => {
            Failure::Withheld { step, detail }
        }
        _ => Failure::Api { step, detail },
    }
}

/// As [`classify`], for a claim that asks for more.
fn denied_or(step: &str, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if [FORBIDDEN, UNPROCESSABLE].contains(&status.code) => {
            Failure::Denied { step: step.to_owned(), detail: words::of_request(error) }
        }
        _ => classify(step, error),
    }
}

/// HTTP's code for what admission refuses.
const FORBIDDEN: u16 = 403;

/// HTTP's code for what validation refuses.
const UNPROCESSABLE: u16 = 422;

/// HTTP's code for a disruption budget that is used up.
const TOO_MANY_REQUESTS: u16 = 429;

/// An eviction of this very pod, as `policy/v1` has it.
fn eviction(namespace: &str, pod: &Exactly) -> Eviction {
    Eviction {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            preconditions: Some(meta::Preconditions {
                uid: Some(pod.uid.clone()),
                resource_version: Some(pod.resource_version.clone()),
            }),
            ..DeleteOptions::default()
        }),
    }
}

fn answered<T>(step: String, result: Result<T, AskError>) -> Result<T, Failure> {
    result.map_err(|error| match error {
        AskError::Refused { .. } => Failure::Refused { step, source: error },
        AskError::Unanswered { .. } => Failure::Silent { step, detail: error.to_string() },
    })
}

fn stale(step: &str, detail: &str) -> Failure {
    Failure::Stale { step: step.to_owned(), detail: detail.to_owned() }
}

fn silent(step: &str, detail: &str) -> Failure {
    Failure::Silent { step: step.to_owned(), detail: detail.to_owned() }
}

fn change_of(field: &str, entries: &BTreeMap<String, String>) -> serde_json::Value {
    serde_json::json!({ "metadata": { field: entries } })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    /// Writes down what it is told to do, and fails or denies where it is told to.
    #[derive(Default)]
    struct Recorded {
        done: Vec<String>,
        fails_at: Option<&'static str>,
        unconfirmed: bool,
    }

    impl Recorded {
        fn step(&mut self, step: &str) -> Result<(), Failure> {
            let fails = self.fails_at.is_some_and(|at| step.starts_with(at));
            self.done.push(step.to_owned());
            if fails { Err(stale(step, "told to")) } else { Ok(()) }
        }
    }

    impl World for Recorded {
        async fn write_status(&mut self, status: StoreClusterStatus) -> Result<(), Failure> {
            self.step(&format!("status {:?}", status.next_ordinal))
        }

        async fn tell(&mut self, event: &Event) {
            self.done.push(format!("event {}", event.reason));
        }

        async fn apply(&mut self, apply: &Apply) -> Result<(), Failure> {
            self.step(&format!("apply {}", apply.object.name()))
        }

        async fn confirm(&mut self, action: &Action) -> Result<bool, Failure> {
            self.step(&format!("confirm {}", word(action)))?;
            Ok(!self.unconfirmed)
        }

        async fn act(&mut self, action: &Action) -> Result<(), Failure> {
            self.step(&format!("act {}", word(action)))
        }
    }

    fn service(name: &str) -> Apply {
        let mut service = Service::default();
        service.metadata.name = Some(name.to_owned());
        Apply { object: Object::Service(Box::new(service)), expect: Expect::Absent }
    }

    fn exactly(name: &str) -> Exactly {
        Exactly { name: name.to_owned(), uid: "u".to_owned(), resource_version: "1".to_owned() }
    }

    fn full_plan() -> Plan {
        Plan {
            status: Some(StoreClusterStatus { next_ordinal: Some(4), ..Default::default() }),
            objects: vec![service("peers"), service("client")],
            actions: vec![
                Action::LabelPod { pod: exactly("demo-3-0"), labels: BTreeMap::new() },
                Action::AddLearner { ordinal: 3, peer_url: "http://x:2380".into() },
                Action::AddFinalizer { uid: "u".into() },
            ],
            events: vec![Event { warning: false, reason: "Joining", message: String::new() }],
            ..Plan::default()
        }
    }

    #[tokio::test]
    async fn memory_comes_before_the_act_and_confirmation_before_what_needs_it() {
        let mut world = Recorded::default();
        let progress = carry_out(full_plan(), true, &mut world).await.unwrap();
        assert_eq!(progress, Progress::Acted);
        assert_eq!(
            world.done,
            [
                "status Some(4)",
                "event Joining",
                "apply peers",
                "apply client",
                "act LabelPod",
                "confirm AddLearner",
                "act AddLearner",
                "act AddFinalizer",
            ]
        );
    }

    #[tokio::test]
    async fn nothing_follows_a_step_that_failed() {
        for (at, last) in [
            ("status", "status Some(4)"),
            ("apply peers", "apply peers"),
            ("act LabelPod", "act LabelPod"),
            ("confirm", "confirm AddLearner"),
        ] {
            let mut world = Recorded { fails_at: Some(at), ..Recorded::default() };
            let failure = carry_out(full_plan(), true, &mut world).await.unwrap_err();
            assert!(matches!(failure, Failure::Stale { .. }));
            assert_eq!(world.done.last().unwrap(), last, "failing at {at}");
        }
    }

    #[tokio::test]
    async fn an_unconfirmed_action_is_not_done_nor_what_follows() {
        let mut world = Recorded { unconfirmed: true, ..Recorded::default() };
        let progress = carry_out(full_plan(), true, &mut world).await.unwrap();
        assert_eq!(progress, Progress::Unconfirmed);
        assert_eq!(world.done.last().unwrap(), "confirm AddLearner");
    }

    #[tokio::test]
    async fn an_object_that_backs_off_is_still_reported() {
        let mut world = Recorded::default();
        let progress = carry_out(full_plan(), false, &mut world).await.unwrap();
        assert_eq!(progress, Progress::Reported);
        assert_eq!(world.done, ["status Some(4)", "event Joining"]);
    }

    #[tokio::test]
    async fn an_empty_plan_does_nothing() {
        let mut world = Recorded::default();
        let progress = carry_out(Plan::default(), true, &mut world).await.unwrap();
        assert_eq!((progress, world.done.len()), (Progress::Settled, 0));
    }

    #[test]
    fn a_disruptive_action_must_come_first_again_and_others_anywhere() {
        let remove = Action::RemoveMember { id: 1, ordinal: 2, voter: true };
        let promote = Action::Promote { id: 3, ordinal: 4 };
        let plan = |actions: &[&Action]| Plan {
            actions: actions.iter().map(|action| (*action).clone()).collect(),
            ..Plan::default()
        };
        assert!(still_planned(&remove, &plan(&[&remove])));
        assert!(!still_planned(&remove, &plan(&[&promote, &remove])));
        assert!(!still_planned(&remove, &plan(&[])));
        let other = Action::RemoveMember { id: 9, ordinal: 2, voter: true };
        assert!(!still_planned(&remove, &plan(&[&other])), "another member of that ordinal");
        assert!(still_planned(&promote, &plan(&[&remove, &promote])));
        assert!(!still_planned(&promote, &plan(&[&remove])));
    }

    #[test]
    fn an_eviction_is_of_one_very_pod_and_of_the_stable_version() {
        let written = serde_json::to_value(eviction("prod", &exactly("demo-1-0"))).unwrap();
        let expected = serde_json::json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": "demo-1-0", "namespace": "prod"},
            "deleteOptions": {"preconditions": {"uid": "u", "resourceVersion": "1"}},
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn a_budget_that_is_used_up_is_told_from_a_failure() {
        let answer = |code, reason: &str| {
            kube::Error::Api(Box::new(kube::core::Status {
                code,
                reason: reason.to_owned(),
                ..kube::core::Status::default()
            }))
        };
        let spent = classify("restart", &answer(429, "TooManyRequests"));
        assert!(matches!(spent, Failure::Withheld { .. }), "{spent}");
        assert!(spent.to_string().contains("the disruption budget does not allow it now"));
        for refused in [403, 422] {
            let denied = denied_or("grow", &answer(refused, "Forbidden"));
            assert!(matches!(denied, Failure::Denied { .. }), "{denied}");
        }
        let stale = denied_or("grow", &answer(409, "Conflict"));
        assert!(matches!(stale, Failure::Stale { .. }), "{stale}");
        let other = classify("restart", &answer(409, "Conflict"));
        assert!(matches!(other, Failure::Stale { .. }), "{other}");
        assert!(matches!(classify("restart", &answer(403, "Forbidden")), Failure::Api { .. }));
    }

    #[test]
    fn a_change_names_one_field_of_the_metadata() {
        let labels = BTreeMap::from([("quorate.dev/role".to_owned(), "voter".to_owned())]);
        let expected = serde_json::json!({"metadata": {"labels": {"quorate.dev/role": "voter"}}});
        assert_eq!(change_of("labels", &labels), expected);
    }
}
