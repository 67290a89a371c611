//! What a leader knows of one follower, and the three states between which that moves.

use crate::inflights::Inflights;
use crate::{Entry, Fetch, LogIndex, ReadContext, Term};

/// How the leader sends entries to a follower.
///
/// ```text
///            accepted                     entries gone from the WAL
///   Probe ────────────► Replicate    Probe, Replicate ───────────► Snapshot
///         ◄────────────                              ◄───────────
///     rejected, unreachable                  sent, failed, or caught up otherwise
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Looks for the point where the logs meet: one append at a time, the next one after an answer.
    Probe,
    /// Streams entries ahead of the answers, within the window.
    Replicate,
    /// Sends no entries: a snapshot is on its way.
    Snapshot,
}

/// One follower (or learner) as its leader sees it. Invariant: 0 ≤ matched < next; in Replicate everything in
/// [matched + 1, next) is on its way.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The last index known to be durable there, in this leader's term.
    pub(crate) matched: LogIndex,
    /// The first index to send.
    pub(crate) next: LogIndex,
    pub(crate) state: State,
    /// Probe: an append is out, nothing more until an answer or a sign of life.
    pub(crate) paused: bool,
    pub(crate) inflights: Inflights,
    /// Ticks since it was heard in this term.
    pub(crate) silent_ticks: u32,
    /// The commit index that the last append told it.
    pub(crate) commit_sent: LogIndex,
    /// The commit index that it said is durable there.
    pub(crate) commit_known: LogIndex,
    /// The newest read round that it confirmed.
    pub(crate) confirmed: ReadContext,
    /// Old entries asked of the WAL for it.
    pub(crate) fetching: Option<Fetch>,
    /// The term at `next - 1`, where memory may have forgotten it.
    pub(crate) previous: Option<(LogIndex, Term)>,
    /// A snapshot that reached it whole and is being installed, with the ticks since.
    pub(crate) installing: Option<(LogIndex, u32)>,
    /// Send an append at the next drain, even an empty one: its answer says where the follower stands.
    pub(crate) nudge: bool,
}

impl Progress {
    /// A member about which nothing is known yet: the leader tries its own end first.
    pub(crate) fn new(next: LogIndex, inflights: Inflights) -> Self {
        Self {
            matched: LogIndex(0),
            next,
            state: State::Probe,
            paused: false,
            inflights,
            silent_ticks: 0,
            commit_sent: LogIndex(0),
            commit_known: LogIndex(0),
            confirmed: ReadContext(0),
            fetching: None,
            previous: None,
            installing: None,
            nudge: false,
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.paused = false;
        self.inflights.clear();
        self.fetching = None;
        self.installing = None;
        self.nudge = false;
        self.commit_sent = LogIndex(0);
    }

    /// Falls back to looking for the meeting point, from `next` on.
    pub(crate) fn become_probe(&mut self, next: LogIndex) {
        self.enter(State::Probe);
        self.next = next.max(self.matched.next());
    }

    pub(crate) fn become_replicate(&mut self) {
        self.enter(State::Replicate);
        self.next = self.matched.next();
    }

    pub(crate) fn become_snapshot(&mut self) {
        self.enter(State::Snapshot);
    }

    /// Whether an append should go out now.
    pub(crate) fn wants_append(&self, last_index: LogIndex, commit: LogIndex) -> bool {
        let told = self.commit_sent >= commit.min(self.next.previous());
        match self.state {
            State::Snapshot => false,
            State::Probe => !self.paused && self.fetching.is_none(),
            State::Replicate => {
                self.fetching.is_none() && (self.wants_entries(last_index) || self.nudge || !told)
            }
        }
    }

    /// Whether entries may go with it.
    pub(crate) fn wants_entries(&self, last_index: LogIndex) -> bool {
        self.next <= last_index && !self.inflights.full()
    }

    /// An append with these entries went out.
    pub(crate) fn sent(&mut self, entries: &[Entry], commit: LogIndex) {
        self.nudge = false;
        match self.state {
            State::Probe => self.paused = true,
            State::Replicate => {
                if let Some(last) = entries.last() {
                    self.inflights.add(last.index, entries.iter().map(Entry::cost).sum());
                    self.next = last.index.next();
                    self.previous = Some((last.index, last.term));
                }
                self.commit_sent = self.commit_sent.max(commit.min(self.next.previous()));
            }
            State::Snapshot => {}
        }
    }

    /// The follower holds everything up to `index`. Whether that is news.
    pub(crate) fn accepted(&mut self, index: LogIndex) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.next = self.next.max(index.next());
        match self.state {
            State::Probe => {
                // An old answer proves nothing about the meeting point, nor about an install under way.
                let installed = self.installing.is_none_or(|(snapshot, _)| index >= snapshot);
                if installed && index == self.matched {
                    self.become_replicate();
                }
            }
            State::Replicate => self.inflights.free(index),
            State::Snapshot => {}
        }
        news
    }

    /// The follower does not hold `rejected`; logs may meet at `hint`. Whether that was news.
    pub(crate) fn rejected(&mut self, rejected: LogIndex, hint: LogIndex) -> bool {
        match self.state {
            State::Snapshot => false,
            State::Replicate => {
                if rejected <= self.matched {
                    return false;
                }
                self.become_probe(self.matched.next());
                true
            }
            State::Probe => {
                if self.next.previous() != rejected {
                    return false;
                }
                if self.installing.is_some_and(|(index, _)| hint < index) {
                    // It has the snapshot and not yet installed it: ask again at its next sign of life.
                    return false;
                }
                self.become_probe(rejected.min(hint.next()));
                true
            }
        }
    }

    /// Whether it was heard within an election timeout.
    pub(crate) fn active(&self, election_ticks: u32) -> bool {
        self.silent_ticks < election_ticks
    }

    pub(crate) fn tick(&mut self, install_ticks_max: u32) {
        self.silent_ticks = self.silent_ticks.saturating_add(1);
        if let Some((index, ticks)) = self.installing {
            self.installing = (ticks < install_ticks_max).then_some((index, ticks + 1));
        }
    }
}
