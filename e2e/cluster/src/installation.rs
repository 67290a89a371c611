//! The operator on a Kubernetes, put there as a user would: CRDs by kubectl, the rest by the chart.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use quorate_kubernetes::components::{ETCD, HELM, KUBERNETES};
use quorate_kubernetes::{Cluster, Options, Progress, command};

use crate::images::{self, Images};
use crate::limits::ROLLOUT;
use crate::programs::{Program, root};

/// The release of the chart, and the Deployment that it makes.
pub const RELEASE: &str = "quorate-operator";

/// The namespace that it is installed in.
pub const NAMESPACE: &str = "quorate-system";

/// The user as whom the operator acts, in the API server's audit log.
pub const OPERATOR_USER: &str = "system:serviceaccount:quorate-system:quorate-operator";

/// The command that hands our CRDs to the API server. Helm installs those of a chart once and never
/// changes them, so every installation begins with this.
#[must_use]
pub fn crds() -> Vec<String> {
    let crds = root().join("crds").display().to_string();
    words(&["kubectl", "apply", "--server-side", "--force-conflicts", "-f", &crds])
}

/// The command that installs the operator, or brings an earlier installation up to date.
#[must_use]
pub fn helm(images: &Images) -> Vec<String> {
    let chart = root().join("charts/quorate-operator").display().to_string();
    let set = |name: &str, value: &str| format!("--set={name}={value}");
    let mut line = words(&["helm", "upgrade", "--install", RELEASE, &chart]);
    line.extend(words(&["--namespace", NAMESPACE, "--create-namespace"]));
    line.push(set("image.repository", &images::repository(Program::Operator)));
    line.push(set("store.repository", &images::repository(Program::Store)));
    line.push(set("log.format", "text"));
    // The tag stays the same from build to build; this makes a new build a new pod.
    line.push(format!("--set-string=podAnnotations.build=b{}", images.operator.digest));
    line.push("--wait".to_owned());
    line.push(format!("--timeout={}s", ROLLOUT.as_secs()));
    line
}

/// The test bed with the operator on it.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The bed.
    pub bed: Cluster,
    /// What runs on it.
    pub images: Images,
}

impl Installation {
    /// Hands every node the server of the next feature level as well. Only an upgrade to it asks for the time that this takes.
    ///
    /// # Errors
    /// It does not compile, or an image cannot be built or handed over.
    pub fn bring_next_minor(&self) -> Result<()> {
        let image = self.images.next_minor_store(&Progress::start())?;
        self.bed.import_image(&image.archive)
    }

    /// Brings the bed up if it is not, builds both images, hands them to every node and installs the
    /// operator by its chart. Done again, it changes only what has changed.
    ///
    /// # Errors
    /// A step failed; the message says which and quotes it.
    pub fn ensure() -> Result<Self> {
        let progress = &Progress::start();
        let bed = Cluster::up(&Options::default())?;
        HELM.ensure(progress)?;
        ETCD.ensure(progress)?;
        let images = Images::build(progress)?;
        for image in images.all() {
            bed.import_image(&image.archive)?;
        }
        bed.import_image(&images.next_store()?.archive)?;
        for node in bed.nodes() {
            // A test of drains that was killed half-way has left them closed.
            bed.kubectl_output(&["uncordon", &node.name()])?;
        }
        progress.say("installing the operator by its chart");
        for line in [crds(), helm(&images)] {
            command::output(&mut tool(&line, &bed.kubeconfig()))?;
        }
        progress.say("the operator runs");
        Ok(Self { bed, images })
    }
}

/// A command line of kubectl, helm or etcdctl, by the programs that the test bed is built of.
#[must_use]
pub fn tool(line: &[String], kubeconfig: &Path) -> Command {
    let (program, arguments) = line.split_first().expect("a command line begins with a program");
    let mut command = Command::new(program_file(program));
    command.args(arguments).env("KUBECONFIG", kubeconfig);
    command
}

/// Where a tool of ours is; any other name is left to `$PATH`.
#[must_use]
pub fn program_file(name: &str) -> PathBuf {
    match name {
        "kubectl" => KUBERNETES.program("kubectl"),
        "helm" => HELM.program("helm"),
        "etcdctl" => ETCD.program("etcdctl"),
        other => PathBuf::from(other),
    }
}

/// The words of a command line.
#[must_use]
pub fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}
