//! Golden YAML of the children. `UPDATE_GOLDEN=1 cargo test -p quorate-planner golden` writes it
//! anew.

use crate::desired::Desired;
use crate::fixture;
use crate::objects::labels::Owner;
use crate::objects::{budget, claim, formation_job, services, stateful_set};
use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::serde::Serialize;
use quorate_crds::{
    AntiAffinity, PodSecurity, PodTemplate, Scheduling, StoreOptions, TopologySpread,
};
use std::collections::BTreeMap;
use std::path::Path;

fn golden(name: &str, object: &impl Serialize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/objects/golden").join(name);
    let text = serde_yaml_ng::to_string(object).expect("plain data");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("the directory is there");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "{name} is not what is built now; look at the difference, then UPDATE_GOLDEN=1\n{text}"
    );
}

fn seat(voter: bool) -> stateful_set::Seat<'static> {
    stateful_set::Seat { ordinal: 2, claim: "db-2-1", voter, incarnation: 1, cluster_id: 0xc1 }
}

fn with_everything() -> Desired {
    let mut cluster = fixture::store_cluster(3);
    let amount = |text: &str| BTreeMap::from([("memory".to_owned(), Quantity(text.to_owned()))]);
    cluster.spec.resources = Some(ResourceRequirements {
        requests: Some(amount("1Gi")),
        limits: Some(amount("2Gi")),
        ..ResourceRequirements::default()
    });
    cluster.spec.options =
        Some(StoreOptions { election_timeout: Some(2000), ..StoreOptions::default() });
    cluster.spec.env =
        vec![EnvVar { name: "TZ".into(), value: Some("UTC".into()), ..EnvVar::default() }];
    let map = |key: &str| BTreeMap::from([(key.to_owned(), "x".to_owned())]);
    cluster.spec.labels = map("example.com/team");
    cluster.spec.pod_template = Some(PodTemplate {
        labels: map("tier"),
        annotations: map("sidecar.example.com/inject"),
        service_account_name: Some("store".to_owned()),
        security_context: Some(PodSecurity { run_as_user: Some(1000), ..PodSecurity::default() }),
        termination_grace_period_seconds: Some(60),
        runtime_class_name: Some("sandboxed".to_owned()),
    });
    cluster.spec.scheduling = Some(Scheduling {
        anti_affinity: Some(AntiAffinity::Required),
        topology_spread: vec![TopologySpread {
            topology_key: "topology.kubernetes.io/zone".to_owned(),
            max_skew: None,
            when_unsatisfiable: None,
        }],
        node_selector: BTreeMap::from([("disk".to_owned(), "fast".to_owned())]),
        tolerations: vec![Toleration { key: Some("stateful".into()), ..Toleration::default() }],
        priority_class: Some("high".to_owned()),
    });
    Desired::validate(&cluster, &fixture::defaults()).expect("valid")
}

#[test]
fn golden_children() {
    let desired = fixture::desired(3);
    let owner = Owner { name: &desired.name, uid: fixture::UID, extra: &desired.labels };
    golden("peers.yaml", &services::peers(&owner));
    golden("clients.yaml", &services::clients(&owner, &desired, 1));
    golden("budget.yaml", &budget::voters(&owner, &desired, 2));
    golden("claim.yaml", &claim::claim(&owner, &desired, 2, 1));
    golden("member.yaml", &stateful_set::member(&owner, &desired, &seat(true)));
    golden("formation.yaml", &formation_job::form(&owner, &desired, fixture::UID, 0, 1));
    let everything = with_everything();
    let owner = Owner { extra: &everything.labels, ..owner };
    let member = stateful_set::member(&owner, &everything, &seat(false));
    golden("member-with-everything.yaml", &member);
}

#[test]
fn no_template_depends_on_membership() {
    let small = fixture::desired(1);
    let large = fixture::desired(9);
    let owner = Owner { name: &small.name, uid: fixture::UID, extra: &small.labels };
    assert_eq!(
        stateful_set::member(&owner, &small, &seat(true)),
        stateful_set::member(&owner, &large, &seat(true))
    );
}
