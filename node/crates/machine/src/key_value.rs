//! `mvccpb.KeyValue` in its wire form, byte for byte as Go writes it: what rows hold and responses carry.

use bytes::{BufMut, Bytes};

use crate::{
    EncodedKeyValue, LeaseId, Version,
    wire::{DecodeError, Reader, put_varint, varint_len},
};

/// A pair with everything etcd tells of it (`api/mvccpb/kv.proto`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The main revision of its creation.
    pub create_revision: i64,
    /// The main revision of its last put.
    pub mod_revision: i64,
    /// Counts puts since the creation, from 1.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease it is attached to.
    pub lease: LeaseId,
}

// Field numbers with their wire types: length-delimited is 2, varint 0. Each tag fits one byte.
const KEY: u8 = 1 << 3 | 2;
const CREATE_REVISION: u8 = 2 << 3;
const MOD_REVISION: u8 = 3 << 3;
const VERSION: u8 = 4 << 3;
const VALUE: u8 = 5 << 3 | 2;
const LEASE: u8 = 6 << 3;

impl KeyValue {
    /// Fields ascending, defaults left out: the one form that Go's protobuf gives, so that hashes over rows are equal to
    /// etcd's.
    #[must_use]
    pub fn encode(&self) -> EncodedKeyValue {
        let numbers = [
            (CREATE_REVISION, self.create_revision),
            (MOD_REVISION, self.mod_revision),
            (VERSION, self.version),
        ];
        let last = (LEASE, self.lease.0);
        let length = delimited_len(&self.key)
            + numbers.iter().map(|(_, number)| number_len(*number)).sum::<usize>()
            + delimited_len(&self.value)
            + number_len(last.1);
        let mut out = Vec::with_capacity(length);
        put_delimited(&mut out, KEY, &self.key);
        for (tag, number) in numbers {
            put_number(&mut out, tag, number);
        }
        put_delimited(&mut out, VALUE, &self.value);
        put_number(&mut out, last.0, last.1);
        EncodedKeyValue(Bytes::from(out))
    }

    /// What a tombstone's row holds: the key and nothing else (etcd `mvcc/kvstore_txn.go`, delete).
    #[must_use]
    pub fn of_tombstone(key: Bytes) -> EncodedKeyValue {
        Self { key, ..Self::default() }.encode()
    }

    /// What the index alone knows of a pair: neither value nor lease (etcd 3.7's keys_only).
    #[must_use]
    pub fn of_index(key: Bytes, version: &Version) -> EncodedKeyValue {
        Self {
            key,
            create_revision: version.created,
            mod_revision: version.modified.main,
            version: version.version,
            value: Bytes::new(),
            lease: LeaseId::NONE,
        }
        .encode()
    }
}

impl EncodedKeyValue {
    /// All fields; key and value are slices of this.
    ///
    /// # Errors
    /// Bytes that are no KeyValue.
    pub fn decode(&self) -> Result<KeyValue, DecodeError> {
        let mut kv = KeyValue::default();
        self.visit(|field| match field {
            Field::Key(key) => kv.key = self.0.slice(key),
            Field::CreateRevision(revision) => kv.create_revision = revision,
            Field::ModRevision(revision) => kv.mod_revision = revision,
            Field::Version(version) => kv.version = version,
            Field::Value(value) => kv.value = self.0.slice(value),
            Field::Lease(lease) => kv.lease = lease,
        })?;
        Ok(kv)
    }

    /// The key alone, a slice of this.
    ///
    /// # Errors
    /// Bytes that are no KeyValue.
    pub fn key(&self) -> Result<Bytes, DecodeError> {
        let mut found = Bytes::new();
        self.visit(|field| {
            if let Field::Key(key) = field {
                found = self.0.slice(key);
            }
        })?;
        Ok(found)
    }

    /// The value alone, a slice of this.
    ///
    /// # Errors
    /// Bytes that are no KeyValue.
    pub fn value(&self) -> Result<Bytes, DecodeError> {
        let mut found = Bytes::new();
        self.visit(|field| {
            if let Field::Value(value) = field {
                found = self.0.slice(value);
            }
        })?;
        Ok(found)
    }

    /// The lease alone; the value is passed over unread.
    ///
    /// # Errors
    /// Bytes that are no KeyValue.
    pub fn lease(&self) -> Result<LeaseId, DecodeError> {
        let mut found = LeaseId::NONE;
        self.visit(|field| {
            if let Field::Lease(lease) = field {
                found = lease;
            }
        })?;
        Ok(found)
    }

    /// The same pair without its value (keys_only where the rows had to be read).
    ///
    /// # Errors
    /// Bytes that are no KeyValue.
    pub fn without_value(&self) -> Result<Self, DecodeError> {
        Ok(KeyValue { value: Bytes::new(), ..self.decode()? }.encode())
    }

    fn visit(&self, mut each: impl FnMut(Field)) -> Result<(), DecodeError> {
        let mut reader = Reader::new(&self.0);
        while !reader.is_at_end() {
            each(match reader.byte()? {
                KEY => Field::Key(reader.span()?),
                CREATE_REVISION => Field::CreateRevision(reader.signed()?),
                MOD_REVISION => Field::ModRevision(reader.signed()?),
                VERSION => Field::Version(reader.signed()?),
                VALUE => Field::Value(reader.span()?),
                LEASE => Field::Lease(LeaseId(reader.signed()?)),
                tag => {
                    return Err(DecodeError::UnknownKind {
                        what: "KeyValue field",
                        tag: tag.into(),
                    });
                }
            });
        }
        Ok(())
    }
}

enum Field {
    Key(std::ops::Range<usize>),
    CreateRevision(i64),
    ModRevision(i64),
    Version(i64),
    Value(std::ops::Range<usize>),
    Lease(LeaseId),
}

fn delimited_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { 1 + varint_len(bytes.len() as u64) + bytes.len() }
}

fn number_len(number: i64) -> usize {
    if number == 0 { 0 } else { 1 + varint_len(number.cast_unsigned()) }
}

fn put_delimited(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.put_u8(tag);
        put_varint(out, bytes.len() as u64);
        out.put_slice(bytes);
    }
}

fn put_number(out: &mut Vec<u8>, tag: u8, number: i64) {
    if number != 0 {
        out.put_u8(tag);
        put_varint(out, number.cast_unsigned());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    /// Computed by hand from the protobuf encoding rules, checked against `protoc --encode mvccpb.KeyValue`'s layout.
    #[test]
    fn the_bytes_are_those_of_go() {
        let kv = KeyValue {
            key: bytes("foo"),
            create_revision: 2,
            mod_revision: 300,
            version: 7,
            value: bytes("bar"),
            lease: LeaseId(-1),
        };
        let golden: &[u8] = &[
            0x0a, 3, b'f', b'o', b'o', // key
            0x10, 2, // create_revision
            0x18, 0xac, 0x02, // mod_revision
            0x20, 7, // version
            0x2a, 3, b'b', b'a', b'r', // value
            0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, // lease
        ];
        assert_eq!(kv.encode().0, golden);
        assert_eq!(EncodedKeyValue(Bytes::from_static(golden)).decode(), Ok(kv));
    }

    #[test]
    fn defaults_are_left_out() {
        assert_eq!(KeyValue::of_tombstone(bytes("k")).0, &b"\x0a\x01k"[..]);
        assert_eq!(KeyValue::default().encode().0, &b""[..]);
    }

    #[test]
    fn what_is_no_key_value_is_refused() {
        let cut = EncodedKeyValue(bytes("\x0a\x05abc"));
        assert_eq!(cut.decode(), Err(DecodeError::Truncated { offset: 2 }));
        let other = EncodedKeyValue(bytes("\x3a\x00"));
        assert_eq!(
            other.lease(),
            Err(DecodeError::UnknownKind { what: "KeyValue field", tag: 0x3a })
        );
    }

    proptest! {
        #[test]
        fn every_pair_reads_back(
            key in proptest::collection::vec(any::<u8>(), 0..40),
            value in proptest::collection::vec(any::<u8>(), 0..300),
            numbers in any::<[i64; 4]>(),
        ) {
            let kv = KeyValue {
                key: key.into(),
                create_revision: numbers[0],
                mod_revision: numbers[1],
                version: numbers[2],
                value: value.into(),
                lease: LeaseId(numbers[3]),
            };
            let encoded = kv.encode();
            prop_assert_eq!(encoded.key().unwrap(), &kv.key);
            prop_assert_eq!(encoded.value().unwrap(), &kv.value);
            prop_assert_eq!(encoded.lease().unwrap(), kv.lease);
            let bare = encoded.without_value().unwrap().decode().unwrap();
            prop_assert_eq!(bare, KeyValue { value: Bytes::new(), ..kv.clone() });
            prop_assert_eq!(encoded.decode().unwrap(), kv);
        }
    }
}
