//! What clients asked, when, and what they were told: the input of every check.

use super::model::{Change, Pair};

/// A set of keys in etcd's wire form: an empty `end` means the one key, `[0]` everything from `start` on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// The first key.
    pub start: Vec<u8>,
    /// Behind the last key.
    pub end: Vec<u8>,
}

impl Selector {
    /// One key.
    #[must_use]
    pub fn key(key: &[u8]) -> Self {
        Self { start: key.to_vec(), end: Vec::new() }
    }

    /// All keys that begin with a prefix; the prefix must not end in 0xff.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0),
        }
        let start = if prefix.is_empty() { vec![0] } else { prefix.to_vec() };
        Self { start, end }
    }

    /// Whether a key belongs to it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        if self.end.is_empty() {
            self.start == key
        } else {
            self.start.as_slice() <= key && (self.end == [0] || key < self.end.as_slice())
        }
    }
}

/// In which order a range answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By key.
    #[default]
    Key,
    /// By key, backwards.
    KeyDescending,
    /// By the revision of the last put; equal ones by key.
    Modified,
    /// By the revision of the last put, newest first; equal ones by key.
    ModifiedDescending,
}

/// Read keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Which.
    pub keys: Selector,
    /// At which revision; 0 = now.
    pub revision: i64,
    /// At most so many pairs; 0 = all.
    pub limit: i64,
    /// In which order.
    pub sort: Sort,
    /// Without values.
    pub keys_only: bool,
    /// Only the number.
    pub count_only: bool,
    /// Whether an old state will do. Without a meaning within a transaction.
    pub serializable: bool,
}

/// Set a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The lease; 0 = none.
    pub lease: i64,
    /// Answer with the pair before.
    pub prev: bool,
    /// Keep the value.
    pub ignore_value: bool,
    /// Keep the lease.
    pub ignore_lease: bool,
}

/// Delete keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delete {
    /// Which.
    pub keys: Selector,
    /// Answer with the pairs before.
    pub prev: bool,
}

/// How a field relates to a given value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// =
    Equal,
    /// >
    Greater,
    /// <
    Less,
    /// ≠
    NotEqual,
}

/// Which field is compared with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// Puts since the creation.
    Version(i64),
    /// Revision of the creation.
    Create(i64),
    /// Revision of the last put.
    Modified(i64),
    /// The lease.
    Lease(i64),
    /// The value; nothing holds for a missing key.
    Value(Vec<u8>),
}

/// One comparison; all keys must satisfy it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub keys: Selector,
    /// How.
    pub relation: Relation,
    /// With what.
    pub target: CompareTarget,
}

/// Compare, then one of two lists of [`Request::Put`], [`Request::Delete`], [`Request::Range`] and [`Request::Txn`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub compare: Vec<Compare>,
    /// Done if they do.
    pub success: Vec<Request>,
    /// Done if they do not.
    pub failure: Vec<Request>,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Set a key.
    Put(Put),
    /// Delete keys.
    Delete(Delete),
    /// Read keys.
    Range(Range),
    /// A transaction.
    Txn(Txn),
    /// Forget history before this revision.
    Compact(i64),
    /// Make a lease; ids are never used twice within a history.
    Grant {
        /// Its id.
        id: i64,
        /// Its time to live, in the unit of the history's times.
        ttl: u64,
    },
    /// End a lease.
    Revoke(i64),
    /// Renew a lease.
    Renew(i64),
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Of a put.
    Put {
        /// The pair before.
        prev: Option<Pair>,
    },
    /// Of a deletion.
    Delete {
        /// How many keys.
        deleted: i64,
        /// The pairs before.
        prev: Vec<Pair>,
    },
    /// Of a range.
    Range {
        /// The pairs.
        pairs: Vec<Pair>,
        /// Whether the limit cut some off.
        more: bool,
        /// How many keys there are, whatever the limit.
        count: i64,
    },
    /// Of a transaction.
    Txn {
        /// Which list was done.
        succeeded: bool,
        /// Their answers.
        responses: Vec<Response>,
    },
    /// Of a compaction.
    Compact,
    /// Of a grant.
    Grant,
    /// Of a revocation.
    Revoke,
    /// Of a renewal.
    Renew {
        /// Whether the lease is there.
        alive: bool,
    },
}

/// Why a request was refused. It changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The key whose value or lease was to be kept is not there.
    KeyNotFound,
    /// The revision is compacted.
    Compacted,
    /// The revision is still to come.
    FutureRevision,
    /// There is no such lease.
    LeaseNotFound,
    /// There is such a lease already.
    LeaseExists,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Answered {
        /// The revision in its header.
        revision: i64,
        /// The answer.
        response: Response,
    },
    /// With a refusal that is part of the store's meaning.
    Refused(Refusal),
    /// Not at all, and it certainly did not happen.
    Failed,
    /// Nobody knows: it may have happened, or may still happen.
    Unknown,
}

/// One request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Whose, for messages.
    pub client: u64,
    /// What was asked.
    pub request: Request,
    /// When the client asked.
    pub invoked: u64,
    /// When it was told (or gave up).
    pub returned: u64,
    /// What it was told.
    pub outcome: Outcome,
}

/// All changes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The revision.
    pub revision: i64,
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// A time by which it certainly had happened: when somebody first saw it.
    pub first_seen: u64,
}

/// Everything that ever happened to the keys, as somebody who watched all of them from the beginning saw it. It is not
/// trusted: the check finds the operation that explains each revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeLog {
    /// By revision, without gaps, from revision 2 on (1 is the empty store).
    pub transactions: Vec<Transaction>,
}

impl ChangeLog {
    /// The changes of a revision; none if it is not in the log.
    #[must_use]
    pub fn at(&self, revision: i64) -> Option<&Transaction> {
        let place = usize::try_from(revision.checked_sub(2)?).ok()?;
        self.transactions.get(place)
    }

    /// The last revision.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.transactions.last().map_or(1, |transaction| transaction.revision)
    }
}
