//! What is to be handed to the shell: messages that may leave, and promises that must wait for their record.

use std::collections::VecDeque;

use crate::{Body, MemberId, Message, Output, SoftState, Term};

/// Something that may happen only once a record is durable (INV-R2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// A message that says what the record holds.
    Say(Message),
    /// The candidate's vote for itself, in this term.
    CountOwnVote(Term),
}

/// The output under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) output: Output,
    held: VecDeque<(u64, Promise)>,
    told: SoftState,
}

impl Outbox {
    pub(crate) fn new(told: SoftState) -> Self {
        Self { told, ..Self::default() }
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.output.send_now.push(message);
    }

    /// Holds a promise until the record with this sequence is durable. Of two acknowledgements of one term to one
    /// leader behind one record the later says it all; so the queue is bounded by the records in flight.
    pub(crate) fn hold(&mut self, sequence: u64, promise: Promise) {
        if let Some((held_for, held)) = self.held.back_mut()
            && *held_for == sequence
            && supersedes(&promise, held)
        {
            *held = promise;
            return;
        }
        self.held.push_back((sequence, promise));
    }

    /// The next promise whose record is durable.
    pub(crate) fn release(&mut self, durable: u64) -> Option<Promise> {
        let (sequence, _) = self.held.front()?;
        if *sequence > durable {
            return None;
        }
        self.held.pop_front().map(|(_, promise)| promise)
    }

    /// Whether this candidate's own vote still waits for its record.
    pub(crate) fn own_vote_held(&self, term: Term) -> bool {
        self.held.iter().any(|(_, promise)| *promise == Promise::CountOwnVote(term))
    }

    /// The sequence of the oldest promise held, for the invariants.
    pub(crate) fn oldest_held(&self) -> Option<u64> {
        self.held.front().map(|(sequence, _)| *sequence)
    }

    /// Hands everything over, with the soft state if it changed.
    pub(crate) fn take(&mut self, soft_state: SoftState) -> Output {
        if self.told != soft_state {
            self.told = soft_state;
            self.output.soft_state = Some(soft_state);
        }
        std::mem::take(&mut self.output)
    }
}

fn supersedes(later: &Promise, earlier: &Promise) -> bool {
    let index = |promise: &Promise| -> Option<(MemberId, Term, u64)> {
        let Promise::Say(message) = promise else { return None };
        match &message.body {
            Body::AppendResponse { index, rejection: None, .. } => {
                Some((message.to, message.term, index.0))
            }
            Body::AppendResponse { rejection: Some(_), .. }
            | Body::PreVote { .. }
            | Body::PreVoteResponse { .. }
            | Body::Vote { .. }
            | Body::VoteResponse { .. }
            | Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatResponse { .. }
            | Body::Snapshot { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexResponse { .. } => None,
        }
    };
    match (index(later), index(earlier)) {
        (Some((to, term, later)), Some((before_to, before_term, earlier))) => {
            to == before_to && term == before_term && later >= earlier
        }
        (None, _) | (_, None) => false,
    }
}
