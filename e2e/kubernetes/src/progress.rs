//! The lines that tell a person what is going on, each with the seconds since the start.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// A stopwatch that speaks. Everything in this crate that takes longer than a moment says so through one of these.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    started: Instant,
}

impl Progress {
    /// Starts the stopwatch.
    #[must_use]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Prints one line with the seconds since the start.
    pub fn say(&self, text: impl Display) {
        println!("[{:6.1} s] {text}", self.elapsed().as_secs_f64());
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
