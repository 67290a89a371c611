//! Apply, compaction, checkpoints and readers on threads of their own: nobody waits for ever, and readers see one revision.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use quorate_consensus::{LogIndex, Term};
use quorate_machine::{KeyRange, Revision, Row, Store, View};

use super::{directory, encode, machine_state};
use crate::checkpoint::{CheckpointAt, CheckpointJob, Step};
use crate::disk::Disk;
use crate::disk::mem::MemDisk;
use crate::rows::{Compaction, PinRefused, RowReader, RowSettings, RowStore, Work};

const KEYS: i64 = 97;
const WRITES: i64 = 12_000;
const SETTINGS: RowSettings = RowSettings { segment_bytes: 20_000, checkpoint_due_bytes: 30_000 };

/// What threads tell each other.
#[derive(Default)]
struct Shared {
    /// The last revision that was flushed; `i64::MAX` when there will be no other.
    published: AtomicI64,
    last: AtomicI64,
    reads: AtomicU64,
    checkpoints: AtomicU64,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.published.load(Ordering::Acquire) == i64::MAX
    }
}

fn key_of(main: i64) -> Vec<u8> {
    format!("/keys/{:02}", main % KEYS).into_bytes()
}

/// Revision 1 is the empty store; each later one writes one key, in turn.
fn apply(store: &mut RowStore, main: i64) {
    let (created, version) = (1 + (main - 1 - 1) % KEYS + 1, 1 + (main - 2) / KEYS);
    let key = Bytes::from(key_of(main));
    let kv = encode(&key, created, main, version, &main.to_be_bytes().repeat(12));
    let revision = Revision { main, sub: 0 };
    store.append(Row { revision, key, kv, created, version, tombstone: false });
}

/// Reads everything at a pinned revision and compares it with what a calculation says.
fn read_all(reader: &RowReader, shared: &Shared) {
    let at = shared.published.load(Ordering::Acquire).min(shared.last.load(Ordering::Acquire));
    let pin = match reader.pin(at, 0) {
        Ok(pin) => pin,
        Err(PinRefused::Compacted(_)) => return,
        Err(refused) => panic!("{refused}"),
    };
    let mut seen = 0;
    let all = KeyRange::From(Bytes::new());
    reader
        .scan(&all, Revision::end_of(at), &mut |key, version| {
            let main = version.modified.main;
            assert!(main <= at && main > at - KEYS, "{main} at {at}");
            assert_eq!(key, key_of(main));
            let kv = reader.read(key, version).unwrap();
            assert!(kv.0.ends_with(&main.to_be_bytes()));
            seen += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, KEYS.min(at - 1), "keys at {at}");
    let mut expected = at - KEYS / 2;
    let from = Revision { main: expected.max(2), sub: 0 };
    expected = from.main;
    reader
        .kept_rows(&pin, Revision::end_of(at), &mut |row, _| {
            if row.revision >= from {
                assert_eq!(row.revision.main, expected);
                expected += 1;
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(expected, (at + 1).max(2));
    shared.reads.fetch_add(1, Ordering::Relaxed);
}

fn compact_until_over(mut compaction: Compaction, shared: Arc<Shared>) -> JoinHandle<Compaction> {
    thread::spawn(move || {
        while compaction.step().unwrap() == Work::Some || !shared.is_over() {
            thread::yield_now();
        }
        compaction
    })
}

#[test]
fn threads_do_not_disturb_each_other() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    disk.create_dir(&directory()).unwrap();
    let path: PathBuf = directory();
    let at = CheckpointAt { index: LogIndex(0), term: Term(1), revision: 1 };
    RowStore::create(disk.clone(), path.clone(), at, machine_state(1)).unwrap();
    let mut store = RowStore::open(disk.clone(), path.clone(), SETTINGS).unwrap().store;
    let shared = Arc::new(Shared::default());
    shared.published.store(1, Ordering::Release);
    shared.last.store(i64::MAX, Ordering::Release);
    let mut threads = Vec::new();
    for _ in 0..2 {
        let (reader, shared) = (store.reader(), shared.clone());
        threads.push(thread::spawn(move || {
            while !shared.is_over() {
                read_all(&reader, &shared);
            }
            read_all(&reader, &shared);
        }));
    }
    let compaction = compact_until_over(store.compaction(), shared.clone());
    let (jobs, jobs_rx) = sync_channel::<CheckpointJob>(1);
    let writing = shared.clone();
    threads.push(thread::spawn(move || {
        for mut job in jobs_rx {
            let index = job.at().index;
            while job.step(index).unwrap() == Step::Worked {}
            writing.checkpoints.fetch_add(1, Ordering::Relaxed);
        }
    }));
    for main in 2..2 + WRITES {
        apply(&mut store, main);
        if main % 8 == 0 {
            store.flush().unwrap();
            shared.published.store(main, Ordering::Release);
        }
        if main % 500 == 0 {
            store.compact(main - 50);
        }
        if main % 8 == 0 && store.checkpoint_due(0) {
            let at = CheckpointAt { index: LogIndex(main as u64), term: Term(1), revision: main };
            if let Some(job) = store.begin_checkpoint(at, machine_state(main)).unwrap() {
                jobs.send(job).unwrap();
            }
        }
    }
    store.flush().unwrap();
    shared.last.store(1 + WRITES, Ordering::Release);
    shared.published.store(i64::MAX, Ordering::Release);
    drop(jobs);
    for thread in threads {
        thread.join().expect("no thread fails");
    }
    // The last readers may have held it back when it looked last.
    let mut compaction = compaction.join().expect("no thread fails");
    while compaction.step().unwrap() == Work::Some {}
    assert!(shared.reads.load(Ordering::Relaxed) > 3);
    assert!(shared.checkpoints.load(Ordering::Relaxed) > 3);
    let sizes = store.reader().sizes();
    assert_eq!(sizes.compacted, 2 + WRITES - WRITES % 500 - 2 - 50);
    assert!(
        sizes.rows_bytes < 40 * u64::from(SETTINGS.segment_bytes),
        "rows were reclaimed: {sizes:?}"
    );
    let opened = RowStore::open(disk, path, SETTINGS).unwrap();
    assert_eq!(opened.machine, machine_state(opened.at.revision));
}
