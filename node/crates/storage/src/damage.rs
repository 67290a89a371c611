//! Damage: bytes on disk that are not what this store wrote.

use std::fmt;
use std::path::PathBuf;

/// Where bytes are wrong and in which way. It is always fatal (INV-S2): who goes on would serve a log with a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file or directory.
    pub path: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    pub(crate) fn new(path: PathBuf, offset: u64, what: impl Into<String>) -> Self {
        Self { path, offset, what: what.into() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, offset, what } = self;
        write!(
            f,
            "{} is damaged at byte {offset}: {what}. This member's data cannot be trusted: where other members have a \
             quorum, remove this member, empty its data directory and add it again; otherwise restore a snapshot",
            path.display()
        )
    }
}

impl std::error::Error for Damage {}
