//! The sending side of one peer: a bounded queue, batches, and a connection that is made again when it breaks.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use quorate_consensus::MemberId;
use quorate_replica::{Input, PeerMessage};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc, time::Instant};
use tracing::{debug, info, warn};

use super::{
    Exclusion, Identity, Membership, PeerEvents, frame,
    hello::{self, Hello, Purpose, Verdict},
};
use crate::peers::PeerMetrics;

/// Messages that wait for one peer. Beyond it new ones are dropped and consensus is told: Raft sends again.
pub const QUEUE_MAX: usize = 4096;

/// Bytes of messages that go out in one write.
const BATCH_BYTES: usize = 1 << 20;

/// How long a connection may take to be made, and a batch to be written.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a failed dial doubles from the first to the second.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// One peer's sender task.
pub struct Sender {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// Whom we talk to.
    pub peer: MemberId,
    /// Where: host and port, resolved at each dial.
    pub addresses: Vec<String>,
    /// What to send.
    pub queue: mpsc::Receiver<PeerMessage>,
    /// Whom to tell.
    pub events: PeerEvents,
    /// What the cluster uses, as applied.
    pub membership: Membership,
    /// What to count.
    pub metrics: Arc<PeerMetrics>,
}

impl Sender {
    /// Runs until the queue's other end is dropped.
    pub async fn run(mut self) {
        let mut pause = RETRY_MIN;
        let mut failing = false;
        loop {
            match self.connect().await {
                Ok(stream) => {
                    info!(peer = %self.peer, "connected to peer");
                    (pause, failing) = (RETRY_MIN, false);
                    self.metrics.connected(self.peer, true);
                    let ended = self.send_until_broken(stream).await;
                    self.metrics.connected(self.peer, false);
                    if ended {
                        return;
                    }
                }
                Err(error) if failing => debug!(peer = %self.peer, "cannot reach peer: {error:#}"),
                Err(error) => {
                    failing = true;
                    warn!(peer = %self.peer, "cannot reach peer, will go on trying: {error:#}");
                }
            }
            if self.drop_queue_until(Instant::now() + pause).await {
                return;
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let hello = Hello::from(&self.identity, Purpose::Messages, self.peer);
        let (stream, answer) = dial_any(&self.addresses, &hello).await?;
        match answer.verdict {
            Verdict::Welcome => {
                answer.knows(self.membership.feature_level())?;
                Ok(stream)
            }
            Verdict::Removed => {
                self.events.excluded(Exclusion::Removed);
                anyhow::bail!("the peer says that this member was removed from the cluster")
            }
            Verdict::FeatureLevel => {
                self.events.excluded(Exclusion::Outdated);
                anyhow::bail!(refusal_text(answer.verdict))
            }
            Verdict::ForeignCluster
            | Verdict::NotMe
            | Verdict::Version
            | Verdict::OtherIncarnation
            | Verdict::NotForMeToSay => {
                anyhow::bail!(refusal_text(answer.verdict))
            }
        }
    }

    /// Sends batches; whether the queue has ended.
    async fn send_until_broken(&mut self, mut stream: TcpStream) -> bool {
        let mut batch = BytesMut::new();
        loop {
            // A half-open connection shows only when something is read from it: the peer never writes here.
            let mut end_of_stream = [0; 1];
            let first = tokio::select! {
                first = self.queue.recv() => first,
                read = tokio::io::AsyncReadExt::read(&mut stream, &mut end_of_stream) => {
                    debug!(peer = %self.peer, "peer closed its connection: {read:?}");
                    self.events.input(Input::Unreachable(self.peer)).await;
                    return false;
                }
            };
            let Some(first) = first else { return true };
            frame::put(&mut batch, |out| first.encode(out));
            while batch.len() < BATCH_BYTES {
                let Ok(message) = self.queue.try_recv() else { break };
                frame::put(&mut batch, |out| message.encode(out));
            }
            let written = tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(&batch)).await;
            match written {
                Ok(Ok(())) => self.metrics.sent(self.peer, batch.len()),
                Ok(Err(_)) | Err(_) => {
                    self.metrics.send_failed(self.peer);
                    info!(peer = %self.peer, "lost the connection to peer");
                    self.events.input(Input::Unreachable(self.peer)).await;
                    return false;
                }
            }
            batch.clear();
        }
    }

    /// While there is no connection messages are dropped: old ones would only mislead. Whether the queue has ended.
    async fn drop_queue_until(&mut self, deadline: Instant) -> bool {
        let mut dropped = false;
        loop {
            match tokio::time::timeout_at(deadline, self.queue.recv()).await {
                Ok(Some(_)) => {
                    self.metrics.send_failed(self.peer);
                    if !dropped {
                        dropped = true;
                        self.events.input(Input::Unreachable(self.peer)).await;
                    }
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

/// Says hello at the first address that answers. A name is resolved anew each time, and each of its addresses is tried: a headless
/// Service names all members, this one included.
///
/// # Errors
/// The last address's failure.
pub async fn dial_any(
    addresses: &[String],
    hello: &Hello,
) -> anyhow::Result<(TcpStream, hello::Answer)> {
    let mut last = anyhow::anyhow!("the peer has no peer URL");
    for address in addresses {
        let resolved = match tokio::net::lookup_host(address.as_str()).await {
            Ok(resolved) => resolved,
            Err(error) => {
                last = anyhow::Error::new(error).context(format!("resolve {address}"));
                continue;
            }
        };
        for socket in resolved {
            match tokio::time::timeout(CONNECT_TIMEOUT, dial(socket, hello)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => last = error.context(format!("dial {address}")),
                Err(_) => {
                    last = anyhow::anyhow!("dial {address}: no answer within {CONNECT_TIMEOUT:?}");
                }
            }
        }
    }
    Err(last)
}

async fn dial(socket: SocketAddr, hello: &Hello) -> anyhow::Result<(TcpStream, hello::Answer)> {
    let mut stream = TcpStream::connect(socket).await?;
    stream.set_nodelay(true)?;
    let answer = hello::dial(&mut stream, hello).await?;
    Ok((stream, answer))
}

/// What a refusal means and what to do about it.
#[must_use]
pub fn refusal_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Welcome => "the peer is willing",
        Verdict::ForeignCluster => {
            "the peer belongs to another cluster: check --initial-cluster and the peer URLs, or clear the data directory that came from elsewhere"
        }
        Verdict::NotMe => {
            "another member answers at the peer's URL: check the peer URLs with `etcdctl member list`"
        }
        Verdict::Removed => {
            "this member was removed from the cluster: add it anew with a new data directory"
        }
        Verdict::Version => {
            "the peer speaks another version of the peer protocol: upgrade one minor version at a time"
        }
        Verdict::OtherIncarnation => {
            "this member is recorded with another data directory, the one it voted with: remove it and add it anew, since a voter that forgot its votes is dangerous"
        }
        Verdict::NotForMeToSay => {
            "the peer is a learner that has seen this member's removal; a voter will confirm it"
        }
        Verdict::FeatureLevel => {
            "the cluster uses commands that this version does not know: run the version that the other members run"
        }
    }
}
