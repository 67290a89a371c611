//! Hashes over the data: HashKV as etcd computes it, and Hash over everything.
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
//! Two things of etcd's are not repeated. Asked for the revision of one of its last ten compactions, it answers with the hash
//! that it took while compacting, under the compacted revision before that one. And where one transaction deleted a key and
//! put it again, compacting at exactly that revision loses etcd the put; here the put stays, and counts.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::{
    KeyRange, ReadFault, ReadPoint, Rejected, Revision, RowView, State, View,
    limits::HASH_CHUNK_ROWS, range::RangeError,
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
    let hash_revision = if revision <= 0 { point.revision } else { revision };
    let mut hash = append(0, BUCKET);
    hash = hash_compacted(view, hash_revision, point.compacted, hash, append)?;
    let from = Revision { main: point.compacted.saturating_add(1), sub: 0 };
    view.rows(from, Revision::end_of(hash_revision), &mut |row| {
        hash = append_row(hash, row, append);
        ControlFlow::Continue(())
    })?;
    Ok(KeyValueHash { hash, compact_revision: point.compacted, hash_revision })
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

/// The rows at or below the compacted revision: those that a key's newest version at the hashed revision stands in.
fn hash_compacted<V: View + ?Sized>(
    view: &V,
    hash_revision: i64,
    compacted: i64,
    mut hash: u32,
    append: Crc32cAppend,
) -> Result<u32, ReadFault> {
    let mut any = false;
    view.scan(&KeyRange::From(Bytes::new()), Revision::end_of(hash_revision), &mut |_, _| {
        any = true;
        ControlFlow::Break(())
    })?;
    let kept_at = Revision::end_of(if any { hash_revision } else { compacted });
    let mut from = Revision::default();
    loop {
        // Looking keys up while rows are being visited could wait for a lock that the visit holds, so by the chunk.
        let mut chunk: Vec<(Revision, Bytes, Bytes)> = Vec::new();
        view.rows(from, Revision::end_of(compacted), &mut |row| {
            if !row.tombstone {
                chunk.push((row.revision, Bytes::copy_from_slice(row.key), row.kv.clone()));
            }
            if chunk.len() < HASH_CHUNK_ROWS {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        for (revision, key, kv) in &chunk {
            let kept = view.lookup(key, kept_at)?;
            if kept.is_some_and(|version| version.modified == *revision) {
                let row = RowView { revision: *revision, tombstone: false, key, kv };
                hash = append_row(hash, &row, append);
            }
        }
        match chunk.last() {
            Some((last, _, _)) if chunk.len() == HASH_CHUNK_ROWS => {
                from = Revision { main: last.main, sub: last.sub + 1 };
            }
            Some(_) | None => return Ok(hash),
        }
    }
}

fn append_row(hash: u32, row: &RowView<'_>, append: Crc32cAppend) -> u32 {
    let (key, length) = revision_key(row.revision, row.tombstone);
    append(append(hash, &key[..length]), row.kv)
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
