//! Clients that watch: each one watch at a time, on one member after the other, some of them slowly.

use quorate_consensus::MemberId;
use quorate_replica::watch::{Delivery, StreamId, WatchSpec};

use super::{
    World, clients, event::Event, happenings::Happening, random::Random, streams::Told, translate,
};
use crate::judge::{Note, Watch};

/// A client that watches.
#[derive(Debug)]
pub(crate) struct Watcher {
    random: Random,
    /// How often it takes something, in microseconds.
    pace: u64,
    capacity: usize,
    attached: Option<(MemberId, u64, StreamId)>,
    watch: Option<Watch>,
    streams: u64,
    /// Stays where it is from now on.
    settled: bool,
}

impl Watcher {
    pub(crate) fn new(mut random: Random) -> Self {
        let slow = random.chance(500);
        let pace = if slow { random.between(20_000, 400_000) } else { random.between(100, 5_000) };
        let capacity = random.index(6) + 1;
        Self { random, pace, capacity, attached: None, watch: None, streams: 0, settled: false }
    }

    /// The member that it stands on and has been told so by.
    pub(crate) fn stands_on(&self) -> Option<MemberId> {
        let told = self.watch.as_ref().is_some_and(|watch| !watch.notes.is_empty());
        self.attached.map(|(member, _, _)| member).filter(|_| told)
    }

    /// At the end nobody is slow, and nobody moves.
    pub(crate) fn settle(&mut self) {
        self.pace = 2_000;
        self.settled = true;
    }

    /// Hands its last watch over; it must have been told everything up to a revision.
    pub(crate) fn finish(&mut self, must_reach: i64) -> Option<Watch> {
        let mut watch = self.watch.take()?;
        watch.must_reach = Some(must_reach);
        Some(watch)
    }
}

impl World {
    /// One step of a watcher.
    pub(crate) fn run_watcher(&mut self, which: usize) {
        let delay = match self.watchers[which].attached {
            None => self.attach(which),
            Some((member, life, stream)) => self.listen(which, member, life, stream),
        };
        self.schedule(delay, Event::Watcher(which));
    }

    fn attach(&mut self, which: usize) -> u64 {
        let mut serving = self.serving();
        if self.watchers[which].settled {
            let members = self.membership();
            serving.retain(|member| members.iter().any(|known| known.id.0 == member.0));
        }
        let watcher = &mut self.watchers[which];
        let Some(member) = watcher.random.pick(&serving) else { return 50_000 };
        if watcher.watch.is_none() {
            let watch = new_watch(&mut watcher.random, which, self.knowledge.revision);
            watcher.watch = Some(watch);
        }
        let Some(watch) = &watcher.watch else { return 50_000 };
        let spec = WatchSpec {
            range: translate::key_range(&watch.keys),
            start_revision: watch.start,
            no_put: watch.no_put,
            no_delete: watch.no_delete,
            prev_kv: watch.prev,
            progress_notify: true,
        };
        watcher.streams += 1;
        let stream = StreamId(((which as u64) << 32) | watcher.streams);
        let capacity = watcher.capacity;
        let mut opened = None;
        self.on(member, |process, _| {
            if process.open_stream(stream, capacity, spec) {
                opened = Some(process.life);
            }
            Ok(())
        });
        if let Some(life) = opened {
            self.watchers[which].attached = Some((member, life, stream));
        }
        300
    }

    fn listen(&mut self, which: usize, member: MemberId, life: u64, stream: StreamId) -> u64 {
        let node = self.nodes.get(&member);
        if node.is_some_and(|node| node.paused_until > self.now) {
            return 20_000;
        }
        let same = |node: &super::node::Node| node.process.as_ref().is_some_and(|p| p.life == life);
        if !node.is_some_and(same) {
            self.detach(which, true);
            return 1_000;
        }
        let settled = self.watchers[which].settled;
        // At the end only members have something to tell.
        let leaves = if settled {
            !self.membership().iter().any(|known| known.id.0 == member.0)
        } else {
            self.watchers[which].random.chance(8)
        };
        let asks = self.watchers[which].random.chance(40);
        let mut told = Told::Gone;
        self.on(member, |process, scene| {
            if leaves {
                return Ok(());
            }
            if asks {
                process.ask_progress(stream);
            }
            told = process.stream_step(stream, scene)?;
            Ok(())
        });
        match told {
            Told::Gone => {
                self.detach(which, true);
                1_000
            }
            Told::Worked => self.random.between(100, 3_000),
            Told::Idle => self.random.between(2_000, 30_000),
            Told::Delivery(delivery) => {
                self.delivered(which, &delivery);
                self.watchers[which].pace
            }
        }
    }

    fn delivered(&mut self, which: usize, delivery: &Delivery) {
        let compacted = self.knowledge.compaction;
        let watcher = &mut self.watchers[which];
        let Some(watch) = &mut watcher.watch else { return };
        match delivery {
            Delivery::Created { revision, .. } => {
                watch.notes.push(Note::Created { revision: *revision });
            }
            Delivery::Events { events, prev_kv, .. } => {
                let events =
                    events.iter().map(|event| translate::watch_event(event, *prev_kv)).collect();
                watch.notes.push(Note::Events { events, compacted });
            }
            Delivery::Progress { revision, .. } => {
                self.counts.note(Happening::WatchProgress);
                watch.notes.push(Note::Progress { revision: *revision });
            }
            Delivery::Compacted { compact_revision, .. } => {
                self.counts.note(Happening::WatchCompacted);
                watch.notes.push(Note::Compacted { compacted: *compact_revision });
                self.detach(which, false);
            }
            Delivery::DuplicateId { .. } | Delivery::Canceled { .. } => {
                panic!("a watch was told {delivery:?}, which it did not ask for")
            }
        }
    }

    /// The stream is over; the next one may go on where it ended.
    fn detach(&mut self, which: usize, resumes: bool) {
        if let Some((member, life, stream)) = self.watchers[which].attached.take()
            && self.lives(member, life)
        {
            self.on(member, |process, _| {
                process.close_stream(stream);
                Ok(())
            });
        }
        let watcher = &mut self.watchers[which];
        let Some(watch) = watcher.watch.take() else { return };
        let next = watch.next();
        if resumes && next > 0 && watcher.random.chance(800) {
            self.counts.note(Happening::WatchResumed);
            watcher.watch = Some(Watch { start: next, notes: Vec::new(), ..watch.clone() });
        }
        self.watches.push(watch);
    }
}

fn new_watch(random: &mut Random, which: usize, revision: i64) -> Watch {
    let near = i64::try_from(random.below(40)).expect("small");
    let start = match random.below(4) {
        0 => 0,
        1 => revision + near / 8,
        _ => (revision - near).max(1),
    };
    Watch {
        name: format!("watcher {which} from {start}"),
        keys: clients::keys(random),
        start,
        no_put: random.chance(100),
        no_delete: random.chance(100),
        prev: random.chance(600),
        notes: Vec::new(),
        must_reach: None,
    }
}
