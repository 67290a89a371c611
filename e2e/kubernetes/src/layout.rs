//! The names, addresses and paths of the bed: one page to read before `ip addr` in any of its namespaces.
//!
//! ```text
//!   host ── quorate-host 198.18.0.2 ═══ quorate-cp: bridge 198.18.0.1 (API server, DNS)
//!                                        ║       ║       ║            one segment, 198.18.0.0/16,
//!                             quorate-n1 ║  n2   ║   n3  ║            with no way out of the host
//!                      bridge 198.18.0.11   .12     .13
//!                      pods   198.18.1.x    2.x     3.x               Services 198.19.0.0/16
//! ```

use std::path::{Path, PathBuf};

/// Where the bed keeps everything it writes. One bed a host: the path is fixed, so that `down` finds a bed whose `up`
/// was killed half-way.
pub const STATE: &str = "/var/lib/quorate-testbed";

/// The network namespace of the control plane.
pub const CONTROL_PLANE: &str = "quorate-cp";

/// The bridge inside each namespace.
pub(crate) const BRIDGE: &str = "quorate0";

/// The port of each node's bridge that leads to the control plane's bridge.
pub(crate) const UPLINK: &str = "uplink";

/// The host's end of the pair that lets a test on the host reach API server, pods and Services.
pub(crate) const HOST_PORT: &str = "quorate-host";

/// The control plane's end of that pair.
pub(crate) const HOST_PEER: &str = "host";

/// The host's own address on the segment.
pub const HOST_ADDRESS: &str = "198.18.0.2";

/// The control plane's address: API server and DNS.
pub const CONTROL_PLANE_ADDRESS: &str = "198.18.0.1";

/// The segment of nodes and pods.
pub const POD_CIDR: &str = "198.18.0.0/16";

/// The addresses of Services.
pub const SERVICE_CIDR: &str = "198.19.0.0/16";

/// The first of them, which Kubernetes gives to the API server.
pub(crate) const KUBERNETES_SERVICE_ADDRESS: &str = "198.19.0.1";

/// The API server as everybody, the host included, reaches it.
pub const API_SERVER: &str = "https://198.18.0.1:6443";

/// Where the in-tree host-path provisioner makes its directories. The path is compiled into it; a link leads to
/// [`volumes`].
pub(crate) const PROVISIONER_PATH: &str = "/tmp/hostpath_pv";

/// The name of node `number` (from 1), in Kubernetes and as network namespace and control group.
#[must_use]
pub fn node_name(number: usize) -> String {
    format!("quorate-n{number}")
}

/// The address of node `number`.
#[must_use]
pub fn node_address(number: usize) -> String {
    format!("198.18.0.{}", 10 + number)
}

/// A path below the state directory.
pub(crate) fn state(path: &str) -> PathBuf {
    Path::new(STATE).join(path)
}

/// The administrator's kubeconfig (group `system:masters`).
#[must_use]
pub fn kubeconfig() -> PathBuf {
    state("kubeconfig")
}

/// One JSON document a line for every request that the API server answered.
#[must_use]
pub fn audit_log() -> PathBuf {
    state("audit.log")
}

/// The directories behind the volumes that were provisioned.
#[must_use]
pub fn volumes() -> PathBuf {
    state("volumes")
}

/// The volumes of the storage driver, one directory each, on whose `data` the volume is mounted.
#[must_use]
pub fn storage_driver_volumes() -> PathBuf {
    state("csi-volumes")
}

/// The log of a process: `place` is a namespace's name, `program` what runs there.
#[must_use]
pub fn log(place: &str, program: &str) -> PathBuf {
    state("logs").join(format!("{place}-{program}.log"))
}

/// The file that names a network namespace.
pub(crate) fn namespace_file(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NODES_MAX;

    #[test]
    fn no_address_is_given_twice() {
        let mut addresses: Vec<String> = (1..=NODES_MAX).map(node_address).collect();
        addresses.extend([HOST_ADDRESS.to_owned(), CONTROL_PLANE_ADDRESS.to_owned()]);
        let all = addresses.len();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), all);
    }

    #[test]
    fn interface_and_socket_names_fit_the_kernels_limits() {
        assert!(node_name(NODES_MAX).len() <= 15, "an interface name has at most 15 bytes");
        let socket = state("quorate-n9/containerd.sock.ttrpc");
        assert!(socket.as_os_str().len() < 108, "a socket path has at most 107 bytes");
    }
}
