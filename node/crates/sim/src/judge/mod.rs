//! The judge: an independent model of etcd and the laws that a history of any store must keep.
//!
//! It never imports the machine, so that one mistake cannot be made on both sides. Its types are plain: keys and values are
//! bytes, revisions `i64`, times `u64` in whatever unit the caller counts (milliseconds here, nanoseconds in e2e/store).
//!
//! etcd numbers its writes. That makes the general search for a linearization needless: the order of writes is the order of
//! revisions, the state at a revision is one state, and every answer names the revision it was made at. What remains is to
//! compare each answer with the model's at that revision, to find for every revision the one operation that made it, and to
//! check that real time agrees with the order.

pub mod history;
pub mod lease_law;
pub mod linearizability;
mod matching;
pub mod model;
pub mod watch_laws;

pub use history::{
    ChangeLog, Compare, CompareTarget, Delete, Operation, Outcome, Put, Range, Refusal, Relation,
    Request, Response, Selector, Sort, Transaction, Txn,
};
pub use lease_law::{LeaderTime, check_leases};
pub use linearizability::{Report, check_history};
pub use model::{Change, Effect, Model, Pair};
pub use watch_laws::{Note, Watch, WatchEvent, check_watch};

use std::fmt;

/// A law that was broken, with everything needed to see how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which law.
    pub law: &'static str,
    /// What was seen and what should have been.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(law: &'static str, what: impl Into<String>) -> Self {
        Self { law, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

impl std::error::Error for Violation {}
