//! Formation, which happens once: memory, claim, Job, cluster id latched. Then never again
//! (INV-O5).

use crate::action::Action;
use crate::draft::Draft;
use crate::naming::parse_hex;
use crate::objects::{claim, formation_job, pod};
use crate::reason::Reason;
use crate::world::{annotation, exactly, is_terminating, obstacle, termination_message};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::serde_json::Value;
use quorate_crds::{FormationStatus, MemberRole, names};

/// One step of the formation of a cluster that has no id yet.
pub(crate) fn step(draft: &mut Draft<'_>) {
    let world = draft.world;
    let desired = world.desired;
    if draft.memory.formation.is_none() {
        if desired.hibernated {
            draft
                .wait(Reason::Hibernated, "the cluster is hibernated and forms when it is resumed");
            return;
        }
        let ordinal = draft.memory.reserve(&desired.name, world.observed.now);
        draft.memory.formation =
            Some(FormationStatus { token: world.observed.cluster.uid.clone(), ordinal });
        draft.tell(
            false,
            "Forming",
            format!("forming the cluster with {} as its seed", desired.name.member(ordinal)),
        );
    }
    let Some(formation) = draft.memory.formation.clone() else { return };
    let Some(seed) = draft.memory.members.get(&formation.ordinal).cloned() else {
        draft.wait(
            Reason::MemoryUnreadable,
            "status.formation names a seed that status.members \
            does not list; restore the status from a backup, or delete and create the \
            StoreCluster",
        );
        return;
    };
    if !claim_is_there(draft, formation.ordinal) {
        return;
    }
    let incarnation = draft.memory.incarnation;
    let Some(job) = world.job(&desired.name.formation_job(incarnation)) else {
        let job = formation_job::form(
            &world.owner(),
            desired,
            &formation.token,
            seed.ordinal,
            incarnation,
        );
        draft.act(Action::CreateJob(Box::new(job)));
        draft.wait(Reason::Forming, "the cluster is being formed");
        return;
    };
    watch_job(draft, job, seed.ordinal);
}

/// The claim of a member that has never started: made if it is not there. Returns whether it can be
/// used.
pub(crate) fn claim_is_there(draft: &mut Draft<'_>, ordinal: i32) -> bool {
    let world = draft.world;
    let Some(member) = draft.memory.members.get(&ordinal).cloned() else { return false };
    match world.claim(&member.claim) {
        None => {
            let built =
                claim::claim(&world.owner(), world.desired, ordinal, draft.memory.incarnation);
            draft.act(Action::CreateClaim(Box::new(built)));
            let reason = if draft.memory.cluster_id.is_some() {
                Reason::JoinerStarting
            } else {
                Reason::Forming
            };
            draft.wait(reason, format!("the claim {} is being made", member.claim));
            false
        }
        Some(found) if is_terminating(&found.metadata) => {
            draft.wait(
                Reason::ClaimTerminating,
                format!(
                    "the claim {} is being deleted; it is made anew when it is gone",
                    member.claim
                ),
            );
            false
        }
        Some(found) if !world.owns_claim(found, Some(&member)) => {
            draft.wait(
                Reason::NameTaken,
                format!(
                    "the claim {} exists and belongs to another \
                cluster; delete it, or give this StoreCluster another name",
                    member.claim
                ),
            );
            false
        }
        Some(found) => {
            if let Some(member) = draft.memory.members.get_mut(&ordinal) {
                member.claim_uid = found.metadata.uid.clone();
            }
            true
        }
    }
}

fn watch_job(draft: &mut Draft<'_>, job: &Job, seed: i32) {
    let world = draft.world;
    if !world.owns(&job.metadata) {
        draft.wait(
            Reason::NameTaken,
            "the formation Job's name is taken by a Job of somebody else; delete that Job",
        );
        return;
    }
    if is_terminating(&job.metadata) {
        draft.wait(Reason::Forming, "an earlier formation Job is being deleted");
        return;
    }
    let pods: Vec<_> = world
        .observed
        .pods
        .iter()
        .filter(|pod| {
            let owners = pod.metadata.owner_references.iter().flatten();
            owners.clone().any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref())
        })
        .collect();
    let status = job.status.clone().unwrap_or_default();
    let failed =
        status.conditions.iter().flatten().any(|c| c.type_ == "Failed" && c.status == "True");
    if status.succeeded.unwrap_or(0) > 0 {
        match pods.iter().find_map(|pod| formed(pod)) {
            Some((cluster_id, member_id)) => latch(draft, seed, cluster_id, member_id),
            // The message died with its pod. Run again: the same token succeeds on its own and says
            // the same.
            None => draft.act(Action::DeleteJob(exactly(&job.metadata))),
        }
        return;
    }
    let current = pod::settings_digest(world.desired);
    if annotation(&job.metadata, names::ANNOTATION_SETTINGS) != Some(current.as_str()) {
        draft.act(Action::DeleteJob(exactly(&job.metadata)));
        draft.wait(
            Reason::Forming,
            "the settings changed before the cluster was formed; the formation begins anew",
        );
    } else if failed {
        let said =
            pods.iter().find_map(|pod| termination_message(pod)).unwrap_or("it left no message");
        draft.wait(
            Reason::FormationFailed,
            format!(
                "the Job {} failed: {}; put right what it names, then delete the Job to try again",
                job.metadata.name.as_deref().unwrap_or_default(),
                crate::reason::short(said)
            ),
        );
    } else {
        match pods.iter().find_map(|pod| obstacle(pod)) {
            Some(obstacle) => {
                draft.wait(Reason::Forming, format!("the formation waits for its pod: {obstacle}"));
            }
            None => draft.wait(Reason::Forming, "the cluster is being formed"),
        }
    }
}

/// From here on the cluster exists: its id is in the memory before the first server starts.
fn latch(draft: &mut Draft<'_>, seed: i32, cluster_id: u64, member_id: u64) {
    draft.memory.cluster_id = Some(cluster_id);
    if let Some(member) = draft.memory.members.get_mut(&seed) {
        member.id = Some(crate::naming::hex(member_id));
        member.role = MemberRole::Voter;
    }
    draft.tell(false, "Formed", format!("the cluster was formed with id {cluster_id:x}"));
}

/// Cluster id and member id from the termination message of `prepare form` (`docs/contract.md`).
fn formed(pod: &Pod) -> Option<(u64, u64)> {
    let message: Value = k8s_openapi::serde_json::from_str(termination_message(pod)?).ok()?;
    let id = |key: &str| message.get(key)?.as_str().and_then(parse_hex).filter(|id| *id != 0);
    Some((id("clusterID")?, id("memberID")?))
}
