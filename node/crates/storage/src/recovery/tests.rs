//! What is found after a crash at any operation, after damage to any byte, and in directories that are not ours.

use std::path::Path;

use bytes::Bytes;
use quorate_consensus::codec::{decode_snapshot_meta, encode_snapshot_meta};
use quorate_consensus::{Configuration, Entry};

use super::*;
use crate::checkpoint::{CheckpointAt, Step as CheckpointStep};
use crate::corrupt_mark;
use crate::disk::mem::{Fault, MemDisk};
use crate::prepare::{Founder, Founding, PrepareError, Prepared, form, join};
use crate::rows::{RowSettings, RowStore};
use crate::wal::tests::{entry, record, settings};

const DATA: &str = "/data";

fn founder(name: &str, port: u16) -> Founder {
    let peer_urls = vec![format!("http://127.0.0.1:{port}")];
    Founder { name: name.into(), peer_urls, client_urls: Vec::new() }
}

fn founding(token: &str) -> Founding {
    Founding::new(token, vec![founder("a", 1), founder("b", 2), founder("c", 3)]).unwrap()
}

/// The double of a machine: its small state is the configuration at its index.
fn machine_state(meta: &SnapshotMeta) -> Bytes {
    let mut bytes = Vec::new();
    encode_snapshot_meta(meta, &mut bytes);
    bytes.into()
}

fn checkpoint_at(meta: &SnapshotMeta) -> CheckpointAt {
    CheckpointAt { index: meta.index, term: meta.term, revision: 1 }
}

fn form_a(disk: &MemDisk, token: &str) -> Result<Prepared, PrepareError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let founding = founding(token);
    let member = founding.member_named("a").unwrap();
    let state = machine_state(&founding.snapshot());
    form(&disk, Path::new(DATA), &founding, member, 99, &settings(), state)
}

fn formed() -> MemDisk {
    let disk = MemDisk::new();
    assert_eq!(form_a(&disk, "t").unwrap(), Prepared::Made);
    disk
}

/// A start, as the shell makes it: directory, rows, machine, log.
struct Opened {
    recovery: Recovery,
    store: RowStore,
}

fn start(
    disk: Arc<dyn Disk>,
    data: &Path,
    expected: &Expectations,
    seed: u64,
) -> Result<Opened, OpenError> {
    let directory = open(disk.clone(), data, expected)?;
    let opened = RowStore::open(disk, directory.generation_path(), RowSettings::default())?;
    let checkpoint = decode_snapshot_meta(&mut opened.machine.clone()).unwrap();
    assert_eq!(checkpoint_at(&checkpoint), opened.at);
    let settings = WalSettings { epoch_seed: seed, ..settings() };
    let recovery = recover(directory, &checkpoint, &settings)?;
    Ok(Opened { recovery, store: opened.store })
}

fn reopen(disk: &MemDisk) -> Result<Opened, OpenError> {
    let seed = disk.operations();
    start(Arc::new(disk.clone()), Path::new(DATA), &Expectations::default(), seed)
}

/// Everything that a start promises: where the machine stands, what was promised to others, every entry after that.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    checkpoint: SnapshotMeta,
    hard_state: HardState,
    log: Vec<Entry>,
}

fn found(opened: &Opened) -> Found {
    let recovery = &opened.recovery;
    assert_eq!(recovery.directory.manifest().checkpoint, recovery.recovered.snapshot);
    let recovered = &recovery.recovered;
    let (checkpoint, last) = (recovered.snapshot.clone(), recovered.last_index);
    let log = recovery.wal.reader().fetch(checkpoint.index.next(), last, usize::MAX).unwrap();
    assert_eq!(log.len() as u64, last.0 - checkpoint.index.0, "every entry can be fetched");
    let kept = &recovered.entries;
    assert_eq!(kept[..], log[log.len() - kept.len()..], "what is in memory is the end of the log");
    assert!(!kept.is_empty() || log.is_empty(), "the last entry is in memory");
    let in_memory = kept.first().map_or(checkpoint.index, |first| first.index.previous());
    assert!(
        in_memory == checkpoint.index || in_memory < recovered.hard_state.commit,
        "the entry at the commit index and all after it are in memory"
    );
    Found { checkpoint, hard_state: recovered.hard_state, log }
}

/// A member at work: a log, a directory, and what has been acknowledged so far.
struct Member {
    directory: DataDirectory,
    store: RowStore,
    wal: Wal,
    acknowledged: Found,
    /// What a crash right now may leave as well.
    attempted: Option<Found>,
}

type Step = fn(&mut Member) -> Result<(), Box<dyn std::error::Error>>;

impl Member {
    fn new(opened: Opened) -> Self {
        let acknowledged = found(&opened);
        let Opened { recovery: Recovery { directory, wal, .. }, store } = opened;
        Self { directory, store, wal, acknowledged, attempted: None }
    }

    fn last(&self) -> u64 {
        self.wal.last_index().0
    }

    fn log(&mut self, records: &[Record]) -> Result<(), Box<dyn std::error::Error>> {
        let mut next = self.acknowledged.clone();
        for record in records {
            next.hard_state = record.hard_state;
            if let Some(first) = record.entries.first() {
                next.log.retain(|entry| entry.index < first.index);
                next.log.extend(
                    record
                        .entries
                        .iter()
                        .filter(|entry| entry.index > next.checkpoint.index)
                        .cloned(),
                );
            }
        }
        self.attempted = Some(next);
        self.wal.write(records)?;
        self.wal.sync()?;
        self.acknowledged = self.attempted.take().expect("just set");
        Ok(())
    }

    /// Appends `count` entries in `term`, from `back` before the end on, and commits what is before them.
    fn append(
        &mut self,
        term: u64,
        back: u64,
        count: u64,
        length: usize,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let first = self.last() + 1 - back;
        let commit = self.acknowledged.hard_state.commit.0.max(first - 1);
        let entries = (first..first + count).map(|index| entry(index, term, length)).collect();
        self.log(&[record(term, commit, entries)])
    }

    fn checkpoint(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let (term, last) = (self.acknowledged.hard_state.term.0, self.last());
        self.log(&[record(term, last, Vec::new())])?;
        let index = LogIndex(last);
        let mut next = self.acknowledged.clone();
        let at = next.log.iter().position(|entry| entry.index == index).expect("it is in the log");
        next.checkpoint.index = index;
        next.checkpoint.term = next.log[at].term;
        next.log.drain(..=at);
        self.attempted = Some(next.clone());
        let (at, state) = (checkpoint_at(&next.checkpoint), machine_state(&next.checkpoint));
        let mut job = self.store.begin_checkpoint(at, state)?.expect("no other is under way");
        while !matches!(job.step(index)?, CheckpointStep::Published(_)) {}
        self.acknowledged = self.attempted.take().expect("just set");
        self.directory.record_checkpoint(next.checkpoint)?;
        self.wal.purge_below(index)?;
        Ok(())
    }

    /// Installs a snapshot `ahead` of the log, as when a leader has no entries for this member any more.
    fn install(&mut self, ahead: u64) -> Result<(), Box<dyn std::error::Error>> {
        let term = self.acknowledged.hard_state.term;
        let voters = [MemberId(1), MemberId(2)].into();
        let meta = SnapshotMeta {
            index: LogIndex(self.last() + ahead),
            term,
            configuration: Configuration { voters, learners: [MemberId(9)].into() },
        };
        let hard_state = HardState { commit: meta.index, ..self.acknowledged.hard_state };
        let next = Found { checkpoint: meta.clone(), hard_state, log: Vec::new() };
        let generation = self.directory.begin_generation()?;
        let path = generation.path().to_path_buf();
        let disk = self.directory.disk.clone();
        RowStore::create(disk.clone(), path.clone(), checkpoint_at(&meta), machine_state(&meta))?;
        let store = RowStore::open(disk, path, RowSettings::default())?.store;
        self.attempted = Some(next);
        self.directory.switch_generation(&generation, meta.clone(), true)?;
        // A crash from here on leaves the new one, whether or not the log says so.
        self.store = store;
        self.acknowledged = self.attempted.clone().expect("just set");
        let record = record(term.0, meta.index.0, Vec::new());
        self.wal.write(&[Record { hard_state, snapshot: Some(meta), ..record }])?;
        self.wal.sync()?;
        self.attempted = None;
        self.directory.remove_replaced()?;
        Ok(())
    }
}

/// One of everything: small and large batches, leader changes, rotations, recycling, checkpoints, an install.
fn script() -> Vec<Step> {
    vec![
        |m| m.append(1, 0, 3, 40),
        |m| m.append(1, 0, 1, 6_000),
        |m| m.append(1, 0, 5, 900),
        |m| m.append(2, 3, 2, 900),
        |m| m.log(&[record(3, m.acknowledged.hard_state.commit.0, vec![])]),
        |m| m.append(3, 0, 10, 800),
        |m| m.checkpoint(),
        |m| {
            let mut filler = m.wal.filler();
            while filler.step()? {}
            Ok(())
        },
        |m| m.append(3, 0, 8, 1_500),
        |m| m.append(4, 2, 8, 1_500),
        |m| m.append(4, 0, 1, 40_000),
        |m| m.checkpoint(),
        |m| m.append(4, 0, 8, 1_700),
        |m| {
            let last = m.last();
            let first = record(4, last, vec![entry(last + 1, 4, 20), entry(last + 2, 4, 20)]);
            m.log(&[first, record(5, last, vec![entry(last + 2, 5, 900), entry(last + 3, 5, 900)])])
        },
        |m| m.install(50),
        |m| m.append(5, 0, 4, 300),
        |m| m.checkpoint(),
        |m| m.append(6, 0, 9, 1_700),
    ]
}

/// Runs the script until it ends or a fault stops it.
fn run(disk: &MemDisk, steps: &[Step]) -> (Member, Result<(), String>) {
    let mut member = Member::new(reopen(disk).unwrap());
    for step in steps {
        if let Err(error) = step(&mut member) {
            return (member, Err(error.to_string()));
        }
    }
    (member, Ok(()))
}

/// Opens after a fault and compares with what was acknowledged; then works on, and looks again.
fn check_recovery(disk: &MemDisk, member: Member, context: &str) {
    let Member { directory, wal, acknowledged, attempted, .. } = member;
    drop((directory, wal));
    let opened = reopen(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let now = found(&opened);
    let as_acknowledged = now == acknowledged;
    let as_attempted = attempted.as_ref() == Some(&now);
    assert!(
        as_acknowledged || as_attempted,
        "{context}: found {now:#?}\nacknowledged {acknowledged:#?}\nattempted {attempted:#?}"
    );
    let mut member = Member::new(opened);
    let term = member.acknowledged.hard_state.term.0;
    member.append(term + 1, 0, 2, 3_000).unwrap();
    member.append(term + 1, 0, 2, 9_000).unwrap();
    let Member { directory, wal, acknowledged, .. } = member;
    drop((directory, wal));
    disk.crash(7);
    let opened = reopen(disk).unwrap_or_else(|error| panic!("{context}, second start: {error}"));
    assert_eq!(opened.recovery.torn_tail, None, "{context}: the cut is made once");
    assert_eq!(found(&opened), acknowledged, "{context}, second start");
}

/// INV-S1, INV-S2, INV-R2: whatever operation the machine stops at, and whatever of it survives.
#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged_and_invents_nothing() {
    let steps = script();
    let measure = formed();
    let first = measure.operations();
    let (member, outcome) = run(&measure, &steps);
    outcome.unwrap();
    let last = measure.operations();
    assert!(last - first > 80, "the script does something: {} operations", last - first);
    check_recovery(&measure, member, "no fault");

    let (mut cut, mut restarted) = (0, 0);
    for operation in first..last {
        for seed in 0..4 {
            let disk = formed();
            disk.fail_at(operation, Fault::Crash);
            let context = format!("crash at operation {operation}, seed {seed}");
            let Ok(opened) = reopen(&disk) else {
                // The crash came while the directory was opened.
                disk.crash(seed);
                let opened = reopen(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_eq!(opened.recovery.recovered.last_index, LogIndex(1), "{context}");
                continue;
            };
            let mut member = Member::new(opened);
            let stopped = steps.iter().any(|step| step(&mut member).is_err());
            assert!(stopped && disk.faults_taken() == 1, "{context}: the fault took effect");
            disk.crash(seed);
            let look = disk.copy();
            if let Ok(opened) = reopen(&look) {
                cut += u32::from(opened.recovery.torn_tail.is_some());
                restarted += u32::from(opened.recovery.restarted);
            }
            check_recovery(&disk, member, &context);
        }
    }
    assert!(cut > 10, "crashes have torn frames: {cut}");
    assert!(restarted > 1, "crashes have come between an install and its record: {restarted}");
}

/// INV-S3: after an error the process starts again. What it sees may have been dropped by the kernel; a power loss
/// after that restart must not lose what the restart took for durable.
#[test]
fn an_error_at_any_operation_followed_by_a_restart_and_a_power_loss_loses_nothing() {
    let steps = script();
    let measure = formed();
    let first = measure.operations();
    run(&measure, &steps).1.unwrap();
    for operation in first..measure.operations() {
        let disk = formed();
        disk.fail_at(operation, Fault::Error);
        let context = format!("error at operation {operation}");
        let member = match reopen(&disk) {
            Err(_) => None,
            Ok(opened) => {
                let mut member = Member::new(opened);
                let stopped = steps.iter().any(|step| step(&mut member).is_err());
                assert!(stopped, "{context}: the fault shows");
                Some(member)
            }
        };
        assert_eq!(disk.faults_taken(), 1, "{context}");
        disk.kill();
        let taken_for_durable =
            found(&reopen(&disk).unwrap_or_else(|error| panic!("{context}: {error}")));
        disk.crash(operation);
        let after_power_loss =
            found(&reopen(&disk).unwrap_or_else(|error| panic!("{context}: {error}")));
        assert_eq!(after_power_loss, taken_for_durable, "{context}");
        if let Some(member) = member {
            check_recovery(&disk, member, &context);
        }
    }
}

#[test]
fn a_formation_that_crashes_anywhere_succeeds_when_it_is_repeated() {
    let measure = MemDisk::new();
    form_a(&measure, "t").unwrap();
    let operations = measure.operations();
    assert!(operations > 10);
    for operation in 0..operations {
        for seed in 0..8 {
            let disk = MemDisk::new();
            disk.fail_at(operation, Fault::Crash);
            form_a(&disk, "t").unwrap_err();
            disk.crash(seed);
            let context = format!("crash at operation {operation}, seed {seed}");
            // Between the two a serving start may come by: it finds all or nothing.
            match reopen(&disk.copy()) {
                Ok(opened) => assert_eq!(
                    opened.recovery.recovered.snapshot,
                    founding("t").snapshot(),
                    "{context}"
                ),
                Err(OpenError::Empty(_)) => {}
                Err(error) => panic!("{context}: {error}"),
            }
            form_a(&disk, "t").unwrap_or_else(|error| panic!("{context}: {error}"));
            disk.crash(seed);
            let opened = reopen(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            let now = found(&opened);
            assert_eq!(now.checkpoint, founding("t").snapshot());
            assert_eq!(
                now.hard_state,
                HardState { term: Term(1), vote: MemberId::NONE, commit: LogIndex(1) }
            );
        }
    }
}

#[test]
fn forming_again_changes_nothing_and_another_token_is_refused() {
    let disk = formed();
    assert_eq!(form_a(&disk, "t").unwrap(), Prepared::WasThere);
    let error = form_a(&disk, "other").unwrap_err();
    let PrepareError::OtherToken { found, token, .. } = &error else { panic!("{error}") };
    assert_eq!((found.as_str(), token.as_str()), ("t", "other"));
    assert_eq!(reopen(&disk).unwrap().recovery.directory.manifest().token, "t");
}

#[test]
fn a_file_systems_own_directory_is_no_data() {
    let disk = MemDisk::new();
    disk.create_dir(Path::new(DATA)).unwrap();
    disk.create_dir(Path::new("/data/lost+found")).unwrap();
    let error = reopen(&disk).err().unwrap();
    assert_eq!(error.verdict(), Some(Verdict::Empty));
    assert!(error.to_string().contains("holds no data"), "{error}");
    form_a(&disk, "t").unwrap();
    reopen(&disk).unwrap();
}

#[test]
fn data_without_a_manifest_is_never_formed_over() {
    let disk = formed();
    disk.remove_file(Path::new("/data/MANIFEST")).unwrap();
    for error in [reopen(&disk).err().unwrap(), open_error(form_a(&disk, "t").unwrap_err())] {
        assert_eq!(error.verdict(), Some(Verdict::Corrupt), "{error}");
        assert!(error.to_string().contains("MANIFEST is missing"), "{error}");
    }
    // etcd's data directory, say.
    let disk = MemDisk::new();
    disk.create_dir(Path::new(DATA)).unwrap();
    disk.create_dir(Path::new("/data/member")).unwrap();
    let error = open_error(form_a(&disk, "t").unwrap_err());
    assert!(error.to_string().contains("\"member\""), "{error}");
}

#[test]
fn a_mark_of_corruption_is_part_of_a_member_and_no_empty_directory() {
    let disk = formed();
    assert!(corrupt_mark::leave(&disk, Path::new(DATA), "rows-1 is damaged").unwrap());
    drop(reopen(&disk).unwrap());
    let words = corrupt_mark::words(&disk, Path::new(DATA)).unwrap();
    assert_eq!(
        words.as_deref(),
        Some("rows-1 is damaged"),
        "a start by itself does not take it away"
    );
    disk.remove_dir_all(Path::new("/data/wal")).unwrap();
    disk.remove_dir_all(Path::new("/data/gen-1")).unwrap();
    disk.remove_file(Path::new("/data/MANIFEST")).unwrap();
    for error in [reopen(&disk).err().unwrap(), open_error(form_a(&disk, "t").unwrap_err())] {
        assert_eq!(error.verdict(), Some(Verdict::Corrupt), "{error}");
        assert!(error.to_string().contains("\"CORRUPT\" is there"), "{error}");
    }
}

fn open_error(error: PrepareError) -> OpenError {
    match error {
        PrepareError::Open(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_directory_is_used_by_one_process() {
    let disk = formed();
    let first = reopen(&disk).unwrap();
    let error = reopen(&disk).err().unwrap();
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    drop(first);
    reopen(&disk).unwrap();
}

#[test]
fn starts_are_counted_and_the_incarnation_stays() {
    let disk = formed();
    for start in 1..4 {
        let opened = reopen(&disk).unwrap();
        assert_eq!(opened.recovery.directory.manifest().starts, start);
        assert_eq!(opened.recovery.directory.manifest().incarnation, 99);
    }
}

#[test]
fn a_joining_member_starts_from_nothing_and_takes_a_snapshot() {
    let disk = MemDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let empty = machine_state(&SnapshotMeta::default());
    let make = || {
        let (cluster, member) = (ClusterId(5), MemberId(6));
        join(&shared, Path::new(DATA), cluster, member, 7, &settings(), empty.clone()).unwrap()
    };
    assert_eq!((make(), make()), (Prepared::Made, Prepared::WasThere));
    let opened = reopen(&disk).unwrap();
    assert_eq!(opened.recovery.recovered.last_index, LogIndex(0));
    assert_eq!(opened.recovery.recovered.hard_state, HardState::default());
    let mut member = Member::new(opened);
    member.log(&[record(3, 0, Vec::new())]).unwrap();
    member.install(40).unwrap();
    member.append(3, 0, 3, 10).unwrap();
    check_recovery(&disk, member, "joiner");
}

#[test]
fn another_clusters_or_members_directory_is_refused() {
    let disk = formed();
    let (cluster, member) = (founding("t").cluster, founding("t").member_named("a").unwrap());
    let expect = |cluster, member| {
        open(Arc::new(disk.clone()), Path::new(DATA), &Expectations { cluster, member })
    };
    expect(Some(cluster), Some(member)).unwrap();
    for (wrong_cluster, wrong_member) in [(Some(ClusterId(1)), None), (None, Some(MemberId(1)))] {
        let error = expect(wrong_cluster, wrong_member).err().unwrap();
        assert_eq!(error.verdict(), Some(Verdict::ForeignCluster));
        assert!(error.to_string().contains("check the volume"), "{error}");
    }
}

/// A member with a few frames in one segment, and where each begins.
fn small_log(closed: bool) -> (MemDisk, Found, Vec<u64>) {
    let disk = formed();
    let mut member = Member::new(reopen(&disk).unwrap());
    let mut ends = vec![member.wal.reader().bytes()];
    for length in [30, 61, 5] {
        member.append(1, 0, 2, length).unwrap();
        ends.push(member.wal.reader().bytes());
    }
    let Member { directory, wal, acknowledged, .. } = member;
    if closed {
        wal.close().unwrap();
    }
    drop(directory);
    (disk, acknowledged, ends)
}

fn first_segment(disk: &MemDisk) -> (std::path::PathBuf, Vec<u8>) {
    let path = Path::new("/data/wal/0000000000000001.wal").to_path_buf();
    let bytes = disk.read(&path).unwrap();
    (path, bytes)
}

/// INV-S2: what a flipped bit does, byte by byte. The last frame is the only one whose damage looks like a crash.
#[test]
fn a_flipped_bit_anywhere_is_refused_or_cuts_the_last_frame_only() {
    let (disk, acknowledged, ends) = small_log(false);
    let (path, good) = first_segment(&disk);
    let last_frame = ends[ends.len() - 2] as usize;
    let (mut refused, mut cut, mut reported, mut unused) = (0, 0, 0, 0);
    for at in 0..good.len() {
        let damaged = disk.copy();
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        damaged.overwrite(&path, &bytes);
        match reopen(&damaged) {
            Err(error) => {
                assert_eq!(error.verdict(), Some(Verdict::Corrupt), "byte {at}: {error}");
                assert!(error.to_string().contains("remove this member"), "{error}");
                assert!(at < last_frame, "INV-S2: byte {at} is of the last frame");
                refused += 1;
            }
            Ok(opened) if found(&opened) == acknowledged => unused += 1,
            Ok(opened) => {
                assert!(at >= last_frame, "INV-S2: byte {at}: silently lost what was acknowledged");
                let mut expected = acknowledged.clone();
                expected.log.truncate(4);
                expected.hard_state.commit = LogIndex(3);
                assert_eq!(found(&opened), expected, "byte {at}");
                let torn = opened.recovery.torn_tail.is_some();
                drop(opened);
                let again = reopen(&damaged).unwrap();
                assert_eq!(again.recovery.torn_tail, None, "byte {at}: a cut is made once");
                assert_eq!(found(&again), expected, "byte {at}");
                cut += 1;
                reported += u32::from(torn);
            }
        }
    }
    // Not covered by a checksum are the rest of the header's page and the padding between frames.
    let page = 4096 - crate::wal::HEADER_BYTES;
    assert!((page..page + 4 * 8).contains(&unused), "{unused} bytes are unused");
    assert!(refused > 300 && cut > 60, "refused {refused}, cut {cut}");
    // Where the front itself is hit, nothing of a frame is left to report.
    assert!(reported >= cut - 16, "{reported} of {cut} cuts are reported");
}

#[test]
fn after_an_orderly_stop_damage_to_the_last_record_is_noticed() {
    let (disk, acknowledged, ends) = small_log(true);
    let (path, good) = first_segment(&disk);
    let end = *ends.last().unwrap() as usize;
    for at in ends[ends.len() - 2] as usize..good.len() {
        let damaged = disk.copy();
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        damaged.overwrite(&path, &bytes);
        match reopen(&damaged) {
            Err(error) => assert_eq!(error.verdict(), Some(Verdict::Corrupt)),
            Ok(opened) => {
                let padding = at < end && at + 8 > end;
                assert!(at >= end || padding, "byte {at}");
                assert_eq!(found(&opened), acknowledged);
            }
        }
    }
}

/// Bytes that a torn write left, or a recycled file held, must not come to life by being in the right place.
#[test]
fn stale_frames_behind_the_end_do_not_count() {
    let (disk, acknowledged, _) = small_log(false);
    let (path, good) = first_segment(&disk);
    // A whole frame of another epoch, with the very sequence that comes next.
    let other = formed();
    let opened =
        start(Arc::new(other.clone()), Path::new(DATA), &Expectations::default(), 12345).unwrap();
    let mut member = Member::new(opened);
    for _ in 0..4 {
        member.append(1, 0, 2, 30).unwrap();
    }
    let (_, foreign) = first_segment(&other);
    let start = foreign.windows(4).rposition(|window| window == b"QWF1").unwrap();
    let mut stale = foreign[start..].to_vec();
    stale[8..16].copy_from_slice(&[7; 8]);
    let mut bytes = good;
    bytes.extend_from_slice(&stale);
    disk.overwrite(&path, &bytes);
    let opened = reopen(&disk).unwrap();
    assert_eq!(opened.recovery.torn_tail, None);
    assert_eq!(found(&opened), acknowledged);
}

/// A member with several segments and a checkpoint in the first.
fn long_log() -> (MemDisk, Vec<String>) {
    let disk = formed();
    let mut member = Member::new(reopen(&disk).unwrap());
    for _ in 0..40 {
        member.append(1, 0, 1, 1_500).unwrap();
    }
    drop(member);
    let mut names = disk.list(Path::new("/data/wal")).unwrap();
    names.retain(|name| name.ends_with(".wal"));
    assert!(names.len() >= 4);
    (disk, names)
}

#[test]
fn a_missing_segment_is_refused_by_name() {
    let (disk, names) = long_log();
    for name in &names[..names.len() - 1] {
        let damaged = disk.copy();
        damaged.remove_file(&Path::new("/data/wal").join(name)).unwrap();
        let error = reopen(&damaged).err().expect(name);
        assert_eq!(error.verdict(), Some(Verdict::Corrupt), "{error}");
        let said = error.to_string();
        assert!(said.contains("missing"), "{said}");
    }
    let damaged = disk.copy();
    damaged.remove_dir_all(Path::new("/data/wal")).unwrap();
    assert_eq!(reopen(&damaged).err().unwrap().verdict(), Some(Verdict::Corrupt));
    let damaged = disk.copy();
    damaged.remove_dir_all(Path::new("/data/gen-1")).unwrap();
    assert_eq!(reopen(&damaged).err().unwrap().verdict(), Some(Verdict::Corrupt));
}

#[test]
fn frames_lost_at_the_end_of_a_segment_that_is_not_the_last_are_noticed() {
    let (disk, names) = long_log();
    let path = Path::new("/data/wal").join(&names[1]);
    let mut bytes = disk.read(&path).unwrap();
    let last = bytes.windows(4).rposition(|window| window == b"QWF1").unwrap();
    bytes[last..].fill(0);
    disk.overwrite(&path, &bytes);
    let error = reopen(&disk).err().unwrap();
    assert!(error.to_string().contains("frames in between are lost"), "{error}");
}

#[test]
fn a_log_that_ends_before_the_checkpoint_is_refused() {
    let (disk, _, ends) = small_log(false);
    let (path, bytes) = first_segment(&disk);
    let mut member = Member::new(reopen(&disk).unwrap());
    member.checkpoint().unwrap();
    drop(member);
    disk.overwrite(&path, &bytes[..ends[2] as usize]);
    let error = reopen(&disk).err().unwrap();
    assert_eq!(error.verdict(), Some(Verdict::Corrupt));
    assert!(error.to_string().contains("before the checkpoint"), "{error}");
}

#[test]
fn later_formats_are_refused_without_calling_them_damage() {
    let disk = formed();
    for path in ["/data/MANIFEST", "/data/wal/0000000000000001.wal"] {
        let newer = disk.copy();
        let mut bytes = newer.read(Path::new(path)).unwrap();
        bytes[8] = 9;
        let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..20 + length]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        newer.overwrite(Path::new(path), &bytes);
        let error = reopen(&newer).err().unwrap();
        assert_eq!(error.verdict(), Some(Verdict::FormatTooNew), "{error}");
        assert!(error.to_string().contains("format 9"), "{error}");
    }
}

#[test]
fn a_damaged_manifest_is_refused() {
    let disk = formed();
    let good = disk.read(Path::new("/data/MANIFEST")).unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        let damaged = disk.copy();
        damaged.overwrite(Path::new("/data/MANIFEST"), &bytes);
        assert_eq!(
            reopen(&damaged).err().expect("damage").verdict(),
            Some(Verdict::Corrupt),
            "byte {at}"
        );
    }
}

/// The operating system's files do what the double does.
#[test]
fn on_real_files_a_member_forms_works_and_starts_again() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("not/there/yet/data");
    let disk: Arc<dyn Disk> = Arc::new(crate::disk::FileSystem);
    let founding = founding("t");
    let id = founding.member_named("b").unwrap();
    let state = machine_state(&founding.snapshot());
    form(&disk, &data, &founding, id, 3, &settings(), state).unwrap();
    let again = || start(disk.clone(), &data, &Expectations::default(), 5);
    let mut member = Member::new(again().unwrap());
    assert!(matches!(again(), Err(OpenError::Locked(_))), "flock holds");
    for step in script() {
        step(&mut member).unwrap();
    }
    let Member { directory, wal, acknowledged, .. } = member;
    wal.close().unwrap();
    drop(directory);
    assert_eq!(found(&again().unwrap()), acknowledged);
}

/// A backup of the generation put back beside a newer manifest, say.
#[test]
fn a_checkpoint_that_an_older_one_replaced_is_noticed() {
    let disk = formed();
    let old = disk.read(Path::new("/data/gen-1/checkpoint")).unwrap();
    let mut member = Member::new(reopen(&disk).unwrap());
    member.append(1, 0, 5, 100).unwrap();
    member.checkpoint().unwrap();
    drop(member);
    disk.overwrite(Path::new("/data/gen-1/checkpoint"), &old);
    let error = reopen(&disk).err().unwrap();
    assert_eq!(error.verdict(), Some(Verdict::Corrupt));
    assert!(error.to_string().contains("replaced by an older one"), "{error}");
}
