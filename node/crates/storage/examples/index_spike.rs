//! Measures what could hold the key index, each candidate in processes of its own, and prints the table of ADR 2.
//!
//! `cargo run --release -p quorate-storage --example index_spike [-- KEYS [DIRECTORY]]`
//!
//! The last line, `built`, is the store made of the winner: its figures hold rows too (about 365 bytes written and a checksum a put).
//! For each candidate one process loads KEYS random keys of 64 bytes (rows of 356 bytes lie in a file of their own, as in the
//! store), overwrites half as many at random with a checkpoint (or durable commit) each 100,000 puts, counts, lists, leaves a tail of
//! 100,000 puts that no checkpoint holds, and is killed with SIGKILL. A second process opens what is there and replays the tail.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_consensus::{LogIndex, Term};
use quorate_machine::{EncodedKeyValue, KeyRange, Revision, Row, Store, View};
use quorate_storage::checkpoint::{CheckpointAt, Step};
use quorate_storage::disk::{Disk, FileSystem};
use quorate_storage::index::{Builder, Index, LeafImage, RowAt, Snapshot, Version};
use quorate_storage::rows::{RowSettings, RowStore, StoreError};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// About 40 MB of WAL at 400 bytes an entry: the middle of the 32 to 48 MB after which a checkpoint is due.
const CHECKPOINT_PUTS: u64 = 100_000;
/// What apply hands to the index between two replies under load.
const BATCH_PUTS: u64 = 1000;
const KEY_BYTES: usize = 64;
const VALUE_BYTES: usize = 256;
/// Frame of a row: header, revision, encoded KeyValue with key and value.
const ROW_BYTES: u64 = 356;
const LIST_KEYS: usize = 1000;
const LISTS: u64 = 50;

/// What is compared: a map from key to versions which outlives a kill.
trait Candidate: Sized {
    fn open(directory: &Path) -> Outcome<Self>;
    fn put(&mut self, key: &[u8], version: Version) -> Outcome<()>;
    /// End of an apply batch.
    fn end_batch(&mut self) -> Outcome<()>;
    /// Makes everything so far durable, in the background if the candidate can.
    fn checkpoint(&mut self) -> Outcome<()>;
    /// Waits for a checkpoint under way.
    fn settle(&mut self) -> Outcome<()>;
    fn count(&self, at: i64) -> Outcome<u64>;
    /// Lists keys and reads their rows; how many.
    fn list(&self, start: &[u8], limit: usize, at: i64, rows: &File) -> Outcome<usize>;
    /// Whether it writes rows itself.
    const HAS_ROWS: bool = false;
}

/// Reads rows of the file that stands for the rows segments.
fn read_rows(found: &[RowAt], rows: &File) -> Outcome<usize> {
    let mut buffer = [0; ROW_BYTES as usize];
    for row in found {
        let position = (u64::from(row.segment) << 26) + u64::from(row.offset);
        rows.read_exact_at(&mut buffer, position)?;
    }
    Ok(found.len())
}

/// (a) This crate's index: packed leaves, copied on write; a checkpoint writes the leaves as they are.
struct Packed {
    index: Index,
    directory: PathBuf,
    writer: Option<JoinHandle<std::io::Result<()>>>,
}

fn write_leaves(snapshot: Snapshot, directory: &Path) -> std::io::Result<()> {
    let temporary = directory.join("checkpoint.tmp");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
    for frozen in snapshot {
        let leaf = frozen.image();
        let crc = crc32c::crc32c(leaf.bytes);
        for word in [leaf.key.len() as u32, leaf.bytes.len() as u32, leaf.superseded, crc] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.write_all(&leaf.base.main.to_le_bytes())?;
        out.write_all(&leaf.base.sub.to_le_bytes())?;
        out.write_all(leaf.key)?;
        out.write_all(leaf.bytes)?;
    }
    out.into_inner()?.sync_data()?;
    fs::rename(temporary, directory.join("checkpoint"))
}

fn read_leaves(directory: &Path) -> Outcome<Index> {
    let mut builder = Builder::default();
    let Ok(file) = File::open(directory.join("checkpoint")) else { return Ok(builder.finish()) };
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut header = [0u8; 32];
    let mut bytes = Vec::new();
    while input.read_exact(&mut header).is_ok() {
        let word = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|b| header[i * 4 + b]));
        let key_len = word(0) as usize;
        bytes.resize(key_len + word(1) as usize, 0);
        input.read_exact(&mut bytes)?;
        let (key, body) = bytes.split_at(key_len);
        assert_eq!(crc32c::crc32c(body), word(3));
        let long = |i: usize| i64::from(word(i)) | i64::from(word(i + 1)) << 32;
        let base = Revision { main: long(4), sub: long(6) };
        builder.push(&LeafImage { key, base, superseded: word(2), bytes: body });
    }
    Ok(builder.finish())
}

impl Candidate for Packed {
    fn open(directory: &Path) -> Outcome<Packed> {
        Ok(Packed { index: read_leaves(directory)?, directory: directory.into(), writer: None })
    }

    fn put(&mut self, key: &[u8], version: Version) -> Outcome<()> {
        self.index.put(key, &version);
        Ok(())
    }

    fn end_batch(&mut self) -> Outcome<()> {
        Ok(())
    }

    fn checkpoint(&mut self) -> Outcome<()> {
        self.settle()?;
        let snapshot = self.index.snapshot();
        let directory = self.directory.clone();
        self.writer = Some(std::thread::spawn(move || write_leaves(snapshot, &directory)));
        Ok(())
    }

    fn settle(&mut self) -> Outcome<()> {
        match self.writer.take() {
            Some(writer) => Ok(writer.join().map_err(|_| "the checkpoint writer panicked")??),
            None => Ok(()),
        }
    }

    fn count(&self, at: i64) -> Outcome<u64> {
        Ok(self.index.count(&[], None, Revision::end_of(at)))
    }

    fn list(&self, start: &[u8], limit: usize, at: i64, file: &File) -> Outcome<usize> {
        let mut rows = Vec::with_capacity(limit);
        self.index.scan(start, None, Revision::end_of(at), |_, version| {
            rows.push(version.at);
            if rows.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        read_rows(&rows, file)
    }
}

/// Packs a version at fixed width, for the candidates that have no packing of their own.
fn pack(version: &Version) -> [u8; 40] {
    let mut out = [0; 40];
    for (i, word) in [version.revision.main, version.create, version.version].iter().enumerate() {
        out[i * 8..i * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }
    let flag = u32::from(version.tombstone) << 31 | version.revision.sub as u32;
    for (i, word) in
        [flag, version.at.segment, version.at.offset, version.at.len].iter().enumerate()
    {
        out[24 + i * 4..28 + i * 4].copy_from_slice(&word.to_le_bytes());
    }
    out
}

fn unpack(bytes: &[u8]) -> Version {
    let long = |i: usize| i64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|b| bytes[i + b]));
    let word = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|b| bytes[i + b]));
    let at = RowAt { segment: word(28), offset: word(32), len: word(36) };
    let flag = word(24);
    Version {
        revision: Revision { main: long(0), sub: i64::from(flag & (u32::MAX >> 1)) },
        create: long(8),
        version: long(16),
        tombstone: flag >> 31 == 1,
        at,
    }
}

/// (b) The standard library's map. A checkpoint stops the world: there is no cheap snapshot of it.
struct Standard {
    map: BTreeMap<Box<[u8]>, Versions>,
    directory: PathBuf,
}

enum Versions {
    One(Version),
    Many(Vec<Version>),
}

impl Versions {
    fn as_slice(&self) -> &[Version] {
        match self {
            Versions::One(version) => std::slice::from_ref(version),
            Versions::Many(versions) => versions,
        }
    }

    fn push(&mut self, version: Version) {
        match self {
            Versions::One(first) => *self = Versions::Many(vec![*first, version]),
            Versions::Many(versions) => {
                versions.reserve_exact(1);
                versions.push(version);
            }
        }
    }

    fn newest(&self, at: i64) -> Option<&Version> {
        self.as_slice()
            .iter()
            .rev()
            .find(|version| version.revision.main <= at)
            .filter(|v| !v.tombstone)
    }
}

impl Candidate for Standard {
    fn open(directory: &Path) -> Outcome<Standard> {
        let mut map = BTreeMap::new();
        if let Ok(file) = File::open(directory.join("checkpoint")) {
            let mut input = BufReader::with_capacity(1 << 20, file);
            let mut header = [0u8; 8];
            let mut bytes = Vec::new();
            while input.read_exact(&mut header).is_ok() {
                let word = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|b| header[i + b]));
                let key_len = word(0) as usize;
                bytes.resize(key_len + word(4) as usize * 40, 0);
                input.read_exact(&mut bytes)?;
                let (key, packed) = bytes.split_at(key_len);
                let mut versions: Vec<Version> = packed.chunks(40).map(unpack).collect();
                let versions = match versions.len() {
                    1 => Versions::One(versions.remove(0)),
                    _ => Versions::Many(versions),
                };
                map.insert(key.into(), versions);
            }
        }
        Ok(Standard { map, directory: directory.into() })
    }

    fn put(&mut self, key: &[u8], version: Version) -> Outcome<()> {
        match self.map.get_mut(key) {
            Some(versions) => versions.push(version),
            None => {
                self.map.insert(key.into(), Versions::One(version));
            }
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Outcome<()> {
        Ok(())
    }

    fn checkpoint(&mut self) -> Outcome<()> {
        let temporary = self.directory.join("checkpoint.tmp");
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        for (key, versions) in &self.map {
            out.write_all(&(key.len() as u32).to_le_bytes())?;
            out.write_all(&(versions.as_slice().len() as u32).to_le_bytes())?;
            out.write_all(key)?;
            for version in versions.as_slice() {
                out.write_all(&pack(version))?;
            }
        }
        out.into_inner()?.sync_data()?;
        Ok(fs::rename(temporary, self.directory.join("checkpoint"))?)
    }

    fn settle(&mut self) -> Outcome<()> {
        Ok(())
    }

    fn count(&self, at: i64) -> Outcome<u64> {
        Ok(self.map.values().filter(|versions| versions.newest(at).is_some()).count() as u64)
    }

    fn list(&self, start: &[u8], limit: usize, at: i64, file: &File) -> Outcome<usize> {
        let range = self.map.range::<[u8], _>((Bound::Included(start), Bound::Unbounded));
        let live = range.filter_map(|(_, versions)| versions.newest(at));
        read_rows(&live.take(limit).map(|version| version.at).collect::<Vec<_>>(), file)
    }
}

const KEYS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");

/// (c) A library: redb, one table in key order; a commit each batch, a durable one where the others write a checkpoint.
struct Redb {
    database: Database,
    batch: Vec<(Vec<u8>, Version)>,
}

impl Redb {
    fn commit(&mut self, durability: Durability) -> Outcome<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        // Without this a restart after kill -9 walks the whole file (1.4 s for a million rows).
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(KEYS)?;
            for (key, version) in self.batch.drain(..) {
                let mut packed = match table.get(&key[..])? {
                    Some(value) => value.value().to_vec(),
                    None => Vec::new(),
                };
                packed.extend_from_slice(&pack(&version));
                table.insert(&key[..], &packed[..])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn newest(packed: &[u8], at: i64) -> Option<Version> {
        let versions = packed.rchunks(40).map(unpack);
        versions.into_iter().find(|version| version.revision.main <= at).filter(|v| !v.tombstone)
    }
}

impl Candidate for Redb {
    fn open(directory: &Path) -> Outcome<Redb> {
        let mut options = Database::builder();
        options.set_cache_size(64 << 20);
        let database = options.create(directory.join("index.redb"))?;
        let mut open = Redb { database, batch: Vec::new() };
        open.commit(Durability::Immediate)?;
        Ok(open)
    }

    fn put(&mut self, key: &[u8], version: Version) -> Outcome<()> {
        self.batch.push((key.to_vec(), version));
        Ok(())
    }

    fn end_batch(&mut self) -> Outcome<()> {
        self.commit(Durability::None)
    }

    fn checkpoint(&mut self) -> Outcome<()> {
        self.commit(Durability::Immediate)
    }

    fn settle(&mut self) -> Outcome<()> {
        Ok(())
    }

    fn count(&self, at: i64) -> Outcome<u64> {
        let table = self.database.begin_read()?.open_table(KEYS)?;
        let mut count = 0;
        for row in table.iter()? {
            count += u64::from(Redb::newest(row?.1.value(), at).is_some());
        }
        Ok(count)
    }

    fn list(&self, start: &[u8], limit: usize, at: i64, file: &File) -> Outcome<usize> {
        let table = self.database.begin_read()?.open_table(KEYS)?;
        let mut rows = Vec::new();
        for row in table.range(start..)? {
            if let Some(version) = Redb::newest(row?.1.value(), at) {
                rows.push(version.at);
            }
            if rows.len() == limit {
                break;
            }
        }
        read_rows(&rows, file)
    }
}

/// What was built of candidate (a): the store itself, rows and all.
struct Built {
    store: RowStore,
    applied: u64,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Built {
    fn at(&self) -> CheckpointAt {
        CheckpointAt { index: LogIndex(self.applied), term: Term(1), revision: self.applied as i64 }
    }
}

fn encode(key: &[u8], version: &Version) -> EncodedKeyValue {
    let mut out = vec![0x0a, KEY_BYTES as u8];
    out.extend_from_slice(key);
    for (tag, mut number) in
        [(0x10, version.create), (0x18, version.revision.main), (0x20, version.version)]
    {
        out.push(tag);
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }
    out.extend_from_slice(&[0x2a, 0x80, 0x02]);
    out.resize(out.len() + VALUE_BYTES, 0x5a);
    EncodedKeyValue(out.into())
}

impl Candidate for Built {
    const HAS_ROWS: bool = true;

    fn open(directory: &Path) -> Outcome<Built> {
        let disk: Arc<dyn Disk> = Arc::new(FileSystem);
        if !directory.join("checkpoint").exists() {
            let at = CheckpointAt { index: LogIndex(0), term: Term(1), revision: 1 };
            RowStore::create(disk.clone(), directory.into(), at, Bytes::new())?;
        }
        let opened = RowStore::open(disk, directory.into(), RowSettings::default())?;
        Ok(Built { store: opened.store, applied: opened.at.index.0, writer: None })
    }

    fn put(&mut self, key: &[u8], version: Version) -> Outcome<()> {
        let Version { revision, create, version: count, tombstone, .. } = version;
        let (kv, key) = (encode(key, &version), Bytes::copy_from_slice(key));
        self.store.append(Row { revision, key, kv, created: create, version: count, tombstone });
        self.applied += 1;
        Ok(())
    }

    fn end_batch(&mut self) -> Outcome<()> {
        Ok(self.store.flush()?)
    }

    fn checkpoint(&mut self) -> Outcome<()> {
        self.settle()?;
        let at = self.at();
        let mut job =
            self.store.begin_checkpoint(at, Bytes::new())?.ok_or("a checkpoint is under way")?;
        self.writer = Some(std::thread::spawn(move || {
            while job.step(at.index)? == Step::Worked {}
            Ok(())
        }));
        Ok(())
    }

    fn settle(&mut self) -> Outcome<()> {
        match self.writer.take() {
            Some(writer) => Ok(writer.join().map_err(|_| "the checkpoint writer panicked")??),
            None => Ok(()),
        }
    }

    fn count(&self, at: i64) -> Outcome<u64> {
        Ok(self.store.count(&KeyRange::From(Bytes::new()), Revision::end_of(at))?)
    }

    fn list(&self, start: &[u8], limit: usize, at: i64, _: &File) -> Outcome<usize> {
        let mut found = Vec::with_capacity(limit);
        let range = KeyRange::From(Bytes::copy_from_slice(start));
        self.store.scan(&range, Revision::end_of(at), &mut |key, version| {
            found.push((Bytes::copy_from_slice(key), *version));
            if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        for (key, version) in &found {
            self.store.read(key, version)?;
        }
        Ok(found.len())
    }
}

/// The splitmix64 generator: keys are a function of their number.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn key_of(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    for (i, chunk) in key.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(number * 8 + i as u64).to_le_bytes());
    }
    key
}

fn row_at(row: u64) -> RowAt {
    let position = row * ROW_BYTES;
    RowAt {
        segment: (position >> 26) as u32,
        offset: (position & 0x3ff_ffff) as u32,
        len: ROW_BYTES as u32,
    }
}

fn version_of(main: u64, create: u64, rows: u64) -> Version {
    let revision = Revision { main: main as i64, sub: 0 };
    let version = if main == create { 1 } else { main as i64 };
    Version { revision, create: create as i64, version, tombstone: false, at: row_at(main % rows) }
}

/// A figure of this process from /proc, in the unit that the kernel prints.
fn proc_figure(file: &str, name: &str) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/proc/self/{file}"))?;
    let line = text.lines().find(|line| line.starts_with(name)).ok_or("no such line in /proc")?;
    Ok(line.split_whitespace().nth(1).ok_or("no figure in /proc")?.parse()?)
}

fn cpu_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn rss_anon_mb() -> Outcome<f64> {
    Ok(proc_figure("status", "RssAnon:")? as f64 / 1024.0)
}

/// What the first process of a candidate measured.
#[derive(Default)]
struct Figures {
    cpu_us: f64,
    apply_us: f64,
    stall_ms: f64,
    written: f64,
    rss_loaded_mb: f64,
    rss_peak_mb: f64,
    count_ms: f64,
    list_ms: f64,
}

fn load<C: Candidate>(candidate: &mut C, keys: u64) -> Outcome<()> {
    for number in 0..keys {
        let main = number + 2;
        candidate.put(&key_of(number), version_of(main, main, keys))?;
        if main % BATCH_PUTS == 0 {
            candidate.end_batch()?;
        }
    }
    candidate.checkpoint()?;
    candidate.settle()
}

/// Overwrites keys at random; `revision` is the last revision before and after.
fn overwrite<C: Candidate>(
    candidate: &mut C,
    keys: u64,
    puts: u64,
    revision: &mut u64,
    figures: &mut Figures,
) -> Outcome<()> {
    for put in 1..=puts {
        *revision += 1;
        let number = mix(*revision) % keys;
        candidate.put(&key_of(number), version_of(*revision, number + 2, keys))?;
        if put % BATCH_PUTS == 0 {
            let started = Instant::now();
            candidate.end_batch()?;
            if put % CHECKPOINT_PUTS == 0 {
                candidate.checkpoint()?;
            }
            figures.stall_ms = figures.stall_ms.max(started.elapsed().as_secs_f64() * 1e3);
            if put % (10 * BATCH_PUTS) == 0 {
                figures.rss_peak_mb = figures.rss_peak_mb.max(rss_anon_mb()?);
            }
        }
    }
    Ok(())
}

/// The WAL's part in a restart: framed entries, one CRC each, written behind the last checkpoint.
fn write_tail(directory: &Path, keys: u64, revision: u64) -> Outcome<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(directory.join("tail"))?);
    for put in 1..=CHECKPOINT_PUTS {
        let mut entry = vec![0x5a; 16 + KEY_BYTES + VALUE_BYTES];
        let number = mix(revision + put) % keys;
        entry[..8].copy_from_slice(&(revision + put).to_le_bytes());
        entry[8..16].copy_from_slice(&number.to_le_bytes());
        entry[16..16 + KEY_BYTES].copy_from_slice(&key_of(number));
        out.write_all(&crc32c::crc32c(&entry).to_le_bytes())?;
        out.write_all(&entry)?;
    }
    out.into_inner()?.sync_data()?;
    Ok(())
}

/// Replays the tail: checks, writes the rows again, updates the candidate.
fn replay<C: Candidate>(candidate: &mut C, directory: &Path, keys: u64) -> Outcome<()> {
    let mut input = BufReader::with_capacity(1 << 20, File::open(directory.join("tail"))?);
    let mut rows = BufWriter::with_capacity(1 << 20, File::create(directory.join("rows.tail"))?);
    let mut entry = [0; 20 + KEY_BYTES + VALUE_BYTES];
    let row = [0; ROW_BYTES as usize];
    let mut puts = 0;
    while input.read_exact(&mut entry).is_ok() {
        let crc = crc32c::crc32c(&entry[4..]);
        assert_eq!(entry[..4], crc.to_le_bytes());
        let long = |i: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|b| entry[i + b]));
        let (main, number) = (long(4), long(12));
        if !C::HAS_ROWS {
            rows.write_all(&row)?;
        }
        candidate.put(&entry[20..20 + KEY_BYTES], version_of(main, number + 2, keys))?;
        puts += 1;
        if puts % BATCH_PUTS == 0 {
            candidate.end_batch()?;
        }
    }
    rows.flush()?;
    Ok(())
}

fn lists<C: Candidate>(candidate: &C, rows: &File, at: i64) -> Outcome<f64> {
    let started = Instant::now();
    for list in 0..LISTS {
        assert_eq!(candidate.list(&key_of(list), LIST_KEYS, at, rows)?, LIST_KEYS);
    }
    Ok(started.elapsed().as_secs_f64() * 1e3 / LISTS as f64)
}

/// The first process: measures, prints one line, then waits to be killed.
fn measure<C: Candidate>(directory: &Path, keys: u64) -> Outcome<()> {
    let mut figures = Figures::default();
    let mut candidate = C::open(directory)?;
    load(&mut candidate, keys)?;
    figures.rss_loaded_mb = rss_anon_mb()?;
    let mut revision = keys + 1;
    let (cpu, apply) = (cpu_time(ClockId::ProcessCPUTime), cpu_time(ClockId::ThreadCPUTime));
    let written = proc_figure("io", "write_bytes:")?;
    let puts = keys / 2 / CHECKPOINT_PUTS.min(keys / 2) * CHECKPOINT_PUTS.min(keys / 2);
    overwrite(&mut candidate, keys, puts, &mut revision, &mut figures)?;
    candidate.settle()?;
    let per_put = |time: Duration| time.as_secs_f64() * 1e6 / puts as f64;
    figures.cpu_us = per_put(cpu_time(ClockId::ProcessCPUTime) - cpu);
    figures.apply_us = per_put(cpu_time(ClockId::ThreadCPUTime) - apply);
    figures.written = (proc_figure("io", "write_bytes:")? - written) as f64 / puts as f64;
    figures.rss_peak_mb = figures.rss_peak_mb.max(rss_anon_mb()?);
    let started = Instant::now();
    assert_eq!(candidate.count(revision as i64)?, keys);
    figures.count_ms = started.elapsed().as_secs_f64() * 1e3;
    let rows = File::open(directory.with_file_name("rows"))?;
    figures.list_ms = lists(&candidate, &rows, revision as i64)?;
    write_tail(directory, keys, revision)?;
    println!(
        "{:.2} {:.2} {:.1} {:.0} {:.0} {:.0} {:.0} {:.2}",
        figures.cpu_us,
        figures.apply_us,
        figures.stall_ms,
        figures.written,
        figures.rss_loaded_mb,
        figures.rss_peak_mb,
        figures.count_ms,
        figures.list_ms
    );
    loop {
        std::thread::park();
    }
}

/// The second process: what a restart takes.
fn reopen<C: Candidate>(directory: &Path, keys: u64) -> Outcome<()> {
    let started = Instant::now();
    let mut candidate = C::open(directory)?;
    let opened = started.elapsed().as_secs_f64() * 1e3;
    replay(&mut candidate, directory, keys)?;
    println!("{:.0} {:.0}", opened, started.elapsed().as_secs_f64() * 1e3);
    assert_eq!(candidate.count(i64::MAX)?, keys);
    Ok(())
}

fn child(name: &str, phase: &str, directory: &Path, keys: u64) -> Outcome<()> {
    match (name, phase) {
        ("packed", "measure") => measure::<Packed>(directory, keys),
        ("packed", _) => reopen::<Packed>(directory, keys),
        ("std", "measure") => measure::<Standard>(directory, keys),
        ("std", _) => reopen::<Standard>(directory, keys),
        ("built", "measure") => measure::<Built>(directory, keys),
        ("built", _) => reopen::<Built>(directory, keys),
        ("redb", "measure") => measure::<Redb>(directory, keys),
        ("redb", _) => reopen::<Redb>(directory, keys),
        (other, _) => Err(format!("no candidate is called {other}").into()),
    }
}

/// Runs one phase in a process of its own and kills it after its line.
fn line_of(name: &str, phase: &str, directory: &Path, keys: u64) -> Outcome<Vec<String>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", name, phase]).arg(directory).arg(keys.to_string());
    let mut process = command.stdout(Stdio::piped()).spawn()?;
    let output = process.stdout.take().ok_or("the child has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    process.kill()?;
    process.wait()?;
    if line.is_empty() {
        return Err(format!("{name} failed to {phase}").into());
    }
    Ok(line.split_whitespace().map(str::to_owned).collect())
}

fn run(keys: u64, root: &Path) -> Outcome<()> {
    fs::create_dir_all(root)?;
    let mut rows = BufWriter::new(
        OpenOptions::new().write(true).create(true).truncate(true).open(root.join("rows"))?,
    );
    for number in 0..keys {
        rows.write_all(&[number as u8; ROW_BYTES as usize])?;
    }
    rows.into_inner()?.sync_data()?;
    println!(
        "{keys} random keys of {KEY_BYTES} + {VALUE_BYTES} bytes, a checkpoint each {CHECKPOINT_PUTS} puts"
    );
    println!(
        "| candidate | CPU us a put | of it on the apply thread | longest batch end ms | bytes written a put | RssAnon MB loaded | peak | count ms | list of {LIST_KEYS} ms | open ms | open + replay ms |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for name in ["packed", "std", "redb", "built"] {
        let directory = root.join(name);
        fs::create_dir_all(&directory)?;
        let mut cells = line_of(name, "measure", &directory, keys)?;
        cells.extend(line_of(name, "reopen", &directory, keys)?);
        println!("| {name} | {} |", cells.join(" | "));
        fs::remove_dir_all(&directory)?;
    }
    Ok(fs::remove_file(root.join("rows"))?)
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, phase, directory, keys] = &arguments[..]
        && flag == "--child"
    {
        return child(name, phase, Path::new(directory), keys.parse()?);
    }
    let keys = arguments.first().map_or(Ok(1_000_000), |text| text.parse())?;
    let root =
        arguments.get(1).map_or_else(|| std::env::temp_dir().join("index-spike"), PathBuf::from);
    run(keys, &root)
}
