//! The store that the apply thread writes.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quorate_machine::{
    EncodedKeyValue, KeyRange, ReadFault, Revision, Row, RowView, Store, Version, View,
};

use crate::checkpoint::{Capture, CheckpointAt, CheckpointJob, Step, load};
use crate::disk::Disk;
use crate::index::{self, Index, RowAt};
use crate::limits::{ROWS_BUFFER_BYTES_KEPT, ROWS_PENDING_BYTES_MAX};
use crate::rows::compaction::Compaction;
use crate::rows::frame::{ROW_HEADER_BYTES, is_tombstone, key_of, put_row};
use crate::rows::reader::RowReader;
use crate::rows::scrub::Scrub;
use crate::rows::segment::{Segment, SegmentFile, Table, create_segment};
use crate::rows::shared::as_machine;
use crate::rows::{RowSettings, Shared, StoreError};

/// The store of one generation, written by one thread.
pub struct RowStore {
    shared: Arc<Shared>,
    /// The last segment of the order.
    active: Arc<SegmentFile>,
    /// Frames that no write has taken yet.
    pending: Vec<u8>,
    /// Where in the active segment they will stand.
    pending_from: u32,
    /// Revision and place in `pending` of each.
    pending_rows: Vec<(Revision, usize)>,
    /// The last row's revision.
    last: Revision,
    /// Rows appended since the last checkpoint was begun.
    appended_bytes: u64,
    /// A flush in the middle of a batch failed; the batch's own flush says so.
    fault: Option<StoreError>,
    compaction_given: bool,
}

/// An opened store and what its checkpoint says.
pub struct Opened {
    /// The store as it was at the checkpoint.
    pub store: RowStore,
    /// When that was: the WAL is to be applied from the index behind.
    pub at: CheckpointAt,
    /// The machine's small state then.
    pub machine: Bytes,
}

impl RowStore {
    /// Makes the store of an empty generation directory, with its first checkpoint published. To use it,
    /// [`RowStore::open`] it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn create(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        at: CheckpointAt,
        machine: Bytes,
    ) -> Result<(), StoreError> {
        let mut table = Table::default();
        let id = table.take_id();
        let file = create_segment(&*disk, &directory, id)?;
        table.by_id.insert(id, Segment::new(file));
        table.order.push(id);
        let settings = RowSettings::default();
        let mut store = RowStore::with(Shared::new(disk, directory, settings, Index::new(), table));
        let mut job =
            store.begin_checkpoint(at, machine)?.expect("nothing else is under way in a new store");
        while job.step(at.index)? == Step::Worked {}
        Ok(())
    }

    /// Opens the store at its last checkpoint. Rows behind it are cut off: replaying the WAL writes them again.
    ///
    /// # Errors
    /// The disk fails, or the checkpoint or a segment that it names is missing, damaged or of a later format.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        settings: RowSettings,
    ) -> Result<Opened, StoreError> {
        let loaded = load(&disk, &directory)?;
        let shared = Shared::new(disk, directory, settings, loaded.index, loaded.table);
        Ok(Opened { store: RowStore::with(shared), at: loaded.at, machine: loaded.machine })
    }

    fn with(shared: Shared) -> RowStore {
        let (active, pending_from, last) = {
            let table = shared.table.read();
            let segment = table.ordered().last().expect("a store has an active segment");
            let rows = table.ordered().filter(|segment| segment.has_rows());
            let last = rows.last().map_or(Revision::default(), |segment| segment.last);
            (segment.file.clone(), segment.bytes, last)
        };
        RowStore {
            shared: Arc::new(shared),
            active,
            pending: Vec::new(),
            pending_from,
            pending_rows: Vec::new(),
            last,
            appended_bytes: 0,
            fault: None,
            compaction_given: false,
        }
    }

    /// Writes what was appended, without syncing it. To be called at the end of each apply batch, before anybody is told of it:
    /// readers find rows on disk only after that.
    ///
    /// # Errors
    /// The disk fails: fatal.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let shared = self.shared.clone();
        shared.writing(|| self.write_pending())
    }

    fn write_pending(&mut self) -> Result<(), StoreError> {
        let SegmentFile { id, path, file } = &*self.active;
        let wrote = file.write_at(u64::from(self.pending_from), &self.pending);
        wrote.map_err(StoreError::disk("write", path))?;
        let full = {
            let mut table = self.shared.table.write();
            let segment = table.by_id.get_mut(id).expect("the active segment stays in the table");
            for (revision, place) in self.pending_rows.drain(..) {
                segment.note(revision, self.pending_from + place as u32);
            }
            segment.bytes += self.pending.len() as u32;
            segment.bytes >= self.shared.settings.segment_bytes
        };
        self.pending_from += self.pending.len() as u32;
        self.pending.clear();
        self.pending.shrink_to(ROWS_BUFFER_BYTES_KEPT);
        if full { self.roll() } else { Ok(()) }
    }

    /// Begins a new segment. The full one is never written again.
    fn roll(&mut self) -> Result<(), StoreError> {
        let id = self.shared.table.write().take_id();
        let file = create_segment(&*self.shared.disk, &self.shared.directory, id)?;
        let segment = Segment::new(file);
        self.active = segment.file.clone();
        self.pending_from = segment.bytes;
        let mut table = self.shared.table.write();
        table.by_id.insert(id, segment);
        table.order.push(id);
        Ok(())
    }

    /// Whether enough was written since the last checkpoint for another one; `logged_bytes` is how much log was applied since then, for
    /// entries may leave no rows. In proportion to what a checkpoint costs, so that what is written for a put does not grow
    /// with the number of keys (ADR 2).
    #[must_use]
    pub fn checkpoint_due(&self, logged_bytes: u64) -> bool {
        let last = self.shared.table.read().checkpoint_bytes;
        !self.shared.checkpointing.load(Ordering::Acquire)
            && self.appended_bytes.max(logged_bytes)
                >= self.shared.settings.checkpoint_due_bytes.max(last / 2)
    }

    /// Captures the state after a batch, for a checkpoint that some other thread writes in steps. `at.index` is the last applied
    /// index and `machine` the machine's small state at it. `None` while an earlier one is under way, or for the moments in
    /// which addresses are being switched to a rewritten segment: ask again after the next batch.
    ///
    /// # Errors
    /// The disk fails: fatal.
    pub fn begin_checkpoint(
        &mut self,
        at: CheckpointAt,
        machine: Bytes,
    ) -> Result<Option<CheckpointJob>, StoreError> {
        self.flush()?;
        if self.shared.checkpointing.load(Ordering::Acquire) {
            return Ok(None);
        }
        // Both locks, in order: what the index knows and what the segments hold must be of one moment.
        let index = self.shared.index.read();
        let table = self.shared.table.read();
        if table.switching {
            return Ok(None);
        }
        let capture = Capture::new(at, machine, index.snapshot(), &table);
        drop(table);
        drop(index);
        self.shared.checkpointing.store(true, Ordering::Release);
        self.appended_bytes = 0;
        Ok(Some(CheckpointJob::new(self.shared.clone(), capture)))
    }

    /// The compaction of this store, for a background thread.
    ///
    /// # Panics
    /// When asked twice: two compactions would rewrite the same segments.
    pub fn compaction(&mut self) -> Compaction {
        assert!(!self.compaction_given, "INV-S1: a store has one compaction");
        self.compaction_given = true;
        Compaction::new(self.shared.clone())
    }

    /// A look at everything that an opened store holds, before anything is appended or compacted.
    #[must_use]
    pub fn scrub(&self) -> Scrub {
        Scrub::new(self.shared.clone())
    }
}

impl View for RowStore {
    fn lookup(&self, key: &[u8], at: Revision) -> Result<Option<Version>, ReadFault> {
        Ok(self.shared.lookup(key, at).as_ref().map(as_machine))
    }

    fn scan(
        &self,
        range: &KeyRange,
        at: Revision,
        visit: &mut dyn FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) -> Result<(), ReadFault> {
        self.shared.scan(range, at, visit);
        Ok(())
    }

    fn count(&self, range: &KeyRange, at: Revision) -> Result<u64, ReadFault> {
        Ok(self.shared.count(range, at))
    }

    fn read(&self, key: &[u8], version: &Version) -> Result<EncodedKeyValue, ReadFault> {
        let row = version.row;
        if row.segment == self.active.id && row.offset >= self.pending_from {
            let place = (row.offset - self.pending_from) as usize;
            let found = self.pending_rows.partition_point(|(_, at)| *at <= place);
            let end = self.pending_rows.get(found).map_or(self.pending.len(), |(_, at)| *at);
            let kv = &self.pending[place + ROW_HEADER_BYTES..end];
            return Ok(EncodedKeyValue(Bytes::copy_from_slice(kv)));
        }
        self.shared.read(key, version.modified, row).map_err(StoreError::into_fault)
    }

    fn rows(
        &self,
        from: Revision,
        to: Revision,
        visit: &mut dyn FnMut(&RowView<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadFault> {
        let flushed = self.shared.rows(from, to, visit).map_err(StoreError::into_fault)?;
        if flushed.is_break() {
            return Ok(());
        }
        let mut ends = self.pending_rows.iter().skip(1).map(|(_, at)| *at);
        for (revision, place) in &self.pending_rows {
            let end = ends.next().unwrap_or(self.pending.len());
            if *revision < from || *revision > to {
                continue;
            }
            let frame = &self.pending[*place..end];
            let tombstone = is_tombstone(frame);
            let kv = Bytes::copy_from_slice(&frame[ROW_HEADER_BYTES..]);
            let key = key_of(&kv).expect("append has checked it");
            let view = RowView { revision: *revision, tombstone, key, kv: &kv };
            if visit(&view).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Store for RowStore {
    type Reader = RowReader;

    fn reader(&self) -> RowReader {
        RowReader { shared: self.shared.clone() }
    }

    fn append(&mut self, row: Row) {
        assert!(
            row.revision > self.last,
            "INV-M1: the row of {} comes after {}",
            row.revision,
            self.last
        );
        self.last = row.revision;
        let place = self.pending.len();
        put_row(&mut self.pending, row.revision, row.tombstone, &row.key, &row.kv.0);
        self.pending_rows.push((row.revision, place));
        let len = (self.pending.len() - place) as u32;
        self.appended_bytes += u64::from(len);
        let at = RowAt { segment: self.active.id, offset: self.pending_from + place as u32, len };
        let version = index::Version {
            revision: row.revision,
            create: row.created,
            version: row.version,
            tombstone: row.tombstone,
            at,
        };
        self.shared.index.write().put(&row.key, &version);
        if self.pending.len() >= ROWS_PENDING_BYTES_MAX && self.fault.is_none() {
            // What failed here is told by the flush that ends the batch, before any reply.
            self.fault = self.flush().err();
        }
    }

    fn compact(&mut self, revision: i64) {
        let mut table = self.shared.table.write();
        table.scheduled = table.scheduled.max(revision);
    }
}
