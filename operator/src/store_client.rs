//! The members of a cluster over etcd's client API: each request once, with a short deadline.
//!
//! A member that does not answer is an observation, not a failure of the operator, so nothing here
//! retries and nothing waits: the next reconciliation asks again. Connections are opened for one
//! pass and closed with it. A connection that is kept would have to be told when a pod's address
//! moved to another pod; a new one costs a millisecond.
//!
//! The scheme is http. Whether a listener speaks TLS will be a property of the [`Address`].

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_planner::Alarm;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmType, Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest,
    MemberRemoveRequest, MoveLeaderRequest, RangeRequest, StatusRequest, StatusResponse,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::limits;
use crate::metrics::Metrics;
use crate::words;

/// Where a member serves clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    ip: IpAddr,
    port: u16,
}

impl Address {
    /// The client port of a pod.
    pub(crate) fn new(ip: IpAddr, port: u16) -> Self {
        Address { ip, port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "http://{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "http://[{ip}]:{}", self.port),
        }
    }
}

/// Why a request to a member brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// No connection, or no answer in time. What a change asked for may have happened all the same.
    #[error("{method} to {address}: no answer ({reason})")]
    Unanswered {
        /// Name of the request.
        method: &'static str,
        /// The member.
        address: Address,
        /// What the transport or the member said.
        reason: String,
    },
    /// The member answered, and the answer is no, or not now.
    #[error("{method} to {address}: refused with {code:?} ({reason})")]
    Refused {
        /// Name of the request.
        method: &'static str,
        /// The member.
        address: Address,
        /// The class of the refusal.
        code: Code,
        /// etcd's text.
        reason: String,
    },
}

impl AskError {
    /// A member that speaks for itself has answered, whatever the code: "unhealthy cluster" comes as
    /// Unavailable, as does a connection that broke.
    fn of(method: &'static str, address: Address, status: &Status) -> Self {
        let (code, reason) = (status.code(), status.message().to_owned());
        let silent = matches!(
            code,
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Unknown
                | Code::Aborted
                | Code::Internal
        );
        if silent && !reason.starts_with("etcdserver:") {
            AskError::Unanswered { method, address, reason }
        } else {
            AskError::Refused { method, address, code, reason }
        }
    }

    /// The reason alone: stable words, without the address, fit for a condition.
    pub(crate) fn reason(&self) -> &str {
        match self {
            AskError::Unanswered { reason, .. } | AskError::Refused { reason, .. } => reason,
        }
    }

    /// Whether the member answered that the thing does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, AskError::Refused { code: Code::NotFound, .. })
    }
}

/// The members that answered a linearizable list, and the cluster they are of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Membership {
    /// Id of the cluster, from the response header.
    pub(crate) cluster_id: u64,
    /// Voters and learners.
    pub(crate) members: Vec<Member>,
}

/// A connection to one member for the length of one pass.
#[derive(Clone)]
pub(crate) struct StoreClient {
    address: Address,
    channel: Channel,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreClient({})", self.address)
    }
}

impl StoreClient {
    /// Connects to a member.
    pub(crate) async fn connect(
        address: Address,
        metrics: Arc<Metrics>,
    ) -> Result<StoreClient, AskError> {
        const METHOD: &str = "Connect";
        let unanswered = |reason: String| AskError::Unanswered { method: METHOD, address, reason };
        let endpoint = Endpoint::from_shared(address.to_string())
            .map_err(|error| unanswered(error.to_string()))?
            .connect_timeout(limits::MEMBER_CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        // tonic's own timeout covers the TCP handshake only; a peer that accepts and then says
        // nothing is caught by this one.
        let connected =
            tokio::time::timeout(limits::MEMBER_CONNECT_TIMEOUT, endpoint.connect()).await;
        let result = match connected {
            Ok(Ok(channel)) => Ok(StoreClient { address, channel, metrics: metrics.clone() }),
            Ok(Err(error)) => Err(unanswered(words::innermost(&error))),
            Err(_) => Err(unanswered(format!(
                "no connection within {:?}",
                limits::MEMBER_CONNECT_TIMEOUT
            ))),
        };
        if result.is_err() {
            metrics.asked(METHOD, false);
        }
        result
    }

    /// A client that has not connected, for tests of those who choose between clients.
    #[cfg(test)]
    pub(crate) fn unconnected(address: Address) -> StoreClient {
        let endpoint = Endpoint::from_shared(address.to_string()).unwrap();
        StoreClient { address, channel: endpoint.connect_lazy(), metrics: Arc::default() }
    }

    /// What the member says about itself. Answered without a quorum, by learners too.
    pub(crate) async fn status(&self) -> Result<StatusResponse, AskError> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        self.ask("Status", limits::MEMBER_READ_TIMEOUT, client.status(StatusRequest {})).await
    }

    /// A linearizable read of one key that nobody has to have: an answer proves that the member has
    /// applied everything that was committed when it was asked. Learners refuse.
    pub(crate) async fn read(&self) -> Result<(), AskError> {
        let mut client = KvClient::new(self.channel.clone());
        let request =
            RangeRequest { key: vec![0].into(), count_only: true, ..RangeRequest::default() };
        self.ask("Range", limits::MEMBER_READ_TIMEOUT, client.range(request)).await.map(|_| ())
    }

    /// The membership, linearizable: an answer proves that a quorum confirmed it.
    pub(crate) async fn members(&self) -> Result<Membership, AskError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let request = MemberListRequest { linearizable: true };
        let response = self
            .ask("MemberList", limits::MEMBER_READ_TIMEOUT, client.member_list(request))
            .await?;
        Ok(Membership {
            cluster_id: response.header.map_or(0, |header| header.cluster_id),
            members: response.members,
        })
    }

    /// Adds a learner with this peer URL and returns its id.
    pub(crate) async fn add_learner(&self, peer_url: &str) -> Result<u64, AskError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let request = MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: true };
        let response =
            self.ask("MemberAdd", limits::MEMBER_WRITE_TIMEOUT, client.member_add(request)).await?;
        Ok(response.member.map_or(0, |member| member.id))
    }

    /// Gives a learner its vote. The leader refuses while the learner lags.
    pub(crate) async fn promote(&self, id: u64) -> Result<(), AskError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let request = client.member_promote(MemberPromoteRequest { id });
        self.ask("MemberPromote", limits::MEMBER_WRITE_TIMEOUT, request).await.map(|_| ())
    }

    /// Removes a member.
    pub(crate) async fn remove(&self, id: u64) -> Result<(), AskError> {
        let mut client = ClusterClient::new(self.channel.clone());
        let request = client.member_remove(MemberRemoveRequest { id });
        self.ask("MemberRemove", limits::MEMBER_WRITE_TIMEOUT, request).await.map(|_| ())
    }

    /// Moves the leadership to a voter; only the leader obliges.
    pub(crate) async fn move_leader(&self, target: u64) -> Result<(), AskError> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let request = client.move_leader(MoveLeaderRequest { target_id: target });
        self.ask("MoveLeader", limits::MEMBER_WRITE_TIMEOUT, request).await.map(|_| ())
    }

    /// Takes back an alarm of one member. One that is not on is no error.
    pub(crate) async fn disarm(&self, id: u64, alarm: Alarm) -> Result<(), AskError> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let alarm = match alarm {
            Alarm::NoSpace => AlarmType::Nospace,
            Alarm::Corrupt => AlarmType::Corrupt,
        };
        let request = client.alarm(AlarmRequest {
            action: AlarmAction::Deactivate as i32,
            member_id: id,
            alarm: alarm as i32,
        });
        self.ask("Alarm", limits::MEMBER_WRITE_TIMEOUT, request).await.map(|_| ())
    }

    async fn ask<T>(
        &self,
        method: &'static str,
        within: Duration,
        request: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, AskError> {
        #[cfg(feature = "drill")]
        let request = crate::crash_points::of_member(method, request);
        let result = match tokio::time::timeout(within, request).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(AskError::of(method, self.address, &status)),
            Err(_) => Err(AskError::Unanswered {
                method,
                address: self.address,
                reason: format!("no answer within {within:?}"),
            }),
        };
        // A refusal is an answer: the member is well.
        self.metrics.asked(method, !matches!(result, Err(AskError::Unanswered { .. })));
        result
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn address(port: u16) -> Address {
        Address::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }

    #[test]
    fn addresses_are_urls_in_both_families() {
        assert_eq!(address(2379).to_string(), "http://127.0.0.1:2379");
        let six = Address::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 2379);
        assert_eq!(six.to_string(), "http://[::1]:2379");
    }

    #[test]
    fn a_refusal_is_told_from_silence() {
        let lagging = Status::failed_precondition(
            "etcdserver: can only promote a learner member which is in sync with leader",
        );
        assert!(matches!(
            AskError::of("MemberPromote", address(1), &lagging),
            AskError::Refused { code: Code::FailedPrecondition, .. }
        ));
        let unhealthy = Status::unavailable("etcdserver: unhealthy cluster");
        assert!(matches!(
            AskError::of("MemberAdd", address(1), &unhealthy),
            AskError::Refused { .. }
        ));
        let broken = Status::unavailable("error reading a body from connection");
        assert!(matches!(
            AskError::of("MemberAdd", address(1), &broken),
            AskError::Unanswered { .. }
        ));
        let gone = Status::not_found("etcdserver: member not found");
        assert!(AskError::of("MemberRemove", address(1), &gone).is_not_found());
    }

    #[tokio::test]
    async fn a_closed_port_is_unanswered_and_counted() {
        // Bound and dropped: nobody listens there now.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let metrics = Arc::new(Metrics::new());
        let error = StoreClient::connect(address(port), metrics.clone()).await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
        let failures = "store_requests_total{method=\"Connect\",outcome=\"failure\"} 1";
        assert!(metrics.text().unwrap().contains(failures));
    }

    #[tokio::test]
    async fn a_member_that_accepts_and_is_silent_costs_no_more_than_the_deadline() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let metrics = Arc::new(Metrics::new());
        let begun = std::time::Instant::now();
        let result = async {
            let client = StoreClient::connect(address(port), metrics.clone()).await?;
            client.status().await
        }
        .await;
        assert!(matches!(result, Err(AskError::Unanswered { .. })), "{result:?}");
        let bound = limits::MEMBER_CONNECT_TIMEOUT + limits::MEMBER_READ_TIMEOUT;
        assert!(begun.elapsed() < bound + Duration::from_secs(2));
        drop(listener);
    }
}
