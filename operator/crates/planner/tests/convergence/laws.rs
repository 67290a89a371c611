//! The laws, checked against the truth of the world (not against what the planner saw), by code of
//! its own.

use crate::storage;
use crate::store::Disk;
use crate::world::{World, is_ready};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_crds::{OperationKind, RetentionPolicy, names};
use quorate_planner::objects::pod::settings_digest;
use quorate_planner::{Action, Exactly, Object};

/// Before an object goes in.
pub(crate) fn applying(world: &World, object: &Object) {
    let Object::StatefulSet(set) = object else { return };
    let spec = set.spec.as_ref().expect("built with a spec");
    let hibernated = world.desired().hibernated;
    assert!(
        spec.replicas == Some(1) || hibernated,
        "INV-O1: a set is stopped although nobody asked for hibernation"
    );
    assert_eq!(spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()), Some("OnDelete"));
    assert!(
        world.status().cluster_id.is_some(),
        "INV-O5: a member serves before the cluster id is remembered"
    );
}

/// Before an action is carried out.
pub(crate) fn before(world: &World, action: &Action) {
    match action {
        Action::RemoveMember { id, ordinal, .. } => removing(world, *id, *ordinal),
        Action::MoveLeader { from, to, .. } => {
            assert_eq!(world.store.leader, Some(*from), "leadership is moved by the leader");
            assert!(
                world.store.up.contains(to),
                "INV-O1: leadership goes to a member that is down"
            );
            others_are_up(world, *from);
        }
        Action::Promote { id, .. } => promoting(world, *id),
        Action::AddLearner { ordinal, .. } => {
            let status = world.status();
            let operation = status.operation.expect("memory is written before the act");
            assert_eq!((operation.kind, operation.ordinal), (OperationKind::Join, *ordinal));
            assert!(
                status.next_ordinal.expect("remembered") > *ordinal,
                "an ordinal is taken for ever"
            );
            assert!(!world.ever_removed.contains(ordinal), "an ordinal is used again");
            assert!(
                world.store.entries.iter().all(|entry| !entry.learner),
                "one learner at a time"
            );
        }
        Action::CreateJob(_) => {
            let status = world.status();
            assert!(status.formation.is_some(), "INV-O5: formation is remembered before it begins");
            assert!(status.cluster_id.is_none(), "INV-O5: a cluster is formed once");
            let earlier = world.disks.values().any(|disk| match disk {
                Disk::Data { token, .. } => {
                    Some(token) != status.formation.as_ref().map(|f| &f.token)
                }
                Disk::Empty => false,
            });
            assert!(!earlier, "INV-O5: a cluster is formed beside an earlier cluster's data");
        }
        Action::GrowClaim { claim, size } => growing(world, claim, size),
        Action::DeleteClaim(claim) => deleting_claim(world, claim),
        Action::DeleteStatefulSet(set) => {
            let listed = world.store.entries.iter().any(|e| e.name == set.name && !e.learner);
            assert!(world.deleting || !listed, "INV-O1: the set of a voter is deleted");
        }
        Action::RestartPod { pod, ordinal, .. } => restarting(world, pod, *ordinal),
        Action::RemoveFinalizer { .. } => {
            assert!(world.deleting && world.live.sets.is_empty(), "the finalizer goes last");
        }
        Action::AddFinalizer { .. }
        | Action::CreateClaim(_)
        | Action::AnnotateClaim { .. }
        | Action::DeleteJob(_)
        | Action::LabelPod { .. }
        | Action::DeleteBudget(_) => {}
    }
}

fn removing(world: &World, id: u64, ordinal: i32) {
    let status = world.status();
    let operation = status.operation.expect("memory is written before the act");
    assert_eq!((operation.kind, operation.ordinal), (OperationKind::Leave, ordinal));
    let store = &world.store;
    let Some(entry) = store.entry(id) else { return };
    let name = format!("db-{ordinal}");
    assert!(entry.name.is_empty() || entry.name == name, "the ordinal is that of the member");
    if entry.learner {
        return;
    }
    let left = store.voters() - 1;
    assert!(
        store.voters_up_without(Some(id)) > left / 2,
        "INV-O1: a removal leaves no quorum of {left}"
    );
    assert_ne!(store.leader, Some(id), "a leader is removed with the leadership on it");
    let wanted = usize::try_from(world.desired().replicas).expect("positive");
    assert!(store.entries.len() > wanted, "INV-O3: a member is removed that is wanted");
    if store.up.contains(&id) {
        others_are_up(world, id);
    }
}

/// INV-O2: no voter is disturbed while another is down.
fn others_are_up(world: &World, id: u64) {
    let down = world
        .store
        .entries
        .iter()
        .find(|e| !e.learner && e.id != id && !world.store.up.contains(&e.id));
    assert!(down.is_none(), "INV-O2: {id:x} is disturbed while {down:?} is down");
}

/// A restart: only of a pod whose settings are not the wanted ones, only when it will come back with
/// those, never of a leader that has followers, never beside another voter that is down, and never
/// over a minor version.
fn restarting(world: &World, pod: &Exactly, ordinal: i32) {
    let found = world.live.pods.get(&pod.name);
    let Some(found) = found.filter(|found| found.metadata.uid.as_ref() == Some(&pod.uid)) else {
        return;
    };
    let desired = world.desired();
    let wanted = settings_digest(&desired);
    let settings = |metadata: &ObjectMeta| {
        metadata.annotations.as_ref().and_then(|all| all.get(names::ANNOTATION_SETTINGS)).cloned()
    };
    assert_ne!(settings(&found.metadata).as_ref(), Some(&wanted), "{} is up to date", pod.name);
    let set = world.controlled.get(&format!("db-{ordinal}")).and_then(|set| set.spec.as_ref());
    let template = set.and_then(|spec| spec.template.metadata.as_ref());
    assert_eq!(template.and_then(settings), Some(wanted), "{} comes back as it was", pod.name);
    let url = desired.name.peer_url(ordinal);
    let store = &world.store;
    let Some(entry) = store.entries.iter().find(|entry| entry.peer_url == url) else { return };
    if entry.learner || !store.up.contains(&entry.id) {
        return;
    }
    others_are_up(world, entry.id);
    let operation = world.status().operation;
    assert!(
        operation.is_none() || !is_ready(found),
        "{} is restarted although it is ready, in the midst of {operation:?}",
        pod.name
    );
    let voters = store.voters();
    assert!(voters == 1 || store.leader != Some(entry.id), "{} leads and is restarted", pod.name);
    let left = store.voters_up_without(Some(entry.id));
    assert!(voters < 3 || left > voters / 2, "INV-O1: a restart leaves {left} of {voters}");
    for entry in store.entries.iter().filter(|entry| !entry.learner && store.up.contains(&entry.id))
    {
        let other = world.live.pods.get(&format!("{}-0", entry.name));
        let annotations = other.and_then(|pod| pod.metadata.annotations.as_ref());
        let runs = annotations.and_then(|all| all.get(names::ANNOTATION_VERSION));
        let apart = runs.map_or(0, |runs| minor(runs).abs_diff(minor(&desired.version)));
        assert!(apart <= 1, "{} would meet {runs:?} as {}", pod.name, desired.version);
    }
}

/// A claim is asked to grow to what is wanted, and only while it is to stay.
fn growing(world: &World, claim: &Exactly, size: &Quantity) {
    let Some(found) = world.live.claims.get(&claim.name) else { return };
    if found.metadata.resource_version.as_ref() != Some(&claim.resource_version) {
        return;
    }
    assert!(found.metadata.deletion_timestamp.is_none(), "{} goes and is to grow", claim.name);
    assert_eq!(*size, world.desired().storage_size);
    assert!(!world.deleting, "a cluster that goes grows nothing");
}

/// INV-O3: whatever happens, no claim ever asks for less than it has asked for.
pub(crate) fn no_claim_shrinks(world: &mut World) {
    for claim in world.live.claims.values() {
        let uid = claim.metadata.uid.clone().expect("set at creation");
        let now = storage::value(storage::request(claim));
        let before = world.asked.insert(uid, now);
        assert!(before <= Some(now), "INV-O3: {:?} asks for less", claim.metadata.name);
    }
}

pub(crate) fn minor(version: &str) -> u64 {
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok());
    minor.expect("the test makes versions of three numbers")
}

fn promoting(world: &World, id: u64) {
    let store = &world.store;
    // Somebody else's act may have come in between; the store refuses then.
    let Some(entry) = store.entry(id).filter(|entry| entry.learner) else { return };
    let voters = store.voters() + 1;
    let up = store.voters_up_without(None) + usize::from(store.up.contains(&entry.id));
    assert!(up > voters / 2, "INV-O1: a promotion leaves no quorum of {voters}");
    if voters >= 3 {
        let keeps = world.live.budgets.values().find_map(|budget| {
            match budget.spec.as_ref()?.min_available.as_ref()? {
                IntOrString::Int(keeps) => usize::try_from(*keeps).ok(),
                IntOrString::String(_) => None,
            }
        });
        assert!(keeps >= Some(voters / 2 + 1), "the budget keeps {keeps:?} before {voters} vote");
    }
}

fn deleting_claim(world: &World, claim: &Exactly) {
    let cluster = world.cluster.as_ref().expect("planned for it");
    let disk = world.disks.get(&claim.uid);
    let Some(Disk::Data { member, cluster: held, .. }) = disk else { return };
    let keeps =
        cluster.spec.volume_retention.and_then(|r| r.when_deleted) != Some(RetentionPolicy::Delete);
    if world.deleting {
        // What was formed and has never served holds nothing that anybody wrote.
        let written = world.store.served && world.store.cluster == Some(*held);
        assert!(!keeps || !written, "INV-O3: a volume is deleted that shall be kept");
        return;
    }
    if world.status().cluster_id.is_none() && world.status().formation.is_none() {
        let asked = cluster
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(names::ANNOTATION_EARLIER_VOLUMES));
        assert_eq!(
            asked.map(String::as_str),
            Some("discard"),
            "INV-O3: nobody asked to discard {}",
            claim.name
        );
        return;
    }
    assert!(
        world.store.entry(*member).is_none(),
        "INV-O3: the data of a current member are deleted"
    );
}
