//! The replicated lease clock T: how a leader lets time pass, and how everybody else learns of it.
//!
//! T counts milliseconds during which the cluster had a leader. A new leader goes on from the highest T it knows: from its
//! log, from what it applied, or from heartbeats of its predecessor. So an election neither resets a lease nor expires one
//! early; it may expire one late, by at most a clock interval and the leaderless time (design §3 Leases).

use quorate_machine::LeaseTime;

use crate::limits::{CLOCK_INTERVAL_MS, TICK_ELAPSED_MS_MAX};

/// One member's knowledge of T.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeaseClock {
    known: LeaseTime,
    stamped: LeaseTime,
}

impl LeaseClock {
    /// A clock that knows of `known` (from recovery).
    #[must_use]
    pub fn new(known: LeaseTime) -> Self {
        Self { known, stamped: known }
    }

    /// T as far as this member knows it. Only a leader's answer is current.
    #[must_use]
    pub fn now(&self) -> LeaseTime {
        self.known
    }

    /// Somebody knows of a T: an entry's stamp, or a message of the current term. T never goes back.
    pub fn hear(&mut self, heard: LeaseTime) {
        self.known = self.known.max(heard);
    }

    /// Time passed while this member leads. A gap longer than the bound is not counted in full.
    pub fn advance(&mut self, elapsed_ms: u64) {
        self.known.0 += elapsed_ms.min(TICK_ELAPSED_MS_MAX);
    }

    /// The stamp for an entry that this leader appends.
    pub fn stamp(&mut self) -> LeaseTime {
        self.stamped = self.known;
        self.known
    }

    /// Whether so much time passed since the last stamp that T itself should be written down.
    #[must_use]
    pub fn wants_entry(&self) -> bool {
        self.known.0 >= self.stamped.0 + CLOCK_INTERVAL_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_leader_goes_on_from_what_it_heard() {
        let mut old = LeaseClock::new(LeaseTime(5_000));
        old.advance(700);
        let mut new = LeaseClock::new(LeaseTime(5_000));
        new.hear(old.now());
        new.hear(LeaseTime(100));
        assert_eq!(new.now(), LeaseTime(5_700));
    }

    #[test]
    fn a_pause_is_not_counted_in_full() {
        let mut clock = LeaseClock::default();
        clock.advance(3_600_000);
        assert_eq!(clock.now(), LeaseTime(TICK_ELAPSED_MS_MAX));
    }

    #[test]
    fn an_entry_is_wanted_once_an_interval() {
        let mut clock = LeaseClock::default();
        for _ in 0..19 {
            clock.advance(100);
        }
        assert!(!clock.wants_entry());
        clock.advance(100);
        assert!(clock.wants_entry());
        clock.stamp();
        assert!(!clock.wants_entry());
    }
}
