//! What members say to each other about the log.

use crate::{Entry, LogIndex, MemberId, SnapshotMeta, Term};

/// One message between two members. Transport may lose, repeat, delay and reorder it; it may not change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub from: MemberId,
    /// For whom it is.
    pub to: MemberId,
    /// The sender's term (a pre-vote carries the term it would campaign in: thesis §9.6).
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// A read context, made by the *leader* and unique for the life of its term, so that an answer to an old round
/// can never confirm a new read (etcd-io/raft pull request 397).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadContext(pub u64);

/// A read as its asker numbers it; echoed with the index at which it may be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadTicket(pub u64);

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// "Would you vote for me?" Changes nothing at the receiver (thesis §9.6).
    PreVote {
        /// The candidate's last entry.
        last_index: LogIndex,
        /// That entry's term.
        last_term: Term,
    },
    /// The answer to a pre-vote.
    PreVoteResponse {
        /// Whether the vote would be given.
        granted: bool,
        /// What the voter knows to be committed: see [`Committed`].
        committed: Committed,
    },
    /// "Vote for me" (thesis §3.4).
    Vote {
        /// The candidate's last entry.
        last_index: LogIndex,
        /// That entry's term.
        last_term: Term,
        /// Set when the leader asked for this campaign: leases of followers do not hold it up (thesis §4.2.3).
        transfer: bool,
    },
    /// The answer to a vote request. Leaves only after the vote is durable (INV-R2).
    VoteResponse {
        /// Whether the vote was given.
        granted: bool,
        /// What the voter knows to be committed: see [`Committed`].
        committed: Committed,
    },
    /// Entries after `previous` (thesis §3.5).
    Append {
        /// The index that the entries follow.
        previous_index: LogIndex,
        /// The term of the entry at that index.
        previous_term: Term,
        /// The entries, consecutive; may be empty (a probe, or an advance of the commit index).
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: LogIndex,
    },
    /// The answer to an append, and to a snapshot once installed. Leaves only after the entries are durable (INV-R2).
    AppendResponse {
        /// Accepted: the last index that now matches. Rejected: the `previous_index` that did not match.
        index: LogIndex,
        /// The responder's durable commit index. A leader that was removed leaves when a remaining voter has the
        /// removal's commit on disk, and no other message could tell it so.
        commit: LogIndex,
        /// Set on a rejection: where to try next.
        rejection: Option<Rejection>,
    },
    /// The leader lives (thesis §3.4); carries the commit index that the receiver is known to hold.
    Heartbeat {
        /// min(match, commit): never beyond what the receiver has confirmed.
        commit: LogIndex,
        /// The newest read round that wants confirmation; 0 if none.
        context: ReadContext,
    },
    /// The answer to a heartbeat.
    HeartbeatResponse {
        /// The round it answers.
        context: ReadContext,
    },
    /// "You are too far behind for my log": the data travels on a stream of its own (design §3).
    Snapshot {
        /// What the stream stands for.
        meta: SnapshotMeta,
    },
    /// "Campaign now": leadership is being handed over (thesis §3.10).
    TimeoutNow,
    /// A follower asks the leader at which index its reads may be served (thesis §6.4).
    ReadIndex {
        /// The asker's number.
        ticket: ReadTicket,
    },
    /// The leader's answer.
    ReadIndexResponse {
        /// The asker's number.
        ticket: ReadTicket,
        /// Reads are linearizable once this index is applied.
        index: LogIndex,
    },
}

/// The last entry that a voter knows to be committed. A candidate may hold a change and not know that it is committed,
/// while the voter that refuses it (with a longer log, and removed by that very change) may not campaign itself:
/// then nobody could ever be elected. So voters tell, and a candidate that holds the same entry knows as much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The commit index.
    pub index: LogIndex,
    /// The term of the entry there.
    pub term: Term,
}

/// Where a rejecting follower's log may meet the leader's: enough to skip a whole term at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The greatest index at which the logs may agree.
    pub hint_index: LogIndex,
    /// The follower's term at that index.
    pub hint_term: Term,
}
