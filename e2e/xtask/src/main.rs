//! The chores behind `cargo xtask`: one word each for what a person or the gate does with this repository.
//!
//! `chores` is the command line, `gate` the tables of steps, `step` runs a table, `cargo` and `licences` do the work of
//! single steps, `soak` the long runs. Few dependencies, so that the first `cargo xtask` of a fresh clone answers soon.

mod cargo;
mod chores;
mod gate;
mod licences;
mod limits;
mod soak;
mod step;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match chores::Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
