//! The bounds of the chores, each with its reason.

/// Lines of a failed step's log that are printed: a CI run keeps nothing but what it printed, and a failed test of cargo
/// says all that it has to say within this.
pub(crate) const FAILED_LOG_LINES: usize = 60;

/// Lines of one panic that are printed: a comparison of two long answers, and more would hide the other panics.
pub(crate) const PANIC_LINES: usize = 30;

/// Seeds of the simulator in the gate: some hundreds, about a minute.
pub(crate) const GATE_SEEDS: usize = 300;

/// Seeds of the simulator in a soak.
pub(crate) const SOAK_SEEDS: usize = 10_000;

/// Seeds of one batch of a soak: what is run again after an interruption, about a minute.
pub(crate) const SOAK_BATCH_SEEDS: usize = 250;

/// Seeds of simulated upgrades in a soak (the gate runs forty).
pub(crate) const SOAK_UPGRADE_SEEDS: usize = 1000;

/// Upgrades to the next feature level on the test bed in a soak (the gate runs two).
pub(crate) const SOAK_UPGRADES: &str = "10";

/// Fears of the test bed that only a soak runs: they say `#[ignore]`.
pub(crate) const SOAK_FEARS: usize = 10;

/// Crash points of each change that a batch of a soak drills (`fears/operator_crashes.rs`); a change has up to eighty of them, two for
/// each write, and ten take five minutes.
pub(crate) const SOAK_CRASH_POINTS: [&str; 4] = ["0..20", "20..40", "40..60", "60.."];

/// Members killed under full load in a soak (the gate kills three).
pub(crate) const SOAK_KILLS: &str = "20";

/// Seeds of the random runs of consensus in a soak, each of some thousand steps.
pub(crate) const SOAK_RANDOM_SEEDS: &str = "0..3000";

/// Steps of the planner's convergence test in a soak.
pub(crate) const SOAK_CONVERGENCE_STEPS: &str = "1000000";
