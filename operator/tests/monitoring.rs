//! What watches: every expression of alerts and dashboard is PromQL, and names what the operator or the
//! store really shows (docs/metrics.md, which is held equal to both).

#![expect(clippy::unwrap_used, reason = "a test panics where it fails, and so do its functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::path::Path;

use promql_parser::parser::{Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use quorate_planner::Reason;
use quorate_planner::vocabulary::VOCABULARY;

/// Labels that scraping gives to every series: those of Prometheus, and those that the chart's monitors
/// set (`pod`, `service` and `namespace` are the Prometheus operator's).
const TARGET: [&str; 6] = ["job", "instance", "namespace", "pod", "service", "name"];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn file(name: &str) -> String {
    let path = root().join("charts/quorate-operator/files").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the document says of a metric.
struct Documented {
    kind: String,
    /// The operator's only; the store's are etcd's.
    labels: Option<BTreeSet<String>>,
}

fn documented() -> BTreeMap<String, Documented> {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_end_matches('`').to_owned();
        let labels = (cells.len() > 3).then(|| {
            let labels = cells[2].split(", ").filter(|label| !label.is_empty());
            labels.map(|label| label.trim_matches('`').to_owned()).collect()
        });
        (name, Documented { kind: cells[1].to_owned(), labels })
    })
    .collect()
}

/// Every alert with its expression.
fn alerts() -> Vec<(String, String)> {
    let alerts: serde_yaml_ng::Value = serde_yaml_ng::from_str(&file("alerts.yaml")).unwrap();
    let groups = alerts["groups"].as_sequence().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_sequence().unwrap());
    let text = |value: &serde_yaml_ng::Value| value.as_str().unwrap_or_default().to_owned();
    rules.map(|rule| (text(&rule["alert"]), text(&rule["expr"]))).collect()
}

/// Every panel with its expressions, Grafana's variables filled in.
fn panels() -> Vec<(String, String)> {
    let dashboard: serde_json::Value = serde_json::from_str(&file("dashboard.json")).unwrap();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap().to_owned();
            let text = target["expr"].as_str().unwrap();
            let filled = text.replace("$__rate_interval", "5m").replace("$namespace", ".*");
            expressions.push((title, filled.replace("$name", ".*")));
        }
    }
    expressions
}

/// Collects the selectors of an expression.
#[derive(Default)]
struct Selectors(Vec<VectorSelector>);

impl ExprVisitor for Selectors {
    type Error = Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
        match expression {
            Expr::VectorSelector(selector) => self.0.push(selector.clone()),
            Expr::MatrixSelector(selector) => self.0.push(selector.vs.clone()),
            _other => {}
        }
        Ok(true)
    }
}

fn selectors(place: &str, text: &str) -> Vec<VectorSelector> {
    let expression = promql_parser::parser::parse(text)
        .unwrap_or_else(|error| panic!("{place}: {error}\n{text}"));
    let mut selectors = Selectors::default();
    let Ok(_) = walk_expr(&mut selectors, &expression);
    selectors.0
}

/// The documented metric that a series belongs to: histograms show three names.
fn metric<'a>(known: &'a BTreeMap<String, Documented>, series: &str) -> Option<&'a Documented> {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
        let metric = known.get(series.strip_suffix(suffix)?)?;
        (metric.kind == "histogram").then_some(metric)
    });
    let plain = known.get(series).filter(|metric| metric.kind != "histogram");
    of_histogram.or(plain)
}

#[test]
fn every_expression_names_what_is_shown() {
    let known = documented();
    let (alerts, panels) = (alerts(), panels());
    assert!(alerts.len() >= 20 && panels.len() >= 30, "{} and {}", alerts.len(), panels.len());
    for (place, text) in alerts.iter().chain(&panels) {
        let selectors = selectors(place, text);
        assert!(!selectors.is_empty(), "{place} looks at nothing: {text}");
        for selector in selectors {
            let name =
                selector.name.clone().unwrap_or_else(|| panic!("{place}: a nameless selector"));
            let metric = metric(&known, &name);
            let metric = metric.unwrap_or_else(|| panic!("{place}: nobody shows {name}"));
            for matcher in &selector.matchers.matchers {
                let label = matcher.name.as_str();
                let own = metric.labels.as_ref().is_none_or(|labels| labels.contains(label));
                assert!(own || TARGET.contains(&label), "{place}: {name} has no label {label}");
            }
        }
    }
}

#[test]
fn conditions_and_reasons_in_expressions_are_the_planners() {
    let types: BTreeSet<&str> = VOCABULARY.iter().map(|(type_, ..)| type_.as_str()).collect();
    let mut reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    reasons.extend(VOCABULARY.iter().flat_map(|(.., reasons)| reasons.iter()));
    let mut looked = 0;
    for (place, text) in alerts().iter().chain(&panels()) {
        for selector in selectors(place, text) {
            for matcher in &selector.matchers.matchers {
                let known = match matcher.name.as_str() {
                    "type" => &types,
                    "reason" => &reasons,
                    _other => continue,
                };
                for word in matcher.value.split('|') {
                    looked += 1;
                    assert!(known.contains(word), "{place}: nobody says {word}");
                }
            }
        }
    }
    assert!(looked > 8, "only {looked} words were looked at");
}

#[test]
fn a_store_is_told_from_etcd_by_its_job() {
    // A cluster's own etcd shows the same names.
    for (place, text) in alerts().iter().chain(&panels()) {
        for selector in selectors(place, text) {
            let name = selector.name.unwrap();
            let ours = ["quorate_operator_"].iter().any(|prefix| name.starts_with(prefix));
            let told = selector
                .matchers
                .matchers
                .iter()
                .any(|matcher| matcher.name == "job" && matcher.value == "quorate-store");
            assert!(ours || told, "{place}: {name} without its job is etcd's as well");
        }
    }
}

#[test]
fn every_alert_says_what_happened_and_what_to_do() {
    let alerts: serde_yaml_ng::Value = serde_yaml_ng::from_str(&file("alerts.yaml")).unwrap();
    let mut names = BTreeSet::new();
    for group in alerts["groups"].as_sequence().unwrap() {
        for rule in group["rules"].as_sequence().unwrap() {
            let name = rule["alert"].as_str().unwrap();
            assert!(name.starts_with("Quorate") && names.insert(name.to_owned()), "{name}");
            for text in ["summary", "description"] {
                let said = rule["annotations"][text].as_str().unwrap_or_default();
                assert!(said.len() > 20, "{name} has no {text}");
            }
            let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
            assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        }
    }
}

#[test]
fn the_parser_would_notice() {
    assert!(promql_parser::parser::parse("sum by (a (b)").is_err());
    assert!(promql_parser::parser::parse("rate(a)").is_err(), "a range is missing");
    let known = documented();
    assert!(metric(&known, "etcd_server_has_leader").is_some());
    assert!(metric(&known, "etcd_disk_wal_fsync_duration_seconds_bucket").is_some());
    assert!(metric(&known, "etcd_disk_wal_fsync_duration_seconds").is_none(), "has three names");
    assert!(metric(&known, "etcd_server_has_leader_bucket").is_none());
}
