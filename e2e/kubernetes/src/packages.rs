//! The Debian packages that the bed stands on: which are missing, and how they come.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::progress::Progress;

/// What the bed uses of the distribution, each with its use in it.
const PACKAGES: [(&str, &str); 14] = [
    ("buildah", "builds images without a container engine"),
    ("busybox-static", "the pause image and the pods of the smoke test"),
    ("conntrack", "kube-proxy's view of connections"),
    ("containerd", "runs containers on each node"),
    ("containernetworking-plugins", "bridge, host-local and loopback for pods"),
    ("e2fsprogs", "small disks for disk faults"),
    ("ethtool", "the kubelet's view of interfaces"),
    ("iproute2", "namespaces, bridges and veth pairs"),
    ("iptables", "the kubelet and the portmap plugin"),
    ("nftables", "kube-proxy's rules"),
    ("openssl", "the certificates of the control plane"),
    ("runc", "starts a container"),
    ("socat", "kubectl port-forward"),
    ("util-linux", "nsenter, setsid, mount, fsfreeze"),
];

/// Installs what is missing, as root on a Debian; says the command otherwise.
///
/// # Errors
/// Something is missing and we may not install it (the message is the command to type), or apt failed.
pub fn ensure(progress: &Progress) -> Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().map(|(name, _)| *name).filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let by_hand =
        format!("apt-get update && apt-get install --yes --no-install-recommends {names}");
    if !is_root() || !command::succeeds(Command::new("apt-get").arg("--version")) {
        bail!("missing on this host: {names}. As root on Debian 12: {by_hand}");
    }
    progress.say(format!("installing Debian packages: {names}"));
    let log = std::env::temp_dir().join("quorate-testbed-apt.log");
    let mut update = Command::new("apt-get");
    command::run_logged(update.arg("update"), &log, "apt-get update", progress)?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["install", "--yes", "--no-install-recommends"]).args(&missing);
    command::run_logged(&mut install, &log, "apt-get install", progress)
        .with_context(|| format!("install what the test bed needs; by hand: {by_hand}"))?;
    // NB: the package starts a containerd of its own on hosts with systemd. The bed's containerds have their own
    // sockets, roots and configuration, so the two do not meet.
    Ok(())
}

/// Whether this process may do what the bed needs: namespaces, mounts, control groups.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn is_installed(name: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Abbrev}", name]);
    command::output(&mut query).is_ok_and(|status| status.starts_with("ii"))
}
