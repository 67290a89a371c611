//! Snapshots between members: read in chunks under a pin, received into a generation of their own, put in force by apply.

use std::{collections::VecDeque, ops::ControlFlow};

use bytes::Bytes;
use quorate_consensus::{Body, LogIndex, MemberId, Message, SnapshotMeta};
use quorate_machine::{EncodedKeyValue, LeaseTime, Machine, Revision, Row, Store};
use quorate_replica::{Input, PeerBody, PeerMessage};
use quorate_storage::{
    checkpoint::{CheckpointAt, CheckpointJob, Step},
    directory::NewGeneration,
    rows::{Pin, RowReader, RowStore},
};

use super::{
    happenings::Happening,
    process::{Effect, Process, Scene, Stop, Thread, ToApply, meta_of},
};

/// How long consensus may take to want an announced snapshot, in microseconds.
const WANTED_US: u64 = 5_000_000;

/// One stream of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TransferId {
    from: MemberId,
    life: u64,
    number: u64,
}

/// What goes over the stream, in both directions.
#[derive(Clone, Debug)]
pub(crate) enum Transferred {
    /// What it is.
    Head { announcement: Message, meta: SnapshotMeta, state: Bytes, revision: i64 },
    /// Some rows.
    Rows(Vec<Row>),
    /// That was all; so many rows it were.
    End(usize),
    /// The last frame was taken; send the next.
    Taken,
    /// Whether it is installed.
    Answer(bool),
    /// The connection is gone.
    Broken,
}

/// A snapshot on its way to another member.
pub(crate) struct Outgoing {
    pub(crate) to: MemberId,
    index: LogIndex,
    reader: RowReader,
    pin: Pin,
    revision: i64,
    after: Option<Revision>,
    rows: usize,
}

/// A snapshot that comes in.
pub(crate) struct Incoming {
    id: TransferId,
    pub(crate) from: MemberId,
    meta: SnapshotMeta,
    state: Bytes,
    revision: i64,
    since: u64,
    frames: VecDeque<Transferred>,
    stage: Stage,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("id", &self.id).field("meta", &self.meta).finish()
    }
}

enum Stage {
    /// Consensus has not said yet that it wants it.
    Announced,
    /// Rows are written.
    Rows(RowStore, NewGeneration, usize),
    /// Its checkpoint is written.
    Checkpoint(RowStore, NewGeneration, Box<CheckpointJob>),
    /// It is durable.
    Ready(RowStore, NewGeneration),
}

impl Process {
    /// The apply thread begins to send its state to a follower that is behind the log.
    pub(crate) fn begin_outgoing(&mut self, to: MemberId, scene: &mut Scene<'_>) {
        let meta = meta_of(&self.applier);
        let index = meta.index;
        let machine = self.applier.machine();
        let reader = machine.store().reader();
        let revision = machine.revision();
        let state = machine.encode_state();
        let Ok(pin) = reader.pin(machine.compacted().max(0), scene.now / 1000) else {
            self.input(Input::SnapshotSent { to, index, delivered: false }, scene);
            return;
        };
        let term = self.replica.soft().term;
        let announcement =
            Message { from: self.id, to, term, body: Body::Snapshot { meta: meta.clone() } };
        self.next_number += 1;
        let id = TransferId { from: self.id, life: self.life, number: self.next_number };
        let outgoing = Outgoing { to, index, reader, pin, revision, after: None, rows: 0 };
        self.outgoing.insert(id, outgoing);
        scene.counts.note(Happening::SnapshotSent);
        let head = Transferred::Head { announcement, meta, state, revision };
        scene.effects.push(Effect::Transfer(to, id, head));
    }

    /// Something came over a stream.
    pub(crate) fn transferred(
        &mut self,
        from: MemberId,
        id: TransferId,
        what: Transferred,
        scene: &mut Scene<'_>,
    ) -> Result<(), Stop> {
        match what {
            Transferred::Head { announcement, meta, state, revision } => {
                self.announced(from, id, announcement, (meta, state, revision), scene);
            }
            Transferred::Rows(_) | Transferred::End(_) => match &mut self.incoming {
                Some(incoming) if incoming.id == id => {
                    incoming.frames.push_back(what);
                    let delay = scene.random.between(50, 2000) * scene.disk_slowness;
                    self.wake(Thread::Receive, delay, scene);
                }
                Some(_) | None => {
                    scene.effects.push(Effect::Transfer(from, id, Transferred::Broken));
                }
            },
            Transferred::Taken => return self.send_next(from, id, scene),
            Transferred::Answer(delivered) => self.end_outgoing(id, delivered, scene),
            Transferred::Broken => self.broken(id, scene),
        }
        Ok(())
    }

    fn announced(
        &mut self,
        from: MemberId,
        id: TransferId,
        announcement: Message,
        (meta, state, revision): (SnapshotMeta, Bytes, i64),
        scene: &mut Scene<'_>,
    ) {
        if self.incoming.is_some() {
            scene.effects.push(Effect::Transfer(from, id, Transferred::Broken));
            return;
        }
        let body = PeerBody::Consensus(announcement);
        let message = PeerMessage { from, to: self.id, clock: LeaseTime(0), body };
        self.input(Input::Peer(message), scene);
        let (since, frames) = (scene.now, VecDeque::new());
        self.incoming = Some(Incoming {
            id,
            from,
            meta,
            state,
            revision,
            since,
            frames,
            stage: Stage::Announced,
        });
        self.wake(Thread::Receive, 20_000, scene);
    }

    /// The stream is gone, whichever end this is.
    fn broken(&mut self, id: TransferId, scene: &mut Scene<'_>) {
        if self.outgoing.contains_key(&id) {
            scene.counts.note(Happening::SnapshotBroken);
            self.end_outgoing(id, false, scene);
        }
        if self.incoming.as_ref().is_some_and(|incoming| incoming.id == id) {
            self.incoming = None;
        }
    }

    /// Another process died: its connections are gone.
    pub(crate) fn peer_died(&mut self, peer: MemberId, scene: &mut Scene<'_>) {
        let lost = self.outgoing.iter().filter(|(_, outgoing)| outgoing.to == peer);
        let mut lost: Vec<TransferId> = lost.map(|(id, _)| *id).collect();
        lost.extend(self.incoming.iter().filter(|i| i.from == peer).map(|incoming| incoming.id));
        for id in lost {
            self.broken(id, scene);
        }
    }

    fn end_outgoing(&mut self, id: TransferId, delivered: bool, scene: &mut Scene<'_>) {
        let Some(Outgoing { to, index, .. }) = self.outgoing.remove(&id) else { return };
        self.input(Input::SnapshotSent { to, index, delivered }, scene);
    }

    /// Reads the next rows.
    fn send_next(
        &mut self,
        from: MemberId,
        id: TransferId,
        scene: &mut Scene<'_>,
    ) -> Result<(), Stop> {
        let Some(outgoing) = self.outgoing.get_mut(&id) else {
            scene.effects.push(Effect::Transfer(from, id, Transferred::Broken));
            return Ok(());
        };
        let rows_max = scene.random.index(12) + 1;
        let mut rows = Vec::new();
        let (after, to) = (outgoing.after, Revision::end_of(outgoing.revision));
        outgoing.reader.kept_rows(&outgoing.pin, to, &mut |row, version| {
            if after.is_some_and(|after| row.revision <= after) {
                return ControlFlow::Continue(());
            }
            rows.push(Row {
                revision: row.revision,
                key: Bytes::copy_from_slice(row.key),
                kv: EncodedKeyValue(row.kv.clone()),
                created: version.created,
                version: version.version,
                tombstone: row.tombstone,
            });
            if rows.len() < rows_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outgoing.rows += rows.len();
        let frame = match rows.last() {
            Some(last) => {
                outgoing.after = Some(last.revision);
                Transferred::Rows(rows)
            }
            None => Transferred::End(outgoing.rows),
        };
        scene.effects.push(Effect::Transfer(from, id, frame));
        Ok(())
    }

    /// One step of receiving.
    pub(crate) fn run_receive(&mut self, scene: &mut Scene<'_>) -> Result<(), Stop> {
        let Some(mut incoming) = self.incoming.take() else { return Ok(()) };
        let (from, id) = (incoming.from, incoming.id);
        let mut more = false;
        match std::mem::replace(&mut incoming.stage, Stage::Announced) {
            Stage::Announced => {
                if self.wanted.as_ref() == Some(&(from, incoming.meta.clone())) {
                    let (store, generation) = self.begin_generation(&incoming)?;
                    incoming.stage = Stage::Rows(store, generation, 0);
                    scene.effects.push(Effect::Transfer(from, id, Transferred::Taken));
                } else if scene.now - incoming.since > WANTED_US {
                    scene.effects.push(Effect::Transfer(from, id, Transferred::Answer(false)));
                    return Ok(());
                } else {
                    more = true;
                }
            }
            Stage::Rows(mut store, generation, mut count) => match incoming.frames.pop_front() {
                Some(Transferred::Rows(rows)) => {
                    count += rows.len();
                    rows.into_iter().for_each(|row| store.append(row));
                    store.flush()?;
                    incoming.stage = Stage::Rows(store, generation, count);
                    scene.effects.push(Effect::Transfer(from, id, Transferred::Taken));
                }
                Some(Transferred::End(sent)) => {
                    assert!(sent == count, "a stream lost rows: {sent} sent, {count} came");
                    let job = store.begin_checkpoint(incoming.at(), incoming.state.clone())?;
                    let job = Box::new(job.expect("nothing else checkpoints a new generation"));
                    incoming.stage = Stage::Checkpoint(store, generation, job);
                    more = true;
                }
                Some(_) | None => incoming.stage = Stage::Rows(store, generation, count),
            },
            Stage::Checkpoint(store, generation, mut job) => {
                more = true;
                let step = job.step(incoming.meta.index)?;
                incoming.stage = match step {
                    Step::Published(_) => Stage::Ready(store, generation),
                    Step::Worked | Step::WaitsForLog => Stage::Checkpoint(store, generation, job),
                };
            }
            Stage::Ready(store, generation) => {
                incoming.stage = Stage::Ready(store, generation);
                self.apply(ToApply::Install(Box::new(incoming)), scene);
                return Ok(());
            }
        }
        self.incoming = Some(incoming);
        if more {
            let delay = scene.random.between(200, 20_000) * scene.disk_slowness;
            self.wake(Thread::Receive, delay, scene);
        }
        Ok(())
    }

    fn begin_generation(&self, incoming: &Incoming) -> Result<(RowStore, NewGeneration), Stop> {
        let generation = self.directory.begin_generation()?;
        let path = generation.path().to_path_buf();
        RowStore::create(self.disk.clone(), path.clone(), incoming.at(), incoming.state.clone())?;
        Ok((RowStore::open(self.disk.clone(), path, self.rows)?.store, generation))
    }

    /// Puts a received snapshot in force, unless this member has come as far by itself.
    pub(crate) fn install(
        &mut self,
        incoming: Incoming,
        scene: &mut Scene<'_>,
    ) -> Result<(), Stop> {
        let Incoming { id, from, meta, state, stage, .. } = incoming;
        let Stage::Ready(store, generation) = stage else {
            panic!("installed before it was ready")
        };
        let before = self.applier.now();
        if meta.index <= self.applied().0 {
            scene.effects.push(Effect::Transfer(from, id, Transferred::Answer(false)));
            return Ok(());
        }
        self.directory.switch_generation(&generation, meta.clone(), true)?;
        let mut machine = Machine::restore(&state, store)
            .and_then(|machine| machine.knowing(self.known))
            .map_err(|error| Stop(error.to_string()))?;
        let compacted = machine.compacted();
        machine.store_mut().compact(compacted);
        self.compaction = machine.store_mut().compaction();
        self.applier.install(machine, meta.term);
        // What was under way for the old generation is void.
        (self.job, self.finished_job) = (None, None);
        self.logged_bytes = 0;
        self.published = (self.applier.machine().read_point(), self.new_reader());
        scene.truth.applied(self.id, meta.index, self.applier.machine().digest());
        scene.counts.note(Happening::SnapshotInstalled);
        if self.hub.counts().0 > 0 {
            scene.counts.note(Happening::WatchJumped);
        }
        let report = self.applier.report();
        self.input(Input::Installed { meta, report }, scene);
        self.hub.jump(before.revision, &mut self.streams);
        self.directory.remove_replaced()?;
        scene.effects.push(Effect::Transfer(from, id, Transferred::Answer(true)));
        Ok(())
    }
}

impl Incoming {
    fn at(&self) -> CheckpointAt {
        let SnapshotMeta { index, term, .. } = self.meta;
        CheckpointAt { index, term, revision: self.revision }
    }
}
