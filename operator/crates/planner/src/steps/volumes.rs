//! Volumes: grows one claim after another, where their class allows it.
//!
//! One at a time, so that a storage that fails has failed for one member: the next is asked for when
//! the storage has given what the last one asked for. File systems may follow on their own, since some
//! wait for a pod to start.

use crate::action::Action;
use crate::draft::Draft;
use crate::growth::{Growth, asks_again, of_members};
use crate::reason::Reason;
use crate::world::exactly;

/// Asks for more for the next volume, and says that volumes grow.
pub(crate) fn step(draft: &mut Draft<'_>) {
    let world = draft.world;
    let members = of_members(&world, &draft.memory);
    let stands = |which: fn(&Growth) -> bool| members.iter().any(|(_, _, growth)| which(growth));
    let held = stands(|growth| matches!(growth, Growth::Growing | Growth::Failed { .. }));
    let due = members.iter().find(|(_, _, growth)| *growth == Growth::Due);
    let mut refused =
        members.iter().filter(|(_, _, growth)| matches!(growth, Growth::Refused { .. }));
    let next = due.or_else(|| refused.find(|(_, claim, _)| asks_again(&world, claim)));
    let grow = next.filter(|_next| !held).map(|(_, claim, _)| Action::GrowClaim {
        claim: exactly(&claim.metadata),
        size: world.desired.storage_size.clone(),
    });
    // Without pods no file system grows: that is a state and no progress. Nor is asking again.
    let follows = stands(|growth| *growth == Growth::FileSystem) && !world.desired.hibernated;
    if held || follows || due.is_some() {
        draft.wait(Reason::VolumesGrowing, "volumes are growing; ResizePending says whose");
    }
    draft.actions.extend(grow);
}
