//! Requests between clients and members, the ticks of clocks, and what members ask of themselves.

use quorate_consensus::{MemberId, Role};
use quorate_machine::{Command, Incarnation};
use quorate_replica::{Failure, Input};

use super::{
    OPERATIONS_MIN, Phase, TICK_US, World,
    event::Event,
    happenings::Happening,
    process::{Reply, Waiter},
    translate,
};
use crate::judge::{Operation, Outcome, Range, Request, Response};

/// What one tick may add to leader time, in microseconds: the law says one second, and the judge counts for itself.
const TICK_COUNTS_US_MAX: u64 = 1_000_000;

/// How long clients wait, in microseconds.
pub(super) const PATIENCE_US: u64 = 2_500_000;

/// When an operation that has no answer returned.
pub(crate) const OPEN: u64 = u64::MAX;

impl World {
    /// A member's clock ticks.
    pub(crate) fn tick(&mut self, member: MemberId, life: u64) {
        if !self.lives(member, life) {
            return;
        }
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&member) else { return };
        let elapsed = (now - node.last_tick) * node.rate / 1000;
        node.last_tick = now;
        let leads = node
            .process
            .as_ref()
            .is_some_and(|process| process.replica.soft().role == Role::Leader);
        if leads {
            node.leader_time += elapsed.min(TICK_COUNTS_US_MAX);
            let known = self.leader_time.last().map_or(0, |(_, time)| *time);
            if node.leader_time > known {
                self.leader_time.push((now, node.leader_time));
            }
        }
        let next = TICK_US * 1000 / node.rate;
        self.on(member, |process, scene| {
            process.input(Input::Tick { elapsed_ms: elapsed / 1000 }, scene);
            Ok(())
        });
        self.dial(member);
        let jitter = self.random.below(2_000);
        self.schedule(next + jitter, Event::Tick(member, life));
    }

    /// Now and then a member dials another one anew; whoever was removed is told so then.
    fn dial(&mut self, member: MemberId) {
        if !self.random.chance(30) {
            return;
        }
        let others: Vec<MemberId> =
            self.serving().into_iter().filter(|other| *other != member).collect();
        let Some(other) = self.random.pick(&others) else { return };
        if self.reaches(member, other)
            && self.reaches(other, member)
            && self.removed_by(other, member)
        {
            self.schedule(1_000, Event::Removed(member));
        }
    }

    /// A member tells its name, as the shell does until the applied membership says so.
    pub(crate) fn publish_name(&mut self, member: MemberId, life: u64) {
        if !self.lives(member, life) {
            return;
        }
        let mut done = false;
        self.on(member, |process, scene| {
            let id = quorate_machine::MemberId(member.0);
            let members = process.applier.members();
            let Some(known) = members.iter().find(|known| known.id == id) else { return Ok(()) };
            let incarnation = Incarnation(process.incarnation);
            done = known.incarnation == incarnation
                && !known.client_urls.is_empty()
                && known.feature_level == process.known;
            if !done {
                process.forget(Waiter::Publication, scene);
                let command = Command::MemberPublish {
                    id,
                    name: format!("name of {member}"),
                    client_urls: vec![format!("http://{member}:2379")],
                    incarnation,
                    feature_level: process.known,
                };
                process.propose(command, Waiter::Publication, scene);
            }
            Ok(())
        });
        if !done {
            self.schedule(1_000_000, Event::Publish(member, life));
        }
    }

    /// A client has time for its next request.
    pub(crate) fn client(&mut self, which: usize) {
        if self.clients[which].waits.is_some() || self.enough_requests() {
            return;
        }
        let mut targets = self.serving();
        if targets.is_empty() || self.clients[which].random.chance(60) {
            targets = self.nodes.keys().copied().collect();
        }
        let random = &mut self.clients[which].random;
        let Some(member) = random.pick(&targets) else { return };
        let request = self.knowledge.request(random);
        let operation = self.ask_for(which as u64, member, request);
        self.clients[which].waits = Some((operation, member));
    }

    /// Whether clients are done.
    pub(crate) fn enough_requests(&self) -> bool {
        self.phase != Phase::Chaos && self.history.len() >= OPERATIONS_MIN
    }

    /// Sends a request on behalf of a client.
    pub(crate) fn ask_for(&mut self, client: u64, member: MemberId, request: Request) -> usize {
        let operation = self.history.len();
        self.trace.line(format_args!("  {operation} of client {client} to {member}: {request:?}"));
        self.history.push(Operation {
            client,
            request,
            invoked: self.now,
            returned: OPEN,
            outcome: Outcome::Unknown,
        });
        let delay = self.random.between(50, 2_000);
        self.schedule(delay, Event::Ask(operation, member));
        self.schedule(PATIENCE_US, Event::GiveUp(operation, member));
        operation
    }

    /// A request arrives at a member.
    pub(crate) fn ask(&mut self, operation: usize, member: MemberId) {
        let waiter = Waiter::Client(operation);
        let request = self.history[operation].request.clone();
        let runs = self.nodes.get(&member).is_some_and(|node| node.process.is_some());
        if !runs {
            self.schedule(500, Event::Answer(operation, Outcome::Failed));
            return;
        }
        self.on(member, |process, scene| {
            match (&request, translate::command(&request)) {
                (Request::Range(Range { serializable: true, .. }), _) => {
                    process.read_now(request, waiter, scene);
                }
                (Request::Txn(txn), _) if translate::txn(txn).is_read_only() => {
                    process.read(request, waiter, scene);
                }
                (_, None) => process.read(request, waiter, scene),
                (_, Some(command)) => process.propose(command, waiter, scene),
            }
            Ok(())
        });
    }

    /// A member has a reply for somebody.
    pub(crate) fn reply(&mut self, waiter: Waiter, reply: Reply) {
        let operation = match waiter {
            Waiter::Publication => return,
            Waiter::Operator => return self.operator_hears(reply),
            Waiter::Client(operation) => operation,
        };
        let outcome = match reply {
            Reply::Applied(applied) => translate::outcome(&applied),
            Reply::Failed(Failure::TooManyRequests) => Outcome::Failed,
            Reply::Failed(Failure::Change(refusal)) => {
                panic!("a client asked for no change and was told {refusal:?}")
            }
            Reply::Failed(Failure::FeatureLevel) => {
                panic!("what clients ask for needs no feature level but the first")
            }
            Reply::Read(outcome) => outcome,
        };
        // An answer may be lost.
        if self.phase == Phase::Chaos && self.random.chance(12) {
            return;
        }
        let delay = self.random.between(50, 2_000);
        self.schedule(delay, Event::Answer(operation, outcome));
    }

    /// An answer arrives at its client.
    pub(crate) fn answer(&mut self, operation: usize, outcome: Outcome) {
        if self.history[operation].returned != OPEN {
            return;
        }
        self.note_outcome(operation, &outcome);
        let ended = &mut self.history[operation];
        ended.returned = self.now;
        ended.outcome = outcome;
        self.knowledge.learn(&self.history[operation]);
        self.next_request(operation);
    }

    fn note_outcome(&mut self, operation: usize, outcome: &Outcome) {
        let request = &self.history[operation].request;
        let happening = match (request, outcome) {
            (Request::Range(_), Outcome::Unknown) => return,
            (_, Outcome::Unknown) => Happening::Unknown,
            (Request::Grant { .. }, Outcome::Answered { .. }) => Happening::LeaseGranted,
            (Request::Revoke(_), Outcome::Answered { .. }) => Happening::LeaseRevoked,
            (_, Outcome::Answered { response: Response::Renew { alive: true }, .. }) => {
                Happening::LeaseRenewed
            }
            (
                Request::Range(Range { serializable: true, .. }),
                Outcome::Answered { revision, .. },
            ) if *revision < self.truth.log.last() => Happening::StaleRead,
            (_, Outcome::Answered { .. } | Outcome::Refused(_) | Outcome::Failed) => return,
        };
        self.counts.note(happening);
    }

    /// A client lost patience.
    pub(crate) fn give_up(&mut self, operation: usize, member: MemberId) {
        if self.history[operation].returned != OPEN {
            return;
        }
        self.note_outcome(operation, &Outcome::Unknown);
        self.history[operation].returned = self.now;
        self.on(member, |process, scene| {
            process.forget(Waiter::Client(operation), scene);
            Ok(())
        });
        self.next_request(operation);
    }

    fn next_request(&mut self, operation: usize) {
        let which = usize::try_from(self.history[operation].client).expect("few clients");
        let Some(client) = self.clients.get_mut(which) else { return };
        client.waits = None;
        let think = client.random.between(1_000, 260_000);
        self.schedule(think, Event::Client(which));
    }

    /// Whether some request has no answer yet.
    pub(crate) fn any_open(&self) -> bool {
        self.history.iter().any(|operation| operation.returned == OPEN)
    }
}
