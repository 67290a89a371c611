//! Health: what a member does now and how far it is behind, in words and numbers that stay the same
//! while the world does.

use crate::limits::RECOVERY_GAP;
use crate::memory::member_id;
use crate::world::World;
use quorate_crds::{MemberHealth, MemberRole, MemberStatus};

/// What a member does now; its pod has been looked at before.
pub(crate) fn of(world: &World<'_>, member: &MemberStatus) -> MemberHealth {
    let id = member_id(member);
    if id.and_then(|id| world.observed.answer(id)).is_none() {
        let gone = world.desired.hibernated && world.pod(member.ordinal).is_none();
        return if gone || member.role == MemberRole::Removed {
            MemberHealth::Stopped
        } else if member.verdict.is_some() {
            MemberHealth::Refusing
        } else if member.started {
            MemberHealth::Unreachable
        } else {
            MemberHealth::Starting
        };
    }
    let voter = member.role == MemberRole::Voter;
    if id.and_then(|id| world.follows(id)).is_none() {
        MemberHealth::NoLeader
    } else if lag(world, member).is_some_and(|behind| behind > 0) {
        MemberHealth::Lagging
    } else if voter && !member.ready {
        MemberHealth::Starting
    } else {
        MemberHealth::Healthy
    }
}

/// How many entries a member has applied less than the leader has committed; nothing below the gap at
/// which a voter counts as recovered, and else rounded down to a power of two: what changed at every
/// look would write the status at every look (INV-O4).
pub(crate) fn lag(world: &World<'_>, member: &MemberStatus) -> Option<i64> {
    let answer = world.observed.answer(member_id(member)?)?;
    let leader = world.observed.answer(world.leader()?)?;
    let behind = leader.raft_index.saturating_sub(answer.applied_index);
    if behind < RECOVERY_GAP { Some(0) } else { Some(1_i64 << behind.ilog2().min(62)) }
}

#[cfg(test)]
mod tests {
    use crate::fixture::{Stage, terminated};
    use k8s_openapi::api::core::v1::PodStatus;
    use quorate_crds::MemberHealth;

    fn healths(stage: &Stage) -> Vec<Option<MemberHealth>> {
        let status = stage.plan().status.unwrap_or_else(|| stage.observed.status.clone());
        status.members.iter().map(|member| member.health).collect()
    }

    #[test]
    fn a_member_is_told_with_name_id_role_version_health_lag_and_endpoint() {
        let stage = Stage::at_rest(3);
        assert_eq!(
            stage.observed.status.endpoint.as_deref(),
            Some("http://db-client.prod.svc:2379")
        );
        let member = &stage.observed.status.members[1];
        assert_eq!((member.name.as_str(), member.id.as_deref()), ("db-1", Some("11")));
        assert_eq!(member.role, quorate_crds::MemberRole::Voter);
        assert_eq!(member.version.as_deref(), Some("0.1.0"));
        assert_eq!((member.health, member.lag), (Some(MemberHealth::Healthy), Some(0)));
        let url = "http://db-1-0.db-peers.prod.svc:2379";
        assert_eq!(member.endpoint.as_deref(), Some(url));
        assert_eq!(member.node.as_deref(), Some("node-of-db-1"));
    }

    #[test]
    fn each_health_is_told_for_what_it_is() {
        let mut stage = Stage::at_rest(3);
        let healthy = Some(MemberHealth::Healthy);
        stage.answer(2).leader = None;
        assert_eq!(healths(&stage), [healthy, healthy, Some(MemberHealth::NoLeader)]);
        stage.lose(2);
        assert_eq!(healths(&stage)[2], Some(MemberHealth::Unreachable));
        stage.pod(2).status = Some(PodStatus {
            container_statuses: Some(vec![terminated(r#"{"verdict":"Corrupt","message":"x"}"#)]),
            ..PodStatus::default()
        });
        assert_eq!(healths(&stage)[2], Some(MemberHealth::Refusing));
        let mut stage = Stage::at_rest(3);
        stage.pod(1).status = Some(PodStatus::default());
        assert_eq!(healths(&stage)[1], Some(MemberHealth::Starting), "answers, and is not ready");
        let mut stage = Stage::at_rest(3);
        stage.cluster.spec.hibernated = true;
        stage.rest();
        assert_eq!(healths(&stage), [Some(MemberHealth::Stopped); 3]);
    }

    #[test]
    fn lag_is_told_in_steps_and_a_busy_store_writes_no_status() {
        let mut stage = Stage::at_rest(3);
        let mut lag = |leader: u64, applied: u64| {
            stage.answer(0).raft_index = leader;
            stage.answer(2).applied_index = applied;
            let story = stage.rest();
            assert!(!story.contains("tell") && !story.contains("warn"), "{story}");
            let member = &stage.observed.status.members[2];
            (member.lag, member.health, story.is_empty())
        };
        assert_eq!(lag(10_000, 9_500), (Some(0), Some(MemberHealth::Healthy), true));
        assert_eq!(lag(20_000, 9_500), (Some(8192), Some(MemberHealth::Lagging), true));
        let stage_of_five_hundred_entries = lag(20_500, 9_500);
        assert_eq!(stage_of_five_hundred_entries.0, Some(8192), "within one step");
        assert_eq!(lag(20_500, 20_500).0, Some(0));
    }
}
