//! One member's consensus side: consensus with this member's requests, reads and lease clock around it.

use quorate_consensus::{
    Consensus, Entry, Fetch, Input as ConsensusInput, LogIndex, MemberId, Payload, ProgressView,
    ProposalTicket, Record, Recovered, Refusal, Role, Settings as ConsensusSettings, SnapshotMeta,
    SoftState, Term, Token,
};
use quorate_machine::{
    Command, Envelope, FEATURE_LEVEL_FORMED, FeatureLevel, LeaseId, LeaseTime, Member, NextReport,
    RequestId, request_id, stamp,
};
use std::{collections::BTreeMap, sync::Arc};

use crate::{
    forwarded::Forwarded,
    lease_clock::LeaseClock,
    limits::{APPLY_GAP_MAX, EXPIRY_RETRY_TICKS},
    membership::{ChangeRefusal, Situation, configuration_change},
    peer::{ForwardRefusal, ForwardedRequest, PeerBody, PeerMessage},
    proposals::{Proposal, Proposals, Sequence},
    reads::{ReadId, Reads},
};

/// What this replica is and may.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Consensus's own.
    pub consensus: ConsensusSettings,
    /// This process's life: never the same in two starts of one member.
    pub life: u64,
    /// `--strict-reconfig-check`.
    pub strict_reconfig: bool,
    /// `--max-learners`.
    pub learners_max: usize,
    /// The highest feature level that this build knows.
    pub feature_level_known: FeatureLevel,
    /// Milliseconds after which whoever asked for a change is told that it may or may not have happened (etcd's ReqTimeout). What
    /// still waits for a leader then is dropped, to within a tick.
    pub request_timeout_ms: u64,
}

/// Everything that can happen to the consensus side.
#[derive(Clone, Debug)]
pub enum Input {
    /// A tick passed, and so many milliseconds by the monotonic clock since the one before.
    Tick {
        /// Milliseconds.
        elapsed_ms: u64,
    },
    /// Another member said something.
    Peer(PeerMessage),
    /// A client's request.
    Propose(Proposal),
    /// Its asker gave up. It may still happen; nobody will be told.
    Forget(Sequence),
    /// A client's linearizable read.
    Read(ReadId),
    /// Its asker gave up.
    ForgetRead(ReadId),
    /// Records up to this token are durable.
    Persisted(Token),
    /// What the machine has applied.
    Applied(ApplyReport),
    /// Old entries from the WAL.
    Fetched {
        /// The request.
        fetch: Fetch,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// A snapshot stream ended.
    SnapshotSent {
        /// The receiver.
        to: MemberId,
        /// The snapshot's index.
        index: LogIndex,
        /// Whether it was taken whole.
        delivered: bool,
    },
    /// A received snapshot is durable and the machine stands on it.
    Installed {
        /// What it stands for.
        meta: SnapshotMeta,
        /// What the machine says of itself now.
        report: ApplyReport,
    },
    /// Hand leadership to this member, or to the best for none.
    TransferLeader(MemberId),
    /// Nothing can be delivered to this member.
    Unreachable(MemberId),
    /// The disk's watchdog.
    DiskStalled(bool),
    /// Entries up to here are in a durable checkpoint.
    Compact(LogIndex),
    /// Leases that are due by the clock that [`Output::leases_due_at`] gave.
    LeasesDue(Vec<LeaseId>),
}

/// What the machine tells after a batch.
#[derive(Clone, Debug, Default)]
pub struct ApplyReport {
    /// The last applied index.
    pub index: LogIndex,
    /// The highest lease clock applied.
    pub clock: LeaseTime,
    /// Whether any lease exists.
    pub leases: bool,
    /// The cluster's feature level.
    pub feature_level: FeatureLevel,
    /// What the next feature level has to say.
    pub next: NextReport,
    /// All members; shared, replaced when they change.
    pub members: Arc<Vec<Member>>,
    /// Configuration changes since the last report that the machine refused: consensus must not let them take effect.
    pub void_changes: Vec<LogIndex>,
}

/// Why a request has no result. In each case it did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Apply is too far behind, or the leader's log too far ahead of its quorum.
    TooManyRequests,
    /// A rule of membership.
    Change(ChangeRefusal),
    /// The command needs a feature level that the cluster has not reached, as far as this member has applied.
    FeatureLevel,
}

/// What the consensus side wants done, drained after each batch of inputs.
#[derive(Debug, Default)]
pub struct Output {
    /// For other members.
    pub messages: Vec<PeerMessage>,
    /// For the WAL.
    pub record: Option<Record>,
    /// For the machine, in order.
    pub committed: Vec<Entry>,
    /// Requests that ended without a result.
    pub failed: Vec<(Sequence, Failure)>,
    /// Reads that may be served now.
    pub reads: Vec<ReadId>,
    /// Old entries wanted from the WAL.
    pub fetch: Vec<Fetch>,
    /// Members that need a snapshot.
    pub snapshots_wanted: Vec<MemberId>,
    /// A snapshot announced to this member.
    pub install: Option<(MemberId, SnapshotMeta)>,
    /// Leader, role, term or commit changed.
    pub soft_state: Option<SoftState>,
    /// This member leads and leases exist: which of them are due at this clock? Answer with [`Input::LeasesDue`].
    pub leases_due_at: Option<LeaseTime>,
}

/// The consensus side of one member. Pure: it knows no thread, no file, no clock.
#[derive(Debug)]
pub struct Replica {
    id: MemberId,
    settings: Settings,
    consensus: Consensus,
    proposals: Proposals,
    forwarded: Forwarded,
    /// Tickets in consensus: whose they are.
    tickets: BTreeMap<ProposalTicket, Ticket>,
    next_ticket: u64,
    reads: Reads,
    clock: LeaseClock,
    /// Milliseconds of ticks since this process began: what deadlines are counted in.
    now_ms: u64,
    applied: ApplyReport,
    soft: SoftState,
    /// Requests that were refused wait for a tick or a new leader before they are sent again.
    hold: bool,
    /// Ticks since an expiry was proposed that is not applied; none when none is on its way.
    expiry: Option<(LogIndex, u32)>,
    own_sequence: u64,
    output: Output,
}

/// Whose a proposal in consensus is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ticket {
    Own(Sequence),
    Forwarded {
        from: MemberId,
        life: u64,
        attempt: u64,
        sequence: Sequence,
    },
    /// Of this leader itself: clock, expiry, feature level. Nobody waits for it.
    Housekeeping,
}

impl Replica {
    /// A member as recovery found it.
    #[must_use]
    pub fn new(settings: Settings, recovered: Recovered, applied: ApplyReport) -> Self {
        let consensus = Consensus::new(settings.consensus.clone(), recovered);
        Self {
            id: settings.consensus.id,
            consensus,
            proposals: Proposals::default(),
            forwarded: Forwarded::default(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            reads: Reads::default(),
            clock: LeaseClock::new(applied.clock),
            now_ms: 0,
            soft: SoftState::default(),
            applied,
            hold: false,
            expiry: None,
            own_sequence: 0,
            output: Output::default(),
            settings,
        }
    }

    /// Takes one input. Nothing leaves before [`Replica::drain`].
    pub fn step(&mut self, input: Input) {
        match input {
            Input::Tick { elapsed_ms } => self.tick(elapsed_ms),
            Input::Peer(message) => self.peer(message),
            Input::Propose(proposal) => self.propose(proposal),
            Input::Forget(sequence) => {
                self.proposals.forget(sequence);
            }
            Input::Read(read) => self.reads.ask(read),
            Input::ForgetRead(read) => self.reads.cancel(read),
            Input::Persisted(token) => self.consensus.step(ConsensusInput::Persisted(token)),
            Input::Applied(report) => self.apply_report(report),
            Input::Fetched { fetch, entries } => {
                self.consensus.step(ConsensusInput::Fetched { fetch, entries });
            }
            Input::SnapshotSent { to, index, delivered } => {
                self.consensus.step(ConsensusInput::SnapshotSent { to, index, delivered });
            }
            Input::Installed { meta, report } => {
                self.proposals.superseded(meta.index);
                self.consensus.step(ConsensusInput::Installed(meta));
                self.apply_report(report);
            }
            Input::TransferLeader(to) => self.consensus.step(ConsensusInput::TransferLeader(to)),
            Input::Unreachable(member) => self.consensus.step(ConsensusInput::Unreachable(member)),
            Input::DiskStalled(stalled) => {
                self.consensus.step(ConsensusInput::DiskStalled(stalled));
            }
            Input::Compact(index) => self.consensus.step(ConsensusInput::Compact(index)),
            Input::LeasesDue(leases) => self.expire(leases),
        }
    }

    /// What is to be done after the inputs since the last drain.
    pub fn drain(&mut self) -> Output {
        self.note_soft_state(self.consensus.soft_state());
        self.send_waiting();
        if let Some(ticket) = self.reads.start_round() {
            self.consensus.step(ConsensusInput::ReadIndex(ticket));
        }
        self.take_from_consensus();
        self.output.reads.extend(self.reads.serve(self.applied.index));
        std::mem::take(&mut self.output)
    }

    fn tick(&mut self, elapsed_ms: u64) {
        self.now_ms += elapsed_ms;
        if self.leads() {
            self.clock.advance(elapsed_ms);
            self.housekeeping();
        }
        self.hold = false;
        self.consensus.step(ConsensusInput::Tick);
        for ticket in self.reads.tick() {
            self.consensus.step(ConsensusInput::ReadIndex(ticket));
        }
    }

    /// What a leader does of its own accord: let time be known, ask for due leases, raise the feature level, and what that allows.
    fn housekeeping(&mut self) {
        if self.applied.leases && self.clock.wants_entry() {
            self.propose_own(Command::Clock);
        }
        match &mut self.expiry {
            Some((_, ticks)) if *ticks < EXPIRY_RETRY_TICKS => *ticks += 1,
            Some(_) | None if self.applied.leases => {
                self.expiry = None;
                self.output.leases_due_at = Some(self.clock.now());
            }
            Some(_) | None => {}
        }
        if let Some(level) = self.feature_level_to_raise() {
            self.propose_own(Command::FeatureLevel { level });
        }
        if let Some(next) = self.applied.next.due(self.clock.now()) {
            self.propose_own(Command::Next(next));
        }
    }

    /// The level that all members know, if it is above the cluster's. A member that has not published knows none.
    fn feature_level_to_raise(&self) -> Option<FeatureLevel> {
        let all = self.applied.members.iter().map(|member| member.feature_level).min()?;
        let level = all.min(self.settings.feature_level_known);
        (level > self.applied.feature_level).then_some(level)
    }

    fn expire(&mut self, ids: Vec<LeaseId>) {
        if self.leads() && self.expiry.is_none() && !ids.is_empty() {
            self.expiry = Some((self.soft.commit, 0));
            self.propose_own(Command::LeaseExpire { ids });
        }
    }

    /// Whether the cluster has reached a level. A joiner without its snapshot knows of none, but every cluster has the first.
    fn allows(&self, needs: FeatureLevel) -> bool {
        needs <= self.applied.feature_level.max(FEATURE_LEVEL_FORMED)
    }

    /// Proposes something of this leader's own, if the cluster's level allows it; if it is refused or lost, a later tick does it
    /// again.
    fn propose_own(&mut self, command: Command) {
        if !self.allows(command.needs()) {
            return;
        }
        self.own_sequence += 1;
        let envelope = Envelope {
            // Sequence numbers of this kind are in a life of their own: nobody waits for them.
            request: RequestId {
                member: quorate_machine::MemberId(self.id.0),
                life: 0,
                sequence: self.own_sequence,
            },
            user: bytes::Bytes::new(),
            auth_revision: 0,
            feature_level: self.applied.feature_level,
            clock: self.clock.now(),
            command,
        };
        self.propose_payload(Ticket::Housekeeping, envelope.encode(), None);
    }

    /// What the level refuses never sets out: once this member has applied the level, so has whoever applies the entry, since the
    /// level's own entry comes before it.
    fn propose(&mut self, proposal: Proposal) {
        if !self.allows(proposal.needs) {
            self.output.failed.push((proposal.sequence, Failure::FeatureLevel));
            return;
        }
        if self.apply_gap() > APPLY_GAP_MAX {
            self.output.failed.push((proposal.sequence, Failure::TooManyRequests));
            return;
        }
        self.proposals.ask(proposal, self.now_ms + self.settings.request_timeout_ms);
    }

    fn apply_gap(&self) -> u64 {
        self.soft.commit.0.saturating_sub(self.applied.index.0)
    }

    /// Sends what waits to whoever leads.
    fn send_waiting(&mut self) {
        if !self.proposals.any_waiting() || self.hold {
            return;
        }
        if self.leads() {
            for proposal in self.proposals.take_for_consensus(self.now_ms) {
                let ticket = Ticket::Own(proposal.sequence);
                match self.check_change(proposal.change.is_some(), &proposal.envelope) {
                    Ok(()) => self.propose_payload(ticket, proposal.envelope, proposal.change),
                    Err(refusal) => self.refuse(ticket, ForwardRefusal::Change(refusal)),
                }
            }
        } else if self.soft.leader.is_some() {
            let (attempt, proposals) = self.proposals.take_for_leader(self.soft.term, self.now_ms);
            if proposals.is_empty() {
                return;
            }
            let requests = proposals
                .into_iter()
                .map(|proposal| ForwardedRequest {
                    sequence: proposal.sequence,
                    envelope: proposal.envelope,
                    change: proposal.change,
                })
                .collect();
            let (to, term, life) = (self.soft.leader, self.soft.term, self.settings.life);
            self.send(to, PeerBody::Forward { term, attempt, life, requests });
        }
    }

    /// Appends to this leader's log, stamped with its clock and the cluster's feature level.
    fn propose_payload(
        &mut self,
        ticket: Ticket,
        envelope: bytes::Bytes,
        change: Option<quorate_consensus::ConfigurationChange>,
    ) {
        let stamped = stamp(envelope, self.applied.feature_level, self.clock.stamp())
            .expect("this build encoded it, or the handshake admitted its format");
        let payload = match change {
            Some(change) => Payload::Change(change, stamped),
            None => Payload::Command(stamped),
        };
        self.next_ticket += 1;
        let number = ProposalTicket(self.next_ticket);
        self.tickets.insert(number, ticket);
        self.consensus.step(ConsensusInput::Propose { ticket: number, payload });
    }

    /// The rules of membership, by the leader's applied view. Only one change is in flight, and consensus lets a leader
    /// propose none before it has applied the earlier ones, so what holds here holds at apply.
    fn check_change(&self, is_change: bool, envelope: &bytes::Bytes) -> Result<(), ChangeRefusal> {
        if !is_change {
            return Ok(());
        }
        let envelope = Envelope::decode(envelope)
            .expect("this build encoded it, or the handshake admitted its format");
        let progress = self.consensus.progress();
        Situation {
            members: &self.applied.members,
            progress: &progress,
            leader: self.id,
            strict: self.settings.strict_reconfig,
            learners_max: self.settings.learners_max,
        }
        .check(&envelope.command)
    }

    fn peer(&mut self, message: PeerMessage) {
        match message.body {
            PeerBody::Consensus(inner) => {
                // A deposed leader's clock is not heard: only terms that this member still follows count.
                if inner.term >= self.soft.term {
                    self.clock.hear(message.clock);
                }
                self.consensus.step(ConsensusInput::Peer(inner));
            }
            PeerBody::Forward { term, attempt, life, requests } => {
                self.forward(message.from, term, attempt, life, requests);
            }
            PeerBody::ForwardAccepted { life, accepted } => {
                if life == self.settings.life {
                    for (sequence, term, index) in accepted {
                        self.proposals.accepted(sequence, term, index);
                    }
                }
            }
            PeerBody::ForwardRefused { life, attempt, refused } => {
                if life == self.settings.life {
                    for (sequence, refusal) in refused {
                        self.own_refused(sequence, Some(attempt), refusal);
                    }
                }
            }
        }
    }

    /// Another member's requests, if this member leads in the term that they name. If not they are dropped, and no answer is
    /// needed: their member sends them again once an entry of a later term is committed. Nor would one be safe, since a
    /// repeated message may come when the first copy was accepted and this member leads no more.
    fn forward(
        &mut self,
        from: MemberId,
        term: Term,
        attempt: u64,
        life: u64,
        requests: Vec<ForwardedRequest>,
    ) {
        if !self.leads() || self.soft.term != term {
            return;
        }
        for request in requests {
            let id = forwarded_id(from, life, request.sequence);
            if !self.forwarded.note(term, id, attempt) {
                // A repeated message: the first copy has its answer.
                continue;
            }
            let ticket = Ticket::Forwarded { from, life, attempt, sequence: request.sequence };
            if self.apply_gap() > APPLY_GAP_MAX {
                self.refuse(ticket, ForwardRefusal::Overloaded);
                continue;
            }
            match self.check_change(request.change.is_some(), &request.envelope) {
                Ok(()) => self.propose_payload(ticket, request.envelope, request.change),
                Err(refusal) => self.refuse(ticket, ForwardRefusal::Change(refusal)),
            }
        }
    }

    fn refuse(&mut self, ticket: Ticket, refusal: ForwardRefusal) {
        match ticket {
            Ticket::Own(sequence) => self.own_refused(sequence, None, refusal),
            Ticket::Forwarded { from, life, attempt, sequence } => {
                let refused = vec![(sequence, refusal)];
                self.send(from, PeerBody::ForwardRefused { life, attempt, refused });
            }
            Ticket::Housekeeping => {}
        }
    }

    /// A request of this member got no place: tell the client, or keep it for the next leader.
    fn own_refused(&mut self, sequence: Sequence, attempt: Option<u64>, refusal: ForwardRefusal) {
        if !self.proposals.refused(sequence, attempt) {
            return;
        }
        let failure = match refusal {
            ForwardRefusal::NotLeader | ForwardRefusal::Later => {
                self.hold = true;
                return;
            }
            ForwardRefusal::Overloaded => Failure::TooManyRequests,
            ForwardRefusal::Change(refusal) => Failure::Change(refusal),
        };
        self.proposals.forget(sequence);
        self.output.failed.push((sequence, failure));
    }

    fn apply_report(&mut self, report: ApplyReport) {
        assert!(
            report.index >= self.applied.index,
            "INV-R1: applied went back from {} to {}",
            self.applied.index,
            report.index
        );
        self.clock.hear(report.clock);
        let index = report.index;
        self.applied = report;
        if self.expiry.is_some_and(|(proposed_after, _)| index > proposed_after) {
            self.expiry = None;
        }
        for void in self.applied.void_changes.drain(..) {
            self.consensus.step(ConsensusInput::Void(void));
        }
        self.consensus.step(ConsensusInput::Applied(index));
    }

    /// Moves what consensus wants into the output, seeing to this member's own part in it.
    fn take_from_consensus(&mut self) {
        let drained = self.consensus.drain();
        if let Some(soft) = drained.soft_state {
            self.note_soft_state(soft);
        }
        for accepted in &drained.accepted {
            self.ticket_accepted(accepted.ticket, accepted.term, accepted.index);
        }
        for (ticket, refusal) in drained.refused {
            if let Some(ticket) = self.tickets.remove(&ticket) {
                self.refuse(ticket, forward_refusal(refusal));
            }
        }
        for message in drained.send_now {
            let to = message.to;
            self.send(to, PeerBody::Consensus(message));
        }
        for entry in &drained.committed {
            let own = self.own_request(entry);
            self.proposals.committed(entry.term, entry.index, own);
        }
        for ready in drained.reads {
            self.reads.confirm(ready);
        }
        self.output.committed.extend(drained.committed);
        self.output.fetch.extend(drained.fetch);
        self.output.snapshots_wanted.extend(drained.snapshots_wanted);
        self.output.install = drained.install;
        self.output.record = drained.record;
    }

    fn ticket_accepted(&mut self, ticket: ProposalTicket, term: Term, index: LogIndex) {
        match self.tickets.remove(&ticket) {
            Some(Ticket::Own(sequence)) => self.proposals.accepted(sequence, term, index),
            Some(Ticket::Forwarded { from, life, attempt: _, sequence }) => {
                let accepted = vec![(sequence, term, index)];
                self.send(from, PeerBody::ForwardAccepted { life, accepted });
            }
            Some(Ticket::Housekeeping) | None => {}
        }
    }

    fn note_soft_state(&mut self, soft: SoftState) {
        if soft == self.soft {
            return;
        }
        let leader_changed = soft.leader != self.soft.leader || soft.term != self.soft.term;
        self.soft = soft;
        self.output.soft_state = Some(soft);
        if leader_changed {
            self.hold = false;
            self.expiry = None;
            for ticket in self.reads.leader_changed() {
                self.consensus.step(ConsensusInput::ReadIndex(ticket));
            }
        }
    }

    /// The request in an entry, if it is of this life of this member.
    fn own_request(&self, entry: &Entry) -> Option<Sequence> {
        let bytes = match &entry.payload {
            Payload::Empty => return None,
            Payload::Command(bytes) | Payload::Change(_, bytes) => bytes,
        };
        let request = request_id(bytes).ok()?;
        (request.member.0 == self.id.0 && request.life == self.settings.life)
            .then_some(Sequence(request.sequence))
    }

    /// Adds a message; forwards' answers to one member within a drain travel together.
    fn send(&mut self, to: MemberId, body: PeerBody) {
        if let Some(last) = self.output.messages.last_mut()
            && last.to == to
            && merge_answers(&mut last.body, &body)
        {
            return;
        }
        let clock = self.clock.now();
        self.output.messages.push(PeerMessage { from: self.id, to, clock, body });
    }

    fn leads(&self) -> bool {
        self.soft.role == Role::Leader
    }

    /// Leader, role, term and commit as of the last drain.
    #[must_use]
    pub fn soft(&self) -> SoftState {
        self.soft
    }

    /// What the leader knows of each member; empty elsewhere.
    #[must_use]
    pub fn progress(&self) -> Vec<ProgressView> {
        self.consensus.progress()
    }

    /// T as this member knows it.
    #[must_use]
    pub fn clock(&self) -> LeaseTime {
        self.clock.now()
    }

    /// Whether this member is a learner of its own configuration.
    #[must_use]
    pub fn is_learner(&self) -> bool {
        self.consensus.configuration().learners.contains(&self.id)
    }

    /// How many requests and reads are not answered.
    #[must_use]
    pub fn pending(&self) -> (usize, usize) {
        (self.proposals.pending(), self.reads.pending())
    }

    /// Consensus, for checks.
    #[must_use]
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// The chain of inequalities that must hold after every input.
    pub fn check_invariants(&self) {
        self.consensus.check_invariants();
    }
}

/// Whether a command travels in a configuration change, and in which.
#[must_use]
pub fn proposal(sequence: Sequence, envelope: &Envelope) -> Proposal {
    Proposal {
        sequence,
        change: configuration_change(&envelope.command),
        needs: envelope.command.needs(),
        envelope: envelope.encode(),
    }
}

fn forwarded_id(from: MemberId, life: u64, sequence: Sequence) -> RequestId {
    RequestId { member: quorate_machine::MemberId(from.0), life, sequence: sequence.0 }
}

fn forward_refusal(refusal: Refusal) -> ForwardRefusal {
    match refusal {
        Refusal::NotLeader(_) | Refusal::Transferring(_) => ForwardRefusal::NotLeader,
        Refusal::ChangeInFlight => ForwardRefusal::Later,
        Refusal::ChangeInvalid => ForwardRefusal::Change(ChangeRefusal::NotFound),
        Refusal::Overloaded => ForwardRefusal::Overloaded,
    }
}

/// Joins two answers to forwards; whether it did.
fn merge_answers(into: &mut PeerBody, from: &PeerBody) -> bool {
    match (into, from) {
        (
            PeerBody::ForwardAccepted { life, accepted },
            PeerBody::ForwardAccepted { life: other_life, accepted: more },
        ) if life == other_life => {
            accepted.extend_from_slice(more);
            true
        }
        (
            PeerBody::ForwardRefused { life, attempt, refused },
            PeerBody::ForwardRefused { life: other_life, attempt: other_attempt, refused: more },
        ) if life == other_life && attempt == other_attempt => {
            refused.extend_from_slice(more);
            true
        }
        (
            PeerBody::Consensus(_)
            | PeerBody::Forward { .. }
            | PeerBody::ForwardAccepted { .. }
            | PeerBody::ForwardRefused { .. },
            _,
        ) => false,
    }
}

#[cfg(test)]
mod deadline_tests;
#[cfg(test)]
mod level_tests;
