//! The bed itself, on this host: it serves what tests need, and its faults are real faults.
//!
//! Needs root, and takes the bed that runs or brings one up. It is left up; `cargo xtask cluster down`, which asserts
//! that nothing is left behind, ends it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quorate_kubernetes::images::{Image, build_base};
use quorate_kubernetes::{Cluster, Node, Options, Part, Progress, components, layout, smoke, wait};

/// One test at a time: they share the bed.
static BED: Mutex<()> = Mutex::new(());

/// A node is called lost 25 s after its last heartbeat.
const NOTICED: Duration = Duration::from_secs(90);

/// One pod on each node.
const EVERYWHERE: &str = "\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere, namespace: default}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: sleep, image: 'quorate.local/busybox:1', command: [sleep, '86400']}
";

/// A pod of an ordinary user on a volume that can grow.
const ON_A_VOLUME: &str = "\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: grows, namespace: default}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: quorate-expandable
  resources: {requests: {storage: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: on-a-volume, namespace: default}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532}
  containers:
  - name: sleep
    image: quorate.local/busybox:1
    command: [sleep, '86400']
    volumeMounts: [{name: data, mountPath: /data}]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: grows}}
";

fn ready(cluster: &Cluster, node: &Node) -> bool {
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    let answer = cluster.kubectl_output(&["get", "node", &node.name(), "-o", path]);
    answer.expect("the API server knows the node") == "True"
}

/// Whether the kubelet's port can be reached from the host.
fn reachable(node: &Node) -> bool {
    let address = format!("{}:10250", node.address());
    let address: SocketAddr = address.parse().expect("an address of the address plan");
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    wait::until(&Progress::start(), what, NOTICED, || {
        Ok(if condition() { Ok(()) } else { Err("not yet".to_owned()) })
    })
    .expect("it happens before the deadline");
}

#[test]
fn pods_volumes_services_names_exec_logs_and_drains_work() {
    let _alone = BED.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::up(&Options::default()).unwrap();
    assert_eq!(smoke::run(&cluster, &Progress::start()).unwrap(), 7);
}

#[test]
fn a_second_up_takes_the_bed_as_it_is() {
    let _alone = BED.lock().unwrap_or_else(PoisonError::into_inner);
    let first = Cluster::up(&Options::default()).unwrap();
    let before = first.nodes()[0].processes(Part::Kubelet).unwrap();
    let second = Cluster::up(&Options::default()).unwrap();
    assert_eq!(second.nodes()[0].processes(Part::Kubelet).unwrap(), before);
    assert_eq!(before.len(), 1);
}

#[test]
fn a_node_that_loses_power_is_noticed_and_comes_back() {
    let _alone = BED.lock().unwrap_or_else(PoisonError::into_inner);
    let progress = Progress::start();
    let cluster = Cluster::up(&Options::default()).unwrap();
    let node = cluster.nodes()[2];
    cluster.apply(EVERYWHERE).unwrap();
    let rollout = ["rollout", "status", "daemonset/everywhere", "--timeout=90s"];
    cluster.kubectl_output(&rollout).unwrap();
    for part in [Part::Kubelet, Part::Containerd, Part::Shims, Part::KubeProxy, Part::Pods] {
        assert!(!node.processes(part).unwrap().is_empty(), "there is no {part:?} to lose");
    }
    node.lose(&progress).unwrap();
    for part in [Part::Kubelet, Part::Containerd, Part::Shims, Part::KubeProxy, Part::Pods] {
        assert!(node.processes(part).unwrap().is_empty(), "{part:?} survived the loss of power");
    }
    until("the loss to be noticed", || !ready(&cluster, &node));
    assert!(ready(&cluster, &cluster.nodes()[0]), "the others go on");
    cluster.revive(&node).unwrap();
    assert!(ready(&cluster, &node));
    until("its pod to run again", || !node.processes(Part::Pods).unwrap_or_default().is_empty());
    cluster.kubectl_output(&rollout).unwrap();
    let path = "jsonpath={.items[0].metadata.name}";
    let field = format!("--field-selector=spec.nodeName={}", node.name());
    let select = ["get", "pods", "-l", "app=everywhere", &field, "-o", path];
    let pod = cluster.kubectl_output(&select).unwrap();
    until("a command in its pod", || {
        cluster.kubectl_output(&["exec", &pod, "--", "id", "-u"]).is_ok_and(|id| id.trim() == "0")
    });
    cluster.kubectl_output(&["delete", "daemonset", "everywhere", "--timeout=60s"]).unwrap();
}

#[test]
fn a_cut_cable_cuts_and_heals() {
    let _alone = BED.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::up(&Options::default()).unwrap();
    let node = cluster.nodes()[1];
    assert!(reachable(&node) && node.network_is_up().unwrap());
    node.cut_network().unwrap();
    assert!(!node.network_is_up().unwrap());
    until("the cable to be cut", || !reachable(&node));
    assert_eq!(node.processes(Part::Kubelet).unwrap().len(), 1, "nothing on it died");
    assert!(reachable(&cluster.nodes()[0]), "the others are still reached");
    node.restore_network().unwrap();
    until("the cable to work again", || reachable(&node));
    cluster.wait_for_nodes(&Progress::start()).unwrap();
}

#[test]
fn a_volume_grows_while_a_pod_writes_to_it() {
    let _alone = BED.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::up(&Options::default()).unwrap();
    cluster.start_storage_driver().unwrap();
    cluster.apply(ON_A_VOLUME).unwrap();
    let wait = ["wait", "--for=condition=Ready", "pod/on-a-volume", "--timeout=90s"];
    cluster.kubectl_output(&wait).unwrap();
    let inside = |words: &[&str]| {
        let line = [&["exec", "on-a-volume", "--", "/bin/busybox"], words].concat();
        cluster.kubectl_output(&line)
    };
    let kibibytes = || {
        let table = inside(&["df", "-k", "/data"]).unwrap();
        let size = table.lines().last().and_then(|line| line.split_whitespace().nth(1));
        size.map(str::to_owned).unwrap_or_default()
    };
    let write = || inside(&["dd", "if=/dev/zero", "of=/data/file", "bs=1M", "count=20"]);
    assert_eq!(kibibytes(), "16384");
    let full = write();
    assert!(full.is_err(), "20 MiB do not fit: {full:?}");
    let larger = "{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"32Mi\"}}}}";
    cluster.kubectl_output(&["patch", "pvc", "grows", "-p", larger]).unwrap();
    until("the pod to see more space", || kibibytes() == "32768");
    write().unwrap();
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    let restarts = cluster.kubectl_output(&["get", "pod", "on-a-volume", "-o", restarts]).unwrap();
    assert_eq!(restarts, "0");

    let path = "jsonpath={.spec.volumeName}";
    let volume = cluster.kubectl_output(&["get", "pvc", "grows", "-o", path]).unwrap();
    let directory = layout::storage_driver_volumes().join(&volume);
    assert!(directory.is_dir(), "{}", directory.display());
    cluster.kubectl_output(&["delete", "pod/on-a-volume", "pvc/grows", "--timeout=60s"]).unwrap();
    until("the volume to be deleted", || {
        let listed = cluster.kubectl_output(&["get", "pv", &volume, "--ignore-not-found"]);
        listed.is_ok_and(|listed| listed.is_empty()) && !directory.exists()
    });
}

#[test]
fn an_image_of_a_dynamically_linked_program_runs() {
    let _alone = BED.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::up(&Options::default()).unwrap();
    let program = Path::new("/usr/bin/openssl");
    let base = "quorate.local/test-base:1";
    cluster.import_image(&build_base(base, &[program]).unwrap()).unwrap();
    let context = components::cache().join("images/test-openssl");
    fs::create_dir_all(&context).unwrap();
    fs::copy(program, context.join("openssl")).unwrap();
    let containerfile = context.join("Containerfile");
    let text = "ARG BASE\nFROM ${BASE}\nCOPY openssl /openssl\nENTRYPOINT [\"/openssl\"]\n";
    fs::write(&containerfile, text).unwrap();
    let name = "quorate.local/test-openssl:1";
    let arguments = [("BASE", base)];
    let image =
        Image { name, containerfile: &containerfile, context: &context, arguments: &arguments };
    cluster.build_image(&image).unwrap();
    for node in cluster.nodes() {
        assert!(node.images().unwrap().iter().any(|known| known == name), "{}", node.name());
    }
    let image = format!("--image={name}");
    let gone = ["delete", "pod", "openssl", "--ignore-not-found", "--now"];
    cluster.kubectl_output(&gone).unwrap();
    let run = ["run", "openssl", &image, "--restart=Never", "--", "version"];
    cluster.kubectl_output(&run).unwrap();
    until("the program's words", || {
        cluster.kubectl_output(&["logs", "openssl"]).is_ok_and(|log| log.starts_with("OpenSSL 3"))
    });
    cluster.kubectl_output(&gone).unwrap();
}
