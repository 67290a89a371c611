//! The consensus thread: inputs in, outputs out, no decisions.
//!
//! It never touches data and never waits for the WAL or for apply, so nothing that a disk does can delay a tick. What it
//! hands to those two goes through queues without a bound of their own: consensus bounds what is unpersisted and what is
//! committed and not applied (`uncommitted_bytes_max`, `committed_bytes_max`, APPLY_GAP_MAX), and a bound here could only
//! deadlock the three threads.

use std::sync::{Arc, mpsc as std_mpsc};

use quorate_consensus::{Entry, Fetch, MemberId, Role, SnapshotMeta};
use quorate_machine::LeaseTime;
use quorate_replica::{Failure, Input, Output, Replica};
use tokio::sync::{mpsc, watch};

use crate::{
    apply_loop::ApplySender,
    handle::{Leadership, ProposeError, Reply},
    peers::PeerSet,
    pending::Pending,
    wal_loop::ToWal,
    watchdog::DiskWatchdog,
};

/// Inputs taken before outputs are drained: enough that a thousand clients share one record, few enough that a
/// tick is never far.
const BATCH_MAX: usize = 2048;

/// What the apply thread may be told by consensus.
#[derive(Debug)]
pub enum ToApply {
    /// Committed entries, in order.
    Committed(Vec<Entry>),
    /// Which leases are due at this clock? Answer with [`Input::LeasesDue`].
    LeasesDue(LeaseTime),
    /// A follower needs a snapshot.
    SendSnapshot(MemberId),
}

/// Where outputs go.
pub struct Outlets {
    /// To other members.
    pub peers: PeerSet,
    /// To the WAL thread.
    pub wal: std_mpsc::Sender<ToWal>,
    /// To the apply thread.
    pub apply: ApplySender,
    /// The snapshot that this member wants, for the task that receives it.
    pub wanted: watch::Sender<Option<(MemberId, SnapshotMeta)>>,
    /// Old entries: read off the loop, answered with [`Input::Fetched`].
    pub fetch: std_mpsc::Sender<Fetch>,
    /// Requests.
    pub requests: Arc<Pending<Reply>>,
    /// Reads.
    pub reads: Arc<Pending<()>>,
    /// What everybody may see.
    pub leadership: watch::Sender<Leadership>,
    /// Whether the WAL's disk hangs.
    pub watchdog: Arc<DiskWatchdog>,
}

/// Runs until the inputs' other ends are dropped.
pub fn run(mut replica: Replica, mut inputs: mpsc::Receiver<Input>, mut outlets: Outlets) {
    let mut members = std::sync::Weak::new();
    let mut stalled = false;
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while inputs.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
        let mut ticked = false;
        for input in batch.drain(..) {
            if let Input::Applied(report) | Input::Installed { report, .. } = &input {
                // A joiner keeps those that a peer named until its snapshot says who is there.
                if !report.members.is_empty()
                    && !std::ptr::eq(members.as_ptr(), Arc::as_ptr(&report.members))
                {
                    members = Arc::downgrade(&report.members);
                    outlets.peers.set_members(&report.members);
                }
            }
            ticked |= matches!(input, Input::Tick { .. });
            replica.step(input);
        }
        if ticked && outlets.watchdog.stalled() != stalled {
            stalled = !stalled;
            replica.step(Input::DiskStalled(stalled));
            tracing::warn!(
                stalled,
                "the disk of the log takes longer than an election timeout, or no longer so"
            );
        }
        let output = replica.drain();
        outlets.dispatch(output);
        outlets.publish(&replica);
        if ticked {
            replica.check_invariants();
        }
    }
}

impl Outlets {
    /// Sends first, so that followers write while this member does (thesis §10.2.1).
    fn dispatch(&mut self, output: Output) {
        let Output {
            messages,
            record,
            committed,
            failed,
            reads,
            fetch,
            snapshots_wanted,
            install,
            soft_state: _,
            leases_due_at,
        } = output;
        for message in messages {
            self.peers.send(message);
        }
        if let Some(record) = record {
            // Fails only while the process stops.
            self.wal.send(ToWal::Record(record)).ok();
        }
        if !committed.is_empty() {
            self.apply.consensus(ToApply::Committed(committed));
        }
        for (sequence, failure) in failed {
            self.requests.answer(sequence.0, Err(propose_error(failure)));
        }
        for read in reads {
            self.reads.answer(read.0, ());
        }
        for fetch in fetch {
            self.fetch.send(fetch).ok();
        }
        for member in snapshots_wanted {
            self.apply.consensus(ToApply::SendSnapshot(member));
        }
        if let Some((from, meta)) = install {
            self.wanted.send_replace(Some((from, meta)));
        }
        if let Some(clock) = leases_due_at {
            self.apply.consensus(ToApply::LeasesDue(clock));
        }
    }

    /// Tells everybody who leads. Not only when the soft state changed: a learner becomes a voter when its promotion is
    /// applied.
    fn publish(&self, replica: &Replica) {
        let soft = replica.soft();
        let leader = quorate_machine::MemberId(soft.leader.0);
        self.leadership.send_if_modified(|leadership| {
            let changes = leadership.changes
                + u64::from(leader != leadership.leader && soft.leader.is_some());
            let now = Leadership {
                leader,
                is_leader: soft.role == Role::Leader,
                term: soft.term.0,
                commit_index: soft.commit.0,
                changes,
                is_learner: replica.is_learner(),
                clock: replica.clock(),
            };
            std::mem::replace(leadership, now) != now
        });
    }
}

fn propose_error(failure: Failure) -> ProposeError {
    match failure {
        Failure::TooManyRequests => ProposeError::TooManyRequests,
        Failure::Change(refusal) => ProposeError::Change(refusal),
        Failure::FeatureLevel => ProposeError::FeatureLevel,
    }
}
