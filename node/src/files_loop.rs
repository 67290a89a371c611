//! The files thread: checkpoints, physical compaction and the hashes before it, in small steps; apply never waits for one.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use quorate_consensus::SnapshotMeta;
use quorate_replica::Input;
use quorate_storage::{
    checkpoint::{CheckpointJob, Step},
    directory::DataDirectory,
    rows::{Compaction, Work},
    wal::SpareFiller,
};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::{
    compaction_hashing::CompactionHashing,
    fatal::{Fatal, error_chain},
    metrics::DiskMetrics,
    wal_loop::ToWal,
};

/// What the files thread is told.
pub enum ToFiles {
    /// Write this checkpoint and make it count.
    Checkpoint(Box<CheckpointJob>, SnapshotMeta),
    /// A compaction was applied: there is something to hash, and then to reclaim.
    Compacted,
    /// Another generation is in force. What was under way for the old one is void.
    Switched(Box<Generation>),
    /// Write this last checkpoint and end.
    Stop(Option<(Box<CheckpointJob>, SnapshotMeta)>),
}

/// The upkeep of the generation in force.
pub struct Generation {
    /// Drops what nobody can read any more.
    pub compaction: Compaction,
    /// Hashes what a compaction will drop, and holds it back until then.
    pub hashing: CompactionHashing,
}

/// The pause between two steps of a compaction or of its hash: both yield to writes (design §9). Checkpoints take none.
const COMPACTION_PAUSE: Duration = Duration::from_millis(2);

/// How often an idle compaction looks again: a pin may have held it back.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// Everything that the files thread owns.
pub struct FilesLoop {
    /// The manifest, shared with the apply thread, which switches generations.
    pub directory: Arc<Mutex<DataDirectory>>,
    /// What else is done to the rows.
    pub generation: Generation,
    /// Makes zero-filled segments for the log ahead of need.
    pub filler: SpareFiller,
    /// To the WAL thread: what a checkpoint covers may go.
    pub wal: std_mpsc::Sender<ToWal>,
    /// To consensus: likewise for its memory.
    pub inputs: mpsc::Sender<Input>,
    /// What is measured.
    pub metrics: Arc<DiskMetrics>,
}

impl FilesLoop {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// The disk failed, or a row is damaged.
    pub fn run(mut self, queue: &std_mpsc::Receiver<ToFiles>) -> Result<(), Fatal> {
        let mut busy = true;
        loop {
            match queue.recv_timeout(if busy { COMPACTION_PAUSE } else { IDLE_PAUSE }) {
                Ok(ToFiles::Checkpoint(job, meta)) => {
                    self.checkpoint(*job, &meta)?;
                    // Replaced segments may go only once a checkpoint does not name them.
                    busy = true;
                }
                // At once, and not after the pause: compactions without one must not keep it from its work.
                Ok(ToFiles::Compacted) => busy = self.background()?,
                Ok(ToFiles::Switched(generation)) => {
                    self.generation = *generation;
                    self.directory.lock().remove_replaced()?;
                    busy = true;
                }
                Ok(ToFiles::Stop(last)) => {
                    return match last {
                        Some((job, meta)) => self.checkpoint(*job, &meta),
                        None => Ok(()),
                    };
                }
                Err(std_mpsc::RecvTimeoutError::Timeout) => busy = self.background()?,
                Err(std_mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn checkpoint(&mut self, mut job: CheckpointJob, meta: &SnapshotMeta) -> Result<(), Fatal> {
        let started = Instant::now();
        let published = loop {
            // Consensus hands out what its own log holds durably, so the log is never behind apply (INV-R5).
            match job.step(meta.index)? {
                Step::Worked => {}
                Step::WaitsForLog => unreachable!("the log is durable up to what was applied"),
                Step::Published(published) => break published,
            }
        };
        let mut directory = self.directory.lock();
        if directory.manifest().checkpoint.index > meta.index {
            debug!(index = %meta.index, "a checkpoint of a replaced generation is void");
            return Ok(());
        }
        directory.record_checkpoint(meta.clone())?;
        drop(directory);
        let took = started.elapsed();
        self.metrics.backend_commit.observe(took);
        info!(index = %meta.index, bytes = published.bytes, took_ms = took.as_millis(), "checkpoint");
        // Both fail only while the process stops.
        self.wal.send(ToWal::Purge(meta.index)).ok();
        self.inputs.blocking_send(Input::Compact(meta.index)).ok();
        Ok(())
    }

    /// One step of each kind; whether there may be more.
    fn background(&mut self) -> Result<bool, Fatal> {
        let filling = self.filler.step().unwrap_or_else(|error| {
            // Nothing of the log is in a spare: without one a commit costs more, and that is all.
            warn!("cannot prepare a segment for the log: {}", error_chain(&error));
            false
        });
        let Generation { compaction, hashing } = &mut self.generation;
        let hashing = hashing.step()?;
        let compacting = compaction.step()? == Work::Some;
        Ok(filling || hashing || compacting)
    }
}
