//! What a member has only while it leads: progress, reads, a transfer under way.

use std::collections::BTreeMap;

use crate::inflights::Inflights;
use crate::progress::Progress;
use crate::read_index::ReadRounds;
use crate::transfer::Transfer;
use crate::{Configuration, LogIndex, MemberId, Settings};

/// Born with a won election, dropped at the step-down: nothing of one term can leak into the next.
#[derive(Clone, Debug)]
pub(crate) struct Leadership {
    /// Everybody else: voters and learners.
    pub(crate) progress: BTreeMap<MemberId, Progress>,
    pub(crate) reads: ReadRounds,
    pub(crate) transfer: Option<Transfer>,
    /// Ticks since the last heartbeat.
    pub(crate) heartbeat_elapsed: u32,
    /// The cost of entries appended and not committed.
    pub(crate) uncommitted_bytes: usize,
    /// The entry that removed this very leader, once applied: it leads on until a remaining voter has that
    /// commit on disk, so that the removal cannot be forgotten (thesis §4.2.2; a step from two voters to one).
    pub(crate) farewell: Option<LogIndex>,
}

impl Leadership {
    pub(crate) fn new(uncommitted_bytes: usize) -> Self {
        Self {
            progress: BTreeMap::new(),
            reads: ReadRounds::default(),
            transfer: None,
            heartbeat_elapsed: 0,
            uncommitted_bytes,
            farewell: None,
        }
    }

    /// Follows everybody in the configuration and nobody else.
    pub(crate) fn follow(
        &mut self,
        configuration: &Configuration,
        settings: &Settings,
        next: LogIndex,
    ) {
        let members = configuration.voters.iter().chain(&configuration.learners);
        for member in members.filter(|member| **member != settings.id) {
            self.progress.entry(*member).or_insert_with(|| {
                let window =
                    Inflights::new(settings.inflight_messages_max, settings.inflight_bytes_max);
                Progress::new(next, window)
            });
        }
        self.progress.retain(|member, _| {
            configuration.voters.contains(member) || configuration.learners.contains(member)
        });
    }
}
