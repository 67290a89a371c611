//! What each thread of a member does in one step.

use quorate_consensus::{Body, LogIndex, Message, Role};
use quorate_machine::Store;
use quorate_replica::{Input, Output, PeerBody};
use quorate_storage::{checkpoint::CheckpointAt, checkpoint::Step, rows::Work};

use super::{
    happenings::Happening,
    process::{Effect, Process, Reply, Scene, Stop, Thread, ToApply, Unpublished, meta_of},
};

impl Process {
    /// Takes some inputs, drains once, hands out what came of it.
    pub(crate) fn run_consensus(&mut self, scene: &mut Scene<'_>) {
        let most = u64::try_from(self.inputs.len().min(64)).expect("at most 64");
        if most == 0 {
            return;
        }
        let mut ticked = false;
        for _ in 0..scene.random.between(1, most) {
            let Some(input) = self.inputs.pop_front() else { break };
            ticked |= matches!(input, Input::Tick { .. });
            self.replica.step(input);
            self.replica.check_invariants();
        }
        if ticked {
            self.watch_disk(scene);
        }
        let output = self.replica.drain();
        self.replica.check_invariants();
        self.dispatch(output, scene);
        if !self.inputs.is_empty() {
            let delay = scene.random.between(1, 50);
            self.wake(Thread::Consensus, delay, scene);
        }
    }

    /// The shell's watchdog: is the oldest record that is not durable older than an election timeout?
    fn watch_disk(&mut self, scene: &mut Scene<'_>) {
        let oldest = self.writing_since.or_else(|| self.records.front().map(|(_, since)| *since));
        let stalled = oldest.is_some_and(|since| scene.now - since > self.election_us);
        if stalled != self.stalled {
            self.stalled = stalled;
            self.replica.step(Input::DiskStalled(stalled));
            if stalled {
                scene.counts.note(Happening::DiskStalled);
            }
        }
    }

    fn dispatch(&mut self, output: Output, scene: &mut Scene<'_>) {
        let Output {
            messages,
            record,
            committed,
            failed,
            reads,
            fetch,
            snapshots_wanted,
            install,
            soft_state,
            leases_due_at,
        } = output;
        for message in messages {
            match &message.body {
                PeerBody::Forward { .. } => scene.counts.note(Happening::Forwarded),
                PeerBody::Consensus(Message { body: Body::TimeoutNow, .. }) => {
                    scene.counts.note(Happening::Transferred);
                }
                PeerBody::Consensus(_)
                | PeerBody::ForwardAccepted { .. }
                | PeerBody::ForwardRefused { .. } => {}
            }
            scene.effects.push(Effect::Send(message));
        }
        if let Some(record) = record {
            self.records.push_back((record, scene.now));
            let delay = scene.random.between(20, 300) * scene.disk_slowness;
            self.wake(Thread::Wal, delay, scene);
        }
        for entry in &committed {
            scene.truth.committed(self.id, entry);
        }
        if !committed.is_empty() {
            self.apply(ToApply::Committed(committed), scene);
        }
        for (sequence, failure) in failed {
            if let Some(waiter) = self.waiters.remove(&sequence.0) {
                scene.effects.push(Effect::Reply(waiter, Reply::Failed(failure)));
            }
        }
        for read in reads {
            if let Some((waiter, request)) = self.waiting_reads.remove(&read.0) {
                self.begin_read(read.0, request, waiter, scene);
            }
        }
        for fetch in fetch {
            self.fetches.push_back(fetch);
            let delay = scene.random.between(50, 3000) * scene.disk_slowness;
            self.wake(Thread::Fetch, delay, scene);
        }
        for member in snapshots_wanted {
            self.apply(ToApply::SendSnapshot(member), scene);
        }
        if install.is_some() {
            self.wanted = install;
            self.wake(Thread::Receive, 10, scene);
        }
        if let Some(clock) = leases_due_at {
            self.apply(ToApply::LeasesDue(clock), scene);
        }
        if let Some(soft) = soft_state
            && soft.role == Role::Leader
            && scene.truth.leads(self.id, soft.term)
        {
            scene.counts.note(Happening::Elected);
        }
    }

    /// Writes a batch, or syncs the one that is written.
    pub(crate) fn run_wal(&mut self, scene: &mut Scene<'_>) -> Result<(), Stop> {
        if self.writing_since.is_some() {
            let durable = self.wal.sync()?;
            self.writing_since = None;
            if let Some(token) = durable.token {
                scene.effects.push(Effect::Durable(token));
                self.input(Input::Persisted(token), scene);
            }
        } else if !self.records.is_empty() {
            let most = u64::try_from(self.records.len()).expect("few records");
            let count = scene.random.between(1, most);
            let mut batch = Vec::new();
            for _ in 0..count {
                let Some((record, since)) = self.records.pop_front() else { break };
                self.writing_since.get_or_insert(since);
                scene.effects.push(Effect::Written(record.token));
                batch.push(record);
            }
            self.wal.write(&batch)?;
        } else if let Some(index) = self.purge.take()
            && self.wal.purge_below(index)?.segments > 0
        {
            scene.counts.note(Happening::LogPurged);
        }
        if self.writing_since.is_some() || !self.records.is_empty() || self.purge.is_some() {
            let delay = scene.random.between(100, 3000) * scene.disk_slowness;
            self.wake(Thread::Wal, delay, scene);
        }
        Ok(())
    }

    /// Reads old entries.
    pub(crate) fn run_fetch(&mut self, scene: &mut Scene<'_>) -> Result<(), Stop> {
        let Some(fetch) = self.fetches.pop_front() else { return Ok(()) };
        let entries = self.wal_reader.fetch(fetch.from, fetch.to, fetch.bytes_max)?;
        scene.counts.note(Happening::OldEntriesFetched);
        self.input(Input::Fetched { fetch, entries }, scene);
        if !self.fetches.is_empty() {
            self.wake(Thread::Fetch, 100, scene);
        }
        Ok(())
    }

    /// Publishes what was applied, tells watches, or takes up the next work.
    pub(crate) fn run_apply(&mut self, scene: &mut Scene<'_>) -> Result<(), Stop> {
        match self.unpublished.take() {
            Some(unpublished) if !unpublished.published => self.publish(unpublished, scene),
            Some(unpublished) => self.tell_watches(unpublished, scene)?,
            None => self.next_work(scene)?,
        }
        if self.unpublished.is_some() || !self.to_apply.is_empty() {
            // Apply is sometimes slow: then reads wait and watches of others run ahead.
            let slow = if scene.random.chance(20) { 40 } else { 1 };
            let delay = scene.random.between(10, 300) * slow;
            self.wake(Thread::Apply, delay, scene);
        }
        Ok(())
    }

    fn next_work(&mut self, scene: &mut Scene<'_>) -> Result<(), Stop> {
        match self.to_apply.pop_front() {
            None => Ok(()),
            Some(ToApply::Committed(mut entries)) => {
                let slice = usize::try_from(scene.random.between(1, 12)).expect("at most 12");
                if entries.len() > slice {
                    let rest = entries.split_off(slice);
                    self.to_apply.push_front(ToApply::Committed(rest));
                }
                self.slice(entries, scene)
            }
            Some(ToApply::LeasesDue(clock)) => {
                let due = self.applier.leases_due(clock);
                if !due.is_empty() {
                    self.input(Input::LeasesDue(due), scene);
                }
                Ok(())
            }
            Some(ToApply::SendSnapshot(member)) => {
                self.begin_outgoing(member, scene);
                Ok(())
            }
            Some(ToApply::Install(incoming)) => self.install(*incoming, scene),
        }
    }

    fn slice(
        &mut self,
        entries: Vec<quorate_consensus::Entry>,
        scene: &mut Scene<'_>,
    ) -> Result<(), Stop> {
        let before = self.applier.now().compacted;
        self.logged_bytes += entries.iter().map(|entry| entry.cost() as u64).sum::<u64>();
        let batch = self.applier.apply(entries)?;
        let machine = self.applier.machine_mut();
        machine.store_mut().flush()?;
        machine.check_invariants();
        let digest = machine.digest();
        scene.truth.applied(self.id, self.applier.applied().0, digest);
        for events in &batch.changes {
            scene.truth.changed(self.id, events, scene.now);
        }
        if self.applier.now().compacted > before {
            scene.counts.note(Happening::Compacted);
            self.wake(Thread::Files, 200, scene);
        }
        self.unpublished = Some(Unpublished {
            replies: batch.replies,
            changes: batch.changes.into(),
            published: false,
        });
        Ok(())
    }

    /// Makes the state after a slice known: to readers, to askers, to consensus.
    fn publish(&mut self, mut unpublished: Unpublished, scene: &mut Scene<'_>) {
        self.published.0 = self.applier.machine().read_point();
        for (sequence, applied) in std::mem::take(&mut unpublished.replies) {
            if let Some(waiter) = self.waiters.remove(&sequence.0) {
                let reply = Reply::Applied(Box::new(applied));
                scene.effects.push(Effect::Reply(waiter, reply));
            }
        }
        let report = self.applier.report();
        self.input(Input::Applied(report), scene);
        unpublished.published = true;
        self.unpublished = Some(unpublished);
    }

    /// Tells watches of one revision; behind the last one, looks whether a checkpoint is due.
    fn tell_watches(
        &mut self,
        mut unpublished: Unpublished,
        scene: &mut Scene<'_>,
    ) -> Result<(), Stop> {
        if let Some(events) = unpublished.changes.pop_front() {
            let store = self.applier.machine().store();
            self.hub.publish(&events, store, &mut self.streams)?;
            scene.counts.note_many(Happening::WatchLagged, self.streams.take_refused());
            self.unpublished = Some(unpublished);
            return Ok(());
        }
        if self.applier.machine().store().checkpoint_due(self.logged_bytes) {
            self.begin_checkpoint(scene)?;
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self, scene: &mut Scene<'_>) -> Result<(), Stop> {
        let meta = meta_of(&self.applier);
        if meta.index == LogIndex(0) || self.job.is_some() || self.finished_job.is_some() {
            return Ok(());
        }
        let machine = self.applier.machine_mut();
        let state = machine.encode_state();
        let at = CheckpointAt { index: meta.index, term: meta.term, revision: machine.revision() };
        if let Some(job) = machine.store_mut().begin_checkpoint(at, state)? {
            self.logged_bytes = 0;
            self.job = Some((job, meta));
            self.wake(Thread::Files, 200, scene);
        }
        Ok(())
    }

    /// One step of a checkpoint, else one of compaction.
    pub(crate) fn run_files(&mut self, scene: &mut Scene<'_>) -> Result<(), Stop> {
        let mut busy = true;
        if let Some(meta) = self.finished_job.take() {
            self.record_checkpoint(meta, scene)?;
        } else if let Some((mut job, meta)) = self.job.take() {
            match job.step(self.replica.consensus().durable_index())? {
                Step::Worked | Step::WaitsForLog => self.job = Some((job, meta)),
                Step::Published(_) => self.finished_job = Some(meta),
            }
        } else if scene.random.chance(150) {
            // Only space may be short for a spare, which is no reason to stop.
            self.filler.step().ok();
        } else {
            busy = self.compact(scene)?;
        }
        let delay = if busy { scene.random.between(200, 4000) } else { 400_000 };
        self.wake(Thread::Files, delay * scene.disk_slowness, scene);
        Ok(())
    }

    fn record_checkpoint(
        &mut self,
        meta: quorate_consensus::SnapshotMeta,
        scene: &mut Scene<'_>,
    ) -> Result<(), Stop> {
        if self.directory.manifest().checkpoint.index > meta.index {
            // Of a generation that was replaced meanwhile.
            return Ok(());
        }
        let index = meta.index;
        self.directory.record_checkpoint(meta)?;
        scene.counts.note(Happening::Checkpointed);
        self.purge = Some(index);
        self.wake(Thread::Wal, 100, scene);
        self.input(Input::Compact(index), scene);
        Ok(())
    }

    fn compact(&mut self, scene: &mut Scene<'_>) -> Result<bool, Stop> {
        if self.compaction.step()? == Work::None {
            return Ok(false);
        }
        scene.counts.note(Happening::CompactionStep);
        if self.has_readers() {
            scene.counts.note(Happening::CompactedUnderReader);
        }
        Ok(true)
    }

    fn has_readers(&self) -> bool {
        !self.outgoing.is_empty()
            || self.tasks.values().any(super::reads::ReadTask::is_chunked)
            || self.streams.any_replaying()
    }

    /// The machine's store as a new reader sees it.
    pub(crate) fn new_reader(&self) -> quorate_storage::rows::RowReader {
        self.applier.machine().store().reader()
    }
}
