//! What a member does with what its leader sends: entries, heartbeats, snapshots.

use crate::{
    Body, Consensus, Entry, LogIndex, MemberId, Message, ReadContext, Role, SnapshotMeta, Term,
};

impl Consensus {
    /// Takes a message apart: first its term, then what it says.
    pub(crate) fn handle_message(&mut self, message: Message) {
        if message.to != self.id() || message.from == self.id() || !message.from.is_some() {
            return;
        }
        if message.term < self.term {
            self.answer_lower_term(&message);
            return;
        }
        if message.term > self.term && !self.admit_higher_term(&message) {
            return;
        }
        let Message { from, term, ref body, .. } = message;
        match *body {
            Body::PreVote { last_index, last_term } => {
                self.handle_pre_vote(from, term, last_index, last_term);
            }
            Body::PreVoteResponse { granted, committed } => {
                self.handle_pre_vote_response(&message, granted, committed);
            }
            Body::Vote { last_index, last_term, .. } => {
                self.handle_vote(from, last_index, last_term);
            }
            Body::VoteResponse { granted, committed } => {
                self.handle_vote_response(from, granted, committed);
            }
            Body::Append { .. } => self.handle_append(message),
            Body::AppendResponse { index, commit, rejection } => {
                self.handle_append_response(from, index, commit, rejection);
            }
            Body::Heartbeat { commit, context } => self.handle_heartbeat(from, commit, context),
            Body::HeartbeatResponse { context } => self.handle_heartbeat_response(from, context),
            Body::Snapshot { ref meta } => self.handle_snapshot(from, meta.clone()),
            Body::TimeoutNow => self.handle_timeout_now(from),
            Body::ReadIndex { ticket } => self.handle_read_index(from, ticket),
            Body::ReadIndexResponse { ticket, index } => {
                self.handle_read_index_response(from, ticket, index);
            }
        }
    }

    /// The sender leads this term: follow it.
    fn follow(&mut self, leader: MemberId) {
        assert!(
            self.role != Role::Leader,
            "INV-R3: {leader} claims to lead term {}, which this member leads",
            self.term,
        );
        assert!(
            !self.leader.is_some() || self.leader == leader,
            "INV-R3: {leader} claims to lead term {}, which {} leads",
            self.term,
            self.leader,
        );
        if self.role != Role::Follower || self.leader != leader {
            self.become_follower(self.term, leader);
        }
        self.timer.hear();
    }

    fn handle_append(&mut self, message: Message) {
        let Message { from, body, .. } = message;
        let Body::Append { previous_index, previous_term, entries, commit } = body else { return };
        self.follow(from);
        let consecutive =
            entries.iter().zip(previous_index.0 + 1..).all(|(entry, index)| entry.index.0 == index);
        assert!(
            consecutive,
            "INV-R1: {from} sent entries that do not follow each other after {previous_index}",
        );
        if previous_index < self.log.commit()
            && entries.last().is_none_or(|e| e.index <= self.log.commit())
        {
            // Old news: what is committed matches by the leader's completeness (thesis §3.6.3).
            self.acknowledge(from, self.log.commit());
            return;
        }
        if previous_index >= self.log.commit() && !self.log.matches(previous_index, previous_term) {
            let hint = self.log.hint(previous_index, previous_term);
            let commit = self.journal.durable_state().commit;
            let rejection = Some(hint);
            self.send(from, Body::AppendResponse { index: previous_index, commit, rejection });
            return;
        }
        let last_new = entries.last().map_or(previous_index, |entry| entry.index);
        self.splice(entries);
        self.advance_commit(commit.min(last_new));
        self.acknowledge(from, last_new);
    }

    /// Takes over the entries that the log does not hold, dropping from the first conflict on (thesis §3.5).
    fn splice(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if entry.index <= self.log.commit() || self.log.matches(entry.index, entry.term) {
                continue;
            }
            if entry.index <= self.log.last_index() {
                self.log.truncate(entry.index);
                self.journal.truncated(entry.index);
            }
            self.log.push(entry);
        }
    }

    /// "I hold everything up to `index`", once that is durable.
    pub(crate) fn acknowledge(&mut self, leader: MemberId, index: LogIndex) {
        // The commit index named is the one that the record awaited carries.
        let commit =
            if self.unwritten() { self.log.commit() } else { self.journal.written_state().commit };
        self.promise(leader, Body::AppendResponse { index, commit, rejection: None });
    }

    /// Refuses an append that does not fit, naming where the logs may meet.
    pub(crate) fn reject_append(&mut self, to: MemberId, previous_index: LogIndex) {
        let hint = self.log.hint(previous_index, Term(u64::MAX));
        let commit = self.journal.durable_state().commit;
        self.send(
            to,
            Body::AppendResponse { index: previous_index, commit, rejection: Some(hint) },
        );
    }

    fn handle_heartbeat(&mut self, from: MemberId, commit: LogIndex, context: ReadContext) {
        self.follow(from);
        self.advance_commit(commit);
        self.send(from, Body::HeartbeatResponse { context });
    }

    /// Raises the commit index. A committed change gets its own record at once: what it changes is who may elect whom.
    pub(crate) fn advance_commit(&mut self, index: LogIndex) {
        let before = self.log.commit();
        if index <= before {
            return;
        }
        let cost = self.log.cost(before.next(), index);
        if let Some(leadership) = &mut self.leadership {
            leadership.uncommitted_bytes -= cost;
        }
        self.log.commit_to(index);
        self.commit_urgent |= self.log.change_between(before, index);
        self.trim_memory();
    }

    fn handle_snapshot(&mut self, from: MemberId, meta: SnapshotMeta) {
        self.follow(from);
        if meta.index <= self.log.commit() {
            self.acknowledge(from, self.log.commit());
        } else if self.log.matches(meta.index, meta.term) {
            // The log got here by itself while the leader prepared the stream.
            self.advance_commit(meta.index);
            self.acknowledge(from, meta.index);
        } else {
            self.outbox.output.install = Some((from, meta));
        }
    }
}
