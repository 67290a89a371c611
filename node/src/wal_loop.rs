//! The WAL thread: records in, one write and one sync a batch, tokens out.
//!
//! While a sync runs, records queue up and share the next one: that is the whole of group commit. A failed write or sync
//! stops the process (INV-S3).

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::Instant,
};

use quorate_consensus::{Entry, Fetch, LogIndex, Record};
use quorate_replica::Input;
use quorate_storage::wal::{Wal, WalError, WalReader};
use tokio::sync::mpsc;

use crate::{
    fatal::{Fatal, Verdict},
    metrics::DiskMetrics,
    watchdog::DiskWatchdog,
};

/// What the WAL thread is told.
#[derive(Debug)]
pub enum ToWal {
    /// Make it durable and answer with its token.
    Record(Record),
    /// A checkpoint at this index is durable: what is below it may go.
    Purge(LogIndex),
}

/// Records that share one write: beyond it the rest waits for the next.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Runs until the queue's other end is dropped; then closes the log in good order.
///
/// # Errors
/// The disk failed.
pub fn run(
    mut wal: Wal,
    queue: &std_mpsc::Receiver<ToWal>,
    inputs: &mpsc::Sender<Input>,
    watchdog: &DiskWatchdog,
    metrics: &Arc<DiskMetrics>,
) -> Result<(), Fatal> {
    let mut records = Vec::new();
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(record) => ToWal::Record(record),
            None => match queue.recv() {
                Ok(first) => first,
                Err(std_mpsc::RecvError) => break,
            },
        };
        let mut purge = None;
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                ToWal::Purge(index) => purge = Some(index),
                ToWal::Record(record) => {
                    let cost = cost(&record);
                    if bytes > 0 && bytes + cost > BATCH_BYTES_MAX {
                        left_over = Some(record);
                        break;
                    }
                    bytes += cost;
                    records.push(record);
                }
            }
            next = queue.try_recv().ok();
        }
        if !records.is_empty() {
            write(&mut wal, &records, inputs, watchdog, metrics)?;
            records.clear();
        }
        if let Some(index) = purge {
            wal.purge_below(index)?;
        }
    }
    wal.close()?;
    Ok(())
}

fn write(
    wal: &mut Wal,
    records: &[Record],
    inputs: &mpsc::Sender<Input>,
    watchdog: &DiskWatchdog,
    metrics: &Arc<DiskMetrics>,
) -> Result<(), WalError> {
    watchdog.begins();
    let started = Instant::now();
    wal.write(records)?;
    let written = started.elapsed();
    let durable = wal.sync()?;
    watchdog.ends();
    metrics.wal_written(durable.bytes, written, started.elapsed().saturating_sub(written));
    if let Some(token) = durable.token {
        // Fails only while the process stops.
        inputs.blocking_send(Input::Persisted(token)).ok();
    }
    Ok(())
}

/// Old entries for a follower or for this member's own apply; empty when they are no longer there.
///
/// # Errors
/// The disk failed, or the bytes are damaged.
pub fn fetch(reader: &WalReader, fetch: &Fetch) -> Result<Vec<Entry>, Fatal> {
    reader
        .fetch(fetch.from, fetch.to, fetch.bytes_max)
        .map_err(|error| Fatal::new(Verdict::Corrupt, crate::fatal::error_chain(&error)))
}

fn cost(record: &Record) -> usize {
    64 + record.entries.iter().map(Entry::cost).sum::<usize>()
}
