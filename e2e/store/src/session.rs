//! One client of the store: does what the judge calls a request, and reports how it ended in the judge's words.

use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::{
    compare, kv_client::KvClient, lease_client::LeaseClient, request_op, response_op,
};
use quorate_proto::mvccpb;
use quorate_sim::judge::{
    Compare, CompareTarget, Outcome, Pair, Range, Refusal, Relation, Request, Response, Selector,
    Txn,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long a call may take before the client gives up and no longer knows. Longer than an election, shorter than the
/// server's own limit of 7 s.
const CALL: Duration = Duration::from_secs(5);

/// How long a dead member may keep a client from trying the next one.
const CONNECT: Duration = Duration::from_secs(1);

/// Nanoseconds of a second: the judge counts leases in the unit of the history, etcd in seconds.
const NANOS: u64 = 1_000_000_000;

/// A connection to each member, and the one in use.
#[derive(Clone, Debug)]
pub struct Session {
    channels: Vec<Channel>,
    at: usize,
}

/// A lazy connection to a member.
///
/// # Panics
/// The URL is none.
#[must_use]
pub fn channel(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a member's URL is well formed");
    endpoint.connect_timeout(CONNECT).tcp_nodelay(true).connect_lazy()
}

impl Session {
    /// A client that begins with the member of this place.
    #[must_use]
    pub fn new(urls: &[String], first: usize) -> Self {
        Self { channels: urls.iter().map(|url| channel(url)).collect(), at: first % urls.len() }
    }

    /// Does a request at the member in use; after a failure the next one is in use.
    pub async fn perform(&mut self, request: &Request) -> Outcome {
        let channel = self.channels[self.at].clone();
        let answer = match tokio::time::timeout(CALL, call(channel, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("the client gave up")),
        };
        match answer {
            Ok((revision, response)) => Outcome::Answered { revision, response },
            Err(status) => {
                let outcome = outcome_of(&status, request);
                if !matches!(outcome, Outcome::Refused(_)) {
                    self.at = (self.at + 1) % self.channels.len();
                }
                outcome
            }
        }
    }
}

async fn call(channel: Channel, request: &Request) -> Result<(i64, Response), Status> {
    // No limit: a range of all keys is larger than tonic's default.
    let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    let mut leases = LeaseClient::new(channel);
    match request {
        Request::Put(put) => {
            let answer = kv.put(put_to_wire(put)).await?.into_inner();
            let prev = answer.prev_kv.map(pair);
            Ok((revision(answer.header), Response::Put { prev }))
        }
        Request::Delete(delete) => {
            let answer = kv.delete_range(delete_to_wire(delete)).await?.into_inner();
            Ok((revision(answer.header), deleted(answer)))
        }
        Request::Range(range) => {
            let answer = kv.range(range_to_wire(range)).await?.into_inner();
            Ok((revision(answer.header), found(answer)))
        }
        Request::Txn(txn) => {
            let answer = kv.txn(txn_to_wire(txn)).await?.into_inner();
            Ok((revision(answer.header), decided(answer)))
        }
        Request::Compact(at) => {
            let wire = pb::CompactionRequest { revision: *at, physical: false };
            let answer = kv.compact(wire).await?.into_inner();
            Ok((revision(answer.header), Response::Compact))
        }
        Request::Grant { id, ttl } => {
            let ttl = i64::try_from(ttl / NANOS).expect("a lease of less than centuries");
            let answer = leases.lease_grant(pb::LeaseGrantRequest { ttl, id: *id }).await?;
            Ok((revision(answer.into_inner().header), Response::Grant))
        }
        Request::Revoke(id) => {
            let answer = leases.lease_revoke(pb::LeaseRevokeRequest { id: *id }).await?;
            Ok((revision(answer.into_inner().header), Response::Revoke))
        }
        Request::Renew(id) => {
            let one = tokio_stream::once(pb::LeaseKeepAliveRequest { id: *id });
            let mut answers = leases.lease_keep_alive(one).await?.into_inner();
            let ended = || Status::unavailable("the stream ended without an answer");
            let answer = answers.message().await?.ok_or_else(ended)?;
            Ok((revision(answer.header), Response::Renew { alive: answer.ttl > 0 }))
        }
    }
}

/// What a failed call means. What the store refuses it refuses for good; of anything else a reader knows that nothing
/// happened, and a writer knows nothing.
fn outcome_of(status: &Status, request: &Request) -> Outcome {
    let refusal = match status.message() {
        "etcdserver: key not found" => Some(Refusal::KeyNotFound),
        "etcdserver: mvcc: required revision has been compacted" => Some(Refusal::Compacted),
        "etcdserver: mvcc: required revision is a future revision" => Some(Refusal::FutureRevision),
        "etcdserver: requested lease not found" => Some(Refusal::LeaseNotFound),
        "etcdserver: lease already exists" => Some(Refusal::LeaseExists),
        _ => None,
    };
    assert!(
        refusal.is_some()
            || !matches!(
                status.code(),
                Code::InvalidArgument | Code::Unimplemented | Code::DataLoss
            ),
        "{request:?} was answered with {status}"
    );
    match refusal {
        Some(refusal) => Outcome::Refused(refusal),
        None if is_read(request) => Outcome::Failed,
        None => Outcome::Unknown,
    }
}

fn is_read(request: &Request) -> bool {
    match request {
        Request::Range(_) => true,
        Request::Txn(txn) => txn.success.iter().chain(&txn.failure).all(is_read),
        Request::Put(_)
        | Request::Delete(_)
        | Request::Compact(_)
        | Request::Grant { .. }
        | Request::Revoke(_)
        | Request::Renew(_) => false,
    }
}

fn revision(header: Option<pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// A pair as the judge has it.
#[must_use]
pub fn pair(kv: mvccpb::KeyValue) -> Pair {
    let mvccpb::KeyValue { key, create_revision, mod_revision, version, value, lease } = kv;
    let (key, value) = (key.to_vec(), value.to_vec());
    Pair { key, value, create_revision, mod_revision, version, lease }
}

fn found(answer: pb::RangeResponse) -> Response {
    let pairs = answer.kvs.into_iter().map(pair).collect();
    Response::Range { pairs, more: answer.more, count: answer.count }
}

fn deleted(answer: pb::DeleteRangeResponse) -> Response {
    let prev = answer.prev_kvs.into_iter().map(pair).collect();
    Response::Delete { deleted: answer.deleted, prev }
}

fn decided(answer: pb::TxnResponse) -> Response {
    let parts = answer.responses.into_iter().filter_map(|part| part.response);
    let responses = parts
        .map(|part| match part {
            response_op::Response::ResponseRange(answer) => found(answer),
            response_op::Response::ResponsePut(answer) => {
                Response::Put { prev: answer.prev_kv.map(pair) }
            }
            response_op::Response::ResponseDeleteRange(answer) => deleted(answer),
            response_op::Response::ResponseTxn(answer) => decided(answer),
        })
        .collect();
    Response::Txn { succeeded: answer.succeeded, responses }
}

fn put_to_wire(put: &quorate_sim::judge::Put) -> pb::PutRequest {
    pb::PutRequest {
        key: put.key.clone().into(),
        value: put.value.clone().into(),
        lease: put.lease,
        prev_kv: put.prev,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
    }
}

fn delete_to_wire(delete: &quorate_sim::judge::Delete) -> pb::DeleteRangeRequest {
    let Selector { start, end } = delete.keys.clone();
    pb::DeleteRangeRequest { key: start.into(), range_end: end.into(), prev_kv: delete.prev }
}

fn range_to_wire(range: &Range) -> pb::RangeRequest {
    use pb::range_request::{SortOrder, SortTarget};
    use quorate_sim::judge::Sort;
    let (order, target) = match range.sort {
        Sort::Key => (SortOrder::None, SortTarget::Key),
        Sort::KeyDescending => (SortOrder::Descend, SortTarget::Key),
        Sort::Modified => (SortOrder::Ascend, SortTarget::Mod),
        Sort::ModifiedDescending => (SortOrder::Descend, SortTarget::Mod),
    };
    let Selector { start, end } = range.keys.clone();
    pb::RangeRequest {
        key: start.into(),
        range_end: end.into(),
        limit: range.limit,
        revision: range.revision,
        sort_order: order.into(),
        sort_target: target.into(),
        serializable: range.serializable,
        keys_only: range.keys_only,
        count_only: range.count_only,
        ..Default::default()
    }
}

/// A transaction in etcd's form.
///
/// # Panics
/// It holds a request that no transaction may hold.
#[must_use]
pub fn txn_to_wire(txn: &Txn) -> pb::TxnRequest {
    let wire = |request: &Request| {
        let request = match request {
            Request::Put(put) => request_op::Request::RequestPut(put_to_wire(put)),
            Request::Delete(delete) => {
                request_op::Request::RequestDeleteRange(delete_to_wire(delete))
            }
            Request::Range(range) => request_op::Request::RequestRange(range_to_wire(range)),
            Request::Txn(txn) => request_op::Request::RequestTxn(txn_to_wire(txn)),
            Request::Compact(_)
            | Request::Grant { .. }
            | Request::Revoke(_)
            | Request::Renew(_) => panic!("{request:?} cannot be part of a transaction"),
        };
        pb::RequestOp { request: Some(request) }
    };
    pb::TxnRequest {
        compare: txn.compare.iter().map(compare_to_wire).collect(),
        success: txn.success.iter().map(wire).collect(),
        failure: txn.failure.iter().map(wire).collect(),
    }
}

fn compare_to_wire(compared: &Compare) -> pb::Compare {
    use compare::{CompareResult, CompareTarget as Field, TargetUnion};
    let result = match compared.relation {
        Relation::Equal => CompareResult::Equal,
        Relation::Greater => CompareResult::Greater,
        Relation::Less => CompareResult::Less,
        Relation::NotEqual => CompareResult::NotEqual,
    };
    let (field, with) = match &compared.target {
        CompareTarget::Version(with) => (Field::Version, TargetUnion::Version(*with)),
        CompareTarget::Create(with) => (Field::Create, TargetUnion::CreateRevision(*with)),
        CompareTarget::Modified(with) => (Field::Mod, TargetUnion::ModRevision(*with)),
        CompareTarget::Lease(with) => (Field::Lease, TargetUnion::Lease(*with)),
        CompareTarget::Value(with) => (Field::Value, TargetUnion::Value(with.clone().into())),
    };
    let Selector { start, end } = compared.keys.clone();
    pb::Compare {
        result: result.into(),
        target: field.into(),
        key: start.into(),
        range_end: end.into(),
        target_union: Some(with),
    }
}
