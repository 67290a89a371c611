//! What the log promises while it runs: bytes, order, rotation, purge, holds, old entries. What it promises after a
//! crash is in `recovery/tests.rs`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quorate_consensus::{
    Configuration, ConfigurationChange, Entry, HardState, LogIndex, MemberId, Payload, Record,
    SnapshotMeta, Term, Token,
};

use super::frame::{Batch, FRAME_HEADER_BYTES, Frame, FrameHeader, seal};
use super::header::HEADER_SPAN_BYTES;
use super::*;
use crate::disk::mem::{Fault, MemDisk};
use crate::disk::{Disk, FileSystem};
use crate::limits::MARK_SPACING_BYTES;

pub(crate) const DIRECTORY: &str = "/wal";

pub(crate) fn owner() -> Owner {
    Owner { cluster: ClusterId(0xc1), member: MemberId(1), incarnation: 77 }
}

/// Small sizes, so that little data turns many segments.
pub(crate) fn settings() -> WalSettings {
    WalSettings {
        segment_bytes: 16 << 10,
        keep_bytes: 0,
        held_bytes_max: 1 << 30,
        recovered_bytes_max: 5_000,
        epoch_seed: 42,
    }
}

/// A payload that tells from which entry it is.
pub(crate) fn entry(index: u64, term: u64, length: usize) -> Entry {
    let pattern = format!("[{index}:{term}]");
    let bytes: Vec<u8> = pattern.bytes().cycle().take(length.max(pattern.len())).collect();
    Entry { term: Term(term), index: LogIndex(index), payload: Payload::Command(bytes.into()) }
}

pub(crate) fn record(term: u64, commit: u64, entries: Vec<Entry>) -> Record {
    let hard_state =
        HardState { term: Term(term), vote: MemberId(term % 3), commit: LogIndex(commit) };
    let last = entries.last();
    let token = Token {
        sequence: 1,
        term: hard_state.term,
        vote: hard_state.vote,
        last_index: last.map_or(LogIndex(0), |entry| entry.index),
        last_term: last.map_or(Term(0), |entry| entry.term),
    };
    Record { token, hard_state, entries, snapshot: None }
}

pub(crate) fn base() -> SnapshotMeta {
    let configuration = Configuration { voters: [MemberId(1)].into(), learners: [].into() };
    SnapshotMeta { index: LogIndex(1), term: Term(1), configuration }
}

fn create(disk: &Arc<dyn Disk>, directory: &Path, settings: WalSettings) -> Wal {
    let hard_state = HardState { term: Term(1), vote: MemberId::NONE, commit: LogIndex(1) };
    Wal::create(disk.clone(), directory, owner(), settings, hard_state, &base()).unwrap()
}

fn memory() -> (MemDisk, Arc<dyn Disk>) {
    let disk = MemDisk::new();
    (disk.clone(), Arc::new(disk))
}

fn append(wal: &mut Wal, records: &[Record]) -> Durable {
    wal.write(records).unwrap();
    wal.sync().unwrap()
}

fn fetch(wal: &Wal, from: u64, to: u64, bytes_max: usize) -> Vec<(u64, u64)> {
    let entries = wal.reader().fetch(LogIndex(from), LogIndex(to), bytes_max).unwrap();
    for found in &entries {
        if let Payload::Command(bytes) = &found.payload {
            let expected = entry(found.index.0, found.term.0, bytes.len());
            assert_eq!(*found, expected, "an entry carries its own payload");
        }
    }
    entries.iter().map(|entry| (entry.index.0, entry.term.0)).collect()
}

fn segments(disk: &dyn Disk) -> Vec<String> {
    let mut names = disk.list(Path::new(DIRECTORY)).unwrap();
    names.retain(|name| name.ends_with(".wal"));
    names
}

/// INV-M3 of files: these bytes are on people's disks.
#[test]
fn the_bytes_of_a_frame_never_change() {
    let entries = vec![
        Entry { term: Term(4), index: LogIndex(8), payload: Payload::Empty },
        Entry { term: Term(4), index: LogIndex(9), payload: Payload::Command("put".into()) },
        Entry {
            term: Term(4),
            index: LogIndex(10),
            payload: Payload::Change(ConfigurationChange::AddLearner(MemberId(5)), "url".into()),
        },
    ];
    let snapshot = Some(SnapshotMeta { index: LogIndex(7), ..base() });
    let record = Record { snapshot, ..record(4, 7, entries.clone()) };
    let mut bytes = Vec::new();
    let records = [record];
    Batch::merge(HardState::default(), &records).encode(&mut bytes);
    seal(&mut bytes, 0x0807_0605_0403_0201, 6);

    let number = |n: u64| n.to_le_bytes().to_vec();
    let golden: Vec<u8> = [
        b"QWF1".to_vec(),
        vec![53, 0, 0, 0],
        vec![1, 2, 3, 4, 5, 6, 7, 8],
        number(6),
        vec![1, 0, 0, 0],
        GOLDEN_CRC.to_le_bytes().to_vec(),
        // Term, vote, commit; a snapshot at 7 in term 1 with one voter and no learner.
        [vec![4], number(1), vec![7], vec![1]].concat(),
        [vec![7, 1, 1], number(1), vec![0]].concat(),
        // Three entries from 8 on.
        vec![3, 0, 0, 0],
        vec![0, 4, 8, 0],
        [vec![1, 4, 9, 3], b"put".to_vec()].concat(),
        [vec![3, 4, 10], number(5), vec![3], b"url".to_vec()].concat(),
        vec![0; 3],
    ]
    .concat();
    assert_eq!(bytes, golden);

    let header = FrameHeader::parse(&golden).unwrap();
    let body = Bytes::from(golden)
        .slice(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.body_bytes as usize);
    assert!(header.matches(&bytes, &body), "the checksum covers header and body");
    assert_eq!(Frame::decode(&header, body).unwrap().entries, entries);
}

/// CRC-32C of the rest, computed by other means.
const GOLDEN_CRC: u32 = 0x38c1_43ef;

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    let records = [record(2, 1, vec![entry(2, 2, 9), entry(3, 2, 30)])];
    let mut good = Vec::new();
    Batch::merge(HardState::default(), &records).encode(&mut good);
    seal(&mut good, 9, 1);
    let length = FRAME_HEADER_BYTES + FrameHeader::parse(&good).unwrap().body_bytes as usize;
    for bit in 0..length * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let body_end = |header: &FrameHeader| FRAME_HEADER_BYTES + header.body_bytes as usize;
        let believed = FrameHeader::parse(&bad)
            .filter(|header| {
                header.epoch == 9 && header.sequence == 1 && body_end(header) <= bad.len()
            })
            .is_some_and(|header| {
                header.matches(&bad, &bad[FRAME_HEADER_BYTES..body_end(&header)])
            });
        assert!(!believed, "bit {bit}");
    }
}

#[test]
fn a_batch_is_one_frame_in_which_later_records_win() {
    let records = [
        record(1, 1, vec![entry(2, 1, 5), entry(3, 1, 5), entry(4, 1, 5)]),
        record(2, 1, vec![entry(3, 2, 5)]),
        record(2, 2, vec![]),
    ];
    let (_, disk) = memory();
    let mut wal = create(&disk, Path::new(DIRECTORY), settings());
    let durable = append(&mut wal, &records);
    assert_eq!(durable.token, Some(records[2].token));
    assert_eq!(fetch(&wal, 2, 9, usize::MAX), [(2, 1), (3, 2)]);
    assert_eq!(wal.last_index(), LogIndex(3));
    assert_eq!(wal.hard_state(), records[2].hard_state);
}

#[test]
fn a_batch_costs_one_write_and_one_sync() {
    let (memory, disk) = memory();
    let mut wal = create(&disk, Path::new(DIRECTORY), settings());
    let before = memory.operations();
    let batch: Vec<Record> = (2..50).map(|index| record(1, 1, vec![entry(index, 1, 20)])).collect();
    append(&mut wal, &batch);
    assert_eq!(memory.operations() - before, 2);
}

#[test]
fn only_what_is_durable_can_be_fetched() {
    let (_, disk) = memory();
    let mut wal = create(&disk, Path::new(DIRECTORY), settings());
    wal.write(&[record(1, 1, vec![entry(2, 1, 5)])]).unwrap();
    assert_eq!(fetch(&wal, 2, 2, usize::MAX), []);
    wal.sync().unwrap();
    assert_eq!(fetch(&wal, 2, 2, usize::MAX), [(2, 1)]);
}

#[test]
#[should_panic(expected = "INV-R2")]
fn a_second_write_waits_for_the_sync() {
    let (_, disk) = memory();
    let mut wal = create(&disk, Path::new(DIRECTORY), settings());
    wal.write(&[record(1, 1, vec![entry(2, 1, 5)])]).unwrap();
    let _ = wal.write(&[record(1, 1, vec![entry(3, 1, 5)])]);
}

/// A record that contradicts the log before it must not reach the disk, where it would look like the truth.
#[test]
fn records_that_contradict_the_log_stop_the_writer() {
    type Case = (&'static str, Record);
    let cases: [Case; 5] = [
        ("has no holes", record(2, 4, vec![entry(12, 2, 5)])),
        ("is never replaced", record(2, 4, vec![entry(4, 2, 5)])),
        ("a term never falls", record(1, 4, vec![])),
        ("commit never falls", record(2, 3, vec![])),
        ("is in the log", record(2, 11, vec![])),
    ];
    for (message, bad) in cases {
        let (_, disk) = memory();
        let mut wal = create(&disk, Path::new(DIRECTORY), settings());
        append(&mut wal, &[record(2, 4, (2..=10).map(|index| entry(index, 2, 5)).collect())]);
        let attempt = std::panic::AssertUnwindSafe(|| wal.write(&[bad]));
        let panic = std::panic::catch_unwind(attempt).expect_err(message);
        let said = panic.downcast_ref::<String>().expect("a message");
        assert!(said.starts_with("INV-R") && said.contains(message), "{said} for {message}");
    }
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_tried_again() {
    for (failing, what) in [(0, "write"), (1, "sync")] {
        let (memory, disk) = memory();
        let mut wal = create(&disk, Path::new(DIRECTORY), settings());
        append(&mut wal, &[record(1, 1, vec![entry(2, 1, 5)])]);
        memory.fail_at(memory.operations() + failing, Fault::Error);
        let outcome =
            wal.write(&[record(1, 1, vec![entry(3, 1, 5)])]).and_then(|()| wal.sync().map(drop));
        assert!(
            matches!(outcome, Err(WalError::Disk { action, .. }) if action == what),
            "{outcome:?}"
        );
        assert_eq!(memory.faults_taken(), 1);
        let operations = memory.operations();
        assert!(matches!(wal.write(&[record(1, 1, vec![])]), Err(WalError::Failed)));
        assert!(matches!(wal.sync(), Err(WalError::Failed)));
        assert!(matches!(wal.purge_below(LogIndex(2)), Err(WalError::Failed)));
        assert_eq!(memory.operations(), operations, "INV-S3: the disk is left alone");
        assert_eq!(fetch(&wal, 2, 9, usize::MAX), [(2, 1)], "what was durable is still read");
    }
}

/// Thesis §3.5: a follower's uncommitted entries give way to the new leader's.
#[test]
fn entries_replaced_by_a_later_leader_are_never_fetched() {
    let (_, disk) = memory();
    let mut wal = create(&disk, Path::new(DIRECTORY), settings());
    for index in 2..=60 {
        append(&mut wal, &[record(1, 1, vec![entry(index, 1, 700)])]);
    }
    assert!(segments(&*disk).len() > 2, "the replaced entries lie in several segments");
    append(&mut wal, &[record(2, 1, vec![entry(20, 2, 700), entry(21, 2, 700)])]);
    for index in 22..=30 {
        append(&mut wal, &[record(2, 1, vec![entry(index, 2, 700)])]);
    }
    append(&mut wal, &[record(3, 1, vec![entry(25, 3, 700)])]);
    let expected: Vec<(u64, u64)> = (2..=25)
        .map(|index| {
            (
                index,
                if index < 20 {
                    1
                } else if index < 25 {
                    2
                } else {
                    3
                },
            )
        })
        .collect();
    assert_eq!(fetch(&wal, 2, 60, usize::MAX), expected);
    for from in 2..=25usize {
        assert_eq!(fetch(&wal, from as u64, 60, usize::MAX), expected[from - 2..], "from {from}");
    }
    assert_eq!(fetch(&wal, 26, 60, usize::MAX), []);
}

#[test]
fn a_fetch_ends_at_its_bytes_but_gives_one_entry() {
    let (_, disk) = memory();
    let mut wal = create(&disk, Path::new(DIRECTORY), settings());
    append(&mut wal, &[record(1, 1, (2..=9).map(|index| entry(index, 1, 100)).collect())]);
    let cost = entry(2, 1, 100).cost();
    assert_eq!(fetch(&wal, 2, 9, 0), [(2, 1)]);
    assert_eq!(fetch(&wal, 2, 9, 3 * cost - 1), [(2, 1), (3, 1)]);
    assert_eq!(fetch(&wal, 2, 9, 3 * cost).len(), 3);
    assert_eq!(fetch(&wal, 4, 6, usize::MAX), [(4, 1), (5, 1), (6, 1)]);
    assert_eq!(fetch(&wal, 1, 6, usize::MAX), [], "the entry of the base is in no frame");
    assert_eq!(wal.reader().bounds(), (LogIndex(2), LogIndex(9)));
}

#[test]
fn a_frame_larger_than_a_segment_gets_one_of_its_own() {
    let (_, disk) = memory();
    let mut wal = create(&disk, Path::new(DIRECTORY), settings());
    append(&mut wal, &[record(1, 1, vec![entry(2, 1, 10)])]);
    append(&mut wal, &[record(1, 1, vec![entry(3, 1, 3 << 20)])]);
    append(&mut wal, &[record(1, 1, vec![entry(4, 1, 10)])]);
    assert_eq!(segments(&*disk).len(), 3);
    assert_eq!(fetch(&wal, 2, 4, usize::MAX), [(2, 1), (3, 1), (4, 1)]);
}

#[test]
fn a_purge_keeps_what_a_restart_needs_and_recycles_the_rest() {
    let (_, disk) = memory();
    let mut wal = create(&disk, Path::new(DIRECTORY), settings());
    for index in 2..=100 {
        append(&mut wal, &[record(1, index - 1, vec![entry(index, 1, 1000)])]);
    }
    let before = segments(&*disk).len();
    let purged = wal.purge_below(LogIndex(50)).unwrap();
    assert!(purged.segments > 1 && purged.first_index <= LogIndex(51), "{purged:?}");
    assert_eq!(segments(&*disk).len(), before - purged.segments);
    let names = disk.list(Path::new(DIRECTORY)).unwrap();
    assert_eq!(
        names.iter().filter(|name| name.starts_with("spare-")).count(),
        crate::limits::SPARES_MAX
    );
    assert_eq!(fetch(&wal, 51, 100, usize::MAX).len(), 50);
    assert_eq!(fetch(&wal, 2, 100, usize::MAX), []);
    // The spares are used before files are made, and what they held before never shows.
    for index in 101..=160 {
        append(&mut wal, &[record(1, index - 1, vec![entry(index, 1, 1000)])]);
    }
    assert!(
        !disk.list(Path::new(DIRECTORY)).unwrap().iter().any(|name| name.starts_with("spare-"))
    );
    assert_eq!(fetch(&wal, 51, 160, usize::MAX).len(), 110);
    // The newest segment stays whatever the checkpoint says.
    wal.purge_below(LogIndex(160)).unwrap();
    assert_eq!(segments(&*disk).len(), 1);
}

#[test]
fn a_byte_budget_is_kept_for_slow_followers() {
    let (_, disk) = memory();
    let mut wal =
        create(&disk, Path::new(DIRECTORY), WalSettings { keep_bytes: 100 << 10, ..settings() });
    for index in 2..=300 {
        append(&mut wal, &[record(1, index - 1, vec![entry(index, 1, 1000)])]);
    }
    assert!(wal.reader().bytes() > 250 << 10);
    wal.purge_below(LogIndex(299)).unwrap();
    let kept = wal.reader().bytes();
    assert!((84 << 10..=100 << 10).contains(&kept), "{kept} bytes are kept");
    let (first, last) = wal.reader().bounds();
    assert_eq!(fetch(&wal, first.0, last.0, usize::MAX).len() as u64, last.0 - first.0 + 1);
}

#[test]
fn a_hold_keeps_entries_until_it_is_dropped_or_costs_too_much() {
    let (_, disk) = memory();
    let mut wal = create(
        &disk,
        Path::new(DIRECTORY),
        WalSettings { held_bytes_max: 150 << 10, ..settings() },
    );
    let fill = |wal: &mut Wal, to: u64| {
        for index in wal.last_index().0 + 1..=to {
            append(wal, &[record(1, index - 1, vec![entry(index, 1, 1000)])]);
        }
    };
    fill(&mut wal, 100);
    let reader = wal.reader();
    let hold = reader.hold(LogIndex(30)).unwrap();
    assert!(!wal.purge_below(LogIndex(99)).unwrap().holds_broken);
    assert!(reader.bounds().0 <= LogIndex(30));
    assert_eq!(fetch(&wal, 30, 100, usize::MAX).len(), 71);
    drop(hold);
    wal.purge_below(LogIndex(99)).unwrap();
    assert!(reader.bounds().0 > LogIndex(30));
    assert!(reader.hold(LogIndex(30)).is_none(), "what is gone cannot be held");

    let _hold = reader.hold(reader.bounds().0).unwrap();
    fill(&mut wal, 400);
    let purged = wal.purge_below(LogIndex(399)).unwrap();
    assert!(purged.holds_broken, "a stuck transfer does not fill the disk");
    assert!(reader.bytes() <= 150 << 10);
    let _many: Vec<Hold> =
        (1..crate::limits::HOLDS_MAX).map(|_| reader.hold(LogIndex(400)).unwrap()).collect();
    assert!(reader.hold(LogIndex(400)).is_none(), "holds are bounded");
}

#[test]
fn the_map_stays_small_however_small_the_frames_are() {
    let (_, disk) = memory();
    let mut wal =
        create(&disk, Path::new(DIRECTORY), WalSettings { segment_bytes: 1 << 20, ..settings() });
    for index in 2..=20_000 {
        append(&mut wal, &[record(1, index - 1, vec![entry(index, 1, 20)])]);
    }
    let reader = wal.reader();
    let marks_max = reader.bytes() / MARK_SPACING_BYTES + 2 * segments(&*disk).len() as u64;
    let marks = reader.map.lock().marks() as u64;
    assert!(marks <= marks_max, "{marks} marks for {} bytes", reader.bytes());
    assert_eq!(fetch(&wal, 19_990, 20_000, usize::MAX).len(), 11);
}

#[test]
fn spares_are_filled_in_steps_and_used_by_rotations() {
    let (_, disk) = memory();
    let mut wal = create(&disk, Path::new(DIRECTORY), settings());
    let mut filler = wal.filler();
    let mut steps = 0;
    while filler.step().unwrap() {
        steps += 1;
    }
    assert!(steps >= 3, "create, fill, publish");
    assert_eq!(
        disk.open(Path::new("/wal/spare-1")).unwrap().len().unwrap(),
        settings().segment_bytes
    );
    while segments(&*disk).len() == 1 {
        let index = wal.last_index().0 + 1;
        append(&mut wal, &[record(1, 1, vec![entry(index, 1, 1000)])]);
    }
    assert_eq!(
        disk.list(Path::new(DIRECTORY)).unwrap().len(),
        2,
        "the spare has become the segment"
    );
    let second = segment_file(2);
    assert_eq!(disk.open(&second).unwrap().len().unwrap(), settings().segment_bytes);
    assert!(filler.step().unwrap(), "the next one is wanted");
}

#[test]
fn a_full_disk_while_filling_is_given_up_and_tried_again() {
    let (memory, disk) = memory();
    let wal = create(&disk, Path::new(DIRECTORY), settings());
    let mut filler = wal.filler();
    for failing in 0..5 {
        memory.fail_at(memory.operations() + failing, Fault::Error);
        let outcome = (0..5).try_for_each(|_| filler.step().map(drop));
        assert_eq!(memory.faults_taken(), failing.min(3) + 1);
        if failing > 3 {
            break;
        }
        outcome.expect_err("the fault shows");
    }
    while filler.step().unwrap() {}
    let names = disk.list(Path::new(DIRECTORY)).unwrap();
    assert!(names.iter().any(|name| name.starts_with("spare-")), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("filling-")), "{names:?}");
}

fn segment_file(number: u64) -> PathBuf {
    super::segment::segment_path(Path::new(DIRECTORY), number)
}

/// On real files and threads: whatever a reader gets while segments are written, replaced, purged and recycled under it,
/// it is what was durable at its index, and consecutive from where it asked.
#[test]
fn readers_on_other_threads_see_only_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(FileSystem);
    let path = directory.path().join("wal");
    let mut wal = create(&disk, &path, settings());
    let done = AtomicBool::new(false);
    let read = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2u64)
            .map(|salt| {
                let (reader, done) = (wal.reader(), &done);
                scope.spawn(move || {
                    let mut read = 0u64;
                    while !done.load(Ordering::Acquire) || read == 0 {
                        let (first, last) = reader.bounds();
                        let span = (last.0 + 1).saturating_sub(first.0).max(1);
                        let from = LogIndex(first.0 + (read * 7 + salt) % span);
                        let entries = reader.fetch(from, last, 20_000).unwrap();
                        for (offset, found) in entries.iter().enumerate() {
                            assert_eq!(found.index.0, from.0 + offset as u64);
                            let expected = entry(found.index.0, found.term.0, found.payload.len());
                            assert_eq!(*found, expected);
                        }
                        read += entries.len() as u64 + u64::from(read == 0 && entries.is_empty());
                    }
                    read
                })
            })
            .collect();
        for term in 1..=60 {
            let next = wal.last_index().0 + 1;
            // Each leader replaces the last three entries, which nobody had committed.
            let from = next.saturating_sub(3).max(2);
            for index in from..from + 20 {
                append(&mut wal, &[record(term, from - 1, vec![entry(index, term, 300)])]);
            }
            wal.purge_below(LogIndex((from - 1).saturating_sub(30))).unwrap();
        }
        done.store(true, Ordering::Release);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>()
    });
    assert!(read > 100, "the readers came to read: {read}");
    assert!(HEADER_SPAN_BYTES < wal.reader().bytes());
}
