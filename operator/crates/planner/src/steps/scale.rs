//! Scale: which membership change comes next. One at a time; what was begun is finished or taken
//! back first.

use crate::action::Action;
use crate::draft::Draft;
use crate::reason::Reason;
use crate::steps::heal::{self, Patient};
use crate::steps::{scale_down, scale_up};
use crate::world::{Roster, exactly, is_terminating, label};
use quorate_crds::{MemberRole, OperationKind, names};

/// The membership step of a formed cluster whose roster a quorum has confirmed.
pub(crate) fn step(draft: &mut Draft<'_>, roster: Option<&Roster>) {
    // What is left of a removed member goes before anything else begins. That it was removed is in
    // the memory since a quorum said so, hence nobody has to be asked again.
    let removed = draft.memory.members.values().filter(|m| m.role == MemberRole::Removed);
    let removed: Vec<i32> = removed.map(|member| member.ordinal).rev().collect();
    for ordinal in removed {
        if scale_down::clear_away(draft, roster, ordinal) {
            draft.memory.begin(OperationKind::Leave, ordinal, draft.world.observed.now);
            return;
        }
        if draft.memory.operation.as_ref().is_some_and(|it| it.ordinal == ordinal) {
            draft.memory.operation = None;
        }
    }
    let Some(roster) = roster else { return scale_down::stay_stopped(draft) };
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
    let patient = heal::patient(draft, roster);
    if let Some(patient) = &patient
        && heal::lead_away(draft, roster, patient)
    {
        return;
    }
    decide(draft, roster, patient.as_ref());
    let Some(operation) = draft.memory.operation.clone() else { return };
    match operation.kind {
        OperationKind::Join => scale_up::step(draft, roster, operation.ordinal),
        OperationKind::Leave => scale_down::step(draft, roster, operation.ordinal),
    }
}

/// Settles what the operation is: the one begun, its reversal, or the next one.
fn decide(draft: &mut Draft<'_>, roster: &Roster, patient: Option<&Patient>) {
    let stuck = heal::stuck(draft, roster);
    let begun = draft.memory.operation.take();
    let stuck_at = stuck.as_ref().map(|(ordinal, _why)| *ordinal);
    let Some((kind, ordinal)) = next(draft, roster, patient, stuck_at) else {
        let wanted = usize::try_from(draft.world.desired.replicas).unwrap_or(usize::MAX);
        if draft.memory.counted() >= wanted {
            // Nobody has to join any more.
            draft.memory.joins_given_up = 0;
        }
        return;
    };
    if begun.as_ref().is_some_and(|it| it.kind == kind && it.ordinal == ordinal) {
        draft.memory.operation = begun;
        return;
    }
    let name = draft.world.desired.name.member(ordinal);
    draft.memory.begin(kind, ordinal, draft.world.observed.now);
    match (kind, stuck, patient) {
        (OperationKind::Leave, Some((joiner, why)), _) if joiner == ordinal => {
            draft.memory.joins_given_up = draft.memory.joins_given_up.saturating_add(1);
            let message = format!("{name} {why}; it is given up, and another joins in its place");
            draft.tell(true, "JoinerGivenUp", message);
        }
        (OperationKind::Leave, _, Some(patient)) if patient.ordinal == ordinal => {
            draft.tell(true, "MemberReplaced", format!("{}; it is removed", patient.why));
        }
        (OperationKind::Leave, ..) => {
            draft.tell(false, "MemberLeaving", format!("{name} leaves"));
        }
        (OperationKind::Join, _, Some(patient)) => {
            let message = format!("{}; {name} joins in its place", patient.why);
            draft.tell(true, "MemberReplaced", message);
        }
        (OperationKind::Join, _, None) => {
            draft.tell(false, "MemberJoining", format!("{name} joins as a learner"));
        }
    }
}

/// What shall be under way now, if anything. While a lost member is replaced there is one more than
/// wanted, except where it has to go first.
fn next(
    draft: &mut Draft<'_>,
    roster: &Roster,
    patient: Option<&Patient>,
    stuck: Option<i32>,
) -> Option<(OperationKind, i32)> {
    let wanted = usize::try_from(draft.world.desired.replicas).unwrap_or(usize::MAX);
    let target = wanted + usize::from(patient.is_some_and(|patient| !patient.out_first));
    let with = |draft: &Draft<'_>, role: MemberRole| {
        draft.memory.members.values().rev().find(|m| m.role == role).map(|m| m.ordinal)
    };
    if draft.memory.counted() > target {
        // A member that the store does not list yet is the cheapest to lose: nothing has to be
        // asked.
        if let Some(pending) = with(draft, MemberRole::Pending) {
            if let Some(member) = draft.memory.members.get_mut(&pending) {
                member.role = MemberRole::Removed;
            }
            return Some((OperationKind::Leave, pending));
        }
        return victim(draft, roster, patient).map(|ordinal| (OperationKind::Leave, ordinal));
    }
    if let Some(joiner) = stuck {
        return Some((OperationKind::Leave, joiner));
    }
    if let Some(unfinished) = with(draft, MemberRole::Learner).or(with(draft, MemberRole::Pending))
    {
        return Some((OperationKind::Join, unfinished));
    }
    if let Some(patient) = patient.filter(|it| it.out_first || draft.memory.counted() > wanted) {
        return Some((OperationKind::Leave, patient.ordinal));
    }
    if draft.memory.counted() < target {
        if draft.world.leader().is_none() {
            draft.wait(Reason::NoLeader, "no member leads; a member is added when one does");
            return None;
        }
        let ordinal = draft.memory.reserve(&draft.world.desired.name, draft.world.observed.now);
        return Some((OperationKind::Join, ordinal));
    }
    None
}

/// Who leaves: a learner, else a voter that is lost, else one that has long been unreachable, else the
/// one of the highest ordinal. A voter that is down for a moment is not chosen for that, since a flap
/// must not decide who goes.
fn victim(draft: &Draft<'_>, roster: &Roster, patient: Option<&Patient>) -> Option<i32> {
    let lost = |ordinal: i32| patient.is_some_and(|patient| patient.ordinal == ordinal);
    roster
        .seats
        .iter()
        .max_by_key(|(ordinal, seat)| {
            (seat.learner, lost(**ordinal), draft.world.long_unreachable(seat.id), **ordinal)
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
