//! Takes the hash of what was there before each compaction, step by step, and holds physical compaction back until then.

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_machine::{CompactionHashes, HashWalk, ReadFault};
use quorate_storage::rows::{Pin, RowReader};
use tracing::info;

/// The pin has no age: whoever revokes pins that began long ago passes this one over. It cannot stand still, since the
/// steps go on by themselves and a hash that is too far behind is given up.
const AGELESS: u64 = u64::MAX;

/// The hashes of one generation's compactions. It pins, from its making on, the rows that no hash covers yet, so that it
/// does not matter when the compaction begins: it waits for the pin to move on.
pub struct CompactionHashing {
    reader: RowReader,
    hashes: Arc<Mutex<CompactionHashes>>,
    floor: Pin,
    walk: Option<HashWalk>,
}

impl CompactionHashing {
    /// For rows that nobody compacts yet.
    #[must_use]
    pub fn new(reader: RowReader, hashes: Arc<Mutex<CompactionHashes>>) -> Self {
        let revision = hashes.lock().floor().max(0);
        let floor = reader.pin(revision, AGELESS).expect("nobody reads or compacts the rows yet");
        Self { reader, hashes, floor, walk: None }
    }

    /// Hashes the next rows, a millisecond or two; whether there was something to hash.
    ///
    /// # Errors
    /// A failed read: fatal.
    pub fn step(&mut self) -> Result<bool, ReadFault> {
        let (due, floor) = {
            let hashes = self.hashes.lock();
            (hashes.due(), hashes.floor().max(0))
        };
        if floor > self.floor.revision()
            && let Ok(pin) = self.reader.pin(floor, AGELESS)
        {
            // With too many readers the old pin stays for now: compaction is late, nothing is wrong.
            self.floor = pin;
        }
        let Some(due) = due else { return Ok(false) };
        // Another one may be due before the end: ten compactions came meanwhile, and the hash would be for nobody.
        let mut walk = self
            .walk
            .take()
            .filter(|walk| walk.of() == due)
            .unwrap_or_else(|| HashWalk::new(due, crc32c::crc32c_append));
        match walk.step(&self.reader)? {
            None => self.walk = Some(walk),
            Some(hash) => {
                self.hashes.lock().record(hash);
                info!(
                    revision = hash.hash_revision,
                    compact_revision = hash.compact_revision,
                    hash = hash.hash,
                    "the hash from before a compaction is kept"
                );
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bytes::Bytes;
    use quorate_consensus::{LogIndex, Term};
    use quorate_machine::{
        ClusterId, Command, Compacted, CompactionHash, Envelope, FeatureLevel, Genesis,
        KeyValueHash, LeaseTime, Machine, Put, RequestId, Store, hash_kv,
    };
    use quorate_storage::{
        checkpoint::CheckpointAt,
        disk::{Disk, mem::MemDisk},
        limits::PINS_MAX,
        rows::{Compaction, RowSettings, RowStore, Work},
    };

    use super::*;

    /// More than a step of hashing takes.
    const KEYS: usize = 1500;

    /// A store with its upkeep, as apply and the files thread have them.
    struct World {
        machine: Machine<RowStore>,
        hashes: Arc<Mutex<CompactionHashes>>,
        hashing: CompactionHashing,
        compaction: Compaction,
    }

    impl World {
        fn new() -> Self {
            let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
            let path = PathBuf::from("/rows");
            disk.create_dir(&path).unwrap();
            let at = CheckpointAt { index: LogIndex(1), term: Term(1), revision: 1 };
            RowStore::create(disk.clone(), path.clone(), at, Bytes::new()).unwrap();
            let mut store = RowStore::open(disk, path, RowSettings::default()).unwrap().store;
            let compaction = store.compaction();
            let hashes = Arc::new(Mutex::new(CompactionHashes::new(-1)));
            let hashing = CompactionHashing::new(store.reader(), hashes.clone());
            let genesis = Genesis {
                cluster: ClusterId(1),
                members: Vec::new(),
                feature_level: FeatureLevel(1),
                index: 1,
            };
            Self { machine: Machine::new(genesis, store), hashes, hashing, compaction }
        }

        fn apply(&mut self, command: Command) {
            let envelope = Envelope {
                request: RequestId::default(),
                user: Bytes::new(),
                auth_revision: 0,
                feature_level: FeatureLevel(1),
                clock: LeaseTime(0),
                command,
            };
            let index = self.machine.applied() + 1;
            self.machine.apply_envelope(index, &envelope).unwrap().result.unwrap();
        }

        /// Puts every key once more.
        fn put_all(&mut self) {
            for number in 0..KEYS {
                let key = Bytes::from(format!("{number:05}"));
                self.apply(Command::Put(Put { key, ..Put::default() }));
            }
            self.machine.store_mut().flush().unwrap();
        }

        /// Compacts to now. What apply does next, telling the hashes of it, is left to the caller.
        fn compact(&mut self) -> Compacted {
            let (previous, revision) = (self.machine.compacted(), self.machine.revision());
            self.apply(Command::Compact { revision });
            Compacted { previous, revision }
        }

        fn hash(&self, revision: i64) -> KeyValueHash {
            let point = self.machine.read_point();
            hash_kv(&self.machine.store().reader(), revision, point, crc32c::crc32c_append).unwrap()
        }

        fn found(&self, revision: i64) -> Option<CompactionHash> {
            self.hashes.lock().find(revision)
        }

        /// How far physical compaction has got.
        fn reclaimed(&self) -> i64 {
            self.machine.store().reader().sizes().compacted
        }

        /// Reclaims what may be reclaimed.
        fn reclaim(&mut self) {
            while self.compaction.step().unwrap() == Work::Some {}
        }

        /// What the files thread does when it has nothing else to do, to the end.
        fn settle(&mut self) {
            while self.hashing.step().unwrap() | (self.compaction.step().unwrap() == Work::Some) {}
        }
    }

    #[test]
    fn the_rows_wait_for_the_hash_and_the_hash_is_the_one_from_before() {
        let mut world = World::new();
        world.put_all();
        world.put_all();
        let before = world.hash(0);
        let first = world.compact();
        // The files thread may be faster than apply, which has yet to tell of the compaction.
        world.reclaim();
        assert_eq!(world.reclaimed(), 0);
        world.hashes.lock().begin(first);
        assert_eq!(world.found(first.revision), Some(CompactionHash::Due { previous: -1 }));
        let mut steps = 0;
        while world.found(first.revision) == Some(CompactionHash::Due { previous: -1 }) {
            world.reclaim();
            assert_eq!(world.reclaimed(), 0, "step {steps}");
            assert!(world.hashing.step().unwrap());
            // However long ago the pin was made.
            world.machine.store().reader().revoke_pins(u64::MAX);
            steps += 1;
        }
        assert!(steps >= 3, "{steps} steps for 3000 rows");
        assert_eq!(world.found(first.revision), Some(CompactionHash::Taken(before)));
        assert_ne!(world.hash(first.revision).hash, before.hash, "the compaction shows");
        world.settle();
        assert_eq!(world.reclaimed(), first.revision);
    }

    #[test]
    fn compactions_that_come_too_fast_lose_the_oldest_hashes_and_hold_nothing_back() {
        let mut world = World::new();
        let mut before = Vec::new();
        for _ in 0..13 {
            world.put_all();
            before.push(world.hash(0));
            let of = world.compact();
            world.hashes.lock().begin(of);
            // Begun, and given up as the compaction is forgotten.
            world.hashing.step().unwrap();
        }
        world.settle();
        assert_eq!(world.reclaimed(), world.machine.revision());
        for (nth, hash) in before.into_iter().enumerate() {
            let kept = (nth >= 3).then_some(CompactionHash::Taken(hash));
            assert_eq!(world.found(hash.hash_revision), kept, "compaction {nth}");
        }
    }

    #[test]
    fn with_too_many_readers_reclaiming_waits_and_hashing_does_not() {
        let mut world = World::new();
        world.put_all();
        world.put_all();
        let (before, of) = (world.hash(0), world.compact());
        world.hashes.lock().begin(of);
        let reader = world.machine.store().reader();
        let pins: Vec<Pin> = (1..PINS_MAX).map(|_| reader.pin(of.revision, 0).unwrap()).collect();
        assert!(reader.pin(of.revision, 0).is_err(), "one more is too many");
        world.settle();
        assert_eq!(world.found(of.revision), Some(CompactionHash::Taken(before)));
        assert_eq!(world.reclaimed(), 0);
        drop(pins);
        world.settle();
        assert_eq!(world.reclaimed(), of.revision);
    }
}
