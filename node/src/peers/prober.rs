//! How long a byte to a peer and back takes, asked every few seconds over a connection of its own.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use quorate_consensus::MemberId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    Identity, PeerMetrics,
    hello::{Hello, Purpose, Verdict},
    sender::{dial_any, refusal_text},
};

/// Between two questions: etcd's (`rafthttp/probing_status.go`).
const INTERVAL: Duration = Duration::from_secs(5);

/// A peer that has not answered by now is as good as gone; the connection is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// Asks until it is aborted.
pub async fn run(
    identity: Arc<Identity>,
    peer: MemberId,
    addresses: Vec<String>,
    metrics: Arc<PeerMetrics>,
) {
    let mut beat = tokio::time::interval(INTERVAL);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        beat.tick().await;
        let asking = ask(&identity, peer, &addresses, connection.take());
        // Who cannot be reached is the sender's to say.
        if let Ok(Ok((stream, took))) = tokio::time::timeout(ANSWER_TIMEOUT, asking).await {
            metrics.of(peer).round_trip.observe(took);
            connection = Some(stream);
        }
    }
}

async fn ask(
    identity: &Identity,
    peer: MemberId,
    addresses: &[String],
    connection: Option<TcpStream>,
) -> anyhow::Result<(TcpStream, Duration)> {
    let mut stream = match connection {
        Some(stream) => stream,
        None => {
            let hello = Hello::from(identity, Purpose::Probe, peer);
            let (stream, answer) = dial_any(addresses, &hello).await?;
            ensure!(answer.verdict == Verdict::Welcome, refusal_text(answer.verdict));
            stream
        }
    };
    let began = Instant::now();
    stream.write_u8(0).await?;
    stream.read_u8().await?;
    Ok((stream, began.elapsed()))
}

/// The other side: every byte goes back until the peer hangs up.
///
/// # Errors
/// The connection failed.
pub async fn echo(mut stream: TcpStream) -> anyhow::Result<()> {
    while let Ok(byte) = stream.read_u8().await {
        stream.write_u8(byte).await?;
    }
    Ok(())
}
