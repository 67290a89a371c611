//! What dashboards and alerts of etcd rely on: each of our metrics with its name, its type and its labels, as a running etcd has them.

#![allow(clippy::unwrap_used, reason = "a test says that it failed by a panic")]

use std::collections::{BTreeMap, BTreeSet};

use quorate_e2e_store::cluster::{Cluster, Server};
use quorate_e2e_store::{http, limits};
use quorate_kubernetes::{Progress, wait};

/// The metrics of etcd's own alerts and dashboard (`contrib/mixin`).
const CORE: [&str; 28] = [
    "etcd_server_has_leader",
    "etcd_server_is_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_pending",
    "etcd_server_proposals_failed_total",
    "etcd_server_quota_backend_bytes",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_disk_wal_fsync_duration_seconds",
    "etcd_disk_backend_commit_duration_seconds",
    "etcd_network_peer_round_trip_time_seconds",
    "etcd_network_peer_sent_bytes_total",
    "etcd_network_peer_received_bytes_total",
    "etcd_network_peer_sent_failures_total",
    "etcd_network_peer_received_failures_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_network_client_grpc_received_bytes_total",
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

/// Those that etcd shows only once something has failed.
const ON_FAILURE: [&str; 2] =
    ["etcd_network_peer_sent_failures_total", "etcd_network_peer_received_failures_total"];

/// What a page says of one metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    /// The names of its labels; the buckets of a histogram with their bounds.
    labels: BTreeSet<String>,
}

#[test]
fn every_core_metric_has_etcds_name_type_and_labels() {
    let etcd = families(Server::Etcd);
    let ours = families(Server::Quorate);
    for name in CORE {
        let is = ours.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        match etcd.get(name) {
            Some(family) => assert_eq!(is, family, "{name}: ours is the left one"),
            None => assert!(ON_FAILURE.contains(&name), "etcd has no {name} itself"),
        }
    }
}

#[test]
fn the_document_lists_what_a_running_server_shows() {
    let document = include_str!("../../../docs/metrics.md");
    let section = document.split("## The store").nth(1).expect("its section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeMap<&str, &str> = rows
        .map(|row| {
            let (name, rest) = row.split_once("` | ").expect("a row has cells");
            (name, rest.split(" |").next().unwrap_or_default())
        })
        .collect();
    let shown = families(Server::Quorate);
    for (name, family) in &shown {
        assert_eq!(listed.get(name.as_str()), Some(&family.kind.as_str()), "{name}");
    }
    // Shown only when it is asked for.
    let extensive = "grpc_server_handling_seconds";
    let missing: Vec<_> =
        listed.keys().filter(|name| !shown.contains_key(**name) && **name != extensive).collect();
    assert!(missing.is_empty(), "listed and not shown: {missing:?}");
}

fn families(server: Server) -> BTreeMap<String, Family> {
    let cluster = Cluster::start(server, 3, &[]).unwrap();
    let etcdctl = cluster.etcdctl().unwrap();
    etcdctl.run(&["put", "a", "1"]).unwrap();
    etcdctl.run(&["get", "a"]).unwrap();
    // Round trips are measured every few seconds.
    let what = "every peer to have been asked for the way to it and back";
    wait::until(&Progress::start(), what, limits::SETTLED, || {
        let (code, page) = http::get(cluster.members[0].client_port, "/metrics")?;
        assert_eq!(code, 200);
        let families = parse(&page);
        let probed = families
            .get("etcd_network_peer_round_trip_time_seconds")
            .is_some_and(|family| family.labels.contains("To"));
        Ok(if probed { Ok(families) } else { Err("no round trip yet".to_owned()) })
    })
    .unwrap()
}

fn parse(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|it| it.split_once(' ')) {
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((name, rest)) = line.split_once('{') {
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            let Some(family) = families.get_mut(name) else { continue };
            let Some((labels, _)) = rest.split_once('}') else { continue };
            for (label, value) in labels.split("\",").filter_map(|label| label.split_once("=\"")) {
                let bound = value.trim_end_matches('"').parse::<f64>().ok();
                let named = match bound.filter(|_| label == "le") {
                    Some(bound) => format!("le={bound}"),
                    None => label.to_owned(),
                };
                family.labels.insert(named);
            }
        }
    }
    families
}
