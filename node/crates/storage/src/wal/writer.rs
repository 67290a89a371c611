//! The writing end of the WAL: batches, rotation, purge.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_consensus::{HardState, LogIndex, Record, SnapshotMeta, Term, Token};

use super::frame::{Batch, FRAME_HEADER_BYTES, seal};
use super::header::{HEADER_SPAN_BYTES, SegmentHeader};
use super::hold::Holds;
use super::map::{LogMap, NewFrame, Segment};
use super::reader::WalReader;
use super::scan::Scanned;
use super::segment::{SpareFiller, Spares, segment_path};
use super::{Owner, WalError, WalSettings};
use crate::disk::{Disk, DiskFile};
use crate::limits::{FRAME_BUFFER_BYTES_KEPT, FRAME_BYTES_MAX};

/// The log of one member. Owned by one thread, which alternates [`Wal::write`] and [`Wal::sync`].
pub struct Wal {
    disk: Arc<dyn Disk>,
    owner: Owner,
    settings: WalSettings,
    spares: Spares,
    reader: WalReader,
    segment: Open,
    /// What the next frame continues.
    tip: Tip,
    buffer: Vec<u8>,
    written: Option<Written>,
    failed: bool,
}

/// The segment that is written to.
struct Open {
    number: u64,
    epoch: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Where the next frame goes.
    offset: u64,
}

/// The end of the log, including a frame that is written and not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tip {
    /// The sequence of the next frame.
    pub(crate) sequence: u64,
    pub(crate) hard_state: HardState,
    pub(crate) last_index: LogIndex,
    pub(crate) last_term: Term,
    /// Where the log last began after a snapshot.
    pub(crate) base_index: LogIndex,
}

/// A frame between its write and its sync.
struct Written {
    frame: NewFrame,
    token: Option<Token>,
}

/// What a sync made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The token of the last record; everything up to it is durable. `None` for the frame that [`Wal::close`] writes.
    pub token: Option<Token>,
    /// The size of the frame in bytes.
    pub bytes: u64,
}

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Segments taken out of the log.
    pub segments: usize,
    /// The first index that is still there.
    pub first_index: LogIndex,
    /// Whether holds had to yield since they kept more than [`WalSettings::held_bytes_max`].
    pub holds_broken: bool,
}

impl Wal {
    /// Begins a log that continues after `base` with this hard state: at formation, or when a member joins (with an
    /// empty `base`). Whatever is in the directory is removed first: the caller knows that there is no log yet.
    ///
    /// # Errors
    /// When the disk fails. Beginning again is safe as long as no manifest names the directory.
    pub fn create(
        disk: Arc<dyn Disk>,
        directory: &Path,
        owner: Owner,
        settings: WalSettings,
        hard_state: HardState,
        base: &SnapshotMeta,
    ) -> Result<Self, WalError> {
        disk.remove_dir_all(directory).map_err(WalError::disk("remove", directory))?;
        disk.create_dir(directory).map_err(WalError::disk("create", directory))?;
        let spares = Spares::recover(&*disk, directory, &[])?;
        let reader = WalReader {
            directory: Arc::new(directory.to_path_buf()),
            map: Arc::new(Mutex::new(LogMap::new(base.index))),
            holds: Holds::default(),
        };
        let tip = Tip {
            sequence: 1,
            hard_state,
            last_index: base.index,
            last_term: base.term,
            base_index: base.index,
        };
        let segment = begin_segment(&*disk, &reader, &spares, owner, &settings, &tip, 1)?;
        Ok(Self::assemble(disk, owner, settings, spares, reader, segment, tip))
    }

    /// Goes on where a scan found the end, after making the end durable.
    pub(crate) fn resume(
        disk: Arc<dyn Disk>,
        directory: &Path,
        owner: Owner,
        settings: WalSettings,
        spares: Spares,
        scanned: Scanned,
    ) -> Result<Self, WalError> {
        let Scanned { map, tip, cut, last_frame, .. } = scanned;
        let newest = map.segments().next_back().expect("a scan found at least one segment").clone();
        let path = segment_path(directory, newest.number);
        // What was read may be in memory only, and not on its way to the disk any more (a failed sync before the
        // restart). Writing the same bytes again changes nothing and makes them durable.
        let (offset, end) = last_frame.unwrap_or((0, HEADER_SPAN_BYTES));
        let length = newest.file.len().map_err(WalError::disk("read", &path))?;
        let mut last =
            vec![0; usize::try_from(end.min(length) - offset).expect("a frame fits into memory")];
        newest.file.read_at(offset, &mut last).map_err(WalError::disk("read", &path))?;
        newest.file.write_at(offset, &last).map_err(WalError::disk("write", &path))?;
        if let Some(cut) = cut {
            let zeros = [0; FRAME_HEADER_BYTES];
            newest.file.write_at(cut.offset, &zeros).map_err(WalError::disk("cut", &path))?;
        }
        newest.file.sync().map_err(WalError::disk("sync", &path))?;
        disk.sync_dir(directory).map_err(WalError::disk("sync", directory))?;
        let segment = Open {
            number: newest.number,
            epoch: newest.epoch,
            path,
            file: newest.file,
            offset: newest.end,
        };
        let reader = WalReader {
            directory: Arc::new(directory.to_path_buf()),
            map: Arc::new(Mutex::new(map)),
            holds: Holds::default(),
        };
        Ok(Self::assemble(disk, owner, settings, spares, reader, segment, tip))
    }

    fn assemble(
        disk: Arc<dyn Disk>,
        owner: Owner,
        settings: WalSettings,
        spares: Spares,
        reader: WalReader,
        segment: Open,
        tip: Tip,
    ) -> Self {
        let (buffer, written, failed) = (Vec::new(), None, false);
        Self { disk, owner, settings, spares, reader, segment, tip, buffer, written, failed }
    }

    /// Writes records as one frame. Not durable before [`Wal::sync`] returned.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] before anything was written; any other is final.
    ///
    /// # Panics
    /// When the last write was not synced, or the records contradict the log: a defect of the caller.
    pub fn write(&mut self, records: &[Record]) -> Result<(), WalError> {
        let token = records.last().map(|record| record.token);
        let previous = self.tip;
        let batch = Batch::merge(previous.hard_state, records);
        self.write_batch(&batch, token)
    }

    fn write_batch(&mut self, batch: &Batch<'_>, token: Option<Token>) -> Result<(), WalError> {
        if self.failed {
            return Err(WalError::Failed);
        }
        assert!(self.written.is_none(), "INV-R2: a write waits for the sync of the one before");
        let bytes = batch.bytes_max();
        if bytes > FRAME_BYTES_MAX {
            return Err(WalError::TooLarge { bytes, max: FRAME_BYTES_MAX });
        }
        let next = self.tip.after(batch);
        batch.encode(&mut self.buffer);
        // From here on, whatever goes wrong leaves the disk in an unknown state (INV-S3).
        self.failed = true;
        let empty = self.segment.offset == HEADER_SPAN_BYTES;
        if !empty && self.segment.offset + self.buffer.len() as u64 > self.settings.segment_bytes {
            self.rotate()?;
        }
        seal(&mut self.buffer, self.segment.epoch, self.tip.sequence);
        let offset = self.segment.offset;
        let write = self.segment.file.write_at(offset, &self.buffer);
        write.map_err(WalError::disk("write", &self.segment.path))?;
        self.segment.offset += self.buffer.len() as u64;
        let entries = batch.entries.first().zip(batch.entries.last());
        let frame = NewFrame {
            sequence: self.tip.sequence,
            offset,
            end: self.segment.offset,
            restart: batch.snapshot.map(|meta| meta.index),
            entries: entries.map(|(first, last)| (first.index, last.index)),
        };
        self.written = Some(Written { frame, token });
        self.tip = next;
        self.failed = false;
        Ok(())
    }

    /// Makes what was written durable, and readable by [`WalReader`]s.
    ///
    /// # Errors
    /// Any is final: a second sync could report success for what was never written.
    ///
    /// # Panics
    /// When nothing was written.
    pub fn sync(&mut self) -> Result<Durable, WalError> {
        if self.failed {
            return Err(WalError::Failed);
        }
        let written = self.written.take().expect("a sync follows a write");
        self.failed = true;
        self.segment.file.sync().map_err(WalError::disk("sync", &self.segment.path))?;
        self.reader.map.lock().note_frame(&written.frame);
        if self.buffer.capacity() > FRAME_BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        self.failed = false;
        let bytes = written.frame.end - written.frame.offset;
        Ok(Durable { token: written.token, bytes })
    }

    /// Ends the log in order: an empty frame behind the last record lets recovery tell damage to that record from a
    /// write that was cut short.
    ///
    /// # Errors
    /// As for [`Wal::write`] and [`Wal::sync`].
    pub fn close(mut self) -> Result<(), WalError> {
        if self.written.is_some() {
            self.sync()?;
        }
        self.write(&[])?;
        self.sync().map(drop)
    }

    /// Takes segments out of the log that hold nothing above `checkpoint` (the index of the last durable checkpoint),
    /// oldest first, as long as more than [`WalSettings::keep_bytes`] are kept and nobody holds them. Their files
    /// become spares (INV-R1: nothing is purged that a restart needs).
    ///
    /// # Errors
    /// Any is final.
    pub fn purge_below(&mut self, checkpoint: LogIndex) -> Result<Purged, WalError> {
        if self.failed {
            return Err(WalError::Failed);
        }
        let dropped = self.drop_segments(checkpoint);
        let (segments, holds_broken) = dropped;
        self.failed = true;
        let directory = self.reader.directory.clone();
        let mut recycled = Vec::new();
        for segment in &segments {
            let path = segment_path(&directory, segment.number);
            let length = segment.file.len().map_err(WalError::disk("read", &path))?;
            // A segment of an oversized frame, or one that grew and is short, would make a poor spare.
            let recyclable =
                length <= self.settings.segment_bytes && length * 2 >= self.settings.segment_bytes;
            let before = recycled.len();
            recycled.extend(self.spares.recycle(
                &*self.disk,
                &directory,
                &path,
                recyclable,
                before,
            )?);
        }
        if !segments.is_empty() {
            self.disk.sync_dir(&directory).map_err(WalError::disk("sync", &directory))?;
        }
        self.spares.add(recycled);
        self.failed = false;
        let first_index = self.reader.bounds().0;
        Ok(Purged { segments: segments.len(), first_index, holds_broken })
    }

    fn drop_segments(&self, checkpoint: LogIndex) -> (Vec<Segment>, bool) {
        let mut map = self.reader.map.lock();
        // Looked up under the map's lock: a reader takes its hold first and looks at the map second.
        let held = self.reader.holds.lowest();
        let mut bytes: u64 = map.segments().map(|segment| segment.end).sum();
        let (mut dropped, mut holds_broken) = (Vec::new(), false);
        while bytes > self.settings.keep_bytes {
            let unheld = checkpoint.next();
            let needed = match held {
                Some(index) if index < unheld && bytes <= self.settings.held_bytes_max => index,
                _ => unheld,
            };
            let Some(segment) = map.drop_oldest(needed) else { break };
            holds_broken |= held.is_some_and(|index| map.base() >= index);
            bytes -= segment.end;
            dropped.push(segment);
        }
        (dropped, holds_broken)
    }

    /// A reader of what is durable.
    #[must_use]
    pub fn reader(&self) -> WalReader {
        self.reader.clone()
    }

    /// What fills spare segments ahead of their use.
    #[must_use]
    pub fn filler(&self) -> SpareFiller {
        let directory = self.reader.directory.clone();
        SpareFiller::new(
            self.disk.clone(),
            directory,
            self.spares.clone(),
            self.settings.segment_bytes,
        )
    }

    /// The last index written, durable or about to be.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.tip.last_index
    }

    /// The hard state of the last record.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.tip.hard_state
    }

    fn rotate(&mut self) -> Result<(), WalError> {
        let number = self.segment.number + 1;
        let (reader, spares) = (&self.reader, &self.spares);
        self.segment = begin_segment(
            &*self.disk,
            reader,
            spares,
            self.owner,
            &self.settings,
            &self.tip,
            number,
        )?;
        Ok(())
    }
}

impl Tip {
    /// The tip behind a batch; panics when the batch contradicts the log before it.
    fn after(&self, batch: &Batch<'_>) -> Self {
        let (old, new) = (&self.hard_state, &batch.hard_state);
        assert!(
            new.term >= old.term,
            "INV-R3: a term never falls: {} after {}",
            new.term,
            old.term
        );
        assert!(
            new.commit >= old.commit,
            "INV-R1: commit never falls: {} after {}",
            new.commit,
            old.commit
        );
        let mut tip = Self { sequence: self.sequence + 1, hard_state: *new, ..*self };
        if let Some(meta) = batch.snapshot {
            (tip.last_index, tip.last_term) = (meta.index, meta.term);
            tip.base_index = meta.index;
        }
        if let Some(lowest) = batch.lowest {
            assert!(
                lowest <= tip.last_index.next(),
                "INV-R1: the log has no holes: {lowest} after {}",
                tip.last_index
            );
            let replaceable = old.commit.max(tip.base_index);
            assert!(
                lowest > replaceable,
                "INV-R1: a committed entry is never replaced: {lowest} is, up to {replaceable} may not"
            );
        }
        if let Some(last) = batch.entries.last() {
            (tip.last_index, tip.last_term) = (last.index, last.term);
        }
        assert!(
            new.commit <= tip.last_index,
            "INV-R1: committed {} is in the log up to {}",
            new.commit,
            tip.last_index
        );
        tip
    }
}

/// Turns a spare into segment `number`: header, sync, rename, directory sync. A crash in between leaves a spare.
fn begin_segment(
    disk: &dyn Disk,
    reader: &WalReader,
    spares: &Spares,
    owner: Owner,
    settings: &WalSettings,
    tip: &Tip,
    number: u64,
) -> Result<Open, WalError> {
    let directory = &reader.directory;
    let epoch = epoch(settings.epoch_seed, number);
    let header = SegmentHeader {
        cluster: owner.cluster,
        member: owner.member,
        incarnation: owner.incarnation,
        number,
        epoch,
        first_sequence: tip.sequence,
        hard_state: tip.hard_state,
        first_index: tip.last_index.next(),
        previous_term: tip.last_term,
        base_index: tip.base_index,
    };
    let mut span = header.encode();
    span.resize(usize::try_from(HEADER_SPAN_BYTES).expect("a page"), 0);
    let (spare, file) = spares.take(disk, directory)?;
    file.write_at(0, &span).map_err(WalError::disk("write", &spare))?;
    file.sync().map_err(WalError::disk("sync", &spare))?;
    let path = segment_path(directory, number);
    disk.rename(&spare, &path).map_err(WalError::disk("rename", &spare))?;
    disk.sync_dir(directory).map_err(WalError::disk("sync", directory))?;
    let (first_index, end) = (header.first_index, HEADER_SPAN_BYTES);
    let segment = Segment { number, epoch, first_index, end, file: file.clone() };
    reader.map.lock().begin_segment(segment);
    Ok(Open { number, epoch, path, file, offset: HEADER_SPAN_BYTES })
}

/// An epoch from the process's random seed and the segment's number (the finalizer of SplitMix64: a bijection, so two
/// segments of one process never share an epoch).
fn epoch(seed: u64, number: u64) -> u64 {
    let mut mixed = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
