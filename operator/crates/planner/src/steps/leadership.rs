//! Leadership: it is handed over before its holder leaves or is restarted.

use crate::action::Action;
use crate::draft::Draft;
use crate::reason::Reason;
use crate::world::Roster;

/// Hands leadership to a voter that is well: one that runs the wanted settings, since another would
/// have to hand it on in the next rollout; of those the one that is furthest along, the lowest ordinal
/// among equals. `before` is what happens to the leader afterwards, as "it leaves".
pub(crate) fn hand_over(draft: &mut Draft<'_>, roster: &Roster, ordinal: i32, before: &str) {
    let world = draft.world;
    let Some(leader) = roster.seats.get(&ordinal) else { return };
    let name = world.desired.name.member(ordinal);
    let applied = |id: u64| world.observed.answer(id).map_or(0, |answer| answer.applied_index);
    let heirs = roster.seats.iter().filter(|(_, it)| it.id != leader.id && !it.learner && it.well);
    let heir = heirs.max_by_key(|(other, heir)| {
        let outdated = world.pod(**other).is_some_and(|pod| world.is_outdated(pod));
        (!outdated, applied(heir.id), -**other)
    });
    match heir {
        Some((_other, heir)) => {
            draft.act(Action::MoveLeader { from: leader.id, from_ordinal: ordinal, to: heir.id });
            draft.wait(
                Reason::LeadershipMoving,
                format!("{name} leads; leadership moves before {before}"),
            );
        }
        None => draft.wait(
            Reason::MemberDown,
            format!("{name} leads and no other voter is well enough to take over"),
        ),
    }
}
