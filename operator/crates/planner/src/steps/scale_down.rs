//! Scale down: one member leaves. Leadership off it, its pod stopped, out of the membership, its set
//! deleted, its claim as the retention policy says.

use crate::action::Action;
use crate::draft::Draft;
use crate::limits::STOP_LIMIT;
use crate::loss::{self, NodeFate};
use crate::memory::{Memory, member_id};
use crate::reason::Reason;
use crate::steps::leadership;
use crate::world::{Roster, Seat, World, annotation, exactly, is_terminating, quorum};
use quorate_crds::{MemberStatus, OperationKind, RetentionPolicy, names};
use std::collections::BTreeMap;

/// One step of the leave of a member.
pub(crate) fn step(draft: &mut Draft<'_>, roster: &Roster, ordinal: i32) {
    match roster.seats.get(&ordinal) {
        Some(seat) => remove(draft, roster, ordinal, *seat),
        // What was never listed; it is cleared away as what was.
        None => {
            if !clear_away(draft, Some(roster), ordinal) {
                draft.memory.operation = None;
            }
        }
    }
}

/// Takes a listed member out of the membership. From three voters up one that serves is stopped first:
/// so it drains its clients, who then see nothing of the removal. The others carry the quorum without
/// it, and until the removal is sent it can be started again.
fn remove(draft: &mut Draft<'_>, roster: &Roster, ordinal: i32, seat: Seat) {
    let world = draft.world;
    let name = world.desired.name.member(ordinal);
    if seat.learner {
        if world.leader().is_some() {
            draft.act(Action::RemoveMember { id: seat.id, ordinal, voter: false });
        }
        return draft.wait(Reason::PodStopping, format!("{name} is leaving"));
    }
    stay_stopped(draft, Some(roster));
    let Some(leader) = world.leader() else {
        let message = format!("no member leads; {name} leaves when one does");
        return draft.wait(Reason::NoLeader, message);
    };
    let left = roster.voters() - 1;
    if left == 0 || roster.reachable_without(Some(seat.id)) < quorum(left) {
        let message = format!(
            "without {name} too few of the other voters could be reached; it leaves when they are back"
        );
        return draft.wait(Reason::QuorumAtRisk, message);
    }
    // To take out a member that is gone disturbs nobody; to take out one that works while another does
    // not would be a second disruption (INV-O2).
    let member = draft.memory.members.get(&ordinal);
    let lost = member.is_some_and(|member| loss::of(&world, member).is_some());
    let away = draft.stopped == Some(ordinal) || lost || world.long_unreachable(seat.id);
    let serves = roster.voters() >= 3 && !is_stopped(&world, ordinal, seat);
    let ailing = roster.ailing_without(ordinal);
    if (serves || seat.reachable || !away) && !ailing.is_empty() {
        let names: Vec<_> = ailing.iter().map(|other| world.desired.name.member(*other)).collect();
        draft.wait(Reason::MemberDown, format!("{name} leaves when {} is well", names.join(", ")));
        return;
    }
    if leader == seat.id {
        return leadership::hand_over(draft, roster, ordinal, "it leaves");
    }
    if !serves {
        draft.act(Action::RemoveMember { id: seat.id, ordinal, voter: true });
    } else if draft.stopped != Some(ordinal)
        && let Some(set) = world.stateful_set(ordinal).filter(|set| world.owns(&set.metadata))
    {
        draft.restarting = Some(ordinal);
        draft.act(Action::StopMember { set: exactly(&set.metadata), ordinal });
    }
    draft.wait(Reason::PodStopping, format!("{name} is leaving"));
}

/// Whether a voter serves nobody any more: its pod is gone, or does nothing, or has been asked to stop
/// for so long that nobody will do it.
fn is_stopped(world: &World<'_>, ordinal: i32, seat: Seat) -> bool {
    let asked = world.is_told_to_stop(ordinal);
    match world.pod(ordinal) {
        None => asked || !seat.reachable,
        Some(pod) => {
            let since = pod.metadata.deletion_timestamp.as_ref().filter(|_since| asked);
            let late = since.is_some_and(|since| world.age(since) >= STOP_LIMIT);
            late || !asked && !seat.reachable && world.is_down(seat.id, ordinal)
        }
    }
}

/// A voter that was stopped because it leaves stays so as long as the others are a quorum without it:
/// they all answer, or have confirmed a list although its pod is gone. One answer that is missing or a
/// list that cannot be had for a moment starts nobody. If they are not, it is started again.
pub(crate) fn stay_stopped(draft: &mut Draft<'_>, roster: Option<&Roster>) {
    let world = draft.world;
    let leaving = draft.memory.operation.as_ref().filter(|it| it.kind == OperationKind::Leave);
    let Some(ordinal) = leaving.map(|operation| operation.ordinal) else { return };
    let voters = draft.memory.voters().count();
    let votes = draft.memory.voters().any(|member| member.ordinal == ordinal);
    let others = draft.memory.voters().filter(|member| member.ordinal != ordinal);
    let others = others.filter_map(member_id).filter(|id| world.observed.answer(*id).is_some());
    let spared =
        others.count() >= quorum(voters) || roster.is_some() && world.pod(ordinal).is_none();
    if votes && voters >= 3 && spared && world.is_told_to_stop(ordinal) {
        draft.stopped = Some(ordinal);
    }
}

/// Clears away what is left of a member that the store lists no more. Returns whether that has to come
/// to an end before anything else begins; a pod that nobody can stop, and a claim that is kept until
/// another member votes in its place, hold up nothing.
pub(crate) fn clear_away(draft: &mut Draft<'_>, roster: Option<&Roster>, ordinal: i32) -> bool {
    let world = draft.world;
    let Some(member) = draft.memory.members.get(&ordinal).cloned() else { return false };
    let accused = disarm(draft, roster, &member);
    let set = world.stateful_set(ordinal).filter(|set| world.owns(&set.metadata));
    let pod = world.pod(ordinal);
    if let Some(set) = set.filter(|set| !is_terminating(&set.metadata)) {
        draft.act(Action::DeleteStatefulSet(exactly(&set.metadata)));
    }
    if set.is_some() || pod.is_some() {
        let mut message = format!("{} was removed and is being stopped", member.name);
        let fate = pod.map_or(NodeFate::Fine, |_pod| loss::node(&world, &member));
        let (NodeFate::Lost(why) | NodeFate::Suspect(why)) = fate else {
            draft.wait(Reason::PodStopping, message);
            return true;
        };
        message.push_str(&format!(": {why}"));
        draft.wait(Reason::PodStopping, message);
        return set.is_some();
    }
    if accused {
        return true;
    }
    // The data of a voter are kept until others hold them in its place.
    let wanted = usize::try_from(world.desired.replicas).unwrap_or(usize::MAX);
    if member.voted && draft.memory.voters().count() < wanted {
        return false;
    }
    let settled = claim_is_settled(&world, &draft.memory, &member, &mut draft.actions);
    if settled {
        draft.memory.members.remove(&ordinal);
    }
    !settled
}

/// Takes back the alarms that a removed member had raised: nobody else does, and CORRUPT stops every
/// write. Returns whether any stands.
fn disarm(draft: &mut Draft<'_>, roster: Option<&Roster>, member: &MemberStatus) -> bool {
    let Some(id) = member_id(member) else { return false };
    let raised: Vec<_> =
        draft.world.observed.alarms().into_iter().filter(|(of, _alarm)| *of == id).collect();
    for (id, alarm) in raised.iter().filter(|_raised| roster.is_some()) {
        draft.act(Action::DisarmAlarm { id: *id, alarm: *alarm });
    }
    !raised.is_empty()
}

/// Deletes or marks the claim. Returns whether nothing is left to be done with it.
fn claim_is_settled(
    world: &World<'_>,
    memory: &Memory,
    member: &MemberStatus,
    actions: &mut Vec<Action>,
) -> bool {
    let claim = world
        .claim(&member.claim)
        .filter(|claim| world.owns_claim(claim, Some(member)) && !is_terminating(&claim.metadata));
    let Some(claim) = claim else { return true };
    // A claim that no listed member ever had holds nothing, whatever the policy.
    let policy =
        if member.id.is_some() { world.desired.when_scaled } else { RetentionPolicy::Delete };
    match policy {
        RetentionPolicy::Delete => {
            actions.push(Action::DeleteClaim(exactly(&claim.metadata)));
            false
        }
        RetentionPolicy::Retain => {
            let next = memory.next_ordinal.to_string();
            if annotation(&claim.metadata, names::ANNOTATION_RETIRED).is_some() {
                return true;
            }
            actions.push(Action::AnnotateClaim {
                claim: exactly(&claim.metadata),
                annotations: BTreeMap::from([
                    (names::ANNOTATION_RETIRED.to_owned(), "its member was removed".to_owned()),
                    (names::ANNOTATION_NEXT_ORDINAL.to_owned(), next),
                ]),
            });
            false
        }
    }
}
