//! What applying a command gives: results for the asker, events for watchers, refusals that are the same everywhere.

use bytes::Bytes;

use crate::{Alarm, LeaseId, LeaseTime, Member, MemberId, RequestId, Revision, Version};

/// What one entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whose request it was.
    pub request: RequestId,
    /// The store's revision after it: what the response header says.
    pub revision: i64,
    /// The result, equal on every member (INV-M2).
    pub result: Result<Outcome, Rejected>,
    /// The changes it made, in order of `sub`; empty when it changed no key.
    pub events: Vec<Event>,
}

impl Applied {
    /// For an entry that carries a configuration change: whether the change is void. The machine refused it on every
    /// member alike, so consensus must not let it take effect anywhere (etcd's `applyConfChange` then applies a change
    /// of node 0).
    #[must_use]
    pub fn change_is_void(&self) -> bool {
        self.result.is_err()
    }
}

/// A result by kind of command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of a put.
    Put(PutOutcome),
    /// Of a delete.
    DeleteRange(DeleteRangeOutcome),
    /// Of a transaction.
    Txn(TxnOutcome),
    /// Of a compaction: accepted; its physical part follows in the background.
    Compact,
    /// Of a grant.
    LeaseGrant {
        /// The lease.
        id: LeaseId,
        /// Its time to live in seconds.
        ttl: i64,
    },
    /// Of a revocation or expiry.
    LeaseRevoke,
    /// Of a renewal: the TTL in seconds per lease asked, 0 for an unknown one.
    LeaseRenew(Vec<(LeaseId, i64)>),
    /// Of an alarm request: the alarms that it touched.
    Alarm(Vec<(MemberId, Alarm)>),
    /// Of a membership change: all members after it.
    Members(Vec<Member>),
    /// Of a command without an answer of its own.
    Done,
}

/// The result of a put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOutcome {
    /// The previous pair, if asked for and there was one.
    pub prev_kv: Option<EncodedKeyValue>,
    /// What its header says: the revision of the put.
    pub revision: i64,
}

/// The result of a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeOutcome {
    /// How many keys.
    pub deleted: i64,
    /// The deleted pairs, if asked for.
    pub prev_kvs: Vec<EncodedKeyValue>,
    /// What its header says: the write's revision, or the one before if nothing was written so far.
    pub revision: i64,
}

/// The result of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeOutcome {
    /// The pairs.
    pub kvs: Vec<EncodedKeyValue>,
    /// Whether the limit cut some off.
    pub more: bool,
    /// How many keys the range holds, whatever limit and filters.
    pub count: i64,
    /// What its header says: the store's revision then, whatever older revision was asked for. Within a transaction
    /// that has written, the revision of that write.
    pub revision: i64,
}

/// The result of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnOutcome {
    /// Which branch ran.
    pub succeeded: bool,
    /// One response per operation of that branch.
    pub responses: Vec<OperationOutcome>,
    /// What its header says: the store's revision after it. A transaction within another has 0, since etcd leaves the
    /// header of those empty (`server/etcdserver/txn/txn.go`, newTxnResp).
    pub revision: i64,
}

/// The result of one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationOutcome {
    /// Of a range.
    Range(RangeOutcome),
    /// Of a put.
    Put(PutOutcome),
    /// Of a delete.
    DeleteRange(DeleteRangeOutcome),
    /// Of a transaction within.
    Txn(TxnOutcome),
}

/// A `mvccpb.KeyValue` in its wire form: what a row holds and a response carries, never decoded on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EncodedKeyValue(pub Bytes);

/// One change of one key, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub revision: Revision,
    /// Which key.
    pub key: Bytes,
    /// The pair after the change; for a deletion only key and mod_revision are set.
    pub kv: EncodedKeyValue,
    /// Whether the key was deleted.
    pub deleted: bool,
    /// The version that it replaced, for watchers that want it: readable until the next compaction step.
    pub previous: Option<Version>,
}

/// A deterministic refusal: part of the replicated result, the same on every member. The texts that clients see
/// stand in `node/src/grpc/status.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// ignore_value or ignore_lease on a missing key.
    KeyNotFound,
    /// The revision has been compacted.
    Compacted,
    /// The revision is in the future.
    FutureRevision,
    /// No such lease.
    LeaseNotFound,
    /// The lease id is taken.
    LeaseExists,
    /// The NOSPACE alarm is on.
    NoSpace,
    /// The CORRUPT alarm is on.
    Corrupt,
    /// A member with this id is there.
    MemberExists,
    /// A peer URL of it belongs to another member.
    PeerUrlExists,
    /// No such member.
    MemberNotFound,
    /// The member was removed.
    MemberRemoved,
    /// Promotion of a member that votes already.
    NotLearner,
    /// There are as many learners as allowed. A flag of the server decides (`--max-learners`), so the shell refuses
    /// with it before proposing; apply never does.
    TooManyLearners,
    /// Without this member nobody would vote (etcd's strict reconfiguration check refuses it the same way, but only
    /// before proposing: two removals that pass that check together must not both take effect).
    LastVoter,
    /// Promotion of a learner that has not recorded its incarnation yet (design §5).
    LearnerUnpublished,
    /// A voter published another incarnation than the recorded one: its data directory was made anew, its votes are
    /// forgotten, and it must be replaced (design §5).
    OtherIncarnation,
    /// The user's permissions changed after they were checked.
    AuthRevisionOld,
    /// The command needs a feature level that the cluster has not reached. Proposers refuse it before; apply does so again.
    FeatureLevel,
}

/// What a lease is, for LeaseTimeToLive and LeaseLeases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Its id.
    pub id: LeaseId,
    /// The TTL that was granted, in seconds.
    pub granted_ttl: i64,
    /// When it is due by the replicated clock.
    pub deadline: LeaseTime,
}
