//! How a world ends: everything heals, everybody converges within a bound, last requests succeed, and the judge looks at it all.

use std::collections::BTreeSet;

use quorate_consensus::{LogIndex, MemberId};
use quorate_machine::{View, hash_kv};

use super::{
    STEPS_MIN, World,
    happenings::Happening,
    node::Node,
    process::Process,
    translate::{self, SECOND},
    watchers::Watcher,
};
use crate::judge::{
    LeaderTime, Model, Outcome, Pair, Put, Range, Request, Selector, check_history, check_leases,
    check_watch, linearizability::replayed,
};

/// Microseconds after the last disturbance within which all members stand at one index.
const CONVERGE_US: u64 = 45 * SECOND;

/// Microseconds after which no message of the time before is on its way any more, and no member hears of its removal.
const STRAGGLERS_US: u64 = 4 * SECOND;

/// Microseconds within which the last requests are answered.
const LAST_REQUESTS_US: u64 = 4 * SECOND;

/// Microseconds within which all leases have ended and all watches have been told: the longest TTL, and some.
const QUIET_US: u64 = 25 * SECOND;

/// What the lease clock may be off by: ticks, drift, and the time a leader counts that nobody follows any more, until
/// check-quorum deposes it (thesis §6.2).
const LEASE_SLACK_US: u64 = 4 * SECOND;

/// Steps between two looks at whether a phase is over.
const LOOK_STEPS: u64 = 40;

/// Where a world is in its life; with the time since which its bound counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Things go wrong.
    Chaos,
    /// Nothing goes wrong any more.
    Healing { since: u64 },
    /// A write and a read through each member.
    LastRequests { since: u64, first: usize },
    /// Leases end, watches are told.
    Quiet { since: u64 },
    /// It was judged.
    Over,
}

impl World {
    /// Whether the phase is over.
    pub(crate) fn look_ahead(&mut self) {
        if !self.steps.is_multiple_of(LOOK_STEPS) {
            return;
        }
        self.start_joiners();
        match self.phase {
            Phase::Chaos => {
                let asked = self.history.len() >= self.operations_wanted;
                let late = self.now > self.chaos_until + 30 * SECOND;
                if self.steps >= STEPS_MIN && self.now > self.chaos_until && (asked || late) {
                    self.heal();
                }
            }
            Phase::Healing { since } => {
                let paused = self.nodes.values().map(|node| node.paused_until).max();
                let since = since.max(paused.unwrap_or(0));
                if !self.enough_requests() || self.any_open() {
                    // The bounds count from when clients have no more to ask.
                    self.phase = Phase::Healing { since: self.now };
                    return;
                }
                let settled = self.now > since + STRAGGLERS_US;
                match self.not_converged() {
                    None if settled => {
                        self.last_requests();
                    }
                    None => {}
                    Some(why) => assert!(
                        self.now < since + CONVERGE_US,
                        "liveness: not converged after {} ms: {why}",
                        (self.now - since) / 1000
                    ),
                }
            }
            Phase::LastRequests { since, first } => {
                if !self.history[first..].iter().any(|last| last.returned == super::requests::OPEN)
                {
                    self.check_last(first);
                    self.watchers.iter_mut().for_each(Watcher::settle);
                    self.phase = Phase::Quiet { since: self.now };
                }
                assert!(self.now < since + LAST_REQUESTS_US, "liveness: a last request hangs");
            }
            Phase::Quiet { since } => match self.not_quiet() {
                None => self.judge(),
                Some(why) => assert!(self.now < since + QUIET_US, "liveness: not quiet: {why}"),
            },
            Phase::Over => {}
        }
    }

    fn heal(&mut self) {
        self.phase = Phase::Healing { since: self.now };
        self.network.calm();
        self.knowledge.winding_down = true;
        for node in self.nodes.values_mut() {
            node.disk_slow_until = 0;
            // No operation has this number.
            node.disk.fail_at(u64::MAX, quorate_storage::disk::mem::Fault::Crash);
        }
        self.operator_stops();
        self.trace.line(format_args!("  everything heals"));
        self.upgrade_rest();
    }

    /// The machines of those who are members now.
    fn member_nodes(&self) -> Vec<(MemberId, Option<&Node>)> {
        let members = self.membership();
        members.iter().map(|m| (MemberId(m.id.0), self.nodes.get(&MemberId(m.id.0)))).collect()
    }

    /// Why not all members stand at one index with nothing left to do; none if they do.
    fn not_converged(&self) -> Option<String> {
        if let Some(why) = self.not_upgraded() {
            return Some(why);
        }
        let mut indexes: BTreeSet<LogIndex> = BTreeSet::new();
        for (member, node) in self.member_nodes() {
            let Some(process) = node.and_then(|node| node.process.as_ref()) else {
                return Some(format!("member {member} does not run"));
            };
            let (soft, applied) = (process.replica.soft(), process.applied().0);
            if soft.leader == MemberId::NONE {
                return Some(format!("member {member} knows no leader: {soft:?}"));
            }
            if process.unpublished.is_some() {
                return Some(format!("member {member} has not published what it applied"));
            }
            if applied != soft.commit || applied != self.truth.last_applied() {
                let last = self.truth.last_applied();
                return Some(format!("member {member} applied {applied} of {last}: {soft:?}"));
            }
            indexes.insert(applied);
        }
        (indexes.len() != 1).then(|| format!("members stand at {indexes:?}"))
    }

    fn last_requests(&mut self) {
        let first = self.history.len();
        self.phase = Phase::LastRequests { since: self.now, first };
        let members: Vec<MemberId> =
            self.member_nodes().iter().map(|(member, _)| *member).collect();
        for (member, client) in members.into_iter().zip(1000..) {
            let key = b"b/last".to_vec();
            let value = format!("last of {member}").into_bytes();
            let put = Put { key, value, ..Put::default() };
            self.ask_for(client, member, Request::Put(put));
            let range = Range { keys: Selector::prefix(b""), ..Range::default() };
            self.ask_for(client, member, Request::Range(range));
        }
    }

    fn check_last(&self, first: usize) {
        for last in &self.history[first..] {
            let answered = matches!(last.outcome, Outcome::Answered { .. });
            assert!(answered, "liveness: a last request was not answered: {last:?}");
        }
    }

    /// Why there is still something to come; none if there is not.
    fn not_quiet(&self) -> Option<String> {
        if let Some(why) = self.not_converged() {
            return Some(why);
        }
        for (member, node) in self.member_nodes() {
            let process = node.and_then(|node| node.process.as_ref())?;
            let leases = process.applier.machine().leases().len();
            if leases > 0 {
                return Some(format!("{leases} leases are left on {member}"));
            }
            let (_, lagging) = process.hub.counts();
            if lagging > 0 || !process.streams.all_idle() {
                return Some(format!("{lagging} watches lag on {member}"));
            }
        }
        let members = self.membership();
        let on_member = |watcher: &Watcher| {
            watcher.stands_on().is_some_and(|on| members.iter().any(|known| known.id.0 == on.0))
        };
        let waiting = self.watchers.iter().position(|watcher| !on_member(watcher));
        waiting.map(|which| format!("watcher {which} stands nowhere"))
    }

    /// The judge has the word.
    fn judge(&mut self) {
        let log = &self.truth.log;
        let model = replayed(log).unwrap_or_else(|violation| panic!("{violation}"));
        self.compare_members(&model);
        let report = check_history(&self.history, log).unwrap_or_else(|broken| panic!("{broken}"));
        let at_most = |time: u64| {
            let known = self.leader_time.partition_point(|(at, _)| *at <= time);
            self.leader_time[..known].last().map_or(0, |(_, leader_time)| *leader_time)
        };
        let time = LeaderTime { at_most: &at_most, slack: LEASE_SLACK_US };
        check_leases(&self.history, log, &report, &time)
            .unwrap_or_else(|broken| panic!("{broken}"));
        for watcher in &mut self.watchers {
            self.watches.extend(watcher.finish(log.last()));
        }
        for watch in &self.watches {
            check_watch(watch, log, &model).unwrap_or_else(|broken| panic!("{broken}"));
        }
        self.counts.note_many(Happening::UnknownHappened, report.unknown_happened as u64);
        self.counts.note_many(Happening::LeaseExpired, report.expiries.len() as u64);
        self.phase = Phase::Over;
    }

    /// All members hold the same data, and it is the model's.
    fn compare_members(&self, model: &Model) {
        let mut hashes = BTreeSet::new();
        let everything = Selector::prefix(b"");
        let expected: Vec<&Pair> = model.pairs(&everything, model.revision()).collect();
        for (member, node) in self.member_nodes() {
            let process = node.and_then(|node| node.process.as_ref()).expect("it converged");
            let found = all_pairs(process);
            assert!(
                found.iter().eq(expected.iter().copied()),
                "member {member} holds {found:?}, the model {expected:?}"
            );
            let point = process.published.0;
            let hash = hash_kv(&process.published.1, 0, point, mix).expect("it can be read");
            hashes.insert((hash.hash, hash.compact_revision, hash.hash_revision));
        }
        assert!(hashes.len() == 1, "INV-M2: members hash their history to {hashes:?}");
    }
}

fn all_pairs(process: &Process) -> Vec<Pair> {
    let (point, reader) = &process.published;
    let everything = translate::key_range(&Selector::prefix(b""));
    let at = quorate_machine::Revision::end_of(point.revision);
    let mut pairs = Vec::new();
    reader
        .scan(&everything, at, &mut |key, version| {
            let kv = reader.read(key, version).expect("what the index knows can be read");
            pairs.push(translate::pair(&kv));
            std::ops::ControlFlow::Continue(())
        })
        .expect("the index can be scanned");
    pairs
}

/// Any hash will do, as long as it is the same for all.
fn mix(seed: u32, bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(seed ^ 0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
