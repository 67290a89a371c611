//! Compaction by itself, as etcd's: the leader forgets history by age or by number of revisions.
//!
//! Sources: `server/etcdserver/api/v3compactor/{periodic,revision}.go`. *Periodic*: the revision is noted every tenth of the
//! retention (at least once in six minutes), and once a retention (at most an hour) what is older is compacted. *Revision*:
//! every five minutes the revisions beyond the retention are compacted.

use std::{collections::VecDeque, time::Duration};

use quorate_machine::Command;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    config::AutoCompaction,
    handle::{Caller, Handle},
};

/// How often the revision mode looks.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The longest pause between two notes of the periodic mode, and between two compactions.
const NOTE_INTERVAL_MAX: Duration = Duration::from_secs(6 * 60);
const COMPACT_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);

/// The mode as a function of time: fed with (now, revision), it says what to compact.
#[derive(Debug)]
pub struct Schedule {
    mode: AutoCompaction,
    notes: VecDeque<(Instant, i64)>,
    last: Instant,
}

impl Schedule {
    /// A schedule that starts now.
    #[must_use]
    pub fn new(mode: AutoCompaction, now: Instant) -> Self {
        Self { mode, notes: VecDeque::new(), last: now }
    }

    /// How often to look.
    #[must_use]
    pub fn interval(&self) -> Duration {
        match self.mode {
            AutoCompaction::Periodic(retention) => {
                (retention.min(COMPACT_INTERVAL_MAX) / 10).min(NOTE_INTERVAL_MAX)
            }
            AutoCompaction::Revision(_) => REVISION_INTERVAL,
        }
    }

    /// What to compact now, if anything.
    pub fn look(&mut self, now: Instant, revision: i64) -> Option<i64> {
        match self.mode {
            AutoCompaction::Revision(keep) => (revision > keep).then_some(revision - keep),
            AutoCompaction::Periodic(retention) => {
                self.notes.push_back((now, revision));
                if now - self.last < retention.min(COMPACT_INTERVAL_MAX) {
                    return None;
                }
                let mut old = None;
                while let Some((at, revision)) = self.notes.front().copied() {
                    if now - at < retention {
                        break;
                    }
                    old = Some(revision);
                    self.notes.pop_front();
                }
                self.last = if old.is_some() { now } else { self.last };
                old
            }
        }
    }
}

/// Runs until the task is dropped. Followers keep notes too, so that a new leader needs none of its own.
pub async fn run(handle: Handle, mode: AutoCompaction) {
    let mut schedule = Schedule::new(mode, Instant::now());
    let mut interval = tokio::time::interval(schedule.interval().max(Duration::from_millis(100)));
    let mut compacted = 0;
    loop {
        interval.tick().await;
        let revision = handle.published().point.revision;
        let Some(target) = schedule.look(Instant::now(), revision) else { continue };
        if !handle.leadership().is_leader || target <= compacted {
            continue;
        }
        match handle.propose(Command::Compact { revision: target }, Caller::default()).await {
            Ok(applied) => {
                compacted = target;
                if applied.result.is_ok() {
                    info!(revision = target, "compacted automatically");
                }
            }
            Err(error) => {
                warn!(revision = target, "automatic compaction failed, will try again: {error}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    #[tokio::test(start_paused = true)]
    async fn periodic_keeps_the_retention_and_no_more() {
        let start = Instant::now();
        let mut schedule = Schedule::new(AutoCompaction::Periodic(minutes(10)), start);
        assert_eq!(schedule.interval(), minutes(1));
        let mut compactions = Vec::new();
        for minute in 1..=32 {
            let revision = i64::try_from(minute).unwrap() * 100;
            if let Some(target) = schedule.look(start + minutes(minute), revision) {
                compactions.push((minute, target));
            }
        }
        assert_eq!(compactions, [(11, 100), (21, 1100), (31, 2100)]);
    }

    #[tokio::test(start_paused = true)]
    async fn revision_keeps_a_number() {
        let mut schedule = Schedule::new(AutoCompaction::Revision(1000), Instant::now());
        assert_eq!(schedule.look(Instant::now(), 999), None);
        assert_eq!(schedule.look(Instant::now(), 1500), Some(500));
    }
}
