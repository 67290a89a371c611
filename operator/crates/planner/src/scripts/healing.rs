//! Children deleted and edited, pods lost, settings changed: what is brought back, and what is only
//! told.

use crate::fixture::{Stage, long_ago, told};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_crds::{StoreOptions, UpdateStrategy, UpdateType};

#[test]
fn deleted_children_come_back() {
    let mut stage = Stage::at_rest(3);
    stage.observed.stateful_sets.remove(1);
    stage.observed.services.clear();
    stage.observed.budgets.clear();
    let story = stage.rest();
    for line in [
        "apply StatefulSet db-1",
        "apply Service db-peers",
        "apply Service db-client",
        "apply PodDisruptionBudget db-voters",
    ] {
        assert!(story.contains(line), "{line}: {story}");
    }
}

#[test]
fn edited_children_are_put_right_and_only_they() {
    let mut stage = Stage::at_rest(3);
    let spec = stage.observed.stateful_sets[2].spec.as_mut().expect("built");
    spec.replicas = Some(0);
    assert_eq!(told(&stage.plan()), "apply StatefulSet db-2\n");
    stage.next();
    let spec = stage.observed.budgets[0].spec.as_mut().expect("built");
    spec.min_available = Some(IntOrString::Int(0));
    assert_eq!(told(&stage.plan()), "apply PodDisruptionBudget db-voters\n");
    stage.next();
    stage.pod(1).metadata.labels.get_or_insert_default().remove("quorate.dev/role");
    assert_eq!(told(&stage.plan()), "label pod db-1-0\n");
}

#[test]
fn a_child_of_somebody_else_is_left_alone() {
    let mut stage = Stage::at_rest(1);
    stage.observed.services[0].metadata.owner_references = None;
    stage.observed.services[0].spec = None;
    let plan = stage.plan();
    assert_eq!((plan.objects.len(), plan.actions.len()), (0, 0));
    stage.rest();
    assert_eq!(stage.condition("Degraded").1, "NameTaken");
}

#[test]
fn a_child_that_is_going_away_is_waited_for() {
    let mut stage = Stage::at_rest(1);
    stage.observed.stateful_sets[0].metadata.deletion_timestamp = Some(long_ago());
    stage.observed.stateful_sets[0].spec.as_mut().expect("built").replicas = Some(0);
    assert_eq!(stage.plan().objects.len(), 0);
}

#[test]
fn on_delete_changed_settings_restart_nothing_and_name_the_members() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.update_strategy =
        Some(UpdateStrategy { type_: Some(UpdateType::OnDelete), paused: false });
    stage.cluster.spec.options =
        Some(StoreOptions { heartbeat_interval: Some(50), ..StoreOptions::default() });
    let story = stage.rest();
    assert_eq!(story.matches("apply StatefulSet").count(), 3, "{story}");
    assert!(story.contains("tell RestartPending") && !story.contains("restart pod"), "{story}");
    let (status, reason, message) = stage.condition("RestartPending");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "SettingsChanged"));
    assert!(message.starts_with("db-0, db-1, db-2 run older settings"), "{message}");
    // A pod that is deleted by hand comes back with the new ones.
    stage.observed.pods.retain(|pod| pod.metadata.name.as_deref() != Some("db-1-0"));
    stage.follow();
    stage.rest();
    assert!(stage.condition("RestartPending").2.starts_with("db-0, db-2 "));
}

#[test]
fn a_promotion_is_no_change_of_settings() {
    let mut stage = Stage::at_rest(3);
    assert_eq!(stage.condition("RestartPending").0, "False");
    assert_eq!(stage.pod(2).metadata.labels.clone().expect("built")["quorate.dev/role"], "voter");
}

#[test]
fn a_member_that_is_down_is_told_once_and_keeps_its_place() {
    let mut stage = Stage::at_rest(3);
    stage.lose(2);
    let story = stage.rest();
    assert_eq!(story, "warn MemberDown\n--\n");
    let available = stage.condition("Available");
    assert_eq!(available.0, "True", "two of three serve");
    assert_eq!(stage.observed.status.ready.as_deref(), Some("2/3"));
    stage.later(1_000_000);
    assert!(stage.plan().is_empty(), "being unreachable never counts: {:?}", stage.plan());
}

#[test]
fn a_lost_quorum_removes_nobody() {
    let mut stage = Stage::at_rest(3);
    for ordinal in [1, 2] {
        stage.lose(ordinal);
    }
    for view in stage.observed.members.values_mut() {
        if let crate::observed::MemberView::Answered(answer) = view {
            answer.leader = None;
        }
    }
    stage.observed.membership = crate::observed::Membership::Unreachable {
        since: stage.observed.now,
        error: "no leader".to_owned(),
    };
    stage.cluster.spec.replicas = 1;
    let story = stage.rest();
    assert_eq!(story, "warn QuorumLost\nwarn QuorumLost\n--\n");
    stage.later(1_000_000);
    assert_eq!(stage.plan().actions, []);
    assert_eq!(stage.condition("QuorumHealthy").1, "QuorumLost");
}

#[test]
fn an_operator_that_is_cut_off_says_so_of_itself_and_changes_nothing() {
    let mut stage = Stage::at_rest(3);
    let answers = stage.observed.members.clone();
    let list = stage.observed.membership.clone();
    for ordinal in [0, 1] {
        stage.lose_view(ordinal);
    }
    let (since, error) = (stage.observed.now, "no answer".to_owned());
    stage.observed.membership = crate::observed::Membership::Unreachable { since, error };
    stage.cluster.spec.replicas = 1;
    let story = stage.rest();
    assert_eq!(story, "warn MembersUnseen\nwarn MembersUnseen\n--\n");
    let words = "the operator reaches 1 of 3 voters, while their kubelets call 3 of them ready: nothing \
                 is changed until it reaches them; look at the network";
    for (type_, status) in
        [("Available", "Unknown"), ("QuorumHealthy", "Unknown"), ("Degraded", "True")]
    {
        let said = stage.condition(type_);
        assert_eq!((said.0.as_str(), said.1.as_str()), (status, "MembersUnseen"), "{type_}");
        assert!(said.2.starts_with(words), "{type_}: {}", said.2);
    }
    stage.later(1_000_000);
    assert_eq!(stage.plan().actions, []);
    // One of them is not ready either: two that are make a quorum. Without the second there is none.
    for (ordinal, reason) in [(0, "MembersUnseen"), (1, "QuorumLost")] {
        stage.lose(ordinal);
        stage.rest();
        assert_eq!(stage.condition("QuorumHealthy").1, reason, "{ordinal}");
        assert_eq!(stage.condition("Degraded").1, reason, "{ordinal}");
    }
    assert_eq!(stage.condition("Available").0, "False");
    stage.cluster.spec.replicas = 3;
    for ordinal in [0, 1] {
        stage.pod(ordinal).status = Some(crate::fixture::ready());
    }
    (stage.observed.members, stage.observed.membership) = (answers, list);
    let story = stage.rest();
    assert!(story.contains("tell Available") && story.contains("tell Recovered"), "{story}");
}

#[test]
fn a_voter_that_is_cut_off_from_its_peers_is_told_and_an_election_is_not() {
    let mut stage = Stage::at_rest(3);
    stage.answer(2).leader = None;
    assert_eq!(stage.rest(), "", "it may be electing");
    assert_eq!(stage.condition("Degraded").1, "AsExpected");
    stage.pod(2).status = Some(k8s_openapi::api::core::v1::PodStatus::default());
    let story = stage.rest();
    assert_eq!(story.matches("warn MemberDown").count(), 1, "{story}");
    let (_, reason, message) = stage.condition("Degraded");
    assert_eq!(reason, "MemberDown");
    let words = "db-2 answers, but follows no leader: look at the network between it and the other \
                 members";
    assert_eq!(message, words);
    assert_eq!(stage.condition("Available").0, "True", "the others go on");
    // While nobody leads at all it is not the one member that is cut off.
    for ordinal in [0, 1] {
        stage.answer(ordinal).leader = None;
    }
    stage.rest();
    assert_eq!(stage.condition("Degraded").1, "AsExpected");
    assert_eq!(stage.condition("Available").1, "NoLeader");
}

#[test]
fn a_condition_that_stays_keeps_its_time() {
    let mut stage = Stage::at_rest(3);
    let before = stage.observed.status.conditions.clone();
    stage.later(100);
    stage.cluster.spec.replicas = 4;
    stage.observed.cluster.generation = 2;
    stage.next();
    for condition in &stage.observed.status.conditions {
        let earlier = before.iter().find(|c| c.type_ == condition.type_).expect("reported before");
        assert_eq!(condition.observed_generation, Some(2));
        let kept = earlier.last_transition_time == condition.last_transition_time;
        assert_eq!(kept, earlier.status == condition.status, "{}", condition.type_);
    }
}
