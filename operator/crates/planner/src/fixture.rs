//! Fixtures of the tests: a spec, an observation, and a stage on which plans are carried out to the
//! letter.

use crate::action::{Action, Exactly, Expect, Object};
use crate::desired::{Defaults, Desired};
use crate::observed::{
    ClusterFacts, LastWords, MemberAnswer, MemberView, Membership, NodeView, Nodes, Observed,
    StorageClasses, StoreMember,
};
use crate::plan::{Plan, plan};
use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    PersistentVolumeClaim, Pod, PodCondition, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use quorate_crds::{Storage, StoreCluster, StoreClusterSpec, StoreClusterStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// UID of the StoreCluster of the tests.
pub(crate) const UID: &str = "c0ffee00-0000-4000-8000-000000000001";
/// Id of the store cluster of the tests.
pub(crate) const CLUSTER_ID: u64 = 0xc1;
/// The StorageClass that the API server gives to claims that name none.
pub(crate) const CLASS: &str = "standard";

pub(crate) fn defaults() -> Defaults {
    Defaults { image_repository: "quorate".to_owned() }
}

/// The minimal manifest of the design.
pub(crate) fn store_cluster(replicas: i32) -> StoreCluster {
    let mut cluster = StoreCluster::new(
        "db",
        StoreClusterSpec {
            replicas,
            version: "0.1.0".to_owned(),
            storage: Storage { size: "8Gi".to_owned(), storage_class_name: None },
            ..StoreClusterSpec::default()
        },
    );
    cluster.metadata.namespace = Some("prod".to_owned());
    cluster
}

pub(crate) fn desired(replicas: i32) -> Desired {
    Desired::validate(&store_cluster(replicas), &defaults()).expect("the fixture is valid")
}

/// A StoreCluster that was just created, finalizer already in place.
pub(crate) fn fresh() -> Observed {
    Observed {
        now: Timestamp::from_second(1_800_000_000).expect("in range"),
        cluster: ClusterFacts {
            uid: UID.to_owned(),
            generation: 1,
            resource_version: "1".to_owned(),
            deleting: false,
            has_finalizer: true,
            annotations: BTreeMap::new(),
        },
        status: StoreClusterStatus::default(),
        stateful_sets: Vec::new(),
        pods: Vec::new(),
        claims: Vec::new(),
        services: Vec::new(),
        budgets: Vec::new(),
        jobs: Vec::new(),
        storage_classes: StorageClasses::Known(BTreeMap::from([(CLASS.to_owned(), true)])),
        refused_growths: BTreeMap::new(),
        nodes: Nodes::Seen(BTreeMap::new()),
        membership: Membership::NotAsked,
        members: BTreeMap::new(),
    }
}

/// A stage: a spec and a world in which everything that is asked for happens at once and nothing
/// else does.
pub(crate) struct Stage {
    pub(crate) cluster: StoreCluster,
    pub(crate) observed: Observed,
    /// Images that no node can pull.
    pub(crate) bad_images: BTreeSet<String>,
    /// Whether the controller of the sets looks at none of them.
    pub(crate) controller_sleeps: bool,
    /// Whether the storage gives nothing to claims that ask for more.
    pub(crate) storage_sleeps: bool,
    uids: u64,
}

impl Stage {
    pub(crate) fn new(replicas: i32) -> Self {
        Self {
            cluster: store_cluster(replicas),
            observed: fresh(),
            bad_images: BTreeSet::new(),
            controller_sleeps: false,
            storage_sleeps: false,
            uids: 0,
        }
    }

    /// A stage whose cluster has come to rest with this many members, led by `db-0`.
    pub(crate) fn at_rest(replicas: i32) -> Self {
        let mut stage = Self::new(replicas);
        stage.rest();
        stage
    }

    pub(crate) fn desired(&self) -> Desired {
        Desired::validate(&self.cluster, &defaults()).expect("the scripts write valid specs")
    }

    pub(crate) fn plan(&self) -> Plan {
        let desired = self.desired();
        let plan = plan(&desired, &self.observed);
        crate::check::check(&desired, &self.observed, &plan).expect("no law is broken");
        plan
    }

    /// Plans, carries the plan out, lets the world follow, and says what was planned.
    pub(crate) fn next(&mut self) -> String {
        let plan = self.plan();
        self.carry_out(&plan);
        self.follow();
        told(&plan)
    }

    /// Goes on until nothing is planned; what was planned, plan by plan.
    pub(crate) fn rest(&mut self) -> String {
        let mut story = String::new();
        for _ in 0..100 {
            self.follow();
            if self.plan().is_empty() {
                return story;
            }
            let lines = self.next();
            if !lines.is_empty() {
                story.push_str(&lines);
                story.push_str("--\n");
            }
        }
        panic!("no rest after 100 plans:\n{story}");
    }

    /// Goes on until a plan says this; what was planned up to there, it included.
    pub(crate) fn until(&mut self, text: &str) -> String {
        let mut story = String::new();
        for _ in 0..100 {
            let lines = self.next();
            story.push_str(&lines);
            if lines.contains(text) {
                return story;
            }
        }
        panic!("{text} was not planned within 100 plans:\n{story}\n{:#?}", self.plan());
    }

    pub(crate) fn later(&mut self, seconds: i64) {
        self.observed.now += SignedDuration::from_secs(seconds);
    }

    pub(crate) fn condition(&self, type_: &str) -> (String, String, String) {
        let condition = self.observed.status.conditions.iter().find(|c| c.type_ == type_);
        let condition = condition.unwrap_or_else(|| panic!("no condition {type_}"));
        (condition.status.clone(), condition.reason.clone(), condition.message.clone())
    }

    pub(crate) fn list(&mut self) -> &mut Vec<StoreMember> {
        if !matches!(self.observed.membership, Membership::Known { .. }) {
            self.observed.membership =
                Membership::Known { cluster_id: CLUSTER_ID, members: Vec::new() };
        }
        match &mut self.observed.membership {
            Membership::Known { members, .. } => members,
            Membership::NotAsked | Membership::Unreachable { .. } => unreachable!("just set"),
        }
    }

    /// The id that the stage gives the member of an ordinal.
    pub(crate) fn id(ordinal: i32) -> u64 {
        0x10 + u64::try_from(ordinal).expect("ordinals are not negative")
    }

    pub(crate) fn lead(&mut self, ordinal: i32) {
        for view in self.observed.members.values_mut() {
            if let MemberView::Answered(answer) = view {
                answer.leader = Some(Self::id(ordinal));
                answer.term += 1;
            }
        }
    }

    /// A member stops answering and its pod is not ready.
    pub(crate) fn lose(&mut self, ordinal: i32) {
        let since = self.observed.now;
        self.observed.members.insert(
            Self::id(ordinal),
            MemberView::Unreachable {
                since,
                error: "deadline exceeded".to_owned(),
                last: Some(LastWords { term: 1, index: 100 }),
            },
        );
        self.pod(ordinal).status = Some(PodStatus::default());
    }

    /// A member stops answering, whatever its pod.
    pub(crate) fn lose_view(&mut self, ordinal: i32) {
        let (since, error) = (self.observed.now, "no pod of it runs".to_owned());
        let view = MemberView::Unreachable { since, error, last: None };
        self.observed.members.insert(Self::id(ordinal), view);
    }

    /// What a member answers.
    pub(crate) fn answer(&mut self, ordinal: i32) -> &mut MemberAnswer {
        match self.observed.members.get_mut(&Self::id(ordinal)) {
            Some(MemberView::Answered(answer)) => answer,
            Some(MemberView::Unreachable { .. }) | None => panic!("db-{ordinal} answers"),
        }
    }

    pub(crate) fn pod(&mut self, ordinal: i32) -> &mut Pod {
        let name = format!("db-{ordinal}-0");
        let pods = &mut self.observed.pods;
        pods.iter_mut()
            .find(|pod| pod.metadata.name.as_ref() == Some(&name))
            .expect("the pod is there")
    }

    fn identify(&mut self, metadata: &mut ObjectMeta) {
        self.uids += 1;
        metadata.uid.get_or_insert(format!("uid-{}", self.uids));
        metadata.resource_version = Some(self.uids.to_string());
    }

    fn carry_out(&mut self, plan: &Plan) {
        if let Some(status) = &plan.status {
            self.observed.status = status.clone();
        }
        for apply in &plan.objects {
            match &apply.object {
                Object::Service(object) => {
                    let mut object = object.as_ref().clone();
                    object.metadata.uid = same(&apply.expect);
                    self.identify(&mut object.metadata);
                    put(&mut self.observed.services, object, |o| &o.metadata);
                }
                Object::StatefulSet(object) => {
                    let mut object = object.as_ref().clone();
                    object.metadata.uid = same(&apply.expect);
                    self.identify(&mut object.metadata);
                    object.metadata.generation = i64::try_from(self.uids).ok();
                    put(&mut self.observed.stateful_sets, object, |o| &o.metadata);
                }
                Object::PodDisruptionBudget(object) => {
                    let mut object = object.as_ref().clone();
                    object.metadata.uid = same(&apply.expect);
                    self.identify(&mut object.metadata);
                    put(&mut self.observed.budgets, object, |o| &o.metadata);
                }
            }
        }
        for action in &plan.actions {
            self.act(action);
        }
    }

    fn claim(&mut self, exactly: &Exactly) -> &mut PersistentVolumeClaim {
        let mut claims = self.observed.claims.iter_mut();
        claims.find(|claim| is(&claim.metadata, exactly)).expect("there")
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::AddFinalizer { .. } => self.observed.cluster.has_finalizer = true,
            Action::RemoveFinalizer { .. } => self.observed.cluster.has_finalizer = false,
            Action::CreateClaim(claim) => {
                let mut claim = claim.as_ref().clone();
                let spec = claim.spec.as_mut().expect("built with a spec");
                spec.storage_class_name.get_or_insert(CLASS.to_owned());
                self.identify(&mut claim.metadata);
                self.observed.claims.push(claim);
            }
            Action::AnnotateClaim { claim, annotations } => {
                let found = self.claim(claim);
                found.metadata.annotations.get_or_insert_default().extend(annotations.clone());
            }
            Action::GrowClaim { claim, size } => *asked(self.claim(claim)) = size.clone(),
            Action::DeleteClaim(claim) => self.observed.claims.retain(|c| !is(&c.metadata, claim)),
            Action::CreateJob(job) => {
                let mut job = job.as_ref().clone();
                self.identify(&mut job.metadata);
                self.observed.jobs.push(job);
            }
            Action::DeleteJob(job) => {
                self.observed.jobs.retain(|j| !is(&j.metadata, job));
                self.observed.pods.retain(|pod| !owned(pod, &job.uid));
            }
            Action::LabelPod { pod, labels } => {
                let pods = &mut self.observed.pods;
                let found = pods.iter_mut().find(|p| is(&p.metadata, pod)).expect("there");
                found.metadata.labels.get_or_insert_default().extend(labels.clone());
            }
            Action::RestartPod { pod, ordinal, .. } => {
                self.observed.pods.retain(|p| !is(&p.metadata, pod));
                self.observed.members.remove(&Self::id(*ordinal));
            }
            Action::StopMember { set, ordinal } => {
                let sets = &mut self.observed.stateful_sets;
                let found = sets.iter_mut().find(|s| is(&s.metadata, set)).expect("there");
                found.spec.as_mut().expect("built").replicas = Some(0);
                self.observed.members.remove(&Self::id(*ordinal));
            }
            Action::DeletePod(pod) => self.observed.pods.retain(|p| !is(&p.metadata, pod)),
            Action::DeleteStatefulSet(set) => {
                self.observed.stateful_sets.retain(|s| !is(&s.metadata, set));
                self.observed.pods.retain(|pod| !owned(pod, &set.uid));
            }
            Action::DeleteBudget(budget) => {
                self.observed.budgets.retain(|b| !is(&b.metadata, budget));
            }
            Action::DisarmAlarm { .. }
            | Action::AddLearner { .. }
            | Action::Promote { .. }
            | Action::MoveLeader { .. }
            | Action::RemoveMember { .. } => self.act_on_members(action),
        }
    }

    fn act_on_members(&mut self, action: &Action) {
        match action {
            Action::DisarmAlarm { id, alarm } => {
                let text = format!("memberID:{id} alarm:{}", alarm.as_str());
                for view in self.observed.members.values_mut() {
                    if let MemberView::Answered(answer) = view {
                        answer.errors.retain(|error| *error != text);
                    }
                }
            }
            Action::AddLearner { ordinal, peer_url } => {
                let id = Self::id(*ordinal);
                self.list().push(StoreMember {
                    id,
                    name: String::new(),
                    peer_urls: vec![peer_url.clone()],
                    client_urls: Vec::new(),
                    learner: true,
                });
            }
            Action::Promote { id, .. } => {
                let found = self.list().iter_mut().find(|member| member.id == *id);
                found.expect("listed").learner = false;
                let ordinal = i32::try_from(id - 0x10).expect("ids of the stage");
                let answer = self.answer(ordinal);
                (answer.learner, answer.reads) = (false, true);
            }
            Action::MoveLeader { to, .. } => {
                self.lead(i32::try_from(to - 0x10).expect("ids of the stage"));
            }
            Action::RemoveMember { id, .. } => {
                self.list().retain(|member| member.id != *id);
                self.observed.members.remove(id);
            }
            other => unreachable!("{other} is no call to a member"),
        }
    }

    /// The controllers and the store do their part.
    pub(crate) fn follow(&mut self) {
        if let Some(job) = self.observed.jobs.first().filter(|job| job.status.is_none()).cloned() {
            self.finish_job(&job.metadata.uid.unwrap_or_default());
        }
        for set in self.observed.stateful_sets.iter_mut().filter(|_set| !self.controller_sleeps) {
            set.status = Some(StatefulSetStatus {
                observed_generation: set.metadata.generation,
                ..StatefulSetStatus::default()
            });
        }
        self.provide();
        let mut running = Vec::new();
        for set in self.observed.stateful_sets.clone() {
            let spec = set.spec.clone().expect("built");
            let name = format!("{}-0", set.metadata.name.clone().expect("built"));
            let uid = set.metadata.uid.clone().expect("identified");
            if spec.replicas == Some(0) {
                self.observed.pods.retain(|pod| !owned(pod, &uid));
                continue;
            }
            let image = spec.template.spec.as_ref().and_then(|pod| pod.containers[0].image.clone());
            if !self.observed.pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(&name)) {
                let template = spec.template;
                let mut metadata = template.metadata.unwrap_or_default();
                metadata.name = Some(name.clone());
                metadata.owner_references = Some(vec![controller(&uid)]);
                self.identify(&mut metadata);
                metadata.creation_timestamp = Some(Time(self.observed.now));
                // A node for each.
                let node_name = set.metadata.name.map(|set| format!("node-of-{set}"));
                if let (Nodes::Seen(nodes), Some(name)) = (&mut self.observed.nodes, &node_name) {
                    nodes.insert(name.clone(), NodeView::default());
                }
                let spec = template.spec.map(|spec| PodSpec { node_name, ..spec });
                let pulled = image.is_some_and(|image| !self.bad_images.contains(&image));
                let status = if pulled { ready() } else { waiting("ImagePullBackOff") };
                self.observed.pods.push(Pod { metadata, spec, status: Some(status) });
            }
            let pods = &self.observed.pods;
            let pod = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(&name));
            if pod.is_some_and(|pod| {
                crate::world::obstacle(pod).is_none() && pod.metadata.deletion_timestamp.is_none()
            }) {
                running.push(name);
            }
        }
        self.start(&running);
    }

    /// The storage binds claims, and gives what they ask for; a volume that is lost stays lost.
    fn provide(&mut self) {
        for claim in &mut self.observed.claims {
            let size = asked(claim).clone();
            let status = claim.status.get_or_insert_default();
            if status.phase.as_deref() == Some("Lost") {
                continue;
            }
            let bound = status.phase.replace("Bound".to_owned()).is_some();
            if !bound || !self.storage_sleeps {
                status.capacity = Some(BTreeMap::from([("storage".to_owned(), size)]));
                status.conditions = None;
            }
        }
    }

    fn start(&mut self, running: &[String]) {
        let name = self.desired().name;
        if running.is_empty() {
            if self.observed.status.cluster_id.is_some() {
                self.observed.membership = Membership::NotAsked;
                self.observed.members.clear();
            }
            return;
        }
        if matches!(self.observed.membership, Membership::Unreachable { .. }) {
            return;
        }
        if self.observed.membership == Membership::NotAsked {
            let remembered = self.observed.status.members.clone();
            for member in remembered.into_iter().filter(|member| member.id.is_some()) {
                let id = Self::id(member.ordinal);
                let peer_urls = vec![name.peer_url(member.ordinal)];
                let learner = member.role == quorate_crds::MemberRole::Learner;
                self.list().push(StoreMember {
                    id,
                    name: member.name,
                    peer_urls,
                    client_urls: Vec::new(),
                    learner,
                });
            }
        }
        let leads = self.observed.members.values().find_map(|view| match view {
            MemberView::Answered(answer) => answer.leader.map(|leader| (leader, answer.term)),
            MemberView::Unreachable { .. } => None,
        });
        let members = self.list().clone();
        let (leader, term) = leads.unwrap_or((members.first().map_or(0, |member| member.id), 1));
        for member in members {
            let Some(ordinal) = name.ordinal_of_peer_url(&member.peer_urls[0]) else { continue };
            if running.contains(&name.pod(ordinal))
                && !self.observed.members.contains_key(&member.id)
            {
                let answer = MemberAnswer {
                    leader: Some(leader),
                    term,
                    raft_index: 100,
                    applied_index: 100,
                    learner: member.learner,
                    reads: !member.learner,
                    quota: 2 << 30,
                    ..MemberAnswer::default()
                };
                self.observed.members.insert(member.id, MemberView::Answered(answer));
                let entry = self.list().iter_mut().find(|entry| entry.id == member.id);
                entry.expect("listed").name = name.member(ordinal);
            }
        }
    }

    fn finish_job(&mut self, uid: &str) {
        let message =
            format!("{{\"clusterID\":\"{CLUSTER_ID:x}\",\"memberID\":\"{:x}\"}}", Self::id(0));
        let mut metadata = ObjectMeta {
            name: Some("db-form-1-x".to_owned()),
            owner_references: Some(vec![controller(uid)]),
            ..ObjectMeta::default()
        };
        self.identify(&mut metadata);
        let status = PodStatus {
            phase: Some("Succeeded".to_owned()),
            container_statuses: Some(vec![terminated(&message)]),
            ..PodStatus::default()
        };
        self.observed.pods.push(Pod { metadata, spec: None, status: Some(status) });
        for job in &mut self.observed.jobs {
            job.status = Some(JobStatus { succeeded: Some(1), ..JobStatus::default() });
        }
    }
}

/// A plan in lines: what is applied, what is done, what is waited for, what is told.
pub(crate) fn told(plan: &Plan) -> String {
    let mut lines = String::new();
    for event in &plan.events {
        let kind = if event.warning { "warn" } else { "tell" };
        writeln!(lines, "{kind} {}", event.reason).expect("writing to a string");
    }
    for apply in &plan.objects {
        writeln!(lines, "apply {} {}", apply.object.kind(), apply.object.name()).expect("a string");
    }
    for action in &plan.actions {
        let annotates = matches!(action, Action::AnnotateClaim { .. } | Action::LabelPod { .. });
        let line = action.to_string();
        let line =
            if annotates { line.split(' ').take(3).collect::<Vec<_>>().join(" ") } else { line };
        writeln!(lines, "{line}").expect("writing to a string");
    }
    lines
}

pub(crate) fn terminated(message: &str) -> ContainerStatus {
    ContainerStatus {
        name: crate::naming::CONTAINER.to_owned(),
        state: Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                message: Some(message.to_owned()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    }
}

/// A pod whose container does not run, for this reason of the kubelet.
pub(crate) fn waiting(reason: &str) -> PodStatus {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message: None };
    let container = ContainerStatus {
        name: crate::naming::CONTAINER.to_owned(),
        state: Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() }),
        ..ContainerStatus::default()
    };
    PodStatus {
        phase: Some("Pending".to_owned()),
        container_statuses: Some(vec![container]),
        ..PodStatus::default()
    }
}

pub(crate) fn ready() -> PodStatus {
    let condition = PodCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        ..PodCondition::default()
    };
    PodStatus { conditions: Some(vec![condition]), ..PodStatus::default() }
}

/// What a claim asks for.
pub(crate) fn asked(claim: &mut PersistentVolumeClaim) -> &mut Quantity {
    let resources = claim.spec.as_mut().and_then(|spec| spec.resources.as_mut());
    let requests = resources.and_then(|resources| resources.requests.as_mut());
    requests.and_then(|requests| requests.get_mut("storage")).expect("claims of ours ask for space")
}

pub(crate) fn controller(uid: &str) -> OwnerReference {
    OwnerReference { controller: Some(true), uid: uid.to_owned(), ..OwnerReference::default() }
}

pub(crate) fn long_ago() -> Time {
    Time(Timestamp::from_second(1_700_000_000).expect("in range"))
}

fn same(expect: &Expect) -> Option<String> {
    match expect {
        Expect::Present { uid } => Some(uid.clone()),
        Expect::Absent => None,
    }
}

fn put<T>(objects: &mut Vec<T>, object: T, of: impl Fn(&T) -> &ObjectMeta) {
    let name = of(&object).name.clone();
    objects.retain(|other| of(other).name != name);
    objects.push(object);
}

fn is(metadata: &ObjectMeta, exactly: &Exactly) -> bool {
    metadata.uid.as_ref() == Some(&exactly.uid)
}

fn owned(pod: &Pod, uid: &str) -> bool {
    pod.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}
