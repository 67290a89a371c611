//! The Kubernetes side of the world: objects, controllers, nodes, the kubelet, in as few rules as
//! the planner can tell.

use crate::faults::Counts;
use crate::random::Random;
use crate::store::{Disk, Store};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    PersistentVolumeClaim, Pod, PodCondition, PodStatus, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use quorate_crds::{StoreCluster, StoreClusterStatus};
use quorate_planner::{
    ClusterFacts, Defaults, Desired, GrowthRefusal, MemberAnswer, MemberView, Membership, NodeView,
    Nodes, Observed, StorageClasses, StoreMember,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) type Objects<T> = BTreeMap<String, T>;

/// Children as a cache may hold them.
#[derive(Clone, Default)]
pub(crate) struct Children {
    pub(crate) sets: Objects<StatefulSet>,
    pub(crate) pods: Objects<Pod>,
    pub(crate) claims: Objects<PersistentVolumeClaim>,
    pub(crate) services: Objects<Service>,
    pub(crate) budgets: Objects<PodDisruptionBudget>,
    pub(crate) jobs: Objects<Job>,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) seconds: i64,
    /// `None` once it is gone.
    pub(crate) cluster: Option<StoreCluster>,
    pub(crate) deleting: bool,
    pub(crate) finalizer: bool,
    pub(crate) version: u64,
    pub(crate) live: Children,
    /// The sets as their controller has seen them: pods are made from these.
    pub(crate) controlled: Objects<StatefulSet>,
    /// What caches held some moments ago.
    pub(crate) stale: Vec<Children>,
    pub(crate) store: Store,
    /// Whether the one StorageClass lets volumes grow.
    pub(crate) expandable: bool,
    /// Whether the operator may read it.
    pub(crate) classes_readable: bool,
    /// What the API server said to claims that asked for more, by UID of the claim.
    pub(crate) refused_growths: BTreeMap<String, GrowthRefusal>,
    /// The most that each claim has ever asked for, by UID.
    pub(crate) asked: BTreeMap<String, i128>,
    /// By UID of the claim.
    pub(crate) disks: BTreeMap<String, Disk>,
    pub(crate) down_nodes: BTreeSet<usize>,
    /// What the API server says of each node.
    pub(crate) nodes: BTreeMap<usize, NodeState>,
    /// Whether a volume can only be used on the node on which it was used first.
    pub(crate) local: bool,
    /// Those nodes, by UID of the claim.
    pub(crate) pins: BTreeMap<String, usize>,
    /// Applied index of each member as the operator has seen it, and since when.
    pub(crate) moved: BTreeMap<u64, (u64, i64)>,
    /// Pods whose process is down for some ticks although the pod stands.
    pub(crate) crashed: BTreeMap<String, usize>,
    /// Ids that the operator cannot reach now.
    pub(crate) unreachable_since: BTreeMap<u64, i64>,
    /// Ordinals whose member was removed.
    pub(crate) ever_removed: BTreeSet<i32>,
    /// What the operator did while there were faults, by kind.
    pub(crate) acts: Counts,
    pub(crate) faults: bool,
    /// Whether plans are printed: a replay of one seed.
    pub(crate) traced: bool,
    pub(crate) uids: u64,
}

/// The StorageClass that the API server gives to claims that name none.
pub(crate) const CLASS: &str = "standard";

/// How many nodes there are.
pub(crate) const NODES: usize = 4;

/// What the API server says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeState {
    Ready,
    /// Its kubelet is silent; with `alive` everything on it runs on all the same.
    NotReady {
        since: i64,
        alive: bool,
    },
    /// As above and not alive, and somebody vouches for that.
    OutOfService {
        since: i64,
    },
    Deleted,
}

impl NodeState {
    /// Whether processes on such a node run.
    pub(crate) fn runs(self) -> bool {
        matches!(self, Self::Ready | Self::NotReady { alive: true, .. })
    }
}

/// An image that no node can pull.
pub(crate) const BAD_IMAGE: &str = "quorate:broken";

pub(crate) fn defaults() -> Defaults {
    Defaults { image_repository: "quorate".to_owned() }
}

impl World {
    pub(crate) fn uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }

    pub(crate) fn stamp(&mut self, metadata: &mut ObjectMeta) {
        self.version += 1;
        metadata.resource_version = Some(self.version.to_string());
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + self.seconds).expect("in range")
    }

    /// Nodes, pods and volumes in lines, for whoever reads a failure.
    pub(crate) fn places(&self) -> String {
        let pods = self.live.pods.iter().map(|(name, pod)| {
            let leaves = pod.metadata.deletion_timestamp.is_some();
            format!("{name} {} on {:?}, leaves: {leaves}\n", phase(pod), node_of(pod))
        });
        let claims = self.live.claims.iter().map(|(name, claim)| {
            let uid = claim.metadata.uid.clone().unwrap_or_default();
            let (disk, pin) = (self.disks.get(&uid), self.pins.get(&uid));
            let leaves = claim.metadata.deletion_timestamp.is_some();
            format!("{name} {uid} {disk:?} on {pin:?}, leaves: {leaves}\n")
        });
        let nodes = format!("{:?}\n", self.nodes);
        pods.chain(claims).chain([nodes]).collect()
    }

    pub(crate) fn desired(&self) -> Desired {
        let cluster = self.cluster.as_ref().expect("asked only while it exists");
        Desired::validate(cluster, &defaults()).expect("the test makes valid specs")
    }

    pub(crate) fn status(&self) -> StoreClusterStatus {
        self.cluster.as_ref().and_then(|cluster| cluster.status.clone()).unwrap_or_default()
    }

    /// What an observation finds. With `cached`, children may be those of some moments ago; the
    /// StoreCluster is read live and first, the members last, as the shell does.
    pub(crate) fn observe(&mut self, cached: bool) -> Observed {
        let cluster = self.cluster.clone().expect("observed only while it exists");
        let children = if cached && self.faults && self.random.once_in(4) {
            let at = self.random.below(self.stale.len());
            self.stale.get(at).cloned().unwrap_or_else(|| self.live.clone())
        } else {
            self.live.clone()
        };
        let mut children = children;
        // Claims of members that a cache does not have are asked for by name.
        for name in self.status().members.into_iter().map(|member| member.claim) {
            if let (None, Some(claim)) = (children.claims.get(&name), self.live.claims.get(&name)) {
                children.claims.insert(name, claim.clone());
            }
        }
        let (membership, members) = self.ask_members();
        Observed {
            now: self.now(),
            cluster: ClusterFacts {
                uid: cluster.metadata.uid.clone().expect("set at creation"),
                generation: cluster.metadata.generation.unwrap_or(0),
                resource_version: cluster
                    .metadata
                    .resource_version
                    .clone()
                    .expect("set at creation"),
                deleting: self.deleting,
                has_finalizer: self.finalizer,
                annotations: cluster.metadata.annotations.clone().unwrap_or_default(),
            },
            status: cluster.status.unwrap_or_default(),
            stateful_sets: children.sets.into_values().collect(),
            pods: children.pods.into_values().collect(),
            claims: children.claims.into_values().collect(),
            services: children.services.into_values().collect(),
            budgets: children.budgets.into_values().collect(),
            jobs: children.jobs.into_values().collect(),
            storage_classes: if self.classes_readable {
                StorageClasses::Known(BTreeMap::from([(CLASS.to_owned(), self.expandable)]))
            } else {
                StorageClasses::Unreadable
            },
            refused_growths: self.refused_growths.clone(),
            nodes: self.node_views(),
            membership,
            members,
        }
    }

    fn node_views(&mut self) -> Nodes {
        if self.faults && self.random.once_in(30) {
            return Nodes::Unseen { error: "forbidden".to_owned() };
        }
        let at = |second| Timestamp::from_second(1_800_000_000 + second).expect("in range");
        let views = self.nodes.iter().filter_map(|(node, state)| {
            let (unready_since, out_of_service) = match state {
                NodeState::Ready => (None, false),
                NodeState::NotReady { since, .. } => (Some(at(*since)), false),
                NodeState::OutOfService { since } => (Some(at(*since)), true),
                NodeState::Deleted => return None,
            };
            Some((format!("node-{node}"), NodeView { unready_since, out_of_service }))
        });
        Nodes::Seen(views.collect())
    }

    /// For how long the operator has seen a member's applied index where it is.
    fn stalled_for(&mut self, id: u64, applied: u64) -> Duration {
        let now = self.seconds;
        let seen = self.moved.entry(id).or_insert((applied, now));
        if seen.0 != applied {
            *seen = (applied, now);
        }
        Duration::from_secs((now - seen.1).unsigned_abs())
    }

    fn ask_members(&mut self) -> (Membership, BTreeMap<u64, MemberView>) {
        let mut views = BTreeMap::new();
        let now = self.seconds;
        if self.status().cluster_id.is_none() {
            return (Membership::NotAsked, views);
        }
        let mut somebody = false;
        for (id, entry) in self.store.ids() {
            let hidden = self.faults && self.random.once_in(15);
            if self.store.up.contains(&id) && !hidden {
                self.unreachable_since.remove(&id);
                somebody = true;
                let leader = if self.store.has_quorum() { self.store.leader } else { None };
                let accused = self.store.corrupt.iter();
                let errors = accused.map(|id| format!("memberID:{id} alarm:CORRUPT")).collect();
                let stalled_for = self.stalled_for(id, entry.applied);
                views.insert(
                    id,
                    MemberView::Answered(MemberAnswer {
                        leader,
                        term: self.store.term,
                        raft_index: entry.applied,
                        applied_index: entry.applied,
                        learner: entry.learner,
                        reads: leader.is_some()
                            && !entry.learner
                            && !(self.faults && self.random.once_in(20)),
                        errors,
                        stalled_for,
                        ..MemberAnswer::default()
                    }),
                );
            } else {
                let since = *self.unreachable_since.entry(id).or_insert(now);
                let since = Timestamp::from_second(1_800_000_000 + since).expect("in range");
                views.insert(
                    id,
                    MemberView::Unreachable {
                        since,
                        error: "deadline exceeded".to_owned(),
                        last: None,
                    },
                );
            }
        }
        let flaky = self.faults && self.random.once_in(12);
        let membership = match self.store.cluster {
            Some(cluster_id)
                if somebody && !flaky && self.store.leader.is_some() && self.store.has_quorum() =>
            {
                Membership::Known {
                    cluster_id,
                    members: self
                        .store
                        .entries
                        .iter()
                        .map(|entry| StoreMember {
                            id: entry.id,
                            name: entry.name.clone(),
                            peer_urls: vec![entry.peer_url.clone()],
                            client_urls: Vec::new(),
                            learner: entry.learner,
                        })
                        .collect(),
                }
            }
            Some(_) | None => {
                Membership::Unreachable { since: self.now(), error: "no quorum".to_owned() }
            }
        };
        (membership, views)
    }

    /// Time passes for everything but the operator.
    pub(crate) fn tick(&mut self) {
        if self.random.once_in(40) {
            // The shell asks twice a second: of a member that is up it hears now and then in that
            // time.
            self.seconds += 90;
            self.unreachable_since.retain(|id, _| !self.store.up.contains(id));
        }
        self.seconds += 1;
        if self.faults && self.random.once_in(3) {
            if self.stale.len() > 3 {
                self.stale.remove(0);
            }
            self.stale.push(self.live.clone());
        }
        if !self.store.stuck.is_empty() && self.random.once_in(8) {
            self.seconds += 300;
            self.unreachable_since.retain(|id, _| !self.store.up.contains(id));
        }
        self.collect_garbage();
        self.run_nodes();
        self.run_stateful_sets();
        self.run_jobs();
        self.run_pods();
        self.run_storage();
        self.run_processes();
        self.store.tick(&mut self.random);
        self.probe();
    }

    fn collect_garbage(&mut self) {
        let owner = self.cluster.as_ref().and_then(|cluster| cluster.metadata.uid.clone());
        let orphan = |metadata: &ObjectMeta| {
            let owners = metadata.owner_references.as_ref();
            owners
                .is_some_and(|o| !o.is_empty() && o.iter().all(|o| Some(&o.uid) != owner.as_ref()))
        };
        self.live.sets.retain(|_, set| !orphan(&set.metadata));
        self.live.jobs.retain(|_, job| !orphan(&job.metadata));
        self.live.services.retain(|_, service| !orphan(&service.metadata));
        self.live.budgets.retain(|_, budget| !orphan(&budget.metadata));
        let owners: BTreeSet<String> = (self.live.sets.values().map(|set| &set.metadata))
            .chain(self.live.jobs.values().map(|job| &job.metadata))
            .filter_map(|metadata| metadata.uid.clone())
            .collect();
        let now = self.now();
        for pod in self.live.pods.values_mut() {
            let owned =
                pod.metadata.owner_references.iter().flatten().any(|o| owners.contains(&o.uid));
            if !owned && pod.metadata.deletion_timestamp.is_none() {
                pod.metadata.deletion_timestamp = Some(Time(now));
            }
        }
        let used: BTreeSet<String> = self
            .live
            .pods
            .values()
            .filter(|pod| phase(pod) != "Succeeded")
            .filter_map(claim_of)
            .collect();
        let gone: Vec<String> = self
            .live
            .claims
            .iter()
            .filter(|(name, claim)| {
                claim.metadata.deletion_timestamp.is_some() && !used.contains(*name)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(uid) = self.live.claims.remove(&name).and_then(|claim| claim.metadata.uid) {
                self.disks.remove(&uid);
            }
        }
    }

    /// What becomes of pods on nodes that are not there: those of a deleted node are deleted, those of
    /// one that is out of service too, those of one that is silent are asked to stop and do not.
    fn run_nodes(&mut self) {
        let now = self.now();
        for (name, pod) in self.live.pods.clone() {
            let Some(state) = node_of(&pod).map(|node| self.nodes[&node]) else { continue };
            let marked = pod.metadata.deletion_timestamp.is_some();
            match state {
                NodeState::Ready => {}
                NodeState::Deleted | NodeState::OutOfService { .. } => {
                    if self.random.once_in(4) {
                        self.live.pods.remove(&name);
                    }
                }
                NodeState::NotReady { .. } if !marked && self.random.once_in(30) => {
                    if let Some(pod) = self.live.pods.get_mut(&name) {
                        pod.metadata.deletion_timestamp = Some(Time(now));
                    }
                }
                NodeState::NotReady { .. } => {}
            }
        }
    }

    /// Where a pod with this claim may run.
    fn place(&mut self, claim: &PersistentVolumeClaim) -> Option<usize> {
        let uid = claim.metadata.uid.clone().expect("set at creation");
        let drawn = self.random.below(NODES);
        let node = self.pins.get(&uid).copied().unwrap_or(drawn);
        let takes = self.nodes[&node] == NodeState::Ready && !self.down_nodes.contains(&node);
        if takes && self.local {
            self.pins.insert(uid, node);
        }
        takes.then_some(node)
    }

    fn run_stateful_sets(&mut self) {
        let now = self.now();
        self.look_at_sets();
        for set in self.controlled.clone().into_values() {
            let name = format!("{}-0", set.metadata.name.clone().unwrap_or_default());
            let spec = set.spec.expect("built with a spec");
            match self.live.pods.get_mut(&name) {
                Some(pod)
                    if spec.replicas == Some(0) && pod.metadata.deletion_timestamp.is_none() =>
                {
                    pod.metadata.deletion_timestamp = Some(Time(now));
                }
                None if spec.replicas == Some(1) && !self.random.once_in(3) => {
                    let template = spec.template;
                    let uid = set.metadata.uid.unwrap_or_default();
                    self.create_pod(&name, template.metadata, template.spec, "StatefulSet", &uid);
                }
                Some(_) | None => {}
            }
        }
    }

    /// What the controller of the sets knows of them may be some moments old.
    fn look_at_sets(&mut self) {
        let names: Vec<String> = self.live.sets.keys().cloned().collect();
        self.controlled.retain(|name, _| names.contains(name));
        for name in names {
            if self.faults && self.random.once_in(3) {
                continue;
            }
            let mut set = self.live.sets[&name].clone();
            let seen = set.metadata.generation;
            if set.status.as_ref().and_then(|status| status.observed_generation) != seen {
                set.status =
                    Some(StatefulSetStatus { observed_generation: seen, ..Default::default() });
                self.stamp(&mut set.metadata);
                self.live.sets.insert(name.clone(), set.clone());
            }
            self.controlled.insert(name, set);
        }
    }

    fn create_pod(
        &mut self,
        name: &str,
        metadata: Option<ObjectMeta>,
        spec: Option<k8s_openapi::api::core::v1::PodSpec>,
        kind: &str,
        owner: &str,
    ) {
        let mut metadata = metadata.unwrap_or_default();
        metadata.name = Some(name.to_owned());
        metadata.uid = Some(self.uid());
        metadata.creation_timestamp = Some(Time(self.now()));
        metadata.owner_references = Some(vec![OwnerReference {
            kind: kind.to_owned(),
            uid: owner.to_owned(),
            controller: Some(true),
            ..OwnerReference::default()
        }]);
        self.stamp(&mut metadata);
        let status = PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() };
        self.live.pods.insert(name.to_owned(), Pod { metadata, spec, status: Some(status) });
    }

    fn run_jobs(&mut self) {
        for (name, job) in self.live.jobs.clone() {
            let done = job.status.as_ref().is_some_and(|status| status.succeeded.unwrap_or(0) > 0);
            let pod_name = format!("{name}-pod");
            match self.live.pods.get(&pod_name).map(phase) {
                None if !done => {
                    let template = job.spec.clone().expect("built with a spec").template;
                    let uid = job.metadata.uid.clone().unwrap_or_default();
                    self.create_pod(&pod_name, template.metadata, template.spec, "Job", &uid);
                }
                Some("Succeeded") if !done && !self.random.once_in(3) => {
                    if let Some(job) = self.live.jobs.get_mut(&name) {
                        job.status = Some(JobStatus { succeeded: Some(1), ..JobStatus::default() });
                    }
                }
                Some(_) | None => {}
            }
        }
    }

    fn run_pods(&mut self) {
        for (name, pod) in self.live.pods.clone() {
            if pod.metadata.deletion_timestamp.is_some() {
                let stops = node_of(&pod).is_none_or(|node| self.nodes[&node] == NodeState::Ready)
                    || phase(&pod) == "Failed";
                if stops && self.random.once_in(3) {
                    self.live.pods.remove(&name);
                    self.crashed.remove(&name);
                }
                continue;
            }
            let claim = claim_of(&pod).and_then(|claim| self.live.claims.get(&claim)).cloned();
            let Some(claim) = claim else { continue };
            match phase(&pod) {
                "Pending" if image_of(&pod) == BAD_IMAGE => {
                    let status = self.live.pods.get_mut(&name).and_then(|pod| pod.status.as_mut());
                    if let Some(status) = status {
                        status.container_statuses = Some(vec![unpulled()]);
                    }
                }
                "Pending"
                    if claim.metadata.deletion_timestamp.is_none() && !self.random.once_in(4) =>
                {
                    let Some(node) = self.place(&claim) else { continue };
                    if let Some(pod) = self.live.pods.get_mut(&name) {
                        if let Some(spec) = pod.spec.as_mut() {
                            spec.node_name = Some(format!("node-{node}"));
                        }
                        if let Some(status) = pod.status.as_mut() {
                            status.phase = Some("Running".to_owned());
                        }
                    }
                }
                "Running" if name.ends_with("-pod") => self.run_formation(&name, &pod, &claim),
                _phase => {}
            }
        }
    }

    fn run_formation(&mut self, name: &str, pod: &Pod, claim: &PersistentVolumeClaim) {
        if self.faults && self.random.once_in(4) {
            // It crashed; the Job makes another one.
            self.live.pods.remove(name);
            return;
        }
        let value = |flag: &str| argument(pod, flag).expect("the Job carries the flag");
        let (token, member, url) = (value("--token="), value("--name="), value("--peer-url="));
        let uid = claim.metadata.uid.clone().expect("set at creation");
        let disk = self.disks.entry(uid).or_insert(Disk::Empty);
        let message = match self.store.form(disk, &token, &member, &url) {
            Ok((cluster, member)) => {
                format!("{{\"clusterID\":\"{cluster:x}\",\"memberID\":\"{member:x}\"}}")
            }
            Err(_refused) => return,
        };
        if let Some(status) = self.live.pods.get_mut(name).and_then(|pod| pod.status.as_mut()) {
            status.phase = Some("Succeeded".to_owned());
            status.container_statuses = Some(vec![terminated(message, 0)]);
        }
    }

    /// Which members' processes run: a running pod, its disk, its entry in the membership.
    fn run_processes(&mut self) {
        for left in self.crashed.values_mut() {
            *left = left.saturating_sub(1);
        }
        self.crashed.retain(|_, left| *left > 0);
        let mut up = BTreeSet::new();
        for (name, pod) in self.live.pods.clone() {
            let node = node_of(&pod).map(|node| self.nodes[&node]);
            let serves = phase(&pod) == "Running"
                && node.is_some_and(NodeState::runs)
                && pod.metadata.deletion_timestamp.is_none()
                && !name.ends_with("-pod")
                && !self.crashed.contains_key(&name);
            let claim = claim_of(&pod).and_then(|claim| self.live.claims.get(&claim)).cloned();
            let (true, Some(claim)) = (serves, claim) else { continue };
            assert_eq!(
                argument(&pod, "--initial-cluster-state=").as_deref(),
                Some("existing"),
                "INV-O5: a serving pod may form a cluster"
            );
            let url = argument(&pod, "--initial-advertise-peer-urls=").expect("members have one");
            let uid = claim.metadata.uid.clone().expect("set at creation");
            let quorum = self.store.has_quorum() && self.store.leader.is_some();
            let disk = self.disks.entry(uid).or_insert(Disk::Empty);
            match disk.clone() {
                Disk::Data { member, .. } if self.store.entry(member).is_some() => {
                    up.insert(member);
                }
                Disk::Data { .. } => self.refuse(&name, "Removed"),
                Disk::Broken { .. } => self.refuse(&name, "Corrupt"),
                Disk::Empty if quorum => {
                    let entry = self.store.entries.iter_mut().find(|entry| entry.peer_url == url);
                    match entry {
                        Some(entry) if entry.name.is_empty() => {
                            entry.name = name.trim_end_matches("-0").to_owned();
                            let cluster = self.store.cluster.expect("it has a quorum");
                            *disk = Disk::Data { cluster, member: entry.id, token: String::new() };
                            up.insert(entry.id);
                        }
                        Some(_) => self.refuse(&name, "Empty"),
                        None => {}
                    }
                }
                Disk::Empty => {}
            }
        }
        self.store.up = up;
    }

    fn refuse(&mut self, pod: &str, verdict: &str) {
        if let Some(status) = self.live.pods.get_mut(pod).and_then(|pod| pod.status.as_mut()) {
            let message = format!("{{\"verdict\":\"{verdict}\",\"message\":\"\"}}");
            status.container_statuses = Some(vec![terminated(message, 1)]);
        }
    }

    /// The kubelet's probes: a voter that follows a leader is ready.
    fn probe(&mut self) {
        for pod in self.live.pods.values_mut() {
            let url = argument(pod, "--initial-advertise-peer-urls=");
            let entry =
                self.store.entries.iter().find(|entry| Some(&entry.peer_url) == url.as_ref());
            let ready = entry.is_some_and(|entry| {
                !entry.learner
                    && self.store.up.contains(&entry.id)
                    && self.store.leader.is_some()
                    && self.store.corrupt.is_empty()
            });
            let condition = PodCondition {
                type_: "Ready".to_owned(),
                status: if ready { "True" } else { "False" }.to_owned(),
                ..PodCondition::default()
            };
            if let Some(status) = pod.status.as_mut() {
                status.conditions = Some(vec![condition]);
            }
        }
    }
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether the kubelet calls a pod ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The image of a pod's server.
pub(crate) fn image_of(pod: &Pod) -> &str {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    container.and_then(|container| container.image.as_deref()).unwrap_or_default()
}

fn unpulled() -> ContainerStatus {
    let reason = Some("ImagePullBackOff".to_owned());
    ContainerStatus {
        name: "store".to_owned(),
        state: Some(ContainerState {
            waiting: Some(ContainerStateWaiting { reason, message: None }),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    }
}

/// The node that a pod is bound to.
pub(crate) fn node_of(pod: &Pod) -> Option<usize> {
    pod.spec.as_ref()?.node_name.as_deref()?.strip_prefix("node-")?.parse().ok()
}

pub(crate) fn claim_of(pod: &Pod) -> Option<String> {
    let volume = pod.spec.as_ref()?.volumes.as_ref()?.first()?;
    Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone())
}

fn argument(pod: &Pod, flag: &str) -> Option<String> {
    let container = pod.spec.as_ref()?.containers.first()?;
    container.args.iter().flatten().find_map(|arg| arg.strip_prefix(flag)).map(str::to_owned)
}

fn terminated(message: String, exit_code: i32) -> ContainerStatus {
    ContainerStatus {
        name: "store".to_owned(),
        state: Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code,
                message: Some(message),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    }
}
