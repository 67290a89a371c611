//! The disk's watchdog: tells consensus when the oldest record that is not durable is older than an election timeout.
//!
//! A leader whose disk hangs still has a network and would lead forever without committing anything (etcd's open problem
//! 13527). It hands over or steps down instead (design §3).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// When the running write began.
#[derive(Debug)]
pub struct DiskWatchdog {
    start: Instant,
    /// Milliseconds from `start` to the begin of the running write, plus one; 0 when none runs.
    begun: AtomicU64,
    limit: Duration,
}

impl DiskWatchdog {
    /// A disk is stalled when a write takes longer than this.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { start: Instant::now(), begun: AtomicU64::new(0), limit }
    }

    /// A write begins.
    pub fn begins(&self) {
        self.begun.store(self.now() + 1, Ordering::Release);
    }

    /// It is durable.
    pub fn ends(&self) {
        self.begun.store(0, Ordering::Release);
    }

    /// Whether a write has been running for too long.
    #[must_use]
    pub fn stalled(&self) -> bool {
        match self.begun.load(Ordering::Acquire) {
            0 => false,
            begun => u128::from((self.now() + 1).saturating_sub(begun)) > self.limit.as_millis(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
