//! Watch streams on a member: a bounded queue each, and replays for watches that lag, as the shell's `watch_stream` does it.

use std::collections::{BTreeMap, VecDeque};

use quorate_replica::watch::{Delivery, Lagging, Now, Sink, StreamId, WatchId, WatchSpec, replay};
use quorate_storage::rows::{Pin, RowReader};

use super::{
    happenings::Happening,
    process::{Process, Scene, Stop},
};

/// All streams of a member.
#[derive(Default)]
pub(crate) struct Streams {
    by_id: BTreeMap<StreamId, Stream>,
    /// Deliveries that found no room, so that a watch fell behind.
    refused: u64,
}

#[derive(Default)]
struct Stream {
    /// Live deliveries that the queue takes; beyond it watches lag.
    capacity: usize,
    deliveries: VecDeque<Delivery>,
    raised: bool,
    plan: Option<Plan>,
    replayed: VecDeque<Delivery>,
    resume: Option<(Vec<WatchId>, i64)>,
}

/// What a replay reads.
struct Plan {
    lagging: Vec<Lagging>,
    now: Now,
    reader: RowReader,
    /// Keeps the pairs before the changes.
    _pin: Option<Pin>,
}

/// What became of one step of a stream.
pub(crate) enum Told {
    /// This goes to the client.
    Delivery(Delivery),
    /// Something was done; more is to do.
    Worked,
    /// There is nothing to do.
    Idle,
    /// No such stream: the process is another one.
    Gone,
}

impl Sink for Streams {
    fn offer(&mut self, stream: StreamId, delivery: Delivery) -> bool {
        let Some(stream) = self.by_id.get_mut(&stream) else { return true };
        if stream.deliveries.len() >= stream.capacity {
            self.refused += 1;
            return false;
        }
        stream.deliveries.push_back(delivery);
        true
    }

    fn answer(&mut self, stream: StreamId, delivery: Delivery) {
        if let Some(stream) = self.by_id.get_mut(&stream) {
            stream.deliveries.push_back(delivery);
        }
    }

    fn lags(&mut self, stream: StreamId) {
        if let Some(stream) = self.by_id.get_mut(&stream) {
            stream.raised = true;
        }
    }
}

impl Streams {
    /// How many deliveries found no room since the last look.
    pub(crate) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// Whether somebody reads rows for a replay.
    pub(crate) fn any_replaying(&self) -> bool {
        self.by_id.values().any(|stream| stream.plan.is_some())
    }

    /// Whether every stream has handed out everything.
    pub(crate) fn all_idle(&self) -> bool {
        self.by_id.values().all(|stream| {
            stream.deliveries.is_empty()
                && !stream.raised
                && stream.plan.is_none()
                && stream.replayed.is_empty()
                && stream.resume.is_none()
        })
    }
}

impl Process {
    /// Whether the apply thread has nothing half done: requests of streams queue behind that.
    fn applies(&self) -> bool {
        self.unpublished.is_some()
    }

    /// A client opens a stream and creates a watch on it. False while the apply thread is busy.
    pub(crate) fn open_stream(
        &mut self,
        stream: StreamId,
        capacity: usize,
        spec: WatchSpec,
    ) -> bool {
        if self.applies() {
            return false;
        }
        self.streams.by_id.insert(stream, Stream { capacity, ..Stream::default() });
        let now = self.applier.now();
        self.hub.create(stream, WatchId(1), spec, now, &mut self.streams);
        true
    }

    /// The client is gone.
    pub(crate) fn close_stream(&mut self, stream: StreamId) {
        self.hub.close(stream);
        self.streams.by_id.remove(&stream);
    }

    /// The client asks how far its stream is.
    pub(crate) fn ask_progress(&mut self, stream: StreamId) {
        if !self.applies() {
            let now = self.applier.now();
            self.hub.progress(stream, now, &mut self.streams);
        }
    }

    /// Periodic notices.
    pub(crate) fn notify_progress(&mut self) {
        if !self.applies() {
            let now = self.applier.now();
            self.hub.notify_progress(now, &mut self.streams);
        }
    }

    /// One step of a stream's task.
    pub(crate) fn stream_step(
        &mut self,
        id: StreamId,
        scene: &mut Scene<'_>,
    ) -> Result<Told, Stop> {
        let applies = self.applies();
        let Some(stream) = self.streams.by_id.get_mut(&id) else { return Ok(Told::Gone) };
        if let Some(delivery) = stream.replayed.pop_front() {
            return Ok(Told::Delivery(delivery));
        }
        if let Some(plan) = stream.plan.take() {
            let revisions_max = scene.random.index(6) + 1;
            let bytes_max = scene.random.size(64, 6);
            let Plan { lagging, now, reader, _pin } = plan;
            let replayed =
                replay(&reader, &lagging, now.revision, now.compacted, revisions_max, bytes_max)?;
            scene.counts.note(Happening::WatchReplayed);
            let watches = lagging.into_iter().map(|lagging| lagging.watch).collect();
            stream.replayed.extend(replayed.deliveries);
            stream.resume = Some((watches, replayed.next));
            return Ok(Told::Worked);
        }
        if stream.resume.is_some() {
            if !applies {
                self.resume(id);
            }
            return Ok(Told::Worked);
        }
        if let Some(delivery) = stream.deliveries.pop_front() {
            return Ok(Told::Delivery(delivery));
        }
        if !stream.raised {
            return Ok(Told::Idle);
        }
        if !applies {
            self.plan_replay(id, scene);
        }
        Ok(Told::Worked)
    }

    /// What was replayed has been handed out: the watches may be live again.
    fn resume(&mut self, id: StreamId) {
        let now = self.applier.now();
        let Some(stream) = self.streams.by_id.get_mut(&id) else { return };
        let Some((watches, next)) = stream.resume.take() else { return };
        for watch in watches {
            if !self.hub.resume(id, watch, next, now) {
                stream.raised = true;
            }
        }
    }

    fn plan_replay(&mut self, id: StreamId, scene: &mut Scene<'_>) {
        let now = self.applier.now();
        if let Some(stream) = self.streams.by_id.get_mut(&id) {
            stream.raised = false;
        }
        let lagging = self.hub.lagging(id, 8, now, &mut self.streams);
        if lagging.is_empty() {
            return;
        }
        let reader = self.new_reader();
        let pin = reader.pin(now.compacted.max(0), scene.now / 1000).ok();
        if let Some(stream) = self.streams.by_id.get_mut(&id) {
            stream.plan = Some(Plan { lagging, now, reader, _pin: pin });
        }
    }
}
