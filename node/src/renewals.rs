//! Lease renewals: gathered while one entry is on its way, sent together as the next.

use quorate_machine::{Command, LeaseId, Outcome};
use tokio::sync::{mpsc, oneshot};

use crate::handle::{Caller, Handle, ProposeError};

/// Renewals of one entry; more wait for the next.
const BATCH_MAX: usize = 4096;

/// One client's renewal.
#[derive(Debug)]
pub struct Renewal {
    /// Which lease.
    pub lease: LeaseId,
    /// The new TTL in seconds; 0 if the lease is unknown.
    pub answer: oneshot::Sender<Result<i64, ProposeError>>,
}

/// Runs until the queue's other ends are dropped.
pub async fn run(handle: Handle, mut queue: mpsc::Receiver<Renewal>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut ids: Vec<LeaseId> = batch.iter().map(|renewal| renewal.lease).collect();
        ids.sort_unstable();
        ids.dedup();
        let reply = handle.propose(Command::LeaseRenew { ids }, Caller::default()).await;
        let ttls = reply.map(|applied| match applied.result {
            Ok(Outcome::LeaseRenew(ttls)) => ttls,
            Ok(_) | Err(_) => Vec::new(),
        });
        for renewal in batch.drain(..) {
            let ttl = ttls.as_ref().map_err(|error| *error).map(|ttls| {
                let at = ttls.binary_search_by_key(&renewal.lease, |(lease, _)| *lease);
                at.map_or(0, |at| ttls[at].1)
            });
            // The client may be gone.
            renewal.answer.send(ttl).ok();
        }
    }
}
