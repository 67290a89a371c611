//! One member, or the client Service, over etcd's client API: as a stock client speaks with it.

use std::fmt;

use anyhow::{Context, Result, ensure};
use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    MemberListRequest, MemberListResponse, MoveLeaderRequest, PutRequest, RangeRequest,
    RangeResponse, StatusRequest, StatusResponse,
};
use tonic::transport::{Channel, Endpoint};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::limits::{CONNECT, REQUEST};

/// A connection to an address. Clones share it.
#[derive(Clone)]
pub struct Member {
    address: String,
    channel: Channel,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({})", self.address)
    }
}

impl Member {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(address: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("{address} is no address"))?
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .tcp_nodelay(true);
        let connected = tokio::time::timeout(CONNECT, endpoint.connect()).await;
        let channel = connected
            .with_context(|| format!("no connection to {address} within {CONNECT:?}"))?
            .with_context(|| format!("connect to {address}"))?;
        Ok(Self { address: address.to_owned(), channel })
    }

    /// What the member says of itself.
    ///
    /// # Errors
    /// No answer.
    pub async fn status(&self) -> Result<StatusResponse> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let answer = client.status(StatusRequest {}).await;
        Ok(answer.with_context(|| format!("Status of {}", self.address))?.into_inner())
    }

    /// A number of its metrics page without labels; none if the page has no such line.
    ///
    /// # Errors
    /// No answer, or none that can be read.
    pub async fn metric(&self, name: &str) -> Result<Option<u64>> {
        let asked = tokio::time::timeout(REQUEST, metrics_page(&self.address)).await;
        let page = asked
            .with_context(|| format!("no metrics of {} within {REQUEST:?}", self.address))?
            .with_context(|| format!("metrics of {}", self.address))?;
        let number = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        number.map(|text| text.parse().with_context(|| format!("{name} is {text:?}"))).transpose()
    }

    /// The membership: confirmed by a quorum, or as this member has applied it.
    ///
    /// # Errors
    /// No answer, or no quorum; a learner refuses.
    pub async fn members(&self, linearizable: bool) -> Result<MemberListResponse> {
        let mut client = ClusterClient::new(self.channel.clone());
        let answer = client.member_list(MemberListRequest { linearizable }).await;
        Ok(answer.with_context(|| format!("MemberList of {}", self.address))?.into_inner())
    }

    /// Hands leadership to a voter. Only the leader obliges.
    ///
    /// # Errors
    /// It does not lead, or the voter did not take over in time.
    pub async fn move_leader(&self, target_id: u64) -> Result<()> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let answer = client.move_leader(MoveLeaderRequest { target_id }).await;
        answer.map(drop).with_context(|| format!("MoveLeader of {}", self.address))
    }

    /// Writes a key and returns the revision of the write.
    ///
    /// # Errors
    /// Not acknowledged: it may have happened or not.
    pub async fn put(&self, key: &str, value: &str) -> Result<i64, tonic::Status> {
        let mut client = KvClient::new(self.channel.clone());
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let answer = client.put(PutRequest { key, value, ..PutRequest::default() }).await?;
        Ok(answer.into_inner().header.map_or(0, |header| header.revision))
    }

    /// Reads a key, linearizable.
    ///
    /// # Errors
    /// No answer, or no quorum.
    pub async fn get(&self, key: &str) -> Result<Option<String>> {
        let request = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
        let answer = self.range(request).await?;
        let value =
            answer.kvs.first().map(|pair| String::from_utf8_lossy(&pair.value).into_owned());
        Ok(value)
    }

    /// Any read.
    ///
    /// # Errors
    /// As the server has it.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        let mut client = KvClient::new(self.channel.clone());
        let answer = client.range(request).await;
        Ok(answer.with_context(|| format!("Range of {}", self.address))?.into_inner())
    }
}

/// By HTTP 1.0, so that the page ends with the connection.
async fn metrics_page(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    ensure!(page.contains(" 200 "), "answered {:?}", page.lines().next());
    Ok(page)
}
