//! What goes wrong, and what people do, between two steps of the operator.

use crate::hurts::HURTS;
use crate::laws;
use crate::storage;
use crate::world::{self, BAD_IMAGE, NODES, World};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_crds::{
    RetentionPolicy, StoreOptions, UpdateStrategy, UpdateType, VolumeRetention, names,
};
use std::collections::BTreeMap;

/// Everything that may happen, counted so that a run in which something never happened can be told.
pub(crate) const KINDS: [&str; 22] = [
    "scale",
    "size changed",
    "class changed",
    "pod deleted",
    "all pods deleted",
    "set deleted",
    "set edited",
    "service edited",
    "budget edited",
    "child deleted",
    "member crashed",
    "node drained",
    "node back",
    "settings changed",
    "version changed",
    "version refused",
    "bad image",
    "restart asked for",
    "strategy changed",
    "hibernated",
    "paused",
    "deleted and created again",
];

pub(crate) type Counts = BTreeMap<&'static str, usize>;

impl World {
    /// One random disturbance.
    pub(crate) fn disturb(&mut self, counts: &mut Counts) {
        // Sizes change often: most of what the planner does follows from that.
        let often = self.random.once_in(5);
        let kind = if often {
            "scale"
        } else if self.random.once_in(3) {
            HURTS[self.random.below(HURTS.len())]
        } else {
            KINDS[self.random.below(KINDS.len())]
        };
        // Rare things stay rare, so that worlds also get somewhere.
        let rare = [
            "version refused",
            "all pods deleted",
            "hibernated",
            "paused",
            "deleted and created again",
        ];
        if rare.contains(&kind) && !self.random.once_in(4) {
            return;
        }
        if self.cluster.is_none() || (self.deleting && kind != "deleted and created again") {
            return;
        }
        let happened = self.edit_wish(kind) || self.hurt(kind) || self.take_away(kind);
        if happened {
            if self.traced {
                println!("{} fault: {kind}", self.seconds);
            }
            *counts.entry(kind).or_default() += 1;
        }
    }

    /// What people ask for.
    fn edit_wish(&mut self, kind: &str) -> bool {
        match kind {
            "scale" => self.edit_spec(|world| {
                let replicas = 1 + i32::try_from(world.random.below(5)).expect("small");
                if let Some(cluster) = world.cluster.as_mut() {
                    cluster.spec.replicas = replicas;
                }
            }),
            "size changed" => self.edit_size(),
            "class changed" => {
                self.expandable = !self.expandable;
                true
            }
            "settings changed" => self.edit_spec(|world| {
                let interval = 50 + i32::try_from(world.random.below(100)).expect("small");
                if let Some(cluster) = world.cluster.as_mut() {
                    cluster.spec.options = Some(StoreOptions {
                        heartbeat_interval: Some(interval),
                        ..StoreOptions::default()
                    });
                }
            }),
            "version changed" | "version refused" => self.edit_version(kind == "version refused"),
            "bad image" => self.edit_spec(|world| {
                if let Some(cluster) = world.cluster.as_mut() {
                    let good = cluster.spec.image.is_none();
                    cluster.spec.image = good.then(|| BAD_IMAGE.to_owned());
                }
            }),
            "restart asked for" => self.edit_spec(|world| {
                let value = world.version.to_string();
                if let Some(cluster) = world.cluster.as_mut() {
                    let annotations = cluster.metadata.annotations.get_or_insert_default();
                    annotations.insert(names::ANNOTATION_RESTART.to_owned(), value);
                }
            }),
            "strategy changed" => self.edit_spec(|world| {
                let rolling = world.random.once_in(2);
                let paused = world.random.once_in(3);
                let type_ =
                    Some(if rolling { UpdateType::RollingUpdate } else { UpdateType::OnDelete });
                if let Some(cluster) = world.cluster.as_mut() {
                    let before = cluster.spec.update_strategy.is_some();
                    cluster.spec.update_strategy =
                        (!before).then_some(UpdateStrategy { type_, paused });
                }
            }),
            "hibernated" => self.edit_spec(|world| {
                if let Some(cluster) = world.cluster.as_mut() {
                    cluster.spec.hibernated = !cluster.spec.hibernated;
                }
            }),
            "paused" => self.edit_spec(|world| {
                if let Some(cluster) = world.cluster.as_mut() {
                    cluster.spec.paused = !cluster.spec.paused;
                }
            }),
            "deleted and created again" => self.delete_cluster(),
            _other => false,
        }
    }

    /// A larger size, or back to what the volumes have been asked to be: admission lets a size go so far
    /// back and no further.
    fn edit_size(&mut self) -> bool {
        let back = self.status().volume_size.filter(|_size| self.random.once_in(2));
        let more = 1 + i128::try_from(self.random.below(3)).expect("small");
        self.edit_spec(|world| {
            let Some(cluster) = world.cluster.as_mut() else { return };
            let size = storage::gibi(&cluster.spec.storage.size);
            let back = back.map(|back| storage::gibi(&back)).filter(|back| *back < size);
            cluster.spec.storage.size = format!("{}Gi", back.unwrap_or(size + more));
        })
    }

    /// Another version: of what is there, the next minor one, one back, or one that nothing may
    /// follow.
    fn edit_version(&mut self, refused: bool) -> bool {
        let Some(highest) = self.highest_version() else { return false };
        let minor = laws::minor(&highest);
        let minor = match self.random.below(6) {
            _any if refused => minor + 2,
            0 => minor + 1,
            1 => minor.saturating_sub(1),
            _stays => minor,
        };
        let patch = self.random.below(10);
        self.edit_spec(|world| {
            if let Some(cluster) = world.cluster.as_mut() {
                cluster.spec.version = format!("0.{minor}.{patch}");
            }
        })
    }

    /// The highest version that a member runs or has run.
    pub(crate) fn highest_version(&self) -> Option<String> {
        let remembered = self.status().members.into_iter().filter_map(|member| member.version);
        let running =
            self.live.pods.values().filter(|pod| world::is_ready(pod)).filter_map(version_of);
        remembered.chain(running).max_by_key(|version| laws::minor(version))
    }

    /// What happens to pods, children, members and nodes.
    fn hurt(&mut self, kind: &str) -> bool {
        match kind {
            "pod deleted" => {
                let pods: Vec<String> = self.live.pods.keys().cloned().collect();
                let pod = self.random.pick(&pods).cloned();
                pod.is_some_and(|pod| self.terminate_pod(&pod))
            }
            "all pods deleted" => {
                let pods: Vec<String> = self.live.pods.keys().cloned().collect();
                pods.iter().filter(|pod| self.terminate_pod(pod)).count() > 0
            }
            "set deleted" => {
                let sets: Vec<String> = self.live.sets.keys().cloned().collect();
                let set = self.random.pick(&sets).cloned();
                set.is_some_and(|set| self.live.sets.remove(&set).is_some())
            }
            "child deleted" => {
                let services: Vec<String> = self.live.services.keys().cloned().collect();
                let service = self.random.pick(&services).cloned();
                let jobs = self.random.once_in(3) && !self.live.jobs.is_empty();
                if jobs {
                    self.live.jobs.clear();
                }
                self.live.budgets.clear();
                service.is_some_and(|service| self.live.services.remove(&service).is_some()) || jobs
            }
            "set edited" | "service edited" | "budget edited" => self.edit_child(kind),
            "member crashed" => {
                let pods: Vec<String> = self.live.pods.keys().cloned().collect();
                let pod = self.random.pick(&pods).cloned();
                let ticks = 2 + self.random.below(20);
                pod.is_some_and(|pod| self.crashed.insert(pod, ticks).is_none())
            }
            "node drained" => self.drain_node(),
            "node back" => self.down_nodes.pop_first().is_some(),
            _other => false,
        }
    }

    pub(crate) fn edit_spec(&mut self, edit: impl FnOnce(&mut Self)) -> bool {
        edit(self);
        self.version += 1;
        let version = self.version.to_string();
        let Some(cluster) = self.cluster.as_mut() else { return false };
        cluster.metadata.generation = cluster.metadata.generation.map(|generation| generation + 1);
        cluster.metadata.resource_version = Some(version);
        true
    }

    pub(crate) fn terminate_pod(&mut self, name: &str) -> bool {
        let now = self.now();
        match self.live.pods.get_mut(name) {
            Some(pod) if pod.metadata.deletion_timestamp.is_none() => {
                pod.metadata.deletion_timestamp = Some(Time(now));
                true
            }
            Some(_) | None => false,
        }
    }

    fn edit_child(&mut self, kind: &str) -> bool {
        match kind {
            "set edited" => {
                let sets: Vec<String> = self.live.sets.keys().cloned().collect();
                let Some(name) = self.random.pick(&sets).cloned() else { return false };
                let which = self.random.below(3);
                let Some(set) = self.live.sets.get_mut(&name) else { return false };
                // The generation is that of the spec, whoever edits it.
                set.metadata.generation = set.metadata.generation.map(|generation| generation + 1);
                let Some(spec) = set.spec.as_mut() else { return false };
                match which {
                    0 => spec.replicas = Some(0),
                    1 => spec.service_name = None,
                    _other => {
                        if let Some(pod) = spec.template.spec.as_mut() {
                            pod.containers[0].image = Some("elsewhere:1".to_owned());
                        }
                    }
                }
                true
            }
            "service edited" => {
                let services: Vec<String> = self.live.services.keys().cloned().collect();
                let Some(name) = self.random.pick(&services).cloned() else { return false };
                let service = self.live.services.get_mut(&name).and_then(|s| s.spec.as_mut());
                service.map(|spec| spec.selector = Some(BTreeMap::new())).is_some()
            }
            _budget => {
                let budget = self.live.budgets.values_mut().next().and_then(|b| b.spec.as_mut());
                budget.map(|spec| spec.min_available = Some(IntOrString::Int(0))).is_some()
            }
        }
    }

    /// A drain evicts as the budget allows; what it may not evict it leaves.
    fn drain_node(&mut self) -> bool {
        if self.down_nodes.len() >= 2 {
            return false;
        }
        let node = self.random.below(NODES);
        self.down_nodes.insert(node);
        let here: Vec<String> = self
            .live
            .pods
            .iter()
            .filter(|(_, pod)| {
                let name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
                name == Some(format!("node-{node}"))
            })
            .map(|(name, _)| name.clone())
            .collect();
        for pod in &here {
            if self.may_evict(pod) {
                self.terminate_pod(pod);
            }
        }
        !here.is_empty()
    }

    pub(crate) fn may_evict(&self, name: &str) -> bool {
        let matches = |pod: &k8s_openapi::api::core::v1::Pod,
                       selector: &BTreeMap<String, String>| {
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        let healthy = |pod: &k8s_openapi::api::core::v1::Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone());
            pod.metadata.deletion_timestamp.is_none()
                && conditions.unwrap_or_default().iter().any(|c| c.status == "True")
        };
        self.live.budgets.values().all(|budget| {
            let spec = budget.spec.clone().unwrap_or_default();
            let selector = spec.selector.and_then(|s| s.match_labels).unwrap_or_default();
            let keep = match spec.min_available {
                Some(IntOrString::Int(keep)) => usize::try_from(keep).unwrap_or(0),
                Some(IntOrString::String(_)) | None => 0,
            };
            let pod = &self.live.pods[name];
            let count =
                self.live.pods.values().filter(|p| matches(p, &selector) && healthy(p)).count();
            !matches(pod, &selector) || !healthy(pod) || count > keep
        })
    }

    /// Deletes the StoreCluster, with one retention policy or the other.
    fn delete_cluster(&mut self) -> bool {
        let keep = self.random.once_in(2);
        self.edit_spec(|world| {
            if let Some(cluster) = world.cluster.as_mut() {
                let policy = if keep { RetentionPolicy::Retain } else { RetentionPolicy::Delete };
                cluster.spec.volume_retention =
                    Some(VolumeRetention { when_scaled: None, when_deleted: Some(policy) });
            }
            world.deleting = true;
        });
        if !self.finalizer {
            self.cluster = None;
        }
        true
    }

    /// A person answers what is to be done with earlier volumes.
    pub(crate) fn decide_earlier_volumes(&mut self) {
        let word = if self.random.once_in(2) { "adopt" } else { "discard" };
        if let Some(cluster) = self.cluster.as_mut() {
            let annotations = cluster.metadata.annotations.get_or_insert_default();
            annotations
                .entry(names::ANNOTATION_EARLIER_VOLUMES.to_owned())
                .or_insert(word.to_owned());
        }
    }
}

/// The version that a pod was made with.
pub(crate) fn version_of(pod: &Pod) -> Option<String> {
    pod.metadata.annotations.as_ref()?.get(names::ANNOTATION_VERSION).cloned()
}
