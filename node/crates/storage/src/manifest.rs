//! The manifest: the one small file that says whose data directory this is and which of its parts count.
//!
//! It is replaced as a whole (a new file, its sync, a rename, the directory's sync), so a crash leaves the old one or
//! the new one. Nothing in the directory counts unless the manifest names it.

use std::io;
use std::path::Path;

use bytes::Bytes;
use quorate_consensus::codec::{decode_snapshot_meta, encode_snapshot_meta};
use quorate_consensus::{MemberId, SnapshotMeta};

use crate::disk::Disk;
use crate::fields::{Fields, Malformed, put_text};
use crate::identity::ClusterId;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::sealed::{Unsealed, seal, unseal};

/// The format of manifests, and with it of the data directory, that this version writes.
pub const MANIFEST_FORMAT: u32 = 1;

/// The manifest's name.
pub const MANIFEST_NAME: &str = "MANIFEST";

/// The name of a manifest that is not in force yet.
pub(crate) const MANIFEST_NEW_NAME: &str = "MANIFEST.new";

const MAGIC: &[u8; 8] = b"QUORMAN\n";

/// What the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
    /// Drawn at random when the directory was made and never changed: a member that comes back with another one has
    /// lost its data (design §5), whatever its id is.
    pub incarnation: u64,
    /// How often the directory was opened. Durable before anything is served, so that request ids made of member,
    /// incarnation, starts and a counter never repeat.
    pub starts: u64,
    /// What the directory was formed with; empty for a member that joined.
    pub token: String,
    /// The generation that counts: the directory `gen-N`.
    pub generation: u64,
    /// A durable checkpoint in that generation. The generation's own may be a later one, never an earlier one: it is
    /// published first.
    pub checkpoint: SnapshotMeta,
    /// Whether the checkpoint is an installed snapshot, which the WAL may not know of yet.
    pub installed: bool,
}

/// Why a manifest could not be read.
#[derive(Debug)]
pub(crate) enum ManifestError {
    Absent,
    Damaged(String),
    Newer { format: u32 },
    Disk(io::Error),
}

impl Manifest {
    /// The name of the generation's directory.
    #[must_use]
    pub fn generation_name(&self) -> String {
        generation_name(self.generation)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(128 + self.token.len());
        for number in [self.cluster.0, self.member.0, self.incarnation, self.starts] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        put_text(&mut fields, &self.token);
        fields.extend_from_slice(&self.generation.to_le_bytes());
        encode_snapshot_meta(&self.checkpoint, &mut fields);
        fields.push(u8::from(self.installed));
        seal(MAGIC, MANIFEST_FORMAT, &fields)
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, ManifestError> {
        match unseal(MAGIC, MANIFEST_FORMAT, bytes) {
            Unsealed::Fields(fields) => {
                Self::fields(Fields(fields)).map_err(|Malformed(what)| ManifestError::Damaged(what))
            }
            Unsealed::Newer { format } => Err(ManifestError::Newer { format }),
            Unsealed::Damaged => {
                Err(ManifestError::Damaged("it does not match its checksum".into()))
            }
        }
    }

    fn fields(mut fields: Fields) -> Result<Self, Malformed> {
        let manifest = Self {
            cluster: ClusterId(fields.u64()?),
            member: MemberId(fields.u64()?),
            incarnation: fields.u64()?,
            starts: fields.u64()?,
            token: fields.text()?,
            generation: fields.u64()?,
            checkpoint: decode_snapshot_meta(&mut fields.0)?,
            installed: fields.u8()? != 0,
        };
        fields.end()?;
        Ok(manifest)
    }

    /// Reads the manifest of a data directory.
    pub(crate) fn read(disk: &dyn Disk, data: &Path) -> Result<Self, ManifestError> {
        let file = match disk.open(&data.join(MANIFEST_NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ManifestError::Absent);
            }
            Err(error) => return Err(ManifestError::Disk(error)),
        };
        let length = file.len().map_err(ManifestError::Disk)?;
        if length > MANIFEST_BYTES_MAX {
            return Err(ManifestError::Damaged("it is far too long".into()));
        }
        let mut bytes = vec![0; usize::try_from(length).expect("it is bounded")];
        let read = file.read_at(0, &mut bytes).map_err(ManifestError::Disk)?;
        bytes.truncate(read);
        Self::decode(&bytes.into())
    }

    /// Puts this manifest in force. After an error it is unknown which one is; nothing may be built on either (INV-S3).
    pub(crate) fn write(&self, disk: &dyn Disk, data: &Path) -> io::Result<()> {
        let new = data.join(MANIFEST_NEW_NAME);
        let file = disk.create(&new)?;
        file.write_at(0, &self.encode())?;
        file.sync()?;
        disk.rename(&new, &data.join(MANIFEST_NAME))?;
        disk.sync_dir(data)
    }
}

/// The name of a generation's directory.
pub(crate) fn generation_name(number: u64) -> String {
    format!("gen-{number}")
}

/// The reverse of [`generation_name`].
pub(crate) fn generation_number(name: &str) -> Option<u64> {
    name.strip_prefix("gen-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use quorate_consensus::{Configuration, LogIndex, Term};

    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            cluster: ClusterId(0xc1),
            member: MemberId(0x0e),
            incarnation: 0x1122_3344,
            starts: 3,
            token: "uid-1".into(),
            generation: 2,
            checkpoint: SnapshotMeta {
                index: LogIndex(100),
                term: Term(7),
                configuration: Configuration {
                    voters: [MemberId(0x0e), MemberId(0x0f)].into(),
                    learners: [MemberId(0x10)].into(),
                },
            },
            installed: true,
        }
    }

    /// INV-M3 of files: these bytes are on people's disks, and must be read and written so for good.
    #[test]
    fn the_bytes_of_a_manifest_never_change() {
        let mut golden = b"QUORMAN\n\x01\0\0\0\x4e\0\0\0\xff\xff\xff\xff".to_vec();
        for number in [0xc1u64, 0x0e, 0x1122_3344, 3] {
            golden.extend_from_slice(&number.to_le_bytes());
        }
        golden.extend_from_slice(b"\x05\0\0\0uid-1");
        golden.extend_from_slice(b"\x02\0\0\0\0\0\0\0\x64\x07");
        golden.extend_from_slice(b"\x02\x0e\0\0\0\0\0\0\0\x0f\0\0\0\0\0\0\0");
        golden.extend_from_slice(b"\x01\x10\0\0\0\0\0\0\0\x01");
        let written = manifest().encode();
        golden[16..20].copy_from_slice(&GOLDEN_CRC.to_le_bytes());
        assert_eq!(written, golden);
        assert_eq!(Manifest::decode(&golden.into()).unwrap(), manifest());
    }

    /// CRC-32C of the rest, computed by other means.
    const GOLDEN_CRC: u32 = 0xfd91_4ead;

    #[test]
    fn every_flipped_bit_of_a_manifest_is_noticed() {
        let good = manifest().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let outcome = Manifest::decode(&bad.into());
            assert!(matches!(outcome, Err(ManifestError::Damaged(_))), "bit {bit}: {outcome:?}");
        }
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let bytes = seal(MAGIC, MANIFEST_FORMAT + 1, b"whatever comes");
        let outcome = Manifest::decode(&bytes.into());
        assert!(
            matches!(outcome, Err(ManifestError::Newer { format }) if format == MANIFEST_FORMAT + 1)
        );
    }
}
