//! Watches: who wants to know of which changes, and what each stream is told.
//!
//! A watch is *live* or *lagging*. A live one is told each revision as apply completes it. One whose stream has no room, or
//! that asked for history, is lagging: its stream reads the rows from where it stands, off the apply thread, and comes back
//! to be live once it has reached the present. So a slow client costs apply nothing, and nothing is lost for it.
//!
//! ```text
//!   create(start > now) ──► live ──── no room in the stream's queue ───► lagging(next = that revision)
//!   create(start ≤ now) ───────────────────────────────────────────────► lagging(next = start)
//!                            ▲                                              │ replay rows [next, to], deliver
//!                            └──────────── resume(to + 1) reaches now ◄─────┘
//! ```
//!
//! The six laws (etcd's API guarantees), each an invariant here: **INV-W1** ordered: a watch's revisions rise. **INV-W2**
//! unique: no change is told twice. **INV-W3** reliable: none is left out. **INV-W4** atomic: all changes of a revision
//! come in one delivery. **INV-W5** resumable: a watch from any revision that is not compacted is told everything from
//! there. **INV-W6** bookmarkable: a progress notice at R comes after everything up to R.

mod delivery;
mod hub;
mod interest;
mod replay;
#[cfg(test)]
mod tests;

pub use delivery::*;
pub use hub::{Lagging, Now, Sink, WatchHub};
pub use replay::{Replayed, replay};
