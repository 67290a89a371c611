//! The operator's shell in small: observe, plan, check, execute, with failures between any two
//! steps.

use crate::laws;
use crate::world::{CLASS, World};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use quorate_planner::{Action, Apply, Exactly, Expect, Object, Plan, Reason, check, plan};

/// What the operator must have done in the midst of faults, or the run showed nothing about it.
pub(crate) const ACTS: [&str; 17] = [
    "grow claim",
    "stop member",
    "delete ended pod",
    "disarm",
    "a lost voter removed",
    "add learner",
    "promote",
    "move leader",
    "remove voter",
    "remove learner",
    "create job",
    "delete claim",
    "delete set",
    "delete budget",
    "remove finalizer",
    "restart evict",
    "restart delete",
];

/// How one reconcile ended.
#[derive(PartialEq)]
pub(crate) enum Outcome {
    /// The plan was empty and nothing is waited for.
    Nothing,
    /// Something was done, or tried, or is waited for.
    Acted,
}

impl World {
    /// One reconcile.
    pub(crate) fn reconcile(&mut self) -> Outcome {
        let desired = self.desired();
        let observed = self.observe(true);
        let planned = plan(&desired, &observed);
        if self.random.once_in(16) {
            assert_eq!(planned, plan(&desired, &observed), "plan is a function of its input");
        }
        if let Err(violation) = check(&desired, &observed, &planned) {
            panic!("{violation}\n{planned:#?}");
        }
        if planned.is_empty() {
            let patient =
                planned.waiting.iter().all(|waiting| waiting.reason == Reason::Hibernated);
            return if patient { Outcome::Nothing } else { Outcome::Acted };
        }
        self.execute(&planned);
        Outcome::Acted
    }

    fn dies_here(&mut self) -> bool {
        self.faults && self.random.once_in(16)
    }

    /// What a replay of one seed prints.
    fn trace(&self, planned: &Plan) {
        for apply in &planned.objects {
            println!("{} apply {} {}", self.seconds, apply.object.kind(), apply.object.name());
        }
        for action in &planned.actions {
            println!("{} {action}", self.seconds);
        }
        for event in &planned.events {
            println!("{} event {} {}", self.seconds, event.reason, event.message);
        }
    }

    fn execute(&mut self, planned: &Plan) {
        if self.traced {
            self.trace(planned);
        }
        if let Some(status) = planned.status.clone() {
            // A conflict: somebody edited the StoreCluster meanwhile.
            if self.dies_here() {
                return;
            }
            self.version += 1;
            let version = self.version.to_string();
            if let Some(cluster) = self.cluster.as_mut() {
                cluster.status = Some(status);
                cluster.metadata.resource_version = Some(version);
            }
        }
        for apply in &planned.objects {
            if self.dies_here() || !self.apply(apply) {
                return;
            }
        }
        for action in &planned.actions {
            if self.dies_here() || !self.confirmed(action) {
                return;
            }
            laws::before(self, action);
            self.count(action);
            let repeated = self.faults && self.random.once_in(10);
            let done = self.act(action);
            if repeated {
                self.act(action);
            }
            if !done || self.cluster.is_none() {
                return;
            }
        }
    }

    fn count(&mut self, action: &Action) {
        let line = match action {
            Action::RestartPod { evict: true, .. } => "restart evict".to_owned(),
            Action::RestartPod { evict: false, .. } => "restart delete".to_owned(),
            other => other.to_string(),
        };
        if let Some(act) = ACTS.into_iter().find(|act| self.faults && line.starts_with(act)) {
            *self.acts.entry(act).or_default() += 1;
        }
        if let Action::RemoveMember { id, voter: true, .. } = action
            && self.faults
            && laws::is_lost(self, *id)
        {
            *self.acts.entry("a lost voter removed").or_default() += 1;
        }
    }

    /// The second look, live.
    fn confirmed(&mut self, action: &Action) -> bool {
        if !action.needs_confirmation() {
            return true;
        }
        let desired = self.desired();
        let observed = self.observe(false);
        let again = plan(&desired, &observed);
        if let Err(violation) = check(&desired, &observed, &again) {
            panic!("{violation}\n{again:#?}");
        }
        if action.is_disruptive() {
            again.actions.first() == Some(action)
        } else {
            again.actions.contains(action)
        }
    }

    fn apply(&mut self, apply: &Apply) -> bool {
        laws::applying(self, &apply.object);
        match &apply.object {
            Object::Service(service) => {
                let mut built = defaulted_service(service);
                let key = apply.object.name().to_owned();
                let there = self.live.services.get(&key).map(|s| s.metadata.clone());
                self.admit(&mut built.metadata, there, &apply.expect)
                    && self.live.services.insert(key, built).is_none_or(|_| true)
            }
            Object::StatefulSet(set) => {
                let mut built = defaulted_set(set);
                let key = apply.object.name().to_owned();
                let there = self.live.sets.get(&key).map(|s| s.metadata.clone());
                let before = self.live.sets.get(&key);
                built.status = before.and_then(|set| set.status.clone());
                let generation = before.and_then(|set| set.metadata.generation).unwrap_or(0);
                built.metadata.generation = Some(generation + 1);
                self.admit(&mut built.metadata, there, &apply.expect)
                    && self.live.sets.insert(key, built).is_none_or(|_| true)
            }
            Object::PodDisruptionBudget(budget) => {
                let mut built = budget.as_ref().clone();
                let key = apply.object.name().to_owned();
                let there = self.live.budgets.get(&key).map(|s| s.metadata.clone());
                self.admit(&mut built.metadata, there, &apply.expect)
                    && self.live.budgets.insert(key, built).is_none_or(|_| true)
            }
        }
    }

    /// What the API server does with an object that comes in: identity, or a refusal.
    fn admit(
        &mut self,
        built: &mut ObjectMeta,
        there: Option<ObjectMeta>,
        expect: &Expect,
    ) -> bool {
        match (expect, there) {
            (Expect::Absent, None) => {
                let uid = self.uid();
                built.uid = Some(uid);
            }
            (Expect::Present { uid }, Some(there)) if there.uid.as_ref() == Some(uid) => {
                built.uid = there.uid;
            }
            (Expect::Absent, Some(_)) | (Expect::Present { .. }, Some(_) | None) => return false,
        }
        self.stamp(built);
        true
    }

    fn act(&mut self, action: &Action) -> bool {
        match action {
            Action::AddFinalizer { uid } => {
                self.same_cluster(uid) && {
                    self.finalizer = true;
                    true
                }
            }
            Action::RemoveFinalizer { uid } => {
                self.same_cluster(uid) && {
                    self.finalizer = false;
                    self.cluster = None;
                    true
                }
            }
            Action::CreateClaim(claim) => {
                let name = claim.metadata.name.clone().expect("built with a name");
                if self.live.claims.contains_key(&name) {
                    return false;
                }
                let mut claim = claim.as_ref().clone();
                let spec = claim.spec.as_mut().expect("built with a spec");
                spec.storage_class_name.get_or_insert(CLASS.to_owned());
                claim.metadata.uid = Some(self.uid());
                self.stamp(&mut claim.metadata);
                self.live.claims.insert(name, claim);
                true
            }
            Action::AnnotateClaim { claim, annotations } => {
                let found = self.live.claims.get(&claim.name).map(|c| c.metadata.clone());
                let Some(mut metadata) = matching(found, claim) else { return false };
                metadata.annotations.get_or_insert_default().extend(annotations.clone());
                self.stamp(&mut metadata);
                if let Some(found) = self.live.claims.get_mut(&claim.name) {
                    found.metadata = metadata;
                }
                true
            }
            Action::GrowClaim { claim, size } => self.grow(claim, size),
            Action::DeleteClaim(claim) => {
                let now = self.now();
                let found = self.live.claims.get(&claim.name).map(|c| c.metadata.clone());
                if matching(found, claim).is_some()
                    && let Some(found) = self.live.claims.get_mut(&claim.name)
                {
                    found.metadata.deletion_timestamp = Some(Time(now));
                }
                true
            }
            Action::CreateJob(_)
            | Action::DeleteJob(_)
            | Action::LabelPod { .. }
            | Action::RestartPod { .. }
            | Action::StopMember { .. }
            | Action::DeletePod(_)
            | Action::DeleteStatefulSet(_)
            | Action::DeleteBudget(_) => self.act_on_children(action),
            Action::AddLearner { .. }
            | Action::Promote { .. }
            | Action::MoveLeader { .. }
            | Action::DisarmAlarm { .. }
            | Action::RemoveMember { .. } => self.act_on_members(action),
        }
    }

    fn act_on_children(&mut self, action: &Action) -> bool {
        match action {
            Action::CreateJob(job) => {
                let name = job.metadata.name.clone().expect("built with a name");
                if self.live.jobs.contains_key(&name) {
                    return false;
                }
                let mut job = job.as_ref().clone();
                job.metadata.uid = Some(self.uid());
                self.stamp(&mut job.metadata);
                self.live.jobs.insert(name, job);
                true
            }
            Action::DeleteJob(job) => {
                let found = self.live.jobs.get(&job.name).map(|j| j.metadata.clone());
                if matching(found, job).is_some() {
                    self.live.jobs.remove(&job.name);
                }
                true
            }
            Action::LabelPod { pod, labels } => {
                let found = self.live.pods.get(&pod.name).map(|p| p.metadata.clone());
                let Some(mut metadata) = matching(found, pod) else { return false };
                metadata.labels.get_or_insert_default().extend(labels.clone());
                self.stamp(&mut metadata);
                if let Some(found) = self.live.pods.get_mut(&pod.name) {
                    found.metadata = metadata;
                }
                true
            }
            Action::RestartPod { pod, evict, .. } => {
                let found = self.live.pods.get(&pod.name).map(|p| p.metadata.clone());
                let allowed = !evict || found.is_none() || self.may_evict(&pod.name);
                if allowed && matching(found, pod).is_some() {
                    self.terminate_pod(&pod.name);
                }
                allowed
            }
            Action::StopMember { set, .. } => self.stop_set(set),
            Action::DeletePod(pod) => {
                let found = self.live.pods.get(&pod.name).map(|p| p.metadata.clone());
                if matching(found, pod).is_some() {
                    self.live.pods.remove(&pod.name);
                }
                true
            }
            Action::DeleteStatefulSet(set) => {
                let found = self.live.sets.get(&set.name).map(|s| s.metadata.clone());
                if matching(found, set).is_some() {
                    self.live.sets.remove(&set.name);
                }
                true
            }
            Action::DeleteBudget(budget) => {
                let found = self.live.budgets.get(&budget.name).map(|b| b.metadata.clone());
                if matching(found, budget).is_some() {
                    self.live.budgets.remove(&budget.name);
                }
                true
            }
            other => unreachable!("{other} is no act on a child"),
        }
    }

    fn stop_set(&mut self, set: &Exactly) -> bool {
        let found = self.live.sets.get(&set.name).map(|s| s.metadata.clone());
        let Some(mut metadata) = matching(found, set) else { return false };
        metadata.generation = metadata.generation.map(|generation| generation + 1);
        self.stamp(&mut metadata);
        if let Some(found) = self.live.sets.get_mut(&set.name) {
            found.metadata = metadata;
            found.spec.as_mut().expect("built with a spec").replicas = Some(0);
        }
        true
    }

    fn act_on_members(&mut self, action: &Action) -> bool {
        if let Action::AddLearner { peer_url, .. } = action
            && self.faults
            && self.random.once_in(8)
        {
            // The call times out; the store carries it out later.
            let ticks = 1 + self.random.below(6);
            self.store.delayed.push((ticks, peer_url.clone()));
            return false;
        }
        let outcome = match action {
            Action::AddLearner { peer_url, .. } => self.store.add_learner(peer_url),
            Action::Promote { id, .. } => self.store.promote(*id),
            Action::MoveLeader { from, to, .. } => self.store.move_leader(*from, *to),
            Action::RemoveMember { id, .. } => self.store.remove(*id),
            Action::DisarmAlarm { id, .. } => self.store.disarm(*id),
            other => unreachable!("{other} is no call to a member"),
        };
        outcome.is_ok() && !self.dies_here()
    }

    fn same_cluster(&self, uid: &str) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.metadata.uid.as_deref() == Some(uid))
    }
}

fn matching(found: Option<ObjectMeta>, exactly: &Exactly) -> Option<ObjectMeta> {
    found.filter(|metadata| {
        metadata.uid.as_ref() == Some(&exactly.uid)
            && metadata.resource_version.as_ref() == Some(&exactly.resource_version)
    })
}

/// What the API server adds to a Service.
fn defaulted_service(service: &Service) -> Service {
    let mut service = service.clone();
    if let Some(spec) = service.spec.as_mut() {
        spec.cluster_ip.get_or_insert_with(|| "10.96.0.7".to_owned());
        spec.session_affinity = Some("None".to_owned());
        spec.internal_traffic_policy = Some("Cluster".to_owned());
        spec.ip_families = Some(vec!["IPv4".to_owned()]);
    }
    service
}

/// What the API server adds to a StatefulSet.
fn defaulted_set(set: &StatefulSet) -> StatefulSet {
    let mut set = set.clone();
    if let Some(spec) = set.spec.as_mut() {
        spec.revision_history_limit = Some(10);
        if let Some(pod) = spec.template.spec.as_mut() {
            pod.dns_policy = Some("ClusterFirst".to_owned());
            pod.restart_policy = Some("Always".to_owned());
            pod.scheduler_name = Some("default-scheduler".to_owned());
            for container in &mut pod.containers {
                container.termination_message_path = Some("/dev/termination-log".to_owned());
                container.image_pull_policy = Some("IfNotPresent".to_owned());
                container.resources.get_or_insert_default();
                for probe in [&mut container.liveness_probe, &mut container.readiness_probe] {
                    if let Some(probe) = probe.as_mut() {
                        probe.success_threshold = Some(1);
                    }
                }
            }
        }
    }
    set
}
