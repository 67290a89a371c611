//! Scale up: one new member, as a learner first. Memory, claim, entry in the store, set, caught up,
//! budget, vote.

use crate::action::Action;
use crate::draft::Draft;
use crate::limits::PROMOTION_GAP;
use crate::reason::Reason;
use crate::steps::children::budget_holds;
use crate::steps::form::claim_is_there;
use crate::world::{Roster, Seat, is_terminating, obstacle, quorum};

/// One step of the join of a member.
pub(crate) fn step(draft: &mut Draft<'_>, roster: &Roster, ordinal: i32) {
    let world = draft.world;
    let name = world.desired.name.member(ordinal);
    let seat = roster.seats.get(&ordinal).copied();
    // Until it has started once its claim is empty and may be made, and made again.
    if seat.is_none_or(|seat| !seat.started) && !claim_is_there(draft, ordinal) {
        return;
    }
    let Some(leader) = world.leader() else {
        draft.wait(
            Reason::NoLeader,
            format!("no member leads; {name} goes on joining when one does"),
        );
        return;
    };
    match seat {
        None => {
            draft.act(Action::AddLearner {
                ordinal,
                peer_url: world.desired.name.peer_url(ordinal),
            });
            draft.wait(Reason::JoinerStarting, format!("{name} is being added as a learner"));
        }
        Some(seat) => promote(draft, roster, ordinal, seat, leader),
    }
}

/// Promotes a learner that is there, in step, and whose vote puts no quorum at risk.
fn promote(draft: &mut Draft<'_>, roster: &Roster, ordinal: i32, seat: Seat, leader: u64) {
    let world = draft.world;
    let name = world.desired.name.member(ordinal);
    let answer = world.follows(seat.id);
    let pod_stays = world.pod(ordinal).is_some_and(|pod| !is_terminating(&pod.metadata));
    let (true, true, Some(answer)) = (seat.started, pod_stays, answer) else {
        let why = world
            .pod(ordinal)
            .and_then(obstacle)
            .map_or_else(String::new, |why| format!(": {why}"));
        draft.wait(Reason::JoinerStarting, format!("{name} has not joined the others yet{why}"));
        return;
    };
    let ahead = world.observed.answer(leader).map_or(u64::MAX, |answer| answer.raft_index);
    if answer.applied_index.saturating_add(PROMOTION_GAP) < ahead {
        draft.wait(Reason::LearnerCatchingUp, format!("{name} is catching up with the leader"));
        return;
    }
    let voters = roster.voters() + 1;
    let reachable = roster.reachable_without(None) + 1;
    if reachable < quorum(voters) {
        draft.wait(
            Reason::QuorumAtRisk,
            format!(
                "with {name} there would be {voters} voters, of which too few can be \
                reached; it is promoted when the others are back"
            ),
        );
        return;
    }
    if !budget_holds(draft) {
        draft.wait(
            Reason::BudgetPending,
            format!("the disruption budget is raised before {name} gets a vote"),
        );
        return;
    }
    draft.act(Action::Promote { id: seat.id, ordinal });
    draft.wait(Reason::LearnerCatchingUp, format!("{name} is being promoted"));
}
