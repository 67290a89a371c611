//! What may be asked of the machine: the replicated commands, as values.

use bytes::Bytes;

use crate::{
    FEATURE_LEVEL_KNOWN, FeatureLevel, Incarnation, LeaseId, LeaseTime, MemberId, NextCommand,
    RequestId,
};

/// What an entry carries: a command and what apply must know of its making. Encoded by `codec.rs`, format 1: a header of
/// fixed size and offsets first (format, feature level, clock, request id), then user, auth revision and command, so that
/// the accepting leader stamps clock and feature level *in place* (`stamp(&mut [u8], LeaseTime, FeatureLevel)`) and anybody
/// reads request id and clock without decoding the rest (`peek(&[u8]) -> Result<Header, DecodeError>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who asked; only that member, in that life, answers the client.
    pub request: RequestId,
    /// The user on whose behalf; empty when authentication is off.
    pub user: Bytes,
    /// The revision of the auth store that the user was checked against; 0 when authentication is off.
    pub auth_revision: u64,
    /// The feature level that the command needs.
    pub feature_level: FeatureLevel,
    /// The lease clock as the accepting leader stamped it.
    pub clock: LeaseTime,
    /// What to do.
    pub command: Command,
}

impl Envelope {
    /// A command as its member proposes it, authentication off: feature level and clock are 0 until the accepting leader stamps
    /// them.
    #[must_use]
    pub fn unstamped(request: RequestId, command: Command) -> Self {
        let (feature_level, clock) = (FeatureLevel(0), LeaseTime(0));
        Self { request, user: Bytes::new(), auth_revision: 0, feature_level, clock, command }
    }
}

/// One thing to do to the state. A command's meaning never changes (INV-M3): a new meaning is a new command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Set one key.
    Put(Put),
    /// Delete a range of keys.
    DeleteRange(DeleteRange),
    /// Compare, then do one of two lists.
    Txn(Txn),
    /// Forget history before this revision.
    Compact {
        /// Reads below it are refused from now on.
        revision: i64,
    },
    /// Make a lease. The id was chosen by the server if the client gave none.
    LeaseGrant {
        /// Its id, positive.
        id: LeaseId,
        /// Its time to live in seconds, already raised to the server's minimum.
        ttl: i64,
    },
    /// Revoke a lease and delete its keys, because a client asked.
    LeaseRevoke {
        /// Which.
        id: LeaseId,
    },
    /// Revoke leases that are due: each only if its deadline is at or before the entry's clock (design §3 Leases).
    LeaseExpire {
        /// Which.
        ids: Vec<LeaseId>,
    },
    /// Renew leases: deadline = clock + TTL. One entry for all renewals of a tick.
    LeaseRenew {
        /// Which, in the order asked; an id may be unknown (its TTL is then answered as 0).
        ids: Vec<LeaseId>,
    },
    /// Raise or clear an alarm.
    Alarm {
        /// What to do.
        action: AlarmAction,
        /// Whose alarm; with [`AlarmAction::Deactivate`] 0 means all members.
        member: MemberId,
        /// Which alarm.
        alarm: Alarm,
    },
    /// Add a member. Travels in a configuration change.
    MemberAdd(Member),
    /// Make a learner a voter. Travels in a configuration change.
    MemberPromote {
        /// Which.
        id: MemberId,
    },
    /// Remove a member for good. Travels in a configuration change.
    MemberRemove {
        /// Which.
        id: MemberId,
    },
    /// Change a member's peer URLs.
    MemberUpdate {
        /// Which.
        id: MemberId,
        /// The new URLs.
        peer_urls: Vec<String>,
    },
    /// A started member tells its name, client URLs, incarnation and the feature level that it supports.
    MemberPublish {
        /// Which.
        id: MemberId,
        /// Its name.
        name: String,
        /// Where clients reach it.
        client_urls: Vec<String>,
        /// Its durable incarnation.
        incarnation: Incarnation,
        /// The highest feature level it knows.
        feature_level: FeatureLevel,
    },
    /// Raise the cluster's feature level.
    FeatureLevel {
        /// To what.
        level: FeatureLevel,
    },
    /// Nothing but the entry's clock stamp: time passes while leases exist and nothing is written.
    Clock,
    /// A command of the level above; a build that does not know one has no value for this, and no decoder.
    Next(NextCommand),
}

/// The feature level that every cluster is formed with. Founders may be of different builds and must write the same state, so the
/// level rises to what they know only when all have said so, as in any upgrade.
pub const FEATURE_LEVEL_FORMED: FeatureLevel = FeatureLevel(1);

impl Command {
    /// The feature level that the cluster must have reached before this command may be proposed.
    #[must_use]
    pub fn needs(&self) -> FeatureLevel {
        match self {
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Txn(_)
            | Self::Compact { .. }
            | Self::LeaseGrant { .. }
            | Self::LeaseRevoke { .. }
            | Self::LeaseExpire { .. }
            | Self::LeaseRenew { .. }
            | Self::Alarm { .. }
            | Self::MemberAdd(_)
            | Self::MemberPromote { .. }
            | Self::MemberRemove { .. }
            | Self::MemberUpdate { .. }
            | Self::MemberPublish { .. }
            | Self::FeatureLevel { .. }
            | Self::Clock => FEATURE_LEVEL_FORMED,
            Self::Next(_) => FEATURE_LEVEL_KNOWN,
        }
    }
}

/// Set one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// The key; not empty.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease to attach, or none.
    pub lease: LeaseId,
    /// Answer with the previous pair.
    pub prev_kv: bool,
    /// Keep the value the key has.
    pub ignore_value: bool,
    /// Keep the lease the key has.
    pub ignore_lease: bool,
}

/// Delete a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRange {
    /// Which keys.
    pub range: KeyRange,
    /// Answer with the deleted pairs.
    pub prev_kv: bool,
}

/// A set of keys: one key, an interval, or everything from a key on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRange {
    /// One key.
    Single(Bytes),
    /// start ≤ key < end.
    Interval(Bytes, Bytes),
    /// start ≤ key.
    From(Bytes),
}

impl KeyRange {
    /// etcd's wire form: no end = one key; end "\0" = everything from `key` on (and `key` "\0" then means all).
    #[must_use]
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        if range_end.is_empty() {
            Self::Single(key)
        } else if range_end.as_ref() == [0] {
            if key.as_ref() == [0] { Self::From(Bytes::new()) } else { Self::From(key) }
        } else {
            Self::Interval(key, range_end)
        }
    }

    /// The first key that may belong to it.
    #[must_use]
    pub fn start(&self) -> &Bytes {
        match self {
            Self::Single(key) | Self::Interval(key, _) | Self::From(key) => key,
        }
    }

    /// Whether a key belongs to it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Single(single) => single.as_ref() == key,
            Self::Interval(start, end) => start.as_ref() <= key && key < end.as_ref(),
            Self::From(start) => start.as_ref() <= key,
        }
    }
}

/// Read a range (etcd's RangeRequest, decoded).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which keys.
    pub range: KeyRange,
    /// At most so many pairs; 0 = all.
    pub limit: i64,
    /// At which revision; ≤ 0 = now.
    pub revision: i64,
    /// In which order.
    pub order: SortOrder,
    /// By which field.
    pub target: SortTarget,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Only pairs modified at or after this revision; 0 = any.
    pub min_mod_revision: i64,
    /// Only pairs modified at or before this revision; 0 = any.
    pub max_mod_revision: i64,
    /// Only pairs created at or after this revision; 0 = any.
    pub min_create_revision: i64,
    /// Only pairs created at or before this revision; 0 = any.
    pub max_create_revision: i64,
}

/// The order of a range's pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// By key, unless a target is given (then ascending).
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// The field a range is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The version.
    Version,
    /// The creation revision.
    Create,
    /// The modification revision.
    Mod,
    /// The value.
    Value,
}

/// Compare, then do one of two lists; lists may nest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold, against the state before any write of the whole transaction.
    pub compare: Vec<Compare>,
    /// Done if they hold.
    pub success: Vec<Operation>,
    /// Done if they do not.
    pub failure: Vec<Operation>,
}

impl Txn {
    /// Whether neither branch writes: such a transaction is a read and takes no entry of the log.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|operation| match operation {
            Operation::Range(_) => true,
            Operation::Put(_) | Operation::DeleteRange(_) => false,
            Operation::Txn(txn) => txn.is_read_only(),
        })
    }

    /// Whether a put stands in any branch at any depth: what the NOSPACE alarm refuses. (etcd counts the puts of the
    /// outermost lists only, `server/storage/quota.go`; a put within a put's transaction takes space all the same.)
    #[must_use]
    pub fn has_puts(&self) -> bool {
        self.success.iter().chain(&self.failure).any(|operation| match operation {
            Operation::Put(_) => true,
            Operation::Range(_) | Operation::DeleteRange(_) => false,
            Operation::Txn(txn) => txn.has_puts(),
        })
    }

    /// How many transactions are within one another on the deepest path, itself included.
    #[must_use]
    pub fn depth(&self) -> usize {
        let within = self.success.iter().chain(&self.failure).map(|operation| match operation {
            Operation::Range(_) | Operation::Put(_) | Operation::DeleteRange(_) => 0,
            Operation::Txn(txn) => txn.depth(),
        });
        1 + within.max().unwrap_or(0)
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read.
    Range(Range),
    /// Write.
    Put(Put),
    /// Delete.
    DeleteRange(DeleteRange),
    /// A transaction within.
    Txn(Txn),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys; all of them must satisfy it.
    pub range: KeyRange,
    /// How.
    pub relation: Relation,
    /// With what.
    pub target: CompareTarget,
}

/// How the key's field relates to the given value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// field = value
    Equal,
    /// field > value
    Greater,
    /// field < value
    Less,
    /// field ≠ value
    NotEqual,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The number of puts since the key was created.
    Version(i64),
    /// The revision of its creation.
    CreateRevision(i64),
    /// The revision of its last put.
    ModRevision(i64),
    /// The value; a missing key fails whatever the relation.
    Value(Bytes),
    /// The lease.
    Lease(LeaseId),
}

/// What to do to an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmAction {
    /// Raise it.
    Activate,
    /// Clear it.
    Deactivate,
}

/// The alarms of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// All of them; only in [`AlarmAction::Deactivate`].
    None,
    /// The space quota is used up.
    NoSpace,
    /// A member's data differs.
    Corrupt,
}

/// A member as the cluster knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started.
    pub client_urls: Vec<String>,
    /// Whether it does not vote.
    pub learner: bool,
    /// The data directory that it started from; 0 until it has published one.
    pub incarnation: Incarnation,
    /// The highest feature level it knows; 0 until it has published.
    pub feature_level: FeatureLevel,
}
