//! What a watch stream asks of the hub, and what the hub hands to it, as values.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use quorate_machine::{EncodedKeyValue, KeyRange, Revision};

/// A stream of one client connection; many watches share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// A watch within its stream, as the client knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub i64);

/// What a client wants to watch (etcd's WatchCreateRequest, decoded and checked for shape).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSpec {
    /// Which keys.
    pub range: KeyRange,
    /// From which revision on; 0 = from now. May lie in the future.
    pub start_revision: i64,
    /// Leave out puts.
    pub no_put: bool,
    /// Leave out deletions.
    pub no_delete: bool,
    /// Bring the pair as it was before each change.
    pub prev_kv: bool,
    /// Tell the revision from time to time when nothing happens.
    pub progress_notify: bool,
}

/// One change, made once and shared by every stream that sends it.
#[derive(Debug)]
pub struct WatchEvent {
    /// When.
    pub revision: Revision,
    /// Which key.
    pub key: Bytes,
    /// Whether the key was deleted.
    pub deleted: bool,
    /// The pair after the change (`mvccpb.KeyValue`; for a deletion key and mod_revision).
    pub kv: EncodedKeyValue,
    /// The pair before it; none for a creation, when it was compacted away, or when no watcher wanted it.
    pub prev_kv: Option<EncodedKeyValue>,
    plain: OnceLock<Bytes>,
    with_prev: OnceLock<Bytes>,
}

impl WatchEvent {
    /// A change; nothing is encoded until somebody sends it.
    #[must_use]
    pub fn new(
        revision: Revision,
        key: Bytes,
        deleted: bool,
        kv: EncodedKeyValue,
        prev_kv: Option<EncodedKeyValue>,
    ) -> Self {
        Self {
            revision,
            key,
            deleted,
            kv,
            prev_kv,
            plain: OnceLock::new(),
            with_prev: OnceLock::new(),
        }
    }

    /// The change as an encoded `mvccpb.Event`, made at the first call and shared afterwards.
    #[must_use]
    pub fn encoded(&self, with_prev: bool) -> Bytes {
        let cell = if with_prev { &self.with_prev } else { &self.plain };
        cell.get_or_init(|| self.encode(with_prev)).clone()
    }

    /// mvccpb.Event: type = 1 (PUT is 0 and omitted, DELETE is 1), kv = 2, prev_kv = 3.
    fn encode(&self, with_prev: bool) -> Bytes {
        let prev = if with_prev { self.prev_kv.as_ref() } else { None };
        let mut out =
            BytesMut::with_capacity(self.kv.0.len() + prev.map_or(0, |kv| kv.0.len()) + 24);
        if self.deleted {
            out.put_slice(&[0x08, 0x01]);
        }
        put_field(&mut out, 0x12, &self.kv.0);
        if let Some(prev) = prev {
            put_field(&mut out, 0x1a, &prev.0);
        }
        out.freeze()
    }
}

/// Appends a length-delimited protobuf field.
fn put_field(out: &mut BytesMut, tag: u8, bytes: &Bytes) {
    out.put_u8(tag);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.put_u8(u8::try_from(length & 0x7f).expect("seven bits fit") | 0x80);
        length >>= 7;
    }
    out.put_u8(u8::try_from(length).expect("less than 0x80"));
    out.put_slice(bytes);
}

/// What a stream is to tell its client next. Deliveries of one stream are sent in the order in which they come.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The watch stands; always before its events.
    Created {
        /// Which.
        watch: WatchId,
        /// The store's revision.
        revision: i64,
    },
    /// The watch could not be made (its id is taken on this stream).
    DuplicateId {
        /// The store's revision.
        revision: i64,
    },
    /// Changes, in order; all changes of one revision are in one delivery (law: atomic).
    Events {
        /// Of which watch.
        watch: WatchId,
        /// What the header says: the last change's revision for a live watch, the store's for one that catches up.
        revision: i64,
        /// At least one.
        events: Vec<Arc<WatchEvent>>,
        /// Whether the client wants the previous pairs.
        prev_kv: bool,
    },
    /// The watch wanted history that is gone, and is cancelled.
    Compacted {
        /// Which.
        watch: WatchId,
        /// The store's revision.
        revision: i64,
        /// The compacted revision.
        compact_revision: i64,
    },
    /// The watch ended because the client asked.
    Canceled {
        /// Which.
        watch: WatchId,
        /// The store's revision.
        revision: i64,
    },
    /// Everything up to this revision has been delivered.
    Progress {
        /// To one watch (periodic), or to all of the stream (asked for): then none, −1 on the wire.
        watch: Option<WatchId>,
        /// Up to which revision.
        revision: i64,
    },
}
