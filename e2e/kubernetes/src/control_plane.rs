//! The control plane: etcd, API server, controller manager, scheduler, DNS, and the rules that make Services reachable
//! from the control plane and the host.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::certificates::Authority;
use crate::components::{COREDNS, ETCD, KUBERNETES};
use crate::layout::{
    self, CONTROL_PLANE, CONTROL_PLANE_ADDRESS, POD_CIDR, SERVICE_CIDR, node_name, state,
};
use crate::processes::Daemon;
use crate::storage_driver;

/// Who asked what, for every request but the kubelets' own heartbeats. Requests that only read are kept as well: a test
/// may count them.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  userGroups: [system:nodes]
  resources: [{group: coordination.k8s.io, resources: [leases]}]
- level: None
  nonResourceURLs: ['/healthz*', '/livez*', '/readyz*', '/openapi*', '/version', '/api', '/apis*']
- level: Metadata
";

/// The cluster zone and its reverse zones; nothing else has an answer here. Answers are kept for five seconds, so that a
/// name that did not exist yet is asked for again soon, but not at once: operators must live with that.
const COREFILE: &str = "\
.:53 {
    bind ADDRESS
    errors
    health 127.0.0.1:8080
    ready 127.0.0.1:8181
    cache 5
    kubernetes cluster.local in-addr.arpa {
        kubeconfig KUBECONFIG
        pods disabled
        ttl 5
    }
}
";

/// Applied once the API server answers: the default StorageClass, and what DNS may read.
pub(crate) const MANIFESTS: &str = "\
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: host-path
  annotations: {storageclass.kubernetes.io/is-default-class: 'true'}
provisioner: kubernetes.io/host-path
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: quorate-testbed-dns}
rules:
- apiGroups: ['']
  resources: [services, namespaces]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: quorate-testbed-dns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: quorate-testbed-dns}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: quorate-testbed-dns}
";

/// The host-path provisioner makes directories that only root may write, and the volume type knows no `fsGroup`; a pod
/// with a restricted security context would find its volume closed. A CSI driver would hand the volume to the group;
/// this loop opens each new directory to everybody, and marks it as done by the sticky bit.
const VOLUME_DOORMAN: &str = "\
cd \"$1\" || exit 1
while :; do
    for volume in *; do
        if [ -d \"$volume\" ] && [ ! -k \"$volume\" ]; then chmod 1777 \"$volume\"; fi
    done
    sleep 0.1
done
";

/// Signs the certificates and writes the kubeconfigs and configuration files of the control plane.
///
/// # Errors
/// openssl failed, or the state directory cannot be written.
pub(crate) fn configure() -> Result<Authority> {
    let authority = Authority::create()?;
    authority.sign_api_server()?;
    let masters = Some("system:masters");
    let clients = [
        ("admin", "quorate-admin", masters),
        ("kubelet-client", "kube-apiserver", masters),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("kube-proxy", "system:kube-proxy", None),
        ("dns", "quorate-testbed-dns", None),
        (storage_driver::PROVISIONER, storage_driver::PROVISIONER, None),
        (storage_driver::RESIZER, storage_driver::RESIZER, None),
    ];
    for (file, user, group) in clients {
        authority.sign_client(file, user, group)?;
        authority.write_kubeconfig(&kubeconfig_of(file), file)?;
    }
    authority.write_kubeconfig(&layout::kubeconfig(), "admin")?;
    write("audit-policy.yaml", AUDIT_POLICY)?;
    write("resolv.conf", &format!("nameserver {CONTROL_PLANE_ADDRESS}\n"))?;
    let corefile = COREFILE.replace("ADDRESS", CONTROL_PLANE_ADDRESS);
    let corefile = corefile.replace("KUBECONFIG", &kubeconfig_of("dns").display().to_string());
    write("Corefile", &corefile)?;
    write("volume-doorman.sh", VOLUME_DOORMAN)?;
    // The control plane is no node. It borrows the first node's name, because kube-proxy wants to be some node.
    write("kube-proxy.yaml", &kube_proxy_configuration(&node_name(1)))?;
    Ok(authority)
}

/// The kubeconfig of a component of the bed.
pub(crate) fn kubeconfig_of(certificate: &str) -> std::path::PathBuf {
    state(&format!("{certificate}.kubeconfig"))
}

/// kube-proxy's configuration on a node. Every connection to a Service is masqueraded: all pods share one segment, so an
/// answer would otherwise go straight to the asking pod and miss the rules that must translate it back.
pub(crate) fn kube_proxy_configuration(node: &str) -> String {
    let kubeconfig = kubeconfig_of("kube-proxy").display().to_string();
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
nftables: {{masqueradeAll: true, minSyncPeriod: 100ms, syncPeriod: 30s}}
clusterCIDR: {POD_CIDR}
hostnameOverride: {node}
clientConnection: {{kubeconfig: {kubeconfig}}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
"
    )
}

/// Starts etcd and the API server; nothing else of Kubernetes can start before it answers.
///
/// # Errors
/// A program cannot be started.
pub(crate) fn start_api_server(authority: &Authority) -> Result<()> {
    let data = state("etcd").display().to_string();
    start(
        ETCD.program("etcd"),
        words(&[
            "--name=quorate-testbed",
            &format!("--data-dir={data}"),
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=quorate-testbed=http://127.0.0.1:2380",
            // The bed does not outlive the host, and the disk is shared with what is measured.
            "--unsafe-no-fsync",
            "--auto-compaction-retention=5m",
        ]),
    )?;
    let file = |name: &str| authority.file(name).display().to_string();
    start(
        KUBERNETES.program("kube-apiserver"),
        words(&[
            "--etcd-servers=http://127.0.0.1:2379",
            &format!("--advertise-address={CONTROL_PLANE_ADDRESS}"),
            &format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            &format!("--client-ca-file={}", file("ca.crt")),
            &format!("--tls-cert-file={}", file("kube-apiserver.crt")),
            &format!("--tls-private-key-file={}", file("kube-apiserver.key")),
            &format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
            &format!("--kubelet-client-key={}", file("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            &format!("--service-account-key-file={}", file("service-account.pub")),
            &format!("--service-account-signing-key-file={}", file("service-account.key")),
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            &format!("--audit-policy-file={}", state("audit-policy.yaml").display()),
            &format!("--audit-log-path={}", layout::audit_log().display()),
            // Never rotated within the life of a bed: a checker reads it as one file.
            "--audit-log-maxsize=4096",
            // Kubernetes waits five minutes before it moves pods off a lost node. Tests have not the time.
            "--default-not-ready-toleration-seconds=30",
            "--default-unreachable-toleration-seconds=30",
        ]),
    )
}

/// Starts the rest of the control plane.
///
/// # Errors
/// A program cannot be started.
pub(crate) fn start_controllers(authority: &Authority) -> Result<()> {
    let file = |name: &str| authority.file(name).display().to_string();
    let kubeconfig = |name: &str| format!("--kubeconfig={}", kubeconfig_of(name).display());
    start(
        KUBERNETES.program("kube-controller-manager"),
        words(&[
            &kubeconfig("controller-manager"),
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            &format!("--service-account-private-key-file={}", file("service-account.key")),
            &format!("--root-ca-file={}", file("ca.crt")),
            &format!("--cluster-signing-cert-file={}", file("ca.crt")),
            &format!("--cluster-signing-key-file={}", file("ca.key")),
            "--enable-hostpath-provisioner=true",
            // Half of the default, against kubelets that renew their lease every five seconds instead of ten.
            "--node-monitor-grace-period=25s",
        ]),
    )?;
    start(
        KUBERNETES.program("kube-scheduler"),
        words(&[&kubeconfig("scheduler"), "--leader-elect=false"]),
    )?;
    start(COREDNS.program("coredns"), words(&["-conf", &state("Corefile").display().to_string()]))?;
    start(
        KUBERNETES.program("kube-proxy"),
        words(&[&format!("--config={}", state("kube-proxy.yaml").display())]),
    )?;
    let script = state("volume-doorman.sh").display().to_string();
    start(
        Path::new("/bin/busybox").to_owned(),
        words(&["sh", &script, &layout::volumes().display().to_string()]),
    )
}

fn start(program: std::path::PathBuf, arguments: Vec<String>) -> Result<()> {
    Daemon { namespace: CONTROL_PLANE, program, arguments }.start()
}

fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|word| (*word).to_owned()).collect()
}

fn write(name: &str, text: &str) -> Result<()> {
    let path = state(name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
