//! The trace of a world: one line for each step, hashed, kept at its end, and printed if wanted.

use std::{collections::VecDeque, fmt};

/// Lines kept for a failure's report.
const KEPT: usize = 60;

/// What happened so far.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    print: bool,
    last: VecDeque<String>,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new(print: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, print, last: VecDeque::new() }
    }

    /// Adds a line.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        let mut text = if self.last.len() == KEPT {
            self.last.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        text.clear();
        fmt::Write::write_fmt(&mut text, line).expect("a string takes everything");
        for byte in text.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.print {
            println!("{text}");
        }
        self.last.push_back(text);
    }

    /// FNV-1a over all lines: equal for equal traces.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}
