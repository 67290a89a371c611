//! What the operator counts about itself and about its clusters, in OpenMetrics text.
//!
//! Names follow Prometheus' rules: units last, counters end in `_total` (the encoder appends it,
//! so it is not written here). docs/metrics.md lists them all, held equal by a test here.
//!
//! The depth of the work queue is not among them, since kube's controller does not tell it:
//! `reconciliations_running` at `reconciliations_limit` says that clusters queue, and the age of
//! `cluster_last_reconcile_timestamp_seconds` for how long.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::cluster_series::{ClusterSeries, Figures};
use crate::error_policy::ClusterKey;

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

/// Which operator this is.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// Every metric of the process.
pub(crate) struct Metrics {
    registry: Registry,
    reconciliations: Family<Outcome, Counter>,
    reconcile_seconds: Family<Outcome, Histogram, fn() -> Histogram>,
    running: Gauge,
    limit: Gauge,
    backing_off: Gauge,
    actions: Family<ActionLabels, Counter>,
    store_requests: Family<RequestLabels, Counter>,
    leader: Gauge,
    clusters: ClusterSeries,
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

/// From a millisecond to a quarter of a minute: caches alone, up to members that must time out.
fn reconcile_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

impl Metrics {
    /// Registers everything; the values begin at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("quorate_operator");
        let reconcile_seconds: Family<Outcome, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(reconcile_buckets);
        let mut metrics = Metrics {
            clusters: ClusterSeries::register(&mut registry),
            registry,
            reconciliations: Family::default(),
            reconcile_seconds,
            running: Gauge::default(),
            limit: Gauge::default(),
            backing_off: Gauge::default(),
            actions: Family::default(),
            store_requests: Family::default(),
            leader: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let reconciliations = Family::clone(&self.reconciliations);
        registry.register("reconciliations", "Reconciliations by outcome", reconciliations);
        registry.register(
            "reconcile_duration_seconds",
            "Time from the start of a reconciliation to its end, by outcome",
            self.reconcile_seconds.clone(),
        );
        registry.register(
            "reconciliations_running",
            "Reconciliations that run now",
            self.running.clone(),
        );
        registry.register(
            "reconciliations_limit",
            "Reconciliations that may run at the same time; further clusters queue",
            self.limit.clone(),
        );
        registry.register(
            "clusters_backing_off",
            "StoreClusters whose last step failed: they are looked at, and acted upon later",
            self.backing_off.clone(),
        );
        let actions = Family::clone(&self.actions);
        registry.register("actions", "Actions of plans, by outcome", actions);
        registry.register(
            "store_requests",
            "Requests to members of clusters, by outcome",
            Family::clone(&self.store_requests),
        );
        registry.register("leader", "1 while this process holds the Lease", self.leader.clone());
        let build: Family<BuildLabels, Gauge> = Family::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "Always 1; what it tells is the label", build);
    }

    /// A reconciliation began; it runs until what is returned is dropped.
    pub(crate) fn begin(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    /// So many reconciliations may run at the same time.
    pub(crate) fn bounded(&self, limit: usize) {
        self.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// A reconciliation ended as `outcome` after `took`.
    pub(crate) fn reconciled(&self, outcome: &'static str, took: Duration) {
        self.reconciliations.get_or_create(&Outcome { outcome }).inc();
        self.reconcile_seconds.get_or_create(&Outcome { outcome }).observe(took.as_secs_f64());
    }

    /// So many objects are failing.
    pub(crate) fn backing_off(&self, clusters: usize) {
        self.backing_off.set(i64::try_from(clusters).unwrap_or(i64::MAX));
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

    /// What a pass saw of a cluster.
    pub(crate) fn saw(&self, key: &ClusterKey, figures: &Figures) {
        self.clusters.saw(key, figures, Timestamp::now());
    }

    /// A StoreCluster cannot be decoded.
    pub(crate) fn cannot_decode(&self, key: &ClusterKey) {
        self.clusters.cannot_decode(key);
    }

    /// A cluster is gone, and so are its series.
    pub(crate) fn forget(&self, key: &ClusterKey) {
        self.clusters.forget(key);
    }

    /// The page, as OpenMetrics text.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// A reconciliation that runs. Dropped when it ends, abandoned ones too.
#[derive(Debug)]
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn outcome(succeeded: bool) -> &'static str {
    if succeeded { "success" } else { "failure" }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::cluster_series::tests::{figures, key};

    /// Metrics of which every family has a series.
    fn used() -> Metrics {
        let metrics = Metrics::new();
        metrics.reconciled("settled", Duration::from_millis(3));
        metrics.acted("MemberAdd", false);
        metrics.asked("Status", true);
        metrics.leads(true);
        metrics.bounded(8);
        metrics.backing_off(2);
        metrics.saw(&key("demo"), &figures());
        metrics.cannot_decode(&key("newer"));
        metrics
    }

    #[test]
    fn the_page_counts_and_forgets() {
        let metrics = used();
        let running = metrics.begin();
        let text = metrics.text().unwrap();
        for line in [
            "quorate_operator_reconciliations_total{outcome=\"settled\"} 1",
            "quorate_operator_actions_total{action=\"MemberAdd\",outcome=\"failure\"} 1",
            "quorate_operator_store_requests_total{method=\"Status\",outcome=\"success\"} 1",
            "quorate_operator_leader 1",
            "quorate_operator_reconciliations_running 1",
            "quorate_operator_reconciliations_limit 8",
            "quorate_operator_clusters_backing_off 2",
            "quorate_operator_cluster_desired_members{namespace=\"ns\",name=\"demo\"} 3",
            "quorate_operator_cluster_ready_members{namespace=\"ns\",name=\"demo\"} 2",
            "quorate_operator_cluster_undecodable{namespace=\"ns\",name=\"newer\"} 1",
            "quorate_operator_reconcile_duration_seconds_count{outcome=\"settled\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|have| have == line), "no line `{line}` in\n{text}");
        }
        drop(running);
        assert!(metrics.text().unwrap().contains("reconciliations_running 0"));
        metrics.forget(&key("demo"));
        assert!(!metrics.text().unwrap().contains("demo"), "a deleted cluster leaves series");
    }

    /// What a page or the document says of a metric: type, labels, help.
    type Families = BTreeMap<String, (String, BTreeSet<String>, String)>;

    fn on_the_page(text: &str) -> Families {
        let mut families = Families::new();
        let mut begun = String::new();
        for line in text.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' '))
            {
                begun = name.to_owned();
                families.entry(begun.clone()).or_default().2 =
                    help.trim_end_matches('.').to_owned();
            } else if let Some((_, kind)) =
                line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
            {
                families.entry(begun.clone()).or_default().0 = kind.to_owned();
            } else if let Some((_, labels)) = line.split_once('{') {
                let labels = labels.rsplit_once('}').unwrap().0;
                let names = labels.split("\",").filter_map(|label| label.split_once('='));
                let names = names.map(|(name, _)| name.to_owned()).filter(|name| name != "le");
                families.get_mut(&begun).unwrap().1.extend(names);
            }
        }
        let named = |(name, family): (String, (String, BTreeSet<String>, String))| {
            let suffix = if family.0 == "counter" { "_total" } else { "" };
            (format!("{name}{suffix}"), family)
        };
        families.into_iter().map(named).collect()
    }

    fn in_the_document() -> Families {
        let page = include_str!("../../docs/metrics.md");
        let section = page.split("## The operator").nth(1).expect("its section");
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| {
            let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
            let labels = cells[2].split(", ").filter(|label| !label.is_empty());
            let labels = labels.map(|label| label.trim_matches('`').to_owned()).collect();
            let name = cells[0].trim_end_matches('`').to_owned();
            (name, (cells[1].to_owned(), labels, cells[3].to_owned()))
        })
        .collect()
    }

    #[test]
    fn the_document_lists_the_page_and_nothing_else() {
        let page = on_the_page(&used().text().unwrap());
        let document = in_the_document();
        assert!(page.len() >= 18, "{:?}", page.keys());
        for (name, family) in &page {
            assert_eq!(document.get(name), Some(family), "docs/metrics.md on {name}");
            assert!(!family.2.is_empty(), "{name} has no help");
        }
        let stale: Vec<_> = document.keys().filter(|name| !page.contains_key(*name)).collect();
        assert!(stale.is_empty(), "not exposed: {stale:?}");
    }
}
