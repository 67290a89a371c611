//! Bounds of the operator's shell, each with its reason and with what happens when it is reached.

use std::time::Duration;

/// client-go's `LeaseDuration`: how long a leader that has died keeps others waiting.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(15);

/// client-go's `RenewDeadline`: a leader that could not renew for so long ends its process.
pub(crate) const LEASE_RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// client-go's `RetryPeriod`: five attempts to renew fit into the deadline.
pub(crate) const LEASE_RETRY_PERIOD: Duration = Duration::from_secs(2);

/// One read and one write of the Lease. Shorter than the renew deadline, so that one request
/// that hangs does not cost the leadership; the next attempt opens a new one.
pub(crate) const LEASE_REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// From the start of a connection to a member until it is given up. A member on the pod network
/// connects in a millisecond; a packet that is dropped (a node that is gone) must not hold up the
/// reconciliation, whose status is to tell the truth within a second or two.
pub(crate) const MEMBER_CONNECT_TIMEOUT: Duration = Duration::from_millis(700);

/// One request that asks a member about itself.
pub(crate) const MEMBER_READ_TIMEOUT: Duration = Duration::from_millis(1000);

/// One request that changes the membership or moves the leadership: it needs a quorum and, in
/// etcd's words, up to seven seconds of request timeout. When it is reached the change may have
/// happened or not; the next observation tells.
pub(crate) const MEMBER_WRITE_TIMEOUT: Duration = Duration::from_secs(7);

/// One request to the API server outside a watch. When it is reached the reconciliation fails and
/// is tried again with back-off; requests carry preconditions or are idempotent.
pub(crate) const API_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Reconciliations at the same time in each watched scope; never two of one object. Further
/// objects wait in the controller's queue, in which each is held at most once.
pub(crate) const CONCURRENCY_DEFAULT: u16 = 8;

/// Between two triggers of one object that come close together (a set and its pod change in the
/// same instant) one reconciliation runs for both.
pub(crate) const DEBOUNCE: Duration = Duration::from_millis(50);

/// Never looks again sooner than this, whatever a plan asks for: a bound on the load that one
/// object can make.
pub(crate) const REQUEUE_SHORTEST: Duration = Duration::from_millis(100);

/// Never looks again later than this, whatever a plan asks for: members are not watched but asked,
/// so this bounds the age of what status says.
pub(crate) const REQUEUE_LONGEST: Duration = Duration::from_secs(30);

/// After a step that changed something: time for the API server's watch to bring the change back
/// into the caches. A change that arrives sooner triggers sooner.
pub(crate) const REQUEUE_AFTER_ACTION: Duration = Duration::from_millis(250);

/// First delay of the back-off of an object whose reconciliation failed; doubles at each failure.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(500);

/// The back-off of one object grows no further than this: an API server or a quota that recovers
/// is noticed within half a minute.
pub(crate) const BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// An event's note is cut here: events.k8s.io/v1 refuses more than 1024 bytes.
pub(crate) const EVENT_NOTE_BYTES_MAX: usize = 1000;

/// Running reconciliations may finish for so long at shutdown. Then the process ends anyway: each
/// step is recognisable from the cluster's state alone, so the next operator continues it.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Pods of one cluster that are asked in one pass: all members of the largest cluster, a joiner
/// and a leaver. More pods that claim to be members are somebody's mistake and are left alone.
pub(crate) const MEMBERS_ASKED_MAX: usize = 16;

/// The same event within this time continues a series; client-go waits six minutes too.
pub(crate) const EVENT_SERIES_GAP: Duration = Duration::from_secs(360);

/// Events that are remembered for series. At the bound all are forgotten: what is said again is
/// then a new event, which costs an object and loses nothing.
pub(crate) const EVENTS_REMEMBERED_MAX: usize = 4096;
