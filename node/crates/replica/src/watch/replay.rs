//! Replay: what lagging watches of one stream missed, read from the rows in one scan for all of them.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use quorate_machine::{KeyValue, ReadFault, Revision, RowView, View};

use super::{Delivery, Lagging, WatchEvent};

/// What a replay gave.
#[derive(Debug, Default)]
pub struct Replayed {
    /// In order of revision for each watch.
    pub deliveries: Vec<Delivery>,
    /// Every watch has been given everything below this revision that it had not been told.
    pub next: i64,
}

/// Reads the rows from the earliest of `lagging` up to `to` (the store's revision), stopping after `revisions_max` revisions
/// or `bytes_max` bytes of pairs, never within a revision (INV-W4). `compacted` is the compacted revision as of `to`: pairs
/// before changes at or below it may be gone.
///
/// # Errors
/// A failed read.
pub fn replay(
    view: &dyn View,
    lagging: &[Lagging],
    to: i64,
    compacted: i64,
    revisions_max: usize,
    bytes_max: usize,
) -> Result<Replayed, ReadFault> {
    let Some(from) = lagging.iter().map(|watch| watch.next).min() else {
        return Ok(Replayed { deliveries: Vec::new(), next: to + 1 });
    };
    if from > to {
        // They wait for what is still to come.
        return Ok(Replayed { deliveries: Vec::new(), next: to + 1 });
    }
    assert!(from > compacted, "INV-W5: a replay from {from} wants what {compacted} took away");
    let mut batch = Batch::new(lagging, revisions_max, bytes_max);
    let mut fault = None;
    view.rows(Revision { main: from, sub: 0 }, Revision::end_of(to), &mut |row| match batch
        .row(row, view, compacted)
    {
        Ok(flow) => flow,
        Err(error) => {
            fault = Some(error);
            ControlFlow::Break(())
        }
    })?;
    match fault {
        Some(fault) => Err(fault),
        None => Ok(batch.finish(to)),
    }
}

/// A replay in the making.
struct Batch<'a> {
    lagging: &'a [Lagging],
    events: Vec<Vec<Arc<WatchEvent>>>,
    revision: i64,
    revisions: usize,
    bytes: usize,
    revisions_max: usize,
    bytes_max: usize,
    stopped: bool,
}

impl<'a> Batch<'a> {
    fn new(lagging: &'a [Lagging], revisions_max: usize, bytes_max: usize) -> Self {
        Self {
            lagging,
            events: vec![Vec::new(); lagging.len()],
            revision: 0,
            revisions: 0,
            bytes: 0,
            revisions_max,
            bytes_max,
            stopped: false,
        }
    }

    fn row(
        &mut self,
        row: &RowView<'_>,
        view: &dyn View,
        compacted: i64,
    ) -> Result<ControlFlow<()>, ReadFault> {
        let main = row.revision.main;
        if main != self.revision {
            assert!(main > self.revision, "INV-W1: rows came out of order at revision {main}");
            if self.revisions >= self.revisions_max || self.bytes >= self.bytes_max {
                self.stopped = true;
                return Ok(ControlFlow::Break(()));
            }
            self.revision = main;
        }
        let wanting: Vec<usize> =
            (0..self.lagging.len()).filter(|at| wants(&self.lagging[*at], row)).collect();
        if wanting.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let with_prev = wanting.iter().any(|at| self.lagging[*at].spec.prev_kv);
        let event = Arc::new(event(row, with_prev, view, compacted)?);
        for at in wanting {
            let events = &mut self.events[at];
            if events.last().is_none_or(|last| last.revision.main != main) {
                self.revisions += 1;
            }
            self.bytes += event.kv.0.len() + event.prev_kv.as_ref().map_or(0, |kv| kv.0.len());
            events.push(event.clone());
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A delivery per watch and revision would be many small messages: a watch gets its whole share in one, split only
    /// where the adapter must.
    fn finish(self, to: i64) -> Replayed {
        let next = if self.stopped { self.revision + 1 } else { to + 1 };
        let deliveries = self
            .lagging
            .iter()
            .zip(self.events)
            .filter(|(_, events)| !events.is_empty())
            .map(|(lagging, events)| Delivery::Events {
                watch: lagging.watch,
                revision: to,
                events,
                prev_kv: lagging.spec.prev_kv,
            })
            .collect();
        Replayed { deliveries, next }
    }
}

fn wants(lagging: &Lagging, row: &RowView<'_>) -> bool {
    lagging.next <= row.revision.main
        && !(row.tombstone && lagging.spec.no_delete)
        && (row.tombstone || !lagging.spec.no_put)
        && lagging.spec.range.contains(row.key)
}

fn event(
    row: &RowView<'_>,
    with_prev: bool,
    view: &dyn View,
    compacted: i64,
) -> Result<WatchEvent, ReadFault> {
    let key = Bytes::copy_from_slice(row.key);
    let before = row.revision.main - 1;
    // What is at or above the compacted revision can be read; the pair just before it may be gone (etcd leaves it out).
    let prev_kv = if with_prev && before >= compacted {
        view.lookup(&key, Revision::end_of(before))?
            .map(|version| view.read(&key, &version))
            .transpose()?
    } else {
        None
    };
    let kv = if row.tombstone {
        KeyValue { key: key.clone(), mod_revision: row.revision.main, ..KeyValue::default() }
            .encode()
    } else {
        quorate_machine::EncodedKeyValue(row.kv.clone())
    };
    Ok(WatchEvent::new(row.revision, key, row.tombstone, kv, prev_kv))
}
