//! Raft log replication as a pure function.
//!
//! # What this room is
//!
//! [`Consensus`] decides in which order a cluster's entries stand and when an entry is there to stay. It is Diego
//! Ongaro's Raft (the thesis is cited by section) with the refinements that etcd-io/raft has proven in the field:
//! pre-vote, check-quorum, leases against disturbance, learners, leader transfer, ReadIndex, flow control, log
//! matching by hints, and asynchronous storage writes. It performs no I/O: whatever happens is an [`Input`],
//! whatever is to be done is an [`Output`].
//!
//! ```text
//!                    ┌────────────────────────── step(input) ──────────────────────────┐
//!   ticks, messages, │  election    who leads               read_index  when to read   │
//!   proposals, reads,│  replication leader to followers     membership  who belongs    │
//!   durable tokens,  │  follower    leader's words taken    transfer    hand-over      │
//!   applied indexes  │  apply       log to machine          journal     what is durable│
//!                    └─────────────── drain() ► messages, record, committed ───────────┘
//! ```
//!
//! The caller's loop, in full: take what has arrived, [`Consensus::step`] each, [`Consensus::drain`] once, and
//!
//! 1. send [`Output::send_now`] at once, in any order, to members that may or may not get it;
//! 2. append [`Output::record`] to the WAL; when it *and all before it* are durable, step [`Input::Persisted`];
//! 3. give [`Output::committed`] to the machine in order; when applied, step [`Input::Applied`];
//! 4. read [`Output::fetch`] from the WAL and step [`Input::Fetched`]; stream [`Output::snapshots_wanted`] and step
//!    [`Input::SnapshotSent`]; receive [`Output::install`] and step [`Input::Installed`].
//!
//! All four may proceed side by side and take their time. No order between them is left to memory: a message that
//! promises durability is not in `send_now` before its record's token came back, and an entry is not in `committed`
//! before it is durable here. Appends, read rounds and pages are made in `drain`, so that a batch of inputs costs
//! one message for each follower, one record, one heartbeat round.
//!
//! # What it does not know
//!
//! Data (a payload is bytes; only a configuration change means something), time (a tick), files, sockets, threads,
//! names and addresses of members, how a snapshot looks, who asked for what. It never forwards a proposal: whether
//! one may be sent again elsewhere is the replica's knowledge. It has no random source but its seed.
//!
//! # Invariants
//!
//! [`Consensus::check_invariants`] asserts them all; the cheap ones are asserted where they would break as well.
//!
//! - **INV-R1** compacted ≤ applied ≤ handed out ≤ committed ≤ last; a committed entry is never overwritten; only
//!   committed and durable entries leave memory, so what is fetched later can no longer change.
//! - **INV-R2** no vote, no request for one, no acknowledgement leaves before its record is durable; a candidate's vote
//!   for itself counts only then. A request for votes states how long the log is, hence it waits as well.
//! - **INV-R3** one leader a term.
//! - **INV-R4** each read is answered at most once, to its asker, by a number that was never used before.
//! - **INV-R5** the machine gets an entry only once this member's own log holds it durably, even if others committed it.
//! - **INV-R6** a token that is stale or unknown changes nothing; a record whose entries were overwritten while it was on
//!   its way certifies only what still stands (`journal`).
//! - **INV-R7** a configuration takes effect when its entry is applied; one change is in flight.
//!
//! # Membership takes effect at apply
//!
//! The thesis (§4.1) lets a configuration count as soon as it is in the log; we follow etcd-io/raft and wait for
//! apply. That is safe because a single step leaves any two consecutive majorities with a common member, and because
//! no member is ever two steps behind where it counts: a leader proposes a change only when the one before is
//! applied, so every append of the second change carries the commit of the first, and the record that holds the one
//! holds the other; and nobody campaigns with a committed change unapplied. A commit index that came without
//! entries is written with the next record, with the next tick, or at once if it commits a change.
//!
//! A leader that removed itself leads on, not counting itself, until a remaining voter says that the commit is on
//! its disk. For this alone [`Body::AppendResponse`] carries a commit index: a step from two voters to one, whose
//! survivor forgot it, would leave a cluster that can elect nobody.
//!
//! # What was left out, and why
//!
//! - Joint consensus (thesis §4.3): single steps are enough for one member at a time, which is how operators change clusters.
//! - Lease reads (§6.4.1): they trust clocks. ReadIndex costs one heartbeat round for all reads that wait.
//! - Forwarding of proposals: a duplicated message could apply twice; see the replica.
//! - Priorities and witnesses: nothing here needs them yet.
//! - Refusing members whose memory is full: a cap may be reached by all at once. Proposals are refused instead.

mod apply;
mod boundary;
pub mod codec;
mod consensus;
mod election;
mod entry;
mod follower;
mod ids;
mod inflights;
mod invariants;
mod journal;
mod leadership;
mod limits;
mod log;
mod membership;
mod message;
mod outbox;
mod progress;
mod quorum;
mod read_index;
mod replication;
mod timer;
mod transfer;

pub use boundary::*;
pub use consensus::Consensus;
pub use entry::*;
pub use ids::*;
pub use message::*;
