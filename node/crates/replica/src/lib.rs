//! One member: consensus and machine joined.
//!
//! Consensus orders bytes and knows nothing of keys; the machine applies commands and knows nothing of members that
//! talk. What concerns *this* member only lies between them, here: the requests of its own clients and what became of
//! them, reads that wait for a round with the leader, watches, the clock by which leases expire, and the rules by which a
//! leader lets membership change.
//!
//! The room has two doors, since the shell runs two threads:
//!
//! ```text
//!    clients, peers, ticks ──► Replica ──committed──► Applier ──► replies, changes ──► WatchHub ──► streams
//!                                 ▲                      │
//!                                 └──── ApplyReport ◄────┘
//! ```
//!
//! [`Replica`] takes inputs and is drained, as consensus is; nothing the data disk does can hold it up. [`Applier`] takes
//! committed entries and says what they did. Both are values without threads, files or clocks: the simulator runs a whole
//! cluster of them in one loop.
//!
//! # What this room does not know
//!
//! No socket, no file, no gRPC type, no wall clock. It does not know what a `Put` does (machine) nor how an entry is
//! committed (consensus). It decodes an envelope only to check a membership command before proposing it.
//!
//! # Invariants
//!
//! - **INV-R4**: a request is answered at most once, by the member asked; it has at most one place in the log. A request is
//!   sent again only after it was refused before acceptance, or once an entry was committed in its place or in a later term
//!   than that of the leader it went to. What may have been accepted is left alone until then: apply answers it or its
//!   asker's patience ends.
//! - **INV-R1**: what is handed to apply is consecutive, and applied never goes back.
//! - **INV-W1…W6**: the six laws of watches (module [`watch`]).
//!
//! # Left out, and why
//!
//! A leader lease for reads: it would trust clocks for linearizability; a read round costs one message. A table of request
//! ids in the replicated state: forwarding with a named term and an attempt number needs none, and clients of etcd expect
//! no deduplication across retries of their own.

pub mod limits;
pub mod watch;

mod applier;
mod forwarded;
mod lease_clock;
mod membership;
mod peer;
mod proposals;
mod reads;
mod replica;
mod wire;

pub use applier::{Applier, Batch, configuration};
pub use lease_clock::LeaseClock;
pub use membership::{ChangeRefusal, Situation, configuration_change};
pub use peer::{ForwardRefusal, ForwardedRequest, PeerBody, PeerMessage};
pub use proposals::{Proposal, Sequence};
pub use reads::ReadId;
pub use replica::{ApplyReport, Failure, Input, Output, Replica, Settings, proposal};
pub use wire::{WIRE_VERSION, WireError};
