//! Every error that etcd's API knows: one table of gRPC codes and texts, and who of ours becomes which.
//!
//! clientv3 finds an error by its *text* (`rpctypes/error.go`, errStringToError), so a text here is part of the wire
//! contract, to the letter.

use quorate_machine::Rejected;
use quorate_replica::ChangeRefusal;
use tonic::{Code, Status};

use crate::handle::{HashError, ProposeError, ReadError};

/// Declares the errors, the table and the lookup together, so that none of them can lack a row.
macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = ($code:ident, $text:literal),)*) => {
        /// An error of etcd's API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum EtcdError {
            $($(#[$doc])* $name,)*
        }

        /// Every error, in the order of `rpctypes/error.go`.
        #[cfg(test)]
        const TABLE: &[(EtcdError, Code, &str)] =
            &[$((EtcdError::$name, Code::$code, $text),)*];

        impl EtcdError {
            /// The gRPC code.
            #[must_use]
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }

            /// The text by which clients know it.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

errors! {
    /// A request without a key.
    EmptyKey = (InvalidArgument, "etcdserver: key is not provided"),
    /// ignore_value or ignore_lease on a missing key; also an empty operation of a transaction.
    KeyNotFound = (InvalidArgument, "etcdserver: key not found"),
    /// ignore_value with a value.
    ValueProvided = (InvalidArgument, "etcdserver: value is provided"),
    /// ignore_lease with a lease.
    LeaseProvided = (InvalidArgument, "etcdserver: lease is provided"),
    /// More than `--max-txn-ops`.
    TooManyOps = (InvalidArgument, "etcdserver: too many operations in txn request"),
    /// Two writes of one key on one path of a transaction.
    DuplicateKey = (InvalidArgument, "etcdserver: duplicate key given in txn request"),
    /// The client's metadata is no text.
    InvalidClientApiVersion = (InvalidArgument, "etcdserver: invalid client api version"),
    /// A sort order or target that does not exist.
    InvalidSortOption = (InvalidArgument, "etcdserver: invalid sort option"),
    /// History is gone.
    Compacted = (OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
    /// History has not happened yet.
    FutureRev = (OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
    /// The quota is used up.
    NoSpace = (ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
    /// No such lease.
    LeaseNotFound = (NotFound, "etcdserver: requested lease not found"),
    /// The lease id is taken.
    LeaseExist = (FailedPrecondition, "etcdserver: lease already exists"),
    /// More than 9,000,000,000 seconds.
    LeaseTtlTooLarge = (OutOfRange, "etcdserver: too large lease TTL"),
    /// A watch stream ended by cancellation.
    WatchCanceled = (Cancelled, "etcdserver: watch canceled"),
    /// A member with this id is there.
    MemberExist = (FailedPrecondition, "etcdserver: member ID already exist"),
    /// A peer URL belongs to another member.
    PeerUrlExist = (FailedPrecondition, "etcdserver: Peer URLs already exists"),
    /// The change would lose quorum.
    MemberNotEnoughStarted =
        (FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members"),
    /// Peer URLs that cannot be read.
    MemberBadUrls = (InvalidArgument, "etcdserver: given member URLs are invalid"),
    /// No such member.
    MemberNotFound = (NotFound, "etcdserver: member not found"),
    /// A voter cannot be promoted.
    MemberNotLearner = (FailedPrecondition, "etcdserver: can only promote a learner member"),
    /// The learner is behind.
    LearnerNotReady =
        (FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader"),
    /// More than `--max-learners`.
    TooManyLearners = (FailedPrecondition, "etcdserver: too many learner members in cluster"),
    /// Of another cluster.
    ClusterIdMismatch = (FailedPrecondition, "etcdserver: cluster ID mismatch"),
    /// More than `--max-request-bytes`.
    RequestTooLarge = (InvalidArgument, "etcdserver: request is too large"),
    /// Apply is too far behind.
    TooManyRequests = (ResourceExhausted, "etcdserver: too many requests"),
    /// Authentication needs a root user.
    RootUserNotExist = (FailedPrecondition, "etcdserver: root user does not exist"),
    /// Authentication needs a root user with the root role.
    RootRoleNotExist = (FailedPrecondition, "etcdserver: root user does not have root role"),
    /// The user is there.
    UserAlreadyExist = (FailedPrecondition, "etcdserver: user name already exists"),
    /// No user was named.
    UserEmpty = (InvalidArgument, "etcdserver: user name is empty"),
    /// No such user.
    UserNotFound = (FailedPrecondition, "etcdserver: user name not found"),
    /// The role is there.
    RoleAlreadyExist = (FailedPrecondition, "etcdserver: role name already exists"),
    /// No such role.
    RoleNotFound = (FailedPrecondition, "etcdserver: role name not found"),
    /// No role was named.
    RoleEmpty = (InvalidArgument, "etcdserver: role name is empty"),
    /// Wrong user or password.
    AuthFailed = (InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
    /// A grant without a permission.
    PermissionNotGiven = (InvalidArgument, "etcdserver: permission not given"),
    /// The user may not.
    PermissionDenied = (PermissionDenied, "etcdserver: permission denied"),
    /// The user does not have the role.
    RoleNotGranted = (FailedPrecondition, "etcdserver: role is not granted to the user"),
    /// The role does not have the permission.
    PermissionNotGranted = (FailedPrecondition, "etcdserver: permission is not granted to the role"),
    /// Authentication is off.
    AuthNotEnabled = (FailedPrecondition, "etcdserver: authentication is not enabled"),
    /// An unknown or expired token.
    InvalidAuthToken = (Unauthenticated, "etcdserver: invalid auth token"),
    /// A change that would lock everybody out.
    InvalidAuthMgmt = (InvalidArgument, "etcdserver: invalid auth management"),
    /// Permissions changed since the token was given.
    AuthOldRevision = (InvalidArgument, "etcdserver: revision of auth store is old"),
    /// There is no leader.
    NoLeader = (Unavailable, "etcdserver: no leader"),
    /// This member does not lead.
    NotLeader = (FailedPrecondition, "etcdserver: not leader"),
    /// Another member leads now.
    LeaderChanged = (Unavailable, "etcdserver: leader changed"),
    /// Not all members know this call yet.
    NotCapable = (FailedPrecondition, "etcdserver: not capable"),
    /// The member stops.
    Stopped = (Unavailable, "etcdserver: server stopped"),
    /// No answer in time.
    Timeout = (Unavailable, "etcdserver: request timed out"),
    /// No answer in time, and the leader changed.
    TimeoutDueToLeaderFail =
        (Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
    /// No answer in time, and members were not connected.
    TimeoutDueToConnectionLost =
        (Unavailable, "etcdserver: request timed out, possibly due to connection lost"),
    /// Apply did not reach the read's index in time.
    TimeoutWaitAppliedIndex =
        (Unavailable, "etcdserver: request timed out, waiting for the applied index took too long"),
    /// Members were not connected for some seconds.
    Unhealthy = (Unavailable, "etcdserver: unhealthy cluster"),
    /// The CORRUPT alarm is on.
    Corrupt = (DataLoss, "etcdserver: corrupt cluster"),
    /// A learner does not serve this call.
    NotSupportedForLearner = (FailedPrecondition, "etcdserver: rpc not supported for learner"),
    /// Leadership cannot go to that member.
    BadLeaderTransferee = (FailedPrecondition, "etcdserver: bad leader transferee"),
    /// A version that cannot be read.
    WrongDowngradeVersionFormat =
        (InvalidArgument, "etcdserver: wrong downgrade target version format"),
    /// A version that cannot be gone back to.
    InvalidDowngradeTargetVersion =
        (InvalidArgument, "etcdserver: invalid downgrade target version"),
    /// The cluster's version is not decided yet.
    ClusterVersionUnavailable =
        (FailedPrecondition, "etcdserver: cluster version not found during downgrade"),
    /// One downgrade at a time.
    DowngradeInProcess =
        (FailedPrecondition, "etcdserver: cluster has a downgrade job in progress"),
    /// Nothing to cancel.
    NoInflightDowngrade = (FailedPrecondition, "etcdserver: no inflight downgrade job"),
    /// The client gave up.
    RequestCanceled = (Cancelled, "etcdserver: request canceled"),
    /// The client's deadline passed.
    DeadlineExceeded = (DeadlineExceeded, "etcdserver: context deadline exceeded"),
    /// Not among etcd's typed errors: it reaches clients as Unknown with its plain text
    /// (`etcdserver/errors/errors.go`, ErrTimeoutLeaderTransfer).
    TimeoutLeaderTransfer = (Unknown, "etcdserver: request timed out, leader transfer took too long"),
}

impl From<EtcdError> for Status {
    fn from(error: EtcdError) -> Self {
        Self::new(error.code(), error.text())
    }
}

impl From<Rejected> for EtcdError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::KeyNotFound => Self::KeyNotFound,
            Rejected::Compacted => Self::Compacted,
            Rejected::FutureRevision => Self::FutureRev,
            Rejected::LeaseNotFound => Self::LeaseNotFound,
            Rejected::LeaseExists => Self::LeaseExist,
            Rejected::NoSpace => Self::NoSpace,
            Rejected::Corrupt => Self::Corrupt,
            Rejected::MemberExists => Self::MemberExist,
            Rejected::PeerUrlExists => Self::PeerUrlExist,
            // etcd does not tell the two apart either (`v3rpc/util.go`).
            Rejected::MemberNotFound | Rejected::MemberRemoved => Self::MemberNotFound,
            Rejected::NotLearner => Self::MemberNotLearner,
            Rejected::TooManyLearners => Self::TooManyLearners,
            Rejected::AuthRevisionOld => Self::AuthOldRevision,
            Rejected::LastVoter => Self::MemberNotEnoughStarted,
            // A learner that has not told its incarnation has not caught up with its own entry: the caller tries again.
            Rejected::LearnerUnpublished => Self::LearnerNotReady,
            Rejected::FeatureLevel => Self::NotCapable,
            // Only a member's own publication is refused so, never a client's request.
            Rejected::OtherIncarnation => Self::MemberExist,
        }
    }
}

impl From<ProposeError> for EtcdError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Timeout => Self::Timeout,
            ProposeError::TimeoutLeaderLost => Self::TimeoutDueToLeaderFail,
            ProposeError::NoLeader => Self::NoLeader,
            ProposeError::TooManyRequests => Self::TooManyRequests,
            ProposeError::Change(refusal) => refusal.into(),
            ProposeError::FeatureLevel => Self::NotCapable,
            ProposeError::Stopping => Self::Stopped,
        }
    }
}

impl From<HashError> for EtcdError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Rejected(rejected) => rejected.into(),
            HashError::TooManyReaders => Self::TooManyRequests,
        }
    }
}

impl From<ChangeRefusal> for EtcdError {
    fn from(refusal: ChangeRefusal) -> Self {
        match refusal {
            ChangeRefusal::NotEnoughStartedMembers => Self::MemberNotEnoughStarted,
            ChangeRefusal::Unhealthy => Self::Unhealthy,
            ChangeRefusal::LearnerNotReady => Self::LearnerNotReady,
            ChangeRefusal::NotLearner => Self::MemberNotLearner,
            ChangeRefusal::NotFound => Self::MemberNotFound,
            ChangeRefusal::Exists => Self::MemberExist,
            ChangeRefusal::PeerUrlExists => Self::PeerUrlExist,
            ChangeRefusal::TooManyLearners => Self::TooManyLearners,
        }
    }
}

impl From<ReadError> for EtcdError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Timeout => Self::Timeout,
            ReadError::NoLeader => Self::NoLeader,
            ReadError::Stopping => Self::Stopped,
        }
    }
}

/// A refusal that is part of the replicated result.
#[must_use]
pub fn rejected(rejected: Rejected) -> Status {
    EtcdError::from(rejected).into()
}

/// A proposal without a result.
#[must_use]
pub fn propose_error(error: ProposeError) -> Status {
    EtcdError::from(error).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A second witness beside the table, extracted from etcd's `rpctypes/error.go` at v3.7.3 by a script.
    const WITNESS: &str = "
        InvalidArgument etcdserver: key is not provided
        InvalidArgument etcdserver: key not found
        InvalidArgument etcdserver: value is provided
        InvalidArgument etcdserver: lease is provided
        InvalidArgument etcdserver: too many operations in txn request
        InvalidArgument etcdserver: duplicate key given in txn request
        InvalidArgument etcdserver: invalid client api version
        InvalidArgument etcdserver: invalid sort option
        OutOfRange etcdserver: mvcc: required revision has been compacted
        OutOfRange etcdserver: mvcc: required revision is a future revision
        ResourceExhausted etcdserver: mvcc: database space exceeded
        NotFound etcdserver: requested lease not found
        FailedPrecondition etcdserver: lease already exists
        OutOfRange etcdserver: too large lease TTL
        Canceled etcdserver: watch canceled
        FailedPrecondition etcdserver: member ID already exist
        FailedPrecondition etcdserver: Peer URLs already exists
        FailedPrecondition etcdserver: re-configuration failed due to not enough started members
        InvalidArgument etcdserver: given member URLs are invalid
        NotFound etcdserver: member not found
        FailedPrecondition etcdserver: can only promote a learner member
        FailedPrecondition etcdserver: can only promote a learner member which is in sync with leader
        FailedPrecondition etcdserver: too many learner members in cluster
        FailedPrecondition etcdserver: cluster ID mismatch
        InvalidArgument etcdserver: request is too large
        ResourceExhausted etcdserver: too many requests
        FailedPrecondition etcdserver: root user does not exist
        FailedPrecondition etcdserver: root user does not have root role
        FailedPrecondition etcdserver: user name already exists
        InvalidArgument etcdserver: user name is empty
        FailedPrecondition etcdserver: user name not found
        FailedPrecondition etcdserver: role name already exists
        FailedPrecondition etcdserver: role name not found
        InvalidArgument etcdserver: role name is empty
        InvalidArgument etcdserver: authentication failed, invalid user ID or password
        InvalidArgument etcdserver: permission not given
        PermissionDenied etcdserver: permission denied
        FailedPrecondition etcdserver: role is not granted to the user
        FailedPrecondition etcdserver: permission is not granted to the role
        FailedPrecondition etcdserver: authentication is not enabled
        Unauthenticated etcdserver: invalid auth token
        InvalidArgument etcdserver: invalid auth management
        InvalidArgument etcdserver: revision of auth store is old
        Unavailable etcdserver: no leader
        FailedPrecondition etcdserver: not leader
        Unavailable etcdserver: leader changed
        FailedPrecondition etcdserver: not capable
        Unavailable etcdserver: server stopped
        Unavailable etcdserver: request timed out
        Unavailable etcdserver: request timed out, possibly due to previous leader failure
        Unavailable etcdserver: request timed out, possibly due to connection lost
        Unavailable etcdserver: request timed out, waiting for the applied index took too long
        Unavailable etcdserver: unhealthy cluster
        DataLoss etcdserver: corrupt cluster
        FailedPrecondition etcdserver: rpc not supported for learner
        FailedPrecondition etcdserver: bad leader transferee
        InvalidArgument etcdserver: wrong downgrade target version format
        InvalidArgument etcdserver: invalid downgrade target version
        FailedPrecondition etcdserver: cluster version not found during downgrade
        FailedPrecondition etcdserver: cluster has a downgrade job in progress
        FailedPrecondition etcdserver: no inflight downgrade job
        Canceled etcdserver: request canceled
        DeadlineExceeded etcdserver: context deadline exceeded
    ";

    #[test]
    fn every_row_is_etcds() {
        let mut seen = 0;
        for line in WITNESS.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (code, text) = line.split_once(' ').unwrap();
            let row = TABLE.iter().find(|(_, _, ours)| *ours == text);
            let (error, ours, _) = row.unwrap_or_else(|| panic!("{text:?} is missing"));
            // tonic spells it with two l.
            assert_eq!(format!("{ours:?}").replace("Cancelled", "Canceled"), code, "{text}");
            let status = Status::from(*error);
            assert_eq!((status.code(), status.message()), (*ours, text));
            seen += 1;
        }
        // One row more is ours: the plain text of a leader transfer that took too long.
        assert_eq!(TABLE.len(), seen + 1);
    }

    #[test]
    fn no_text_stands_twice() {
        let texts: BTreeSet<&str> = TABLE.iter().map(|(_, _, text)| *text).collect();
        assert_eq!(texts.len(), TABLE.len());
    }

    #[test]
    fn kube_apiservers_two_errors_have_the_codes_it_looks_for() {
        // OutOfRange with these texts becomes HTTP 410 and "too large resource version".
        assert_eq!(rejected(Rejected::Compacted).code(), Code::OutOfRange);
        assert_eq!(rejected(Rejected::FutureRevision).code(), Code::OutOfRange);
    }

    #[test]
    fn what_may_have_happened_is_never_called_refused() {
        // clientv3 repeats a write only when the text says that it did not happen; a timeout does not.
        for error in [ProposeError::Timeout, ProposeError::TimeoutLeaderLost] {
            assert!(propose_error(error).message().contains("request timed out"));
        }
    }
}
