//! The numbers of the data: revisions, leases, members, the lease clock, each a type of its own.

use std::fmt;

/// A point in the history of the keys: `main` counts writes, `sub` the changes within one write (etcd `mvcc/revision.go`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Counts committed writes; 1 is the empty store.
    pub main: i64,
    /// Counts changes within the write, from 0.
    pub sub: i64,
}

impl Revision {
    /// Everything that `main` brought: the revision at which a reader that saw `main` complete reads.
    #[must_use]
    pub fn end_of(main: i64) -> Self {
        Self { main, sub: i64::MAX }
    }
}

/// A lease's identity; positive when the server chose it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// No lease.
    pub const NONE: Self = Self(0);
}

/// The replicated lease clock T, in milliseconds since the cluster was formed. No wall clock anywhere knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseTime(pub u64);

/// A member's identity as clients see it; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// A cluster's identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

/// Which start of which data directory a member lives from. It changes when a directory is made anew, so that a
/// voter that came back empty is noticed (design §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// The name of one request for good: who accepted it, in which life, which number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The member that the client asked.
    pub member: MemberId,
    /// The member's process life: unique for each start.
    pub life: u64,
    /// Counts that life's requests.
    pub sequence: u64,
}

/// The set of commands and row kinds that a cluster may use. A replicated number; it rises only when all members know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureLevel(pub u16);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}
