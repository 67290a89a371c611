//! When a failed reconciliation is tried again: exponential back-off of each object by itself.
//!
//! kube's error policy sees one error and has no memory; this file is the memory. Only acts back
//! off: a cluster whose acts fail is observed and reported as often as any other, since its status
//! is then looked at most. An object that keeps failing is acted upon after 0.5 s, 1 s, 2 s … 30 s, each with jitter so that a fleet that
//! failed together (the API server was away) does not return together. One success forgets the
//! failures; failures of one object delay no other.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits;

/// Namespace and name of a StoreCluster.
pub(crate) type ClusterKey = (String, String);

/// The objects that are failing now.
#[derive(Debug, Default)]
pub(crate) struct Backoffs {
    failing: Mutex<BTreeMap<ClusterKey, Failing>>,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    in_a_row: u32,
    until: Instant,
}

/// A failure that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// How many in a row, this one included.
    pub(crate) in_a_row: u32,
    /// How long the object is not acted upon.
    pub(crate) delay: Duration,
}

impl Backoffs {
    /// Counts a failure of `key` at `now`. `jitter` is uniform in 0..1.
    pub(crate) fn failed(&self, key: &ClusterKey, jitter: f64, now: Instant) -> Failed {
        let mut failing = self.lock();
        let entry = failing.entry(key.clone()).or_insert(Failing { in_a_row: 0, until: now });
        entry.in_a_row = entry.in_a_row.saturating_add(1);
        let delay = delay(entry.in_a_row, jitter);
        entry.until = now + delay;
        Failed { in_a_row: entry.in_a_row, delay }
    }

    /// Whether `key` may be acted upon at `now`. Observing and reporting never wait.
    pub(crate) fn may_act(&self, key: &ClusterKey, now: Instant) -> bool {
        self.lock().get(key).is_none_or(|failing| now >= failing.until)
    }

    /// Forgets the failures of `key`: it was reconciled, or it is gone.
    pub(crate) fn succeeded(&self, key: &ClusterKey) {
        self.lock().remove(key);
    }

    /// How many objects are failing.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClusterKey, Failing>> {
        // A count that was left half-written by a panic is still a count.
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The delay after the `failures`-th failure in a row (from 1), between half and all of the
/// doubled first delay, capped.
fn delay(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full =
        limits::BACKOFF_FIRST.saturating_mul(1_u32 << doublings).min(limits::BACKOFF_LONGEST);
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ClusterKey {
        ("default".to_owned(), name.to_owned())
    }

    #[test]
    fn delays_double_up_to_the_cap() {
        let full: Vec<u128> = (1..=9).map(|count| delay(count, 1.0).as_millis()).collect();
        assert_eq!(full, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(
            delay(u32::MAX, 1.0),
            limits::BACKOFF_LONGEST,
            "no overflow after a long outage"
        );
    }

    #[test]
    fn jitter_spreads_over_the_upper_half_and_never_beyond() {
        assert_eq!(delay(3, 0.0), Duration::from_secs(1));
        assert_eq!(delay(3, 0.5), Duration::from_millis(1500));
        assert_eq!(delay(3, 7.0), Duration::from_secs(2));
    }

    #[test]
    fn objects_fail_by_themselves_and_a_success_forgets() {
        let (backoffs, now) = (Backoffs::default(), Instant::now());
        for _ in 0..5 {
            backoffs.failed(&key("sick"), 1.0, now);
        }
        let other = backoffs.failed(&key("other"), 1.0, now);
        assert_eq!(other, Failed { in_a_row: 1, delay: limits::BACKOFF_FIRST });
        let sick = backoffs.failed(&key("sick"), 1.0, now);
        assert_eq!(sick, Failed { in_a_row: 6, delay: Duration::from_secs(16) });
        assert_eq!(backoffs.count(), 2);
        backoffs.succeeded(&key("sick"));
        assert_eq!(backoffs.failed(&key("sick"), 1.0, now).in_a_row, 1);
    }

    #[test]
    fn an_object_that_failed_is_not_acted_upon_before_its_time() {
        let (backoffs, now) = (Backoffs::default(), Instant::now());
        assert!(backoffs.may_act(&key("a"), now));
        let failed = backoffs.failed(&key("a"), 1.0, now);
        assert!(!backoffs.may_act(&key("a"), now));
        assert!(backoffs.may_act(&key("b"), now), "another object waits too");
        assert!(backoffs.may_act(&key("a"), now + failed.delay));
    }
}
