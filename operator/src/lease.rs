//! Leader election: decides who may act, on one coordination.k8s.io Lease.
//!
//! The rules are those of client-go's `tools/leaderelection`:
//!
//! * Nobody compares clocks. `renewTime` is written for people; a candidate counts the holder's
//!   `leaseDurationSeconds` on its *own* clock, from the moment at which it first saw the record
//!   in its present form. A record that keeps changing is alive, whatever times it states.
//! * Every write carries the resourceVersion that the decision was made on, so that of two
//!   candidates who both found the Lease expired the API server lets one through.
//! * The holder gives up *before* others may take over: `renew_deadline < duration`. It counts
//!   from the moment at which its last successful renewal was *sent*, since the answer may have
//!   been late but the record cannot be younger than the request.
//! * Losing the Lease ends the process (`run.rs`). Reconciliations in flight would otherwise go
//!   on beside those of the new leader; a process that is gone writes nothing. A process that was
//!   stopped for a minute and goes on may get to a write before it gets to its end: each write asks
//!   [`Authority`] first.
//!
//! [`Election`] is the pure part: it takes time as a `Duration` since an arbitrary origin of a
//! monotonic clock and returns a [`Step`]. [`Candidate`] does what the step says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};

use crate::limits;
use crate::words;

/// The three periods of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Periods {
    /// How long a record counts after it was last seen to change.
    pub(crate) duration: Duration,
    /// After this long without a successful renewal the holder stops.
    pub(crate) renew_deadline: Duration,
    /// Between two looks at the Lease.
    pub(crate) retry: Duration,
}

impl Periods {
    /// client-go's defaults for controllers (`LeaseDuration`, `RenewDeadline`, `RetryPeriod`).
    pub(crate) const DEFAULT: Periods = Periods {
        duration: limits::LEASE_DURATION,
        renew_deadline: limits::LEASE_RENEW_DEADLINE,
        retry: limits::LEASE_RETRY_PERIOD,
    };
}

/// What to do about the Lease that was just read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is none: create one that names us. Creation fails if another was faster.
    Create,
    /// It is ours: write it again under the resourceVersion read.
    Renew,
    /// It is free or expired: take it under the resourceVersion read.
    TakeOver {
        /// The count of hand-overs to write, one more than the record's.
        transitions: i32,
    },
    /// Another holds it.
    Wait {
        /// Who.
        holder: String,
    },
}

/// The memory of one candidate. Pure: time comes in with every call.
#[derive(Debug)]
pub(crate) struct Election {
    identity: String,
    periods: Periods,
    seen: Option<(LeaseSpec, Duration)>,
    renewed: Option<Duration>,
}

impl Election {
    /// A candidate of this name; names of two live processes must differ.
    pub(crate) fn new(identity: String, periods: Periods) -> Self {
        assert!(
            periods.retry < periods.renew_deadline && periods.renew_deadline < periods.duration,
            "a leader must retry within its deadline and give up before others may take over"
        );
        Election { identity, periods, seen: None, renewed: None }
    }

    /// Decides on the record that was read at `now`; `None` when there is no Lease.
    pub(crate) fn decide(&mut self, now: Duration, record: Option<&LeaseSpec>) -> Step {
        let Some(record) = record else {
            self.seen = None;
            return Step::Create;
        };
        let since = match &self.seen {
            Some((seen, since)) if seen == record => *since,
            Some(_) | None => {
                self.seen = Some((record.clone(), now));
                now
            }
        };
        let holder = record.holder_identity.as_deref().unwrap_or_default();
        if holder == self.identity {
            return Step::Renew;
        }
        let counted = record
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.periods.duration, Duration::from_secs);
        if holder.is_empty() || now >= since + counted {
            return Step::TakeOver {
                transitions: record.lease_transitions.unwrap_or(0).saturating_add(1),
            };
        }
        Step::Wait { holder: holder.to_owned() }
    }

    /// A write that names us was acknowledged; it was sent at `sent`.
    pub(crate) fn wrote(&mut self, sent: Duration, record: LeaseSpec) {
        self.renewed = Some(sent);
        self.seen = Some((record, sent));
    }

    /// Another holds the Lease, so whatever we held is over.
    pub(crate) fn superseded(&mut self) {
        self.renewed = None;
    }

    /// When this process must have stopped unless it renews; `None` while it does not lead.
    pub(crate) fn must_stop_at(&self) -> Option<Duration> {
        self.renewed.map(|sent| sent + self.periods.renew_deadline)
    }

    /// Whether this process may act at `now`.
    pub(crate) fn leads(&self, now: Duration) -> bool {
        self.must_stop_at().is_some_and(|stop| now < stop)
    }

    /// The record to write at a step that writes; `previous` is what was read.
    fn record(&self, step: &Step, previous: Option<&LeaseSpec>, wall: Timestamp) -> LeaseSpec {
        let mut record = previous.cloned().unwrap_or_default();
        let seconds = i32::try_from(self.periods.duration.as_secs()).unwrap_or(i32::MAX);
        record.holder_identity = Some(self.identity.clone());
        record.lease_duration_seconds = Some(seconds);
        record.renew_time = Some(MicroTime(wall));
        match step {
            Step::Create => {
                record.acquire_time = Some(MicroTime(wall));
                record.lease_transitions = Some(0);
            }
            Step::TakeOver { transitions } => {
                record.acquire_time = Some(MicroTime(wall));
                record.lease_transitions = Some(*transitions);
            }
            Step::Renew | Step::Wait { .. } => {}
        }
        record
    }
}

/// Whether this process may write now; shared by all that write.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    origin: Instant,
    /// Milliseconds since `origin` at which the renew deadline passes.
    until: Arc<AtomicU64>,
}

impl Authority {
    /// The authority of a process that need not share with others.
    pub(crate) fn unlimited() -> Self {
        Authority { origin: Instant::now(), until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    fn none(origin: Instant) -> Self {
        Authority { origin, until: Arc::new(AtomicU64::new(0)) }
    }

    /// Whether the Lease is ours for certain.
    pub(crate) fn holds(&self) -> bool {
        self.origin.elapsed() < Duration::from_millis(self.until.load(Ordering::Acquire))
    }

    fn extend(&self, until: Option<Duration>) {
        let until = until.map_or(0, |until| u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
        self.until.store(until, Ordering::Release);
    }
}

/// Why a process no longer leads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// Renewals failed for the whole deadline.
    #[error(
        "lease {lease} could not be renewed for {deadline:?}: another operator may take over, so \
         this one stops; look at the API server and at this pod's access to it"
    )]
    Deadline {
        /// Namespace and name.
        lease: String,
        /// The renew deadline.
        deadline: Duration,
    },
    /// Somebody else holds it although we had not given it up.
    #[error(
        "lease {lease} is held by {holder}: it was taken over or edited, so this operator stops"
    )]
    Taken {
        /// Namespace and name.
        lease: String,
        /// The present holder.
        holder: String,
    },
}

/// The part of the election that talks to the API server.
pub(crate) struct Candidate {
    api: Api<Lease>,
    namespace: String,
    name: String,
    origin: Instant,
    election: Election,
    authority: Authority,
}

impl Candidate {
    /// A candidate for the Lease `namespace`/`name`.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: String,
        periods: Periods,
    ) -> Self {
        let origin = Instant::now();
        Candidate {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            origin,
            election: Election::new(identity, periods),
            authority: Authority::none(origin),
        }
    }

    /// What those who write are to ask; it follows this candidate.
    pub(crate) fn authority(&self) -> Authority {
        self.authority.clone()
    }

    /// Returns once this process holds the Lease.
    pub(crate) async fn acquire(&mut self) {
        let mut told: Option<String> = None;
        loop {
            match self.attempt(limits::LEASE_REQUEST_TIMEOUT).await {
                Ok(Step::Create | Step::Renew | Step::TakeOver { .. }) => {
                    tracing::info!(lease = %self.label(), "this operator leads");
                    return;
                }
                Ok(Step::Wait { holder }) => {
                    if told.as_ref() != Some(&holder) {
                        tracing::info!(lease = %self.label(), %holder, "waiting for the lease");
                        told = Some(holder);
                    }
                }
                Err(error) => {
                    tracing::warn!(lease = %self.label(), %error, "cannot read or write the lease");
                }
            }
            tokio::time::sleep(self.election.periods.retry).await;
        }
    }

    /// Renews until the Lease is lost, and says how.
    pub(crate) async fn hold(&mut self) -> Lost {
        loop {
            tokio::time::sleep(self.election.periods.retry).await;
            let now = self.now();
            let left = self
                .election
                .must_stop_at()
                .map_or(Duration::ZERO, |stop| stop.saturating_sub(now));
            if left.is_zero() {
                return self.deadline_passed();
            }
            match self.attempt(left.min(limits::LEASE_REQUEST_TIMEOUT)).await {
                Ok(Step::Wait { holder }) => {
                    return Lost::Taken { lease: self.label(), holder };
                }
                Ok(Step::Create | Step::Renew | Step::TakeOver { .. }) => {}
                Err(error) => {
                    tracing::warn!(lease = %self.label(), %error, "cannot renew the lease");
                }
            }
            if !self.election.leads(self.now()) {
                return self.deadline_passed();
            }
        }
    }

    /// Gives the Lease up so that the next operator need not wait for it to expire.
    pub(crate) async fn release(&mut self) {
        let released = tokio::time::timeout(limits::LEASE_REQUEST_TIMEOUT, self.give_up()).await;
        match released {
            Ok(Ok(())) => tracing::info!(lease = %self.label(), "lease released"),
            Ok(Err(error)) => {
                let error = words::of_request(&error);
                tracing::warn!(lease = %self.label(), error, "cannot release the lease");
            }
            Err(_) => tracing::warn!(lease = %self.label(), "cannot release the lease in time"),
        }
    }

    async fn give_up(&mut self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut() else { return Ok(()) };
        if spec.holder_identity.as_deref() != Some(self.election.identity.as_str()) {
            return Ok(());
        }
        // One second, not none: the API server refuses a duration below one.
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        self.election.superseded();
        self.api.replace(&self.name, &PostParams::default(), &lease).await.map(|_| ())
    }

    /// One look and, where the step says so, one write.
    async fn attempt(&mut self, within: Duration) -> Result<Step, AttemptError> {
        tokio::time::timeout(within, self.attempt_unbounded())
            .await
            .map_err(|_| AttemptError::Timeout(within))?
    }

    async fn attempt_unbounded(&mut self) -> Result<Step, AttemptError> {
        let lease = self.api.get_opt(&self.name).await?;
        let read = lease.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        let sent = self.now();
        let step = self.election.decide(sent, read.as_ref());
        let record = self.election.record(&step, read.as_ref(), Timestamp::now());
        let written = match (&step, lease) {
            (Step::Wait { .. }, _) => {
                self.election.superseded();
                self.authority.extend(None);
                return Ok(step);
            }
            (Step::Create, _) | (_, None) => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                };
                let lease = Lease { metadata, spec: Some(record) };
                self.api.create(&PostParams::default(), &lease).await?
            }
            (Step::Renew | Step::TakeOver { .. }, Some(mut lease)) => {
                // NB: the object keeps the resourceVersion that it was read with, which makes
                // this write conditional on nobody having written since.
                lease.spec = Some(record);
                self.api.replace(&self.name, &PostParams::default(), &lease).await?
            }
        };
        self.election.wrote(sent, written.spec.unwrap_or_default());
        self.authority.extend(self.election.must_stop_at());
        Ok(step)
    }

    fn deadline_passed(&self) -> Lost {
        Lost::Deadline { lease: self.label(), deadline: self.election.periods.renew_deadline }
    }

    fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// Why one look at the Lease failed; the next may succeed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("the API server did not answer within {0:?}")]
    Timeout(Duration),
    #[error("{}", words::of_request(.0))]
    Api(#[from] kube::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn record(holder: &str, transitions: i32, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(transitions),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    fn candidate(name: &str) -> Election {
        Election::new(name.to_owned(), Periods::DEFAULT)
    }

    #[test]
    fn no_lease_is_created_and_ours_is_renewed() {
        let mut me = candidate("a");
        assert_eq!(me.decide(seconds(0), None), Step::Create);
        assert!(!me.leads(seconds(0)), "leads before the write was acknowledged");
        me.wrote(seconds(0), record("a", 0, 100));
        assert!(me.leads(seconds(9)));
        assert_eq!(me.decide(seconds(2), Some(&record("a", 0, 100))), Step::Renew);
    }

    #[test]
    fn expiry_is_counted_from_our_first_sight_of_the_record_not_from_its_times() {
        let mut me = candidate("a");
        // The holder's wall clock is an hour behind ours: by its renewTime it expired long ago.
        let other = record("b", 3, -3600);
        assert_eq!(me.decide(seconds(1000), Some(&other)), Step::Wait { holder: "b".into() });
        assert_eq!(me.decide(seconds(1014), Some(&other)), Step::Wait { holder: "b".into() });
        assert_eq!(me.decide(seconds(1015), Some(&other)), Step::TakeOver { transitions: 4 });
    }

    #[test]
    fn a_record_that_changes_starts_the_count_again() {
        let mut me = candidate("a");
        assert!(matches!(me.decide(seconds(0), Some(&record("b", 0, 1))), Step::Wait { .. }));
        assert!(matches!(me.decide(seconds(14), Some(&record("b", 0, 2))), Step::Wait { .. }));
        assert!(matches!(me.decide(seconds(28), Some(&record("b", 0, 2))), Step::Wait { .. }));
        assert!(matches!(me.decide(seconds(29), Some(&record("b", 0, 2))), Step::TakeOver { .. }));
    }

    #[test]
    fn the_duration_that_counts_is_the_one_the_holder_wrote() {
        let mut me = candidate("a");
        let mut other = record("b", 0, 1);
        other.lease_duration_seconds = Some(60);
        assert!(matches!(me.decide(seconds(0), Some(&other)), Step::Wait { .. }));
        assert!(matches!(me.decide(seconds(59), Some(&other)), Step::Wait { .. }));
        assert!(matches!(me.decide(seconds(60), Some(&other)), Step::TakeOver { .. }));
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let mut me = candidate("a");
        let mut free = record("", 7, 1);
        free.lease_duration_seconds = Some(1);
        assert_eq!(me.decide(seconds(0), Some(&free)), Step::TakeOver { transitions: 8 });
    }

    #[test]
    fn a_leader_that_cannot_renew_stops_before_another_may_start() {
        let mut leader = candidate("a");
        let mut rival = candidate("b");
        let held = record("a", 0, 1);
        // The leader's write was sent at 0 and took until 5 to be answered; the rival sees the
        // record at 0 at the earliest.
        leader.wrote(seconds(0), held.clone());
        assert!(matches!(rival.decide(seconds(0), Some(&held)), Step::Wait { .. }));
        let stop = leader.must_stop_at().unwrap();
        assert!(!leader.leads(stop));
        assert!(
            matches!(rival.decide(stop, Some(&held)), Step::Wait { .. }),
            "two would act at {stop:?}"
        );
    }

    #[test]
    fn a_leader_that_sees_another_holder_no_longer_leads() {
        let mut me = candidate("a");
        me.wrote(seconds(0), record("a", 0, 1));
        assert!(matches!(me.decide(seconds(1), Some(&record("b", 1, 2))), Step::Wait { .. }));
        me.superseded();
        assert!(!me.leads(seconds(1)));
    }

    #[test]
    fn a_takeover_counts_a_transition_and_a_renewal_does_not() {
        let me = candidate("a");
        let wall = Timestamp::from_second(50).unwrap();
        let taken = me.record(&Step::TakeOver { transitions: 4 }, Some(&record("b", 3, 1)), wall);
        assert_eq!(taken.holder_identity.as_deref(), Some("a"));
        assert_eq!(taken.lease_transitions, Some(4));
        assert_eq!(taken.acquire_time, Some(MicroTime(wall)));
        let later = Timestamp::from_second(52).unwrap();
        let renewed = me.record(&Step::Renew, Some(&taken), later);
        assert_eq!(renewed.lease_transitions, Some(4));
        assert_eq!(renewed.acquire_time, Some(MicroTime(wall)), "renewing is not acquiring");
        assert_eq!(renewed.renew_time, Some(MicroTime(later)));
    }

    #[test]
    fn authority_ends_with_the_deadline_and_without_anybody_telling() {
        let origin = Instant::now();
        let authority = Authority::none(origin);
        assert!(!authority.holds());
        authority.extend(Some(origin.elapsed() + seconds(60)));
        assert!(authority.holds());
        authority.extend(Some(origin.elapsed()));
        assert!(!authority.holds(), "the deadline has passed");
        authority.extend(None);
        assert!(!authority.holds());
        assert!(Authority::unlimited().holds());
    }

    /// A client of an API server that answers what `answer` says of each request's method.
    fn client(answer: impl Fn(&str) -> (u16, String) + Clone + Send + Sync + 'static) -> Client {
        let service = tower::service_fn(move |request: axum::http::Request<kube::client::Body>| {
            let (status, body) = answer(request.method().as_str());
            let response = axum::http::Response::builder()
                .status(status)
                .body(kube::client::Body::from(body.into_bytes()));
            async move { response }
        });
        Client::new(service, "default")
    }

    fn quick() -> Periods {
        Periods {
            duration: seconds(1),
            renew_deadline: Duration::from_millis(400),
            retry: Duration::from_millis(50),
        }
    }

    fn lease(holder: &str) -> String {
        let spec = record(holder, 0, 1);
        serde_json::to_string(&Lease { metadata: ObjectMeta::default(), spec: Some(spec) }).unwrap()
    }

    #[tokio::test]
    async fn a_leader_that_can_no_longer_renew_is_told_so_within_its_deadline() {
        let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let switch = Arc::clone(&broken);
        let client = client(move |_method| {
            if switch.load(Ordering::Acquire) { (500, String::new()) } else { (200, lease("a")) }
        });
        let mut candidate = Candidate::new(client, "ns", "operator", "a".into(), quick());
        let authority = candidate.authority();
        candidate.acquire().await;
        assert!(authority.holds(), "the lease was not acquired: the fault would prove nothing");
        broken.store(true, Ordering::Release);
        let begun = Instant::now();
        let lost = candidate.hold().await;
        assert!(matches!(lost, Lost::Deadline { .. }), "{lost}");
        assert!(begun.elapsed() < quick().duration, "others may act after {:?}", begun.elapsed());
        assert!(!authority.holds(), "a write would still be allowed");
    }

    #[tokio::test]
    async fn a_leader_whose_lease_was_taken_is_told_so_at_once() {
        let taken = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let switch = Arc::clone(&taken);
        let client = client(move |_method| {
            (200, lease(if switch.load(Ordering::Acquire) { "b" } else { "a" }))
        });
        let mut candidate = Candidate::new(client, "ns", "operator", "a".into(), quick());
        candidate.acquire().await;
        taken.store(true, Ordering::Release);
        let lost = candidate.hold().await;
        assert!(matches!(&lost, Lost::Taken { holder, .. } if holder == "b"), "{lost}");
        assert!(!candidate.authority().holds());
    }

    #[test]
    #[should_panic(expected = "give up before others may take over")]
    fn periods_that_let_two_lead_are_refused() {
        let _ = Election::new(
            "a".into(),
            Periods { duration: seconds(10), renew_deadline: seconds(10), retry: seconds(2) },
        );
    }
}
