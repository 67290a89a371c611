//! One node: its containerd, kubelet and kube-proxy, and every way in which a test may hurt it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::certificates::Authority;
use crate::cgroups::Hierarchies;
use crate::command;
use crate::components::KUBERNETES;
use crate::control_plane::{kube_proxy_configuration, kubeconfig_of};
use crate::images::PAUSE_IMAGE;
use crate::layout::{self, CONTROL_PLANE_ADDRESS, node_address, node_name};
use crate::limits::CONTAINERD_READY;
use crate::network;
use crate::processes::{self, Daemon, Process};
use crate::progress::Progress;
use crate::wait;

/// What runs on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The kubelet. Without it pods go on, unseen.
    Kubelet,
    /// The container runtime. Without it pods go on, and nothing starts or stops.
    Containerd,
    /// The parents of containers. They die alone: the containers go on as orphans.
    Shims,
    /// The rules for Services stay as they were.
    KubeProxy,
    /// Every process of every pod, the pause processes included.
    Pods,
}

/// A node of the bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    number: usize,
}

impl Node {
    /// The node with this number, from 1.
    pub(crate) fn numbered(number: usize) -> Self {
        Self { number }
    }

    /// Its name in Kubernetes, which is also the name of its network namespace and its control group.
    #[must_use]
    pub fn name(&self) -> String {
        node_name(self.number)
    }

    /// Its address on the segment.
    #[must_use]
    pub fn address(&self) -> String {
        node_address(self.number)
    }

    /// A directory or file of its own in the state directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        layout::state(&self.name()).join(name)
    }

    /// The living processes of one part.
    ///
    /// # Errors
    /// The host's control groups cannot be read.
    pub fn processes(&self, part: Part) -> Result<Vec<Process>> {
        let program = match part {
            Part::Kubelet => "kubelet",
            Part::Containerd => "containerd",
            Part::Shims => "containerd-shim-runc-v2",
            Part::KubeProxy => "kube-proxy",
            Part::Pods => return Ok(Hierarchies::of_this_host()?.processes(&self.name())),
        };
        let mut all = processes::in_namespace(&self.name());
        all.retain(|process| process.program == program);
        Ok(all)
    }

    /// Kills (SIGKILL) one part and returns when it is gone.
    ///
    /// # Errors
    /// A process outlived the deadline.
    pub fn kill(&self, progress: &Progress, part: Part) -> Result<()> {
        let groups = Hierarchies::of_this_host()?;
        let what = format!("{part:?} of {}", self.name());
        processes::kill_all(progress, &what, || match part {
            Part::Pods => groups.processes(&self.name()),
            Part::Kubelet | Part::Containerd | Part::Shims | Part::KubeProxy => {
                self.processes(part).unwrap_or_default()
            }
        })
    }

    /// The node loses power: everything on it dies at once, and nothing comes back by itself.
    ///
    /// # Errors
    /// A process outlived the deadline.
    pub fn lose(&self, progress: &Progress) -> Result<()> {
        let groups = Hierarchies::of_this_host()?;
        processes::kill_all(progress, &format!("everything on {}", self.name()), || {
            let mut all = processes::in_namespace(&self.name());
            all.extend(groups.processes(&self.name()));
            all
        })
    }

    /// Starts whatever of containerd, kubelet and kube-proxy does not run, and returns when containerd answers.
    ///
    /// # Errors
    /// A program cannot be started or containerd does not answer; the message quotes its log.
    pub fn start(&self, progress: &Progress) -> Result<()> {
        if self.processes(Part::Containerd)?.is_empty() {
            let config = self.path("containerd.toml").display().to_string();
            self.daemon(PathBuf::from("/usr/bin/containerd"), vec!["--config".into(), config])?;
        }
        let what = format!("containerd on {}", self.name());
        let answered = wait::until(progress, &what, CONTAINERD_READY, || {
            let mut ask = self.ctr();
            Ok(command::output(ask.arg("version")).map(drop).map_err(|error| error.to_string()))
        });
        let log = layout::log(&self.name(), "containerd");
        answered.with_context(|| format!("{} ends with:\n{}", log.display(), command::tail(&log)))
    }

    /// Starts the kubelet and kube-proxy where they do not run. The pause image must have been imported.
    ///
    /// # Errors
    /// A program cannot be started.
    pub fn start_kubelet(&self) -> Result<()> {
        if self.processes(Part::Kubelet)?.is_empty() {
            let flag = |name: &str, value: String| format!("--{name}={value}");
            let path = |name: &str| self.path(name).display().to_string();
            let arguments = vec![
                flag("config", path("kubelet.yaml")),
                flag("kubeconfig", kubeconfig_of(&self.name()).display().to_string()),
                flag("hostname-override", self.name()),
                flag("node-ip", self.address()),
                flag("root-dir", path("kubelet")),
                flag("cert-dir", path("kubelet-certificates")),
            ];
            self.daemon(KUBERNETES.program("kubelet"), arguments)?;
        }
        if self.processes(Part::KubeProxy)?.is_empty() {
            let config = format!("--config={}", self.path("kube-proxy.yaml").display());
            self.daemon(KUBERNETES.program("kube-proxy"), vec![config])?;
        }
        Ok(())
    }

    /// Pulls its network cable. Nothing on it dies; nobody else hears of it.
    ///
    /// # Errors
    /// The bed is down.
    pub fn cut_network(&self) -> Result<()> {
        network::set_uplink(self.number, false)
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    /// The bed is down.
    pub fn restore_network(&self) -> Result<()> {
        network::set_uplink(self.number, true)
    }

    /// Whether the cable is plugged in: a test of a fault first asserts that the fault took effect.
    ///
    /// # Errors
    /// The bed is down.
    pub fn network_is_up(&self) -> Result<bool> {
        network::uplink_is_plugged(self.number)
    }

    /// A command that runs in the node's network namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        processes::inside(&self.name(), program)
    }

    /// Hands an OCI archive to the node's containerd, as a registry would.
    ///
    /// # Errors
    /// The file is no OCI archive, or containerd is down.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        command::output(self.ctr().args(["images", "import"]).arg(archive))
            .map(drop)
            .with_context(|| format!("import {} into {}", archive.display(), self.name()))
    }

    /// The names of the images that the node has.
    ///
    /// # Errors
    /// containerd is down.
    pub fn images(&self) -> Result<Vec<String>> {
        let listed = command::output(self.ctr().args(["images", "list", "--quiet"]))?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// Signs the node's certificate and writes its configuration files.
    pub(crate) fn configure(&self, authority: &Authority, groups: &Hierarchies) -> Result<()> {
        let name = self.name();
        for directory in ["cni", "containerd", "containerd-state", "kubelet", "pod-logs"] {
            let directory = self.path(directory);
            fs::create_dir_all(&directory)
                .with_context(|| format!("create {}", directory.display()))?;
        }
        let user = format!("system:node:{name}");
        authority.sign_client(&name, &user, Some("system:nodes"))?;
        authority.write_kubeconfig(&kubeconfig_of(&name), &name)?;
        self.write("containerd.toml", &self.containerd_configuration())?;
        self.write("cni/10-quorate.conflist", &self.cni_configuration())?;
        self.write("kubelet.yaml", &self.kubelet_configuration(authority, groups))?;
        self.write("kube-proxy.yaml", &kube_proxy_configuration(&name))
    }

    fn containerd_configuration(&self) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        let (root, state) = (path("containerd"), path("containerd-state"));
        let (socket, cni, opt) = (path("containerd.sock"), path("cni"), path("opt"));
        let runc = path("runc");
        let plugin = "plugins.\"io.containerd.grpc.v1.cri\"";
        // restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower the score, and every pod would fail with
        // "can't get final child's PID from pipe: EOF". netns_mounts_under_state_dir: so that `down` finds them;
        // the same for runc's Root.
        format!(
            "version = 2
root = \"{root}\"
state = \"{state}\"
disabled_plugins = [
    \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.btrfs\",
    \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\",
]
[grpc]
address = \"{socket}\"
[plugins.\"io.containerd.internal.v1.opt\"]
path = \"{opt}\"
[{plugin}]
sandbox_image = \"{PAUSE_IMAGE}\"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[{plugin}.containerd]
snapshotter = \"overlayfs\"
default_runtime_name = \"runc\"
[{plugin}.containerd.runtimes.runc]
runtime_type = \"io.containerd.runc.v2\"
[{plugin}.containerd.runtimes.runc.options]
Root = \"{runc}\"
[{plugin}.cni]
bin_dir = \"/usr/lib/cni\"
conf_dir = \"{cni}\"
"
        )
    }

    fn cni_configuration(&self) -> String {
        let (name, number, gateway) = (self.name(), self.number, self.address());
        let reservations = self.path("addresses").display().to_string();
        let bridge = layout::BRIDGE;
        format!(
            r#"{{
  "cniVersion": "1.0.0",
  "name": "{name}",
  "plugins": [
    {{
      "type": "bridge", "bridge": "{bridge}", "isGateway": false, "hairpinMode": true,
      "ipam": {{
        "type": "host-local",
        "dataDir": "{reservations}",
        "ranges": [[{{
          "subnet": "198.18.0.0/16", "gateway": "{gateway}",
          "rangeStart": "198.18.{number}.1", "rangeEnd": "198.18.{number}.254"
        }}]],
        "routes": [{{ "dst": "0.0.0.0/0" }}]
      }}
    }},
    {{ "type": "portmap", "capabilities": {{ "portMappings": true }} }}
  ]
}}
"#
        )
    }

    fn kubelet_configuration(&self, authority: &Authority, groups: &Hierarchies) -> String {
        let name = self.name();
        let path = |name: &str| self.path(name).display().to_string();
        let (socket, logs) = (path("containerd.sock"), path("pod-logs"));
        let plugins = path("volume-plugins");
        let ca = authority.file("ca.crt").display().to_string();
        let resolver = layout::state("resolv.conf").display().to_string();
        let accepts_first_version =
            if groups.is_first_version() { "failCgroupV1: false\n" } else { "" };
        format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
{accepts_first_version}cgroupDriver: cgroupfs
cgroupRoot: /{name}
cgroupsPerQOS: true
enforceNodeAllocatable: []
failSwapOn: false
makeIPTablesUtilChains: false
oomScoreAdj: 0
containerRuntimeEndpoint: unix://{socket}
clusterDNS: [{CONTROL_PLANE_ADDRESS}]
clusterDomain: cluster.local
resolvConf: {resolver}
podLogsDir: {logs}
volumePluginDir: {plugins}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {ca}}}
authorization: {{mode: Webhook}}
nodeLeaseDurationSeconds: 20
syncFrequency: 10s
evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
"
        )
    }

    fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.path("containerd.sock")).args(["--namespace", "k8s.io"]);
        ctr
    }

    fn daemon(&self, program: PathBuf, arguments: Vec<String>) -> Result<()> {
        Daemon { namespace: &self.name(), program, arguments }.start()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }
}
