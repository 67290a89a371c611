//! One write: the changes of one entry, all under one revision, numbered in their order.

use bytes::Bytes;

use crate::{
    DeleteRange, DeleteRangeOutcome, EncodedKeyValue, Event, KeyValue, LeaseId, Put, PutOutcome,
    ReadFault, ReadPoint, Rejected, Revision, Row, State, Store, Version, View,
    limits::SCAN_CHUNK_KEYS,
    range::{RangeError, damaged, keys, rest_after},
};

/// A write on its way: reads see the changes made so far, readers elsewhere see none before the machine publishes the
/// revision. Source: `server/storage/mvcc/kvstore_txn.go` (storeTxnWrite).
pub(crate) struct Write<'a, S> {
    pub(crate) state: &'a mut State,
    pub(crate) store: &'a mut S,
    /// The store's revision before.
    begin: i64,
    events: Vec<Event>,
}

impl<'a, S: Store> Write<'a, S> {
    pub(crate) fn new(state: &'a mut State, store: &'a mut S) -> Self {
        let begin = state.revision();
        Self { state, store, begin, events: Vec::new() }
    }

    /// What is now within this write: the revision before it, or its own once it has changed something.
    pub(crate) fn point(&self) -> ReadPoint {
        let revision = if self.events.is_empty() { self.begin } else { self.main() };
        ReadPoint { revision, compacted: self.state.compacted() }
    }

    /// Ends it. The revision grows by one if it changed anything (INV-M1).
    pub(crate) fn finish(self) -> Vec<Event> {
        let revision = self.point().revision;
        self.state.set_revision(revision);
        self.events
    }

    pub(crate) fn put(&mut self, put: &Put) -> Result<PutOutcome, ReadFault> {
        let Put { key, value, lease, prev_kv, ignore_value, ignore_lease } = put;
        let previous = self.store.lookup(key, self.at())?;
        let previous_kv = match &previous {
            Some(version) if *prev_kv || *ignore_value || *ignore_lease => {
                Some(self.store.read(key, version)?)
            }
            Some(_) | None => None,
        };
        let (mut value, mut lease) = (value.clone(), *lease);
        // Missing here only if this same transaction deleted the key after the checks. The shell refuses the plain cases of
        // that; for the others etcd 3.7 panics (`txn/put.go`, put), and here every member keeps the empty value alike.
        if let (Some(kv), Some(version)) = (&previous_kv, &previous) {
            let damaged = |error| damaged(key, version, &error);
            if *ignore_value {
                value = kv.value().map_err(damaged)?;
            }
            if *ignore_lease {
                lease = kv.lease().map_err(damaged)?;
            }
        }
        self.append_put(key.clone(), value, lease, previous);
        Ok(PutOutcome { prev_kv: previous_kv.filter(|_| *prev_kv), revision: self.main() })
    }

    pub(crate) fn delete_range(
        &mut self,
        delete: &DeleteRange,
    ) -> Result<DeleteRangeOutcome, ReadFault> {
        let DeleteRange { range, prev_kv } = delete;
        let mut outcome = DeleteRangeOutcome::default();
        let mut rest = Some(range.clone());
        while let Some(range) = rest {
            // The keys deleted so far lie before the rest, so the chunks see the range as it was.
            let found = keys(&*self.store, &range, self.at(), SCAN_CHUNK_KEYS)?;
            let full = found.len() == SCAN_CHUNK_KEYS;
            rest = found.last().filter(|_| full).and_then(|(last, _)| rest_after(&range, last));
            for (key, version) in found {
                if *prev_kv {
                    outcome.prev_kvs.push(self.store.read(&key, &version)?);
                }
                self.append_tombstone(&key, version);
                outcome.deleted += 1;
            }
        }
        outcome.revision = self.point().revision;
        Ok(outcome)
    }

    /// Deletes the keys that a lease had, in order (etcd `lease/lessor.go`, Revoke: "in the same order on all members").
    pub(crate) fn delete_keys(
        &mut self,
        keys: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), ReadFault> {
        for key in keys {
            if let Some(version) = self.store.lookup(&key, self.at())? {
                self.append_tombstone(&key, version);
            }
        }
        Ok(())
    }

    fn main(&self) -> i64 {
        self.begin + 1
    }

    fn at(&self) -> Revision {
        Revision::end_of(self.point().revision)
    }

    fn next_revision(&self) -> Revision {
        let sub = i64::try_from(self.events.len()).expect("changes of one entry fit memory");
        Revision { main: self.main(), sub }
    }

    fn append_put(&mut self, key: Bytes, value: Bytes, lease: LeaseId, previous: Option<Version>) {
        let revision = self.next_revision();
        let created = previous.map_or(revision.main, |version| version.created);
        let version = previous.map_or(1, |version| version.version + 1);
        let kv = KeyValue {
            key,
            create_revision: created,
            mod_revision: revision.main,
            version,
            value,
            lease,
        };
        self.state.leases_mut().attach(&kv.key, lease);
        let kv = kv.encode();
        // The key as a slice of the pair, not of the entry, which would be kept in memory whole.
        let key = kv.key().expect("it was encoded here");
        self.append(
            Row { revision, key, kv: kv.clone(), created, version, tombstone: false },
            kv,
            previous,
        );
    }

    fn append_tombstone(&mut self, key: &Bytes, previous: Version) {
        let revision = self.next_revision();
        self.state.leases_mut().detach(key);
        let kv = KeyValue::of_tombstone(key.clone());
        let key = kv.key().expect("it was encoded here");
        // Watchers are told when it went, rows are not (etcd `mvcc/watchable_store_txn.go`).
        let told =
            KeyValue { key: key.clone(), mod_revision: revision.main, ..KeyValue::default() }
                .encode();
        let row = Row { revision, key, kv, created: 0, version: 0, tombstone: true };
        self.append(row, told, Some(previous));
    }

    fn append(&mut self, row: Row, told: EncodedKeyValue, previous: Option<Version>) {
        self.state.note_row(&row);
        self.events.push(Event {
            revision: row.revision,
            key: row.key.clone(),
            kv: told,
            deleted: row.tombstone,
            previous,
        });
        self.store.append(row);
    }
}

/// What etcd asks of a put before it begins to write: the lease first, then the key (`txn/put.go`, checkPut).
pub(crate) fn check_put<V: View + ?Sized>(
    state: &State,
    view: &V,
    put: &Put,
    point: ReadPoint,
) -> Result<(), RangeError> {
    if put.lease != LeaseId::NONE && !state.leases().contains(put.lease) {
        return Err(Rejected::LeaseNotFound.into());
    }
    if put.ignore_value || put.ignore_lease {
        let found = view.lookup(&put.key, Revision::end_of(point.revision))?;
        found.ok_or(Rejected::KeyNotFound)?;
    }
    Ok(())
}
