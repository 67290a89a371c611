//! What the next feature level adds, in a build that knows none: nothing that could exist, decoded or be stored.
//!
//! The same names as in `milestones.rs`, over types without a value: callers need no `cfg`, and this build has neither the
//! decoder nor the table. See [ADR 0005](../../../../../docs/adr/0005-how-a-feature-level-is-added.md).

use crate::{DecodeError, FeatureLevel, LeaseTime, digest::Digest, wire::Reader};

/// The feature level of this build: it knows every command up to it. Entries that need more stop the member.
pub const FEATURE_LEVEL_KNOWN: FeatureLevel = FeatureLevel(1);

/// A command of the next level: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextCommand {}

/// One of each.
#[cfg(test)]
pub(crate) const NEXT_COMMANDS: &[NextCommand] = &[];

impl NextCommand {
    pub(crate) fn put(self, _: &mut Vec<u8>) {
        match self {}
    }

    pub(crate) fn read(tag: u64, _: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Err(DecodeError::UnknownCommand { tag })
    }
}

/// The rows of the next level: there is no such table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NextState {}

impl NextState {
    /// Whether a state of this format holds the table.
    pub(crate) fn is_in(_: u8) -> bool {
        false
    }

    /// The state's format with the table in it; none while it is empty.
    pub(crate) fn format(&self) -> Option<u8> {
        None
    }

    pub(crate) fn apply(&mut self, command: NextCommand, _: u64, _: LeaseTime, _: i64) {
        match command {}
    }

    pub(crate) fn digest(&self, digest: Digest) -> Digest {
        digest
    }

    pub(crate) fn encode(&self, _: &mut Vec<u8>) {}

    pub(crate) fn decode(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {})
    }

    pub(crate) fn report(&self, _: i64) -> NextReport {
        NextReport {}
    }
}

/// What the machine tells of the next level: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextReport {}

impl NextReport {
    /// What a leader is to propose of its own accord at this clock, if the cluster's level allows it: nothing.
    #[must_use]
    pub fn due(&self, _: LeaseTime) -> Option<NextCommand> {
        None
    }

    /// How many rows of the next level there are; none in a build that does not know them.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        None
    }
}
