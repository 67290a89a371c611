//! Runs cargo, and reads from its words how many cases passed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};

/// How many cases a step ran, by their end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cases {
    /// Those that passed.
    pub(crate) passed: usize,
    /// Those that failed.
    pub(crate) failed: usize,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this package lies two levels below the root").to_owned()
}

/// A cargo command in the root of the repository, by the cargo that runs us.
pub(crate) fn command(words: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).current_dir(root()).env("CARGO_TERM_COLOR", "never");
    // Every run of CI is a new clone: what it builds of other people's crates is kept outside of it.
    if is_shared() {
        command.env("CARGO_TARGET_DIR", quorate_kubernetes::components::cache().join("target-ci"));
    }
    command
}

/// Whether what is built lies in a directory that other clones use as well.
fn is_shared() -> bool {
    std::env::var_os("CI").is_some() && std::env::var_os("CARGO_TARGET_DIR").is_none()
}

/// Makes every source of this clone newer than what another clone left in a shared target directory: cargo goes by times, and
/// would take the artefacts of another tree for those of this one.
///
/// # Errors
/// A file's time cannot be set.
pub(crate) fn freshen() -> Result<()> {
    if !is_shared() {
        return Ok(());
    }
    let now = SystemTime::now();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory);
        for entry in entries.with_context(|| format!("list {}", directory.display()))? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let skipped = [OsStr::new("target"), OsStr::new(".git")];
            if kind.is_dir() && !skipped.contains(&entry.file_name().as_os_str()) {
                directories.push(path);
            } else if kind.is_file() {
                let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
                file.set_modified(now).with_context(|| format!("touch {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// The sum over the closing lines of every test binary: `test result: ok. 4 passed; 1 failed; …`.
pub(crate) fn test_cases(log: &str) -> Cases {
    let closing = log.lines().filter_map(|line| line.trim().strip_prefix("test result: "));
    let mut cases = Cases::default();
    for line in closing {
        cases.passed += number_before(line, " passed;").unwrap_or(0);
        cases.failed += number_before(line, " failed;").unwrap_or(0);
    }
    cases
}

/// The last plain closing line of a program that counts for itself: `300 passed, 0 failed`.
pub(crate) fn plain_cases(log: &str) -> Cases {
    let read = |line: &str| {
        let (passed, failed) = line.trim().split_once(" passed, ")?;
        let failed = failed.split_once(" failed")?.0;
        Some(Cases { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
    };
    log.lines().rev().find_map(read).unwrap_or_default()
}

fn number_before(line: &str, words: &str) -> Option<usize> {
    line.split_once(words)?.0.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_lines_of_all_binaries_are_added_up() {
        let log = "\
running 2 tests
test a ... ok
test result: ok. 21 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.2s
   Doc-tests quorate
test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out
";
        assert_eq!(test_cases(log), Cases { passed: 24, failed: 2 });
        assert_eq!(test_cases("error: could not compile"), Cases::default());
    }

    #[test]
    fn the_last_plain_line_counts() {
        let log = "seed 1 ok\n10 passed, 9 failed\nagain\n300 passed, 0 failed\nbye\n";
        assert_eq!(plain_cases(log), Cases { passed: 300, failed: 0 });
        assert_eq!(plain_cases("3 passed, none failed"), Cases::default());
    }

    #[test]
    fn the_root_holds_the_lock_file() {
        assert!(root().join("Cargo.lock").is_file());
    }
}
