//! What a person who runs a store is afraid of, one file each, on a real Kubernetes.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails, and so do its functions")]

mod bad_image;
mod children_restored;
mod create_and_scale;
mod drain_node;
mod earlier_claims;
mod hibernate;
mod invalid_manifests;
mod kubectl_words;
mod operator_killed;
mod pods_deleted;
mod seed_wiped;
mod settings_changed;
mod upgrade;
mod volumes;
