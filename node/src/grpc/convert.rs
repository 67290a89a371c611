//! The border between etcd's messages and the machine's types.

use quorate_machine::{
    Alarm, Compare, CompareTarget, DeleteRange, KeyRange, LeaseId, Member, MemberId, Operation,
    Put, Range, Relation, SortOrder, SortTarget, Txn,
};
use quorate_proto::etcdserverpb::{
    self as pb, AlarmType, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
    WatchCreateRequest,
    compare::{CompareResult, CompareTarget as WireTarget, TargetUnion},
    range_request,
    request_op::Request,
    watch_create_request::FilterType,
};
use quorate_replica::watch::WatchSpec;
use tonic::Status;

use super::status::EtcdError;

/// A range, checked by `validate` before.
#[must_use]
pub fn range(request: RangeRequest) -> Range {
    let order = match request.sort_order() {
        range_request::SortOrder::None => SortOrder::None,
        range_request::SortOrder::Ascend => SortOrder::Ascend,
        range_request::SortOrder::Descend => SortOrder::Descend,
    };
    let target = match request.sort_target() {
        range_request::SortTarget::Key => SortTarget::Key,
        range_request::SortTarget::Version => SortTarget::Version,
        range_request::SortTarget::Create => SortTarget::Create,
        range_request::SortTarget::Mod => SortTarget::Mod,
        range_request::SortTarget::Value => SortTarget::Value,
    };
    Range {
        range: KeyRange::from_wire(request.key, request.range_end),
        limit: request.limit,
        revision: request.revision,
        order,
        target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

/// A put.
#[must_use]
pub fn put(request: PutRequest) -> Put {
    Put {
        key: request.key,
        value: request.value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A delete.
#[must_use]
pub fn delete_range(request: DeleteRangeRequest) -> DeleteRange {
    DeleteRange {
        range: KeyRange::from_wire(request.key, request.range_end),
        prev_kv: request.prev_kv,
    }
}

/// A transaction, checked by `validate` before.
///
/// # Errors
/// A comparison by a rule or field that does not exist. (etcd lets an unknown rule hold; nobody can mean that.)
pub fn txn(request: TxnRequest) -> Result<Txn, Status> {
    Ok(Txn {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: operations(request.success)?,
        failure: operations(request.failure)?,
    })
}

fn operations(requests: Vec<pb::RequestOp>) -> Result<Vec<Operation>, Status> {
    requests
        .into_iter()
        .map(|operation| match operation.request {
            Some(Request::RequestRange(request)) => Ok(Operation::Range(range(request))),
            Some(Request::RequestPut(request)) => Ok(Operation::Put(put(request))),
            Some(Request::RequestDeleteRange(request)) => {
                Ok(Operation::DeleteRange(delete_range(request)))
            }
            Some(Request::RequestTxn(request)) => txn(request).map(Operation::Txn),
            None => Err(EtcdError::KeyNotFound.into()),
        })
        .collect()
}

/// A comparison. A value given for another field than the one named counts as not given, which is zero, as in etcd
/// (`server/etcdserver/txn/txn.go`, compareKV).
fn compare(request: pb::Compare) -> Result<Compare, Status> {
    let relation = match CompareResult::try_from(request.result) {
        Ok(CompareResult::Equal) => Relation::Equal,
        Ok(CompareResult::Greater) => Relation::Greater,
        Ok(CompareResult::Less) => Relation::Less,
        Ok(CompareResult::NotEqual) => Relation::NotEqual,
        Err(_) => return Err(Status::invalid_argument("etcdserver: invalid compare result")),
    };
    let given = request.target_union;
    let target = match (WireTarget::try_from(request.target), given) {
        (Ok(WireTarget::Version), Some(TargetUnion::Version(number))) => {
            CompareTarget::Version(number)
        }
        (Ok(WireTarget::Version), _) => CompareTarget::Version(0),
        (Ok(WireTarget::Create), Some(TargetUnion::CreateRevision(number))) => {
            CompareTarget::CreateRevision(number)
        }
        (Ok(WireTarget::Create), _) => CompareTarget::CreateRevision(0),
        (Ok(WireTarget::Mod), Some(TargetUnion::ModRevision(number))) => {
            CompareTarget::ModRevision(number)
        }
        (Ok(WireTarget::Mod), _) => CompareTarget::ModRevision(0),
        (Ok(WireTarget::Value), Some(TargetUnion::Value(value))) => CompareTarget::Value(value),
        (Ok(WireTarget::Value), _) => CompareTarget::Value(bytes::Bytes::new()),
        (Ok(WireTarget::Lease), Some(TargetUnion::Lease(id))) => CompareTarget::Lease(LeaseId(id)),
        (Ok(WireTarget::Lease), _) => CompareTarget::Lease(LeaseId::NONE),
        (Err(_), _) => return Err(Status::invalid_argument("etcdserver: invalid compare target")),
    };
    Ok(Compare { range: KeyRange::from_wire(request.key, request.range_end), relation, target })
}

/// Whether every range of a transaction may be answered from this member's own state.
#[must_use]
pub fn is_serializable(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => range.serializable,
        // etcd looks at ranges only (`txn/util.go`, IsTxnSerializable): a nested transaction is not.
        Some(Request::RequestTxn(_) | Request::RequestPut(_) | Request::RequestDeleteRange(_))
        | None => false,
    })
}

/// What a transaction may add to the store, by etcd's measure (`storage/quota.go`): its greater branch.
#[must_use]
pub fn txn_cost(request: &TxnRequest) -> u64 {
    let cost = |operations: &[pb::RequestOp]| -> u64 {
        operations
            .iter()
            .map(|operation| match &operation.request {
                Some(Request::RequestPut(put)) => put_cost(put),
                Some(Request::RequestTxn(txn)) => txn_cost(txn),
                Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
            })
            .sum()
    };
    cost(&request.success).max(cost(&request.failure))
}

/// What a put may add to the store, by etcd's measure: 256 bytes of overhead, key and value.
#[must_use]
pub fn put_cost(request: &PutRequest) -> u64 {
    (256 + request.key.len() + request.value.len()) as u64
}

/// What to watch. An empty key is the smallest, "\0".
#[must_use]
pub fn watch(request: &WatchCreateRequest) -> WatchSpec {
    let filtered = |filter: FilterType| request.filters.contains(&(filter as i32));
    let key =
        if request.key.is_empty() { bytes::Bytes::from_static(&[0]) } else { request.key.clone() };
    WatchSpec {
        range: KeyRange::from_wire(key, request.range_end.clone()),
        start_revision: request.start_revision,
        no_put: filtered(FilterType::Noput),
        no_delete: filtered(FilterType::Nodelete),
        prev_kv: request.prev_kv,
        progress_notify: request.progress_notify,
    }
}

/// A member for clients.
#[must_use]
pub fn member(member: &Member) -> pb::Member {
    pb::Member {
        id: member.id.0,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.learner,
    }
}

/// Members for clients.
#[must_use]
pub fn members(members: &[Member]) -> Vec<pb::Member> {
    members.iter().map(member).collect()
}

/// An alarm for clients.
#[must_use]
pub fn alarm((member, alarm): (MemberId, Alarm)) -> pb::AlarmMember {
    let alarm = match alarm {
        Alarm::None => AlarmType::None,
        Alarm::NoSpace => AlarmType::Nospace,
        Alarm::Corrupt => AlarmType::Corrupt,
    };
    pb::AlarmMember { member_id: member.0, alarm: alarm as i32 }
}

/// An alarm from a client.
///
/// # Errors
/// A number that names none.
pub fn alarm_type(number: i32) -> Result<Alarm, Status> {
    match AlarmType::try_from(number) {
        Ok(AlarmType::None) => Ok(Alarm::None),
        Ok(AlarmType::Nospace) => Ok(Alarm::NoSpace),
        Ok(AlarmType::Corrupt) => Ok(Alarm::Corrupt),
        Err(_) => Err(Status::invalid_argument("etcdserver: unknown alarm type")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_comparison_takes_only_a_value_of_its_own_field() {
        let with = |target: WireTarget, union: Option<TargetUnion>| {
            compare(pb::Compare {
                target: target as i32,
                target_union: union,
                key: Bytes::from_static(b"k"),
                ..Default::default()
            })
            .unwrap()
            .target
        };
        let version = || Some(TargetUnion::Version(7));
        for (target, union, expected) in [
            (WireTarget::Version, version(), CompareTarget::Version(7)),
            (WireTarget::Version, None, CompareTarget::Version(0)),
            (WireTarget::Create, version(), CompareTarget::CreateRevision(0)),
            (
                WireTarget::Create,
                Some(TargetUnion::CreateRevision(3)),
                CompareTarget::CreateRevision(3),
            ),
            (WireTarget::Mod, version(), CompareTarget::ModRevision(0)),
            (WireTarget::Mod, Some(TargetUnion::ModRevision(3)), CompareTarget::ModRevision(3)),
            (WireTarget::Value, version(), CompareTarget::Value(Bytes::new())),
            (
                WireTarget::Value,
                Some(TargetUnion::Value("v".into())),
                CompareTarget::Value("v".into()),
            ),
            (WireTarget::Lease, version(), CompareTarget::Lease(LeaseId(0))),
            (WireTarget::Lease, Some(TargetUnion::Lease(9)), CompareTarget::Lease(LeaseId(9))),
        ] {
            assert_eq!(with(target, union), expected);
        }
        assert!(compare(pb::Compare { result: 9, ..Default::default() }).is_err());
        assert!(compare(pb::Compare { target: 9, ..Default::default() }).is_err());
    }

    #[test]
    fn an_empty_watch_key_is_the_smallest() {
        let spec = |key: &'static str, end: &'static str| {
            watch(&WatchCreateRequest {
                key: key.into(),
                range_end: end.into(),
                ..Default::default()
            })
            .range
        };
        assert_eq!(spec("", ""), KeyRange::Single(Bytes::from_static(&[0])));
        assert_eq!(spec("", "\0"), KeyRange::From(Bytes::new()));
        assert_eq!(spec("a", "\0"), KeyRange::From("a".into()));
        assert_eq!(spec("a", "b"), KeyRange::Interval("a".into(), "b".into()));
        let filtered = watch(&WatchCreateRequest { filters: vec![1, 77], ..Default::default() });
        assert!(filtered.no_delete && !filtered.no_put, "an unknown filter is skipped, as in etcd");
    }

    #[test]
    fn a_transaction_costs_its_greater_branch() {
        let put = |value: usize| pb::RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: "k".into(),
                value: vec![0; value].into(),
                ..Default::default()
            })),
        };
        let request = TxnRequest {
            success: vec![put(10)],
            failure: vec![
                put(1),
                pb::RequestOp {
                    request: Some(Request::RequestTxn(TxnRequest {
                        success: vec![put(20)],
                        ..Default::default()
                    })),
                },
            ],
            ..Default::default()
        };
        assert_eq!(txn_cost(&request), (256 + 1 + 1) + (256 + 1 + 20));
    }

    #[test]
    fn only_flat_serializable_ranges_make_a_transaction_serializable() {
        let range = |serializable| pb::RequestOp {
            request: Some(Request::RequestRange(RangeRequest {
                serializable,
                ..Default::default()
            })),
        };
        let txn = |success| TxnRequest { success, ..Default::default() };
        assert!(is_serializable(&txn(vec![range(true)])));
        assert!(!is_serializable(&txn(vec![range(true), range(false)])));
        let nested = pb::RequestOp { request: Some(Request::RequestTxn(txn(vec![range(true)]))) };
        assert!(!is_serializable(&txn(vec![nested])));
    }
}
