//! Runs worlds by their seeds.

use std::process::ExitCode;

use quorate_sim::batch::Batch;

fn main() -> ExitCode {
    match Batch::read(std::env::args().skip(1)) {
        Ok(batch) => batch.run(),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
