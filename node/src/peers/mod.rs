//! Raft's transport: one outgoing connection to each peer, bounded and lossy; consensus repeats what matters.
//!
//! Messages to a peer go through a bounded queue and leave in batches. A snapshot has a connection of its own, so that
//! it never stands before a heartbeat. The peer protocol is ours: mixing with etcd's own members is not wanted.

pub mod frame;
pub mod hello;
pub mod membership;
pub mod prober;
pub mod receiver;
pub mod sender;
pub mod snapshot;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use quorate_consensus::MemberId;
use quorate_machine::{ClusterId, FeatureLevel, Incarnation, Member};
use quorate_replica::{Input, PeerMessage};
use tokio::{
    net::TcpStream,
    runtime,
    sync::{mpsc, watch},
    task::JoinHandle,
};

pub use membership::Membership;

use self::sender::{QUEUE_MAX, Sender};
use crate::metrics::Histogram;

/// Who this member is in every handshake.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// What it knows.
    pub feature_level: FeatureLevel,
    /// Where it listens for its peers.
    pub peer_urls: Vec<String>,
}

impl Identity {
    /// This member's id as clients see it.
    #[must_use]
    pub fn member_id(&self) -> quorate_machine::MemberId {
        quorate_machine::MemberId(self.member.0)
    }
}

/// Why a peer says that this member has no place among the others. Both are decided by entries that a quorum has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// The cluster removed it.
    Removed,
    /// The cluster has reached a feature level that this build does not know.
    Outdated,
}

/// Where the transport tells what happened.
#[derive(Clone)]
pub struct PeerEvents {
    inputs: mpsc::Sender<Input>,
    snapshots: mpsc::Sender<(MemberId, TcpStream)>,
    excluded: watch::Sender<Option<Exclusion>>,
    introductions: Arc<Introductions>,
}

/// Where members listen that have dialled this one before it applied that they are members, by what they said of themselves. One
/// that was cut off while the others took in a new member, which then came to lead, could not answer its leader otherwise, and
/// would never learn from it who it is.
#[derive(Debug, Default)]
struct Introductions(Mutex<BTreeMap<MemberId, Vec<String>>>);

impl PeerEvents {
    /// Inputs go to consensus; snapshot connections to whoever installs; `excluded` is set when a peer says that this
    /// member has no place any more.
    #[must_use]
    pub fn new(
        inputs: mpsc::Sender<Input>,
        snapshots: mpsc::Sender<(MemberId, TcpStream)>,
        excluded: watch::Sender<Option<Exclusion>>,
    ) -> Self {
        Self { inputs, snapshots, excluded, introductions: Arc::default() }
    }

    async fn input(&self, input: Input) {
        // Fails only while the process stops.
        self.inputs.send(input).await.ok();
    }

    /// A connection from a member that the applied membership does not hold stands. It is known by what it says until the connection
    /// ends or the membership holds it.
    fn introduced(&self, peer: MemberId, peer_urls: &[String]) {
        self.introductions.0.lock().insert(peer, peer_addresses(peer_urls));
    }

    fn left(&self, peer: MemberId) {
        self.introductions.0.lock().remove(&peer);
    }

    fn introduction(&self, peer: MemberId) -> Option<Vec<String>> {
        self.introductions.0.lock().get(&peer).cloned()
    }

    fn excluded(&self, why: Exclusion) {
        self.excluded.send_replace(Some(why));
    }

    async fn receive_snapshot(&self, from: MemberId, stream: TcpStream) -> anyhow::Result<()> {
        self.snapshots
            .send((from, stream))
            .await
            .map_err(|_| anyhow::anyhow!("this member is stopping"))
    }
}

/// Counts per peer, for metrics.
#[derive(Debug, Default)]
pub struct PeerMetrics(Mutex<BTreeMap<MemberId, Arc<PeerCounts>>>);

/// One peer's counts.
#[derive(Debug)]
pub struct PeerCounts {
    /// Bytes of messages sent.
    pub sent_bytes: AtomicU64,
    /// Bytes of messages received.
    pub received_bytes: AtomicU64,
    /// Messages that were dropped or batches that broke.
    pub send_failures: AtomicU64,
    /// Connections from it that broke.
    pub receive_failures: AtomicU64,
    /// How long a byte to it and back took.
    pub round_trip: Histogram,
    /// Whether our connection to it stands.
    pub connected: AtomicBool,
}

impl Default for PeerCounts {
    fn default() -> Self {
        Self {
            sent_bytes: AtomicU64::default(),
            received_bytes: AtomicU64::default(),
            send_failures: AtomicU64::default(),
            receive_failures: AtomicU64::default(),
            round_trip: Histogram::round_trips(),
            connected: AtomicBool::default(),
        }
    }
}

impl PeerMetrics {
    /// One peer's counts.
    #[must_use]
    pub fn of(&self, peer: MemberId) -> Arc<PeerCounts> {
        self.0.lock().entry(peer).or_default().clone()
    }

    /// All peers' counts.
    #[must_use]
    pub fn all(&self) -> Vec<(MemberId, Arc<PeerCounts>)> {
        self.0.lock().iter().map(|(peer, counts)| (*peer, counts.clone())).collect()
    }

    fn sent(&self, peer: MemberId, bytes: usize) {
        self.of(peer).sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn received(&self, peer: MemberId, bytes: usize) {
        self.of(peer).received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn send_failed(&self, peer: MemberId) {
        self.of(peer).send_failures.fetch_add(1, Ordering::Relaxed);
    }

    fn receive_failed(&self, peer: MemberId) {
        self.of(peer).receive_failures.fetch_add(1, Ordering::Relaxed);
    }

    fn connected(&self, peer: MemberId, connected: bool) {
        self.of(peer).connected.store(connected, Ordering::Relaxed);
    }
}

/// The senders to all peers, kept in step with the applied membership.
pub struct PeerSet {
    identity: Arc<Identity>,
    events: PeerEvents,
    membership: Membership,
    metrics: Arc<PeerMetrics>,
    runtime: runtime::Handle,
    senders: BTreeMap<MemberId, Peer>,
}

struct Peer {
    addresses: Vec<String>,
    queue: mpsc::Sender<PeerMessage>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Peer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl PeerSet {
    /// No peers yet.
    #[must_use]
    pub fn new(
        identity: Arc<Identity>,
        events: PeerEvents,
        membership: Membership,
        metrics: Arc<PeerMetrics>,
        runtime: runtime::Handle,
    ) -> Self {
        Self { identity, events, membership, metrics, runtime, senders: BTreeMap::new() }
    }

    /// Starts senders to new members, ends those to members that left, restarts those whose URLs changed.
    pub fn set_members(&mut self, members: &[Member]) {
        let wanted: BTreeMap<MemberId, Vec<String>> = members
            .iter()
            .filter(|member| member.id.0 != self.identity.member.0)
            .map(|member| (MemberId(member.id.0), peer_addresses(&member.peer_urls)))
            .collect();
        for peer in wanted.keys() {
            self.events.left(*peer);
        }
        self.senders.retain(|peer, sender| {
            let addresses = wanted.get(peer).cloned().or_else(|| self.events.introduction(*peer));
            addresses.is_some_and(|addresses| addresses == sender.addresses)
        });
        for (peer, addresses) in wanted {
            if !self.senders.contains_key(&peer) {
                self.start(peer, addresses);
            }
        }
    }

    fn start(&mut self, peer: MemberId, addresses: Vec<String>) {
        let (queue, messages) = mpsc::channel(QUEUE_MAX);
        let sender = Sender {
            identity: self.identity.clone(),
            peer,
            addresses: addresses.clone(),
            queue: messages,
            events: self.events.clone(),
            membership: self.membership.clone(),
            metrics: self.metrics.clone(),
        };
        let probing =
            prober::run(self.identity.clone(), peer, addresses.clone(), self.metrics.clone());
        let tasks = [self.runtime.spawn(sender.run()), self.runtime.spawn(probing)];
        self.senders.insert(peer, Peer { addresses, queue, tasks });
    }

    /// Queues a message; a full queue or an unknown peer drops it, and consensus hears of that by itself.
    pub fn send(&mut self, message: PeerMessage) {
        let to = message.to;
        if !self.senders.contains_key(&to)
            && let Some(addresses) = self.events.introduction(to)
        {
            self.start(to, addresses);
        }
        if let Some(peer) = self.senders.get(&to)
            && peer.queue.try_send(message).is_err()
        {
            self.metrics.send_failed(to);
        }
    }
}

/// Host and port of each peer URL.
#[must_use]
pub fn peer_addresses(urls: &[String]) -> Vec<String> {
    urls.iter()
        .filter_map(|url| crate::config::Url::parse(url).ok())
        .map(|url| {
            if url.host.contains(':') {
                format!("[{}]:{}", url.host, url.port)
            } else {
                format!("{}:{}", url.host, url.port)
            }
        })
        .collect()
}
