//! Our own few questions to a member, in etcd's protocol: is it there, who leads, how many keys, take these puts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tonic::transport::{Channel, Endpoint};

use crate::limits::{ATTEMPT_INTERVAL, ATTEMPT_MAX};

/// A channel to the member behind a client port of this host; it connects when it is first used.
pub(crate) fn channel(port: u16) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    Ok(endpoint.tcp_nodelay(true).connect_lazy())
}

/// One linearizable read of a key that need not exist.
async fn read(port: u16) -> Result<()> {
    let request = pb::RangeRequest { key: b"/".as_slice().into(), ..Default::default() };
    KvClient::new(channel(port)?).range(request).await?;
    Ok(())
}

/// How long from `since` until the member answers a linearizable read. Attempts start at a steady pace, each on a new
/// connection, and the first that succeeds counts: one that got stuck in a half-started member delays nothing.
pub(crate) async fn first_read(port: u16, since: Instant, at_most: Duration) -> Result<Duration> {
    let mut attempts: JoinSet<Result<()>> = JoinSet::new();
    let mut pace = interval(ATTEMPT_INTERVAL);
    let mut reason = None;
    loop {
        tokio::select! {
            _ = pace.tick() => {
                attempts.spawn(async move { timeout(ATTEMPT_MAX, read(port)).await? });
            }
            Some(attempt) = attempts.join_next() => match attempt? {
                Ok(()) => return Ok(since.elapsed()),
                Err(error) => reason = Some(error),
            },
        }
        if since.elapsed() > at_most {
            let reason = reason.map(|error| format!("{error:#}")).unwrap_or_default();
            bail!("the member at port {port} answers no read after {at_most:?}: {reason}");
        }
    }
}

/// Whether the member at this port leads.
pub(crate) async fn leads(port: u16) -> Result<bool> {
    let mut client = MaintenanceClient::new(channel(port)?);
    let status = client.status(pb::StatusRequest {}).await.context("ask for the status")?;
    let status = status.into_inner();
    let own = status.header.as_ref().map(|header| header.member_id);
    Ok(own == Some(status.leader))
}

/// How many keys the member itself has, without asking the others.
pub(crate) async fn count(port: u16) -> Result<i64> {
    let request = pb::RangeRequest {
        key: b"\0".as_slice().into(),
        range_end: b"\0".as_slice().into(),
        count_only: true,
        serializable: true,
        ..Default::default()
    };
    let answer = KvClient::new(channel(port)?).range(request).await.context("count the keys")?;
    Ok(answer.into_inner().count)
}

/// Puts keys and values in one transaction.
pub(crate) async fn put_all(channel: &Channel, puts: Vec<pb::PutRequest>) -> Result<()> {
    let wrap = |put| pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
    let request =
        pb::TxnRequest { success: puts.into_iter().map(wrap).collect(), ..Default::default() };
    let answer = KvClient::new(channel.clone()).txn(request).await.context("fill the store")?;
    if !answer.into_inner().succeeded {
        bail!("a transaction without conditions took its other branch");
    }
    Ok(())
}
