//! Who belongs to the cluster, as this member has applied it: for the handshake, and for those who join.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Context;
use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use prost::Message;
use quorate_consensus::MemberId;
use quorate_machine::{ClusterId, FeatureLevel, Incarnation, Member};
use quorate_proto::etcdserverpb::{MemberListResponse, ResponseHeader};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{
    frame::{self, FrameReader},
    hello::{Hello, Purpose, Verdict},
    sender::{dial_any, refusal_text},
};

/// What apply has published about the members.
#[derive(Clone, Debug, Default)]
pub struct AppliedMembers {
    /// All members.
    pub members: Arc<Vec<Member>>,
    /// Those that were removed for good.
    pub removed: Arc<BTreeSet<u64>>,
    /// What the cluster's commands need a member to know.
    pub feature_level: FeatureLevel,
}

/// The applied membership; cheap to clone, always the latest.
#[derive(Clone, Debug, Default)]
pub struct Membership(Arc<ArcSwap<AppliedMembers>>);

impl Membership {
    /// Apply published members, perhaps the same as before.
    pub fn publish_if_changed(
        &self,
        members: &Arc<Vec<Member>>,
        machine: &quorate_machine::Membership,
        feature_level: FeatureLevel,
    ) {
        let latest = self.0.load();
        if Arc::ptr_eq(&latest.members, members) && latest.feature_level == feature_level {
            return;
        }
        let removed = machine.removed().map(|member| member.0).collect();
        self.0.store(Arc::new(AppliedMembers {
            members: members.clone(),
            removed: Arc::new(removed),
            feature_level,
        }));
    }

    /// The latest.
    #[must_use]
    pub fn latest(&self) -> Arc<AppliedMembers> {
        self.0.load_full()
    }

    /// Where a member listens for its peers: host and port of each URL.
    #[must_use]
    pub fn addresses(&self, member: MemberId) -> Vec<String> {
        self.read(member, |known| super::peer_addresses(&known.peer_urls)).unwrap_or_default()
    }

    /// Whether a member belongs to the cluster.
    #[must_use]
    pub fn holds(&self, member: MemberId) -> bool {
        self.read(member, |_| ()).is_some()
    }

    /// Whether a member was removed for good.
    #[must_use]
    pub fn is_removed(&self, member: MemberId) -> bool {
        self.0.load().removed.contains(&member.0)
    }

    /// Whether a member votes.
    #[must_use]
    pub fn votes(&self, member: MemberId) -> bool {
        self.read(member, |known| !known.learner).unwrap_or_default()
    }

    /// What the cluster's commands need a member to know.
    #[must_use]
    pub fn feature_level(&self) -> FeatureLevel {
        self.0.load().feature_level
    }

    /// The data directory that a member has recorded through the log, if it has.
    #[must_use]
    pub fn recorded_incarnation(&self, member: MemberId) -> Option<Incarnation> {
        let recorded = self.read(member, |known| known.incarnation)?;
        (recorded != Incarnation(0)).then_some(recorded)
    }

    /// Something of a member, if it belongs to the cluster.
    fn read<T>(&self, member: MemberId, what: impl FnOnce(&Member) -> T) -> Option<T> {
        self.0.load().members.iter().find(|known| known.id.0 == member.0).map(what)
    }

    /// Tells somebody who joins: etcd's member list, in one frame.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn answer<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        cluster: ClusterId,
    ) -> anyhow::Result<()> {
        let applied = self.latest();
        let response = MemberListResponse {
            header: Some(ResponseHeader { cluster_id: cluster.0, ..ResponseHeader::default() }),
            members: applied.members.iter().map(crate::grpc::convert::member).collect(),
        };
        let mut out = BytesMut::new();
        frame::put(&mut out, |out| response.encode(out).expect("a BytesMut grows"));
        stream.write_all(&out).await.context("send the member list")
    }
}

/// A cluster as a peer described it to somebody who joins.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownCluster {
    /// Its id.
    pub cluster: ClusterId,
    /// Its members.
    pub members: Vec<quorate_proto::etcdserverpb::Member>,
}

/// Asks a peer who the members are. `cluster` is 0 when the asker does not know it.
///
/// # Errors
/// The peer cannot be reached, or belongs to another cluster.
pub async fn ask(addresses: &[String], cluster: ClusterId) -> anyhow::Result<KnownCluster> {
    let hello = Hello {
        purpose: Purpose::Membership,
        cluster,
        from: MemberId::NONE,
        to: MemberId::NONE,
        incarnation: Incarnation(0),
        feature_level: FeatureLevel(u16::MAX),
        peer_urls: Vec::new(),
    };
    let (stream, answer) = dial_any(addresses, &hello).await?;
    anyhow::ensure!(answer.verdict == Verdict::Welcome, refusal_text(answer.verdict));
    let frame: Bytes =
        tokio::time::timeout(super::hello::HELLO_TIMEOUT, FrameReader::new(stream).next())
            .await
            .context("wait for the member list")??
            .context("the peer closed the connection instead of sending its member list")?;
    let list = MemberListResponse::decode(frame).context("decode the member list")?;
    Ok(KnownCluster { cluster: answer.cluster, members: list.members })
}
