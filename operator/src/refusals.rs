//! Refusals: claims that the API server did not let grow, remembered from one pass to the next.
//!
//! An answer that is no failure of ours (the class does not allow it, a quota is used up) is an
//! observation: the planner reads it and decides when to ask again. Like the silences of members it is
//! in this process only; after a restart each claim is asked for once more.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use quorate_planner::GrowthRefusal;

use crate::error_policy::ClusterKey;

/// The last answer for each claim, by UID, for every cluster of this process.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    of: BTreeMap<ClusterKey, BTreeMap<String, GrowthRefusal>>,
}

impl Refusals {
    /// The API server refused.
    pub(crate) fn note(&mut self, key: &ClusterKey, claim_uid: &str, refusal: GrowthRefusal) {
        self.of.entry(key.clone()).or_default().insert(claim_uid.to_owned(), refusal);
    }

    /// What was refused to the claims that are there; the rest is forgotten.
    pub(crate) fn of(
        &mut self,
        key: &ClusterKey,
        claims: &[PersistentVolumeClaim],
    ) -> BTreeMap<String, GrowthRefusal> {
        let Some(refused) = self.of.get_mut(key) else { return BTreeMap::new() };
        refused
            .retain(|uid, _| claims.iter().any(|claim| claim.metadata.uid.as_ref() == Some(uid)));
        refused.clone()
    }

    /// A cluster is gone.
    pub(crate) fn forget(&mut self, key: &ClusterKey) {
        self.of.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    #[test]
    fn a_refusal_lasts_as_long_as_its_claim() {
        let key: ClusterKey = ("prod".to_owned(), "db".to_owned());
        let other: ClusterKey = ("test".to_owned(), "db".to_owned());
        let refusal = GrowthRefusal {
            size: Quantity("16Gi".to_owned()),
            at: Timestamp::from_second(1).unwrap(),
            words: "no".to_owned(),
        };
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.uid = Some("u".to_owned());
        let mut refusals = Refusals::default();
        refusals.note(&key, "u", refusal.clone());
        assert_eq!(refusals.of(&key, std::slice::from_ref(&claim)).get("u"), Some(&refusal));
        assert!(refusals.of(&other, std::slice::from_ref(&claim)).is_empty());
        assert!(refusals.of(&key, &[]).is_empty(), "the claim is gone");
        assert!(refusals.of(&key, std::slice::from_ref(&claim)).is_empty(), "and forgotten");
        refusals.note(&key, "u", refusal);
        refusals.forget(&key);
        assert!(refusals.of(&key, &[claim]).is_empty(), "the cluster is gone");
    }
}
