//! The series of each StoreCluster: what its last pass saw, and nothing of what is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use quorate_crds::{MemberRole, StoreClusterStatus};
use quorate_planner::{Alarm, Observed, Plan};

use crate::error_policy::ClusterKey;

/// One StoreCluster.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClusterLabels {
    namespace: String,
    name: String,
}

/// One condition of a StoreCluster.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ConditionLabels {
    namespace: String,
    name: String,
    r#type: String,
    reason: String,
}

/// One thing that a StoreCluster waits for.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct WaitLabels {
    namespace: String,
    name: String,
    reason: &'static str,
}

/// One kind of alarm of a StoreCluster.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AlarmLabels {
    namespace: String,
    name: String,
    alarm: &'static str,
}

/// What one pass saw of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    desired: i64,
    listed: i64,
    voters: i64,
    ready: i64,
    /// Type, reason, and the value for its status.
    conditions: Vec<(String, String, i64)>,
    waits: BTreeSet<&'static str>,
    alarms: BTreeMap<&'static str, i64>,
}

impl Figures {
    /// The figures of a cluster that was observed and planned for.
    pub(crate) fn of(desired: i32, observed: &Observed, plan: &Plan) -> Figures {
        let status: &StoreClusterStatus = plan.status.as_ref().unwrap_or(&observed.status);
        let voters = status.members.iter().filter(|member| member.role == MemberRole::Voter);
        let conditions = status.conditions.iter().map(|condition| {
            let value = match condition.status.as_str() {
                "True" => 1,
                "False" => 0,
                _unknown => -1,
            };
            (condition.type_.clone(), condition.reason.clone(), value)
        });
        Figures {
            desired: desired.into(),
            listed: status.replicas.into(),
            voters: i64::try_from(voters.count()).unwrap_or(i64::MAX),
            ready: status.ready_replicas.into(),
            conditions: conditions.collect(),
            waits: plan.waiting.iter().map(|waiting| waiting.reason.as_str()).collect(),
            alarms: count(&observed.alarms()),
        }
    }
}

/// How many members raised each alarm.
fn count(standing: &BTreeSet<(u64, Alarm)>) -> BTreeMap<&'static str, i64> {
    let members = |alarm| standing.iter().filter(|(_member, raised)| *raised == alarm).count();
    let counts = Alarm::ALL.map(|it| (it.as_str(), i64::try_from(members(it)).unwrap_or(i64::MAX)));
    counts.into_iter().collect()
}

/// The series of all clusters.
#[derive(Debug, Default)]
pub(crate) struct ClusterSeries {
    desired: Family<ClusterLabels, Gauge>,
    listed: Family<ClusterLabels, Gauge>,
    voters: Family<ClusterLabels, Gauge>,
    ready: Family<ClusterLabels, Gauge>,
    looked_at: Family<ClusterLabels, Gauge>,
    undecodable: Family<ClusterLabels, Gauge>,
    conditions: Family<ConditionLabels, Gauge>,
    waits: Family<WaitLabels, Gauge>,
    alarms: Family<AlarmLabels, Gauge>,
    /// Which conditions and waits a cluster has a series of.
    shown: Mutex<BTreeMap<ClusterKey, Shown>>,
}

#[derive(Debug, Default)]
struct Shown {
    conditions: BTreeSet<ConditionLabels>,
    waits: BTreeSet<WaitLabels>,
}

impl ClusterSeries {
    /// The families, registered.
    pub(crate) fn register(registry: &mut Registry) -> ClusterSeries {
        let series = ClusterSeries::default();
        for (name, help, family) in [
            ("cluster_desired_members", "Members that spec.replicas asks for", &series.desired),
            ("cluster_members", "Members that the store lists, learners included", &series.listed),
            ("cluster_voters", "Members that have a vote", &series.voters),
            ("cluster_ready_members", "Members that have a vote and are ready", &series.ready),
            (
                "cluster_last_reconcile_timestamp_seconds",
                "When the StoreCluster was last observed and planned for, since the epoch",
                &series.looked_at,
            ),
            (
                "cluster_undecodable",
                "1 for a StoreCluster that this operator cannot decode and leaves alone",
                &series.undecodable,
            ),
        ] {
            registry.register(name, help, Family::clone(family));
        }
        registry.register(
            "cluster_condition",
            "1 while a condition of the StoreCluster is True, 0 while it is False, -1 while it is Unknown",
            Family::clone(&series.conditions),
        );
        registry.register(
            "cluster_waiting",
            "1 for each reason for which something is not done now",
            Family::clone(&series.waits),
        );
        registry.register(
            "cluster_alarms",
            "Members of the store that have raised an alarm",
            Family::clone(&series.alarms),
        );
        series
    }

    /// A pass saw this at `now`. What the last pass saw and this one did not has no series any more.
    pub(crate) fn saw(&self, key: &ClusterKey, figures: &Figures, now: Timestamp) {
        let labels = cluster(key);
        self.desired.get_or_create(&labels).set(figures.desired);
        self.listed.get_or_create(&labels).set(figures.listed);
        self.voters.get_or_create(&labels).set(figures.voters);
        self.ready.get_or_create(&labels).set(figures.ready);
        self.looked_at.get_or_create(&labels).set(now.as_second());
        self.undecodable.remove(&labels);
        for (alarm, members) in &figures.alarms {
            self.alarms.get_or_create(&alarm_of(key, alarm)).set(*members);
        }
        let mut next = Shown::default();
        for (type_, reason, value) in &figures.conditions {
            let (type_, reason) = (type_.clone(), reason.clone());
            let (namespace, name) = key.clone();
            let labels = ConditionLabels { namespace, name, r#type: type_, reason };
            self.conditions.get_or_create(&labels).set(*value);
            next.conditions.insert(labels);
        }
        for reason in &figures.waits {
            let (namespace, name) = key.clone();
            let labels = WaitLabels { namespace, name, reason };
            self.waits.get_or_create(&labels).set(1);
            next.waits.insert(labels);
        }
        let mut shown = self.shown();
        let last = shown.insert(key.clone(), next).unwrap_or_default();
        if let Some(next) = shown.get(key) {
            self.clear(&last, next);
        }
    }

    /// A StoreCluster cannot be decoded. What was seen of it before is left, with its time.
    pub(crate) fn cannot_decode(&self, key: &ClusterKey) {
        self.undecodable.get_or_create(&cluster(key)).set(1);
    }

    /// A cluster is gone, and so are its series.
    pub(crate) fn forget(&self, key: &ClusterKey) {
        let labels = cluster(key);
        for family in [
            &self.desired,
            &self.listed,
            &self.voters,
            &self.ready,
            &self.looked_at,
            &self.undecodable,
        ] {
            family.remove(&labels);
        }
        for alarm in Alarm::ALL {
            self.alarms.remove(&alarm_of(key, alarm.as_str()));
        }
        let last = self.shown().remove(key).unwrap_or_default();
        self.clear(&last, &Shown::default());
    }

    fn clear(&self, last: &Shown, next: &Shown) {
        for labels in last.conditions.difference(&next.conditions) {
            self.conditions.remove(labels);
        }
        for labels in last.waits.difference(&next.waits) {
            self.waits.remove(labels);
        }
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<ClusterKey, Shown>> {
        // A list that was left half-written by a panic costs a stale series and nothing else.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cluster((namespace, name): &ClusterKey) -> ClusterLabels {
    ClusterLabels { namespace: namespace.clone(), name: name.clone() }
}

fn alarm_of((namespace, name): &ClusterKey, alarm: &'static str) -> AlarmLabels {
    AlarmLabels { namespace: namespace.clone(), name: name.clone(), alarm }
}

#[cfg(test)]
pub(crate) mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    pub(crate) fn key(name: &str) -> ClusterKey {
        ("ns".to_owned(), name.to_owned())
    }

    /// Figures with something for every family.
    pub(crate) fn figures() -> Figures {
        Figures {
            desired: 3,
            listed: 4,
            voters: 3,
            ready: 2,
            conditions: vec![("Degraded".into(), "MemberDown".into(), 1)],
            waits: BTreeSet::from(["MemberDown"]),
            alarms: BTreeMap::from([("NOSPACE", 1), ("CORRUPT", 0)]),
        }
    }

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn what_a_pass_does_not_see_any_more_has_no_series() {
        let mut registry = Registry::default();
        let series = ClusterSeries::register(&mut registry);
        series.saw(&key("demo"), &figures(), Timestamp::UNIX_EPOCH);
        series.saw(&key("other"), &figures(), Timestamp::UNIX_EPOCH);
        let page = text(&registry);
        for line in [
            "cluster_condition{namespace=\"ns\",name=\"demo\",type=\"Degraded\",reason=\"MemberDown\"} 1",
            "cluster_waiting{namespace=\"ns\",name=\"demo\",reason=\"MemberDown\"} 1",
            "cluster_alarms{namespace=\"ns\",name=\"demo\",alarm=\"NOSPACE\"} 1",
            "cluster_alarms{namespace=\"ns\",name=\"demo\",alarm=\"CORRUPT\"} 0",
            "cluster_members{namespace=\"ns\",name=\"demo\"} 4",
        ] {
            assert!(page.lines().any(|have| have == line), "no line `{line}` in\n{page}");
        }
        let mut well = figures();
        well.conditions = vec![("Degraded".into(), "AsExpected".into(), 0)];
        well.waits.clear();
        let second = Timestamp::from_second(42).unwrap();
        series.saw(&key("demo"), &well, second);
        let page = text(&registry);
        let demo: Vec<&str> = page.lines().filter(|line| line.contains("\"demo\"")).collect();
        assert!(!demo.iter().any(|line| line.contains("MemberDown")), "{demo:?}");
        assert!(demo.iter().any(|line| line.contains("AsExpected\"} 0")), "{demo:?}");
        assert!(demo.iter().any(|line| line.contains("timestamp") && line.ends_with(" 42")));
        series.forget(&key("demo"));
        let page = text(&registry);
        assert!(!page.contains("demo") && page.contains("other"), "{page}");
    }

    #[test]
    fn an_undecodable_cluster_has_a_series_until_it_is_mended_or_gone() {
        let mut registry = Registry::default();
        let series = ClusterSeries::register(&mut registry);
        let told = |registry: &Registry| text(registry).contains("undecodable{");
        series.cannot_decode(&key("demo"));
        assert!(told(&registry));
        series.saw(&key("demo"), &figures(), Timestamp::UNIX_EPOCH);
        assert!(!told(&registry), "mended");
        series.cannot_decode(&key("demo"));
        series.forget(&key("demo"));
        assert!(!told(&registry), "gone");
    }

    #[test]
    fn an_alarm_that_nobody_raised_is_counted_too() {
        let two = BTreeSet::from([(1, Alarm::NoSpace), (2, Alarm::NoSpace)]);
        assert_eq!(count(&two), BTreeMap::from([("CORRUPT", 0), ("NOSPACE", 2)]));
    }
}
