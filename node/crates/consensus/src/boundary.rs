//! The whole surface of consensus: what goes in, what comes out, and in which order it may be acted on.

use crate::{
    Entry, HardState, LogIndex, MemberId, Message, Payload, ReadTicket, SnapshotMeta, Term,
};

/// Everything that can happen to consensus. Time, disk and network are inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A tick passed.
    Tick,
    /// Another member said something. The transport has checked the cluster id and that the sender is no removed member.
    Peer(Message),
    /// Append this to the log. Refused (see [`Output::refused`]) unless this member leads and may.
    Propose {
        /// The proposer's number, echoed when refused or with its index when accepted.
        ticket: ProposalTicket,
        /// What to append. [`Payload::Empty`] is the leader's own and refused as [`Refusal::ChangeInvalid`].
        payload: Payload,
    },
    /// When may a read be served? Answered by [`Output::reads`]; silently dropped when no leader is known or it does
    /// not answer (the asker asks again under the same or a new ticket).
    ReadIndex(ReadTicket),
    /// The record with this token is durable.
    Persisted(Token),
    /// Everything up to here has been applied by the machine; configuration entries among it take effect in
    /// this call.
    Applied(LogIndex),
    /// The machine refused the configuration change at this index, which is about to be called applied: the change takes no
    /// effect. The machine is deterministic, so every member says the same of the same entry.
    Void(LogIndex),
    /// The entries asked for by [`Output::fetch`]: consecutive from the index asked, at least one, or empty when
    /// they are no longer there.
    Fetched {
        /// The request that it answers.
        fetch: Fetch,
        /// What the WAL holds, from `fetch.from` on.
        entries: Vec<Entry>,
    },
    /// A snapshot stream to this member ended. Report each [`Output::snapshots_wanted`] exactly so: until then the
    /// member gets no entries.
    SnapshotSent {
        /// The receiver.
        to: MemberId,
        /// The snapshot's index.
        index: LogIndex,
        /// Whether the receiver took all of it.
        delivered: bool,
    },
    /// A snapshot received from the leader is installed and durable; the machine stands at `meta.index`. Entries that
    /// were handed out at or below it and are not applied are superseded: drop them; later ones still count. A
    /// snapshot at or below the applied index must not be installed, and is ignored here.
    Installed(SnapshotMeta),
    /// Hand leadership to this member, or to the best voter for [`MemberId::NONE`].
    TransferLeader(MemberId),
    /// The shell could not deliver to this member; its progress falls back to probing.
    Unreachable(MemberId),
    /// The oldest record that is not durable is older than an election timeout (or no longer so): the watchdog of design §3.
    DiskStalled(bool),
    /// Entries up to here are in a durable checkpoint and may be forgotten by memory (INV-R1).
    Compact(LogIndex),
}

/// The proposer's number for a proposal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalTicket(pub u64);

/// The name of one record to be made durable: a sequence number plus what it promised. A stale one changes nothing (INV-R6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Counts records; strictly rising.
    pub sequence: u64,
    /// The hard state's term in the record.
    pub term: Term,
    /// The hard state's vote in the record.
    pub vote: MemberId,
    /// The last index of the log as of the record.
    pub last_index: LogIndex,
    /// That entry's term.
    pub last_term: Term,
}

/// One record for the WAL. Entries replace whatever the log held at and after the first one's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Echo it in [`Input::Persisted`] once this record *and all before it* are durable.
    pub token: Token,
    /// The hard state as of this record.
    pub hard_state: HardState,
    /// Consecutive entries; may be empty.
    pub entries: Vec<Entry>,
    /// Set when the log now starts after an installed snapshot.
    pub snapshot: Option<SnapshotMeta>,
}

/// Old entries wanted from the WAL, for a follower that is behind what memory holds, or for the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fetch {
    /// For whom: a follower, or this member itself (entries to apply after a restart).
    pub for_member: MemberId,
    /// The first index wanted.
    pub from: LogIndex,
    /// The last index wanted.
    pub to: LogIndex,
    /// Stop after this many bytes of cost, but give at least one entry.
    pub bytes_max: usize,
}

/// Why a proposal was not appended. It is in no log: the proposer may send it elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This member does not lead; whom it believes to lead ([`MemberId::NONE`] if nobody).
    NotLeader(MemberId),
    /// Leadership is being handed over; ask the named member.
    Transferring(MemberId),
    /// Another configuration change is in flight, or earlier ones are not applied yet (INV-R7).
    ChangeInFlight,
    /// The change names a member that it cannot apply to (unknown, present already, the last voter).
    ChangeInvalid,
    /// The leader's unpersisted and uncommitted tail is at its byte cap.
    Overloaded,
}

/// A read that may be served once `index` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// The asker's number.
    pub ticket: ReadTicket,
    /// The index to wait for.
    pub index: LogIndex,
}

/// Which part this member plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether a campaign would succeed (thesis §9.6).
    PreCandidate,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
}

/// What is not durable and worth telling people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftState {
    /// The leader this member follows or is; [`MemberId::NONE`] if it knows none.
    pub leader: MemberId,
    /// Its own part.
    pub role: Role,
    /// The current term.
    pub term: Term,
    /// The commit index.
    pub commit: LogIndex,
}

/// What consensus wants done, drained after each batch of inputs.
///
/// ```text
///   send_now ───────────────► network at once
///   record ──► WAL ──► durable ──► Input::Persisted ──► released answers come out as send_now of a later drain
///   committed ──► machine ──► Input::Applied
/// ```
///
/// Answers that promise durability (votes, acknowledgements) never appear before their record's token came back:
/// consensus holds them itself, so the shell has no rule to remember (INV-R2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Messages that may leave at once.
    pub send_now: Vec<Message>,
    /// At most one record per drain; records are made durable in the order of their tokens.
    pub record: Option<Record>,
    /// Committed entries for the machine, consecutive, each handed out once; bounded in bytes per drain and by
    /// what is committed but not applied.
    pub committed: Vec<Entry>,
    /// Proposals that got a place in the log (not yet committed).
    pub accepted: Vec<Accepted>,
    /// Proposals that got none.
    pub refused: Vec<(ProposalTicket, Refusal)>,
    /// Reads that may be served once their index is applied.
    pub reads: Vec<ReadReady>,
    /// Old entries wanted.
    pub fetch: Vec<Fetch>,
    /// Members that need a snapshot stream of the machine's state at or after the named index. The shell sends a
    /// [`crate::Body::Snapshot`] description ahead of the data and reports with [`Input::SnapshotSent`].
    pub snapshots_wanted: Vec<MemberId>,
    /// A snapshot that the leader announced and that this member wants: install it, then [`Input::Installed`].
    pub install: Option<(MemberId, SnapshotMeta)>,
    /// Set when leader, role, term or commit changed since the last drain.
    pub soft_state: Option<SoftState>,
}

/// A proposal that got a place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The proposer's number.
    pub ticket: ProposalTicket,
    /// The term of the entry: together with the index it names the entry for good.
    pub term: Term,
    /// Its index.
    pub index: LogIndex,
}

/// What a member starts from: what recovery found on disk.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The last durable hard state.
    pub hard_state: HardState,
    /// Where the machine stands (its checkpoint), and the configuration as of there.
    pub snapshot: SnapshotMeta,
    /// The entries after `snapshot.index` that memory shall hold; older ones are fetched. Consecutive. Only committed
    /// entries may be left out, and the one at the commit index may not (unless the snapshot stands there). A log
    /// whose entry at `snapshot.index` has another term than the snapshot, or that ends before it, is void: bring none of it.
    pub entries: Vec<Entry>,
    /// The last index in the WAL (equals that of `entries` or of `snapshot` when there are none).
    pub last_index: LogIndex,
}

/// Tuning, all of it in ticks, messages or bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This member.
    pub id: MemberId,
    /// Ticks without a leader before a campaign; the real timeout is drawn from [this, 2 × this).
    pub election_ticks: u32,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: u32,
    /// Appends in flight to one follower.
    pub inflight_messages_max: usize,
    /// Bytes in flight to one follower.
    pub inflight_bytes_max: usize,
    /// Cost of the entries of one append; one entry may exceed it alone.
    pub append_bytes_max: usize,
    /// Cost of the committed entries of one drain.
    pub committed_bytes_max: usize,
    /// Cost of appended and not yet committed entries before proposals are refused.
    pub uncommitted_bytes_max: usize,
    /// Cost of entries kept in memory for followers; older ones are fetched from the WAL. Several times
    /// `inflight_bytes_max`, or followers under load are served from the disk.
    pub memory_bytes_max: usize,
    /// The seed of the election timeouts, and of the numbers under which a follower's reads travel: so let it differ
    /// between two lives of one member (mix the start's incarnation in).
    pub seed: u64,
}

/// What the leader knows of a member, itself included: for the rules of membership, for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressView {
    /// The member.
    pub member: MemberId,
    /// The last index known to be durable there.
    pub matched: LogIndex,
    /// Whether it answered within the last election timeout.
    pub active: bool,
    /// Whether it is a learner.
    pub learner: bool,
}
