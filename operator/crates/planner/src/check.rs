//! Check: refuses a plan that breaks a law, whatever `plan` thought.
//!
//! It reads the finished plan and the observation, shares no decision with the steps, and errs on
//! the side of refusing: a violation is a bug, and doing nothing is the safe answer to a bug.

use crate::action::{Action, Exactly, Object};
use crate::desired::Desired;
use crate::drift::drifted;
use crate::naming::parse_hex;
use crate::objects::pod::settings_digest;
use crate::observed::{Membership, Observed, StoreMember};
use crate::plan::Plan;
use crate::quantity;
use crate::world::{is_ready, quorum};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::serde_json;
use quorate_crds::{MemberRole, MemberStatus, RetentionPolicy, StoreClusterStatus, names};
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
            Action::MoveLeader { from, to, .. } => {
                let voters = self.listed().unwrap_or_default();
                let votes =
                    |id: &u64| voters.iter().any(|member| member.id == *id && !member.learner);
                if from == to || !votes(from) || !votes(to) || self.observed.answer(*to).is_none() {
                    return refuse(
                        "INV-O1",
                        "leadership may only move to another voter that answers",
                    );
                }
                Ok(())
            }
            Action::Promote { id, .. } => self.may_promote(*id),
            Action::AddLearner { peer_url, .. } => match self.listed() {
                Some(listed)
                    if !listed.iter().any(|m| m.learner || m.peer_urls.contains(peer_url)) =>
                {
                    Ok(())
                }
                Some(_) => refuse("INV-O2", "one learner at a time, and no member twice"),
                None => refuse("INV-O2", "membership changes only on a confirmed list"),
            },
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
        let wanted = usize::try_from(self.desired.replicas).unwrap_or(usize::MAX);
        if listed.len() <= wanted {
            return refuse("INV-O1", "no more members are listed than wanted");
        }
        if voter && self.observed.answer(id).is_some_and(|answer| answer.leader == Some(id)) {
            return refuse("INV-O1", "leadership must be moved off a voter before it is removed");
        }
        Ok(())
    }

    /// A pod is stopped only for its settings, and only where the others carry on without it.
    fn may_restart(&self, pod: &Exactly, ordinal: i32) -> Result<(), Violation> {
        let (observed, desired) = (self.observed, self.desired);
        let member = self.member(ordinal).filter(|member| match member.role {
            MemberRole::Learner | MemberRole::Voter => true,
            MemberRole::Pending | MemberRole::Removed => false,
        });
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
