//! Between the judge's words and the machine's: the only file that knows both.

use bytes::Bytes;
use quorate_machine as machine;
use quorate_machine::{
    Applied, Command, EncodedKeyValue, Event, KeyRange, LeaseId, Operation, OperationOutcome,
    Outcome as MachineOutcome, Rejected, SortOrder, SortTarget,
};
use quorate_replica::watch::WatchEvent;

use crate::judge::{
    self, Change, Compare, CompareTarget, Outcome, Pair, Range, Refusal, Relation, Request,
    Response, Selector, Sort, Txn,
};

/// Microseconds of a second: the world's times are microseconds, leases are granted in seconds.
pub(crate) const SECOND: u64 = 1_000_000;

pub(crate) fn key_range(keys: &Selector) -> KeyRange {
    KeyRange::from_wire(Bytes::from(keys.start.clone()), Bytes::from(keys.end.clone()))
}

pub(crate) fn range(range: &Range) -> machine::Range {
    let (order, target) = match range.sort {
        Sort::Key => (SortOrder::None, SortTarget::Key),
        Sort::KeyDescending => (SortOrder::Descend, SortTarget::Key),
        Sort::Modified => (SortOrder::Ascend, SortTarget::Mod),
        Sort::ModifiedDescending => (SortOrder::Descend, SortTarget::Mod),
    };
    machine::Range {
        limit: range.limit,
        revision: range.revision,
        order,
        target,
        keys_only: range.keys_only,
        count_only: range.count_only,
        ..machine::Range::of(key_range(&range.keys))
    }
}

fn put(put: &judge::Put) -> machine::Put {
    machine::Put {
        key: Bytes::from(put.key.clone()),
        value: Bytes::from(put.value.clone()),
        lease: LeaseId(put.lease),
        prev_kv: put.prev,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
    }
}

fn delete(delete: &judge::Delete) -> machine::DeleteRange {
    machine::DeleteRange { range: key_range(&delete.keys), prev_kv: delete.prev }
}

pub(crate) fn txn(txn: &Txn) -> machine::Txn {
    let branch = |requests: &[Request]| requests.iter().map(operation).collect();
    machine::Txn {
        compare: txn.compare.iter().map(compare).collect(),
        success: branch(&txn.success),
        failure: branch(&txn.failure),
    }
}

fn compare(compare: &Compare) -> machine::Compare {
    let relation = match compare.relation {
        Relation::Equal => machine::Relation::Equal,
        Relation::Greater => machine::Relation::Greater,
        Relation::Less => machine::Relation::Less,
        Relation::NotEqual => machine::Relation::NotEqual,
    };
    let target = match &compare.target {
        CompareTarget::Version(version) => machine::CompareTarget::Version(*version),
        CompareTarget::Create(revision) => machine::CompareTarget::CreateRevision(*revision),
        CompareTarget::Modified(revision) => machine::CompareTarget::ModRevision(*revision),
        CompareTarget::Lease(lease) => machine::CompareTarget::Lease(LeaseId(*lease)),
        CompareTarget::Value(value) => machine::CompareTarget::Value(Bytes::from(value.clone())),
    };
    machine::Compare { range: key_range(&compare.keys), relation, target }
}

fn operation(request: &Request) -> Operation {
    match request {
        Request::Put(request) => Operation::Put(put(request)),
        Request::Delete(request) => Operation::DeleteRange(delete(request)),
        Request::Range(request) => Operation::Range(range(request)),
        Request::Txn(request) => Operation::Txn(txn(request)),
        Request::Compact(_) | Request::Grant { .. } | Request::Revoke(_) | Request::Renew(_) => {
            panic!("no part of a transaction: {request:?}")
        }
    }
}

/// The command of a request; none for a range, which takes no entry of the log.
pub(crate) fn command(request: &Request) -> Option<Command> {
    Some(match request {
        Request::Put(request) => Command::Put(put(request)),
        Request::Delete(request) => Command::DeleteRange(delete(request)),
        Request::Range(_) => return None,
        Request::Txn(request) => Command::Txn(txn(request)),
        Request::Compact(revision) => Command::Compact { revision: *revision },
        Request::Grant { id, ttl } => Command::LeaseGrant {
            id: LeaseId(*id),
            ttl: i64::try_from(ttl / SECOND).expect("leases are short"),
        },
        Request::Revoke(id) => Command::LeaseRevoke { id: LeaseId(*id) },
        Request::Renew(id) => Command::LeaseRenew { ids: vec![LeaseId(*id)] },
    })
}

pub(crate) fn pair(kv: &EncodedKeyValue) -> Pair {
    let kv = kv.decode().expect("what the store answers are pairs");
    Pair {
        key: kv.key.to_vec(),
        value: kv.value.to_vec(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease.0,
    }
}

fn pairs(kvs: &[EncodedKeyValue]) -> Vec<Pair> {
    kvs.iter().map(pair).collect()
}

/// What the client of an applied request is told.
pub(crate) fn outcome(applied: &Applied) -> Outcome {
    match &applied.result {
        Err(rejected) => Outcome::Refused(refusal(*rejected)),
        Ok(outcome) => {
            let (response, revision) = response(outcome);
            Outcome::Answered { revision: revision.unwrap_or(applied.revision), response }
        }
    }
}

pub(crate) fn refusal(rejected: Rejected) -> Refusal {
    match rejected {
        Rejected::KeyNotFound => Refusal::KeyNotFound,
        Rejected::Compacted => Refusal::Compacted,
        Rejected::FutureRevision => Refusal::FutureRevision,
        Rejected::LeaseNotFound => Refusal::LeaseNotFound,
        Rejected::LeaseExists => Refusal::LeaseExists,
        Rejected::NoSpace
        | Rejected::FeatureLevel
        | Rejected::Corrupt
        | Rejected::MemberExists
        | Rejected::PeerUrlExists
        | Rejected::MemberNotFound
        | Rejected::MemberRemoved
        | Rejected::NotLearner
        | Rejected::TooManyLearners
        | Rejected::LastVoter
        | Rejected::LearnerUnpublished
        | Rejected::OtherIncarnation
        | Rejected::AuthRevisionOld => panic!("no client asked for what gives {rejected:?}"),
    }
}

/// An answer, and the revision of its header where that stands in the outcome itself.
fn response(outcome: &MachineOutcome) -> (Response, Option<i64>) {
    match outcome {
        MachineOutcome::Put(put) => (put_response(put), Some(put.revision)),
        MachineOutcome::DeleteRange(delete) => (delete_response(delete), Some(delete.revision)),
        MachineOutcome::Txn(txn) => (txn_response(txn), Some(txn.revision)),
        MachineOutcome::Compact => (Response::Compact, None),
        MachineOutcome::LeaseGrant { .. } => (Response::Grant, None),
        MachineOutcome::LeaseRevoke => (Response::Revoke, None),
        MachineOutcome::LeaseRenew(ttls) => (Response::Renew { alive: ttls[0].1 > 0 }, None),
        MachineOutcome::Alarm(_) | MachineOutcome::Members(_) | MachineOutcome::Done => {
            panic!("no client asked for what gives {outcome:?}")
        }
    }
}

fn put_response(put: &machine::PutOutcome) -> Response {
    Response::Put { prev: put.prev_kv.as_ref().map(pair) }
}

fn delete_response(delete: &machine::DeleteRangeOutcome) -> Response {
    Response::Delete { deleted: delete.deleted, prev: pairs(&delete.prev_kvs) }
}

pub(crate) fn range_response(range: &machine::RangeOutcome) -> Response {
    Response::Range { pairs: pairs(&range.kvs), more: range.more, count: range.count }
}

pub(crate) fn txn_response(txn: &machine::TxnOutcome) -> Response {
    let responses = txn.responses.iter().map(|response| match response {
        OperationOutcome::Range(range) => range_response(range),
        OperationOutcome::Put(put) => put_response(put),
        OperationOutcome::DeleteRange(delete) => delete_response(delete),
        OperationOutcome::Txn(txn) => txn_response(txn),
    });
    Response::Txn { succeeded: txn.succeeded, responses: responses.collect() }
}

/// A change as the machine made it.
pub(crate) fn change(event: &Event) -> Change {
    Change { key: event.key.to_vec(), pair: (!event.deleted).then(|| pair(&event.kv)) }
}

/// A change as a watch is told it.
pub(crate) fn watch_event(event: &WatchEvent, prev: bool) -> judge::WatchEvent {
    judge::WatchEvent {
        revision: event.revision.main,
        key: event.key.to_vec(),
        pair: (!event.deleted).then(|| pair(&event.kv)),
        prev: event.prev_kv.as_ref().filter(|_| prev).map(pair),
    }
}
