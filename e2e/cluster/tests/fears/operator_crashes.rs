//! Fear: the operator dies between two of its own writes, or acts on what was, or is not the only one, and what comes after is not
//! what would have come.

use std::sync::Mutex;
use std::thread;

use quorate_e2e_cluster::drill::{Agenda, Asked, Change, Drill, Life, Outcome, Point, Staff};
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::images::next_version;
use quorate_e2e_cluster::limits::LANES;
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::witness::Witness;
use quorate_kubernetes::storage_driver::EXPANDABLE;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::task::block_in_place;

/// Which points of each change are drilled, as `20..40` or `60..`; one of each that [`SEED`] chooses, when it is not set.
const POINTS: &str = "QUORATE_CRASH_POINTS";

/// Chooses the points of the gate.
const SEED: u64 = 4;

/// What an operator with which nothing is wrong makes of each change, and writes for it.
static UNDISTURBED: OnceCell<Vec<(Outcome, Vec<String>)>> = OnceCell::const_new();

/// Everything that is asked of an operator, each change on top of the one before.
fn changes() -> Vec<Change> {
    let change = |name, leader, asked, members| Change { name, leader, asked, members };
    let storage = |size| json!({"size": size, "storageClassName": EXPANDABLE});
    // A segment of the log takes 64 MiB, and the next one is made beforehand.
    let one = Asked::Make(json!({"replicas": 1, "storage": storage("512Mi")}));
    let three = Asked::Change(json!({"replicas": 3}));
    let larger = Asked::Change(json!({"storage": storage("768Mi")}));
    let newer = Asked::Change(json!({"version": next_version()}));
    let one_again = Asked::Change(json!({"replicas": 1}));
    vec![
        change("create", None, one, &["db-0"]),
        change("scale out", None, three, &["db-0", "db-1", "db-2"]),
        change("expansion", Some("db-0"), larger, &["db-0", "db-1", "db-2"]),
        change("replace", Some("db-0"), Asked::Replace("db-1"), &["db-0", "db-2", "db-3"]),
        change("upgrade", Some("db-0"), newer, &["db-0", "db-2", "db-3"]),
        change("scale in", Some("db-2"), one_again, &["db-0"]),
    ]
}

/// One life of a cluster, each of whose changes is carried out by somebody else, compared with what came of each before, if
/// anything did. Returns what came of each change, and what was written for it, unless its point was not come to.
async fn life(
    drill: &Drill<'_>,
    namespace: &str,
    staff: &[Staff<'_>],
    was: &[(Outcome, Vec<String>)],
) -> Vec<(Outcome, Option<Vec<String>>)> {
    let life = Life::begin(drill, namespace).await.unwrap();
    let mut came = Vec::new();
    let mut watched = None;
    for (index, (change, staff)) in changes().iter().zip(staff).enumerate() {
        let expected = was.get(index).map(|(outcome, _)| &outcome.world);
        came.push(life.carry_out(change, *staff, expected).await.unwrap());
        if watched.is_none() {
            let load = Load::light(&life.store).await.unwrap();
            watched = Some((load, Witness::start(&life.store)));
        }
    }
    let (load, witness) = watched.unwrap();
    let outcome = load.stop().await.unwrap();
    outcome.verify(&life.store).await.unwrap();
    outcome.in_order().unwrap();
    let seen = witness.stop().await.unwrap();
    seen.one_cluster().unwrap();
    seen.one_change_at_a_time().unwrap();
    came
}

/// The life that all others are compared with.
async fn undisturbed(drill: &Drill<'_>) -> &'static Vec<(Outcome, Vec<String>)> {
    let live = async || {
        let came = life(drill, "fear-crash", &vec![Staff::One; changes().len()], &[]).await;
        let mut all = Vec::new();
        for (change, (outcome, record)) in changes().iter().zip(came) {
            let record = record.unwrap();
            let (points, disruptions) = (Point::all(&record).len(), outcome.disruptions);
            println!("{}: {} writes, {disruptions} disruptions", change.name, points / 2);
            record.iter().for_each(|line| println!("  {line}"));
            all.push((outcome, record));
        }
        all
    };
    UNDISTURBED.get_or_init(live).await
}

/// The same world, and nobody was disturbed twice.
fn compare(change: &Change, is: &Outcome, was: &Outcome, staff: Staff<'_>) {
    let name = change.name;
    assert_eq!(is.disruptions, was.disruptions, "{name}: disturbed twice, with {staff:?}");
    let (is, was) = (format!("{:#}", is.world), format!("{:#}", was.world));
    assert_eq!(is, was, "{name}: another world came of it, with {staff:?}");
}

/// Lives in one namespace until nothing is left on the agenda.
async fn lane(drill: &Drill<'_>, number: usize, agenda: &Mutex<Agenda>) {
    let was = undisturbed(drill).await;
    loop {
        let Some(points) = agenda.lock().unwrap().next_life() else { return };
        println!("lane {number}: {points:?}");
        let staff: Vec<Staff<'_>> = points
            .iter()
            .map(|point| point.as_ref().map_or(Staff::One, Staff::Successor))
            .collect();
        let came = life(drill, &format!("fear-crash-{number}"), &staff, was).await;
        for (index, (is, writes)) in came.iter().enumerate() {
            compare(&changes()[index], is, &was[index].0, staff[index]);
            if let (Some(point), None) = (&points[index], writes) {
                agenda.lock().unwrap().missed(index, point.clone()).unwrap();
            }
        }
    }
}

/// The points that are drilled, of all.
fn chosen(all: Vec<Vec<Point>>) -> Vec<Vec<Point>> {
    let mut random = StdRng::seed_from_u64(SEED);
    let asked = std::env::var(POINTS).ok();
    let some = |points: Vec<Point>| {
        let Some(asked) = &asked else {
            return vec![points[random.random_range(0..points.len())].clone()];
        };
        let (from, to) = asked.split_once("..").unwrap();
        let to = if to.is_empty() { points.len() } else { to.parse().unwrap() };
        let from: usize = from.parse().unwrap();
        points.into_iter().take(to).skip(from).collect()
    };
    all.into_iter().map(some).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn wherever_it_dies_the_same_world_comes_of_it() {
    let turn = turn().await.unwrap();
    let drill = Drill::begin(&turn).unwrap();
    let record = undisturbed(&drill).await;
    let all: Vec<_> = record.iter().map(|(_, writes)| Point::all(writes)).collect();
    if let Ok(asked) = std::env::var(POINTS) {
        println!(
            "of each change the points {asked}, of {:?}",
            all.iter().map(Vec::len).collect::<Vec<_>>()
        );
    }
    let agenda = &Mutex::new(Agenda::new(chosen(all)));
    let (drill, runtime) = (&drill, &Handle::current());
    // A thread for each: kubectl, which a life waits for, blocks its own and no other's.
    block_in_place(|| {
        thread::scope(|scope| {
            for number in 0..LANES {
                scope.spawn(move || runtime.block_on(lane(drill, number, agenda)));
            }
        });
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
#[ignore = "a second case of its fear, of minutes: cargo xtask soak"]
async fn two_at_once_that_hear_late_do_nothing_twice() {
    let turn = turn().await.unwrap();
    let drill = Drill::begin(&turn).unwrap();
    let was = undisturbed(&drill).await;
    let staff = vec![Staff::TwoThatHearLate; changes().len()];
    let came = life(&drill, "fear-two-operators", &staff, was).await;
    for ((change, (is, _)), (was, _)) in changes().iter().zip(&came).zip(was) {
        compare(change, is, was, Staff::TwoThatHearLate);
    }
}
