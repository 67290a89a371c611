//! What goes wrong, and who changes the membership meanwhile.

use std::collections::BTreeSet;

use quorate_consensus::MemberId;
use quorate_machine::{Command, Member};
use quorate_replica::Input;
use quorate_storage::{
    disk::mem::Fault,
    identity::{self, ClusterId},
};

use super::{
    Phase, World,
    event::Event,
    happenings::Happening,
    process::{Reply, Waiter},
};

/// How long a change of the membership may take, in microseconds.
const CHANGE_US: u64 = 3_000_000;

/// Members that a world has at most, those included that are being added.
const MEMBERS_MAX: usize = 6;

/// Whoever changes the membership: one change at a time.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    pub(crate) cluster: ClusterId,
    pending: Option<(u64, Happening)>,
    changes: u64,
    /// Members that were asked to be added and have no machine yet.
    expected: BTreeSet<MemberId>,
}

impl Operator {
    /// No answer came in time.
    pub(crate) fn give_up(&mut self, change: u64) {
        if self.pending.is_some_and(|(pending, _)| pending == change) {
            self.pending = None;
        }
    }

    /// Nobody knows what became of it.
    pub(crate) fn unknown(&mut self) {
        self.pending = None;
    }
}

impl World {
    /// One thing goes wrong, or right.
    pub(crate) fn chaos(&mut self) {
        if self.phase != Phase::Chaos {
            return;
        }
        let next = self.random.between(80_000, 700_000);
        self.schedule(next, Event::Chaos);
        self.start_joiners();
        let all: Vec<MemberId> = self.nodes.keys().copied().collect();
        let Some(one) = self.random.pick(&all) else { return };
        match self.random.below(100) {
            0..9 => self.cut_off(one, &all, false),
            9..15 => self.cut_off(one, &all, true),
            15..19 => self.split(&all),
            19..38 => self.network.heal(),
            38..43 => self.crash_running(one),
            43..48 => self.crash_in_step(one),
            48..52 => self.kill(one),
            52..57 => self.pause(one, 3_500_000),
            57..59 => {
                self.counts.note(Happening::AllPaused);
                let longest = self.random.between(1_000_000, 20_000_000);
                all.iter().for_each(|member| self.pause(*member, longest));
            }
            59..64 => self.slow_disk(one),
            64..70 => self.transfer_leader(&all),
            70..93 => self.change_membership(),
            93..95 => all.iter().for_each(|member| self.crash_running(*member)),
            _ => {
                self.network.loss = self.random.below(150);
                self.network.duplication = self.random.below(150);
                self.network.delay = self.random.below(150);
            }
        }
    }

    fn cut_off(&mut self, one: MemberId, all: &[MemberId], one_way: bool) {
        let deaf = self.random.chance(500);
        for other in all.iter().copied().filter(|other| *other != one) {
            if one_way {
                // It is heard and hears nothing, or the other way round.
                let (from, to) = if deaf { (other, one) } else { (one, other) };
                self.network.cut(from, to);
            } else {
                self.network.cut(one, other);
                self.network.cut(other, one);
            }
        }
        let kind = if one_way { Happening::OneWayPartition } else { Happening::Partition };
        self.counts.note(kind);
    }

    fn split(&mut self, all: &[MemberId]) {
        let sides: Vec<bool> = all.iter().map(|_| self.random.chance(500)).collect();
        for (from, from_side) in all.iter().zip(&sides) {
            for (to, to_side) in all.iter().zip(&sides) {
                if from_side != to_side {
                    self.network.cut(*from, *to);
                }
            }
        }
        self.counts.note(Happening::Partition);
    }

    fn crash_running(&mut self, member: MemberId) {
        if self.nodes.get(&member).is_some_and(|node| node.process.is_some()) {
            self.crash(member);
        }
    }

    /// Power will be lost within one of the next operations of the disk.
    fn crash_in_step(&mut self, member: MemberId) {
        let ahead = self.random.below(25);
        if let Some(node) = self.nodes.get(&member) {
            node.disk.fail_at(node.disk.operations() + ahead, Fault::Crash);
        }
    }

    fn pause(&mut self, member: MemberId, longest: u64) {
        let until = self.now + self.random.between(100_000, longest);
        let Some(node) = self.nodes.get_mut(&member) else { return };
        if node.process.is_some() {
            node.paused_until = node.paused_until.max(until);
            self.counts.note(Happening::Paused);
        }
    }

    fn slow_disk(&mut self, member: MemberId) {
        let (slowness, time) =
            (self.random.between(5, 600), self.random.between(300_000, 4_000_000));
        if let Some(node) = self.nodes.get_mut(&member) {
            (node.disk_slowness, node.disk_slow_until) = (slowness, self.now + time);
        }
    }

    fn transfer_leader(&mut self, all: &[MemberId]) {
        let to = if self.random.chance(500) {
            MemberId::NONE
        } else {
            all[self.random.index(all.len())]
        };
        for member in all {
            self.on(*member, |process, scene| {
                if process.replica.soft().leader == process.id {
                    process.input(Input::TransferLeader(to), scene);
                }
                Ok(())
            });
        }
    }

    /// Gives machines to members that were added.
    pub(crate) fn start_joiners(&mut self) {
        let members = self.membership();
        let expected: Vec<MemberId> = self.operator.expected.iter().copied().collect();
        for id in expected {
            if members.iter().any(|member| member.id.0 == id.0) {
                self.operator.expected.remove(&id);
                self.make_joiner(id, self.operator.cluster);
            }
        }
    }

    fn change_membership(&mut self) {
        let serving = self.serving();
        let Some(asked) = self.random.pick(&serving) else { return };
        if self.operator.pending.is_some() {
            return;
        }
        let members = self.membership();
        if members.is_empty() {
            // Only a joiner without its snapshot runs, and it knows nobody.
            return;
        }
        let learners: Vec<&Member> = members.iter().filter(|member| member.learner).collect();
        let known = members.len() + self.operator.expected.len();
        let grows = known < MEMBERS_MAX && self.random.chance(if known < 4 { 700 } else { 350 });
        let (command, happening) = match learners.first() {
            Some(learner) if self.random.chance(600) => {
                (Command::MemberPromote { id: learner.id }, Happening::Promoted)
            }
            _ if grows => (Command::MemberAdd(self.new_learner()), Happening::LearnerAdded),
            _ if members.len() > 2 || self.random.chance(150) => {
                let victim = members[self.random.index(members.len())].id;
                (Command::MemberRemove { id: victim }, Happening::Removed)
            }
            _ => return,
        };
        self.operator.changes += 1;
        let change = self.operator.changes;
        self.operator.pending = Some((change, happening));
        self.trace.line(format_args!("  change {change} to {asked}: {command:?}"));
        self.schedule(CHANGE_US, Event::OperatorGivesUp(change));
        self.on(asked, |process, scene| {
            process.forget(Waiter::Operator, scene);
            process.propose(command, Waiter::Operator, scene);
            Ok(())
        });
    }

    /// Nobody changes the membership any more.
    pub(crate) fn operator_stops(&mut self) {
        for member in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.on(member, |process, scene| {
                process.forget(Waiter::Operator, scene);
                Ok(())
            });
        }
    }

    fn new_learner(&mut self) -> Member {
        let number = self.random.below(1_000_000);
        let peer_urls = vec![format!("http://added{number}:2380")];
        let time = i64::try_from(self.now).expect("worlds are short");
        let id = identity::member_id(&peer_urls, "sim", Some(time));
        self.operator.expected.insert(id);
        let id = quorate_machine::MemberId(id.0);
        Member { id, peer_urls, learner: true, ..Member::default() }
    }

    /// Whoever changes the membership is told how it went.
    pub(crate) fn operator_hears(&mut self, reply: Reply) {
        let pending = self.operator.pending.take();
        let happening = match (reply, pending) {
            (Reply::Applied(applied), Some((_, happening))) if applied.result.is_ok() => happening,
            (Reply::Applied(applied), _) if applied.result.is_ok() => return,
            (Reply::Applied(_) | Reply::Failed(_), _) => Happening::ChangeRefused,
            (Reply::Read(_), _) => return,
        };
        self.counts.note(happening);
    }
}
