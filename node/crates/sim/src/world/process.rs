//! One run of a member: the production parts, and the queues between the threads that the shell would run them on.
//!
//! The order of things is the shell's (node/src): consensus steps and drains; records are written, then synced, then reported;
//! entries are applied and flushed, then published, then answered, then watches are told. Each of these is a step of its
//! own here, and anything may happen between two of them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
    sync::Arc,
};

use quorate_consensus::{
    Entry, Fetch, LogIndex, MemberId, Record, Settings as ConsensusSettings, SnapshotMeta, Term,
    Token,
};
use quorate_machine::{
    Applied, Command, Envelope, Event, FeatureLevel, LeaseTime, Machine, ReadPoint, RequestId,
};
use quorate_replica::{
    Applier, Failure, Input, PeerMessage, ReadId, Replica, Sequence, Settings, watch::WatchHub,
};
use quorate_storage::{
    checkpoint::CheckpointJob,
    directory::{DataDirectory, DirectoryError},
    disk::Disk,
    prepare::PrepareError,
    recovery::{self, Expectations, OpenError},
    rows::{Compaction, RowReader, RowSettings, RowStore, StoreError},
    wal::{FetchError, SpareFiller, Wal, WalError, WalReader, WalSettings},
};

use super::{
    happenings::{Counts, Happening},
    random::Random,
    reads::ReadTask,
    streams::Streams,
    transfer::{Incoming, Outgoing, TransferId, Transferred},
    truth::Truth,
};
use crate::judge::{Outcome, Request};

/// Where every member keeps its data on its own disk.
pub(crate) const DATA: &str = "/data";

/// A production part says that this process must stop.
#[derive(Debug)]
pub(crate) struct Stop(pub(crate) String);

macro_rules! stops {
    ($($error:ty),+) => {
        $(impl From<$error> for Stop {
            fn from(error: $error) -> Self {
                Self(format!("{error} ({error:?})"))
            }
        })+
    };
}

stops!(
    StoreError,
    WalError,
    DirectoryError,
    FetchError,
    OpenError,
    PrepareError,
    quorate_machine::Fatal,
    quorate_machine::ReadFault
);

/// What the shell gives a thread or a task to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thread {
    /// Inputs in, outputs out.
    Consensus,
    /// Records, one write and one sync a batch.
    Wal,
    /// Entries, publications, watches.
    Apply,
    /// Checkpoints and physical compaction.
    Files,
    /// Old entries.
    Fetch,
    /// A snapshot that comes in.
    Receive,
    /// One client's read.
    Read(u64),
}

/// Who waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A client: the operation's place in the history.
    Client(usize),
    /// Whoever changes the membership.
    Operator,
    /// This member itself, telling its name.
    Publication,
}

/// How a request ended at the member that was asked.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// It was applied, or refused by the machine.
    Applied(Box<Applied>),
    /// It did not happen.
    Failed(Failure),
    /// A read.
    Read(Outcome),
}

/// What a step wants from the world.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Run a thread after so many microseconds.
    Run(Thread, u64),
    /// To another member.
    Send(PeerMessage),
    /// To whoever waits.
    Reply(Waiter, Reply),
    /// A record was written.
    Written(Token),
    /// Records up to here are durable.
    Durable(Token),
    /// Something of a snapshot's stream.
    Transfer(MemberId, TransferId, Transferred),
}

/// What a step may look at and note.
pub(crate) struct Scene<'a> {
    /// Microseconds since the world began.
    pub(crate) now: u64,
    pub(crate) random: &'a mut Random,
    pub(crate) truth: &'a mut Truth,
    pub(crate) counts: &'a mut Counts,
    pub(crate) effects: &'a mut Vec<Effect>,
    /// How slow this member's disk is now: one is normal.
    pub(crate) disk_slowness: u64,
}

/// What an apply thread does next.
#[derive(Debug)]
pub(crate) enum ToApply {
    Committed(Vec<Entry>),
    LeasesDue(LeaseTime),
    SendSnapshot(MemberId),
    Install(Box<Incoming>),
}

/// What was applied and is not known to anybody yet.
#[derive(Debug, Default)]
pub(crate) struct Unpublished {
    pub(crate) replies: Vec<(Sequence, Applied)>,
    pub(crate) changes: VecDeque<Vec<Event>>,
    pub(crate) published: bool,
}

/// The sizes that differ from world to world.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    pub(crate) consensus: ConsensusSettings,
    pub(crate) rows: RowSettings,
    pub(crate) wal: WalSettings,
}

/// A running member.
pub(crate) struct Process {
    pub(crate) id: MemberId,
    pub(crate) life: u64,
    pub(crate) incarnation: u64,
    /// The highest feature level that this program knows.
    pub(crate) known: FeatureLevel,
    pub(crate) election_us: u64,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) rows: RowSettings,
    pub(crate) replica: Replica,
    pub(crate) applier: Applier<RowStore>,
    pub(crate) hub: WatchHub,
    pub(crate) wal: Wal,
    pub(crate) wal_reader: WalReader,
    pub(crate) filler: SpareFiller,
    pub(crate) directory: DataDirectory,
    pub(crate) compaction: Compaction,
    /// What readers read at and with: replaced together.
    pub(crate) published: (ReadPoint, RowReader),
    pub(crate) inputs: VecDeque<Input>,
    pub(crate) records: VecDeque<(Record, u64)>,
    /// When the oldest record that is being written was handed over.
    pub(crate) writing_since: Option<u64>,
    pub(crate) purge: Option<LogIndex>,
    pub(crate) stalled: bool,
    pub(crate) to_apply: VecDeque<ToApply>,
    pub(crate) unpublished: Option<Unpublished>,
    pub(crate) logged_bytes: u64,
    pub(crate) job: Option<(CheckpointJob, SnapshotMeta)>,
    pub(crate) finished_job: Option<SnapshotMeta>,
    pub(crate) fetches: VecDeque<Fetch>,
    pub(crate) waiters: BTreeMap<u64, Waiter>,
    pub(crate) waiting_reads: BTreeMap<u64, (Waiter, Request)>,
    pub(crate) tasks: BTreeMap<u64, ReadTask>,
    pub(crate) streams: Streams,
    pub(crate) wanted: Option<(MemberId, SnapshotMeta)>,
    pub(crate) incoming: Option<Incoming>,
    pub(crate) outgoing: BTreeMap<TransferId, Outgoing>,
    pub(crate) next_number: u64,
    awake: BTreeSet<Thread>,
}

impl Process {
    /// Opens the directory and starts what it holds.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        id: MemberId,
        life: u64,
        sizes: &Sizes,
        known: FeatureLevel,
        counts: &mut Counts,
    ) -> Result<(Self, quorate_consensus::Recovered), Stop> {
        let directory = recovery::open(disk.clone(), Path::new(DATA), &Expectations::default())?;
        let opened = RowStore::open(disk.clone(), directory.generation_path(), sizes.rows)?;
        let mut machine = Machine::restore(&opened.machine, opened.store)
            .and_then(|machine| machine.knowing(known))
            .map_err(|error| Stop(error.to_string()))?;
        assert!(
            machine.applied() == opened.at.index.0,
            "INV-S1: the machine stands at {}, its rows at {}",
            machine.applied(),
            opened.at.index
        );
        let compaction = machine.store_mut().compaction();
        let mut applier = Applier::new(id, life, machine, opened.at.term);
        let meta = meta_of(&applier);
        let recovery = recovery::recover(directory, &meta, &sizes.wal)?;
        if recovery.torn_tail.is_some() {
            counts.note(Happening::TornTail);
        }
        let incarnation = recovery.directory.manifest().incarnation;
        let settings = Settings {
            consensus: ConsensusSettings { id, ..sizes.consensus.clone() },
            life,
            strict_reconfig: true,
            learners_max: 2,
            feature_level_known: known,
            request_timeout_ms: super::requests::PATIENCE_US / 1000,
        };
        let recovered = recovery.recovered.clone();
        let replica = Replica::new(settings, recovery.recovered, applier.report());
        let point = applier.machine().read_point();
        let reader = quorate_machine::Store::reader(applier.machine().store());
        let process = Self {
            id,
            life,
            incarnation,
            known,
            election_us: u64::from(sizes.consensus.election_ticks) * super::TICK_US,
            disk,
            rows: sizes.rows,
            replica,
            applier,
            hub: WatchHub::default(),
            wal_reader: recovery.wal.reader(),
            filler: recovery.wal.filler(),
            wal: recovery.wal,
            directory: recovery.directory,
            compaction,
            published: (point, reader),
            inputs: VecDeque::new(),
            records: VecDeque::new(),
            writing_since: None,
            purge: None,
            stalled: false,
            to_apply: VecDeque::new(),
            unpublished: None,
            logged_bytes: 0,
            job: None,
            finished_job: None,
            fetches: VecDeque::new(),
            waiters: BTreeMap::new(),
            waiting_reads: BTreeMap::new(),
            tasks: BTreeMap::new(),
            streams: Streams::default(),
            wanted: None,
            incoming: None,
            outgoing: BTreeMap::new(),
            next_number: 0,
            awake: BTreeSet::new(),
        };
        Ok((process, recovered))
    }

    /// Lets a thread run after a delay, unless it is going to run anyway.
    pub(crate) fn wake(&mut self, thread: Thread, delay: u64, scene: &mut Scene<'_>) {
        if self.awake.insert(thread) {
            scene.effects.push(Effect::Run(thread, delay));
        }
    }

    /// A thread runs.
    pub(crate) fn run(&mut self, thread: Thread, scene: &mut Scene<'_>) -> Result<(), Stop> {
        self.awake.remove(&thread);
        match thread {
            Thread::Consensus => self.run_consensus(scene),
            Thread::Wal => self.run_wal(scene)?,
            Thread::Apply => self.run_apply(scene)?,
            Thread::Files => self.run_files(scene)?,
            Thread::Fetch => self.run_fetch(scene)?,
            Thread::Receive => self.run_receive(scene)?,
            Thread::Read(number) => self.run_read(number, scene)?,
        }
        Ok(())
    }

    /// Something for the consensus thread.
    pub(crate) fn input(&mut self, input: Input, scene: &mut Scene<'_>) {
        self.inputs.push_back(input);
        let delay = scene.random.between(10, 200);
        self.wake(Thread::Consensus, delay, scene);
    }

    /// Something for the apply thread.
    pub(crate) fn apply(&mut self, work: ToApply, scene: &mut Scene<'_>) {
        self.to_apply.push_back(work);
        let delay = scene.random.between(10, 400);
        self.wake(Thread::Apply, delay, scene);
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Proposes a command; the reply comes as an effect.
    pub(crate) fn propose(&mut self, command: Command, waiter: Waiter, scene: &mut Scene<'_>) {
        let sequence = self.number();
        let member = quorate_machine::MemberId(self.id.0);
        let request = RequestId { member, life: self.life, sequence };
        let envelope = Envelope::unstamped(request, command);
        self.waiters.insert(sequence, waiter);
        let proposal = quorate_replica::proposal(Sequence(sequence), &envelope);
        self.input(Input::Propose(proposal), scene);
    }

    /// A linearizable read; `request` is read once the leader has confirmed it.
    pub(crate) fn read(&mut self, request: Request, waiter: Waiter, scene: &mut Scene<'_>) {
        let number = self.number();
        self.waiting_reads.insert(number, (waiter, request));
        self.input(Input::Read(ReadId(number)), scene);
    }

    /// Reads without asking anybody.
    pub(crate) fn read_now(&mut self, request: Request, waiter: Waiter, scene: &mut Scene<'_>) {
        let number = self.number();
        self.begin_read(number, request, waiter, scene);
    }

    /// Whoever waits gave up.
    pub(crate) fn forget(&mut self, waiter: Waiter, scene: &mut Scene<'_>) {
        let requests = self.waiters.iter().filter(|(_, other)| **other == waiter);
        let requests: Vec<u64> = requests.map(|(number, _)| *number).collect();
        for number in requests {
            self.waiters.remove(&number);
            self.input(Input::Forget(Sequence(number)), scene);
        }
        let reads = self.waiting_reads.iter().filter(|(_, (other, _))| *other == waiter);
        let reads: Vec<u64> = reads.map(|(number, _)| *number).collect();
        for number in reads {
            self.waiting_reads.remove(&number);
            self.input(Input::ForgetRead(ReadId(number)), scene);
        }
        self.tasks.retain(|_, task| task.waiter() != waiter);
    }

    /// Everybody who waits here for anything.
    pub(crate) fn waiting(&self) -> Vec<Waiter> {
        let requests = self.waiters.values().copied();
        let reads = self.waiting_reads.values().map(|(waiter, _)| *waiter);
        requests.chain(reads).chain(self.tasks.values().map(ReadTask::waiter)).collect()
    }

    /// Applied index and term.
    pub(crate) fn applied(&self) -> (LogIndex, Term) {
        self.applier.applied()
    }
}

/// What a snapshot of a machine stands for.
pub(crate) fn meta_of(applier: &Applier<RowStore>) -> SnapshotMeta {
    let (index, term) = applier.applied();
    SnapshotMeta { index, term, configuration: applier.configuration() }
}
