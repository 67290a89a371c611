//! Runs a table of steps: says what each does, how long it took and how many cases it ran, and fails loudly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use quorate_kubernetes::{Progress, command};

use crate::cargo::{self, Cases};
use crate::limits::{FAILED_LOG_LINES, PANIC_LINES};

/// One row of a gate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// One word, for `--only` and the name of its log.
    pub(crate) name: &'static str,
    /// What it does, for a person who waits.
    pub(crate) says: &'static str,
    /// Fewer cases than this fail the step: a test that is gone is not a test that passes.
    pub(crate) cases_min: usize,
    /// How it is done.
    pub(crate) work: Work,
}

/// How the work of a step is done, and how its cases are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// A cargo command that passes or fails as one case. Variables of its environment come first.
    Cargo(&'static [(&'static str, &'static str)], &'static [&'static str]),
    /// `cargo test` with these words; its cases are the tests.
    Tests(&'static [&'static str]),
    /// `cargo run` with these words, of a program that closes with the line `N passed, M failed`.
    Program(&'static [&'static str]),
    /// A command that is made ready first (a tool is installed); one case.
    Tool(fn(&Progress) -> Result<Command>),
    /// A function of ours; it returns how many cases passed.
    Call(fn(&Progress) -> Result<usize>),
}

/// What came of a step.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    cases: Cases,
    /// Why it failed, for the end of all that is printed.
    complaints: Vec<String>,
}

impl Outcome {
    fn passed(cases: usize) -> Self {
        Self { cases: Cases { passed: cases, failed: 0 }, complaints: Vec::new() }
    }

    fn complain(&mut self, complaint: String) {
        println!("{complaint}");
        self.complaints.push(complaint);
    }
}

/// Runs every step of a gate, a failed one included, and closes with the line `N passed, M failed` and with what failed: CI keeps
/// the end of what is printed, and the steps after a failed one print much.
///
/// # Errors
/// A step failed.
pub(crate) fn run_all(gate: &str, steps: &[Step]) -> Result<()> {
    let progress = &Progress::start();
    let mut total = Cases::default();
    let mut failed: Vec<(&str, Outcome)> = Vec::new();
    for (number, step) in (1..).zip(steps) {
        progress.say(format!("{gate} {number}/{}: {}: {}", steps.len(), step.name, step.says));
        let own = Progress::start();
        let outcome = step.judge(step.run(progress).unwrap_or_else(|error| {
            let mut outcome =
                Outcome { cases: Cases { passed: 0, failed: 1 }, ..Outcome::default() };
            outcome.complain(format!("{error:#}"));
            outcome
        }));
        let Cases { passed, failed: bad } = outcome.cases;
        total.passed += passed;
        total.failed += bad;
        let seconds = own.elapsed().as_secs_f64();
        let end = if bad == 0 { "ok" } else { "FAILED" };
        progress
            .say(format!("{}: {end}: {passed} passed, {bad} failed in {seconds:.1} s", step.name));
        if bad > 0 {
            failed.push((step.name, outcome));
        }
    }
    println!("\n{} passed, {} failed", total.passed, total.failed);
    for (name, outcome) in &failed {
        println!("\n{name} failed:");
        for complaint in &outcome.complaints {
            println!("    {complaint}");
        }
    }
    if !failed.is_empty() {
        let names: Vec<&str> = failed.iter().map(|(name, _)| *name).collect();
        bail!("failed: {}", names.join(", "));
    }
    Ok(())
}

impl Step {
    fn run(&self, progress: &Progress) -> Result<Outcome> {
        match self.work {
            Work::Cargo(variables, words) => {
                let mut command = cargo::command(words);
                command.envs(variables.iter().copied());
                self.run_command(&mut command, |_| Cases { passed: 1, failed: 0 }, progress)
            }
            Work::Tests(words) => {
                let mut command = cargo::command(&["test", "--locked"]);
                self.run_command(command.args(words), cargo::test_cases, progress)
            }
            Work::Program(words) => {
                let mut command = cargo::command(&["run", "--locked"]);
                self.run_command(command.args(words), cargo::plain_cases, progress)
            }
            Work::Tool(prepare) => {
                let one = |_: &str| Cases { passed: 1, failed: 0 };
                self.run_command(&mut prepare(progress)?, one, progress)
            }
            Work::Call(function) => Ok(Outcome::passed(function(progress)?)),
        }
    }

    /// Fewer cases than the table says make one failure more.
    fn judge(&self, mut outcome: Outcome) -> Outcome {
        let Cases { passed, failed } = outcome.cases;
        if failed == 0 && passed < self.cases_min {
            outcome.complain(format!(
                "{} ran {passed} cases and must run {}: a test is gone, or the number in e2e/xtask/src/gate.rs is old",
                self.name, self.cases_min
            ));
            outcome.cases.failed += 1;
        }
        outcome
    }

    fn run_command(
        &self,
        command: &mut Command,
        count: impl Fn(&str) -> Cases,
        progress: &Progress,
    ) -> Result<Outcome> {
        let log = log_file(self.name)?;
        let status = command::status_logged(command, &log, self.name, progress)?;
        let words = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
        let words = String::from_utf8_lossy(&words);
        if status.success() {
            return Ok(Outcome { cases: count(&words), complaints: Vec::new() });
        }
        let lines: Vec<&str> = words.lines().collect();
        for line in &lines[lines.len().saturating_sub(FAILED_LOG_LINES)..] {
            println!("    {line}");
        }
        let mut outcome = Outcome::default();
        for line in panics(&lines) {
            outcome.complain(line.to_owned());
        }
        let called = command::describe(command);
        outcome.complain(format!("`{called}` ended with {status}; its log: {}", log.display()));
        if matches!(self.work, Work::Tests(_) | Work::Program(_)) {
            outcome.cases = count(&words);
        }
        outcome.cases.failed = outcome.cases.failed.max(1);
        Ok(outcome)
    }
}

/// What tests said when they panicked, without their stacks.
fn panics<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let places = (0..lines.len()).filter(|&at| lines[at].contains("panicked at"));
    let told = places.flat_map(|at| {
        let message = lines[at..].iter().take(PANIC_LINES);
        let is_stack = |line: &str| line.trim().eq_ignore_ascii_case("stack backtrace:");
        message.take_while(move |line| !line.is_empty() && !is_stack(line)).copied()
    });
    told.take(FAILED_LOG_LINES).collect()
}

/// Where the words of a step go.
fn log_file(name: &str) -> Result<PathBuf> {
    let directory: &Path = &cargo::root().join("target/xtask");
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    Ok(directory.join(format!("{name}.log")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(cases_min: usize, work: Work) -> Step {
        Step { name: "xtask-test", says: "a step of a test", cases_min, work }
    }

    #[test]
    fn too_few_cases_fail_a_step_that_passed() {
        let step = step(3, Work::Call(|_| Ok(2)));
        let outcome = step.judge(step.run(&Progress::start()).unwrap());
        assert_eq!(outcome.cases, Cases { passed: 2, failed: 1 });
        assert!(outcome.complaints[0].contains("a test is gone"), "{outcome:?}");
    }

    #[test]
    fn enough_cases_pass() {
        let step = step(2, Work::Call(|_| Ok(2)));
        assert_eq!(step.judge(step.run(&Progress::start()).unwrap()), Outcome::passed(2));
        run_all("check", &[step]).unwrap();
    }

    #[test]
    fn a_command_that_fails_is_a_failure() {
        let step = step(0, Work::Cargo(&[], &["no-such-chore"]));
        let outcome = step.run(&Progress::start()).unwrap();
        assert_eq!(outcome.cases, Cases { passed: 0, failed: 1 });
        assert!(outcome.complaints.iter().any(|it| it.contains("no-such-chore")), "{outcome:?}");
        let error = run_all("check", &[step]).unwrap_err().to_string();
        assert!(error.contains("xtask-test"), "{error}");
    }

    #[test]
    fn what_panicked_is_found_in_a_long_log() {
        let said = ["thread 'a' panicked at x.rs:1:", "left: 1", "right: 2"];
        for end in ["", "stack backtrace:", "Stack backtrace:"] {
            let log = ["noise", said[0], said[1], said[2], end, "noise"];
            assert_eq!(panics(&log), said);
        }
    }

    #[test]
    fn a_step_that_cannot_even_start_is_a_failure() {
        let step = step(0, Work::Call(|_| bail!("the host lacks something")));
        assert!(run_all("check", &[step]).is_err());
    }
}
