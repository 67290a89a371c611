//! Peer messages as bytes: little-endian, fixed-width, versioned by the handshake and by nothing else.
//!
//! ```text
//!   from u64 │ to u64 │ clock u64 │ kind u8 │ body
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_consensus::{ConfigurationChange, LogIndex, MemberId, Term, codec};
use quorate_machine::LeaseTime;

use crate::{
    membership::ChangeRefusal,
    peer::{ForwardRefusal, ForwardedRequest, PeerBody, PeerMessage},
    proposals::Sequence,
};

/// The version of this encoding and of consensus's within it. Both sides name theirs in the handshake; unequal ones part.
pub const WIRE_VERSION: u16 = 1;

/// Requests or answers in one message; a frame that claims more is refused before anything is reserved for it.
const LIST_MAX: usize = 1 << 20;

/// The bytes are no message of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError(pub String);

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a peer sent bytes that are no message of version {WIRE_VERSION}: {}", self.0)
    }
}

impl std::error::Error for WireError {}

impl PeerMessage {
    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.from.0);
        out.put_u64_le(self.to.0);
        out.put_u64_le(self.clock.0);
        match &self.body {
            PeerBody::Consensus(message) => {
                out.put_u8(0);
                codec::encode_message(message, out);
            }
            PeerBody::Forward { term, attempt, life, requests } => {
                out.put_u8(1);
                out.put_u64_le(term.0);
                out.put_u64_le(*attempt);
                out.put_u64_le(*life);
                put_len(out, requests.len());
                for request in requests {
                    put_request(out, request);
                }
            }
            PeerBody::ForwardAccepted { life, accepted } => {
                out.put_u8(2);
                out.put_u64_le(*life);
                put_len(out, accepted.len());
                for (sequence, term, index) in accepted {
                    out.put_u64_le(sequence.0);
                    out.put_u64_le(term.0);
                    out.put_u64_le(index.0);
                }
            }
            PeerBody::ForwardRefused { life, attempt, refused } => {
                out.put_u8(3);
                out.put_u64_le(*life);
                out.put_u64_le(*attempt);
                put_len(out, refused.len());
                for (sequence, refusal) in refused {
                    out.put_u64_le(sequence.0);
                    out.put_u8(refusal_code(*refusal));
                }
            }
        }
    }

    /// Reads a message; payloads are slices of `bytes`.
    ///
    /// # Errors
    /// The bytes are cut short, or name a kind that this version does not have.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut bytes = Reader(bytes);
        let from = MemberId(bytes.u64()?);
        let to = MemberId(bytes.u64()?);
        let clock = LeaseTime(bytes.u64()?);
        let body = match bytes.u8()? {
            0 => {
                let message =
                    codec::decode_message(bytes.0).map_err(|error| WireError(error.to_string()))?;
                return Ok(Self { from, to, clock, body: PeerBody::Consensus(message) });
            }
            1 => PeerBody::Forward {
                term: Term(bytes.u64()?),
                attempt: bytes.u64()?,
                life: bytes.u64()?,
                requests: bytes.list(Reader::request)?,
            },
            2 => PeerBody::ForwardAccepted {
                life: bytes.u64()?,
                accepted: bytes.list(|bytes| {
                    Ok((Sequence(bytes.u64()?), Term(bytes.u64()?), LogIndex(bytes.u64()?)))
                })?,
            },
            3 => PeerBody::ForwardRefused {
                life: bytes.u64()?,
                attempt: bytes.u64()?,
                refused: bytes.list(|bytes| Ok((Sequence(bytes.u64()?), refusal(bytes.u8()?)?)))?,
            },
            kind => return Err(WireError(format!("kind {kind} is unknown"))),
        };
        if bytes.0.is_empty() {
            Ok(Self { from, to, clock, body })
        } else {
            Err(WireError(format!("{} bytes too many", bytes.0.len())))
        }
    }
}

fn put_len(out: &mut BytesMut, length: usize) {
    out.put_u32_le(u32::try_from(length).expect("bounded far below by queues and frames"));
}

fn put_request(out: &mut BytesMut, request: &ForwardedRequest) {
    out.put_u64_le(request.sequence.0);
    let (kind, member) = match request.change {
        None => (0, 0),
        Some(ConfigurationChange::AddVoter(member)) => (1, member.0),
        Some(ConfigurationChange::AddLearner(member)) => (2, member.0),
        Some(ConfigurationChange::Remove(member)) => (3, member.0),
    };
    out.put_u8(kind);
    out.put_u64_le(member);
    put_len(out, request.envelope.len());
    out.put_slice(&request.envelope);
}

/// Refusals by number; a number never changes its meaning.
const REFUSALS: [(u8, ForwardRefusal); 11] = [
    (0, ForwardRefusal::NotLeader),
    (1, ForwardRefusal::Later),
    (2, ForwardRefusal::Overloaded),
    (10, ForwardRefusal::Change(ChangeRefusal::NotEnoughStartedMembers)),
    (11, ForwardRefusal::Change(ChangeRefusal::Unhealthy)),
    (12, ForwardRefusal::Change(ChangeRefusal::LearnerNotReady)),
    (13, ForwardRefusal::Change(ChangeRefusal::NotLearner)),
    (14, ForwardRefusal::Change(ChangeRefusal::NotFound)),
    (15, ForwardRefusal::Change(ChangeRefusal::Exists)),
    (16, ForwardRefusal::Change(ChangeRefusal::PeerUrlExists)),
    (17, ForwardRefusal::Change(ChangeRefusal::TooManyLearners)),
];

fn refusal_code(refusal: ForwardRefusal) -> u8 {
    REFUSALS.iter().find(|(_, known)| *known == refusal).expect("the table names every refusal").0
}

fn refusal(code: u8) -> Result<ForwardRefusal, WireError> {
    REFUSALS
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, refusal)| *refusal)
        .ok_or_else(|| WireError(format!("refusal {code} is unknown")))
}

/// Reads with a check before each step.
struct Reader(Bytes);

impl Reader {
    fn need(&self, length: usize) -> Result<(), WireError> {
        if self.0.remaining() >= length { Ok(()) } else { Err(WireError("it is cut short".into())) }
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    fn u32(&mut self) -> Result<usize, WireError> {
        self.need(4)?;
        Ok(self.0.get_u32_le() as usize)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.need(8)?;
        Ok(self.0.get_u64_le())
    }

    fn list<T>(
        &mut self,
        item: impl Fn(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let length = self.u32()?;
        if length > LIST_MAX {
            return Err(WireError(format!("a list of {length}")));
        }
        (0..length).map(|_| item(self)).collect()
    }

    fn request(&mut self) -> Result<ForwardedRequest, WireError> {
        let sequence = Sequence(self.u64()?);
        let kind = self.u8()?;
        let member = MemberId(self.u64()?);
        let change = match kind {
            0 => None,
            1 => Some(ConfigurationChange::AddVoter(member)),
            2 => Some(ConfigurationChange::AddLearner(member)),
            3 => Some(ConfigurationChange::Remove(member)),
            kind => return Err(WireError(format!("configuration change {kind} is unknown"))),
        };
        let length = self.u32()?;
        self.need(length)?;
        Ok(ForwardedRequest { sequence, envelope: self.0.split_to(length), change })
    }
}

#[cfg(test)]
mod tests {
    use quorate_consensus::{Body, Message};

    use super::*;

    fn examples() -> Vec<PeerMessage> {
        let message =
            |body| PeerMessage { from: MemberId(1), to: MemberId(2), clock: LeaseTime(3), body };
        vec![
            message(PeerBody::Consensus(Message {
                from: MemberId(1),
                to: MemberId(2),
                term: Term(4),
                body: Body::TimeoutNow,
            })),
            message(PeerBody::Forward {
                term: Term(4),
                attempt: 5,
                life: 6,
                requests: vec![
                    ForwardedRequest {
                        sequence: Sequence(7),
                        envelope: Bytes::from_static(b"abc"),
                        change: Some(ConfigurationChange::AddLearner(MemberId(9))),
                    },
                    ForwardedRequest {
                        sequence: Sequence(8),
                        envelope: Bytes::new(),
                        change: None,
                    },
                ],
            }),
            message(PeerBody::ForwardAccepted {
                life: 6,
                accepted: vec![(Sequence(7), Term(4), LogIndex(10))],
            }),
            message(PeerBody::ForwardRefused {
                life: 6,
                attempt: 5,
                refused: REFUSALS.iter().map(|(_, refusal)| (Sequence(1), *refusal)).collect(),
            }),
        ]
    }

    fn encode(message: &PeerMessage) -> Bytes {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        out.freeze()
    }

    #[test]
    fn every_kind_comes_back_as_it_went() {
        for message in examples() {
            assert_eq!(PeerMessage::decode(encode(&message)), Ok(message));
        }
    }

    #[test]
    fn a_message_that_is_cut_anywhere_is_refused() {
        for message in examples() {
            let bytes = encode(&message);
            for length in 0..bytes.len() {
                assert!(
                    PeerMessage::decode(bytes.slice(..length)).is_err(),
                    "{length} of {message:?}"
                );
            }
        }
    }

    #[test]
    fn the_encoding_of_version_1_stays() {
        let accepted = encode(&examples()[2]);
        assert_eq!(
            accepted.as_ref(),
            [
                1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 6, 0, 0,
                0, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 10, 0,
                0, 0, 0, 0, 0, 0
            ]
        );
    }
}
