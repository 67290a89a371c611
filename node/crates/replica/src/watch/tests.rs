//! Hub and replay together, as one client hears them.

use bytes::Bytes;
use quorate_machine::{Event, KeyRange, KeyValue, ModelStore, Revision, Row, Store, View};

use super::{Delivery, Now, Sink, StreamId, WatchHub, WatchId, WatchSpec, replay};

/// A queue with a bound for events.
#[derive(Default)]
struct Queue {
    room: usize,
    deliveries: Vec<Delivery>,
    lagging: bool,
}

impl Sink for Queue {
    fn offer(&mut self, _: StreamId, delivery: Delivery) -> bool {
        let fits = self.room > 0;
        if fits {
            self.room -= 1;
            self.deliveries.push(delivery);
        }
        fits
    }

    fn answer(&mut self, _: StreamId, delivery: Delivery) {
        self.deliveries.push(delivery);
    }

    fn lags(&mut self, _: StreamId) {
        self.lagging = true;
    }
}

const STREAM: StreamId = StreamId(1);

/// A store, its hub, and what one client was told.
struct World {
    store: ModelStore,
    hub: WatchHub,
    queue: Queue,
    revision: i64,
}

impl World {
    fn new(room: usize) -> Self {
        Self {
            store: ModelStore::default(),
            hub: WatchHub::default(),
            queue: Queue { room, ..Queue::default() },
            revision: 1,
        }
    }

    fn now(&self) -> Now {
        Now { revision: self.revision, compacted: -1 }
    }

    fn put(&mut self, key: &'static str) {
        let key = Bytes::from_static(key.as_bytes());
        let previous = self.store.lookup(&key, Revision::end_of(self.revision)).unwrap();
        self.revision += 1;
        let revision = Revision { main: self.revision, sub: 0 };
        let created = previous.map_or(self.revision, |previous| previous.created);
        let version = previous.map_or(1, |previous| previous.version + 1);
        let kv = KeyValue {
            key: key.clone(),
            create_revision: created,
            mod_revision: self.revision,
            version,
            ..KeyValue::default()
        }
        .encode();
        let row =
            Row { revision, key: key.clone(), kv: kv.clone(), created, version, tombstone: false };
        self.store.append(row);
        let event = Event { revision, key, kv, deleted: false, previous };
        self.hub.publish(&[event], &self.store, &mut self.queue).unwrap();
    }

    fn watch(&mut self, id: i64, start_revision: i64) {
        let spec = WatchSpec {
            range: KeyRange::From(Bytes::new()),
            start_revision,
            no_put: false,
            no_delete: false,
            prev_kv: true,
            progress_notify: false,
        };
        let now = self.now();
        self.hub.create(STREAM, WatchId(id), spec, now, &mut self.queue);
    }

    /// Replays at most `revisions_max` revisions, as the stream's task does.
    fn catch_up(&mut self, revisions_max: usize) {
        let now = self.now();
        let lagging = self.hub.lagging(STREAM, 10, now, &mut self.queue);
        let bytes_max = 1 << 20;
        let replayed =
            replay(&self.store, &lagging, now.revision, now.compacted, revisions_max, bytes_max);
        let replayed = replayed.unwrap();
        self.queue.deliveries.extend(replayed.deliveries);
        for watch in lagging {
            self.hub.resume(STREAM, watch.watch, replayed.next, now);
        }
    }

    /// Which revisions a watch was told, in the order in which it was.
    fn told(&self, id: i64) -> Vec<i64> {
        let of_watch = |delivery: &Delivery| match delivery {
            Delivery::Events { watch, events, .. } if *watch == WatchId(id) => {
                events.iter().map(|event| event.revision.main).collect()
            }
            _ => Vec::new(),
        };
        self.queue.deliveries.iter().flat_map(of_watch).collect()
    }
}

#[test]
fn a_watch_without_room_falls_behind_and_misses_nothing() {
    let mut world = World::new(2);
    world.watch(1, 0);
    for _ in 0..6 {
        world.put("a");
    }
    assert!(world.queue.lagging);
    assert_eq!(world.told(1), [2, 3]);
    world.catch_up(2);
    world.queue.room = 10;
    world.put("a");
    assert_eq!(world.told(1), [2, 3, 4, 5], "it is told nothing out of turn");
    world.catch_up(10);
    world.put("a");
    assert_eq!(world.told(1), [2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn companions_of_a_replay_keep_their_own_begin() {
    let mut world = World::new(10);
    for _ in 0..6 {
        world.put("a");
    }
    world.watch(1, 2);
    world.watch(2, 6);
    world.catch_up(2);
    world.catch_up(10);
    world.put("b");
    assert_eq!(world.told(1), [2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(world.told(2), [6, 7, 8]);
}

#[test]
fn a_watch_of_the_future_waits_for_it() {
    let mut world = World::new(10);
    world.watch(1, 4);
    for _ in 0..4 {
        world.put("a");
    }
    assert_eq!(world.told(1), [4, 5]);
}

#[test]
fn the_previous_pair_comes_with_each_change_live_or_replayed() {
    let mut world = World::new(10);
    world.put("a");
    world.put("a");
    world.watch(1, 2);
    world.catch_up(10);
    world.put("a");
    let events = world.queue.deliveries.iter().flat_map(|delivery| match delivery {
        Delivery::Events { events, .. } => events.clone(),
        _ => Vec::new(),
    });
    let previous: Vec<Option<i64>> = events
        .map(|event| event.prev_kv.as_ref().map(|kv| kv.decode().unwrap().mod_revision))
        .collect();
    assert_eq!(previous, [None, Some(2), Some(3)]);
}
