//! Random commands for the property tests: wide ones for the codec, narrow ones (few keys, many collisions) for meaning.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    Alarm, AlarmAction, Command, Compare, CompareTarget, DeleteRange, Envelope, FeatureLevel,
    Incarnation, KeyRange, LeaseId, LeaseTime, Member, MemberId, Operation, Put, Range, Relation,
    RequestId, SortOrder, SortTarget, Txn,
};

/// What keys, values and numbers are drawn from.
#[derive(Clone)]
struct Pool {
    bytes: BoxedStrategy<Bytes>,
    number: BoxedStrategy<i64>,
    lease: BoxedStrategy<LeaseId>,
}

fn wide() -> Pool {
    Pool {
        bytes: vec(any::<u8>(), 0..20).prop_map(Bytes::from).boxed(),
        number: any::<i64>().boxed(),
        lease: any::<i64>().prop_map(LeaseId).boxed(),
    }
}

fn narrow() -> Pool {
    Pool {
        bytes: select(&["a", "b", "c", "d", "e"][..])
            .prop_map(|text| Bytes::from_static(text.as_bytes()))
            .boxed(),
        number: (-2_i64..30).boxed(),
        lease: prop_oneof![4 => Just(LeaseId::NONE), 3 => (1_i64..4).prop_map(LeaseId)].boxed(),
    }
}

/// Any envelope at all.
pub(crate) fn envelope() -> impl Strategy<Value = Envelope> {
    let request = any::<(u64, u64, u64)>();
    let rest = (vec(any::<u8>(), 0..9), any::<(u64, u16, u64)>(), wide_command());
    (request, rest).prop_map(
        |((member, life, sequence), (user, (auth_revision, level, clock), command))| Envelope {
            request: RequestId { member: MemberId(member), life, sequence },
            user: user.into(),
            auth_revision,
            feature_level: FeatureLevel(level),
            clock: LeaseTime(clock),
            command,
        },
    )
}

/// A command on few keys and leases, none of membership, and the time that passes before it.
pub(crate) fn step() -> impl Strategy<Value = (u64, Command)> {
    let pool = narrow();
    let leases = vec((1_i64..4).prop_map(LeaseId), 0..4);
    let id = || (1_i64..4).prop_map(LeaseId);
    let command = prop_oneof![
        8 => put(&pool).prop_map(Command::Put),
        3 => delete_range(&pool).prop_map(Command::DeleteRange),
        6 => txn(&pool, 2).prop_map(Command::Txn),
        1 => (-1_i64..25).prop_map(|revision| Command::Compact { revision }),
        3 => (id(), 1_i64..6).prop_map(|(id, ttl)| Command::LeaseGrant { id, ttl }),
        1 => id().prop_map(|id| Command::LeaseRevoke { id }),
        1 => leases.clone().prop_map(|ids| Command::LeaseExpire { ids }),
        1 => leases.prop_map(|ids| Command::LeaseRenew { ids }),
        1 => alarm(),
        1 => Just(Command::Clock),
    ];
    (0_u64..1500, command)
}

/// A range on few keys.
pub(crate) fn few_keys() -> impl Strategy<Value = Range> {
    range(&narrow())
}

fn alarm() -> impl Strategy<Value = Command> {
    let alarms = select(&[Alarm::None, Alarm::NoSpace, Alarm::Corrupt][..]);
    // Cleared more often than raised, or nothing else would ever happen.
    let action = prop_oneof![1 => Just(AlarmAction::Activate), 3 => Just(AlarmAction::Deactivate)];
    (action, 0_u64..2, alarms).prop_map(|(action, member, alarm)| Command::Alarm {
        action,
        member: MemberId(member),
        alarm,
    })
}

fn wide_command() -> impl Strategy<Value = Command> {
    let pool = wide();
    let id = || any::<u64>().prop_map(MemberId);
    let level = || any::<u16>().prop_map(FeatureLevel);
    let leases = vec(any::<i64>().prop_map(LeaseId), 0..5);
    let urls = || vec(".{0,8}", 0..3);
    let kv = prop_oneof![
        put(&pool).prop_map(Command::Put),
        delete_range(&pool).prop_map(Command::DeleteRange),
        txn(&pool, 3).prop_map(Command::Txn),
        any::<i64>().prop_map(|revision| Command::Compact { revision }),
        any::<[i64; 2]>().prop_map(|[id, ttl]| Command::LeaseGrant { id: LeaseId(id), ttl }),
        any::<i64>().prop_map(|id| Command::LeaseRevoke { id: LeaseId(id) }),
        leases.clone().prop_map(|ids| Command::LeaseExpire { ids }),
        leases.prop_map(|ids| Command::LeaseRenew { ids }),
        alarm(),
    ];
    let member = (id(), ".{0,8}", urls(), urls(), any::<(bool, u64)>(), level()).prop_map(
        |(id, name, peer_urls, client_urls, (learner, incarnation), feature_level)| Member {
            id,
            name,
            peer_urls,
            client_urls,
            learner,
            incarnation: Incarnation(incarnation),
            feature_level,
        },
    );
    let publish = (id(), ".{0,8}", urls(), any::<u64>(), level()).prop_map(
        |(id, name, client_urls, incarnation, feature_level)| Command::MemberPublish {
            id,
            name,
            client_urls,
            incarnation: Incarnation(incarnation),
            feature_level,
        },
    );
    prop_oneof![
        3 => kv,
        1 => member.prop_map(Command::MemberAdd),
        1 => id().prop_map(|id| Command::MemberPromote { id }),
        1 => id().prop_map(|id| Command::MemberRemove { id }),
        1 => (id(), urls()).prop_map(|(id, peer_urls)| Command::MemberUpdate { id, peer_urls }),
        1 => publish,
        1 => level().prop_map(|level| Command::FeatureLevel { level }),
        1 => Just(Command::Clock),
    ]
}

fn key_range(pool: &Pool) -> impl Strategy<Value = KeyRange> + use<> {
    prop_oneof![
        4 => pool.bytes.clone().prop_map(KeyRange::Single),
        2 => (pool.bytes.clone(), pool.bytes.clone())
            .prop_map(|(start, end)| KeyRange::Interval(start, end)),
        1 => pool.bytes.clone().prop_map(KeyRange::From),
    ]
}

fn put(pool: &Pool) -> impl Strategy<Value = Put> + use<> {
    let flag = || prop::bool::weighted(0.25);
    let flags = (flag(), flag(), flag());
    (pool.bytes.clone(), pool.bytes.clone(), pool.lease.clone(), flags).prop_map(
        |(key, value, lease, (prev_kv, ignore_value, ignore_lease))| Put {
            key,
            // What the shell makes of etcd's rule: no value beside ignore_value, no lease beside ignore_lease.
            value: if ignore_value { Bytes::new() } else { value },
            lease: if ignore_lease { LeaseId::NONE } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete_range(pool: &Pool) -> impl Strategy<Value = DeleteRange> + use<> {
    (key_range(pool), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn range(pool: &Pool) -> impl Strategy<Value = Range> + use<> {
    let order = select(&[SortOrder::None, SortOrder::Ascend, SortOrder::Descend][..]);
    let target = prop_oneof![
        5 => Just(SortTarget::Key),
        4 => select(
            &[SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value][..]
        ),
    ];
    let bound = || prop_oneof![5 => Just(0), 1 => pool.number.clone()];
    let revision = prop_oneof![2 => Just(0), 1 => pool.number.clone()];
    let limit = prop_oneof![1 => Just(0), 2 => 0_i64..4, 1 => pool.number.clone()];
    let flag = || prop::bool::weighted(0.2);
    let bounds = (bound(), bound(), bound(), bound());
    (key_range(pool), limit, revision, order, target, (flag(), flag()), bounds).prop_map(
        |(range, limit, revision, order, target, (keys_only, count_only), bounds)| Range {
            range,
            limit,
            revision,
            order,
            target,
            keys_only,
            count_only,
            min_mod_revision: bounds.0,
            max_mod_revision: bounds.1,
            min_create_revision: bounds.2,
            max_create_revision: bounds.3,
        },
    )
}

fn compare(pool: &Pool) -> impl Strategy<Value = Compare> + use<> {
    let relation =
        select(&[Relation::Equal, Relation::Greater, Relation::Less, Relation::NotEqual][..]);
    let number = || pool.number.clone();
    let target = prop_oneof![
        number().prop_map(CompareTarget::Version),
        number().prop_map(CompareTarget::CreateRevision),
        number().prop_map(CompareTarget::ModRevision),
        pool.bytes.clone().prop_map(CompareTarget::Value),
        pool.lease.clone().prop_map(CompareTarget::Lease),
    ];
    (key_range(pool), relation, target).prop_map(|(range, relation, target)| Compare {
        range,
        relation,
        target,
    })
}

fn txn(pool: &Pool, depth: u32) -> BoxedStrategy<Txn> {
    let leaf = prop_oneof![
        2 => range(pool).prop_map(Operation::Range),
        4 => put(pool).prop_map(Operation::Put),
        1 => delete_range(pool).prop_map(Operation::DeleteRange),
    ];
    let operation = if depth == 0 {
        leaf.boxed()
    } else {
        prop_oneof![5 => leaf, 1 => txn(pool, depth - 1).prop_map(Operation::Txn)].boxed()
    };
    (vec(compare(pool), 0..3), vec(operation.clone(), 0..4), vec(operation, 0..4))
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
        .boxed()
}
