//! The bytes of one row, and of the header that its segment begins with.
//!
//! ```text
//! crc32c u32 │ length u32 │ main i64 │ '_' or 't' │ sub i64 │ mvccpb.KeyValue
//!             over all behind it      └ etcd's revision key, 17 bytes, numbers big-endian; 't' is a tombstone
//! ```
//!
//! crc and length are little-endian; the length is the KeyValue's. The key is not stored twice: it is the KeyValue's first
//! field (`api/mvccpb/kv.proto`: `bytes key = 1`), and an empty key does not exist.

use std::path::Path;

use bytes::Bytes;
use quorate_machine::Revision;

use crate::damage::Damage;
use crate::rows::StoreError;
use crate::sealed::{PREFIX_BYTES, Unsealed, seal, unseal};
use crate::varint;

/// Bytes in front of the KeyValue.
pub(crate) const ROW_HEADER_BYTES: usize = 25;

/// The format of rows segments that this version writes.
pub const ROWS_FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"QUORROW\n";

/// Bytes in front of a segment's first row: the sealed segment number.
pub(crate) const SEGMENT_HEADER_BYTES: usize = PREFIX_BYTES + 4;

const PUT: u8 = b'_';
const TOMBSTONE: u8 = b't';

/// What stands in front of a row's KeyValue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowHeader {
    crc: u32,
    /// Bytes of the KeyValue.
    pub(crate) kv_len: usize,
    pub(crate) revision: Revision,
    pub(crate) tombstone: bool,
}

impl RowHeader {
    /// Reads a header; `None` if its mark is none that a row has.
    pub(crate) fn read(bytes: &[u8; ROW_HEADER_BYTES]) -> Option<RowHeader> {
        let four = |at: usize| bytes[at..at + 4].try_into().expect("four bytes");
        let eight = |at: usize| bytes[at..at + 8].try_into().expect("eight bytes");
        let tombstone = match bytes[16] {
            PUT => false,
            TOMBSTONE => true,
            _ => return None,
        };
        Some(RowHeader {
            crc: u32::from_le_bytes(four(0)),
            kv_len: u32::from_le_bytes(four(4)) as usize,
            revision: Revision {
                main: i64::from_be_bytes(eight(8)),
                sub: i64::from_be_bytes(eight(17)),
            },
            tombstone,
        })
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_len(&self) -> usize {
        ROW_HEADER_BYTES + self.kv_len
    }

    /// Whether a whole frame has the checksum that its header names.
    pub(crate) fn holds(&self, frame: &[u8]) -> bool {
        crc32c::crc32c(&frame[4..]) == self.crc
    }
}

/// Appends a row's frame.
///
/// # Panics
/// If the KeyValue does not begin with the key, which the machine promises (INV-M3).
pub(crate) fn put_row(
    out: &mut Vec<u8>,
    revision: Revision,
    tombstone: bool,
    key: &[u8],
    kv: &[u8],
) {
    assert!(
        key_of(kv) == Some(key),
        "INV-M3: the encoded pair of {revision} does not begin with its key"
    );
    let start = out.len();
    out.reserve(ROW_HEADER_BYTES + kv.len());
    out.extend_from_slice(&[0; 4]);
    let length = u32::try_from(kv.len()).expect("a request is far below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&revision.main.to_be_bytes());
    out.push(if tombstone { TOMBSTONE } else { PUT });
    out.extend_from_slice(&revision.sub.to_be_bytes());
    out.extend_from_slice(kv);
    let crc = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Whether a frame made by [`put_row`] is a tombstone's.
pub(crate) fn is_tombstone(frame: &[u8]) -> bool {
    frame[16] == TOMBSTONE
}

/// The key within an encoded KeyValue.
pub(crate) fn key_of(kv: &[u8]) -> Option<&[u8]> {
    /// Field 1, length-delimited.
    const KEY_TAG: u8 = 0x0a;
    if kv.first() != Some(&KEY_TAG) {
        return None;
    }
    let mut at = 1;
    let length = usize::try_from(varint::try_take(kv, &mut at)?).ok()?;
    kv.get(at..at.checked_add(length)?)
}

/// A new segment's first bytes.
pub(crate) fn segment_header(id: u32) -> Vec<u8> {
    seal(MAGIC, ROWS_FORMAT, &id.to_le_bytes())
}

/// Checks a segment's first bytes.
pub(crate) fn check_segment_header(path: &Path, id: u32, bytes: &Bytes) -> Result<(), StoreError> {
    match unseal(MAGIC, ROWS_FORMAT, bytes) {
        Unsealed::Fields(fields) if fields[..] == id.to_le_bytes() => Ok(()),
        Unsealed::Newer { format } => {
            Err(StoreError::FormatTooNew { path: path.into(), format, known: ROWS_FORMAT })
        }
        Unsealed::Fields(_) => {
            Err(Damage::new(path.into(), 0, "its header belongs to another segment").into())
        }
        Unsealed::Damaged => {
            Err(Damage::new(path.into(), 0, "its header is not one of a rows segment").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `mvccpb.KeyValue{key: "k", create_revision: 2, mod_revision: 3, version: 2, value: "v"}`.
    const KV: &[u8] = &[0x0a, 1, b'k', 0x10, 2, 0x18, 3, 0x20, 2, 0x2a, 1, b'v'];

    /// Rows on disk are read by every later version: these bytes may not change.
    #[test]
    fn golden_row() {
        let mut out = vec![0xee];
        put_row(&mut out, Revision { main: 3, sub: 1 }, false, b"k", KV);
        let mut expected = vec![0xee, 0x42, 0xe3, 0xe0, 0x1e, 12, 0, 0, 0];
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 3, b'_', 0, 0, 0, 0, 0, 0, 0, 1]);
        expected.extend_from_slice(KV);
        assert_eq!(out[5..], expected[5..]);
        assert_eq!(out, expected);
        let header = RowHeader::read(out[1..26].try_into().unwrap()).unwrap();
        assert_eq!(
            (header.kv_len, header.revision, header.tombstone),
            (12, Revision { main: 3, sub: 1 }, false)
        );
        assert!(header.holds(&out[1..]));
    }

    #[test]
    fn golden_tombstone() {
        let mut out = Vec::new();
        put_row(&mut out, Revision { main: 4, sub: 0 }, true, b"k", &KV[..3]);
        assert_eq!(
            out[4..],
            [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, b't', 0, 0, 0, 0, 0, 0, 0, 0, 0x0a, 1, b'k']
        );
        assert!(RowHeader::read(out[..25].try_into().unwrap()).unwrap().tombstone);
    }

    #[test]
    fn golden_segment_header() {
        let header = segment_header(7);
        assert_eq!(header.len(), SEGMENT_HEADER_BYTES);
        assert_eq!(header[..16], *b"QUORROW\n\x01\0\0\0\x04\0\0\0");
        assert_eq!(header[20..], [7, 0, 0, 0]);
    }

    #[test]
    fn every_flipped_bit_of_a_row_is_noticed() {
        let mut whole = Vec::new();
        put_row(&mut whole, Revision { main: 3, sub: 1 }, false, b"k", KV);
        for bit in 0..whole.len() * 8 {
            let mut frame = whole.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            let header = RowHeader::read(frame[..25].try_into().unwrap());
            let passes = header
                .is_some_and(|header| header.frame_len() == frame.len() && header.holds(&frame));
            assert!(!passes, "bit {bit} flipped unnoticed");
        }
    }

    #[test]
    fn a_key_is_found_in_its_pair_or_not_at_all() {
        assert_eq!(key_of(KV), Some(&b"k"[..]));
        for broken in [&[][..], &[0x0a], &[0x0a, 2, b'k'], &[0x12, 1, b'k'], &[0x0a, 0x80]] {
            assert_eq!(key_of(broken), None);
        }
    }

    #[test]
    #[should_panic(expected = "INV-M3")]
    fn a_pair_of_another_key_is_a_defect() {
        put_row(&mut Vec::new(), Revision::default(), false, b"other", KV);
    }
}
