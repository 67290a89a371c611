//! A real Kubernetes of three nodes on one host.
//!
//! # What this room is
//!
//! The operator is tested on a real control plane: kube-apiserver, kube-controller-manager, kube-scheduler, CoreDNS and,
//! on each of three nodes, containerd, kubelet and kube-proxy. No fake API server stands in for any of it, because what
//! goes wrong between an operator and Kubernetes goes wrong in exactly the places that a fake leaves out. No container
//! engine and no download of binaries is needed either: the programs are built from Go modules that `go/*/go.mod` pin,
//! into a cache keyed by version, and the rest are Debian packages.
//!
//! ```text
//!   Cluster::up ─► packages ─► components ─► network, cgroups ─► certificates ─► control_plane ─► node × 3
//!   Node        ─► kill, lose, cut_network, start: the faults that tests play
//!   Cluster::start_storage_driver ─► a CSI driver with the real provisioner and resizer, when a test asks for it
//!   down        ─► processes, mounts, groups, namespaces, files; then `leftovers` must be empty
//! ```
//!
//! Each node is a network namespace with a containerd and a kubelet of its own, and a control group that its pods live
//! in. All nodes and pods share one segment, 198.18.0.0/16, that ends at the host: nothing reaches beyond it. The host
//! has an address on it, so a test in an ordinary process reaches the API server, every pod and every Service. See
//! [`layout`] for the drawing.
//!
//! # What it does not know
//!
//! Nothing of stores, operators or charts: it builds and imports whatever image it is given ([`images`]). It keeps no
//! list of what it started. A process belongs to the bed because it is in one of its namespaces or control groups, a
//! mount because it lies below the state directory; so a bed can be found, judged and removed after an `up` that was
//! killed at any point.
//!
//! # What holds
//!
//! * One bed a host, at fixed names and addresses; `up` and `down` exclude each other by a lock.
//! * `up` on a whole bed changes nothing. `up` on a broken one removes it first.
//! * `down` either leaves nothing (process, mount, namespace, interface, control group, file) or fails and says what.
//! * No file is deleted while anything is mounted below the state directory, since a bind mount leads to foreign files.
//! * Every wait has a deadline and a reason ([`limits`]), and says what it waits for every twenty seconds.
//!
//! # How it differs from a cluster in the wild
//!
//! * All nodes share a disk and a kernel. Volumes are directories of the host (the in-tree host-path provisioner), so a
//!   volume can be reached from every node; give a PersistentVolume a node affinity to play one that cannot.
//! * That provisioner neither expands volumes nor knows `fsGroup`; a loop opens each new volume to every user. Volumes of
//!   the class [`storage_driver::EXPANDABLE`] do both; they are in memory (`go/csi-driver/main.go` says why).
//! * etcd behind the API server does not sync. Lost nodes are noticed after 25 s instead of 50, and pods leave them 30 s
//!   later instead of 5 minutes.
//! * A kubelet looks at each pod every 10 s instead of every minute: only then does it see that a file system is to grow.
//! * kube-proxy masquerades every connection to a Service, so a server sees a node's address instead of its client's.
//!
//! # Left out
//!
//! IPv6, network policies, load balancers, a metrics server. They come when a test needs them. An
//! existing cluster (kind, k3d, a real one) is used by giving its kubeconfig to the tests and not by this crate.

mod certificates;
mod cgroups;
mod cluster;
pub mod command;
pub mod components;
mod control_plane;
pub mod images;
pub mod layout;
pub mod limits;
mod mounts;
mod network;
mod node;
pub mod packages;
mod processes;
pub mod progress;
mod severed;
pub mod smoke;
pub mod storage_driver;
pub mod wait;

pub use cluster::{Cluster, Options, Status, down, leftovers, status};
pub use node::{Node, Part};
pub use processes::Process;
pub use progress::Progress;
pub use severed::Severed;
