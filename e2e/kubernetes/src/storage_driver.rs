//! Volumes that grow: the bed's CSI driver with Kubernetes' own provisioner and resizer, for the tests that ask for them.
//!
//! ```text
//!   quorate-cp: csi-provisioner, csi-resizer ─► csi-driver (controller)   csi.sock in the state directory
//!   quorate-nX: kubelet ─► csi-driver (node)                              csi.sock in the node's directory
//! ```
//!
//! They do not belong to every bed: building them takes two minutes once, and most tests need no volume that grows. To
//! start them takes about as long as a kubelet needs to notice the driver.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::command;
use crate::components::{CSI_DRIVER, CSI_PROVISIONER, CSI_RESIZER, Component};
use crate::control_plane::kubeconfig_of;
use crate::layout::{self, CONTROL_PLANE};
use crate::limits::DRIVER_KNOWN;
use crate::node::Node;
use crate::processes::{self, Daemon, Process};
use crate::progress::Progress;
use crate::wait;

/// The StorageClass whose volumes grow. The bed's default class is one whose volumes do not.
pub const EXPANDABLE: &str = "quorate-expandable";

/// The provisioner's program, and the user as whom it acts.
pub(crate) const PROVISIONER: &str = "csi-provisioner";

/// The resizer's program, and the user as whom it acts.
pub(crate) const RESIZER: &str = "csi-resizer";

/// The driver's program.
const DRIVER: &str = "csi-driver";

/// The driver's name in Kubernetes; compiled into it (`go/csi-driver/main.go`).
const DRIVER_NAME: &str = "volumes.testbed.quorate.dev";

/// What the driver is to Kubernetes, and what provisioner and resizer may do: as their own `deploy/kubernetes/rbac.yaml`
/// says, without snapshots, topology and leader election, which the bed has not.
const MANIFESTS: &str = "\
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: volumes.testbed.quorate.dev}
spec: {attachRequired: false, podInfoOnMount: false, fsGroupPolicy: File}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: quorate-expandable}
provisioner: volumes.testbed.quorate.dev
allowVolumeExpansion: true
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: csi-provisioner}
rules:
- {apiGroups: [''], resources: [persistentvolumes], verbs: [get, list, watch, create, patch, update, delete]}
- {apiGroups: [''], resources: [persistentvolumeclaims], verbs: [get, list, watch, update]}
- {apiGroups: [''], resources: [nodes], verbs: [get, list, watch]}
- {apiGroups: [''], resources: [events], verbs: [list, watch, create, update, patch]}
- apiGroups: [storage.k8s.io]
  resources: [storageclasses, csinodes, volumeattachments, volumeattributesclasses]
  verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: csi-resizer}
rules:
- {apiGroups: [''], resources: [persistentvolumes], verbs: [get, list, watch, patch]}
- {apiGroups: [''], resources: [persistentvolumeclaims, pods], verbs: [get, list, watch]}
- {apiGroups: [''], resources: [persistentvolumeclaims/status], verbs: [patch]}
- {apiGroups: [''], resources: [events], verbs: [list, watch, create, update, patch]}
- {apiGroups: [storage.k8s.io], resources: [volumeattributesclasses], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: csi-provisioner}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: csi-provisioner}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: csi-provisioner}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: csi-resizer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: csi-resizer}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: csi-resizer}
";

impl Cluster {
    /// Starts whatever of driver, provisioner and resizer does not run, and returns when every kubelet knows the driver.
    /// What runs is left as it is.
    ///
    /// # Errors
    /// A program cannot be built or started, or a kubelet does not take the driver; the message quotes the driver's log.
    pub fn start_storage_driver(&self) -> Result<()> {
        let progress = &Progress::start();
        for component in [CSI_DRIVER, CSI_RESIZER, CSI_PROVISIONER] {
            component.ensure(progress)?;
        }
        for user in [PROVISIONER, RESIZER] {
            let file = kubeconfig_of(user);
            let why =
                "this bed is older than its storage driver: `cargo xtask cluster down`, then up";
            ensure!(file.is_file(), "{} is missing: {why}", file.display());
        }
        fs::create_dir_all(layout::storage_driver_volumes())
            .context("create the driver's directory")?;
        self.apply(MANIFESTS)?;
        let socket = layout::state("csi.sock").display().to_string();
        start(CONTROL_PLANE, &CSI_DRIVER, serving(&socket))?;
        start(CONTROL_PLANE, &CSI_PROVISIONER, asking(PROVISIONER, &socket))?;
        start(CONTROL_PLANE, &CSI_RESIZER, asking(RESIZER, &socket))?;
        self.nodes().iter().try_for_each(start_on)?;
        self.wait_for_driver(progress)
    }

    /// Kills (SIGKILL) the resizer: claims that ask for more wait until [`Cluster::start_storage_driver`] brings it back.
    ///
    /// # Errors
    /// It does not run, or outlived the deadline.
    pub fn kill_resizer(&self) -> Result<()> {
        let running = || running(CONTROL_PLANE, RESIZER);
        ensure!(!running().is_empty(), "no {RESIZER} runs that could be killed");
        processes::kill_all(&Progress::start(), RESIZER, running)
    }

    fn wait_for_driver(&self, progress: &Progress) -> Result<()> {
        let path =
            "jsonpath={range .items[*]}{.metadata.name} {.spec.drivers[*].name}{\"\\n\"}{end}";
        let known = wait::until(progress, "the kubelets to know the driver", DRIVER_KNOWN, || {
            let listed = self.kubectl_output(&["get", "csinodes", "--output", path])?;
            let knows = |node: &&Node| {
                let name = node.name();
                listed.lines().any(|line| line.starts_with(&name) && line.contains(DRIVER_NAME))
            };
            let known = self.nodes().iter().filter(knows).count();
            let wanted = self.nodes().len();
            Ok(if known == wanted { Ok(()) } else { Err(format!("{known} of {wanted}")) })
        });
        known.with_context(|| {
            let tails = self.nodes().iter().map(|node| {
                let log = layout::log(&node.name(), DRIVER);
                format!("{} ends with:\n{}", log.display(), command::tail(&log))
            });
            tails.collect::<Vec<_>>().join("\n")
        })
    }
}

/// Whether somebody has started the driver on this bed.
pub(crate) fn is_used() -> bool {
    !running(CONTROL_PLANE, DRIVER).is_empty()
}

fn start_on(node: &Node) -> Result<()> {
    // The kubelet looks here for drivers; it makes the directory when it starts.
    let registry = node.path("kubelet/plugins_registry");
    fs::create_dir_all(&registry).with_context(|| format!("create {}", registry.display()))?;
    let mut arguments = serving(&node.path("csi.sock").display().to_string());
    arguments.push(format!("-node={}", node.name()));
    arguments.push(format!("-registration={}", registry.join("csi-driver.sock").display()));
    start(&node.name(), &CSI_DRIVER, arguments)
}

fn serving(socket: &str) -> Vec<String> {
    let volumes = layout::storage_driver_volumes();
    vec![format!("-volumes={}", volumes.display()), format!("-socket={socket}")]
}

/// Flags of the provisioner and of the resizer. What failed is tried again within seconds, not minutes: a test waits for it.
fn asking(user: &str, socket: &str) -> Vec<String> {
    let kubeconfig = kubeconfig_of(user).display().to_string();
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--csi-address={socket}"),
        "--retry-interval-max=5s".to_owned(),
    ]
}

/// Starts a component's one program in a namespace, unless it runs there.
fn start(namespace: &str, component: &Component, arguments: Vec<String>) -> Result<()> {
    if !running(namespace, component.name).is_empty() {
        return Ok(());
    }
    let program = component.program(component.name);
    Daemon { namespace, program, arguments }.start()
}

fn running(namespace: &str, program: &str) -> Vec<Process> {
    let mut all = processes::in_namespace(namespace);
    all.retain(|process| process.program == program);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NODES_MAX;

    #[test]
    fn the_names_that_others_are_compiled_with_are_ours() {
        let driver = include_str!("../go/csi-driver/main.go");
        assert!(driver.contains(&format!("driverName = \"{DRIVER_NAME}\"")));
        for (kind, name) in [("CSIDriver", DRIVER_NAME), ("StorageClass", EXPANDABLE)] {
            let named = format!("kind: {kind}\nmetadata: {{name: {name}}}");
            assert!(MANIFESTS.contains(&named), "{named}");
        }
        for user in [PROVISIONER, RESIZER] {
            assert!(MANIFESTS.contains(&format!("kind: User, name: {user}}}")), "{user}");
        }
    }

    #[test]
    fn socket_paths_fit_the_kernels_limit() {
        let node = Node::numbered(NODES_MAX);
        let longest = node.path("kubelet/plugins_registry/csi-driver.sock");
        assert!(longest.as_os_str().len() < 108, "a socket path has at most 107 bytes");
    }
}
