//! The service `etcdserverpb.Lease`: grants and revocations through the log, renewals batched by the member.

use futures::stream::{BoxStream, StreamExt};
use quorate_machine::{Command, LeaseId, Outcome};
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tonic::{Status, Streaming};

use super::{
    Api,
    kv::{accepted, unexpected},
    status, validate,
};

/// What a lease costs by etcd's measure of the quota (`storage/quota.go`).
const LEASE_COST: u64 = 64;

/// Renewals of one stream that are under way together. Answers keep their order; without this a client with many leases
/// would wait one tick for each.
const RENEWALS_IN_FLIGHT: usize = 256;

impl Api {
    /// LeaseGrant. Without an id the server chooses a positive one; a short TTL is raised to the minimum.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn lease_grant(
        self,
        request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Status> {
        validate::lease_grant(&request)?;
        self.admit_space(LEASE_COST).await?;
        let id = if request.id == 0 { random_id() } else { request.id };
        let ttl = request.ttl.max(self.options().lease_ttl_min);
        let applied = self.propose(Command::LeaseGrant { id: LeaseId(id), ttl }).await?;
        let header = Some(self.header(applied.revision));
        match accepted(applied)? {
            Outcome::LeaseGrant { id, ttl } => {
                Ok(LeaseGrantResponse { header, id: id.0, ttl, error: String::new() })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// LeaseRevoke.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn lease_revoke(
        self,
        request: LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, Status> {
        let applied = self.propose(Command::LeaseRevoke { id: LeaseId(request.id) }).await?;
        let header = Some(self.header(applied.revision));
        accepted(applied)?;
        Ok(LeaseRevokeResponse { header })
    }

    /// LeaseKeepAlive: one answer for each request, in order; a TTL of 0 says that the lease is unknown.
    pub fn lease_keep_alive(
        self,
        requests: Streaming<LeaseKeepAliveRequest>,
    ) -> BoxStream<'static, Result<LeaseKeepAliveResponse, Status>> {
        requests
            .map(move |request| {
                let api = self.clone();
                async move { api.renew(request?).await }
            })
            .buffered(RENEWALS_IN_FLIGHT)
            .boxed()
    }

    async fn renew(self, request: LeaseKeepAliveRequest) -> Result<LeaseKeepAliveResponse, Status> {
        // The header is made first: its revision must not be later than the renewal (`v3rpc/lease.go`), or a client
        // could take a lease for alive at a revision at which it was revoked.
        let header = Some(self.current_header());
        let ttl =
            self.handle().renew_lease(LeaseId(request.id)).await.map_err(status::propose_error)?;
        Ok(LeaseKeepAliveResponse { header, id: request.id, ttl })
    }

    /// LeaseTimeToLive: a TTL of −1 says that the lease is unknown.
    ///
    /// # Errors
    /// No leader confirms that this member is up to date.
    pub async fn lease_time_to_live(
        self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        // etcd sends the request to the leader, which waits for what it has committed; any member can do so here.
        self.barrier(false).await?;
        let lease = self.handle().lease(LeaseId(request.id), request.keys).await;
        let header = Some(self.current_header());
        Ok(match lease {
            Some((lease, remaining, keys)) => LeaseTimeToLiveResponse {
                header,
                id: request.id,
                ttl: remaining,
                granted_ttl: lease.granted_ttl,
                keys,
            },
            None => {
                LeaseTimeToLiveResponse { header, id: request.id, ttl: -1, ..Default::default() }
            }
        })
    }

    /// LeaseLeases, of this member's own state, as in etcd.
    ///
    /// # Errors
    /// None; the signature is every handler's.
    pub async fn lease_leases(
        self,
        _request: LeaseLeasesRequest,
    ) -> Result<LeaseLeasesResponse, Status> {
        let leases = self.handle().leases().await;
        Ok(LeaseLeasesResponse {
            header: Some(self.current_header()),
            leases: leases.into_iter().map(|id| LeaseStatus { id: id.0 }).collect(),
        })
    }
}

/// A positive 63-bit number that is not 0. That it is free is decided when the grant is applied.
fn random_id() -> i64 {
    rand::random_range(1..=i64::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_chosen_id_is_positive() {
        for _ in 0..1000 {
            assert!(super::random_id() > 0);
        }
    }
}
