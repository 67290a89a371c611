//! Rollout: upgrades, changed options and restarts that were asked for; what stops them, and the way
//! back.

use crate::fixture::{Stage, long_ago, ready, told, waiting};
use crate::limits::RESTART_LIMIT;
use crate::observed::{MemberView, Membership};
use crate::reason::Reason;
use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quorate_crds::{StoreOptions, UpdateStrategy, names};
use std::time::Duration;

fn reasons(stage: &Stage) -> Vec<Reason> {
    stage.plan().waiting.iter().map(|waiting| waiting.reason).collect()
}

/// The acts on members in a story.
fn acts(story: &str) -> Vec<&str> {
    story.lines().filter(|line| line.starts_with("restart") || line.starts_with("move")).collect()
}

fn upgraded(members: i32, version: &str) -> Stage {
    let mut stage = Stage::at_rest(members);
    stage.cluster.spec.version = version.to_owned();
    stage
}

fn strategy(paused: bool) -> Option<UpdateStrategy> {
    Some(UpdateStrategy { type_: None, paused })
}

/// A stage in which db-1 was restarted with an image that nobody can pull.
fn stuck() -> Stage {
    let mut stage = upgraded(3, "0.1.7");
    stage.bad_images.insert("quorate:0.1.7".to_owned());
    stage.until("restart pod db-1-0");
    stage
}

#[test]
fn followers_first_the_leader_last_and_nobody_is_warned() {
    let mut stage = upgraded(3, "0.2.0");
    let story = stage.rest();
    let expected = [
        "restart pod db-1-0 (evict)",
        "restart pod db-2-0 (evict)",
        "move leader 10 -> 11",
        "restart pod db-0-0 (evict)",
    ];
    assert_eq!(acts(&story), expected, "{story}");
    assert!(story.find("apply StatefulSet db-0") < story.find("restart"), "templates first");
    assert_eq!(story.matches("tell RestartPending").count(), 1, "{story}");
    assert_eq!(story.matches("tell MemberRestarting").count(), 3, "{story}");
    assert_eq!(story.matches("tell RolloutFinished").count(), 1, "{story}");
    assert!(!story.contains("warn"), "{story}");
    assert_eq!(stage.observed.status.version.as_deref(), Some("0.2.0"));
    assert_eq!(stage.observed.status.leader.as_deref(), Some("db-1"));
    assert_eq!(stage.condition("Progressing").1, "Reconciled");
    assert!(stage.observed.status.members.iter().all(|m| m.version.as_deref() == Some("0.2.0")));
}

#[test]
fn leadership_that_comes_back_is_moved_again() {
    let mut stage = upgraded(3, "0.1.1");
    stage.until("move leader 10 -> 11");
    stage.lead(0);
    let story = stage.rest();
    assert_eq!(acts(&story), ["move leader 10 -> 11", "restart pod db-0-0 (evict)"], "{story}");
}

#[test]
fn a_change_that_needs_no_restart_causes_none() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.storage.size = "9Gi".to_owned();
    stage.cluster.spec.update_strategy = strategy(false);
    let labels = [("team".to_owned(), "a".to_owned())].into();
    stage.cluster.spec.service =
        Some(quorate_crds::ServiceSpec { labels, ..quorate_crds::ServiceSpec::default() });
    let story = stage.rest();
    assert!(story.contains("apply Service db-client") && acts(&story).is_empty(), "{story}");
}

#[test]
fn nobody_is_restarted_before_the_controller_has_seen_the_template() {
    let mut stage = upgraded(3, "0.1.1");
    stage.controller_sleeps = true;
    let story = stage.rest();
    assert!(story.contains("apply StatefulSet db-1") && acts(&story).is_empty(), "{story}");
    assert_eq!(stage.condition("Progressing").1, "TemplatePending");
    stage.controller_sleeps = false;
    assert_eq!(stage.rest().matches("restart pod").count(), 3);
}

#[test]
fn a_template_that_cannot_be_written_restarts_nobody_again_and_again() {
    let mut stage = upgraded(3, "0.1.1");
    // The set of db-1 belongs to somebody else now, and keeps the old template.
    stage.observed.stateful_sets[1].metadata.owner_references = None;
    let story = stage.rest();
    assert_eq!(acts(&story), Vec::<&str>::new(), "{story}");
    assert!(reasons(&stage).contains(&Reason::TemplatePending), "{:?}", reasons(&stage));
}

#[test]
fn the_next_waits_until_the_one_before_serves() {
    let mut stage = upgraded(3, "0.1.1");
    stage.until("restart pod db-1-0");
    stage.pod(1).status = Some(PodStatus { phase: Some("Running".into()), ..Default::default() });
    stage.observed.members.remove(&Stage::id(1));
    let story = stage.next();
    assert_eq!(acts(&story), Vec::<&str>::new(), "{story}");
    assert_eq!(stage.condition("Progressing").1, "MemberRestarting");
    assert_eq!(stage.condition("Degraded").0, "False", "a restart that was meant is no trouble");
    assert_eq!(stage.condition("RestartPending").0, "True");
    stage.pod(1).status = Some(ready());
    assert!(acts(&stage.rest()).contains(&"restart pod db-2-0 (evict)"));
}

#[test]
fn a_voter_that_lags_or_does_not_read_or_has_an_alarm_blocks() {
    for what in ["lags", "does not read", "has an alarm", "has a full store"] {
        let mut stage = upgraded(3, "0.1.1");
        stage.until("restart pod db-1-0");
        match what {
            "lags" => stage.answer(0).raft_index = 1_000_000,
            "does not read" => stage.answer(1).reads = false,
            "has an alarm" => {
                stage.answer(2).errors = vec!["memberID:42 alarm:CORRUPT".to_owned()];
            }
            _full => stage.answer(2).errors = vec!["memberID:42 alarm:NOSPACE".to_owned()],
        }
        let story = stage.rest();
        if what == "has a full store" {
            assert_eq!(acts(&story).len(), 3, "a larger quota is a restart itself: {story}");
            continue;
        }
        assert_eq!(acts(&story), Vec::<&str>::new(), "{what}: {story}");
        assert_eq!(stage.condition("Progressing").1, "NotRecovered", "{what}");
    }
}

#[test]
fn a_bad_image_touches_one_member_and_the_edited_spec_heals_it() {
    let mut stage = stuck();
    let story = stage.rest();
    assert_eq!(story, "warn RolloutFailed\n--\n", "told once, and nobody else is touched");
    let (status, reason, message) = stage.condition("Degraded");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "RolloutFailed"));
    for part in ["db-1 does not come up", "ImagePullBackOff", "db-0, db-2 go on", "edit it back"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    stage.later(1_000_000);
    assert!(stage.plan().is_empty());
    // The kubelet changes its word at every attempt.
    stage.pod(1).status = Some(waiting("ErrImagePull"));
    assert!(stage.plan().is_empty(), "{:?}", stage.plan().status);
    assert_eq!(stage.condition("Available").0, "True");

    stage.cluster.spec.version = "0.1.0".to_owned();
    let story = stage.rest();
    assert_eq!(acts(&story), ["restart pod db-1-0 (delete)"], "{story}");
    assert!(story.contains("tell RolloutFinished") && story.contains("tell Recovered"), "{story}");
    assert_eq!(stage.condition("Progressing").1, "Reconciled");
}

#[test]
fn a_bad_option_is_told_in_the_words_of_the_server_that_refuses_it() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.options =
        Some(StoreOptions { heartbeat_interval: Some(50), ..StoreOptions::default() });
    stage.until("restart pod db-1-0");
    let says = r#"{"verdict":"Configuration","message":"--heartbeat-interval=50 is odd"}"#;
    let ended = crate::fixture::terminated(says);
    stage.pod(1).status =
        Some(PodStatus { container_statuses: Some(vec![ended]), ..waiting("Error") });
    let story = stage.rest();
    assert_eq!(acts(&story), Vec::<&str>::new(), "{story}");
    assert_eq!(stage.condition("Degraded").1, "RolloutFailed");
    assert!(stage.condition("Degraded").2.contains("--heartbeat-interval=50 is odd"));
}

#[test]
fn a_bad_option_that_crashes_the_server_is_not_taken_for_recovered_between_two_crashes() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.options =
        Some(StoreOptions { heartbeat_interval: Some(50), ..StoreOptions::default() });
    stage.until("restart pod db-1-0");
    // It is up just now, for the third time.
    let mut crashed = crate::fixture::terminated("out of memory");
    crashed.restart_count = 2;
    crashed.last_state = crashed.state.take();
    let ended = crashed.last_state.as_mut().and_then(|state| state.terminated.as_mut());
    ended.expect("just made").finished_at = Some(Time(stage.observed.now));
    stage.pod(1).status = Some(PodStatus { container_statuses: Some(vec![crashed]), ..ready() });
    let story = stage.rest();
    assert_eq!(acts(&story), Vec::<&str>::new(), "{story}");
    assert!(stage.condition("Degraded").2.contains("CrashLoopBackOff"));
    stage.later(301);
    assert_eq!(acts(&stage.rest()).len(), 3, "it has kept up for five minutes");
}

#[test]
fn a_start_that_takes_too_long_has_failed_until_it_succeeds() {
    let mut stage = upgraded(3, "0.1.1");
    stage.until("restart pod db-1-0");
    stage.pod(1).status = Some(PodStatus { phase: Some("Running".into()), ..Default::default() });
    stage.observed.members.remove(&Stage::id(1));
    stage.rest();
    assert_eq!(stage.condition("Degraded").0, "False");
    stage.later(300);
    assert!(stage.rest().contains("warn RolloutFailed"));
    assert!(stage.condition("Degraded").2.contains("after 5 minutes"));
    stage.pod(1).status = Some(ready());
    let story = stage.rest();
    assert_eq!(acts(&story).len(), 3, "it was only slow: {story}");
}

#[test]
fn an_old_pod_that_never_stops_is_told() {
    let mut stage = upgraded(3, "0.1.1");
    stage.until("restart pod db-1-0");
    stage.pod(1).metadata.deletion_timestamp = Some(Time(stage.observed.now));
    stage.observed.members.remove(&Stage::id(1));
    assert!(!stage.rest().contains("warn"));
    stage.later(300);
    assert!(stage.rest().contains("warn RolloutFailed"));
    assert!(stage.condition("Degraded").2.contains("lost node"));
}

#[test]
fn a_member_that_was_down_is_still_told_to_be_down_while_it_is_restarted() {
    let mut stage = Stage::at_rest(3);
    stage.lose(2);
    stage.rest();
    stage.cluster.spec.version = "0.1.1".to_owned();
    stage.until("restart pod db-2-0");
    stage.pod(2).metadata.deletion_timestamp = Some(Time(stage.observed.now));
    stage.observed.members.remove(&Stage::id(2));
    stage.rest();
    assert_eq!(stage.condition("Degraded").1, "MemberDown");
}

#[test]
fn a_verdict_of_the_new_server_stops_the_rollout() {
    let mut stage = upgraded(3, "0.1.1");
    stage.until("restart pod db-1-0");
    let verdict = "{\"verdict\":\"FormatTooNew\",\"message\":\"\"}";
    stage.pod(1).status = Some(PodStatus {
        container_statuses: Some(vec![crate::fixture::terminated(verdict)]),
        ..PodStatus::default()
    });
    stage.observed.members.remove(&Stage::id(1));
    stage.rest();
    assert!(stage.condition("Degraded").2.contains("FormatTooNew"));
    // With other settings the verdict of the old pod is no verdict on the new one.
    stage.cluster.spec.version = "0.1.2".to_owned();
    assert_eq!(acts(&stage.rest()).len(), 4);
    assert_eq!(stage.observed.status.members[1].verdict, None);
}

#[test]
fn broken_outdated_members_come_first_and_are_deleted() {
    let mut stage = Stage::at_rest(3);
    stage.lose(2);
    stage.rest();
    stage.cluster.spec.version = "0.1.1".to_owned();
    let story = stage.rest();
    let expected = [
        "restart pod db-2-0 (delete)",
        "restart pod db-1-0 (evict)",
        "move leader 10 -> 11",
        "restart pod db-0-0 (evict)",
    ];
    assert_eq!(acts(&story), expected, "{story}");
}

#[test]
fn a_member_that_may_be_serving_is_not_broken_enough() {
    // The operator does not reach it, but its container runs: it may vote.
    let mut stage = Stage::at_rest(3);
    for ordinal in [1, 2] {
        stage.lose(ordinal);
        let running = PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() };
        stage.pod(ordinal).status = Some(running);
    }
    stage.rest();
    stage.cluster.spec.version = "0.1.1".to_owned();
    let story = stage.rest();
    assert_eq!(acts(&story), Vec::<&str>::new(), "{story}");
    assert!(reasons(&stage).contains(&Reason::MemberDown), "{:?}", reasons(&stage));
    stage.later(61);
    assert!(acts(&stage.rest()).starts_with(&["restart pod db-1-0 (delete)"]));
}

#[test]
fn an_answer_that_was_missed_once_is_no_way_round_the_recovery_of_the_others() {
    let mut stage = upgraded(3, "0.1.1");
    stage.until("restart pod db-1-0");
    stage.answer(1).reads = false;
    let since = stage.observed.now;
    let missed =
        MemberView::Unreachable { since, error: "deadline exceeded".to_owned(), last: None };
    stage.observed.members.insert(Stage::id(2), missed);
    assert_eq!(acts(&stage.rest()), Vec::<&str>::new());
    assert!(reasons(&stage).contains(&Reason::NotRecovered), "{:?}", reasons(&stage));
}

#[test]
fn a_lost_quorum_is_healed_as_far_as_settings_go_and_no_further() {
    // All hang on an image that never was there: somebody deleted the pods himself.
    let mut stage = Stage::at_rest(3);
    let alone =
        Membership::Unreachable { since: stage.observed.now, error: "no quorum".to_owned() };
    for ordinal in 0..3 {
        stage.pod(ordinal).status = Some(waiting("ImagePullBackOff"));
    }
    stage.rest();
    stage.cluster.spec.version = "0.1.1".to_owned();
    let story = stage.until("restart pod");
    assert_eq!(acts(&story), ["restart pod db-0-0 (delete)"]);
    // db-0 runs and finds no quorum, which is no failure of its own; then the others follow.
    let answer = crate::observed::MemberAnswer { term: 3, ..Default::default() };
    let running = PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() };
    stage.pod(0).status = Some(running);
    stage.observed.membership = alone;
    stage.observed.members.clear();
    assert_eq!(acts(&stage.next()), Vec::<&str>::new(), "it must run first");
    stage.observed.members.insert(Stage::id(0), MemberView::Answered(answer));
    stage.later(1000);
    assert_eq!(acts(&stage.until("restart pod")), ["restart pod db-1-0 (delete)"]);
}

#[test]
fn nobody_is_restarted_beside_a_member_that_is_down_for_reasons_of_its_own() {
    let mut stage = upgraded(3, "0.1.1");
    stage.until("restart pod db-1-0");
    // It has come up, and then its node died.
    let status = stage.plan().status.expect("db-1 is ready");
    assert!(status.members[1].started);
    stage.observed.status = status;
    stage.lose(1);
    let story = stage.rest();
    assert_eq!(acts(&story), Vec::<&str>::new(), "{story}");
    assert!(reasons(&stage).contains(&Reason::MemberDown), "{:?}", reasons(&stage));
    assert_eq!(stage.condition("Degraded").1, "MemberDown");
}

#[test]
fn a_drain_and_a_rollout_take_turns() {
    let mut stage = upgraded(3, "0.1.1");
    stage.until("apply StatefulSet db-2");
    // A drain has evicted db-2: until it is back nobody is restarted.
    stage.pod(2).metadata.deletion_timestamp = Some(long_ago());
    let story = stage.rest();
    assert_eq!(acts(&story), Vec::<&str>::new(), "{story}");
    assert_eq!(reasons(&stage), [Reason::MemberRestarting], "its pod is being replaced");
    stage.observed.pods.retain(|pod| pod.metadata.name.as_deref() != Some("db-2-0"));
    let story = stage.rest();
    assert_eq!(story.matches("restart pod").count(), 2, "db-2 came back with it: {story}");
}

#[test]
fn one_voter_and_two_are_restarted_with_the_downtime_said() {
    let mut stage = upgraded(1, "0.1.1");
    let story = stage.until("restart pod");
    assert_eq!(acts(&story), ["restart pod db-0-0 (delete)"], "{story}");
    assert_eq!(stage.condition("Progressing").1, "DowntimeExpected");
    stage.rest();
    let mut stage = upgraded(2, "0.1.1");
    let story = stage.rest();
    let expected =
        ["restart pod db-1-0 (delete)", "move leader 10 -> 11", "restart pod db-0-0 (delete)"];
    assert_eq!(acts(&story), expected, "{story}");
}

#[test]
fn the_only_voter_comes_back_from_a_bad_image_although_nobody_confirms_the_roster() {
    let mut stage = upgraded(1, "0.1.7");
    stage.bad_images.insert("quorate:0.1.7".to_owned());
    let story = stage.rest();
    assert!(story.contains("warn RolloutFailed"), "{story}");
    assert_eq!(stage.observed.membership, Membership::NotAsked);
    stage.cluster.spec.version = "0.1.0".to_owned();
    let story = stage.rest();
    assert_eq!(acts(&story), ["restart pod db-0-0 (delete)"], "{story}");
    assert_eq!(stage.observed.status.ready.as_deref(), Some("1/1"));
}

#[test]
fn a_rollout_that_is_paused_stays_where_it_is() {
    let mut stage = upgraded(3, "0.1.1");
    stage.until("restart pod db-1-0");
    stage.cluster.spec.update_strategy = strategy(true);
    let story = stage.rest();
    assert_eq!(acts(&story), Vec::<&str>::new(), "{story}");
    let (_status, reason, message) = stage.condition("Progressing");
    assert_eq!(reason, "RolloutPaused");
    assert!(message.contains("db-0, db-2 keep older settings"), "{message}");
    // A member that breaks meanwhile is left too.
    stage.lose(2);
    assert_eq!(acts(&stage.rest()), Vec::<&str>::new());
    stage.cluster.spec.update_strategy = None;
    assert_eq!(acts(&stage.rest()).len(), 3);
}

#[test]
fn a_restart_is_asked_for_by_annotation_and_again_by_another_value() {
    let mut stage = Stage::at_rest(3);
    for value in ["today", "tomorrow"] {
        let annotations = stage.cluster.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_RESTART.to_owned(), value.to_owned());
        let story = stage.rest();
        assert_eq!(story.matches("restart pod").count(), 3, "{value}: {story}");
    }
    assert!(stage.plan().is_empty());
}

#[test]
fn hibernated_and_paused_clusters_are_not_restarted() {
    let mut stage = upgraded(3, "0.1.1");
    stage.cluster.spec.paused = true;
    assert_eq!(acts(&stage.rest()), Vec::<&str>::new());
    stage.cluster.spec.paused = false;
    stage.cluster.spec.hibernated = true;
    assert_eq!(acts(&stage.rest()), Vec::<&str>::new());
    stage.cluster.spec.hibernated = false;
    let story = stage.rest();
    assert_eq!(acts(&story), Vec::<&str>::new(), "they come back with it: {story}");
    assert_eq!(stage.observed.status.version.as_deref(), Some("0.1.1"));
}

#[test]
fn versions_that_must_not_meet_are_refused_and_reach_no_template() {
    for (version, part) in [("0.3.0", "go to 0.2 first"), ("1.0.0", "new cluster")] {
        let mut stage = upgraded(3, version);
        let story = stage.rest();
        assert!(!story.contains("apply") && story.contains("warn VersionRefused"), "{story}");
        let (status, reason, message) = stage.condition("Degraded");
        assert_eq!((status.as_str(), reason.as_str()), ("True", "VersionRefused"));
        assert!(message.contains(part), "{message}");
        assert!(stage.condition("RestartPending").2.contains("refused"));
        stage.cluster.spec.version = "0.1.0".to_owned();
        assert!(!stage.rest().contains("restart pod"), "nothing had changed");
    }
}

#[test]
fn while_a_version_is_refused_everything_else_goes_on() {
    let mut stage = upgraded(3, "0.3.0");
    stage.cluster.spec.replicas = 4;
    let story = stage.rest();
    assert!(story.contains("apply StatefulSet db-3") && story.contains("promote 3"), "{story}");
    let joined = stage.pod(3).clone();
    let image = joined.spec.expect("built").containers[0].image.clone();
    assert_eq!(image.as_deref(), Some("quorate:0.1.0"), "a joiner meets the others as they are");
    stage.cluster.spec.hibernated = true;
    assert!(stage.rest().contains("apply StatefulSet db-0"), "it can be stopped");
    assert!(stage.observed.pods.iter().all(|pod| pod.metadata.owner_references.is_none()));
    stage.cluster.spec.hibernated = false;
    stage.rest();
    assert_eq!(stage.observed.status.version.as_deref(), Some("0.1.0"));
    assert_eq!(stage.condition("Degraded").1, "VersionRefused");
}

#[test]
fn the_way_back_is_open_while_a_voter_runs_the_old_minor_version_and_not_after() {
    let mut stage = upgraded(3, "0.2.0");
    stage.until("restart pod db-2-0");
    stage.cluster.spec.version = "0.1.0".to_owned();
    let story = stage.rest();
    let back = ["restart pod db-1-0 (evict)", "restart pod db-2-0 (evict)"];
    assert_eq!(acts(&story), back, "{story}");
    stage.cluster.spec.version = "0.2.0".to_owned();
    stage.rest();
    stage.cluster.spec.version = "0.1.0".to_owned();
    let story = stage.rest();
    assert_eq!(acts(&story), Vec::<&str>::new(), "{story}");
    assert_eq!(stage.condition("Degraded").1, "VersionRefused");
}

#[test]
fn a_joiner_that_hangs_on_a_bad_image_is_reached_by_the_edited_spec() {
    let mut stage = Stage::at_rest(3);
    stage.bad_images.insert("quorate:0.1.7".to_owned());
    stage.cluster.spec.replicas = 4;
    stage.cluster.spec.version = "0.1.7".to_owned();
    // The voters wait for the membership, so that only the joiner hangs.
    let story = stage.rest();
    assert_eq!(acts(&story), Vec::<&str>::new(), "{story}");
    assert!(stage.condition("Progressing").2.contains("ImagePullBackOff"));
    stage.cluster.spec.version = "0.1.0".to_owned();
    let story = stage.rest();
    assert_eq!(acts(&story), ["restart pod db-3-0 (delete)"], "{story}");
    assert!(story.contains("promote 3"), "{story}");
    assert_eq!(stage.observed.status.ready.as_deref(), Some("4/4"));
}

#[test]
fn a_joiner_that_runs_is_promoted_first_and_restarted_in_its_turn() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.replicas = 4;
    stage.until("apply StatefulSet db-3");
    stage.cluster.spec.version = "0.1.1".to_owned();
    let story = stage.rest();
    assert!(story.find("promote 3") < story.find("restart pod"), "{story}");
    assert_eq!(acts(&story).len(), 5, "{story}");
}

#[test]
fn strangers_and_other_clusters_stop_every_restart() {
    let mut stage = upgraded(3, "0.1.1");
    let members = stage.list().clone();
    stage.observed.membership = Membership::Known { cluster_id: 0xbad, members };
    assert_eq!(acts(&stage.rest()), Vec::<&str>::new());
}

#[test]
fn a_plan_that_restarts_says_so_and_does_nothing_else() {
    let mut stage = upgraded(3, "0.1.1");
    stage.next();
    let lines = told(&stage.plan());
    assert_eq!(lines, "tell MemberRestarting\nrestart pod db-1-0 (evict)\n");
    // An eviction that the budget did not allow is planned again without another word.
    let plan = stage.plan();
    stage.observed.status = plan.status.expect("it is said before it is done");
    assert_eq!(told(&stage.plan()), "restart pod db-1-0 (evict)\n");
}

#[test]
fn a_ready_member_that_never_recovers_fails_the_rollout() {
    for what in ["does not read", "stands still"] {
        let mut stage = upgraded(3, "0.1.1");
        stage.until("restart pod db-1-0");
        let impair = |stage: &mut Stage, time| match what {
            "does not read" => {
                (stage.answer(1).reads, stage.answer(1).unread_for) = (false, time);
            }
            _stands => {
                stage.answer(0).raft_index = 1_000_000;
                stage.answer(1).stalled_for = time;
            }
        };
        impair(&mut stage, RESTART_LIMIT - Duration::from_secs(1));
        stage.rest();
        assert_eq!(stage.condition("Progressing").1, "NotRecovered", "{what}");
        assert_eq!(stage.condition("Degraded").0, "False", "{what}");
        impair(&mut stage, RESTART_LIMIT);
        let story = stage.rest();
        assert_eq!(acts(&story), Vec::<&str>::new(), "{what}: {story}");
        let (_, reason, message) = stage.condition("Degraded");
        assert_eq!(reason, "RolloutFailed", "{what}");
        assert!(message.contains("db-1 does not come up") && message.contains("ready and"));
        // The spec edited back heals it.
        stage.cluster.spec.version = "0.1.0".to_owned();
        assert_eq!(acts(&stage.next()), Vec::<&str>::new(), "templates first");
        stage.answer(0).raft_index = 100;
        assert!(stage.rest().contains("restart pod db-1-0"), "{what}");
        assert_eq!(stage.condition("Degraded").0, "False", "{what}");
    }
}

#[test]
fn a_member_that_runs_and_needs_the_others_to_speak_does_not_keep_them_from_being_put_right() {
    let mut stage = upgraded(4, "0.1.7");
    stage.bad_images.insert("quorate:0.1.7".to_owned());
    stage.until("restart pod db-1-0");
    stage.cluster.spec.version = "0.1.0".to_owned();
    stage.lose(2);
    stage.pod(2).status = Some(PodStatus { phase: Some("Running".into()), ..Default::default() });
    stage.observed.membership =
        Membership::Unreachable { since: stage.observed.now, error: "no leader".to_owned() };
    let story = stage.rest();
    assert_eq!(acts(&story), Vec::<&str>::new(), "it may have been restarted just now: {story}");
    stage.later(61);
    assert_eq!(acts(&stage.rest()), ["restart pod db-1-0 (delete)"]);
}
