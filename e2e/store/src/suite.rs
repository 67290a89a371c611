//! etcd's own cross-process tests, run with another binary in etcd's place.
//!
//! Facts about the suite: `go.etcd.io/etcd/tests/v3`, package `common` with the build tag `e2e`. It wants a directory
//! with programs called `etcd`, `etcdctl` and `etcdutl`, a writable copy of its fixtures, absolute paths, and the ports
//! from 20000 up, so one run at a time on a host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use quorate_kubernetes::{Progress, command, components};

use crate::binary;

/// The version of the suite, which `suite/go.mod` must require.
pub const VERSION: &str = "3.7.3";

/// The package of the suite that is run.
const PACKAGE: &str = "go.etcd.io/etcd/tests/v3/common";

/// The suite's own time limit: four times what a run takes on two busy cores.
const TIMEOUT: &str = "1200s";

/// A line of `suite/left-out.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What `go test -skip` takes.
    pub pattern: String,
    /// Why.
    pub reason: String,
}

/// How the tests of a run ended. Only leaves count: a test that has subtests is as good as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Leaves that passed.
    pub passed: BTreeSet<String>,
    /// Leaves that failed, and tests that failed though their leaves did not.
    pub failed: BTreeSet<String>,
    /// Leaves that skipped themselves.
    pub skipped: BTreeSet<String>,
}

/// Reads `suite/left-out.txt`.
///
/// # Errors
/// It cannot be read, or a line has no reason.
pub fn left_out() -> Result<Vec<LeftOut>> {
    let path = source().join("left-out.txt");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        let (pattern, reason) = line.split_once('\t').with_context(|| {
            format!("{}: {line:?} gives no reason; put one behind a tab", path.display())
        })?;
        Ok(LeftOut { pattern: pattern.to_owned(), reason: reason.trim().to_owned() })
    };
    lines.map(read).collect()
}

/// Runs the suite against a server, all but what is left out, and returns how it ended and the path of its log.
///
/// # Errors
/// It could not be built or started. Failed tests are no error here.
pub fn run(
    server: &Path,
    left_out: &[LeftOut],
    directory: &Path,
    progress: &Progress,
) -> Result<(Results, PathBuf)> {
    let suite = build(progress)?;
    let (programs, fixtures, work) =
        (directory.join("bin"), directory.join("fixtures"), directory.join("work"));
    for made in [&programs, &fixtures, &work] {
        fs::create_dir_all(made).with_context(|| format!("make {}", made.display()))?;
    }
    symlink(server, programs.join("etcd")).context("put the server in etcd's place")?;
    for tool in ["etcdctl", "etcdutl"] {
        symlink(binary::etcd(tool)?, programs.join(tool)).context("put a tool in its place")?;
    }
    copy_fixtures(&fixtures)?;
    // Shorter paths first: go takes the first pattern that fits, and one that fits only the beginning of a path skips
    // nothing yet, though a later one might.
    let mut patterns: Vec<&str> = left_out.iter().map(|line| line.pattern.as_str()).collect();
    patterns.sort_by_key(|pattern| pattern.matches('/').count());
    let mut tests = Command::new(suite);
    tests.current_dir(&work).env("E2E_TEST_MINIMAL", "true");
    tests.args(["-test.v", "-test.timeout", TIMEOUT, "-test.skip", &patterns.join("|")]);
    tests.arg("-bin-dir").arg(&programs).arg("-cert-dir").arg(&fixtures);
    let log = directory.join("suite.log");
    let status = command::status_logged(&mut tests, &log, "etcd's suite", progress)?;
    let text = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
    let results = Results::read(&String::from_utf8_lossy(&text));
    ensure!(
        status.success() || !results.failed.is_empty(),
        "the suite ended with {status} and named no failed test; the end of its log:\n{}",
        command::tail(&log)
    );
    Ok((results, log))
}

impl Results {
    /// Reads the words of `go test -v`: `--- PASS: TestName/sub (0.1s)`, indented or not.
    #[must_use]
    pub fn read(log: &str) -> Self {
        let mut ends: BTreeMap<&str, &str> = BTreeMap::new();
        for line in log.lines() {
            let Some((end, rest)) =
                line.trim_start().strip_prefix("--- ").and_then(|line| line.split_once(": "))
            else {
                continue;
            };
            if let Some((name, _)) = rest.rsplit_once(" (") {
                ends.insert(name, end);
            }
        }
        let mut results = Self::default();
        for (name, end) in &ends {
            let below = format!("{name}/");
            let parts = || ends.iter().filter(|(other, _)| other.starts_with(&below));
            let is_leaf = parts().next().is_none();
            let into = match *end {
                "PASS" if is_leaf => &mut results.passed,
                "SKIP" if is_leaf => &mut results.skipped,
                // A parent fails with its part, which is listed itself.
                "FAIL" if !parts().any(|(_, end)| *end == "FAIL") => &mut results.failed,
                _ => continue,
            };
            into.insert((*name).to_owned());
        }
        results
    }
}

/// The suite as a program, from the cache.
fn build(progress: &Progress) -> Result<PathBuf> {
    let directory = components::cache().join(format!("etcd-suite-{VERSION}"));
    let program = directory.join("common.test");
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let label = format!("building etcd's suite {VERSION}");
    progress.say(&label);
    // A build that is killed half-way must not be taken for a program: made beside, moved into place.
    let beside = directory.join(".common.test.new");
    let mut go = Command::new("nice");
    go.args(["-n", "5", "go", "test", "-C"]).arg(source()).args(["-c", "-tags", "e2e"]);
    go.args(["-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(&beside).arg(PACKAGE);
    go.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOFLAGS", "");
    command::run_logged(&mut go, &directory.join("build.log"), &label, progress)?;
    fs::rename(&beside, &program).context("move the suite into the cache")?;
    Ok(program)
}

/// The module's own fixtures, writable.
fn copy_fixtures(to: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "go.etcd.io/etcd/tests/v3"]);
    go.current_dir(source()).env("GOTOOLCHAIN", "local").env("GOFLAGS", "");
    let module = command::output(&mut go).context("find the suite's module")?;
    let from = Path::new(module.trim()).join("fixtures");
    for entry in fs::read_dir(&from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        fs::copy(entry.path(), &copy).with_context(|| format!("copy to {}", copy.display()))?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// The directory that pins the suite.
fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("suite")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leaves_count() {
        let log = "\
=== RUN   TestKVGet
--- PASS: TestKVPut (0.31s)
    --- PASS: TestKVPut/NoTLS (0.31s)
--- FAIL: TestKVGet (3.91s)
    --- FAIL: TestKVGet/NoTLS (3.90s)
        --- FAIL: TestKVGet/NoTLS/limit_2 (0.03s)
        --- PASS: TestKVGet/NoTLS/all (0.03s)
--- SKIP: TestMove (0.06s)
--- FAIL: TestLeak (0.06s)
    --- PASS: TestLeak/NoTLS (0.05s)
";
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let expected = Results {
            passed: set(&["TestKVPut/NoTLS", "TestKVGet/NoTLS/all", "TestLeak/NoTLS"]),
            failed: set(&["TestKVGet/NoTLS/limit_2", "TestLeak"]),
            skipped: set(&["TestMove"]),
        };
        assert_eq!(Results::read(log), expected);
    }

    #[test]
    fn the_suite_is_pinned_and_whatever_is_left_out_has_a_reason() {
        let text = fs::read_to_string(source().join("go.mod")).unwrap();
        assert!(text.contains(&format!("require go.etcd.io/etcd/tests/v3 v{VERSION}")));
        assert!(source().join("go.sum").is_file());
        let left_out = left_out().unwrap();
        assert!(left_out.iter().all(|line| !line.pattern.is_empty() && line.reason.len() > 8));
    }
}
