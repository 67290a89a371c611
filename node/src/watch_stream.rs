//! One client's watch stream between the apply thread and the adapter: live deliveries, and replays for watches that lag.
//!
//! The apply thread queues deliveries; when a watch falls behind, or asks for history, it raises `lagging` instead. The
//! stream's own task then reads the rows (off both loops, at the client's pace: it replays only once it has handed out what
//! it had) and asks the apply thread to make the watch live again.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use quorate_machine::ReadFault;
use quorate_replica::watch::{
    Delivery, Lagging, Now, Replayed, StreamId, WatchId, WatchSpec, replay,
};
use quorate_storage::rows::{Pin, RowReader};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::apply_loop::ApplySender;

/// Deliveries queued for one stream; beyond it its watches lag.
const QUEUE_MAX: usize = 1024;

/// Places of the queue that only answers to the client's own requests may take.
const ANSWERS_RESERVED: usize = 256;

/// Requests of one client that are not answered; the next waits. Each has at most two answers.
const REQUESTS_MAX: usize = 64;

/// Watches that one replay serves.
const REPLAY_WATCHES_MAX: usize = 64;

/// Revisions of one replay (etcd: watchBatchMaxRevs) and bytes of their pairs.
const REPLAY_REVISIONS_MAX: usize = 1000;
const REPLAY_BYTES_MAX: usize = 4 << 20;

/// What the apply thread may be asked about watches.
pub enum WatchRequest {
    /// A client connected.
    Open(StreamId, StreamQueue),
    /// Make a watch.
    Create(StreamId, WatchId, WatchSpec, OwnedSemaphorePermit),
    /// End a watch.
    Cancel(StreamId, WatchId, OwnedSemaphorePermit),
    /// How far is the whole stream?
    Progress(StreamId),
    /// Which watches must replay?
    Lagging(StreamId, usize, oneshot::Sender<ReplayPlan>),
    /// These have been told everything below a revision. Answers whether any of them still lags.
    Resume(StreamId, Vec<WatchId>, i64, oneshot::Sender<bool>),
    /// The client is gone.
    Close(StreamId),
}

/// What a replay needs to know.
pub struct ReplayPlan {
    /// Which watches, from where.
    pub lagging: Vec<Lagging>,
    /// The store as of now: rows up to here are complete.
    pub now: Now,
    /// Reads them.
    pub reader: RowReader,
    /// Keeps the rows and the pairs before the changes.
    pub pin: Pin,
}

/// The apply thread's end of a stream.
#[derive(Clone, Debug)]
pub struct StreamQueue {
    deliveries: mpsc::Sender<Delivery>,
    lagging: Arc<Lag>,
}

/// Raised when a watch of the stream must replay.
#[derive(Debug, Default)]
struct Lag {
    raised: AtomicBool,
    changed: Notify,
}

impl StreamQueue {
    /// Queues a delivery unless only places for answers are left.
    pub fn offer(&self, delivery: Delivery) -> bool {
        self.deliveries.capacity() > ANSWERS_RESERVED && self.deliveries.try_send(delivery).is_ok()
    }

    /// Queues an answer. There is room: requests are bounded. It fails only when the client is gone.
    pub fn answer(&self, delivery: Delivery) {
        self.deliveries.try_send(delivery).ok();
    }

    /// A watch must replay.
    pub fn lags(&self) {
        self.lagging.raised.store(true, Ordering::Release);
        self.lagging.changed.notify_one();
    }
}

/// The asking half of a watch stream.
#[derive(Clone)]
pub struct WatchAsker {
    stream: StreamId,
    apply: ApplySender,
    requests: Arc<Semaphore>,
}

/// The hearing half of a watch stream: deliveries in the order in which the client is to see them.
pub struct WatchStream {
    stream: StreamId,
    apply: ApplySender,
    deliveries: mpsc::Receiver<Delivery>,
    lagging: Arc<Lag>,
    /// Replayed and not yet handed out.
    replayed: VecDeque<Delivery>,
    /// What to resume once `replayed` is handed out.
    resume: Option<(Vec<WatchId>, i64)>,
}

/// Opens a stream.
#[must_use]
pub fn open(stream: StreamId, apply: &ApplySender) -> (WatchAsker, WatchStream) {
    let (queue, deliveries) = mpsc::channel(QUEUE_MAX);
    let lagging = Arc::new(Lag::default());
    apply.watch(WatchRequest::Open(
        stream,
        StreamQueue { deliveries: queue, lagging: lagging.clone() },
    ));
    let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
    (
        WatchAsker { stream, apply: apply.clone(), requests },
        WatchStream {
            stream,
            apply: apply.clone(),
            deliveries,
            lagging,
            replayed: VecDeque::new(),
            resume: None,
        },
    )
}

impl WatchAsker {
    /// Asks for a watch with an id that the adapter chose. The answer comes as a delivery.
    pub async fn create(&self, watch: WatchId, spec: WatchSpec) {
        let permit = self.permit().await;
        self.apply.watch(WatchRequest::Create(self.stream, watch, spec, permit));
    }

    /// Ends a watch. The answer comes as a delivery; an unknown id gets none.
    pub async fn cancel(&self, watch: WatchId) {
        let permit = self.permit().await;
        self.apply.watch(WatchRequest::Cancel(self.stream, watch, permit));
    }

    /// Asks for progress of the whole stream: answered only when every watch of it is live.
    pub fn progress(&self) {
        self.apply.watch(WatchRequest::Progress(self.stream));
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        self.requests.clone().acquire_owned().await.expect("the semaphore is never closed")
    }
}

impl WatchStream {
    /// The next delivery; none when the member stops.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.replayed.pop_front() {
                return Some(delivery);
            }
            if let Some((watches, next)) = self.resume.take() {
                self.resume(watches, next).await?;
            }
            match self.deliveries.try_recv() {
                Ok(delivery) => return Some(delivery),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) => {}
            }
            if self.lagging.raised.swap(false, Ordering::AcqRel) {
                self.replay().await?;
                continue;
            }
            tokio::select! {
                delivery = self.deliveries.recv() => return delivery,
                () = self.lagging.changed.notified() => {}
            }
        }
    }

    async fn resume(&mut self, watches: Vec<WatchId>, next: i64) -> Option<()> {
        let (answer, still_lagging) = oneshot::channel();
        self.apply.watch(WatchRequest::Resume(self.stream, watches, next, answer));
        if still_lagging.await.ok()? {
            self.lagging.raised.store(true, Ordering::Release);
        }
        Some(())
    }

    /// Reads what the lagging watches missed.
    async fn replay(&mut self) -> Option<()> {
        let (answer, plan) = oneshot::channel();
        self.apply.watch(WatchRequest::Lagging(self.stream, REPLAY_WATCHES_MAX, answer));
        let plan = plan.await.ok()?;
        if plan.lagging.is_empty() {
            return Some(());
        }
        let watches = plan.lagging.iter().map(|lagging| lagging.watch).collect();
        match tokio::task::spawn_blocking(move || read(&plan)).await.ok()? {
            Ok(Some(replayed)) => {
                self.replayed.extend(replayed.deliveries);
                self.resume = Some((watches, replayed.next));
                Some(())
            }
            Ok(None) => {
                self.lagging.raised.store(true, Ordering::Release);
                Some(())
            }
            Err(fault) => {
                self.apply.fault(fault);
                None
            }
        }
    }
}

/// None when compaction could no longer be held back and what was read may lack pairs: the next plan knows what is gone.
fn read(plan: &ReplayPlan) -> Result<Option<Replayed>, ReadFault> {
    let replayed = replay(
        &plan.reader,
        &plan.lagging,
        plan.now.revision,
        plan.now.compacted,
        REPLAY_REVISIONS_MAX,
        REPLAY_BYTES_MAX,
    )?;
    Ok(plan.pin.is_held().then_some(replayed))
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.apply.watch(WatchRequest::Close(self.stream));
    }
}
