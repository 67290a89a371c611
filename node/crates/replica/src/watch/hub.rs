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
    /// Those of `lagging` whose replay is under way. A client may end a watch meanwhile and make another of the same id:
    /// that one is not meant by the replay's end.
    replaying: BTreeSet<Name>,
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
        self.replaying.remove(&name);
        self.notified.remove(&name);
        true
    }

    /// The client asks how far its whole stream is. Answered only if every watch of it is live, and behind
    /// everything queued (INV-W6).
    pub fn progress(&mut self, stream: StreamId, now: Now, sink: &mut dyn Sink) {
        if self.of_stream(stream).all(|(_, watch)| watch.live) {
            let lagging = self.lagging.range((stream, WatchId(i64::MIN))..);
            let own = lagging.take_while(|name| name.0 == stream).count();
            assert!(own == 0, "INV-W6: a stream with {own} lagging watches was told of progress");
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
        assert!(
            events.iter().all(|event| event.revision.main == revision),
            "INV-W4: a delivery of revision {revision} has changes of another"
        );
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
                self.replaying.insert(name);
                lagging.push(Lagging { watch: name.1, spec: watch.spec.clone(), next: watch.next });
            }
        }
        lagging
    }

    /// A replay of the stream came up to `next`: a lagging watch has been told everything below it, or waits for what is
    /// later still (watches of one stream stand at different revisions). It is live again if that is the present; else
    /// it stays behind. Whether it is live (or gone).
    pub fn resume(&mut self, stream: StreamId, watch: WatchId, next: i64, now: Now) -> bool {
        let name = (stream, watch);
        if !self.replaying.remove(&name) {
            return true;
        }
        let state = self.watches.get_mut(&name).expect("removed from both");
        assert!(!state.live, "INV-W2: a live watch was resumed");
        assert!(
            next <= now.revision + 1,
            "INV-W3: a replay claims to be at {next}, the store is at {}",
            now.revision
        );
        state.told |= next > state.next;
        let next = next.max(state.next);
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

#[cfg(test)]
mod tests {
    use quorate_machine::KeyRange;

    use super::*;

    #[derive(Default)]
    struct Heard(Vec<Delivery>);

    impl Sink for Heard {
        fn offer(&mut self, _stream: StreamId, delivery: Delivery) -> bool {
            self.0.push(delivery);
            true
        }

        fn answer(&mut self, _stream: StreamId, delivery: Delivery) {
            self.0.push(delivery);
        }

        fn lags(&mut self, _stream: StreamId) {}
    }

    const STREAM: StreamId = StreamId(1);

    fn from(start_revision: i64) -> WatchSpec {
        WatchSpec {
            range: KeyRange::From(bytes::Bytes::new()),
            start_revision,
            no_put: false,
            no_delete: false,
            prev_kv: false,
            progress_notify: false,
        }
    }

    fn hub_with(starts: &[i64], now: Now) -> WatchHub {
        let mut hub = WatchHub::default();
        for (id, start_revision) in (1..).zip(starts) {
            let spec = from(*start_revision);
            hub.create(STREAM, WatchId(id), spec, now, &mut Heard::default());
        }
        hub
    }

    fn lagging(hub: &mut WatchHub, now: Now) -> Vec<(i64, i64)> {
        let lagging = hub.lagging(STREAM, 64, now, &mut Heard::default());
        lagging.into_iter().map(|lagging| (lagging.watch.0, lagging.next)).collect()
    }

    /// A replay that stops early has not reached the watch that stands further on.
    #[test]
    fn a_replay_never_takes_a_watch_back() {
        let now = Now { revision: 2000, compacted: -1 };
        let mut hub = hub_with(&[1, 800], now);
        assert_eq!(lagging(&mut hub, now), [(1, 1), (2, 800)]);
        for id in [1, 2] {
            assert!(!hub.resume(STREAM, WatchId(id), 501, now));
        }
        assert_eq!(lagging(&mut hub, now), [(1, 501), (2, 800)]);
        for id in [1, 2] {
            assert!(hub.resume(STREAM, WatchId(id), 2001, now));
        }
        assert_eq!(hub.counts(), (2, 0));
    }

    /// It waits for a revision that is still to come when a snapshot makes every watch replay.
    #[test]
    fn a_watch_of_the_future_outlives_a_jump() {
        let mut hub = hub_with(&[1000], Now { revision: 10, compacted: -1 });
        assert_eq!(hub.counts(), (1, 0));
        hub.jump(10, &mut Heard::default());
        assert_eq!(hub.counts(), (1, 1));
        let now = Now { revision: 50, compacted: 20 };
        assert_eq!(lagging(&mut hub, now), [(1, 1000)]);
        assert!(hub.resume(STREAM, WatchId(1), 51, now));
        assert_eq!(hub.counts(), (1, 0));
    }

    #[test]
    fn a_stream_hears_of_progress_only_when_nothing_of_it_lags() {
        let now = Now { revision: 10, compacted: -1 };
        let mut hub = hub_with(&[0, 3], now);
        let mut heard = Heard::default();
        hub.progress(STREAM, now, &mut heard);
        assert!(heard.0.is_empty(), "{:?}", heard.0);
        assert_eq!(lagging(&mut hub, now), [(2, 3)]);
        assert!(hub.resume(STREAM, WatchId(2), 11, now));
        hub.progress(STREAM, now, &mut heard);
        assert!(matches!(heard.0[..], [Delivery::Progress { watch: None, revision: 10 }]));
    }

    /// A client ends a watch while it is being replayed and makes another one of the same id.
    #[test]
    fn the_end_of_a_replay_is_not_for_a_watch_that_took_the_id() {
        let now = Now { revision: 10, compacted: -1 };
        let mut hub = hub_with(&[5], now);
        assert_eq!(lagging(&mut hub, now), [(1, 5)]);
        hub.cancel(STREAM, WatchId(1), now, &mut Heard::default());
        hub.create(STREAM, WatchId(1), from(2), now, &mut Heard::default());
        hub.resume(STREAM, WatchId(1), 11, now);
        assert_eq!(lagging(&mut hub, now), [(1, 2)], "it still wants its own history");
    }
}
