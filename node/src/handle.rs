//! What the adapters may ask of this member: propose, read, watch, look.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use quorate_machine::{
    Alarm, Applied, ClusterId, Command, CompactionHash, CompactionHashes, Envelope, FeatureLevel,
    KeyValueHash, LeaseId, LeaseTime, LeaseView, Member, MemberId, RangeError, ReadFault,
    ReadPoint, Rejected, RequestId, Store, hash_all, hash_kv,
};
use quorate_replica::{Applier, ChangeRefusal, Input, ReadId, Sequence, watch::StreamId};
use quorate_storage::rows::{PinRefused, RowReader, RowStore};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    apply_loop::{ApplyInput, ApplySender, StoreMachine},
    peers::Identity,
    pending::Pending,
    renewals::Renewal,
};

pub use crate::watch_stream::{WatchAsker, WatchStream};

/// On whose behalf a command is proposed. Empty and 0 while authentication is off.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The user.
    pub user: bytes::Bytes,
    /// The auth store's revision that the user was checked against.
    pub auth_revision: u64,
}

/// Why a proposal has no result. Whether it may still happen is in the variant's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No answer in time; it may have happened.
    #[error("no result within the request timeout; the change may or may not have happened")]
    Timeout,
    /// No answer in time and the leader changed meanwhile; it may have happened.
    #[error(
        "no result within the request timeout, and the leader changed; the change may or may not have happened"
    )]
    TimeoutLeaderLost,
    /// There is no leader and the caller asked not to wait for one; it did not happen.
    #[error("no leader; the change did not happen")]
    NoLeader,
    /// Too much is committed and not applied; it did not happen.
    #[error("apply is too far behind; the change did not happen")]
    TooManyRequests,
    /// A rule of membership forbids it now; it did not happen.
    #[error("a rule of membership forbids the change now ({0:?}); it did not happen")]
    Change(ChangeRefusal),
    /// Not all members know this kind of change yet; it did not happen.
    #[error(
        "the cluster has not reached the feature level that the change needs; it did not happen: upgrade every member"
    )]
    FeatureLevel,
    /// The member is shutting down; it did not happen.
    #[error("this member is stopping; the change did not happen")]
    Stopping,
}

/// What a request ends with.
pub type Reply = Result<Applied, ProposeError>;

/// Why a linearizable read cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed the read in time.
    #[error("no leader confirmed the read within the request timeout")]
    Timeout,
    /// There is no leader and the caller asked not to wait for one.
    #[error("no leader")]
    NoLeader,
    /// The member is shutting down.
    #[error("this member is stopping")]
    Stopping,
}

/// Why there is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// As a range at that revision would be.
    #[error("the revision cannot be read: {0:?}")]
    Rejected(Rejected),
    /// Nothing more can be pinned now.
    #[error("too many readers hold old revisions; try again when some have finished")]
    TooManyReaders,
}

/// What apply has published: consistent with each other, replaced as a whole after each batch.
#[derive(Clone)]
pub struct Published {
    /// The store's revision and what of its history is gone: where readers read.
    pub point: ReadPoint,
    /// Reads the rows that `point` is of.
    pub rows: RowReader,
    /// What those rows hashed to before each of the last compactions. It may be ahead of `point`, never behind.
    pub hashes: Arc<Mutex<CompactionHashes>>,
    /// The last applied log index.
    pub applied_index: u64,
    /// Members in order of id; changes rarely, so it is shared.
    pub members: Arc<Vec<Member>>,
    /// Alarms that are on.
    pub alarms: Vec<(MemberId, Alarm)>,
    /// The cluster's feature level.
    pub feature_level: FeatureLevel,
    /// How many rows of the next feature level there are, in a build that knows it.
    pub next_level_rows: Option<u64>,
}

impl Published {
    /// What the data side stands at.
    #[must_use]
    pub fn of(applier: &Applier<RowStore>, hashes: Arc<Mutex<CompactionHashes>>) -> Self {
        let machine = applier.machine();
        let (index, _) = applier.applied();
        Self {
            point: machine.read_point(),
            rows: machine.store().reader(),
            hashes,
            applied_index: index.0,
            members: applier.members(),
            alarms: machine.state().alarms().collect(),
            feature_level: machine.feature_level(),
            next_level_rows: machine.state().next().rows(),
        }
    }
}

/// What consensus has published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader; 0 if none is known.
    pub leader: MemberId,
    /// Whether that is this member.
    pub is_leader: bool,
    /// The current term.
    pub term: u64,
    /// The commit index.
    pub commit_index: u64,
    /// How often the leader changed since this process started.
    pub changes: u64,
    /// Whether this member is a learner.
    pub is_learner: bool,
    /// The lease clock: the leader's own, or the last that it told.
    pub clock: LeaseTime,
}

/// Sizes for Status and metrics, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// What the rows, index checkpoint and manifest take on disk.
    pub total: u64,
    /// What of it is live.
    pub in_use: u64,
    /// The quota; 0 when there is none.
    pub quota: u64,
}

/// What the door needs; made by run.rs.
pub struct Inner {
    /// Who this member is.
    pub identity: Arc<Identity>,
    /// This process's life: part of every request id.
    pub life: u64,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// To consensus.
    pub inputs: mpsc::Sender<Input>,
    /// To the apply thread.
    pub apply: ApplySender,
    /// Requests that wait.
    pub requests: Arc<Pending<Reply>>,
    /// Reads that wait.
    pub reads: Arc<Pending<()>>,
    /// What apply has published.
    pub published: Arc<ArcSwap<Published>>,
    /// What consensus has published.
    pub leadership: watch::Receiver<Leadership>,
    /// `--quota-backend-bytes`; 0 when there is none.
    pub quota: u64,
    /// Where renewals are gathered.
    pub renewals: mpsc::Sender<Renewal>,
    /// Numbers watch streams.
    pub next_stream: AtomicU64,
}

/// The one door from adapters to the member. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

impl Handle {
    /// A door over these.
    #[must_use]
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Proposes a command and waits for its result, at most the request timeout of the configuration.
    /// A membership command goes in a configuration change. `Applied::result` may be a deterministic refusal.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Command, caller: Caller) -> Reply {
        let inner = &self.0;
        let term = inner.leadership.borrow().term;
        let (sequence, waiter) = inner.requests.wait();
        let forget = Input::Forget(Sequence(sequence));
        let asked = Asked::new(&inner.requests, sequence, &inner.inputs, forget);
        let request = RequestId { member: inner.identity.member_id(), life: inner.life, sequence };
        let Caller { user, auth_revision } = caller;
        let envelope = Envelope { user, auth_revision, ..Envelope::unstamped(request, command) };
        let proposal = quorate_replica::proposal(Sequence(sequence), &envelope);
        let answered = async {
            inner
                .inputs
                .send(Input::Propose(proposal))
                .await
                .map_err(|_| ProposeError::Stopping)?;
            waiter.await.map_err(|_| ProposeError::Stopping)?
        };
        let Ok(reply) = tokio::time::timeout(inner.request_timeout, answered).await else {
            let leader_lost = inner.leadership.borrow().term != term;
            return Err(if leader_lost {
                ProposeError::TimeoutLeaderLost
            } else {
                ProposeError::Timeout
            });
        };
        asked.answered();
        reply
    }

    /// Renews a lease; many callers' renewals share one entry. The new TTL in seconds, 0 if the lease is unknown.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn renew_lease(&self, lease: LeaseId) -> Result<i64, ProposeError> {
        let (answer, waiter) = oneshot::channel();
        let renewal = Renewal { lease, answer };
        self.0.renewals.send(renewal).await.map_err(|_| ProposeError::Stopping)?;
        waiter.await.map_err(|_| ProposeError::Stopping)?
    }

    /// Waits until this member has applied everything that was committed when the call began (thesis §6.4).
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn linearizable(&self) -> Result<(), ReadError> {
        let inner = &self.0;
        let (read, waiter) = inner.reads.wait();
        let forget = Input::ForgetRead(ReadId(read));
        let asked = Asked::new(&inner.reads, read, &inner.inputs, forget);
        let answered = async {
            inner.inputs.send(Input::Read(ReadId(read))).await.map_err(|_| ReadError::Stopping)?;
            waiter.await.map_err(|_| ReadError::Stopping)
        };
        let Ok(answer) = tokio::time::timeout(inner.request_timeout, answered).await else {
            return Err(ReadError::Timeout);
        };
        asked.answered();
        answer
    }

    /// What apply has published last. Read at its `point` with its `rows`.
    #[must_use]
    pub fn published(&self) -> Arc<Published> {
        self.0.published.load_full()
    }

    /// What consensus has published last.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        *self.0.leadership.borrow()
    }

    /// Reads the rows that are in force now.
    #[must_use]
    pub fn reader(&self) -> RowReader {
        self.0.published.load().rows.clone()
    }

    /// A lease with its remaining seconds and (if wanted) its keys; none if unknown.
    pub async fn lease(&self, id: LeaseId, keys: bool) -> Option<(LeaseView, i64, Vec<Bytes>)> {
        // Apply knows the time of the last entry; the leader has gone on since and tells it with its heartbeats.
        let told = self.leadership().clock;
        self.inspect(move |machine| {
            let leases = machine.leases();
            let view = leases.get(id)?;
            let remaining_ms = view.deadline.0.saturating_sub(machine.clock().max(told).0);
            let remaining = i64::try_from(remaining_ms / 1000).unwrap_or(i64::MAX);
            let keys = if keys { leases.keys(id).cloned().collect() } else { Vec::new() };
            Some((view, remaining, keys))
        })
        .await
        .flatten()
    }

    /// All lease ids, in order.
    pub async fn leases(&self) -> Vec<LeaseId> {
        self.inspect(|machine| machine.leases().iter().map(|lease| lease.id).collect())
            .await
            .unwrap_or_default()
    }

    /// Looks at the machine between two slices of apply; none when the member stops.
    pub async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&StoreMachine) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, seen) = oneshot::channel();
        self.0.apply.send(ApplyInput::Inspect(Box::new(move |machine| {
            // The asker may be gone.
            answer.send(look(machine)).ok();
        })));
        seen.await.ok()
    }

    /// Hands leadership to a member (0: to the best voter) and waits until somebody else leads.
    ///
    /// # Errors
    /// [`ProposeError::Timeout`] when nobody took it in time.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), ProposeError> {
        let inner = &self.0;
        let mut leadership = inner.leadership.clone();
        let moved = async {
            inner
                .inputs
                .send(Input::TransferLeader(quorate_consensus::MemberId(to.0)))
                .await
                .map_err(|_| ProposeError::Stopping)?;
            let own = inner.identity.member_id();
            leadership
                .wait_for(|now| {
                    now.leader != own && now.leader.0 != 0 && (to.0 == 0 || now.leader == to)
                })
                .await
                .map_err(|_| ProposeError::Stopping)?;
            Ok(())
        };
        tokio::time::timeout(inner.request_timeout, moved)
            .await
            .unwrap_or(Err(ProposeError::Timeout))
    }

    /// This member takes part no more: whoever waits for its log is told that it stops. What they asked for may have happened.
    pub fn end_waiting(&self) {
        self.0.requests.end();
        self.0.reads.end();
    }

    /// HashKV at a revision (0 = now), off the async threads, with history pinned meanwhile. At the revision of one of the
    /// last compactions it is what it was before it.
    ///
    /// # Errors
    /// See [`HashError`]. A failed read stops the process.
    pub async fn hash_kv(&self, revision: i64) -> Result<KeyValueHash, HashError> {
        let (reader, point, pin) = loop {
            // The point comes first: the hash of a compaction that it knows of is at least due.
            let published = self.published();
            let known = published.hashes.lock().find(revision);
            let point = match known {
                Some(CompactionHash::Taken(hash)) => return Ok(hash),
                Some(CompactionHash::Due { previous }) => {
                    ReadPoint { compacted: previous, ..published.point }
                }
                None => published.point,
            };
            match published.rows.pin(point.compacted.max(0), crate::clock::now_ms()) {
                Ok(pin) => break (published.rows.clone(), point, pin),
                // Compaction overtook the look: the hash was taken meanwhile, or now is another now.
                Err(PinRefused::Compacted(_)) => tokio::task::yield_now().await,
                Err(PinRefused::TooMany) => return Err(HashError::TooManyReaders),
            }
        };
        let hashed = tokio::task::spawn_blocking(move || {
            let hashed = hash_kv(&reader, revision, point, crc32c::crc32c_append);
            // Without the pin some of the rows may have gone under way.
            if pin.is_held() { hashed } else { Err(Rejected::Compacted.into()) }
        });
        match hashed.await.expect("hashing does not panic") {
            Ok(hash) => Ok(hash),
            Err(RangeError::Rejected(rejected)) => Err(HashError::Rejected(rejected)),
            Err(RangeError::Fault(fault)) => {
                self.fault(fault);
                Err(HashError::Rejected(Rejected::Corrupt))
            }
        }
    }

    /// A hash of everything, taken between two slices of apply.
    pub async fn hash(&self) -> u32 {
        let hashed = self
            .inspect(|machine| hash_all(machine.store(), machine.state(), crc32c::crc32c_append))
            .await;
        match hashed {
            Some(Ok(hash)) => hash,
            Some(Err(RangeError::Fault(fault))) => {
                self.fault(fault);
                0
            }
            Some(Err(RangeError::Rejected(_))) | None => 0,
        }
    }

    /// Opens a watch stream. `WatchStream` yields deliveries, `WatchAsker` asks.
    #[must_use]
    pub fn watch(&self) -> (WatchAsker, WatchStream) {
        let stream = StreamId(self.0.next_stream.fetch_add(1, Ordering::Relaxed));
        crate::watch_stream::open(stream, &self.0.apply)
    }

    /// Tells the apply thread that a row could not be read: the process stops.
    pub fn fault(&self, fault: ReadFault) {
        self.0.apply.fault(fault);
    }

    /// Bytes on disk, for Status, quota and metrics.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let sizes = self.0.published.load().rows.sizes();
        Sizes { total: sizes.rows_bytes, in_use: sizes.rows_live_bytes, quota: self.0.quota }
    }

    /// This member's id.
    #[must_use]
    pub fn member_id(&self) -> MemberId {
        self.0.identity.member_id()
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.0.identity.cluster
    }
}

/// A caller that waits for an answer. One that goes away without it, because its patience, its own deadline or its connection
/// ended, is forgotten everywhere, so that nothing is done for it later.
struct Asked<'a, T> {
    waiters: &'a Pending<T>,
    number: u64,
    inputs: &'a mpsc::Sender<Input>,
    /// What consensus is told; none once there is an answer.
    forget: Option<Input>,
}

impl<'a, T> Asked<'a, T> {
    fn new(
        waiters: &'a Pending<T>,
        number: u64,
        inputs: &'a mpsc::Sender<Input>,
        forget: Input,
    ) -> Self {
        Self { waiters, number, inputs, forget: Some(forget) }
    }

    fn answered(mut self) {
        self.forget = None;
    }
}

impl<T> Drop for Asked<'_, T> {
    fn drop(&mut self) {
        if let Some(forget) = self.forget.take() {
            self.waiters.forget(self.number);
            // No room: what waits for a leader is dropped at its deadline, and a read changes nothing.
            self.inputs.try_send(forget).ok();
        }
    }
}
