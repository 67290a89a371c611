//! Varints and length-prefixed bytes: the primitives under every encoding of this crate, and how decoding fails.

use std::fmt;

use bytes::{BufMut, Bytes};

use crate::limits::RESERVED_ELEMENTS_MAX;

/// The longest varint of 64 bits (7 bits a byte).
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// Why bytes are not what they should be. Bytes from the log have passed a checksum, so neither kind of failure may be
/// skipped: the member stops (design §3 Entries).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end early.
    Truncated {
        /// Where they were read, in bytes from the start.
        offset: usize,
    },
    /// A varint does not fit 64 bits.
    VarintTooLong {
        /// Where it starts.
        offset: usize,
    },
    /// A number is outside of what its field may hold.
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// The number.
        found: u64,
    },
    /// The format byte is of a newer version.
    UnknownFormat {
        /// What was to be read.
        what: &'static str,
        /// The format found.
        found: u8,
    },
    /// The command's tag is not known to this build: a newer member made it.
    UnknownCommand {
        /// The tag found.
        tag: u64,
    },
    /// A known structure holds a kind that this build does not know.
    UnknownKind {
        /// Which structure.
        what: &'static str,
        /// The tag found.
        tag: u64,
    },
    /// A state of a cluster that has reached a level which this build does not know.
    UnknownLevel {
        /// The cluster's level.
        level: u16,
        /// The highest that is known here.
        known: u16,
    },
    /// Transactions within one another beyond the bound.
    TooDeep,
    /// Text that is not UTF-8.
    NotText {
        /// Where it starts.
        offset: usize,
    },
    /// Bytes follow the end.
    Trailing {
        /// How many.
        bytes: usize,
    },
}

impl DecodeError {
    /// Whether a newer build would read these bytes: the remedy is an upgrade, not a repair.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::UnknownFormat { .. }
            | Self::UnknownCommand { .. }
            | Self::UnknownKind { .. }
            | Self::UnknownLevel { .. } => true,
            Self::Truncated { .. }
            | Self::VarintTooLong { .. }
            | Self::OutOfRange { .. }
            | Self::TooDeep
            | Self::NotText { .. }
            | Self::Trailing { .. } => false,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { offset } => write!(f, "the bytes end early, at {offset}"),
            Self::VarintTooLong { offset } => {
                write!(f, "the number at byte {offset} is longer than 64 bits")
            }
            Self::OutOfRange { field, found } => write!(f, "{field} cannot be {found}"),
            Self::UnknownFormat { what, found } => {
                write!(f, "format {found} of {what} is newer than this build")
            }
            Self::UnknownCommand { tag } => write!(f, "command {tag} is newer than this build"),
            Self::UnknownKind { what, tag } => {
                write!(f, "kind {tag} of {what} is newer than this build")
            }
            Self::UnknownLevel { level, known } => write!(
                f,
                "the cluster has reached feature level {level}, this build knows {known}: start the version that the other \
                 members run"
            ),
            Self::TooDeep => write!(f, "transactions are nested beyond the bound"),
            Self::NotText { offset } => write!(f, "the text at byte {offset} is not UTF-8"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes follow the end"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// The bytes that a varint takes.
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Signed numbers go as their two's complement, as protobuf's int64: they are hardly ever negative.
pub(crate) fn put_signed(out: &mut impl BufMut, value: i64) {
    put_varint(out, value.cast_unsigned());
}

pub(crate) fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

pub(crate) fn put_texts(out: &mut impl BufMut, texts: &[String]) {
    put_varint(out, texts.len() as u64);
    for text in texts {
        put_bytes(out, text.as_bytes());
    }
}

/// Reads from the front; byte strings come out as slices of the whole, uncopied.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated { offset: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = &self.bytes[self.at..];
        let array = *rest.first_chunk::<N>().ok_or(DecodeError::Truncated { offset: self.at })?;
        self.at += N;
        Ok(array)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let start = self.at;
        let mut value = 0_u64;
        for position in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for the last bit only.
            if position == VARINT_BYTES_MAX - 1 && bits > 1 {
                break;
            }
            value |= bits << (7 * position);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong { offset: start })
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        Ok(self.varint()?.cast_signed())
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let range = self.span()?;
        Ok(self.bytes.slice(range))
    }

    /// Where the next byte string lies, passing over it.
    pub(crate) fn span(&mut self) -> Result<std::ops::Range<usize>, DecodeError> {
        let length = self.length()?;
        let start = self.at;
        self.at += length;
        Ok(start..self.at)
    }

    pub(crate) fn text(&mut self) -> Result<String, DecodeError> {
        let range = self.span()?;
        let offset = range.start;
        std::str::from_utf8(&self.bytes[range])
            .map(str::to_owned)
            .map_err(|_| DecodeError::NotText { offset })
    }

    pub(crate) fn texts(&mut self) -> Result<Vec<String>, DecodeError> {
        self.list(Self::text)
    }

    /// A counted list.
    pub(crate) fn list<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        // An element takes a byte at least, so a count beyond the rest is damage, found before room is taken.
        let count = self.length()?;
        let mut list = Vec::with_capacity(count.min(RESERVED_ELEMENTS_MAX));
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    fn length(&mut self) -> Result<usize, DecodeError> {
        let length = self.varint()?;
        let rest = self.bytes.len() - self.at;
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= rest)
            .ok_or(DecodeError::Truncated { offset: self.at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_reads_back_and_its_length_is_known() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), 1 << 62, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "length of {value}");
            let bytes = Bytes::from(out);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        let bytes = Bytes::from_static(&[0xff; 9]);
        assert_eq!(Reader::new(&bytes).varint(), Err(DecodeError::Truncated { offset: 9 }));
        let bytes = Bytes::from_static(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02");
        assert_eq!(Reader::new(&bytes).varint(), Err(DecodeError::VarintTooLong { offset: 0 }));
    }

    #[test]
    fn a_count_beyond_the_rest_is_found_before_room_is_taken() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        let bytes = Bytes::from(out);
        assert_eq!(
            Reader::new(&bytes).list(Reader::byte),
            Err(DecodeError::Truncated { offset: 10 })
        );
    }
}
