//! The apply thread: committed entries through the machine, in slices; replies and watch events out.
//!
//! After each slice, in this order: the rows are flushed, the new revision is published, the askers are answered, consensus
//! hears of it, the watches are told. So whoever saw a reply finds the value, and no watch is ahead of what can be read.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc as std_mpsc},
    time::Instant,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quorate_consensus::{Body, Entry, LogIndex, MemberId, Message, SnapshotMeta};
use quorate_machine::{CompactionHashes, Machine, ReadFault, Store};
use quorate_replica::{
    Applier, Input,
    watch::{Delivery, Sink, StreamId, WatchHub},
};
use quorate_storage::{
    checkpoint::{CheckpointAt, CheckpointJob},
    directory::DataDirectory,
    rows::RowStore,
    wal::WalReader,
};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::{
    compaction_hashing::CompactionHashing,
    consensus_loop::ToApply,
    fatal::Fatal,
    files_loop::{Generation, ToFiles},
    handle::{Leadership, Published, Reply},
    metrics::ApplyMetrics,
    peers::{Identity, Membership, snapshot::Outgoing},
    pending::Pending,
    snapshots::Received,
    watch_stream::{ReplayPlan, StreamQueue, WatchRequest},
};

/// The machine over this member's files.
pub type StoreMachine = Machine<RowStore>;

/// Entries applied before anybody hears of them: enough to share a flush, few enough that replies flow.
const SLICE_MAX: usize = 512;

/// Everything that can wake the apply thread.
pub enum ApplyInput {
    /// From consensus.
    Consensus(ToApply),
    /// From a watch stream.
    Watch(WatchRequest),
    /// Something to look up in the machine.
    Inspect(Box<dyn FnOnce(&StoreMachine) + Send>),
    /// Time for periodic progress notices.
    NotifyProgress,
    /// A snapshot was received whole: put it in force.
    Install(Box<Received>),
    /// A reader on another task found a row unreadable.
    Fault(ReadFault),
    /// Write a last checkpoint and end.
    Stop,
}

/// The way into the apply thread; cheap to clone.
#[derive(Clone)]
pub struct ApplySender(std_mpsc::Sender<ApplyInput>);

impl ApplySender {
    /// A queue and its way in. It has no bound of its own: consensus bounds what is committed and not applied, watch streams bound
    /// their requests, and an inspection is one a client call.
    #[must_use]
    pub fn channel() -> (Self, std_mpsc::Receiver<ApplyInput>) {
        let (sender, receiver) = std_mpsc::channel();
        (Self(sender), receiver)
    }

    /// Sends anything. It fails only while the process stops.
    pub fn send(&self, input: ApplyInput) {
        self.0.send(input).ok();
    }

    /// Sends what consensus wants.
    pub fn consensus(&self, request: ToApply) {
        self.send(ApplyInput::Consensus(request));
    }

    /// Sends a watch stream's request.
    pub fn watch(&self, request: WatchRequest) {
        self.send(ApplyInput::Watch(request));
    }

    /// A row could not be read: the process stops.
    pub fn fault(&self, fault: ReadFault) {
        self.send(ApplyInput::Fault(fault));
    }
}

/// Everything the apply thread owns.
pub struct ApplyLoop {
    /// The data side of the member.
    pub applier: Applier<RowStore>,
    /// The manifest, shared with the files thread.
    pub directory: Arc<Mutex<DataDirectory>>,
    /// To the files thread.
    pub files: std_mpsc::Sender<ToFiles>,
    /// To consensus.
    pub inputs: mpsc::Sender<Input>,
    /// Who waits for a reply.
    pub requests: Arc<Pending<Reply>>,
    /// What everybody may see.
    pub published: Arc<ArcSwap<Published>>,
    /// The hashes of the last compactions, of the generation in force.
    pub hashes: Arc<Mutex<CompactionHashes>>,
    /// Who belongs to the cluster, for the peers' handshake.
    pub membership: Membership,
    /// The log: what a follower needs after its snapshot must not be purged meanwhile.
    pub log: WalReader,
    /// Starts sending a snapshot.
    pub send_snapshot: Box<dyn Fn(Outgoing, LogIndex) + Send>,
    /// The term to announce snapshots in.
    pub leadership: watch::Receiver<Leadership>,
    /// Who this member is.
    pub identity: Arc<Identity>,
    /// What is measured.
    pub metrics: Arc<ApplyMetrics>,
    /// Bytes of entries applied since a checkpoint was begun.
    pub since_checkpoint: usize,
}

/// Runs until it is told to stop.
///
/// # Errors
/// What makes it impossible to go on.
pub fn run(mut apply: ApplyLoop, queue: &std_mpsc::Receiver<ApplyInput>) -> Result<(), Fatal> {
    let mut watches = Watches::default();
    apply.publish();
    while let Ok(input) = queue.recv() {
        match input {
            ApplyInput::Consensus(request) => apply.consensus(request, &mut watches)?,
            ApplyInput::Watch(request) => apply.watch(request, &mut watches),
            ApplyInput::Inspect(look) => look(apply.applier.machine()),
            ApplyInput::NotifyProgress => {
                let now = apply.applier.now();
                watches.hub.notify_progress(now, &mut watches.queues);
            }
            ApplyInput::Install(received) => apply.install(*received, &mut watches)?,
            ApplyInput::Fault(fault) => return Err(fault.into()),
            ApplyInput::Stop => break,
        }
    }
    let last = apply.begin_checkpoint()?;
    // Fails only if the files thread has failed, and then that is what is told.
    apply.files.send(ToFiles::Stop(last)).ok();
    Ok(())
}

/// The hub and where it delivers.
#[derive(Default)]
struct Watches {
    hub: WatchHub,
    queues: Queues,
}

#[derive(Default)]
struct Queues(HashMap<StreamId, StreamQueue>);

impl Sink for Queues {
    fn offer(&mut self, stream: StreamId, delivery: Delivery) -> bool {
        self.0.get(&stream).is_none_or(|queue| queue.offer(delivery))
    }

    fn answer(&mut self, stream: StreamId, delivery: Delivery) {
        if let Some(queue) = self.0.get(&stream) {
            queue.answer(delivery);
        }
    }

    fn lags(&mut self, stream: StreamId) {
        if let Some(queue) = self.0.get(&stream) {
            queue.lags();
        }
    }
}

impl ApplyLoop {
    fn consensus(&mut self, request: ToApply, watches: &mut Watches) -> Result<(), Fatal> {
        match request {
            ToApply::Committed(entries) => self.committed(entries, watches),
            ToApply::LeasesDue(clock) => {
                let due = self.applier.leases_due(clock);
                if !due.is_empty() {
                    self.input(Input::LeasesDue(due));
                }
                Ok(())
            }
            ToApply::SendSnapshot(member) => {
                self.start_snapshot(member);
                Ok(())
            }
        }
    }

    fn committed(&mut self, mut entries: Vec<Entry>, watches: &mut Watches) -> Result<(), Fatal> {
        while !entries.is_empty() {
            let rest =
                if entries.len() > SLICE_MAX { entries.split_off(SLICE_MAX) } else { Vec::new() };
            self.slice(std::mem::replace(&mut entries, rest), watches)?;
        }
        Ok(())
    }

    fn slice(&mut self, entries: Vec<Entry>, watches: &mut Watches) -> Result<(), Fatal> {
        let started = Instant::now();
        let count = entries.len();
        let bytes: usize = entries.iter().map(Entry::cost).sum();
        let batch = self.applier.apply(entries)?;
        self.applier.machine_mut().store_mut().flush()?;
        // Before they are published: whoever knows of a compaction finds its hash, or that it is due.
        for compacted in &batch.compactions {
            self.hashes.lock().begin(*compacted);
        }
        self.publish();
        if !batch.compactions.is_empty() {
            self.files.send(ToFiles::Compacted).ok();
        }
        for (sequence, applied) in batch.replies {
            self.requests.answer(sequence.0, Ok(applied));
        }
        let report = self.applier.report();
        self.input(Input::Applied(report));
        for events in batch.changes {
            watches.hub.publish(&events, self.applier.machine().store(), &mut watches.queues)?;
        }
        self.metrics.applied(count, started.elapsed());
        self.since_checkpoint += bytes;
        let store = self.applier.machine().store();
        if store.checkpoint_due(self.since_checkpoint as u64)
            && let Some((job, meta)) = self.begin_checkpoint()?
        {
            self.files.send(ToFiles::Checkpoint(job, meta)).ok();
        }
        Ok(())
    }

    /// Captures the state as of now; none while an earlier checkpoint is being written.
    fn begin_checkpoint(&mut self) -> Result<Option<(Box<CheckpointJob>, SnapshotMeta)>, Fatal> {
        let meta = self.meta();
        if meta.index == LogIndex(0) {
            return Ok(None);
        }
        let machine = self.applier.machine_mut();
        let state = machine.encode_state();
        let at = CheckpointAt { index: meta.index, term: meta.term, revision: machine.revision() };
        let Some(job) = machine.store_mut().begin_checkpoint(at, state)? else { return Ok(None) };
        self.since_checkpoint = 0;
        Ok(Some((Box::new(job), meta)))
    }

    /// What a snapshot of now stands for.
    fn meta(&self) -> SnapshotMeta {
        let (index, term) = self.applier.applied();
        SnapshotMeta { index, term, configuration: self.applier.configuration() }
    }

    /// Sends the state as of now to a follower that is behind the log.
    fn start_snapshot(&self, to: MemberId) {
        let meta = self.meta();
        let index = meta.index;
        let term = quorate_consensus::Term(self.leadership.borrow().term);
        let machine = self.applier.machine();
        let reader = machine.store().reader();
        let revision = machine.revision();
        let pin = match reader.pin(machine.compacted().max(0), crate::clock::now_ms()) {
            Ok(pin) => pin,
            Err(error) => {
                warn!(peer = %to, "cannot send a snapshot now: {error}");
                self.input(Input::SnapshotSent { to, index, delivered: false });
                return;
            }
        };
        let announcement =
            Message { from: self.identity.member, to, term, body: Body::Snapshot { meta } };
        let state = machine.encode_state();
        let log = self.log.hold(index);
        let feature_level = machine.feature_level();
        let outgoing = Outgoing { announcement, state, feature_level, reader, pin, revision, log };
        (self.send_snapshot)(outgoing, index);
    }

    /// Puts a received snapshot in force, unless this member has come as far by itself meanwhile.
    fn install(&mut self, received: Received, watches: &mut Watches) -> Result<(), Fatal> {
        let Received { meta, state, store, generation, installed } = received;
        let before = self.applier.now();
        if meta.index <= self.applier.applied().0 {
            info!(index = %meta.index, "a snapshot came too late to be of use");
            installed.send(false).ok();
            return Ok(());
        }
        self.directory.lock().switch_generation(&generation, meta.clone(), true)?;
        let mut machine = Machine::restore(&state, store)
            .map_err(|error| crate::boot::unreadable_state(&error))?;
        let compacted = machine.compacted();
        machine.store_mut().compact(compacted);
        // The hashes vouch for the rows that they were taken of: they go with them.
        self.hashes = Arc::new(Mutex::new(CompactionHashes::new(compacted)));
        let hashing = CompactionHashing::new(machine.store().reader(), self.hashes.clone());
        let generation = Generation { compaction: machine.store_mut().compaction(), hashing };
        self.files.send(ToFiles::Switched(Box::new(generation))).ok();
        self.applier.install(machine, meta.term);
        self.since_checkpoint = 0;
        self.publish();
        let report = self.applier.report();
        info!(index = %meta.index, revision = self.applier.now().revision, "snapshot installed");
        self.input(Input::Installed { meta, report });
        watches.hub.jump(before.revision, &mut watches.queues);
        installed.send(true).ok();
        Ok(())
    }

    /// Makes the state after the last slice known to readers.
    fn publish(&self) {
        let published = Published::of(&self.applier, self.hashes.clone());
        let machine = self.applier.machine();
        self.membership.publish_if_changed(
            &published.members,
            machine.members(),
            published.feature_level,
        );
        self.published.store(Arc::new(published));
    }

    fn watch(&mut self, request: WatchRequest, watches: &mut Watches) {
        let now = self.applier.now();
        let Watches { hub, queues } = watches;
        match request {
            WatchRequest::Open(stream, queue) => {
                queues.0.insert(stream, queue);
            }
            WatchRequest::Create(stream, watch, spec, permit) => {
                hub.create(stream, watch, spec, now, queues);
                drop(permit);
            }
            WatchRequest::Cancel(stream, watch, permit) => {
                hub.cancel(stream, watch, now, queues);
                drop(permit);
            }
            WatchRequest::Progress(stream) => hub.progress(stream, now, queues),
            WatchRequest::Lagging(stream, max, answer) => {
                let lagging = hub.lagging(stream, max, now, queues);
                let reader = self.applier.machine().store().reader();
                match reader.pin(now.compacted.max(0), crate::clock::now_ms()) {
                    // The stream may be gone.
                    Ok(pin) => drop(answer.send(ReplayPlan { lagging, now, reader, pin })),
                    // Without an answer the stream ends, and its client comes again.
                    Err(error) => warn!("a watch cannot catch up now: {error}"),
                }
            }
            WatchRequest::Resume(stream, watch_ids, next, answer) => {
                let behind = watch_ids
                    .into_iter()
                    .filter(|watch| !hub.resume(stream, *watch, next, now))
                    .count();
                answer.send(behind > 0).ok();
            }
            WatchRequest::Close(stream) => {
                hub.close(stream);
                queues.0.remove(&stream);
            }
        }
    }

    fn input(&self, input: Input) {
        // Fails only while the process stops.
        self.inputs.blocking_send(input).ok();
    }
}
