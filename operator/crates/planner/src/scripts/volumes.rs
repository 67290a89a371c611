//! Volumes that shall grow: one after the other, where they can, and what is told where they cannot.

use crate::action::Action;
use crate::check::check;
use crate::fixture::{CLASS, Stage, asked, told};
use crate::observed::{GrowthRefusal, StorageClasses};
use crate::plan::Plan;
use crate::world::exactly;
use k8s_openapi::api::core::v1::PersistentVolumeClaimCondition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// A cluster of three at rest whose volumes of 8Gi shall have 16Gi.
fn enlarged() -> Stage {
    let mut stage = Stage::at_rest(3);
    assert_eq!(stage.observed.status.volume_size.as_deref(), Some("8Gi"));
    stage.cluster.spec.storage.size = "16Gi".to_owned();
    stage
}

fn sizes(stage: &mut Stage) -> Vec<String> {
    stage.observed.claims.iter_mut().map(|claim| asked(claim).0.clone()).collect()
}

/// What the resizer says of a claim.
fn say(stage: &mut Stage, claim: usize, type_: &str, message: &str) {
    let status = stage.observed.claims[claim].status.as_mut().expect("bound");
    status.conditions = Some(vec![PersistentVolumeClaimCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        message: Some(message.to_owned()),
        ..PersistentVolumeClaimCondition::default()
    }]);
}

/// The API server's answer to a claim that asked for more.
fn refuse(stage: &mut Stage, claim: usize) {
    let uid = stage.observed.claims[claim].metadata.uid.clone().expect("set");
    let name = stage.observed.claims[claim].metadata.name.clone().expect("set");
    let why = "only dynamically provisioned pvc can be resized";
    let words = format!("persistentvolumeclaims \"{name}\" is forbidden: {why}");
    let (size, at) = (Quantity("16Gi".to_owned()), stage.observed.now);
    stage.observed.refused_growths.insert(uid, GrowthRefusal { size, at, words });
}

#[test]
fn they_grow_one_after_the_other_and_nobody_is_restarted() {
    let mut stage = enlarged();
    assert_eq!(
        stage.rest(),
        "tell VolumesGrowing\ngrow claim db-0-1 to 16Gi\n--\n\
         grow claim db-1-1 to 16Gi\n--\n\
         grow claim db-2-1 to 16Gi\n--\n\
         tell Reconciled\ntell ResizeFinished\n--\n"
    );
    assert_eq!(sizes(&mut stage), ["16Gi"; 3]);
    assert_eq!(stage.condition("ResizePending").1, "UpToDate");
    assert_eq!(stage.condition("Progressing").1, "Reconciled");
    assert_eq!(stage.observed.status.volume_size.as_deref(), Some("16Gi"));
}

#[test]
fn the_next_waits_for_the_storage_and_not_for_the_file_system() {
    let mut stage = enlarged();
    stage.storage_sleeps = true;
    stage.next();
    assert_eq!(sizes(&mut stage), ["16Gi", "8Gi", "8Gi"]);
    stage.next();
    assert_eq!(told(&stage.plan()), "", "the first is growing");
    let (status, reason, message) = stage.condition("ResizePending");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "VolumesGrowing"));
    assert_eq!(
        message,
        "the volumes of db-0 are growing; the volumes of db-1, db-2 are to grow, one after the other"
    );
    assert_eq!(stage.condition("Progressing").1, "VolumesGrowing");
    say(&mut stage, 0, "FileSystemResizePending", "waiting for the node");
    assert_eq!(told(&stage.plan()), "grow claim db-1-1 to 16Gi\n");
}

#[test]
fn a_class_that_cannot_expand_is_told_once_and_taken_back_by_the_spec() {
    let mut stage = enlarged();
    let classes = BTreeMap::from([(CLASS.to_owned(), false)]);
    stage.observed.storage_classes = StorageClasses::Known(classes);
    assert_eq!(stage.rest(), "warn ClassCannotExpand\n--\n", "one event, and no request");
    let (status, reason, message) = stage.condition("ResizePending");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "ClassCannotExpand"));
    assert_eq!(
        message,
        "the volumes of db-0, db-1, db-2 stay smaller than storage.size, because StorageClass \
         standard has no allowVolumeExpansion: set it there, or set storage.size back to 8Gi"
    );
    assert_eq!(stage.condition("Degraded").0, "False");
    stage.later(3600);
    assert_eq!(stage.rest(), "", "it is not told again");

    stage.cluster.spec.storage.size = "8192Mi".to_owned();
    assert_eq!(stage.rest(), "tell ResizeFinished\n--\n");
    assert_eq!(stage.condition("ResizePending").0, "False", "8192Mi is 8Gi");

    // Or the class is put right.
    stage.cluster.spec.storage.size = "16Gi".to_owned();
    stage.rest();
    let classes = BTreeMap::from([(CLASS.to_owned(), true)]);
    stage.observed.storage_classes = StorageClasses::Known(classes);
    assert_eq!(stage.rest().matches("grow claim").count(), 3);
}

#[test]
fn a_class_that_cannot_be_read_is_tried_and_the_refusal_stands_for_a_while() {
    let mut stage = enlarged();
    stage.observed.storage_classes = StorageClasses::Unreadable;
    assert!(told(&stage.plan()).contains("grow claim db-0-1"), "it may be possible");
    for claim in 0..3 {
        refuse(&mut stage, claim);
    }
    assert_eq!(stage.rest(), "warn GrowthRefused\n--\n");
    let message = stage.condition("ResizePending").2;
    assert_eq!(
        message,
        "the API server does not let the volumes of db-0, db-1, db-2 grow (only dynamically \
         provisioned pvc can be resized); it is asked again every 10 minutes, and at once for \
         another size"
    );
    stage.later(599);
    assert_eq!(told(&stage.plan()), "");
    stage.later(1);
    assert_eq!(told(&stage.plan()), "grow claim db-0-1 to 16Gi\n", "nothing new is told");
    refuse(&mut stage, 0);
    stage.cluster.spec.storage.size = "24Gi".to_owned();
    assert!(told(&stage.plan()).contains("grow claim db-0-1 to 24Gi"), "another size is asked");
}

#[test]
fn a_storage_that_fails_has_failed_for_one_member() {
    let mut stage = enlarged();
    stage.storage_sleeps = true;
    stage.next();
    say(&mut stage, 0, "ControllerResizeError", "failed to expand pvc with OutOfRange");
    assert_eq!(told(&stage.plan()), "warn GrowthFailed\n");
    stage.rest();
    assert_eq!(sizes(&mut stage), ["16Gi", "8Gi", "8Gi"], "the others were not asked for");
    let message = stage.condition("ResizePending").2;
    assert!(message.contains("db-0") && message.contains("OutOfRange"), "{message}");
    assert!(message.contains("db-1, db-2 are to grow"), "{message}");
    assert_eq!(stage.condition("Progressing").1, "VolumesGrowing", "the storage tries again");
    stage.storage_sleeps = false;
    assert_eq!(stage.rest().matches("grow claim").count(), 2, "the storage has space again");
    assert_eq!(sizes(&mut stage), ["16Gi"; 3]);
}

#[test]
fn what_the_resizer_and_the_kubelet_say_is_told_in_words() {
    // As external-resizer 2.3 and the kubelet of 1.37 write it.
    let says = |condition: Option<&str>, stage_of_growth: Option<&str>| {
        let mut stage = enlarged();
        stage.storage_sleeps = true;
        stage.next();
        if let Some(type_) = condition {
            say(&mut stage, 0, type_, "why");
        }
        let status = stage.observed.claims[0].status.as_mut().expect("bound");
        status.allocated_resource_statuses =
            stage_of_growth.map(|word| BTreeMap::from([("storage".to_owned(), word.to_owned())]));
        stage.next();
        let (_status, reason, message) = stage.condition("ResizePending");
        (reason, message)
    };
    for (condition, stage_of_growth, reason, words) in [
        (Some("Resizing"), None, "VolumesGrowing", "db-0 are growing"),
        (None, Some("ControllerResizeInProgress"), "VolumesGrowing", "db-0 are growing"),
        (Some("FileSystemResizePending"), None, "VolumesGrowing", "db-0 have grown and their file"),
        (None, Some("NodeResizeInProgress"), "VolumesGrowing", "db-0 have grown and their file"),
        (Some("ControllerResizeError"), None, "GrowthFailed", "(why)"),
        (Some("NodeResizeError"), Some("NodeResizePending"), "GrowthFailed", "(why)"),
        (None, Some("ControllerResizeInfeasible"), "GrowthFailed", "(it cannot be done)"),
        (None, Some("NodeResizeInfeasible"), "GrowthFailed", "(it cannot be done)"),
    ] {
        let (told, message) = says(condition, stage_of_growth);
        assert_eq!(told, reason, "{condition:?} {stage_of_growth:?}: {message}");
        assert!(message.contains(words), "{condition:?} {stage_of_growth:?}: {message}");
    }
}

#[test]
fn a_claim_of_somebody_else_is_left_alone() {
    let mut stage = enlarged();
    let metadata = &mut stage.observed.claims[0].metadata;
    (metadata.uid, metadata.annotations) = (Some("another".to_owned()), None);
    let plan = told(&stage.plan());
    assert!(plan.contains("grow claim db-1-1") && !plan.contains("db-0-1"), "{plan}");
}

#[test]
fn what_has_no_room_to_grow_is_left_alone() {
    let mut stage = enlarged();
    *asked(&mut stage.observed.claims[0]) = Quantity("20Gi".to_owned());
    stage.observed.claims[1].metadata.deletion_timestamp = Some(Time(stage.observed.now));
    stage.observed.claims[2].status.as_mut().expect("bound").phase = Some("Pending".to_owned());
    let plan = stage.plan();
    assert!(
        !plan.actions.iter().any(|action| matches!(action, Action::GrowClaim { .. })),
        "{plan:?}"
    );
    stage.cluster.spec.paused = true;
    stage.observed.claims[2].status.as_mut().expect("bound").phase = Some("Bound".to_owned());
    assert!(stage.plan().actions.is_empty(), "paused");
}

#[test]
fn no_plan_may_shrink_a_claim_or_grow_it_further_than_wanted() {
    let stage = enlarged();
    let grow = |size: &str| {
        let claim = exactly(&stage.observed.claims[1].metadata);
        let action = Action::GrowClaim { claim, size: Quantity(size.to_owned()) };
        check(&stage.desired(), &stage.observed, &Plan { actions: vec![action], ..Plan::default() })
    };
    grow("16Gi").expect("as wanted");
    for (size, law) in [("4Gi", "INV-O3"), ("8192Mi", "INV-O3"), ("32Gi", "INV-O4")] {
        assert_eq!(grow(size).expect_err(size).law, law, "{size}");
    }
}
