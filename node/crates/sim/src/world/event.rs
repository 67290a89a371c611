//! What is scheduled.

use std::fmt;

use bytes::Bytes;
use quorate_consensus::{Body, MemberId};
use quorate_replica::{PeerBody, PeerMessage};

use super::{
    process::Thread,
    transfer::{TransferId, Transferred},
};
use crate::judge::Outcome;

/// Something that happens at its time.
pub(crate) enum Event {
    /// A member's clock ticks, in one life of its process.
    Tick(MemberId, u64),
    /// A member's thread runs.
    Run(MemberId, u64, Thread),
    /// A message arrives; with the leader time that its sender knew.
    Deliver { from: MemberId, to: MemberId, number: u64, bytes: Bytes, leader_time: u64 },
    /// Something of a snapshot's stream arrives.
    Transfer { from: MemberId, to: MemberId, id: TransferId, what: Transferred },
    /// A member's process comes back.
    Restart(MemberId),
    /// A member tells its name, unless that is known.
    Publish(MemberId, u64),
    /// Periodic notices to watches.
    NotifyProgress(MemberId, u64),
    /// A member hears that it was removed.
    Removed(MemberId),
    /// A client has time for a request.
    Client(usize),
    /// A client's request arrives.
    Ask(usize, MemberId),
    /// A client's answer arrives.
    Answer(usize, Outcome),
    /// A client loses patience.
    GiveUp(usize, MemberId),
    /// Whoever changes the membership loses patience.
    OperatorGivesUp(u64),
    /// A watcher takes a step.
    Watcher(usize),
    /// Something goes wrong, or right again.
    Chaos,
    /// A member's program is replaced by that of the next feature level.
    Upgrade,
}

/// One line of the trace.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick(member, _) => write!(f, "{member} ticks"),
            Self::Run(member, _, thread) => write!(f, "{member} runs {thread:?}"),
            Self::Deliver { from, to, number, bytes, .. } => {
                write!(f, "{from} -> {to} message {number} of {} bytes: ", bytes.len())?;
                match PeerMessage::decode(bytes.clone()) {
                    Ok(message) => write!(f, "{}", kind(&message.body)),
                    Err(error) => write!(f, "{error}"),
                }
            }
            Self::Transfer { from, to, what, .. } => {
                write!(f, "{from} -> {to} snapshot: ")?;
                match what {
                    Transferred::Head { meta, .. } => write!(f, "head of index {}", meta.index),
                    Transferred::Rows(rows) => write!(f, "{} rows", rows.len()),
                    Transferred::End(rows) => write!(f, "end of {rows}"),
                    Transferred::Taken => f.write_str("taken"),
                    Transferred::Answer(installed) => write!(f, "installed: {installed}"),
                    Transferred::Broken => f.write_str("broken off"),
                }
            }
            Self::Restart(member) => write!(f, "{member} starts"),
            Self::Publish(member, _) => write!(f, "{member} tells its name"),
            Self::NotifyProgress(member, _) => write!(f, "{member} notifies of progress"),
            Self::Removed(member) => write!(f, "{member} hears of its removal"),
            Self::Client(client) => write!(f, "client {client} has time"),
            Self::Ask(operation, member) => write!(f, "{member} is asked {operation}"),
            Self::Answer(operation, outcome) => write!(f, "answer to {operation}: {outcome:?}"),
            Self::GiveUp(operation, _) => write!(f, "no answer to {operation}"),
            Self::OperatorGivesUp(change) => write!(f, "no answer to change {change}"),
            Self::Watcher(which) => write!(f, "watcher {which}"),
            Self::Chaos => f.write_str("chaos"),
            Self::Upgrade => f.write_str("upgrade"),
        }
    }
}

fn kind(body: &PeerBody) -> String {
    let message = match body {
        PeerBody::Consensus(message) => message,
        PeerBody::Forward { requests, .. } => return format!("{} requests", requests.len()),
        PeerBody::ForwardAccepted { accepted, .. } => {
            return format!("{} accepted", accepted.len());
        }
        PeerBody::ForwardRefused { refused, .. } => return format!("refused {refused:?}"),
    };
    let term = message.term;
    match &message.body {
        Body::Append { previous_index, entries, commit, .. } => {
            format!("term {term} append {} after {previous_index}, commit {commit}", entries.len())
        }
        other @ (Body::PreVote { .. }
        | Body::PreVoteResponse { .. }
        | Body::Vote { .. }
        | Body::VoteResponse { .. }
        | Body::AppendResponse { .. }
        | Body::Heartbeat { .. }
        | Body::HeartbeatResponse { .. }
        | Body::Snapshot { .. }
        | Body::TimeoutNow
        | Body::ReadIndex { .. }
        | Body::ReadIndexResponse { .. }) => format!("term {term} {other:?}"),
    }
}

impl Event {
    /// The member on whose machine it happens: nothing happens there during a pause.
    pub(crate) fn member(&self) -> Option<MemberId> {
        match self {
            Self::Tick(member, _)
            | Self::Run(member, _, _)
            | Self::Publish(member, _)
            | Self::NotifyProgress(member, _)
            | Self::Removed(member)
            | Self::Ask(_, member) => Some(*member),
            Self::Deliver { to, .. } | Self::Transfer { to, .. } => Some(*to),
            Self::Restart(_)
            | Self::Client(_)
            | Self::Answer(_, _)
            | Self::GiveUp(_, _)
            | Self::OperatorGivesUp(_)
            | Self::Watcher(_)
            | Self::Chaos
            | Self::Upgrade => None,
        }
    }
}
