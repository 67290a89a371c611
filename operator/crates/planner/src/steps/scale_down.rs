//! Scale down: one member leaves. Leadership off it, out of the membership, its set deleted, its
//! pod gone, its claim as the retention policy says.

use crate::action::Action;
use crate::draft::Draft;
use crate::memory::Memory;
use crate::reason::Reason;
use crate::world::{Roster, Seat, World, annotation, exactly, is_terminating, quorum};
use quorate_crds::{MemberStatus, RetentionPolicy, names};
use std::collections::BTreeMap;

/// One step of the leave of a member.
pub(crate) fn step(draft: &mut Draft<'_>, roster: &Roster, ordinal: i32) {
    match roster.seats.get(&ordinal) {
        Some(seat) => remove(draft, roster, ordinal, *seat),
        None => clear_away(draft, ordinal),
    }
}

/// Takes a listed member out of the membership.
fn remove(draft: &mut Draft<'_>, roster: &Roster, ordinal: i32, seat: Seat) {
    let world = draft.world;
    let name = world.desired.name.member(ordinal);
    let Some(leader) = world.leader() else {
        draft.wait(Reason::NoLeader, format!("no member leads; {name} leaves when one does"));
        return;
    };
    if seat.learner {
        draft.act(Action::RemoveMember { id: seat.id, ordinal, voter: false });
        draft.wait(Reason::PodStopping, format!("{name} is leaving"));
        return;
    }
    let left = roster.voters() - 1;
    if left == 0 || roster.reachable_without(Some(seat.id)) < quorum(left) {
        draft.wait(
            Reason::QuorumAtRisk,
            format!(
                "without {name} too few of the other voters could be reached; it leaves \
                when they are back"
            ),
        );
        return;
    }
    // To take out a member that is long gone disturbs nobody; to take out one that works while
    // another does not would be a second disruption (INV-O2).
    let ailing = roster.ailing_without(ordinal);
    if !world.long_unreachable(seat.id) && !ailing.is_empty() {
        let names: Vec<_> = ailing.iter().map(|other| world.desired.name.member(*other)).collect();
        draft.wait(Reason::MemberDown, format!("{name} leaves when {} is well", names.join(", ")));
        return;
    }
    if leader == seat.id {
        move_leadership(draft, roster, ordinal, seat);
        return;
    }
    draft.act(Action::RemoveMember { id: seat.id, ordinal, voter: true });
    draft.wait(Reason::PodStopping, format!("{name} is leaving"));
}

/// Hands leadership to the voter that is furthest along, the lowest ordinal among equals.
fn move_leadership(draft: &mut Draft<'_>, roster: &Roster, ordinal: i32, seat: Seat) {
    let world = draft.world;
    let name = world.desired.name.member(ordinal);
    let applied = |id: u64| world.observed.answer(id).map_or(0, |answer| answer.applied_index);
    let heir = roster
        .seats
        .iter()
        .filter(|(_other, heir)| heir.id != seat.id && !heir.learner && heir.well)
        .max_by_key(|(other, heir)| (applied(heir.id), -**other));
    match heir {
        Some((_other, heir)) => {
            draft.act(Action::MoveLeader { from: seat.id, from_ordinal: ordinal, to: heir.id });
            draft.wait(
                Reason::LeadershipMoving,
                format!("{name} leads; leadership moves before it leaves"),
            );
        }
        None => draft.wait(
            Reason::MemberDown,
            format!("{name} leads and no other voter is well enough to take over"),
        ),
    }
}

/// Clears away what is left of a member that the store lists no more.
pub(crate) fn clear_away(draft: &mut Draft<'_>, ordinal: i32) {
    let world = draft.world;
    let Some(member) = draft.memory.members.get(&ordinal).cloned() else { return };
    if let Some(set) = world.stateful_set(ordinal).filter(|set| world.owns(&set.metadata)) {
        if !is_terminating(&set.metadata) {
            draft.act(Action::DeleteStatefulSet(exactly(&set.metadata)));
        }
        draft
            .wait(Reason::PodStopping, format!("{} was removed and is being stopped", member.name));
        return;
    }
    if world.pod(ordinal).is_some() {
        draft
            .wait(Reason::PodStopping, format!("{} was removed and is being stopped", member.name));
        return;
    }
    if claim_is_settled(&world, &draft.memory, &member, &mut draft.actions) {
        draft.memory.members.remove(&ordinal);
        draft.memory.operation = None;
    }
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
