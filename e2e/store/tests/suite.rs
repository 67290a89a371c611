//! etcd's own cross-process suite with our server in etcd's place.

#![allow(clippy::unwrap_used, reason = "a test says that it failed by a panic")]

use quorate_e2e_store::{binary, suite};
use quorate_kubernetes::Progress;

/// Leaves of the suite that must pass; what is left out is in `suite/left-out.txt`. It only grows.
const PASSED_MIN: usize = 130;

#[test]
fn etcds_own_suite_passes() {
    let progress = Progress::start();
    let server = binary::quorate().unwrap();
    let left_out = suite::left_out().unwrap();
    let directory = tempfile::TempDir::with_prefix("quorate-suite-").unwrap();
    let (results, log) = suite::run(&server, &left_out, directory.path(), &progress).unwrap();
    let counts = format!(
        "etcd's suite {}: {} passed, {} failed, {} skipped themselves; {} patterns left out",
        suite::VERSION,
        results.passed.len(),
        results.failed.len(),
        results.skipped.len(),
        left_out.len()
    );
    progress.say(&counts);
    for line in &left_out {
        progress.say(format!("left out: {} ({})", line.pattern, line.reason));
    }
    if !results.failed.is_empty() {
        println!("{}", std::fs::read_to_string(log).unwrap());
    }
    assert!(results.failed.is_empty(), "{counts}\nfailed: {:#?}", results.failed);
    assert!(results.passed.len() >= PASSED_MIN, "{counts}, {PASSED_MIN} must pass");
}
