//! Roster: what the store lists, noted in the memory. Only a list that a quorum confirmed changes
//! anything: absence of evidence never shrinks anything.

use crate::draft::Draft;
use crate::naming::hex;
use crate::observed::Membership;
use crate::reason::Reason;
use crate::world::{Roster, is_terminating};
use quorate_crds::MemberRole;

/// Notes the roster; `None`, with the reason noted, if there is none to go by.
pub(crate) fn step(draft: &mut Draft<'_>, cluster_id: u64) -> Option<Roster> {
    let world = draft.world;
    let Some(roster) = world.roster(cluster_id) else {
        explain(draft, cluster_id);
        return None;
    };
    for (ordinal, seat) in &roster.seats {
        if !draft.memory.members.contains_key(ordinal) {
            draft.memory.insert(&world.desired.name, *ordinal, world.observed.now);
        }
        let Some(member) = draft.memory.members.get_mut(ordinal) else { continue };
        if member.claim_uid.is_none() {
            // A member that the store has told of: from now on its claim is this one.
            let found = world.claim(&member.claim).filter(|it| !is_terminating(&it.metadata));
            member.claim_uid = found.and_then(|claim| claim.metadata.uid.clone());
        }
        let was = member.role;
        member.id = Some(hex(seat.id));
        member.voted |= !seat.learner;
        member.role = if seat.learner { MemberRole::Learner } else { MemberRole::Voter };
        if was != MemberRole::Voter && !seat.learner {
            let name = member.name.clone();
            draft.memory.joins_given_up = 0;
            draft.tell(false, "MemberPromoted", format!("{name} votes"));
        }
    }
    let mut removed = Vec::new();
    for member in draft.memory.members.values_mut() {
        let listed = roster.seats.contains_key(&member.ordinal);
        if member.role.is_listed() && !listed {
            member.role = MemberRole::Removed;
            removed.push(format!(
                "the store lists {} ({}) no more",
                member.name,
                member.id.clone().unwrap_or_default()
            ));
        }
    }
    for message in removed {
        draft.tell(false, "MemberRemoved", message);
    }
    if !roster.foreign.is_empty() {
        let ids: Vec<_> = roster.foreign.iter().map(|seat| hex(seat.id)).collect();
        draft.wait(
            Reason::ForeignMember,
            format!(
                "the store lists members that the operator did not make: {}; remove them \
                with etcdctl member remove, membership is left alone until then",
                ids.join(", ")
            ),
        );
    }
    Some(roster)
}

fn explain(draft: &mut Draft<'_>, cluster_id: u64) {
    match &draft.world.observed.membership {
        Membership::Known { cluster_id: listed, .. } => {
            let listed = *listed;
            draft.wait(
                Reason::ForeignCluster,
                format!(
                    "the members say that they belong to cluster {listed:x}, but \
                    {cluster_id:x} was formed; nothing is changed until a person has looked at \
                    the volumes"
                ),
            );
        }
        // Of a cluster that was stopped on purpose nobody expects an answer.
        Membership::Unreachable { .. } | Membership::NotAsked if stopped(draft) => {}
        Membership::Unreachable { error, .. } => {
            let error = crate::reason::short(error);
            draft.wait(
                Reason::MembershipUnknown,
                format!(
                    "no quorum confirmed the list of members ({error}); membership is left \
                    alone until one does"
                ),
            );
        }
        Membership::NotAsked => {
            draft
                .wait(Reason::MembershipUnknown, "the members are starting and were not asked yet");
        }
    }
}

/// Whether the cluster is hibernated and the last pod of its members is gone.
fn stopped(draft: &Draft<'_>) -> bool {
    let runs = draft.memory.members.keys().any(|ordinal| draft.world.pod(*ordinal).is_some());
    draft.world.desired.hibernated && !runs
}
