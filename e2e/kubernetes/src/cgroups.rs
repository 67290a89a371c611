//! One control group per node, on hosts with the first and with the second version of the interface.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::limits::CGROUPS_GONE;
use crate::mounts;
use crate::processes::{self, Process};
use crate::progress::Progress;
use crate::wait;

/// What the kubelet sees of a host's control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// The mount points of the first version's hierarchies; empty on a host of the second.
    first: Vec<PathBuf>,
    /// The mount point of the second version's hierarchy, if there is one (beside the first on a hybrid host).
    second: Option<PathBuf>,
}

impl Hierarchies {
    /// Looks at what the host has mounted.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(crate) fn of_this_host() -> Result<Self> {
        Ok(Self::from_mounts(&mounts::table()?))
    }

    fn from_mounts(table: &[mounts::Mount]) -> Self {
        let at = |kind: &str| -> Vec<PathBuf> {
            let found = table
                .iter()
                .filter(|mount| mount.kind == kind && mount.point.starts_with("/sys/fs/cgroup"));
            found.map(|mount| mount.point.clone()).collect()
        };
        Self { first: at("cgroup"), second: at("cgroup2").into_iter().next() }
    }

    /// Whether the kubelet must be told that an old interface is no failure.
    pub(crate) fn is_first_version(&self) -> bool {
        !self.first.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.first.iter().chain(&self.second)
    }

    /// Makes the group of a node, ready for the kubelet to divide.
    ///
    /// # Errors
    /// The kernel refuses: no privilege, or a controller that is not to be had.
    pub(crate) fn create(&self, name: &str) -> Result<()> {
        for mount in &self.first {
            let group = mount.join(name);
            fs::create_dir_all(&group).with_context(|| format!("create {}", group.display()))?;
            // A group of the cpuset hierarchy starts empty, and a process cannot enter an empty one.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(mount.join(file)) {
                    fs::write(group.join(file), value.trim())
                        .with_context(|| format!("fill {file} of {}", group.display()))?;
                }
            }
        }
        match &self.second {
            Some(mount) if self.first.is_empty() => {
                let group = mount.join(name);
                fs::create_dir_all(&group)
                    .with_context(|| format!("create {}", group.display()))?;
                enable_controllers(mount)?;
                enable_controllers(&group)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Every process in the node's group and the groups below: the containers of its pods.
    pub(crate) fn processes(&self, name: &str) -> Vec<Process> {
        let mut pids = BTreeSet::new();
        for mount in self.all() {
            collect_pids(&mount.join(name), &mut pids);
        }
        pids.into_iter().filter_map(processes::by_pid).collect()
    }

    /// Whether anything of the group is left in any hierarchy.
    pub(crate) fn exists(&self, name: &str) -> bool {
        self.all().any(|mount| mount.join(name).exists())
    }

    /// Removes the group and the groups below it. Its processes must be dead.
    ///
    /// # Errors
    /// The kernel still refuses after the deadline.
    pub(crate) fn remove(&self, progress: &Progress, name: &str) -> Result<()> {
        wait::until(progress, &format!("control group {name} to go"), CGROUPS_GONE, || {
            let refused = self.all().map(|mount| mount.join(name)).filter(|group| group.exists());
            let refused: Vec<String> =
                refused.filter_map(|group| remove_deepest_first(&group).err()).collect();
            Ok(if refused.is_empty() { Ok(()) } else { Err(refused.join("; ")) })
        })
    }
}

/// What the kubelet and runc need of the second version's controllers, where the host has them.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// Hands the controllers that pods need down to a group's children.
fn enable_controllers(group: &Path) -> Result<()> {
    let read = |file: &str| {
        let path = group.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let enabled = read("cgroup.subtree_control")?;
    let available = read("cgroup.controllers")?;
    for controller in CONTROLLERS {
        let is_in = |list: &str| list.split_whitespace().any(|word| word == controller);
        if is_in(&available) && !is_in(&enabled) {
            fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))
                .with_context(|| format!("enable {controller} below {}", group.display()))?;
        }
    }
    Ok(())
}

fn collect_pids(group: &Path, pids: &mut BTreeSet<i32>) {
    if let Ok(text) = fs::read_to_string(group.join("cgroup.procs")) {
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    for child in children(group) {
        collect_pids(&child, pids);
    }
}

fn remove_deepest_first(group: &Path) -> Result<(), String> {
    for child in children(group) {
        remove_deepest_first(&child)?;
    }
    fs::remove_dir(group).map_err(|error| format!("{}: {error}", group.display()))
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    const SECOND: &str = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_hybrid_host_counts_as_the_first_version() {
        let host = Hierarchies::from_mounts(&mounts::parse(FIRST));
        assert!(host.is_first_version());
        assert_eq!(host.first.len(), 2);
        assert_eq!(host.all().count(), 3, "leftovers are looked for in the unified one as well");
    }

    #[test]
    fn a_unified_host_is_the_second_version() {
        let host = Hierarchies::from_mounts(&mounts::parse(SECOND));
        assert!(!host.is_first_version());
        assert_eq!(host.second.as_deref(), Some(Path::new("/sys/fs/cgroup")));
    }

    #[test]
    fn only_what_is_available_and_not_yet_enabled_is_enabled() {
        let group = std::env::temp_dir().join(format!("quorate-cgroup-{}", std::process::id()));
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("cgroup.controllers"), "cpuset cpu rdma pids\n").unwrap();
        fs::write(group.join("cgroup.subtree_control"), "cpu cpuset\n").unwrap();
        enable_controllers(&group).unwrap();
        let written = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap();
        fs::remove_dir_all(&group).unwrap();
        // A plain file keeps the last of the words that a control group would have taken one by one.
        assert_eq!(written, "+pids");
    }

    #[test]
    fn this_host_has_control_groups() {
        assert!(Hierarchies::of_this_host().unwrap().all().count() > 0);
    }
}
