//! World: Observed as the steps ask about it: children by name and owner, members by ordinal, who
//! leads, who is well.

use crate::action::Exactly;
use crate::desired::Desired;
use crate::limits::{LONG_UNREACHABLE, RESTART_LIMIT};
use crate::objects::labels::Owner;
use crate::objects::pod::settings_digest;
use crate::observed::{MemberAnswer, MemberView, Membership, Observed};
use crate::reason::short;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::serde_json::{self, Value};
use quorate_crds::{MemberStatus, names};
use std::collections::BTreeMap;
use std::time::Duration;

/// Least number of voters that decide (Raft thesis §3.1: a majority).
#[must_use]
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Observed and Desired together, with the questions that steps ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World<'a> {
    pub(crate) desired: &'a Desired,
    pub(crate) observed: &'a Observed,
}

impl<'a> World<'a> {
    pub(crate) fn owner(&self) -> Owner<'a> {
        Owner {
            name: &self.desired.name,
            uid: &self.observed.cluster.uid,
            extra: &self.desired.labels,
        }
    }

    /// Whether an object's controller is our StoreCluster, by UID: a name alone proves nothing.
    pub(crate) fn owns(&self, metadata: &ObjectMeta) -> bool {
        owned_by(metadata, &self.observed.cluster.uid)
    }

    pub(crate) fn stateful_set(&self, ordinal: i32) -> Option<&'a StatefulSet> {
        find(&self.observed.stateful_sets, |s| &s.metadata, &self.desired.name.member(ordinal))
    }

    pub(crate) fn pod(&self, ordinal: i32) -> Option<&'a Pod> {
        find(&self.observed.pods, |p| &p.metadata, &self.desired.name.pod(ordinal))
    }

    pub(crate) fn claim(&self, name: &str) -> Option<&'a PersistentVolumeClaim> {
        find(&self.observed.claims, |c| &c.metadata, name)
    }

    pub(crate) fn job(&self, name: &str) -> Option<&'a Job> {
        find(&self.observed.jobs, |j| &j.metadata, name)
    }

    /// Whether a claim is ours: made by this StoreCluster, or adopted into its memory by UID.
    pub(crate) fn owns_claim(
        &self,
        claim: &PersistentVolumeClaim,
        member: Option<&MemberStatus>,
    ) -> bool {
        let made = annotation(&claim.metadata, names::ANNOTATION_CLUSTER_UID)
            == Some(self.observed.cluster.uid.as_str());
        let adopted =
            member.is_some_and(|m| m.claim_uid.is_some() && m.claim_uid == claim.metadata.uid);
        made || adopted
    }

    /// The member that leads.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.observed.leader()
    }

    /// The answer of a member that sees the leader.
    pub(crate) fn follows(&self, id: u64) -> Option<&'a MemberAnswer> {
        let answer = self.observed.answer(id)?;
        (answer.leader.is_some() && answer.leader == self.leader()).then_some(answer)
    }

    /// Whether a member has been unreachable for so long that it is no flap. One observation that
    /// failed to reach it is no evidence that it is gone.
    pub(crate) fn long_unreachable(&self, id: u64) -> bool {
        match self.observed.members.get(&id) {
            Some(MemberView::Unreachable { since, .. }) => {
                let gone = Duration::try_from(self.observed.now.duration_since(*since));
                gone.is_ok_and(|gone| gone >= LONG_UNREACHABLE)
            }
            Some(MemberView::Answered(_)) | None => false,
        }
    }

    /// Whether a member does its part: it answers, sees the leader, and its pod is ready and stays.
    /// While CORRUPT stands nobody is ready (`docs/contract.md`), and following is all that can be
    /// asked for.
    pub(crate) fn is_well(&self, id: u64, ordinal: i32) -> bool {
        let pod = self.pod(ordinal).filter(|pod| pod.metadata.deletion_timestamp.is_none());
        self.follows(id).is_some()
            && pod.is_some_and(|pod| is_ready(pod) || self.observed.is_corrupt())
    }

    /// For how long a joiner has made no progress: silent, or with an applied index that stands still
    /// below the leader's.
    pub(crate) fn stalled_for(&self, id: u64) -> Duration {
        let leader = self.leader().and_then(|leader| self.observed.answer(leader));
        match self.observed.members.get(&id) {
            Some(MemberView::Unreachable { since, .. }) => self.age(&Time(*since)),
            Some(MemberView::Answered(answer)) => {
                let behind = leader.is_some_and(|it| answer.applied_index < it.raft_index);
                if behind { answer.stalled_for } else { Duration::ZERO }
            }
            None => Duration::ZERO,
        }
    }

    /// Whether the set of a member was told to have no pod.
    pub(crate) fn is_told_to_stop(&self, ordinal: i32) -> bool {
        let set = self.stateful_set(ordinal).filter(|set| self.owns(&set.metadata));
        set.and_then(|set| set.spec.as_ref()).is_some_and(|spec| spec.replicas == Some(0))
    }

    /// Whether a member surely does nothing, so that stopping its pod takes nothing from anybody: it
    /// does not answer, the kubelet does not call it ready, and its container does not run, or has
    /// been silent for so long that it is no flap.
    pub(crate) fn is_down(&self, id: u64, ordinal: i32) -> bool {
        let Some(pod) = self.pod(ordinal) else { return true };
        let silent = self.observed.answer(id).is_none() && !is_ready(pod);
        silent && (!runs(pod) || self.long_unreachable(id))
    }

    /// Whether a pod was made with other settings than the wanted ones.
    pub(crate) fn is_outdated(&self, pod: &Pod) -> bool {
        let made_with = annotation(&pod.metadata, names::ANNOTATION_SETTINGS);
        made_with != Some(settings_digest(self.desired).as_str())
    }

    /// How long ago something was, as the API server's clock has it; nothing for a time to come.
    pub(crate) fn age(&self, since: &Time) -> Duration {
        Duration::try_from(self.observed.now.duration_since(since.0)).unwrap_or_default()
    }

    /// Whether a pod's server has crashed again and again, the last time not long ago: that it runs
    /// just now proves nothing.
    pub(crate) fn crashes(&self, pod: &Pod) -> bool {
        server(pod).is_some_and(|status| {
            let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let ended = last.and_then(|ended| ended.finished_at.as_ref());
            status.restart_count >= 2 && ended.is_some_and(|at| self.age(at) < RESTART_LIMIT)
        })
    }

    /// The roster, if a quorum confirmed it and it is that of the cluster that we formed.
    pub(crate) fn roster(&self, cluster_id: u64) -> Option<Roster> {
        match &self.observed.membership {
            Membership::Known { cluster_id: listed, members } if *listed == cluster_id => {
                let mut roster = Roster::default();
                for member in members {
                    let ordinal = member
                        .peer_urls
                        .iter()
                        .find_map(|url| self.desired.name.ordinal_of_peer_url(url));
                    let seat = Seat {
                        id: member.id,
                        learner: member.learner,
                        started: !member.name.is_empty(),
                        reachable: self.observed.answer(member.id).is_some(),
                        well: ordinal.is_some_and(|ordinal| self.is_well(member.id, ordinal)),
                    };
                    match ordinal {
                        Some(ordinal) if !roster.seats.contains_key(&ordinal) => {
                            roster.seats.insert(ordinal, seat);
                        }
                        Some(_) | None => roster.foreign.push(seat),
                    }
                }
                Some(roster)
            }
            Membership::Known { .. } | Membership::NotAsked | Membership::Unreachable { .. } => {
                None
            }
        }
    }
}

/// The membership as the store lists it, by ordinal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    /// Our members.
    pub(crate) seats: BTreeMap<i32, Seat>,
    /// Members with peer URLs that we did not make.
    pub(crate) foreign: Vec<Seat>,
}

/// One listed member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) id: u64,
    pub(crate) learner: bool,
    /// Whether it has started once and told its name.
    pub(crate) started: bool,
    /// Whether it answered.
    pub(crate) reachable: bool,
    /// See [`World::is_well`].
    pub(crate) well: bool,
}

impl Roster {
    fn all(&self) -> impl Iterator<Item = &Seat> {
        self.seats.values().chain(&self.foreign)
    }

    /// Number of voters, foreign ones too: they count in every quorum.
    pub(crate) fn voters(&self) -> usize {
        self.voters_that(|_any| true)
    }

    /// Number of voters of which this holds.
    pub(crate) fn voters_that(&self, holds: impl Fn(u64) -> bool) -> usize {
        self.all().filter(|seat| !seat.learner && holds(seat.id)).count()
    }

    /// Number of voters that answered, without one of them if an id is given.
    pub(crate) fn reachable_without(&self, id: Option<u64>) -> usize {
        self.all().filter(|seat| !seat.learner && seat.reachable && Some(seat.id) != id).count()
    }

    /// Ordinals of voters that are not well, without one of them.
    pub(crate) fn ailing_without(&self, ordinal: i32) -> Vec<i32> {
        let ailing = |(other, seat): (&i32, &Seat)| {
            (*other != ordinal && !seat.learner && !seat.well).then_some(*other)
        };
        self.seats.iter().filter_map(ailing).collect()
    }
}

/// Whether an object's controller has this UID.
#[must_use]
pub(crate) fn owned_by(metadata: &ObjectMeta, uid: &str) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

fn find<'a, T>(
    objects: &'a [T],
    metadata: impl Fn(&T) -> &ObjectMeta,
    name: &str,
) -> Option<&'a T> {
    objects.iter().find(|object| metadata(object).name.as_deref() == Some(name))
}

/// Which very object metadata speak of.
#[must_use]
pub(crate) fn exactly(metadata: &ObjectMeta) -> Exactly {
    Exactly {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
    }
}

pub(crate) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub(crate) fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

pub(crate) fn is_terminating(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// Whether the kubelet calls a pod ready.
#[must_use]
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The last termination message of a pod's server container: the server's own verdict
/// (`docs/contract.md`).
#[must_use]
pub(crate) fn termination_message(pod: &Pod) -> Option<&str> {
    let container = server(pod)?;
    let now = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    now.or(last)?.message.as_deref().map(str::trim)
}

/// What the kubelet says of a pod's server container.
fn server(pod: &Pod) -> Option<&ContainerStatus> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?;
    status.iter().find(|status| status.name == crate::naming::CONTAINER)
}

/// Whether a pod's server runs, as far as the kubelet knows.
pub(crate) fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let state = server(pod).and_then(|status| status.state.as_ref());
    let stands = state.is_some_and(|state| state.waiting.is_some() || state.terminated.is_some());
    phase == Some("Running") && !stands
}

/// The verdict on which a pod's server stands still: it gave one and has not been started again since.
/// One that runs again may yet do better; if it does not, it says so once more.
#[must_use]
pub(crate) fn last_word(pod: &Pod) -> Option<String> {
    let runs_again = server(pod)
        .and_then(|status| status.state.as_ref())
        .is_some_and(|state| state.running.is_some());
    verdict(pod).filter(|_verdict| !runs_again)
}

/// Whether a pod has ended for good: evicted, or stopped with its node.
#[must_use]
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Failed") || phase == Some("Succeeded")
}

/// The class of a pod's exit verdict, if its server gave one (`docs/contract.md`); other messages are
/// no verdicts.
#[must_use]
pub(crate) fn verdict(pod: &Pod) -> Option<String> {
    let value: Value = serde_json::from_str(termination_message(pod)?).ok()?;
    let class = value.get("verdict")?.as_str()?;
    let known = ["Empty", "Corrupt", "Removed", "ForeignCluster", "FormatTooNew"];
    known.contains(&class).then(|| class.to_owned())
}

/// What a pod's server says against its settings, if it has ended for them (`docs/contract.md`).
#[must_use]
pub(crate) fn refused_settings(pod: &Pod) -> Option<String> {
    let value: Value = serde_json::from_str(termination_message(pod)?).ok()?;
    let refused = value.get("verdict")?.as_str()? == "Configuration";
    value.get("message")?.as_str().filter(|_message| refused).map(short)
}

/// Why a pod does not run yet, in the words of the scheduler or the kubelet.
#[must_use]
pub(crate) fn obstacle(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unschedulable = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")
        .map(|c| c.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned()));
    let waiting = || {
        status.container_statuses.iter().flatten().find_map(|container| {
            let reason = container.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
            (reason != "ContainerCreating" && reason != "PodInitializing").then_some(reason)
        })
    };
    unschedulable.or_else(waiting)
}
