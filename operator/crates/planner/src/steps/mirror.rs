//! Mirror: the memory in the annotations of the claims, so that volumes that outlive their
//! StoreCluster can be adopted.

use crate::action::Action;
use crate::draft::Draft;
use crate::naming::hex;
use crate::world::{annotation, exactly, is_terminating};
use quorate_crds::names;
use std::collections::BTreeMap;

/// Notes on each claim of a member what its data are.
pub(crate) fn step(draft: &mut Draft<'_>) {
    let world = draft.world;
    let Some(cluster_id) = draft.memory.cluster_id else { return };
    let mut actions = Vec::new();
    for member in draft.memory.members.values() {
        let Some(claim) = world.claim(&member.claim) else { continue };
        let Some(id) = member.id.as_ref().filter(|_id| member.role.is_listed()) else { continue };
        if is_terminating(&claim.metadata) || !world.owns_claim(claim, Some(member)) {
            continue;
        }
        let mut wanted = BTreeMap::from([
            (names::ANNOTATION_CLUSTER_UID, world.observed.cluster.uid.clone()),
            (names::ANNOTATION_CLUSTER_ID, hex(cluster_id)),
            (names::ANNOTATION_MEMBER_ID, id.clone()),
            (names::ANNOTATION_NEXT_ORDINAL, draft.memory.next_ordinal.to_string()),
        ]);
        if let Some(formation) = &draft.memory.formation {
            wanted.insert(names::ANNOTATION_TOKEN, formation.token.clone());
        }
        let annotations: BTreeMap<String, String> = wanted
            .into_iter()
            .filter(|(key, value)| annotation(&claim.metadata, key) != Some(value.as_str()))
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        if !annotations.is_empty() {
            actions.push(Action::AnnotateClaim { claim: exactly(&claim.metadata), annotations });
        }
    }
    draft.actions.extend(actions);
}
