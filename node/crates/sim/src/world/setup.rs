//! How a world begins: its sizes, its founders, its clients; and how a member starts, stops and joins.

use std::{path::Path, sync::Arc};

use quorate_consensus::{LogIndex, MemberId, Settings as ConsensusSettings, Term};
use quorate_machine::{ClusterId, FEATURE_LEVEL_FORMED, FeatureLevel, Genesis, Member, State};
use quorate_storage::{
    disk::{Disk, mem::MemDisk},
    identity,
    prepare::{self, Founder, Founding},
    rows::RowSettings,
    wal::WalSettings,
};

use super::{
    Phase, TICK_US, Trace, World,
    chaos::Operator,
    clients::{Client, Knowledge},
    event::Event,
    happenings::{Counts, Happening},
    network::Network,
    node::{Node, Promised},
    process::{DATA, Process, Sizes, Waiter},
    random::Random,
    truth::Truth,
    watchers::Watcher,
};
use crate::judge::Outcome;

/// Ticks of an election timeout, as etcd's defaults have it.
const ELECTION_TICKS: u32 = 10;

impl World {
    /// The world of a seed.
    #[must_use]
    pub fn new(seed: u64, print_trace: bool) -> Self {
        let root = Random::new(seed);
        let random = root.split(1);
        let mut shape = root.split(2);
        let clients = shape.between(4, 7);
        let watchers = shape.between(3, 6);
        let mut world = Self {
            random,
            now: 0,
            steps: 0,
            queue: std::collections::BTreeMap::new(),
            scheduled: 0,
            nodes: std::collections::BTreeMap::new(),
            network: Network::new(&mut shape),
            truth: Truth::default(),
            counts: Counts::default(),
            trace: Trace::new(print_trace),
            clients: (0..clients)
                .map(|number| Client { random: root.split(100 + number), waits: None })
                .collect(),
            knowledge: Knowledge::default(),
            history: Vec::new(),
            watchers: (0..watchers).map(|n| Watcher::new(root.split(200 + n))).collect(),
            watches: Vec::new(),
            operator: Operator::default(),
            leader_time: vec![(0, 0)],
            phase: Phase::Chaos,
            effects: Vec::new(),
            upgrade: None,
            operations_wanted: usize::try_from(shape.between(350, 600)).expect("small"),
            chaos_until: shape.between(12_000_000, 20_000_000),
        };
        world.found(&mut shape);
        for client in 0..world.clients.len() {
            world.schedule(500_000, Event::Client(client));
        }
        for watcher in 0..world.watchers.len() {
            world.schedule(600_000, Event::Watcher(watcher));
        }
        world.schedule(2_000_000, Event::Chaos);
        world
    }

    fn found(&mut self, shape: &mut Random) {
        let count = shape.between(3, 5);
        let founders = (1..=count).map(|number| Founder {
            name: format!("m{number}"),
            peer_urls: vec![format!("http://m{number}:2380")],
            client_urls: Vec::new(),
        });
        let founding = Founding::new("sim", founders.collect()).expect("all are different");
        let members = founding.members.iter().map(|(id, founder)| Member {
            id: quorate_machine::MemberId(id.0),
            name: founder.name.clone(),
            peer_urls: founder.peer_urls.clone(),
            ..Member::default()
        });
        let genesis = Genesis {
            cluster: ClusterId(founding.cluster.0),
            members: members.collect(),
            feature_level: FEATURE_LEVEL_FORMED,
            index: 1,
        };
        let state = State::of_genesis(genesis).encode();
        self.operator.cluster = founding.cluster;
        for (id, _) in &founding.members {
            let (disk, sizes) = (MemDisk::new(), sizes(shape));
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let incarnation = shape.roll();
            let path = Path::new(DATA);
            prepare::form(&shared, path, &founding, *id, incarnation, &sizes.wal, state.clone())
                .expect("an empty disk takes a formation");
            let mut node = Node::new(disk, sizes, shape.between(920, 1080));
            node.promised = Promised::begin(Term(1), LogIndex(1));
            self.nodes.insert(*id, node);
            let delay = shape.between(0, 300_000);
            self.schedule(delay, Event::Restart(*id));
        }
    }

    /// The machine of a member that was added: an empty disk, and the addresses of those it joins by.
    pub(crate) fn make_joiner(&mut self, id: MemberId, cluster: identity::ClusterId) {
        let (disk, sizes) = (MemDisk::new(), sizes(&mut self.random));
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let genesis = Genesis {
            cluster: ClusterId(cluster.0),
            members: Vec::new(),
            feature_level: FeatureLevel(0),
            index: 0,
        };
        let state = State::of_genesis(genesis).encode();
        let incarnation = self.random.roll();
        let path = Path::new(DATA);
        prepare::join(&shared, path, cluster, id, incarnation, &sizes.wal, state)
            .expect("an empty disk takes a joiner");
        let mut node = Node::new(disk, sizes, self.random.between(920, 1080));
        node.known = self.level_of_joiner();
        node.book = self.membership().iter().map(|member| MemberId(member.id.0)).collect();
        self.nodes.insert(id, node);
        self.counts.note(Happening::Joined);
        self.schedule(1_000, Event::Restart(id));
    }

    /// A member's process starts.
    pub(crate) fn restart(&mut self, member: MemberId) {
        let Some(node) = self.nodes.get_mut(&member) else { return };
        node.restarting = false;
        if node.removed || node.process.is_some() {
            return;
        }
        let life = self.random.roll();
        let mut sizes = node.sizes.clone();
        sizes.wal.epoch_seed = self.random.roll();
        sizes.consensus.seed = self.random.roll();
        let disk: Arc<dyn Disk> = Arc::new(node.disk.clone());
        let started = Process::start(disk, member, life, &sizes, node.known, &mut self.counts);
        if node.fault_taken() {
            self.counts.note(Happening::CrashInStep);
            self.crash(member);
            return;
        }
        let (process, recovered) = match started {
            Ok(started) => started,
            Err(stop) => panic!("member {member} does not start: {}", stop.0),
        };
        node.promised.check(member, &recovered);
        let (index, digest) = (process.applied().0, process.applier.machine().digest());
        if index > LogIndex(0) {
            self.truth.applied(member, index, digest);
        }
        let rate = node.rate;
        node.process = Some(process);
        node.last_tick = self.now;
        self.counts.note(Happening::Restarted);
        self.schedule(TICK_US * 1000 / rate, Event::Tick(member, life));
        self.schedule(150_000, Event::Publish(member, life));
        self.schedule(700_000, Event::NotifyProgress(member, life));
        self.on(member, |process, scene| {
            process.wake(super::process::Thread::Files, 50_000, scene);
            process.wake(super::process::Thread::Consensus, 100, scene);
            Ok(())
        });
    }

    /// A member's process ends; whoever waited there does not know what became of the request.
    fn end_process(&mut self, member: MemberId) -> bool {
        let Some(node) = self.nodes.get_mut(&member) else { return false };
        node.paused_until = 0;
        let Some(process) = node.process.take() else { return false };
        for waiter in process.waiting() {
            match waiter {
                Waiter::Client(operation) => {
                    let delay = self.random.between(100, 3_000);
                    self.schedule(delay, Event::Answer(operation, Outcome::Unknown));
                }
                Waiter::Operator => self.operator.unknown(),
                Waiter::Publication => {}
            }
        }
        drop(process);
        let others: Vec<MemberId> =
            self.nodes.keys().copied().filter(|other| *other != member).collect();
        for other in others {
            self.on(other, |process, scene| {
                process.peer_died(member, scene);
                Ok(())
            });
        }
        true
    }

    /// A member's machine loses power.
    pub(crate) fn crash(&mut self, member: MemberId) {
        self.end_process(member);
        let seed = self.random.roll();
        let Some(node) = self.nodes.get_mut(&member) else { return };
        if node.promised.any_unsynced() {
            self.counts.note(Happening::UnsyncedLost);
        }
        node.disk.crash(seed);
        self.counts.note(Happening::Crash);
        self.restart_later(member);
    }

    /// A member's process is killed; its machine stays up.
    pub(crate) fn kill(&mut self, member: MemberId) {
        if !self.end_process(member) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&member) {
            node.disk.kill();
        }
        self.counts.note(Happening::Killed);
        self.restart_later(member);
    }

    fn restart_later(&mut self, member: MemberId) {
        let calm = self.phase != Phase::Chaos;
        let delay = if calm { 1_000 } else { self.random.between(20_000, 3_000_000) };
        if let Some(node) = self.nodes.get_mut(&member) {
            node.restarting = true;
        }
        self.schedule(delay, Event::Restart(member));
    }

    /// A member was told that it is none any more.
    pub(crate) fn hear_of_removal(&mut self, member: MemberId) {
        self.end_process(member);
        if let Some(node) = self.nodes.get_mut(&member) {
            node.removed = true;
        }
    }
}

/// Small and different sizes, so that every bound is met.
fn sizes(random: &mut Random) -> Sizes {
    Sizes {
        consensus: ConsensusSettings {
            id: MemberId::NONE,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 1,
            inflight_messages_max: random.size(1, 6),
            inflight_bytes_max: random.size(512, 7),
            append_bytes_max: random.size(256, 5),
            committed_bytes_max: random.size(512, 6),
            uncommitted_bytes_max: random.size(4096, 5),
            memory_bytes_max: random.size(1024, 7),
            seed: 0,
        },
        rows: RowSettings {
            segment_bytes: u32::try_from(random.size(512, 5)).expect("small"),
            checkpoint_due_bytes: random.size(1024, 5) as u64,
        },
        wal: WalSettings {
            segment_bytes: random.size(8192, 2) as u64,
            keep_bytes: random.size(8192, 3) as u64,
            held_bytes_max: random.size(65_536, 3) as u64,
            recovered_bytes_max: random.size(512, 8),
            epoch_seed: 0,
        },
    }
}
