//! Check, shown plans that `plan` would not make.

use crate::action::{Action, Apply, Exactly, Expect, Object};
use crate::check::check;
use crate::fixture::Stage;
use crate::plan::Plan;
use crate::world::exactly;

fn law(stage: &Stage, plan: &Plan) -> &'static str {
    check(&stage.desired(), &stage.observed, plan).expect_err("must be refused").law
}

fn acting(action: Action) -> Plan {
    Plan { actions: vec![action], ..Plan::default() }
}

#[test]
fn two_disruptions_or_one_among_others_are_refused() {
    let stage = Stage::at_rest(5);
    let remove = |ordinal| Action::RemoveMember { id: Stage::id(ordinal), ordinal, voter: true };
    let plan = Plan { actions: vec![remove(4), remove(3)], ..Plan::default() };
    assert_eq!(law(&stage, &plan), "INV-O2");
    let finalizer = Action::AddFinalizer { uid: String::new() };
    let plan = Plan { actions: vec![finalizer, remove(4)], ..Plan::default() };
    assert_eq!(law(&stage, &plan), "INV-O2");
}

#[test]
fn removals_that_cost_the_quorum_or_nobody_asked_for_are_refused() {
    let mut stage = Stage::at_rest(3);
    let remove =
        |ordinal| acting(Action::RemoveMember { id: Stage::id(ordinal), ordinal, voter: true });
    assert_eq!(law(&stage, &remove(2)), "INV-O6", "three are wanted");
    stage.cluster.spec.replicas = 1;
    assert_eq!(law(&stage, &remove(0)), "INV-O1", "it leads");
    assert_eq!(law(&stage, &remove(2)), "INV-O1", "it serves");
    stage.observed.stateful_sets[2].spec.as_mut().expect("built").replicas = Some(0);
    assert!(check(&stage.desired(), &stage.observed, &remove(2)).is_ok());
    stage.lose(1);
    assert_eq!(law(&stage, &remove(2)), "INV-O1", "one of two would answer");
    stage.observed.membership = crate::observed::Membership::NotAsked;
    assert_eq!(law(&stage, &remove(2)), "INV-O1", "nobody confirmed the list");
}

#[test]
fn volumes_of_members_are_not_deleted() {
    let stage = Stage::at_rest(3);
    let claim = exactly(&stage.observed.claims[1].metadata);
    assert_eq!(law(&stage, &acting(Action::DeleteClaim(claim))), "INV-O3");
    let mut stage = stage;
    stage.observed.cluster.deleting = true;
    stage.observed.pods.clear();
    let claim = exactly(&stage.observed.claims[1].metadata);
    assert_eq!(law(&stage, &acting(Action::DeleteClaim(claim))), "INV-O3", "retained by default");
    let finalizer = acting(Action::RemoveFinalizer { uid: String::new() });
    stage.observed.cluster.deleting = false;
    assert_eq!(law(&stage, &finalizer), "INV-O3");
}

#[test]
fn the_volume_of_a_removed_voter_stays_until_another_votes() {
    let mut stage = Stage::at_rest(3);
    let claim = exactly(&stage.observed.claims[2].metadata);
    stage.list().retain(|member| member.id != Stage::id(2));
    stage.observed.status.members[2].role = quorate_crds::MemberRole::Removed;
    let delete = acting(Action::DeleteClaim(claim));
    assert_eq!(law(&stage, &delete), "INV-O3", "two of three vote");
    stage.cluster.spec.replicas = 2;
    assert!(check(&stage.desired(), &stage.observed, &delete).is_ok());
}

#[test]
fn nothing_is_formed_or_made_empty_again() {
    let stage = Stage::at_rest(1);
    let owner = crate::objects::labels::Owner {
        name: &stage.desired().name,
        uid: "u",
        extra: &stage.desired().labels,
    };
    let desired = stage.desired();
    let job = crate::objects::formation_job::form(&owner, &desired, "u", 0, 1);
    assert_eq!(law(&stage, &acting(Action::CreateJob(Box::new(job)))), "INV-O5");
    let claim = crate::objects::claim::claim(&owner, &desired, 0, 1);
    assert_eq!(law(&stage, &acting(Action::CreateClaim(Box::new(claim)))), "INV-O5");
}

#[test]
fn sets_of_members_are_neither_stopped_nor_deleted_nor_made_to_form() {
    let stage = Stage::at_rest(3);
    let set = stage.observed.stateful_sets[0].clone();
    assert_eq!(law(&stage, &acting(Action::DeleteStatefulSet(exactly(&set.metadata)))), "INV-O1");
    let apply = |set| Plan {
        objects: vec![Apply {
            object: Object::StatefulSet(Box::new(set)),
            expect: Expect::Present { uid: String::new() },
        }],
        ..Plan::default()
    };
    assert_eq!(law(&stage, &apply(set.clone())), "INV-O4", "it is as wanted");
    let mut stopped = set.clone();
    stopped.spec.as_mut().expect("built").replicas = Some(0);
    assert_eq!(law(&stage, &apply(stopped)), "INV-O1");
    let mut forming = set;
    let pod = forming.spec.as_mut().expect("built").template.spec.as_mut().expect("built");
    pod.containers[0].args = Some(vec!["--initial-cluster-state=new".to_owned()]);
    assert_eq!(law(&stage, &apply(forming)), "INV-O5");
}

#[test]
fn promotions_and_joins_are_counted() {
    let mut stage = Stage::at_rest(3);
    let promote = acting(Action::Promote { id: Stage::id(2), ordinal: 2 });
    assert_eq!(law(&stage, &promote), "INV-O1", "it votes already");
    let url = stage.desired().name.peer_url(2);
    let join = acting(Action::AddLearner { ordinal: 2, peer_url: url });
    assert_eq!(law(&stage, &join), "INV-O2", "it is listed already");
    stage.list()[2].learner = true;
    assert!(check(&stage.desired(), &stage.observed, &promote).is_ok());
    stage.lose(0);
    stage.lose(1);
    assert_eq!(law(&stage, &promote), "INV-O1", "one of three would answer");
}

#[test]
fn a_voter_is_stopped_only_if_it_leaves_and_is_not_missed() {
    let mut stage = Stage::at_rest(3);
    let set = exactly(&stage.observed.stateful_sets[2].metadata);
    let stop = |ordinal| acting(Action::StopMember { set: set.clone(), ordinal });
    assert_eq!(law(&stage, &stop(2)), "INV-O1", "nobody said that it leaves");
    let since = crate::fixture::long_ago();
    let kind = quorate_crds::OperationKind::Leave;
    stage.observed.status.operation =
        Some(quorate_crds::OperationStatus { kind, ordinal: 2, since });
    assert_eq!(law(&stage, &stop(2)), "INV-O6", "three are wanted and it is not lost");
    assert_eq!(law(&stage, &stop(1)), "INV-O1", "the set of another");
    let mut lost = stage.observed.claims.remove(2);
    assert!(check(&stage.desired(), &stage.observed, &stop(2)).is_ok(), "it is lost");
    lost.metadata.uid = Some("another".to_owned());
    stage.observed.claims.push(lost);
    assert!(check(&stage.desired(), &stage.observed, &stop(2)).is_ok(), "another volume");
    stage.cluster.spec.replicas = 2;
    stage.lead(2);
    assert_eq!(law(&stage, &stop(2)), "INV-O1", "it leads");
    stage.lead(0);
    stage.lose(1);
    assert_eq!(law(&stage, &stop(2)), "INV-O1", "one of three would be left");
}

#[test]
fn nobody_joins_without_being_wanted_or_replacing_somebody_lost() {
    let mut stage = Stage::at_rest(3);
    let peer_url = stage.desired().name.peer_url(3);
    let join = acting(Action::AddLearner { ordinal: 3, peer_url });
    assert_eq!(law(&stage, &join), "INV-O6", "three are wanted");
    stage.lose(1);
    stage.later(1_000_000);
    assert_eq!(law(&stage, &join), "INV-O6", "being unreachable is no evidence");
    stage.observed.status.members[1].verdict = Some("FormatTooNew".to_owned());
    assert_eq!(law(&stage, &join), "INV-O6", "nor is every verdict");
    stage.observed.status.members[1].verdict = Some("Empty".to_owned());
    assert!(check(&stage.desired(), &stage.observed, &join).is_ok());
    stage.cluster.spec.replicas = 2;
    assert_eq!(law(&stage, &join), "INV-O6", "there is one too many already");
}

#[test]
fn alarms_of_members_and_pods_that_live_are_left_alone() {
    let mut stage = Stage::at_rest(3);
    let alarm = crate::action::Alarm::Corrupt;
    let disarm = |id| acting(Action::DisarmAlarm { id, alarm });
    for id in [Stage::id(1), 0, 0x77] {
        assert_eq!(law(&stage, &disarm(id)), "INV-O6", "{id:x} was not removed");
    }
    let pod = exactly(&stage.pod(1).metadata);
    assert_eq!(law(&stage, &acting(Action::DeletePod(pod))), "INV-O2");
}

#[test]
fn a_paused_cluster_is_left_alone() {
    let mut stage = Stage::at_rest(1);
    stage.cluster.spec.paused = true;
    let nobody = Exactly { name: "x".into(), uid: String::new(), resource_version: String::new() };
    assert_eq!(law(&stage, &acting(Action::DeleteJob(nobody))), "INV-O4");
}

#[test]
fn restarts_that_nobody_asked_for_or_that_cost_too_much_are_refused() {
    let mut stage = Stage::at_rest(3);
    let restart = |stage: &mut Stage, ordinal: i32| {
        let pod = exactly(&stage.pod(ordinal).metadata);
        acting(Action::RestartPod { pod, ordinal, evict: true })
    };
    let plan = restart(&mut stage, 1);
    assert_eq!(law(&stage, &plan), "INV-O4", "it is up to date");
    stage.cluster.spec.version = "0.1.1".to_owned();
    assert!(check(&stage.desired(), &stage.observed, &plan).is_ok());
    let leader = restart(&mut stage, 0);
    assert_eq!(law(&stage, &leader), "INV-O1", "it leads");
    let mut other = plan.clone();
    if let Some(Action::RestartPod { ordinal, .. }) = other.actions.first_mut() {
        *ordinal = 2;
    }
    assert_eq!(law(&stage, &other), "INV-O2", "the pod is another member's");
    stage.lose(2);
    assert_eq!(law(&stage, &plan), "INV-O1", "one of three would be left");
    let broken = restart(&mut stage, 2);
    assert!(check(&stage.desired(), &stage.observed, &broken).is_ok(), "it does nothing");
    stage.observed.membership = crate::observed::Membership::NotAsked;
    assert_eq!(law(&stage, &plan), "INV-O1", "nobody confirmed the list");
    assert!(check(&stage.desired(), &stage.observed, &broken).is_ok());
    stage.cluster.spec.update_strategy =
        Some(quorate_crds::UpdateStrategy { type_: None, paused: true });
    assert_eq!(law(&stage, &broken), "INV-O4", "the rollout is paused");
    let mut five = Stage::at_rest(5);
    five.cluster.spec.version = "0.1.1".to_owned();
    five.lose(4);
    let plan = restart(&mut five, 1);
    assert_eq!(law(&five, &plan), "INV-O2", "another voter is down");
}
