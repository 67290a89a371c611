//! A voter that leaves: stopped first, so that its clients see nothing; taken back; nobody's trouble.

use crate::action::Action;
use crate::fixture::{Stage, long_ago, ready, told};
use crate::limits::STOP_LIMIT;
use crate::reason::Reason;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A stage in which db-2 of three was asked to stop and its pod is gone.
fn stopped() -> Stage {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.replicas = 2;
    stage.until("stop member db-2");
    stage
}

fn reasons(stage: &Stage) -> Vec<Reason> {
    stage.plan().waiting.iter().map(|waiting| waiting.reason).collect()
}

#[test]
fn the_removal_waits_until_the_pod_is_gone() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.replicas = 2;
    let pod = stage.pod(2).clone();
    stage.until("stop member db-2");
    // The kubelet takes its time: the member drains.
    let mut draining: Pod = pod;
    draining.metadata.deletion_timestamp = Some(Time(stage.observed.now));
    stage.observed.pods.push(draining);
    assert_eq!(stage.next(), "");
    assert!(reasons(&stage).contains(&Reason::PodStopping), "{:?}", reasons(&stage));
    stage.observed.pods.pop();
    assert_eq!(stage.next(), "remove voter 2 (12)\n");
}

#[test]
fn who_was_stopped_is_nobodys_trouble() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.replicas = 2;
    let plan = stage.plan();
    assert!(matches!(plan.actions[..], [Action::StopMember { ordinal: 2, .. }]), "{plan:?}");
    let status = plan.status.expect("written before the act");
    assert!(!status.members[2].started, "from now on it is not down");
    let mut stage = stopped();
    stage.lose_view(2);
    stage.later(1_000);
    let plan = stage.plan();
    let status = plan.status.unwrap_or_else(|| stage.observed.status.clone());
    for (type_, wanted) in [("Degraded", "False"), ("Available", "True"), ("QuorumHealthy", "True")]
    {
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_);
        assert_eq!(condition.expect("reported").status, wanted, "{type_}: {condition:?}");
    }
}

#[test]
fn a_stop_is_taken_back_as_long_as_the_removal_was_not_sent() {
    let mut stage = stopped();
    stage.cluster.spec.replicas = 3;
    let story = stage.rest();
    assert!(story.contains("apply StatefulSet db-2") && !story.contains("remove"), "{story}");
    assert_eq!(stage.observed.status.ready.as_deref(), Some("3/3"));
    assert_eq!(stage.observed.status.operation, None);
}

#[test]
fn who_was_stopped_is_started_again_when_the_others_need_it() {
    let mut stage = stopped();
    stage.lose(1);
    stage.observed.membership = crate::observed::Membership::Unreachable {
        since: stage.observed.now,
        error: "no leader".to_owned(),
    };
    assert!(stage.next().contains("apply StatefulSet db-2"));
    assert_eq!(stage.observed.stateful_sets[2].spec.as_ref().and_then(|it| it.replicas), Some(1));
}

#[test]
fn a_list_that_cannot_be_had_for_a_moment_starts_nobody() {
    let mut stage = stopped();
    let known = stage.observed.membership.clone();
    stage.observed.membership = crate::observed::Membership::Unreachable {
        since: stage.observed.now,
        error: "timed out".to_owned(),
    };
    assert!(!stage.next().contains("apply"), "the two others answer");
    stage.observed.membership = known;
    assert_eq!(stage.until("remove voter 2"), "remove voter 2 (12)\n");
}

#[test]
fn nobody_is_stopped_beside_a_voter_that_is_not_well() {
    let mut stage = Stage::at_rest(5);
    stage.lose(0);
    stage.lead(1);
    stage.cluster.spec.replicas = 4;
    let story = stage.rest();
    assert!(!story.contains("stop member") && !story.contains("remove"), "{story}");
    assert!(reasons(&stage).contains(&Reason::MemberDown), "{:?}", reasons(&stage));
}

#[test]
fn a_pod_that_never_stops_does_not_keep_its_member() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.replicas = 2;
    let pod = stage.pod(2).clone();
    let answer = stage.observed.members[&Stage::id(2)].clone();
    stage.until("stop member db-2");
    let mut stuck: Pod = pod;
    stuck.status = Some(ready());
    stuck.metadata.deletion_timestamp = Some(Time(stage.observed.now));
    stage.observed.pods.push(stuck);
    stage.observed.members.insert(Stage::id(2), answer);
    let limit = i64::try_from(STOP_LIMIT.as_secs()).expect("small");
    stage.later(limit - 1);
    assert!(!told(&stage.plan()).contains("remove"));
    stage.later(1);
    assert!(told(&stage.plan()).contains("remove voter 2 (12)"));
}

#[test]
fn of_two_voters_neither_can_be_missed_so_it_is_removed_as_it_runs() {
    let mut stage = Stage::at_rest(2);
    stage.cluster.spec.replicas = 1;
    let story = stage.rest();
    assert!(story.contains("remove voter 1 (11)") && !story.contains("stop member"), "{story}");
}

#[test]
fn a_member_that_does_nothing_needs_no_stopping() {
    let mut stage = Stage::at_rest(5);
    stage.lose(4);
    stage.pod(4).metadata.creation_timestamp = Some(long_ago());
    stage.later(61);
    stage.cluster.spec.replicas = 4;
    let story = stage.rest();
    assert!(story.contains("remove voter 4 (14)") && !story.contains("stop member"), "{story}");
}
