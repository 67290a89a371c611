//! What feature level 2 adds: milestones, rows that say at which revision the store stood when.
//!
//! ```text
//!   leader: something was written, and MILESTONE_INTERVAL_MS passed ──► Command::Next(Milestone) ──► a row on each member
//!                                                                                                   {index, clock, revision}
//! ```
//!
//! The lease clock is the one clock that all members share and no election turns back, so the rows, kept in the small state, tell
//! anybody at any time "which revision was an hour ago" (compaction by age forgets that with each leader today). The leader proposes
//! them by itself, so a cluster that reaches the level has command and row in its log, checkpoints and snapshots within a tick.
//!
//! This module is compiled only with the cargo feature `next-level`, in place of `none.rs`: the drill by which every later level is
//! added ([ADR 0005](../../../../../docs/adr/0005-how-a-feature-level-is-added.md)).

use std::collections::VecDeque;

use crate::{
    DecodeError, FeatureLevel, LeaseTime,
    digest::Digest,
    limits::{MILESTONE_INTERVAL_MS, MILESTONES_MAX},
    wire::{Reader, put_signed, put_varint},
};

/// The feature level of this build: it knows every command up to it. Entries that need more stop the member.
pub const FEATURE_LEVEL_KNOWN: FeatureLevel = FeatureLevel(2);

/// The command's tag; `codec.rs` has those of level 1.
const TAG: u64 = 17;

/// The format of a state that holds milestones; one without any has the format of level 1, which older builds read.
const FORMAT: u8 = 2;

/// A command of level 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextCommand {
    /// Write down where the store stands at the entry's clock, unless the last milestone is too near.
    Milestone,
}

/// One of each.
#[cfg(test)]
pub(crate) const NEXT_COMMANDS: &[NextCommand] = &[NextCommand::Milestone];

impl NextCommand {
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Milestone => put_varint(out, TAG),
        }
    }

    pub(crate) fn read(tag: u64, _: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match tag {
            TAG => Ok(Self::Milestone),
            tag => Err(DecodeError::UnknownCommand { tag }),
        }
    }
}

/// One row: the store stood at `revision` when the entry at `index` was applied, whose clock was `clock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Milestone {
    index: u64,
    clock: LeaseTime,
    revision: i64,
}

impl Milestone {
    /// Whether another one may follow it: something was written, and some time passed.
    fn is_past(&self, clock: LeaseTime, revision: i64) -> bool {
        revision > self.revision && clock.0 >= self.clock.0 + MILESTONE_INTERVAL_MS
    }
}

/// The table of milestones, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NextState {
    milestones: VecDeque<Milestone>,
}

impl NextState {
    /// Whether a state of this format holds the table.
    pub(crate) fn is_in(format: u8) -> bool {
        format == FORMAT
    }

    /// The state's format with the table in it; none while it is empty.
    pub(crate) fn format(&self) -> Option<u8> {
        (!self.milestones.is_empty()).then_some(FORMAT)
    }

    /// Two leaders, or one that did not hear in time, may ask for the same milestone: the second changes nothing.
    pub(crate) fn apply(
        &mut self,
        command: NextCommand,
        index: u64,
        clock: LeaseTime,
        revision: i64,
    ) {
        match command {
            NextCommand::Milestone => {
                if self.milestones.back().is_none_or(|last| last.is_past(clock, revision)) {
                    if self.milestones.len() == MILESTONES_MAX {
                        self.milestones.pop_front();
                    }
                    self.milestones.push_back(Milestone { index, clock, revision });
                }
            }
        }
    }

    /// Nothing is added while there is no row: the digest is then that of a build which knows none.
    pub(crate) fn digest(&self, digest: Digest) -> Digest {
        self.milestones.iter().fold(digest, |digest, milestone| {
            let Milestone { index, clock, revision } = milestone;
            digest.word(*index).word(clock.0).word(revision.cast_unsigned())
        })
    }

    /// Appended to a state of [`NextState::format`]; a state of level 1 has nothing in its place.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        if self.milestones.is_empty() {
            return;
        }
        put_varint(out, self.milestones.len() as u64);
        for Milestone { index, clock, revision } in &self.milestones {
            put_varint(out, *index);
            put_varint(out, clock.0);
            put_signed(out, *revision);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let milestones = reader.list(|reader| {
            Ok(Milestone {
                index: reader.varint()?,
                clock: LeaseTime(reader.varint()?),
                revision: reader.signed()?,
            })
        })?;
        Ok(Self { milestones: milestones.into() })
    }

    pub(crate) fn report(&self, revision: i64) -> NextReport {
        let last = self.milestones.back().copied();
        NextReport { last, revision, rows: self.milestones.len() as u64 }
    }
}

/// What the machine tells of its milestones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextReport {
    last: Option<Milestone>,
    revision: i64,
    rows: u64,
}

impl NextReport {
    /// What a leader is to propose of its own accord at this clock, if the cluster's level allows it.
    #[must_use]
    pub fn due(&self, clock: LeaseTime) -> Option<NextCommand> {
        let due = self.last.is_none_or(|last| last.is_past(clock, self.revision));
        due.then_some(NextCommand::Milestone)
    }

    /// How many milestones there are.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        Some(self.rows)
    }
}

#[cfg(test)]
mod tests;
