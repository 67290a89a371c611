//! Hashes over the data: HashKV as etcd computes it, at once or in steps, and Hash over everything.
//!
//! Sources: `server/storage/mvcc/hash.go`, `mvcc/kvstore.go` (hashByRev), `mvcc/key_index.go` (keep). etcd walks what its
//! disk happens to hold; this asks which rows *count*, so that the result never shows how far this member's physical
//! compaction has got. The CRC comes from the caller (`crc32c::crc32c_append` fits), since this crate has no dependency.
//!
//! A row counts if it is above the compacted revision and at or below the one asked for; or if it is at or below the
//! compacted revision and is the newest version of a key that exists at the revision asked for. A tombstone at the compacted
//! revision does not count. If no key exists at the revision asked for, etcd hashes all it still holds; here then the
//! newest versions of the keys that existed at the compacted revision count, as in an etcd that has finished compacting
//! (but for a tombstone exactly there, which no member need keep).
//!
//! What HashKV answers for the revision of one of the last compactions is in `compaction_hashes.rs`.
//!
//! One thing of etcd's is not repeated: where one transaction deleted a key and put it again, compacting at exactly that
//! revision loses etcd the put; here the put stays, and counts.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::{
    Compacted, KeyRange, ReadFault, ReadPoint, Rejected, Revision, State, View,
    limits::{HASH_CHUNK_BYTES, HASH_CHUNK_ROWS},
    range::RangeError,
};

/// Continues a CRC32C (Castagnoli) over more bytes; starts from 0.
pub type Crc32cAppend = fn(u32, &[u8]) -> u32;

/// The name of etcd's bucket of rows, which comes first in the hash.
const BUCKET: &[u8] = b"key";

/// The answer to HashKV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValueHash {
    /// The CRC32C.
    pub hash: u32,
    /// The compacted revision that it depends on: hashes are comparable only if this is equal.
    pub compact_revision: i64,
    /// The revision up to which rows count.
    pub hash_revision: i64,
}

/// HashKV at `revision` (0 = now). Reads every row that counts; the caller keeps history at the compacted revision from
/// going meanwhile (storage's floor) and runs this where it may take its time.
///
/// # Errors
/// [`Rejected::Compacted`] below the compacted revision, [`Rejected::FutureRevision`] above the current one.
pub fn hash_kv<V: View + ?Sized>(
    view: &V,
    revision: i64,
    point: ReadPoint,
    append: Crc32cAppend,
) -> Result<KeyValueHash, RangeError> {
    if revision > point.revision {
        return Err(Rejected::FutureRevision.into());
    }
    if revision > 0 && revision < point.compacted {
        return Err(Rejected::Compacted.into());
    }
    let revision = if revision <= 0 { point.revision } else { revision };
    let mut walk = HashWalk::new(Compacted { previous: point.compacted, revision }, append);
    loop {
        if let Some(hash) = walk.step(view)? {
            return Ok(hash);
        }
    }
}

/// HashKV in steps, for a caller that lets others run in between. Between two steps later writes may come, and physical
/// compaction may go on up to the compacted revision that the hash is taken under, no further.
#[derive(Clone, Debug)]
pub struct HashWalk {
    append: Crc32cAppend,
    hash: u32,
    /// The hash is that of `revision` under the compacted revision `previous`.
    of: Compacted,
    /// At or below the compacted revision the newest versions at this revision count; none until it was looked up.
    kept_at: Option<Revision>,
    /// The next row.
    from: Revision,
}

/// A row of a step.
struct HashedRow {
    revision: Revision,
    tombstone: bool,
    /// Whose newest version is asked for; empty above the compacted revision, where every row counts.
    key: Bytes,
    kv: Bytes,
}

impl HashWalk {
    /// The walk that gives HashKV at `of.revision` as of a store that is compacted at `of.previous`.
    #[must_use]
    pub fn new(of: Compacted, append: Crc32cAppend) -> Self {
        Self { append, hash: append(0, BUCKET), of, kept_at: None, from: Revision::default() }
    }

    /// What the hash is of.
    #[must_use]
    pub fn of(&self) -> Compacted {
        self.of
    }

    /// Goes on by at most [`HASH_CHUNK_ROWS`] rows or about [`HASH_CHUNK_BYTES`]; the hash if those were the last.
    ///
    /// # Errors
    /// A failed read.
    pub fn step<V: View + ?Sized>(&mut self, view: &V) -> Result<Option<KeyValueHash>, ReadFault> {
        let kept_at = match self.kept_at {
            Some(kept_at) => kept_at,
            None => *self.kept_at.insert(kept_at(view, self.of)?),
        };
        // Looking keys up while rows are being visited could wait for a lock that the visit holds, so by the chunk.
        let (rows, more) = self.chunk(view)?;
        for row in &rows {
            if row.revision.main <= self.of.previous {
                let kept = view.lookup(&row.key, kept_at)?;
                if kept.is_none_or(|version| version.modified != row.revision) {
                    continue;
                }
            }
            let (key, length) = revision_key(row.revision, row.tombstone);
            self.hash = (self.append)((self.append)(self.hash, &key[..length]), &row.kv);
        }
        if let Some(last) = rows.last() {
            self.from = Revision { main: last.revision.main, sub: last.revision.sub + 1 };
        }
        Ok((!more).then_some(KeyValueHash {
            hash: self.hash,
            compact_revision: self.of.previous,
            hash_revision: self.of.revision,
        }))
    }

    /// The next rows that may count, and whether there may be more.
    fn chunk<V: View + ?Sized>(&self, view: &V) -> Result<(Vec<HashedRow>, bool), ReadFault> {
        let (mut rows, mut bytes, mut more) = (Vec::new(), 0, false);
        view.rows(self.from, Revision::end_of(self.of.revision), &mut |row| {
            let compacted = row.revision.main <= self.of.previous;
            if compacted && row.tombstone {
                return ControlFlow::Continue(());
            }
            let key = if compacted { Bytes::copy_from_slice(row.key) } else { Bytes::new() };
            let (revision, tombstone, kv) = (row.revision, row.tombstone, row.kv.clone());
            bytes += kv.len();
            rows.push(HashedRow { revision, tombstone, key, kv });
            more = rows.len() >= HASH_CHUNK_ROWS || bytes >= HASH_CHUNK_BYTES;
            if more { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok((rows, more))
    }
}

/// The revision whose newest versions count at or below the compacted one.
fn kept_at<V: View + ?Sized>(view: &V, of: Compacted) -> Result<Revision, ReadFault> {
    let hashed = Revision::end_of(of.revision);
    let mut any = false;
    view.scan(&KeyRange::From(Bytes::new()), hashed, &mut |_, _| {
        any = true;
        ControlFlow::Break(())
    })?;
    Ok(if any { hashed } else { Revision::end_of(of.previous) })
}

/// Hash: CRC32C over all rows that count, and over alarms, leases and members. As in etcd, the applied index and the term
/// stay out, and so does the clock; equal members give equal hashes, but other than etcd's.
///
/// # Errors
/// A failed read.
pub fn hash_all<V: View + ?Sized>(
    view: &V,
    state: &State,
    append: Crc32cAppend,
) -> Result<u32, RangeError> {
    let hash = hash_kv(view, 0, state.read_point(), append)?.hash;
    let mut tables = Vec::new();
    state.encode_tables(&mut tables);
    Ok(append(hash, &tables))
}

/// etcd's row key: both numbers big-endian with `_` between, 17 bytes; a tombstone has a `t` behind them.
fn revision_key(revision: Revision, tombstone: bool) -> ([u8; 18], usize) {
    let mut key = [b't'; 18];
    key[..8].copy_from_slice(&revision.main.to_be_bytes());
    key[8] = b'_';
    key[9..17].copy_from_slice(&revision.sub.to_be_bytes());
    (key, if tombstone { 18 } else { 17 })
}

#[cfg(test)]
pub(crate) mod tests;
