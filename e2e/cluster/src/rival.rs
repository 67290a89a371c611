//! Three members of real etcd as a careful administrator runs them by hand: what the same load sees of the same roll there.

use std::fs;

use anyhow::{Context, Result};
use quorate_kubernetes::components::ETCD;
use quorate_kubernetes::images::{self, Image};
use quorate_kubernetes::{Progress, components};

use crate::fixture::Turn;
use crate::images::{BASE, REGISTRY};
use crate::limits::FORMED;
use crate::programs::root;
use crate::store::Store;

/// The tag of the image that the roll begins with: etcd's version.
pub const VERSION: &str = ETCD.version;

/// The tag that it is rolled to: the same server, which is what a patch release is to Kubernetes.
pub const NEXT_VERSION: &str = "3.7.3-next";

/// Hands the images of both tags to every node.
///
/// # Errors
/// etcd cannot be built, or buildah or a node refuses.
pub fn import(turn: &Turn) -> Result<()> {
    ETCD.ensure(&Progress::start())?;
    let context = components::cache().join("images/context/etcd");
    let server = context.join("rootfs/etcd");
    fs::create_dir_all(context.join("rootfs")).context("make a place for etcd's image")?;
    fs::copy(ETCD.program("etcd"), &server).context("lay out etcd's image")?;
    for version in [VERSION, NEXT_VERSION] {
        let archive = images::build(&Image {
            name: &image(version),
            containerfile: &root().join("e2e/cluster/images/etcd/Containerfile"),
            context: &context,
            arguments: &[("BASE", BASE)],
        })?;
        turn.bed.import_image(&archive)?;
    }
    Ok(())
}

/// Applies the manifest with the image of a tag and waits until every member runs it and is ready.
///
/// # Errors
/// The API server refuses, or the members do not become ready.
pub async fn runs(store: &Store, version: &str) -> Result<()> {
    store.apply(&manifest(&store.namespace, version))?;
    store.running(3, version, FORMED).await
}

fn image(version: &str) -> String {
    format!("{REGISTRY}/etcd:{version}")
}

/// A StatefulSet after etcd's own guide to Kubernetes, with readiness asked as often as the operator has it asked of ours, and
/// under the names and labels by which [`Store`] and [`Load`](crate::load::Load) find members.
fn manifest(namespace: &str, version: &str) -> String {
    let image = image(version);
    let peer = |ordinal| format!("db-{ordinal}=http://db-{ordinal}.db-peers.{namespace}.svc:2380");
    let peers = [peer(0), peer(1), peer(2)].join(",");
    format!(
        r#"apiVersion: v1
kind: Service
metadata: {{name: db-peers}}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{quorate.dev/cluster: db, quorate.dev/component: member}}
  ports: [{{name: peer, port: 2380}}]
---
apiVersion: v1
kind: Service
metadata: {{name: db-client}}
spec:
  selector: {{quorate.dev/cluster: db, quorate.dev/component: member}}
  ports: [{{name: client, port: 2379}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  replicas: 3
  serviceName: db-peers
  podManagementPolicy: Parallel
  selector: {{matchLabels: &members {{quorate.dev/cluster: db, quorate.dev/component: member}}}}
  template:
    metadata:
      labels: *members
      annotations: {{quorate.dev/version: "{version}"}}
    spec:
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        fsGroup: 65532
        seccompProfile: {{type: RuntimeDefault}}
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              podAffinityTerm: {{labelSelector: {{matchLabels: *members}}, topologyKey: kubernetes.io/hostname}}
      containers:
        - name: etcd
          image: {image}
          env: [{{name: NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
          args:
            - --name=$(NAME)
            - --data-dir=/data/etcd
            - --listen-peer-urls=http://0.0.0.0:2380
            - --listen-client-urls=http://0.0.0.0:2379
            - --initial-advertise-peer-urls=http://$(NAME).db-peers.{namespace}.svc:2380
            - --advertise-client-urls=http://$(NAME).db-peers.{namespace}.svc:2379
            - --initial-cluster={peers}
            - --initial-cluster-state=new
          readinessProbe:
            httpGet: {{path: /readyz, port: 2379}}
            periodSeconds: 1
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {{drop: [ALL]}}
          volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
    - metadata: {{name: data}}
      spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}
"#
    )
}
