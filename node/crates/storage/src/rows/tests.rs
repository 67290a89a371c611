//! The store as a whole: histories against a naive model over a disk that crashes, tears and fails, and damage of every file.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::{LogIndex, Term};
use quorate_machine::{EncodedKeyValue, KeyRange, Revision, Row, Store, Version, View};

use super::*;
use crate::checkpoint::{CheckpointAt, CheckpointJob, Step};
use crate::disk::mem::{Fault, MemDisk};
use crate::disk::{Disk, FileSystem};

mod damage;
mod scrub;
mod threads;

/// Small, so that some hundred writes fill and rewrite many segments.
const SETTINGS: RowSettings = RowSettings { segment_bytes: 6000, checkpoint_due_bytes: 20_000 };

/// `mvccpb.KeyValue`, as the machine would encode it.
fn encode(key: &[u8], created: i64, modified: i64, version: i64, value: &[u8]) -> EncodedKeyValue {
    let mut out = Vec::new();
    for (tag, run) in [(0x0a, key), (0x2a, value)] {
        if tag == 0x2a {
            for (tag, number) in [(0x10, created), (0x18, modified), (0x20, version)] {
                out.push(tag);
                crate::varint::put(&mut out, number as u64);
            }
        }
        out.push(tag);
        crate::varint::put(&mut out, run.len() as u64);
        out.extend_from_slice(run);
    }
    EncodedKeyValue(out.into())
}

fn encode_tombstone(key: &[u8]) -> EncodedKeyValue {
    let mut out = vec![0x0a];
    crate::varint::put(&mut out, key.len() as u64);
    out.extend_from_slice(key);
    EncodedKeyValue(out.into())
}

/// An entry of the log that is replayed.
#[derive(Clone, Debug)]
enum Entry {
    /// Puts (with a value) and deletions, each of another key.
    Write(BTreeMap<Vec<u8>, Option<Vec<u8>>>),
    Compact(i64),
}

/// What a key was at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    revision: Revision,
    created: i64,
    version: i64,
    tombstone: bool,
    kv: EncodedKeyValue,
}

/// Everything that ever was.
#[derive(Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Known>>,
    main: i64,
    compacted: i64,
}

impl Model {
    fn at(&self, at: Revision) -> Vec<(&Vec<u8>, &Known)> {
        let newest =
            |versions: &'_ [Known]| versions.iter().rposition(|known| known.revision <= at);
        let found = self.keys.iter().filter_map(|(key, v)| Some((key, &v[newest(v)?])));
        found.filter(|(_, known)| !known.tombstone).collect()
    }

    /// Rows above a revision; with `kept`, also the newest at or below it of each key, if it lives or was deleted there.
    fn rows(&self, above: i64, kept: bool) -> Vec<(Revision, bool, Vec<u8>, EncodedKeyValue)> {
        let mut rows = Vec::new();
        for (key, versions) in &self.keys {
            let newest = versions.iter().rposition(|known| known.revision.main <= above);
            for (place, known) in versions.iter().enumerate() {
                let stays = kept && Some(place) == newest;
                let gone = known.tombstone && known.revision.main < above;
                if known.revision.main > above || (stays && !gone) {
                    rows.push((known.revision, known.tombstone, key.clone(), known.kv.clone()));
                }
            }
        }
        rows.sort();
        rows
    }
}

/// A machine of one page: applies an entry to a store; what it appended.
fn apply(store: &mut RowStore, main: &mut i64, entry: &Entry) -> Vec<Row> {
    let mut rows = Vec::new();
    let changes = match entry {
        Entry::Compact(revision) => {
            store.compact(*revision);
            return rows;
        }
        Entry::Write(changes) => changes,
    };
    let next = *main + 1;
    for (key, value) in changes {
        let revision = Revision { main: next, sub: rows.len() as i64 };
        let before = store.lookup(key, revision).unwrap();
        let row = match (value, before) {
            (None, None) => continue,
            (None, Some(_)) => (0, 0, encode_tombstone(key)),
            (Some(value), before) => {
                let (created, version) = before.map_or((next, 1), |b| (b.created, b.version + 1));
                (created, version, encode(key, created, next, version, value))
            }
        };
        let (created, version, kv) = row;
        let tombstone = value.is_none();
        let row = Row { revision, key: key.clone().into(), kv, created, version, tombstone };
        store.append(row.clone());
        if let Some(found) = store.lookup(key, revision).unwrap() {
            assert_eq!(
                store.read(key, &found).unwrap(),
                row.kv,
                "a write reads itself within its batch"
            );
        }
        rows.push(row);
    }
    *main = next.min(*main + rows.len() as i64);
    rows
}

/// What happened in a history, so that one in which nothing did fails.
#[derive(Debug, Default)]
struct Seen {
    published: u64,
    waited_for_log: u64,
    refused_captures: u64,
    compactions: u64,
    rewrites: u64,
    crashes: u64,
    faults: u64,
    cut_rows: u64,
    pinned_reads: u64,
}

/// A member without consensus: a log that loses nothing, and the store over a disk that does.
struct World {
    disk: MemDisk,
    store: Option<RowStore>,
    compaction: Option<Compaction>,
    job: Option<CheckpointJob>,
    main: i64,
    log: Vec<Entry>,
    model: Model,
    dice: u64,
    seen: Seen,
}

fn directory() -> PathBuf {
    PathBuf::from("/gen-1")
}

fn machine_state(main: i64) -> Bytes {
    Bytes::from(main.to_le_bytes().repeat(3))
}

impl World {
    fn new(seed: u64) -> World {
        let disk = MemDisk::new();
        disk.create_dir(&directory()).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let at = CheckpointAt { index: LogIndex(0), term: Term(1), revision: 1 };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        RowStore::create(shared.clone(), directory(), at, machine_state(1)).unwrap();
        let mut store = RowStore::open(shared, directory(), SETTINGS).unwrap().store;
        let compaction = Some(store.compaction());
        let model = Model { main: 1, ..Model::default() };
        let (store, seen) = (Some(store), Seen::default());
        World {
            disk,
            store,
            compaction,
            job: None,
            main: 1,
            log: Vec::new(),
            model,
            dice: seed,
            seen,
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn store(&mut self) -> &mut RowStore {
        self.store.as_mut().expect("the store is open")
    }

    fn entry(&mut self) -> Entry {
        if self.roll(25) == 0 {
            let room = self.model.main - self.model.compacted;
            let revision = self.model.compacted + self.roll(room as u64 + 1) as i64;
            return Entry::Compact(revision.max(1));
        }
        let mut changes = BTreeMap::new();
        for _ in 0..=self.roll(6) {
            let key = match self.roll(10) {
                0 => vec![b'/'; 1 + self.roll(5) as usize],
                1 => b"/registry/leases/hot".to_vec(),
                _ => format!("/registry/pods/{:03}", self.roll(60)).into_bytes(),
            };
            let length = if self.roll(20) == 0 { 1500 } else { self.roll(150) };
            let value = vec![self.roll(256) as u8; length as usize];
            changes.insert(key, (self.roll(4) != 0).then_some(value));
        }
        Entry::Write(changes)
    }

    /// Appends an entry to log and model, and applies it.
    fn write(&mut self) -> Result<(), StoreError> {
        for _ in 0..=self.roll(4) {
            let entry = self.entry();
            self.log.push(entry.clone());
            let store = self.store.as_mut().expect("the store is open");
            let rows = apply(store, &mut self.main, &entry);
            for Row { revision, key, kv, created, version, tombstone } in rows {
                let known = Known { revision, created, version, tombstone, kv };
                self.model.keys.entry(key.to_vec()).or_default().push(known);
            }
            self.model.main = self.main;
            if let Entry::Compact(revision) = entry {
                self.model.compacted = self.model.compacted.max(revision);
                self.seen.compactions += 1;
            }
        }
        self.store().flush()
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let applied = LogIndex(self.log.len() as u64);
        let Some(job) = &mut self.job else {
            let at = CheckpointAt { index: applied, term: Term(1), revision: self.main };
            let machine = machine_state(self.main);
            self.job = self.store().begin_checkpoint(at, machine)?;
            self.seen.refused_captures += u64::from(self.job.is_none());
            return Ok(());
        };
        // The log is sometimes behind what was applied: then nothing may be published.
        let lags = self.dice.is_multiple_of(3);
        let durable = if lags { LogIndex(job.at().index.0.saturating_sub(1)) } else { applied };
        match job.step(durable)? {
            Step::Worked => {}
            Step::WaitsForLog => {
                assert!(durable < job.at().index);
                self.seen.waited_for_log += 1;
            }
            Step::Published(published) => {
                assert!(durable >= published.at.index, "INV-R5");
                self.seen.published += 1;
                self.job = None;
            }
        }
        Ok(())
    }

    fn compact_step(&mut self) -> Result<(), StoreError> {
        let before = self.store().reader().sizes();
        let worked = self.compaction.as_mut().expect("it is there").step()?;
        let after = self.store().reader().sizes();
        self.seen.rewrites += u64::from(after.rows_bytes < before.rows_bytes);
        if worked == Work::None {
            assert_eq!(
                after.compacted, after.compaction_scheduled,
                "nothing to do, and a compaction is due"
            );
        }
        Ok(())
    }

    fn one_act(&mut self) -> Result<(), StoreError> {
        match self.roll(60) {
            0..14 => self.write(),
            14..34 => self.compact_step(),
            34..57 => self.checkpoint(),
            57..59 => {
                self.check();
                Ok(())
            }
            _ => {
                self.pinned_read()?;
                Ok(())
            }
        }
    }

    /// A reader that reads page by page while compaction goes on sees one revision.
    fn pinned_read(&mut self) -> Result<(), StoreError> {
        let revision = self.model.main;
        let reader = self.store().reader();
        let pin = reader.pin(revision, 7).unwrap();
        let at = Revision::end_of(revision);
        let mut found: Vec<(Vec<u8>, Version)> = Vec::new();
        reader
            .scan(&KeyRange::From(Bytes::new()), at, &mut |key, version| {
                found.push((key.to_vec(), *version));
                ControlFlow::Continue(())
            })
            .unwrap();
        for _ in 0..3 {
            self.write()?;
            for _ in 0..20 {
                self.compact_step_under_pin(revision)?;
            }
        }
        for (key, version) in &found {
            let known = self.model.keys[key]
                .iter()
                .find(|known| known.revision == version.modified)
                .unwrap();
            assert_eq!(reader.read(key, version).unwrap(), known.kv, "a pinned row is readable");
            assert_eq!(reader.lookup(key, at).unwrap().unwrap().modified, version.modified);
        }
        assert!(pin.is_held());
        self.seen.pinned_reads += 1;
        Ok(())
    }

    fn compact_step_under_pin(&mut self, revision: i64) -> Result<(), StoreError> {
        self.compaction.as_mut().expect("it is there").step()?;
        assert!(self.store().reader().sizes().compacted <= revision, "compaction passed a pin");
        Ok(())
    }

    /// Everything that may be asked is answered as the model answers.
    fn check(&mut self) {
        let (low, high) = (self.model.compacted.max(1), self.model.main);
        let middle = low + self.roll((high - low + 1) as u64) as i64;
        let reader = self.store().reader();
        let all = KeyRange::From(Bytes::new());
        for at in [Revision::end_of(low), Revision::end_of(middle), Revision::end_of(high)] {
            let mut found = Vec::new();
            reader
                .scan(&all, at, &mut |key, version| {
                    found.push((key.to_vec(), *version));
                    ControlFlow::Continue(())
                })
                .unwrap();
            let expected = self.model.at(at);
            assert_eq!(reader.count(&all, at).unwrap(), expected.len() as u64);
            assert_eq!(found.len(), expected.len(), "keys at {at}");
            for ((key, version), (expected_key, known)) in found.iter().zip(expected) {
                assert_eq!(key, expected_key);
                let got = (version.modified, version.created, version.version);
                assert_eq!(got, (known.revision, known.created, known.version), "{key:?} at {at}");
                assert_eq!(reader.read(key, version).unwrap(), known.kv);
            }
        }
        let mut rows = Vec::new();
        let above = Revision { main: self.model.compacted + 1, sub: 0 };
        reader
            .rows(above, Revision::end_of(high), &mut |row| {
                rows.push((
                    row.revision,
                    row.tombstone,
                    row.key.to_vec(),
                    EncodedKeyValue(row.kv.clone()),
                ));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(
            rows,
            self.model.rows(self.model.compacted, false),
            "rows above {}",
            self.model.compacted
        );
        self.check_kept_rows(low);
    }

    /// What a snapshot is made of does not depend on how far physical compaction got.
    fn check_kept_rows(&mut self, floor: i64) {
        let reader = self.store().reader();
        let pin = reader.pin(floor, 0).unwrap();
        let mut rows = Vec::new();
        reader
            .kept_rows(&pin, Revision::end_of(self.model.main), &mut |row, version| {
                assert_eq!(version.modified, row.revision);
                rows.push((
                    row.revision,
                    row.tombstone,
                    row.key.to_vec(),
                    EncodedKeyValue(row.kv.clone()),
                ));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(rows, self.model.rows(floor, true), "rows kept at {floor}");
    }

    /// The process ends (and the machine too, if it crashes) and starts again.
    fn restart(&mut self, crash: bool) {
        (self.store, self.compaction, self.job) = (None, None, None);
        if crash {
            let seed = self.roll(u64::MAX);
            self.disk.crash(seed);
        }
        let length = self.total_length();
        let shared: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let Opened { mut store, at, machine } =
            RowStore::open(shared, directory(), SETTINGS).unwrap();
        self.seen.cut_rows += u64::from(self.total_length() < length);
        assert_eq!(machine, machine_state(at.revision));
        self.main = at.revision;
        for entry in &self.log[at.index.0 as usize..] {
            apply(&mut store, &mut self.main, entry);
        }
        store.flush().unwrap();
        assert_eq!(self.main, self.model.main, "replay ends where the log ended");
        // Live rows, dead ones and rewritten ones: what nobody damaged is whole.
        let sizes = store.reader().sizes();
        let headers = (sizes.segments * frame::SEGMENT_HEADER_BYTES) as u64;
        assert_eq!(scrub::scrubbed(&store).unwrap(), sizes.rows_bytes - headers);
        self.compaction = Some(store.compaction());
        self.store = Some(store);
        self.check();
    }

    fn total_length(&self) -> u64 {
        let names = self.disk.list(&directory()).unwrap();
        let rows = names.iter().filter(|name| name.starts_with("rows-"));
        rows.map(|name| self.disk.open(&directory().join(name)).unwrap().len().unwrap()).sum()
    }

    fn run(&mut self, acts: u64) {
        for _ in 0..acts {
            if self.roll(60) == 0 {
                let at = self.disk.operations() + self.roll(40);
                let fault = if self.roll(2) == 0 { Fault::Crash } else { Fault::Error };
                self.disk.fail_at(at, fault);
            }
            let taken = self.disk.faults_taken();
            match self.one_act() {
                Ok(()) => {}
                Err(error) => {
                    assert!(self.disk.faults_taken() > taken, "failed without a fault: {error}");
                    assert!(matches!(self.store().flush(), Err(StoreError::Failed) | Ok(())));
                    self.seen.faults += 1;
                    let halted = self.disk.create_dir(Path::new("/probe")).is_err();
                    let crash = halted || self.roll(2) == 0;
                    self.restart(crash);
                }
            }
            if self.roll(80) == 0 {
                self.disk.fail_at(u64::MAX, Fault::Error);
                let crash = self.roll(3) != 0;
                self.seen.crashes += u64::from(crash);
                self.restart(crash);
            }
        }
        self.disk.fail_at(u64::MAX, Fault::Error);
        self.check();
    }
}

#[test]
fn histories_with_crashes_and_faults_answer_as_the_model_does() {
    let mut total = Seen::default();
    for seed in 0..40 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.run(500);
        let seen = world.seen;
        total.published += seen.published;
        total.waited_for_log += seen.waited_for_log;
        total.refused_captures += seen.refused_captures;
        total.compactions += seen.compactions;
        total.rewrites += seen.rewrites;
        total.crashes += seen.crashes;
        total.faults += seen.faults;
        total.cut_rows += seen.cut_rows;
        total.pinned_reads += seen.pinned_reads;
    }
    println!("{total:?}");
    let Seen { published, waited_for_log, refused_captures, compactions, rewrites, .. } = total;
    let happened = [published, waited_for_log, refused_captures, compactions, rewrites];
    assert!(happened.iter().all(|count| *count > 20), "{total:?}");
    let happened = [total.crashes, total.faults, total.cut_rows, total.pinned_reads];
    assert!(happened.iter().all(|count| *count > 20), "{total:?}");
}

/// A store with some hundred rows in several segments and a published checkpoint, closed again.
fn closed_store() -> World {
    let mut world = World::new(1);
    for _ in 0..60 {
        world.write().unwrap();
    }
    publish(&mut world);
    world.write().unwrap();
    (world.store, world.compaction, world.job) = (None, None, None);
    world
}

fn publish(world: &mut World) {
    let before = world.seen.published;
    while world.seen.published == before {
        world.checkpoint().unwrap();
        world.roll(2);
    }
}

fn open(world: &World) -> Result<Opened, StoreError> {
    RowStore::open(Arc::new(world.disk.clone()), directory(), SETTINGS)
}

fn segments(world: &World) -> Vec<String> {
    let names = world.disk.list(&directory()).unwrap();
    names.into_iter().filter(|name| name.starts_with("rows-")).collect()
}

#[test]
fn an_unpublished_checkpoint_and_later_segments_are_removed() {
    let mut world = closed_store();
    world.restart(false);
    for _ in 0..30 {
        world.write().unwrap();
    }
    let before = segments(&world);
    let (index, main) = (LogIndex(world.log.len() as u64), world.main);
    let at = CheckpointAt { index, term: Term(1), revision: main };
    let mut job = world.store().begin_checkpoint(at, machine_state(main)).unwrap().unwrap();
    while job.step(LogIndex(0)).unwrap() == Step::Worked {}
    drop(job);
    assert!(world.disk.list(&directory()).unwrap().contains(&"checkpoint.new".to_owned()));
    (world.store, world.compaction) = (None, None);
    let opened = open(&world).unwrap();
    assert!(opened.at.index < index);
    assert!(segments(&world).len() < before.len());
    assert!(!world.disk.list(&directory()).unwrap().contains(&"checkpoint.new".to_owned()));
}

#[test]
fn rewritten_segments_stay_until_a_checkpoint_without_them_is_published() {
    let mut world = World::new(3);
    for _ in 0..80 {
        world.write().unwrap();
    }
    publish(&mut world);
    let named = segments(&world);
    let main = world.main;
    world.log.push(Entry::Compact(main));
    world.model.compacted = main;
    world.store().compact(main);
    while world.compaction.as_mut().unwrap().step().unwrap() == Work::Some {}
    let sizes = world.store().reader().sizes();
    assert_eq!(sizes.compacted, main);
    let kept = segments(&world);
    assert!(named.iter().all(|name| kept.contains(name)), "{named:?} {kept:?}");
    world.check();
    publish(&mut world);
    let after = segments(&world);
    assert!(after.len() * 2 < kept.len(), "{after:?} {kept:?}");
    assert!(
        sizes.rows_bytes < 4 * sizes.rows_live_bytes + 2 * u64::from(SETTINGS.segment_bytes),
        "{sizes:?}"
    );
    world.check();
    world.restart(true);
}

#[test]
fn a_second_checkpoint_waits_for_the_first_and_an_abandoned_one_does_not_block() {
    let mut world = World::new(4);
    world.write().unwrap();
    let at = CheckpointAt { index: LogIndex(1), term: Term(1), revision: 2 };
    let first = world.store().begin_checkpoint(at, Bytes::new()).unwrap().unwrap();
    assert!(world.store().begin_checkpoint(at, Bytes::new()).unwrap().is_none());
    drop(first);
    assert!(world.store().begin_checkpoint(at, Bytes::new()).unwrap().is_some());
}

#[test]
fn a_checkpoint_falls_due_by_bytes_of_rows() {
    let mut world = World::new(5);
    assert!(!world.store().checkpoint_due(0));
    assert!(world.store().checkpoint_due(20_000), "a log of entries without rows counts as well");
    while !world.store().checkpoint_due(0) {
        world.write().unwrap();
    }
    let bytes = world.store().reader().sizes().rows_bytes;
    assert!((20_000..30_000).contains(&bytes), "{bytes}");
    publish(&mut world);
    assert!(!world.store().checkpoint_due(0));
}

#[test]
#[should_panic(expected = "INV-M1")]
fn a_row_out_of_order_is_a_defect() {
    let mut world = World::new(6);
    let kv = encode(b"k", 2, 2, 1, b"v");
    let revision = Revision { main: 2, sub: 0 };
    let row = Row {
        revision,
        key: Bytes::from_static(b"k"),
        kv,
        created: 2,
        version: 1,
        tombstone: false,
    };
    world.store().append(row.clone());
    world.store().append(row);
}

/// The same on the real file system.
#[test]
fn the_real_disk_keeps_what_was_published() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(FileSystem);
    let at = CheckpointAt { index: LogIndex(0), term: Term(1), revision: 1 };
    let path = root.path().to_path_buf();
    RowStore::create(disk.clone(), path.clone(), at, machine_state(1)).unwrap();
    let mut store = RowStore::open(disk.clone(), path.clone(), SETTINGS).unwrap().store;
    let mut world = World::new(9);
    let mut main = 1;
    let entries: Vec<Entry> =
        (0..300).map(|_| world.entry()).filter(|e| matches!(e, Entry::Write(_))).collect();
    for entry in &entries {
        apply(&mut store, &mut main, entry);
        store.flush().unwrap();
    }
    let at = CheckpointAt { index: LogIndex(300), term: Term(1), revision: main };
    let mut job = store.begin_checkpoint(at, machine_state(main)).unwrap().unwrap();
    while job.step(LogIndex(300)).unwrap() == Step::Worked {}
    let all = KeyRange::From(Bytes::new());
    let count = store.count(&all, Revision::end_of(main)).unwrap();
    assert!(count > 20);
    drop(store);
    let opened = RowStore::open(disk, path, SETTINGS).unwrap();
    assert_eq!((opened.at, opened.machine), (at, machine_state(main)));
    assert_eq!(opened.store.count(&all, Revision::end_of(main)).unwrap(), count);
}
