//! Restart: members whose pods run outdated settings, one at a time. Broken ones first, then
//! followers, then leadership is handed over, and the old leader comes last as a follower.
//!
//! Nothing of a rollout is remembered: which pod runs what is read anew each time. A spec that is
//! edited back makes the member that failed on it outdated, and broken outdated members come first:
//! that is all there is to rolling back.

use crate::action::Action;
use crate::draft::Draft;
use crate::limits::{RECOVERY_GAP, RESTART_LIMIT};
use crate::loss;
use crate::memory::member_id;
use crate::objects::pod::settings_digest;
use crate::observed::Membership;
use crate::reason::{Reason, short};
use crate::steps::children::wanted_budget;
use crate::steps::leadership;
use crate::world::{
    Roster, World, annotation, exactly, is_ready, is_terminating, obstacle, quorum,
    refused_settings, runs, verdict,
};
use k8s_openapi::api::core::v1::Pod;
use quorate_crds::{MemberRole, OperationKind, names};

/// A member of the store, as far as its settings are concerned.
struct Mate<'a> {
    ordinal: i32,
    id: u64,
    name: String,
    voter: bool,
    /// Whether it has been ready since it was started on purpose.
    started: bool,
    /// Whether it is lost or leaves: what becomes of it says nothing of the settings.
    going: bool,
    /// Its pod, if it is there and stays.
    pod: Option<&'a Pod>,
    /// Whether that pod runs other settings than the wanted ones.
    outdated: bool,
}

/// Restarts at most one member, or says why none.
pub(crate) fn step(draft: &mut Draft<'_>, roster: Option<&Roster>) {
    let world = draft.world;
    let desired = world.desired;
    let strangers = roster.is_some_and(|roster| !roster.foreign.is_empty());
    let elsewhere =
        roster.is_none() && matches!(world.observed.membership, Membership::Known { .. });
    if desired.hibernated || desired.on_delete || draft.version_refused || strangers || elsewhere {
        return;
    }
    let crew = crew(draft);
    if let Some(message) = failure(&world, roster, &crew) {
        return draft.wait(Reason::RolloutFailed, message);
    }
    if !crew.iter().any(|mate| mate.outdated) {
        return;
    }
    if desired.rollout_paused {
        let names = names(crew.iter().filter(|mate| mate.outdated));
        return draft.wait(
            Reason::RolloutPaused,
            format!("spec.updateStrategy.paused is set: {names} keep older settings"),
        );
    }
    // One disruption at a time, and the membership's comes first.
    if draft.actions.iter().any(Action::is_disruptive) {
        return;
    }
    let calm = draft.memory.operation.is_none();
    if let Some(mate) = broken(&world, &crew, calm) {
        return heal(draft, roster, &crew, mate);
    }
    // What changes the membership says itself what it waits for.
    let (None, Some(roster)) = (&draft.memory.operation, roster) else { return };
    roll(draft, roster, &crew);
}

/// The members that the store lists, or listed when it was last heard of.
fn crew<'a>(draft: &Draft<'a>) -> Vec<Mate<'a>> {
    let world = draft.world;
    let leaving = draft.memory.operation.as_ref();
    let leaving = leaving.filter(|it| it.kind == OperationKind::Leave).map(|it| it.ordinal);
    let mut crew = Vec::new();
    for member in draft.memory.members.values() {
        let voter = match member.role {
            MemberRole::Voter => true,
            MemberRole::Learner => false,
            MemberRole::Pending | MemberRole::Removed => continue,
        };
        let Some(id) = member_id(member) else { continue };
        let pod = world.pod(member.ordinal).filter(|pod| !is_terminating(&pod.metadata));
        let outdated = pod.is_some_and(|pod| world.is_outdated(pod));
        crew.push(Mate {
            ordinal: member.ordinal,
            id,
            name: member.name.clone(),
            voter,
            started: member.started,
            going: leaving == Some(member.ordinal) || loss::of(&world, member).is_some(),
            pod,
            outdated,
        });
    }
    crew
}

fn names<'a>(mates: impl Iterator<Item = &'a Mate<'a>>) -> String {
    mates.map(|mate| mate.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// What to tell people if a voter that was started with the wanted settings has failed on them.
fn failure(world: &World<'_>, roster: Option<&Roster>, crew: &[Mate<'_>]) -> Option<String> {
    let left: Vec<&Mate<'_>> = crew.iter().filter(|mate| mate.outdated).collect();
    let (mate, why) = crew.iter().find_map(|mate| {
        let judged =
            mate.voter && !mate.going && !mate.outdated && (!mate.started || !left.is_empty());
        let well = world.is_well(mate.id, mate.ordinal);
        let pod = world.pod(mate.ordinal).filter(|_pod| judged)?;
        let why = if !well || world.crashes(pod) {
            failed(world, roster, mate, pod)
        } else {
            unrecovered(world, mate)
        };
        why.map(|why| (mate, why))
    })?;
    let others = if left.is_empty() {
        String::new()
    } else {
        format!("; {} go on with older settings", names(left.into_iter()))
    };
    Some(format!(
        "{} does not come up with the wanted settings: {why}{others}; put the spec right or edit it \
         back, no pod has to be deleted",
        mate.name
    ))
}

/// Why a pod with the wanted settings will not become ready, if that can be told.
fn failed(
    world: &World<'_>,
    roster: Option<&Roster>,
    mate: &Mate<'_>,
    pod: &Pod,
) -> Option<String> {
    if let Some(asked) = &pod.metadata.deletion_timestamp {
        let stuck = !mate.started && world.age(asked) >= RESTART_LIMIT;
        return stuck.then(|| "its old pod does not stop, and may be on a lost node".to_owned());
    }
    if let Some(verdict) = verdict(pod) {
        return Some(verdict);
    }
    if let Some(message) = refused_settings(pod) {
        return Some(format!("its server says {message:?}"));
    }
    if world.crashes(pod) {
        return Some("CrashLoopBackOff".to_owned());
    }
    if let Some(obstacle) = obstacle(pod) {
        // The kubelet changes between both words at every attempt.
        let pull = obstacle == "ErrImagePull";
        return Some(if pull { "ImagePullBackOff".to_owned() } else { obstacle });
    }
    // A member that answers while no quorum does waits for the others, not they for it.
    let waits = roster.is_none() && world.observed.answer(mate.id).is_some();
    let made = pod.metadata.creation_timestamp.as_ref()?;
    let late = !mate.started && !waits && world.age(made) >= RESTART_LIMIT;
    late.then(|| format!("it is not ready after {} minutes", RESTART_LIMIT.as_secs() / 60))
}

/// Why a ready member with the wanted settings holds up the others for good: for as long as a start may
/// take it has read nothing, or stood still behind the leader.
fn unrecovered(world: &World<'_>, mate: &Mate<'_>) -> Option<String> {
    let answer = world.observed.answer(mate.id)?;
    let stands = world.stalled_for(mate.id) >= RESTART_LIMIT;
    let (reason, why) = shortfall(world, mate)?;
    let late = stands || !answer.reads && answer.unread_for >= RESTART_LIMIT;
    (late && reason == Reason::NotRecovered).then(|| format!("it is ready and {why}"))
}

/// The outdated member that is to be healed first: one that does nothing, else one that is not well.
/// A learner is never ready; it is well if it follows. A voter that the kubelet calls ready and that
/// the operator has not reached for a moment is not broken: it has its turn. One that is ready and does
/// not recover is, but not in the midst of a change of the membership.
fn broken<'a, 'b>(world: &World<'_>, crew: &'b [Mate<'a>], calm: bool) -> Option<&'b Mate<'a>> {
    let ailing = crew.iter().filter(|mate| {
        let well = if mate.voter {
            let well = world.is_well(mate.id, mate.ordinal)
                || mate.pod.is_some_and(is_ready) && !world.long_unreachable(mate.id);
            well && !(calm && unrecovered(world, mate).is_some())
        } else {
            world.follows(mate.id).is_some()
        };
        mate.outdated && !well
    });
    ailing.min_by_key(|mate| (!world.is_down(mate.id, mate.ordinal), mate.ordinal))
}

/// Restarts a broken outdated member, during a change of the membership too: a joiner that hangs on a
/// bad image is reached by the edited spec. To stop one that does nothing takes nothing from anybody;
/// any other only where all others have recovered.
fn heal(draft: &mut Draft<'_>, roster: Option<&Roster>, crew: &[Mate<'_>], mate: &Mate<'_>) {
    let world = draft.world;
    if world.is_down(mate.id, mate.ordinal) {
        // Whoever was restarted before must at least run; it need not be ready, which could need
        // this one. One that runs and has been silent for long may need it even to speak.
        let waits = |pod: &Pod, id| runs(pod) && world.long_unreachable(id);
        let silent = crew.iter().find(|other| {
            other.voter
                && !other.outdated
                && !other.going
                && world.observed.answer(other.id).is_none()
                && !other.pod.is_some_and(|pod| waits(pod, other.id))
        });
        return match silent {
            Some(other) => draft.wait(
                Reason::MemberRestarting,
                format!("{} is starting; {} is restarted when it runs", other.name, mate.name),
            ),
            None => restart(draft, crew, mate),
        };
    }
    let Some(roster) = roster else { return };
    if hindered(draft, crew, Some(mate.id)) {
        return;
    }
    let voters = roster.voters();
    if mate.voter && voters >= 3 && roster.reachable_without(Some(mate.id)) < quorum(voters) {
        let message = format!("without {} too few voters could be reached", mate.name);
        return draft.wait(Reason::QuorumAtRisk, message);
    }
    if world.leader() == Some(mate.id) && voters > 1 {
        return hand_over(draft, roster, mate);
    }
    restart(draft, crew, mate);
}

/// Restarts the next member of a cluster in which all is well.
fn roll(draft: &mut Draft<'_>, roster: &Roster, crew: &[Mate<'_>]) {
    let world = draft.world;
    if hindered(draft, crew, None) {
        return;
    }
    let leader = world.leader();
    let mut next = crew.iter().filter(|mate| mate.voter && mate.outdated);
    match next.clone().find(|mate| Some(mate.id) != leader).or_else(|| next.next()) {
        Some(mate) if Some(mate.id) == leader && roster.voters() > 1 => {
            hand_over(draft, roster, mate);
        }
        Some(mate) => restart(draft, crew, mate),
        // A learner without an operation: scale makes one of it in this very plan.
        None => {}
    }
}

/// Whether a voter, except perhaps one, has not recovered: nobody is restarted beside it.
fn hindered(draft: &mut Draft<'_>, crew: &[Mate<'_>], except: Option<u64>) -> bool {
    let world = draft.world;
    let mut others = crew.iter().filter(|mate| mate.voter && Some(mate.id) != except);
    let hindrance = others.find_map(|mate| shortfall(&world, mate).map(|why| (mate, why)));
    if let Some((mate, (reason, why))) = &hindrance {
        draft
            .wait(*reason, format!("{} {why}; the next member is restarted after that", mate.name));
    }
    hindrance.is_some()
}

/// What a voter lacks to count as recovered: it is ready, follows the leader, has applied what the
/// leader had committed, reads, and reports no alarm.
fn shortfall(world: &World<'_>, mate: &Mate<'_>) -> Option<(Reason, String)> {
    let answer = world.follows(mate.id).filter(|_answer| world.is_well(mate.id, mate.ordinal));
    let Some(answer) = answer else {
        return Some(if mate.started && mate.pod.is_some() {
            (Reason::MemberDown, "is not well".to_owned())
        } else {
            (Reason::MemberRestarting, "is starting".to_owned())
        });
    };
    let not = |why: String| Some((Reason::NotRecovered, why));
    let leader = world.leader().and_then(|leader| world.observed.answer(leader));
    let ahead = leader.map_or(u64::MAX, |leader| leader.raft_index);
    if answer.applied_index.saturating_add(RECOVERY_GAP) < ahead {
        return not("has not caught up with the leader".to_owned());
    }
    if !answer.reads {
        return not("does not answer linearizable reads".to_owned());
    }
    // A full store is no reason: a larger quota, which is the way out, is a restart itself.
    let alarm = answer.errors.iter().find(|error| !error.contains("NOSPACE"));
    alarm.and_then(|alarm| not(format!("reports {:?}", short(alarm))))
}

/// Hands leadership over once its holder may be restarted.
fn hand_over(draft: &mut Draft<'_>, roster: &Roster, mate: &Mate<'_>) {
    if template_is_seen(draft, mate) {
        leadership::hand_over(draft, roster, mate.ordinal, "it is restarted");
    }
}

/// Whether a pod that is stopped now comes back with the wanted settings: the set is ours, says them,
/// and its controller has seen that it does.
fn template_is_seen(draft: &mut Draft<'_>, mate: &Mate<'_>) -> bool {
    let world = draft.world;
    let wanted = settings_digest(world.desired);
    let seen = world.stateful_set(mate.ordinal).is_some_and(|set| {
        let template = set.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
        let says = template.and_then(|metadata| annotation(metadata, names::ANNOTATION_SETTINGS));
        let looked = set.status.as_ref().and_then(|status| status.observed_generation);
        world.owns(&set.metadata)
            && !is_terminating(&set.metadata)
            && says == Some(wanted.as_str())
            && looked.unwrap_or(0) >= set.metadata.generation.unwrap_or(0)
    });
    if !seen {
        let name = &mate.name;
        draft.wait(
            Reason::TemplatePending,
            format!("{name} is restarted when the controller of StatefulSet {name} has seen its new template"),
        );
    }
    seen
}

/// Stops a member's pod; its set brings it back.
fn restart(draft: &mut Draft<'_>, crew: &[Mate<'_>], mate: &Mate<'_>) {
    let world = draft.world;
    let Some(pod) = mate.pod.filter(|_pod| template_is_seen(draft, mate)) else { return };
    let voters = crew.iter().filter(|other| other.voter).count();
    let name = &mate.name;
    if mate.voter && voters < 3 && !world.is_down(mate.id, mate.ordinal) {
        draft.wait(
            Reason::DowntimeExpected,
            format!(
                "{name} is being restarted; with fewer than three voters nobody serves meanwhile"
            ),
        );
    } else {
        draft.wait(Reason::MemberRestarting, format!("{name} is being restarted"));
    }
    draft.tell(
        false,
        "MemberRestarting",
        format!("{name} is being restarted with the wanted settings"),
    );
    // What was down before stays down in what people are told until it is ready.
    draft.restarting = (!world.is_down(mate.id, mate.ordinal)).then_some(mate.ordinal);
    // The budget arbitrates with drains where there is one and the member counts in it.
    let evict = mate.voter && is_ready(pod) && wanted_budget(draft).is_some();
    draft.act(Action::RestartPod { pod: exactly(&pod.metadata), ordinal: mate.ordinal, evict });
}
