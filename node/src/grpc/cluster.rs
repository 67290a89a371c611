//! The service `etcdserverpb.Cluster`: who is a member.

use std::time::{SystemTime, UNIX_EPOCH};

use quorate_machine::{Command, Incarnation, Member, MemberId, Outcome};
use quorate_proto::etcdserverpb::{
    self as pb, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};
use sha1::{Digest, Sha1};
use tonic::Status;

use super::{
    Api, convert,
    kv::{accepted, unexpected},
    status::EtcdError,
};
use crate::config::Url;

impl Api {
    /// MemberAdd. The new member's id is the one that etcd would compute.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn member_add(self, request: MemberAddRequest) -> Result<MemberAddResponse, Status> {
        let peer_urls = peer_urls(&request.peer_ur_ls)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let member = Member {
            id: member_id(&peer_urls, now),
            peer_urls,
            learner: request.is_learner,
            incarnation: Incarnation::default(),
            ..Member::default()
        };
        let members = self.change(Command::MemberAdd(member.clone())).await?;
        Ok(MemberAddResponse {
            header: Some(self.cluster_header()),
            member: Some(convert::member(&member)),
            members,
        })
    }

    /// MemberRemove.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn member_remove(
        self,
        request: MemberRemoveRequest,
    ) -> Result<MemberRemoveResponse, Status> {
        let members = self.change(Command::MemberRemove { id: MemberId(request.id) }).await?;
        Ok(MemberRemoveResponse { header: Some(self.cluster_header()), members })
    }

    /// MemberUpdate.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn member_update(
        self,
        request: MemberUpdateRequest,
    ) -> Result<MemberUpdateResponse, Status> {
        let peer_urls = peer_urls(&request.peer_ur_ls)?;
        let members =
            self.change(Command::MemberUpdate { id: MemberId(request.id), peer_urls }).await?;
        Ok(MemberUpdateResponse { header: Some(self.cluster_header()), members })
    }

    /// MemberPromote.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn member_promote(
        self,
        request: MemberPromoteRequest,
    ) -> Result<MemberPromoteResponse, Status> {
        let members = self.change(Command::MemberPromote { id: MemberId(request.id) }).await?;
        Ok(MemberPromoteResponse { header: Some(self.cluster_header()), members })
    }

    /// MemberList, linearizable if asked.
    ///
    /// # Errors
    /// No leader confirms that this member is up to date.
    pub async fn member_list(
        self,
        request: MemberListRequest,
    ) -> Result<MemberListResponse, Status> {
        self.barrier(!request.linearizable).await?;
        let members = convert::members(&self.handle().published().members);
        Ok(MemberListResponse { header: Some(self.cluster_header()), members })
    }

    async fn change(&self, command: Command) -> Result<Vec<pb::Member>, Status> {
        match accepted(self.propose(command).await?)? {
            Outcome::Members(members) => Ok(convert::members(&members)),
            other => Err(unexpected(&other)),
        }
    }

    /// etcd leaves the revision out of this service's headers (`v3rpc/member.go`).
    fn cluster_header(&self) -> ResponseHeader {
        self.header(0)
    }
}

/// Checks a member's peer URLs and sorts them.
fn peer_urls(given: &[String]) -> Result<Vec<String>, EtcdError> {
    if given.is_empty() {
        return Err(EtcdError::MemberBadUrls);
    }
    let mut urls = given
        .iter()
        .map(|text| Url::parse(text).map(|url| url.to_string()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| EtcdError::MemberBadUrls)?;
    urls.sort();
    Ok(urls)
}

/// The first eight bytes of the SHA-1 of the sorted URLs and the time in seconds, as etcd computes it
/// (`api/membership/member.go`, computeMemberID; a member that is added has no cluster name in it).
fn member_id(sorted_urls: &[String], unix_seconds: u64) -> MemberId {
    let mut hash = Sha1::new();
    for url in sorted_urls {
        hash.update(url.as_bytes());
    }
    hash.update(unix_seconds.to_string().as_bytes());
    let digest = hash.finalize();
    let first = digest[..8].try_into().expect("SHA-1 has 20 bytes");
    MemberId(u64::from_be_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_checked_and_sorted() {
        let list =
            |urls: &[&str]| peer_urls(&urls.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(list(&[]), Err(EtcdError::MemberBadUrls));
        assert_eq!(list(&["127.0.0.1:2380"]), Err(EtcdError::MemberBadUrls));
        assert_eq!(list(&["http://b:1", "http://a:1"]).unwrap(), ["http://a:1", "http://b:1"]);
    }

    #[test]
    fn ids_are_etcds() {
        // sha1("http://127.0.0.1:2380" + "1700000000"), by `printf … | sha1sum`.
        let id = member_id(&["http://127.0.0.1:2380".to_owned()], 1_700_000_000);
        assert_eq!(id.to_string(), "71b3e183c260adbe");
    }
}
