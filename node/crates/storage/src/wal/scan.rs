//! Reads the whole WAL at a start: finds its end, cuts what a crash left half written, refuses what is damaged.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_consensus::{Entry, SnapshotMeta, Term};

use super::Owner;
use super::frame::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES, Frame, FrameHeader};
use super::header::{HEADER_BYTES, HEADER_SPAN_BYTES, HeaderFound, SegmentHeader};
use super::map::{LogMap, NewFrame, Segment};
use super::segment::{segment_number, segment_path};
use super::window::{Found, Window};
use super::writer::Tip;
use crate::damage::Damage;
use crate::disk::Disk;
use crate::limits::RECOVERY_READ_BYTES;

/// A frame that was being written when the machine stopped, and that nobody was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// Where in it the frame began.
    pub offset: u64,
    /// How long it would have been in bytes, as far as its front can be believed.
    pub bytes: u64,
}

/// What the log is measured against.
pub(crate) struct Anchor<'a> {
    /// Whose log it must be.
    pub(crate) owner: Owner,
    /// The checkpoint; entries up to it are not kept in memory.
    pub(crate) checkpoint: &'a SnapshotMeta,
    /// The cost of the committed entries to keep in memory.
    pub(crate) entries_bytes_max: usize,
}

/// Why a log cannot be used.
#[derive(Debug)]
pub(crate) enum ScanError {
    Damage(Damage),
    Newer { path: PathBuf, format: u32 },
    Disk { path: PathBuf, source: io::Error },
}

/// What a log holds.
pub(crate) struct Scanned {
    pub(crate) map: LogMap,
    pub(crate) tip: Tip,
    /// The last entries behind the checkpoint, consecutive up to the last index.
    pub(crate) entries: Vec<Entry>,
    /// The term of the log at the checkpoint's index, if the log knows it.
    pub(crate) checkpoint_term: Option<Term>,
    pub(crate) cut: Option<TornTail>,
    /// The last frame of the last segment, from and to.
    pub(crate) last_frame: Option<(u64, u64)>,
}

/// Reads every segment named in `names`.
pub(crate) fn scan(
    disk: &dyn Disk,
    directory: &Path,
    names: &[String],
    anchor: &Anchor<'_>,
) -> Result<Scanned, ScanError> {
    let numbers = segment_numbers(directory, names)?;
    let mut scan: Option<Scan<'_>> = None;
    for (position, &number) in numbers.iter().enumerate() {
        let path = segment_path(directory, number);
        let fail = |source| ScanError::Disk { path: path.clone(), source };
        let file = disk.open(&path).map_err(fail)?;
        let mut window = Window::new(file.clone(), RECOVERY_READ_BYTES).map_err(fail)?;
        let header = read_header(&path, number, anchor.owner, &mut window)?;
        let (epoch, first_index) = (header.epoch, header.first_index);
        let scan = match &mut scan {
            Some(scan) => {
                scan.continue_at(&path, &header)?;
                scan
            }
            None => scan.insert(Scan::begin(anchor, &header)),
        };
        scan.map.begin_segment(Segment {
            number,
            epoch,
            first_index,
            end: HEADER_SPAN_BYTES,
            file,
        });
        let last = position + 1 == numbers.len();
        scan.segment(&path, &header, &mut window, last)?;
    }
    let scan = scan.expect("there is at least one segment");
    Ok(Scanned {
        map: scan.map,
        tip: scan.tip,
        entries: scan.entries.into(),
        checkpoint_term: scan.checkpoint_term,
        cut: scan.cut,
        last_frame: scan.last_frame,
    })
}

/// The numbers of the segments, which must have no gap.
fn segment_numbers(directory: &Path, names: &[String]) -> Result<Vec<u64>, ScanError> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let missing = |what: String| ScanError::Damage(Damage::new(directory.to_path_buf(), 0, what));
    if numbers.is_empty() {
        return Err(missing("it holds no segment of the log".into()));
    }
    if let Some(pair) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        let name = segment_path(Path::new(""), pair[0] + 1);
        return Err(missing(format!(
            "segment {} is missing, later ones are there",
            name.display()
        )));
    }
    Ok(numbers)
}

fn read_header(
    path: &Path,
    number: u64,
    owner: Owner,
    window: &mut Window,
) -> Result<SegmentHeader, ScanError> {
    let damage = |what: String| Err(ScanError::Damage(Damage::new(path.to_path_buf(), 0, what)));
    let bytes = window.bytes(0, HEADER_BYTES);
    let bytes = bytes.map_err(|source| ScanError::Disk { path: path.to_path_buf(), source })?;
    let header = match SegmentHeader::decode(&bytes) {
        HeaderFound::Whole(header) => header,
        HeaderFound::Newer { format } => {
            return Err(ScanError::Newer { path: path.to_path_buf(), format });
        }
        HeaderFound::Absent => return damage("its header does not match its checksum".into()),
    };
    if header.number != number {
        return damage(format!("it is segment {} under another name", header.number));
    }
    if (header.cluster, header.member) != (owner.cluster, owner.member) {
        return damage(format!(
            "it belongs to member {} of cluster {}, the manifest to member {} of cluster {}",
            header.member, header.cluster, owner.member, owner.cluster
        ));
    }
    Ok(header)
}

struct Scan<'a> {
    anchor: &'a Anchor<'a>,
    map: LogMap,
    tip: Tip,
    entries: VecDeque<Entry>,
    entries_bytes: usize,
    checkpoint_term: Option<Term>,
    cut: Option<TornTail>,
    last_frame: Option<(u64, u64)>,
}

impl<'a> Scan<'a> {
    fn begin(anchor: &'a Anchor<'a>, header: &SegmentHeader) -> Self {
        let base = header.first_index.previous();
        let tip = Tip {
            sequence: header.first_sequence,
            hard_state: header.hard_state,
            last_index: base,
            last_term: header.previous_term,
            base_index: header.base_index,
        };
        Self {
            anchor,
            map: LogMap::new(base),
            tip,
            entries: VecDeque::new(),
            entries_bytes: 0,
            checkpoint_term: (base == anchor.checkpoint.index).then_some(header.previous_term),
            cut: None,
            last_frame: None,
        }
    }

    /// Checks that a segment begins where the one before it ended.
    fn continue_at(&mut self, path: &Path, header: &SegmentHeader) -> Result<(), ScanError> {
        let tip = &mut self.tip;
        let continues = header.first_sequence == tip.sequence
            && header.first_index == tip.last_index.next()
            && header.previous_term == tip.last_term
            && header.hard_state.term >= tip.hard_state.term
            && header.hard_state.commit >= tip.hard_state.commit;
        if !continues {
            let what = format!(
                "it begins with frame {} and index {}, but the segment before it ends with frame {} and index {}: \
                 frames in between are lost",
                header.first_sequence,
                header.first_index,
                tip.sequence.saturating_sub(1),
                tip.last_index
            );
            return Err(ScanError::Damage(Damage::new(path.to_path_buf(), 0, what)));
        }
        tip.hard_state = header.hard_state;
        self.last_frame = None;
        Ok(())
    }

    fn segment(
        &mut self,
        path: &Path,
        header: &SegmentHeader,
        window: &mut Window,
        last: bool,
    ) -> Result<(), ScanError> {
        let mut offset = HEADER_SPAN_BYTES;
        loop {
            let found = window.frame(offset, header.epoch, self.tip.sequence);
            match found.map_err(|source| ScanError::Disk { path: path.to_path_buf(), source })? {
                Found::Frame(front, body) => {
                    self.frame(path, offset, &front, body)?;
                    self.last_frame = Some((offset, offset + front.stride()));
                    offset += front.stride();
                }
                // How far the segment reaches is known from the next one's header.
                Found::Torn(_) | Found::Nothing if !last => return Ok(()),
                found @ (Found::Torn(_) | Found::Nothing) => {
                    self.refuse_later_frames(path, header.epoch, window, offset)?;
                    if let Found::Torn(front) = found {
                        let (path, bytes) = (path.to_path_buf(), front.stride());
                        self.cut = Some(TornTail { path, offset, bytes });
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Takes in a frame whose checksum held, and checks that it says what a writer may say here.
    fn frame(
        &mut self,
        path: &Path,
        offset: u64,
        front: &FrameHeader,
        body: Bytes,
    ) -> Result<(), ScanError> {
        let damage =
            |what: String| ScanError::Damage(Damage::new(path.to_path_buf(), offset, what));
        let frame = Frame::decode(front, body).map_err(|malformed| {
            damage(format!("a frame whose checksum holds cannot be understood: {}", malformed.0))
        })?;
        let before = self.tip.hard_state;
        if frame.hard_state.term < before.term || frame.hard_state.commit < before.commit {
            return Err(damage("the term or the commit index falls".into()));
        }
        if let Some(meta) = &frame.snapshot {
            self.restart(meta).map_err(damage)?;
        }
        if let Some(first) = frame.entries.first().map(|entry| entry.index) {
            if first > self.tip.last_index.next() {
                return Err(damage(format!("index {first} follows {}", self.tip.last_index)));
            }
            if first <= before.commit.max(self.tip.base_index) {
                return Err(damage(format!("the committed entry {first} is replaced")));
            }
        }
        let entries = frame.entries.first().zip(frame.entries.last());
        self.map.note_frame(&NewFrame {
            sequence: front.sequence,
            offset,
            end: offset + front.stride(),
            restart: frame.snapshot.as_ref().map(|meta| meta.index),
            entries: entries.map(|(first, last)| (first.index, last.index)),
        });
        self.tip.sequence += 1;
        self.tip.hard_state = frame.hard_state;
        self.take_entries(frame.entries);
        if self.tip.hard_state.commit > self.tip.last_index {
            return Err(damage(format!(
                "index {} is committed, but the log ends with {}",
                self.tip.hard_state.commit, self.tip.last_index
            )));
        }
        Ok(())
    }

    fn restart(&mut self, meta: &SnapshotMeta) -> Result<(), String> {
        let checkpoint = self.anchor.checkpoint.index;
        if meta.index > checkpoint {
            // The manifest names an installed snapshot before the log does.
            return Err(format!(
                "the log starts anew after {}, but the manifest names a checkpoint at {checkpoint} only",
                meta.index
            ));
        }
        self.entries.clear();
        self.entries_bytes = 0;
        (self.tip.last_index, self.tip.last_term) = (meta.index, meta.term);
        self.tip.base_index = meta.index;
        self.checkpoint_term = (meta.index == checkpoint).then_some(meta.term);
        Ok(())
    }

    fn take_entries(&mut self, entries: Vec<Entry>) {
        let checkpoint = self.anchor.checkpoint.index;
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        if first <= checkpoint {
            self.checkpoint_term = None;
        }
        while let Some(last) = self.entries.pop_back_if(|last| last.index >= first) {
            self.entries_bytes -= last.cost();
        }
        for entry in entries {
            (self.tip.last_index, self.tip.last_term) = (entry.index, entry.term);
            if entry.index == checkpoint {
                self.checkpoint_term = Some(entry.term);
            }
            if entry.index > checkpoint {
                self.entries_bytes += entry.cost();
                self.entries.push_back(unshared(entry));
            }
        }
        // The entry at the commit index and all after it stay, whatever they cost: consensus compares terms in them.
        let committed = self.tip.hard_state.commit.max(checkpoint);
        while self.entries_bytes > self.anchor.entries_bytes_max && self.entries.len() > 1 {
            let Some(oldest) = self.entries.pop_front_if(|oldest| oldest.index < committed) else {
                break;
            };
            self.entries_bytes -= oldest.cost();
        }
    }

    /// Searches everything behind the end of the chain for the front of a later frame: it would not have been written
    /// before the bytes at `end` were durable.
    fn refuse_later_frames(
        &self,
        path: &Path,
        epoch: u64,
        window: &mut Window,
        end: u64,
    ) -> Result<(), ScanError> {
        let mut at = end + FRAME_ALIGNMENT;
        while at + FRAME_HEADER_BYTES as u64 <= window.length() {
            let bytes = window.bytes(at, RECOVERY_READ_BYTES);
            let bytes =
                bytes.map_err(|source| ScanError::Disk { path: path.to_path_buf(), source })?;
            let fronts = bytes.windows(FRAME_HEADER_BYTES).step_by(FRAME_ALIGNMENT as usize);
            for (position, front) in fronts.enumerate() {
                let Some(header) = FrameHeader::parse(front) else { continue };
                if header.epoch != epoch || header.sequence <= self.tip.sequence {
                    continue;
                }
                let later = at + position as u64 * FRAME_ALIGNMENT;
                let what = format!(
                    "frame {} does not match its checksum, yet frame {} follows at byte {later}",
                    self.tip.sequence, header.sequence
                );
                return Err(ScanError::Damage(Damage::new(path.to_path_buf(), end, what)));
            }
            // The last front that was looked at is looked at again with what follows it.
            let looked_at = (bytes.len() - FRAME_HEADER_BYTES) as u64 / FRAME_ALIGNMENT + 1;
            at += looked_at * FRAME_ALIGNMENT;
        }
        Ok(())
    }
}

/// Copies a payload out of the read buffer, which it would otherwise keep in memory as a whole.
fn unshared(mut entry: Entry) -> Entry {
    use quorate_consensus::Payload;
    entry.payload = match entry.payload {
        Payload::Empty => Payload::Empty,
        Payload::Command(bytes) => Payload::Command(Bytes::copy_from_slice(&bytes)),
        Payload::Change(change, bytes) => Payload::Change(change, Bytes::copy_from_slice(&bytes)),
    };
    entry
}
