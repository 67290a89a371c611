//! What the operator counts about itself and about its clusters, in OpenMetrics text.
//!
//! Names follow Prometheus' rules: units last, counters end in `_total` (the encoder appends it,
//! so it is not written here).

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How a reconciliation ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// One kind of action of a plan and whether it succeeded.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    outcome: &'static str,
}

/// One request to a member and how it ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    outcome: &'static str,
}

/// One StoreCluster.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClusterLabels {
    namespace: String,
    name: String,
}

/// Every metric of the process.
pub(crate) struct Metrics {
    registry: Registry,
    reconciliations: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    actions: Family<ActionLabels, Counter>,
    store_requests: Family<RequestLabels, Counter>,
    leader: Gauge,
    desired: Family<ClusterLabels, Gauge>,
    ready: Family<ClusterLabels, Gauge>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// Registers everything; the values begin at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("quorate_operator");
        let reconciliations = Family::default();
        registry.register(
            "reconciliations",
            "Reconciliations by outcome",
            Family::clone(&reconciliations),
        );
        // From a millisecond to half a minute: caches alone, up to a member that must time out.
        let reconcile_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        registry.register(
            "reconcile_duration_seconds",
            "Time from the start of a reconciliation to its end",
            reconcile_seconds.clone(),
        );
        let actions = Family::default();
        registry.register("actions", "Actions of plans, by outcome", Family::clone(&actions));
        let store_requests = Family::default();
        registry.register(
            "store_requests",
            "Requests to members of clusters, by outcome",
            Family::clone(&store_requests),
        );
        let leader = Gauge::default();
        registry.register("leader", "1 while this process holds the Lease", leader.clone());
        let desired = Family::default();
        registry.register(
            "cluster_desired_members",
            "Members that each StoreCluster asks for",
            Family::clone(&desired),
        );
        let ready = Family::default();
        registry.register(
            "cluster_ready_members",
            "Members of each StoreCluster that vote and answer",
            Family::clone(&ready),
        );
        Metrics {
            registry,
            reconciliations,
            reconcile_seconds,
            actions,
            store_requests,
            leader,
            desired,
            ready,
        }
    }

    /// A reconciliation ended as `outcome` after `took`.
    pub(crate) fn reconciled(&self, outcome: &'static str, took: Duration) {
        self.reconciliations.get_or_create(&Outcome { outcome }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// An action was carried out or failed.
    pub(crate) fn acted(&self, action: &'static str, succeeded: bool) {
        let outcome = outcome(succeeded);
        self.actions.get_or_create(&ActionLabels { action, outcome }).inc();
    }

    /// A member was asked.
    pub(crate) fn asked(&self, method: &'static str, succeeded: bool) {
        let outcome = outcome(succeeded);
        self.store_requests.get_or_create(&RequestLabels { method, outcome }).inc();
    }

    /// This process began or ceased to lead.
    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// The sizes of one cluster as status tells them.
    pub(crate) fn cluster(&self, namespace: &str, name: &str, desired: i64, ready: i64) {
        let labels = ClusterLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.desired.get_or_create(&labels).set(desired);
        self.ready.get_or_create(&labels).set(ready);
    }

    /// A cluster is gone, and so are its series.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let labels = ClusterLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.desired.remove(&labels);
        self.ready.remove(&labels);
    }

    /// The page, as OpenMetrics text.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn outcome(succeeded: bool) -> &'static str {
    if succeeded { "success" } else { "failure" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_counts_and_forgets() {
        let metrics = Metrics::new();
        metrics.reconciled("settled", Duration::from_millis(3));
        metrics.acted("MemberAdd", false);
        metrics.asked("Status", true);
        metrics.leads(true);
        metrics.cluster("ns", "demo", 3, 2);
        let text = metrics.text().unwrap();
        for line in [
            "quorate_operator_reconciliations_total{outcome=\"settled\"} 1",
            "quorate_operator_actions_total{action=\"MemberAdd\",outcome=\"failure\"} 1",
            "quorate_operator_store_requests_total{method=\"Status\",outcome=\"success\"} 1",
            "quorate_operator_leader 1",
            "quorate_operator_cluster_desired_members{namespace=\"ns\",name=\"demo\"} 3",
            "quorate_operator_cluster_ready_members{namespace=\"ns\",name=\"demo\"} 2",
            "quorate_operator_reconcile_duration_seconds_count 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|have| have == line), "no line `{line}` in\n{text}");
        }
        metrics.forget("ns", "demo");
        assert!(!metrics.text().unwrap().contains("demo"), "a deleted cluster leaves series");
    }
}
