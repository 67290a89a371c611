//! Writing a checkpoint, in steps.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quorate_consensus::LogIndex;

use crate::checkpoint::format::{Header, Kind, SegmentEntry, put_frame, put_leaf};
use crate::checkpoint::{CHECKPOINT_NAME, CHECKPOINT_NEW_NAME, CheckpointAt};
use crate::disk::{DiskFile, background_sync_due};
use crate::index::Snapshot;
use crate::limits::{CHECKPOINT_FRAME_LEAVES, CHECKPOINT_STEP_BYTES};
use crate::rows::segment::{Segment, SegmentFile, Table};
use crate::rows::{Shared, StoreError};

/// The state that a checkpoint is of.
pub(crate) struct Capture {
    at: CheckpointAt,
    machine: Bytes,
    snapshot: Snapshot,
    segments: Vec<Segment>,
    scheduled: i64,
    finished: i64,
    last_id: u32,
    /// Files that this checkpoint does not name and an earlier one may.
    retired: Vec<Arc<SegmentFile>>,
}

impl Capture {
    /// Captures a table and an index of one moment.
    pub(crate) fn new(
        at: CheckpointAt,
        machine: Bytes,
        snapshot: Snapshot,
        table: &Table,
    ) -> Capture {
        assert!(!table.switching, "INV-S1: a checkpoint would name one half of a switched segment");
        Capture {
            at,
            machine,
            snapshot,
            segments: table.ordered().cloned().collect(),
            scheduled: table.scheduled,
            finished: table.finished,
            last_id: table.last_id,
            retired: table.retired.clone(),
        }
    }
}

/// A published checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// What it is of: the WAL up to its index may go.
    pub at: CheckpointAt,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What a step of a checkpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A part of the work; another step is due.
    Worked,
    /// Nothing: the own log does not hold the checkpoint's index durably yet (INV-R5).
    WaitsForLog,
    /// The rest: the checkpoint is in force.
    Published(Published),
}

enum Phase {
    /// Rows become durable, one segment a step.
    SyncRows(usize),
    /// So do the segments' names.
    SyncNames,
    /// The file is written.
    Write(Writing),
    /// It becomes durable.
    SyncFile(Writing),
    /// It takes its place.
    Publish(u64),
    /// Done.
    Over(Published),
}

struct Writing {
    file: Arc<dyn DiskFile>,
    offset: u64,
    chain: u32,
    machine_from: usize,
    ended: bool,
}

/// A checkpoint under way. Dropping it abandons it; what was in force stays so.
pub struct CheckpointJob {
    shared: Arc<Shared>,
    capture: Capture,
    phase: Phase,
}

impl CheckpointJob {
    pub(crate) fn new(shared: Arc<Shared>, capture: Capture) -> CheckpointJob {
        CheckpointJob { shared, capture, phase: Phase::SyncRows(0) }
    }

    /// What it is of.
    #[must_use]
    pub fn at(&self) -> CheckpointAt {
        self.capture.at
    }

    /// Does the next part: a sync, or about [`CHECKPOINT_STEP_BYTES`] of writing. `durable` is the last index that the own log holds
    /// durably.
    ///
    /// # Errors
    /// The disk fails: fatal.
    pub fn step(&mut self, durable: LogIndex) -> Result<Step, StoreError> {
        let shared = self.shared.clone();
        shared.writing(|| self.advance(durable))
    }

    fn advance(&mut self, durable: LogIndex) -> Result<Step, StoreError> {
        match &mut self.phase {
            Phase::SyncRows(next) => match self.capture.segments.get(*next) {
                Some(segment) => {
                    *next += 1;
                    sync_segment(&self.shared, segment)?;
                }
                None => self.phase = Phase::SyncNames,
            },
            Phase::SyncNames => {
                self.sync_directory()?;
                self.phase = Phase::Write(self.begin_file()?);
            }
            Phase::Write(writing) => {
                write_some(&self.shared, &mut self.capture, writing)?;
                if writing.ended {
                    let Writing { ref file, offset, chain, machine_from, ended } = *writing;
                    let file = file.clone();
                    self.phase =
                        Phase::SyncFile(Writing { file, offset, chain, machine_from, ended });
                }
            }
            Phase::SyncFile(writing) => {
                let path = self.shared.directory.join(CHECKPOINT_NEW_NAME);
                writing.file.sync().map_err(StoreError::disk("sync", &path))?;
                self.phase = Phase::Publish(writing.offset);
            }
            Phase::Publish(bytes) => {
                if durable < self.capture.at.index {
                    return Ok(Step::WaitsForLog);
                }
                let published = Published { at: self.capture.at, bytes: *bytes };
                assert!(
                    durable >= published.at.index,
                    "INV-R5: checkpoint {published:?} above log {durable}"
                );
                self.publish(published)?;
                self.phase = Phase::Over(published);
                return Ok(Step::Published(published));
            }
            Phase::Over(published) => return Ok(Step::Published(*published)),
        }
        Ok(Step::Worked)
    }

    fn sync_directory(&self) -> Result<(), StoreError> {
        let directory = &self.shared.directory;
        self.shared.disk.sync_dir(directory).map_err(StoreError::disk("sync", directory))
    }

    fn begin_file(&self) -> Result<Writing, StoreError> {
        let path = self.shared.directory.join(CHECKPOINT_NEW_NAME);
        let file = self.shared.disk.create(&path).map_err(StoreError::disk("create", &path))?;
        let Capture { at, scheduled, finished, last_id, segments, .. } = &self.capture;
        let segments = segments.iter().map(SegmentEntry::of).collect();
        let header = Header {
            at: *at,
            scheduled: *scheduled,
            finished: *finished,
            last_id: *last_id,
            segments,
        };
        let bytes = header.encode();
        file.write_at(0, &bytes).map_err(StoreError::disk("write", &path))?;
        let chain = crc32c::crc32c(&bytes);
        Ok(Writing { file, offset: bytes.len() as u64, chain, machine_from: 0, ended: false })
    }

    fn publish(&self, published: Published) -> Result<(), StoreError> {
        let Shared { disk, directory, .. } = &*self.shared;
        let (new, place) = (directory.join(CHECKPOINT_NEW_NAME), directory.join(CHECKPOINT_NAME));
        disk.rename(&new, &place).map_err(StoreError::disk("rename", &new))?;
        self.sync_directory()?;
        for retired in &self.capture.retired {
            disk.remove_file(&retired.path).map_err(StoreError::disk("remove", &retired.path))?;
        }
        let mut table = self.shared.table.write();
        table.retired.retain(|file| self.capture.retired.iter().all(|gone| gone.id != file.id));
        table.checkpoint_bytes = published.bytes;
        drop(table);
        self.shared.checkpointing.store(false, Ordering::Release);
        Ok(())
    }
}

impl Drop for CheckpointJob {
    fn drop(&mut self) {
        match self.phase {
            Phase::Over(_) => {}
            Phase::SyncRows(_)
            | Phase::SyncNames
            | Phase::Write(_)
            | Phase::SyncFile(_)
            | Phase::Publish(_) => self.shared.checkpointing.store(false, Ordering::Release),
        }
    }
}

fn sync_segment(shared: &Shared, segment: &Segment) -> Result<(), StoreError> {
    if segment.synced >= segment.bytes {
        return Ok(());
    }
    segment.file.file.sync().map_err(StoreError::disk("sync", &segment.file.path))?;
    let mut table = shared.table.write();
    if let Some(known) = table.by_id.get_mut(&segment.file.id) {
        known.synced = known.synced.max(segment.bytes);
    }
    Ok(())
}

/// Writes some frames: the machine's state first, then leaves, then the end.
fn write_some(
    shared: &Shared,
    capture: &mut Capture,
    writing: &mut Writing,
) -> Result<(), StoreError> {
    let mut out = Vec::with_capacity(CHECKPOINT_STEP_BYTES + CHECKPOINT_STEP_BYTES / 8);
    while out.len() < CHECKPOINT_STEP_BYTES && !writing.ended {
        let chain = &mut writing.chain;
        if writing.machine_from < capture.machine.len() {
            let end = capture.machine.len().min(writing.machine_from + CHECKPOINT_STEP_BYTES);
            let part = &capture.machine[writing.machine_from..end];
            put_frame(&mut out, chain, Kind::Machine, |body| body.extend_from_slice(part));
            writing.machine_from = end;
            continue;
        }
        let mut leaves = capture.snapshot.by_ref().take(CHECKPOINT_FRAME_LEAVES).peekable();
        if leaves.peek().is_some() {
            put_frame(&mut out, chain, Kind::Leaves, |body| {
                leaves.for_each(|leaf| put_leaf(body, &leaf.image()));
            });
        } else {
            put_frame(&mut out, chain, Kind::End, |_| ());
            writing.ended = true;
        }
    }
    let path = shared.directory.join(CHECKPOINT_NEW_NAME);
    writing.file.write_at(writing.offset, &out).map_err(StoreError::disk("write", &path))?;
    let before = writing.offset;
    writing.offset += out.len() as u64;
    if background_sync_due(before, writing.offset) {
        writing.file.sync().map_err(StoreError::disk("sync", &path))?;
    }
    Ok(())
}
