//! The long runs, in batches: an interrupted soak goes on with the first batch that has not passed on this commit.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use quorate_kubernetes::{Progress, command};

use crate::cargo::{self, Cases};
use crate::limits::{
    SOAK_BATCH_SEEDS, SOAK_CONVERGENCE_STEPS, SOAK_CRASH_POINTS, SOAK_FEARS, SOAK_KILLS,
    SOAK_RANDOM_SEEDS, SOAK_SEEDS, SOAK_UPGRADE_SEEDS, SOAK_UPGRADES,
};

/// What is run again as a whole after an interruption.
struct Batch {
    /// Says what it is in the record.
    name: String,
    /// The cargo command.
    words: Vec<String>,
    /// The size of the matrix, where a test is told by its environment.
    variable: Option<(&'static str, &'static str)>,
    /// How its cases are counted.
    count: fn(&str) -> Cases,
    /// Fewer than so many are a failure.
    cases_min: usize,
}

impl Batch {
    fn simulator(first: usize) -> Self {
        let words = format!(
            "run --locked --release --package=quorate-sim -- --seed {first} --seeds {SOAK_BATCH_SEEDS}"
        );
        Self {
            name: format!("simulator seeds {first}..{}", first + SOAK_BATCH_SEEDS),
            words: words.split(' ').map(str::to_owned).collect(),
            variable: None,
            count: cargo::plain_cases,
            cases_min: SOAK_BATCH_SEEDS,
        }
    }

    /// Simulated upgrades to the next feature level.
    fn upgrades() -> Self {
        let words = format!(
            "run --locked --release --package=quorate-sim --features=next-level -- --upgrade --seed 1 --seeds {SOAK_UPGRADE_SEEDS}"
        );
        Self {
            name: format!("{SOAK_UPGRADE_SEEDS} simulated upgrades"),
            words: words.split(' ').map(str::to_owned).collect(),
            variable: None,
            count: cargo::plain_cases,
            cases_min: SOAK_UPGRADE_SEEDS,
        }
    }

    /// Tests as they are.
    fn tests(name: &str, words: &str) -> Self {
        Self {
            name: name.to_owned(),
            words: words.split(' ').map(str::to_owned).collect(),
            variable: None,
            count: cargo::test_cases,
            cases_min: 1,
        }
    }

    /// One test of the gate, told to do more.
    fn longer(name: &str, words: &str, variable: &'static str, value: &'static str) -> Self {
        Self { variable: Some((variable, value)), ..Self::tests(name, words) }
    }

    fn line(&self, cases: Cases) -> String {
        format!("{}: {} passed, {} failed", self.name, cases.passed, cases.failed)
    }

    /// It is done when the record has a line of it that says so.
    fn is_done(&self, record: &str) -> bool {
        let begin = format!("{}: ", self.name);
        record.lines().any(|line| line.starts_with(&begin) && line.ends_with(" passed, 0 failed"))
    }

    fn run(&self, log: &Path, progress: &Progress) -> Result<Cases> {
        let mut command = cargo::command(&[]);
        command.args(&self.words);
        command.envs(self.variable);
        command::run_logged(&mut command, log, &self.name, progress)?;
        let words = fs::read_to_string(log).with_context(|| format!("read {}", log.display()))?;
        let cases = (self.count)(&words);
        if cases.failed > 0 || cases.passed < self.cases_min {
            bail!(
                "{}; at least {} must pass; see {}",
                self.line(cases),
                self.cases_min,
                log.display()
            );
        }
        Ok(cases)
    }
}

fn batches() -> Vec<Batch> {
    let mut batches = vec![
        Batch::longer(
            "a member killed twenty times under full load",
            "test --locked --profile=gate --package=quorate-e2e-store --test=kill9 -- --nocapture",
            "QUORATE_KILLS",
            SOAK_KILLS,
        ),
        Batch::longer(
            "random runs of consensus",
            "test --locked --release --package=quorate-consensus --test=suite -- random",
            "SEEDS",
            SOAK_RANDOM_SEEDS,
        ),
        Batch::longer(
            "convergence of the planner",
            "test --locked --release --package=quorate-planner --test=convergence",
            "QUORATE_CONVERGENCE_STEPS",
            SOAK_CONVERGENCE_STEPS,
        ),
        Batch::longer(
            "ten upgrades to the next feature level on the test bed",
            "test --locked --profile=gate --package=quorate-e2e-cluster --test=fears -- --nocapture no_old_member_meets",
            "QUORATE_UPGRADES",
            SOAK_UPGRADES,
        ),
        Batch {
            cases_min: SOAK_FEARS,
            ..Batch::tests(
                "the fears that the gate leaves out",
                "test --locked --profile=gate --package=quorate-e2e-cluster --test=fears -- --nocapture --test-threads=1 --ignored",
            )
        },
        Batch::upgrades(),
    ];
    batches.extend(SOAK_CRASH_POINTS.iter().map(|points| {
        Batch::longer(
            &format!("the operator killed at the points {points} of each change"),
            "test --locked --profile=gate --package=quorate-e2e-cluster --test=fears -- --nocapture wherever_it_dies",
            "QUORATE_CRASH_POINTS",
            points,
        )
    }));
    batches.extend((1..=SOAK_SEEDS).step_by(SOAK_BATCH_SEEDS).map(Batch::simulator));
    batches
}

/// Runs every batch that is not in the record of this commit, and quotes each result into `target/soak/<commit>.log`.
///
/// # Errors
/// A batch failed; its log is named. The batches before it need not be run again.
pub(crate) fn run() -> Result<()> {
    let progress = &Progress::start();
    let mut describe = Command::new("git");
    describe.args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(cargo::root());
    let commit = command::output(&mut describe)?.trim().to_owned();
    let directory = cargo::root().join("target/soak");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let record = directory.join(format!("{commit}.log"));
    let done = fs::read_to_string(&record).unwrap_or_default();
    let batches = batches();
    for (number, batch) in (1..).zip(&batches) {
        if batch.is_done(&done) {
            continue;
        }
        progress.say(format!("soak {number}/{} on {commit}: {}", batches.len(), batch.name));
        let cases = batch.run(&directory.join(format!("{commit}-{number}.log")), progress)?;
        append(&record, &batch.line(cases))?;
        progress.say(batch.line(cases));
    }
    progress.say(format!("all of it passed on {commit}; the record: {}", record.display()));
    println!("\n{} passed, 0 failed", batches.len());
    Ok(())
}

fn append(record: &Path, line: &str) -> Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(record);
    let mut file = file.with_context(|| format!("open {}", record.display()))?;
    writeln!(file, "{line}").with_context(|| format!("write {}", record.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn only_a_whole_batch_is_done() {
        let batch = Batch::simulator(251);
        let passed = batch.line(Cases { passed: SOAK_BATCH_SEEDS, failed: 0 });
        assert!(batch.is_done(&format!("x\n{passed}\n")));
        assert!(!batch.is_done(&batch.line(Cases { passed: 249, failed: 1 })));
        assert!(!batch.is_done(""));
    }

    #[test]
    fn batches_have_names_of_their_own_and_cover_every_seed() {
        let batches = batches();
        let names: BTreeSet<&str> = batches.iter().map(|batch| batch.name.as_str()).collect();
        assert_eq!(names.len(), batches.len());
        let of_seeds = batches.iter().filter(|it| it.words.iter().any(|word| word == "--seeds"));
        let seeds: usize = of_seeds.map(|it| it.cases_min).sum();
        assert_eq!(seeds, SOAK_SEEDS + SOAK_UPGRADE_SEEDS);
    }
}
