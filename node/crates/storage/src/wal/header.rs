//! The header of a segment: who wrote it, where it continues, and what was known before its first frame.
//!
//! It is durable before the file gets its name as a segment, so a segment without one is damaged. It stands alone in
//! the first [`HEADER_SPAN_BYTES`]. Whoever has the header of the oldest segment needs no older one: hard state, last index and
//! its term are in it.

use bytes::Bytes;
use quorate_consensus::{HardState, LogIndex, MemberId, Term};

use crate::fields::{Fields, Malformed, put_hard_state};
use crate::identity::ClusterId;
use crate::sealed::{PREFIX_BYTES, Unsealed, seal, unseal};

/// The format of segments that this version writes; it reads this one and, as later versions come, older ones.
pub const WAL_FORMAT: u32 = 1;

/// Where the first frame begins.
pub(crate) const HEADER_SPAN_BYTES: u64 = 4096;

/// What a header takes in all.
pub(crate) const HEADER_BYTES: usize = PREFIX_BYTES + 12 * 8;

const _: () = assert!(HEADER_BYTES as u64 <= HEADER_SPAN_BYTES, "frames begin behind the header");

const MAGIC: &[u8; 8] = b"QUORWAL\n";

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) cluster: ClusterId,
    pub(crate) member: MemberId,
    /// The durable incarnation of the process that began the segment.
    pub(crate) incarnation: u64,
    /// The segment's number; equal to the one in its name.
    pub(crate) number: u64,
    /// Random for each segment; every frame in it carries it.
    pub(crate) epoch: u64,
    /// The sequence of the segment's first frame.
    pub(crate) first_sequence: u64,
    /// The hard state before the first frame.
    pub(crate) hard_state: HardState,
    /// The index that an entry appended next would have.
    pub(crate) first_index: LogIndex,
    /// The term of the entry before it.
    pub(crate) previous_term: Term,
    /// Up to here the log was replaced by a snapshot, or began with one; entries up to here are in no frame.
    pub(crate) base_index: LogIndex,
}

/// What the first bytes of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFound {
    /// A header whose checksum holds.
    Whole(SegmentHeader),
    /// A header of a later format, which may be laid out differently.
    Newer {
        /// The format that it names.
        format: u32,
    },
    /// No header: a segment gets its name only after its header is durable, so this is damage.
    Absent,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(HEADER_BYTES);
        for number in [self.cluster.0, self.member.0, self.incarnation, self.number, self.epoch] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        fields.extend_from_slice(&self.first_sequence.to_le_bytes());
        put_hard_state(&mut fields, &self.hard_state);
        for number in [self.first_index.0, self.previous_term.0, self.base_index.0] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        seal(MAGIC, WAL_FORMAT, &fields)
    }

    pub(crate) fn decode(bytes: &Bytes) -> HeaderFound {
        match unseal(MAGIC, WAL_FORMAT, bytes) {
            Unsealed::Fields(fields) => {
                Self::fields(Fields(fields)).map_or(HeaderFound::Absent, HeaderFound::Whole)
            }
            Unsealed::Newer { format } => HeaderFound::Newer { format },
            Unsealed::Damaged => HeaderFound::Absent,
        }
    }

    fn fields(mut fields: Fields) -> Result<Self, Malformed> {
        let header = Self {
            cluster: ClusterId(fields.u64()?),
            member: MemberId(fields.u64()?),
            incarnation: fields.u64()?,
            number: fields.u64()?,
            epoch: fields.u64()?,
            first_sequence: fields.u64()?,
            hard_state: fields.hard_state()?,
            first_index: LogIndex(fields.u64()?),
            previous_term: Term(fields.u64()?),
            base_index: LogIndex(fields.u64()?),
        };
        fields.end()?;
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            cluster: ClusterId(0x0102),
            member: MemberId(0x0304),
            incarnation: 5,
            number: 6,
            epoch: 0x0708_090a_0b0c_0d0e,
            first_sequence: 9,
            hard_state: HardState { term: Term(10), vote: MemberId(11), commit: LogIndex(12) },
            first_index: LogIndex(14),
            previous_term: Term(13),
            base_index: LogIndex(3),
        }
    }

    /// INV-M3 of files: these bytes are on people's disks.
    #[test]
    fn the_bytes_of_a_header_never_change() {
        let words = |bytes: &[u8]| -> Vec<u64> {
            bytes.chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
        };
        let bytes = header().encode();
        assert_eq!(&bytes[..16], b"QUORWAL\n\x01\0\0\0\x60\0\0\0");
        let epoch = 0x0708_090a_0b0c_0d0e;
        assert_eq!(words(&bytes[20..]), [0x0102, 0x0304, 5, 6, epoch, 9, 10, 11, 12, 14, 13, 3]);
        assert_eq!(SegmentHeader::decode(&bytes.into()), HeaderFound::Whole(header()));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let good = header().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad.into()), HeaderFound::Absent, "bit {bit}");
        }
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let bytes = seal(MAGIC, WAL_FORMAT + 1, b"laid out in a way that nobody knows today");
        assert_eq!(
            SegmentHeader::decode(&bytes.into()),
            HeaderFound::Newer { format: WAL_FORMAT + 1 }
        );
    }
}
