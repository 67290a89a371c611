//! Every rule on this tree, one test each.

use std::sync::OnceLock;

use quorate_tidy::{
    Finding, Tree,
    finding::report,
    manifest::Workspace,
    rules::{
        concurrency, copies, documents, failures, habits, invariants, layering, manifests, metrics,
        purity,
    },
};

fn tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(|| Tree::load().expect("the tree can be read"))
}

fn workspace() -> &'static Workspace {
    static WORKSPACE: OnceLock<Workspace> = OnceLock::new();
    WORKSPACE.get_or_init(|| Workspace::load(tree()).expect("cargo metadata answers"))
}

#[track_caller]
fn hold(rule: &str, findings: &[Finding]) {
    assert!(findings.is_empty(), "{}", report(rule, findings));
}

/// Without this, a rule that is given nothing would be kept.
#[test]
fn there_is_something_to_look_at() {
    let tree = tree();
    assert!(tree.rust.len() > 200, "only {} Rust files were read", tree.rust.len());
    for path in ["node/src/run.rs", "crds/src/lib.rs", "e2e/tidy/src/rules/purity.rs"] {
        assert!(tree.rust.iter().any(|file| file.path == path), "{path} was not read");
    }
    for directory in purity::PURE {
        let read = tree.rust_below(directory).count();
        assert!(read > 10, "only {read} files of {directory} were read");
    }
    let code = purity::pure_files(tree).flat_map(quorate_tidy::SourceFile::code);
    let (tests, rest): (Vec<_>, Vec<_>) = code.partition(|(_, _, for_tests)| *for_tests);
    assert!(tests.len() > 1000 && rest.len() > 5000, "{} and {}", tests.len(), rest.len());
    assert!(workspace().packages.len() >= 16, "{:?}", workspace().packages);
    assert!(workspace().dependencies.len() > 60);
}

#[test]
fn rooms_import_only_whom_they_may() {
    hold("layering", &layering::check(layering::ROOMS, workspace()));
}

#[test]
fn pure_crates_are_pure() {
    hold("purity", &purity::words(tree()));
}

#[test]
fn pure_crates_are_linted_as_pure() {
    hold("pure lints", &purity::links(tree()).expect("links can be read"));
}

#[test]
fn files_open_with_their_one_job() {
    hold("header", &habits::headers(tree()));
}

#[test]
fn crates_open_with_an_essay() {
    hold("essay", &habits::essays(tree()));
}

#[test]
fn files_are_short_enough_to_read() {
    hold("length", &habits::lengths(tree()));
}

#[test]
fn modules_are_named_after_what_they_hold() {
    hold("module names", &habits::module_names(tree()));
}

#[test]
fn lints_are_set_aside_with_a_reason() {
    hold("lint exceptions", &habits::lint_exceptions(tree()));
}

#[test]
fn nothing_is_left_open() {
    hold("marks", &habits::marks(tree()));
}

#[test]
fn nobody_sleeps() {
    hold("sleep", &concurrency::sleeps(tree(), concurrency::SLEEPS));
}

#[test]
fn tasks_and_threads_start_in_wiring() {
    hold("spawn", &concurrency::spawns(tree(), concurrency::SPAWNS));
}

#[test]
fn one_thing_wakes_a_loop() {
    hold("select", &concurrency::selects(tree(), concurrency::SELECTS));
}

#[test]
fn queues_have_bounds() {
    hold("unbounded", &concurrency::unbounded(tree(), concurrency::UNBOUNDED));
}

#[test]
fn crates_inherit_versions_and_lints() {
    hold("inheritance", &manifests::inheritance(tree()));
}

#[test]
fn dependencies_have_users() {
    hold("unused dependency", &manifests::used(tree(), workspace()));
}

#[test]
fn dependencies_have_reasons() {
    hold("dependencies", &documents::dependencies(tree()));
}

#[test]
fn invariants_are_promised_and_asserted() {
    hold("invariants", &invariants::check(tree()));
}

#[test]
fn the_chart_carries_the_definitions() {
    hold("copies", &copies::check(tree()));
}

#[test]
fn pages_name_what_exists() {
    hold("paths", &documents::paths(tree()));
}

#[test]
fn every_failure_has_its_row_and_its_tests() {
    hold("failures", &failures::check(tree()));
}

#[test]
fn every_metric_of_the_store_is_listed() {
    hold("metrics", &metrics::check(tree()));
}

#[test]
fn no_registry_is_named() {
    hold("registries", &documents::registries(tree()));
}
