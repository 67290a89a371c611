//! Observe: turns the caches (or live lists) and the members' answers into the planner's `Observed`.
//!
//! Two ways to the same value. The usual one reads the caches and may be a moment old: good enough
//! to report and to plan. The live one lists again from the API server's storage: an action that
//! cannot be taken back is planned a second time on it before it is carried out.
//!
//! A member that does not answer is part of what was seen. What a single observation cannot know is
//! since when it is silent, or stands still; [`Silences`] remembers that from one pass to the next.
//! What the API server refused ([`Refusals`]) is the other thing that is remembered so, and these are
//! the only memory of this process: after a restart time counts from the first look, and a claim is
//! asked for once more, which can only make the operator more patient.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{self, Store};
use kube::{Client, Resource, ResourceExt as _};
use quorate_crds::StoreCluster;
use quorate_crds::names::{
    COMPONENT_MEMBER, FINALIZER, LABEL_CLUSTER, LABEL_COMPONENT, LABEL_ORDINAL,
};
use quorate_planner::naming::{CLIENT_PORT, parse_hex};
use quorate_planner::{
    ClusterFacts, LastWords, MemberAnswer, MemberView, Membership, NodeView, Nodes, Observed,
    StorageClasses, StoreMember,
};
use quorate_proto::etcdserverpb::StatusResponse;
use serde::de::DeserializeOwned;

use crate::error_policy::ClusterKey;
use crate::limits;
use crate::metrics::Metrics;
use crate::refusals::Refusals;
use crate::store_client::{self, Address, AskError, StoreClient};
use crate::watches::{self, Caches};
use crate::words;

/// One observation, and the members that it reached: who answered is who can be asked to act.
pub(crate) struct Sight {
    /// What the planner sees.
    pub(crate) observed: Observed,
    /// What the executor uses.
    pub(crate) contacts: Contacts,
}

/// The members that answered.
#[derive(Default)]
pub(crate) struct Contacts {
    reached: Vec<Contact>,
}

struct Contact {
    ordinal: i32,
    id: u64,
    /// Whether it is of the cluster that was formed. A pod's address that is out of date may be
    /// another pod's by now, and that pod may serve another cluster.
    native: bool,
    status: StatusResponse,
    /// Whether a linearizable read through it was answered.
    reads: bool,
    client: StoreClient,
}

impl Contacts {
    /// The member of this ordinal.
    pub(crate) fn of_ordinal(&self, ordinal: i32) -> Option<&StoreClient> {
        let mut natives = self.reached.iter().filter(|contact| contact.native);
        natives.find(|contact| contact.ordinal == ordinal).map(|found| &found.client)
    }

    /// Who to ask for a change: the leader, else any voter. Learners refuse, and nothing is changed
    /// in a cluster that is not ours.
    pub(crate) fn for_changes(&self) -> Option<&StoreClient> {
        self.by_preference().find(|contact| contact.native).map(|contact| &contact.client)
    }

    /// The voters: those of our cluster first, and the leader first of those. Members of another
    /// cluster come last, so that a whole cluster that is not the one formed is seen as such.
    fn by_preference(&self) -> impl Iterator<Item = &Contact> {
        let mut voters: Vec<&Contact> =
            self.reached.iter().filter(|contact| !contact.status.is_learner).collect();
        voters.sort_by_key(|contact| {
            let leads = contact.status.leader == contact.id;
            (!contact.native, !leads, std::cmp::Reverse(contact.status.raft_term))
        });
        voters.into_iter()
    }
}

/// The children of one cluster, whoever owns them, and what is known of the classes of its volumes and
/// of the nodes of its members.
pub(crate) struct Children {
    sets: Vec<StatefulSet>,
    pods: Vec<Pod>,
    claims: Vec<PersistentVolumeClaim>,
    services: Vec<Service>,
    budgets: Vec<PodDisruptionBudget>,
    jobs: Vec<Job>,
    classes: StorageClasses,
    /// Where members run or ran last.
    nodes: Nodes,
}

impl Children {
    /// As the caches have them.
    pub(crate) async fn cached(
        client: &Client,
        caches: &Caches,
        cluster: &StoreCluster,
    ) -> Result<Children, kube::Error> {
        let (namespace, name) = (&cluster.namespace().unwrap_or_default(), &cluster.name_any());
        let mut children = Children {
            sets: select(&caches.sets, namespace, name),
            pods: select(&caches.pods, namespace, name),
            claims: select(&caches.claims, namespace, name),
            services: select(&caches.services, namespace, name),
            budgets: select(&caches.budgets, namespace, name),
            jobs: select(&caches.jobs, namespace, name),
            classes: caches.storage_classes(),
            nodes: Nodes::Seen(BTreeMap::new()),
        };
        children.look_for_claims(client, cluster).await?;
        children.nodes = if watches::filled(&caches.nodes) {
            let views = children.nodes_of_members(cluster).into_iter().filter_map(|name| {
                let node = caches.nodes.get(&reflector::ObjectRef::new(&name))?;
                Some((name, view(&node)))
            });
            Nodes::Seen(views.collect())
        } else {
            Nodes::Unseen { error: "no list of them has arrived".to_owned() }
        };
        Ok(children)
    }

    /// As the API server's storage has them now; the classes as the caches have them, since nothing that
    /// is confirmed depends on them.
    pub(crate) async fn live(
        client: &Client,
        caches: &Caches,
        cluster: &StoreCluster,
    ) -> Result<Children, kube::Error> {
        let (namespace, name) = (&cluster.namespace().unwrap_or_default(), &cluster.name_any());
        let (sets, pods, claims, services, budgets, jobs) = futures::try_join!(
            list(client, namespace, name),
            list(client, namespace, name),
            list(client, namespace, name),
            list(client, namespace, name),
            list(client, namespace, name),
            list(client, namespace, name),
        )?;
        let classes = caches.storage_classes();
        let nodes = Nodes::Seen(BTreeMap::new());
        let mut children = Children { sets, pods, claims, services, budgets, jobs, classes, nodes };
        children.look_for_claims(client, cluster).await?;
        children.nodes = read_nodes(client, children.nodes_of_members(cluster)).await;
        Ok(children)
    }

    /// Asks by name for claims of members that the label did not find: that somebody took the label
    /// off, or that a cache is behind, must not look like the loss of a volume.
    async fn look_for_claims(
        &mut self,
        client: &Client,
        cluster: &StoreCluster,
    ) -> Result<(), kube::Error> {
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
        let members = cluster.status.iter().flat_map(|status| &status.members);
        for member in members {
            if !self.claims.iter().any(|claim| claim.name_any() == member.claim) {
                self.claims.extend(api.get_opt(&member.claim).await?);
            }
        }
        Ok(())
    }

    fn nodes_of_members(&self, cluster: &StoreCluster) -> BTreeSet<String> {
        let members = cluster.status.iter().flat_map(|status| &status.members);
        let ran_last = members.filter_map(|member| member.node.clone());
        let pods = self.pods.iter().filter(|pod| is_member(pod));
        pods.filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).chain(ran_last).collect()
    }
}

/// Nodes as the API server's storage has them. That they cannot be read is an observation: only who
/// waits for the loss of one has to hear of it.
async fn read_nodes(client: &Client, names: BTreeSet<String>) -> Nodes {
    let api: &Api<Node> = &Api::all(client.clone());
    let reads = names.into_iter().map(|name| async move { Ok((api.get_opt(&name).await?, name)) });
    let read: Result<Vec<_>, kube::Error> = futures::future::try_join_all(reads).await;
    match read {
        Ok(nodes) => {
            let there = nodes.into_iter().filter_map(|(node, name)| Some((name, view(&node?))));
            Nodes::Seen(there.collect())
        }
        Err(error) => Nodes::Unseen { error: words::of_request(&error) },
    }
}

/// What of a node says something about the members on it.
fn view(node: &Node) -> NodeView {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let unready = conditions.find(|it| it.type_ == "Ready" && it.status != "True");
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    NodeView {
        unready_since: unready
            .map(|it| it.last_transition_time.as_ref().map_or(Timestamp::now(), |at| at.0)),
        out_of_service: taints.clone().any(|taint| taint.key == OUT_OF_SERVICE),
    }
}

/// The taint by which somebody vouches that nothing runs on a node any more (Kubernetes: non-graceful
/// node shutdown).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Looks at a cluster whose children are known: asks its members, and assembles.
pub(crate) async fn observe(
    cluster: &StoreCluster,
    children: Children,
    silences: &std::sync::Mutex<Silences>,
    refusals: &std::sync::Mutex<Refusals>,
    metrics: &Arc<Metrics>,
) -> Sight {
    let status = cluster.status.clone().unwrap_or_default();
    let ask = status.cluster_id.is_some() && children.pods.iter().any(is_member);
    let targets = if ask { targets(&children.pods) } else { Vec::new() };
    let cluster_id = status.cluster_id.as_deref().and_then(parse_hex);
    let (mut contacts, errors) = ask_each(&targets, cluster_id, metrics).await;
    // At once, since without a quorum both wait for their deadline.
    let (list, readers) = tokio::join!(
        async {
            if ask { Some(ask_membership(&contacts, errors.values().next()).await) } else { None }
        },
        read_each(&contacts),
    );
    for contact in &mut contacts.reached {
        contact.reads = readers.contains(&contact.id);
    }

    let now = Timestamp::now();
    let key = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let remembered: BTreeMap<u64, String> = status
        .members
        .iter()
        .filter_map(|member| {
            let id = parse_hex(member.id.as_deref()?)?;
            let error = errors.get(&member.ordinal).map_or(NOT_RUNNING, AskError::reason);
            Some((id, error.to_owned()))
        })
        .collect();
    let refused_growths = {
        let mut refusals = refusals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        refusals.of(&key, &children.claims)
    };
    let (membership, members) = {
        let mut silences = silences.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let silence = silences.of.entry(key).or_default();
        let membership = silence.membership(now, list);
        let members = silence.members(now, &membership, &remembered, &contacts);
        (membership, members)
    };
    let observed = Observed {
        now,
        cluster: facts(cluster),
        status,
        stateful_sets: children.sets,
        pods: children.pods,
        claims: children.claims,
        services: children.services,
        budgets: children.budgets,
        jobs: children.jobs,
        storage_classes: children.classes,
        refused_growths,
        nodes: children.nodes,
        membership,
        members,
    };
    Sight { observed, contacts }
}

fn facts(cluster: &StoreCluster) -> ClusterFacts {
    ClusterFacts {
        uid: cluster.uid().unwrap_or_default(),
        generation: cluster.metadata.generation.unwrap_or_default(),
        resource_version: cluster.resource_version().unwrap_or_default(),
        deleting: cluster.metadata.deletion_timestamp.is_some(),
        has_finalizer: cluster.finalizers().iter().any(|name| name == FINALIZER),
        annotations: cluster.annotations().clone(),
    }
}

fn is_member(pod: &Pod) -> bool {
    pod.labels().get(LABEL_COMPONENT).is_some_and(|component| component == COMPONENT_MEMBER)
}

/// Where the members of a cluster can be asked: their pods that run and have an address, in the
/// order of their ordinals. A pod that is terminating still serves until it stops.
fn targets(pods: &[Pod]) -> Vec<(i32, Address)> {
    let port = u16::try_from(CLIENT_PORT).expect("the client port is a port number");
    let mut targets: Vec<(i32, Address)> = pods
        .iter()
        .filter(|pod| is_member(pod))
        .filter_map(|pod| {
            let ordinal: i32 = pod.labels().get(LABEL_ORDINAL)?.parse().ok()?;
            let status = pod.status.as_ref()?;
            let runs = status.phase.as_deref() == Some("Running");
            let ip: IpAddr = status.pod_ip.as_deref()?.parse().ok()?;
            runs.then_some((ordinal, Address::new(ip, port)))
        })
        .collect();
    targets.sort_by_key(|(ordinal, _)| *ordinal);
    targets.truncate(limits::MEMBERS_ASKED_MAX);
    targets
}

/// Asks every target about itself, all at once.
async fn ask_each(
    targets: &[(i32, Address)],
    cluster_id: Option<u64>,
    metrics: &Arc<Metrics>,
) -> (Contacts, BTreeMap<i32, AskError>) {
    let answers = join_all(targets.iter().map(|(ordinal, address)| async move {
        let answer = async {
            let client = StoreClient::connect(*address, Arc::clone(metrics)).await?;
            let status = client.status().await?;
            Ok::<_, AskError>((client, status))
        };
        (*ordinal, answer.await)
    }))
    .await;
    let mut contacts = Contacts::default();
    let mut errors = BTreeMap::new();
    for (ordinal, answer) in answers {
        match answer {
            Ok((client, status)) => {
                let header = status.header.unwrap_or_default();
                let (id, native) = (header.member_id, Some(header.cluster_id) == cluster_id);
                contacts.reached.push(Contact {
                    ordinal,
                    id,
                    native,
                    status,
                    reads: false,
                    client,
                });
            }
            Err(error) => {
                errors.insert(ordinal, error);
            }
        }
    }
    (contacts, errors)
}

/// Who answers linearizable reads, of the voters of our cluster.
async fn read_each(contacts: &Contacts) -> BTreeSet<u64> {
    let voters = contacts.reached.iter().filter(|it| it.native && !it.status.is_learner);
    let reads = voters
        .map(|contact| async move { contact.client.read().await.is_ok().then_some(contact.id) });
    join_all(reads).await.into_iter().flatten().collect()
}

/// What is said of a member that could not even be asked.
const NOT_RUNNING: &str = "no pod of it runs";

/// A linearizable list from whoever can give one: the leader first, then all other voters at once.
async fn ask_membership(
    contacts: &Contacts,
    silent: Option<&AskError>,
) -> Result<store_client::Membership, String> {
    let mut preferred = contacts.by_preference();
    let Some(first) = preferred.next() else {
        let reason = if contacts.reached.is_empty() {
            silent.map_or(NOT_RUNNING, AskError::reason)
        } else {
            "no voter answers"
        };
        return Err(reason.to_owned());
    };
    let mut last = match first.client.members().await {
        Ok(list) => return Ok(list),
        Err(error) => error.reason().to_owned(),
    };
    let mut others: FuturesUnordered<_> =
        preferred.map(|contact| contact.client.members()).collect();
    while let Some(answer) = others.next().await {
        match answer {
            Ok(list) => return Ok(list),
            Err(error) => error.reason().clone_into(&mut last),
        }
    }
    Err(last)
}

/// Since when nobody answered, for every cluster of this process.
#[derive(Debug, Default)]
pub(crate) struct Silences {
    of: BTreeMap<ClusterKey, Silence>,
}

impl Silences {
    /// A cluster is gone.
    pub(crate) fn forget(&mut self, key: &ClusterKey) {
        self.of.remove(key);
    }
}

/// Since when nobody answered, for one cluster.
#[derive(Debug, Default)]
struct Silence {
    membership: Option<Timestamp>,
    members: BTreeMap<u64, Timestamp>,
    /// What was heard of each member last, and since when that has been so.
    heard: BTreeMap<u64, Heard>,
}

/// What one member said when it was heard last.
#[derive(Clone, Copy, Debug)]
struct Heard {
    last: LastWords,
    applied: u64,
    /// When its applied index was first seen where it is.
    moved: Timestamp,
    /// When a linearizable read through it was answered last, or it was first heard.
    read: Timestamp,
}

impl Silence {
    fn membership(
        &mut self,
        now: Timestamp,
        list: Option<Result<store_client::Membership, String>>,
    ) -> Membership {
        match list {
            None => {
                self.membership = None;
                Membership::NotAsked
            }
            Some(Ok(list)) => {
                self.membership = None;
                let members = list.members.into_iter().map(|member| StoreMember {
                    id: member.id,
                    name: member.name,
                    peer_urls: member.peer_ur_ls,
                    client_urls: member.client_ur_ls,
                    learner: member.is_learner,
                });
                Membership::Known { cluster_id: list.cluster_id, members: members.collect() }
            }
            Some(Err(error)) => {
                let since = *self.membership.get_or_insert(now);
                Membership::Unreachable { since, error }
            }
        }
    }

    /// A view of every member that is listed or remembered (with why it is silent, if it is), and
    /// of every one that answered.
    fn members(
        &mut self,
        now: Timestamp,
        membership: &Membership,
        remembered: &BTreeMap<u64, String>,
        contacts: &Contacts,
    ) -> BTreeMap<u64, MemberView> {
        let listed: Vec<u64> = match membership {
            Membership::Known { members, .. } => members.iter().map(|member| member.id).collect(),
            Membership::NotAsked | Membership::Unreachable { .. } => Vec::new(),
        };
        let mut views = BTreeMap::new();
        for contact in contacts.reached.iter().filter(|contact| contact.native) {
            let heard = self.hear(now, contact);
            views.insert(contact.id, MemberView::Answered(answer(now, contact, &heard)));
        }
        let mut silent = BTreeMap::new();
        for id in listed.iter().chain(remembered.keys()) {
            if views.contains_key(id) {
                continue;
            }
            let since = self.members.get(id).copied().unwrap_or(now);
            silent.insert(*id, since);
            let error = remembered.get(id).map_or(NOT_RUNNING, String::as_str).to_owned();
            let last = self.heard.get(id).map(|heard| heard.last);
            views.insert(*id, MemberView::Unreachable { since, error, last });
        }
        self.members = silent;
        self.heard.retain(|id, _heard| views.contains_key(id));
        views
    }

    fn hear(&mut self, now: Timestamp, contact: &Contact) -> Heard {
        let status = &contact.status;
        let (applied, last) = (
            status.raft_applied_index,
            LastWords { term: status.raft_term, index: status.raft_index },
        );
        let new = Heard { last, applied, moved: now, read: now };
        let heard = self.heard.entry(contact.id).or_insert(new);
        let moved = if heard.applied == applied { heard.moved } else { now };
        let read = if contact.reads { now } else { heard.read };
        *heard = Heard { last, applied, moved, read };
        *heard
    }
}

fn answer(now: Timestamp, contact: &Contact, heard: &Heard) -> MemberAnswer {
    let status = &contact.status;
    let since = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
    let bytes = |size: i64| u64::try_from(size).unwrap_or(0);
    MemberAnswer {
        leader: (status.leader != 0).then_some(status.leader),
        term: status.raft_term,
        raft_index: status.raft_index,
        applied_index: status.raft_applied_index,
        stalled_for: since(heard.moved),
        unread_for: since(heard.read),
        size_in_use: bytes(status.db_size_in_use),
        quota: bytes(status.db_size_quota),
        learner: status.is_learner,
        reads: contact.reads,
        errors: status.errors.clone(),
    }
}

fn select<K>(store: &Store<K>, namespace: &str, name: &str) -> Vec<K>
where
    K: Resource<DynamicType = ()> + reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    let mut found: Vec<K> = store
        .state()
        .iter()
        .filter(|object| object.meta().namespace.as_deref() == Some(namespace))
        .filter(|object| object.labels().get(LABEL_CLUSTER).is_some_and(|label| label == name))
        .map(|object| K::clone(object))
        .collect();
    // The store is a hash map; the planner is to see the same world in the same order.
    found.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
    found
}

async fn list<K>(client: &Client, namespace: &str, name: &str) -> Result<Vec<K>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let selected = ListParams::default().labels(&format!("{LABEL_CLUSTER}={name}"));
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    Ok(api.list(&selected).await?.items)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(ordinal: &str, phase: &str, ip: Option<&str>) -> Pod {
        let mut pod = Pod::default();
        pod.labels_mut().insert(LABEL_COMPONENT.into(), COMPONENT_MEMBER.into());
        pod.labels_mut().insert(LABEL_ORDINAL.into(), ordinal.into());
        pod.status = Some(PodStatus {
            phase: Some(phase.into()),
            pod_ip: ip.map(str::to_owned),
            ..PodStatus::default()
        });
        pod
    }

    #[test]
    fn running_member_pods_with_an_address_are_asked_in_order_of_ordinals() {
        let mut formation = pod("0", "Running", Some("10.0.0.9"));
        formation.labels_mut().insert(LABEL_COMPONENT.into(), "formation".into());
        let pods = [
            pod("10", "Running", Some("10.0.0.3")),
            pod("2", "Running", Some("10.0.0.2")),
            pod("3", "Pending", Some("10.0.0.4")),
            pod("4", "Running", None),
            pod("x", "Running", Some("10.0.0.5")),
            formation,
        ];
        let ordinals: Vec<i32> = targets(&pods).into_iter().map(|(ordinal, _)| ordinal).collect();
        assert_eq!(ordinals, [2, 10], "by number, not as text");
    }

    fn known(ids: &[u64]) -> Membership {
        let members = ids.iter().map(|id| StoreMember {
            id: *id,
            name: String::new(),
            peer_urls: Vec::new(),
            client_urls: Vec::new(),
            learner: false,
        });
        Membership::Known { cluster_id: 1, members: members.collect() }
    }

    fn since(views: &BTreeMap<u64, MemberView>, id: u64) -> Timestamp {
        match &views[&id] {
            MemberView::Unreachable { since, .. } => *since,
            MemberView::Answered(_) => panic!("{id} answered"),
        }
    }

    fn contact(ordinal: i32, id: u64, leader: u64, native: bool, is_learner: bool) -> Contact {
        let status = StatusResponse { leader, is_learner, ..StatusResponse::default() };
        let address = Address::new("127.0.0.1".parse().unwrap(), 1000 + ordinal as u16);
        let client = StoreClient::unconnected(address);
        Contact { ordinal, id, native, status, reads: !is_learner, client }
    }

    #[tokio::test]
    async fn changes_are_asked_of_our_leader_and_never_of_another_cluster() {
        let mut contacts = Contacts {
            reached: vec![
                contact(0, 10, 12, true, false),
                contact(1, 11, 12, true, true),
                contact(2, 12, 12, true, false),
                contact(3, 99, 99, false, false),
            ],
        };
        let order: Vec<u64> = contacts.by_preference().map(|contact| contact.id).collect();
        assert_eq!(order, [12, 10, 99], "leader, voter, stranger; no learner");
        assert!(contacts.of_ordinal(3).is_none(), "a stranger at the address of a member");
        assert!(contacts.of_ordinal(1).is_some());
        contacts.reached.retain(|contact| !contact.native || contact.status.is_learner);
        assert!(contacts.for_changes().is_none());
        let views =
            Silence::default().members(at(1), &Membership::NotAsked, &BTreeMap::new(), &contacts);
        assert_eq!(views.into_keys().collect::<Vec<_>>(), [11]);
    }

    #[test]
    fn silence_lasts_from_the_first_look_and_ends_with_the_membership() {
        let mut silence = Silence::default();
        let nobody = Contacts::default();
        let none = BTreeMap::new();
        let first = silence.members(at(10), &known(&[1, 2]), &none, &nobody);
        assert_eq!(since(&first, 2), at(10));
        let second = silence.members(at(20), &known(&[2, 3]), &none, &nobody);
        assert_eq!((since(&second, 2), since(&second, 3)), (at(10), at(20)));
        assert!(!second.contains_key(&1), "a member that is neither listed nor remembered");
        let remembered = BTreeMap::from([(2, "Connection refused".to_owned())]);
        let again = silence.members(at(30), &known(&[1]), &remembered, &nobody);
        assert_eq!((since(&again, 1), since(&again, 2)), (at(30), at(10)));
        assert!(
            matches!(&again[&2], MemberView::Unreachable { error, .. } if error.contains("refused"))
        );
    }

    #[tokio::test]
    async fn standing_still_and_not_reading_last_until_the_next_move_and_the_next_read() {
        let mut silence = Silence::default();
        let mut look = |second: i64, applied: u64, reads: bool| {
            let mut it = contact(1, 11, 12, true, false);
            (it.status.raft_applied_index, it.status.raft_index, it.reads) = (applied, 9, reads);
            let contacts = Contacts { reached: vec![it] };
            let views = silence.members(at(second), &known(&[11]), &BTreeMap::new(), &contacts);
            match &views[&11] {
                MemberView::Answered(answer) => {
                    (answer.stalled_for.as_secs(), answer.unread_for.as_secs())
                }
                MemberView::Unreachable { .. } => panic!("it answers"),
            }
        };
        assert_eq!(look(10, 5, false), (0, 0), "counted from the first look");
        assert_eq!(look(30, 5, false), (20, 20));
        assert_eq!(look(40, 6, false), (0, 30));
        assert_eq!(look(50, 6, true), (10, 0));
        let nobody = Contacts::default();
        let silent = silence.members(at(60), &known(&[11]), &BTreeMap::new(), &nobody);
        let last = match &silent[&11] {
            MemberView::Unreachable { last, .. } => last.map(|last| last.index),
            MemberView::Answered(_) => panic!("nobody answers"),
        };
        assert_eq!(last, Some(9), "how far it was is known although it is silent");
    }

    #[test]
    fn a_node_is_seen_by_its_readiness_and_its_taint() {
        let node = |ready: &str, taint: Option<&str>| -> Node {
            serde_json::from_value(serde_json::json!({
                "spec": {"taints": taint.map(|key| serde_json::json!([{"key": key, "effect": "NoExecute"}]))},
                "status": {"conditions": [
                    {"type": "MemoryPressure", "status": "False"},
                    {"type": "Ready", "status": ready, "lastTransitionTime": "1970-01-01T00:00:07Z"},
                ]},
            }))
            .unwrap()
        };
        assert_eq!(view(&node("True", Some("other"))), NodeView::default());
        for silent in ["False", "Unknown"] {
            assert_eq!(view(&node(silent, None)).unready_since, Some(at(7)), "{silent}");
        }
        assert!(view(&node("True", Some(OUT_OF_SERVICE))).out_of_service);
    }

    #[test]
    fn an_unreachable_membership_keeps_its_first_time_until_somebody_answers() {
        let mut silence = Silence::default();
        let silent = || Some(Err("no answer".to_owned()));
        let begun = |membership| match membership {
            Membership::Unreachable { since, .. } => since,
            other => panic!("{other:?}"),
        };
        assert_eq!(begun(silence.membership(at(1), silent())), at(1));
        assert_eq!(begun(silence.membership(at(5), silent())), at(1));
        let list = store_client::Membership { cluster_id: 7, members: Vec::new() };
        let known = silence.membership(at(6), Some(Ok(list)));
        assert_eq!(known, Membership::Known { cluster_id: 7, members: Vec::new() });
        assert_eq!(begun(silence.membership(at(9), silent())), at(9));
        assert_eq!(silence.membership(at(10), None), Membership::NotAsked);
    }
}
