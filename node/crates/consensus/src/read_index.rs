//! ReadIndex: at which index a read is linearizable, without an entry in the log (thesis §6.4).

use std::collections::{BTreeMap, VecDeque};

use crate::limits::{READ_ROUNDS_MAX, READS_WAITING_MAX};
use crate::quorum::agreed;
use crate::{Body, Consensus, LogIndex, MemberId, ReadContext, ReadReady, ReadTicket, Role};

/// Somebody who wants to read.
#[derive(Clone, Copy, Debug)]
struct Asker {
    member: MemberId,
    ticket: ReadTicket,
}

/// One round of heartbeats that asks "do I still lead?" on behalf of all reads that came before it.
#[derive(Clone, Debug)]
struct Round {
    context: ReadContext,
    /// The commit index when the round began.
    index: LogIndex,
    askers: Vec<Asker>,
}

/// The leader's reads. Contexts are its own and rise, so that an answer to round n confirms every round up to n and
/// can confirm none after it, however often askers repeat their tickets (etcd-io/raft pull request 397).
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadRounds {
    waiting: Vec<Asker>,
    rounds: VecDeque<Round>,
    last_context: ReadContext,
}

impl ReadRounds {
    /// The newest round that wants confirmation; 0 if none.
    pub(crate) fn newest(&self) -> ReadContext {
        self.rounds.back().map(|round| round.context).unwrap_or_default()
    }

    fn wait(&mut self, asker: Asker) {
        if self.waiting.len() < READS_WAITING_MAX {
            self.waiting.push(asker);
        }
    }

    /// Rounds must rise: the invariants ask.
    pub(crate) fn rising(&self) -> bool {
        self.rounds.iter().zip(self.rounds.iter().skip(1)).all(|(a, b)| a.context < b.context)
    }
}

/// A follower's reads on their way to the leader. They travel under numbers of this room's own making, each used
/// once: a late answer to an earlier question then names no question that is open, even if the asker repeats its ticket.
#[derive(Clone, Debug)]
pub(crate) struct ForwardedReads {
    last: u64,
    open: BTreeMap<ReadTicket, ReadTicket>,
}

impl ForwardedReads {
    pub(crate) fn new(first: u64) -> Self {
        Self { last: first, open: BTreeMap::new() }
    }

    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Numbers a question. Those whose answers were lost stay open until the leader changes, hence the bound.
    fn open(&mut self, ticket: ReadTicket) -> ReadTicket {
        if self.open.len() >= READS_WAITING_MAX {
            self.open.pop_first();
        }
        self.last = self.last.wrapping_add(1);
        let number = ReadTicket(self.last);
        self.open.insert(number, ticket);
        number
    }
}

impl Consensus {
    /// A read of this member's own.
    pub(crate) fn read_index(&mut self, ticket: ReadTicket) {
        let asker = Asker { member: self.id(), ticket };
        if let Some(leadership) = &mut self.leadership {
            leadership.reads.wait(asker);
        } else if self.leader.is_some() && self.role == Role::Follower {
            let number = self.forwarded.open(ticket);
            self.send(self.leader, Body::ReadIndex { ticket: number });
        }
    }

    /// A follower's read arrives at the leader.
    pub(crate) fn handle_read_index(&mut self, from: MemberId, ticket: ReadTicket) {
        let known = self.is_member(from);
        if let Some(leadership) = &mut self.leadership
            && known
        {
            leadership.reads.wait(Asker { member: from, ticket });
        }
    }

    /// The leader's answer arrives at the follower that asked.
    pub(crate) fn handle_read_index_response(
        &mut self,
        from: MemberId,
        number: ReadTicket,
        index: LogIndex,
    ) {
        if self.role == Role::Follower
            && self.leader == from
            && let Some(ticket) = self.forwarded.open.remove(&number)
        {
            self.outbox.output.reads.push(ReadReady { ticket, index });
        }
    }

    /// Whether an entry of the current term is committed: before, a new leader does not know the commit index
    /// of its predecessors, and neither reads nor membership changes may build on its own (thesis §6.4).
    pub(crate) fn committed_in_term(&self) -> bool {
        self.log.matches(self.log.commit(), self.term)
    }

    /// One round for all reads that wait, at the drain.
    pub(crate) fn open_read_round(&mut self) {
        if !self.committed_in_term() {
            return;
        }
        let index = self.log.commit();
        let Some(leadership) = &mut self.leadership else { return };
        let reads = &mut leadership.reads;
        if reads.waiting.is_empty() || reads.rounds.len() >= READ_ROUNDS_MAX {
            return;
        }
        reads.last_context = ReadContext(reads.last_context.0 + 1);
        let askers = std::mem::take(&mut reads.waiting);
        reads.rounds.push_back(Round { context: reads.last_context, index, askers });
        if !self.sole_voter() {
            self.broadcast_heartbeat();
        }
        self.answer_reads();
    }

    /// Answers the rounds that a majority of voters has confirmed.
    pub(crate) fn answer_reads(&mut self) {
        let id = self.id();
        let Some(leadership) = &mut self.leadership else { return };
        let progress = &leadership.progress;
        let confirmed = agreed(&self.configuration.voters, |voter| {
            if voter == id {
                return ReadContext(u64::MAX);
            }
            progress.get(&voter).map(|progress| progress.confirmed).unwrap_or_default()
        });
        let rounds = &mut leadership.reads.rounds;
        let done = rounds.partition_point(|round| round.context <= confirmed);
        let answered: Vec<Round> = rounds.drain(..done).collect();
        for Round { index, askers, .. } in answered {
            for Asker { member, ticket } in askers {
                if member == id {
                    self.outbox.output.reads.push(ReadReady { ticket, index });
                } else {
                    self.send(member, Body::ReadIndexResponse { ticket, index });
                }
            }
        }
    }
}
