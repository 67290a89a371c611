//! The service `etcdserverpb.KV`: ranges on the caller's task, writes through the log.

use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use quorate_machine::{
    Applied, Command, Outcome, Range, RangeCursor, RangeError, RangeOutcome, range, read_txn,
};
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
};
use tonic::Status;

use super::{
    Api, convert,
    read::PinnedReader,
    status::{self, EtcdError},
    validate,
    wire::{DeleteRangeReply, PutReply, RangeReply, RangeStreamReply, TxnReply},
};

/// Keys that a unary range reads before it lets other tasks run, and bytes likewise.
const READ_SLICE_KEYS: usize = 1000;
const READ_SLICE_BYTES: usize = 1 << 20;

/// Keys of the first chunk of a streamed range (`v3_server.go`, initialStreamChunkLimit).
const FIRST_CHUNK_KEYS: usize = 10;

impl Api {
    /// Range.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn range(self, request: RangeRequest) -> Result<RangeReply, Status> {
        if !request.serializable && self.handle().leadership().is_learner {
            return Err(EtcdError::NotSupportedForLearner.into());
        }
        validate::range(&request)?;
        self.barrier(request.serializable).await?;
        let request = convert::range(request);
        let reader = self.read_at(request.revision)?;
        let outcome = if request.is_streamable() && !request.count_only {
            read_in_slices(&reader, cursor(&request, &reader)?).await?
        } else {
            reader.vouch(range(&reader.rows, &request, reader.point))?
        };
        Ok(RangeReply { header: Some(self.header(outcome.revision)), outcome })
    }

    /// RangeStream: chunks whose size approaches `--max-request-bytes`; the last one says what a range says.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn range_stream(
        self,
        request: RangeRequest,
    ) -> Result<BoxStream<'static, Result<RangeStreamReply, Status>>, Status> {
        validate::range_stream(&request)?;
        self.barrier(request.serializable).await?;
        let request = convert::range(request);
        let reader = self.read_at(request.revision)?;
        // A field without a direction passes, as in etcd, which sorts each chunk by it. Sorted as a whole it goes in one.
        if request.count_only || !request.is_streamable() {
            let outcome = reader.vouch(range(&reader.rows, &request, reader.point))?;
            let header = Some(self.header(outcome.revision));
            let only = RangeStreamReply(RangeReply { header, outcome });
            return Ok(stream::once(async { Ok(only) }).boxed());
        }
        let cursor = cursor(&request, &reader)?;
        let chunks = Chunks { api: self, reader, cursor, keys: FIRST_CHUNK_KEYS };
        Ok(stream::unfold(Some(chunks), Chunks::next).boxed())
    }

    /// Put.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn put(self, request: PutRequest) -> Result<PutReply, Status> {
        validate::put(&request)?;
        self.admit_size(request.encoded_len())?;
        self.admit_space(convert::put_cost(&request)).await?;
        let applied = self.propose(Command::Put(convert::put(request))).await?;
        let header = self.header(applied.revision);
        match accepted(applied)? {
            Outcome::Put(outcome) => Ok(PutReply { header, outcome }),
            other => Err(unexpected(&other)),
        }
    }

    /// DeleteRange.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn delete_range(
        self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeReply, Status> {
        validate::delete_range(&request)?;
        self.admit_size(request.encoded_len())?;
        let applied = self.propose(Command::DeleteRange(convert::delete_range(request))).await?;
        let header = self.header(applied.revision);
        match accepted(applied)? {
            Outcome::DeleteRange(outcome) => Ok(DeleteRangeReply { header, outcome }),
            other => Err(unexpected(&other)),
        }
    }

    /// Txn. One that only reads takes no entry of the log.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn txn(self, request: TxnRequest) -> Result<TxnReply, Status> {
        validate::txn(&request, self.options().max_txn_ops)?;
        let size = request.encoded_len();
        let cost = convert::txn_cost(&request);
        let serializable = convert::is_serializable(&request);
        let txn = convert::txn(request)?;
        if txn.is_read_only() {
            self.barrier(serializable).await?;
            // Its ranges may name older revisions.
            let reader = self.read_history()?;
            let outcome = reader.vouch(read_txn(&reader.rows, &txn, reader.point))?;
            return Ok(TxnReply { header: self.header(outcome.revision), outcome });
        }
        self.admit_size(size)?;
        // A transaction that puts nothing may run when the space is used up: it may free some.
        if cost > 0 {
            self.admit_space(cost).await?;
        }
        let applied = self.propose(Command::Txn(txn)).await?;
        let header = self.header(applied.revision);
        match accepted(applied)? {
            Outcome::Txn(outcome) => Ok(TxnReply { header, outcome }),
            other => Err(unexpected(&other)),
        }
    }

    /// Compact. `physical` asks to wait for the space; here history is gone for every reader at once, and when its bytes
    /// go is nobody's business (design §3 compaction).
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn compact(self, request: CompactionRequest) -> Result<CompactionResponse, Status> {
        let applied = self.propose(Command::Compact { revision: request.revision }).await?;
        let header = self.header(applied.revision);
        accepted(applied)?;
        Ok(CompactionResponse { header: Some(header) })
    }
}

/// Reads a whole range and lets other tasks run in between.
async fn read_in_slices(
    reader: &PinnedReader,
    mut cursor: RangeCursor,
) -> Result<RangeOutcome, Status> {
    let mut kvs = Vec::new();
    loop {
        let chunk = cursor.next_within(&reader.rows, READ_SLICE_KEYS, READ_SLICE_BYTES);
        let mut chunk = reader.vouch(chunk.map_err(RangeError::Fault))?;
        kvs.append(&mut chunk.kvs);
        if let Some(end) = chunk.end {
            let revision = reader.point.revision;
            return Ok(RangeOutcome { kvs, more: end.more, count: end.count, revision });
        }
        tokio::task::yield_now().await;
    }
}

fn cursor(request: &Range, reader: &PinnedReader) -> Result<RangeCursor, EtcdError> {
    Ok(RangeCursor::new(request, reader.point)?)
}

/// A streamed range on its way.
struct Chunks {
    api: Api,
    reader: PinnedReader,
    cursor: RangeCursor,
    /// Keys of the next chunk.
    keys: usize,
}

impl Chunks {
    /// The next chunk and what is left; called only when the client took the one before.
    async fn next(this: Option<Self>) -> Option<(Result<RangeStreamReply, Status>, Option<Self>)> {
        let mut this = this?;
        // Twice the target bounds the memory of a chunk of few large pairs.
        let target = this.api.options().max_request_bytes;
        let chunk = this.cursor.next_within(&this.reader.rows, this.keys, target.saturating_mul(2));
        let chunk = match this.reader.vouch(chunk.map_err(RangeError::Fault)) {
            Ok(chunk) => chunk,
            Err(status) => return Some((Err(status), None)),
        };
        let bytes = chunk.kvs.iter().map(|kv| kv.0.len()).sum();
        this.keys = next_chunk_keys(this.keys, bytes, target);
        let mut reply = RangeReply {
            header: None,
            outcome: RangeOutcome { kvs: chunk.kvs, ..RangeOutcome::default() },
        };
        let rest = match chunk.end {
            None => Some(this),
            Some(end) => {
                reply.header = Some(this.api.header(this.reader.point.revision));
                reply.outcome.more = end.more;
                reply.outcome.count = end.count;
                None
            }
        };
        Some((Ok(RangeStreamReply(reply)), rest))
    }
}

/// The number of keys of the chunk after one of so many keys and bytes: doubled below half of the target, halved above
/// twice of it, so that sizes near the target do not swing (`v3_server.go`, adjustChunkLimit).
fn next_chunk_keys(keys: usize, bytes: usize, target: usize) -> usize {
    if bytes < target / 2 {
        keys.saturating_mul(2)
    } else if bytes > target.saturating_mul(2) {
        (keys / 2).max(1)
    } else {
        keys
    }
}

/// The outcome of what was applied, or the refusal that is the same on every member.
pub(super) fn accepted(applied: Applied) -> Result<Outcome, Status> {
    applied.result.map_err(status::rejected)
}

/// An outcome of another kind than the command: a bug that must not pass for a result.
pub(super) fn unexpected(outcome: &Outcome) -> Status {
    tracing::error!(?outcome, "the machine answered another kind of command");
    Status::internal("the machine answered another kind of command; this is a bug in the server")
}

impl Api {
    /// Refuses what would not fit an entry.
    pub(super) fn admit_size(&self, bytes: usize) -> Result<(), Status> {
        if bytes > self.options().max_request_bytes {
            return Err(EtcdError::RequestTooLarge.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_and_shrink_towards_the_target() {
        const TARGET: usize = 1000;
        for (keys, bytes, expected) in [
            (10, 0, 20),
            (10, 499, 20),
            (10, 500, 10),
            (10, 2000, 10),
            (10, 2001, 5),
            (1, 5000, 1),
            (0, 5000, 1),
        ] {
            assert_eq!(
                next_chunk_keys(keys, bytes, TARGET),
                expected,
                "{keys} keys of {bytes} bytes"
            );
        }
    }
}
