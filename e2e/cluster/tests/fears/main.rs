//! What a person who runs a store is afraid of, one file each, on a real Kubernetes.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails, and so do its functions")]

mod bad_image;
mod children_restored;
mod claims_deleted;
mod corruption_accused;
mod create_and_scale;
mod data_damaged;
mod drain_node;
mod earlier_claims;
mod hibernate;
mod invalid_manifests;
mod kubectl_words;
mod member_leaves;
mod member_partitioned;
mod namespace_deleted;
mod node_lost;
mod operator_crashes;
mod operator_cut_off;
mod operator_killed;
mod pod_ended;
mod pods_deleted;
mod roll_of_etcd;
mod seed_wiped;
mod settings_changed;
mod twelve_members;
mod upgrade;
mod volumes;
