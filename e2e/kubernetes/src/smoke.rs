//! What the bed must be able to do before anything is tested on it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::Cluster;
use crate::command;
use crate::images::BUSYBOX_IMAGE;
use crate::limits::{SMOKE_ANSWER, SMOKE_READY};
use crate::progress::Progress;
use crate::wait;

/// The namespace that the smoke test makes and deletes.
const NAMESPACE: &str = "quorate-smoke";

/// The label of its pods, as a selector.
const SELECTOR: &str = "app=web";

/// Three pods on three nodes, each with a volume, under the restricted pod security standard: as a store's members are.
/// Each writes an identity into its volume once, and serves it.
const MANIFEST: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: quorate-smoke
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: Service
metadata: {name: peers, namespace: quorate-smoke}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: quorate-smoke}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: quorate-smoke}
spec:
  serviceName: peers
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: kubernetes.io/hostname
            labelSelector: {matchLabels: {app: web}}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
      - name: web
        image: BUSYBOX_IMAGE
        command: [sh, -c]
        args:
        - |
          [ -f /data/identity ] || echo \"$HOSTNAME made at $(date)\" > /data/identity
          echo \"$HOSTNAME is serving\"
          exec httpd -f -p 8080 -h /data
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /identity, port: 8080}, periodSeconds: 1}
        resources: {requests: {cpu: 10m, memory: 8Mi}}
        volumeMounts: [{name: data, mountPath: /data}]
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 16Mi}}
";

/// Runs the whole round and removes what it made. Returns how many properties it saw hold.
///
/// # Errors
/// The first property that does not hold, with what was seen instead. The namespace then stays for inspection; the next
/// run replaces it.
pub fn run(cluster: &Cluster, progress: &Progress) -> Result<usize> {
    let smoke = Smoke { cluster, progress };
    smoke.delete()?;
    let properties: [(&str, &dyn Fn() -> Result<()>); 7] = [
        ("a pod with a volume is Ready on every node", &|| smoke.spread()),
        ("headless names resolve and connect from every node to every node", &|| smoke.names()),
        ("a Service answers by name from every node, and from the host", &|| smoke.service()),
        ("exec and logs reach every node", &|| smoke.exec_and_logs()),
        ("a drain evicts, and the volume comes back with its contents", &|| smoke.drain()),
        ("the audit log says who evicted", &|| smoke.audit()),
        ("deleted claims take their volumes along", &|| smoke.delete()),
    ];
    for (property, holds) in &properties {
        holds().with_context(|| format!("the test bed fails: {property}"))?;
        progress.say(format!("seen: {property}"));
    }
    Ok(properties.len())
}

struct Smoke<'a> {
    cluster: &'a Cluster,
    progress: &'a Progress,
}

impl Smoke<'_> {
    fn spread(&self) -> Result<()> {
        ensure!(self.cluster.nodes().len() == 3, "the smoke test is written for three nodes");
        self.cluster.apply(&MANIFEST.replace("BUSYBOX_IMAGE", BUSYBOX_IMAGE))?;
        self.wait_for_ready(3)?;
        let nodes = self.kubectl(&["get", "pods", "-l", SELECTOR, "-o", NODE_NAMES])?;
        let nodes: BTreeSet<&str> = nodes.split_whitespace().collect();
        ensure!(nodes.len() == 3, "the pods are on {nodes:?} only");
        Ok(())
    }

    fn names(&self) -> Result<()> {
        for from in 0..3 {
            for to in 0..3 {
                let host = format!("web-{to}.peers.{NAMESPACE}.svc.cluster.local");
                let identity = self.fetch(from, &host, 8080)?;
                ensure!(
                    identity.starts_with(&format!("web-{to} made")),
                    "web-{from} asked {host} and was answered {identity:?}"
                );
            }
        }
        Ok(())
    }

    fn service(&self) -> Result<()> {
        for from in 0..3 {
            let identity = self.fetch(from, &format!("web.{NAMESPACE}.svc.cluster.local"), 80)?;
            ensure!(identity.contains("made"), "web-{from} was answered {identity:?}");
        }
        let ip = self.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
        let mut stream = TcpStream::connect((ip.trim(), 80)).context("reach it from the host")?;
        stream.set_read_timeout(Some(SMOKE_ANSWER)).context("bound the wait for an answer")?;
        stream.write_all(REQUEST.replace("\\r\\n", "\r\n").as_bytes()).context("ask it")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("read the answer to the host")?;
        let identity = body(&answer).unwrap_or_default();
        ensure!(identity.contains("made"), "the host was answered {identity:?}");
        Ok(())
    }

    fn exec_and_logs(&self) -> Result<()> {
        for pod in ["web-0", "web-1", "web-2"] {
            let user = self.kubectl(&["exec", pod, "--", "id", "-u"])?;
            ensure!(user.trim() == "65532", "{pod} runs as {user:?}");
            let log = self.kubectl(&["logs", pod])?;
            ensure!(log.contains(&format!("{pod} is serving")), "the log of {pod} is {log:?}");
        }
        Ok(())
    }

    fn drain(&self) -> Result<()> {
        let path = "jsonpath={.spec.nodeName}";
        let node = self.kubectl(&["get", "pod", "web-1", "-o", path])?;
        let before = self.kubectl(&["exec", "web-1", "--", "cat", "/data/identity"])?;
        let uid = || self.kubectl(&["get", "pod", "web-1", "-o", "jsonpath={.metadata.uid}"]);
        let first = uid()?;
        let drain =
            ["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"];
        self.cluster.kubectl_output(&drain)?;
        // The fault took effect: the node is closed and empty, and the pod has nowhere to go.
        let field = format!("--field-selector=spec.nodeName={node}");
        let left = self.kubectl(&["get", "pods", &field, "-o", "name"])?;
        ensure!(left.trim().is_empty(), "{node} was drained and still has {left:?}");
        self.wait_for_ready(2)?;
        self.cluster.kubectl_output(&["uncordon", &node])?;
        self.wait_for_ready(3)?;
        ensure!(uid()? != first, "web-1 is still the same pod after the drain");
        let after = self.kubectl(&["exec", "web-1", "--", "cat", "/data/identity"])?;
        ensure!(before == after, "the volume held {before:?} before the drain and {after:?} after");
        Ok(())
    }

    fn audit(&self) -> Result<()> {
        let log = fs::read_to_string(self.cluster.audit_log()).context("read the audit log")?;
        let is_eviction = |line: &&str| {
            let words =
                ["\"verb\":\"create\"", "\"subresource\":\"eviction\"", "\"name\":\"web-1\""];
            words.iter().all(|word| line.contains(word))
        };
        let evictions: Vec<&str> = log.lines().filter(is_eviction).collect();
        ensure!(!evictions.is_empty(), "no eviction of web-1 among {} lines", log.lines().count());
        let by_us = evictions.iter().all(|line| line.contains("\"username\":\"quorate-admin\""));
        ensure!(by_us, "an eviction by somebody else: {evictions:?}");
        Ok(())
    }

    fn delete(&self) -> Result<()> {
        let forget = ["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"];
        self.cluster.kubectl_output(&forget)?;
        wait::until(self.progress, "the volumes to go", SMOKE_READY, || {
            let path = "jsonpath={range .items[*]}{.spec.claimRef.namespace} {end}";
            let claims = self.cluster.kubectl_output(&["get", "persistentvolumes", "-o", path])?;
            let ours =
                claims.split_whitespace().filter(|namespace| *namespace == NAMESPACE).count();
            Ok(if ours == 0 { Ok(()) } else { Err(format!("{ours} are there")) })
        })
    }

    fn wait_for_ready(&self, wanted: usize) -> Result<()> {
        let waited = wait::until(self.progress, "pods to be ready", SMOKE_READY, || {
            let ready = self.kubectl(&["get", "pods", "-l", SELECTOR, "-o", READY_CONDITIONS])?;
            let ready = ready.split_whitespace().filter(|status| *status == "True").count();
            Ok(if ready == wanted { Ok(()) } else { Err(format!("{ready} of {wanted}")) })
        });
        let Err(error) = waited else { return Ok(()) };
        let events = self.kubectl(&["get", "pods,events", "-o", "wide"]);
        bail!("{error}\n{}", events.unwrap_or_else(|error| error.to_string()))
    }

    /// Asks a host for its identity from inside a pod, until DNS and the rules have caught up. With
    /// `nslookup` and `nc`, since the `wget` of Debian's busybox-static ends in a segmentation fault.
    fn fetch(&self, from: usize, host: &str, port: u16) -> Result<String> {
        let pod = format!("web-{from}");
        let script = format!(
            "set -e; found=$(nslookup -type=a {host}); \
             printf '{REQUEST}' | nc -w 5 ${{found##*Address: }} {port}"
        );
        wait::until(self.progress, &format!("{host} from {pod}"), SMOKE_ANSWER, || {
            let ask = ["exec", &pod, "--", "sh", "-c", &script];
            let answer = self.kubectl(&ask).map_err(|error| error.to_string());
            Ok(answer.and_then(|text| body(&text).ok_or(text)))
        })
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        command::output(self.cluster.kubectl().args(["--namespace", NAMESPACE]).args(arguments))
    }
}

/// A whole request, as `printf` takes it.
const REQUEST: &str = "GET /identity HTTP/1.0\\r\\n\\r\\n";

/// The body of a good answer.
fn body(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}

const NODE_NAMES: &str = "jsonpath={range .items[*]}{.spec.nodeName} {end}";

const READY_CONDITIONS: &str =
    "jsonpath={range .items[*]}{.status.conditions[?(@.type==\"Ready\")].status} {end}";
