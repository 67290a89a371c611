//! Placement and pods: what a spec shapes of them, what restarts members and what does not, and where
//! voters should not be together.

use crate::fixture::{self, Stage};
use crate::naming::CONTAINER;
use crate::objects::labels::Owner;
use crate::objects::{budget, pod, stateful_set};
use crate::observed::{NodeView, Nodes};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec, Probe, Toleration};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_crds::{
    AntiAffinity, DisruptionBudget, LogLevel, PodSecurity, PodTemplate, Recovery, RetentionPolicy,
    Scheduling, ServiceSpec, ServiceType, StoreCluster, StoreOptions, TopologySpread,
    UnhealthyPodEviction, UpdateStrategy, UpdateType, VolumeRetention, WhenUnsatisfiable, names,
};
use std::collections::BTreeMap;

/// A change of a spec.
type Change = fn(&mut StoreCluster);

fn map(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

fn scheduling(change: impl FnOnce(&mut Scheduling)) -> Option<Scheduling> {
    let mut scheduling = Scheduling::default();
    change(&mut scheduling);
    Some(scheduling)
}

fn template(change: impl FnOnce(&mut PodTemplate)) -> Option<PodTemplate> {
    let mut template = PodTemplate::default();
    change(&mut template);
    Some(template)
}

/// Every field whose change needs a restart, once.
const RESTARTS: &[(&str, Change)] = &[
    ("version", |c| c.spec.version = "0.1.1".into()),
    ("image", |c| c.spec.image = Some("registry.test/quorate:1".into())),
    ("options", |c| {
        let options = StoreOptions { log_level: Some(LogLevel::Debug), ..StoreOptions::default() };
        c.spec.options = Some(options);
    }),
    ("resources", |c| c.spec.resources = Some(Default::default())),
    ("env", |c| c.spec.env.push(EnvVar { name: "TZ".into(), ..EnvVar::default() })),
    ("antiAffinity", |c| {
        c.spec.scheduling = scheduling(|s| s.anti_affinity = Some(AntiAffinity::Required));
    }),
    ("topologySpread", |c| {
        c.spec.scheduling = scheduling(|s| {
            s.topology_spread.push(TopologySpread {
                topology_key: "topology.kubernetes.io/zone".into(),
                max_skew: None,
                when_unsatisfiable: None,
            });
        });
    }),
    ("nodeSelector", |c| c.spec.scheduling = scheduling(|s| s.node_selector = map("disk", "ssd"))),
    ("tolerations", |c| {
        c.spec.scheduling = scheduling(|s| s.tolerations.push(Toleration::default()));
    }),
    ("priorityClass", |c| {
        c.spec.scheduling = scheduling(|s| s.priority_class = Some("high".into()));
    }),
    ("podTemplate.annotations", |c| {
        c.spec.pod_template = template(|t| t.annotations = map("sidecar.istio.io/inject", "false"));
    }),
    ("podTemplate.serviceAccountName", |c| {
        c.spec.pod_template = template(|t| t.service_account_name = Some("store".into()));
    }),
    ("podTemplate.securityContext", |c| {
        c.spec.pod_template = template(|t| t.security_context = Some(PodSecurity::default()));
    }),
    ("podTemplate.terminationGracePeriodSeconds", |c| {
        c.spec.pod_template = template(|t| t.termination_grace_period_seconds = Some(60));
    }),
    ("podTemplate.runtimeClassName", |c| {
        c.spec.pod_template = template(|t| t.runtime_class_name = Some("gvisor".into()));
    }),
    ("the restart annotation", |c| {
        c.metadata.annotations = Some(map(names::ANNOTATION_RESTART, "now"));
    }),
];

/// Every other field, once; `replicas`, `paused` and `hibernated` have scripts of their own.
const NO_RESTARTS: &[(&str, Change)] = &[
    ("labels", |c| c.spec.labels = map("team", "a")),
    ("podTemplate.labels", |c| c.spec.pod_template = template(|t| t.labels = map("tier", "data"))),
    ("podTemplate", |c| c.spec.pod_template = Some(PodTemplate::default())),
    ("disruptionBudget", |c| {
        let policy = Some(UnhealthyPodEviction::IfHealthyBudget);
        c.spec.disruption_budget = Some(DisruptionBudget { unhealthy_pod_eviction_policy: policy });
    }),
    ("service", |c| {
        c.spec.service = Some(ServiceSpec {
            type_: Some(ServiceType::LoadBalancer),
            annotations: map("cloud/internal", "true"),
            labels: map("team", "a"),
        });
    }),
    ("recovery", |c| {
        c.spec.recovery = Some(Recovery { replace_after: Some("10m".into()) });
    }),
    ("storage.size", |c| c.spec.storage.size = "9Gi".into()),
    ("storage.storageClassName", |c| c.spec.storage.storage_class_name = Some("fast".into())),
    ("imagePullSecrets", |c| c.spec.image_pull_secrets.push(Default::default())),
    ("volumeRetention", |c| {
        let keep = Some(RetentionPolicy::Retain);
        c.spec.volume_retention = Some(VolumeRetention { when_scaled: keep, when_deleted: keep });
    }),
    ("updateStrategy", |c| {
        let type_ = Some(UpdateType::RollingUpdate);
        c.spec.update_strategy = Some(UpdateStrategy { type_, paused: true });
    }),
];

#[test]
fn exactly_what_needs_a_restart_causes_one() {
    let changes = RESTARTS.iter().map(|change| (change, 3));
    for ((field, change), restarts) in changes.chain(NO_RESTARTS.iter().map(|change| (change, 0))) {
        let mut stage = Stage::at_rest(3);
        change(&mut stage.cluster);
        let story = stage.rest();
        assert_eq!(story.matches("restart pod").count(), restarts, "{field}: {story}");
        let leaders = usize::from(restarts > 0);
        assert_eq!(story.matches("move leader").count(), leaders, "{field}: {story}");
        assert_eq!(stage.condition("RestartPending").0, "False", "{field}");
        assert!(!story.contains("warn"), "{field}: {story}");
    }
}

#[test]
fn the_two_lists_name_every_field_of_the_spec() {
    let full = k8s_openapi::serde_json::to_value(quorate_crds::yaml::files()).expect("text");
    let yaml = full[0][1].as_str().expect("the definition");
    let crd: k8s_openapi::serde_json::Value = serde_yaml_ng::from_str(yaml).expect("YAML");
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let known: Vec<&str> = RESTARTS.iter().chain(NO_RESTARTS).map(|(field, _)| *field).collect();
    let elsewhere = ["replicas", "paused", "hibernated"];
    let has = |name: &str| {
        elsewhere.contains(&name)
            || known.iter().any(|field| *field == name || field.starts_with(&format!("{name}.")))
    };
    let open = ["scheduling", "podTemplate", "storage"];
    for (name, property) in spec["properties"].as_object().expect("fields") {
        if open.contains(&name.as_str()) {
            for inner in property["properties"].as_object().expect("fields").keys() {
                let said = has(&format!("{name}.{inner}")) || has(inner);
                assert!(said, "does a change of {name}.{inner} restart members?");
            }
        } else {
            assert!(has(name), "does a change of {name} restart members?");
        }
    }
}

#[test]
fn labels_reach_running_pods_and_every_child_and_take_nobodys_place() {
    let mut stage = Stage::at_rest(3);
    stage.cluster.spec.labels = map("team", "a");
    stage.cluster.spec.pod_template = template(|t| t.labels = map("tier", "data"));
    let story = stage.rest();
    assert_eq!(story.matches("label pod").count(), 3, "{story}");
    let has = |labels: &Option<BTreeMap<String, String>>, key: &str| {
        labels.as_ref().and_then(|labels| labels.get(key).cloned())
    };
    for ordinal in 0..3 {
        let labels = stage.pod(ordinal).metadata.labels.clone();
        assert_eq!(has(&labels, "team").as_deref(), Some("a"));
        assert_eq!(has(&labels, "tier").as_deref(), Some("data"));
        assert_eq!(has(&labels, names::LABEL_ROLE).as_deref(), Some("voter"));
    }
    let observed = &stage.observed;
    let sets = observed.stateful_sets.iter().map(|o| &o.metadata);
    let services = observed.services.iter().map(|o| &o.metadata);
    let budgets = observed.budgets.iter().map(|o| &o.metadata);
    for metadata in sets.chain(services).chain(budgets) {
        assert_eq!(has(&metadata.labels, "team").as_deref(), Some("a"), "{:?}", metadata.name);
    }
    stage.cluster.spec.replicas = 5;
    stage.rest();
    let claim = stage.observed.claims.iter().find(|c| c.metadata.name.as_deref() == Some("db-4-1"));
    assert_eq!(has(&claim.expect("made").metadata.labels, "team").as_deref(), Some("a"));
    // A reserved key that came in before there was a rule takes no place of ours.
    let mut desired = fixture::desired(3);
    desired.labels = map(names::LABEL_CLUSTER, "other");
    let owner = Owner { name: &desired.name, uid: fixture::UID, extra: &desired.labels };
    assert_eq!(owner.labels()[names::LABEL_CLUSTER], "db");
}

#[test]
fn the_budget_lets_unready_voters_go_unless_the_spec_says_otherwise() {
    let mut desired = fixture::desired(3);
    let policy = |desired: &crate::Desired| {
        let owner = Owner { name: &desired.name, uid: fixture::UID, extra: &desired.labels };
        budget::voters(&owner, desired, 2).spec.and_then(|spec| spec.unhealthy_pod_eviction_policy)
    };
    assert_eq!(policy(&desired).as_deref(), Some("AlwaysAllow"));
    desired.unhealthy_pod_eviction = UnhealthyPodEviction::IfHealthyBudget;
    assert_eq!(policy(&desired).as_deref(), Some("IfHealthyBudget"));
}

fn member_pod(desired: &crate::Desired) -> PodSpec {
    let owner = Owner { name: &desired.name, uid: fixture::UID, extra: &desired.labels };
    let seat = stateful_set::Seat {
        ordinal: 0,
        claim: "db-0-1",
        voter: true,
        incarnation: 1,
        cluster_id: 1,
    };
    let set = stateful_set::member(&owner, desired, &seat);
    set.spec.and_then(|spec| spec.template.spec).expect("built")
}

#[test]
fn scheduling_reaches_the_pods_as_it_was_written() {
    let mut cluster = fixture::store_cluster(3);
    let plain = member_pod(&fixture::desired(3));
    let preferred = plain.affinity.and_then(|a| a.pod_anti_affinity).expect("by default");
    let terms = preferred.preferred_during_scheduling_ignored_during_execution.expect("preferred");
    assert_eq!(terms[0].pod_affinity_term.topology_key, "kubernetes.io/hostname");
    assert_eq!(preferred.required_during_scheduling_ignored_during_execution, None);
    cluster.spec.scheduling = scheduling(|s| {
        s.anti_affinity = Some(AntiAffinity::Required);
        s.node_selector = map("disk", "ssd");
        s.priority_class = Some("high".into());
        s.tolerations.push(Toleration { key: Some("stateful".into()), ..Toleration::default() });
        s.topology_spread.push(TopologySpread {
            topology_key: "topology.kubernetes.io/zone".into(),
            max_skew: Some(2),
            when_unsatisfiable: Some(WhenUnsatisfiable::DoNotSchedule),
        });
    });
    let desired = crate::Desired::validate(&cluster, &fixture::defaults()).expect("valid");
    let pod = member_pod(&desired);
    let required = pod.affinity.and_then(|a| a.pod_anti_affinity).expect("required");
    let terms = required.required_during_scheduling_ignored_during_execution.expect("required");
    let selector = terms[0].label_selector.clone().and_then(|s| s.match_labels).expect("members");
    assert_eq!(selector[names::LABEL_CLUSTER], "db");
    assert_eq!(selector[names::LABEL_COMPONENT], "member");
    assert_eq!(pod.node_selector, Some(map("disk", "ssd")));
    assert_eq!(pod.priority_class_name.as_deref(), Some("high"));
    assert_eq!(pod.tolerations.expect("one")[0].key.as_deref(), Some("stateful"));
    let spread = &pod.topology_spread_constraints.expect("one")[0];
    assert_eq!((spread.max_skew, spread.when_unsatisfiable.as_str()), (2, "DoNotSchedule"));
    assert_eq!(spread.label_selector.clone().and_then(|s| s.match_labels), Some(selector));
    cluster.spec.scheduling = scheduling(|s| s.anti_affinity = Some(AntiAffinity::None));
    let desired = crate::Desired::validate(&cluster, &fixture::defaults()).expect("valid");
    assert_eq!(member_pod(&desired).affinity, None);
}

#[test]
fn the_security_context_is_ours_or_theirs_and_never_root() {
    let mut desired = fixture::desired(3);
    let context = |desired: &crate::Desired| member_pod(desired).security_context.expect("built");
    let ours = context(&desired);
    assert_eq!((ours.run_as_user, ours.fs_group), (Some(65532), Some(65532)));
    desired.pod.security_context = Some(PodSecurity::default());
    let platforms = context(&desired);
    assert_eq!(
        (platforms.run_as_user, platforms.run_as_group, platforms.fs_group),
        (None, None, None)
    );
    let security = PodSecurity {
        run_as_user: Some(1000),
        supplemental_groups: vec![7],
        ..PodSecurity::default()
    };
    desired.pod.security_context = Some(security);
    let theirs = context(&desired);
    assert_eq!((theirs.run_as_user, theirs.fs_group), (Some(1000), None));
    assert_eq!(theirs.supplemental_groups, Some(vec![7]));
    for context in [ours, platforms, theirs] {
        assert_eq!(context.run_as_non_root, Some(true));
        assert_eq!(context.seccomp_profile.expect("always").type_, "RuntimeDefault");
    }
    let container = pod::spec(
        &Owner { name: &desired.name, uid: "u", extra: &desired.labels },
        &desired,
        "c",
        Container::default(),
    );
    let container = container.containers[0].security_context.clone().expect("always");
    assert_eq!(container.allow_privilege_escalation, Some(false));
    assert_eq!(container.read_only_root_filesystem, Some(true));
}

#[test]
fn probes_ask_what_the_contract_says_and_kill_nobody_for_a_full_disk_or_a_lost_quorum() {
    let pod = member_pod(&fixture::desired(3));
    let store = pod.containers.iter().find(|container| container.name == CONTAINER).expect("built");
    let asked = |probe: &Option<Probe>| {
        let probe = probe.clone().expect("set");
        let get = probe.http_get.expect("over HTTP, as the contract has it");
        let path = get.path.expect("set");
        assert_eq!(get.port, IntOrString::Int(2379));
        (path, probe.period_seconds.expect("set") * probe.failure_threshold.expect("set"))
    };
    // `/livez` never fails on NOSPACE, lost quorum or a missing leader (docs/contract.md).
    assert_eq!(asked(&store.liveness_probe), ("/livez".to_owned(), 30));
    // A joiner waits for its peers, a restarted member replays its log: ten minutes.
    assert_eq!(asked(&store.startup_probe), ("/livez".to_owned(), 600));
    // Two seconds: less than the drain delay, so that endpoints move before connections are refused.
    let (path, seconds) = asked(&store.readiness_probe);
    assert_eq!(path, "/readyz");
    assert!(i64::from(seconds) < crate::limits::DRAIN_SECONDS, "{seconds} s");
    assert!(pod.termination_grace_period_seconds.expect("set") >= 30);
}

fn put(stage: &mut Stage, ordinal: i32, node: &str) {
    if let Nodes::Seen(nodes) = &mut stage.observed.nodes {
        nodes.insert(node.to_owned(), NodeView::default());
    }
    let pod: &mut Pod = stage.pod(ordinal);
    pod.spec.as_mut().expect("built").node_name = Some(node.to_owned());
}

#[test]
fn two_voters_on_one_node_are_told_once_with_what_to_do() {
    let mut stage = Stage::at_rest(3);
    assert_eq!(stage.condition("PlacementWarning").1, "VotersApart");
    put(&mut stage, 1, "n1");
    put(&mut stage, 2, "n1");
    assert_eq!(stage.rest(), "warn VotersShareNode\n--\n");
    let (status, reason, message) = stage.condition("PlacementWarning");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "VotersShareNode"));
    for part in ["db-1, db-2 on n1", "cost the quorum", "antiAffinity: Required"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(stage.condition("Degraded").0, "False", "all serve");
    stage.later(3600);
    assert!(stage.plan().is_empty(), "told again");
    // While one of the two is restarted nothing else is known.
    stage.cluster.metadata.annotations = Some(map(names::ANNOTATION_RESTART, "now"));
    let story = stage.until("restart pod db-1-0");
    assert!(!story.contains("VotersShareNode"), "{story}");
    assert_eq!(stage.condition("PlacementWarning").0, "True");
    let story = stage.rest();
    assert!(!story.contains("VotersShareNode"), "{story}");
    assert_eq!(
        stage.condition("PlacementWarning").1,
        "VotersApart",
        "the stage gives each its own"
    );
}

#[test]
fn five_voters_on_three_nodes_keep_their_quorum_and_are_told_so() {
    let mut stage = Stage::at_rest(5);
    for ordinal in 0..5 {
        put(&mut stage, ordinal, ["n0", "n1", "n2"][ordinal as usize % 3]);
    }
    stage.rest();
    let message = stage.condition("PlacementWarning").2;
    assert!(message.contains("db-0, db-3 on n0; db-1, db-4 on n1"), "{message}");
    assert!(message.contains("several voters at once"), "{message}");
}
