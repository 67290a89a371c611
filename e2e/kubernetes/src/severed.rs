//! A pod that is cut off from some addresses, by rules in its own network namespace: a partition that nothing beside it notices.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::node::{Node, Part};

/// The table of the rules; no other program of the bed has one of this name.
const TABLE: &str = "quorate_severed";

/// Nothing passes between a pod and some addresses, in neither direction, as long as this lives. Its kubelet, which speaks from
/// the node's own address, and everybody else reach it as before.
#[derive(Debug)]
pub struct Severed {
    /// Holds the namespace: the process that it was found by may be restarted meanwhile.
    namespace: File,
}

impl Node {
    /// Cuts a pod of this node off.
    ///
    /// # Errors
    /// No pod of this node has the address, or the kernel refuses the rules.
    pub fn sever(&self, pod: &str, from: &[String]) -> Result<Severed> {
        for process in self.processes(Part::Pods)? {
            // A process may end while it is looked at.
            let Ok(namespace) = File::open(format!("/proc/{}/ns/net", process.pid)) else {
                continue;
            };
            let Ok(addresses) =
                command::output(&mut inside(&namespace, "ip", &["-brief", "address"]))
            else {
                continue;
            };
            if addresses.split_whitespace().any(|word| word.split('/').next() == Some(pod)) {
                return Severed::install(namespace, from);
            }
        }
        bail!("no pod of {} has the address {pod}", self.name())
    }
}

impl Severed {
    fn install(namespace: File, from: &[String]) -> Result<Self> {
        let addresses = from.join(", ");
        let rules = format!(
            "table inet {TABLE} {{\n\
             chain input {{ type filter hook input priority 0; ip saddr {{ {addresses} }} drop; }}\n\
             chain output {{ type filter hook output priority 0; ip daddr {{ {addresses} }} drop; }}\n\
             }}\n"
        );
        // All of it or nothing: a failure leaves nothing to be taken back.
        command::output_with_input(&mut inside(&namespace, "nft", &["-f", "-"]), &rules)
            .with_context(|| format!("cut a pod off from {addresses}"))?;
        Ok(Self { namespace })
    }
}

/// A command in a network namespace.
fn inside(namespace: &File, program: &str, arguments: &[&str]) -> Command {
    // By our own table of open files: what is inherited is closed when nsenter starts.
    let namespace = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={namespace}")).arg("--").arg(program).args(arguments);
    command
}

impl Drop for Severed {
    fn drop(&mut self) {
        let delete = ["delete", "table", "inet", TABLE];
        if let Err(error) = command::output(&mut inside(&self.namespace, "nft", &delete)) {
            println!("a pod stays cut off: {error:#}");
        }
    }
}
