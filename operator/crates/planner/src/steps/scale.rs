//! Scale: which membership change comes next. One at a time; what was begun is finished or taken
//! back first.

use crate::action::Action;
use crate::draft::Draft;
use crate::reason::Reason;
use crate::steps::{scale_down, scale_up};
use crate::world::{Roster, exactly, is_terminating, label};
use quorate_crds::{MemberRole, OperationKind, names};

/// The membership step of a formed cluster whose roster a quorum has confirmed.
pub(crate) fn step(draft: &mut Draft<'_>, roster: Option<&Roster>) {
    // What is left of a removed member goes before anything else begins. That it was removed is in
    // the memory since a quorum said so, hence nobody has to be asked again.
    let removed = draft.memory.members.values().rev().find(|m| m.role == MemberRole::Removed);
    if let Some(ordinal) = removed.map(|member| member.ordinal) {
        draft.memory.begin(OperationKind::Leave, ordinal, draft.world.observed.now);
        scale_down::clear_away(draft, ordinal);
        return;
    }
    let Some(roster) = roster else { return };
    if draft.world.desired.hibernated {
        draft.wait(
            Reason::Hibernated,
            "the cluster is hibernated; membership changes when it is resumed",
        );
        return;
    }
    drop_strays(draft);
    if !roster.foreign.is_empty() {
        return;
    }
    decide(draft, roster);
    let Some(operation) = draft.memory.operation.clone() else { return };
    match operation.kind {
        OperationKind::Join => scale_up::step(draft, roster, operation.ordinal),
        OperationKind::Leave => scale_down::step(draft, roster, operation.ordinal),
    }
}

/// Settles what the operation is: the one begun, its reversal, or the next one.
fn decide(draft: &mut Draft<'_>, roster: &Roster) {
    let world = draft.world;
    let now = world.observed.now;
    let wanted = usize::try_from(world.desired.replicas).unwrap_or(usize::MAX);
    if let Some(operation) = draft.memory.operation.clone() {
        let role = draft.memory.members.get(&operation.ordinal).map(|member| member.role);
        let finished = match (operation.kind, role) {
            (OperationKind::Join, Some(MemberRole::Voter)) | (_, None) => true,
            // Taken back while the member still is one: it stays.
            (
                OperationKind::Leave,
                Some(MemberRole::Voter | MemberRole::Learner | MemberRole::Pending),
            ) => wanted >= draft.memory.counted(),
            (OperationKind::Join, Some(MemberRole::Pending | MemberRole::Learner)) => false,
            (OperationKind::Join, Some(MemberRole::Removed))
            | (OperationKind::Leave, Some(MemberRole::Removed)) => false,
        };
        if finished {
            draft.memory.operation = None;
        }
    }
    if let Some((kind, ordinal)) = next(draft, roster, wanted) {
        let fresh =
            draft.memory.operation.as_ref().is_none_or(|o| o.kind != kind || o.ordinal != ordinal);
        draft.memory.begin(kind, ordinal, now);
        if fresh {
            let name = world.desired.name.member(ordinal);
            match kind {
                OperationKind::Join => {
                    draft.tell(false, "MemberJoining", format!("{name} joins as a learner"));
                }
                OperationKind::Leave => {
                    draft.tell(false, "MemberLeaving", format!("{name} leaves"));
                }
            }
        }
    }
}

/// What shall be under way now, if anything.
fn next(draft: &mut Draft<'_>, roster: &Roster, wanted: usize) -> Option<(OperationKind, i32)> {
    let with = |draft: &Draft<'_>, role: MemberRole| {
        draft.memory.members.values().rev().find(|m| m.role == role).map(|m| m.ordinal)
    };
    if draft.memory.counted() > wanted {
        // A member that the store does not list yet is the cheapest to lose: nothing has to be
        // asked.
        if let Some(pending) = with(draft, MemberRole::Pending) {
            if let Some(member) = draft.memory.members.get_mut(&pending) {
                member.role = MemberRole::Removed;
            }
            return Some((OperationKind::Leave, pending));
        }
        return victim(draft, roster).map(|ordinal| (OperationKind::Leave, ordinal));
    }
    if let Some(unfinished) = with(draft, MemberRole::Learner).or(with(draft, MemberRole::Pending))
    {
        return Some((OperationKind::Join, unfinished));
    }
    if draft.memory.counted() < wanted {
        if draft.world.leader().is_none() {
            draft.wait(Reason::NoLeader, "no member leads; a member is added when one does");
            return None;
        }
        let ordinal = draft.memory.reserve(&draft.world.desired.name, draft.world.observed.now);
        return Some((OperationKind::Join, ordinal));
    }
    None
}

/// Who leaves: a learner, else a voter that has long been unreachable, else the one of the highest
/// ordinal. A voter that is down for a moment is not chosen for that, since a flap must not decide
/// who goes.
fn victim(draft: &Draft<'_>, roster: &Roster) -> Option<i32> {
    roster
        .seats
        .iter()
        .max_by_key(|(ordinal, seat)| {
            (seat.learner, draft.world.long_unreachable(seat.id), **ordinal)
        })
        .map(|(ordinal, _seat)| *ordinal)
}

/// Sets of this cluster that belong to no remembered member: left behind by a memory that somebody
/// reset. With a confirmed roster in hand (which has put every listed member into the memory)
/// nobody needs them.
fn drop_strays(draft: &mut Draft<'_>) {
    let world = draft.world;
    let incarnation = draft.memory.incarnation.to_string();
    for set in &world.observed.stateful_sets {
        let ordinal =
            label(&set.metadata, names::LABEL_ORDINAL).and_then(|text| text.parse::<i32>().ok());
        let named = ordinal.is_some_and(|ordinal| {
            set.metadata.name.as_deref() == Some(world.desired.name.member(ordinal).as_str())
        });
        let current = label(&set.metadata, names::LABEL_INCARNATION) == Some(incarnation.as_str());
        let stray = ordinal.is_some_and(|ordinal| !draft.memory.members.contains_key(&ordinal));
        if world.owns(&set.metadata) && named && current && stray && !is_terminating(&set.metadata)
        {
            draft.act(Action::DeleteStatefulSet(exactly(&set.metadata)));
        }
    }
}
