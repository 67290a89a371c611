//! The bytes of entries and messages, for the WAL and for peers.
//!
//! ```text
//!   number    LEB128: seven bits a byte, low ones first, the high bit says "more"; at most ten bytes
//!   id        eight bytes, little endian (ids are hashes; a number would be longer)
//!   entry     kind u8 │ term number │ index number │ [id, for a change] │ length number │ payload
//!   message   kind u8 │ from id │ to id │ term number │ fields in the order of [`Body`]
//! ```
//!
//! Nothing here says which version it is: the peer handshake and the head of each WAL segment carry
//! [`CODEC_VERSION`] once for all that follows. A meaning, once given to a byte, is never changed; new kinds get
//! new numbers under a new version. Decoding copies no payload: it shares the bytes that it is given.

use std::collections::BTreeSet;
use std::fmt;

use bytes::{Buf, BufMut, Bytes};

use crate::{
    Body, Committed, Configuration, ConfigurationChange, Entry, HardState, LogIndex, MemberId,
    Message, Payload, ReadContext, ReadTicket, Rejection, SnapshotMeta, Term,
};

/// The version of everything in this module. Raised when a kind or a field is added.
pub const CODEC_VERSION: u16 = 1;

/// The fewest bytes that an entry takes: kind, term, index, length. Bounds what a count may claim.
const ENTRY_BYTES_MIN: usize = 4;

/// The bytes of an id.
const ID_BYTES: usize = 8;

const ENTRY_EMPTY: u8 = 0;
const ENTRY_COMMAND: u8 = 1;
const ENTRY_ADD_VOTER: u8 = 2;
const ENTRY_ADD_LEARNER: u8 = 3;
const ENTRY_REMOVE: u8 = 4;

const PRE_VOTE: u8 = 1;
const PRE_VOTE_RESPONSE: u8 = 2;
const VOTE: u8 = 3;
const VOTE_RESPONSE: u8 = 4;
const APPEND: u8 = 5;
const APPEND_RESPONSE: u8 = 6;
const HEARTBEAT: u8 = 7;
const HEARTBEAT_RESPONSE: u8 = 8;
const SNAPSHOT: u8 = 9;
const TIMEOUT_NOW: u8 = 10;
const READ_INDEX: u8 = 11;
const READ_INDEX_RESPONSE: u8 = 12;

/// Why bytes are no entry or message. Whoever sent them speaks another version, or the transport or disk changed
/// them: drop the connection, or treat the record as corrupt; decoding again will not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end within the named field.
    Truncated(&'static str),
    /// The named number takes more than 64 bits.
    NumberTooLong(&'static str),
    /// The named field holds a kind that this version does not know.
    UnknownKind(&'static str, u8),
    /// A whole message, or an empty entry, was followed by this many bytes more.
    Trailing(usize),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(field) => write!(f, "the bytes end within the {field}"),
            Self::NumberTooLong(field) => write!(f, "the {field} takes more than 64 bits"),
            Self::UnknownKind(field, kind) => {
                write!(f, "{kind} is no {field} of version {CODEC_VERSION}")
            }
            Self::Trailing(bytes) => write!(f, "{bytes} bytes follow where nothing may"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Appends the bytes of an entry.
pub fn encode_entry(entry: &Entry, out: &mut impl BufMut) {
    let (kind, member, payload) = match &entry.payload {
        Payload::Empty => (ENTRY_EMPTY, None, &Bytes::new()),
        Payload::Command(bytes) => (ENTRY_COMMAND, None, bytes),
        Payload::Change(change, bytes) => match change {
            ConfigurationChange::AddVoter(id) => (ENTRY_ADD_VOTER, Some(*id), bytes),
            ConfigurationChange::AddLearner(id) => (ENTRY_ADD_LEARNER, Some(*id), bytes),
            ConfigurationChange::Remove(id) => (ENTRY_REMOVE, Some(*id), bytes),
        },
    };
    out.put_u8(kind);
    put_number(entry.term.0, out);
    put_number(entry.index.0, out);
    if let Some(member) = member {
        put_id(member, out);
    }
    put_number(payload.len() as u64, out);
    out.put_slice(payload);
}

/// Takes one entry off the front.
///
/// # Errors
///
/// When the bytes are no entry of this version; how much of them was taken is then undefined.
pub fn decode_entry(bytes: &mut Bytes) -> Result<Entry, DecodeError> {
    let kind = take_byte(bytes, "entry kind")?;
    let term = Term(take_number(bytes, "entry term")?);
    let index = LogIndex(take_number(bytes, "entry index")?);
    let member = match kind {
        ENTRY_ADD_VOTER | ENTRY_ADD_LEARNER | ENTRY_REMOVE => take_id(bytes, "changed member")?,
        _ => MemberId::NONE,
    };
    let length = take_number(bytes, "payload length")?;
    let length = usize::try_from(length).ok().filter(|length| *length <= bytes.len());
    let payload = bytes.split_to(length.ok_or(DecodeError::Truncated("payload"))?);
    let payload = match kind {
        ENTRY_EMPTY if payload.is_empty() => Payload::Empty,
        ENTRY_EMPTY => return Err(DecodeError::Trailing(payload.len())),
        ENTRY_COMMAND => Payload::Command(payload),
        ENTRY_ADD_VOTER => Payload::Change(ConfigurationChange::AddVoter(member), payload),
        ENTRY_ADD_LEARNER => Payload::Change(ConfigurationChange::AddLearner(member), payload),
        ENTRY_REMOVE => Payload::Change(ConfigurationChange::Remove(member), payload),
        unknown => return Err(DecodeError::UnknownKind("entry kind", unknown)),
    };
    Ok(Entry { term, index, payload })
}

/// Appends the bytes of a hard state.
pub fn encode_hard_state(hard_state: &HardState, out: &mut impl BufMut) {
    put_number(hard_state.term.0, out);
    put_id(hard_state.vote, out);
    put_number(hard_state.commit.0, out);
}

/// Takes a hard state off the front.
///
/// # Errors
///
/// When the bytes are too few.
pub fn decode_hard_state(bytes: &mut Bytes) -> Result<HardState, DecodeError> {
    Ok(HardState {
        term: Term(take_number(bytes, "term")?),
        vote: take_id(bytes, "vote")?,
        commit: LogIndex(take_number(bytes, "commit index")?),
    })
}

/// Appends the bytes of a snapshot's description.
pub fn encode_snapshot_meta(meta: &SnapshotMeta, out: &mut impl BufMut) {
    put_number(meta.index.0, out);
    put_number(meta.term.0, out);
    put_ids(&meta.configuration.voters, out);
    put_ids(&meta.configuration.learners, out);
}

/// Takes a snapshot's description off the front.
///
/// # Errors
///
/// When the bytes are too few, or counts claim more than there is.
pub fn decode_snapshot_meta(bytes: &mut Bytes) -> Result<SnapshotMeta, DecodeError> {
    Ok(SnapshotMeta {
        index: LogIndex(take_number(bytes, "snapshot index")?),
        term: Term(take_number(bytes, "snapshot term")?),
        configuration: Configuration {
            voters: take_ids(bytes, "voters")?,
            learners: take_ids(bytes, "learners")?,
        },
    })
}

/// Appends the bytes of a message. Framing is the transport's.
pub fn encode_message(message: &Message, out: &mut impl BufMut) {
    out.put_u8(kind_of(&message.body));
    put_id(message.from, out);
    put_id(message.to, out);
    put_number(message.term.0, out);
    encode_body(&message.body, out);
}

fn kind_of(body: &Body) -> u8 {
    match body {
        Body::PreVote { .. } => PRE_VOTE,
        Body::PreVoteResponse { .. } => PRE_VOTE_RESPONSE,
        Body::Vote { .. } => VOTE,
        Body::VoteResponse { .. } => VOTE_RESPONSE,
        Body::Append { .. } => APPEND,
        Body::AppendResponse { .. } => APPEND_RESPONSE,
        Body::Heartbeat { .. } => HEARTBEAT,
        Body::HeartbeatResponse { .. } => HEARTBEAT_RESPONSE,
        Body::Snapshot { .. } => SNAPSHOT,
        Body::TimeoutNow => TIMEOUT_NOW,
        Body::ReadIndex { .. } => READ_INDEX,
        Body::ReadIndexResponse { .. } => READ_INDEX_RESPONSE,
    }
}

fn encode_body(body: &Body, out: &mut impl BufMut) {
    match body {
        Body::PreVote { last_index, last_term } => {
            put_number(last_index.0, out);
            put_number(last_term.0, out);
        }
        Body::Vote { last_index, last_term, transfer } => {
            put_number(last_index.0, out);
            put_number(last_term.0, out);
            out.put_u8(u8::from(*transfer));
        }
        Body::PreVoteResponse { granted, committed }
        | Body::VoteResponse { granted, committed } => {
            out.put_u8(u8::from(*granted));
            put_number(committed.index.0, out);
            put_number(committed.term.0, out);
        }
        Body::Append { previous_index, previous_term, entries, commit } => {
            put_number(previous_index.0, out);
            put_number(previous_term.0, out);
            put_number(entries.len() as u64, out);
            for entry in entries {
                encode_entry(entry, out);
            }
            put_number(commit.0, out);
        }
        Body::AppendResponse { index, commit, rejection } => {
            put_number(index.0, out);
            put_number(commit.0, out);
            out.put_u8(u8::from(rejection.is_some()));
            if let Some(Rejection { hint_index, hint_term }) = rejection {
                put_number(hint_index.0, out);
                put_number(hint_term.0, out);
            }
        }
        Body::Heartbeat { commit, context } => {
            put_number(commit.0, out);
            put_number(context.0, out);
        }
        Body::HeartbeatResponse { context } => put_number(context.0, out),
        Body::Snapshot { meta } => encode_snapshot_meta(meta, out),
        Body::TimeoutNow => {}
        Body::ReadIndex { ticket } => out.put_u64_le(ticket.0),
        Body::ReadIndexResponse { ticket, index } => {
            out.put_u64_le(ticket.0);
            put_number(index.0, out);
        }
    }
}

/// Reads a whole message; its payloads share the given bytes.
///
/// # Errors
///
/// When the bytes are no message of this version, or more than one.
pub fn decode_message(mut bytes: Bytes) -> Result<Message, DecodeError> {
    let kind = take_byte(&mut bytes, "message kind")?;
    let from = take_id(&mut bytes, "sender")?;
    let to = take_id(&mut bytes, "receiver")?;
    let term = Term(take_number(&mut bytes, "term")?);
    let body = decode_body(kind, &mut bytes)?;
    if !bytes.is_empty() {
        return Err(DecodeError::Trailing(bytes.len()));
    }
    Ok(Message { from, to, term, body })
}

fn decode_body(kind: u8, bytes: &mut Bytes) -> Result<Body, DecodeError> {
    Ok(match kind {
        PRE_VOTE => Body::PreVote {
            last_index: LogIndex(take_number(bytes, "last index")?),
            last_term: Term(take_number(bytes, "last term")?),
        },
        PRE_VOTE_RESPONSE => Body::PreVoteResponse {
            granted: take_flag(bytes, "grant")?,
            committed: take_committed(bytes)?,
        },
        VOTE => Body::Vote {
            last_index: LogIndex(take_number(bytes, "last index")?),
            last_term: Term(take_number(bytes, "last term")?),
            transfer: take_flag(bytes, "transfer")?,
        },
        VOTE_RESPONSE => Body::VoteResponse {
            granted: take_flag(bytes, "grant")?,
            committed: take_committed(bytes)?,
        },
        APPEND => decode_append(bytes)?,
        APPEND_RESPONSE => decode_append_response(bytes)?,
        HEARTBEAT => Body::Heartbeat {
            commit: LogIndex(take_number(bytes, "commit index")?),
            context: ReadContext(take_number(bytes, "read context")?),
        },
        HEARTBEAT_RESPONSE => {
            Body::HeartbeatResponse { context: ReadContext(take_number(bytes, "read context")?) }
        }
        SNAPSHOT => Body::Snapshot { meta: decode_snapshot_meta(bytes)? },
        TIMEOUT_NOW => Body::TimeoutNow,
        READ_INDEX => Body::ReadIndex { ticket: ReadTicket(take_id(bytes, "read ticket")?.0) },
        READ_INDEX_RESPONSE => Body::ReadIndexResponse {
            ticket: ReadTicket(take_id(bytes, "read ticket")?.0),
            index: LogIndex(take_number(bytes, "read index")?),
        },
        unknown => return Err(DecodeError::UnknownKind("message kind", unknown)),
    })
}

fn take_committed(bytes: &mut Bytes) -> Result<Committed, DecodeError> {
    Ok(Committed {
        index: LogIndex(take_number(bytes, "commit index")?),
        term: Term(take_number(bytes, "commit term")?),
    })
}

fn decode_append(bytes: &mut Bytes) -> Result<Body, DecodeError> {
    let previous_index = LogIndex(take_number(bytes, "previous index")?);
    let previous_term = Term(take_number(bytes, "previous term")?);
    let count = take_count(bytes, ENTRY_BYTES_MIN, "entries")?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(decode_entry(bytes)?);
    }
    let commit = LogIndex(take_number(bytes, "commit index")?);
    Ok(Body::Append { previous_index, previous_term, entries, commit })
}

fn decode_append_response(bytes: &mut Bytes) -> Result<Body, DecodeError> {
    let index = LogIndex(take_number(bytes, "index")?);
    let commit = LogIndex(take_number(bytes, "commit index")?);
    let rejection = if take_flag(bytes, "rejection")? {
        Some(Rejection {
            hint_index: LogIndex(take_number(bytes, "hint index")?),
            hint_term: Term(take_number(bytes, "hint term")?),
        })
    } else {
        None
    };
    Ok(Body::AppendResponse { index, commit, rejection })
}

fn put_number(mut number: u64, out: &mut impl BufMut) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn take_number(bytes: &mut Bytes, field: &'static str) -> Result<u64, DecodeError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(bytes, field)?;
        if shift == 63 && byte > 1 {
            return Err(DecodeError::NumberTooLong(field));
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(DecodeError::NumberTooLong(field))
}

/// A count of things that take at least `bytes_each`: more than fit in what is left is refused before any memory is
/// set aside for it.
fn take_count(
    bytes: &mut Bytes,
    bytes_each: usize,
    field: &'static str,
) -> Result<usize, DecodeError> {
    let count = take_number(bytes, field)?;
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= bytes.len() / bytes_each)
        .ok_or(DecodeError::Truncated(field))
}

fn put_id(id: MemberId, out: &mut impl BufMut) {
    out.put_u64_le(id.0);
}

fn take_id(bytes: &mut Bytes, field: &'static str) -> Result<MemberId, DecodeError> {
    if bytes.len() < ID_BYTES {
        return Err(DecodeError::Truncated(field));
    }
    Ok(MemberId(bytes.get_u64_le()))
}

fn put_ids(ids: &BTreeSet<MemberId>, out: &mut impl BufMut) {
    put_number(ids.len() as u64, out);
    for id in ids {
        put_id(*id, out);
    }
}

fn take_ids(bytes: &mut Bytes, field: &'static str) -> Result<BTreeSet<MemberId>, DecodeError> {
    let count = take_count(bytes, ID_BYTES, field)?;
    (0..count).map(|_| take_id(bytes, field)).collect()
}

fn take_byte(bytes: &mut Bytes, field: &'static str) -> Result<u8, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Truncated(field));
    }
    Ok(bytes.get_u8())
}

fn take_flag(bytes: &mut Bytes, field: &'static str) -> Result<bool, DecodeError> {
    match take_byte(bytes, field)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(DecodeError::UnknownKind(field, other)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn entry(term: u64, index: u64, payload: Payload) -> Entry {
        Entry { term: Term(term), index: LogIndex(index), payload }
    }

    fn message(body: Body) -> Message {
        Message { from: MemberId(0x0102), to: MemberId(u64::MAX), term: Term(300), body }
    }

    fn configuration() -> Configuration {
        Configuration {
            voters: BTreeSet::from([MemberId(1), MemberId(2)]),
            learners: BTreeSet::from([MemberId(3)]),
        }
    }

    /// One of each, with the bytes that it must have for ever.
    fn golden() -> Vec<(Body, &'static str)> {
        let (last_index, last_term) = (LogIndex(5), Term(2));
        let committed = Committed { index: LogIndex(300), term: Term(2) };
        let change = ConfigurationChange::AddLearner(MemberId(7));
        let entries = vec![
            entry(2, 4, Payload::Empty),
            entry(2, 5, Payload::Command(Bytes::from_static(b"ab"))),
            entry(3, 6, Payload::Change(change, Bytes::from_static(b"n"))),
        ];
        let hint = Rejection { hint_index: LogIndex(128), hint_term: Term(1) };
        let meta =
            SnapshotMeta { index: LogIndex(9), term: Term(4), configuration: configuration() };
        vec![
            (Body::PreVote { last_index, last_term }, "01 0502"),
            (Body::PreVoteResponse { granted: true, committed }, "02 01 ac0202"),
            (Body::Vote { last_index, last_term, transfer: true }, "03 050201"),
            (Body::VoteResponse { granted: false, committed }, "04 00 ac0202"),
            (
                Body::Append {
                    previous_index: LogIndex(3),
                    previous_term: Term(1),
                    entries,
                    commit: LogIndex(4),
                },
                "05 030103 00020400 010205026162 0303060700000000000000016e 04",
            ),
            (
                Body::AppendResponse { index: LogIndex(6), commit: LogIndex(5), rejection: None },
                "06 060500",
            ),
            (
                Body::AppendResponse {
                    index: LogIndex(200),
                    commit: LogIndex(5),
                    rejection: Some(hint),
                },
                "06 c80105 01800101",
            ),
            (Body::Heartbeat { commit: LogIndex(4), context: ReadContext(1) }, "07 0401"),
            (Body::HeartbeatResponse { context: ReadContext(1) }, "08 01"),
            (
                Body::Snapshot { meta },
                "09 0904 0201000000000000000200000000000000 010300000000000000",
            ),
            (Body::TimeoutNow, "0a"),
            (Body::ReadIndex { ticket: ReadTicket(258) }, "0b 0201000000000000"),
            (
                Body::ReadIndexResponse { ticket: ReadTicket(258), index: LogIndex(300) },
                "0c 0201000000000000ac02",
            ),
        ]
    }

    /// What every message above shares: sender 0x102, receiver 2^64 - 1, term 300.
    const HEAD: &str = "0201000000000000ffffffffffffffffac02";

    fn from_hex(hex: &str) -> Vec<u8> {
        let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    }

    #[test]
    fn messages_have_the_bytes_of_version_1() {
        for (body, hex) in golden() {
            let (kind, rest) = hex.split_at(2);
            let expected = from_hex(&format!("{kind}{HEAD}{rest}"));
            let message = message(body);
            let mut encoded = BytesMut::new();
            encode_message(&message, &mut encoded);
            assert_eq!(encoded, expected, "{message:?}");
            assert_eq!(decode_message(Bytes::from(expected)), Ok(message));
        }
    }

    #[test]
    fn hard_state_and_snapshot_have_the_bytes_of_version_1() {
        let state = HardState { term: Term(1), vote: MemberId(2), commit: LogIndex(300) };
        let mut encoded = BytesMut::new();
        encode_hard_state(&state, &mut encoded);
        assert_eq!(encoded, from_hex("01 0200000000000000 ac02"));
        assert_eq!(decode_hard_state(&mut encoded.freeze()), Ok(state));
    }

    #[test]
    fn every_prefix_is_refused_and_every_suffix_too() {
        for (body, _) in golden() {
            let mut encoded = BytesMut::new();
            encode_message(&message(body), &mut encoded);
            let encoded = encoded.freeze();
            for cut in 0..encoded.len() {
                let error =
                    decode_message(encoded.slice(..cut)).expect_err("a prefix is no message");
                assert!(matches!(error, DecodeError::Truncated(_)), "{cut}: {error}");
            }
            let mut longer = encoded.to_vec();
            longer.push(0);
            assert_eq!(decode_message(Bytes::from(longer)), Err(DecodeError::Trailing(1)));
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let whole = |hex: &str| decode_message(Bytes::from(from_hex(hex)));
        let unknown = format!("0d{HEAD}");
        assert_eq!(whole(&unknown), Err(DecodeError::UnknownKind("message kind", 13)));
        let count = format!("05{HEAD}0301 ffffffff0f 00");
        assert_eq!(whole(&count), Err(DecodeError::Truncated("entries")));
        let number = format!("08{HEAD}ffffffffffffffffff02");
        assert_eq!(whole(&number), Err(DecodeError::NumberTooLong("read context")));
        let flag = format!("04{HEAD}02");
        assert_eq!(whole(&flag), Err(DecodeError::UnknownKind("grant", 2)));
        let kind = decode_entry(&mut Bytes::from_static(&[9, 1, 1, 0]));
        assert_eq!(kind, Err(DecodeError::UnknownKind("entry kind", 9)));
        let full = decode_entry(&mut Bytes::from_static(&[0, 1, 1, 2, 7, 7]));
        assert_eq!(full, Err(DecodeError::Trailing(2)), "an empty entry with a payload");
        let length = decode_entry(&mut Bytes::from_static(&[1, 1, 1, 5, 0]));
        assert_eq!(length, Err(DecodeError::Truncated("payload")));
    }

    #[test]
    fn a_decoded_payload_shares_the_bytes_it_came_in() {
        let mut encoded = BytesMut::new();
        encode_entry(&entry(1, 1, Payload::Command(Bytes::from_static(b"payload"))), &mut encoded);
        let encoded = encoded.freeze();
        let decoded = decode_entry(&mut encoded.clone()).expect("it was just encoded");
        let Payload::Command(payload) = decoded.payload else { panic!("a command") };
        assert!(encoded.as_ptr_range().contains(&payload.as_ptr()));
    }

    #[test]
    fn the_largest_numbers_survive() {
        let largest = entry(u64::MAX, u64::MAX, Payload::Empty);
        let mut encoded = BytesMut::new();
        encode_entry(&largest, &mut encoded);
        assert_eq!(decode_entry(&mut encoded.freeze()), Ok(largest));
    }
}
