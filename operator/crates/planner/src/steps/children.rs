//! Children: the declarative objects of a formed cluster, contributed where they differ, and the
//! labels of its pods.

use crate::action::Action;
use crate::desired::Desired;
use crate::draft::Draft;
use crate::objects::{budget, services, stateful_set};
use crate::version::parse;
use crate::world::{annotation, exactly, is_terminating, label, quorum};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_crds::{MemberRole, MemberStatus, OperationKind, names};
use std::collections::BTreeMap;

/// Contributes everything that does not disturb anybody.
pub(crate) fn step(draft: &mut Draft<'_>, cluster_id: u64) {
    draft.contribute_service(services::peers(&draft.world.owner()));
    for member in draft.memory.members.values().cloned().collect::<Vec<_>>() {
        if member.role.is_listed() {
            serve(draft, &member, cluster_id);
        }
    }
    let clients =
        services::clients(&draft.world.owner(), draft.world.desired, draft.memory.incarnation);
    draft.contribute_service(clients);
    guard_voters(draft);
    forget_formation_job(draft);
}

/// The set of a listed member, and the role label of its running pod: a promotion restarts nothing.
fn serve(draft: &mut Draft<'_>, member: &MemberStatus, cluster_id: u64) {
    let world = draft.world;
    let seat = stateful_set::Seat {
        ordinal: member.ordinal,
        claim: &member.claim,
        voter: member.role == MemberRole::Voter,
        incarnation: draft.memory.incarnation,
        cluster_id,
    };
    if draft.stopped == Some(member.ordinal) {
        // Its set is left as it is, without a pod, until the removal or its reversal.
    } else if draft.version_refused {
        hold(draft, &seat);
    } else {
        draft.contribute_stateful_set(stateful_set::member(&world.owner(), world.desired, &seat));
    }
    let Some(pod) = world.pod(member.ordinal).filter(|pod| !is_terminating(&pod.metadata)) else {
        return;
    };
    let wanted = stateful_set::pod_labels(&world.owner(), world.desired, &seat);
    let wrong: BTreeMap<_, _> = wanted
        .into_iter()
        .filter(|(key, value)| label(&pod.metadata, key) != Some(value.as_str()))
        .collect();
    if !wrong.is_empty() {
        draft.act(Action::LabelPod { pod: exactly(&pod.metadata), labels: wrong });
    }
}

/// The set of a member while the wanted version is refused. What is there keeps its template and is
/// only started and stopped; what is not gets the version that another set has.
fn hold(draft: &mut Draft<'_>, seat: &stateful_set::Seat<'_>) {
    let world = draft.world;
    let wanted = stateful_set::member(&world.owner(), world.desired, seat);
    let found = world.stateful_set(seat.ordinal).filter(|set| world.owns(&set.metadata));
    let replicas = |set: &StatefulSet| set.spec.as_ref().and_then(|spec| spec.replicas);
    if let Some(found) = found {
        if replicas(found) != replicas(&wanted) {
            let mut kept = wanted;
            if let (Some(kept), Some(found)) = (kept.spec.as_mut(), found.spec.as_ref()) {
                kept.template = found.template.clone();
            }
            draft.contribute_stateful_set(kept);
        }
        return;
    }
    let other = world.observed.stateful_sets.iter().filter(|set| world.owns(&set.metadata));
    let runs = other.filter_map(|set| {
        let template = &set.spec.as_ref()?.template;
        let version = annotation(template.metadata.as_ref()?, names::ANNOTATION_VERSION)?;
        let container = template.spec.as_ref()?.containers.first()?;
        Some((version.to_owned(), container.image.clone()?))
    });
    // Without any set nobody knows which image that would be; the refusal stands in the condition.
    if let Some((version, image)) = runs.min_by_key(|(version, _image)| parse(version)) {
        let desired = Desired { version, image, ..world.desired.clone() };
        draft.contribute_stateful_set(stateful_set::member(&world.owner(), &desired, seat));
    }
}

/// How many voters the budget must keep: raised before a promotion, lowered after a removal. `None`
/// below three voters, where any budget would either forbid every drain or protect nothing.
pub(crate) fn wanted_budget(draft: &Draft<'_>) -> Option<i32> {
    let voters = draft.memory.voters().count();
    let joining = draft.memory.operation.as_ref().is_some_and(|operation| {
        operation.kind == OperationKind::Join
            && draft
                .memory
                .members
                .get(&operation.ordinal)
                .is_some_and(|member| member.role == MemberRole::Learner)
    });
    let soon = voters + usize::from(joining);
    (soon >= 3).then(|| i32::try_from(quorum(soon)).unwrap_or(i32::MAX))
}

/// Whether the observed budget keeps at least as many voters as it must.
pub(crate) fn budget_holds(draft: &Draft<'_>) -> bool {
    let Some(wanted) = wanted_budget(draft) else { return true };
    let name = draft.world.desired.name.budget();
    draft.world.observed.budgets.iter().any(|budget| {
        let keeps = budget.spec.as_ref().and_then(|spec| spec.min_available.as_ref());
        budget.metadata.name.as_deref() == Some(name.as_str())
            && matches!(keeps, Some(IntOrString::Int(keeps)) if *keeps >= wanted)
    })
}

fn guard_voters(draft: &mut Draft<'_>) {
    if let Some(min_available) = wanted_budget(draft) {
        let world = draft.world;
        draft.contribute_budget(budget::voters(&world.owner(), world.desired, min_available));
        return;
    }
    let world = draft.world;
    let name = world.desired.name.budget();
    for budget in &world.observed.budgets {
        let ours = world.owns(&budget.metadata) && budget.metadata.name.as_deref() == Some(&name);
        if ours && !is_terminating(&budget.metadata) {
            draft.act(Action::DeleteBudget(exactly(&budget.metadata)));
        }
    }
}

/// Once the id is latched the Job has done its work, and no Job of ours must ever run on the seed's
/// claim again.
fn forget_formation_job(draft: &mut Draft<'_>) {
    let world = draft.world;
    // Only a latch that is stored counts: the plan that latches must be able to fail and be made
    // again.
    if world.observed.status.cluster_id.is_none() {
        return;
    }
    for job in &world.observed.jobs {
        if world.owns(&job.metadata) && !is_terminating(&job.metadata) {
            draft.act(Action::DeleteJob(exactly(&job.metadata)));
        }
    }
}
