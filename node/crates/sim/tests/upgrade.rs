//! Worlds in which members of feature level 1 become members of level 2 under load, crashes, transfers, snapshots and changes of the
//! membership. `cargo test -p quorate-sim --features next-level --test upgrade`

use quorate_machine::FEATURE_LEVEL_KNOWN;
use quorate_sim::world::{Upgraded, World};

/// Worlds of the batch. Each has its own founders, joiners and faults; together they must have seen every case.
const SEEDS: u64 = 40;

#[test]
fn no_old_member_meets_what_it_does_not_know_and_all_end_alike() {
    let mut all = Upgraded::default();
    let mut raised_in_chaos = 0;
    for seed in 1..=SEEDS {
        let ending = World::upgrading(seed, false).run();
        let upgraded = ending.upgraded.expect("this world has an upgrade");
        assert_eq!(upgraded.level, FEATURE_LEVEL_KNOWN.0, "seed {seed}");
        assert!(upgraded.replaced >= 3 && upgraded.rows > 0, "seed {seed}: {upgraded:?}");
        raised_in_chaos += u64::from(upgraded.raised_in_chaos);
        all.replaced += upgraded.replaced;
        all.old_joiners += upgraded.old_joiners;
        all.late_joiners += upgraded.late_joiners;
        all.refused += upgraded.refused;
        all.snapshots += upgraded.snapshots;
        all.rows += upgraded.rows;
    }
    println!("{raised_in_chaos} of {SEEDS} levels rose among faults; {all:?}");
    assert!(raised_in_chaos >= SEEDS / 4, "the level rises while things go wrong");
    assert!(all.old_joiners > 0, "an old member joined before the level rose");
    assert!(all.late_joiners > 0 && all.refused > 0, "one came too late, and was refused");
    assert!(all.snapshots > 0, "the new rows travelled in snapshots");
}

#[test]
fn the_same_seed_gives_the_same_upgrade() {
    let first = World::upgrading(3, false).run();
    let again = World::upgrading(3, false).run();
    assert_eq!((first.trace_hash, first.upgraded), (again.trace_hash, again.upgraded));
    assert_ne!(World::new(3, false).run().trace_hash, first.trace_hash);
}
