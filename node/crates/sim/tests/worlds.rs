//! Whole worlds: the same seed twice, the seeds that once failed, and a batch in which everything happens.

use quorate_sim::world::{Counts, OPERATIONS_MIN, STEPS_MIN, World};

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let first = World::new(7, false).run();
    let again = World::new(7, false).run();
    let other = World::new(8, false).run();
    assert_eq!(first.trace_hash, again.trace_hash);
    assert_eq!(first.counts, again.counts);
    assert_ne!(first.trace_hash, other.trace_hash);
}

#[test]
fn seeds_that_once_failed_pass() {
    let listed = include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#'));
    for line in listed {
        let seed = line.split(' ').next().and_then(|seed| seed.parse().ok()).expect("a seed");
        let ending = World::new(seed, false).run();
        assert!(ending.steps >= STEPS_MIN && ending.operations >= OPERATIONS_MIN, "{ending:?}");
    }
}

#[test]
fn in_a_batch_everything_happens() {
    let mut counts = Counts::default();
    for seed in 1..=80 {
        counts.add(&World::new(seed, false).run().counts);
    }
    assert_eq!(counts.missing(), Vec::<&str>::new());
}
