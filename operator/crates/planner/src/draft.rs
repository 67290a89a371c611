//! Draft: a plan in the making.

use crate::action::{Action, Apply, Expect, Object};
use crate::digest::digest;
use crate::drift::drifted;
use crate::memory::Memory;
use crate::plan::Event;
use crate::reason::{Reason, Waiting};
use crate::world::{World, is_terminating};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde_json;
use quorate_crds::names;

/// A plan in the making: the world, the next memory, and what the steps have put in so far.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) world: World<'a>,
    pub(crate) memory: Memory,
    pub(crate) objects: Vec<Apply>,
    pub(crate) actions: Vec<Action>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) events: Vec<Event>,
    /// The wanted version must not meet what the members run: no template gets it.
    pub(crate) version_refused: bool,
    /// The member that this plan restarts, or means to: until it is ready again it is starting, not
    /// down.
    pub(crate) restarting: Option<i32>,
    /// The member that is stopped because it leaves: its set is left without a pod, and it is not down
    /// but on its way out.
    pub(crate) stopped: Option<i32>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(world: World<'a>, memory: Memory) -> Self {
        Self {
            world,
            memory,
            objects: Vec::new(),
            actions: Vec::new(),
            waiting: Vec::new(),
            events: Vec::new(),
            version_refused: false,
            restarting: None,
            stopped: None,
        }
    }

    /// Puts in a step. A disruptive one is left out while anything else is to be done first:
    /// objects and housekeeping always come to an end, and a disruption stands alone in its plan
    /// (INV-O2).
    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Notes why something is not done. The same reason twice says nothing new.
    pub(crate) fn wait(&mut self, reason: Reason, message: impl Into<String>) {
        let waiting = Waiting { reason, message: message.into() };
        if !self.waiting.contains(&waiting) {
            self.waiting.push(waiting);
        }
    }

    pub(crate) fn tell(&mut self, warning: bool, reason: &'static str, message: impl Into<String>) {
        self.events.push(Event { warning, reason, message: message.into() });
    }

    pub(crate) fn contribute_service(&mut self, service: Service) {
        let observed = find(&self.world.observed.services, |s| &s.metadata, &service.metadata);
        self.contribute(
            service,
            observed,
            |s| &s.metadata,
            |s| &mut s.metadata,
            |s| Object::Service(Box::new(s)),
        );
    }

    pub(crate) fn contribute_stateful_set(&mut self, set: StatefulSet) {
        let observed = find(&self.world.observed.stateful_sets, |s| &s.metadata, &set.metadata);
        self.contribute(
            set,
            observed,
            |s| &s.metadata,
            |s| &mut s.metadata,
            |s| Object::StatefulSet(Box::new(s)),
        );
    }

    pub(crate) fn contribute_budget(&mut self, budget: PodDisruptionBudget) {
        let observed = find(&self.world.observed.budgets, |b| &b.metadata, &budget.metadata);
        self.contribute(
            budget,
            observed,
            |b| &b.metadata,
            |b| &mut b.metadata,
            |b| Object::PodDisruptionBudget(Box::new(b)),
        );
    }

    /// Puts in an object where the observed one differs (INV-O4). An object of that name that is
    /// not ours is left alone, and one that is going away is waited for.
    fn contribute<T: Serialize>(
        &mut self,
        mut built: T,
        observed: Option<&T>,
        metadata_of: impl Fn(&T) -> &ObjectMeta,
        metadata: impl Fn(&mut T) -> &mut ObjectMeta,
        wrap: impl Fn(T) -> Object,
    ) {
        let mut wanted = value(&built);
        let fingerprint = digest(&wanted);
        wanted["metadata"]["annotations"][names::ANNOTATION_BUILT] = fingerprint.clone().into();
        let annotations = metadata(&mut built).annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_BUILT.to_owned(), fingerprint);
        let Some(found) = observed else {
            self.objects.push(Apply { object: wrap(built), expect: Expect::Absent });
            return;
        };
        let found_metadata = metadata_of(found);
        if !self.world.owns(found_metadata) {
            let object = wrap(built);
            self.wait(
                Reason::NameTaken,
                format!(
                    "{} {} exists and belongs to somebody else; delete it, or give this \
                        StoreCluster another name",
                    object.kind(),
                    object.name()
                ),
            );
        } else if !is_terminating(found_metadata) && drifted(&wanted, &value(found)) {
            let uid = found_metadata.uid.clone().unwrap_or_default();
            self.objects.push(Apply { object: wrap(built), expect: Expect::Present { uid } });
        }
    }

    /// Whether nothing has been put in that must come before a disruption.
    pub(crate) fn settle(&mut self) {
        let disruptive = self.actions.iter().position(Action::is_disruptive);
        if let Some(at) = disruptive
            && (self.actions.len() > 1 || !self.objects.is_empty())
        {
            self.actions.remove(at);
            assert!(
                !self.actions.iter().any(Action::is_disruptive),
                "INV-O2: the steps put two disruptions into one plan"
            );
        }
    }
}

fn find<'a, T>(
    objects: &'a [T],
    of: impl Fn(&T) -> &ObjectMeta,
    like: &ObjectMeta,
) -> Option<&'a T> {
    objects.iter().find(|object| of(object).name == like.name)
}

fn value<T: Serialize>(object: &T) -> serde_json::Value {
    serde_json::to_value(object)
        .expect("objects of the Kubernetes API are plain data and serialise")
}
