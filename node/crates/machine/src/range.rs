//! Reading keys: etcd's range options as a function of a view and a revision, at once or in chunks.
//!
//! Nothing here holds anything between two calls: a caller's task may stream a range for as long as history at its revision
//! is kept. Sources: `server/etcdserver/txn/range.go`, `server/storage/mvcc/kvstore_txn.go` (rangeKeys).

use std::{fmt, ops::ControlFlow};

use bytes::Bytes;

use crate::{
    DecodeError, EncodedKeyValue, KeyRange, KeyValue, Range, RangeOutcome, ReadFault, Rejected,
    Revision, SortOrder, SortTarget, Version, View,
};

/// What "now" is for a reader: everything it does is a function of this and the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPoint {
    /// The store's revision.
    pub revision: i64,
    /// History below it is gone; −1 when nothing was ever compacted.
    pub compacted: i64,
}

impl ReadPoint {
    /// The revision to read at when a request names `wanted` (≤ 0 = now).
    ///
    /// # Errors
    /// [`Rejected::FutureRevision`], [`Rejected::Compacted`]. The compacted revision itself can be read.
    pub fn resolve(&self, wanted: i64) -> Result<Revision, Rejected> {
        if wanted > self.revision {
            return Err(Rejected::FutureRevision);
        }
        let main = if wanted <= 0 { self.revision } else { wanted };
        if main < self.compacted { Err(Rejected::Compacted) } else { Ok(Revision::end_of(main)) }
    }
}

/// Why a read gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// The request is refused, on every member alike.
    Rejected(Rejected),
    /// The disk failed; fatal.
    Fault(ReadFault),
}

impl From<Rejected> for RangeError {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl From<ReadFault> for RangeError {
    fn from(fault: ReadFault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejected) => write!(f, "the read is refused: {rejected:?}"),
            Self::Fault(_) => f.write_str("the read failed"),
        }
    }
}

impl std::error::Error for RangeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rejected(_) => None,
            Self::Fault(fault) => Some(fault),
        }
    }
}

impl Range {
    /// Everything in a range of keys, now, by key: to be changed with struct update syntax.
    #[must_use]
    pub fn of(range: KeyRange) -> Self {
        Self {
            range,
            limit: 0,
            revision: 0,
            order: SortOrder::None,
            target: SortTarget::Key,
            keys_only: false,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }

    /// Whether the result is in the order of the keys and unfiltered, so that it can be streamed and the limit applies
    /// while reading. RangeStream serves nothing else.
    #[must_use]
    pub fn is_streamable(&self) -> bool {
        let in_key_order = self.target == SortTarget::Key && self.order != SortOrder::Descend;
        in_key_order && !self.is_filtered()
    }

    fn is_filtered(&self) -> bool {
        self.min_mod_revision != 0
            || self.max_mod_revision != 0
            || self.min_create_revision != 0
            || self.max_create_revision != 0
    }

    fn keeps(&self, version: &Version) -> bool {
        let within = |number: i64, min: i64, max: i64| {
            (min == 0 || number >= min) && (max == 0 || number <= max)
        };
        within(version.modified.main, self.min_mod_revision, self.max_mod_revision)
            && within(version.created, self.min_create_revision, self.max_create_revision)
    }
}

/// A range as a whole.
///
/// # Errors
/// See [`RangeError`].
pub fn range<V: View + ?Sized>(
    view: &V,
    request: &Range,
    point: ReadPoint,
) -> Result<RangeOutcome, RangeError> {
    let at = point.resolve(request.revision)?;
    let outcome = RangeOutcome { revision: point.revision, ..RangeOutcome::default() };
    if request.count_only {
        let count = count_of(view.count(&request.range, at)?);
        return Ok(RangeOutcome { count, ..outcome });
    }
    if request.is_streamable() {
        let mut cursor = RangeCursor::new(request, point)?;
        let chunk = cursor.next(view, usize::MAX)?;
        let end = chunk.end.expect("a chunk without bounds is the last one");
        return Ok(RangeOutcome { kvs: chunk.kvs, more: end.more, count: end.count, ..outcome });
    }
    let limit = limit_of(request.limit);
    // A range sorted by another field without a direction is cut in the order of the keys before it is sorted: etcd takes
    // any range without a direction for one in its default order (`txn/range.go`, isDefaultOrdering), and clients may see it.
    let cut_first = request.order == SortOrder::None && !request.is_filtered();
    let keys_max = if cut_first { limit.saturating_add(1) } else { usize::MAX };
    let mut found = keys(view, &request.range, at, keys_max)?;
    let is_whole = found.len() < keys_max;
    let count = if is_whole { found.len() as u64 } else { view.count(&request.range, at)? };
    found.retain(|(_, version)| request.keeps(version));
    let sorted = sort(view, request, found)?;
    let more = sorted.len() > limit;
    let kvs = sorted
        .into_iter()
        .take(limit)
        .map(|candidate| candidate.finish(view, request.keys_only))
        .collect::<Result<_, _>>()?;
    Ok(RangeOutcome { kvs, more, count: count_of(count), ..outcome })
}

/// The keys of a range with their versions, at most so many.
pub(crate) fn keys<V: View + ?Sized>(
    view: &V,
    range: &KeyRange,
    at: Revision,
    keys_max: usize,
) -> Result<Vec<(Bytes, Version)>, ReadFault> {
    let mut found = Vec::new();
    if keys_max == 0 {
        return Ok(found);
    }
    if let KeyRange::Single(key) = range {
        found.extend(view.lookup(key, at)?.map(|version| (key.clone(), version)));
        return Ok(found);
    }
    view.scan(range, at, &mut |key, version| {
        found.push((Bytes::copy_from_slice(key), *version));
        if found.len() < keys_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}

/// What of a range lies behind a key.
pub(crate) fn rest_after(range: &KeyRange, last: &[u8]) -> Option<KeyRange> {
    // The key with a zero byte behind it is the next possible one.
    let next = || Bytes::from([last, &[0]].concat());
    match range {
        KeyRange::Single(_) => None,
        KeyRange::Interval(_, end) => Some(KeyRange::Interval(next(), end.clone())),
        KeyRange::From(_) => Some(KeyRange::From(next())),
    }
}

pub(crate) fn damaged(key: &[u8], version: &Version, error: &DecodeError) -> ReadFault {
    ReadFault {
        message: format!(
            "the row of key {:?} at revision {} is no key-value pair: {error}; the data directory is damaged: replace \
             this member",
            Bytes::copy_from_slice(key),
            version.modified
        ),
    }
}

struct Candidate {
    key: Bytes,
    version: Version,
    /// Read already where the order hangs on it.
    kv: Option<EncodedKeyValue>,
}

impl Candidate {
    fn finish<V: View + ?Sized>(
        self,
        view: &V,
        keys_only: bool,
    ) -> Result<EncodedKeyValue, ReadFault> {
        match (keys_only, self.kv) {
            (true, None) => Ok(KeyValue::of_index(self.key, &self.version)),
            (true, Some(kv)) => {
                kv.without_value().map_err(|error| damaged(&self.key, &self.version, &error))
            }
            (false, None) => view.read(&self.key, &self.version),
            (false, Some(kv)) => Ok(kv),
        }
    }
}

fn sort<V: View + ?Sized>(
    view: &V,
    request: &Range,
    found: Vec<(Bytes, Version)>,
) -> Result<Vec<Candidate>, ReadFault> {
    let candidate = |(key, version)| Candidate { key, version, kv: None };
    let mut candidates: Vec<Candidate> = found.into_iter().map(candidate).collect();
    let descend = request.order == SortOrder::Descend;
    if descend && request.target != SortTarget::Key {
        // Equal ones stay in the order of their keys whatever the direction, so they are turned twice.
        candidates.reverse();
    }
    match request.target {
        // They come in this order.
        SortTarget::Key => {}
        SortTarget::Version => candidates.sort_by_key(|candidate| candidate.version.version),
        SortTarget::Create => candidates.sort_by_key(|candidate| candidate.version.created),
        SortTarget::Mod => candidates.sort_by_key(|candidate| candidate.version.modified.main),
        SortTarget::Value => candidates = sort_by_value(view, candidates)?,
    }
    if descend {
        candidates.reverse();
    }
    Ok(candidates)
}

fn sort_by_value<V: View + ?Sized>(
    view: &V,
    candidates: Vec<Candidate>,
) -> Result<Vec<Candidate>, ReadFault> {
    let mut valued = Vec::with_capacity(candidates.len());
    for Candidate { key, version, kv: _ } in candidates {
        let kv = view.read(&key, &version)?;
        let value = kv.value().map_err(|error| damaged(&key, &version, &error))?;
        valued.push((value, Candidate { key, version, kv: Some(kv) }));
    }
    valued.sort_by(|(left, _), (right, _)| left.cmp(right));
    Ok(valued.into_iter().map(|(_, candidate)| candidate).collect())
}

fn limit_of(limit: i64) -> usize {
    if limit <= 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) }
}

fn count_of(count: u64) -> i64 {
    i64::try_from(count).expect("fewer keys than 2^63 fit any disk")
}

/// A range that is read chunk by chunk, each at the same revision, without holding anything in between. The caller keeps
/// history at that revision from being compacted physically (storage's floor).
#[derive(Clone, Debug)]
pub struct RangeCursor {
    whole: KeyRange,
    rest: Option<KeyRange>,
    at: Revision,
    /// Pairs that the limit still allows.
    allowed: usize,
    keys_only: bool,
    passed: u64,
    ended: Option<RangeEnd>,
}

/// A part of a range's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeChunk {
    /// The pairs, in the order of their keys.
    pub kvs: Vec<EncodedKeyValue>,
    /// Of the last chunk only: what etcd's RangeStream puts there.
    pub end: Option<RangeEnd>,
}

/// How a range ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeEnd {
    /// Whether the limit cut some off.
    pub more: bool,
    /// How many keys the range holds, whatever the limit.
    pub count: i64,
}

impl RangeCursor {
    /// Begins at the start of the range and pins its revision.
    ///
    /// # Errors
    /// A revision that cannot be read.
    ///
    /// # Panics
    /// If the request is not [streamable](Range::is_streamable); the shell refuses those.
    pub fn new(request: &Range, point: ReadPoint) -> Result<Self, Rejected> {
        assert!(request.is_streamable(), "a sorted or filtered range is read as a whole");
        Ok(Self {
            whole: request.range.clone(),
            rest: (!request.count_only).then(|| request.range.clone()),
            at: point.resolve(request.revision)?,
            allowed: limit_of(request.limit),
            keys_only: request.keys_only,
            passed: 0,
            ended: None,
        })
    }

    /// The revision that every chunk is read at.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.at.main
    }

    /// The next chunk of at most `keys_max` pairs (at least one is tried). After the chunk with an end there is an
    /// empty one with the same end.
    ///
    /// # Errors
    /// A failed read.
    pub fn next<V: View + ?Sized>(
        &mut self,
        view: &V,
        keys_max: usize,
    ) -> Result<RangeChunk, ReadFault> {
        self.next_within(view, keys_max, usize::MAX)
    }

    /// As [`RangeCursor::next`], and ends the chunk once its pairs take `bytes_max` bytes: memory is bounded by that and
    /// one pair.
    ///
    /// # Errors
    /// A failed read.
    pub fn next_within<V: View + ?Sized>(
        &mut self,
        view: &V,
        keys_max: usize,
        bytes_max: usize,
    ) -> Result<RangeChunk, ReadFault> {
        let Some(range) = self.rest.clone() else {
            return Ok(RangeChunk { kvs: Vec::new(), end: Some(self.end(view)?) });
        };
        let wanted = keys_max.max(1).min(self.allowed);
        // One more than wanted tells whether there is more.
        let mut found = keys(view, &range, self.at, wanted.saturating_add(1))?;
        let mut beyond = found.len() > wanted;
        found.truncate(wanted);
        let mut kvs = Vec::with_capacity(found.len());
        let mut bytes = 0_usize;
        let mut last = None;
        let total = found.len();
        for (key, version) in found {
            let candidate = Candidate { key: key.clone(), version, kv: None };
            let kv = candidate.finish(view, self.keys_only)?;
            bytes = bytes.saturating_add(kv.0.len());
            kvs.push(kv);
            last = Some(key);
            if bytes >= bytes_max {
                break;
            }
        }
        beyond |= kvs.len() < total;
        self.allowed -= kvs.len();
        self.passed += kvs.len() as u64;
        if beyond && self.allowed > 0 {
            self.rest = last.and_then(|last| rest_after(&range, &last));
            return Ok(RangeChunk { kvs, end: None });
        }
        self.rest = None;
        if !beyond {
            // Every key was passed, so nobody need count them.
            self.ended = Some(RangeEnd { more: false, count: count_of(self.passed) });
        }
        Ok(RangeChunk { kvs, end: Some(self.end(view)?) })
    }

    fn end<V: View + ?Sized>(&mut self, view: &V) -> Result<RangeEnd, ReadFault> {
        if let Some(end) = self.ended {
            return Ok(end);
        }
        // The limit cut, or only the count was asked for.
        let count = view.count(&self.whole, self.at)?;
        let end = RangeEnd { more: self.allowed == 0, count: count_of(count) };
        self.ended = Some(end);
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelStore, Row, Store};

    const POINT: ReadPoint = ReadPoint { revision: 9, compacted: -1 };

    /// Keys `a` to `f`, put one after the other from revision 2 on, with values of 100 bytes.
    fn store() -> ModelStore {
        (b'a'..=b'f')
            .zip(2..)
            .map(|(key, revision)| row(Bytes::from(vec![key]), revision))
            .collect()
    }

    fn row(key: Bytes, revision: i64) -> Row {
        let value = Bytes::from(vec![b'v'; 100]);
        let kv = KeyValue {
            key: key.clone(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value,
            ..KeyValue::default()
        };
        Row {
            revision: Revision { main: revision, sub: 0 },
            key,
            kv: kv.encode(),
            created: revision,
            version: 1,
            tombstone: false,
        }
    }

    fn everything() -> Range {
        Range::of(KeyRange::From(Bytes::new()))
    }

    fn keys_of(kvs: &[EncodedKeyValue]) -> String {
        kvs.iter().map(|kv| String::from_utf8(kv.key().unwrap().to_vec()).unwrap()).collect()
    }

    /// The chunks' keys, and the end.
    fn chunks(request: &Range, keys_max: usize, bytes_max: usize) -> (Vec<String>, RangeEnd) {
        let store = store();
        let mut cursor = RangeCursor::new(request, POINT).unwrap();
        let mut chunks = Vec::new();
        loop {
            let chunk = cursor.next_within(&store, keys_max, bytes_max).unwrap();
            chunks.push(keys_of(&chunk.kvs));
            if let Some(end) = chunk.end {
                let after = cursor.next(&store, keys_max).unwrap();
                assert_eq!(after, RangeChunk { kvs: vec![], end: Some(end) });
                return (chunks, end);
            }
        }
    }

    #[test]
    fn a_chunk_is_bounded_by_keys_and_by_bytes() {
        let all = RangeEnd { more: false, count: 6 };
        for (keys_max, bytes_max, expected) in [
            (2, usize::MAX, vec!["ab", "cd", "ef"]),
            (4, usize::MAX, vec!["abcd", "ef"]),
            (6, usize::MAX, vec!["abcdef"]),
            // At least one pair a chunk, or it would never end.
            (0, usize::MAX, vec!["a", "b", "c", "d", "e", "f"]),
            (100, 0, vec!["a", "b", "c", "d", "e", "f"]),
            (100, 120, vec!["ab", "cd", "ef"]),
            (100, 330, vec!["abc", "def"]),
        ] {
            let (chunks, end) = chunks(&everything(), keys_max, bytes_max);
            assert_eq!((chunks, end), (expected.into_iter().map(Into::into).collect(), all));
        }
    }

    #[test]
    fn a_limit_ends_the_last_chunk_and_the_count_goes_on() {
        for (limit, expected, more) in [
            (4, vec!["abc", "d"], true),
            (3, vec!["abc"], true),
            (6, vec!["abc", "def"], false),
            (7, vec!["abc", "def"], false),
        ] {
            let (chunks, end) = chunks(&Range { limit, ..everything() }, 3, usize::MAX);
            let expected: Vec<String> = expected.into_iter().map(Into::into).collect();
            assert_eq!((chunks, end), (expected, RangeEnd { more, count: 6 }), "limit {limit}");
        }
    }

    #[test]
    fn a_count_is_an_end_without_pairs() {
        let request = Range { count_only: true, limit: 2, ..everything() };
        let (chunks, end) = chunks(&request, 3, usize::MAX);
        assert_eq!((chunks.concat().as_str(), end), ("", RangeEnd { more: false, count: 6 }));
    }

    #[test]
    fn later_writes_do_not_show_between_chunks() {
        let mut store = store();
        let reader = store.reader();
        let mut cursor = RangeCursor::new(&everything(), POINT).unwrap();
        assert_eq!(keys_of(&cursor.next(&reader, 3).unwrap().kvs), "abc");
        store.append(row(Bytes::from_static(b"d0"), 10));
        let rest = cursor.next(&reader, 9).unwrap();
        assert_eq!((keys_of(&rest.kvs), rest.end.unwrap().count), ("def".into(), 6));
        assert_eq!(cursor.revision(), 9);
    }

    #[test]
    fn what_cannot_be_streamed_is_said() {
        let streamable = [
            everything(),
            Range { order: SortOrder::Ascend, limit: 3, ..everything() },
            Range { keys_only: true, ..everything() },
        ];
        assert!(streamable.iter().all(Range::is_streamable));
        let not = [
            Range { order: SortOrder::Descend, ..everything() },
            Range { target: SortTarget::Mod, ..everything() },
            Range { min_mod_revision: 1, ..everything() },
            Range { max_mod_revision: 1, ..everything() },
            Range { min_create_revision: 1, ..everything() },
            Range { max_create_revision: 1, ..everything() },
        ];
        assert!(!not.iter().any(Range::is_streamable));
    }

    #[test]
    fn a_row_that_is_no_pair_is_a_fault_that_says_where() {
        let mut store = store();
        let damaged = EncodedKeyValue(Bytes::from_static(b"\x0a\x09"));
        store.append(Row { kv: damaged, ..row(Bytes::from_static(b"x"), 9) });
        let request = Range { target: SortTarget::Value, ..everything() };
        let Err(RangeError::Fault(fault)) = range(&store, &request, POINT) else {
            panic!("the row is damaged")
        };
        assert!(fault.message.contains("key b\"x\" at revision 9.0"), "{fault}");
    }

    #[test]
    fn a_failed_read_is_passed_on() {
        let mut store = store();
        assert!(range(&store, &everything(), POINT).is_ok());
        store.fail_reads("no");
        let fault = RangeError::Fault(ReadFault { message: "no".into() });
        assert_eq!(range(&store, &everything(), POINT), Err(fault));
    }
}
