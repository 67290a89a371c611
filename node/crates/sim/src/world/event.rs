//! What is scheduled.

use bytes::Bytes;
use quorate_consensus::MemberId;

use super::{
    process::Thread,
    transfer::{TransferId, Transferred},
};
use crate::judge::Outcome;

/// Something that happens at its time.
#[derive(Debug)]
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
            | Self::Chaos => None,
        }
    }
}
