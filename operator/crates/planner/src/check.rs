//! Check: refuses a plan that breaks a law, whatever `plan` thought.
//!
//! It reads the finished plan and the observation, shares no decision with the steps, and errs on
//! the side of refusing: a violation is a bug, and doing nothing is the safe answer to a bug.

use crate::action::{Action, Exactly, Object};
use crate::desired::Desired;
use crate::drift::drifted;
use crate::limits::JOIN_LIMIT;
use crate::naming::parse_hex;
use crate::objects::pod::settings_digest;
use crate::observed::{MemberView, Membership, Nodes, Observed, StoreMember};
use crate::plan::Plan;
use crate::quantity;
use crate::world::{has_ended, is_ready, quorum};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::serde_json;
use quorate_crds::{
    MemberRole, MemberStatus, OperationKind, RetentionPolicy, StoreClusterStatus, names,
};
use std::fmt;

/// A law that a plan would break: the id of the invariant and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Id of the invariant, such as "INV-O1".
    pub law: &'static str,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; this is a bug of the operator, nothing of the plan is carried out",
            self.law, self.message
        )
    }
}

impl std::error::Error for Violation {}

fn refuse(law: &'static str, message: impl Into<String>) -> Result<(), Violation> {
    Err(Violation { law, message: message.into() })
}

/// Refuses a plan that breaks a law.
///
/// # Errors
///
/// The first [`Violation`] found.
pub fn check(desired: &Desired, observed: &Observed, plan: &Plan) -> Result<(), Violation> {
    let case = Case { desired, observed, plan };
    case.one_disruption()?;
    case.only_what_differs()?;
    case.paused_means_nothing()?;
    for object in plan.objects.iter().map(|apply| &apply.object) {
        if let Object::StatefulSet(set) = object {
            case.may_apply(set)?;
        }
    }
    plan.actions.iter().try_for_each(|action| case.may_act(action))
}

struct Case<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    plan: &'a Plan,
}

impl Case<'_> {
    fn one_disruption(&self) -> Result<(), Violation> {
        let disruptions = self.plan.actions.iter().filter(|action| action.is_disruptive()).count();
        if disruptions > 1
            || (disruptions == 1 && (self.plan.actions.len() > 1 || !self.plan.objects.is_empty()))
        {
            return refuse("INV-O2", "a disruption does not stand alone in its plan");
        }
        Ok(())
    }

    fn only_what_differs(&self) -> Result<(), Violation> {
        for apply in &self.plan.objects {
            let observed = self.observed;
            let same = match &apply.object {
                Object::Service(built) => {
                    find(&observed.services, |o| &o.metadata, &built.metadata)
                        .is_some_and(|found| !differs(built.as_ref(), found))
                }
                Object::StatefulSet(built) => {
                    find(&observed.stateful_sets, |o| &o.metadata, &built.metadata)
                        .is_some_and(|found| !differs(built.as_ref(), found))
                }
                Object::PodDisruptionBudget(built) => {
                    find(&observed.budgets, |o| &o.metadata, &built.metadata)
                        .is_some_and(|found| !differs(built.as_ref(), found))
                }
            };
            if same {
                return refuse("INV-O4", format!("{} is as wanted already", apply.object.name()));
            }
        }
        if self.plan.status.as_ref() == Some(&self.observed.status) {
            return refuse("INV-O4", "the status to be written is the stored one");
        }
        Ok(())
    }

    fn paused_means_nothing(&self) -> Result<(), Violation> {
        let acts = !self.plan.objects.is_empty() || !self.plan.actions.is_empty();
        if self.desired.paused && !self.observed.cluster.deleting && acts {
            return refuse("INV-O4", "the cluster is paused");
        }
        Ok(())
    }

    /// The memory that will be stored when the plan acts.
    fn memory(&self) -> &StoreClusterStatus {
        self.plan.status.as_ref().unwrap_or(&self.observed.status)
    }

    fn member(&self, ordinal: i32) -> Option<&MemberStatus> {
        self.memory().members.iter().find(|member| member.ordinal == ordinal)
    }

    fn may_apply(&self, set: &StatefulSet) -> Result<(), Violation> {
        let spec = set.spec.as_ref();
        let stopped = spec.and_then(|spec| spec.replicas) != Some(1);
        if stopped && !self.desired.hibernated {
            return refuse("INV-O1", "a set is stopped although the cluster is not hibernated");
        }
        let pod = spec.and_then(|spec| spec.template.spec.as_ref());
        let args: Vec<&str> = pod
            .into_iter()
            .flat_map(|pod| &pod.containers)
            .flat_map(|container| container.args.iter().flatten())
            .map(String::as_str)
            .collect();
        let joins = args.contains(&"--initial-cluster-state=existing")
            && args.iter().any(|arg| arg.starts_with("--join-cluster-id="));
        let forms = args.iter().any(|arg| {
            arg.starts_with("--initial-cluster=")
                || arg.starts_with("--force-new-cluster")
                || *arg == "prepare"
        });
        if !joins || forms || self.memory().cluster_id.is_none() {
            return refuse(
                "INV-O5",
                "a serving pod must carry join flags of a formed cluster and no others",
            );
        }
        Ok(())
    }

    fn is_told_to_stop(&self, name: &str) -> bool {
        let set = self
            .observed
            .stateful_sets
            .iter()
            .find(|set| set.metadata.name.as_deref() == Some(name));
        set.and_then(|set| set.spec.as_ref()).is_some_and(|spec| spec.replicas == Some(0))
    }

    /// Evidence that a listed member is lost, looked for once more and apart from the steps. What is
    /// noted of a verdict is what was stored before this plan.
    fn is_lost(&self, id: u64) -> bool {
        let observed = self.observed;
        let of = |member: &&MemberStatus| member.id.as_deref().and_then(parse_hex) == Some(id);
        let Some(member) = observed.status.members.iter().find(of) else { return false };
        let accusation = format!("memberID:{id} alarm:CORRUPT");
        let accused = observed.members.keys().filter_map(|it| observed.answer(*it)).any(|answer| {
            answer.leader.is_some() && answer.errors.iter().any(|it| it.trim() == accusation)
        });
        let claim = observed.claims.iter().find(|claim| {
            claim.metadata.name.as_ref() == Some(&member.claim)
                && (member.claim_uid.is_none() || claim.metadata.uid == member.claim_uid)
        });
        let whole = claim.is_some_and(|claim| {
            let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
            claim.metadata.deletion_timestamp.is_none() && phase != Some("Lost")
        });
        if accused || !whole {
            return true;
        }
        let verdict = member.verdict.as_deref();
        observed.answer(id).is_none()
            && (matches!(verdict, Some("Empty" | "Corrupt" | "Removed"))
                || self.node_is_lost(member))
    }

    fn node_is_lost(&self, member: &MemberStatus) -> bool {
        let Nodes::Seen(nodes) = &self.observed.nodes else { return false };
        let name = self.desired.name.pod(member.ordinal);
        let pod = self.observed.pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(&name));
        let bound = pod.and_then(|pod| pod.spec.as_ref()?.node_name.as_ref());
        let Some(node) = bound.or(member.node.as_ref()) else { return false };
        let Some(view) = nodes.get(node) else { return true };
        let unready = view.unready_since.and_then(|since| {
            std::time::Duration::try_from(self.observed.now.duration_since(since)).ok()
        });
        view.out_of_service
            || unready.is_some_and(|time| self.desired.replace_after <= Some(time))
                && self.desired.replace_after.is_some()
    }

    /// Members more than wanted may be listed, and wanted ones removed, on evidence only (INV-O6).
    fn more_listed_than_wanted(&self, listed: &[StoreMember]) -> bool {
        usize::try_from(self.desired.replicas).is_ok_and(|wanted| listed.len() > wanted)
    }

    fn may_add(&self, peer_url: &str) -> Result<(), Violation> {
        let Some(listed) = self.listed() else {
            return refuse("INV-O2", "membership changes only on a confirmed list");
        };
        if listed.iter().any(|m| m.learner || m.peer_urls.iter().any(|url| url == peer_url)) {
            return refuse("INV-O2", "one learner at a time, and no member twice");
        }
        let wanted = usize::try_from(self.desired.replicas).unwrap_or(usize::MAX);
        let replaces = listed.len() == wanted && listed.iter().any(|m| self.is_lost(m.id));
        if listed.len() >= wanted && !replaces {
            return refuse("INV-O6", "a member joins that is not wanted and replaces nobody lost");
        }
        Ok(())
    }

    fn may_stop(&self, set: &Exactly, ordinal: i32) -> Result<(), Violation> {
        let memory = self.memory();
        let leaves = memory.operation.as_ref().is_some_and(|operation| {
            operation.kind == OperationKind::Leave && operation.ordinal == ordinal
        });
        let member = self.member(ordinal).filter(|member| leaves && member.name == set.name);
        let id = member.and_then(|member| parse_hex(member.id.as_deref()?));
        let (Some(id), Some(listed)) = (id, self.listed()) else {
            return refuse(
                "INV-O1",
                format!("{} is not the set of a member that leaves", set.name),
            );
        };
        let voters = listed.iter().filter(|entry| !entry.learner).count();
        let votes = listed.iter().any(|entry| entry.id == id && !entry.learner);
        let others = self.reachable(|entry| !entry.learner && entry.id != id);
        if !votes || voters < 3 || others < quorum(voters) {
            return refuse("INV-O1", format!("{others} of {voters} voters would be left"));
        }
        if others + 1 < voters {
            return refuse("INV-O2", "a voter is stopped while another is down");
        }
        if self.observed.answer(id).is_some_and(|answer| answer.leader == Some(id)) {
            return refuse("INV-O1", "leadership must be moved off a voter before it is stopped");
        }
        if !self.more_listed_than_wanted(listed) && !self.is_lost(id) {
            return refuse("INV-O6", "a member that is wanted and not lost is stopped");
        }
        Ok(())
    }

    fn may_act(&self, action: &Action) -> Result<(), Violation> {
        match action {
            Action::CreateJob(job) => {
                let memory = self.memory();
                let seed = memory.formation.as_ref().map(|formation| formation.ordinal);
                let claim = seed
                    .and_then(|ordinal| self.member(ordinal))
                    .map(|member| member.claim.as_str());
                let mounted = job
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.template.spec.as_ref()?.volumes.as_ref()?.first())
                    .and_then(|volume| {
                        Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str())
                    });
                if memory.cluster_id.is_some() || claim.is_none() || mounted != claim {
                    return refuse(
                        "INV-O5",
                        "a cluster is formed once, on the seed's claim, before its id is known",
                    );
                }
                Ok(())
            }
            Action::CreateClaim(claim) => {
                self.may_create_claim(claim.metadata.name.as_deref().unwrap_or_default())
            }
            Action::GrowClaim { claim, size } => self.may_grow_claim(claim, size),
            Action::DeleteClaim(claim) => self.may_delete_claim(claim),
            Action::DeleteStatefulSet(set) => self.may_delete_set(set),
            Action::RestartPod { pod, ordinal, .. } => self.may_restart(pod, *ordinal),
            Action::RemoveMember { id, voter, .. } => self.may_remove(*id, *voter),
            Action::MoveLeader { from, to, .. } => self.may_move_leader(*from, *to),
            Action::Promote { id, .. } => self.may_promote(*id),
            Action::AddLearner { peer_url, .. } => self.may_add(peer_url),
            Action::StopMember { set, ordinal } => self.may_stop(set, *ordinal),
            Action::DeletePod(pod) => {
                let mut pods = self.observed.pods.iter();
                let found = pods.find(|it| it.metadata.uid.as_deref() == Some(pod.uid.as_str()));
                if !found.is_some_and(has_ended) {
                    return refuse("INV-O2", format!("pod {} has not ended", pod.name));
                }
                Ok(())
            }
            Action::DisarmAlarm { id, .. } => self.may_disarm(*id),
            Action::RemoveFinalizer { .. } if !self.observed.cluster.deleting => {
                refuse("INV-O3", "the finalizer goes only with the cluster")
            }
            Action::RemoveFinalizer { .. }
            | Action::AddFinalizer { .. }
            | Action::AnnotateClaim { .. }
            | Action::DeleteJob(_)
            | Action::LabelPod { .. }
            | Action::DeleteBudget(_) => Ok(()),
        }
    }

    fn may_move_leader(&self, from: u64, to: u64) -> Result<(), Violation> {
        let voters = self.listed().unwrap_or_default();
        let votes = |id: u64| voters.iter().any(|member| member.id == id && !member.learner);
        if from == to || !votes(from) || !votes(to) || self.observed.answer(to).is_none() {
            return refuse("INV-O1", "leadership may only move to another voter that answers");
        }
        Ok(())
    }

    fn may_disarm(&self, id: u64) -> Result<(), Violation> {
        let of = |member: &MemberStatus| member.id.as_deref().and_then(parse_hex);
        let mut removed = self.memory().members.iter().filter(|it| it.role == MemberRole::Removed);
        let listed = self.listed().is_none_or(|all| all.iter().any(|it| it.id == id));
        if listed || !removed.any(|member| of(member) == Some(id)) {
            return refuse("INV-O6", "only what a removed member raised is taken back");
        }
        Ok(())
    }

    /// The list that a quorum confirmed, of the cluster that was formed.
    fn listed(&self) -> Option<&[StoreMember]> {
        let formed = self.observed.status.cluster_id.as_deref().and_then(parse_hex);
        match &self.observed.membership {
            Membership::Known { cluster_id, members } if Some(*cluster_id) == formed => {
                Some(members)
            }
            Membership::Known { .. } | Membership::NotAsked | Membership::Unreachable { .. } => {
                None
            }
        }
    }

    fn reachable(&self, which: impl Fn(&StoreMember) -> bool) -> usize {
        let listed = self.listed().unwrap_or_default();
        listed.iter().filter(|m| which(m) && self.observed.answer(m.id).is_some()).count()
    }

    fn may_promote(&self, id: u64) -> Result<(), Violation> {
        let listed = self.listed().unwrap_or_default();
        let learner = listed.iter().any(|member| member.id == id && member.learner);
        let voters = listed.iter().filter(|member| !member.learner).count() + 1;
        let reachable = self.reachable(|member| !member.learner) + 1;
        if !learner || self.observed.answer(id).is_none() || reachable < quorum(voters) {
            return refuse("INV-O1", "a promotion must leave a quorum of reachable voters");
        }
        Ok(())
    }

    fn may_remove(&self, id: u64, voter: bool) -> Result<(), Violation> {
        let Some(listed) = self.listed() else {
            return refuse("INV-O1", "a member is removed only on a confirmed list");
        };
        let Some(member) = listed.iter().find(|member| member.id == id) else {
            return refuse("INV-O1", "the member to be removed is not listed");
        };
        if member.learner == voter {
            return refuse("INV-O1", "the member to be removed is not what the plan takes it for");
        }
        let voters = listed.iter().filter(|m| !m.learner && m.id != id).count();
        let reachable = self.reachable(|m| !m.learner && m.id != id);
        // A learner counts in no quorum.
        if voter && (voters == 0 || reachable < quorum(voters)) {
            return refuse(
                "INV-O1",
                format!("{reachable} of {voters} remaining voters could be reached"),
            );
        }
        if !self.more_listed_than_wanted(listed)
            && !self.is_lost(id)
            && (voter || !self.makes_no_progress(id))
        {
            return refuse("INV-O6", "a member that is wanted and not lost is removed");
        }
        let name = listed.iter().find(|m| m.id == id).and_then(|member| {
            let mut urls = member.peer_urls.iter();
            urls.find_map(|url| self.desired.name.ordinal_of_peer_url(url))
        });
        let told = name.is_some_and(|it| self.is_told_to_stop(&self.desired.name.member(it)));
        if voter && voters >= 2 && self.observed.answer(id).is_some() && !told {
            return refuse("INV-O1", "a voter that serves is stopped before it is removed");
        }
        if voter && self.observed.answer(id).is_some_and(|answer| answer.leader == Some(id)) {
            return refuse("INV-O1", "leadership must be moved off a voter before it is removed");
        }
        Ok(())
    }

    /// Whether a joiner has been silent, or has stood still, for as long as a joiner may.
    fn makes_no_progress(&self, id: u64) -> bool {
        let now = self.observed.now;
        let still = match self.observed.members.get(&id) {
            Some(MemberView::Answered(answer)) => answer.stalled_for,
            Some(MemberView::Unreachable { since, .. }) => {
                std::time::Duration::try_from(now.duration_since(*since)).unwrap_or_default()
            }
            None => return false,
        };
        still >= JOIN_LIMIT
    }

    /// A pod is stopped only for its settings, and only where the others carry on without it.
    fn may_restart(&self, pod: &Exactly, ordinal: i32) -> Result<(), Violation> {
        let (observed, desired) = (self.observed, self.desired);
        let member = self.member(ordinal).filter(|member| member.role.is_listed());
        let id = member.and_then(|member| parse_hex(member.id.as_deref()?));
        let found = observed.pods.iter().find(|found| {
            found.metadata.uid.as_deref() == Some(pod.uid.as_str())
                && found.metadata.name.as_deref() == Some(desired.name.pod(ordinal).as_str())
        });
        let (Some(id), Some(found)) = (id, found) else {
            return refuse("INV-O2", format!("{} is not the pod of a member", pod.name));
        };
        let annotations = found.metadata.annotations.as_ref();
        let runs = annotations.and_then(|all| all.get(names::ANNOTATION_SETTINGS));
        if runs == Some(&settings_digest(desired)) || desired.on_delete || desired.rollout_paused {
            return refuse("INV-O4", format!("nobody asked for a restart of {}", pod.name));
        }
        if desired.hibernated || observed.cluster.deleting {
            return refuse("INV-O4", "the cluster is being stopped as a whole");
        }
        let answers = observed.answer(id);
        let serves = answers.is_some() || is_ready(found);
        let Some(listed) = self.listed() else {
            return if serves {
                refuse("INV-O1", "without a confirmed list only what does nothing is restarted")
            } else {
                Ok(())
            };
        };
        let voters = listed.iter().filter(|entry| !entry.learner).count();
        let votes = listed.iter().any(|entry| entry.id == id && !entry.learner);
        if !votes || !serves {
            return Ok(());
        }
        let others = self.reachable(|entry| !entry.learner && entry.id != id);
        if voters >= 3 && others < quorum(voters) {
            return refuse("INV-O1", format!("{others} of {voters} voters would be left"));
        }
        if others + 1 < voters {
            return refuse("INV-O2", "a voter is restarted while another is down");
        }
        if voters > 1 && answers.is_some_and(|answer| answer.leader == Some(id)) {
            return refuse("INV-O1", "leadership must be moved off a voter before it is restarted");
        }
        Ok(())
    }

    fn may_create_claim(&self, name: &str) -> Result<(), Violation> {
        let memory = self.memory();
        let announced = memory.members.iter().find(|member| member.claim == name);
        let blank = announced.is_some_and(|member| match member.role {
            MemberRole::Pending => true,
            MemberRole::Learner => {
                let listed = self.listed().unwrap_or_default();
                let id = member.id.as_deref().and_then(parse_hex);
                listed.iter().any(|entry| Some(entry.id) == id && entry.name.is_empty())
            }
            MemberRole::Voter | MemberRole::Removed => false,
        });
        if !blank {
            return refuse(
                "INV-O5",
                format!("claim {name} is not that of a member that never started"),
            );
        }
        Ok(())
    }

    fn may_grow_claim(&self, claim: &Exactly, size: &Quantity) -> Result<(), Violation> {
        let mut claims = self.observed.claims.iter();
        let found = claims.find(|found| found.metadata.uid.as_ref() == Some(&claim.uid));
        let asked = found.and_then(|found| {
            found.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")
        });
        let value = |size: Option<&Quantity>| size.and_then(|size| quantity::parse(&size.0));
        if value(asked).is_none() || value(asked) >= value(Some(size)) {
            return refuse("INV-O3", format!("claim {} would not grow", claim.name));
        }
        let of_member = self
            .memory()
            .members
            .iter()
            .any(|member| member.claim == claim.name && member.role != MemberRole::Removed);
        if !of_member || *size != self.desired.storage_size {
            return refuse("INV-O4", format!("nobody asked claim {} to grow so far", claim.name));
        }
        Ok(())
    }

    fn may_delete_claim(&self, claim: &Exactly) -> Result<(), Violation> {
        let cluster = &self.observed.cluster;
        // The memory before this plan: what was remembered as current stays current for this plan.
        let before = &self.observed.status;
        let member = before.members.iter().find(|member| member.claim == claim.name);
        let blank = member.is_some_and(|member| member.id.is_none());
        if cluster.deleting {
            let running =
                self.observed.pods.iter().any(|pod| pod.metadata.owner_references.is_some());
            if running || (self.desired.when_deleted != RetentionPolicy::Delete && !blank) {
                return refuse(
                    "INV-O3",
                    format!("claim {} shall be kept, or is in use", claim.name),
                );
            }
            return Ok(());
        }
        if before.formation.is_none() && before.cluster_id.is_none() {
            let asked = cluster.annotations.get(names::ANNOTATION_EARLIER_VOLUMES);
            if asked.map(String::as_str) != Some("discard") {
                return refuse("INV-O3", format!("nobody asked to discard claim {}", claim.name));
            }
            return Ok(());
        }
        let removed = self
            .memory()
            .members
            .iter()
            .any(|m| m.claim == claim.name && m.role == MemberRole::Removed);
        let listed = self.listed().unwrap_or_default().iter().any(|entry| {
            let ordinal =
                entry.peer_urls.iter().find_map(|url| self.desired.name.ordinal_of_peer_url(url));
            ordinal.is_some() && ordinal == member.map(|member| member.ordinal)
        });
        if !removed || listed {
            return refuse(
                "INV-O3",
                format!("claim {} is not that of a removed member", claim.name),
            );
        }
        let voters = self.memory().members.iter().filter(|it| it.role == MemberRole::Voter).count();
        let voted = member.is_some_and(|member| member.voted);
        if voted && usize::try_from(self.desired.replicas).is_ok_and(|wanted| voters < wanted) {
            return refuse(
                "INV-O3",
                format!("nobody votes yet in place of the member of claim {}", claim.name),
            );
        }
        Ok(())
    }

    fn may_delete_set(&self, set: &Exactly) -> Result<(), Violation> {
        if self.observed.cluster.deleting {
            return Ok(());
        }
        let current = self
            .memory()
            .members
            .iter()
            .any(|member| member.name == set.name && member.role != MemberRole::Removed);
        let listed = self.listed().unwrap_or_default().iter().any(|entry| {
            let ordinal =
                entry.peer_urls.iter().find_map(|url| self.desired.name.ordinal_of_peer_url(url));
            ordinal.is_some_and(|ordinal| self.desired.name.member(ordinal) == set.name)
        });
        if current || listed {
            return refuse("INV-O1", format!("set {} belongs to a member", set.name));
        }
        Ok(())
    }
}

fn find<'a, T>(
    objects: &'a [T],
    of: impl Fn(&T) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    like: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> Option<&'a T> {
    objects.iter().find(|object| of(object).name == like.name)
}

fn differs<T: k8s_openapi::serde::Serialize>(built: &T, found: &T) -> bool {
    let value = |object: &T| serde_json::to_value(object).expect("objects of the API serialise");
    drifted(&value(built), &value(found))
}
