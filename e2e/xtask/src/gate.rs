//! The tables: what `check` and `test` run, in which order, and how many cases each step must at least run.
//!
//! A new room adds a row here. When a step grows tests, its number grows with it; a smaller number needs a reason in the
//! commit that makes it smaller.

use anyhow::{Result, ensure};
use quorate_kubernetes::{Progress, components, leftovers};

use crate::licences;
use crate::step::{Step, Work};

/// Everything that needs neither server processes nor a cluster.
pub(crate) fn check() -> Vec<Step> {
    vec![
        Step {
            name: "format",
            says: "cargo fmt --check",
            cases_min: 1,
            work: Work::Cargo(&[], FORMAT),
        },
        Step {
            name: "lint",
            says: "clippy on every target of the workspace, warnings denied",
            cases_min: 1,
            work: Work::Cargo(&[], LINT),
        },
        Step {
            name: "lint-features",
            says: "clippy once more on what only the builds for tests hold",
            cases_min: 1,
            work: Work::Cargo(&[], LINT_FEATURES),
        },
        Step {
            name: "helm",
            says: "the program that renders the chart for its tests, built if it is missing",
            cases_min: 1,
            work: Work::Call(helm),
        },
        Step {
            name: "unit",
            says: "unit and script tests of every crate",
            cases_min: 515,
            work: Work::Tests(UNIT_TESTS),
        },
        Step {
            name: "bed-unit",
            says: "unit tests of the test bed",
            cases_min: 22,
            work: Work::Tests(&["--package", "quorate-kubernetes", "--lib"]),
        },
        Step {
            name: "tidy",
            says: "layering, generated files, habits",
            cases_min: 55,
            work: Work::Tests(&["--package", "quorate-tidy"]),
        },
        Step {
            name: "docs",
            says: "rustdoc of the workspace, warnings denied",
            cases_min: 1,
            work: Work::Cargo(&[("RUSTDOCFLAGS", "-D warnings")], DOCS),
        },
        Step {
            name: "licences",
            says: "licences, bans and sources of every dependency",
            cases_min: 1,
            work: Work::Tool(licences::check),
        },
    ]
}

/// The whole gate. The order is from cheap to dear, and what is built for one step serves the next.
pub(crate) fn test() -> Vec<Step> {
    let mut steps = check();
    steps.extend([
        Step {
            name: "simulator",
            says: "production code on a simulated network, disk and clock",
            cases_min: crate::limits::GATE_SEEDS,
            work: Work::Program(SIMULATOR),
        },
        Step {
            name: "next-level",
            says: "the build of the next feature level: its command and rows, and simulated upgrades to it",
            cases_min: 95,
            work: Work::Tests(NEXT_LEVEL),
        },
        Step {
            name: "drill",
            says: "what only the operator of the drills holds",
            cases_min: 4,
            work: Work::Tests(DRILL),
        },
        Step {
            name: "store",
            says: "etcd's own suite, stock etcdctl, kill -9 under load, damaged directories, an upgrade",
            cases_min: 35,
            work: Work::Tests(STORE),
        },
        Step {
            name: "bed",
            says: "the test bed comes up, serves, and its faults are real faults",
            cases_min: 6,
            work: Work::Tests(BED),
        },
        Step {
            name: "operator",
            says: "the operator on the test bed, one test per fear",
            cases_min: 44,
            work: Work::Tests(OPERATOR),
        },
        Step {
            name: "bed-down",
            says: "the test bed goes down and leaves nothing",
            cases_min: 1,
            work: Work::Call(bed_down),
        },
    ]);
    steps
}

const FORMAT: &[&str] = &["fmt", "--all", "--check", "--", "--color=never"];

const LINT: &[&str] =
    &["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"];

/// The packages in which a cargo feature changes a line: `next-level` in the store, `drill` in the operator.
const LINT_FEATURES: &[&str] = &[
    "clippy",
    "--package=quorate-machine",
    "--package=quorate-sim",
    "--package=quorate",
    "--package=quorate-operator",
    "--features=quorate-machine/next-level,quorate-sim/next-level,quorate/next-level,quorate-operator/drill",
    "--all-targets",
    "--locked",
    "--",
    "--deny",
    "warnings",
];

/// With the simulator's profile: forty worlds of two builds each.
const NEXT_LEVEL: &[&str] = &[
    "--profile=gate",
    "--package=quorate-machine",
    "--package=quorate-sim",
    "--features=quorate-machine/next-level,quorate-sim/next-level",
    "--lib",
    "--test=upgrade",
];

const DRILL: &[&str] = &[
    "--package=quorate-operator",
    "--features=drill",
    "--bins",
    "--",
    "crash_points::",
    "late_watches::",
];

const DOCS: &[&str] = &["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"];

/// The packages left out have steps of their own.
const UNIT_TESTS: &[&str] = &[
    "--workspace",
    "--exclude=quorate-kubernetes",
    "--exclude=quorate-tidy",
    "--exclude=quorate-e2e-store",
    "--exclude=quorate-e2e-cluster",
    "--exclude=quorate-bench",
    "--no-fail-fast",
];

const SIMULATOR: &[&str] =
    &["--profile=gate", "--package=quorate-sim", "--", "--seed", "1", "--seeds", "300"];

/// One test at a time where real servers share two cores and fixed ports.
const STORE: &[&str] = &[
    "--profile=gate",
    "--package=quorate-e2e-store",
    "--no-fail-fast",
    "--",
    "--test-threads=1",
    "--nocapture",
];

const BED: &[&str] = &[
    "--package=quorate-kubernetes",
    "--test=bed",
    "--no-fail-fast",
    "--",
    "--test-threads=1",
    "--nocapture",
];

/// One case per fear: the others say `#[ignore]` and why, and are soaked.
const OPERATOR: &[&str] =
    &["--package=quorate-e2e-cluster", "--no-fail-fast", "--", "--test-threads=1", "--nocapture"];

fn helm(progress: &Progress) -> Result<usize> {
    components::HELM.ensure(progress)?;
    Ok(1)
}

fn bed_down(progress: &Progress) -> Result<usize> {
    quorate_kubernetes::down()?;
    let left = leftovers()?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    progress.say("no process, mount, namespace, interface, control group or file is left");
    Ok(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::limits::GATE_SEEDS;

    #[test]
    fn names_are_given_once_and_every_step_has_a_floor() {
        let steps = test();
        let names: BTreeSet<&str> = steps.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), steps.len());
        assert!(steps.iter().all(|step| step.cases_min > 0));
    }

    #[test]
    fn the_fast_gate_is_the_beginning_of_the_whole_one() {
        let (check, test) = (check(), test());
        let same = check.iter().zip(&test).all(|(one, other)| one.name == other.name);
        assert!(same && check.len() < test.len());
    }

    #[test]
    fn the_simulator_is_asked_for_as_many_seeds_as_are_counted() {
        assert_eq!(SIMULATOR.last().copied(), Some(GATE_SEEDS.to_string().as_str()));
    }
}
