//! Events tell transitions and nothing else: once when something turns, never for what stays.

use crate::fixture::{Stage, waiting};
use crate::observed::{Membership, StoreMember};
use k8s_openapi::jiff::SignedDuration;

/// What goes wrong with a cluster of three.
type Trouble = fn(&mut Stage);

const TROUBLES: &[(&str, Trouble, &str)] = &[
    ("one member is down", |stage| stage.lose(2), "warn MemberDown"),
    (
        "too few are left",
        |stage| {
            stage.lose(1);
            stage.lose(2);
            stage.answer(0).leader = None;
            let since = stage.observed.now;
            stage.observed.membership = Membership::Unreachable { since, error: "none".into() };
        },
        "warn QuorumLost",
    ),
    ("nobody leads", |stage| (0..3).for_each(|it| stage.answer(it).leader = None), "warn NoLeader"),
    (
        "a claim is gone",
        |stage| stage.observed.claims.retain(|c| c.metadata.name.as_deref() != Some("db-2-1")),
        "warn VolumeLost",
    ),
    (
        "a stranger is listed",
        |stage| {
            stage.list().push(StoreMember {
                id: 99,
                name: "x".into(),
                peer_urls: vec!["http://x:2380".into()],
                client_urls: Vec::new(),
                learner: true,
            });
        },
        "warn ForeignMember",
    ),
    ("the number is even", |stage| stage.cluster.spec.replicas = 4, "warn SizeWarning"),
    ("the number is large", |stage| stage.cluster.spec.replicas = 9, "warn SizeWarning"),
    (
        "the image is bad",
        |stage| {
            stage.bad_images.insert("quorate:0.1.1".into());
            stage.cluster.spec.version = "0.1.1".into();
        },
        "warn RolloutFailed",
    ),
    ("the version is refused", |s| s.cluster.spec.version = "0.9.0".into(), "warn VersionRefused"),
    ("the spec is paused", |stage| stage.cluster.spec.paused = true, "tell Paused"),
    (
        "a pod does not start",
        |stage| {
            stage.lose(2);
            stage.pod(2).status = Some(waiting("ImagePullBackOff"));
        },
        "warn MemberDown",
    ),
];

#[test]
fn each_trouble_is_told_once_however_long_it_stays() {
    for (what, trouble, told) in TROUBLES {
        let mut stage = Stage::at_rest(3);
        trouble(&mut stage);
        let story = stage.rest();
        // Available and Degraded both turn when a quorum is lost.
        let turned = if *told == "warn QuorumLost" { 2 } else { 1 };
        assert_eq!(story.matches(told).count(), turned, "{what}: {story}");
        for _hour in 0..24 {
            stage.observed.now += SignedDuration::from_hours(1);
            let plan = stage.plan();
            assert_eq!(plan.events, [], "{what} is told again");
            stage.next();
        }
    }
}

#[test]
fn a_cluster_tells_its_life_in_transitions() {
    let mut stage = Stage::new(3);
    let events = |stage: &mut Stage| -> Vec<String> {
        let story = stage.rest();
        let told = story.lines().filter(|l| l.starts_with("tell ") || l.starts_with("warn "));
        told.map(str::to_owned).collect()
    };
    let formed = events(&mut stage);
    for once in ["tell Forming", "tell Formed", "tell Available", "tell Reconciled"] {
        assert_eq!(formed.iter().filter(|line| *line == once).count(), 1, "{once}: {formed:?}");
    }
    assert!(!formed.iter().any(|line| line.starts_with("warn")), "{formed:?}");
    assert!(events(&mut stage).is_empty(), "at rest");
    stage.lose(2);
    assert_eq!(events(&mut stage), ["warn MemberDown"]);
    stage.observed.members.remove(&Stage::id(2));
    stage.pod(2).status = Some(crate::fixture::ready());
    stage.follow();
    assert_eq!(events(&mut stage), ["tell Reconciled", "tell Recovered"]);
    stage.lead(1);
    assert!(events(&mut stage).is_empty(), "who leads is a matter of status");
}
