//! A batch of seeds: lives through each world, says which one failed and how to see it again, and whether the batch saw everything.

use std::{cell::Cell, process::ExitCode};

use quorate_machine::{FEATURE_LEVEL_FORMED, FEATURE_LEVEL_KNOWN};

use crate::world::{Counts, World};

/// From this many seeds on, every kind of event must have happened.
const BATCH_MIN: u64 = 50;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Which worlds to live through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Print each step.
    pub trace: bool,
    /// Let members of feature level 1 become members of the next.
    pub upgrade: bool,
}

/// How the command is called.
const USAGE: &str = "usage: quorate-sim [--seed N] [--seeds K] [--trace] [--upgrade]

Lives through the worlds of K seeds from N on (1 and 1). With --trace, prints each step. With --upgrade, in a
build with the feature `next-level`, members of feature level 1 become members of level 2 meanwhile.";

impl Batch {
    /// Reads a command line without the program's name.
    ///
    /// # Errors
    /// What is wrong with it, and how it is used.
    pub fn read(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut batch = Self { first: 1, seeds: 1, trace: false, upgrade: false };
        while let Some(argument) = given.next() {
            let mut number = || {
                let text = given.next().ok_or(format!("{argument} needs a number\n{USAGE}"))?;
                text.parse()
                    .map_err(|_| format!("{argument} needs a number, not {text:?}\n{USAGE}"))
            };
            match argument.as_str() {
                "--seed" => batch.first = number()?,
                "--seeds" => batch.seeds = number()?,
                "--trace" => batch.trace = true,
                "--upgrade" if FEATURE_LEVEL_KNOWN > FEATURE_LEVEL_FORMED => batch.upgrade = true,
                "--upgrade" => {
                    return Err("this build knows no level to upgrade to; build it with --features next-level".to_owned());
                }
                other => return Err(format!("what is {other:?}?\n{USAGE}")),
            }
        }
        Ok(batch)
    }

    /// Lives through all of them. A world that fails ends the process with its seed; the last line counts those that passed.
    pub fn run(self) -> ExitCode {
        say_the_seed_first();
        let (mut counts, mut steps, mut operations, mut revisions) = (Counts::default(), 0, 0, 0);
        for seed in self.first..self.first.saturating_add(self.seeds) {
            SEED.set(seed);
            let world = if self.upgrade { World::upgrading } else { World::new };
            let ending = world(seed, self.trace).run();
            counts.add(&ending.counts);
            steps += ending.steps;
            operations += ending.operations;
            revisions += ending.revisions;
            if self.seeds == 1 {
                println!("seed {seed}: trace {:016x}", ending.trace_hash);
            }
        }
        let Self { first, seeds, trace: _, upgrade: _ } = self;
        println!(
            "{seeds} seeds from {first}: {steps} steps, {operations} requests, {revisions} revisions; {counts}"
        );
        let missing = counts.missing();
        if seeds >= BATCH_MIN && !missing.is_empty() {
            eprintln!(
                "seeds {first} and on tested too little: never happened: {}",
                missing.join(", ")
            );
            return ExitCode::FAILURE;
        }
        println!("{seeds} passed, 0 failed");
        ExitCode::SUCCESS
    }
}

fn say_the_seed_first() {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let seed = SEED.get();
        eprintln!("seed {seed} failed; replay: quorate-sim --seed {seed} --trace");
        default_hook(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read_or_refused_with_its_use() {
        let read = |line: &str| Batch::read(line.split_whitespace().map(str::to_owned));
        assert_eq!(
            read("--seed 7 --seeds 9"),
            Ok(Batch { first: 7, seeds: 9, trace: false, upgrade: false })
        );
        assert_eq!(read("--trace"), Ok(Batch { first: 1, seeds: 1, trace: true, upgrade: false }));
        for bad in ["--seed", "--seeds many", "7"] {
            assert!(read(bad).unwrap_err().contains("usage"), "{bad}");
        }
    }
}
