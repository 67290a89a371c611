//! Formation, hibernation, pause, earlier volumes, deletion.

use crate::action::Action;
use crate::fixture::{self, Stage, controller, long_ago, terminated, told};
use crate::observed::Membership;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use quorate_crds::{RetentionPolicy, VolumeRetention, names};

#[test]
fn three_members_are_formed_from_one_seed_and_two_learners() {
    let mut stage = Stage::new(3);
    stage.observed.cluster.has_finalizer = false;
    let story = stage.rest();
    let expected = "\
add finalizer
--
tell Forming
apply Service db-peers
create claim db-0-1
--
create job db-form-1
--
tell Formed
--
";
    assert!(story.starts_with(expected), "{story}");
    assert_eq!(story.matches("add learner").count(), 2, "{story}");
    assert_eq!(story.matches("\npromote").count(), 2, "{story}");
    let at =
        |text: &str| story.find(text).unwrap_or_else(|| panic!("{text} is missing in {story}"));
    assert!(at("create claim db-1-1") < at("add learner 1"));
    assert!(at("add learner 1") < at("apply StatefulSet db-1"));
    assert!(at("apply StatefulSet db-1") < at("promote 1"));
    assert!(at("promote 1") < at("create claim db-2-1"), "one at a time");
    assert!(
        at("apply PodDisruptionBudget db-voters") < at("promote 2"),
        "the budget is raised before the vote"
    );
    assert_eq!(stage.observed.status.ready.as_deref(), Some("3/3"));
    assert_eq!(stage.observed.status.leader.as_deref(), Some("db-0"));
    assert_eq!(stage.observed.status.version.as_deref(), Some("0.1.0"));
    assert_eq!(stage.condition("Progressing").1, "Reconciled");
}

#[test]
fn memory_is_in_the_status_of_the_plan_that_acts_on_it() {
    let stage = Stage::new(1);
    let plan = stage.plan();
    let status = plan.status.expect("the memory is written first");
    assert_eq!(status.formation.expect("announced").token, fixture::UID);
    assert_eq!(status.next_ordinal, Some(1));
    assert!(matches!(plan.actions[..], [Action::CreateClaim(_)]));
}

/// A stage whose formation Job has been made and has not finished.
fn forming() -> Stage {
    let mut stage = Stage::new(1);
    stage.next();
    stage.next();
    assert_eq!(stage.observed.jobs.len(), 1);
    stage.observed.jobs[0].status = Some(JobStatus::default());
    stage.observed.pods.clear();
    stage
}

#[test]
fn a_failed_formation_says_why_and_waits_for_a_person() {
    let mut stage = forming();
    let uid = stage.observed.jobs[0].metadata.uid.clone().expect("identified");
    stage.observed.jobs[0].status = Some(JobStatus {
        conditions: Some(vec![JobCondition {
            type_: "Failed".to_owned(),
            status: "True".to_owned(),
            ..JobCondition::default()
        }]),
        ..JobStatus::default()
    });
    let mut pod = k8s_openapi::api::core::v1::Pod::default();
    pod.metadata.owner_references = Some(vec![controller(&uid)]);
    pod.status = Some(k8s_openapi::api::core::v1::PodStatus {
        container_statuses: Some(vec![terminated("the directory holds another token's manifest")]),
        ..Default::default()
    });
    stage.observed.pods.push(pod);
    assert_eq!(stage.plan().actions, []);
    assert!(told(&stage.plan()).contains("warn FormationFailed"));
    let status = stage.plan().status.expect("reported");
    let degraded = status.conditions.iter().find(|c| c.type_ == "Degraded").expect("reported");
    assert!(degraded.message.contains("another token's manifest"), "{}", degraded.message);
}

#[test]
fn a_formation_whose_image_was_wrong_begins_anew_with_the_right_one() {
    let mut stage = forming();
    stage.cluster.spec.version = "0.1.1".to_owned();
    assert_eq!(told(&stage.plan()), "delete job db-form-1\n");
}

#[test]
fn a_formation_whose_message_was_lost_runs_again() {
    let mut stage = forming();
    stage.observed.jobs[0].status = Some(JobStatus { succeeded: Some(1), ..JobStatus::default() });
    assert_eq!(told(&stage.plan()), "delete job db-form-1\n");
}

#[test]
fn once_the_id_is_latched_nothing_is_formed_whatever_is_gone() {
    let mut stage = Stage::at_rest(1);
    stage.observed.claims.clear();
    stage.observed.pods.clear();
    stage.observed.stateful_sets.clear();
    stage.observed.membership = Membership::NotAsked;
    stage.observed.members.clear();
    for _ in 0..5 {
        let plan = stage.plan();
        let forms =
            plan.actions.iter().any(|a| matches!(a, Action::CreateJob(_) | Action::CreateClaim(_)));
        assert!(!forms, "INV-O5: {:?}", plan.actions);
        let status = plan.status.unwrap_or_else(|| stage.observed.status.clone());
        stage.observed.status = status;
    }
    assert_eq!(stage.condition("Degraded").1, "AllMembersLost");
}

#[test]
fn hibernation_stops_every_member_at_once_and_resume_starts_them() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.hibernated = true;
    let story = stage.next();
    assert_eq!(story.matches("apply StatefulSet").count(), 3, "{story}");
    stage.rest();
    assert_eq!(stage.observed.pods.len(), 0);
    assert_eq!(stage.observed.claims.len(), 3);
    assert_eq!(stage.condition("Available").1, "Hibernated");
    assert_eq!(stage.condition("Progressing").1, "Hibernated");
    assert_eq!(stage.condition("Degraded").0, "False");
    stage.cluster.spec.hibernated = false;
    let story = stage.rest();
    assert_eq!(story.matches("apply StatefulSet").count(), 3, "{story}");
    assert!(!story.contains("warn"), "{story}");
    assert_eq!(stage.observed.status.ready.as_deref(), Some("3/3"));
}

#[test]
fn a_cluster_created_hibernated_forms_when_it_is_resumed() {
    let mut stage = Stage::new(1);
    stage.cluster.spec.hibernated = true;
    let story = stage.rest();
    assert!(!story.contains("claim"), "{story}");
    stage.cluster.spec.hibernated = false;
    assert!(stage.rest().contains("tell Formed"));
}

#[test]
fn paused_changes_nothing_and_goes_on_reporting() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.paused = true;
    stage.cluster.spec.replicas = 5;
    stage.observed.services.clear();
    stage.lose(2);
    let plan = stage.plan();
    assert_eq!((plan.objects.len(), plan.actions.len()), (0, 0));
    let status = plan.status.expect("reported");
    assert_eq!(status.ready.as_deref(), Some("2/5"));
}

fn recreated(retired: bool) -> Stage {
    let mut stage = Stage::at_rest(3);
    let mut claims = stage.observed.claims.clone();
    if retired {
        let annotations = claims[2].metadata.annotations.get_or_insert_default();
        annotations
            .insert(names::ANNOTATION_RETIRED.to_owned(), "its member was removed".to_owned());
    }
    stage = Stage::new(3);
    stage.observed.cluster.uid = "another".to_owned();
    stage.observed.claims = claims;
    stage
}

#[test]
fn earlier_volumes_wait_for_a_person() {
    let mut stage = recreated(false);
    let story = stage.rest();
    assert_eq!(story, "tell EarlierVolumesFound\nwarn EarlierVolumesFound\n--\n");
    let (status, _reason, message) = stage.condition("EarlierVolumesFound");
    assert_eq!(status, "True");
    assert!(message.contains("db-0-1, db-1-1, db-2-1") && message.contains("=adopt"), "{message}");
    assert_eq!(stage.observed.claims.len(), 3);
}

#[test]
fn adopted_volumes_bring_their_members_back_without_a_formation() {
    let mut stage = recreated(true);
    stage
        .observed
        .cluster
        .annotations
        .insert(names::ANNOTATION_EARLIER_VOLUMES.into(), "adopt".into());
    let story = stage.rest();
    assert!(!story.contains("create job"), "{story}");
    assert!(
        story.contains("apply StatefulSet db-0") && story.contains("apply StatefulSet db-1"),
        "{story}"
    );
    assert!(!story.contains("apply StatefulSet db-2"), "a retired volume is not adopted: {story}");
    assert!(story.contains("add learner 3"), "ordinals are never used again: {story}");
    assert_eq!(stage.observed.status.cluster_id.as_deref(), Some("c1"));
}

#[test]
fn an_adopted_volume_whose_member_was_removed_stays_until_another_votes() {
    let mut stage = recreated(false);
    let annotations = &mut stage.observed.cluster.annotations;
    annotations.insert(names::ANNOTATION_EARLIER_VOLUMES.into(), "adopt".into());
    stage.until("tell VolumesAdopted");
    stage.follow();
    // As when the earlier StoreCluster was deleted between a removal and the vote of another.
    stage.list().retain(|member| member.id != Stage::id(2));
    let story = stage.rest();
    assert!(story.contains("tell MemberRemoved"), "{story}");
    let voted = story.find("promote 3 (13)").expect("another votes");
    assert!(voted < story.find("delete claim db-2-1").expect("deleted then"), "{story}");
}

#[test]
fn volumes_are_marked_before_their_members_are_remembered() {
    let mut stage = recreated(false);
    let annotations = &mut stage.observed.cluster.annotations;
    annotations.insert(names::ANNOTATION_EARLIER_VOLUMES.into(), "adopt".into());
    let story = stage.next();
    assert_eq!(story.matches("annotate claim").count(), 3, "{story}");
    assert_eq!(stage.observed.status.cluster_id, None, "a stale cache could have shown them");
    assert!(stage.next().contains("tell VolumesAdopted"));
}

#[test]
fn volumes_that_disagree_are_not_adopted() {
    let mut stage = recreated(false);
    stage
        .observed
        .cluster
        .annotations
        .insert(names::ANNOTATION_EARLIER_VOLUMES.into(), "adopt".into());
    let annotations = stage.observed.claims[1].metadata.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_CLUSTER_ID.to_owned(), "dead".to_owned());
    stage.rest();
    let message = stage.condition("EarlierVolumesFound").2;
    assert!(message.contains("another cluster id") && message.contains("discard"), "{message}");
}

#[test]
fn discarded_volumes_are_deleted_and_then_a_new_cluster_forms() {
    let mut stage = recreated(false);
    stage
        .observed
        .cluster
        .annotations
        .insert(names::ANNOTATION_EARLIER_VOLUMES.into(), "discard".into());
    let story = stage.rest();
    let deleted = story.find("delete claim db-2-1").expect("deleted");
    assert!(deleted < story.find("create claim db-0-1").expect("made anew"), "{story}");
    assert!(story.contains("tell Formed"));
}

fn delete(stage: &mut Stage, policy: RetentionPolicy) -> String {
    stage.cluster.spec.volume_retention =
        Some(VolumeRetention { when_scaled: None, when_deleted: Some(policy) });
    stage.observed.cluster.deleting = true;
    stage.until("remove finalizer")
}

#[test]
fn a_deleted_cluster_keeps_or_loses_its_volumes_as_asked_and_needs_no_quorum() {
    for policy in [RetentionPolicy::Retain, RetentionPolicy::Delete] {
        let mut stage = Stage::at_rest(3);
        stage.observed.membership =
            Membership::Unreachable { since: stage.observed.now, error: "no quorum".to_owned() };
        stage.observed.members.clear();
        let story = delete(&mut stage, policy);
        assert_eq!(story.matches("delete set").count(), 3, "{story}");
        assert!(!story.contains("warn"), "it is stopped on purpose: {story}");
        let kept = if policy == RetentionPolicy::Retain { 3 } else { 0 };
        assert_eq!(stage.observed.claims.len(), kept, "{story}");
        assert!(story.trim_end().ends_with("remove finalizer"), "{story}");
    }
}

#[test]
fn the_volume_of_a_member_that_never_was_one_is_not_kept() {
    let mut stage = Stage::at_rest(1);
    stage.cluster.spec.replicas = 3;
    stage.next();
    assert_eq!(stage.observed.claims.len(), 2, "the joiner's claim is made");
    delete(&mut stage, RetentionPolicy::Retain);
    assert_eq!(stage.observed.claims.len(), 1);
}

#[test]
fn pods_that_stop_slowly_keep_the_volumes_and_the_finalizer() {
    let mut stage = Stage::at_rest(1);
    stage.cluster.spec.volume_retention =
        Some(VolumeRetention { when_scaled: None, when_deleted: Some(RetentionPolicy::Delete) });
    stage.observed.cluster.deleting = true;
    stage.observed.stateful_sets.clear();
    stage.pod(0).metadata.deletion_timestamp = Some(long_ago());
    assert_eq!(stage.plan().actions, []);
}

#[test]
fn a_namespace_that_goes_takes_everything_and_nothing_is_made_or_waited_for() {
    let mut stage = Stage::at_rest(3);
    stage.observed.cluster.deleting = true;
    stage.observed.membership = Membership::NotAsked;
    stage.observed.members.clear();
    // Whatever goes first is not made again, and what is going is left to go.
    stage.observed.services.clear();
    stage.observed.budgets.clear();
    stage.observed.claims.remove(0);
    let sets = stage.observed.stateful_sets.iter_mut().map(|set| &mut set.metadata);
    let pods = stage.observed.pods.iter_mut().map(|pod| &mut pod.metadata);
    let claims = stage.observed.claims.iter_mut().map(|claim| &mut claim.metadata);
    for metadata in sets.chain(pods).chain(claims) {
        metadata.deletion_timestamp = Some(long_ago());
    }
    let says = |stage: &Stage| {
        let plan = stage.plan();
        assert!(plan.objects.is_empty() && plan.actions.is_empty(), "{}", told(&plan));
        plan.waiting[0].message.clone()
    };
    let message = says(&stage);
    assert!(message.contains("db-0-0, db-1-0, db-2-0 are still there"), "{message}");
    stage.observed.pods.clear();
    assert_eq!(says(&stage), "the members are being stopped");
    // Claims hold nothing up: with the pods they may go in any order.
    stage.observed.stateful_sets.clear();
    let plan = stage.plan();
    let finalizer = Action::RemoveFinalizer { uid: stage.observed.cluster.uid.clone() };
    assert_eq!((plan.objects.len(), plan.actions), (0, vec![finalizer]));
}
