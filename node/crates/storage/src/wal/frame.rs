//! A frame: one batch of records as one run of bytes with one checksum.
//!
//! ```text
//!   0        4        8                16               24       28       32
//!   ┌────────┬────────┬────────────────┬────────────────┬────────┬────────┬──────────────┬─────────┐
//!   │ magic  │ length │ epoch          │ sequence       │ kind   │ crc32c │ body         │ 0 to 7  │
//!   └────────┴────────┴────────────────┴────────────────┴────────┴────────┴──────────────┴─────────┘
//!              of body  of the segment   of the frame      1       over all of 0..28 and the body
//!
//!   body: hard state │ has snapshot u8 │ [snapshot] │ count u32 │ entries
//! ```
//!
//! Numbers are little-endian; hard state, snapshot and entries are as `consensus::codec` has them. Frames start at multiples of [`FRAME_ALIGNMENT`], so that a search for one after damage
//! looks at an eighth of the offsets. Records of one batch are merged when they are encoded: the last hard state, the
//! last snapshot, and those entries that no later record of the batch replaced.

use bytes::Bytes;
use quorate_consensus::codec;
use quorate_consensus::{Entry, HardState, LogIndex, Record, SnapshotMeta};

use crate::fields::{Fields, Malformed};

/// Bytes in front of a frame's body.
pub(crate) const FRAME_HEADER_BYTES: usize = 32;

/// What of a header the checksum covers: all in front of it.
const CHECKED_BYTES: usize = 28;

/// Frames start at multiples of this.
pub(crate) const FRAME_ALIGNMENT: u64 = 8;

/// "QWF1" when read as text.
const MAGIC: u32 = u32::from_le_bytes(*b"QWF1");

/// The only kind of frame so far: a batch of records.
const KIND_BATCH: u32 = 1;

/// The part in front of a body, as found on disk: believed only as far as the caller checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) body_bytes: u32,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    kind: u32,
    crc: u32,
}

impl FrameHeader {
    /// Whether these bytes look like the front of a frame at all.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (u32_at, u64_at) = (
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")),
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")),
        );
        if bytes.len() < FRAME_HEADER_BYTES || u32_at(0) != MAGIC {
            return None;
        }
        Some(Self {
            body_bytes: u32_at(4),
            epoch: u64_at(8),
            sequence: u64_at(16),
            kind: u32_at(24),
            crc: u32_at(28),
        })
    }

    /// Bytes from the start of this frame to the start of the next one.
    pub(crate) fn stride(&self) -> u64 {
        (FRAME_HEADER_BYTES as u64 + u64::from(self.body_bytes)).next_multiple_of(FRAME_ALIGNMENT)
    }

    /// Whether header and body are what was written.
    pub(crate) fn matches(&self, header: &[u8], body: &[u8]) -> bool {
        body.len() == self.body_bytes as usize
            && self.crc == checksum(&header[..CHECKED_BYTES], body)
    }
}

/// What one frame says, once its checksum held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) hard_state: HardState,
    /// The log starts anew after this.
    pub(crate) snapshot: Option<SnapshotMeta>,
    /// Consecutive.
    pub(crate) entries: Vec<Entry>,
}

impl Frame {
    /// Reads a body whose checksum held; payloads share its memory.
    pub(crate) fn decode(header: &FrameHeader, body: Bytes) -> Result<Self, Malformed> {
        if header.kind != KIND_BATCH {
            return Err(Malformed(format!("{} is no kind of frame of this version", header.kind)));
        }
        let mut fields = Fields(body);
        let hard_state = codec::decode_hard_state(&mut fields.0)?;
        let snapshot = match fields.u8()? {
            0 => None,
            1 => Some(codec::decode_snapshot_meta(&mut fields.0)?),
            mark => {
                return Err(Malformed(format!("{mark} does not say whether there is a snapshot")));
            }
        };
        let count = fields.u32()? as usize;
        let mut entries: Vec<Entry> = Vec::with_capacity(count.min(body_entries_max(&fields)));
        for _ in 0..count {
            let entry = codec::decode_entry(&mut fields.0)?;
            if entries.last().is_some_and(|last| last.index.next() != entry.index) {
                return Err(Malformed(format!(
                    "entry {} does not follow the one before it",
                    entry.index
                )));
            }
            entries.push(entry);
        }
        fields.end()?;
        Ok(Self { hard_state, snapshot, entries })
    }
}

/// What a count may claim: no entry takes fewer than four bytes.
fn body_entries_max(fields: &Fields) -> usize {
    fields.0.len() / 4
}

/// The records of one write, merged into what a frame holds.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<&'a SnapshotMeta>,
    /// Consecutive.
    pub(crate) entries: Vec<&'a Entry>,
    /// The lowest index that any of the records wrote, were it replaced within the batch or not.
    pub(crate) lowest: Option<LogIndex>,
}

impl<'a> Batch<'a> {
    /// Merges records in their order; `hard_state` is the one before them, kept when there are none.
    pub(crate) fn merge(hard_state: HardState, records: &'a [Record]) -> Self {
        let mut batch = Batch { hard_state, snapshot: None, entries: Vec::new(), lowest: None };
        for record in records {
            batch.hard_state = record.hard_state;
            if let Some(meta) = &record.snapshot {
                batch.snapshot = Some(meta);
                batch.entries.clear();
                batch.lowest = None;
            }
            let Some(first) = record.entries.first() else { continue };
            batch.lowest = Some(batch.lowest.map_or(first.index, |low| low.min(first.index)));
            while batch.entries.last().is_some_and(|last| last.index >= first.index) {
                batch.entries.pop();
            }
            for entry in &record.entries {
                let follows =
                    batch.entries.last().is_none_or(|last| last.index.next() == entry.index);
                assert!(
                    follows,
                    "INV-R1: the entries of a record are consecutive, {} is not",
                    entry.index
                );
                batch.entries.push(entry);
            }
        }
        batch
    }

    /// The most bytes that the frame can take.
    pub(crate) fn bytes_max(&self) -> usize {
        /// Kind, member, and three numbers of at most ten bytes.
        const ENTRY_MAX: usize = 39;
        let entries: usize = self.entries.iter().map(|entry| ENTRY_MAX + entry.payload.len()).sum();
        let members = self
            .snapshot
            .map_or(0, |meta| meta.configuration.voters.len() + meta.configuration.learners.len());
        FRAME_HEADER_BYTES + 128 + 8 * members + entries
    }

    /// Writes the frame into `out`, which is cleared first, without what [`seal`] adds; its length is a multiple of
    /// [`FRAME_ALIGNMENT`].
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.resize(FRAME_HEADER_BYTES, 0);
        codec::encode_hard_state(&self.hard_state, out);
        out.push(u8::from(self.snapshot.is_some()));
        if let Some(meta) = self.snapshot {
            codec::encode_snapshot_meta(meta, out);
        }
        let count = u32::try_from(self.entries.len()).expect("a batch is bounded in bytes");
        out.extend_from_slice(&count.to_le_bytes());
        for entry in &self.entries {
            codec::encode_entry(entry, out);
        }
        let body_bytes =
            u32::try_from(out.len() - FRAME_HEADER_BYTES).expect("a batch is bounded in bytes");
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&body_bytes.to_le_bytes());
        out[24..28].copy_from_slice(&KIND_BATCH.to_le_bytes());
        out.resize(out.len().next_multiple_of(FRAME_ALIGNMENT as usize), 0);
    }
}

/// Gives an encoded frame its place in a chain, and its checksum.
pub(crate) fn seal(frame: &mut [u8], epoch: u64, sequence: u64) {
    frame[8..16].copy_from_slice(&epoch.to_le_bytes());
    frame[16..24].copy_from_slice(&sequence.to_le_bytes());
    let header = FrameHeader::parse(frame).expect("it was encoded");
    let (front, rest) = frame.split_at(FRAME_HEADER_BYTES);
    let crc = checksum(&front[..CHECKED_BYTES], &rest[..header.body_bytes as usize]);
    frame[CHECKED_BYTES..FRAME_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), body)
}
