//! The long runs, in batches: an interrupted soak goes on with the first batch that has not passed on this commit.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use quorate_kubernetes::{Progress, command};

use crate::cargo::{self, Cases};
use crate::limits::{SOAK_BATCH_SEEDS, SOAK_SEEDS};

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
    let batches: Vec<usize> = (1..=SOAK_SEEDS).step_by(SOAK_BATCH_SEEDS).collect();
    for (number, first) in (1..).zip(&batches) {
        let name = batch_name(*first);
        if is_done(&done, &name) {
            continue;
        }
        progress.say(format!("soak {number}/{} on {commit}: {name}", batches.len()));
        let cases = simulate(*first, &directory.join(format!("{commit}-{first}.log")), progress)?;
        let line = format!("{name}: {} passed, {} failed", cases.passed, cases.failed);
        append(&record, &line)?;
        progress.say(&line);
    }
    progress.say(format!("all {} batches passed on {commit}; {}", batches.len(), record.display()));
    println!("\n{SOAK_SEEDS} passed, 0 failed");
    Ok(())
}

fn batch_name(first: usize) -> String {
    format!("simulator seeds {first}..{}", first + SOAK_BATCH_SEEDS)
}

/// A batch is done when its line says that every seed passed.
fn is_done(record: &str, name: &str) -> bool {
    let whole = format!("{name}: {SOAK_BATCH_SEEDS} passed, 0 failed");
    record.lines().any(|line| line == whole)
}

fn simulate(first: usize, log: &Path, progress: &Progress) -> Result<Cases> {
    let mut simulator = cargo::command(&["run", "--locked", "--release", "--package=quorate-sim"]);
    simulator.args(["--", "--seed", &first.to_string()]);
    simulator.args(["--seeds", &SOAK_BATCH_SEEDS.to_string()]);
    command::run_logged(&mut simulator, log, "simulator", progress)?;
    let words = fs::read_to_string(log).with_context(|| format!("read {}", log.display()))?;
    let cases = cargo::plain_cases(&words);
    if cases != (Cases { passed: SOAK_BATCH_SEEDS, failed: 0 }) {
        bail!("{cases:?} of {SOAK_BATCH_SEEDS} seeds from {first} on; see {}", log.display());
    }
    Ok(cases)
}

fn append(record: &Path, line: &str) -> Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(record);
    let mut file = file.with_context(|| format!("open {}", record.display()))?;
    writeln!(file, "{line}").with_context(|| format!("write {}", record.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_batch_is_done() {
        let name = batch_name(251);
        assert!(is_done(&format!("x\n{name}: {SOAK_BATCH_SEEDS} passed, 0 failed\n"), &name));
        assert!(!is_done(&format!("{name}: 249 passed, 1 failed\n"), &name));
        assert!(!is_done("", &name));
    }

    #[test]
    fn batches_cover_every_seed() {
        assert_eq!(SOAK_SEEDS % SOAK_BATCH_SEEDS, 0);
    }
}
