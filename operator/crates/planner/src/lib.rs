//! The operator's mind as a pure function: `plan(Desired, Observed) -> Plan`.
//!
//! # What this room is
//!
//! Everything that decides what shall happen to a cluster is here; everything that asks or acts is
//! in the operator's shell. The shell observes ([`Observed`]), validates the spec
//! ([`Desired::validate`]), plans ([`plan()`]), checks ([`check()`]) and executes, and then starts
//! anew. Nothing is carried over from one plan to the next except what the plan itself puts into
//! the status: the memory ([`quorate_crds::StoreClusterStatus`]), which is written before the act
//! that it announces. A crash at any point therefore leaves a world that the next plan understands.
//!
//! # How a plan comes about
//!
//! `plan.rs` holds the order: deleted? paused? finalizer? earlier volumes? formed? then the roster,
//! the versions, pods that have ended, one membership step (to heal, to shrink, to grow), one restart,
//! one volume that grows, the declarative children. What proves that a member is lost is in `loss.rs`,
//! and in `check.rs` once more; how far volumes are is in `growth.rs`. Each concern is one file under `steps/`; each
//! child one pure builder under `objects/`. A step reads the world through `world.rs`, changes the
//! next memory, and puts objects, actions, reasons and events into a `draft.rs`. `report.rs` and
//! `conditions.rs` turn the draft into what people see. `check.rs` knows none of that: it reads a
//! finished plan and refuses it if it breaks a law.
//!
//! # Invariants (architecture §4)
//!
//! * **INV-O1** From three voters up, a plan never takes reachable voters below a quorum; below
//!   three, a restart that was asked for proceeds with the reason DowntimeExpected. Hibernation and
//!   teardown are the listed exceptions in this version.
//! * **INV-O2** At most one disruption, and it is then the only action of its plan; none while
//!   another voter is unwell.
//! * **INV-O3** Data of a current member are never deleted, and its volume is never asked to shrink.
//!   Current means: listed by the store, or not known not to be.
//! * **INV-O4** A converged world plans nothing: no object, no action, no status write, no event.
//! * **INV-O5** An empty directory never forms a cluster: one Job forms, before the cluster id is
//!   latched, on the seed's claim; serving pods carry join flags and no others.
//! * **INV-O6** A member that is wanted is stopped or removed, and one more than wanted joins, only on
//!   positive evidence of a loss: a claim that is gone, the server's verdict, a CORRUPT alarm, a lost
//!   node; of a joiner also that it makes no progress.
//!
//! # What it does not know
//!
//! No clock (`now` is an input), no network, no files, no randomness, no keys. It does not know how
//! an observation was made or how an action is carried out, only what must hold for it ([`Action`]
//! carries UID, resourceVersion, member id). That something could not be observed is data
//! ([`Membership::Unreachable`]), and absence of evidence never shrinks anything: only a member
//! list that a quorum confirmed changes the memory of who is a member.
//!
//! # What was left out
//!
//! Snapshots and restore, certificates, the way out of a lost quorum. The order in `plan.rs` has room for them where the design
//! puts them: after "finish what was started", before the membership steps. A restart keeps no
//! memory of its own but one bit: that a member which was restarted on purpose is starting, not down.
//! Everything else of a rollout is read anew from the pods, so that a spec that is edited in the
//! middle of one, back or forth, is just another look.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod action;
mod alarms;
pub mod check;
pub mod conditions;
pub mod desired;
pub mod digest;
pub(crate) mod draft;
pub mod drift;
mod growth;
pub(crate) mod health;
pub mod limits;
pub(crate) mod loss;
pub(crate) mod memory;
pub mod naming;
pub mod objects;
pub mod observed;
pub mod plan;
pub mod quantity;
pub mod reason;
mod report;
mod steps;
pub(crate) mod trouble;
mod validate;
pub(crate) mod version;
pub mod vocabulary;
pub(crate) mod world;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod scripts;

pub use action::{Action, Alarm, Apply, Exactly, Expect, Object};
pub use check::{Violation, check};
pub use conditions::ConditionType;
pub use desired::{Defaults, Desired, Invalid};
pub use naming::ClusterName;
pub use observed::{
    ClusterFacts, GrowthRefusal, LastWords, MemberAnswer, MemberView, Membership, NodeView, Nodes,
    Observed, StorageClasses, StoreMember,
};
pub use plan::{Event, Plan, plan, plan_invalid};
pub use reason::{Reason, Waiting};
pub use world::quorum;
