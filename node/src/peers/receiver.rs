//! The listening side: hello, then a peer's messages into consensus, a snapshot, or an answer to somebody who joins.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use quorate_replica::{Input, PeerMessage};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tracing::{debug, info, warn};

use super::{
    Identity, Membership, PeerEvents, PeerMetrics,
    frame::FrameReader,
    hello::{self, Answer, Hello, Purpose, Verdict},
    prober,
};

/// Connections at a time; further ones wait in the kernel's queue. A cluster of nine needs a few dozen.
const CONNECTIONS_MAX: usize = 512;

/// How often a silent peer's membership is looked at.
const REMOVED_CHECK: Duration = Duration::from_secs(1);

/// What the listening side needs.
#[derive(Clone)]
pub struct Receiver {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// Who belongs to the cluster, as applied.
    pub membership: Membership,
    /// Where messages go.
    pub events: PeerEvents,
    /// What to count.
    pub metrics: Arc<PeerMetrics>,
}

impl Receiver {
    /// Accepts until the task is dropped.
    pub async fn run(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= CONNECTIONS_MAX {
                connections.join_next().await;
            }
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, from)) => {
                    let receiver = self.clone();
                    connections.spawn(async move {
                        if let Err(error) = receiver.serve(stream).await {
                            debug!(%from, "peer connection ended: {error:#}");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait for a connection to end rather than spin.
                    warn!("cannot accept a peer connection: {error}");
                    connections.join_next().await;
                }
            }
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let Some(hello) = hello::listen(&mut stream).await? else {
            return self.answer(&mut stream, Verdict::Version).await;
        };
        let verdict = self.judge(&hello);
        self.answer(&mut stream, verdict).await?;
        if verdict != Verdict::Welcome {
            info!(peer = %hello.from, ?verdict, "refused a peer");
            return Ok(());
        }
        match hello.purpose {
            Purpose::Messages => {
                let known = self.membership.holds(hello.from);
                if !known {
                    self.events.introduced(hello.from, &hello.peer_urls);
                }
                let ended = self.messages(&hello, stream).await;
                if ended.is_err() {
                    self.metrics.receive_failed(hello.from);
                }
                if !known {
                    self.events.left(hello.from);
                }
                ended
            }
            Purpose::Snapshot => self.events.receive_snapshot(hello.from, stream).await,
            Purpose::Probe => prober::echo(stream).await,
            Purpose::Membership => self.membership.answer(&mut stream, self.identity.cluster).await,
        }
    }

    async fn answer(&self, stream: &mut TcpStream, verdict: Verdict) -> anyhow::Result<()> {
        let answer = Answer {
            verdict,
            cluster: self.identity.cluster,
            member: self.identity.member,
            feature_level: self.identity.feature_level,
        };
        hello::answer(stream, &answer).await
    }

    /// Whether we talk with whoever says this hello.
    fn judge(&self, hello: &Hello) -> Verdict {
        if hello.purpose == Purpose::Membership && hello.cluster.0 == 0 {
            return Verdict::Welcome;
        }
        if hello.cluster != self.identity.cluster {
            return Verdict::ForeignCluster;
        }
        if hello.purpose == Purpose::Membership {
            return Verdict::Welcome;
        }
        if self.membership.is_removed(hello.from) {
            let votes = self.membership.votes(self.identity.member);
            return if votes { Verdict::Removed } else { Verdict::NotForMeToSay };
        }
        if hello.to != self.identity.member {
            return Verdict::NotMe;
        }
        if hello.feature_level < self.membership.feature_level() {
            return Verdict::FeatureLevel;
        }
        match self.membership.recorded_incarnation(hello.from) {
            Some(recorded) if recorded != hello.incarnation => Verdict::OtherIncarnation,
            Some(_) | None => Verdict::Welcome,
        }
    }

    async fn messages(&self, hello: &Hello, stream: TcpStream) -> anyhow::Result<()> {
        let mut frames = FrameReader::new(stream);
        loop {
            // A peer that is removed and silent must be told too: it is at its next dial, so its connection ends here.
            anyhow::ensure!(!self.membership.is_removed(hello.from), "the peer was removed");
            let Ok(frame) = tokio::time::timeout(REMOVED_CHECK, frames.next()).await else {
                continue;
            };
            let Some(frame) = frame? else { return Ok(()) };
            self.metrics.received(hello.from, frame.len());
            let message = PeerMessage::decode(frame)?;
            anyhow::ensure!(
                message.from == hello.from && message.to == self.identity.member,
                "a peer sent a message for somebody else"
            );
            self.events.input(Input::Peer(message)).await;
        }
    }
}
