//! What this program calls itself.

/// The etcd release whose API is served. Clients read it: kube-apiserver parses it and turns consistent lists from
/// its cache on from 3.4.31 (`storage/feature/feature_support_checker.go`), so it must stay a release of etcd.
pub const ETCD_API: &str = "3.7.3";

/// What etcd calls the cluster version: the minor release that all members speak.
pub const ETCD_CLUSTER: &str = "3.7.0";

/// What etcd calls the storage version: of a `.db` file that we write.
pub const ETCD_STORAGE: &str = "3.7.0";

/// This build. A new feature level comes with a new minor version, so the build that is ahead by a level calls itself so.
pub const QUORATE: &str =
    if cfg!(feature = "next-level") { NEXT_MINOR } else { env!("CARGO_PKG_VERSION") };

/// The minor version after this one, as the operator's rule of skew counts.
const NEXT_MINOR: &str = "0.2.0";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_minor_version_is_one_ahead() {
        let minor: u32 = env!("CARGO_PKG_VERSION_MINOR").parse().expect("a number");
        assert_eq!(NEXT_MINOR, format!("{}.{}.0", env!("CARGO_PKG_VERSION_MAJOR"), minor + 1));
        assert!(text("quorate").contains(QUORATE));
    }
}
