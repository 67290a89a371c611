//! Runs worlds by their seeds, and says which one failed and how to see it again.

use std::{cell::Cell, process::ExitCode};

use quorate_sim::world::{Counts, World};

/// From this many seeds on, every kind of event must have happened.
const BATCH_MIN: u64 = 50;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

struct Arguments {
    seed: u64,
    seeds: u64,
    trace: bool,
}

const USAGE: &str = "usage: quorate-sim [--seed N] [--seeds K] [--trace]

Lives through the worlds of K seeds from N on (1 and 1). With --trace, prints each step.";

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments { seed: 1, seeds: 1, trace: false };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut number = || {
            let text = given.next().ok_or(format!("{argument} needs a number"))?;
            text.parse().map_err(|_| format!("{argument} needs a number, not {text:?}"))
        };
        match argument.as_str() {
            "--seed" => arguments.seed = number()?,
            "--seeds" => arguments.seeds = number()?,
            "--trace" => arguments.trace = true,
            other => return Err(format!("what is {other:?}?\n{USAGE}")),
        }
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    let Arguments { seed: first, seeds, trace } = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let seed = SEED.get();
        eprintln!("seed {seed} failed; replay: quorate-sim --seed {seed} --trace");
        default_hook(panic);
    }));
    let (mut counts, mut steps, mut operations, mut revisions) = (Counts::default(), 0, 0, 0);
    for seed in first..first.saturating_add(seeds) {
        SEED.set(seed);
        let ending = World::new(seed, trace).run();
        counts.add(&ending.counts);
        steps += ending.steps;
        operations += ending.operations;
        revisions += ending.revisions;
        if seeds == 1 {
            println!("seed {seed}: trace {:016x}", ending.trace_hash);
        }
    }
    println!(
        "{seeds} seeds from {first}: {steps} steps, {operations} requests, {revisions} revisions; {counts}"
    );
    let missing = counts.missing();
    if seeds >= BATCH_MIN && !missing.is_empty() {
        eprintln!("seeds {first} and on tested too little: never happened: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
