//! Upgrades: a world whose members begin as builds of feature level 1 and become builds of the next one by one, and what no
//! member of the old build may meet meanwhile.
//!
//! The process is the same for both; what its program knows is an input. A member of the old build is judged at its doors: whatever
//! the network or a snapshot's stream brings it must be of its level, not merely be refused by it.

use quorate_consensus::{Body, MemberId, Message, Payload};
use quorate_machine::{Envelope, FEATURE_LEVEL_FORMED, FEATURE_LEVEL_KNOWN, FeatureLevel, State};
use quorate_replica::{PeerBody, PeerMessage};

use super::{Phase, World, event::Event, random::Random, transfer::Transferred};

/// Members that are added while the upgrade goes on run the old program so often, in thousandths: whoever adds them may not know.
const OLD_JOINERS: u64 = 400;

/// An upgrade under way.
#[derive(Debug)]
pub(crate) struct Upgrade {
    random: Random,
    came_to: Upgraded,
}

/// What an upgrade came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgraded {
    /// Programs replaced.
    pub replaced: u64,
    /// Whether the level rose while things still went wrong.
    pub raised_in_chaos: bool,
    /// Members that joined with the old program before the level rose.
    pub old_joiners: u64,
    /// Members that joined with the old program although the level had risen.
    pub late_joiners: u64,
    /// Messages and streams that were refused because one end does not know what the other uses.
    pub refused: u64,
    /// Snapshots with rows of the next level that set out.
    pub snapshots: u64,
    /// Rows of the next level at the end.
    pub rows: u64,
    /// The level at the end.
    pub level: u16,
    level_seen: bool,
}

impl World {
    /// The world of a seed in which the founders run the program of feature level 1, and are replaced under load and faults by that of
    /// the level which this build knows.
    #[must_use]
    pub fn upgrading(seed: u64, print_trace: bool) -> Self {
        let mut world = Self::new(seed, print_trace);
        let mut random = Random::new(seed).split(3);
        for node in world.nodes.values_mut() {
            node.known = FEATURE_LEVEL_FORMED;
        }
        let first = random.between(2_500_000, 6_000_000);
        world.upgrade = Some(Upgrade { random, came_to: Upgraded::default() });
        world.schedule(first, Event::Upgrade);
        world
    }

    /// Replaces the program of one member: its process is killed, and what comes back knows the next level.
    pub(crate) fn upgrade_one(&mut self) {
        let Some(upgrade) = &mut self.upgrade else { return };
        if self.phase != Phase::Chaos {
            return;
        }
        let old = self.nodes.iter().filter(|(_, node)| node.known < FEATURE_LEVEL_KNOWN);
        let old: Vec<MemberId> = old.map(|(member, _)| *member).collect();
        let (next, one) = (upgrade.random.between(300_000, 2_000_000), upgrade.random.pick(&old));
        self.schedule(next, Event::Upgrade);
        if let Some(member) = one {
            self.replace_program(member);
        }
    }

    /// Nobody is left behind when everything heals.
    pub(crate) fn upgrade_rest(&mut self) {
        let members: Vec<MemberId> = self.nodes.keys().copied().collect();
        for member in members {
            self.replace_program(member);
        }
    }

    fn replace_program(&mut self, member: MemberId) {
        let (Some(upgrade), Some(node)) = (&mut self.upgrade, self.nodes.get_mut(&member)) else {
            return;
        };
        if node.known == FEATURE_LEVEL_KNOWN {
            return;
        }
        node.known = FEATURE_LEVEL_KNOWN;
        upgrade.came_to.replaced += 1;
        self.trace.line(format_args!("  {member} gets the next program"));
        self.kill(member);
    }

    /// What the program of a member that is being added knows.
    pub(crate) fn level_of_joiner(&mut self) -> FeatureLevel {
        let calm = self.phase != Phase::Chaos;
        let Some(upgrade) = &mut self.upgrade else { return FEATURE_LEVEL_KNOWN };
        if calm || !upgrade.random.chance(OLD_JOINERS) {
            return FEATURE_LEVEL_KNOWN;
        }
        if upgrade.came_to.level_seen {
            upgrade.came_to.late_joiners += 1;
        } else {
            upgrade.came_to.old_joiners += 1;
        }
        FEATURE_LEVEL_FORMED
    }

    /// The handshake: whether each of two members knows what the other one's cluster uses, as far as that one has applied.
    pub(crate) fn understand(&mut self, one: MemberId, other: MemberId) -> bool {
        let uses = |member: MemberId| {
            let process = self.nodes.get(&member).and_then(|node| node.process.as_ref());
            process.map_or(FeatureLevel(0), |process| process.applier.machine().feature_level())
        };
        let knows = |member: MemberId| self.nodes.get(&member).map(|node| node.known);
        let understood = knows(other).is_none_or(|known| uses(one) <= known)
            && knows(one).is_none_or(|known| uses(other) <= known);
        if let Some(upgrade) = self.upgrade.as_mut().filter(|_| !understood) {
            upgrade.came_to.refused += 1;
        }
        understood
    }

    /// A message reaches a member: no entry in it may be beyond what the member's program knows.
    pub(crate) fn may_meet(&self, member: MemberId, message: &PeerMessage) {
        let Some(known) = self.known_by_old(member) else { return };
        let PeerBody::Consensus(Message { body: Body::Append { entries, .. }, .. }) = &message.body
        else {
            return;
        };
        for entry in entries {
            let bytes = match &entry.payload {
                Payload::Empty => continue,
                Payload::Command(bytes) | Payload::Change(_, bytes) => bytes,
            };
            let envelope = Envelope::decode(bytes).expect("this build reads all levels");
            let needs = envelope.command.needs().max(envelope.feature_level);
            assert!(
                needs <= known,
                "levels: entry {} of level {} was sent to {member}, which knows {}",
                entry.index,
                needs.0,
                known.0
            );
        }
    }

    /// A part of a snapshot reaches a member: its state may not be beyond what the member's program knows.
    pub(crate) fn may_receive(&mut self, member: MemberId, what: &Transferred) {
        let Transferred::Head { state, .. } = what else { return };
        if self.upgrade.is_none() {
            return;
        }
        let state = State::decode(state).expect("this build reads all levels");
        let known = self.known_by_old(member).unwrap_or(FEATURE_LEVEL_KNOWN);
        let rows = state.next().rows().unwrap_or(0);
        assert!(
            state.feature_level() <= known && (rows == 0 || known == FEATURE_LEVEL_KNOWN),
            "levels: a snapshot of level {} with {rows} new rows was sent to {member}, which knows {}",
            state.feature_level().0,
            known.0
        );
        if let Some(upgrade) = self.upgrade.as_mut().filter(|_| rows > 0) {
            upgrade.came_to.snapshots += 1;
        }
    }

    /// What a member knows, if that is not everything.
    fn known_by_old(&self, member: MemberId) -> Option<FeatureLevel> {
        self.nodes.get(&member).map(|node| node.known).filter(|known| *known < FEATURE_LEVEL_KNOWN)
    }

    /// The first time that anybody applies a higher level, every member of that moment must run a program that knows it.
    pub(crate) fn watch_level(&mut self) {
        let Some(upgrade) = &mut self.upgrade else { return };
        if upgrade.came_to.level_seen {
            return;
        }
        let processes = self.nodes.values().filter_map(|node| node.process.as_ref());
        let risen = processes
            .map(|process| process.applier.machine())
            .find(|machine| machine.feature_level() > FEATURE_LEVEL_FORMED);
        let Some(machine) = risen else { return };
        for member in machine.members().iter() {
            // One that was added behind the level's entry, in the same slice, has no machine yet.
            let Some(node) = self.nodes.get(&MemberId(member.id.0)) else { continue };
            assert!(
                node.known >= machine.feature_level(),
                "levels: the level rose to {}, and member {} knows {}",
                machine.feature_level().0,
                member.id,
                node.known.0
            );
        }
        upgrade.came_to.level_seen = true;
        upgrade.came_to.raised_in_chaos = self.phase == Phase::Chaos;
    }

    /// Why the upgrade is not over; none if it is, or if there is none.
    pub(crate) fn not_upgraded(&self) -> Option<String> {
        self.upgrade.as_ref()?;
        let upgraded = self.upgraded()?;
        if upgraded.level < FEATURE_LEVEL_KNOWN.0 {
            return Some(format!("the cluster's feature level is {}", upgraded.level));
        }
        (upgraded.rows == 0).then(|| "there is no row of the next level".to_owned())
    }

    /// What the upgrade came to, by whoever has applied most.
    pub(crate) fn upgraded(&self) -> Option<Upgraded> {
        let upgrade = self.upgrade.as_ref()?;
        let processes = self.nodes.values().filter_map(|node| node.process.as_ref());
        let newest = processes.max_by_key(|process| process.applied())?;
        let state = newest.applier.machine().state();
        let (rows, level) = (state.next().rows().unwrap_or(0), state.feature_level().0);
        Some(Upgraded { rows, level, ..upgrade.came_to.clone() })
    }
}
