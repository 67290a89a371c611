//! Elections: pre-votes, votes, leases, and what a member becomes (thesis §3.4, §4.2.3, §9.6).

use crate::leadership::Leadership;
use crate::outbox::Promise;
use crate::quorum::{Tally, tally};
use crate::{Body, Committed, Consensus, LogIndex, MemberId, Message, Payload, Role, Term};

/// The two rounds of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// "Would you?" Binds nobody, so nothing of it is durable.
    PreVote,
    /// "Do." Set when the old leader asked for it, which lifts the leases.
    Vote { transfer: bool },
}

impl Consensus {
    /// No leader was heard for a whole timeout, or the campaign brought nothing.
    pub(crate) fn election_timed_out(&mut self) {
        if self.role == Role::Follower {
            // NB: also where no campaign follows (a learner, a stalled disk): the lease of a leader that fell silent
            // is over, and others must find this member's vote free.
            self.leader = MemberId::NONE;
            self.forwarded.clear();
        }
        if self.may_campaign() {
            self.campaign(Round::PreVote);
        }
    }

    /// Only a voter campaigns, and not one that knows of a committed change which it has not applied: its idea of
    /// a majority may be two changes old, and then its majority and the real one need not share a member
    /// (etcd issue 7625). Nor one whose disk is stalled, since its own vote could not become durable.
    pub(crate) fn may_campaign(&self) -> bool {
        self.role != Role::Leader
            && self.configuration.voters.contains(&self.id())
            && !self.log.change_unapplied(self.applied, self.log.commit())
            && !self.outbox.own_vote_held(self.term)
            && (!self.stalled || self.sole_voter())
    }

    pub(crate) fn campaign(&mut self, round: Round) {
        self.leader = MemberId::NONE;
        self.forwarded.clear();
        self.votes.clear();
        self.timer.reset();
        match round {
            Round::PreVote => {
                self.role = Role::PreCandidate;
                self.votes.insert(self.id(), true);
                if self.count_votes() == Tally::Won {
                    // A sole voter has nobody to ask.
                    self.campaign(Round::Vote { transfer: false });
                    return;
                }
            }
            Round::Vote { .. } => {
                self.role = Role::Candidate;
                self.term = Term(self.term.0 + 1);
                self.vote = self.id();
                self.make_promise(Promise::CountOwnVote(self.term));
            }
        }
        self.ask_for_votes(round);
    }

    /// NB: a request for votes waits for the record too. It states how long the candidate's log is; a candidate
    /// that crashed, lost the end of that log and campaigned in the same term again must find no voter bound
    /// to the longer one.
    fn ask_for_votes(&mut self, round: Round) {
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        let id = self.id();
        for voter in self.configuration.voters.clone() {
            if voter == id {
                continue;
            }
            match round {
                Round::PreVote => {
                    let term = Term(self.term.0 + 1);
                    let body = Body::PreVote { last_index, last_term };
                    self.outbox.send(Message { from: id, to: voter, term, body });
                }
                Round::Vote { transfer } => {
                    self.promise(voter, Body::Vote { last_index, last_term, transfer });
                }
            }
        }
    }

    /// The candidate's vote for itself became durable.
    pub(crate) fn count_own_vote(&mut self, term: Term) {
        if self.role == Role::Candidate && self.term == term {
            self.votes.insert(self.id(), true);
            self.decide();
        }
    }

    fn count_votes(&self) -> Tally {
        tally(&self.configuration.voters, &self.votes)
    }

    fn decide(&mut self) {
        match (self.count_votes(), self.role) {
            (Tally::Won, Role::PreCandidate) => {
                if self.may_campaign() {
                    self.campaign(Round::Vote { transfer: false });
                }
            }
            (Tally::Won, Role::Candidate) => self.become_leader(),
            (Tally::Lost, Role::PreCandidate | Role::Candidate) => {
                self.become_follower(self.term, MemberId::NONE);
            }
            (Tally::Open, Role::PreCandidate | Role::Candidate)
            | (Tally::Won | Tally::Lost | Tally::Open, Role::Follower | Role::Leader) => {}
        }
    }

    pub(crate) fn become_follower(&mut self, term: Term, leader: MemberId) {
        if term > self.term {
            self.term = term;
            self.vote = MemberId::NONE;
        } else if leader.is_some() {
            assert!(
                self.role != Role::Leader,
                "INV-R3: {leader} claims to lead term {term}, which this member leads",
            );
        }
        self.role = Role::Follower;
        self.leader = leader;
        self.leadership = None;
        self.votes.clear();
        self.forwarded.clear();
        self.timer.reset();
    }

    fn become_leader(&mut self) {
        let last_index = self.log.last_index();
        self.role = Role::Leader;
        self.leader = self.id();
        self.votes.clear();
        let uncommitted = self.log.cost(self.log.commit().next(), last_index);
        let mut leadership = Leadership::new(uncommitted);
        leadership.follow(&self.configuration, &self.settings, last_index.next());
        self.leadership = Some(leadership);
        // An entry of its own term is what commits everything before it (thesis §3.6.2, §6.4).
        self.append_own(Payload::Empty);
    }

    /// Whether a leader lives as far as this member knows. Then a campaign that the leader did not ask for is
    /// not answered at all (thesis §4.2.3): a member that was removed or cut off cannot disturb the others.
    fn in_lease(&self) -> bool {
        self.role == Role::Leader || (self.leader.is_some() && self.timer.in_lease())
    }

    /// Moves to a higher term where the message warrants it. False when the message is to be ignored.
    pub(crate) fn admit_higher_term(&mut self, message: &Message) -> bool {
        match &message.body {
            Body::PreVote { .. } => !self.in_lease(),
            // The term is the one that this member asked about; it is nobody's yet.
            Body::PreVoteResponse { granted: true, .. } => true,
            Body::Vote { transfer, .. } => {
                let admitted = *transfer || !self.in_lease();
                if admitted {
                    self.become_follower(message.term, MemberId::NONE);
                }
                admitted
            }
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => {
                self.become_follower(message.term, message.from);
                true
            }
            Body::PreVoteResponse { granted: false, .. }
            | Body::VoteResponse { .. }
            | Body::AppendResponse { .. }
            | Body::HeartbeatResponse { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexResponse { .. } => {
                // Only members of the configuration are asked anything, so only theirs is an answer.
                let admitted = self.is_member(message.from);
                if admitted {
                    self.become_follower(message.term, MemberId::NONE);
                }
                admitted
            }
        }
    }

    /// Tells the sender of an old term that it is over, where that is of use to it.
    pub(crate) fn answer_lower_term(&mut self, message: &Message) {
        match &message.body {
            // A leader of an old term, which may never hear of ours in another way: our own campaigns are
            // ignored under its lease.
            Body::Append { previous_index, .. } => {
                self.reject_append(message.from, *previous_index);
            }
            Body::Heartbeat { .. } | Body::Snapshot { .. } => {
                self.reject_append(message.from, LogIndex(0));
            }
            Body::PreVote { .. } => {
                let committed = self.committed();
                self.send(message.from, Body::PreVoteResponse { granted: false, committed });
            }
            Body::PreVoteResponse { .. }
            | Body::Vote { .. }
            | Body::VoteResponse { .. }
            | Body::AppendResponse { .. }
            | Body::HeartbeatResponse { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexResponse { .. } => {}
        }
    }

    /// Whether the candidate's log holds everything that ours may have helped to commit (thesis §3.6.1).
    fn up_to_date(&self, last_index: LogIndex, last_term: Term) -> bool {
        (last_term, last_index) >= (self.log.last_term(), self.log.last_index())
    }

    /// "Would you vote for me in `term`?" Learners answer too: they may be voters and not know it yet.
    pub(crate) fn handle_pre_vote(
        &mut self,
        from: MemberId,
        term: Term,
        last_index: LogIndex,
        last_term: Term,
    ) {
        let free = term > self.term
            || self.vote == from
            || (!self.vote.is_some() && !self.leader.is_some());
        let granted = free && self.up_to_date(last_index, last_term);
        // A grant speaks of the term to come, a refusal of the one that is.
        let term = if granted { term } else { self.term };
        let body = Body::PreVoteResponse { granted, committed: self.committed() };
        self.outbox.send(Message { from: self.id(), to: from, term, body });
    }

    pub(crate) fn handle_vote(&mut self, from: MemberId, last_index: LogIndex, last_term: Term) {
        let free = self.vote == from || (!self.vote.is_some() && !self.leader.is_some());
        if free && self.up_to_date(last_index, last_term) {
            self.vote = from;
            self.timer.hear();
            let committed = self.committed();
            self.promise(from, Body::VoteResponse { granted: true, committed });
        } else {
            let committed = self.committed();
            self.send(from, Body::VoteResponse { granted: false, committed });
        }
    }

    /// What this member knows to be committed, for whoever asks for its vote.
    fn committed(&self) -> Committed {
        let index = self.log.commit();
        let term = self.log.term(index).expect("memory knows the term at the commit index");
        Committed { index, term }
    }

    /// A voter said what is committed. Where the log holds that very entry, it and all before it are (log matching),
    /// and a candidate that learns of a change in this way must apply it before it counts any vote.
    fn learn(&mut self, committed: Committed) {
        if self.role == Role::Leader || !self.log.matches(committed.index, committed.term) {
            return;
        }
        self.advance_commit(committed.index);
        if self.role != Role::Follower && self.log.change_unapplied(self.applied, self.log.commit())
        {
            self.become_follower(self.term, MemberId::NONE);
        }
    }

    pub(crate) fn handle_pre_vote_response(
        &mut self,
        message: &Message,
        granted: bool,
        committed: Committed,
    ) {
        self.learn(committed);
        let about_next_term = message.term.0 == self.term.0 + 1;
        if self.role == Role::PreCandidate && granted == about_next_term {
            self.votes.entry(message.from).or_insert(granted);
            self.decide();
        }
    }

    pub(crate) fn handle_vote_response(
        &mut self,
        from: MemberId,
        granted: bool,
        committed: Committed,
    ) {
        self.learn(committed);
        if self.role == Role::Candidate {
            self.votes.entry(from).or_insert(granted);
            self.decide();
        }
    }
}
