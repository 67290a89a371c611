//! The simulator: production code on a simulated network, disk and clock, and the judge of what it does.
//!
//! # What this room is
//!
//! Two halves that know nothing of each other but the judge's plain types.
//!
//! ```text
//!   world/   consensus, replica, machine, storage as they ship     judge/   a model of etcd, the laws of a history
//!            one seed ─► one schedule of everything                         bytes, revisions, times: nothing of ours
//!                    │                                                         ▲
//!                    └── operations, what watches were told, every change ─────┘
//! ```
//!
//! **The world** ([`world::World`]) runs three to five members, and those that join them. Whatever the shell gives to a thread is
//! a step of its own here: a drain of consensus, a write of the WAL and, later, its sync; a slice of apply, its publication, what
//! watches are told of each revision; a piece of a checkpoint, a compaction, a replay, a range in chunks, a snapshot that is
//! sent, received and installed. Between any two steps anything may happen: messages are lost, repeated, delayed and cut (they
//! travel as bytes), power is lost between operations of the disk or within one, processes are killed and paused, clocks drift,
//! disks stall, leadership is handed over, members are added, promoted and removed. Clients ask meanwhile, watchers watch, some of
//! them slowly. In the end everything heals, and all must converge, answer and fall silent within bounds.
//!
//! **The judge** ([`judge`]) never imports `machine`, so that one mistake is not made on both sides. It serves histories of real
//! processes as well (e2e/store).
//!
//! # What is checked
//!
//! - after each step: every `assert!` of the production rooms (INV-R1…R7, INV-M1…M4, INV-S1…S3, INV-W1…W6) and their
//!   `check_invariants`; a committed entry is the same on all (INV-R1); equal digest at equal applied index, over restarts and
//!   installed snapshots too (INV-M2); equal changes at equal revision; one leader a term (INV-R3); what was reported durable is found
//!   again after a crash (INV-R2, INV-S2);
//! - at the end: linearizability, lease law, the six watch laws and `prev_kv`, equal hashes of history, the model's data on every
//!   member, liveness.
//!
//! # A seed is a world
//!
//! `quorate-sim --seed N` replays it, with `--trace` step by step, and the trace is the same to the byte. `--seeds K` runs K of
//! them and fails if, of 50 or more, one of the listed kinds of events never happened: what did not happen was not tested. Seeds that once
//! failed are kept in `seeds.txt` and run first.
//!
//! # What it does not know
//!
//! The shell itself (tokio, gRPC, sockets, real files): e2e/store has those. Its order of things is repeated here by hand, and the
//! comments in node/src say what the order is.
//!
//! # Left out, and why
//!
//! Disks that lie, fill up or err: a failed write is fatal by design (INV-S3), which storage tests by itself; they come with the issue on
//! disk faults. Members of different builds come with upgrades. A shrinker for failing seeds: worlds are short, and a trace that begins
//! anew with each fix of the order is worth little.

pub mod batch;
pub mod judge;
pub mod world;
