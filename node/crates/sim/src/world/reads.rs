//! Clients' reads: as a whole, or in chunks with everything else going on in between.

use quorate_machine::{
    EncodedKeyValue, RangeCursor, RangeError, RangeOutcome, ReadPoint, read_txn,
};
use quorate_storage::rows::{Pin, RowReader};

use super::{
    happenings::Happening,
    process::{Effect, Process, Reply, Scene, Stop, Thread, Waiter},
    translate,
};
use crate::judge::{Outcome, Refusal, Request};

/// A read under way.
pub(crate) struct ReadTask {
    waiter: Waiter,
    request: Request,
    chunks: Option<Chunks>,
}

/// A range that is read chunk by chunk at a pinned revision.
struct Chunks {
    cursor: RangeCursor,
    reader: RowReader,
    pin: Pin,
    point: ReadPoint,
    kvs: Vec<EncodedKeyValue>,
}

impl ReadTask {
    pub(crate) fn waiter(&self) -> Waiter {
        self.waiter
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.chunks.is_some()
    }
}

impl Process {
    /// A read may be served.
    pub(crate) fn begin_read(
        &mut self,
        number: u64,
        request: Request,
        waiter: Waiter,
        scene: &mut Scene<'_>,
    ) {
        self.tasks.insert(number, ReadTask { waiter, request, chunks: None });
        let delay = scene.random.between(5, 500);
        self.wake(Thread::Read(number), delay, scene);
    }

    /// One step of a read.
    pub(crate) fn run_read(&mut self, number: u64, scene: &mut Scene<'_>) -> Result<(), Stop> {
        // The asker may have given up.
        let Some(mut task) = self.tasks.remove(&number) else { return Ok(()) };
        let outcome = match &mut task.chunks {
            Some(chunks) => chunks.next()?,
            None => self.first_step(&mut task, scene)?,
        };
        match outcome {
            Some(outcome) => {
                scene.effects.push(Effect::Reply(task.waiter, Reply::Read(outcome)));
            }
            None => {
                self.tasks.insert(number, task);
                let delay = scene.random.between(50, 6000);
                self.wake(Thread::Read(number), delay, scene);
            }
        }
        Ok(())
    }

    /// Reads the whole, or begins to read in chunks.
    fn first_step(
        &self,
        task: &mut ReadTask,
        scene: &mut Scene<'_>,
    ) -> Result<Option<Outcome>, Stop> {
        let (point, reader) = self.published.clone();
        let range = match &task.request {
            Request::Range(range) => translate::range(range),
            Request::Txn(txn) => {
                let txn = translate::txn(txn);
                let outcome = refused(read_txn(&reader, &txn, point))?;
                return Ok(Some(outcome.map_or_else(Outcome::Refused, |outcome| {
                    let response = translate::txn_response(&outcome);
                    Outcome::Answered { revision: outcome.revision, response }
                })));
            }
            other @ (Request::Put(_)
            | Request::Delete(_)
            | Request::Compact(_)
            | Request::Grant { .. }
            | Request::Revoke(_)
            | Request::Renew(_)) => panic!("no read: {other:?}"),
        };
        let at = match point.resolve(range.revision) {
            Ok(at) => at,
            Err(rejected) => return Ok(Some(Outcome::Refused(translate::refusal(rejected)))),
        };
        // A compaction may have been applied that is not published yet: the pin knows.
        let Ok(pin) = reader.pin(at.main, scene.now / 1000) else {
            return Ok(Some(Outcome::Refused(Refusal::Compacted)));
        };
        if range.is_streamable() && !range.count_only && scene.random.chance(500) {
            let cursor = RangeCursor::new(&range, point).expect("its revision was resolved");
            task.chunks = Some(Chunks { cursor, reader, pin, point, kvs: Vec::new() });
            scene.counts.note(Happening::ChunkedRead);
            return Ok(None);
        }
        let outcome = refused(quorate_machine::range(&reader, &range, point))?;
        Ok(Some(outcome.map_or_else(Outcome::Refused, |outcome| answered(&outcome))))
    }
}

impl Chunks {
    fn next(&mut self) -> Result<Option<Outcome>, Stop> {
        let chunk = self.cursor.next(&self.reader, 2)?;
        if !self.pin.is_held() {
            return Ok(Some(Outcome::Failed));
        }
        self.kvs.extend(chunk.kvs);
        Ok(chunk.end.map(|end| {
            answered(&RangeOutcome {
                kvs: std::mem::take(&mut self.kvs),
                more: end.more,
                count: end.count,
                revision: self.point.revision,
            })
        }))
    }
}

fn answered(outcome: &RangeOutcome) -> Outcome {
    Outcome::Answered { revision: outcome.revision, response: translate::range_response(outcome) }
}

/// Separates refusals, which are answers, from failed reads, which end the process.
fn refused<T>(result: Result<T, RangeError>) -> Result<Result<T, Refusal>, Stop> {
    match result {
        Ok(outcome) => Ok(Ok(outcome)),
        Err(RangeError::Rejected(rejected)) => Ok(Err(translate::refusal(rejected))),
        Err(RangeError::Fault(fault)) => Err(fault.into()),
    }
}
