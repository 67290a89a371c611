//! The bytes of a checkpoint.

use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::{LogIndex, Term};
use quorate_machine::Revision;

use crate::checkpoint::CheckpointAt;
use crate::fields::{Fields, Malformed};
use crate::index::LeafImage;
use crate::rows::segment::{Mark, Segment};
use crate::sealed::{Unsealed, seal, unseal};
use crate::varint;

/// The format of checkpoints that this version writes.
pub const CHECKPOINT_FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"QUORCKP\n";

/// Bytes in front of a frame's body.
pub(super) const FRAME_HEADER_BYTES: usize = 9;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The machine's small state.
    Machine = 1,
    /// Leaves of the index.
    Leaves = 2,
    /// Nothing; the checkpoint is complete.
    End = 3,
}

impl Kind {
    pub(super) fn of(byte: u8) -> Option<Kind> {
        [Kind::Machine, Kind::Leaves, Kind::End].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What the header says of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentEntry {
    pub(super) id: u32,
    pub(super) bytes: u32,
    pub(super) dead: u64,
    pub(super) first: Revision,
    pub(super) last: Revision,
    pub(super) marks: Arc<Vec<Mark>>,
}

impl SegmentEntry {
    pub(super) fn of(segment: &Segment) -> SegmentEntry {
        let Segment { file, first, last, bytes, dead, synced: _, marks } = segment;
        let (id, marks) = (file.id, marks.clone());
        SegmentEntry { id, bytes: *bytes, dead: *dead, first: *first, last: *last, marks }
    }
}

/// What stands before the frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) at: CheckpointAt,
    pub(super) scheduled: i64,
    pub(super) finished: i64,
    pub(super) last_id: u32,
    /// In revision order.
    pub(super) segments: Vec<SegmentEntry>,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.at.index.0, self.at.term.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.at.revision, self.scheduled, self.finished] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.last_id.to_le_bytes());
        out.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        for segment in &self.segments {
            out.extend_from_slice(&segment.id.to_le_bytes());
            out.extend_from_slice(&segment.bytes.to_le_bytes());
            out.extend_from_slice(&segment.dead.to_le_bytes());
            put_revision(&mut out, segment.first);
            put_revision(&mut out, segment.last);
            out.extend_from_slice(&(segment.marks.len() as u32).to_le_bytes());
            for mark in segment.marks.iter() {
                put_revision(&mut out, mark.revision);
                out.extend_from_slice(&mark.offset.to_le_bytes());
            }
        }
        seal(MAGIC, CHECKPOINT_FORMAT, &out)
    }

    /// Reads fields whose checksum holds.
    pub(super) fn decode(fields: Bytes) -> Result<Header, Malformed> {
        let mut fields = Fields(fields);
        let (index, term) = (LogIndex(fields.u64()?), Term(fields.u64()?));
        let mut number = || fields.u64().map(|number| number as i64);
        let (revision, scheduled, finished) = (number()?, number()?, number()?);
        let last_id = fields.u32()?;
        let count = fields.u32()?;
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push(take_segment(&mut fields)?);
        }
        fields.end()?;
        Ok(Header {
            at: CheckpointAt { index, term, revision },
            scheduled,
            finished,
            last_id,
            segments,
        })
    }
}

fn take_segment(fields: &mut Fields) -> Result<SegmentEntry, Malformed> {
    let (id, bytes, dead) = (fields.u32()?, fields.u32()?, fields.u64()?);
    let (first, last) = (take_revision(fields)?, take_revision(fields)?);
    let count = fields.u32()?;
    let mut marks = Vec::new();
    for _ in 0..count {
        marks.push(Mark { revision: take_revision(fields)?, offset: fields.u32()? });
    }
    Ok(SegmentEntry { id, bytes, dead, first, last, marks: Arc::new(marks) })
}

fn put_revision(out: &mut Vec<u8>, revision: Revision) {
    out.extend_from_slice(&revision.main.to_le_bytes());
    out.extend_from_slice(&revision.sub.to_le_bytes());
}

fn take_revision(fields: &mut Fields) -> Result<Revision, Malformed> {
    Ok(Revision { main: fields.u64()? as i64, sub: fields.u64()? as i64 })
}

/// Takes the seal off a header.
pub(super) fn unseal_header(bytes: &Bytes) -> Unsealed {
    unseal(MAGIC, CHECKPOINT_FORMAT, bytes)
}

/// Appends a frame and moves the chain of checksums on.
pub(super) fn put_frame(
    out: &mut Vec<u8>,
    chain: &mut u32,
    kind: Kind,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    body(out);
    let length = (out.len() - start - FRAME_HEADER_BYTES) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 8] = kind as u8;
    *chain = frame_crc(*chain, &out[start..]);
    out[start + 4..start + 8].copy_from_slice(&chain.to_le_bytes());
}

/// The checksum of a frame behind one with the checksum `chain`: over length, kind and body.
pub(super) fn frame_crc(chain: u32, frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(chain, &frame[..4]), &frame[8..])
}

/// Appends a leaf to a frame's body.
pub(super) fn put_leaf(out: &mut Vec<u8>, leaf: &LeafImage<'_>) {
    varint::put(out, leaf.key.len() as u64);
    out.extend_from_slice(leaf.key);
    varint::put(out, leaf.base.main as u64);
    varint::put(out, leaf.base.sub as u64);
    varint::put(out, u64::from(leaf.superseded));
    varint::put(out, leaf.bytes.len() as u64);
    out.extend_from_slice(leaf.bytes);
}

/// Reads the leaf at `*at` of a body whose checksum holds; `None` if there is no such leaf, which no writer writes.
pub(super) fn take_leaf<'a>(body: &'a [u8], at: &mut usize) -> Option<LeafImage<'a>> {
    let run = |at: &mut usize| {
        let length = usize::try_from(varint::try_take(body, at)?).ok()?;
        let bytes = body.get(*at..at.checked_add(length)?)?;
        *at += length;
        Some(bytes)
    };
    let key = run(at)?;
    let main = varint::try_take(body, at)? as i64;
    let sub = varint::try_take(body, at)? as i64;
    let superseded = u32::try_from(varint::try_take(body, at)?).ok()?;
    let bytes = run(at)?;
    Some(LeafImage { key, base: Revision { main, sub }, superseded, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let marks = Arc::new(vec![Mark { revision: Revision { main: 2, sub: 0 }, offset: 24 }]);
        let (first, last) = (Revision { main: 2, sub: 0 }, Revision { main: 9, sub: 1 });
        Header {
            at: CheckpointAt { index: LogIndex(11), term: Term(3), revision: 9 },
            scheduled: 5,
            finished: 4,
            last_id: 6,
            segments: vec![SegmentEntry { id: 6, bytes: 1000, dead: 70, first, last, marks }],
        }
    }

    /// Checkpoints are read by every later version: these bytes may not change within format 1.
    #[test]
    fn golden_header() {
        let bytes = header().encode();
        let mut expected = Vec::new();
        for number in [11u64, 3, 9, 5, 4] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        for number in [6u32, 1, 6, 1000] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        for number in [70u64, 2, 0, 9, 1] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&1u32.to_le_bytes());
        for number in [2u64, 0] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.extend_from_slice(&24u32.to_le_bytes());
        assert_eq!(bytes[..12], *b"QUORCKP\n\x01\0\0\0");
        assert_eq!(bytes[20..], expected);
        let Unsealed::Fields(fields) = unseal_header(&Bytes::from(bytes)) else {
            panic!("it is whole")
        };
        assert_eq!(Header::decode(fields).unwrap(), header());
    }

    #[test]
    fn golden_frames() {
        let leaf = LeafImage {
            key: b"k",
            base: Revision { main: 300, sub: 1 },
            superseded: 2,
            bytes: b"xyz",
        };
        let mut out = Vec::new();
        let mut chain = 0;
        put_frame(&mut out, &mut chain, Kind::Leaves, |body| put_leaf(body, &leaf));
        let first = chain;
        put_frame(&mut out, &mut chain, Kind::End, |_| ());
        let leaves =
            [10, 0, 0, 0, 0x0f, 0x85, 0x56, 0xe6, 2, 1, b'k', 0xac, 2, 1, 2, 3, b'x', b'y', b'z'];
        assert_eq!(out[8..19], leaves[8..]);
        assert_eq!(out[..19], leaves);
        assert_eq!(out[19..23], [0; 4]);
        assert_eq!(out[27], 3);
        assert_eq!(frame_crc(first, &out[19..]).to_le_bytes(), out[23..27]);
        let mut at = 0;
        assert_eq!(take_leaf(&out[9..19], &mut at), Some(leaf));
        assert_eq!(at, 10);
        for cut in 0..10 {
            assert_eq!(take_leaf(&out[9..9 + cut], &mut 0), None);
        }
    }
}
