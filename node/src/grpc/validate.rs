//! What etcd refuses before it proposes (`api/v3rpc/key.go`): shapes, limits and contradictions within one request.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};
use tonic::Status;

use super::status::EtcdError;

/// The greatest TTL of a lease in seconds (`lease/lessor.go`, MaxLeaseTTL).
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// A range needs a key and known enums.
///
/// # Errors
/// [`EtcdError::EmptyKey`], [`EtcdError::InvalidSortOption`].
pub fn range(request: &RangeRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(EtcdError::InvalidSortOption);
    }
    Ok(())
}

/// A streamed range must come in the order of the keys, unfiltered.
///
/// # Errors
/// As [`range`]; Unimplemented for an order or filter that would need the whole range first, so that clients fall
/// back to a unary range.
pub fn range_stream(request: &RangeRequest) -> Result<(), Status> {
    range(request)?;
    // As in etcd (`txn/range.go`, IsDefaultOrdering), no direction means the order of the keys, whatever the field.
    let by_key = match request.sort_order() {
        SortOrder::None => true,
        SortOrder::Ascend => request.sort_target() == SortTarget::Key,
        SortOrder::Descend => false,
    };
    if !by_key {
        return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|revision| *revision != 0) {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    Ok(())
}

/// A put needs a key, and no value or lease that it asks to ignore.
///
/// # Errors
/// [`EtcdError::EmptyKey`], [`EtcdError::ValueProvided`], [`EtcdError::LeaseProvided`].
pub fn put(request: &PutRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(EtcdError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(EtcdError::LeaseProvided);
    }
    Ok(())
}

/// A delete needs a key.
///
/// # Errors
/// [`EtcdError::EmptyKey`].
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() { Err(EtcdError::EmptyKey) } else { Ok(()) }
}

/// A lease's TTL has a bound.
///
/// # Errors
/// [`EtcdError::LeaseTtlTooLarge`].
pub fn lease_grant(request: &LeaseGrantRequest) -> Result<(), EtcdError> {
    if request.ttl > LEASE_TTL_MAX { Err(EtcdError::LeaseTtlTooLarge) } else { Ok(()) }
}

/// A transaction: each part by itself, the number of operations, and no two writes of one key on one path.
///
/// # Errors
/// The first rule that is broken, in etcd's order.
pub fn txn(request: &TxnRequest, operations_max: usize) -> Result<(), EtcdError> {
    shape(request, operations_max)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

/// A transaction within another may have as many operations as this level left over.
fn shape(request: &TxnRequest, operations_max: usize) -> Result<(), EtcdError> {
    let operations = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = operations_max.checked_sub(operations) else {
        return Err(EtcdError::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EtcdError::EmptyKey);
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(request)) => shape(request, left)?,
            // etcd's answer to an empty operation.
            None => return Err(EtcdError::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations may write: keys that are put, and ranges that are deleted.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: Intervals,
}

/// Collects the writes of one branch, and refuses two that meet. A nested transaction's branches exclude each other,
/// so a key may be put in both. etcd takes a delete with the end "\0" for an empty range here and lets a put meet
/// it; it is everything from the key on, and refused.
fn writes(operations: &[RequestOp]) -> Result<Writes<'_>, EtcdError> {
    let mut all = Writes::default();
    // This level's deletes first, since a put of a nested transaction may meet them.
    for operation in operations {
        if let Some(Request::RequestDeleteRange(delete)) = &operation.request {
            all.deletes.insert(delete);
        }
    }
    for operation in operations {
        if let Some(Request::RequestTxn(txn)) = &operation.request {
            let success = writes(&txn.success)?;
            let failure = writes(&txn.failure)?;
            for key in &success.puts {
                all.put(key)?;
            }
            for key in failure.puts {
                if !success.puts.contains(key) {
                    all.put(key)?;
                }
            }
            all.deletes.merge(success.deletes);
            all.deletes.merge(failure.deletes);
        }
    }
    for operation in operations {
        if let Some(Request::RequestPut(put)) = &operation.request {
            all.put(&put.key)?;
        }
    }
    Ok(all)
}

impl<'a> Writes<'a> {
    fn put(&mut self, key: &'a Bytes) -> Result<(), EtcdError> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(EtcdError::DuplicateKey);
        }
        Ok(())
    }
}

/// A union of key ranges, disjoint, by start; no end means everything.
#[derive(Default)]
struct Intervals(BTreeMap<Bytes, Option<Bytes>>);

impl Intervals {
    fn insert(&mut self, delete: &DeleteRangeRequest) {
        let start = delete.key.clone();
        match delete.range_end.as_ref() {
            // One key: up to the next possible one.
            [] => self.add(start.clone(), Some([start.as_ref(), &[0]].concat().into())),
            [0] => self.add(start, None),
            _ => self.add(start, Some(delete.range_end.clone())),
        }
    }

    fn merge(&mut self, other: Self) {
        for (start, end) in other.0 {
            self.add(start, end);
        }
    }

    /// Adds one and swallows what it touches.
    fn add(&mut self, mut start: Bytes, mut end: Option<Bytes>) {
        if end.as_ref().is_some_and(|end| *end <= start) {
            return;
        }
        let reaches = |end: &Option<Bytes>, key: &Bytes| end.as_ref().is_none_or(|end| end >= key);
        while let Some((before, theirs)) = self.0.range(..=start.clone()).next_back() {
            if !reaches(theirs, &start) {
                break;
            }
            let (before, theirs) = (before.clone(), theirs.clone());
            self.0.remove(&before);
            end = later(end, theirs);
            start = before;
        }
        while let Some((next, _)) = self.0.range(start.clone()..).next() {
            if !reaches(&end, next) {
                break;
            }
            let next = next.clone();
            let theirs = self.0.remove(&next).expect("it was just found");
            end = later(end, theirs);
        }
        self.0.insert(start, end);
    }

    fn contains(&self, key: &Bytes) -> bool {
        self.0
            .range(..=key.clone())
            .next_back()
            .is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end))
    }
}

/// The later of two ends; none is the end of everything.
fn later(left: Option<Bytes>, right: Option<Bytes>) -> Option<Bytes> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.max(right)),
        (None, _) | (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::Compare;
    use tonic::Code;

    use super::*;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn a_put(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: key.into(), ..Default::default() }))
    }

    fn a_delete(key: &'static str, end: &'static str) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.into(),
            range_end: end.into(),
            prev_kv: false,
        }))
    }

    fn a_txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest { compare: Vec::new(), success, failure }))
    }

    fn check(success: Vec<RequestOp>) -> Result<(), EtcdError> {
        txn(&TxnRequest { compare: Vec::new(), success, failure: Vec::new() }, 128)
    }

    #[test]
    fn shapes_row_by_row() {
        let key = || Bytes::from_static(b"k");
        assert_eq!(range(&RangeRequest::default()), Err(EtcdError::EmptyKey));
        for (sort_order, sort_target, expected) in [
            (0, 0, Ok(())),
            (2, 4, Ok(())),
            (3, 0, Err(EtcdError::InvalidSortOption)),
            (0, 5, Err(EtcdError::InvalidSortOption)),
            (-1, 0, Err(EtcdError::InvalidSortOption)),
        ] {
            let request =
                RangeRequest { key: key(), sort_order, sort_target, ..Default::default() };
            assert_eq!(range(&request), expected, "{sort_order} {sort_target}");
        }
        assert_eq!(put(&PutRequest::default()), Err(EtcdError::EmptyKey));
        let with = |value: &'static str, lease, ignore_value, ignore_lease| {
            put(&PutRequest {
                key: key(),
                value: value.into(),
                lease,
                ignore_value,
                ignore_lease,
                prev_kv: false,
            })
        };
        assert_eq!(with("v", 0, true, false), Err(EtcdError::ValueProvided));
        assert_eq!(with("", 1, false, true), Err(EtcdError::LeaseProvided));
        assert_eq!(with("", 1, true, false), Ok(()));
        assert_eq!(with("v", 0, false, true), Ok(()));
        assert_eq!(delete_range(&DeleteRangeRequest::default()), Err(EtcdError::EmptyKey));
        let grant = |ttl| lease_grant(&LeaseGrantRequest { ttl, id: 0 });
        assert_eq!(grant(LEASE_TTL_MAX), Ok(()));
        assert_eq!(grant(LEASE_TTL_MAX + 1), Err(EtcdError::LeaseTtlTooLarge));
    }

    #[test]
    fn a_stream_in_another_order_is_unimplemented_so_that_clients_fall_back() {
        let base = RangeRequest { key: Bytes::from_static(b"k"), ..Default::default() };
        assert!(range_stream(&base).is_ok());
        assert!(range_stream(&RangeRequest { sort_order: 1, ..base.clone() }).is_ok());
        assert!(range_stream(&RangeRequest { sort_target: 3, ..base.clone() }).is_ok());
        for request in [
            RangeRequest { sort_order: 2, ..base.clone() },
            RangeRequest { sort_target: 3, sort_order: 1, ..base.clone() },
            RangeRequest { min_mod_revision: 1, ..base.clone() },
            RangeRequest { max_create_revision: 1, ..base.clone() },
        ] {
            assert_eq!(
                range_stream(&request).unwrap_err().code(),
                Code::Unimplemented,
                "{request:?}"
            );
        }
        let status = range_stream(&RangeRequest { sort_order: 9, ..base }).unwrap_err();
        assert_eq!(status.message(), EtcdError::InvalidSortOption.text());
    }

    #[test]
    fn the_number_of_operations_is_bounded_over_all_levels() {
        let puts = |count: usize| -> Vec<RequestOp> {
            (0..count)
                .map(|number| {
                    op(Request::RequestPut(PutRequest {
                        key: format!("{number:04}").into(),
                        ..Default::default()
                    }))
                })
                .collect()
        };
        assert_eq!(check(puts(128)), Ok(()));
        assert_eq!(check(puts(129)), Err(EtcdError::TooManyOps));
        // One operation at the outer level leaves 127.
        assert_eq!(check(vec![a_txn(puts(127), Vec::new())]), Ok(()));
        assert_eq!(check(vec![a_txn(puts(128), Vec::new())]), Err(EtcdError::TooManyOps));
        let compare = |count| TxnRequest {
            compare: vec![Compare { key: Bytes::from_static(b"k"), ..Default::default() }; count],
            ..Default::default()
        };
        assert_eq!(txn(&compare(128), 128), Ok(()));
        assert_eq!(txn(&compare(129), 128), Err(EtcdError::TooManyOps));
        let keyless = TxnRequest { compare: vec![Compare::default()], ..Default::default() };
        assert_eq!(txn(&keyless, 128), Err(EtcdError::EmptyKey));
        assert_eq!(check(vec![RequestOp::default()]), Err(EtcdError::KeyNotFound));
        assert_eq!(check(vec![a_put("")]), Err(EtcdError::EmptyKey));
    }

    /// etcd's own cases (`key_test.go`, TestCheckIntervals) by scenario, and the ends of ranges.
    #[test]
    fn two_writes_of_one_key_on_one_path_are_refused() {
        let duplicate = Err(EtcdError::DuplicateKey);
        for (name, operations, expected) in [
            ("two keys", vec![a_put("a"), a_put("b")], Ok(())),
            ("one key twice", vec![a_put("a"), a_put("a")], duplicate),
            ("put and delete of it", vec![a_put("a"), a_delete("a", "")], duplicate),
            ("delete first", vec![a_delete("a", ""), a_put("a")], duplicate),
            ("beside a delete", vec![a_delete("a", ""), a_put("ab")], Ok(())),
            ("in a deleted range", vec![a_delete("a", "c"), a_put("b")], duplicate),
            ("at the end of a deleted range", vec![a_delete("a", "c"), a_put("c")], Ok(())),
            ("before a deleted range", vec![a_delete("b", "c"), a_put("a")], Ok(())),
            ("after everything from a key", vec![a_delete("b", "\0"), a_put("z")], duplicate),
            ("before everything from a key", vec![a_delete("b", "\0"), a_put("a")], Ok(())),
            ("two deletes of one key", vec![a_delete("a", ""), a_delete("a", "z")], Ok(())),
            ("an empty range", vec![a_delete("c", "a"), a_put("b")], Ok(())),
            (
                "both branches of a nested one",
                vec![a_txn(vec![a_put("a")], vec![a_put("a")])],
                Ok(()),
            ),
            (
                "two nested ones",
                vec![a_txn(vec![a_put("a")], vec![]), a_txn(vec![], vec![a_put("a")])],
                duplicate,
            ),
            ("nested and outer", vec![a_txn(vec![a_put("a")], vec![]), a_put("a")], duplicate),
            (
                "nested put, outer delete",
                vec![a_txn(vec![], vec![a_put("b")]), a_delete("a", "c")],
                duplicate,
            ),
            (
                "nested delete, outer put",
                vec![a_txn(vec![a_delete("a", "c")], vec![]), a_put("b")],
                duplicate,
            ),
            (
                "deletes of both branches count",
                vec![a_txn(vec![a_delete("a", "b")], vec![a_delete("b", "c")]), a_put("bb")],
                duplicate,
            ),
        ] {
            assert_eq!(check(operations), expected, "{name}");
        }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut intervals = Intervals::default();
        let mut add = |start: &'static str, end: &'static str| {
            intervals.add(start.into(), Some(end.into()).filter(|end: &Bytes| !end.is_empty()));
        };
        add("c", "d");
        add("a", "b");
        add("m", "n");
        add("b", "c");
        add("x", "");
        add("l", "z");
        let listed: Vec<_> =
            intervals.0.iter().map(|(start, end)| (start.as_ref(), end.as_deref())).collect();
        assert_eq!(listed, [(&b"a"[..], Some(&b"d"[..])), (&b"l"[..], None)]);
    }
}
