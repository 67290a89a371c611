//! The invariants that hold between any two inputs, as one chain of assertions.

use crate::{Consensus, MemberId, Role};

impl Consensus {
    /// Asserts every invariant of this room. Tests and the simulator call it after each input; it costs a walk
    /// over members and records, not over entries.
    ///
    /// # Panics
    ///
    /// When one is broken: a defect of this room, or of what feeds it.
    pub fn check_invariants(&self) {
        self.check_order_of_indexes();
        self.check_promises();
        self.check_role();
        self.check_reads();
        self.check_configuration();
        self.journal.check(self.log.last_index());
    }

    fn check_order_of_indexes(&self) {
        let chain = [
            ("compacted", self.compacted),
            ("applied", self.applied),
            ("handed out", self.handed),
            ("committed", self.log.commit()),
            ("last", self.log.last_index()),
        ];
        for pair in chain.windows(2) {
            let [(lower_name, lower), (upper_name, upper)] = pair else { continue };
            assert!(lower <= upper, "INV-R1: {lower_name} {lower} is beyond {upper_name} {upper}");
        }
        assert!(
            self.log.start() <= self.log.commit(),
            "INV-R1: memory begins after {}, and only {} is committed",
            self.log.start(),
            self.log.commit(),
        );
        assert!(
            self.handed <= self.durable_index(),
            "INV-R5: the machine was given entry {}, and the own log is durable up to {}",
            self.handed,
            self.durable_index(),
        );
    }

    fn check_promises(&self) {
        if let Some(sequence) = self.outbox.oldest_held() {
            assert!(
                sequence > self.journal.durable(),
                "INV-R2: a promise of record {sequence} is held, and record {} is durable",
                self.journal.durable(),
            );
        }
        let durable = self.journal.durable_state();
        assert!(
            durable.term <= self.term,
            "INV-R2: term {} is durable, and this member is in term {}",
            durable.term,
            self.term,
        );
        if matches!(self.role, Role::Leader) {
            assert!(
                (durable.term, durable.vote) == (self.term, self.id()),
                "INV-R2: this member leads term {} without a durable vote for itself ({durable:?})",
                self.term,
            );
        }
    }

    fn check_role(&self) {
        let leads = self.role == Role::Leader;
        assert!(
            leads == self.leadership.is_some(),
            "INV-R3: role {:?} does not fit what a leader has",
            self.role,
        );
        assert!(
            leads == (self.leader == self.id()),
            "INV-R3: role {:?}, and {} is called the leader",
            self.role,
            self.leader,
        );
        if matches!(self.role, Role::Candidate | Role::PreCandidate) {
            assert!(self.leader == MemberId::NONE, "INV-R3: a candidate follows {}", self.leader,);
        }
        let Some(leadership) = &self.leadership else { return };
        let last_index = self.log.last_index();
        for (member, progress) in &leadership.progress {
            assert!(
                progress.matched < progress.next,
                "INV-R1: {member} holds entry {}, and {} is to be sent next",
                progress.matched,
                progress.next,
            );
            assert!(
                progress.next <= last_index.next(),
                "INV-R1: {member} is to be sent entry {} of a log that ends at {last_index}",
                progress.next,
            );
        }
        let uncommitted = self.log.cost(self.log.commit().next(), last_index);
        assert!(
            leadership.uncommitted_bytes == uncommitted,
            "INV-R1: {} bytes are counted as uncommitted, and the log has {uncommitted}",
            leadership.uncommitted_bytes,
        );
    }

    fn check_reads(&self) {
        assert!(
            self.forwarded.is_empty() || self.role == Role::Follower,
            "INV-R4: a {:?} waits for a leader's answer to its reads",
            self.role,
        );
        if let Some(leadership) = &self.leadership {
            assert!(leadership.reads.rising(), "INV-R4: read rounds do not rise");
        }
    }

    fn check_configuration(&self) {
        let both = self.configuration.voters.intersection(&self.configuration.learners).next();
        assert!(both.is_none(), "INV-R7: {both:?} is voter and learner at once");
        assert!(
            self.log.changes_uncommitted() <= 1,
            "INV-R7: {} changes of the configuration are in flight",
            self.log.changes_uncommitted(),
        );
        let Some(leadership) = &self.leadership else { return };
        let last_index = self.log.last_index();
        let committed = self.log.commit();
        let two_steps = self.log.change_between(self.applied, committed)
            && self.log.change_between(committed, last_index);
        assert!(!two_steps, "INV-R7: a change was proposed on top of one that is not applied");
        let members = self.configuration.voters.iter().chain(&self.configuration.learners);
        let count = members.filter(|member| **member != self.id()).count();
        assert!(
            leadership.progress.len() == count,
            "INV-R7: the leader follows {} members, and the configuration names {count} others",
            leadership.progress.len(),
        );
    }
}
