//! Tests of the rules of admission: CEL evaluated on this side of the API server, and the messages
//! that it gives.

use crate::{StoreCluster, StoreClusterSpec, StoreClusterStatus, StoreOptions, reserved};
use kube::core::cel::{validate_cel, validate_cel_update};
use serde_json::{Value, json};

fn cluster(spec: &Value) -> StoreCluster {
    let spec: StoreClusterSpec = serde_json::from_value(spec.clone()).expect("the spec parses");
    StoreCluster::new("orders", spec)
}

fn minimal() -> Value {
    json!({"replicas": 3, "version": "0.1.0", "storage": {"size": "8Gi"}})
}

fn refusal(cluster: &StoreCluster) -> String {
    validate_cel(cluster).expect_err("must be refused").to_string()
}

#[test]
fn the_minimal_manifest_is_admitted() {
    validate_cel(&cluster(&minimal())).expect("admitted");
    let mut even = minimal();
    even["replicas"] = json!(4);
    validate_cel(&cluster(&even)).expect("even sizes are allowed, and warned about in a condition");
}

#[test]
fn no_replicas_is_refused_and_hibernation_named() {
    let mut spec = minimal();
    spec["replicas"] = json!(0);
    assert!(refusal(&cluster(&spec)).contains("hibernated: true"), "{}", refusal(&cluster(&spec)));
    spec["replicas"] = json!(16);
    assert!(refusal(&cluster(&spec)).contains("at most 15"));
}

#[test]
fn names_that_cannot_name_children_are_refused() {
    let mut long = cluster(&minimal());
    long.metadata.name = Some("a".repeat(41));
    assert!(refusal(&long).contains("at most 40 characters"), "{}", refusal(&long));
    for name in ["a.b", "1a", "a-"] {
        let mut odd = cluster(&minimal());
        odd.metadata.name = Some(name.to_owned());
        assert!(refusal(&odd).contains("begin with a lower-case letter"), "{name}");
    }
}

#[test]
fn storage_grows_and_goes_back_no_further_than_the_volumes_are() {
    let with = |size: &str, volumes: Option<&str>| {
        let mut spec = minimal();
        spec["storage"]["size"] = json!(size);
        let mut cluster = cluster(&spec);
        let volume_size = volumes.map(str::to_owned);
        cluster.status = Some(StoreClusterStatus { volume_size, ..StoreClusterStatus::default() });
        cluster
    };
    let update = |new: &str, old: &str, volumes| {
        validate_cel_update(&with(new, volumes), &with(old, volumes)).map_err(|it| it.to_string())
    };
    update("16Gi", "8Gi", Some("8Gi")).expect("growing is admitted");
    update("8192Mi", "8Gi", Some("8Gi")).expect("the same size in other words");
    update("8Gi", "16Gi", Some("8Gi")).expect("what no volume was asked to be is taken back");
    for (new, old, volumes) in
        [("7Gi", "8Gi", Some("8Gi")), ("8Gi", "16Gi", Some("16Gi")), ("7Gi", "8Gi", None)]
    {
        let refused = update(new, old, volumes).expect_err("shrinking");
        assert!(refused.contains("storage.size cannot shrink"), "{refused}");
    }
    let unseen = validate_cel_update(&cluster(&minimal()), &with("16Gi", None));
    unseen.expect_err("nobody has looked at the volumes yet");
    // Volumes that were adopted may be larger than what is wanted: a status that says so is taken.
    update("8Gi", "8Gi", Some("16Gi")).expect("a status is never refused for its size");
}

#[test]
fn options_that_cannot_work_are_refused() {
    let with = |options: StoreOptions| {
        let mut cluster = cluster(&minimal());
        cluster.spec.options = Some(options);
        cluster
    };
    let slow = StoreOptions { heartbeat_interval: Some(300), ..StoreOptions::default() };
    assert!(refusal(&with(slow)).contains("5 times heartbeatInterval"));
    let mode = StoreOptions {
        auto_compaction_mode: Some(crate::AutoCompactionMode::Periodic),
        ..StoreOptions::default()
    };
    assert!(refusal(&with(mode)).contains("autoCompactionRetention"));
}

#[test]
fn an_update_strategy_may_say_one_thing_and_leave_the_rest() {
    let mut spec = minimal();
    spec["updateStrategy"] = json!({"paused": true});
    let strategy = cluster(&spec).spec.update_strategy.expect("given");
    assert_eq!((strategy.type_, strategy.paused), (None, true));
    spec["updateStrategy"] = json!({"type": "OnDelete"});
    validate_cel(&cluster(&spec)).expect("admitted");
    spec["updateStrategy"] = json!({"type": "Recreate"});
    assert!(serde_json::from_value::<StoreClusterSpec>(spec).is_err(), "no such way");
}

#[test]
fn unknown_fields_do_not_parse() {
    let mut spec = minimal();
    spec["storage"]["sise"] = json!("8Gi");
    assert!(serde_json::from_value::<StoreClusterSpec>(spec).is_err());
}

/// The message with which CEL refuses a spec that has `value` at `path`, if it does.
fn refused_at(path: &[&str], value: &Value) -> Option<String> {
    let mut spec = minimal();
    let mut place = &mut spec;
    for key in path {
        place = &mut place[*key];
    }
    *place = value.clone();
    validate_cel(&cluster(&spec)).err().map(|refusal| refusal.to_string())
}

#[test]
fn reserved_labels_are_refused_wherever_labels_are_given() {
    let keys = [
        "quorate.dev/role",
        "quorate.dev/anything",
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/managed-by",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/job-name",
        "controller-revision-hash",
        "controller-uid",
        "job-name",
    ];
    let others = ["team", "app.kubernetes.io/part-of", "example.com/quorate.dev", "quorate.device"];
    for path in [&["labels"][..], &["podTemplate", "labels"], &["service", "labels"]] {
        for key in keys {
            let refusal = refused_at(path, &json!({"team": "a", key: "x"}));
            let refusal = refusal.unwrap_or_else(|| panic!("{key} is admitted at {path:?}"));
            assert!(refusal.contains("choose another key"), "{refusal}");
            assert!(reserved::is_reserved_label(key), "{key}: the rule in Rust is another one");
        }
        for key in others {
            assert_eq!(refused_at(path, &json!({key: "x"})), None, "{key} at {path:?}");
            assert!(!reserved::is_reserved_label(key), "{key}");
        }
    }
}

#[test]
fn reserved_annotations_are_refused_and_the_restart_named() {
    let path = ["podTemplate", "annotations"];
    for key in ["quorate.dev/settings", "kubectl.kubernetes.io/default-container"] {
        let refusal = refused_at(&path, &json!({key: "x"})).expect("refused");
        assert!(refusal.contains("quorate.dev/restart"), "{refusal}");
        assert!(reserved::is_reserved_annotation(key));
    }
    for key in ["prometheus.io/scrape", "sidecar.istio.io/inject"] {
        assert_eq!(refused_at(&path, &json!({key: "false"})), None);
        assert!(!reserved::is_reserved_annotation(key));
    }
}

#[test]
fn a_pod_template_is_a_subset_and_says_so_by_refusing_the_rest() {
    for field in ["containers", "initContainers", "volumes", "hostNetwork", "dnsPolicy", "affinity"]
    {
        let mut spec = minimal();
        spec["podTemplate"] = json!({field: []});
        assert!(serde_json::from_value::<StoreClusterSpec>(spec).is_err(), "{field} parses");
    }
}
