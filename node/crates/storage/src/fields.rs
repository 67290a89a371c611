//! Fixed-width little-endian fields: how the headers of the WAL and the manifest lay out numbers.

use bytes::{Buf, Bytes};
use quorate_consensus::codec::DecodeError;
use quorate_consensus::{HardState, LogIndex, MemberId, Term};

/// Bytes that ended too early or hold what no writer writes. The reader of the file knows what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl From<DecodeError> for Malformed {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// Reads fields off the front of bytes that may be anything.
pub(crate) struct Fields(pub(crate) Bytes);

impl Fields {
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.need(4)?;
        Ok(self.0.get_u32_le())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.need(8)?;
        Ok(self.0.get_u64_le())
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<Bytes, Malformed> {
        self.need(length)?;
        Ok(self.0.split_to(length))
    }

    /// A text with its length in front.
    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        let length = self.u32()? as usize;
        let bytes = self.bytes(length)?;
        String::from_utf8(bytes.into()).map_err(|_| Malformed("a text is not UTF-8".into()))
    }

    pub(crate) fn hard_state(&mut self) -> Result<HardState, Malformed> {
        Ok(HardState {
            term: Term(self.u64()?),
            vote: MemberId(self.u64()?),
            commit: LogIndex(self.u64()?),
        })
    }

    /// That nothing is left: a reader that leaves bytes over has misunderstood the writer.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        match self.0.remaining() {
            0 => Ok(()),
            left => Err(Malformed(format!("{left} bytes are left over"))),
        }
    }

    fn need(&self, length: usize) -> Result<(), Malformed> {
        if self.0.remaining() < length {
            return Err(Malformed("it ends too early".into()));
        }
        Ok(())
    }
}

/// Appends a text with its length in front.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).expect("names and tokens are far below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends term, vote and commit.
pub(crate) fn put_hard_state(out: &mut Vec<u8>, state: &HardState) {
    for number in [state.term.0, state.vote.0, state.commit.0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}
