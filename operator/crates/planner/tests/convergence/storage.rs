//! The storage's side of the world: claims are bound and grow in their own time, or not at all.

use crate::world::{World, claim_of, phase};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimCondition};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use quorate_planner::{Exactly, GrowthRefusal, quantity};
use std::collections::{BTreeMap, BTreeSet};

const CONTROLLER_ERROR: &str = "ControllerResizeError";
const FILE_SYSTEM: &str = "FileSystemResizePending";

impl World {
    /// The API server's part of a growth: identity, then what it says of claims that ask for more.
    pub(crate) fn grow(&mut self, claim: &Exactly, size: &Quantity) -> bool {
        let now = self.now();
        let Some(mut found) = self.live.claims.get(&claim.name).cloned() else { return false };
        let metadata = &found.metadata;
        if metadata.uid.as_ref() != Some(&claim.uid)
            || metadata.resource_version.as_ref() != Some(&claim.resource_version)
        {
            return false;
        }
        if !self.expandable || capacity(&found).is_none() {
            let words = "only dynamically provisioned pvc can be resized".to_owned();
            let refusal = GrowthRefusal { size: size.clone(), at: now, words };
            self.refused_growths.insert(claim.uid.clone(), refusal);
            return true;
        }
        assert!(value(request(&found)) < value(size), "INV-O3: {} asks for no more", claim.name);
        let resources = found.spec.as_mut().and_then(|spec| spec.resources.as_mut());
        let requests = resources.and_then(|resources| resources.requests.as_mut());
        requests.expect("built with a request").insert("storage".to_owned(), size.clone());
        self.stamp(&mut found.metadata);
        self.live.claims.insert(claim.name.clone(), found);
        true
    }

    /// Provisioner, resizer and kubelets.
    pub(crate) fn run_storage(&mut self) {
        let pods = self.live.pods.values().filter(|pod| phase(pod) == "Running");
        let used: BTreeSet<String> = pods.filter_map(claim_of).collect();
        for (name, mut claim) in self.live.claims.clone() {
            let asked = request(&claim).clone();
            let has = capacity(&claim).map(value);
            // What is lost stays lost.
            let lost = claim.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Lost");
            if lost || has == Some(value(&asked)) || self.random.once_in(2) {
                continue;
            }
            let stands = condition(&claim);
            let fails = self.faults && self.random.once_in(5);
            let given = BTreeMap::from([("storage".to_owned(), asked)]);
            let status = claim.status.get_or_insert_default();
            match (has, stands.as_deref()) {
                (None, _) => {
                    status.phase = Some("Bound".to_owned());
                    status.capacity = Some(given);
                }
                (Some(_), Some(FILE_SYSTEM)) if used.contains(&name) => {
                    status.conditions = None;
                    status.capacity = Some(given);
                }
                (Some(_), Some(FILE_SYSTEM)) => continue,
                (Some(_), Some(_) | None) => {
                    let type_ = if fails { CONTROLLER_ERROR } else { FILE_SYSTEM };
                    status.conditions = Some(vec![PersistentVolumeClaimCondition {
                        type_: type_.to_owned(),
                        status: "True".to_owned(),
                        ..PersistentVolumeClaimCondition::default()
                    }]);
                }
            }
            self.stamp(&mut claim.metadata);
            self.live.claims.insert(name, claim);
        }
    }
}

/// What a claim asks for.
pub(crate) fn request(claim: &PersistentVolumeClaim) -> &Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    requests.and_then(|requests| requests.get("storage")).expect("built with a request")
}

/// What a claim has, once it is bound.
pub(crate) fn capacity(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.status.as_ref()?.capacity.as_ref()?.get("storage")
}

pub(crate) fn value(size: &Quantity) -> i128 {
    quantity::parse(&size.0).expect("the test makes valid sizes")
}

/// The number of a size such as "3Gi".
pub(crate) fn gibi(size: &str) -> i128 {
    size.strip_suffix("Gi").and_then(|number| number.parse().ok()).expect("all sizes are so")
}

fn condition(claim: &PersistentVolumeClaim) -> Option<String> {
    claim.status.as_ref()?.conditions.as_ref()?.first().map(|condition| condition.type_.clone())
}
