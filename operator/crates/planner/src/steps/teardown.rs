//! Teardown: the StoreCluster is being deleted. Never needs a quorum, never asks a member.
//!
//! Sets first, then the pods must be gone (the fence: nobody writes any more), then the claims as
//! the retention policy says, then the finalizer. Services, budget and Job go by their owner
//! references.

use crate::action::Action;
use crate::draft::Draft;
use crate::reason::Reason;
use crate::steps::mirror;
use crate::world::{exactly, is_terminating};
use quorate_crds::RetentionPolicy;

pub(crate) fn step(draft: &mut Draft<'_>) {
    let world = draft.world;
    if !world.observed.cluster.has_finalizer {
        draft.wait(
            Reason::Deleting,
            "the StoreCluster is being deleted; nothing is left to be done",
        );
        return;
    }
    draft.memory.operation = None;
    let sets: Vec<_> =
        world.observed.stateful_sets.iter().filter(|set| world.owns(&set.metadata)).collect();
    for set in &sets {
        if !is_terminating(&set.metadata) {
            draft.act(Action::DeleteStatefulSet(exactly(&set.metadata)));
        }
    }
    let jobs: Vec<_> = world.observed.jobs.iter().filter(|job| world.owns(&job.metadata)).collect();
    for job in &jobs {
        if !is_terminating(&job.metadata) {
            draft.act(Action::DeleteJob(exactly(&job.metadata)));
        }
    }
    // Pods of ours are those that a set or a Job made; they are gone when nobody can write to a
    // volume any more.
    let pods = world.observed.pods.iter().filter(|pod| pod.metadata.owner_references.is_some());
    let pods: Vec<&str> = pods.filter_map(|pod| pod.metadata.name.as_deref()).collect();
    if !pods.is_empty() {
        let message = format!(
            "the members are being stopped: {} are still there (pods of a node that is lost go when the \
             Node is deleted or given the taint node.kubernetes.io/out-of-service)",
            pods.join(", ")
        );
        return draft.wait(Reason::Deleting, message);
    }
    if !sets.is_empty() || !jobs.is_empty() {
        return draft.wait(Reason::Deleting, "the members are being stopped");
    }
    match world.desired.when_deleted {
        RetentionPolicy::Retain => {
            mirror::step(draft);
            // A claim that no listed member ever had holds nothing worth keeping.
            delete_claims(draft, false);
        }
        RetentionPolicy::Delete => delete_claims(draft, true),
    }
    if draft.actions.is_empty() {
        draft.act(Action::RemoveFinalizer { uid: world.observed.cluster.uid.clone() });
    }
    draft.wait(
        Reason::Deleting,
        "the members are stopped; their volumes are kept or deleted as asked",
    );
}

fn delete_claims(draft: &mut Draft<'_>, used: bool) {
    let world = draft.world;
    for claim in &world.observed.claims {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let member = draft.memory.members.values().find(|member| member.claim == name);
        let blank = member.is_some_and(|member| member.id.is_none());
        let meant = used || blank;
        if meant && world.owns_claim(claim, member) && !is_terminating(&claim.metadata) {
            draft.actions.push(Action::DeleteClaim(exactly(&claim.metadata)));
        }
    }
}
