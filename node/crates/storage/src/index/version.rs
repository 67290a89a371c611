//! One version of one key, as the index packs it behind the version before.
//!
//! ```text
//! tag u8 | main - previous main   (absent in the first version of an entry: the entry's base is its main)
//!        | sub                    (if SUB)
//!        | main - create, version (if EXPLICIT)
//!        | segment | offset | len                                 all integers are varints
//! ```

use quorate_machine::Revision;

use crate::varint;

/// The version is a tombstone: the key was deleted here.
const TOMBSTONE: u8 = 1;
/// A `sub` other than zero follows.
const SUB: u8 = 1 << 1;
/// Same creation as the version before, version number one higher.
const CONTINUES: u8 = 1 << 2;
/// Creation and version number are spelled out (a generation whose earlier versions stand in another entry or are gone).
const EXPLICIT: u8 = 1 << 3;

/// Where a row stands: segment file, byte offset of its frame, length of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowAt {
    /// Number of the segment file, unique within a generation and never used twice.
    pub segment: u32,
    /// Offset of the frame's first byte.
    pub offset: u32,
    /// Bytes of the whole frame, so that one read fetches it and a list knows its size before it reads.
    pub len: u32,
}

/// One version of a key: what the index knows without reading the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// When it was written; the main part is etcd's mod revision.
    pub revision: Revision,
    /// Main revision that created the key's present life; 0 in a tombstone.
    pub create: i64,
    /// Writes since that creation, this one included; 0 in a tombstone.
    pub version: i64,
    /// The key was deleted here.
    pub tombstone: bool,
    /// Where its row stands.
    pub at: RowAt,
}

impl Version {
    /// Appends this version; `previous` is the one before it in the same entry.
    pub(super) fn encode(&self, previous: Option<&Version>, out: &mut Vec<u8>) {
        let continues = previous.is_some_and(|p| {
            !p.tombstone && p.create == self.create && p.version + 1 == self.version
        });
        let Revision { main, sub } = self.revision;
        let fresh = self.create == main && self.version == 1;
        let mut tag = 0;
        if self.tombstone {
            tag |= TOMBSTONE;
        } else if continues {
            tag |= CONTINUES;
        } else if !fresh {
            tag |= EXPLICIT;
        }
        if sub != 0 {
            tag |= SUB;
        }
        out.push(tag);
        if let Some(previous) = previous {
            varint::put(out, (main - previous.revision.main) as u64);
        }
        if tag & SUB != 0 {
            varint::put(out, sub as u64);
        }
        if tag & EXPLICIT != 0 {
            varint::put(out, (main - self.create) as u64);
            varint::put(out, self.version as u64);
        }
        varint::put(out, u64::from(self.at.segment));
        varint::put(out, u64::from(self.at.offset));
        varint::put(out, u64::from(self.at.len));
    }

    /// Reads the version at `*at`; `previous` as in [`Version::encode`], `base` the main revision of an entry's first.
    #[inline]
    fn decode(bytes: &[u8], at: &mut usize, previous: Option<&Version>, base: i64) -> Version {
        let tag = bytes[*at];
        *at += 1;
        let main = match previous {
            Some(previous) => previous.revision.main + varint::take(bytes, at) as i64,
            None => base,
        };
        let sub = if tag & SUB != 0 { varint::take(bytes, at) as i64 } else { 0 };
        let (create, version) = if tag & TOMBSTONE != 0 {
            (0, 0)
        } else if tag & EXPLICIT != 0 {
            let create = main - varint::take(bytes, at) as i64;
            (create, varint::take(bytes, at) as i64)
        } else if tag & CONTINUES != 0 {
            let previous = previous.expect("a continuing version is never an entry's first");
            (previous.create, previous.version + 1)
        } else {
            (main, 1)
        };
        let segment = varint::take(bytes, at) as u32;
        let offset = varint::take(bytes, at) as u32;
        let len = varint::take(bytes, at) as u32;
        let at = RowAt { segment, offset, len };
        let tombstone = tag & TOMBSTONE != 0;
        Version { revision: Revision { main, sub }, create, version, tombstone, at }
    }
}

/// The versions of one entry, oldest first, read from its body (`base` varint, then versions).
pub(super) struct Versions<'a> {
    body: &'a [u8],
    at: usize,
    base: i64,
    previous: Option<Version>,
}

impl<'a> Versions<'a> {
    /// Opens a body.
    #[inline]
    pub(super) fn of(body: &'a [u8]) -> Versions<'a> {
        let mut at = 0;
        let base = varint::take(body, &mut at) as i64;
        Versions { body, at, base, previous: None }
    }

    /// The entry's base: the revision of its first version.
    #[inline]
    pub(super) fn base(&self) -> Revision {
        let mut at = self.at;
        let tag = self.body[at];
        at += 1;
        let sub = if tag & SUB != 0 { varint::take(self.body, &mut at) as i64 } else { 0 };
        Revision { main: self.base, sub }
    }

    /// The newest version at or below `at`.
    #[inline]
    pub(super) fn newest(self, at: Revision) -> Option<Version> {
        let mut found = None;
        for version in self {
            if version.revision > at {
                break;
            }
            found = Some(version);
        }
        found
    }
}

impl Iterator for Versions<'_> {
    type Item = Version;

    #[inline]
    fn next(&mut self) -> Option<Version> {
        if self.at == self.body.len() {
            return None;
        }
        let version = Version::decode(self.body, &mut self.at, self.previous.as_ref(), self.base);
        self.previous = Some(version);
        Some(version)
    }
}

/// Appends a body that holds `versions` (oldest first, at least one).
pub(super) fn encode_body(versions: &[Version], out: &mut Vec<u8>) {
    varint::put(out, versions[0].revision.main as u64);
    let mut previous = None;
    for version in versions {
        version.encode(previous, out);
        previous = Some(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(main: i64, sub: i64, create: i64, version: i64) -> Version {
        let at = RowAt { segment: 3, offset: 1 << 20, len: 356 };
        let revision = Revision { main, sub };
        Version { revision, create, version, tombstone: version == 0, at }
    }

    /// The bytes of a body are a checkpoint's bytes: they may not change without a new checkpoint format.
    #[test]
    fn golden_body() {
        let body = [
            version(299, 0, 2, 7),
            version(300, 5, 2, 8),
            version(301, 0, 0, 0),
            version(310, 0, 310, 1),
            version(311, 0, 310, 2),
        ];
        let mut out = Vec::new();
        encode_body(&body, &mut out);
        let address = [3, 0x80, 0x80, 0x40, 0xe4, 0x02];
        let mut expected = vec![0xab, 0x02];
        for head in [&[0x08, 0xa9, 0x02, 7][..], &[0x06, 1, 5], &[0x01, 1], &[0x00, 9], &[0x04, 1]]
        {
            expected.extend_from_slice(head);
            expected.extend_from_slice(&address);
        }
        assert_eq!(out, expected);
        assert_eq!(Versions::of(&out).collect::<Vec<_>>(), body);
        let newest = |main, sub| Versions::of(&out).newest(Revision { main, sub });
        assert_eq!(newest(300, 5), Some(body[1]));
        assert_eq!(newest(300, 4), Some(body[0]));
        assert_eq!(newest(298, 9), None);
        assert_eq!(newest(i64::MAX, 0), Some(body[4]));
    }

    #[test]
    fn the_base_is_the_whole_revision_of_the_first_version() {
        let mut out = Vec::new();
        encode_body(&[version(300, 5, 2, 8)], &mut out);
        assert_eq!(Versions::of(&out).base(), Revision { main: 300, sub: 5 });
    }
}
