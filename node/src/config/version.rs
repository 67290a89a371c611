//! What this program calls itself.

/// The etcd release whose API is served. Clients read it: kube-apiserver parses it and turns consistent lists from
/// its cache on from 3.4.31 (`storage/feature/feature_support_checker.go`), so it must stay a release of etcd.
pub const ETCD_API: &str = "3.7.3";

/// What etcd calls the cluster version: the minor release that all members speak.
pub const ETCD_CLUSTER: &str = "3.7.0";

/// What etcd calls the storage version: of a `.db` file that we write.
pub const ETCD_STORAGE: &str = "3.7.0";

/// This build.
pub const QUORATE: &str = env!("CARGO_PKG_VERSION");

/// What `--version` prints. Run under the name `etcd`, the program presents itself as etcd does, line by line, so
/// that tools which start a server and read its version (etcd's own test suite is one) find what they look for.
#[must_use]
pub fn text(program: &str) -> String {
    if program == "etcd" {
        format!("etcd Version: {ETCD_API}\nQuorate Version: {QUORATE}")
    } else {
        format!("quorate Version: {QUORATE}\netcd API Version: {ETCD_API}")
    }
}
