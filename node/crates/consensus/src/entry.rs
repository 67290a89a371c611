//! What the log is made of: entries, hard state, configurations, snapshot descriptions.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{LogIndex, MemberId, Term};

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: Term,
    /// Its position.
    pub index: LogIndex,
    /// What it carries.
    pub payload: Payload,
}

impl Entry {
    /// The bytes that this entry costs in memory, in a message and in flight limits.
    #[must_use]
    pub fn cost(&self) -> usize {
        ENTRY_OVERHEAD_BYTES + self.payload.len()
    }
}

/// What an entry costs beyond its payload: term, index, kind and the bookkeeping around them.
pub const ENTRY_OVERHEAD_BYTES: usize = 32;

/// What an entry carries. To consensus a command is bytes; only a configuration change means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A new leader's first entry (thesis §6.4): it commits what came before.
    Empty,
    /// Bytes for the machine.
    Command(Bytes),
    /// A change of the configuration, with bytes for the machine (names and URLs).
    Change(ConfigurationChange, Bytes),
}

impl Payload {
    /// The number of bytes for the machine.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Command(bytes) | Self::Change(_, bytes) => bytes.len(),
        }
    }

    /// Whether there is nothing for the machine.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A single-step change of the configuration (thesis §4.1): two consecutive ones share a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigurationChange {
    /// A member that votes at once, or a learner that becomes a voter.
    AddVoter(MemberId),
    /// A member that gets the log and does not vote (thesis §4.2.1).
    AddLearner(MemberId),
    /// A voter or learner that leaves for good.
    Remove(MemberId),
}

/// Who belongs to the cluster. Takes effect when its entry is *applied* (INV-R7), as in etcd-io/raft.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Members that vote and count for quorums.
    pub voters: BTreeSet<MemberId>,
    /// Members that only receive.
    pub learners: BTreeSet<MemberId>,
}

/// What must survive a crash besides entries. Commit is part of it: membership takes effect at apply, so a
/// forgotten commit could revive an old configuration (etcd issue 7625).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term this member has seen.
    pub term: Term,
    /// Whom it voted for in that term; [`MemberId::NONE`] if nobody.
    pub vote: MemberId,
    /// The highest index known to be committed.
    pub commit: LogIndex,
}

/// What a snapshot stands for: everything up to `index`. Its data is none of consensus's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry it includes.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
    /// The configuration as of that entry.
    pub configuration: Configuration,
}
