//! Leader transfer (thesis §3.10), and the watchdog that hands over when the disk stalls.

use crate::election::Round;
use crate::progress::Progress;
use crate::{Body, Consensus, MemberId, Role};

/// A hand-over under way. Proposals are refused meanwhile, so that the heir can catch up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: MemberId,
    ticks: u32,
}

impl Consensus {
    /// Somebody wants another leader.
    pub(crate) fn transfer_leader(&mut self, to: MemberId) {
        let to = if to.is_some() { to } else { self.best_voter().unwrap_or_default() };
        let Some(leadership) = &mut self.leadership else { return };
        if to == self.settings.id
            || !self.configuration.voters.contains(&to)
            || leadership.transfer.is_some_and(|transfer| transfer.to == to)
        {
            return;
        }
        leadership.transfer = Some(Transfer { to, ticks: 0 });
        if let Some(progress) = leadership.progress.get_mut(&to) {
            // Ask at once where it stands: what is on its way may have been lost.
            progress.paused = false;
            progress.nudge = progress.matched < self.log.last_index();
        }
        self.maybe_time_out_heir();
    }

    /// The voter that would lead soonest: heard of lately, and with the longest durable log.
    fn best_voter(&self) -> Option<MemberId> {
        let leadership = self.leadership.as_ref()?;
        let election_ticks = self.settings.election_ticks;
        let fit = |member: &MemberId, progress: &Progress| {
            self.configuration.voters.contains(member) && progress.active(election_ticks)
        };
        let candidates =
            leadership.progress.iter().filter(|(member, progress)| fit(member, progress));
        candidates.max_by_key(|(_, progress)| progress.matched).map(|(member, _)| *member)
    }

    /// Tells the heir to campaign once its log is as long as ours. Repeated with each heartbeat, since the
    /// message may be lost; an heir that campaigned already is in a later term and ignores it.
    pub(crate) fn maybe_time_out_heir(&mut self) {
        let Some(leadership) = &self.leadership else { return };
        let Some(Transfer { to, .. }) = leadership.transfer else { return };
        let caught_up =
            leadership.progress.get(&to).is_some_and(|p| p.matched == self.log.last_index());
        if caught_up {
            self.send(to, Body::TimeoutNow);
        }
    }

    /// A transfer that takes longer than an election timeout is given up, so that proposals are taken again. A
    /// leader that wanted to get rid of a stalled disk steps down instead: somebody else will be elected.
    pub(crate) fn tick_transfer(&mut self) {
        let Some(leadership) = &mut self.leadership else { return };
        let Some(transfer) = &mut leadership.transfer else { return };
        transfer.ticks += 1;
        if transfer.ticks < self.settings.election_ticks {
            return;
        }
        leadership.transfer = None;
        if self.stalled && !self.sole_voter() {
            self.become_follower(self.term, MemberId::NONE);
        }
    }

    /// The leader hands over to this member: campaign at once, whatever the leases say.
    pub(crate) fn handle_timeout_now(&mut self, from: MemberId) {
        if self.role == Role::Follower && self.leader == from && self.may_campaign() {
            self.campaign(Round::Vote { transfer: true });
        }
    }

    /// The watchdog of design §3: a leader whose disk stalls would keep its followers and commit nothing of its
    /// own (etcd issue 13527). A sole voter has nobody to hand over to and waits.
    pub(crate) fn disk_stalled(&mut self, stalled: bool) {
        self.stalled = stalled;
        if stalled {
            self.hand_over();
        }
    }

    /// Gives leadership away unless that is under way, or impossible.
    pub(crate) fn hand_over(&mut self) {
        let under_way = self.leadership.as_ref().is_none_or(|leads| leads.transfer.is_some());
        if under_way || self.sole_voter() {
            return;
        }
        match self.best_voter() {
            Some(heir) => self.transfer_leader(heir),
            None => self.become_follower(self.term, MemberId::NONE),
        }
    }
}
