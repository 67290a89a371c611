//! Fear: the operator dies between two of its own writes, and what comes after is not what would have come.

use quorate_e2e_cluster::drill::{Change, Drill, Outcome, Point};
use quorate_e2e_cluster::fixture::{Turn, turn};
use quorate_e2e_cluster::images::next_version;
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::witness::Witness;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

/// How many points of each change are drilled; `all` of them in a soak.
const POINTS: &str = "QUORATE_CRASH_POINTS";

/// Chooses the points of the gate.
const SEED: u64 = 4;

/// Everything that is asked of an operator, each change on top of the one before. A change is a name, the members that stand
/// once it is done, and what changes in the spec.
fn changes() -> Vec<(Change<'static>, serde_json::Value)> {
    let change = |name, members, spec| (Change { name, members }, json!({"spec": spec}));
    vec![
        change("create", 1, json!({"replicas": 1})),
        change("scale out", 3, json!({"replicas": 3})),
        change("upgrade", 3, json!({"version": next_version()})),
        change("scale in", 1, json!({"replicas": 1})),
    ]
}

/// One life of a cluster, in which the operator dies once in each change that has a point. Returns what came of each change, and
/// what was written for it.
async fn life(
    turn: &Turn,
    drill: &Drill<'_>,
    points: &[Option<Point>],
) -> Vec<(Outcome, Vec<String>)> {
    // What is left of the life before goes only while an operator lets it.
    let undertaker = drill.start(None).unwrap();
    let store = &Store::namespace(turn, "fear-crash").await.unwrap();
    undertaker.end().unwrap();
    let mut came = Vec::new();
    let mut load = None;
    let mut witness = None;
    for ((change, spec), point) in changes().iter().zip(points) {
        if came.is_empty() {
            let made = drill.carry_out(store, change, point.as_ref(), async || {
                store.create(spec["spec"].clone()).await.map(drop)
            });
            came.push(made.await.unwrap());
            load = Some(Load::start(store).await.unwrap());
            witness = Some(Witness::start(store));
        } else {
            let made = drill.carry_out(store, change, point.as_ref(), async || {
                store.patch(spec.clone()).await.map(drop)
            });
            came.push(made.await.unwrap());
        }
    }
    load.unwrap().stop().await.unwrap().verify(store).await.unwrap();
    let seen = witness.unwrap().stop().await.unwrap();
    seen.one_cluster().unwrap();
    seen.one_change_at_a_time().unwrap();
    came
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_it_dies_the_same_world_comes_of_it() {
    let turn = turn().await.unwrap();
    let drill = Drill::begin(&turn).unwrap();
    let nowhere = vec![None; changes().len()];
    let undisturbed = life(&turn, &drill, &nowhere).await;

    let mut points: Vec<Vec<Point>> = Vec::new();
    for ((change, _), (outcome, writes)) in changes().iter().zip(&undisturbed) {
        println!("{}: {} writes, {} disruptions", change.name, writes.len(), outcome.disruptions);
        for write in writes {
            println!("  {write}");
        }
        points.push(Point::all(writes));
    }
    let lives = match std::env::var(POINTS).as_deref() {
        Ok("all") => points.iter().map(Vec::len).max().unwrap(),
        Ok(number) => number.parse().unwrap(),
        Err(_) => 1,
    };
    let mut random = StdRng::seed_from_u64(SEED);
    for number in 0..lives {
        let chosen: Vec<Option<Point>> = points
            .iter()
            .map(|points| match std::env::var(POINTS).as_deref() {
                Ok("all") => points.get(number).cloned(),
                _ => Some(points[random.random_range(0..points.len())].clone()),
            })
            .collect();
        println!("life {number}: {chosen:?}");
        let came = life(&turn, &drill, &chosen).await;
        for (((change, _), (was, _)), (is, _)) in changes().iter().zip(&undisturbed).zip(&came) {
            assert_eq!(
                is.disruptions, was.disruptions,
                "{}: somebody was disturbed twice",
                change.name
            );
            let (is, was) = (format!("{:#}", is.world), format!("{:#}", was.world));
            assert_eq!(is, was, "{}: another world came of it", change.name);
        }
    }
}
