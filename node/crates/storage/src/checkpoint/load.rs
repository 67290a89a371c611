//! Reading a checkpoint and putting the directory into the state that it names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::checkpoint::format::{
    CHECKPOINT_FORMAT, FRAME_HEADER_BYTES, Header, Kind, frame_crc, take_leaf, unseal_header,
};
use crate::checkpoint::{CHECKPOINT_NAME, CHECKPOINT_NEW_NAME, CheckpointAt};
use crate::damage::Damage;
use crate::disk::{Disk, DiskFile};
use crate::index::{Builder, Index};
use crate::limits::CHECKPOINT_STEP_BYTES;
use crate::rows::StoreError;
use crate::rows::segment::{Segment, SegmentFile, Table, open_segment, segment_name};
use crate::sealed::{PREFIX_BYTES, Unsealed};

/// What a checkpoint gave.
pub(crate) struct Loaded {
    pub(crate) at: CheckpointAt,
    pub(crate) machine: Bytes,
    pub(crate) index: Index,
    pub(crate) table: Table,
}

/// The machine's small state in a generation's checkpoint, without touching anything: whether it can be read decides whether the rest
/// may be put into the state that the checkpoint names. It stands in front of all else, so little is read.
///
/// # Errors
/// The disk fails, or the checkpoint is missing, damaged or of a later format.
pub fn machine_state(disk: &dyn Disk, directory: &Path) -> Result<Bytes, StoreError> {
    let mut reader = Reader::open(disk, directory)?;
    reader.header()?;
    let mut machine = BytesMut::new();
    loop {
        match reader.frame()? {
            (Kind::Machine, part) => machine.extend_from_slice(&part),
            (Kind::Leaves | Kind::End, _) => return Ok(machine.freeze()),
        }
    }
}

/// Loads a generation's checkpoint, cuts the rows to it and removes what it does not name.
pub(crate) fn load(disk: &Arc<dyn Disk>, directory: &Path) -> Result<Loaded, StoreError> {
    let mut reader = Reader::open(&**disk, directory)?;
    let header = reader.header()?;
    let (machine, index) = reader.frames()?;
    let mut table = Table {
        last_id: header.last_id,
        scheduled: header.scheduled,
        finished: header.finished,
        checkpoint_bytes: reader.at,
        ..Table::default()
    };
    for entry in &header.segments {
        let file = open_segment(&**disk, directory, entry.id, entry.bytes)?;
        cut(&file, entry.bytes)?;
        table.order.push(entry.id);
        let segment = Segment {
            first: entry.first,
            last: entry.last,
            bytes: entry.bytes,
            dead: entry.dead,
            synced: entry.bytes,
            marks: entry.marks.clone(),
            ..Segment::new(file)
        };
        table.by_id.insert(entry.id, segment);
    }
    remove_unnamed(&**disk, directory, &table)?;
    Ok(Loaded { at: header.at, machine, index, table })
}

/// Cuts off rows that were written after the checkpoint; replay writes them again.
fn cut(file: &SegmentFile, bytes: u32) -> Result<(), StoreError> {
    let length = file.file.len().map_err(StoreError::disk("read the length of", &file.path))?;
    if length > u64::from(bytes) {
        file.file.set_len(u64::from(bytes)).map_err(StoreError::disk("cut", &file.path))?;
    }
    Ok(())
}

/// Removes segments that were begun after the checkpoint, or retired before it, and an unpublished checkpoint.
fn remove_unnamed(disk: &dyn Disk, directory: &Path, table: &Table) -> Result<(), StoreError> {
    let mut names = disk.list(directory).map_err(StoreError::disk("list", directory))?;
    names.retain(|name| {
        let named = table.order.iter().any(|id| segment_name(*id) == *name);
        (name.starts_with("rows-") && !named) || name == CHECKPOINT_NEW_NAME
    });
    if !names.is_empty() {
        // The rename that published this checkpoint may have been seen and not be durable yet, and the one before names other segments.
        disk.sync_dir(directory).map_err(StoreError::disk("sync", directory))?;
    }
    for name in names {
        let path = directory.join(name);
        disk.remove_file(&path).map_err(StoreError::disk("remove", &path))?;
    }
    Ok(())
}

/// A checkpoint file being read.
struct Reader {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    at: u64,
    /// What has been read and not yet used; begins at `at`.
    chunk: Bytes,
    chain: u32,
}

impl Reader {
    fn open(disk: &dyn Disk, directory: &Path) -> Result<Reader, StoreError> {
        let path = directory.join(CHECKPOINT_NAME);
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let what =
                    "the checkpoint is missing, and without it nobody knows which rows count";
                return Err(Damage::new(path, 0, what).into());
            }
            Err(error) => return Err(StoreError::disk("open", &path)(error)),
        };
        let length = file.len().map_err(StoreError::disk("read the length of", &path))?;
        Ok(Reader { path, file, length, at: 0, chunk: Bytes::new(), chain: 0 })
    }

    fn damage(&self, what: &str) -> StoreError {
        Damage::new(self.path.clone(), self.at, what).into()
    }

    /// Makes sure that `chunk` holds at least `bytes`.
    fn need(&mut self, bytes: usize) -> Result<(), StoreError> {
        if self.chunk.len() >= bytes {
            return Ok(());
        }
        let left = self.length - self.at;
        if bytes as u64 > left {
            return Err(self.damage("the checkpoint ends here, and more should follow"));
        }
        let wanted = (bytes.max(CHECKPOINT_STEP_BYTES) as u64).min(left);
        let mut buffer =
            BytesMut::zeroed(usize::try_from(wanted).expect("a frame fits into memory"));
        let read = self.file.read_at(self.at, &mut buffer);
        let read = read.map_err(StoreError::disk("read", &self.path))?;
        if read < buffer.len() {
            return Err(self.damage("the checkpoint ends early"));
        }
        self.chunk = buffer.freeze();
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.chunk = self.chunk.slice(bytes..);
        self.at += bytes as u64;
    }

    fn header(&mut self) -> Result<Header, StoreError> {
        self.need(PREFIX_BYTES)?;
        let length: [u8; 4] = self.chunk[12..16].try_into().expect("four bytes");
        let whole = PREFIX_BYTES + u32::from_le_bytes(length) as usize;
        self.need(whole)?;
        let bytes = self.chunk.slice(..whole);
        let fields = match unseal_header(&bytes) {
            Unsealed::Fields(fields) => fields,
            Unsealed::Newer { format } => {
                let path = self.path.clone();
                return Err(StoreError::FormatTooNew { path, format, known: CHECKPOINT_FORMAT });
            }
            Unsealed::Damaged => return Err(self.damage("the checkpoint's header is damaged")),
        };
        let header = Header::decode(fields).map_err(|malformed| self.damage(&malformed.0))?;
        if header.segments.is_empty() {
            return Err(self.damage("the checkpoint names no rows segment"));
        }
        self.chain = crc32c::crc32c(&bytes);
        self.advance(whole);
        Ok(header)
    }

    /// Reads all frames to the end one.
    fn frames(&mut self) -> Result<(Bytes, Index), StoreError> {
        let mut machine = BytesMut::new();
        let mut builder = Builder::default();
        loop {
            let (kind, body) = self.frame()?;
            match kind {
                Kind::Machine => machine.extend_from_slice(&body),
                Kind::Leaves => {
                    let mut at = 0;
                    while at < body.len() {
                        let leaf = take_leaf(&body, &mut at);
                        let leaf =
                            leaf.ok_or_else(|| self.damage("the frame before holds no leaf"))?;
                        builder.push(&leaf);
                    }
                }
                Kind::End if self.at == self.length => {
                    return Ok((machine.freeze(), builder.finish()));
                }
                Kind::End => return Err(self.damage("something follows the checkpoint's end")),
            }
        }
    }

    fn frame(&mut self) -> Result<(Kind, Bytes), StoreError> {
        self.need(FRAME_HEADER_BYTES)?;
        let four =
            |at: usize| u32::from_le_bytes(self.chunk[at..at + 4].try_into().expect("four bytes"));
        let (length, crc, kind) = (four(0) as usize, four(4), Kind::of(self.chunk[8]));
        let whole = FRAME_HEADER_BYTES + length;
        self.need(whole)?;
        let chain = frame_crc(self.chain, &self.chunk[..whole]);
        let (Some(kind), true) = (kind, chain == crc) else {
            return Err(self.damage("the frame here does not have its checksum"));
        };
        self.chain = chain;
        let body = self.chunk.slice(FRAME_HEADER_BYTES..whole);
        self.advance(whole);
        Ok((kind, body))
    }
}
