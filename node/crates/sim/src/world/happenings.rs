//! What can happen in a world, counted: a batch of seeds in which one of these never happened has tested less than it says.

use std::fmt;

macro_rules! happenings {
    ($($name:ident = $text:literal),+ $(,)?) => {
        /// Kinds of events that a batch must have seen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Happening {
            $(#[doc = $text] $name),+
        }

        impl Happening {
            /// All of them.
            pub const ALL: &'static [Happening] = &[$(Happening::$name),+];

            /// Its name in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Happening::$name => $text),+ }
            }
        }
    };
}

happenings! {
    Dropped = "message dropped",
    Duplicated = "message duplicated",
    Reordered = "message reordered",
    Delayed = "message delayed",
    Partition = "partition",
    OneWayPartition = "one-way partition",
    Crash = "power lost",
    CrashInStep = "power lost within a disk step",
    UnsyncedLost = "unsynced writes at a crash",
    TornTail = "torn tail cut",
    Killed = "process killed",
    Restarted = "restart",
    Paused = "pause",
    AllPaused = "pause of all",
    DiskStalled = "disk stall noticed",
    Elected = "election",
    Transferred = "leader transfer",
    LearnerAdded = "learner added",
    Joined = "joiner from empty",
    Promoted = "learner promoted",
    Removed = "member removed",
    ChangeRefused = "change of members refused",
    SnapshotSent = "snapshot sent",
    SnapshotInstalled = "snapshot installed",
    SnapshotBroken = "snapshot broken off",
    LogPurged = "log purged",
    OldEntriesFetched = "old entries fetched",
    Checkpointed = "checkpoint published",
    Compacted = "compaction",
    CompactionStep = "physical compaction step",
    CompactedUnderReader = "compaction under a reader",
    ChunkedRead = "read in chunks",
    Forwarded = "request forwarded",
    Unknown = "unknown outcome",
    UnknownHappened = "unknown outcome that happened",
    LeaseGranted = "lease granted",
    LeaseRenewed = "lease renewed",
    LeaseRevoked = "lease revoked",
    LeaseExpired = "lease expired with keys",
    WatchLagged = "slow watcher lagged",
    WatchReplayed = "watch replayed",
    WatchJumped = "watch across an installed snapshot",
    WatchResumed = "watch resumed elsewhere",
    WatchCompacted = "watch of compacted history",
    WatchProgress = "watch progress",
    StaleRead = "serializable read of an old revision",
}

/// How often each happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(Vec<u64>);

impl Default for Counts {
    fn default() -> Self {
        Self(vec![0; Happening::ALL.len()])
    }
}

impl Counts {
    /// It happened.
    pub fn note(&mut self, happening: Happening) {
        self.0[happening as usize] += 1;
    }

    /// It happened so many times.
    pub fn note_many(&mut self, happening: Happening, times: u64) {
        self.0[happening as usize] += times;
    }

    /// How often it happened.
    #[must_use]
    pub fn of(&self, happening: Happening) -> u64 {
        self.0[happening as usize]
    }

    /// Adds another world's counts.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    /// What never happened.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let never = Happening::ALL.iter().filter(|happening| self.of(**happening) == 0);
        never.map(|happening| happening.name()).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, happening) in Happening::ALL.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", happening.name(), self.of(*happening))?;
        }
        Ok(())
    }
}
