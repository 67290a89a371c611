//! What etcd means: commands in, outcomes out.
//!
//! This room decides what a key's value is and whether a request is refused on every member. It is given one entry of the
//! log after the other and gives back, for each, a result and the changes it made. Nothing else enters it.
//!
//! ```text
//!                    ┌───────────────────────────── Machine<S> ─────────────────────────────┐
//!  entry ──decode──► │ clock ─► alarms ─► auth revision ─► the change                        │ ──► Applied
//!  (codec)           │ (stamp)  └──────── admit ────────┘  ├ put, delete, txn   (write, txn) │     result, events
//!                    │                                     ├ compact                         │
//!                    │                                     ├ leases             (leases)     │
//!                    │                                     ├ alarms             (state)      │
//!                    │                                     └ members            (members)    │
//!                    │ State: revision, compacted, applied, clock, alarms, leases, members   │ ──► encode_state, digest
//!                    └──────────────────────────────┬────────────────────────────────────────┘
//!                                     lookup, scan  │ append, compact
//!                                              Store (storage; in tests model_store)
//! ```
//!
//! Reads do not pass through apply. [`range()`], [`RangeCursor`], [`read_txn`] and [`hash_kv`] are functions of any [`View`]
//! and a [`ReadPoint`]; callers run them on their own tasks, at a revision that they pinned, without a lock: later writes are
//! later revisions. [`CompactionHashes`] stands beside the machine, not in it: a member's memory of what HashKV answered
//! before the last compactions.
//!
//! # What this room does not know
//!
//! Time (the lease clock is a number in the entry), sockets, files, threads, randomness, flags, who leads, terms, how far
//! compaction has got physically, how large anything is on disk. Ids of leases, members and clusters are chosen by the
//! shell and come in commands. Shapes of requests (an empty key, too many operations, the same key put twice) are refused
//! by the shell before anything is proposed; should one come through all the same, it has a meaning here, the same on every
//! member. It knows neither gRPC nor etcd's error texts: a [`Rejected`] is a case, `node/src/grpc/status.rs` has the words.
//!
//! # Invariants
//!
//! - **INV-M1** The revision grows by one for each write that changes something, and by nothing else; a change within a
//!   write has the next `sub`. (`state.rs`, `write.rs`)
//! - **INV-M2** Apply is a function of (state, entry). No `HashMap`, no clock, no randomness, entries one by one and each
//!   once; what is refused has changed nothing. [`Machine::digest`] is equal on all members at equal applied index.
//!   (`machine.rs`, `state.rs`)
//! - **INV-M3** An encoding never changes meaning. Entries, states and pairs have golden bytes in their tests; an unknown
//!   format, command or kind stops the member ([`Fatal::Unknown`]) rather than let it diverge. (`codec.rs`)
//! - **INV-M4** Lease and key attachment are symmetric. (`leases.rs`)
//!
//! # Errors
//!
//! [`Rejected`] is part of the replicated result. [`Fatal`] stops the process: a failed read, damaged bytes, an entry from
//! the future. There is no third kind; nothing here can be retried.
//!
//! # Where we part from etcd, on purpose
//!
//! - Leases live by a replicated clock (design §3): an election does not renew them, and every member knows their deadlines.
//! - The leases of one expiry entry go in one revision; etcd makes an entry, and so a revision, of each.
//! - A put within a transaction within a transaction takes space too, so the NOSPACE alarm refuses it; etcd overlooks it.
//! - A removal that would leave nobody to vote, and a promotion of a learner without a recorded incarnation, are refused
//!   at apply on every member; etcd has the first as a check before proposing only.
//!
//! # What was left out
//!
//! Authentication: the envelope carries user and auth revision and the gate stands in its place, the auth store comes with
//! its commands. Slices of large writes: a write is appended row by row and visible only at its end, so slicing is the
//! shell's business of yielding, not a matter of meaning. De-duplication of requests: replica appends a request at most once.

mod codec;
mod command;
mod compaction_hashes;
mod digest;
mod hash;
mod ids;
mod key_value;
mod leases;
pub mod limits;
mod machine;
mod members;
#[cfg(any(test, feature = "model"))]
mod model_store;
#[cfg_attr(feature = "next-level", path = "next_level/milestones.rs")]
#[cfg_attr(not(feature = "next-level"), path = "next_level/none.rs")]
mod next_level;
mod outcome;
mod range;
mod state;
mod store;
mod txn;
mod wire;
mod write;

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod scripts;

pub use codec::{request_id, stamp};
pub use command::*;
pub use compaction_hashes::{Compacted, CompactionHash, CompactionHashes};
pub use hash::{Crc32cAppend, HashWalk, KeyValueHash, hash_all, hash_kv};
pub use ids::*;
pub use key_value::KeyValue;
pub use leases::Leases;
pub use machine::{Fatal, Machine};
pub use members::Membership;
#[cfg(any(test, feature = "model"))]
pub use model_store::{ModelReader, ModelStore};
pub use next_level::{FEATURE_LEVEL_KNOWN, NextCommand, NextReport};
pub use outcome::*;
pub use range::{RangeChunk, RangeCursor, RangeEnd, RangeError, ReadPoint, range};
pub use state::{Genesis, State};
pub use store::*;
pub use txn::read_txn;
pub use wire::DecodeError;
