//! The world: machines, their network, their clients, and one queue of everything that is going to happen.
//!
//! A step is one event: a thread of one member does one piece of work, a message arrives, a client speaks, something breaks.
//! Time is microseconds and goes from event to event; events of one moment go in the order in which they were scheduled. All
//! choices come from one seed, so a world is a function of its seed.

mod chaos;
mod clients;
mod event;
mod happenings;
mod network;
mod node;
mod process;
mod random;
mod reads;
mod requests;
mod setup;
mod streams;
mod threads;
mod trace;
mod transfer;
mod translate;
mod truth;
mod upgrade;
mod verdict;
mod watchers;

use std::collections::BTreeMap;

use quorate_consensus::MemberId;

pub use happenings::{Counts, Happening};
pub use random::Random;
pub use trace::Trace;
pub use upgrade::Upgraded;

use self::{
    chaos::Operator,
    clients::{Client, Knowledge},
    event::Event,
    network::Network,
    node::Node,
    process::{Effect, Process, Scene, Stop},
    truth::Truth,
    upgrade::Upgrade,
    verdict::Phase,
    watchers::Watcher,
};
use crate::judge::{Operation, Watch};

/// Microseconds between two ticks, by a clock that is right (etcd's default heartbeat).
pub(crate) const TICK_US: u64 = 100_000;

/// Steps that a seed has at least.
pub const STEPS_MIN: u64 = 2_000;

/// Requests of clients that a seed has at least.
pub const OPERATIONS_MIN: usize = 200;

/// Steps after which a world is called stuck: several times what the longest takes.
const STEPS_MAX: u64 = 400_000;

/// What a world came to.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Steps taken.
    pub steps: u64,
    /// Requests of clients.
    pub operations: usize,
    /// Revisions made.
    pub revisions: i64,
    /// What happened.
    pub counts: Counts,
    /// The hash of the trace.
    pub trace_hash: u64,
    /// What the upgrade came to, in a world that has one.
    pub upgraded: Option<Upgraded>,
}

/// A cluster, its clients, and what befalls them.
pub struct World {
    random: Random,
    now: u64,
    steps: u64,
    queue: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    nodes: BTreeMap<MemberId, Node>,
    network: Network,
    truth: Truth,
    counts: Counts,
    trace: Trace,
    clients: Vec<Client>,
    knowledge: Knowledge,
    history: Vec<Operation>,
    watchers: Vec<Watcher>,
    watches: Vec<Watch>,
    operator: Operator,
    /// The leader time that anybody may know of, as it rose.
    leader_time: Vec<(u64, u64)>,
    phase: Phase,
    effects: Vec<Effect>,
    /// The upgrade of all members to the next feature level, in a world that has one.
    upgrade: Option<Upgrade>,
    /// Requests after which chaos ends, and the microsecond before which it does not.
    operations_wanted: usize,
    chaos_until: u64,
}

impl World {
    /// Lives through a world to its end.
    ///
    /// # Panics
    /// When an invariant or a law is broken: that is what it is for. The message says which.
    #[must_use]
    pub fn run(mut self) -> Ending {
        while self.phase != Phase::Over {
            self.step();
        }
        let upgraded = self.upgraded();
        Ending {
            upgraded,
            steps: self.steps,
            operations: self.history.len(),
            revisions: self.truth.log.last(),
            counts: self.counts,
            trace_hash: self.trace.hash(),
        }
    }

    fn step(&mut self) {
        let Some(((at, _), event)) = self.queue.pop_first() else {
            panic!("nothing is going to happen any more");
        };
        self.now = self.now.max(at);
        if let Some(until) = event.member().and_then(|member| self.pause_of(member)) {
            self.schedule(until - self.now, event);
            return;
        }
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "the world is stuck in {:?}", self.phase);
        self.trace.line(format_args!("{} {} {event}", self.steps, self.now));
        self.happen(event);
        self.watch_level();
        self.look_ahead();
    }

    fn pause_of(&self, member: MemberId) -> Option<u64> {
        self.nodes.get(&member).map(|node| node.paused_until).filter(|until| *until > self.now)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(member, life) => self.tick(member, life),
            Event::Run(member, life, thread) => {
                if self.lives(member, life) {
                    self.on(member, |process, scene| process.run(thread, scene));
                }
            }
            Event::Deliver { from, to, number, bytes, leader_time } => {
                self.deliver(from, to, number, bytes, leader_time);
            }
            Event::Transfer { from, to, id, what } => self.transfer(from, to, id, what),
            Event::Restart(member) => self.restart(member),
            Event::Publish(member, life) => self.publish_name(member, life),
            Event::NotifyProgress(member, life) => {
                if self.lives(member, life) {
                    self.on(member, |process, _| {
                        process.notify_progress();
                        Ok(())
                    });
                    self.schedule(700_000, Event::NotifyProgress(member, life));
                }
            }
            Event::Removed(member) => self.hear_of_removal(member),
            Event::Client(client) => self.client(client),
            Event::Ask(operation, member) => self.ask(operation, member),
            Event::Answer(operation, outcome) => self.answer(operation, outcome),
            Event::GiveUp(operation, member) => self.give_up(operation, member),
            Event::OperatorGivesUp(change) => self.operator.give_up(change),
            Event::Watcher(which) => self.run_watcher(which),
            Event::Chaos => self.chaos(),
            Event::Upgrade => self.upgrade_one(),
        }
    }

    fn schedule(&mut self, delay: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + delay, self.scheduled), event);
    }

    fn lives(&self, member: MemberId, life: u64) -> bool {
        let process = self.nodes.get(&member).and_then(|node| node.process.as_ref());
        process.is_some_and(|process| process.life == life)
    }

    /// Lets a member's process do something, and does what it wants done. A disk that fails because power was lost within the
    /// operation ends the process; any other reason to stop is a defect.
    fn on(
        &mut self,
        member: MemberId,
        act: impl FnOnce(&mut Process, &mut Scene<'_>) -> Result<(), Stop>,
    ) {
        let Some(node) = self.nodes.get_mut(&member) else { return };
        let slow = node.disk_slow_until > self.now;
        let disk_slowness = if slow { node.disk_slowness } else { 1 };
        let Some(process) = &mut node.process else { return };
        let life = process.life;
        let mut scene = Scene {
            now: self.now,
            random: &mut self.random,
            truth: &mut self.truth,
            counts: &mut self.counts,
            effects: &mut self.effects,
            disk_slowness,
        };
        let outcome = act(process, &mut scene);
        let effects = std::mem::take(&mut self.effects);
        let power_lost = node.fault_taken();
        // What was said before the power went was said.
        for effect in effects {
            self.effect(member, life, effect);
        }
        match outcome {
            _ if power_lost => {
                self.counts.note(Happening::CrashInStep);
                self.crash(member);
            }
            Ok(()) => {}
            Err(Stop(reason)) => panic!("member {member} stopped: {reason}"),
        }
    }

    fn effect(&mut self, member: MemberId, life: u64, effect: Effect) {
        match effect {
            Effect::Run(thread, delay) => self.schedule(delay, Event::Run(member, life, thread)),
            Effect::Send(message) => self.send(member, &message),
            Effect::Reply(waiter, reply) => self.reply(waiter, reply),
            Effect::Written(token) => {
                if let Some(node) = self.nodes.get_mut(&member) {
                    node.promised.written(token);
                }
            }
            Effect::Durable(token) => {
                if let Some(node) = self.nodes.get_mut(&member) {
                    node.promised.durable(token);
                }
            }
            Effect::Transfer(to, id, what) => self.send_transfer(member, to, id, what),
        }
    }

    /// Members whose process runs and is not paused, and that were not removed.
    fn serving(&self) -> Vec<MemberId> {
        let serves =
            |node: &Node| node.process.is_some() && !node.removed && node.paused_until <= self.now;
        self.nodes.iter().filter(|(_, node)| serves(node)).map(|(member, _)| *member).collect()
    }

    /// The membership as whoever has applied most knows it.
    fn membership(&self) -> Vec<quorate_machine::Member> {
        let processes = self.nodes.values().filter_map(|node| node.process.as_ref());
        let newest = processes.max_by_key(|process| process.applied());
        newest.map(|process| process.applier.members().to_vec()).unwrap_or_default()
    }
}
