//! The namespaces, bridges and veth pairs: one segment for all nodes and pods, with no way out of the host.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::layout::{
    BRIDGE, CONTROL_PLANE, CONTROL_PLANE_ADDRESS, HOST_ADDRESS, HOST_PEER, HOST_PORT, SERVICE_CIDR,
    UPLINK, namespace_file, node_address, node_name,
};
use crate::processes;

/// Lays out the control plane's namespace and joins the host to it by a veth pair.
///
/// The host does not forward and is nobody's gateway, so a pod can talk to the host and to nothing behind it.
///
/// # Errors
/// The kernel refuses: no privilege, or a name that is taken.
pub(crate) fn create_control_plane() -> Result<()> {
    create_namespace(CONTROL_PLANE, CONTROL_PLANE_ADDRESS)?;
    let pair = ["type", "veth", "peer", "name", HOST_PEER, "netns", CONTROL_PLANE];
    ip(["link", "add", HOST_PORT].into_iter().chain(pair))?;
    ip(["-n", CONTROL_PLANE, "link", "set", HOST_PEER, "master", BRIDGE, "up"])?;
    ip(["address", "add", &format!("{HOST_ADDRESS}/16"), "dev", HOST_PORT])?;
    ip(["link", "set", HOST_PORT, "up"])?;
    ip(["route", "add", SERVICE_CIDR, "via", CONTROL_PLANE_ADDRESS])
}

/// Lays out a node's namespace and joins its bridge to the control plane's.
///
/// # Errors
/// As [`create_control_plane`].
pub(crate) fn create_node(number: usize) -> Result<()> {
    let name = node_name(number);
    create_namespace(&name, &node_address(number))?;
    let pair = ["type", "veth", "peer", "name", UPLINK, "netns", &name];
    ip(["link", "add", &name, "netns", CONTROL_PLANE].into_iter().chain(pair))?;
    ip(["-n", CONTROL_PLANE, "link", "set", &name, "master", BRIDGE, "up"])?;
    ip(["-n", &name, "link", "set", UPLINK, "master", BRIDGE, "up"])
}

/// Pulls a node's cable, or plugs it in again. Its pods still reach each other and nobody else.
///
/// # Errors
/// There is no such node.
pub(crate) fn set_uplink(number: usize, plugged: bool) -> Result<()> {
    let state = if plugged { "up" } else { "down" };
    ip(["-n", CONTROL_PLANE, "link", "set", &node_name(number), state])
}

/// Whether a node's cable is plugged in.
///
/// # Errors
/// There is no such node.
pub(crate) fn uplink_is_plugged(number: usize) -> Result<bool> {
    let mut show = Command::new("ip");
    show.args(["-n", CONTROL_PLANE, "-brief", "link", "show", "dev", &node_name(number), "up"]);
    Ok(!command::output(&mut show)?.trim().is_empty())
}

/// Whether a namespace of this name exists.
pub(crate) fn namespace_exists(name: &str) -> bool {
    namespace_file(name).exists()
}

/// Removes a namespace, and with it every interface inside. Its processes must be dead.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn remove_namespace(name: &str) -> Result<()> {
    if namespace_exists(name) {
        ip(["netns", "delete", name])?;
    }
    Ok(())
}

/// Whether the host's end of its veth pair exists.
pub(crate) fn host_port_exists() -> bool {
    Path::new("/sys/class/net").join(HOST_PORT).exists()
}

/// Removes the host's end, and with it the route to the Services.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn remove_host_port() -> Result<()> {
    if host_port_exists() {
        ip(["link", "delete", HOST_PORT])?;
    }
    Ok(())
}

fn create_namespace(name: &str, address: &str) -> Result<()> {
    ip(["netns", "add", name])?;
    ip(["-n", name, "link", "set", "lo", "up"])?;
    ip(["-n", name, "link", "add", BRIDGE, "type", "bridge"])?;
    ip(["-n", name, "address", "add", &format!("{address}/16"), "dev", BRIDGE])?;
    ip(["-n", name, "link", "set", BRIDGE, "up"])?;
    // Kubernetes picks the interface of the default route. It leads onto the segment, where nobody answers for foreign
    // addresses.
    ip(["-n", name, "route", "add", "default", "dev", BRIDGE])?;
    let mut forward = processes::inside(name, "sh");
    forward.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    command::output(&mut forward).with_context(|| format!("let {name} forward for its pods"))?;
    Ok(())
}

fn ip<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    command::output(Command::new("ip").args(arguments)).map(drop)
}

/// Every network namespace of the host whose name is one of ours.
pub(crate) fn namespaces() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut ours: Vec<String> = names.filter(|name| is_ours(name)).collect();
    ours.sort();
    ours
}

fn is_ours(name: &str) -> bool {
    let is_node = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    name == CONTROL_PLANE || name.strip_prefix("quorate-n").is_some_and(is_node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_give_are_ours() {
        assert!(is_ours("quorate-cp") && is_ours("quorate-n1") && is_ours(&node_name(9)));
        assert!(!is_ours("quorate-n") && !is_ours("quorate-bench") && !is_ours("other-n1"));
    }
}
