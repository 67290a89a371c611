//! Starts, finds and ends the processes of the bed.
//!
//! Nothing is remembered in pid files: a process belongs to the bed because it *is* in one of its network namespaces
//! or control groups. That holds after an `up` that was killed half-way too, and a recycled pid can never be meant.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::layout;
use crate::limits::PROCESSES_GONE;
use crate::progress::Progress;
use crate::wait;

/// What every daemon of the bed finds its helpers with (mount, nft, runc, the shim), whoever typed `up`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A living process (a zombie is not one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// The file name of its program, `kubelet` for instance.
    pub program: String,
    /// Its arguments, the program first, with blanks between.
    pub command_line: String,
}

/// A program to run in a network namespace until it is killed.
pub(crate) struct Daemon<'a> {
    /// The network namespace, which is also the first half of the log's name.
    pub(crate) namespace: &'a str,
    /// The program's path.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
}

impl Daemon<'_> {
    /// Starts it in a session of its own, so that it outlives us and the terminal. Its words are appended to
    /// `logs/<namespace>-<program>.log`.
    pub(crate) fn start(&self) -> Result<()> {
        let name = file_name(&self.program);
        let log = layout::log(self.namespace, &name);
        let out = OpenOptions::new().create(true).append(true).open(&log);
        let out = out.with_context(|| format!("open log {}", log.display()))?;
        let errors = out.try_clone().context("open the log a second time")?;
        // NB: nsenter and not `ip netns exec`: the latter mounts a fresh /sys, which hides the control groups.
        // `setsid --fork` makes init its parent, which buries it when it dies.
        let mut start = Command::new("setsid");
        start.args(["--fork", "nsenter"]).arg(net_argument(self.namespace)).arg("--");
        start.arg(&self.program).args(&self.arguments);
        start.env_clear().env("PATH", PATH).env("HOME", "/root").current_dir("/");
        let status = start.stdin(Stdio::null()).stdout(out).stderr(errors).status();
        let status = status.with_context(|| format!("start {name} in {}", self.namespace))?;
        if !status.success() {
            bail!("{name} could not be started in {}: {status}", self.namespace);
        }
        Ok(())
    }
}

/// The argument by which `nsenter` enters a network namespace of the bed.
pub(crate) fn net_argument(namespace: &str) -> String {
    format!("--net={}", layout::namespace_file(namespace).display())
}

/// A command that runs inside a network namespace of the bed.
pub(crate) fn inside(namespace: &str, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(net_argument(namespace)).arg("--").arg(program.as_ref());
    command
}

/// Every process whose network namespace is the named one. None when there is no such namespace.
pub(crate) fn in_namespace(namespace: &str) -> Vec<Process> {
    let Ok(wanted) = fs::metadata(layout::namespace_file(namespace)) else { return Vec::new() };
    every()
        .into_iter()
        .filter(|process| {
            let theirs = fs::metadata(format!("/proc/{}/ns/net", process.pid));
            theirs.is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (wanted.dev(), wanted.ino()))
        })
        .collect()
}

/// Every process whose command line names the bed's state directory and whose program is one that the bed starts: what
/// is left when namespaces and control groups were removed by other hands.
pub(crate) fn by_command_line() -> Vec<Process> {
    const OURS: [&str; 12] = [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubelet",
        "coredns",
        "containerd",
        "containerd-shim-runc-v2",
        "csi-driver",
        "csi-provisioner",
        "csi-resizer",
    ];
    let is_ours = |process: &Process| {
        OURS.contains(&process.program.as_str()) && process.command_line.contains(layout::STATE)
    };
    every().into_iter().filter(is_ours).collect()
}

/// The process with this id, unless it is dead.
pub(crate) fn by_pid(pid: i32) -> Option<Process> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let stat = fs::read_to_string(directory.join("stat")).ok()?;
    // The state follows the name, which is in parentheses and may hold any character. NB: an empty command line would
    // not do as the mark of a zombie: a process that is just being started has none either.
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    if matches!(state, 'Z' | 'X') {
        return None;
    }
    let words = fs::read(directory.join("cmdline")).unwrap_or_default();
    let command_line = String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned();
    let program = match fs::read_link(directory.join("exe")) {
        Ok(path) => file_name(&path),
        Err(_) => file_name(Path::new(command_line.split(' ').next().unwrap_or_default())),
    };
    Some(Process { pid, program, command_line })
}

fn every() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    pids.filter(|pid| *pid != own).filter_map(by_pid).collect()
}

/// Kills (SIGKILL) whatever `list` names until it names nothing.
///
/// # Errors
/// Something outlived the deadline; the message names it.
pub(crate) fn kill_all(
    progress: &Progress,
    what: &str,
    mut list: impl FnMut() -> Vec<Process>,
) -> Result<()> {
    wait::until(progress, &format!("the end of {what}"), PROCESSES_GONE, || {
        let living = list();
        if living.is_empty() {
            return Ok(Ok(()));
        }
        for process in &living {
            kill(process)?;
        }
        let names: Vec<String> =
            living.iter().map(|process| format!("{} ({})", process.program, process.pid)).collect();
        Ok(Err(format!("{} still there", names.join(", "))))
    })
}

fn kill(process: &Process) -> Result<()> {
    let Some(pid) = Pid::from_raw(process.pid) else { return Ok(()) };
    match kill_process(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("kill {process:?}")),
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // The kernel marks the program of a process whose file was replaced or removed.
    name.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_child_is_no_longer_listed() {
        let mut child = Command::new("sleep").arg("86399").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(by_pid(pid).is_some(), "the fault needs a living process first");
        let listed = || by_pid(pid).into_iter().collect();
        kill_all(&Progress::start(), "a sleeping child", listed).unwrap();
        assert_eq!(by_pid(pid), None, "a zombie counts as gone");
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn no_namespace_holds_no_process() {
        assert!(in_namespace("quorate-no-such-namespace").is_empty());
    }
}
