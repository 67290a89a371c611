//! The foreign programs that are built from pinned Go modules, into a cache keyed by version.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::progress::Progress;

/// The oldest Go that the pinned modules accept.
const GO_MINOR_MIN: u32 = 26;

/// One program of a component: the file that is made, and the Go package that it is made from.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name in the cache.
    pub file: &'static str,
    /// The `main` package, as an import path, or `.` for the directory's own.
    pub package: &'static str,
}

/// A set of programs that share a `go.mod`.
#[derive(Debug, Clone, Copy)]
pub struct Component {
    /// The directory below `go/` that pins it, and the first half of its name in the cache.
    pub name: &'static str,
    /// The second half, and the version that `go.mod` there must require.
    pub version: &'static str,
    /// What is built.
    pub programs: &'static [Program],
    /// Variables to set at link time (`-X`).
    pub variables: &'static [&'static str],
}

/// etcd's server and its two command line tools: the store behind the API server, stock clients, and the rival.
pub const ETCD: Component = Component {
    name: "etcd",
    version: "3.7.3",
    programs: &[
        Program { file: "etcd", package: "go.etcd.io/etcd/server/v3" },
        Program { file: "etcdctl", package: "go.etcd.io/etcd/etcdctl/v3" },
        Program { file: "etcdutl", package: "go.etcd.io/etcd/etcdutl/v3" },
    ],
    variables: &[],
};

/// etcd's own load generator. 3.6.8 is the newest that the module proxy has of its module.
pub const BENCHMARK: Component = Component {
    name: "benchmark",
    version: "3.6.8",
    programs: &[Program { file: "benchmark", package: "go.etcd.io/etcd/v3/tools/benchmark" }],
    variables: &[],
};

/// Control plane, node and client of Kubernetes. Without the variables the API server would call itself v0.0.0-master.
pub const KUBERNETES: Component = Component {
    name: "kubernetes",
    version: "1.37.2",
    programs: &[
        Program { file: "kube-apiserver", package: "k8s.io/kubernetes/cmd/kube-apiserver" },
        Program {
            file: "kube-controller-manager",
            package: "k8s.io/kubernetes/cmd/kube-controller-manager",
        },
        Program { file: "kube-scheduler", package: "k8s.io/kubernetes/cmd/kube-scheduler" },
        Program { file: "kubelet", package: "k8s.io/kubernetes/cmd/kubelet" },
        Program { file: "kube-proxy", package: "k8s.io/kubernetes/cmd/kube-proxy" },
        Program { file: "kubectl", package: "k8s.io/kubernetes/cmd/kubectl" },
    ],
    variables: &[
        "k8s.io/component-base/version.gitVersion=v1.37.2",
        "k8s.io/component-base/version.gitMajor=1",
        "k8s.io/component-base/version.gitMinor=37",
        "k8s.io/component-base/version.gitTreeState=clean",
    ],
};

/// The cluster's DNS, with six plugins of its many.
pub const COREDNS: Component = Component {
    name: "coredns",
    version: "1.15.0",
    programs: &[Program { file: "coredns", package: "." }],
    variables: &[],
};

/// Helm, which installs the operator's chart.
pub const HELM: Component = Component {
    name: "helm",
    version: "4.3.1",
    programs: &[Program { file: "helm", package: "helm.sh/helm/v4/cmd/helm" }],
    variables: &[],
};

/// A fleet of stock clients, for loads: etcd's Go client in a small program of ours.
pub const WRITERS: Component = Component {
    name: "writers",
    version: "3.7.3",
    programs: &[Program { file: "writers", package: "." }],
    variables: &[],
};

/// Kubernetes' own provisioner for CSI drivers: sees claims, has volumes made.
pub const CSI_PROVISIONER: Component = Component {
    name: "csi-provisioner",
    version: "6.4.0",
    programs: &[Program {
        file: "csi-provisioner",
        package: "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner",
    }],
    variables: &["main.version=v6.4.0"],
};

/// Kubernetes' own resizer for CSI drivers: sees claims that ask for more, has volumes grown.
pub const CSI_RESIZER: Component = Component {
    name: "csi-resizer",
    version: "2.3.0",
    programs: &[Program {
        file: "csi-resizer",
        package: "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
    }],
    variables: &["main.version=v2.3.0"],
};

/// The driver that both of them ask, a small program of ours; the version is that of the CSI specification.
pub const CSI_DRIVER: Component = Component {
    name: "csi-driver",
    version: "1.13.0",
    programs: &[Program { file: "csi-driver", package: "." }],
    variables: &[],
};

/// Every component, in the order in which a fresh host should build them: small ones that others wait for come first.
pub const ALL: [Component; 9] =
    [ETCD, WRITERS, KUBERNETES, COREDNS, BENCHMARK, HELM, CSI_DRIVER, CSI_RESIZER, CSI_PROVISIONER];

/// The directory of all caches: `$QUORATE_CACHE`, or `~/.cache/quorate`.
#[must_use]
pub fn cache() -> PathBuf {
    if let Some(path) = std::env::var_os("QUORATE_CACHE") {
        return PathBuf::from(path);
    }
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
    Path::new(&home).join(".cache/quorate")
}

impl Component {
    /// Where its programs are, once [`Component::ensure`] has returned. Where the `main` package is ours, its version is not all
    /// that can change.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        let name = format!("{}-{}", self.name, self.version);
        let ours = self.programs.iter().any(|program| program.package == ".");
        cache().join(if ours { format!("{name}-{:016x}", self.digest()) } else { name })
    }

    /// Of the files that it is built from. A cache that another release of Rust digests otherwise is built once more.
    fn digest(&self) -> u64 {
        let mut digest = DefaultHasher::new();
        for file in ["go.mod", "go.sum", "main.go"] {
            let path = source(self.name).join(file);
            fs::read(&path).expect("the repository holds what it builds").hash(&mut digest);
        }
        digest.finish()
    }

    /// The path of one of its programs.
    #[must_use]
    pub fn program(&self, file: &str) -> PathBuf {
        self.directory().join(file)
    }

    /// Builds what is not in the cache yet and returns the directory. Two processes that ask at once build once.
    ///
    /// # Errors
    /// Go is missing or too old, a module cannot be fetched, or a build failed (the message quotes the compiler).
    pub fn ensure(&self, progress: &Progress) -> Result<PathBuf> {
        let directory = self.directory();
        if self.missing().is_empty() {
            return Ok(directory);
        }
        check_go()?;
        fs::create_dir_all(&directory)
            .with_context(|| format!("create cache {}", directory.display()))?;
        let lock = directory.join(".lock");
        let lock = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
        lock.lock().context("wait for another build of the same component")?;
        for program in self.missing() {
            self.build(program, progress)?;
        }
        Ok(directory)
    }

    fn missing(&self) -> Vec<&'static Program> {
        self.programs.iter().filter(|program| !self.program(program.file).is_file()).collect()
    }

    fn build(&self, program: &Program, progress: &Progress) -> Result<()> {
        let label = format!("building {} {}", program.file, self.version);
        progress.say(&label);
        // A build that is killed half-way must not be taken for a program: made beside, moved into place.
        let beside = self.directory().join(format!(".{}.new", program.file));
        let mut flags = String::from("-s -w");
        for variable in self.variables {
            flags.push_str(" -X ");
            flags.push_str(variable);
        }
        let mut go = Command::new("nice");
        go.args(["-n", "5", "go", "build", "-C"]).arg(source(self.name));
        go.args(["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", &flags, "-o"]);
        go.arg(&beside).arg(program.package);
        go.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOFLAGS", "");
        let log = self.directory().join(format!("{}.log", program.file));
        command::run_logged(&mut go, &log, &label, progress)?;
        fs::rename(&beside, self.program(program.file))
            .with_context(|| format!("move {} into the cache", program.file))
    }
}

/// The directory that pins a component.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(name)
}

fn check_go() -> Result<()> {
    let mut ask = Command::new("go");
    let version = command::output(ask.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))
        .with_context(|| format!("Go 1.{GO_MINOR_MIN} or newer is needed to build Kubernetes"))?;
    match go_minor(version.trim()) {
        Some(minor) if minor >= GO_MINOR_MIN => Ok(()),
        _ => bail!(
            "the host's Go is {}, the pinned modules need go1.{GO_MINOR_MIN}: install a newer Go",
            version.trim()
        ),
    }
}

fn go_minor(version: &str) -> Option<u32> {
    version.strip_prefix("go1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_read() {
        assert_eq!(go_minor("go1.26.8"), Some(26));
        assert_eq!(go_minor("go1.27rc1"), Some(27));
        assert_eq!(go_minor("devel +abc"), None);
    }

    #[test]
    fn every_pin_agrees_with_its_go_mod() {
        for component in ALL {
            let file = source(component.name).join("go.mod");
            let text = fs::read_to_string(&file).unwrap();
            let pinned = format!(" v{}", component.version);
            assert!(text.contains(&pinned), "{} does not require{pinned}", file.display());
            assert!(source(component.name).join("go.sum").is_file(), "{} unsummed", component.name);
        }
    }

    #[test]
    fn every_program_is_held_by_a_tools_file() {
        for component in ALL {
            for program in component.programs.iter().filter(|program| program.package != ".") {
                let file = source(component.name).join("tools.go");
                let text = fs::read_to_string(&file).unwrap();
                assert!(text.contains(&format!("_ \"{}\"", program.package)), "{program:?}");
            }
        }
    }
}
