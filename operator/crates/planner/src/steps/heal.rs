//! Heal: which lost member is replaced next, and in which order; pods that have ended.
//!
//! # The order, and why
//!
//! A new member joins and votes, *then* the lost one is removed. For the quorum it makes no difference:
//! with a voter that is dead as many failures are tolerated before, between and after, whichever comes
//! first, and the store promotes a learner beside a dead voter (etcd's rule counts voters that have
//! once started, not those that answer). What makes the difference is that evidence can be taken back.
//! A node that comes back while the newcomer catches up brings a whole voter, which is then still a
//! member, where a removal would have cost its vote and its copy for good; a member whose claim was
//! deleted serves on from the volume that it holds; and the old claim stays until the replacement
//! votes without anybody having to remember it. Whatever the quorum can do at all, it can do this way.
//!
//! Two cases go the other way round, out first:
//!
//! * **CORRUPT.** While the alarm stands every write is refused and no member is ready, so nothing is
//!   served until the accused is out; and a newcomer must not get its data from it, should it lead.
//! * **`antiAffinity: Required`.** The lost member's pod may hold the only node that a newcomer could
//!   run on, which would then wait for ever.
//!
//! The claim is kept there too until there are as many voters as wanted (`scale_down::clear_away`).
//!
//! Nothing of this is remembered: the evidence is, or can be seen again. Evidence that goes away leaves
//! a joiner or a voter too many, which scaling takes back.

use crate::action::Action;
use crate::draft::Draft;
use crate::limits::{JOIN_DOUBLINGS_MAX, JOIN_LIMIT};
use crate::loss::{self, Loss};
use crate::reason::Reason;
use crate::steps::leadership;
use crate::world::{Roster, World, exactly, has_ended, is_terminating, quorum};
use quorate_crds::{AntiAffinity, OperationKind};
use std::time::Duration;

/// The lost voter that is being replaced.
#[derive(Clone, Debug)]
pub(crate) struct Patient {
    pub(crate) ordinal: i32,
    /// Why, as a sentence.
    pub(crate) why: String,
    /// Whether it is removed before another joins.
    pub(crate) out_first: bool,
}

/// Who is to be replaced: one at a time, whoever is out already first, and a leader last. One that was
/// chosen stays chosen, unless it serves and was not stopped yet while another is out: beside that
/// other, which will never be well, it could not be stopped (INV-O2), and both would wait for ever.
pub(crate) fn patient(draft: &Draft<'_>, roster: &Roster) -> Option<Patient> {
    let world = draft.world;
    let leaving = draft.memory.operation.as_ref().filter(|it| it.kind == OperationKind::Leave);
    let lost = roster.seats.iter().filter(|(_ordinal, seat)| !seat.learner);
    let lost = lost.filter_map(|(ordinal, seat)| {
        let member = draft.memory.members.get(ordinal)?;
        let loss = loss::of(&world, member).filter(|loss| may_count(&world, roster, loss))?;
        let leaves = leaving.is_some_and(|operation| operation.ordinal == *ordinal);
        let rank = (
            seat.reachable && !(leaves && world.is_told_to_stop(*ordinal)),
            !leaves,
            loss != Loss::Alarm,
            world.leader() == Some(seat.id),
            *ordinal,
        );
        Some((rank, member, loss))
    });
    let (_rank, member, loss) = lost.min_by_key(|(rank, ..)| *rank)?;
    let alone = world.desired.anti_affinity == AntiAffinity::Required;
    Some(Patient {
        ordinal: member.ordinal,
        why: format!("{} {}", member.name, loss.words(member)),
        out_first: (loss == Loss::Alarm || alone) && roster.voters() > 1,
    })
}

/// Who is right is only known while those that are not accused are a majority.
fn may_count(world: &World<'_>, roster: &Roster, loss: &Loss) -> bool {
    let accused = world.observed.alarms();
    let accused = |id: u64| accused.contains(&(id, crate::action::Alarm::Corrupt));
    *loss != Loss::Alarm || roster.voters_that(|id| !accused(id)) >= quorum(roster.voters())
}

/// Moves leadership off a lost member that leads, before anything else is done about it: it serves
/// from a volume that is going, or serves what nobody should read. Returns whether that is under way.
pub(crate) fn lead_away(draft: &mut Draft<'_>, roster: &Roster, patient: &Patient) -> bool {
    let Some(seat) = roster.seats.get(&patient.ordinal) else { return false };
    let calm = roster.ailing_without(patient.ordinal).is_empty() && roster.voters() > 1;
    if draft.world.leader() != Some(seat.id) || !calm {
        return false;
    }
    leadership::hand_over(draft, roster, patient.ordinal, "it leaves");
    true
}

/// The joiner that is given up: lost itself, or without progress for longer than it may be while all
/// others are well (those that are lost apart).
pub(crate) fn stuck(draft: &Draft<'_>, roster: &Roster) -> Option<(i32, String)> {
    let world = draft.world;
    let member_of = |ordinal: &i32| draft.memory.members.get(ordinal);
    let rest_is_well = roster.seats.iter().filter(|(_, seat)| !seat.learner).all(|(it, seat)| {
        seat.well || member_of(it).is_some_and(|member| loss::of(&world, member).is_some())
    });
    if world.leader().is_none() || !rest_is_well {
        return None;
    }
    roster.seats.iter().filter(|(_, seat)| seat.learner).find_map(|(ordinal, seat)| {
        let member = member_of(ordinal)?;
        // Before it has started its claim is empty and is made again.
        if let Some(loss) = loss::of(&world, member).filter(|_loss| seat.started) {
            return Some((*ordinal, loss.words(member)));
        }
        let leaving = draft.memory.operation.as_ref().filter(|it| it.kind == OperationKind::Leave);
        // Itself is counted once it has been given up.
        let itself = u32::from(leaving.is_some_and(|operation| operation.ordinal == *ordinal));
        let before = draft.memory.joins_given_up.saturating_sub(itself);
        let late = world.stalled_for(seat.id) >= patience(before);
        late.then(|| (*ordinal, "makes no progress".to_owned()))
    })
}

/// How long a joiner may make no progress: the longer, the more were given up before it.
fn patience(given_up: u32) -> Duration {
    JOIN_LIMIT * 2_u32.pow(given_up.min(JOIN_DOUBLINGS_MAX))
}

/// Deletes pods of members that have ended for good, so that their sets make others: after an eviction
/// by the kubelet, or the shutdown of a node. They serve nobody, so that needs no quorum.
pub(crate) fn ended_pods(draft: &mut Draft<'_>) {
    let world = draft.world;
    let mut ended = Vec::new();
    for member in draft.memory.members.values() {
        let Some(pod) = world.pod(member.ordinal) else { continue };
        if member.role.is_listed() && has_ended(pod) && !is_terminating(&pod.metadata) {
            ended.push((member.name.clone(), exactly(&pod.metadata)));
        }
    }
    for (name, pod) in ended {
        let message = format!("the pod of {name} has ended and is deleted, another comes up");
        draft.wait(Reason::PodEnded, message);
        draft.act(Action::DeletePod(pod));
    }
}
