//! Linearizable reads: many wait, one round with the leader serves them all (thesis §6.4).

use std::collections::BTreeMap;

use quorate_consensus::{LogIndex, ReadReady, ReadTicket};

use crate::limits::{READ_RETRY_TICKS, READ_ROUNDS_MAX};

/// The asker's number for one read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// Reads on their way: waiting for a round, in a round, or confirmed and waiting for apply.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    waiting: Vec<ReadId>,
    rounds: BTreeMap<ReadTicket, Round>,
    confirmed: BTreeMap<LogIndex, Vec<ReadId>>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Round {
    reads: Vec<ReadId>,
    ticks: u32,
}

impl Reads {
    /// A read begins. It will be served by a round that starts after this call.
    pub(crate) fn ask(&mut self, read: ReadId) {
        self.waiting.push(read);
    }

    /// Starts a round for everything that waits; its ticket goes to consensus.
    pub(crate) fn start_round(&mut self) -> Option<ReadTicket> {
        if self.waiting.is_empty() || self.rounds.len() >= READ_ROUNDS_MAX {
            return None;
        }
        let reads = std::mem::take(&mut self.waiting);
        Some(self.open(reads))
    }

    /// A tick passed; rounds that got no answer are asked again under a new ticket.
    pub(crate) fn tick(&mut self) -> Vec<ReadTicket> {
        let mut overdue = Vec::new();
        for (ticket, round) in &mut self.rounds {
            round.ticks += 1;
            if round.ticks >= READ_RETRY_TICKS {
                overdue.push(*ticket);
            }
        }
        self.ask_again(overdue)
    }

    /// The leader changed: what was asked of the old one is asked of the new one.
    pub(crate) fn leader_changed(&mut self) -> Vec<ReadTicket> {
        let all = self.rounds.keys().copied().collect();
        self.ask_again(all)
    }

    /// Several overdue rounds become one: the later the round, the truer its answer.
    fn ask_again(&mut self, tickets: Vec<ReadTicket>) -> Vec<ReadTicket> {
        let reads: Vec<ReadId> = tickets
            .into_iter()
            .filter_map(|ticket| self.rounds.remove(&ticket))
            .flat_map(|round| round.reads)
            .collect();
        if reads.is_empty() { Vec::new() } else { vec![self.open(reads)] }
    }

    fn open(&mut self, reads: Vec<ReadId>) -> ReadTicket {
        self.next_ticket += 1;
        let ticket = ReadTicket(self.next_ticket);
        self.rounds.insert(ticket, Round { reads, ticks: 0 });
        ticket
    }

    /// Consensus confirmed a round: its reads are served once that index is applied. An unknown ticket is one that
    /// was asked again; its answer is not needed.
    pub(crate) fn confirm(&mut self, ready: ReadReady) {
        if let Some(round) = self.rounds.remove(&ready.ticket) {
            self.confirmed.entry(ready.index).or_default().extend(round.reads);
        }
    }

    /// The reads that may be served now that `applied` is applied.
    pub(crate) fn serve(&mut self, applied: LogIndex) -> Vec<ReadId> {
        let later = self.confirmed.split_off(&applied.next());
        let now = std::mem::replace(&mut self.confirmed, later);
        now.into_values().flatten().collect()
    }

    /// The asker gave up.
    pub(crate) fn cancel(&mut self, read: ReadId) {
        self.waiting.retain(|other| *other != read);
        for round in self.rounds.values_mut() {
            round.reads.retain(|other| *other != read);
        }
        self.rounds.retain(|_, round| !round.reads.is_empty());
    }

    /// How many reads wait for anything.
    #[must_use]
    pub(crate) fn pending(&self) -> usize {
        self.waiting.len()
            + self.rounds.values().map(|round| round.reads.len()).sum::<usize>()
            + self.confirmed.values().map(Vec::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(ticket: ReadTicket, index: u64) -> ReadReady {
        ReadReady { ticket, index: LogIndex(index) }
    }

    #[test]
    fn a_read_that_begins_during_a_round_waits_for_the_next() {
        let mut reads = Reads::default();
        reads.ask(ReadId(1));
        let first = reads.start_round().unwrap();
        reads.ask(ReadId(2));
        reads.confirm(ready(first, 7));
        assert_eq!(reads.serve(LogIndex(6)), []);
        assert_eq!(reads.serve(LogIndex(7)), [ReadId(1)]);
        assert!(reads.start_round().is_some());
    }

    #[test]
    fn an_answer_to_a_round_that_was_asked_again_serves_nobody() {
        let mut reads = Reads::default();
        reads.ask(ReadId(1));
        let first = reads.start_round().unwrap();
        let again = reads.leader_changed();
        reads.confirm(ready(first, 3));
        assert_eq!(reads.serve(LogIndex(9)), []);
        reads.confirm(ready(again[0], 9));
        assert_eq!(reads.serve(LogIndex(9)), [ReadId(1)]);
    }

    #[test]
    fn an_unanswered_round_is_asked_again_after_its_ticks() {
        let mut reads = Reads::default();
        reads.ask(ReadId(1));
        let first = reads.start_round().unwrap();
        for _ in 1..READ_RETRY_TICKS {
            assert_eq!(reads.tick(), []);
        }
        let again = reads.tick();
        assert_eq!(again.len(), 1);
        assert_ne!(again[0], first);
        assert_eq!(reads.pending(), 1);
    }

    #[test]
    fn a_cancelled_read_leaves_nothing_behind() {
        let mut reads = Reads::default();
        reads.ask(ReadId(1));
        reads.start_round();
        reads.cancel(ReadId(1));
        assert_eq!(reads.pending(), 0);
        assert_eq!(reads.leader_changed(), []);
    }
}
