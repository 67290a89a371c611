//! One StoreCluster in a namespace of its own: made, looked at and removed by a test.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use quorate_crds::names::ANNOTATION_VERSION;
use quorate_crds::{StoreCluster, StoreClusterStatus};
use quorate_kubernetes::{Part, Process, Severed, command};
use quorate_proto::etcdserverpb;
use serde_json::{Value, json};

use crate::audit::Audit;
use crate::fixture::Turn;
use crate::images::VERSION;
use crate::installation::{self, words};
use crate::limits::{FORMED, HEALED, NAMESPACE_GONE, ROLLED, SCALED, TOLD};
use crate::member::Member;
use crate::wait::until;

/// The name of every StoreCluster under test; its namespace says whose it is.
pub const NAME: &str = "db";

/// Selects the pods of its members.
pub(crate) const MEMBERS: &str = "quorate.dev/cluster=db,quorate.dev/component=member";

/// A StoreCluster of a test. When the test is over its namespace is deleted; when the test has
/// failed it is shown instead, and stays.
pub struct Store {
    pub(crate) namespace: String,
    client: Client,
    kubeconfig: PathBuf,
    /// What the API server was asked since this began.
    pub audit: Audit,
}

impl Store {
    /// An empty namespace, without a StoreCluster.
    ///
    /// # Errors
    /// The namespace of an earlier run does not go, or cannot be made.
    pub async fn namespace(turn: &Turn, fear: &str) -> Result<Self> {
        let audit = Audit::from_now(&turn.bed.audit_log(), fear)?;
        let store = Self {
            namespace: fear.to_owned(),
            client: turn.client().await?,
            kubeconfig: turn.bed.kubeconfig(),
            audit,
        };
        let timeout = format!("--timeout={}s", NAMESPACE_GONE.as_secs());
        store.kubectl_anywhere(&["delete", "namespace", fear, "--ignore-not-found", &timeout])?;
        store.make_namespace()?;
        Ok(store)
    }

    /// Makes the namespace, which is not there.
    ///
    /// # Errors
    /// It is there.
    pub fn make_namespace(&self) -> Result<()> {
        self.kubectl_anywhere(&["create", "namespace", &self.namespace])?;
        // Every pod of ours must pass the strictest standard that Kubernetes has.
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        self.kubectl_anywhere(&["label", "namespace", &self.namespace, restricted]).map(drop)
    }

    /// A StoreCluster of so many members, settled.
    ///
    /// # Errors
    /// It does not form.
    pub async fn formed(turn: &Turn, fear: &str, replicas: i32) -> Result<Self> {
        let store = Self::namespace(turn, fear).await?;
        store.create(json!({"replicas": replicas})).await?;
        store.settled(replicas).await?;
        Ok(store)
    }

    /// Makes the StoreCluster: the minimal manifest with one member, and what the test changes in its
    /// spec.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(&self, spec: Value) -> Result<StoreCluster> {
        let mut manifest = json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "StoreCluster",
            "metadata": {"name": NAME},
            "spec": {"replicas": 1, "version": VERSION, "storage": {"size": "64Mi"}},
        });
        if let Value::Object(more) = spec {
            for (field, value) in more {
                manifest["spec"][field] = value;
            }
        }
        let cluster = serde_json::from_value(manifest).context("the manifest parses")?;
        let api = self.api::<StoreCluster>();
        api.create(&PostParams::default(), &cluster).await.context("create the StoreCluster")
    }

    /// Any namespaced resource of this namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The StoreCluster as it is now.
    ///
    /// # Errors
    /// It is not there.
    pub async fn get(&self) -> Result<StoreCluster> {
        self.api::<StoreCluster>().get(NAME).await.context("get the StoreCluster")
    }

    /// Its status.
    ///
    /// # Errors
    /// It is not there.
    pub async fn status(&self) -> Result<StoreClusterStatus> {
        Ok(self.get().await?.status.unwrap_or_default())
    }

    /// Changes it by a merge patch.
    ///
    /// # Errors
    /// The API server refuses the change.
    pub async fn patch(&self, change: Value) -> Result<StoreCluster> {
        let api = self.api::<StoreCluster>();
        let patched = api.patch(NAME, &PatchParams::default(), &Patch::Merge(&change)).await;
        patched.context("patch the StoreCluster")
    }

    /// Asks for another number of members.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn scale(&self, replicas: i32) -> Result<()> {
        self.patch(json!({"spec": {"replicas": replicas}})).await.map(drop)
    }

    /// Waits until the operator says that everything is as wanted, with so many ready voters.
    ///
    /// # Errors
    /// Not in time.
    pub async fn settled(&self, replicas: i32) -> Result<StoreClusterStatus> {
        let deadline = FORMED + SCALED;
        until(&format!("{replicas} settled members"), deadline, async || {
            let cluster = self.get().await.map_err(|error| format!("{error:#}"))?;
            let status = cluster.status.unwrap_or_default();
            let seen = status.observed_generation == cluster.metadata.generation;
            let ready = status.ready.as_deref() == Some(&format!("{replicas}/{replicas}"));
            let progressing = condition(&status, "Progressing");
            let at_rest = progressing.is_some_and(|it| it.reason == "Reconciled");
            if seen && ready && at_rest && status.replicas == replicas {
                return Ok(status);
            }
            Err(format!("{:?} ready, {}", status.ready, said(&status, "Progressing")))
        })
        .await
    }

    /// Waits until every one of so many members is ready on a pod of this version.
    ///
    /// # Errors
    /// Not in time.
    pub async fn running(&self, replicas: usize, version: &str, deadline: Duration) -> Result<()> {
        until(&format!("{replicas} members of version {version}"), deadline, async || {
            let pods = self.pods().await.map_err(|error| format!("{error:#}"))?;
            let old: Vec<String> = pods
                .iter()
                .filter(|pod| !is_ready(pod) || version_of(pod) != Some(version))
                .map(ResourceExt::name_any)
                .collect();
            match pods.len() {
                _ if !old.is_empty() => Err(format!("{} are not", old.join(", "))),
                count if count != replicas => Err(format!("there are {count}")),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Waits until so many members run this version, and all is settled.
    ///
    /// # Errors
    /// Not in time.
    pub async fn rolled(&self, replicas: i32, version: &str) -> Result<StoreClusterStatus> {
        let count = usize::try_from(replicas).context("a number of members")?;
        self.running(count, version, ROLLED).await?;
        self.settled(replicas).await
    }

    /// Waits until these are the members, all of them voters.
    ///
    /// # Errors
    /// Not in time.
    pub async fn voters_are(&self, names: &[&str]) -> Result<()> {
        until(&format!("the voters to be {}", names.join(", ")), SCALED, async || {
            let members = self.members().await.map_err(|error| format!("{error:#}"))?;
            let mut seats: Vec<_> =
                members.iter().map(|it| (it.name.as_str(), it.is_learner)).collect();
            seats.sort_unstable();
            let wanted = names.iter().map(|name| (*name, false));
            if seats.iter().copied().eq(wanted) {
                Ok(())
            } else {
                Err(format!("they are {seats:?}"))
            }
        })
        .await
    }

    /// Waits until these are the voters, all of them ready, and all is settled.
    ///
    /// # Errors
    /// Not in time.
    pub async fn consists_of(&self, names: &[&str]) -> Result<StoreClusterStatus> {
        self.voters_are(names).await?;
        self.settled(i32::try_from(names.len()).context("a number of members")?).await
    }

    /// Waits until a condition has a status and a reason, and returns its message.
    ///
    /// # Errors
    /// Not in time.
    pub async fn told(&self, type_: &str, status: &str, reason: &str) -> Result<String> {
        until(&format!("{type_}={status} for {reason}"), TOLD, async || {
            let now = self.status().await.map_err(|error| format!("{error:#}"))?;
            match condition(&now, type_) {
                Some(it) if it.status == status && it.reason == reason => Ok(it.message.clone()),
                Some(_) | None => Err(said(&now, type_)),
            }
        })
        .await
    }

    /// The pods of members, by name.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let mut pods = self.api::<Pod>().list(&ListParams::default().labels(MEMBERS)).await?.items;
        pods.sort_by_key(ResourceExt::name_any);
        Ok(pods)
    }

    /// The pod of a member: `db-1` has the pod `db-1-0`.
    ///
    /// # Errors
    /// It is not there.
    pub async fn pod(&self, member: &str) -> Result<Pod> {
        let name = format!("{member}-0");
        self.api::<Pod>().get(&name).await.with_context(|| format!("get pod {name}"))
    }

    /// Waits until a member has a ready pod other than this one.
    ///
    /// # Errors
    /// Not in time.
    pub async fn replaced(&self, member: &str, old: &Pod) -> Result<Pod> {
        until(&format!("another pod of {member}"), HEALED, async || {
            let pod = self.pod(member).await.map_err(|error| format!("{error:#}"))?;
            let other = pod.metadata.uid != old.metadata.uid;
            if other && is_ready(&pod) { Ok(pod) } else { Err(format!("another: {other}")) }
        })
        .await
    }

    /// The claims of this cluster, by name.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn claims(&self) -> Result<Vec<PersistentVolumeClaim>> {
        let of_ours = ListParams::default().labels("quorate.dev/cluster=db");
        let mut claims = self.api::<PersistentVolumeClaim>().list(&of_ours).await?.items;
        claims.sort_by_key(ResourceExt::name_any);
        Ok(claims)
    }

    /// The directory behind a claim, on this host.
    ///
    /// # Errors
    /// The claim is not bound, or its volume is no directory of this host.
    pub async fn directory(&self, claim: &str) -> Result<PathBuf> {
        let claim =
            self.api::<PersistentVolumeClaim>().get(claim).await.context("get the claim")?;
        let volume = claim.spec.and_then(|spec| spec.volume_name).context("it is not bound")?;
        let volumes = Api::<PersistentVolume>::all(self.client.clone());
        let volume = volumes.get(&volume).await.context("get the volume")?;
        let path = volume.spec.and_then(|spec| spec.host_path).map(|source| source.path);
        let path = PathBuf::from(path.context("the volume is no directory of a host")?);
        path.canonicalize().with_context(|| format!("find {}", path.display()))
    }

    /// Connects to a member's pod.
    ///
    /// # Errors
    /// It has no address, or nobody listens there.
    pub async fn member(&self, name: &str) -> Result<Member> {
        let pod = self.pod(name).await?;
        Member::connect(&address(&pod).with_context(|| format!("{name} has no address"))?).await
    }

    /// Connects to the client Service.
    ///
    /// # Errors
    /// There is none, or nobody is behind it.
    pub async fn service(&self) -> Result<Member> {
        Member::connect(&self.service_address().await?).await
    }

    /// The address of the client Service.
    ///
    /// # Errors
    /// There is none.
    pub async fn service_address(&self) -> Result<String> {
        let name = format!("{NAME}-client");
        let service = self.api::<Service>().get(&name).await.context("get the client Service")?;
        let ip = service.spec.and_then(|spec| spec.cluster_ip);
        Ok(format!("{}:2379", ip.context("the Service has no address")?))
    }

    /// Writes a key through the client Service, again and again until it is acknowledged.
    ///
    /// # Errors
    /// Nobody acknowledges it.
    pub async fn put(&self, key: &str, value: &str) -> Result<()> {
        until("a write to be acknowledged", HEALED, async || {
            let door = self.service().await.map_err(|error| format!("{error:#}"))?;
            door.put(key, value).await.map(drop).map_err(|status| status.to_string())
        })
        .await
    }

    /// Reads a key through the client Service, again and again until somebody answers.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn value(&self, key: &str) -> Result<Option<String>> {
        until("a read to be answered", HEALED, async || {
            let door = self.service().await.map_err(|error| format!("{error:#}"))?;
            door.get(key).await.map_err(|error| format!("{error:#}"))
        })
        .await
    }

    /// The membership as a quorum confirms it, asked through the client Service.
    ///
    /// # Errors
    /// No quorum does.
    pub async fn members(&self) -> Result<Vec<etcdserverpb::Member>> {
        until("a confirmed list of members", HEALED, async || {
            let door = self.service().await.map_err(|error| format!("{error:#}"))?;
            let list = door.members(true).await.map_err(|error| format!("{error:#}"))?;
            Ok(list.members)
        })
        .await
    }

    /// The name of the member that leads, as it says itself.
    ///
    /// # Errors
    /// Nobody does.
    pub async fn leader(&self) -> Result<String> {
        until("a leader", HEALED, async || {
            for pod in self.pods().await.map_err(|error| format!("{error:#}"))? {
                let Some(address) = address(&pod) else { continue };
                let Ok(member) = Member::connect(&address).await else { continue };
                let Ok(status) = member.status().await else { continue };
                let own = status.header.as_ref().map_or(0, |header| header.member_id);
                if own != 0 && own == status.leader {
                    let name = pod.name_any();
                    return Ok(name.strip_suffix("-0").unwrap_or(&name).to_owned());
                }
            }
            Err("no member says that it leads".to_owned())
        })
        .await
    }

    /// Moves leadership to a member and waits until it leads. Returns its id.
    ///
    /// # Errors
    /// It does not take over.
    pub async fn let_lead(&self, name: &str) -> Result<u64> {
        let members = self.members().await?;
        let target = members.iter().find(|member| member.name == name);
        let id = target.with_context(|| format!("no member is called {name}"))?.id;
        until(&format!("{name} to lead"), HEALED, async || {
            let leader = self.leader().await.map_err(|error| format!("{error:#}"))?;
            if leader == name {
                return Ok(id);
            }
            let member = self.member(&leader).await.map_err(|error| format!("{error:#}"))?;
            member.move_leader(id).await.map_err(|error| format!("{error:#}"))?;
            Err(format!("{leader} was asked to hand over"))
        })
        .await
    }

    /// Cuts a member off from others: not from clients, its kubelet or the operator.
    ///
    /// # Errors
    /// One of them has no pod with an address, or the node refuses.
    pub async fn sever(&self, turn: &Turn, member: &str, from: &[String]) -> Result<Severed> {
        let mut addresses = Vec::new();
        for other in from {
            addresses.push(ip_of(&self.pod(other).await?)?);
        }
        sever(turn, &self.pod(member).await?, &addresses)
    }

    /// The process of a member's server, on this host, whatever became of its pod.
    ///
    /// # Errors
    /// It does not run.
    pub fn server(&self, turn: &Turn, member: &str) -> Result<Process> {
        // Members of other clusters have the same names.
        let own = format!("urls=http://{member}-0.{NAME}-peers.{}.svc:", self.namespace);
        let mut servers = Vec::new();
        for node in turn.bed.nodes() {
            servers.extend(node.processes(Part::Pods)?);
        }
        servers.retain(|process| process.command_line.contains(&own));
        servers.pop().with_context(|| format!("{member} does not run"))
    }

    /// Deletes the pod of a member as kubectl does: it is asked to stop, and comes back.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete_pod(&self, member: &str) -> Result<Pod> {
        let pod = self.pod(member).await?;
        self.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await?;
        Ok(pod)
    }

    /// kubectl in this namespace, with the administrator's rights.
    ///
    /// # Errors
    /// kubectl failed; the message quotes it.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let line: Vec<&str> = ["-n", &self.namespace].iter().chain(arguments).copied().collect();
        self.kubectl_anywhere(&line)
    }

    /// `kubectl apply -f -` in this namespace.
    ///
    /// # Errors
    /// The API server refuses the manifest; the message quotes it.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let line = words(&["kubectl", "-n", &self.namespace, "apply", "-f", "-"]);
        command::output_with_input(&mut installation::tool(&line, &self.kubeconfig), manifest)
    }

    fn kubectl_anywhere(&self, arguments: &[&str]) -> Result<String> {
        let mut line = words(&["kubectl"]);
        line.extend(words(arguments));
        command::output(&mut installation::tool(&line, &self.kubeconfig))
    }

    fn show(&self) {
        println!("\n---- what was left of {} ----", self.namespace);
        let looks: [&[&str]; 4] = [
            &["get", "storecluster,statefulsets,pods,jobs,pvc,pdb", "-o", "wide"],
            &["get", "storecluster", NAME, "-o", "yaml"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &["logs", "-l", MEMBERS, "--tail=15", "--prefix"],
        ];
        for look in looks {
            println!("$ kubectl -n {} {}", self.namespace, look.join(" "));
            println!("{}", self.kubectl(look).unwrap_or_else(|error| format!("{error:#}")));
        }
        let operator =
            ["-n", installation::NAMESPACE, "logs", "deployment/quorate-operator", "--tail=40"];
        println!(
            "{}",
            self.kubectl_anywhere(&operator).unwrap_or_else(|error| format!("{error:#}"))
        );
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
            return;
        }
        let gone = self.kubectl_anywhere(&["delete", "namespace", &self.namespace, "--wait=false"]);
        if let Err(error) = gone {
            println!("{} is left behind: {error:#}", self.namespace);
        }
    }
}

/// A condition of a status.
#[must_use]
pub fn condition<'a>(status: &'a StoreClusterStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

fn said(status: &StoreClusterStatus, type_: &str) -> String {
    condition(status, type_).map_or_else(
        || format!("{type_} is not told yet"),
        |it| format!("{type_}={} for {}: {}", it.status, it.reason, it.message),
    )
}

/// Where a pod serves clients, once it has an address.
#[must_use]
pub fn address(pod: &Pod) -> Option<String> {
    let ip = pod.status.as_ref()?.pod_ip.as_ref()?;
    Some(format!("{ip}:2379"))
}

/// Cuts a pod off from some addresses, for as long as what is returned lives.
///
/// # Errors
/// The pod runs nowhere, or its node refuses.
pub fn sever(turn: &Turn, pod: &Pod, addresses: &[String]) -> Result<Severed> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let node = turn.bed.node(node.context("the pod has no node")?)?;
    node.sever(&ip_of(pod)?, addresses)
}

fn ip_of(pod: &Pod) -> Result<String> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    ip.with_context(|| format!("{} has no address", pod.name_any()))
}

/// Whether a pod is ready and is to stay.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready =
        conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// How often the containers of a pod were restarted.
#[must_use]
pub fn restart_count(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).sum()
}

/// The version that a member's pod says it runs.
#[must_use]
pub fn version_of(pod: &Pod) -> Option<&str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(ANNOTATION_VERSION).map(String::as_str)
}

/// Kills a process of the bed, as kill -9 does.
///
/// # Errors
/// It is gone already.
pub fn kill_dead(process: &Process) -> Result<()> {
    let mut kill = std::process::Command::new("kill");
    let killed = command::succeeds(kill.args(["-9", &process.pid.to_string()]));
    ensure!(killed, "process {} ({}) is gone already", process.pid, process.program);
    Ok(())
}
