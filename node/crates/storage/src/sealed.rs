//! Magic, format, length and checksum in front of fields: how every single-record file and segment header begins.
//!
//! ```text
//!   magic 8 │ format u32 │ length of the fields u32 │ crc32c u32 │ fields
//!                                                     over all else
//! ```
//!
//! These keep their places in every later format, or a newer file could not be told from damage.

use bytes::Bytes;

/// What stands in front of the fields.
pub(crate) const PREFIX_BYTES: usize = 20;

/// Puts the prefix in front of fields.
pub(crate) fn seal(magic: &[u8; 8], format: u32, fields: &[u8]) -> Vec<u8> {
    let length = u32::try_from(fields.len()).expect("a header or manifest is small");
    let mut out = Vec::with_capacity(PREFIX_BYTES + fields.len());
    out.extend_from_slice(magic);
    out.extend_from_slice(&format.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), fields);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(fields);
    out
}

/// What [`unseal`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsealed {
    /// The checksum holds and the format is known.
    Fields(Bytes),
    /// The checksum holds and the format is later than this version knows.
    Newer {
        /// The format that it names.
        format: u32,
    },
    /// These bytes are not what anybody wrote.
    Damaged,
}

/// The reverse of [`seal`]; bytes after the fields are ignored.
pub(crate) fn unseal(magic: &[u8; 8], format_max: u32, bytes: &Bytes) -> Unsealed {
    if bytes.len() < PREFIX_BYTES || bytes[..8] != magic[..] {
        return Unsealed::Damaged;
    }
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let (format, length, crc) = (u32_at(8), u32_at(12) as usize, u32_at(16));
    if bytes.len() - PREFIX_BYTES < length {
        return Unsealed::Damaged;
    }
    let fields = bytes.slice(PREFIX_BYTES..PREFIX_BYTES + length);
    if crc != crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &fields) {
        return Unsealed::Damaged;
    }
    if format > format_max {
        return Unsealed::Newer { format };
    }
    Unsealed::Fields(fields)
}
