//! What apply, readers, compaction and checkpoints share: the index, the segment table, and how both are read.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_machine::{EncodedKeyValue, KeyRange, Revision, RowAddress, RowView};

use crate::damage::Damage;
use crate::disk::Disk;
use crate::index::{Index, Version};
use crate::limits::{COUNT_PAGE_KEYS, PAGE_KEYS, ROW_READ_BYTES, ROWS_READ_BYTES};
use crate::rows::cursor::RowCursor;
use crate::rows::frame::{ROW_HEADER_BYTES, RowHeader, key_of};
use crate::rows::pins::Pins;
use crate::rows::segment::{SegmentFile, Table};
use crate::rows::{RowSettings, StoreError};

/// The shared part of a store.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    /// The generation's directory.
    pub(crate) directory: PathBuf,
    pub(crate) settings: RowSettings,
    pub(crate) index: RwLock<Index>,
    pub(crate) table: RwLock<Table>,
    pub(crate) pins: Pins,
    /// A checkpoint is being written; there is one at a time.
    pub(crate) checkpointing: AtomicBool,
    failed: AtomicBool,
}

impl Shared {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        settings: RowSettings,
        index: Index,
        table: Table,
    ) -> Shared {
        Shared {
            disk,
            directory,
            settings,
            index: RwLock::new(index),
            table: RwLock::new(table),
            pins: Pins::default(),
            checkpointing: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// Runs a step that writes. After the first failure none runs any more (INV-S3): a second attempt could find the pages that
    /// the first could not write marked clean.
    pub(crate) fn writing<T>(
        &self,
        step: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::Failed);
        }
        let outcome = step();
        if outcome.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        outcome
    }

    pub(crate) fn lookup(&self, key: &[u8], at: Revision) -> Option<Version> {
        self.index.read().get(key, at).filter(|version| !version.tombstone)
    }

    /// Visits live keys, a page of them under each read lock; the visitor runs without a lock.
    pub(crate) fn scan(
        &self,
        range: &KeyRange,
        at: Revision,
        visit: &mut dyn FnMut(&[u8], &quorate_machine::Version) -> ControlFlow<()>,
    ) {
        let (start, end) = match range {
            KeyRange::Single(key) => {
                if let Some(version) = self.lookup(key, at) {
                    let _ = visit(key, &as_machine(&version));
                }
                return;
            }
            KeyRange::Interval(start, end) => (start, Some(&end[..])),
            KeyRange::From(start) => (start, None),
        };
        let mut page = Page::default();
        let mut next = Some(start.to_vec());
        while let Some(from) = next {
            page.fill(&self.index.read(), &from, end, at);
            let mut at_byte = 0;
            for (key_end, version) in &page.found {
                if visit(&page.keys[at_byte..*key_end], &as_machine(version)).is_break() {
                    return;
                }
                at_byte = *key_end;
            }
            next = page.next.take();
        }
    }

    pub(crate) fn count(&self, range: &KeyRange, at: Revision) -> u64 {
        let (start, end) = match range {
            KeyRange::Single(key) => return u64::from(self.lookup(key, at).is_some()),
            KeyRange::Interval(start, end) => (start, Some(&end[..])),
            KeyRange::From(start) => (start, None),
        };
        let mut total = 0;
        let mut next = Some(start.to_vec());
        while let Some(from) = next.take() {
            let mut in_page = 0;
            self.index.read().scan(&from, end, at, |key, _| {
                if in_page == COUNT_PAGE_KEYS {
                    next = Some(key.to_vec());
                    return ControlFlow::Break(());
                }
                in_page += 1;
                ControlFlow::Continue(())
            });
            total += in_page as u64;
        }
        total
    }

    /// Reads the pair of a version. If its segment was rewritten since the lookup, the index says where the row is now.
    pub(crate) fn read(
        &self,
        key: &[u8],
        revision: Revision,
        row: RowAddress,
    ) -> Result<EncodedKeyValue, StoreError> {
        let mut address = row;
        loop {
            let file = self.table.read().file(address.segment);
            if let Some(file) = file {
                return self.read_at(&file, address.offset, key, revision);
            }
            // Each turn means that the row moved once more, and a rewrite takes longer than a turn.
            let known = self.index.read().get(key, revision);
            let now =
                known.filter(|version| version.revision == revision).map(|v| as_machine(&v).row);
            match now {
                Some(now) if now != address => address = now,
                Some(_) | None => {
                    let what = format!(
                        "the row of {revision} was reclaimed while somebody read it without a pin"
                    );
                    return Err(Damage::new(self.directory.clone(), 0, what).into());
                }
            }
        }
    }

    fn read_at(
        &self,
        file: &SegmentFile,
        offset: u32,
        key: &[u8],
        revision: Revision,
    ) -> Result<EncodedKeyValue, StoreError> {
        let damage =
            |what: &str| StoreError::from(Damage::new(file.path.clone(), u64::from(offset), what));
        let mut buffer = vec![0; ROW_READ_BYTES];
        let read = file.file.read_at(u64::from(offset), &mut buffer);
        let mut read = read.map_err(StoreError::disk("read", &file.path))?;
        if read < ROW_HEADER_BYTES {
            return Err(damage("the file ends before the row that the index expects here"));
        }
        let header: &[u8; ROW_HEADER_BYTES] =
            buffer[..ROW_HEADER_BYTES].try_into().expect("long enough");
        let header = RowHeader::read(header).ok_or_else(|| damage("a row should begin here"))?;
        let length = header.frame_len();
        if length > read {
            // The length is not checked yet: do not allocate more than the file could fill.
            let bytes =
                file.file.len().map_err(StoreError::disk("read the length of", &file.path))?;
            if u64::from(offset) + length as u64 > bytes {
                return Err(damage("the row here claims more bytes than its segment has"));
            }
            buffer.resize(length, 0);
            let more = file.file.read_at(u64::from(offset) + read as u64, &mut buffer[read..]);
            read += more.map_err(StoreError::disk("read", &file.path))?;
        }
        if read < length || !header.holds(&buffer[..length]) {
            return Err(damage("the row here does not have its checksum"));
        }
        if header.revision != revision || key_of(&buffer[ROW_HEADER_BYTES..length]) != Some(key) {
            return Err(damage("the row here is not the one that the index expects"));
        }
        Ok(EncodedKeyValue(Bytes::from(buffer).slice(ROW_HEADER_BYTES..length)))
    }

    /// Visits rows in revision order, from the segments as they are now.
    pub(crate) fn rows(
        &self,
        from: Revision,
        to: Revision,
        visit: &mut dyn FnMut(&RowView<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let segments: Vec<_> = {
            let table = self.table.read();
            let wanted =
                table.ordered().filter(|s| s.has_rows() && s.first <= to && s.last >= from);
            wanted.map(|s| (s.file.clone(), s.offset_for(from), s.bytes)).collect()
        };
        for (file, at, end) in segments {
            let mut cursor = RowCursor::new(file, at, end, ROWS_READ_BYTES);
            while let Some(row) = cursor.next()? {
                if row.revision > to {
                    return Ok(ControlFlow::Continue(()));
                }
                if row.revision < from {
                    continue;
                }
                let kv = row.kv();
                let key = key_of(&kv).expect("the cursor has found the key");
                let view =
                    RowView { revision: row.revision, tombstone: row.tombstone, key, kv: &kv };
                if visit(&view).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Some keys of a scan, copied out from under the lock.
#[derive(Default)]
struct Page {
    /// All keys, one behind the other.
    keys: Vec<u8>,
    /// Where each key ends, and its version.
    found: Vec<(usize, Version)>,
    /// The first key of the next page.
    next: Option<Vec<u8>>,
}

impl Page {
    fn fill(&mut self, index: &Index, start: &[u8], end: Option<&[u8]>, at: Revision) {
        self.keys.clear();
        self.found.clear();
        let Page { keys, found, next } = self;
        index.scan(start, end, at, |key, version| {
            if found.len() == PAGE_KEYS {
                *next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            keys.extend_from_slice(key);
            found.push((keys.len(), *version));
            ControlFlow::Continue(())
        });
    }
}

/// A version as the machine names it.
pub(crate) fn as_machine(version: &Version) -> quorate_machine::Version {
    quorate_machine::Version {
        modified: version.revision,
        created: version.create,
        version: version.version,
        row: RowAddress { segment: version.at.segment, offset: version.at.offset },
    }
}
