//! Report: the next status, and the events of what changed between the stored one and the next.

use crate::conditions::{ConditionType, Finding, conditions, findings};
use crate::draft::Draft;
use crate::growth;
use crate::health;
use crate::limits::FOREIGN_TEXT_MAX;
use crate::memory::member_id;
use crate::objects::labels::selector_text;
use crate::plan::Event;
use crate::world::{World, annotation, is_ready, is_terminating, last_word};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use quorate_crds::{MemberStatus, StoreClusterStatus, names};

/// The next status: memory, report, conditions.
pub(crate) fn status(draft: &mut Draft<'_>) -> StoreClusterStatus {
    let world = draft.world;
    for member in draft.memory.members.values_mut() {
        look_at_pod(&world, member);
        // Written before the act: from now on it is starting, and not down, until it is ready again.
        let on_purpose = [draft.restarting, draft.stopped].contains(&Some(member.ordinal));
        member.started = member.started && !on_purpose;
        member.health = Some(health::of(&world, member));
        member.lag = health::lag(&world, member);
        let ordinal = member.ordinal;
        member.endpoint = member.role.is_listed().then(|| world.desired.name.client_url(ordinal));
    }
    let findings = findings(draft);
    let observed = world.observed;
    let mut status = observed.status.clone();
    draft.memory.write(&mut status);
    let members = draft.memory.members.values();
    status.observed_generation = Some(observed.cluster.generation);
    status.replicas = count(members.clone().filter(|m| m.role.is_listed()));
    status.ready_replicas = count(draft.memory.voters().filter(|m| m.ready));
    status.ready = Some(format!("{}/{}", status.ready_replicas, world.desired.replicas));
    status.selector = Some(selector_text(&world.owner().member_selector()));
    status.leader = world
        .leader()
        .and_then(|leader| members.clone().find(|m| member_id(m) == Some(leader)))
        .map(|member| member.name.clone());
    let formed = draft.memory.cluster_id.is_some();
    status.endpoint = formed.then(|| world.desired.name.client_service_url());
    status.version = lowest_version(draft);
    status.volume_size = growth::largest(&world, &draft.memory);
    status.conditions = conditions(
        &observed.status.conditions,
        &findings,
        observed.cluster.generation,
        observed.now,
    );
    draft.events.extend(transitions(&observed.status.conditions, &findings));
    status
}

fn count<'a>(members: impl Iterator<Item = &'a MemberStatus>) -> i32 {
    i32::try_from(members.count()).unwrap_or(i32::MAX)
}

/// What a member's pod tells: where it is, whether it is ready, and the verdict of its server if it
/// gave one.
fn look_at_pod(world: &World<'_>, member: &mut MemberStatus) {
    let Some(pod) = world.pod(member.ordinal) else {
        member.ready = false;
        // Stopped on purpose: when it is started again it is starting, not down.
        member.started = member.started && !world.desired.hibernated;
        return;
    };
    if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
        member.node = Some(node);
    }
    member.ready = is_ready(pod) && !is_terminating(&pod.metadata);
    // It is noted before its pod can be deleted, and holds until the server does better.
    if let Some(verdict) = last_word(pod) {
        member.verdict = Some(verdict);
    }
    if member_id(member).is_some_and(|id| world.observed.answer(id).is_some()) {
        member.verdict = None;
    }
    if member.ready {
        member.started = true;
        if let Some(version) = annotation(&pod.metadata, names::ANNOTATION_VERSION) {
            member.version = Some(version.to_owned());
        }
    }
}

/// The lowest version in the pods of ready members: what clients may count on while an upgrade is under way.
fn lowest_version(draft: &Draft<'_>) -> Option<String> {
    draft
        .memory
        .members
        .values()
        .filter(|member| member.ready)
        .filter_map(|member| draft.world.pod(member.ordinal))
        .filter_map(|pod| annotation(&pod.metadata, names::ANNOTATION_VERSION))
        .min_by_key(|version| crate::version::parse(version))
        .map(str::to_owned)
}

/// Events of conditions that turned. A condition that was never reported has not turned, unless it
/// holds now and is one that a person should hear of.
pub(crate) fn transitions(old: &[Condition], findings: &[Finding]) -> Vec<Event> {
    let mut events = Vec::new();
    for finding in findings {
        let before = old.iter().find(|condition| condition.type_ == finding.type_.as_str());
        let held = before.is_some_and(|condition| condition.status == "True");
        let same_reason = before.is_some_and(|condition| condition.reason == finding.reason);
        let holds = finding.holds == Some(true);
        let turned = held != holds;
        let event = |warning: bool, reason: &'static str| Event {
            warning,
            reason,
            message: finding.message.chars().take(4 * FOREIGN_TEXT_MAX).collect(),
        };
        match finding.type_ {
            ConditionType::Available if turned && holds => {
                events.push(event(false, "Available"));
            }
            ConditionType::Available if turned => {
                let on_purpose = ["Hibernated", "Deleting", "Starting"].contains(&finding.reason);
                events.push(event(!on_purpose, finding.reason));
            }
            ConditionType::Degraded if holds && !(held && same_reason) => {
                events.push(event(true, finding.reason));
            }
            ConditionType::Degraded if turned => events.push(event(false, "Recovered")),
            ConditionType::Progressing if finding.holds == Some(false) && !same_reason => {
                events.push(event(finding.reason == "InvalidSpec", finding.reason));
            }
            ConditionType::RestartPending if turned && !holds => {
                events.push(event(false, "RolloutFinished"));
            }
            ConditionType::RestartPending if turned => {
                events.push(event(false, finding.type_.as_str()));
            }
            ConditionType::ResizePending if holds && !(held && same_reason) => {
                events.push(event(finding.reason != "VolumesGrowing", finding.reason));
            }
            ConditionType::ResizePending if turned => {
                events.push(event(false, "ResizeFinished"));
            }
            ConditionType::PlacementWarning if turned && holds => {
                events.push(event(true, finding.reason));
            }
            ConditionType::EarlierVolumesFound | ConditionType::SizeWarning if turned && holds => {
                events.push(event(true, finding.type_.as_str()));
            }
            ConditionType::Available
            | ConditionType::Progressing
            | ConditionType::Degraded
            | ConditionType::QuorumHealthy
            | ConditionType::RestartPending
            | ConditionType::ResizePending
            | ConditionType::EarlierVolumesFound
            | ConditionType::SizeWarning
            | ConditionType::PlacementWarning => {}
        }
    }
    events
}
