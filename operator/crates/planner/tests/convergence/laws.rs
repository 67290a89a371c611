//! The laws, checked against the truth of the world (not against what the planner saw), by code of
//! its own.

use crate::storage;
use crate::store::Disk;
use crate::world::{NodeState, World, is_ready, node_of, phase};
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

/// The evidence that a listed member is lost, from the truth: no volume, no data on it, an
/// accusation, or no node.
pub(crate) fn is_lost(world: &World, id: u64) -> bool {
    let Some(entry) = world.store.entry(id) else { return false };
    if world.store.corrupt.contains(&id) {
        return true;
    }
    let ordinal = world.desired().name.ordinal_of_peer_url(&entry.peer_url).expect("ours");
    let members = world.status().members;
    // Nothing is known of one that the operator has not heard of yet.
    let member = members.iter().find(|member| member.ordinal == ordinal);
    let Some(member) = member else { return false };
    let Some(claim) = world.live.claims.get(&member.claim) else { return true };
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    if claim.metadata.deletion_timestamp.is_some()
        || phase == Some("Lost")
        || member.claim_uid.is_some() && member.claim_uid != claim.metadata.uid
    {
        return true;
    }
    if world.store.up.contains(&id) {
        return false;
    }
    let disk = claim.metadata.uid.as_ref().and_then(|uid| world.disks.get(uid));
    let whole = matches!(disk, Some(Disk::Data { member, .. }) if *member == id);
    let pod = world.live.pods.get(&format!("db-{ordinal}-0"));
    let last = member.node.as_deref().and_then(|name| name.strip_prefix("node-")?.parse().ok());
    let node = pod.and_then(node_of).or(last).map(|node: usize| world.nodes[&node]);
    let wait = world.desired().replace_after;
    let node_is_lost = match node {
        None | Some(NodeState::Ready) => false,
        Some(NodeState::Deleted | NodeState::OutOfService { .. }) => true,
        Some(NodeState::NotReady { since, .. }) => wait.is_some_and(|wait| {
            u64::try_from(world.seconds - since).is_ok_and(|time| time >= wait.as_secs())
        }),
    };
    !whole || node_is_lost
}

/// Leaving, before the removal: nobody else is disturbed by it, and somebody wants it or proves it.
fn stopping(world: &World, ordinal: i32) {
    let status = world.status();
    let operation = status.operation.expect("memory is written before the act");
    assert_eq!((operation.kind, operation.ordinal), (OperationKind::Leave, ordinal));
    let store = &world.store;
    let url = world.desired().name.peer_url(ordinal);
    let Some(entry) = store.entries.iter().find(|entry| entry.peer_url == url) else { return };
    assert!(!entry.learner && store.voters() >= 3, "INV-O1: no quorum without {ordinal}");
    assert_ne!(store.leader, Some(entry.id), "a leader is stopped with the leadership on it");
    let others = store.voters_up_without(Some(entry.id));
    assert!(others > store.voters() / 2, "INV-O1: {others} are left when {ordinal} is stopped");
    others_are_up(world, entry.id);
    let wanted = usize::try_from(world.desired().replicas).expect("positive");
    let unwanted = store.entries.len() > wanted;
    assert!(unwanted || is_lost(world, entry.id), "INV-O6: {ordinal} is stopped without evidence");
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
            let (entries, wanted) = (&world.store.entries, world.desired().replicas);
            let wanted = usize::try_from(wanted).expect("positive");
            let lost = entries.iter().any(|entry| is_lost(world, entry.id));
            assert!(
                entries.len() < wanted || entries.len() == wanted && lost,
                "INV-O6: {ordinal} joins in the place of nobody"
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
                Disk::Empty | Disk::Broken { .. } => false,
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
        Action::StopMember { ordinal, .. } => stopping(world, *ordinal),
        Action::DeletePod(pod) => {
            let found = world.live.pods.get(&pod.name);
            let found = found.filter(|found| found.metadata.uid.as_ref() == Some(&pod.uid));
            assert!(found.is_none_or(|pod| phase(pod) == "Failed"), "a pod that lives is deleted");
        }
        Action::DisarmAlarm { id, .. } => {
            assert!(world.store.entry(*id).is_none(), "the alarm of a member is taken back");
        }
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
    assert!(
        store.entries.len() > wanted || is_lost(world, id),
        "INV-O6: {name} is removed, which is wanted and not lost"
    );
    let told = world.live.sets.get(&name).and_then(|set| set.spec.as_ref()?.replicas) == Some(0);
    assert!(
        store.voters() < 3 || told || !store.up.contains(&id),
        "{name} is removed under its clients' hands"
    );
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
    let Some(Disk::Data { member, cluster: held, .. } | Disk::Broken { member, cluster: held }) =
        disk
    else {
        return;
    };
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
    let wanted = usize::try_from(world.desired().replicas).expect("positive");
    assert!(
        !world.store.voted.contains(member) || world.store.voters() >= wanted,
        "INV-O3: {} is deleted before another votes in the place of its member",
        claim.name
    );
}
