//! The resources of quorate.dev and their generated YAML.
//!
//! # What this room is
//!
//! A person writes YAML; the API server checks it; the operator reads it. This crate is the one
//! place that knows the names of the fields, their defaults, what is refused at admission and with
//! which words. It holds types and nothing that acts: the operator's mind (`quorate-planner`) turns
//! a [`StoreCluster`] into a plan, the operator's shell talks to the API server, and the end-to-end
//! tests write manifests with the same types.
//!
//! ```yaml
//! apiVersion: quorate.dev/v1alpha1
//! kind: StoreCluster
//! metadata: {name: orders}
//! spec: {replicas: 3, version: "0.1.0", storage: {size: 8Gi}}
//! ```
//!
//! # What it does not know
//!
//! How a cluster is formed, what a quorum is, which objects a cluster consists of, how a member is
//! started. It performs no I/O except in the `crdgen` binary, which writes the YAML beside the
//! types.
//!
//! # Rules of the room
//!
//! * A field that does nothing is not in the schema. What is accepted is served.
//! * Everything that can be checked at admission is checked there, by CEL, with a message that says
//!   what to do instead. What CEL cannot say within its cost budget (lists of unbounded strings) is
//!   checked by the planner's `Desired` and reported as a condition.
//! * Each field is documented, because `kubectl explain` is read before any web page is.
//! * `status` is two things in one: a report for people and the operator's memory. The memory is
//!   *input* of the next plan (architecture §5), written with a resourceVersion precondition before
//!   the act that it announces. It is therefore typed as strictly as the spec is.
//! * The committed YAML in `crds/*.yaml` is what `crdgen` prints; a test of this crate fails when
//!   it is stale, so that `kubectl apply -f crds/` is always the types' own word.
//!
//! # What was left out
//!
//! `tls`, `auth`, `bootstrap.restore`, `recovery.quorumLoss` and the snapshot
//! family are part of the design (§7) and not yet served, hence not in the schema. Conversion
//! webhooks: there is one version. `storage.size` is a string rather than the API's int-or-string
//! quantity, because CEL can compare a string by `quantity()` and a person who writes `size: 8`
//! almost never means eight bytes.

// KubeSchema derives a second, private copy of every type and repeats its `pub`.
#![allow(unreachable_pub)]

#[cfg(test)]
mod admission;
pub mod limits;
pub mod names;
pub mod options;
pub mod pod_template;
pub mod reserved;
pub mod status;
pub mod store_cluster;
pub mod yaml;

pub use options::{AutoCompactionMode, LogLevel, StoreOptions};
pub use pod_template::{DisruptionBudget, PodSecurity, PodTemplate, UnhealthyPodEviction};
pub use status::{
    FormationStatus, MemberHealth, MemberRole, MemberStatus, OperationKind, OperationStatus,
    StoreClusterStatus,
};
pub use store_cluster::{
    AntiAffinity, Recovery, RetentionPolicy, Scheduling, ServiceSpec, ServiceType, Storage,
    StoreCluster, StoreClusterSpec, TopologySpread, UpdateStrategy, UpdateType, VolumeRetention,
    WhenUnsatisfiable,
};
