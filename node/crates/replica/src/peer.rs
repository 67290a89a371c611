//! What members say to each other: consensus's messages, forwarded requests, and the lease clock with each of them.

use bytes::Bytes;
use quorate_consensus::{ConfigurationChange, LogIndex, MemberId, Message, Term};
use quorate_machine::LeaseTime;

use crate::{membership::ChangeRefusal, proposals::Sequence};

/// One message between two members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMessage {
    /// Who sent it.
    pub from: MemberId,
    /// For whom it is.
    pub to: MemberId,
    /// The highest lease clock that the sender knows.
    pub clock: LeaseTime,
    /// What it says.
    pub body: PeerBody,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerBody {
    /// About the log.
    Consensus(Message),
    /// "You lead in this term: propose these for me."
    Forward {
        /// The term in which the receiver is believed to lead. In any other the requests are refused.
        term: Term,
        /// Echoed in refusals.
        attempt: u64,
        /// The sender's process life: with it and the sender a sequence names a request for good.
        life: u64,
        /// The requests.
        requests: Vec<ForwardedRequest>,
    },
    /// The leader gave these a place in the log.
    ForwardAccepted {
        /// The life of the process that asked.
        life: u64,
        /// Sequence, term, index.
        accepted: Vec<(Sequence, Term, LogIndex)>,
    },
    /// The leader (or whoever got the message) appended none of these.
    ForwardRefused {
        /// The life of the process that asked.
        life: u64,
        /// The attempt that is refused.
        attempt: u64,
        /// Which, and why.
        refused: Vec<(Sequence, ForwardRefusal)>,
    },
}

/// A request that another member accepted from its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedRequest {
    /// Its number there.
    pub sequence: Sequence,
    /// The encoded envelope.
    pub envelope: Bytes,
    /// Set for a membership command.
    pub change: Option<ConfigurationChange>,
}

/// Why a forwarded request got no place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardRefusal {
    /// The receiver does not lead in that term, or is handing over: ask whoever leads next.
    NotLeader,
    /// It may not be proposed now, but soon: another change is in flight.
    Later,
    /// The leader is overloaded: tell the client.
    Overloaded,
    /// A rule of membership forbids it: tell the client.
    Change(ChangeRefusal),
}
