//! The hub: every watch of this member, live or lagging, and what each is told when a revision is complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quorate_machine::{Event, ReadFault, View};

use super::{
    Delivery, StreamId, WatchEvent, WatchId, WatchSpec,
    interest::{Interest, Name},
};
use crate::limits::WATCHES_PER_STREAM_MAX;

/// Where deliveries go: a queue for each stream.
pub trait Sink {
    /// Queues a delivery if the stream has room. `false`: it has none, and the watch falls behind.
    fn offer(&mut self, stream: StreamId, delivery: Delivery) -> bool;

    /// Queues an answer to the client's own request, room or not: the shell bounds the requests.
    fn answer(&mut self, stream: StreamId, delivery: Delivery);

    /// A watch of this stream is lagging: it should replay when it has sent what it has.
    fn lags(&mut self, stream: StreamId);
}

/// The store as the hub sees it: after the last complete revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The store's revision.
    pub revision: i64,
    /// History below it is gone; −1 if nothing was compacted.
    pub compacted: i64,
}

/// A watch that must replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lagging {
    /// Which.
    pub watch: WatchId,
    /// What it wants.
    pub spec: WatchSpec,
    /// The first revision that it was not told.
    pub next: i64,
}

#[derive(Debug)]
struct Watch {
    spec: WatchSpec,
    /// The first revision that it was not told. While live it is only compared with the future: a watch may wait
    /// for a revision that is still to come.
    next: i64,
    live: bool,
    /// Whether it was told anything since the last round of progress notices.
    told: bool,
}

/// All watches of one member.
#[derive(Debug, Default)]
pub struct WatchHub {
    watches: BTreeMap<Name, Watch>,
    interest: Interest,
    lagging: BTreeSet<Name>,
    notified: BTreeSet<Name>,
}

impl WatchHub {
    /// A client asks for a watch. Its answer is queued before any of its events (law: ordered).
    pub fn create(
        &mut self,
        stream: StreamId,
        watch: WatchId,
        spec: WatchSpec,
        now: Now,
        sink: &mut dyn Sink,
    ) {
        let name = (stream, watch);
        if self.watches.contains_key(&name) || self.count(stream) >= WATCHES_PER_STREAM_MAX {
            sink.answer(stream, Delivery::DuplicateId { revision: now.revision });
            return;
        }
        sink.answer(stream, Delivery::Created { watch, revision: now.revision });
        let next = if spec.start_revision == 0 { now.revision + 1 } else { spec.start_revision };
        if next <= now.compacted {
            sink.answer(stream, compacted(watch, now));
            return;
        }
        if spec.progress_notify {
            self.notified.insert(name);
        }
        let live = next > now.revision;
        if live {
            self.interest.insert(&spec.range, name);
        } else {
            self.lagging.insert(name);
            sink.lags(stream);
        }
        self.watches.insert(name, Watch { spec, next, live, told: false });
    }

    fn count(&self, stream: StreamId) -> usize {
        self.of_stream(stream).count()
    }

    fn of_stream(&self, stream: StreamId) -> impl Iterator<Item = (&Name, &Watch)> {
        self.watches.range((stream, WatchId(i64::MIN))..=(stream, WatchId(i64::MAX)))
    }

    /// The client ends a watch.
    pub fn cancel(&mut self, stream: StreamId, watch: WatchId, now: Now, sink: &mut dyn Sink) {
        if self.remove((stream, watch)) {
            sink.answer(stream, Delivery::Canceled { watch, revision: now.revision });
        }
    }

    /// The stream is gone, and its watches with it.
    pub fn close(&mut self, stream: StreamId) {
        let names: Vec<Name> = self.of_stream(stream).map(|(name, _)| *name).collect();
        for name in names {
            self.remove(name);
        }
    }

    fn remove(&mut self, name: Name) -> bool {
        let Some(watch) = self.watches.remove(&name) else { return false };
        self.interest.remove(&watch.spec.range, name);
        self.lagging.remove(&name);
        self.notified.remove(&name);
        true
    }

    /// The client asks how far its whole stream is. Answered only if every watch of it is live, and behind
    /// everything queued (INV-W6).
    pub fn progress(&mut self, stream: StreamId, now: Now, sink: &mut dyn Sink) {
        if self.of_stream(stream).all(|(_, watch)| watch.live) {
            sink.offer(stream, Delivery::Progress { watch: None, revision: now.revision });
        }
    }

    /// Time for periodic notices: to each live watch that wants them and was told nothing since the last round.
    pub fn notify_progress(&mut self, now: Now, sink: &mut dyn Sink) {
        for name in &self.notified {
            let watch = self.watches.get_mut(name).expect("removed from both");
            if watch.live && !watch.told {
                let notice = Delivery::Progress { watch: Some(name.1), revision: now.revision };
                sink.offer(name.0, notice);
            }
            watch.told = false;
        }
    }

    /// A revision is complete: tells the live watches that cover its changes. `view` reads the previous pairs, once
    /// for all watches that want them.
    ///
    /// # Errors
    /// A failed read.
    pub fn publish(
        &mut self,
        events: &[Event],
        view: &dyn View,
        sink: &mut dyn Sink,
    ) -> Result<(), ReadFault> {
        let mut told: BTreeMap<Name, Vec<Arc<WatchEvent>>> = BTreeMap::new();
        for event in events {
            let names: Vec<Name> =
                self.interest.of(&event.key).filter(|name| self.wants(name, event)).collect();
            if names.is_empty() {
                continue;
            }
            let with_prev = names.iter().any(|name| self.watches[name].spec.prev_kv);
            let shared = Arc::new(watch_event(event, with_prev, view)?);
            for name in names {
                told.entry(name).or_default().push(shared.clone());
            }
        }
        for (name, events) in told {
            self.tell(name, events, sink);
        }
        Ok(())
    }

    fn wants(&self, name: &Name, event: &Event) -> bool {
        let watch = &self.watches[name];
        watch.next <= event.revision.main
            && !(event.deleted && watch.spec.no_delete)
            && (event.deleted || !watch.spec.no_put)
    }

    /// All changes of one revision in one delivery (INV-W4); without room the watch falls behind.
    fn tell(&mut self, name: Name, events: Vec<Arc<WatchEvent>>, sink: &mut dyn Sink) {
        let revision = events[0].revision.main;
        let watch = self.watches.get_mut(&name).expect("interest holds live watches only");
        assert!(watch.live, "INV-W1: a lagging watch was told of revision {revision} out of turn");
        let prev_kv = watch.spec.prev_kv;
        let delivery = Delivery::Events { watch: name.1, revision, events, prev_kv };
        if sink.offer(name.0, delivery) {
            watch.told = true;
            watch.next = revision + 1;
        } else {
            watch.next = revision;
            self.fall_behind(name, sink);
        }
    }

    fn fall_behind(&mut self, name: Name, sink: &mut dyn Sink) {
        let watch = self.watches.get_mut(&name).expect("its name was just used");
        watch.live = false;
        self.interest.remove(&watch.spec.range, name);
        self.lagging.insert(name);
        sink.lags(name.0);
    }

    /// The data jumped (a snapshot was installed): every watch replays from where it stood. `before` is the store's
    /// revision before the jump.
    pub fn jump(&mut self, before: i64, sink: &mut dyn Sink) {
        let names: Vec<Name> =
            self.watches.iter().filter(|(_, watch)| watch.live).map(|(name, _)| *name).collect();
        for name in names {
            let watch = self.watches.get_mut(&name).expect("just listed");
            watch.next = watch.next.max(before + 1);
            self.fall_behind(name, sink);
        }
    }

    /// The watches of a stream that must replay, at most `max`; those whose history is gone are cancelled instead.
    pub fn lagging(
        &mut self,
        stream: StreamId,
        max: usize,
        now: Now,
        sink: &mut dyn Sink,
    ) -> Vec<Lagging> {
        let names: Vec<Name> = self
            .lagging
            .range((stream, WatchId(i64::MIN))..=(stream, WatchId(i64::MAX)))
            .copied()
            .take(max)
            .collect();
        let mut lagging = Vec::with_capacity(names.len());
        for name in names {
            let watch = &self.watches[&name];
            if watch.next <= now.compacted {
                self.remove(name);
                sink.answer(stream, compacted(name.1, now));
            } else {
                lagging.push(Lagging { watch: name.1, spec: watch.spec.clone(), next: watch.next });
            }
        }
        lagging
    }

    /// A lagging watch has been told everything below `next`. It is live again if that is the present; else it
    /// stays behind. Whether it is live (or gone).
    pub fn resume(&mut self, stream: StreamId, watch: WatchId, next: i64, now: Now) -> bool {
        let name = (stream, watch);
        let Some(state) = self.watches.get_mut(&name) else { return true };
        assert!(!state.live, "INV-W2: a live watch was resumed");
        assert!(next >= state.next, "INV-W1: a replay went back from {} to {next}", state.next);
        state.told |= next > state.next;
        state.next = next;
        if next <= now.revision {
            return false;
        }
        state.live = true;
        self.interest.insert(&state.spec.range, name);
        self.lagging.remove(&name);
        true
    }

    /// (all watches, lagging ones).
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.watches.len(), self.lagging.len())
    }
}

fn compacted(watch: WatchId, now: Now) -> Delivery {
    Delivery::Compacted { watch, revision: now.revision, compact_revision: now.compacted }
}

/// The shared form of a change, with the pair before it if any watch wants that and it still exists.
fn watch_event(event: &Event, with_prev: bool, view: &dyn View) -> Result<WatchEvent, ReadFault> {
    let prev_kv = match &event.previous {
        Some(previous) if with_prev => Some(view.read(&event.key, previous)?),
        Some(_) | None => None,
    };
    Ok(WatchEvent::new(event.revision, event.key.clone(), event.deleted, event.kv.clone(), prev_kv))
}
