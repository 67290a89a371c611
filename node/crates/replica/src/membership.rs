//! Which changes of membership are safe now: etcd's rules, checked by the leader before it proposes.
//!
//! Sources: `server/etcdserver/api/membership/cluster.go` (IsReadyToAdd…, IsReadyToRemove…, IsReadyToPromote…) and
//! `server/etcdserver/server.go` (mayAddMember, mayRemoveMember, isLearnerReady).

use quorate_consensus::{ConfigurationChange, MemberId, ProgressView};
use quorate_machine::{Command, Incarnation, Member};

/// Why a change is refused before it is proposed: nothing has happened, and the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// After it, the members that have started would be no quorum.
    NotEnoughStartedMembers,
    /// A voter has not been heard of lately, or removing a live one would leave too few live ones.
    Unhealthy,
    /// The learner's log is behind 90 % of the leader's.
    LearnerNotReady,
    /// The member to promote votes already.
    NotLearner,
    /// There is no such member.
    NotFound,
    /// A member with this id, or with one of these peer URLs, is there.
    Exists,
    /// A peer URL belongs to another member.
    PeerUrlExists,
    /// There are as many learners as `--max-learners` allows.
    TooManyLearners,
}

/// What the rules look at: the applied membership and the leader's view of its peers.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// All members.
    pub members: &'a [Member],
    /// The leader's knowledge of each, itself included.
    pub progress: &'a [ProgressView],
    /// The leader.
    pub leader: MemberId,
    /// `--strict-reconfig-check`.
    pub strict: bool,
    /// `--max-learners`.
    pub learners_max: usize,
}

/// Consensus's part of a membership command; none for commands that change no configuration.
#[must_use]
pub fn configuration_change(command: &Command) -> Option<ConfigurationChange> {
    match command {
        Command::MemberAdd(member) if member.learner => {
            Some(ConfigurationChange::AddLearner(MemberId(member.id.0)))
        }
        Command::MemberAdd(member) => Some(ConfigurationChange::AddVoter(MemberId(member.id.0))),
        Command::MemberPromote { id } => Some(ConfigurationChange::AddVoter(MemberId(id.0))),
        Command::MemberRemove { id } => Some(ConfigurationChange::Remove(MemberId(id.0))),
        Command::Put(_)
        | Command::DeleteRange(_)
        | Command::Txn(_)
        | Command::Compact { .. }
        | Command::LeaseGrant { .. }
        | Command::LeaseRevoke { .. }
        | Command::LeaseExpire { .. }
        | Command::LeaseRenew { .. }
        | Command::Alarm { .. }
        | Command::MemberUpdate { .. }
        | Command::MemberPublish { .. }
        | Command::FeatureLevel { .. }
        | Command::Clock
        | Command::Next(_) => None,
    }
}

impl Situation<'_> {
    /// Whether the command may be proposed now.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, command: &Command) -> Result<(), ChangeRefusal> {
        match command {
            Command::MemberAdd(member) => self.check_add(member),
            Command::MemberPromote { id } => self.check_promote(MemberId(id.0)),
            Command::MemberRemove { id } => self.check_remove(MemberId(id.0)),
            Command::Put(_)
            | Command::DeleteRange(_)
            | Command::Txn(_)
            | Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseExpire { .. }
            | Command::LeaseRenew { .. }
            | Command::Alarm { .. }
            | Command::MemberUpdate { .. }
            | Command::MemberPublish { .. }
            | Command::FeatureLevel { .. }
            | Command::Clock
            | Command::Next(_) => Ok(()),
        }
    }

    fn check_add(&self, new: &Member) -> Result<(), ChangeRefusal> {
        if self.members.iter().any(|member| member.id == new.id) {
            return Err(ChangeRefusal::Exists);
        }
        if self
            .members
            .iter()
            .flat_map(|member| &member.peer_urls)
            .any(|url| new.peer_urls.contains(url))
        {
            return Err(ChangeRefusal::PeerUrlExists);
        }
        if new.learner {
            let learners = self.members.iter().filter(|member| member.learner).count();
            return if learners < self.learners_max {
                Ok(())
            } else {
                Err(ChangeRefusal::TooManyLearners)
            };
        }
        if !self.strict {
            return Ok(());
        }
        let (started, voters) = self.started_voters(MemberId::NONE);
        // etcd lets a single started member become two: there is no other way to grow.
        let growing_from_one = started == 1 && voters == 1;
        if !growing_from_one && started < quorum(voters + 1) {
            return Err(ChangeRefusal::NotEnoughStartedMembers);
        }
        self.all_voters_heard_of()
    }

    fn check_promote(&self, id: MemberId) -> Result<(), ChangeRefusal> {
        let member = self.member(id).ok_or(ChangeRefusal::NotFound)?;
        if !member.learner {
            return Err(ChangeRefusal::NotLearner);
        }
        // Until its data directory is recorded nobody could tell whether it comes back with another (design §5).
        if member.incarnation == Incarnation(0) || !self.learner_in_sync(id) {
            return Err(ChangeRefusal::LearnerNotReady);
        }
        if !self.strict {
            return Ok(());
        }
        let (started, voters) = self.started_voters(MemberId::NONE);
        let promoted_started = usize::from(!member.name.is_empty());
        if started + promoted_started < quorum(voters + 1) {
            return Err(ChangeRefusal::NotEnoughStartedMembers);
        }
        Ok(())
    }

    fn check_remove(&self, id: MemberId) -> Result<(), ChangeRefusal> {
        let member = self.member(id).ok_or(ChangeRefusal::NotFound)?;
        if !self.strict || member.learner {
            return Ok(());
        }
        let (started, voters) = self.started_voters(id);
        if started < quorum(voters) {
            return Err(ChangeRefusal::NotEnoughStartedMembers);
        }
        if id != self.leader && !self.heard_of(id) {
            // It takes no part in the live quorum, so nothing is lost with it.
            return Ok(());
        }
        let live = self.voters().filter(|voter| self.heard_of(MemberId(voter.id.0))).count();
        let total = self.voters().count();
        if live.saturating_sub(1) < quorum(total - 1) {
            return Err(ChangeRefusal::Unhealthy);
        }
        Ok(())
    }

    fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id.0 == id.0)
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.learner)
    }

    /// (started, all) voters without the given one. A member has started once it has published its name.
    fn started_voters(&self, without: MemberId) -> (usize, usize) {
        let voters = self.voters().filter(|member| member.id.0 != without.0);
        voters.fold((0, 0), |(started, all), member| {
            (started + usize::from(!member.name.is_empty()), all + 1)
        })
    }

    fn heard_of(&self, id: MemberId) -> bool {
        id == self.leader
            || self.progress.iter().any(|progress| progress.member == id && progress.active)
    }

    fn all_voters_heard_of(&self) -> Result<(), ChangeRefusal> {
        if self.voters().all(|voter| self.heard_of(MemberId(voter.id.0))) {
            Ok(())
        } else {
            Err(ChangeRefusal::Unhealthy)
        }
    }

    /// etcd's readyPercentThreshold: 90 % of the leader's own match index.
    fn learner_in_sync(&self, id: MemberId) -> bool {
        let matched = |wanted: MemberId| {
            self.progress
                .iter()
                .find(|progress| progress.member == wanted)
                .map(|progress| progress.matched.0)
        };
        match (matched(id), matched(self.leader)) {
            (Some(learner), Some(leader)) => {
                self.heard_of(id) && u128::from(learner) * 10 >= u128::from(leader) * 9
            }
            (None, _) | (_, None) => false,
        }
    }
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests {
    use quorate_consensus::LogIndex;

    use super::*;

    /// Members 1..=n: `started` ones have a name, `live` ones were heard of; a learner is 10.
    struct World {
        members: Vec<Member>,
        progress: Vec<ProgressView>,
    }

    fn world(voters: u64, started: u64, live: u64) -> World {
        let member = |id: u64, learner: bool, started: bool| Member {
            id: quorate_machine::MemberId(id),
            name: if started { format!("m{id}") } else { String::new() },
            peer_urls: vec![format!("http://m{id}:2380")],
            learner,
            ..Member::default()
        };
        World {
            members: (1..=voters).map(|id| member(id, false, id <= started)).collect(),
            progress: (1..=voters).map(|id| progress(id, 100, id <= live)).collect(),
        }
    }

    fn progress(id: u64, matched: u64, active: bool) -> ProgressView {
        ProgressView { member: MemberId(id), matched: LogIndex(matched), active, learner: id == 10 }
    }

    fn check(world: &World, command: &Command) -> Result<(), ChangeRefusal> {
        Situation {
            members: &world.members,
            progress: &world.progress,
            leader: MemberId(1),
            strict: true,
            learners_max: 1,
        }
        .check(command)
    }

    fn add(id: u64, learner: bool) -> Command {
        Command::MemberAdd(Member {
            id: quorate_machine::MemberId(id),
            peer_urls: vec![format!("http://m{id}:2380")],
            learner,
            ..Member::default()
        })
    }

    fn remove(id: u64) -> Command {
        Command::MemberRemove { id: quorate_machine::MemberId(id) }
    }

    #[test]
    fn a_voter_is_added_only_to_a_cluster_that_keeps_quorum_without_it() {
        for (voters, started, live, expected) in [
            (1, 1, 1, Ok(())),
            (2, 1, 1, Err(ChangeRefusal::NotEnoughStartedMembers)),
            (3, 3, 3, Ok(())),
            (3, 3, 2, Err(ChangeRefusal::Unhealthy)),
            (3, 2, 3, Err(ChangeRefusal::NotEnoughStartedMembers)),
            (4, 3, 4, Ok(())),
        ] {
            let world = world(voters, started, live);
            assert_eq!(check(&world, &add(9, false)), expected, "{voters} {started} {live}");
        }
    }

    #[test]
    fn a_member_is_removed_only_if_the_live_rest_is_a_quorum() {
        for (voters, started, live, victim, expected) in [
            (1, 1, 1, 1, Err(ChangeRefusal::NotEnoughStartedMembers)),
            (2, 2, 2, 2, Ok(())),
            (3, 3, 3, 1, Ok(())),
            (3, 3, 2, 2, Err(ChangeRefusal::Unhealthy)),
            (3, 3, 2, 3, Ok(())),
            (3, 2, 3, 1, Err(ChangeRefusal::NotEnoughStartedMembers)),
            (3, 2, 2, 3, Ok(())),
            (5, 5, 4, 2, Ok(())),
            (5, 5, 3, 2, Err(ChangeRefusal::Unhealthy)),
        ] {
            let world = world(voters, started, live);
            assert_eq!(
                check(&world, &remove(victim)),
                expected,
                "{voters} {started} {live} -{victim}"
            );
        }
    }

    #[test]
    fn a_learner_is_promoted_when_it_holds_nine_tenths_of_the_log() {
        let promote = Command::MemberPromote { id: quorate_machine::MemberId(10) };
        let mut world = world(3, 3, 3);
        assert_eq!(check(&world, &promote), Err(ChangeRefusal::NotFound));
        world.members.push(Member {
            id: quorate_machine::MemberId(10),
            name: "m10".into(),
            learner: true,
            ..Member::default()
        });
        world.progress.push(progress(10, 100, true));
        assert_eq!(check(&world, &promote), Err(ChangeRefusal::LearnerNotReady), "unpublished");
        world.members[3].incarnation = Incarnation(1);
        for (matched, active, expected) in [
            (89, true, Err(ChangeRefusal::LearnerNotReady)),
            (90, false, Err(ChangeRefusal::LearnerNotReady)),
            (90, true, Ok(())),
        ] {
            world.progress.retain(|progress| progress.member != MemberId(10));
            world.progress.push(progress(10, matched, active));
            assert_eq!(check(&world, &promote), expected, "{matched} {active}");
        }
    }

    #[test]
    fn learners_are_few_and_urls_belong_to_one() {
        let mut world = world(3, 3, 3);
        assert_eq!(check(&world, &add(2, true)), Err(ChangeRefusal::Exists));
        assert_eq!(check(&world, &add(9, true)), Ok(()));
        world.members.push(Member {
            id: quorate_machine::MemberId(10),
            peer_urls: vec!["http://m11:2380".into()],
            learner: true,
            ..Member::default()
        });
        assert_eq!(check(&world, &add(9, true)), Err(ChangeRefusal::TooManyLearners));
        assert_eq!(check(&world, &add(11, false)), Err(ChangeRefusal::PeerUrlExists));
    }
}
