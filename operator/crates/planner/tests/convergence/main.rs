//! Convergence: random worlds with faults between any two steps; the laws hold at each, and when
//! the faults end every world becomes what is wanted and stays so (after Anvil's eventually stable
//! reconciliation, OSDI '24).
//!
//! `QUORATE_CONVERGENCE_STEPS=1000000 cargo test -p quorate-planner --test convergence` makes a
//! long run of it; `QUORATE_CONVERGENCE_SEED=n` begins at another seed.

mod faults;
mod hurts;
mod laws;
mod operator;
mod random;
mod storage;
mod store;
mod world;

use faults::{Counts, KINDS};
use hurts::HURTS;
use operator::{ACTS, Outcome};
use quorate_crds::{MemberRole, Storage, StoreCluster, StoreClusterSpec, names};
use quorate_planner::objects::pod::settings_digest;
use random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use store::Store;
use world::{Children, NODES, NodeState, World};

/// Steps of the ordinary run. A step is one tick of the world and one reconcile.
const STEPS: usize = 10_000;
/// Steps with faults in one world.
const TROUBLED: usize = 400;
/// Steps within which a world must come to rest once the faults have ended.
const PATIENCE: usize = 600;

#[expect(
    clippy::disallowed_methods,
    reason = "the length of a test run is no input of the planner"
)]
fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn new_world(seed: u64) -> World {
    let mut world = World {
        random: Random::new(seed),
        seconds: 0,
        cluster: None,
        deleting: false,
        finalizer: false,
        version: 0,
        live: Children::default(),
        controlled: BTreeMap::new(),
        stale: Vec::new(),
        store: Store::default(),
        expandable: true,
        classes_readable: !seed.is_multiple_of(4),
        refused_growths: BTreeMap::new(),
        asked: BTreeMap::new(),
        disks: BTreeMap::new(),
        down_nodes: BTreeSet::new(),
        nodes: (0..NODES).map(|node| (node, NodeState::Ready)).collect(),
        local: false,
        pins: BTreeMap::new(),
        moved: BTreeMap::new(),
        crashed: BTreeMap::new(),
        unreachable_since: BTreeMap::new(),
        ever_removed: BTreeSet::new(),
        acts: Counts::new(),
        faults: true,
        traced: false,
        uids: 0,
    };
    world.local = world.random.once_in(2);
    create_cluster(&mut world);
    world
}

fn create_cluster(world: &mut World) {
    let replicas = 1 + i32::try_from(world.random.below(5)).expect("small");
    let mut cluster = StoreCluster::new(
        "db",
        StoreClusterSpec {
            replicas,
            version: "0.1.0".to_owned(),
            storage: Storage { size: "1Gi".to_owned(), storage_class_name: None },
            ..StoreClusterSpec::default()
        },
    );
    cluster.metadata.namespace = Some("prod".to_owned());
    cluster.metadata.uid = Some(world.uid());
    cluster.metadata.generation = Some(1);
    world.stamp(&mut cluster.metadata);
    world.cluster = Some(cluster);
    world.deleting = false;
    world.finalizer = false;
}

/// One step; returns what the operator did.
fn step(world: &mut World) -> Outcome {
    world.tick();
    if world.cluster.is_none() {
        // Somebody creates it again under its old name once the old pods are gone.
        if world.live.pods.is_empty() && world.live.sets.is_empty() {
            world.ever_removed.clear();
            create_cluster(world);
        }
        return Outcome::Acted;
    }
    let asks = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        c.type_ == "EarlierVolumesFound" && c.status == "True"
    };
    if world.status().conditions.iter().any(asks) && world.random.once_in(5) {
        world.decide_earlier_volumes();
    }
    let before: BTreeMap<u64, String> =
        world.store.entries.iter().map(|e| (e.id, e.peer_url.clone())).collect();
    let outcome = world.reconcile();
    laws::no_claim_shrinks(world);
    for (id, url) in before {
        let ordinal =
            world.cluster.as_ref().and_then(|_| world.desired().name.ordinal_of_peer_url(&url));
        if world.store.removed.contains(&id) {
            world.ever_removed.extend(ordinal);
        }
    }
    outcome
}

/// Ends the faults and waits until the operator has nothing to do.
fn calm(world: &mut World, seed: u64) -> usize {
    world.faults = false;
    world.down_nodes.clear();
    world.crashed.clear();
    world.store.stuck.clear();
    for state in world.nodes.values_mut() {
        // A node that was deleted stays so; what was on it alone is lost.
        if *state != NodeState::Deleted {
            *state = NodeState::Ready;
        }
    }
    // As after a start of the operator: it asks again what was refused when the class was another.
    world.refused_growths.clear();
    world.edit_spec(|world| {
        // What a pod was made with counts, ready or not: it may have run already, and nothing leads back
        // across a minor version.
        let started = world.live.pods.values().filter_map(faults::version_of);
        let version = started.chain(world.highest_version()).max_by_key(|it| laws::minor(it));
        if let Some(cluster) = world.cluster.as_mut() {
            cluster.spec.paused = false;
            cluster.spec.update_strategy = None;
            cluster.spec.image = None;
            cluster.spec.version = version.unwrap_or_else(|| cluster.spec.version.clone());
        }
    });
    let mut quiet = 0;
    for steps in 1..=PATIENCE {
        quiet = if step(world) == Outcome::Nothing { quiet + 1 } else { 0 };
        if quiet == 20 {
            return steps;
        }
    }
    panic!(
        "seed {seed}: INV-O4: no rest after {PATIENCE} calm steps\nstatus {:#?}\nstore {:#?}\n{}",
        world.status(),
        world.store,
        world.places()
    );
}

/// What a world at rest looks like, told from the truth.
fn converged(world: &World, seed: u64) {
    let desired = world.desired();
    let status = world.status();
    let say = |type_: &str| {
        let condition = status.conditions.iter().find(|c| c.type_ == type_);
        condition.map(|c| (c.status.clone(), c.reason.clone())).unwrap_or_default()
    };
    let context = format!("seed {seed}: {status:#?}\n{:#?}", world.store);
    if desired.hibernated {
        assert!(world.live.pods.is_empty(), "pods run although hibernated; {context}");
        assert_eq!(say("Available").0, "False", "{context}");
        return;
    }
    let wanted = usize::try_from(desired.replicas).expect("positive");
    assert_eq!(world.store.entries.len(), wanted, "{context}");
    assert!(
        world.store.entries.iter().all(|e| !e.learner && world.store.up.contains(&e.id)),
        "{context}"
    );
    assert_eq!(world.live.sets.len(), wanted, "{context}");
    assert_eq!(world.live.services.len(), 2, "{context}");
    assert_eq!(world.live.jobs.len(), 0, "{context}");
    assert_eq!(world.live.budgets.len(), usize::from(wanted >= 3), "{context}");
    assert_eq!(status.ready.as_deref(), Some(format!("{wanted}/{wanted}").as_str()), "{context}");
    assert_eq!(status.members.len(), wanted, "{context}");
    assert!(status.members.iter().all(|m| m.role == MemberRole::Voter && m.ready), "{context}");
    assert_eq!(say("Available"), ("True".to_owned(), "Serving".to_owned()), "{context}");
    assert_eq!(say("Progressing"), ("False".to_owned(), "Reconciled".to_owned()), "{context}");
    assert_eq!(say("Degraded").0, "False", "{context}");
    assert!(status.leader.is_some() && status.operation.is_none(), "{context}");
    assert!(world.store.corrupt.is_empty() && status.joins_given_up.is_none(), "{context}");
    let mut small = 0;
    for member in &status.members {
        let claim = world.live.claims.get(&member.claim).expect("members keep their claims");
        let asked = storage::value(storage::request(claim));
        assert_eq!(storage::capacity(claim).map(storage::value), Some(asked), "{context}");
        small += usize::from(asked < storage::value(&desired.storage_size));
        assert_eq!(member.version.as_deref(), Some(desired.version.as_str()), "{context}");
    }
    let settings = settings_digest(&desired);
    for pod in world.live.pods.values() {
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        assert_eq!(annotations.get(names::ANNOTATION_SETTINGS), Some(&settings), "{context}");
        assert_ne!(world::image_of(pod), world::BAD_IMAGE, "{context}");
    }
    let resize = match (small, world.classes_readable) {
        (0, _) => ("False", "UpToDate"),
        (_, true) => ("True", "ClassCannotExpand"),
        (_, false) => ("True", "GrowthRefused"),
    };
    assert!(small == 0 || !world.expandable, "{small} volumes could grow and did not; {context}");
    assert_eq!(say("ResizePending"), (resize.0.to_owned(), resize.1.to_owned()), "{context}");
    assert_eq!(say("RestartPending"), ("False".to_owned(), "UpToDate".to_owned()), "{context}");
}

/// One world from its creation to its rest; returns the steps that it took.
fn live_through(seed: u64, counts: &mut Counts, traced: bool) -> usize {
    let mut world = new_world(seed);
    world.traced = traced;
    for _ in 0..TROUBLED {
        if world.random.once_in(10) {
            world.disturb(counts);
        }
        step(&mut world);
    }
    for (act, times) in std::mem::take(&mut world.acts) {
        *counts.entry(act).or_default() += times;
    }
    let steps = calm(&mut world, seed);
    converged(&world, seed);
    TROUBLED + steps
}

#[test]
fn every_world_converges_and_breaks_no_law_on_the_way() {
    let wanted = number("QUORATE_CONVERGENCE_STEPS", STEPS);
    let first = number("QUORATE_CONVERGENCE_SEED", 1) as u64;
    // One step asked for is one world, told in full.
    let replay = wanted <= 1;
    let mut counts = Counts::new();
    let (mut steps, mut seed) = (0, first);
    while steps < wanted {
        let life = AssertUnwindSafe(|| live_through(seed, &mut counts, replay));
        steps += catch_unwind(life).unwrap_or_else(|_panic| {
            panic!(
                "seed {seed}: see above; QUORATE_CONVERGENCE_SEED={seed} \
                QUORATE_CONVERGENCE_STEPS=1 replays it"
            )
        });
        seed += 1;
    }
    println!("{steps} steps in {} worlds: {counts:?}", seed - first);
    for kind in KINDS.into_iter().chain(HURTS).chain(ACTS) {
        assert!(
            replay || counts.contains_key(kind),
            "{kind} never happened: the run showed nothing about it"
        );
    }
}
