//! What is mounted, and how everything below a directory is unmounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// The file system's name.
    pub(crate) kind: String,
}

/// The mount table of this process, in the order of mounting.
///
/// # Errors
/// `/proc` is not there.
pub(crate) fn table() -> Result<Vec<Mount>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?))
}

/// Reads the kernel's format (proc_pid_mountinfo(5)): six fields, optional ones, a dash, the kind.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    let read_line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = unescape(before.split(' ').nth(4)?);
        Some(Mount { point: PathBuf::from(point), kind: after.split(' ').next()?.to_owned() })
    };
    text.lines().filter_map(read_line).collect()
}

/// The mount points at or below a directory, in the order of mounting.
///
/// # Errors
/// As [`table`].
pub(crate) fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let all = table()?.into_iter().map(|mount| mount.point);
    Ok(all.filter(|point| point.starts_with(directory)).collect())
}

/// Unmounts everything at or below a directory, the youngest first.
///
/// # Errors
/// Something is still mounted there. Nobody may then delete the directory: a bind mount leads to foreign files.
pub(crate) fn unmount_below(directory: &Path) -> Result<()> {
    for point in below(directory)?.iter().rev() {
        if !command::succeeds(Command::new("umount").arg(point)) {
            // A process of another namespace may hold it; detached, it goes with that process.
            command::output(Command::new("umount").arg("--lazy").arg(point))?;
        }
    }
    let left = below(directory)?;
    if !left.is_empty() {
        bail!("still mounted below {}: {left:?}", directory.display());
    }
    Ok(())
}

/// The kernel writes blank, tab, newline and backslash of a path as a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_optional_fields_are_read() {
        let text = "\
36 35 98:0 / /mnt/a\\040b rw,noatime shared:1 master:2 - ext4 /dev/vda rw
37 35 0:30 / /run rw - tmpfs tmpfs rw
nonsense
";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, Path::new("/mnt/a b"));
        assert_eq!(mounts[1].kind, "tmpfs");
    }

    #[test]
    fn a_lone_backslash_stays() {
        assert_eq!(unescape("a\\b\\134"), "a\\b\\");
    }
}
