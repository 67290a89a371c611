//! Physical compaction, in steps: superseded versions leave the index, then segments that are mostly dead are rewritten.
//!
//! ```text
//!   Idle ─► Walk ─────────────────► Idle ─► Copy ───────────────────► Switch ───────────────► Idle
//!           index lock a few leaves         live rows of neighbouring  index lock a few rows    old files retired until a checkpoint
//!           at a time; dead bytes counted   segments to a new file     at a time                that does not name them is published
//! ```
//!
//! A crash at any step is harmless: the published checkpoint names the old segments, and they stay until another is published. No
//! checkpoint is captured between the first and the last step of a switch.

use std::sync::Arc;

use quorate_machine::Revision;

use crate::damage::Damage;
use crate::index::{Cursor, RowAt};
use crate::limits::{COMPACTION_STEP_LEAVES, REWRITE_LIVE_PERCENT, REWRITE_STEP_BYTES};
use crate::rows::cursor::RowCursor;
use crate::rows::frame::{SEGMENT_HEADER_BYTES, key_of};
use crate::rows::segment::{Segment, SegmentFile, Table, create_segment};
use crate::rows::{Shared, StoreError};

/// The compaction of a store. One thread calls [`Compaction::step`] whenever it has nothing better to do.
pub struct Compaction {
    shared: Arc<Shared>,
    state: State,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing: there is nothing to do, or a pin holds it back.
    None,
    /// A part; another step is due.
    Some,
}

enum State {
    Idle,
    Walk { target: i64, cursor: Cursor },
    Copy(Copy),
    Switch(Switch),
}

/// Live rows on their way to a new segment.
struct Copy {
    /// What is rewritten, in revision order; the segments before `next` are copied.
    sources: Vec<Arc<SegmentFile>>,
    next: usize,
    reading: Option<RowCursor>,
    /// `None` until the first live row.
    output: Option<Segment>,
}

/// Addresses on their way to the new segment.
struct Switch {
    sources: Vec<Arc<SegmentFile>>,
    output: Segment,
    reading: RowCursor,
}

impl Compaction {
    pub(crate) fn new(shared: Arc<Shared>) -> Compaction {
        Compaction { shared, state: State::Idle }
    }

    /// Does the next part: some leaves, or about [`REWRITE_STEP_BYTES`] of rows.
    ///
    /// # Errors
    /// The disk fails or a row is damaged: fatal.
    pub fn step(&mut self) -> Result<Work, StoreError> {
        let shared = self.shared.clone();
        shared.writing(|| {
            let state = std::mem::replace(&mut self.state, State::Idle);
            self.state = match state {
                State::Idle => match self.choose() {
                    State::Idle => return Ok(Work::None),
                    chosen => chosen,
                },
                State::Walk { target, cursor } => self.walk(target, &cursor),
                State::Copy(copy) => self.copy(copy)?,
                State::Switch(switch) => self.switch(switch)?,
            };
            Ok(Work::Some)
        })
    }

    /// What to do next: forget what a new compaction allows, else win back space.
    fn choose(&self) -> State {
        let table = self.shared.table.read();
        if table.scheduled > table.finished {
            let target = self.shared.pins.begin_compaction(table.scheduled);
            if target > table.finished {
                return State::Walk { target, cursor: Cursor::default() };
            }
        }
        match worth_rewriting(&table, u64::from(self.shared.settings.segment_bytes)) {
            sources if sources.is_empty() => State::Idle,
            sources => State::Copy(Copy { sources, next: 0, reading: None, output: None }),
        }
    }

    fn walk(&self, target: i64, cursor: &Cursor) -> State {
        let mut index = self.shared.index.write();
        let mut dead: Vec<(u32, u64)> = Vec::new();
        let next = index.compact_step(cursor, target, COMPACTION_STEP_LEAVES, |version| {
            let RowAt { segment, len, .. } = version.at;
            match dead.iter_mut().find(|(id, _)| *id == segment) {
                Some((_, bytes)) => *bytes += u64::from(len),
                None => dead.push((segment, u64::from(len))),
            }
        });
        // Still under the index lock: a checkpoint sees both or neither.
        let mut table = self.shared.table.write();
        for (id, bytes) in dead {
            let segment = table.by_id.get_mut(&id).expect("the index names segments of the table");
            segment.dead += bytes;
        }
        match next {
            Some(cursor) => State::Walk { target, cursor },
            None => {
                table.finished = target;
                State::Idle
            }
        }
    }

    /// Copies the live rows of one piece of a segment.
    fn copy(&self, mut copy: Copy) -> Result<State, StoreError> {
        let Some(reading) = &mut copy.reading else {
            let Some(source) = copy.sources.get(copy.next) else { return self.end_copy(copy) };
            copy.next += 1;
            let end = self.shared.table.read().by_id[&source.id].bytes;
            let start = SEGMENT_HEADER_BYTES as u32;
            copy.reading = Some(RowCursor::new(source.clone(), start, end, REWRITE_STEP_BYTES));
            return Ok(State::Copy(copy));
        };
        let source = copy.sources[copy.next - 1].id;
        let mut rows = Vec::new();
        let mut more = true;
        while rows.is_empty() || reading.has_buffered() {
            let Some(row) = reading.next()? else {
                more = false;
                break;
            };
            rows.push(row);
        }
        let mut frames = Vec::with_capacity(REWRITE_STEP_BYTES);
        let mut kept = Vec::new();
        {
            let index = self.shared.index.read();
            for row in &rows {
                let kv = row.kv();
                let key = key_of(&kv).expect("the cursor has found the key");
                let known =
                    index.get(key, row.revision).filter(|version| version.revision == row.revision);
                if known.is_some_and(|version| {
                    (version.at.segment, version.at.offset) == (source, row.offset)
                }) {
                    kept.push((row.revision, frames.len()));
                    frames.extend_from_slice(&row.frame);
                }
            }
        }
        if !more {
            copy.reading = None;
        }
        if !kept.is_empty() {
            self.append(&mut copy, &kept, &frames)?;
        }
        Ok(State::Copy(copy))
    }

    fn append(
        &self,
        copy: &mut Copy,
        kept: &[(Revision, usize)],
        frames: &[u8],
    ) -> Result<(), StoreError> {
        let output = match &mut copy.output {
            Some(output) => output,
            None => {
                let id = self.shared.table.write().take_id();
                let file = create_segment(&*self.shared.disk, &self.shared.directory, id)?;
                copy.output.insert(Segment::new(file))
            }
        };
        let path = &output.file.path;
        let wrote = output.file.file.write_at(u64::from(output.bytes), frames);
        wrote.map_err(StoreError::disk("write", path))?;
        for (revision, place) in kept {
            output.note(*revision, output.bytes + *place as u32);
        }
        output.bytes += frames.len() as u32;
        Ok(())
    }

    /// All live rows are copied: begins to switch their addresses, or is done if nothing lives.
    fn end_copy(&self, copy: Copy) -> Result<State, StoreError> {
        let Copy { sources, output, .. } = copy;
        let mut table = self.shared.table.write();
        let Some(output) = output else {
            retire(&mut table, &sources, None);
            return Ok(State::Idle);
        };
        // Durable before anybody counts on it: later checkpoints then have nothing of it to sync.
        drop(table);
        output.file.file.sync().map_err(StoreError::disk("sync", &output.file.path))?;
        let output = Segment { synced: output.bytes, ..output };
        table = self.shared.table.write();
        table.switching = true;
        table.by_id.insert(output.file.id, output.clone());
        let start = SEGMENT_HEADER_BYTES as u32;
        let reading = RowCursor::new(output.file.clone(), start, output.bytes, REWRITE_STEP_BYTES);
        Ok(State::Switch(Switch { sources, output, reading }))
    }

    /// Switches the addresses of one piece of the new segment.
    fn switch(&self, mut switch: Switch) -> Result<State, StoreError> {
        let mut rows = Vec::new();
        while rows.is_empty() || switch.reading.has_buffered() {
            match switch.reading.next()? {
                Some(row) => rows.push(row),
                None => break,
            }
        }
        if rows.is_empty() {
            let mut table = self.shared.table.write();
            retire(&mut table, &switch.sources, Some(switch.output.file.id));
            table.switching = false;
            return Ok(State::Idle);
        }
        let mut index = self.shared.index.write();
        for row in rows {
            let kv = row.kv();
            let key = key_of(&kv).expect("the cursor has found the key");
            let (segment, len) = (switch.output.file.id, row.frame.len() as u32);
            if !index.relocate(key, row.revision, RowAt { segment, offset: row.offset, len }) {
                let what = "a row that was live when it was copied is not in the index";
                let path = switch.output.file.path.clone();
                return Err(Damage::new(path, u64::from(row.offset), what).into());
            }
        }
        Ok(State::Switch(switch))
    }
}

/// Takes segments out of the table and puts the one that holds their live rows in their place.
fn retire(table: &mut Table, sources: &[Arc<SegmentFile>], output: Option<u32>) {
    let place = table.order.iter().position(|id| *id == sources[0].id);
    let place = place.expect("nobody but the compaction takes segments away");
    table.order.splice(place..place + sources.len(), output);
    for source in sources {
        table.by_id.remove(&source.id);
    }
    table.retired.extend(sources.iter().cloned());
}

/// The first run of neighbouring segments that is worth rewriting: it begins with one that is mostly dead, and takes on those behind that
/// are so too, or small, as long as the live rows fit into one segment. The active segment never belongs to it.
fn worth_rewriting(table: &Table, segment_bytes: u64) -> Vec<Arc<SegmentFile>> {
    let mostly_dead = |segment: &Segment| {
        segment.dead > 0 && segment.live() * 100 < REWRITE_LIVE_PERCENT * u64::from(segment.bytes)
    };
    let small = |segment: &Segment| segment.live() < segment_bytes / 8;
    let sealed = table.order.len() - 1;
    let mut run: Vec<&Segment> = Vec::new();
    let mut live = 0;
    for segment in table.ordered().take(sealed) {
        let fits = live + segment.live() <= segment_bytes;
        let joins = if run.is_empty() {
            mostly_dead(segment)
        } else {
            mostly_dead(segment) || small(segment)
        };
        if joins && fits {
            live += segment.live();
            run.push(segment);
        } else if !run.is_empty() {
            break;
        }
    }
    run.iter().map(|segment| segment.file.clone()).collect()
}
