//! The network: it loses, repeats, delays, reorders and cuts; and it carries bytes, not values.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use quorate_consensus::MemberId;
use quorate_replica::{Input, PeerMessage};

use super::{
    World,
    event::Event,
    happenings::Happening,
    random::Random,
    transfer::{TransferId, Transferred},
};

/// The state of all links.
#[derive(Debug)]
pub(crate) struct Network {
    /// Links that carry nothing: from, to.
    cut: BTreeSet<(MemberId, MemberId)>,
    /// In thousand messages.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) delay: u64,
    sent: u64,
    /// The last message that arrived on each link.
    arrived: BTreeMap<(MemberId, MemberId), u64>,
}

impl Network {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            cut: BTreeSet::new(),
            loss: random.below(40),
            duplication: random.below(40),
            delay: random.below(40),
            sent: 0,
            arrived: BTreeMap::new(),
        }
    }

    pub(crate) fn cut(&mut self, from: MemberId, to: MemberId) {
        self.cut.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Nothing goes wrong any more.
    pub(crate) fn calm(&mut self) {
        self.heal();
        (self.loss, self.duplication, self.delay) = (0, 0, 0);
    }

    fn carries(&self, from: MemberId, to: MemberId) -> bool {
        !self.cut.contains(&(from, to))
    }
}

impl World {
    /// A member sends a message.
    pub(crate) fn send(&mut self, from: MemberId, message: &PeerMessage) {
        let to = message.to;
        let Some(node) = self.nodes.get(&from) else { return };
        // A member that it has no address of cannot be reached.
        if !node.knows(to) {
            return;
        }
        let leader_time = node.leader_time;
        let lost = self.random.chance(self.network.loss);
        if lost || !self.network.carries(from, to) {
            self.counts.note(Happening::Dropped);
            if self.random.chance(100) {
                self.on(from, |process, scene| {
                    process.input(Input::Unreachable(to), scene);
                    Ok(())
                });
            }
            return;
        }
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        let bytes = bytes.freeze();
        let copies = if self.random.chance(self.network.duplication) {
            self.counts.note(Happening::Duplicated);
            2
        } else {
            1
        };
        self.network.sent += 1;
        let number = self.network.sent;
        for _ in 0..copies {
            let delay = if self.random.chance(self.network.delay) {
                self.counts.note(Happening::Delayed);
                self.random.between(20_000, 2_000_000)
            } else {
                self.random.between(100, 2_500)
            };
            let bytes = bytes.clone();
            self.schedule(delay, Event::Deliver { from, to, number, bytes, leader_time });
        }
    }

    /// A message arrives, if the link is still there.
    pub(crate) fn deliver(
        &mut self,
        from: MemberId,
        to: MemberId,
        number: u64,
        bytes: Bytes,
        leader_time: u64,
    ) {
        if !self.network.carries(from, to) {
            self.counts.note(Happening::Dropped);
            return;
        }
        let last = self.network.arrived.entry((from, to)).or_insert(0);
        if number < *last {
            self.counts.note(Happening::Reordered);
        }
        *last = number.max(*last);
        // The handshake: whoever was removed is told so, and not heard.
        if self.removed_by(to, from) {
            if self.random.chance(200) {
                self.schedule(1_000, Event::Removed(from));
            }
            return;
        }
        if let Some(node) = self.nodes.get_mut(&to) {
            // The handshake says where the sender listens: who is behind may not know it as a member.
            node.book.insert(from);
            node.leader_time = node.leader_time.max(leader_time);
        }
        if !self.understand(from, to) {
            return;
        }
        let message = PeerMessage::decode(bytes).expect("what was sent can be read");
        self.may_meet(to, &message);
        assert!(message.from == from && message.to == to, "a message went astray: {message:?}");
        self.on(to, |process, scene| {
            process.input(Input::Peer(message), scene);
            Ok(())
        });
    }

    /// Whether a link carries anything now, and its end is known to its begin.
    pub(crate) fn reaches(&self, from: MemberId, to: MemberId) -> bool {
        self.network.carries(from, to) && self.nodes.get(&from).is_some_and(|node| node.knows(to))
    }

    /// Whether a running voter has applied the removal of another member. A learner may know of it before the voters do; were
    /// its word enough, a removed leader could be stopped while the one remaining voter still needs it to learn of the commit.
    pub(crate) fn removed_by(&self, member: MemberId, other: MemberId) -> bool {
        let process = self.nodes.get(&member).and_then(|node| node.process.as_ref());
        let other = quorate_machine::MemberId(other.0);
        process.is_some_and(|process| {
            let members = process.applier.machine().members();
            let own = members.get(quorate_machine::MemberId(member.0));
            own.is_some_and(|own| !own.learner) && members.is_removed(other)
        })
    }

    /// Something of a snapshot's stream sets out; a stream loses nothing but may break off.
    pub(crate) fn send_transfer(
        &mut self,
        from: MemberId,
        to: MemberId,
        id: TransferId,
        what: Transferred,
    ) {
        let delay = self.random.between(200, 4_000);
        self.schedule(delay, Event::Transfer { from, to, id, what });
    }

    /// It arrives, or the stream breaks off at both ends.
    pub(crate) fn transfer(
        &mut self,
        from: MemberId,
        to: MemberId,
        id: TransferId,
        what: Transferred,
    ) {
        let runs = self.nodes.get(&to).is_some_and(|node| node.process.is_some());
        let carries = self.network.carries(from, to) && self.network.carries(to, from);
        let carries = carries && self.understand(from, to);
        let breaks = self.phase == super::Phase::Chaos && self.random.chance(8);
        if runs && carries && !breaks {
            self.may_receive(to, &what);
            self.on(to, |process, scene| process.transferred(from, id, what, scene));
            return;
        }
        for end in [from, to] {
            let other = if end == from { to } else { from };
            self.on(end, |process, scene| {
                process.transferred(other, id, Transferred::Broken, scene)
            });
        }
    }
}
