//! Lost members: what is evidence and what is not, who is replaced, in which order, and what is only
//! told.

use crate::action::Action;
use crate::fixture::{Stage, long_ago, ready, terminated};
use crate::limits::{JOIN_LIMIT, STOP_LIMIT};
use crate::observed::{Membership, NodeView, Nodes};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus,
    PersistentVolumeClaimStatus, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use quorate_crds::{AntiAffinity, MemberRole, OperationKind, Recovery, Scheduling};

/// The steps of a story that change the membership or stop somebody.
fn acts(story: &str) -> Vec<&str> {
    let telling = ["add", "promote", "stop", "remove", "move", "disarm"];
    story.lines().filter(|line| telling.iter().any(|word| line.starts_with(word))).collect()
}

/// Whether a story changes no membership and prepares none.
fn nothing(story: &str) -> bool {
    acts(story).is_empty() && !story.contains("create")
}

/// In which order these lines stand in a story.
fn in_order(story: &str, lines: &[&str]) {
    let places: Vec<_> = lines
        .iter()
        .map(|line| story.find(line).unwrap_or_else(|| panic!("{line} is not in\n{story}")))
        .collect();
    assert!(places.is_sorted(), "{lines:?} in\n{story}");
}

/// The server of a member does not come up, and says why.
fn refuse(stage: &mut Stage, ordinal: i32, verdict: &str) {
    stage.lose(ordinal);
    let message = format!("{{\"verdict\":\"{verdict}\",\"message\":\"\"}}");
    let statuses = Some(vec![terminated(&message)]);
    stage.pod(ordinal).status =
        Some(PodStatus { container_statuses: statuses, ..PodStatus::default() });
}

/// These nodes there are, beside those that the stage gave to each member.
fn nodes(stage: &mut Stage, views: &[(&str, NodeView)]) {
    let Nodes::Seen(seen) = &mut stage.observed.nodes else { panic!("the stage sees its nodes") };
    seen.retain(|name, _view| name.starts_with("node-of-"));
    seen.extend(views.iter().map(|(name, view)| ((*name).to_owned(), *view)));
}

/// db-2 runs on a node of its own.
fn apart() -> Stage {
    let mut stage = Stage::at_rest(3);
    stage.pod(2).spec.as_mut().expect("built").node_name = Some("n2".to_owned());
    both_ready(&mut stage);
    stage.rest();
    stage
}

fn both_ready(stage: &mut Stage) {
    nodes(stage, &[("n1", NodeView::default()), ("n2", NodeView::default())]);
}

/// A node that has been not ready for so long.
fn unready(stage: &Stage, seconds: i64) -> NodeView {
    let since = stage.observed.now - SignedDuration::from_secs(seconds);
    NodeView { unready_since: Some(since), out_of_service: false }
}

fn recovery(stage: &mut Stage, after: &str) {
    stage.cluster.spec.recovery = Some(Recovery { replace_after: Some(after.to_owned()) });
}

#[test]
fn a_claim_that_goes_is_made_up_for_by_a_new_member_before_the_old_one_leaves() {
    for what in ["gone", "being deleted", "lost", "another"] {
        let mut stage = Stage::at_rest(3);
        let claim = &mut stage.observed.claims[1];
        match what {
            "gone" => drop(stage.observed.claims.remove(1)),
            "being deleted" => claim.metadata.deletion_timestamp = Some(long_ago()),
            "lost" => {
                let phase = Some("Lost".to_owned());
                let status = PersistentVolumeClaimStatus { phase, ..Default::default() };
                claim.status = Some(status);
            }
            _another => claim.metadata.uid = Some("another".to_owned()),
        }
        stage.next();
        let (degraded, reason, message) = stage.condition("Degraded");
        assert_eq!((degraded.as_str(), reason.as_str()), ("True", "VolumeLost"), "{what}");
        assert!(message.contains("db-1 has lost its volume (the claim db-1-1 is"), "{message}");
        let story = stage.rest();
        let expected = [
            "add learner 3 http://db-3-0.db-peers.prod.svc:2380",
            "promote 3 (13)",
            "stop member db-1",
            "remove voter 1 (11)",
        ];
        assert_eq!(acts(&story), expected, "{what}: {story}");
        in_order(&story, &["remove voter 1 (11)", "delete set db-1"]);
        assert_eq!(stage.observed.status.ready.as_deref(), Some("3/3"), "{what}");
        assert_eq!(stage.condition("Degraded").0, "False", "{what}");
        let made = story.matches("create claim").count();
        assert_eq!(made, 0, "{what}: the claim of db-3 was made first, and no other: {story}");
    }
}

#[test]
fn leadership_moves_off_a_member_whose_volume_goes_before_anything_else() {
    let mut stage = Stage::at_rest(3);
    stage.observed.claims[0].metadata.deletion_timestamp = Some(long_ago());
    let story = stage.rest();
    assert_eq!(acts(&story)[0], "move leader 10 -> 11", "{story}");
    in_order(&story, &["move leader", "create claim db-3-1", "promote 3", "stop member db-0"]);
    assert!(story.contains("remove voter 0 (10)"), "{story}");
    assert_eq!(stage.observed.status.leader.as_deref(), Some("db-1"));
}

#[test]
fn a_server_that_cannot_go_on_with_its_data_is_replaced_and_needs_no_stopping() {
    for verdict in ["Empty", "Corrupt", "Removed"] {
        let mut stage = Stage::at_rest(3);
        stage.lead(1);
        refuse(&mut stage, 0, verdict);
        assert!(stage.next().contains("warn MemberRefuses"));
        assert_eq!(stage.observed.status.members[0].verdict.as_deref(), Some(verdict));
        assert!(stage.condition("Degraded").2.contains(verdict), "{verdict}");
        // The verdict dies with its pod, and is remembered.
        stage.pod(0).status = Some(PodStatus::default());
        let story = stage.rest();
        in_order(&story, &["promote 3 (13)", "remove voter 0 (10)", "delete claim db-0-1"]);
        assert!(!story.contains("stop member"), "{story}");
        assert!(!story.contains("create job"), "an empty volume forms nothing: {story}");
    }
}

#[test]
fn data_that_are_whole_but_of_no_use_here_are_a_persons_to_judge() {
    for verdict in ["ForeignCluster", "FormatTooNew", "Configuration", "DiskFailed"] {
        let mut stage = Stage::at_rest(3);
        stage.lead(1);
        refuse(&mut stage, 0, verdict);
        stage.later(1_000_000);
        let story = stage.rest();
        assert!(nothing(&story), "{verdict}: {story}");
        let known = ["ForeignCluster", "FormatTooNew"].contains(&verdict);
        let told = if known { "MemberRefuses" } else { "MemberDown" };
        assert_eq!(stage.condition("Degraded").1, told, "{verdict}");
    }
}

#[test]
fn a_verdict_is_void_once_the_server_answers_and_while_it_runs_again() {
    let mut stage = Stage::at_rest(3);
    stage.lead(1);
    // It said Corrupt, was started again, and runs.
    stage.lose(0);
    let mut container = terminated("{\"verdict\":\"Corrupt\",\"message\":\"\"}");
    container.last_state = container.state.take();
    container.state = Some(ContainerState {
        running: Some(ContainerStateRunning::default()),
        ..ContainerState::default()
    });
    let runs = PodStatus {
        phase: Some("Running".to_owned()),
        container_statuses: Some(vec![container]),
        ..PodStatus::default()
    };
    stage.pod(0).status = Some(runs);
    let story = stage.rest();
    assert!(nothing(&story), "{story}");
    assert_eq!(stage.observed.status.members[0].verdict, None);
    // One that was noted before ends with the first answer.
    stage.observed.status.members[0].verdict = Some("Corrupt".to_owned());
    stage.observed.members.remove(&Stage::id(0));
    stage.follow();
    assert!(nothing(&stage.next()));
    assert_eq!(stage.observed.status.members[0].verdict, None);
}

#[test]
fn being_unreachable_and_crashing_are_no_evidence() {
    for crashes in [false, true] {
        let mut stage = Stage::at_rest(3);
        stage.lose(2);
        if crashes {
            let ended = ContainerStateTerminated { exit_code: 137, ..Default::default() };
            let state = ContainerState { terminated: Some(ended), ..ContainerState::default() };
            let container = ContainerStatus {
                name: crate::naming::CONTAINER.to_owned(),
                restart_count: 99,
                state: Some(state),
                ..ContainerStatus::default()
            };
            stage.pod(2).status = Some(PodStatus {
                container_statuses: Some(vec![container]),
                ..PodStatus::default()
            });
        }
        stage.later(10_000_000);
        let story = stage.rest();
        assert!(nothing(&story), "{story}");
        assert_eq!(stage.condition("Degraded").1, "MemberDown");
    }
}

fn accuse(stage: &mut Stage, ids: &[u64]) {
    let errors: Vec<_> = ids.iter().map(|id| format!("memberID:{id} alarm:CORRUPT")).collect();
    for ordinal in 0..3 {
        if stage.observed.answer(Stage::id(ordinal)).is_some() {
            stage.answer(ordinal).errors = errors.clone();
        }
        // By contract nobody is ready while it stands.
        stage.pod(ordinal).status =
            Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() });
    }
}

#[test]
fn whom_the_store_accuses_is_out_first_and_its_claim_stays_until_another_votes() {
    let mut stage = Stage::at_rest(3);
    accuse(&mut stage, &[Stage::id(2)]);
    stage.next();
    assert_eq!(stage.condition("Available").1, "CorruptAlarm");
    assert_eq!(stage.condition("Degraded").1, "CorruptAlarm");
    assert!(stage.condition("Degraded").2.contains("db-2 holds other data"));
    let mut story = stage.until("disarm CORRUPT of 12");
    assert!(!story.contains("add learner"), "{story}");
    for ordinal in 0..2 {
        stage.pod(ordinal).status = Some(ready());
    }
    story.push_str(&stage.rest());
    let expected = [
        "remove voter 2 (12)",
        "disarm CORRUPT of 12",
        "add learner 3 http://db-3-0.db-peers.prod.svc:2380",
        "promote 3 (13)",
    ];
    assert_eq!(acts(&story), expected, "{story}");
    in_order(&story, &["promote 3 (13)", "delete claim db-2-1"]);
    assert_eq!(stage.observed.status.ready.as_deref(), Some("3/3"));
    assert_eq!(stage.observed.status.members.len(), 3);
}

#[test]
fn an_accused_leader_hands_over_and_is_stopped_before_it_is_removed() {
    let mut stage = Stage::at_rest(3);
    accuse(&mut stage, &[Stage::id(0)]);
    let story = stage.until("disarm");
    let expected =
        ["move leader 10 -> 11", "stop member db-0", "remove voter 0 (10)", "disarm CORRUPT of 10"];
    assert_eq!(acts(&story), expected, "{story}");
}

#[test]
fn without_a_majority_that_is_not_accused_nobody_knows_who_is_right() {
    for ids in [vec![Stage::id(0), Stage::id(1)], vec![0]] {
        let mut stage = Stage::at_rest(3);
        accuse(&mut stage, &ids);
        let story = stage.rest();
        assert!(nothing(&story), "{ids:?}: {story}");
        let (_, reason, message) = stage.condition("Degraded");
        assert_eq!(reason, "CorruptAlarm");
        assert!(message.contains("no majority"), "{message}");
    }
    let mut two = Stage::at_rest(2);
    two.answer(0).errors = vec![format!("memberID:{} alarm:CORRUPT", Stage::id(1))];
    assert!(nothing(&two.rest()), "one against one");
}

#[test]
fn a_node_that_was_deleted_counts_once_its_member_is_surely_gone() {
    let mut stage = apart();
    nodes(&mut stage, &[("n1", NodeView::default())]);
    assert!(nothing(&stage.rest()), "a member that answers is not lost");
    stage.lose(2);
    assert!(nothing(&stage.rest()), "it may be on its way elsewhere");
    stage.later(61);
    let story = stage.rest();
    in_order(&story, &["promote 3 (13)", "remove voter 2 (12)"]);
    assert!(story.contains("warn NodeLost"), "{story}");
}

#[test]
fn a_drained_member_that_finds_another_node_is_not_lost_with_the_old_one() {
    let mut stage = apart();
    stage.lose(2);
    nodes(&mut stage, &[("n1", NodeView::default())]);
    stage.pod(2).spec.as_mut().expect("built").node_name = Some("n1".to_owned());
    stage.later(1_000_000);
    assert!(nothing(&stage.rest()));
    // It is told by the pod's node, not by the one that the status remembers.
    assert_eq!(stage.observed.status.members[2].node.as_deref(), Some("n1"));
}

#[test]
fn a_node_that_somebody_vouches_to_be_out_of_service_counts_at_once() {
    let mut stage = apart();
    stage.lose(2);
    let view = NodeView { out_of_service: true, ..unready(&stage, 1) };
    nodes(&mut stage, &[("n1", NodeView::default()), ("n2", view)]);
    in_order(&stage.rest(), &["promote 3 (13)", "remove voter 2 (12)"]);
}

#[test]
fn a_node_that_is_not_ready_counts_only_by_choice_and_after_the_time_chosen() {
    let mut stage = apart();
    stage.lose(2);
    stage.later(1_000_000);
    let view = unready(&stage, 290);
    nodes(&mut stage, &[("n1", NodeView::default()), ("n2", view)]);
    let story = stage.rest();
    assert!(nothing(&story), "{story}");
    let (_, reason, message) = stage.condition("Degraded");
    assert_eq!(reason, "NodeLost");
    for way in ["spec.recovery.replaceAfter", "node.kubernetes.io/out-of-service"] {
        assert!(message.contains(way), "{message}");
    }
    recovery(&mut stage, "5m");
    assert!(nothing(&stage.rest()), "290 seconds are not five minutes");
    stage.later(10);
    let story = stage.rest();
    in_order(&story, &["promote 3 (13)", "remove voter 2 (12)"]);
}

#[test]
fn a_node_that_comes_back_while_another_joins_keeps_its_member() {
    let mut stage = apart();
    recovery(&mut stage, "1m");
    stage.lose(2);
    stage.later(1_000);
    let view = unready(&stage, 100);
    nodes(&mut stage, &[("n1", NodeView::default()), ("n2", view)]);
    stage.until("apply StatefulSet db-3");
    both_ready(&mut stage);
    stage.pod(2).status = Some(ready());
    stage.observed.members.remove(&Stage::id(2));
    let story = stage.rest();
    assert_eq!(acts(&story), ["remove learner 3 (13)"], "{story}");
    assert_eq!(stage.observed.status.members.len(), 3);
}

#[test]
fn a_pod_that_nobody_can_stop_holds_up_nothing() {
    let mut stage = apart();
    stage.lose(2);
    let view = NodeView { out_of_service: true, ..unready(&stage, 1) };
    nodes(&mut stage, &[("n1", NodeView::default()), ("n2", view)]);
    stage.until("delete set db-2");
    // The kubelet is gone: the pod stays.
    let mut pod = stage.observed.pods[0].clone();
    pod.metadata.name = Some("db-2-0".to_owned());
    pod.metadata.deletion_timestamp = Some(long_ago());
    pod.spec.as_mut().expect("built").node_name = Some("n2".to_owned());
    stage.observed.pods.push(pod);
    stage.cluster.spec.replicas = 4;
    let story = stage.rest();
    assert!(story.contains("promote 4 (14)"), "{story}");
    assert!(!story.contains("delete claim db-2-1"), "it may still be written to: {story}");
    let left = stage.observed.status.members.iter().find(|member| member.ordinal == 2);
    assert_eq!(left.map(|member| member.role), Some(MemberRole::Removed));
    stage.observed.pods.retain(|pod| pod.metadata.name.as_deref() != Some("db-2-0"));
    assert!(stage.rest().contains("delete claim db-2-1"));
}

#[test]
fn nodes_that_cannot_be_read_are_told_to_who_waits_for_them() {
    let mut stage = apart();
    stage.observed.nodes = Nodes::Unseen { error: "nodes is forbidden".to_owned() };
    recovery(&mut stage, "1m");
    assert_eq!(stage.rest(), "", "while nobody is silent there is nothing to tell");
    stage.lose(2);
    stage.later(1_000);
    assert!(nothing(&stage.rest()));
    let (_, reason, message) = stage.condition("Degraded");
    assert_eq!(reason, "NodesUnreadable");
    assert!(message.contains("nodes is forbidden"), "{message}");
}

#[test]
fn a_pod_that_nobody_stops_on_nodes_that_cannot_be_read_is_told_with_the_way_out() {
    let mut stage = apart();
    stage.observed.nodes = Nodes::Unseen { error: "nodes is forbidden".to_owned() };
    stage.lose(2);
    stage.later(1_000);
    stage.rest();
    assert_eq!(stage.condition("Degraded").1, "MemberDown", "it may come back");
    stage.pod(2).metadata.deletion_timestamp = Some(Time(stage.observed.now));
    assert_eq!(stage.rest(), "", "it has its time to stop");
    stage.later(STOP_LIMIT.as_secs().try_into().expect("small"));
    let story = stage.rest();
    assert!(acts(&story).is_empty() && story.contains("warn NodesUnreadable"), "{story}");
    let message = stage.condition("Degraded").2;
    for part in ["db-2 cannot be reached", "nodes is forbidden", "out-of-service", "its claim"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // One of the ways: the claim of a volume that is tied to the node.
    stage.observed.pods.retain(|pod| pod.metadata.name.as_deref() != Some("db-2-0"));
    stage.observed.claims.retain(|claim| claim.metadata.name.as_deref() != Some("db-2-1"));
    assert!(stage.until("remove voter").contains("promote 3 (13)"));
}

/// A stage whose joiner never answers.
fn with_a_silent_joiner() -> Stage {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.replicas = 4;
    stage.until("apply StatefulSet db-3");
    stage.lose(3);
    stage.rest();
    stage
}

#[test]
fn a_joiner_without_progress_is_given_up_and_the_next_one_gets_twice_the_time() {
    let limit = i64::try_from(JOIN_LIMIT.as_secs()).expect("small");
    let mut stage = with_a_silent_joiner();
    stage.later(limit - 1);
    assert!(nothing(&stage.rest()));
    stage.later(1);
    let story = stage.until("apply StatefulSet db-4");
    in_order(&story, &["warn JoinerGivenUp", "remove learner 3 (13)", "add learner 4"]);
    assert_eq!(story.matches("JoinerGivenUp").count(), 1, "{story}");
    assert!(story.contains("delete claim db-3-1"), "{story}");
    assert_eq!(stage.observed.status.joins_given_up, Some(1));
    stage.lose(4);
    stage.later(2 * limit - 1);
    assert!(nothing(&stage.rest()), "not so soon again");
    assert_eq!(stage.condition("Degraded").1, "JoinerStuck");
    stage.later(1);
    assert_eq!(acts(&stage.rest())[0], "remove learner 4 (14)");
    assert_eq!(stage.observed.status.joins_given_up, None, "db-5 was promoted");
    assert_eq!(stage.condition("Degraded").0, "False");
}

#[test]
fn a_joiner_is_not_given_up_for_what_the_others_lack() {
    let mut stage = with_a_silent_joiner();
    stage.lose(1);
    stage.later(1_000_000);
    assert!(nothing(&stage.rest()));
}

#[test]
fn a_joiner_that_stands_still_behind_the_leader_is_stuck_and_one_that_is_level_is_not() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.replicas = 4;
    stage.until("apply StatefulSet db-3");
    // The budget is not raised, so that it is not promoted either way.
    stage.follow();
    stage.answer(3).stalled_for = JOIN_LIMIT;
    stage.answer(0).raft_index = 1_000_000;
    assert!(stage.next().contains("warn JoinerGivenUp"));
    stage.answer(0).raft_index = stage.answer(3).applied_index;
    assert!(stage.rest().contains("promote 3"), "it moves again, and is taken after all");
}

#[test]
fn pods_that_have_ended_are_deleted_without_a_quorum_and_nobody_is_replaced() {
    for phase in ["Failed", "Succeeded"] {
        let mut stage = Stage::at_rest(3);
        for ordinal in 0..3 {
            stage.lose(ordinal);
            stage.pod(ordinal).status =
                Some(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() });
        }
        stage.observed.membership =
            Membership::Unreachable { since: stage.observed.now, error: "silence".to_owned() };
        let story = stage.next();
        assert_eq!(story.matches("delete ended pod").count(), 3, "{story}");
        // With their disks whole they come back by themselves.
        stage.observed.membership = Membership::NotAsked;
        stage.observed.members.clear();
        let story = stage.rest();
        assert!(nothing(&story), "{story}");
        assert_eq!(stage.observed.status.ready.as_deref(), Some("3/3"));
    }
}

#[test]
fn a_verdict_is_noted_before_its_ended_pod_is_deleted() {
    let mut stage = Stage::at_rest(3);
    refuse(&mut stage, 2, "Corrupt");
    stage.pod(2).status.as_mut().expect("given").phase = Some("Failed".to_owned());
    let plan = stage.plan();
    assert!(plan.actions.iter().any(|action| matches!(action, Action::DeletePod(_))));
    let status = plan.status.expect("written before the act");
    assert_eq!(status.members[2].verdict.as_deref(), Some("Corrupt"));
}

#[test]
fn of_two_lost_members_one_is_replaced_after_the_other() {
    let mut stage = Stage::at_rest(5);
    stage.observed.claims[1].metadata.deletion_timestamp = Some(long_ago());
    refuse(&mut stage, 3, "Empty");
    let story = stage.rest();
    let expected = [
        "add learner 5 http://db-5-0.db-peers.prod.svc:2380",
        "promote 5 (15)",
        "remove voter 3 (13)",
        "add learner 6 http://db-6-0.db-peers.prod.svc:2380",
        "promote 6 (16)",
        "stop member db-1",
        "remove voter 1 (11)",
    ];
    // Whose claim goes is seen first; who is out already goes first all the same.
    assert_eq!(acts(&story), expected, "{story}");
}

/// A stage in which db-1 of five, whose claim goes, is about to be stopped, as another has joined.
fn about_to_stop() -> Stage {
    let mut stage = Stage::at_rest(5);
    stage.observed.claims[1].metadata.deletion_timestamp = Some(long_ago());
    stage.until("apply PodDisruptionBudget db");
    stage.until("promote 5 (15)");
    stage.next();
    let plan = stage.plan();
    assert!(matches!(plan.actions[..], [Action::StopMember { ordinal: 1, .. }]), "{plan:?}");
    let remembered = stage.observed.status.operation.as_ref().map(|it| (it.kind, it.ordinal));
    assert_eq!(remembered, Some((OperationKind::Leave, 1)));
    stage
}

/// The claim of db-3 goes too, and it falls silent.
fn lose_another(stage: &mut Stage) {
    stage.lose(3);
    stage.observed.claims[3].metadata.deletion_timestamp = Some(long_ago());
}

#[test]
fn who_is_lost_and_serves_gives_way_to_one_that_is_lost_and_silent_while_nobody_is_stopped() {
    let mut stage = about_to_stop();
    lose_another(&mut stage);
    let story = stage.until("remove voter 3 (13)");
    assert_eq!(acts(&story), ["remove voter 3 (13)"], "{story}");
    let story = stage.rest();
    let expected = [
        "add learner 6 http://db-6-0.db-peers.prod.svc:2380",
        "promote 6 (16)",
        "stop member db-1",
        "remove voter 1 (11)",
    ];
    assert_eq!(acts(&story), expected, "{story}");
    assert_eq!(stage.observed.status.ready.as_deref(), Some("5/5"));
}

#[test]
fn who_was_chosen_in_its_place_stays_so_when_it_answers_again() {
    let mut stage = about_to_stop();
    let (pod, answer) = (stage.pod(3).clone(), stage.observed.members[&Stage::id(3)].clone());
    lose_another(&mut stage);
    stage.observed.status = stage.plan().status.expect("another leaves");
    *stage.pod(3) = pod;
    stage.observed.members.insert(Stage::id(3), answer);
    let story = stage.until("remove voter");
    assert_eq!(acts(&story), ["stop member db-3", "remove voter 3 (13)"], "{story}");
}

#[test]
fn who_was_stopped_already_goes_first_although_another_is_lost_and_silent() {
    let mut stage = about_to_stop();
    let mut draining = stage.pod(1).clone();
    let answer = stage.observed.members[&Stage::id(1)].clone();
    assert!(stage.next().contains("stop member db-1"));
    draining.metadata.deletion_timestamp = Some(Time(stage.observed.now));
    stage.observed.pods.push(draining);
    stage.observed.members.insert(Stage::id(1), answer);
    lose_another(&mut stage);
    let story = stage.next();
    assert!(acts(&story).is_empty() && !story.contains("apply StatefulSet db-1"), "{story}");
    stage.lose_view(1);
    let story = stage.until("remove voter");
    assert_eq!(acts(&story), ["remove voter 1 (11)"], "{story}");
}

#[test]
fn a_lost_member_that_nobody_wants_is_not_replaced() {
    let mut stage = Stage::at_rest(3);
    refuse(&mut stage, 1, "Empty");
    stage.next();
    stage.cluster.spec.replicas = 2;
    let story = stage.rest();
    assert_eq!(acts(&story), ["remove voter 1 (11)"], "{story}");
}

#[test]
fn the_only_voter_is_replaced_while_it_serves_and_never_after() {
    let mut stage = Stage::at_rest(1);
    stage.observed.claims[0].metadata.deletion_timestamp = Some(long_ago());
    let story = stage.rest();
    in_order(&story, &["promote 1 (11)", "move leader 10 -> 11", "remove voter 0 (10)"]);
    let mut stage = Stage::at_rest(1);
    refuse(&mut stage, 0, "Empty");
    stage.observed.membership =
        Membership::Unreachable { since: stage.observed.now, error: "silence".to_owned() };
    stage.later(1_000_000);
    let story = stage.rest();
    assert!(acts(&story).is_empty() && !story.contains("create"), "{story}");
    let (status, reason, message) = stage.condition("QuorumHealthy");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "AllMembersLost"));
    assert!(message.contains("its server says Empty"), "{message}");
    assert!(message.contains("known up to term 1, index 100"), "{message}");
}

#[test]
fn a_lost_quorum_is_told_with_what_is_known_of_each_and_nothing_is_done() {
    let mut stage = Stage::at_rest(3);
    refuse(&mut stage, 0, "Corrupt");
    stage.lose(1);
    stage.observed.claims.remove(1);
    stage.answer(2).leader = None;
    stage.observed.membership =
        Membership::Unreachable { since: stage.observed.now, error: "no leader".to_owned() };
    let story = stage.rest();
    assert!(acts(&story).is_empty() && !story.contains("create"), "{story}");
    let (_, reason, message) = stage.condition("Degraded");
    assert_eq!(reason, "QuorumLost");
    for part in [
        "db-0 does not start on its data (its server says Corrupt), known up to term 1, index 100",
        "db-1 has lost its volume (the claim db-1-1 is gone), known up to",
        "db-2 answers, known up to term 1, index 100",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn why_voters_are_silent_is_told_as_far_as_their_pods_show_it() {
    let mut stage = Stage::at_rest(3);
    stage.observed.membership =
        Membership::Unreachable { since: stage.observed.now, error: "silence".to_owned() };
    for ordinal in 0..3 {
        stage.lose(ordinal);
    }
    // As a server does whose directory was wiped, or whose volume came back empty.
    stage.pod(0).status =
        Some(PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() });
    stage.pod(1).metadata.deletion_timestamp = Some(long_ago());
    let story = stage.rest();
    assert!(acts(&story).is_empty() && !story.contains("create"), "{story}");
    let (_, reason, message) = stage.condition("QuorumHealthy");
    assert_eq!(reason, "QuorumLost", "that it is empty is not proved: {message}");
    for part in [
        "db-0 does not answer although its server runs: see the log of its pod, an empty volume",
        "db-1 does not answer, its pod is to stop and does not",
        "db-2 does not answer, known up to term 1, index 100",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn where_members_may_not_share_a_node_the_lost_one_goes_first_and_its_claim_last() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.scheduling =
        Some(Scheduling { anti_affinity: Some(AntiAffinity::Required), ..Scheduling::default() });
    stage.rest();
    refuse(&mut stage, 2, "Corrupt");
    let story = stage.rest();
    let expected = [
        "remove voter 2 (12)",
        "add learner 3 http://db-3-0.db-peers.prod.svc:2380",
        "promote 3 (13)",
    ];
    assert_eq!(acts(&story), expected, "{story}");
    in_order(&story, &["delete set db-2", "promote 3 (13)", "delete claim db-2-1"]);
}

#[test]
fn a_lost_member_waits_with_the_cluster() {
    for what in ["paused", "hibernated"] {
        let mut stage = Stage::at_rest(3);
        match what {
            "paused" => stage.cluster.spec.paused = true,
            _hibernated => stage.cluster.spec.hibernated = true,
        }
        stage.rest();
        stage.observed.claims.remove(1);
        let story = stage.rest();
        assert!(acts(&story).is_empty() && !story.contains("create"), "{what}: {story}");
    }
}

#[test]
fn a_full_store_is_told_with_what_fills_it() {
    let mut stage = Stage::at_rest(3);
    for (in_use, what) in [(2 << 30, "spec.options.quotaBackendBytes"), (1 << 30, "room again")] {
        for ordinal in 0..3 {
            let answer = stage.answer(ordinal);
            answer.errors = vec![format!("memberID:{} alarm:NOSPACE", Stage::id(1))];
            answer.size_in_use = in_use;
        }
        let story = stage.rest();
        assert!(nothing(&story), "{story}");
        let (_, reason, message) = stage.condition("Degraded");
        assert_eq!(reason, "NoSpaceAlarm");
        assert!(message.contains(what) && message.contains("quota of 2048 MiB"), "{message}");
        assert!(message.contains("db-1") && !message.contains("db-2"), "{message}");
        assert_eq!(stage.condition("Available").0, "True", "reads and deletions go on");
    }
}
