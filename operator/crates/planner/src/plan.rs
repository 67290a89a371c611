//! Plan: what shall happen next, and the function that decides it.

use crate::action::{Action, Apply};
use crate::conditions::{ConditionType, Finding, conditions};
use crate::desired::{Desired, Invalid};
use crate::draft::Draft;
use crate::limits::{LOOK_AGAIN_BUSY, LOOK_AGAIN_STEADY};
use crate::memory::Memory;
use crate::objects::services;
use crate::observed::Observed;
use crate::reason::{Reason, Waiting};
use crate::report;
use crate::steps;
use crate::world::{World, exactly, owned_by};
use quorate_crds::StoreClusterStatus;
use std::time::Duration;

/// What shall happen next. The executor goes through it in this order and stops at the first
/// failure; the next observation starts anew, so that nothing has to be remembered between the
/// steps.
///
/// 1. `status`, if any: replace the status, with the observed resourceVersion. This is the
///    operator's memory, written
///    before the act. On a conflict nothing else of the plan is done.
/// 2. `events`: published, best effort.
/// 3. `objects`, in order.
/// 4. `actions`, in order; those that need confirmation after a live second observation (see
///    [`Action::needs_confirmation`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The whole next status, memory, report and conditions; `None` when it equals the stored one.
    pub status: Option<StoreClusterStatus>,
    /// Declarative children, only where the observed differs.
    pub objects: Vec<Apply>,
    /// Steps, in order.
    pub actions: Vec<Action>,
    /// What was not done, and why.
    pub waiting: Vec<Waiting>,
    /// What to tell people: transitions only.
    pub events: Vec<Event>,
    /// When to look again if nothing happens before.
    pub look_again: Duration,
}

impl Plan {
    /// Whether there is nothing to do and nothing to write (INV-O4 speaks of such plans).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.status.is_none()
            && self.objects.is_empty()
            && self.actions.is_empty()
            && self.events.is_empty()
    }
}

/// An event of the StoreCluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether it needs attention (`Warning`) or not (`Normal`).
    pub warning: bool,
    /// Stable CamelCase reason.
    pub reason: &'static str,
    /// One sentence for people.
    pub message: String,
}

/// Decides what happens next, from what is wanted and what was seen, and from nothing else.
///
/// The order is fixed (architecture §5): deleted? paused? finalizer? earlier volumes? formed? then
/// the roster, the versions, pods that have ended, one membership step (to heal, to remove, to add),
/// one restart, one volume that grows, and the declarative children.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let world = World { desired, observed };
    let mut draft = match Memory::read(&observed.status) {
        Ok(memory) => Draft::new(world, memory),
        Err(unreadable) => return unreadable_memory(&unreadable.0, observed),
    };
    steps(&mut draft);
    draft.settle();
    let status = report::status(&mut draft);
    let changed = status != observed.status;
    let busy = !draft.actions.is_empty()
        || !draft.objects.is_empty()
        || draft.memory.operation.is_some()
        || draft.waiting.iter().any(|waiting| !waiting.reason.waits_for_a_person());
    Plan {
        status: changed.then_some(status),
        objects: draft.objects,
        actions: draft.actions,
        waiting: draft.waiting,
        // Events tell of changes of the status; a plan that changes nothing of it has nothing to
        // tell.
        events: if changed { draft.events } else { Vec::new() },
        look_again: if busy { LOOK_AGAIN_BUSY } else { LOOK_AGAIN_STEADY },
    }
}

fn steps(draft: &mut Draft<'_>) {
    let world = draft.world;
    let cluster = &world.observed.cluster;
    if cluster.deleting {
        return steps::teardown::step(draft);
    }
    if world.desired.paused {
        return draft.wait(Reason::Paused, "spec.paused is set: nothing is changed");
    }
    if !cluster.has_finalizer {
        // Before the first claim, or a deletion in between would leave it behind.
        return draft.act(Action::AddFinalizer { uid: cluster.uid.clone() });
    }
    if !steps::earlier_volumes::step(draft) {
        return;
    }
    match draft.memory.cluster_id {
        None => {
            // The peers' Service stands before anybody looks for peers.
            draft.contribute_service(services::peers(&world.owner()));
            steps::form::step(draft);
        }
        Some(cluster_id) => {
            let roster = steps::roster::step(draft, cluster_id);
            steps::skew::step(draft);
            steps::heal::ended_pods(draft);
            steps::scale::step(draft, roster.as_ref());
            steps::restart::step(draft, roster.as_ref());
            steps::volumes::step(draft);
            steps::children::step(draft, cluster_id);
            steps::mirror::step(draft);
        }
    }
}

/// Decides for a spec that cannot be served: reports, and lets a deletion go on with all claims
/// kept.
#[must_use]
pub fn plan_invalid(invalid: &Invalid, observed: &Observed) -> Plan {
    stand_still("InvalidSpec", Reason::InvalidSpec, &invalid.0, observed)
}

/// A memory that cannot be read is no memory to act on: a person must look.
fn unreadable_memory(problem: &str, observed: &Observed) -> Plan {
    let message = format!("{problem}; nothing is changed until the status is put right");
    stand_still("MemoryUnreadable", Reason::MemoryUnreadable, &message, observed)
}

fn stand_still(word: &'static str, reason: Reason, message: &str, observed: &Observed) -> Plan {
    let says = |type_, holds| Finding {
        type_,
        holds: Some(holds),
        reason: word,
        message: message.to_owned(),
    };
    let findings = [says(ConditionType::Progressing, false), says(ConditionType::Degraded, true)];
    let cluster = &observed.cluster;
    let mut status = observed.status.clone();
    status.observed_generation = Some(cluster.generation);
    status.conditions =
        conditions(&observed.status.conditions, &findings, cluster.generation, observed.now);
    let mut actions = Vec::new();
    if cluster.deleting && cluster.has_finalizer {
        let sets = observed.stateful_sets.iter().map(|set| &set.metadata);
        let sets: Vec<_> = sets.filter(|metadata| owned_by(metadata, &cluster.uid)).collect();
        actions.extend(sets.iter().map(|metadata| Action::DeleteStatefulSet(exactly(metadata))));
        if sets.is_empty() {
            actions.push(Action::RemoveFinalizer { uid: cluster.uid.clone() });
        }
    }
    let changed = status != observed.status;
    let events = report::transitions(&observed.status.conditions, &findings);
    Plan {
        status: changed.then_some(status),
        actions,
        waiting: vec![Waiting { reason, message: message.to_owned() }],
        events: if changed { events } else { Vec::new() },
        look_again: LOOK_AGAIN_STEADY,
        ..Plan::default()
    }
}
