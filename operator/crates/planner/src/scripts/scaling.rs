//! Scale out, scale in, and taking either back.

use crate::fixture::Stage;
use crate::observed::{MemberView, Membership, StoreMember};
use crate::reason::Reason;
use quorate_crds::{RetentionPolicy, UpdateStrategy, UpdateType, VolumeRetention};

fn reasons(stage: &Stage) -> Vec<Reason> {
    stage.plan().waiting.iter().map(|waiting| waiting.reason).collect()
}

#[test]
fn leadership_moves_off_the_member_of_the_highest_ordinal_before_it_leaves() {
    let mut stage = Stage::at_rest(3);
    stage.lead(2);
    stage.next();
    stage.cluster.spec.replicas = 2;
    let story = stage.rest();
    let order =
        ["move leader 12 -> 10", "remove voter 2 (12)", "delete set db-2", "delete claim db-2-1"];
    let places: Vec<_> = order
        .iter()
        .map(|line| story.find(line).unwrap_or_else(|| panic!("{line}: {story}")))
        .collect();
    assert!(places.is_sorted(), "{story}");
    assert!(story.contains("warn SizeWarning"), "an even size is warned about: {story}");
    assert!(story.contains("delete budget db-voters"), "{story}");
    assert_eq!(stage.observed.status.ready.as_deref(), Some("2/2"));
}

#[test]
fn leadership_goes_to_a_voter_that_need_not_hand_it_on_in_the_next_rollout() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.update_strategy =
        Some(UpdateStrategy { type_: Some(UpdateType::OnDelete), paused: false });
    stage.cluster.spec.version = "0.1.1".to_owned();
    stage.rest();
    stage.observed.pods.retain(|pod| pod.metadata.name.as_deref() != Some("db-1-0"));
    stage.rest();
    assert!(stage.condition("RestartPending").2.starts_with("db-0, db-2 run older settings"));
    stage.lead(2);
    stage.cluster.spec.replicas = 2;
    assert!(stage.rest().contains("move leader 12 -> 11"), "db-0 is as far and runs the old ones");
}

#[test]
fn five_become_one_and_ordinals_are_never_used_again() {
    let mut stage = Stage::at_rest(5);
    stage.cluster.spec.replicas = 1;
    let story = stage.rest();
    assert_eq!(story.matches("remove voter").count(), 4, "{story}");
    assert_eq!(stage.observed.claims.len(), 1);
    stage.cluster.spec.replicas = 2;
    let story = stage.rest();
    assert!(story.contains("add learner 5"), "{story}");
}

#[test]
fn all_is_as_wanted_only_once_the_last_step_is_done() {
    for (from, to) in [(5, 1), (1, 5)] {
        let mut stage = Stage::at_rest(from);
        stage.cluster.spec.replicas = to;
        let story = stage.rest();
        let told = story.lines().filter(|line| line.contains("Reconciled")).count();
        assert_eq!(told, 1, "from {from} to {to}: {story}");
    }
}

#[test]
fn a_retained_claim_is_marked_and_left() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.replicas = 2;
    stage.cluster.spec.volume_retention =
        Some(VolumeRetention { when_scaled: Some(RetentionPolicy::Retain), when_deleted: None });
    let story = stage.rest();
    assert!(!story.contains("delete claim"), "{story}");
    assert_eq!(stage.observed.claims.len(), 3);
}

#[test]
fn nobody_leaves_while_another_voter_is_down() {
    let mut stage = Stage::at_rest(5);
    stage.lose(0);
    stage.lead(1);
    stage.cluster.spec.replicas = 3;
    stage.rest();
    assert!(reasons(&stage).contains(&Reason::MemberDown), "{:?}", reasons(&stage));
    assert_eq!(stage.condition("Progressing").1, "MemberDown");
    assert_eq!(stage.condition("Degraded").1, "MemberDown");
}

#[test]
fn the_voter_that_has_long_been_gone_leaves_first() {
    let mut stage = Stage::at_rest(5);
    stage.lose(1);
    stage.later(61);
    stage.cluster.spec.replicas = 4;
    let story = stage.rest();
    assert!(story.contains("remove voter 1 (11)"), "{story}");
}

#[test]
fn a_member_missed_once_is_not_taken_for_gone() {
    let mut stage = Stage::at_rest(5);
    stage.lose(0);
    stage.lose(4);
    stage.lead(1);
    stage.cluster.spec.replicas = 4;
    stage.rest();
    assert!(reasons(&stage).contains(&Reason::MemberDown), "{:?}", reasons(&stage));
    stage.later(61);
    assert!(stage.rest().contains("remove voter 4 (14)"));
}

#[test]
fn no_removal_that_leaves_too_few_reachable_voters() {
    let mut stage = Stage::at_rest(3);
    stage.lose(0);
    stage.lead(1);
    stage.cluster.spec.replicas = 2;
    stage.next();
    // Without db-2 two voters would be left, of which one answers.
    assert!(stage.plan().actions.is_empty());
    assert!(reasons(&stage).contains(&Reason::QuorumAtRisk), "{:?}", reasons(&stage));
}

#[test]
fn a_join_is_taken_back_before_the_store_lists_it() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.replicas = 5;
    assert!(stage.next().contains("create claim db-3-1"));
    stage.cluster.spec.replicas = 3;
    let story = stage.rest();
    assert!(story.contains("delete claim db-3-1") && !story.contains("add learner"), "{story}");
    assert_eq!(stage.observed.status.operation, None);
    assert_eq!(stage.observed.status.next_ordinal, Some(4), "the ordinal is gone for ever");
}

#[test]
fn a_join_is_taken_back_while_its_learner_catches_up() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.replicas = 5;
    stage.until("apply StatefulSet db-3");
    stage.cluster.spec.replicas = 3;
    let story = stage.rest();
    assert!(story.contains("remove learner 3"), "{story}");
    assert!(!story.contains("promote"), "{story}");
    assert_eq!(stage.observed.stateful_sets.len(), 3);
}

#[test]
fn a_leave_is_taken_back_after_leadership_has_moved() {
    let mut stage = Stage::at_rest(3);
    stage.lead(2);
    stage.next();
    stage.cluster.spec.replicas = 2;
    stage.until("move leader");
    stage.cluster.spec.replicas = 3;
    let story = stage.rest();
    assert!(!story.contains("remove"), "{story}");
    assert_eq!(stage.observed.status.operation, None);
    assert_eq!(stage.observed.status.leader.as_deref(), Some("db-0"));
}

#[test]
fn a_late_answer_of_the_store_to_a_join_that_was_taken_back_is_cleared_away() {
    let mut stage = Stage::at_rest(3);
    let name = stage.desired().name;
    stage.list().push(StoreMember {
        id: 0x77,
        name: String::new(),
        peer_urls: vec![name.peer_url(3)],
        client_urls: Vec::new(),
        learner: true,
    });
    let story = stage.rest();
    assert!(story.contains("remove learner 3 (77)"), "{story}");
    assert_eq!(stage.list().len(), 3);
}

#[test]
fn a_learner_that_is_behind_is_not_promoted() {
    let mut stage = Stage::at_rest(1);
    stage.cluster.spec.replicas = 2;
    stage.until("apply StatefulSet db-1");
    if let Some(MemberView::Answered(leader)) = stage.observed.members.get_mut(&Stage::id(0)) {
        leader.raft_index = 1_000_000;
    }
    stage.rest();
    assert!(reasons(&stage).contains(&Reason::LearnerCatchingUp), "{:?}", reasons(&stage));
}

#[test]
fn a_learner_gets_no_vote_before_the_budget_is_raised() {
    let mut stage = Stage::at_rest(2);
    stage.cluster.spec.replicas = 3;
    assert!(!stage.until("apply PodDisruptionBudget").contains("promote"));
    // Somebody takes the budget away before the promotion.
    stage.observed.budgets.clear();
    assert!(!stage.next().contains("promote"));
    assert!(stage.next().contains("promote 2"));
}

#[test]
fn without_a_confirmed_list_nobody_joins_or_leaves() {
    for replicas in [1, 5] {
        let mut stage = Stage::at_rest(3);
        stage.observed.membership =
            Membership::Unreachable { since: stage.observed.now, error: "timed out".to_owned() };
        stage.cluster.spec.replicas = replicas;
        let plan = stage.plan();
        assert_eq!((plan.objects.len(), plan.actions.len()), (0, 0));
        assert_eq!(reasons(&stage), [Reason::MembershipUnknown]);
        assert_eq!(
            plan.status.expect("reported").members.len(),
            3,
            "absence of evidence shrinks nothing"
        );
    }
}

#[test]
fn members_that_are_not_ours_stop_every_change_of_membership() {
    let mut stage = Stage::at_rest(3);
    stage.list().push(StoreMember {
        id: 0x99,
        name: "mine".to_owned(),
        peer_urls: vec!["http://10.0.0.1:2380".to_owned()],
        client_urls: Vec::new(),
        learner: true,
    });
    stage.cluster.spec.replicas = 5;
    stage.rest();
    assert_eq!(stage.plan().actions, []);
    let (status, reason, message) = stage.condition("Degraded");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "ForeignMember"));
    assert!(message.contains("99"), "{message}");
}

#[test]
fn answers_of_another_cluster_are_not_acted_upon() {
    let mut stage = Stage::at_rest(3);
    let members = stage.list().clone();
    stage.observed.membership =
        Membership::Known { cluster_id: 0xbad, members: members[..1].to_vec() };
    stage.cluster.spec.replicas = 1;
    stage.rest();
    assert_eq!(stage.plan().actions, []);
    assert_eq!(stage.condition("Degraded").1, "ForeignCluster");
    assert_eq!(stage.observed.status.members.len(), 3);
}
