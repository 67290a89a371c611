//! The bed as a whole: up, found again, looked at, and down without a trace.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cgroups::Hierarchies;
use crate::command;
use crate::components::{COREDNS, ETCD, KUBERNETES};
use crate::control_plane;
use crate::images;
use crate::layout::{self, CONTROL_PLANE, PROVISIONER_PATH, STATE, node_name};
use crate::limits::{API_READY, LOCK_FREE, NODES_MAX, NODES_READY, STATUS_REQUEST};
use crate::mounts;
use crate::network;
use crate::node::Node;
use crate::packages;
use crate::processes::{self, Process};
use crate::progress::Progress;
use crate::storage_driver;
use crate::wait;

/// Taken by whoever changes the bed; two `up`s must not build into each other.
const LOCK: &str = "/run/quorate-testbed.lock";

/// Where the container runtime interface keeps what a network plugin answered; the path is compiled into containerd.
const CNI_RESULTS: &str = "/var/lib/cni/results";

/// Where the kubelet links the logs of containers; compiled into it.
const CONTAINER_LOG_LINKS: &str = "/var/log/containers";

/// Where the kubelet keeps the socket for device plugins; compiled into it.
const KUBELET_HOME: &str = "/var/lib/kubelet";

/// What [`Cluster::up`] builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many nodes, from 1 to [`NODES_MAX`].
    pub nodes: usize,
}

impl Default for Options {
    /// Three nodes: the least on which a member can be lost, drained or spread, and the others still be a majority.
    fn default() -> Self {
        Self { nodes: 3 }
    }
}

/// A bed that runs.
#[derive(Debug, Clone)]
pub struct Cluster {
    nodes: Vec<Node>,
}

/// What [`status`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Each namespace of the bed with its processes.
    pub places: Vec<(String, Vec<Process>)>,
    /// What the API server said of itself: `ok`, or why not.
    pub api: String,
    /// Each node and whether its Ready condition is true.
    pub nodes: Vec<(String, bool)>,
}

impl Cluster {
    /// Brings the bed up: missing packages and programs, then control plane and nodes, about a minute when all is cached.
    ///
    /// A bed that is already whole is taken as it is; what is left of a broken one is removed first.
    ///
    /// # Errors
    /// The host lacks something (the message says what to install or which capability is missing), or something did not
    /// become ready in time (the message quotes the log in question). What was started stays for inspection; the next
    /// `up` or `down` removes it.
    pub fn up(options: &Options) -> Result<Self> {
        let progress = &Progress::start();
        if options.nodes == 0 || options.nodes > NODES_MAX {
            bail!("a bed has 1 to {NODES_MAX} nodes, not {}", options.nodes);
        }
        if !packages::is_root() {
            bail!("the test bed needs root, for network namespaces, mounts and control groups");
        }
        packages::ensure(progress)?;
        for component in [ETCD, KUBERNETES, COREDNS] {
            component.ensure(progress)?;
        }
        let _lock = lock(progress)?;
        if let Some(cluster) = Self::existing().ok().filter(|it| it.nodes.len() == options.nodes) {
            progress.say("the bed is up already, and whole");
            return Ok(cluster);
        }
        if !leftovers()?.is_empty() {
            progress.say("removing what an earlier bed left");
            remove(progress)?;
        }
        let cluster = Self { nodes: (1..=options.nodes).map(Node::numbered).collect() };
        cluster.build(progress)?;
        progress
            .say(format!("the bed is up. export KUBECONFIG={}", layout::kubeconfig().display()));
        Ok(cluster)
    }

    /// The bed that runs on this host.
    ///
    /// # Errors
    /// There is none, or it is not whole: the API server does not answer, or a node is not ready.
    pub fn existing() -> Result<Self> {
        let nodes: Vec<Node> = (1..=NODES_MAX)
            .filter(|number| network::namespace_exists(&node_name(*number)))
            .map(Node::numbered)
            .collect();
        let cluster = Self { nodes };
        if cluster.nodes.is_empty() || !layout::kubeconfig().is_file() {
            bail!("no test bed runs on this host; `cargo xtask cluster up` starts one");
        }
        let status = status()?;
        if !status.is_whole() {
            bail!("the test bed is not whole; `cargo xtask cluster up` replaces it\n{status}");
        }
        Ok(cluster)
    }

    /// Its nodes, by number.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name, as Kubernetes calls it.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, name: &str) -> Result<Node> {
        let found = self.nodes.iter().find(|node| node.name() == name).copied();
        found.with_context(|| format!("the test bed has no node {name}"))
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        layout::kubeconfig()
    }

    /// The API server's audit log: who asked what, one JSON document a line, without bodies.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        layout::audit_log()
    }

    /// kubectl with the administrator's rights.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        kubectl()
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Errors
    /// kubectl failed; the message quotes it.
    pub fn kubectl_output(&self, arguments: &[&str]) -> Result<String> {
        command::output(self.kubectl().args(arguments))
    }

    /// `kubectl apply -f -`.
    ///
    /// # Errors
    /// The API server refused the manifest; the message quotes it.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        command::output_with_input(self.kubectl().args(["apply", "-f", "-"]), manifest)
    }

    /// Hands an OCI archive to every node.
    ///
    /// # Errors
    /// A node's containerd refused it.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.import_image(archive))
    }

    /// Builds an image and hands it to every node; see [`images::build`].
    ///
    /// # Errors
    /// As [`images::build`] and [`Cluster::import_image`].
    pub fn build_image(&self, image: &images::Image<'_>) -> Result<()> {
        self.import_image(&images::build(image)?)
    }

    /// Takes the bed down and asserts that nothing of it is left.
    ///
    /// # Errors
    /// As [`down`].
    pub fn down(self) -> Result<()> {
        down()
    }

    /// Starts what a test killed on a node and waits until every node is ready again.
    ///
    /// # Errors
    /// A program cannot be started, or the node does not become ready.
    pub fn revive(&self, node: &Node) -> Result<()> {
        let progress = &Progress::start();
        node.restore_network()?;
        node.start(progress)?;
        node.start_kubelet()?;
        if storage_driver::is_used() {
            self.start_storage_driver()?;
        }
        self.wait_for_nodes(progress)
    }

    fn build(&self, progress: &Progress) -> Result<()> {
        fs::create_dir_all(layout::state("logs")).context("create the state directory")?;
        fs::create_dir_all(layout::volumes()).context("create the volume directory")?;
        link_provisioner()?;
        progress.say("laying out namespaces, bridges and control groups");
        network::create_control_plane()?;
        let groups = Hierarchies::of_this_host()?;
        for (number, node) in (1..).zip(&self.nodes) {
            network::create_node(number)?;
            groups.create(&node.name())?;
        }
        progress.say("signing certificates");
        let authority = control_plane::configure()?;
        for node in &self.nodes {
            node.configure(&authority, &groups)?;
        }
        progress.say("starting etcd and the API server, and a containerd on each node");
        control_plane::start_api_server(&authority)?;
        let archives = images::build_own()?;
        for node in &self.nodes {
            node.start(progress)?;
            archives.iter().try_for_each(|archive| node.import_image(archive))?;
        }
        wait_for_api_server(progress)?;
        progress.say("the API server answers; starting the controllers and the kubelets");
        control_plane::start_controllers(&authority)?;
        self.nodes.iter().try_for_each(Node::start_kubelet)?;
        self.apply(control_plane::MANIFESTS)?;
        self.wait_for_nodes(progress)
    }

    /// Waits until every node is Ready and pods may be made in the `default` namespace.
    ///
    /// # Errors
    /// The deadline passed; the message says which node is not ready.
    pub fn wait_for_nodes(&self, progress: &Progress) -> Result<()> {
        let wanted = self.nodes.len();
        wait::until(progress, "the nodes to be ready", NODES_READY, || {
            let nodes = node_conditions().unwrap_or_default();
            let ready = nodes.iter().filter(|(_, ready)| *ready).count();
            Ok(if ready == wanted {
                Ok(())
            } else {
                Err(format!("{ready} of {wanted}: {nodes:?}"))
            })
        })?;
        progress.say(format!("{wanted} nodes are ready"));
        wait::until(progress, "the default service account", NODES_READY, || {
            let found = self.kubectl_output(&["get", "serviceaccount", "default"]);
            Ok(found.map(drop).map_err(|error| error.to_string()))
        })
    }
}

/// Takes down whatever there is of a bed and asserts that nothing is left: no process, mount, namespace, interface,
/// control group or file.
///
/// # Errors
/// Something could not be removed; the message names it.
pub fn down() -> Result<()> {
    let progress = &Progress::start();
    if !packages::is_root() {
        bail!("the test bed belongs to root; take it down as root");
    }
    let _lock = lock(progress)?;
    remove(progress)?;
    progress.say("the bed is down and nothing of it is left");
    Ok(())
}

/// Looks at the bed, whole or not.
///
/// # Errors
/// The host's tables cannot be read.
pub fn status() -> Result<Status> {
    let groups = Hierarchies::of_this_host()?;
    let places = network::namespaces().into_iter().map(|name| {
        let mut all = processes::in_namespace(&name);
        all.extend(groups.processes(&name));
        (name, all)
    });
    let places: Vec<_> = places.collect();
    if places.is_empty() {
        return Ok(Status { places, api: "there is none".to_owned(), nodes: Vec::new() });
    }
    let mut ask = kubectl();
    ask.args(["get", "--raw", "/readyz", "--request-timeout", STATUS_REQUEST]);
    let api = command::output(&mut ask).unwrap_or_else(|error| error.to_string());
    let nodes = if api == "ok" { node_conditions()? } else { Vec::new() };
    Ok(Status { places, api, nodes })
}

/// Everything of a bed that is on this host now, one line each. Empty means that the host is as it was before.
///
/// # Errors
/// The host's tables cannot be read.
pub fn leftovers() -> Result<Vec<String>> {
    let groups = Hierarchies::of_this_host()?;
    let mut found = Vec::new();
    let all = every_process(&groups);
    found.extend(all.iter().map(|process| format!("process {} {}", process.pid, process.program)));
    let mounted = mounts::below(Path::new(STATE))?;
    found.extend(mounted.iter().map(|point| format!("mount {}", point.display())));
    found.extend(network::namespaces().iter().map(|name| format!("network namespace {name}")));
    if network::host_port_exists() {
        found.push(format!("interface {}", layout::HOST_PORT));
    }
    let names = (1..=NODES_MAX).map(node_name).filter(|name| groups.exists(name));
    found.extend(names.map(|name| format!("control group {name}")));
    let strays = stray_files().into_iter().chain([PathBuf::from(STATE)]);
    let strays = strays.filter(|path| path.symlink_metadata().is_ok());
    found.extend(strays.map(|path| format!("file {}", path.display())));
    Ok(found)
}

impl Status {
    /// Whether everything runs that should: the API server is ready, and so is each node that has a namespace.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let nodes = self.places.iter().filter(|(name, _)| name != CONTROL_PLANE).count();
        let ready = self.nodes.iter().filter(|(_, ready)| *ready).count();
        self.api == "ok" && nodes > 0 && ready == nodes
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "API server: {}", self.api)?;
        for (name, processes) in &self.places {
            let ready = match self.nodes.iter().find(|(node, _)| node == name) {
                Some((_, true)) => "Ready",
                Some((_, false)) => "not Ready",
                None => "",
            };
            let programs: BTreeSet<&str> =
                processes.iter().map(|process| process.program.as_str()).collect();
            let programs = programs.into_iter().collect::<Vec<_>>().join(", ");
            let count = processes.len();
            writeln!(f, "{name:<12} {ready:<10} {count:>3} processes: {programs}")?;
        }
        Ok(())
    }
}

fn lock(progress: &Progress) -> Result<File> {
    let file = File::create(LOCK).with_context(|| format!("open {LOCK}"))?;
    wait::until(progress, "another `up` or `down`", LOCK_FREE, || match file.try_lock() {
        Ok(()) => Ok(Ok(())),
        Err(TryLockError::WouldBlock) => Ok(Err("it still runs".to_owned())),
        Err(TryLockError::Error(error)) => Err(error).context("lock the test bed"),
    })?;
    Ok(file)
}

fn kubectl() -> Command {
    let mut kubectl = Command::new(KUBERNETES.program("kubectl"));
    kubectl.arg("--kubeconfig").arg(layout::kubeconfig());
    kubectl
}

fn node_conditions() -> Result<Vec<(String, bool)>> {
    let path = "jsonpath={range .items[*]}{.metadata.name} \
                {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
    let mut ask = kubectl();
    ask.args(["get", "nodes", "--request-timeout", STATUS_REQUEST, "--output", path]);
    let text = command::output(&mut ask)?;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(name, ready)| (name.to_owned(), ready.trim() == "True")).collect())
}

fn wait_for_api_server(progress: &Progress) -> Result<()> {
    let answered = wait::until(progress, "the API server", API_READY, || {
        let mut ask = kubectl();
        ask.args(["get", "--raw", "/readyz", "--request-timeout", STATUS_REQUEST]);
        let answer = command::output(&mut ask).map(drop).map_err(|error| error.to_string());
        let alive = processes::in_namespace(CONTROL_PLANE);
        for program in ["etcd", "kube-apiserver"] {
            if !alive.iter().any(|process| process.program == program) {
                bail!("{program} has ended");
            }
        }
        Ok(answer)
    });
    answered.with_context(|| {
        let tails = ["etcd", "kube-apiserver"].map(|program| {
            let log = layout::log(CONTROL_PLANE, program);
            format!("{} ends with:\n{}", log.display(), command::tail(&log))
        });
        tails.join("\n")
    })
}

/// Leads the path that is compiled into the host-path provisioner to a directory of ours.
fn link_provisioner() -> Result<()> {
    let link = Path::new(PROVISIONER_PATH);
    if link.symlink_metadata().is_ok() && fs::read_link(link).ok() != Some(layout::volumes()) {
        bail!("{PROVISIONER_PATH} belongs to somebody else; move it away, the test bed needs it");
    }
    if link.symlink_metadata().is_err() {
        symlink(layout::volumes(), link).with_context(|| format!("link {PROVISIONER_PATH}"))?;
    }
    // Pods of any user pass through here to their own directory.
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(layout::volumes(), open).context("open the volume directory")
}

fn every_process(groups: &Hierarchies) -> Vec<Process> {
    let mut all = processes::by_command_line();
    all.extend(network::namespaces().iter().flat_map(|name| processes::in_namespace(name)));
    all.extend((1..=NODES_MAX).flat_map(|number| groups.processes(&node_name(number))));
    all.sort_by_key(|process| process.pid);
    all.dedup();
    all
}

/// The few files that foreign programs keep outside the state directory, because their paths are compiled in.
fn stray_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let link = PathBuf::from(PROVISIONER_PATH);
    if fs::read_link(&link).is_ok_and(|target| target.starts_with(STATE)) {
        found.push(link);
    }
    let entries = |directory: &str| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let is_ours = |path: &PathBuf| fs::read_link(path).is_ok_and(|to| to.starts_with(STATE));
    found.extend(entries(CONTAINER_LOG_LINKS).into_iter().filter(is_ours));
    found.extend(own_cni_results(entries(CNI_RESULTS)));
    found.extend(shim_sockets());
    found.extend(device_plugin_files());
    found
}

/// What the network plugins answered for our pods: `quorate-n1-SANDBOX-eth0`, and of the same sandbox `cni-loopback-SANDBOX-lo`.
fn own_cni_results(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sandbox = |path: &Path| name(path).rsplit('-').nth(1).map(str::to_owned);
    let is_ours = |path: &PathBuf| name(path).starts_with("quorate-n");
    let ours: BTreeSet<String> =
        files.iter().filter(|path| is_ours(path)).filter_map(|path| sandbox(path)).collect();
    let belongs = |path: &PathBuf| sandbox(path).is_some_and(|sandbox| ours.contains(&sandbox));
    files.into_iter().filter(belongs).collect()
}

/// What a kubelet keeps for device plugins, whatever its root directory; the path is compiled in. Where there is more
/// than that, the host has a kubelet of its own, and nothing there is ours.
fn device_plugin_files() -> Vec<PathBuf> {
    let names = |directory: &Path| -> Vec<PathBuf> {
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let plugins = Path::new(KUBELET_HOME).join("device-plugins");
    let inside = names(&plugins);
    let harmless = |path: &PathBuf| {
        path.ends_with("kubelet.sock") || path.ends_with("kubelet_internal_checkpoint")
    };
    if names(Path::new(KUBELET_HOME)) != [plugins.clone()] || !inside.iter().all(harmless) {
        return Vec::new();
    }
    inside.into_iter().chain([plugins, PathBuf::from(KUBELET_HOME)]).collect()
}

/// The sockets of the containers' parents: they lie in `/run/containerd`, and each container's bundle says which is its.
fn shim_sockets() -> Vec<PathBuf> {
    let tasks = |number| {
        let state = Node::numbered(number).path("containerd-state");
        fs::read_dir(state.join("io.containerd.runtime.v2.task/k8s.io")).into_iter().flatten()
    };
    let bundles = (1..=NODES_MAX).flat_map(tasks).flatten();
    let addresses =
        bundles.filter_map(|bundle| fs::read_to_string(bundle.path().join("address")).ok());
    addresses
        .filter_map(|address| address.trim().strip_prefix("unix://").map(PathBuf::from))
        .collect()
}

fn remove(progress: &Progress) -> Result<()> {
    let groups = Hierarchies::of_this_host()?;
    processes::kill_all(progress, "the bed's processes", || every_process(&groups))?;
    mounts::unmount_below(Path::new(STATE))?;
    for number in 1..=NODES_MAX {
        groups.remove(progress, &node_name(number))?;
    }
    for name in network::namespaces() {
        network::remove_namespace(&name)?;
    }
    network::remove_host_port()?;
    for path in stray_files() {
        let is_directory = path.symlink_metadata().is_ok_and(|it| it.is_dir());
        let removed = if is_directory { fs::remove_dir(&path) } else { fs::remove_file(&path) };
        match removed {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("remove {}", path.display())),
        }
    }
    if Path::new(STATE).exists() {
        // Nothing is mounted below any more, or the line above would have failed: no foreign file can be reached.
        fs::remove_dir_all(STATE).with_context(|| format!("remove {STATE}"))?;
    }
    let left = leftovers()?;
    if !left.is_empty() {
        bail!("the bed is down, but this is left of it:\n{}", left.join("\n"));
    }
    Ok(())
}
