//! The state of one member, and the two verbs through which the shell drives it: step and drain.

use std::collections::{BTreeMap, VecDeque};

use crate::journal::Journal;
use crate::leadership::Leadership;
use crate::log::Log;
use crate::outbox::{Outbox, Promise};
use crate::read_index::ForwardedReads;
use crate::timer::{Dice, ElectionTimer};
use crate::{
    Accepted, Body, Configuration, Entry, Fetch, HardState, Input, LogIndex, MemberId, Message,
    Output, Payload, ProgressView, ProposalTicket, Record, Recovered, Refusal, Role, Settings,
    SnapshotMeta, SoftState, Term, Token,
};

/// One member of the cluster. Feed it inputs by [`Consensus::step`]; after each batch do what
/// [`Consensus::drain`] returns.
#[derive(Clone, Debug)]
pub struct Consensus {
    pub(crate) settings: Settings,
    pub(crate) term: Term,
    pub(crate) vote: MemberId,
    pub(crate) role: Role,
    pub(crate) leader: MemberId,
    pub(crate) configuration: Configuration,
    pub(crate) log: Log,
    pub(crate) journal: Journal,
    pub(crate) outbox: Outbox,
    pub(crate) timer: ElectionTimer,
    /// Who answered the current campaign, and how.
    pub(crate) votes: BTreeMap<MemberId, bool>,
    /// What only a leader has.
    pub(crate) leadership: Option<Leadership>,
    /// Reads sent on to the leader.
    pub(crate) forwarded: ForwardedReads,
    /// The machine applied everything up to here.
    pub(crate) applied: LogIndex,
    /// The machine was given everything up to here.
    pub(crate) handed: LogIndex,
    /// The last index and the cost of each page that was handed out and is not applied.
    pub(crate) applying: VecDeque<(LogIndex, usize)>,
    /// Old entries asked of the WAL for the machine.
    pub(crate) fetching: Option<Fetch>,
    /// What that brought, to be handed out at the next drain.
    pub(crate) fetched: Vec<Entry>,
    /// A durable checkpoint holds everything up to here.
    pub(crate) compacted: LogIndex,
    /// The watchdog calls the disk stalled.
    pub(crate) stalled: bool,
    /// The commit index alone is worth a record, at once (a change was committed) or by now (a tick passed).
    pub(crate) commit_urgent: bool,
    pub(crate) commit_due: bool,
    /// The log was replaced by this snapshot, and no record says so yet.
    pub(crate) snapshot: Option<SnapshotMeta>,
}

impl Consensus {
    /// Starts from what recovery found, as a follower.
    #[must_use]
    pub fn new(settings: Settings, recovered: Recovered) -> Self {
        let log = Log::new(&recovered);
        let hard_state = recovered.hard_state;
        // The salt varies with the state of the disk, so that a member which was restarted with one seed still
        // numbers its reads differently, unless nothing at all happened in between.
        let start =
            hard_state.term.0 ^ log.last_index().0.rotate_left(24) ^ log.commit().0.rotate_left(48);
        let mut dice = Dice::new(settings.seed, settings.id.0 ^ start.rotate_left(13));
        let forwarded = ForwardedReads::new(dice.roll());
        let told = SoftState {
            leader: MemberId::NONE,
            role: Role::Follower,
            term: hard_state.term,
            commit: log.commit(),
        };
        Self {
            term: hard_state.term,
            vote: hard_state.vote,
            role: Role::Follower,
            leader: MemberId::NONE,
            journal: Journal::new(hard_state, log.last_index()),
            outbox: Outbox::new(told),
            timer: ElectionTimer::new(settings.election_ticks, dice),
            votes: BTreeMap::new(),
            leadership: None,
            forwarded,
            applied: recovered.snapshot.index,
            handed: recovered.snapshot.index,
            applying: VecDeque::new(),
            fetching: None,
            fetched: Vec::new(),
            compacted: recovered.snapshot.index,
            stalled: false,
            commit_urgent: false,
            commit_due: false,
            snapshot: None,
            configuration: recovered.snapshot.configuration,
            settings,
            log,
        }
    }

    /// Takes one input. What follows from it comes out of the next [`Consensus::drain`].
    pub fn step(&mut self, input: Input) {
        match input {
            Input::Tick => self.tick(),
            Input::Peer(message) => self.handle_message(message),
            Input::Propose { ticket, payload } => self.propose(ticket, payload),
            Input::ReadIndex(ticket) => self.read_index(ticket),
            Input::Persisted(token) => self.persisted(token),
            Input::Applied(index) => self.advance_applied(index),
            Input::Void(index) => self.log.void_change(index),
            Input::Fetched { fetch, entries } => self.fetched(fetch, entries),
            Input::SnapshotSent { to, index, delivered } => {
                self.snapshot_sent(to, index, delivered);
            }
            Input::Installed(meta) => self.installed(&meta),
            Input::TransferLeader(to) => self.transfer_leader(to),
            Input::Unreachable(member) => self.unreachable(member),
            Input::DiskStalled(stalled) => self.disk_stalled(stalled),
            Input::Compact(index) => self.compact(index),
        }
    }

    /// What the inputs since the last drain ask the shell to do. Appends, read rounds and pages of committed
    /// entries are made here and not in `step`: that is what turns a batch of inputs into one message for each follower.
    #[must_use]
    pub fn drain(&mut self) -> Output {
        self.open_read_round();
        self.replicate();
        self.hand_out();
        self.outbox.output.record = self.write_record();
        let soft_state = self.soft_state();
        self.outbox.take(soft_state)
    }

    /// What is not durable and worth telling people.
    #[must_use]
    pub fn soft_state(&self) -> SoftState {
        SoftState {
            leader: self.leader,
            role: self.role,
            term: self.term,
            commit: self.log.commit(),
        }
    }

    /// Who belongs to the cluster, as of the last applied entry.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// What the leader knows of the other members; empty on everybody else.
    #[must_use]
    pub fn progress(&self) -> Vec<ProgressView> {
        let Some(leadership) = &self.leadership else { return Vec::new() };
        let own = ProgressView {
            member: self.id(),
            matched: self.durable_index(),
            active: true,
            learner: false,
        };
        let peers = leadership.progress.iter().map(|(member, progress)| ProgressView {
            member: *member,
            matched: progress.matched,
            active: progress.active(self.settings.election_ticks),
            learner: self.configuration.learners.contains(member),
        });
        std::iter::once(own).chain(peers).collect()
    }

    /// The index of the last entry of the log, durable or not.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.log.last_index()
    }

    /// The last index up to which this member's own log is durable.
    #[must_use]
    pub fn durable_index(&self) -> LogIndex {
        // An installed snapshot is durable even where the records of its entries are still on their way.
        self.journal.persisted().max(self.log.base_index())
    }

    /// The last index that the machine has applied.
    #[must_use]
    pub fn applied_index(&self) -> LogIndex {
        self.applied
    }

    /// The cost of the entries that memory holds, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.log.bytes()
    }

    pub(crate) fn id(&self) -> MemberId {
        self.settings.id
    }

    /// Whether this member is the only voter: then it agrees with itself and hands over to nobody.
    pub(crate) fn sole_voter(&self) -> bool {
        self.configuration.voters.len() == 1 && self.configuration.voters.contains(&self.id())
    }

    pub(crate) fn is_member(&self, id: MemberId) -> bool {
        self.configuration.voters.contains(&id) || self.configuration.learners.contains(&id)
    }

    fn tick(&mut self) {
        // A commit index that no entry carried to disk gets there with the next tick: one record a tick at most.
        self.commit_due = true;
        if self.role == Role::Leader {
            self.tick_leader();
        } else if self.timer.tick() || self.sole_voter() {
            // A sole voter has no leader to wait for: a store of one serves a tick after its start.
            self.election_timed_out();
        }
    }

    /// Sends a message that promises nothing.
    pub(crate) fn send(&mut self, to: MemberId, body: Body) {
        let message = Message { from: self.id(), to, term: self.term, body };
        self.outbox.send(message);
    }

    /// Sends a message once everything that this member knows now is durable.
    pub(crate) fn promise(&mut self, to: MemberId, body: Body) {
        let message = Message { from: self.id(), to, term: self.term, body };
        self.make_promise(Promise::Say(message));
    }

    pub(crate) fn make_promise(&mut self, promise: Promise) {
        let sequence = self.journal.covering(self.unwritten());
        self.outbox.hold(sequence, promise);
        self.keep_promises();
    }

    /// Whether something must get into a record before anything may be promised.
    pub(crate) fn unwritten(&self) -> bool {
        let written = self.journal.written_state();
        written.term != self.term
            || written.vote != self.vote
            || self.journal.written() < self.log.last_index()
            || self.commit_urgent
            || self.snapshot.is_some()
    }

    /// Says and counts what has become durable.
    fn keep_promises(&mut self) {
        while let Some(promise) = self.outbox.release(self.journal.durable()) {
            match promise {
                Promise::Say(message) => self.say(message),
                Promise::CountOwnVote(term) => self.count_own_vote(term),
            }
        }
    }

    /// Lets a promise out, having checked that it is true (INV-R2).
    fn say(&mut self, message: Message) {
        if message.term != self.term {
            // The term it was made in is over; nobody waits for it.
            return;
        }
        let durable = self.journal.durable_state();
        match &message.body {
            Body::VoteResponse { granted: true, .. } => assert!(
                (durable.term, durable.vote) == (message.term, message.to),
                "INV-R2: a vote for {} in term {} is about to leave, and {durable:?} is durable",
                message.to,
                message.term,
            ),
            Body::Vote { .. } => assert!(
                (durable.term, durable.vote) == (message.term, message.from),
                "INV-R2: a campaign in term {} is about to start, and {durable:?} is durable",
                message.term,
            ),
            Body::AppendResponse { index, rejection: None, .. } => {
                assert!(
                    durable.term == message.term,
                    "INV-R2: an acknowledgement in term {} is about to leave, and {durable:?} is durable",
                    message.term,
                );
                assert!(
                    *index <= self.durable_index(),
                    "INV-R2: entry {index} is about to be acknowledged, and {} is durable",
                    self.durable_index(),
                );
            }
            Body::AppendResponse { rejection: Some(_), .. }
            | Body::VoteResponse { granted: false, .. }
            | Body::PreVote { .. }
            | Body::PreVoteResponse { .. }
            | Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatResponse { .. }
            | Body::Snapshot { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexResponse { .. } => {}
        }
        self.outbox.send(message);
    }

    fn persisted(&mut self, token: Token) {
        if !self.journal.settle(token) {
            return;
        }
        self.keep_promises();
        self.maybe_commit();
        self.trim_memory();
    }

    fn write_record(&mut self) -> Option<Record> {
        let hard_state = HardState { term: self.term, vote: self.vote, commit: self.log.commit() };
        // On a stalled disk a record a tick would pile up for nothing: the next one that is needed carries the commit.
        self.commit_due &= hard_state != self.journal.written_state();
        let late_commit = self.commit_due && self.journal.idle();
        if !self.unwritten() && !late_commit {
            return None;
        }
        self.commit_urgent = false;
        self.commit_due = false;
        let last_index = self.log.last_index();
        let first = self.journal.written().next();
        let entries = if first > last_index {
            Vec::new()
        } else {
            self.log.slice(first, last_index, usize::MAX)
        };
        let token = Token {
            sequence: 0,
            term: self.term,
            vote: self.vote,
            last_index,
            last_term: self.log.last_term(),
        };
        let token = self.journal.issue(hard_state, token);
        Some(Record { token, hard_state, entries, snapshot: self.snapshot.take() })
    }

    fn propose(&mut self, ticket: ProposalTicket, payload: Payload) {
        match self.admit(&payload) {
            Err(refusal) => self.outbox.output.refused.push((ticket, refusal)),
            Ok(()) => {
                let index = self.append_own(payload);
                self.outbox.output.accepted.push(Accepted { ticket, term: self.term, index });
            }
        }
    }

    fn admit(&self, payload: &Payload) -> Result<(), Refusal> {
        let Some(leadership) = &self.leadership else {
            return Err(Refusal::NotLeader(self.leader));
        };
        if let Some(transfer) = &leadership.transfer {
            return Err(Refusal::Transferring(transfer.to));
        }
        let cost = crate::ENTRY_OVERHEAD_BYTES + payload.len();
        let tail = leadership.uncommitted_bytes;
        if tail > 0 && tail.saturating_add(cost) > self.settings.uncommitted_bytes_max {
            return Err(Refusal::Overloaded);
        }
        match payload {
            Payload::Empty => Err(Refusal::ChangeInvalid),
            Payload::Command(_) => Ok(()),
            Payload::Change(change, _) => self.admit_change(*change),
        }
    }

    /// Appends an entry of this leader's own; it goes out with the next drain.
    pub(crate) fn append_own(&mut self, payload: Payload) -> LogIndex {
        let entry = Entry { term: self.term, index: self.log.last_index().next(), payload };
        let index = entry.index;
        if let Some(leadership) = &mut self.leadership {
            leadership.uncommitted_bytes += entry.cost();
        }
        self.log.push(entry);
        index
    }

    fn fetched(&mut self, fetch: Fetch, entries: Vec<Entry>) {
        let consecutive =
            entries.iter().zip(fetch.from.0..).all(|(entry, index)| entry.index.0 == index);
        assert!(consecutive, "INV-R1: entries fetched from {} are not consecutive", fetch.from);
        if fetch.for_member == self.id() {
            self.fetched_for_machine(fetch, entries);
        } else {
            self.fetched_for_follower(fetch, entries);
        }
    }
}
