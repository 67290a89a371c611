//! The wire contracts: the protocol that etcd v3.7 speaks with its clients, as Rust types.
//!
//! # What this room is
//!
//! Five .proto files under `proto/`, compiled by `build.rs`, and nothing else: no logic, no
//! defaults, no conversions. A message here is what is on the wire. What a request *means* is the
//! machine's affair; what is refused before it gets there is `node/src/grpc/validate.rs`; the border
//! between these types and the machine's is `node/src/grpc/convert.rs`. The operator uses the client
//! half of the same types, so that both programs speak from one text.
//!
//! # Where the contract comes from
//!
//! Package names, message names, field names and field numbers are etcd's, at v3.7.3 (`api/` and
//! `server/etcdserver/api/{v3lock,v3election}` of `etcd-io/etcd`, Apache-2.0): they are the
//! interface that unmodified etcd clients compile in, and may therefore only ever be *added to*, by
//! etcd. A field of our own would be read as garbage by the next etcd that takes its number; ours
//! have no place in these files.
//!
//! # What holds for the generated code
//!
//! * Every `bytes` field is a [`bytes::Bytes`]: decoding a request from a frame that is itself
//!   `Bytes` copies no key and no value, and a clone is a reference count. The rest of the store
//!   depends on that (design section 9).
//! * prost writes fields in ascending order of number and leaves out defaults. etcd's Go marshaller
//!   does the same, which is why an encoded [`mvccpb::KeyValue`] is byte-equal on both sides; HashKV
//!   and the `.db` export rely on it, and a test below holds it.
//! * Enums arrive as `i32`, since a client may send a number that this version does not know.
//!   Whoever reads one decides what an unknown number means; for sort options, etcd says an error.
//! * Unknown fields are skipped, as protobuf asks.
//!
//! # The JSON routes
//!
//! The `google.api.http` options of the methods survive in [`DESCRIPTOR_SET`], so that a JSON
//! gateway can derive its routes from the contract instead of listing them again. The JSON
//! mapping of the messages themselves is not generated yet: nothing serves it, and it would double
//! the compile time of every crate above this one.
//!
//! # What was left out
//!
//! The version annotations (`etcd_version_msg` and the like), OpenAPI and Go options: they do not
//! reach the wire. etcd's internal Raft messages, WAL records and lease checkpoints between members:
//! a Quorate cluster has no etcd members in it, its entries have an encoding of their own. The
//! protocol between peers is framed by hand in `node/src/peers`, where its limits are, and needs no
//! message of this kind.

/// Where etcd's services live: KV, Watch, Lease, Cluster, Maintenance, Auth, and their messages.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// What the key space is made of: a key with its value and counters, and an event on it.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Users, roles and permissions as they are stored and sent.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// The lock service, a recipe on leases and create revisions.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// The election service, a recipe on leases and create revisions.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// The compiled contract as an encoded `google.protobuf.FileDescriptorSet`, its imports and the
/// `google.api.http` options of the methods included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;

    #[test]
    fn a_key_value_encodes_in_etcd_order_with_defaults_left_out() {
        let kv = mvccpb::KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            value: Bytes::from_static(b"v"),
            lease: 0,
        };
        // Tag 1 key, 2 create, 3 mod, 4 version, 5 value; tag 6 is absent, since 0 is the default.
        let expected = [0x0a, 1, b'k', 0x10, 2, 0x18, 3, 0x20, 2, 0x2a, 1, b'v'];
        assert_eq!(kv.encode_to_vec(), expected);
    }

    #[test]
    fn decoding_from_bytes_shares_the_frame() {
        let put = etcdserverpb::PutRequest {
            key: Bytes::from_static(b"some-key"),
            value: Bytes::from(vec![7; 4096]),
            ..Default::default()
        };
        let frame = Bytes::from(put.encode_to_vec());
        let inside = frame.as_ptr() as usize..frame.as_ptr() as usize + frame.len();
        let decoded = etcdserverpb::PutRequest::decode(frame).unwrap();
        assert_eq!(decoded, put);
        assert!(inside.contains(&(decoded.value.as_ptr() as usize)), "the value was copied");
        assert!(inside.contains(&(decoded.key.as_ptr() as usize)), "the key was copied");
    }

    /// Numbers that clients compile in; one wrong digit would pass every test that speaks to itself.
    #[test]
    fn field_numbers_that_are_out_of_sequence_are_etcds() {
        let response = etcdserverpb::WatchResponse {
            events: vec![mvccpb::Event::default()],
            ..Default::default()
        };
        assert_eq!(response.encode_to_vec(), [11 << 3 | 2, 0], "events are field 11");
        let compare =
            etcdserverpb::Compare { range_end: Bytes::from_static(b"z"), ..Default::default() };
        // 64 << 3 | 2 = 514 as a varint.
        assert_eq!(compare.encode_to_vec(), [0x82, 0x04, 1, b'z'], "range_end is field 64");
        let status = etcdserverpb::StatusResponse { db_size_quota: 1, ..Default::default() };
        assert_eq!(status.encode_to_vec(), [12 << 3, 1], "dbSizeQuota is field 12");
        let hash = etcdserverpb::HashKvResponse { hash_revision: 9, ..Default::default() };
        assert_eq!(hash.encode_to_vec(), [4 << 3, 9], "hash_revision is field 4");
    }

    #[test]
    fn the_routes_of_the_gateway_survive_in_the_descriptor_set() {
        let text = String::from_utf8_lossy(DESCRIPTOR_SET);
        for route in ["/v3/kv/range", "/v3/kv/lease/timetolive", "/v3/lock/unlock", "/v3/watch"] {
            assert!(text.contains(route), "{route} is missing");
        }
    }

    #[test]
    fn services_carry_the_names_that_clients_dial() {
        use tonic::server::NamedService;

        use etcdserverpb::{kv_server::KvServer, maintenance_server::MaintenanceServer};
        assert_eq!(<KvServer<()> as NamedService>::NAME, "etcdserverpb.KV");
        assert_eq!(<MaintenanceServer<()> as NamedService>::NAME, "etcdserverpb.Maintenance");
        assert_eq!(<v3lockpb::lock_server::LockServer<()> as NamedService>::NAME, "v3lockpb.Lock");
    }
}
