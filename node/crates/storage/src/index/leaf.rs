//! One leaf of the index: some tens of neighbouring keys and their versions, packed in one piece of memory.
//!
//! ```text
//! entry  shared | suffix bytes | body bytes | suffix .. | body ..        (three varints, then the two runs)
//! body   base main revision | version | version | ...                   (see version.rs)
//! ```
//!
//! `shared` is how many bytes the key has in common with the entry before it (0 in the first). A key with more versions than
//! [`VERSIONS_PER_ENTRY_MAX`] has several entries in a row, told apart by their bases: the order of a leaf, and of the whole
//! index, is (key, base). So a key written a million times costs what a million keys cost, and no operation meets more than
//! one entry's worth of versions.

use quorate_machine::Revision;

use super::version::{RowAt, Version, Versions, encode_body};
use crate::limits::{LEAF_BYTES_MAX, LEAF_GROWTH_BYTES, VERSIONS_PER_ENTRY_MAX};
use crate::varint;

/// A leaf. Cloned when it is written while a snapshot still holds it, edited in place otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    bytes: Vec<u8>,
    /// Versions that a compaction might drop: those with a successor, and tombstones. Zero means that a compaction
    /// may pass this leaf without looking inside.
    superseded: u32,
}

/// The header of an entry, and where its parts lie.
#[derive(Clone, Copy)]
struct Entry {
    start: usize,
    shared: usize,
    suffix: usize,
    body: usize,
    end: usize,
}

#[inline]
fn entry_at(bytes: &[u8], start: usize) -> Entry {
    let mut at = start;
    let shared = varint::take(bytes, &mut at) as usize;
    let suffix_len = varint::take(bytes, &mut at) as usize;
    let body_len = varint::take(bytes, &mut at) as usize;
    let body = at + suffix_len;
    Entry { start, shared, suffix: at, body, end: body + body_len }
}

#[inline]
fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Where a key stands in a leaf, or would.
struct Spot {
    /// Offset of the first entry that is greater than (key, at); the leaf's length if there is none.
    next: usize,
    /// Bytes that the key has in common with the entry before `next`.
    matched: usize,
    /// The last entry of the key whose base is at or below `at`.
    hit: Option<Entry>,
}

/// What writing a version into a leaf did.
pub(super) struct Written {
    /// The entry was added behind all others: keys arrive in rising order here.
    pub(super) at_end: bool,
}

/// The right half of a split.
pub(super) struct Split {
    /// No key of the left half is at or above (`key`, `base`), none of the right half is below.
    pub(super) key: Vec<u8>,
    pub(super) base: Revision,
    pub(super) right: Leaf,
}

impl Leaf {
    /// A leaf of bytes that [`Leaf::bytes`] gave.
    pub(super) fn from_parts(bytes: Vec<u8>, superseded: u32) -> Leaf {
        Leaf { bytes, superseded }
    }

    /// The packed entries.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// See the field.
    pub(super) fn superseded(&self) -> u32 {
        self.superseded
    }

    /// True once the leaf is to be split.
    pub(super) fn is_over_full(&self) -> bool {
        self.bytes.len() > LEAF_BYTES_MAX
    }

    /// Bytes of memory that the leaf holds.
    pub(super) fn resident_bytes(&self) -> usize {
        self.bytes.capacity() + size_of::<Leaf>()
    }

    /// Finds (key, at). The key is never rebuilt: as the entries are sorted, comparing `shared` with the bytes matched so far
    /// says whether an entry is still below the key, already above, or needs a look at its suffix.
    fn locate(&self, key: &[u8], at: Revision) -> Spot {
        let bytes = &self.bytes[..];
        let mut spot = Spot { next: 0, matched: 0, hit: None };
        while spot.next < bytes.len() {
            let entry = entry_at(bytes, spot.next);
            if entry.shared > spot.matched {
                spot.next = entry.end;
                continue;
            }
            if entry.shared < spot.matched {
                break;
            }
            let suffix = &bytes[entry.suffix..entry.body];
            let rest = &key[spot.matched..];
            let same = common(suffix, rest);
            if same == rest.len() {
                if same < suffix.len() {
                    break;
                }
                spot.matched = key.len();
                if Versions::of(&bytes[entry.body..entry.end]).base() > at {
                    break;
                }
                spot.hit = Some(entry);
            } else if same < suffix.len() && suffix[same] > rest[same] {
                break;
            } else {
                spot.matched += same;
            }
            spot.next = entry.end;
        }
        spot
    }

    /// The key's newest version at or below `at`, tombstones included.
    pub(super) fn get(&self, key: &[u8], at: Revision) -> Option<Version> {
        let entry = self.locate(key, at).hit?;
        Versions::of(&self.bytes[entry.body..entry.end]).newest(at)
    }

    /// Adds a version, newer than all that the key has.
    pub(super) fn put(&mut self, key: &[u8], version: &Version) -> Written {
        let spot = self.locate(key, Revision::end_of(i64::MAX));
        self.superseded += u32::from(version.tombstone);
        if let Some(entry) = spot.hit {
            let mut count = 0;
            let mut last = None;
            for version in Versions::of(&self.bytes[entry.body..entry.end]) {
                count += 1;
                last = Some(version);
            }
            let last = last.expect("an entry holds at least one version");
            assert!(
                last.revision < version.revision,
                "INV-M1: a version of {key:?} at {} is not newer than the one at {}",
                version.revision,
                last.revision
            );
            self.superseded += u32::from(!last.tombstone);
            if count < VERSIONS_PER_ENTRY_MAX {
                let mut packed = Vec::with_capacity(24);
                version.encode(Some(&last), &mut packed);
                self.extend_body(entry, &packed);
                return Written { at_end: false };
            }
        }
        let mut body = Vec::with_capacity(32);
        encode_body(std::slice::from_ref(version), &mut body);
        let at_end = spot.next == self.bytes.len();
        self.insert_entry(&spot, key, &body);
        Written { at_end }
    }

    /// Appends packed bytes to an entry's body.
    fn extend_body(&mut self, entry: Entry, packed: &[u8]) {
        let mut header = Vec::with_capacity(12);
        varint::put(&mut header, entry.shared as u64);
        varint::put(&mut header, (entry.body - entry.suffix) as u64);
        varint::put(&mut header, (entry.end - entry.body + packed.len()) as u64);
        // The tail first: its offset is still true then.
        self.replace(entry.end, entry.end, packed);
        self.replace(entry.start, entry.suffix, &header);
    }

    /// Adds an entry at `spot` and shortens the one behind by what it now has in common with the new one.
    fn insert_entry(&mut self, spot: &Spot, key: &[u8], body: &[u8]) {
        let suffix = &key[spot.matched..];
        let mut packed = Vec::with_capacity(suffix.len() + body.len() + 24);
        varint::put(&mut packed, spot.matched as u64);
        varint::put(&mut packed, suffix.len() as u64);
        varint::put(&mut packed, body.len() as u64);
        packed.extend_from_slice(suffix);
        packed.extend_from_slice(body);
        let mut until = spot.next;
        if spot.next < self.bytes.len() {
            let behind = entry_at(&self.bytes, spot.next);
            if behind.shared == spot.matched {
                let more = common(suffix, &self.bytes[behind.suffix..behind.body]);
                varint::put(&mut packed, (behind.shared + more) as u64);
                varint::put(&mut packed, (behind.body - behind.suffix - more) as u64);
                varint::put(&mut packed, (behind.end - behind.body) as u64);
                until = behind.suffix + more;
            }
        }
        self.replace(spot.next, until, &packed);
    }

    /// Replaces `bytes[from..to]`, growing by small steps: doubling would leave a third of the memory unused.
    fn replace(&mut self, from: usize, to: usize, with: &[u8]) {
        let old_len = self.bytes.len();
        let new_len = old_len - (to - from) + with.len();
        if new_len > self.bytes.capacity() {
            let wanted = new_len.next_multiple_of(LEAF_GROWTH_BYTES);
            self.bytes.reserve_exact(wanted - old_len);
        }
        if new_len > old_len {
            self.bytes.resize(new_len, 0);
        }
        self.bytes.copy_within(to..old_len, from + with.len());
        self.bytes[from..from + with.len()].copy_from_slice(with);
        self.bytes.truncate(new_len);
    }

    /// Moves the upper half of the entries to a new leaf, or only the last one if the last write went to the end (rising
    /// keys then fill their leaves). `None` if there is a single entry, which cannot be split and has a bounded body.
    pub(super) fn split(&mut self, at_end: bool) -> Option<Split> {
        let middle = self.bytes.len() / 2;
        let mut left_last: Vec<u8> = Vec::new();
        let mut key: Vec<u8> = Vec::new();
        let mut cut = None;
        let mut at = 0;
        while at < self.bytes.len() {
            let entry = entry_at(&self.bytes, at);
            left_last.clone_from(&key);
            key.truncate(entry.shared);
            key.extend_from_slice(&self.bytes[entry.suffix..entry.body]);
            let is_last = entry.end == self.bytes.len();
            if at > 0 && (is_last || (!at_end && at >= middle)) {
                cut = Some(entry);
                break;
            }
            at = entry.end;
        }
        let cut = cut?;
        let base = Versions::of(&self.bytes[cut.body..cut.end]).base();
        let mut right = Vec::with_capacity(self.bytes.len() - cut.start + cut.shared + 4);
        varint::put(&mut right, 0);
        varint::put(&mut right, key.len() as u64);
        varint::put(&mut right, (cut.end - cut.body) as u64);
        right.extend_from_slice(&key);
        right.extend_from_slice(&self.bytes[cut.body..]);
        self.bytes.truncate(cut.start);
        self.bytes.shrink_to(cut.start.next_multiple_of(LEAF_GROWTH_BYTES));
        let same_key = left_last == key;
        let mut right = Leaf { bytes: right, superseded: 0 };
        right.superseded = right.count_superseded(false);
        self.superseded = self.count_superseded(same_key);
        if same_key {
            return Some(Split { key, base, right });
        }
        key.truncate(common(&left_last, &key) + 1);
        Some(Split { key, base: Revision::default(), right })
    }

    /// Counts what [`Leaf::superseded`] promises; `continued` if the last key goes on in the next leaf.
    fn count_superseded(&self, continued: bool) -> u32 {
        let mut count = u32::from(continued);
        let mut entries = self.entries();
        while let Some(entry) = entries.next() {
            let goes_on = entry.goes_on;
            let mut versions = entry.versions().peekable();
            while let Some(version) = versions.next() {
                let has_successor = goes_on || versions.peek().is_some();
                count += u32::from(version.tombstone || has_successor);
            }
        }
        count
    }

    /// All entries, in order.
    pub(super) fn entries(&self) -> Entries<'_> {
        Entries { bytes: &self.bytes, at: 0, key: Vec::new() }
    }

    /// The entries from the first whose key is at or above `start`.
    pub(super) fn entries_from(&self, start: &[u8]) -> Entries<'_> {
        // Revision 0 is below every entry's base, so the spot is in front of the key's first entry.
        let spot = self.locate(start, Revision::default());
        Entries { bytes: &self.bytes, at: spot.next, key: start[..spot.matched].to_vec() }
    }
}

/// What a compaction asks of a leaf.
pub(super) struct Cut {
    /// The compacted revision: what is newer stays.
    pub(super) at: i64,
    /// The newest revision at or below it of the leaf's last key, if that key goes on in the next leaf.
    pub(super) last_key_newest: Option<Revision>,
    /// The last key goes on in the next leaf.
    pub(super) continued: bool,
}

impl Leaf {
    /// The leaf without the versions that nobody who reads at or above `cut.at` can see. The newest at or below it stays,
    /// unless it is a tombstone; a tombstone exactly at it stays for the watcher who starts there (etcd
    /// `mvcc/key_index.go` keeps that generation too).
    pub(super) fn compacted(&self, cut: &Cut, mut dropped: impl FnMut(&Version)) -> Leaf {
        let mut kept = Packer::default();
        let mut group: Vec<Version> = Vec::new();
        let mut entries = self.entries();
        while let Some(entry) = entries.next() {
            group.extend(entry.versions());
            if entry.goes_on {
                continue;
            }
            let visible =
                group.iter().rev().map(|v| v.revision).find(|revision| revision.main <= cut.at);
            let newest = if entry.is_last && cut.continued { cut.last_key_newest } else { visible };
            group.retain(|version| {
                let is_newest = Some(version.revision) == newest;
                let gone = version.tombstone && version.revision.main < cut.at;
                let stays = version.revision.main > cut.at || (is_newest && !gone);
                if !stays {
                    dropped(version);
                }
                stays
            });
            for versions in group.chunks(VERSIONS_PER_ENTRY_MAX) {
                kept.push(entry.key, versions);
            }
            group.clear();
        }
        kept.bytes.shrink_to_fit();
        let mut leaf = Leaf { bytes: kept.bytes, superseded: 0 };
        leaf.superseded = leaf.count_superseded(cut.continued && !leaf.bytes.is_empty());
        leaf
    }

    /// The last key, whose versions may go on in the next leaf.
    pub(super) fn last_key(&self) -> Vec<u8> {
        let mut entries = self.entries();
        while entries.next().is_some() {}
        entries.key
    }

    /// Takes over all entries of the leaf behind this one.
    pub(super) fn absorb(&mut self, behind: &Leaf) {
        if behind.bytes.is_empty() {
            return;
        }
        let last = self.last_key();
        let first = entry_at(&behind.bytes, 0);
        let key = &behind.bytes[first.suffix..first.body];
        let shared = common(&last, key);
        self.bytes.reserve_exact(behind.bytes.len());
        varint::put(&mut self.bytes, shared as u64);
        varint::put(&mut self.bytes, (key.len() - shared) as u64);
        varint::put(&mut self.bytes, (first.end - first.body) as u64);
        self.bytes.extend_from_slice(&key[shared..]);
        self.bytes.extend_from_slice(&behind.bytes[first.body..]);
        self.superseded += behind.superseded;
    }

    /// Tells the version at exactly `revision` that its row has moved; whether there is such a version.
    pub(super) fn relocate(&mut self, key: &[u8], revision: Revision, to: RowAt) -> bool {
        let Some(entry) = self.locate(key, revision).hit else { return false };
        let mut versions: Vec<Version> = Versions::of(&self.bytes[entry.body..entry.end]).collect();
        let Some(moved) = versions.iter_mut().find(|version| version.revision == revision) else {
            return false;
        };
        moved.at = to;
        let mut packed = Vec::with_capacity(entry.end - entry.start + 8);
        let mut body = Vec::with_capacity(entry.end - entry.body + 8);
        encode_body(&versions, &mut body);
        varint::put(&mut packed, entry.shared as u64);
        varint::put(&mut packed, (entry.body - entry.suffix) as u64);
        varint::put(&mut packed, body.len() as u64);
        packed.extend_from_slice(&self.bytes[entry.suffix..entry.body]);
        packed.extend_from_slice(&body);
        self.replace(entry.start, entry.end, &packed);
        true
    }
}

/// Packs entries one behind the other.
#[derive(Default)]
struct Packer {
    bytes: Vec<u8>,
    last_key: Vec<u8>,
}

impl Packer {
    fn push(&mut self, key: &[u8], versions: &[Version]) {
        let shared = common(&self.last_key, key);
        let mut body = Vec::with_capacity(16 * versions.len());
        encode_body(versions, &mut body);
        varint::put(&mut self.bytes, shared as u64);
        varint::put(&mut self.bytes, (key.len() - shared) as u64);
        varint::put(&mut self.bytes, body.len() as u64);
        self.bytes.extend_from_slice(&key[shared..]);
        self.bytes.extend_from_slice(&body);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
    }
}

/// A walk over a leaf's entries; it rebuilds the keys.
pub(super) struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
    key: Vec<u8>,
}

/// One entry of a walk.
pub(super) struct Walked<'a, 'k> {
    /// The whole key.
    pub(super) key: &'k [u8],
    /// The next entry of this leaf belongs to the same key.
    pub(super) goes_on: bool,
    /// No entry of this leaf follows.
    pub(super) is_last: bool,
    body: &'a [u8],
}

impl<'a> Walked<'a, '_> {
    /// The entry's versions, oldest first.
    #[inline]
    pub(super) fn versions(&self) -> Versions<'a> {
        Versions::of(self.body)
    }
}

impl<'a> Entries<'a> {
    /// The next entry. (Not an `Iterator`: the key is lent.)
    #[inline]
    pub(super) fn next(&mut self) -> Option<Walked<'a, '_>> {
        if self.at == self.bytes.len() {
            return None;
        }
        let entry = entry_at(self.bytes, self.at);
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(&self.bytes[entry.suffix..entry.body]);
        self.at = entry.end;
        let is_last = entry.end == self.bytes.len();
        let goes_on = !is_last && {
            let behind = entry_at(self.bytes, entry.end);
            behind.shared == self.key.len() && behind.suffix == behind.body
        };
        Some(Walked { key: &self.key, goes_on, is_last, body: &self.bytes[entry.body..entry.end] })
    }
}
