//! The PodDisruptionBudget of the voters.

use crate::desired::Desired;
use crate::objects::labels::Owner;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_crds::names;

/// A budget that keeps `min_available` voters. It counts pods labelled as voters and no others: a
/// learner that is evicted costs no quorum and a learner that is ready must not stand in for a
/// voter.
///
/// Unready pods may be evicted always (KEP-3017), unless the spec says otherwise: one broken member
/// would block every drain. That is no way round INV-O1, which speaks of plans: the planner counts
/// voters that answer, and judges its own restarts by them before it asks for an eviction. What a
/// drain can take so is a voter that serves nobody; its volume stays.
#[must_use]
pub fn voters(owner: &Owner<'_>, desired: &Desired, min_available: i32) -> PodDisruptionBudget {
    let mut selector = owner.member_selector();
    selector.insert(names::LABEL_ROLE.to_owned(), names::ROLE_VOTER.to_owned());
    PodDisruptionBudget {
        metadata: owner.metadata(owner.name.budget(), owner.labels()),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(min_available)),
            selector: Some(LabelSelector {
                match_labels: Some(selector),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some(desired.unhealthy_pod_eviction.as_str().to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
