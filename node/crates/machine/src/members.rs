//! Who belongs to the cluster, and which changes of that are refused on every member alike.
//!
//! Source: `server/etcdserver/api/membership/cluster.go` (ValidateConfigurationChange). What hangs on a flag or on who is
//! reachable (learners allowed, started members, learners in sync) is checked before proposing, not here.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Command, DecodeError, FeatureLevel, Incarnation, Member, MemberId, Rejected,
    codec::{put_member, read_member},
    digest::Digest,
    wire::{Reader, put_varint},
};

/// The members, and the ids of those removed, which are never used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<MemberId, Member>,
    removed: BTreeSet<MemberId>,
    digest: u64,
}

impl Membership {
    /// The members that a cluster is formed of.
    ///
    /// # Panics
    /// If two have one id.
    #[must_use]
    pub fn formed_of(members: Vec<Member>) -> Self {
        let count = members.len();
        let members: BTreeMap<_, _> =
            members.into_iter().map(|member| (member.id, member)).collect();
        assert!(members.len() == count, "a cluster is formed of members with ids of their own");
        let mut membership = Self { members, removed: BTreeSet::new(), digest: 0 };
        membership.changed();
        membership
    }

    /// All members in order of id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// All members in order of id.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Member> {
        self.iter().cloned().collect()
    }

    /// One member.
    #[must_use]
    pub fn get(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Whether this id was a member's and is no more: its messages are answered with that.
    #[must_use]
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// The ids of removed members, in order.
    pub fn removed(&self) -> impl ExactSizeIterator<Item = MemberId> {
        self.removed.iter().copied()
    }

    /// Whether apply would accept a membership command now. Every other command is accepted here.
    ///
    /// # Errors
    /// Why not.
    pub fn would_accept(&self, command: &Command) -> Result<(), Rejected> {
        match command {
            Command::MemberAdd(member) => self.check_add(member),
            Command::MemberPromote { id } => self.check_promote(*id),
            Command::MemberRemove { id } => self.check_remove(*id),
            Command::MemberUpdate { id, peer_urls } => self.check_update(*id, peer_urls),
            Command::MemberPublish {
                id,
                name: _,
                client_urls: _,
                incarnation,
                feature_level: _,
            } => self.check_publish(*id, *incarnation),
            Command::Put(_)
            | Command::DeleteRange(_)
            | Command::Txn(_)
            | Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseExpire { .. }
            | Command::LeaseRenew { .. }
            | Command::Alarm { .. }
            | Command::FeatureLevel { .. }
            | Command::Clock
            | Command::Next(_) => Ok(()),
        }
    }

    fn known(&self, id: MemberId) -> Result<&Member, Rejected> {
        if self.is_removed(id) {
            return Err(Rejected::MemberRemoved);
        }
        self.get(id).ok_or(Rejected::MemberNotFound)
    }

    fn check_add(&self, new: &Member) -> Result<(), Rejected> {
        match self.known(new.id) {
            Ok(_) => Err(Rejected::MemberExists),
            Err(Rejected::MemberNotFound) => self.check_urls(new.id, &new.peer_urls),
            Err(other) => Err(other),
        }
    }

    fn check_promote(&self, id: MemberId) -> Result<(), Rejected> {
        let member = self.known(id)?;
        if !member.learner {
            return Err(Rejected::NotLearner);
        }
        if member.incarnation == Incarnation::default() {
            return Err(Rejected::LearnerUnpublished);
        }
        Ok(())
    }

    fn check_remove(&self, id: MemberId) -> Result<(), Rejected> {
        let member = self.known(id)?;
        let voters = self.iter().filter(|member| !member.learner).count();
        if !member.learner && voters == 1 { Err(Rejected::LastVoter) } else { Ok(()) }
    }

    fn check_update(&self, id: MemberId, peer_urls: &[String]) -> Result<(), Rejected> {
        self.known(id)?;
        self.check_urls(id, peer_urls)
    }

    fn check_publish(&self, id: MemberId, incarnation: Incarnation) -> Result<(), Rejected> {
        let member = self.known(id)?;
        let recorded = member.incarnation;
        // A learner has promised nothing yet, so it may start over.
        if !member.learner && recorded != Incarnation::default() && recorded != incarnation {
            return Err(Rejected::OtherIncarnation);
        }
        Ok(())
    }

    fn check_urls(&self, id: MemberId, peer_urls: &[String]) -> Result<(), Rejected> {
        let mut others = self.iter().filter(|member| member.id != id);
        if others.any(|member| member.peer_urls.iter().any(|url| peer_urls.contains(url))) {
            return Err(Rejected::PeerUrlExists);
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, member: &Member) -> Result<(), Rejected> {
        self.check_add(member)?;
        self.members.insert(member.id, member.clone());
        self.changed();
        Ok(())
    }

    pub(crate) fn promote(&mut self, id: MemberId) -> Result<(), Rejected> {
        self.check_promote(id)?;
        self.change(id, |member| member.learner = false)
    }

    pub(crate) fn remove(&mut self, id: MemberId) -> Result<(), Rejected> {
        self.check_remove(id)?;
        self.members.remove(&id);
        self.removed.insert(id);
        self.changed();
        Ok(())
    }

    pub(crate) fn update(&mut self, id: MemberId, peer_urls: &[String]) -> Result<(), Rejected> {
        self.check_update(id, peer_urls)?;
        self.change(id, |member| member.peer_urls = peer_urls.to_vec())
    }

    pub(crate) fn publish(
        &mut self,
        id: MemberId,
        name: &str,
        client_urls: &[String],
        incarnation: Incarnation,
        feature_level: FeatureLevel,
    ) -> Result<(), Rejected> {
        self.check_publish(id, incarnation)?;
        self.change(id, |member| {
            name.clone_into(&mut member.name);
            member.client_urls = client_urls.to_vec();
            member.incarnation = incarnation;
            member.feature_level = feature_level;
        })
    }

    /// Whether every member has told that it knows this level.
    pub(crate) fn all_know(&self, level: FeatureLevel) -> bool {
        self.iter().all(|member| member.feature_level >= level)
    }

    fn change(&mut self, id: MemberId, change: impl FnOnce(&mut Member)) -> Result<(), Rejected> {
        change(self.members.get_mut(&id).ok_or(Rejected::MemberNotFound)?);
        self.changed();
        Ok(())
    }

    /// Memberships are small and change seldom: the digest is made anew.
    fn changed(&mut self) {
        let mut out = Vec::new();
        self.encode(&mut out);
        self.digest = Digest::new(3).bytes(&out).value();
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.members.len() as u64);
        for member in self.members.values() {
            put_member(out, member);
        }
        put_varint(out, self.removed.len() as u64);
        for id in &self.removed {
            put_varint(out, id.0);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let members = reader.list(read_member)?;
        let removed = reader.list(|reader| reader.varint().map(MemberId))?;
        let mut membership = Self {
            members: members.into_iter().map(|member| (member.id, member)).collect(),
            removed: removed.into_iter().collect(),
            digest: 0,
        };
        membership.changed();
        Ok(membership)
    }
}
