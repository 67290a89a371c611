//! The program behind `cargo xtask bench`: runs the comparison and ends with its verdict.

use std::process::ExitCode;

fn main() -> ExitCode {
    match quorate_bench::run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
