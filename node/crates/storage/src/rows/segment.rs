//! The segments of rows: which there are, in which order, and what is known of each without reading it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_machine::Revision;

use crate::damage::Damage;
use crate::disk::{Disk, DiskFile, SECTOR_BYTES};
use crate::limits::ROWS_MARK_SPACING_BYTES;
use crate::rows::StoreError;
use crate::rows::frame::{SEGMENT_HEADER_BYTES, check_segment_header, segment_header};

/// The file of a segment. Who holds it reads on after the segment has been removed.
pub(crate) struct SegmentFile {
    pub(crate) id: u32,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// The revision of the row that begins at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) revision: Revision,
    pub(crate) offset: u32,
}

/// What is known of a segment.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) file: Arc<SegmentFile>,
    /// Revision of its first row; meaningless without rows.
    pub(crate) first: Revision,
    /// Revision of its last row; meaningless without rows.
    pub(crate) last: Revision,
    /// Bytes written, header included.
    pub(crate) bytes: u32,
    /// Bytes of rows that the index no longer knows.
    pub(crate) dead: u64,
    /// Bytes that are durable.
    pub(crate) synced: u32,
    /// Where rows begin, about one for each [`ROWS_MARK_SPACING_BYTES`].
    pub(crate) marks: Arc<Vec<Mark>>,
}

impl Segment {
    pub(crate) fn new(file: SegmentFile) -> Segment {
        Segment {
            file: Arc::new(file),
            first: Revision::default(),
            last: Revision::default(),
            bytes: SEGMENT_HEADER_BYTES as u32,
            dead: 0,
            synced: 0,
            marks: Arc::default(),
        }
    }

    pub(crate) fn has_rows(&self) -> bool {
        self.bytes as usize > SEGMENT_HEADER_BYTES
    }

    /// Bytes of rows that the index knows.
    pub(crate) fn live(&self) -> u64 {
        (u64::from(self.bytes) - SEGMENT_HEADER_BYTES as u64).saturating_sub(self.dead)
    }

    /// Notes a row that begins at `offset`; rows come in order.
    pub(crate) fn note(&mut self, revision: Revision, offset: u32) {
        if offset as usize == SEGMENT_HEADER_BYTES {
            self.first = revision;
        }
        self.last = revision;
        let due =
            self.marks.last().is_none_or(|mark| offset - mark.offset >= ROWS_MARK_SPACING_BYTES);
        if due {
            Arc::make_mut(&mut self.marks).push(Mark { revision, offset });
        }
    }

    /// Where to begin reading for rows at or above `from`.
    pub(crate) fn offset_for(&self, from: Revision) -> u32 {
        let above = self.marks.partition_point(|mark| mark.revision <= from);
        above.checked_sub(1).map_or(SEGMENT_HEADER_BYTES as u32, |at| self.marks[at].offset)
    }
}

/// All segments.
#[derive(Default)]
pub(crate) struct Table {
    /// Every segment that an address may name.
    pub(crate) by_id: BTreeMap<u32, Segment>,
    /// Those that hold the rows in revision order. The last is the one that apply appends to.
    pub(crate) order: Vec<u32>,
    /// Rewritten segments, which the last published checkpoint may still name.
    pub(crate) retired: Vec<Arc<SegmentFile>>,
    /// The number of the newest segment.
    pub(crate) last_id: u32,
    /// A rewritten segment's addresses are being switched: some name the old file, some the new.
    pub(crate) switching: bool,
    /// Main revision up to which superseded versions shall go.
    pub(crate) scheduled: i64,
    /// Main revision up to which they are gone.
    pub(crate) finished: i64,
    /// Bytes of the last checkpoint.
    pub(crate) checkpoint_bytes: u64,
}

impl Table {
    pub(crate) fn file(&self, id: u32) -> Option<Arc<SegmentFile>> {
        self.by_id.get(&id).map(|segment| segment.file.clone())
    }

    pub(crate) fn ordered(&self) -> impl Iterator<Item = &Segment> {
        self.order.iter().map(|id| &self.by_id[id])
    }

    pub(crate) fn take_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }
}

/// What segments are called.
pub(crate) fn segment_name(id: u32) -> String {
    format!("rows-{id:08}")
}

/// Makes a segment's file and writes its header.
pub(crate) fn create_segment(
    disk: &dyn Disk,
    directory: &Path,
    id: u32,
) -> Result<SegmentFile, StoreError> {
    let path = directory.join(segment_name(id));
    let file = disk.create(&path).map_err(StoreError::disk("create", &path))?;
    file.write_at(0, &segment_header(id)).map_err(StoreError::disk("write", &path))?;
    Ok(SegmentFile { id, path, file })
}

/// Opens the file of a segment that a checkpoint names and checks that it is whole as far as the checkpoint says.
pub(crate) fn open_segment(
    disk: &dyn Disk,
    directory: &Path,
    id: u32,
    bytes: u32,
) -> Result<SegmentFile, StoreError> {
    let path = directory.join(segment_name(id));
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(
                Damage::new(path, 0, "the file is missing, and the checkpoint names it").into()
            );
        }
        Err(error) => return Err(StoreError::disk("open", &path)(error)),
    };
    let length = file.len().map_err(StoreError::disk("read the length of", &path))?;
    if length < u64::from(bytes) {
        let what = format!("the file ends here, and the checkpoint counts on {bytes} bytes");
        return Err(Damage::new(path, length, what).into());
    }
    // More than this format's header takes: a later one's may be longer, and is to be told from damage.
    let mut header = vec![0; SECTOR_BYTES];
    let read = file.read_at(0, &mut header).map_err(StoreError::disk("read", &path))?;
    header.truncate(read);
    check_segment_header(&path, id, &Bytes::from(header))?;
    Ok(SegmentFile { id, path, file })
}
