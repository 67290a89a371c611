//! Membership: which changes may be proposed, what they do when applied, how a removed leader leaves (thesis §4).

use crate::{
    Body, Configuration, ConfigurationChange, Consensus, LogIndex, MemberId, Refusal, Role,
};

impl Configuration {
    /// Whether the change says something that is not so already, and leaves a voter.
    #[must_use]
    pub fn admits(&self, change: ConfigurationChange) -> bool {
        match change {
            ConfigurationChange::AddVoter(id) => id.is_some() && !self.voters.contains(&id),
            ConfigurationChange::AddLearner(id) => {
                id.is_some() && !self.voters.contains(&id) && !self.learners.contains(&id)
            }
            ConfigurationChange::Remove(id) => {
                self.learners.contains(&id) || (self.voters.contains(&id) && self.voters.len() > 1)
            }
        }
    }

    /// Carries the change out.
    pub fn apply(&mut self, change: ConfigurationChange) {
        match change {
            ConfigurationChange::AddVoter(id) => {
                self.learners.remove(&id);
                self.voters.insert(id);
            }
            ConfigurationChange::AddLearner(id) => {
                if !self.voters.contains(&id) {
                    self.learners.insert(id);
                }
            }
            ConfigurationChange::Remove(id) => {
                self.learners.remove(&id);
                self.voters.remove(&id);
            }
        }
    }
}

impl Consensus {
    /// One change at a time, each on top of an applied one, and none before this leader's own term has a
    /// committed entry: two consecutive configurations then share a majority, across leaders too (Ongaro's
    /// correction of thesis §4.1; INV-R7).
    pub(crate) fn admit_change(&self, change: ConfigurationChange) -> Result<(), Refusal> {
        if !self.committed_in_term()
            || self.log.change_unapplied(self.applied, self.log.last_index())
        {
            return Err(Refusal::ChangeInFlight);
        }
        if !self.configuration.admits(change) {
            return Err(Refusal::ChangeInvalid);
        }
        Ok(())
    }

    /// A change was applied: from now on it counts.
    pub(crate) fn take_effect(&mut self, at: LogIndex, change: ConfigurationChange) {
        let mut configuration = self.configuration.clone();
        configuration.apply(change);
        assert!(
            !configuration.voters.is_empty() || self.configuration.voters.is_empty(),
            "INV-R7: entry {at} removes the last voter",
        );
        let was_voter = self.configuration.voters.contains(&self.id());
        self.adopt(configuration);
        if was_voter
            && !self.configuration.voters.contains(&self.id())
            && let Some(leadership) = &mut self.leadership
        {
            leadership.farewell = Some(at);
            self.maybe_leave();
        }
    }

    /// Makes this configuration the current one, and everything counted by majority counted anew.
    pub(crate) fn adopt(&mut self, configuration: Configuration) {
        self.configuration = configuration;
        let next = self.log.last_index().next();
        if let Some(leadership) = &mut self.leadership {
            leadership.follow(&self.configuration, &self.settings, next);
            let voters = &self.configuration.voters;
            if leadership.transfer.as_ref().is_some_and(|t| !voters.contains(&t.to)) {
                leadership.transfer = None;
            }
        } else if !self.configuration.voters.contains(&self.id())
            && matches!(self.role, Role::Candidate | Role::PreCandidate)
        {
            self.become_follower(self.term, MemberId::NONE);
        }
        self.maybe_commit();
        self.answer_reads();
    }

    /// A removed leader leaves once a remaining voter has the removal's commit on disk: had it left earlier and
    /// had that voter forgotten, the two would need each other for an election, and one of them is gone.
    pub(crate) fn maybe_leave(&mut self) {
        let Some(leadership) = &self.leadership else { return };
        let Some(removal) = leadership.farewell else { return };
        let voters = &self.configuration.voters;
        let told = leadership.progress.iter().filter(|(member, progress)| {
            voters.contains(member) && progress.commit_known >= removal
        });
        let Some((heir, _)) = told.max_by_key(|(_, progress)| progress.matched) else { return };
        let heir = *heir;
        // No election timeout is worth waiting for: the heir campaigns at once.
        self.send(heir, Body::TimeoutNow);
        self.become_follower(self.term, MemberId::NONE);
    }
}
