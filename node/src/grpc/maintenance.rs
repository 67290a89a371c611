//! The service `etcdserverpb.Maintenance`: what an administrator asks one member.

use quorate_machine::{Alarm, AlarmAction, Command, KeyValueHash, MemberId, Outcome};
use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, StatusRequest, StatusResponse, alarm_request,
};
use tonic::Status;

use super::{
    Api, convert,
    kv::{accepted, unexpected},
    status::{self, EtcdError},
};
use crate::{config::version, handle::ProposeError};

impl Api {
    /// Alarm: list, raise or clear.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`; an unknown action or alarm.
    pub async fn alarm(self, request: AlarmRequest) -> Result<AlarmResponse, Status> {
        let alarm = convert::alarm_type(request.alarm)?;
        let action = match alarm_request::AlarmAction::try_from(request.action) {
            Ok(alarm_request::AlarmAction::Get) => return self.list_alarms(alarm).await,
            Ok(alarm_request::AlarmAction::Activate) => AlarmAction::Activate,
            Ok(alarm_request::AlarmAction::Deactivate) => AlarmAction::Deactivate,
            Err(_) => return Err(Status::invalid_argument("etcdserver: unknown alarm action")),
        };
        if action == AlarmAction::Activate && alarm == Alarm::None {
            // etcd's apply does nothing and answers nothing.
            return Ok(AlarmResponse { header: Some(self.current_header()), alarms: Vec::new() });
        }
        let member = MemberId(request.member_id);
        let applied = self.propose(Command::Alarm { action, member, alarm }).await?;
        let header = Some(self.header(applied.revision));
        match accepted(applied)? {
            Outcome::Alarm(alarms) => Ok(AlarmResponse {
                header,
                alarms: alarms.into_iter().map(convert::alarm).collect(),
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// etcd lists through its log, so a list is as new as a linearizable read.
    async fn list_alarms(&self, wanted: Alarm) -> Result<AlarmResponse, Status> {
        self.barrier(false).await?;
        let alarms = self
            .handle()
            .published()
            .alarms
            .iter()
            .filter(|(_, alarm)| wanted == Alarm::None || *alarm == wanted)
            .map(|alarm| convert::alarm(*alarm))
            .collect();
        Ok(AlarmResponse { header: Some(self.current_header()), alarms })
    }

    /// Status of this member, learner or not, with or without a leader.
    ///
    /// # Errors
    /// None; the signature is every handler's.
    pub async fn status(self, _request: StatusRequest) -> Result<StatusResponse, Status> {
        let handle = self.handle();
        let (published, leadership, sizes) =
            (handle.published(), handle.leadership(), handle.sizes());
        let no_leader =
            (leadership.leader == MemberId(0)).then(|| EtcdError::NoLeader.text().to_owned());
        let alarms = published.alarms.iter().map(|alarm| alarm_text(&convert::alarm(*alarm)));
        Ok(StatusResponse {
            header: Some(self.header(published.point.revision)),
            version: version::ETCD_API.to_owned(),
            db_size: size(sizes.total),
            leader: leadership.leader.0,
            raft_index: leadership.commit_index,
            raft_term: leadership.term,
            raft_applied_index: published.applied_index,
            errors: no_leader.into_iter().chain(alarms).collect(),
            db_size_in_use: size(sizes.in_use),
            is_learner: leadership.is_learner,
            storage_version: version::ETCD_STORAGE.to_owned(),
            db_size_quota: size(sizes.quota),
            downgrade_info: Some(DowngradeInfo::default()),
        })
    }

    /// Defragment answers at once: space is reclaimed in the background, and no request is ever held up for it.
    ///
    /// # Errors
    /// None; the signature is every handler's.
    pub async fn defragment(
        self,
        _request: DefragmentRequest,
    ) -> Result<DefragmentResponse, Status> {
        tracing::info!(
            "finished defragment: space is reclaimed in the background, there is nothing to stop for"
        );
        Ok(DefragmentResponse { header: None })
    }

    /// Hash of everything this member holds.
    ///
    /// # Errors
    /// None; the signature is every handler's.
    pub async fn hash(self, _request: HashRequest) -> Result<HashResponse, Status> {
        let hash = self.handle().hash().await;
        Ok(HashResponse { header: Some(self.current_header()), hash })
    }

    /// HashKV: equal on all members at one revision, and to etcd's for the same history.
    ///
    /// # Errors
    /// A revision that cannot be read, or too many readers.
    pub async fn hash_kv(self, request: HashKvRequest) -> Result<HashKvResponse, Status> {
        let hashed = self.handle().hash_kv(request.revision).await.map_err(EtcdError::from)?;
        let KeyValueHash { hash, compact_revision, hash_revision } = hashed;
        let header = Some(self.current_header());
        Ok(HashKvResponse { header, hash, compact_revision, hash_revision })
    }

    /// MoveLeader, asked of the leader.
    ///
    /// # Errors
    /// etcd's, by the table in `status.rs`.
    pub async fn move_leader(
        self,
        request: MoveLeaderRequest,
    ) -> Result<MoveLeaderResponse, Status> {
        if !self.handle().leadership().is_leader {
            return Err(EtcdError::NotLeader.into());
        }
        let target = MemberId(request.target_id);
        let votes = self
            .handle()
            .published()
            .members
            .iter()
            .any(|member| member.id == target && !member.learner);
        if !votes {
            return Err(EtcdError::BadLeaderTransferee.into());
        }
        self.handle().move_leader(target).await.map_err(|error| match error {
            ProposeError::Timeout | ProposeError::TimeoutLeaderLost => {
                Status::from(EtcdError::TimeoutLeaderTransfer)
            }
            ProposeError::NoLeader
            | ProposeError::TooManyRequests
            | ProposeError::Change(_)
            | ProposeError::FeatureLevel
            | ProposeError::Stopping => status::propose_error(error),
        })?;
        Ok(MoveLeaderResponse { header: None })
    }
}

/// An alarm as etcd prints it among a status's errors: the text form of its message.
fn alarm_text(alarm: &AlarmMember) -> String {
    let name = AlarmType::try_from(alarm.alarm).map_or("NONE", |alarm| alarm.as_str_name());
    format!("memberID:{} alarm:{name}", alarm.member_id)
}

/// Bytes as the protocol has them.
fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_reads_as_etcd_prints_it() {
        let text = |alarm| alarm_text(&convert::alarm((MemberId(42), alarm)));
        assert_eq!(text(Alarm::NoSpace), "memberID:42 alarm:NOSPACE");
        assert_eq!(text(Alarm::Corrupt), "memberID:42 alarm:CORRUPT");
    }
}
