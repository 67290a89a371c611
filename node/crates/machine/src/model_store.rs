//! A store in memory for tests: as plain as it can be, with physical compaction that advances only when told to.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;

use crate::{
    EncodedKeyValue, KeyRange, ReadFault, Revision, Row, RowAddress, RowView, Store, Version, View,
};

/// Rows by revision, and for each key the revisions of its rows.
#[derive(Debug, Default)]
struct Rows {
    rows: BTreeMap<Revision, Row>,
    keys: BTreeMap<Bytes, Vec<Revision>>,
    compacted: i64,
    /// Says of every read that it failed, once set.
    fault: Option<ReadFault>,
}

/// The store.
#[derive(Debug, Default)]
pub struct ModelStore {
    shared: Arc<RwLock<Rows>>,
}

/// A reader of a [`ModelStore`]; sees later rows too, as storage's readers do.
#[derive(Clone, Debug)]
pub struct ModelReader {
    shared: Arc<RwLock<Rows>>,
}

impl ModelStore {
    /// Removes up to `rows_max` superseded rows at or below the compacted revision: a step of physical compaction. Gives
    /// how many it removed.
    pub fn reclaim(&mut self, rows_max: usize) -> usize {
        let mut rows = self.write();
        let end = Revision::end_of(rows.compacted);
        let superseded: Vec<Revision> = rows
            .rows
            .range(..=end)
            .filter(|(revision, row)| {
                let newer =
                    rows.keys[&row.key].iter().any(|other| *revision < other && *other <= end);
                newer || row.tombstone
            })
            .map(|(revision, _)| *revision)
            .take(rows_max)
            .collect();
        for revision in &superseded {
            if let Some(row) = rows.rows.remove(revision) {
                let revisions = rows.keys.get_mut(&row.key).expect("every row's key is listed");
                revisions.retain(|other| other != revision);
                if revisions.is_empty() {
                    rows.keys.remove(&row.key);
                }
            }
        }
        superseded.len()
    }

    /// Lets every read fail from now on.
    pub fn fail_reads(&mut self, message: &str) {
        self.write().fault = Some(ReadFault { message: message.to_owned() });
    }

    /// All rows, in order of revision.
    #[must_use]
    pub fn to_rows(&self) -> Vec<Row> {
        read(&self.shared).rows.values().cloned().collect()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Rows> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromIterator<Row> for ModelStore {
    fn from_iter<T: IntoIterator<Item = Row>>(rows: T) -> Self {
        let mut store = Self::default();
        for row in rows {
            store.append(row);
        }
        store
    }
}

impl Store for ModelStore {
    type Reader = ModelReader;

    fn reader(&self) -> ModelReader {
        ModelReader { shared: Arc::clone(&self.shared) }
    }

    fn append(&mut self, row: Row) {
        let mut rows = self.write();
        let last = rows.rows.last_key_value().map(|(revision, _)| *revision);
        assert!(last < Some(row.revision), "INV-M1: rows come in the order of their revisions");
        rows.keys.entry(row.key.clone()).or_default().push(row.revision);
        rows.rows.insert(row.revision, row);
    }

    fn compact(&mut self, revision: i64) {
        self.write().compacted = revision;
    }
}

fn read(shared: &RwLock<Rows>) -> RwLockReadGuard<'_, Rows> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

impl Rows {
    fn check(&self) -> Result<(), ReadFault> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn newest(&self, key: &[u8], at: Revision) -> Option<Version> {
        let revisions = self.keys.get(key)?;
        let revision = revisions.iter().rev().find(|revision| **revision <= at)?;
        let row = &self.rows[revision];
        let row_address = RowAddress {
            segment: u32::try_from(revision.main).unwrap_or(u32::MAX),
            offset: u32::try_from(revision.sub).unwrap_or(u32::MAX),
        };
        (!row.tombstone).then_some(Version {
            modified: row.revision,
            created: row.created,
            version: row.version,
            row: row_address,
        })
    }
}

macro_rules! view {
    ($store:ty) => {
        impl View for $store {
            fn lookup(&self, key: &[u8], at: Revision) -> Result<Option<Version>, ReadFault> {
                let rows = read(&self.shared);
                rows.check()?;
                Ok(rows.newest(key, at))
            }

            fn scan(
                &self,
                range: &KeyRange,
                at: Revision,
                visit: &mut dyn FnMut(&[u8], &Version) -> ControlFlow<()>,
            ) -> Result<(), ReadFault> {
                let rows = read(&self.shared);
                rows.check()?;
                let start = Bound::Included(range.start().clone());
                for key in rows.keys.range((start, Bound::Unbounded)).map(|(key, _)| key) {
                    if !range.contains(key) {
                        break;
                    }
                    if let Some(version) = rows.newest(key, at)
                        && visit(key, &version).is_break()
                    {
                        break;
                    }
                }
                Ok(())
            }

            fn read(&self, key: &[u8], version: &Version) -> Result<EncodedKeyValue, ReadFault> {
                let rows = read(&self.shared);
                rows.check()?;
                let row = rows.rows.get(&version.modified).filter(|row| row.key == key);
                row.map(|row| row.kv.clone()).ok_or_else(|| ReadFault {
                    message: format!("the row at {} is gone", version.modified),
                })
            }

            fn rows(
                &self,
                from: Revision,
                to: Revision,
                visit: &mut dyn FnMut(&RowView<'_>) -> ControlFlow<()>,
            ) -> Result<(), ReadFault> {
                let rows = read(&self.shared);
                rows.check()?;
                let between = if from <= to { Some(rows.rows.range(from..=to)) } else { None };
                for (revision, row) in between.into_iter().flatten() {
                    let view = RowView {
                        revision: *revision,
                        tombstone: row.tombstone,
                        key: &row.key,
                        kv: &row.kv.0,
                    };
                    if visit(&view).is_break() {
                        break;
                    }
                }
                Ok(())
            }
        }
    };
}

view!(ModelStore);
view!(ModelReader);
