//! What takes a member's volume, data, node or progress away, and what only looks so.

use crate::laws;
use crate::store::Disk;
use crate::world::{NODES, NodeState, World, node_of, phase};
use k8s_openapi::api::core::v1::PersistentVolumeClaimStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quorate_crds::Recovery;

/// Everything of that kind that may happen.
pub(crate) const HURTS: [&str; 12] = [
    "claim deleted",
    "claim taken away",
    "claim lost",
    "claim replaced",
    "disk wiped",
    "disk corrupted",
    "corrupt alarm",
    "node lost",
    "node deleted",
    "pod ended",
    "learner stuck",
    "recovery changed",
];

impl World {
    pub(crate) fn take_away(&mut self, kind: &str) -> bool {
        // Before that there is no member to lose; only a person can begin a formation anew.
        if self.status().cluster_id.is_none() {
            return false;
        }
        match kind {
            "claim deleted" | "claim taken away" | "claim lost" | "claim replaced"
            | "disk wiped" | "disk corrupted" => self.hurt_data(kind),
            "corrupt alarm" => {
                let voters = self.store.entries.iter().filter(|entry| !entry.learner);
                let voters: Vec<u64> = voters.map(|entry| entry.id).collect();
                let Some(id) = self.random.pick(&voters).copied() else { return false };
                // With the last voters accused nobody could say who is right.
                let calm = voters.len() > 2 && self.store.corrupt.is_empty() && self.may_lose(id);
                calm && self.store.corrupt.insert(id)
            }
            "node lost" => self.lose_node(),
            "node deleted" => {
                let node = self.random.below(NODES);
                let others = self.nodes.values().filter(|it| **it != NodeState::Deleted).count();
                let held = self.members_of_node(node);
                // Its voters at once must leave a quorum with data; with local volumes that is few.
                let spared = held.len() <= 1 && held.iter().all(|id| self.may_lose(*id));
                spared && others > 2 && {
                    self.nodes.insert(node, NodeState::Deleted);
                    true
                }
            }
            "pod ended" => {
                let pods = self
                    .live
                    .pods
                    .iter()
                    .filter(|(name, pod)| phase(pod) == "Running" && !name.ends_with("-pod"));
                let pods: Vec<String> = pods.map(|(name, _pod)| name.clone()).collect();
                let Some(name) = self.random.pick(&pods).cloned() else { return false };
                let Some(pod) = self.live.pods.get_mut(&name) else { return false };
                let mut metadata = pod.metadata.clone();
                if let Some(status) = pod.status.as_mut() {
                    status.phase = Some("Failed".to_owned());
                }
                self.stamp(&mut metadata);
                if let Some(pod) = self.live.pods.get_mut(&name) {
                    pod.metadata = metadata;
                }
                true
            }
            "learner stuck" => {
                let learner = self.store.entries.iter().find(|entry| entry.learner);
                learner.map(|entry| entry.id).is_some_and(|id| self.store.stuck.insert(id))
            }
            "recovery changed" => {
                let after = self.random.once_in(2).then(|| "2m".to_owned());
                self.edit_spec(|world| {
                    if let Some(cluster) = world.cluster.as_mut() {
                        cluster.spec.recovery = Some(Recovery { replace_after: after });
                    }
                })
            }
            _other => false,
        }
    }

    /// Whether a quorum with all it needs is left when this member is lost beside those that are.
    fn may_lose(&self, id: u64) -> bool {
        let store = &self.store;
        if store.entry(id).is_none_or(|entry| entry.learner) {
            return store.entry(id).is_some();
        }
        let whole = store
            .entries
            .iter()
            .filter(|entry| !entry.learner && entry.id != id && !laws::is_lost(self, entry.id));
        // A promotion that is asked for at this moment adds a voter.
        whole.count() > store.voters().div_ceil(2)
    }

    fn lose_node(&mut self) -> bool {
        let (node, since) = (self.random.below(NODES), self.seconds);
        let ready = self.nodes.values().filter(|state| **state == NodeState::Ready).count();
        if self.nodes[&node] != NodeState::Ready || ready < 3 {
            // One that is silent comes back.
            let silent = |state: &NodeState| {
                matches!(state, NodeState::NotReady { .. } | NodeState::OutOfService { .. })
            };
            let back = self.nodes.values_mut().find(|state| silent(state));
            return back.map(|state| *state = NodeState::Ready).is_some();
        }
        let alive = self.random.once_in(3);
        let state = if !alive && self.random.once_in(3) {
            NodeState::OutOfService { since }
        } else {
            NodeState::NotReady { since, alive }
        };
        // Whoever is on it may be replaced, and its data be gone with it.
        let held = self.members_of_node(node);
        let spared = held.len() <= 1 && held.iter().all(|id| self.may_lose(*id));
        spared && self.nodes.insert(node, state).is_some()
    }

    /// Members on a node, or with a volume on it.
    fn members_of_node(&self, node: usize) -> Vec<u64> {
        let name = &self.desired().name;
        let entries = self.store.entries.iter().filter(|entry| {
            let Some(ordinal) = name.ordinal_of_peer_url(&entry.peer_url) else { return false };
            let runs = self.live.pods.get(&name.pod(ordinal)).and_then(node_of);
            let members = self.status().members;
            let member = members.iter().find(|member| member.ordinal == ordinal);
            let pinned = member.and_then(|member| self.pins.get(member.claim_uid.as_ref()?));
            runs == Some(node) || pinned == Some(&node)
        });
        entries.map(|entry| entry.id).collect()
    }

    fn hurt_data(&mut self, kind: &str) -> bool {
        // Only what can be hurt is drawn, so that each kind happens in a short run too.
        let holds = |uid: &String| match self.disks.get(uid)? {
            Disk::Data { cluster, member, .. } => Some((*cluster, *member)),
            Disk::Empty | Disk::Broken { .. } => None,
        };
        let used = self.live.claims.iter().filter_map(|(name, claim)| {
            let uid = claim.metadata.uid.as_ref()?;
            let (cluster, member) = holds(uid).filter(|(_, member)| self.may_lose(*member))?;
            Some((name.clone(), uid.clone(), cluster, member))
        });
        let used: Vec<_> = used.collect();
        let Some((name, uid, cluster, member)) = self.random.pick(&used).cloned() else {
            return false;
        };
        let now = self.now();
        // Whoever plans by what it was before must be told so.
        let mut metadata = self.live.claims[&name].metadata.clone();
        self.stamp(&mut metadata);
        match kind {
            "claim deleted" => {
                let Some(claim) = self.live.claims.get_mut(&name) else { return false };
                let already = metadata.deletion_timestamp.replace(Time(now)).is_some();
                claim.metadata = metadata;
                return !already;
            }
            "claim taken away" => {
                self.live.claims.remove(&name);
                self.disks.remove(&uid);
            }
            "claim lost" => {
                let Some(claim) = self.live.claims.get_mut(&name) else { return false };
                let phase = Some("Lost".to_owned());
                claim.status = Some(PersistentVolumeClaimStatus { phase, ..Default::default() });
                claim.metadata = metadata;
                self.disks.insert(uid, Disk::Empty);
            }
            "claim replaced" => {
                metadata.uid = Some(self.uid());
                self.disks.remove(&uid);
                if let Some(claim) = self.live.claims.get_mut(&name) {
                    claim.metadata = metadata;
                }
            }
            "disk wiped" => {
                self.disks.insert(uid, Disk::Empty);
            }
            "disk corrupted" => {
                self.disks.insert(uid, Disk::Broken { cluster, member });
            }
            _other => return false,
        }
        true
    }
}
