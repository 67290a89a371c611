//! What `/health`, `/livez` and `/readyz` find out: etcd's checks (`etcdhttp/health.go`), and what readiness means here.
//!
//! Readiness tolerates one election (docs/contract.md): while a leader is missing, a member that could serve a
//! linearizable read a moment ago stays ready, or every election would empty the Service of all its members at once.
//! Liveness is about this process alone: neither a full disk nor a lost quorum is cured by a restart.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use quorate_machine::{Alarm, KeyRange, MemberId, Range, range};

use crate::grpc::Api;

/// A named check of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// No CORRUPT alarm.
    DataCorruption,
    /// This member can be read.
    SerializableRead,
    /// A quorum confirms that this member is up to date.
    LinearizableRead,
    /// This member votes.
    NonLearner,
    /// This member is not about to stop (ours).
    NotDraining,
}

impl Check {
    /// The name in the path and the page.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
            Self::NotDraining => "not_draining",
        }
    }
}

/// The checks of `/livez`.
pub(super) const LIVEZ: &[Check] = &[Check::SerializableRead];
/// The checks of `/readyz`.
pub(super) const READYZ: &[Check] = &[
    Check::DataCorruption,
    Check::LinearizableRead,
    Check::NonLearner,
    Check::NotDraining,
    Check::SerializableRead,
];

/// What readiness remembers between two questions.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    draining: AtomicBool,
    /// When a linearizable read succeeded last.
    confirmed: Mutex<Option<Instant>>,
}

impl Readiness {
    /// Not ready from now on.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Runs a check.
    pub(super) async fn run(&self, check: Check, api: &Api) -> Result<(), String> {
        let handle = api.handle();
        match check {
            Check::DataCorruption => corruption(&handle.published().alarms),
            Check::SerializableRead => read_locally(api),
            Check::LinearizableRead => {
                let tolerance = election_tolerance(api.options().election_timeout);
                let read =
                    tokio::time::timeout(api.options().election_timeout, handle.linearizable());
                let result = match read.await {
                    Ok(result) => result.map_err(|error| error.to_string()),
                    Err(_) => {
                        Err("no leader confirmed a read within an election timeout".to_owned())
                    }
                };
                self.confirmed_within(result, Instant::now(), tolerance)
            }
            Check::NonLearner if handle.leadership().is_learner => {
                Err("not supported for learner".to_owned())
            }
            Check::NotDraining if self.draining.load(Ordering::Acquire) => {
                Err("the member is about to stop".to_owned())
            }
            Check::NonLearner | Check::NotDraining => Ok(()),
        }
    }

    /// Forgives a failure for a while after a success.
    fn confirmed_within(
        &self,
        result: Result<(), String>,
        now: Instant,
        tolerance: Duration,
    ) -> Result<(), String> {
        let mut confirmed = self.confirmed.lock();
        match result {
            Ok(()) => {
                *confirmed = Some(now);
                Ok(())
            }
            Err(_) if confirmed.is_some_and(|last| now.duration_since(last) <= tolerance) => Ok(()),
            Err(reason) => Err(reason),
        }
    }
}

/// How long one election may take: noticing that the leader is gone takes up to two election timeouts, a split vote one
/// more, and probes come seconds apart.
fn election_tolerance(election_timeout: Duration) -> Duration {
    3 * election_timeout + Duration::from_secs(5)
}

fn corruption(alarms: &[(MemberId, Alarm)]) -> Result<(), String> {
    if alarms.iter().any(|(_, alarm)| *alarm == Alarm::Corrupt) {
        Err("alarm activated: CORRUPT".to_owned())
    } else {
        Ok(())
    }
}

/// Reads one key from the files, as etcd does.
fn read_locally(api: &Api) -> Result<(), String> {
    let key = bytes::Bytes::from_static(&[0]);
    let reader = api.handle().reader();
    let one = Range { limit: 1, keys_only: true, ..Range::of(KeyRange::Single(key)) };
    range(&reader, &one, api.handle().published().point)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// What `/health` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health(Result<(), String>);

impl Health {
    /// Asks the member, as `/health?exclude=…&serializable=…` wants it.
    pub(super) async fn of(api: &Api, excluded: &[&str], serializable: bool) -> Self {
        let handle = api.handle();
        let leader = handle.leadership().leader;
        if let Some(reason) = complaint(&handle.published().alarms, excluded, leader, serializable)
        {
            return Self(Err(reason.to_owned()));
        }
        let read = if serializable {
            read_locally(api)
        } else {
            handle.linearizable().await.map_err(|error| error.to_string())
        };
        Self(read.map_err(|error| format!("RANGE ERROR:{error}")))
    }

    /// Whether all is well.
    pub(super) fn is_well(&self) -> bool {
        self.0.is_ok()
    }

    /// etcd's JSON.
    pub(super) fn json(&self) -> String {
        let reason = self.0.as_ref().err().map_or("", String::as_str);
        // Debug's escapes are JSON's for the printable ASCII that reasons are made of.
        format!("{{\"health\":\"{}\",\"reason\":{reason:?}}}", self.is_well())
    }
}

/// What is wrong without a read.
fn complaint(
    alarms: &[(MemberId, Alarm)],
    excluded: &[&str],
    leader: MemberId,
    serializable: bool,
) -> Option<&'static str> {
    for (_, alarm) in alarms {
        let (name, reason) = match alarm {
            Alarm::NoSpace => ("NOSPACE", "ALARM NOSPACE"),
            Alarm::Corrupt => ("CORRUPT", "ALARM CORRUPT"),
            Alarm::None => ("NONE", "ALARM UNKNOWN"),
        };
        if !excluded.contains(&name) {
            return Some(reason);
        }
    }
    (!serializable && leader == MemberId(0)).then_some("RAFT NO LEADER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_forgives_one_election_and_no_more() {
        let readiness = Readiness::default();
        let tolerance = election_tolerance(Duration::from_secs(1));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let failed = || Err("no leader".to_owned());
        assert!(readiness.confirmed_within(failed(), start, tolerance).is_err(), "never confirmed");
        assert!(readiness.confirmed_within(Ok(()), start, tolerance).is_ok());
        assert!(readiness.confirmed_within(failed(), at(8), tolerance).is_ok());
        assert!(readiness.confirmed_within(failed(), at(9), tolerance).is_err());
        assert!(readiness.confirmed_within(Ok(()), at(10), tolerance).is_ok());
        assert!(readiness.confirmed_within(failed(), at(11), tolerance).is_ok());
    }

    #[test]
    fn health_complains_in_etcds_words() {
        let (no_space, corrupt) = ((MemberId(1), Alarm::NoSpace), (MemberId(2), Alarm::Corrupt));
        let (leader, none) = (MemberId(1), MemberId(0));
        for (alarms, excluded, leader, serializable, expected) in [
            (&[][..], &[][..], leader, false, None),
            (&[no_space], &[], leader, false, Some("ALARM NOSPACE")),
            (&[no_space], &["NOSPACE"], leader, false, None),
            (&[no_space, corrupt], &["NOSPACE"], leader, false, Some("ALARM CORRUPT")),
            (&[], &[], none, false, Some("RAFT NO LEADER")),
            (&[], &[], none, true, None),
            (&[corrupt], &["NOSPACE"], none, true, Some("ALARM CORRUPT")),
        ] {
            assert_eq!(complaint(alarms, excluded, leader, serializable), expected);
        }
        assert_eq!(Health(Ok(())).json(), r#"{"health":"true","reason":""}"#);
        let ill = Health(Err("ALARM NOSPACE".to_owned()));
        assert_eq!(ill.json(), r#"{"health":"false","reason":"ALARM NOSPACE"}"#);
    }

    #[test]
    fn only_corruption_is_about_data() {
        assert!(corruption(&[(MemberId(1), Alarm::NoSpace)]).is_ok());
        assert_eq!(
            corruption(&[(MemberId(1), Alarm::Corrupt)]).unwrap_err(),
            "alarm activated: CORRUPT"
        );
    }

    #[test]
    fn liveness_asks_for_nothing_that_a_restart_cannot_cure() {
        assert!(!LIVEZ.contains(&Check::LinearizableRead) && !LIVEZ.contains(&Check::NotDraining));
    }
}
