//! The chart: its golden renders, its copy of the resource definitions, and what its schema refuses.
//!
//! Needs the helm that the test bed builds: `$QUORATE_HELM`, or `helm-<version>/helm` in the
//! project's cache directory. To accept a change of the renders: `QUORATE_UPDATE_GOLDEN=1`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize as _;
use serde_yaml_ng::Value;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/quorate-operator")
}

/// The helm to test with. None is a failure, not a skip.
fn helm() -> PathBuf {
    if let Some(path) = env::var_os("QUORATE_HELM") {
        return PathBuf::from(path);
    }
    let home = env::var_os("HOME").expect("HOME is set");
    let cache = Path::new(&home).join(".cache/quorate");
    let mut found: Vec<PathBuf> = fs::read_dir(&cache)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("helm-"))
        .map(|entry| entry.path().join("helm"))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!(
            "no helm in {}/helm-*: build the test bed's tools with `cargo xtask cluster up`, or \
             name a helm in QUORATE_HELM",
            cache.display()
        )
    })
}

fn template(arguments: &[&str]) -> Output {
    Command::new(helm())
        .args(["template", "quorate-operator"])
        .arg(chart())
        .args(["--namespace", "quorate-system", "--kube-version", "1.33.0"])
        .args(arguments)
        .output()
        .expect("helm runs")
}

fn check_golden(name: &str, arguments: &[&str]) {
    let output = template(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "helm template failed: {errors}");
    let rendered = String::from_utf8(output.stdout).expect("helm prints UTF-8");
    let golden = chart().join("tests/golden").join(format!("{name}.yaml"));
    if env::var_os("QUORATE_UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &rendered).expect("the golden file can be written");
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    if let Some((number, (have, want))) =
        rendered.lines().zip(expected.lines()).enumerate().find(|(_, (have, want))| have != want)
    {
        let line = number + 1;
        panic!("{}:{line}\n  rendered: {have}\n  golden:   {want}", golden.display());
    }
    assert_eq!(
        rendered.lines().count(),
        expected.lines().count(),
        "{} has another length than what is rendered",
        golden.display()
    );
}

fn refuses(arguments: &[&str], because: &str) {
    let output = template(arguments);
    assert!(!output.status.success(), "{arguments:?} was accepted");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(because), "{arguments:?} was refused with other words: {errors}");
}

#[test]
fn the_default_values_render_as_committed() {
    check_golden("default", &[]);
}

#[test]
fn a_confined_operator_renders_as_committed() {
    let values = chart().join("tests/confined.values.yaml");
    check_golden("confined", &["--values", values.to_str().unwrap()]);
}

#[test]
fn a_confined_operator_has_no_right_outside_its_namespaces() {
    let values = chart().join("tests/confined.values.yaml");
    let output = template(&["--values", values.to_str().unwrap()]);
    let rendered = String::from_utf8(output.stdout).unwrap();
    assert!(rendered.contains("kind: Role\n"));
    assert!(!rendered.contains("kind: ClusterRole"), "cluster-wide rights for two namespaces");
}

fn rendered(arguments: &[&str]) -> Vec<Value> {
    let output = template(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("helm prints UTF-8");
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).expect("YAML"))
        .filter(|document| !document.is_null())
        .collect()
}

#[test]
fn what_watches_renders_as_committed() {
    let values = chart().join("tests/monitored.values.yaml");
    let values = values.to_str().unwrap();
    check_golden("monitored", &["--values", values, "--show-only", "templates/monitors.yaml"]);
    let documents = rendered(&["--values", values]);
    let of_kind = |kind: &str| {
        let mut found = documents.iter().filter(|document| document["kind"] == kind);
        found.next().unwrap_or_else(|| panic!("no {kind} is rendered"))
    };
    let file = |name: &str| fs::read_to_string(chart().join("files").join(name)).unwrap();
    let rules = of_kind("PrometheusRule");
    let alerts: Value = serde_yaml_ng::from_str(&file("alerts.yaml")).unwrap();
    assert_eq!(rules["spec"], alerts, "the rules are not carried as they are");
    assert_eq!(rules["metadata"]["labels"]["release"], "prometheus");
    let map = of_kind("ConfigMap");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let carried = map["data"]["quorate.json"].as_str().expect("the dashboard");
    assert_eq!(carried.trim_end(), file("dashboard.json").trim_end());
}

#[test]
fn nothing_watches_unless_it_is_asked_for() {
    let kinds: Vec<String> = rendered(&[])
        .iter()
        .map(|document| document["kind"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(kinds.contains(&"Deployment".to_owned()), "{kinds:?}");
    for kind in ["ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap", "Service"] {
        assert!(!kinds.contains(&kind.to_owned()), "{kind} is rendered by default");
    }
}

#[test]
fn stores_of_a_confined_operator_are_scraped_where_it_serves() {
    let values = chart().join("tests/confined.values.yaml");
    let switch = "monitoring.podMonitor.enabled=true";
    let documents = rendered(&["--values", values.to_str().unwrap(), "--set", switch]);
    let monitor = documents.iter().find(|document| document["kind"] == "PodMonitor").unwrap();
    let namespaces = monitor["spec"]["namespaceSelector"]["matchNames"].as_sequence().unwrap();
    assert_eq!(
        namespaces.iter().filter_map(Value::as_str).collect::<Vec<_>>(),
        ["team-a", "team-b"]
    );
}

#[test]
fn definitions_are_no_part_of_the_release_and_stay_when_it_goes() {
    // What helm renders as a template it deletes with the release; what lies in crds/ it never does.
    let kinds = rendered(&[]);
    assert!(!kinds.iter().any(|document| document["kind"] == "CustomResourceDefinition"));
    let with = rendered(&["--include-crds"]);
    let definition = with.iter().find(|document| document["kind"] == "CustomResourceDefinition");
    let name = definition.expect("it lies in crds/")["metadata"]["name"].as_str();
    assert_eq!(name, Some("storeclusters.quorate.dev"));
    let notes = Command::new(helm())
        .args(["install", "quorate-operator"])
        .arg(chart())
        .args(["--namespace", "quorate-system", "--dry-run=client"])
        .output()
        .expect("helm runs");
    let notes = String::from_utf8(notes.stdout).unwrap();
    let notes = notes.split("NOTES:").nth(1).expect("helm prints the notes");
    for part in ["Helm never deletes", "delete the\nStoreClusters first", "kubectl delete -f crds/"]
    {
        assert!(notes.contains(part), "the notes do not say `{part}`:\n{notes}");
    }
}

#[test]
fn values_that_do_nothing_are_refused() {
    refuses(&["--set", "monitoring.rules.enable=true"], "enable");
    refuses(&["--set", "monitoring.interval=often"], "interval");
    refuses(&["--set", "replcias=2"], "replcias");
    refuses(&["--set", "log.format=xml"], "format");
    refuses(&["--set", "serviceAccount.create=false"], "name");
    refuses(&["--set", "namespaces={Upper}"], "namespaces");
}

#[test]
fn the_chart_carries_the_resource_definitions_that_the_types_generate() {
    let generated = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
    let mut names = Vec::new();
    for entry in fs::read_dir(&generated).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".yaml") {
            let copy = chart().join("crds").join(&name);
            let same = fs::read(&copy).ok() == Some(fs::read(entry.path()).unwrap());
            assert!(same, "{name} is stale in the chart: cp crds/*.yaml {}", copy.display());
            names.push(name);
        }
    }
    let mut carried: Vec<String> = fs::read_dir(chart().join("crds"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    carried.sort();
    assert!(!names.is_empty(), "crdgen has written nothing");
    assert_eq!(carried, names, "the chart carries other files than the types generate");
}
