//! Replies that carry encoded pairs and events: written to the wire as they stand in the rows, never decoded.
//!
//! The field numbers are those of `proto/rpc.proto`; the tests decode every reply with the generated types.

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use quorate_machine::{
    DeleteRangeOutcome, EncodedKeyValue, OperationOutcome, PutOutcome, RangeOutcome, TxnOutcome,
};
use quorate_proto::etcdserverpb::ResponseHeader;

/// Something with a protobuf encoding.
pub trait Encode: Send + 'static {
    /// How many bytes it takes.
    fn encoded_len(&self) -> usize;
    /// Appends them.
    fn encode(&self, out: &mut impl BufMut);
}

impl<M: prost::Message + 'static> Encode for M {
    fn encoded_len(&self) -> usize {
        prost::Message::encoded_len(self)
    }

    fn encode(&self, out: &mut impl BufMut) {
        prost::Message::encode_raw(self, out);
    }
}

/// RangeResponse.
#[derive(Debug)]
pub struct RangeReply {
    /// Absent in all but the last chunk of a stream.
    pub header: Option<ResponseHeader>,
    /// The result.
    pub outcome: RangeOutcome,
}

/// RangeStreamResponse.
#[derive(Debug)]
pub struct RangeStreamReply(pub RangeReply);

/// PutResponse.
#[derive(Debug)]
pub struct PutReply {
    /// The header.
    pub header: ResponseHeader,
    /// The result.
    pub outcome: PutOutcome,
}

/// DeleteRangeResponse.
#[derive(Debug)]
pub struct DeleteRangeReply {
    /// The header.
    pub header: ResponseHeader,
    /// The result.
    pub outcome: DeleteRangeOutcome,
}

/// TxnResponse.
#[derive(Debug)]
pub struct TxnReply {
    /// The header.
    pub header: ResponseHeader,
    /// The result.
    pub outcome: TxnOutcome,
}

/// WatchResponse.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchReply {
    /// The header.
    pub header: ResponseHeader,
    /// Which watch; −1 for all of the stream or none.
    pub watch_id: i64,
    /// The watch stands.
    pub created: bool,
    /// The watch is over.
    pub canceled: bool,
    /// Why it is over, if history is gone.
    pub compact_revision: i64,
    /// Why it is over, for people.
    pub cancel_reason: &'static str,
    /// More of the same revision follows.
    pub fragment: bool,
    /// Encoded `mvccpb.Event`s.
    pub events: Vec<Bytes>,
}

/// The encoded length of a length-delimited field.
fn field_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

fn put_length(out: &mut impl BufMut, tag: u32, length: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn put_bytes(out: &mut impl BufMut, tag: u32, bytes: &[u8]) {
    put_length(out, tag, bytes.len());
    out.put_slice(bytes);
}

fn put_header(out: &mut impl BufMut, header: &ResponseHeader) {
    put_length(out, 1, prost::Message::encoded_len(header));
    prost::Message::encode_raw(header, out);
}

fn header_len(header: &ResponseHeader) -> usize {
    field_len(1, prost::Message::encoded_len(header))
}

/// A varint field, left out when 0.
fn number_len(tag: u32, number: i64) -> usize {
    if number == 0 { 0 } else { key_len(tag) + encoded_len_varint(number.cast_unsigned()) }
}

fn put_number(out: &mut impl BufMut, tag: u32, number: i64) {
    if number != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(number.cast_unsigned(), out);
    }
}

fn kvs_len(tag: u32, kvs: &[EncodedKeyValue]) -> usize {
    kvs.iter().map(|kv| field_len(tag, kv.0.len())).sum()
}

fn put_kvs(out: &mut impl BufMut, tag: u32, kvs: &[EncodedKeyValue]) {
    for kv in kvs {
        put_bytes(out, tag, &kv.0);
    }
}

/// A sub-response's header carries the revision and nothing else (`server/etcdserver/txn`); within a transaction
/// within, not even that, but it is there: kube-apiserver reads the delete's.
fn sub_header(revision: i64) -> ResponseHeader {
    ResponseHeader { revision, ..ResponseHeader::default() }
}

fn range_len(header: Option<&ResponseHeader>, outcome: &RangeOutcome) -> usize {
    header.map_or(0, header_len)
        + kvs_len(2, &outcome.kvs)
        + number_len(3, i64::from(outcome.more))
        + number_len(4, outcome.count)
}

fn put_range(out: &mut impl BufMut, header: Option<&ResponseHeader>, outcome: &RangeOutcome) {
    if let Some(header) = header {
        put_header(out, header);
    }
    put_kvs(out, 2, &outcome.kvs);
    put_number(out, 3, i64::from(outcome.more));
    put_number(out, 4, outcome.count);
}

fn put_len(header: &ResponseHeader, outcome: &PutOutcome) -> usize {
    header_len(header) + kvs_len(2, outcome.prev_kv.as_slice())
}

fn put_put(out: &mut impl BufMut, header: &ResponseHeader, outcome: &PutOutcome) {
    put_header(out, header);
    put_kvs(out, 2, outcome.prev_kv.as_slice());
}

fn delete_len(header: &ResponseHeader, outcome: &DeleteRangeOutcome) -> usize {
    header_len(header) + number_len(2, outcome.deleted) + kvs_len(3, &outcome.prev_kvs)
}

fn put_delete(out: &mut impl BufMut, header: &ResponseHeader, outcome: &DeleteRangeOutcome) {
    put_header(out, header);
    put_number(out, 2, outcome.deleted);
    put_kvs(out, 3, &outcome.prev_kvs);
}

fn txn_len(header: &ResponseHeader, outcome: &TxnOutcome) -> usize {
    let responses: usize =
        outcome.responses.iter().map(|response| field_len(3, operation_len(response))).sum();
    header_len(header) + number_len(2, i64::from(outcome.succeeded)) + responses
}

fn put_txn(out: &mut impl BufMut, header: &ResponseHeader, outcome: &TxnOutcome) {
    put_header(out, header);
    put_number(out, 2, i64::from(outcome.succeeded));
    for response in &outcome.responses {
        put_length(out, 3, operation_len(response));
        put_operation(out, response);
    }
}

/// The tag of ResponseOp's union and the length of what stands in it. A transaction within a transaction is measured
/// once per level above it; requests nest at most 50 deep (prost's recursion limit), so this stays linear in practice.
fn operation_parts(operation: &OperationOutcome) -> (u32, usize) {
    match operation {
        OperationOutcome::Range(outcome) => {
            (1, range_len(Some(&sub_header(outcome.revision)), outcome))
        }
        OperationOutcome::Put(outcome) => (2, put_len(&sub_header(outcome.revision), outcome)),
        OperationOutcome::DeleteRange(outcome) => {
            (3, delete_len(&sub_header(outcome.revision), outcome))
        }
        OperationOutcome::Txn(outcome) => (4, txn_len(&sub_header(outcome.revision), outcome)),
    }
}

fn operation_len(operation: &OperationOutcome) -> usize {
    let (tag, length) = operation_parts(operation);
    field_len(tag, length)
}

fn put_operation(out: &mut impl BufMut, operation: &OperationOutcome) {
    let (tag, length) = operation_parts(operation);
    put_length(out, tag, length);
    match operation {
        OperationOutcome::Range(outcome) => {
            put_range(out, Some(&sub_header(outcome.revision)), outcome);
        }
        OperationOutcome::Put(outcome) => put_put(out, &sub_header(outcome.revision), outcome),
        OperationOutcome::DeleteRange(outcome) => {
            put_delete(out, &sub_header(outcome.revision), outcome);
        }
        OperationOutcome::Txn(outcome) => put_txn(out, &sub_header(outcome.revision), outcome),
    }
}

impl Encode for RangeReply {
    fn encoded_len(&self) -> usize {
        range_len(self.header.as_ref(), &self.outcome)
    }

    fn encode(&self, out: &mut impl BufMut) {
        put_range(out, self.header.as_ref(), &self.outcome);
    }
}

impl Encode for RangeStreamReply {
    fn encoded_len(&self) -> usize {
        field_len(1, self.0.encoded_len())
    }

    fn encode(&self, out: &mut impl BufMut) {
        put_length(out, 1, self.0.encoded_len());
        self.0.encode(out);
    }
}

impl Encode for PutReply {
    fn encoded_len(&self) -> usize {
        put_len(&self.header, &self.outcome)
    }

    fn encode(&self, out: &mut impl BufMut) {
        put_put(out, &self.header, &self.outcome);
    }
}

impl Encode for DeleteRangeReply {
    fn encoded_len(&self) -> usize {
        delete_len(&self.header, &self.outcome)
    }

    fn encode(&self, out: &mut impl BufMut) {
        put_delete(out, &self.header, &self.outcome);
    }
}

impl Encode for TxnReply {
    fn encoded_len(&self) -> usize {
        txn_len(&self.header, &self.outcome)
    }

    fn encode(&self, out: &mut impl BufMut) {
        put_txn(out, &self.header, &self.outcome);
    }
}

/// What one event takes in a WatchResponse.
#[must_use]
pub fn event_len(event: &Bytes) -> usize {
    field_len(11, event.len())
}

impl Encode for WatchReply {
    fn encoded_len(&self) -> usize {
        let reason = self.cancel_reason.len();
        header_len(&self.header)
            + number_len(2, self.watch_id)
            + number_len(3, i64::from(self.created))
            + number_len(4, i64::from(self.canceled))
            + number_len(5, self.compact_revision)
            + if reason == 0 { 0 } else { field_len(6, reason) }
            + number_len(7, i64::from(self.fragment))
            + self.events.iter().map(event_len).sum::<usize>()
    }

    fn encode(&self, out: &mut impl BufMut) {
        put_header(out, &self.header);
        put_number(out, 2, self.watch_id);
        put_number(out, 3, i64::from(self.created));
        put_number(out, 4, i64::from(self.canceled));
        put_number(out, 5, self.compact_revision);
        if !self.cancel_reason.is_empty() {
            put_bytes(out, 6, self.cancel_reason.as_bytes());
        }
        put_number(out, 7, i64::from(self.fragment));
        for event in &self.events {
            put_bytes(out, 11, event);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use prost::Message;
    use quorate_proto::{etcdserverpb as pb, mvccpb};

    use super::*;

    fn kv(key: &'static [u8]) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: Bytes::from_static(key),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            value: Bytes::from(vec![b'v'; 300]),
            lease: 7,
        }
    }

    fn encoded(kv: &mvccpb::KeyValue) -> EncodedKeyValue {
        EncodedKeyValue(Bytes::from(kv.encode_to_vec()))
    }

    fn header() -> ResponseHeader {
        ResponseHeader { cluster_id: u64::MAX, member_id: 2, revision: 3, raft_term: 4 }
    }

    /// Encodes with ours and decodes with the generated types; also holds the announced length.
    fn through<M: Message + Default>(reply: &impl Encode) -> M {
        let mut out = BytesMut::new();
        reply.encode(&mut out);
        assert_eq!(out.len(), reply.encoded_len(), "the announced length is wrong");
        let decoded = M::decode(out.clone().freeze()).unwrap();
        assert_eq!(decoded.encode_to_vec(), out.to_vec(), "not the canonical encoding");
        decoded
    }

    fn outcome() -> RangeOutcome {
        RangeOutcome {
            kvs: vec![encoded(&kv(b"a")), encoded(&kv(b"b"))],
            more: true,
            count: 1 << 40,
            revision: 9,
        }
    }

    #[test]
    fn a_range_reads_as_the_generated_type() {
        let reply: pb::RangeResponse =
            through(&RangeReply { header: Some(header()), outcome: outcome() });
        assert_eq!(reply.header, Some(header()));
        assert_eq!(reply.kvs, [kv(b"a"), kv(b"b")]);
        assert_eq!((reply.more, reply.count), (true, 1 << 40));
        let empty: pb::RangeResponse =
            through(&RangeReply { header: None, outcome: RangeOutcome::default() });
        assert_eq!(empty, pb::RangeResponse::default());
    }

    #[test]
    fn a_streamed_range_is_wrapped() {
        let reply: pb::RangeStreamResponse =
            through(&RangeStreamReply(RangeReply { header: None, outcome: outcome() }));
        assert_eq!(reply.range_response.unwrap().kvs.len(), 2);
    }

    #[test]
    fn puts_and_deletes_read_as_the_generated_types() {
        let put = PutOutcome { prev_kv: Some(encoded(&kv(b"a"))), revision: 3 };
        let reply: pb::PutResponse = through(&PutReply { header: header(), outcome: put });
        assert_eq!((reply.header, reply.prev_kv), (Some(header()), Some(kv(b"a"))));
        let delete = DeleteRangeOutcome { deleted: 2, prev_kvs: outcome().kvs, revision: 3 };
        let reply: pb::DeleteRangeResponse =
            through(&DeleteRangeReply { header: header(), outcome: delete });
        assert_eq!((reply.deleted, reply.prev_kvs.len()), (2, 2));
    }

    #[test]
    fn every_sub_response_of_a_transaction_has_a_header() {
        let inner = TxnOutcome {
            succeeded: false,
            responses: vec![OperationOutcome::Put(PutOutcome { prev_kv: None, revision: 5 })],
            revision: 0,
        };
        let outcome = TxnOutcome {
            succeeded: true,
            responses: vec![
                OperationOutcome::Range(outcome()),
                OperationOutcome::DeleteRange(DeleteRangeOutcome {
                    revision: 4,
                    ..Default::default()
                }),
                OperationOutcome::Txn(inner),
            ],
            revision: 5,
        };
        let reply: pb::TxnResponse = through(&TxnReply { header: header(), outcome });
        assert!(reply.succeeded);
        use pb::response_op::Response;
        let responses: Vec<Response> =
            reply.responses.into_iter().map(|response| response.response.unwrap()).collect();
        let [
            Response::ResponseRange(range),
            Response::ResponseDeleteRange(delete),
            Response::ResponseTxn(txn),
        ] = responses.as_slice()
        else {
            panic!("{responses:?}")
        };
        assert_eq!(range.header.unwrap().revision, 9);
        assert_eq!(delete.header, Some(ResponseHeader { revision: 4, ..Default::default() }));
        assert_eq!(txn.header, Some(ResponseHeader::default()), "there, and empty, as in etcd");
        let Some(Response::ResponsePut(put)) = &txn.responses[0].response else {
            panic!("{txn:?}")
        };
        assert_eq!(put.header.unwrap().revision, 5);
    }

    #[test]
    fn a_watch_response_reads_as_the_generated_type() {
        let event = mvccpb::Event { r#type: 1, kv: Some(kv(b"a")), prev_kv: None };
        let reply: pb::WatchResponse = through(&WatchReply {
            header: header(),
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 8,
            cancel_reason: "why",
            fragment: true,
            events: vec![Bytes::from(event.encode_to_vec()); 2],
        });
        assert_eq!((reply.watch_id, reply.compact_revision), (-1, 8));
        assert!(reply.created && reply.canceled && reply.fragment);
        assert_eq!(reply.cancel_reason, "why");
        assert_eq!(reply.events, [event.clone(), event]);
        let _: pb::WatchResponse = through(&WatchReply::default());
    }
}
