//! Where in which segment an index of the log is: enough marks to find any entry by reading a little, few enough to
//! keep in memory.
//!
//! ```text
//!   segment 4                                   segment 5
//!   ┌────────┬──────┬──────┬──────┬──────┐      ┌────────┬──────┬──────┐
//!   │ header │ 1–9  │ 10–40│ 41–44│ 45–60│      │ header │ 52–55│ 56–90│     52–60 were replaced by a new leader
//!   └────────┴──────┴──────┴──────┴──────┘      └────────┴──────┴──────┘
//!   marks:    ▲1             ▲41                          ▲52
//! ```
//!
//! A mark is made for the first frame of a segment, for a frame that replaces entries, and then one per
//! [`MARK_SPACING_BYTES`]. What a mark leads to counts only up to the first index of the next mark: that is how the
//! replaced 52–60 in segment 4 are never seen.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_consensus::LogIndex;

use crate::disk::DiskFile;
use crate::limits::MARK_SPACING_BYTES;

/// A segment that is part of the log.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    /// The index that its first entry has, unless it replaces older ones.
    pub(crate) first_index: LogIndex,
    /// Behind its last durable frame.
    pub(crate) end: u64,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// A frame that became durable, at the end of the newest segment.
#[derive(Clone, Debug)]
pub(crate) struct NewFrame {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    /// Where the next one begins.
    pub(crate) end: u64,
    /// Set when the log starts anew after this index.
    pub(crate) restart: Option<LogIndex>,
    /// The first and the last entry in it.
    pub(crate) entries: Option<(LogIndex, LogIndex)>,
}

/// A frame with entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    first: LogIndex,
    segment: u64,
    offset: u64,
    sequence: u64,
}

/// A run of frames to read for an index.
pub(crate) struct Region {
    pub(crate) segment: Segment,
    pub(crate) offset: u64,
    /// The sequence of the frame there.
    pub(crate) sequence: u64,
    /// Entries after this one are to be looked up again.
    pub(crate) last: LogIndex,
    /// How often entries had been replaced when the region was looked up.
    pub(crate) replacements: u64,
}

/// What is durable in the WAL and where.
pub(crate) struct LogMap {
    segments: VecDeque<Segment>,
    marks: VecDeque<Mark>,
    /// The index before the first that is there.
    base: LogIndex,
    last: LogIndex,
    replacements: u64,
}

impl LogMap {
    /// An empty log that continues after `base`.
    pub(crate) fn new(base: LogIndex) -> Self {
        let (segments, marks) = (VecDeque::new(), VecDeque::new());
        Self { segments, marks, base, last: base, replacements: 0 }
    }

    pub(crate) fn base(&self) -> LogIndex {
        self.base
    }

    pub(crate) fn last(&self) -> LogIndex {
        self.last
    }

    pub(crate) fn segments(&self) -> impl ExactSizeIterator<Item = &Segment> + DoubleEndedIterator {
        self.segments.iter()
    }

    /// How many marks are kept: what the map costs in memory.
    #[cfg(test)]
    pub(crate) fn marks(&self) -> usize {
        self.marks.len()
    }

    pub(crate) fn begin_segment(&mut self, segment: Segment) {
        self.segments.push_back(segment);
    }

    /// Notes a durable frame of the newest segment.
    pub(crate) fn note_frame(&mut self, frame: &NewFrame) {
        let segment = self.segments.back_mut().expect("a frame is in a segment that was begun");
        segment.end = frame.end;
        let segment = segment.number;
        if let Some(base) = frame.restart {
            self.marks.clear();
            (self.base, self.last) = (base, base);
            self.replacements += 1;
        }
        let Some((first, last)) = frame.entries else { return };
        let replaces = first <= self.last;
        if replaces {
            self.replacements += 1;
            while self.marks.back().is_some_and(|mark| mark.first >= first) {
                self.marks.pop_back();
            }
            self.base = self.base.min(first.previous());
        }
        let near = self.marks.back().is_some_and(|mark| {
            mark.segment == segment && frame.offset - mark.offset < MARK_SPACING_BYTES
        });
        if replaces || !near {
            let (offset, sequence) = (frame.offset, frame.sequence);
            self.marks.push_back(Mark { first, segment, offset, sequence });
        }
        self.last = last;
    }

    /// Where to read for `index`; `None` when it is not there (purged, or not durable yet).
    pub(crate) fn locate(&self, index: LogIndex) -> Option<Region> {
        if index <= self.base || index > self.last {
            return None;
        }
        let behind = self.marks.partition_point(|mark| mark.first <= index);
        let mark = self.marks.get(behind.checked_sub(1)?)?;
        let last = self.marks.get(behind).map_or(self.last, |next| next.first.previous());
        let oldest = self.segments.front()?.number;
        let segment = self.segments.get(usize::try_from(mark.segment - oldest).ok()?)?.clone();
        let (offset, sequence) = (mark.offset, mark.sequence);
        Some(Region { segment, offset, sequence, last, replacements: self.replacements })
    }

    /// Whether what a region led to still counts: nothing was replaced and its segment is still there.
    pub(crate) fn still_valid(&self, region: &Region) -> bool {
        let there = self.segments.iter().any(|segment| {
            segment.number == region.segment.number && segment.epoch == region.segment.epoch
        });
        there && self.replacements == region.replacements
    }

    /// Takes the oldest segment out if nothing at or above `needed` would be lost by it; never the newest one.
    pub(crate) fn drop_oldest(&mut self, needed: LogIndex) -> Option<Segment> {
        let next_first = self.segments.get(1)?.first_index;
        if next_first > needed {
            return None;
        }
        let dropped = self.segments.pop_front()?;
        while self.marks.front().is_some_and(|mark| mark.segment == dropped.number) {
            self.marks.pop_front();
        }
        let first = self.marks.front().map_or(self.last.next(), |mark| mark.first);
        self.base = self.base.max(first.previous());
        Some(dropped)
    }
}
