//! What readers on any thread see of the store.

use std::ops::ControlFlow;
use std::sync::Arc;

use quorate_machine::{EncodedKeyValue, KeyRange, ReadFault, Revision, RowView, Version, View};

use crate::rows::pins::{Pin, PinRefused};
use crate::rows::segment::Segment;
use crate::rows::shared::as_machine;
use crate::rows::{Shared, StoreError};

/// A reader of what has been flushed. Clones are cheap. It reads at any revision up to the last one that was flushed and not below
/// the compacted one; who reads in more than one call pins the revision.
#[derive(Clone)]
pub struct RowReader {
    pub(crate) shared: Arc<Shared>,
}

/// What the store takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of all rows segments (etcd's dbSize).
    pub rows_bytes: u64,
    /// Bytes of the rows that the index knows (etcd's dbSizeInUse).
    pub rows_live_bytes: u64,
    /// Rows segments, those included that wait for a checkpoint before they go.
    pub segments: usize,
    /// Main revision up to which superseded versions are gone.
    pub compacted: i64,
    /// Main revision up to which they shall go.
    pub compaction_scheduled: i64,
}

impl RowReader {
    /// Keeps what a reader at `revision` sees until the pin is dropped or revoked. `now` begins its age; see
    /// [`RowReader::revoke_pins`].
    ///
    /// # Errors
    /// The revision is compacted, or there are too many pins.
    pub fn pin(&self, revision: i64, now: u64) -> Result<Pin, PinRefused> {
        self.shared.pins.pin(revision, now)
    }

    /// Revokes every pin that began before `before`: a reader that never ends may not keep all history. How many it were.
    pub fn revoke_pins(&self, before: u64) -> usize {
        self.shared.pins.revoke(before)
    }

    /// Visits, in revision order up to `to`, exactly the rows that a store compacted at the pin's revision holds: those above
    /// it, and of those at or below it the newest of each key that lives there. This, and not [`View::rows`], is what a snapshot for a
    /// member or an export is made of: how far physical compaction has got does not show, and a deletion cannot be missing while
    /// the put before it is there.
    ///
    /// # Errors
    /// A failed read.
    pub fn kept_rows(
        &self,
        pin: &Pin,
        to: Revision,
        visit: &mut dyn FnMut(&RowView<'_>, &Version) -> ControlFlow<()>,
    ) -> Result<(), ReadFault> {
        let floor = Revision::end_of(pin.revision());
        self.rows(Revision::default(), to, &mut |row| {
            // The newest at the floor for a row below it, the row's own version for one above.
            let newest = self.shared.index.read().get(row.key, row.revision.max(floor));
            let known = newest.filter(|version| version.revision == row.revision);
            match known {
                Some(version) if row.revision.main >= pin.revision() || !version.tombstone => {
                    visit(row, &as_machine(&version))
                }
                Some(_) | None => ControlFlow::Continue(()),
            }
        })
    }

    /// What the store takes.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let table = self.shared.table.read();
        Sizes {
            rows_bytes: table.by_id.values().map(|segment| u64::from(segment.bytes)).sum(),
            rows_live_bytes: table.by_id.values().map(Segment::live).sum(),
            segments: table.by_id.len() + table.retired.len(),
            compacted: table.finished,
            compaction_scheduled: table.scheduled,
        }
    }

    /// Memory that the index holds. Visits every leaf.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.shared.index.read().resident_bytes()
    }
}

impl View for RowReader {
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
        self.shared.read(key, version.modified, version.row).map_err(StoreError::into_fault)
    }

    fn rows(
        &self,
        from: Revision,
        to: Revision,
        visit: &mut dyn FnMut(&RowView<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadFault> {
        self.shared.rows(from, to, visit).map(drop).map_err(StoreError::into_fault)
    }
}
