//! A member's machine: its disk, its clock, and the process that runs on it or does not.

use std::collections::BTreeSet;

use quorate_consensus::{LogIndex, MemberId, Recovered, Term, Token};
use quorate_machine::{FEATURE_LEVEL_KNOWN, FeatureLevel};
use quorate_storage::disk::mem::MemDisk;

use super::process::{Process, Sizes};

/// A machine.
pub(crate) struct Node {
    pub(crate) disk: MemDisk,
    pub(crate) sizes: Sizes,
    pub(crate) process: Option<Process>,
    /// The highest feature level that the program on it knows.
    pub(crate) known: FeatureLevel,
    /// How fast its clock runs, in thousandths.
    pub(crate) rate: u64,
    /// When its process last saw a tick.
    pub(crate) last_tick: u64,
    pub(crate) paused_until: u64,
    /// How many times slower than normal its disk is, and until when.
    pub(crate) disk_slowness: u64,
    pub(crate) disk_slow_until: u64,
    /// Crashes within an operation that were taken so far.
    pub(crate) faults_seen: u64,
    /// Told that it was removed: it does not come back.
    pub(crate) removed: bool,
    /// A restart is scheduled.
    pub(crate) restarting: bool,
    pub(crate) promised: Promised,
    /// An upper bound of the leader time (microseconds) that this member can know of.
    pub(crate) leader_time: u64,
    /// Members that it knows without having applied them: those that it joined by.
    pub(crate) book: BTreeSet<MemberId>,
}

impl Node {
    pub(crate) fn new(disk: MemDisk, sizes: Sizes, rate: u64) -> Self {
        Self {
            disk,
            sizes,
            process: None,
            known: FEATURE_LEVEL_KNOWN,
            rate,
            last_tick: 0,
            paused_until: 0,
            disk_slowness: 1,
            disk_slow_until: 0,
            faults_seen: 0,
            removed: false,
            restarting: false,
            promised: Promised::default(),
            leader_time: 0,
            book: BTreeSet::new(),
        }
    }

    /// Whether a fault within a disk operation took effect since the last look.
    pub(crate) fn fault_taken(&mut self) -> bool {
        let taken = self.disk.faults_taken();
        let new = taken > self.faults_seen;
        self.faults_seen = taken;
        new
    }

    /// Whether it can reach a member: it has applied that one, joined by it, or was dialled by it.
    pub(crate) fn knows(&self, member: MemberId) -> bool {
        self.book.contains(&member)
            || self.process.as_ref().is_some_and(|process| {
                process.applier.members().iter().any(|known| known.id.0 == member.0)
            })
    }
}

/// What a member's disk must still hold after a crash.
#[derive(Debug, Default)]
pub(crate) struct Promised {
    durable: Token,
    /// Written and not synced: may be there or not.
    written: Vec<Token>,
}

impl Promised {
    pub(crate) fn written(&mut self, token: Token) {
        self.written.push(token);
    }

    pub(crate) fn durable(&mut self, token: Token) {
        self.durable = token;
        self.written.retain(|written| written.sequence > token.sequence);
    }

    /// Whether a crash now may lose something.
    pub(crate) fn any_unsynced(&self) -> bool {
        !self.written.is_empty()
    }

    /// Compares what recovery found with what was reported durable (INV-R2, INV-S2).
    pub(crate) fn check(&mut self, member: MemberId, recovered: &Recovered) {
        let Token { term, vote, last_index, .. } = self.durable;
        let found = recovered.hard_state;
        let kept = found.term > term
            || (found.term == term && (vote == MemberId::NONE || found.vote == vote));
        assert!(
            kept,
            "INV-R2: member {member} forgot what was durable: {:?} became {found:?}",
            self.durable
        );
        // A record that was written behind it may have cut the log.
        let cut = self.written.iter().map(|written| written.last_index).min();
        let least = cut.map_or(last_index, |cut| cut.min(last_index));
        assert!(
            recovered.last_index >= least,
            "INV-S2: member {member} lost entries: durable up to {last_index}, found {}",
            recovered.last_index
        );
        self.durable = Token {
            sequence: 0,
            term: found.term,
            vote: found.vote,
            last_index: recovered.last_index,
            last_term: Term(0),
        };
        self.written.clear();
    }

    /// Where a member begins that was formed or joined.
    pub(crate) fn begin(term: Term, last_index: LogIndex) -> Self {
        let durable = Token { term, last_index, ..Token::default() };
        Self { durable, written: Vec::new() }
    }
}
