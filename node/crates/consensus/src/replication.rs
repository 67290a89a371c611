//! The leader's side of replication: heartbeats, appends, answers, the commit index.

use crate::limits::INSTALL_ELECTIONS_MAX;
use crate::progress::State;
use crate::quorum::{agreed, majority};
use crate::{Body, Consensus, Entry, Fetch, LogIndex, MemberId, Message, ReadContext, Rejection};

impl Consensus {
    pub(crate) fn tick_leader(&mut self) {
        let install_ticks_max = self.settings.election_ticks.saturating_mul(INSTALL_ELECTIONS_MAX);
        let Some(leadership) = &mut self.leadership else { return };
        for progress in leadership.progress.values_mut() {
            progress.tick(install_ticks_max);
        }
        if !self.heard_by_quorum() {
            // Another leader may exist beyond the partition; here nothing can be committed (thesis §6.2).
            self.become_follower(self.term, MemberId::NONE);
            return;
        }
        self.tick_transfer();
        if self.stalled {
            // Still here: the heir of the first attempt may have left, or the only voter may have got company.
            self.hand_over();
        }
        let Some(leadership) = &mut self.leadership else { return };
        leadership.heartbeat_elapsed += 1;
        if leadership.heartbeat_elapsed >= self.settings.heartbeat_ticks {
            self.broadcast_heartbeat();
            self.maybe_time_out_heir();
        }
    }

    /// Whether a majority of voters answered within the last election timeout.
    fn heard_by_quorum(&self) -> bool {
        let Some(leadership) = &self.leadership else { return false };
        let voters = &self.configuration.voters;
        let election_ticks = self.settings.election_ticks;
        let heard = |voter: &&MemberId| {
            let progress = leadership.progress.get(voter);
            **voter == self.id() || progress.is_some_and(|p| p.active(election_ticks))
        };
        voters.iter().filter(heard).count() >= majority(voters.len())
    }

    pub(crate) fn broadcast_heartbeat(&mut self) {
        let (id, term, commit) = (self.id(), self.term, self.log.commit());
        let Some(leadership) = &mut self.leadership else { return };
        leadership.heartbeat_elapsed = 0;
        let context = leadership.reads.newest();
        for (to, progress) in &leadership.progress {
            // NB: never beyond what the follower confirmed in this very term; its log may end differently.
            let commit = commit.min(progress.matched);
            let body = Body::Heartbeat { commit, context };
            self.outbox.send(Message { from: id, to: *to, term, body });
        }
    }

    /// At the drain: everybody gets what is new to them, the commit index included.
    pub(crate) fn replicate(&mut self) {
        let Some(leadership) = &self.leadership else { return };
        let members: Vec<MemberId> = leadership.progress.keys().copied().collect();
        for member in members {
            while self.replicate_to(member) {}
        }
    }

    /// Sends one append if one is due; whether it may be worth trying again.
    fn replicate_to(&mut self, to: MemberId) -> bool {
        let (last_index, commit) = (self.log.last_index(), self.log.commit());
        let Some(leadership) = &mut self.leadership else { return false };
        let Some(progress) = leadership.progress.get_mut(&to) else { return false };
        if !progress.wants_append(last_index, commit) {
            return false;
        }
        let previous_index = progress.next.previous();
        let hint = progress.previous.filter(|(index, _)| *index == previous_index);
        let previous_term = self.log.term(previous_index).or(hint.map(|(_, term)| term));
        let wants_entries = progress.wants_entries(last_index);
        let forgotten = wants_entries && previous_index < self.log.start();
        let Some(previous_term) = previous_term.filter(|_| !forgotten) else {
            // Ask for the entry before as well where even its term is forgotten.
            let from = if previous_term.is_some() { progress.next } else { previous_index };
            let bytes_max = self.settings.append_bytes_max;
            let fetch = Fetch { for_member: to, from, to: self.log.start(), bytes_max };
            progress.fetching = Some(fetch);
            self.outbox.output.fetch.push(fetch);
            return false;
        };
        let entries = if wants_entries {
            self.log.slice(progress.next, last_index, self.settings.append_bytes_max)
        } else {
            Vec::new()
        };
        progress.sent(&entries, commit);
        self.send(to, Body::Append { previous_index, previous_term, entries, commit });
        true
    }

    /// Old entries for a follower came back from the WAL, or did not.
    pub(crate) fn fetched_for_follower(&mut self, fetch: Fetch, mut entries: Vec<Entry>) {
        let commit = self.log.commit();
        let election_ticks = self.settings.election_ticks;
        let to = fetch.for_member;
        let Some(leadership) = &mut self.leadership else { return };
        let Some(progress) = leadership.progress.get_mut(&to) else { return };
        if progress.fetching != Some(fetch) {
            return;
        }
        progress.fetching = None;
        if entries.is_empty() {
            if progress.active(election_ticks) {
                progress.become_snapshot();
                self.outbox.output.snapshots_wanted.push(to);
            } else {
                // Nobody is there to receive a snapshot: ask again at its next sign of life.
                progress.become_probe(progress.next);
                progress.paused = true;
            }
            return;
        }
        if fetch.from == progress.next.previous() {
            let previous = entries.remove(0);
            progress.previous = Some((previous.index, previous.term));
        } else if fetch.from != progress.next {
            return;
        }
        let previous_index = progress.next.previous();
        let hint = progress.previous.filter(|(index, _)| *index == previous_index);
        let known = self.log.term(previous_index).or(hint.map(|(_, term)| term));
        let Some(previous_term) = known.filter(|_| !entries.is_empty()) else { return };
        progress.sent(&entries, commit);
        self.send(to, Body::Append { previous_index, previous_term, entries, commit });
    }

    pub(crate) fn handle_append_response(
        &mut self,
        from: MemberId,
        index: LogIndex,
        commit: LogIndex,
        rejection: Option<Rejection>,
    ) {
        let last_index = self.log.last_index();
        let Some(leadership) = &mut self.leadership else { return };
        let Some(progress) = leadership.progress.get_mut(&from) else { return };
        progress.silent_ticks = 0;
        progress.commit_known = progress.commit_known.max(commit);
        if let Some(Rejection { hint_index, hint_term }) = rejection {
            let meeting = self.log.hint(hint_index, hint_term).hint_index;
            progress.rejected(index, meeting);
            return;
        }
        assert!(
            index <= last_index,
            "INV-R1: {from} acknowledges entry {index} of a log that ends at {last_index}",
        );
        progress.accepted(index);
        if progress.state == State::Snapshot && index >= self.log.start() {
            // It needs no snapshot any more (or has installed it): memory holds what follows.
            progress.become_probe(index.next());
            progress.become_replicate();
        }
        self.maybe_commit();
        self.maybe_time_out_heir();
        self.maybe_leave();
    }

    pub(crate) fn handle_heartbeat_response(&mut self, from: MemberId, context: ReadContext) {
        let last_index = self.log.last_index();
        let Some(leadership) = &mut self.leadership else { return };
        let parting = leadership.farewell.is_some();
        let Some(progress) = leadership.progress.get_mut(&from) else { return };
        progress.silent_ticks = 0;
        progress.paused = false;
        progress.confirmed = progress.confirmed.max(context);
        if progress.matched < last_index || parting {
            // What is on its way may have been lost. An append at the end of it tells: it is refused if so.
            progress.nudge = true;
        }
        self.answer_reads();
    }

    /// Commits what a majority of voters holds durably, this leader among them only for what its own disk has.
    /// Only an entry of its own term is committed by counting (thesis §3.6.2): an older one, even on a majority,
    /// may still be overwritten.
    pub(crate) fn maybe_commit(&mut self) {
        let (id, durable) = (self.id(), self.durable_index());
        let before = self.log.commit();
        let Some(leadership) = &self.leadership else { return };
        let progress = &leadership.progress;
        let index = agreed(&self.configuration.voters, |voter| {
            if voter == id {
                return durable;
            }
            progress.get(&voter).map(|progress| progress.matched).unwrap_or_default()
        });
        if index <= before || !self.log.matches(index, self.term) {
            return;
        }
        self.advance_commit(index);
    }

    /// The shell could not deliver: what was sent ahead is presumed lost.
    pub(crate) fn unreachable(&mut self, member: MemberId) {
        let Some(leadership) = &mut self.leadership else { return };
        let Some(progress) = leadership.progress.get_mut(&member) else { return };
        if progress.state == State::Replicate {
            progress.become_probe(progress.matched.next());
        }
    }

    /// A snapshot stream ended.
    pub(crate) fn snapshot_sent(&mut self, to: MemberId, index: LogIndex, delivered: bool) {
        let Some(leadership) = &mut self.leadership else { return };
        let Some(progress) = leadership.progress.get_mut(&to) else { return };
        if progress.state != State::Snapshot {
            return;
        }
        if delivered {
            progress.become_probe(index.next());
            progress.installing = Some((index, 0));
        } else {
            progress.become_probe(progress.matched.next());
        }
        // Either way it needs a moment: the next append goes with its next sign of life.
        progress.paused = true;
    }
}
