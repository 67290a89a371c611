//! Why this process must stop: the verdicts of docs/contract.md, their exit codes and their texts for people.

use std::{fmt, path::Path};

use quorate_machine::ReadFault;
use quorate_storage::{directory::DirectoryError, rows::StoreError, wal::WalError};

/// The class of an exit, for the operator: written to the termination message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The data directory is empty though this member has voted before.
    Empty,
    /// What is on disk is not what was written.
    Corrupt,
    /// The member was removed from the cluster.
    Removed,
    /// The data directory, or the peers, belong to another cluster.
    ForeignCluster,
    /// The data was written by a newer version.
    FormatTooNew,
    /// The disk failed: nothing is known to be wrong with what was written before.
    DiskFailed,
    /// The configuration is wrong.
    Configuration,
    /// Anything else.
    Failed,
}

impl Verdict {
    /// The exit code; it never changes its meaning.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Configuration => 2,
            Self::Empty => 10,
            Self::Corrupt => 11,
            Self::Removed => 12,
            Self::ForeignCluster => 13,
            Self::FormatTooNew => 14,
            Self::DiskFailed => 15,
        }
    }

    /// Its name in the termination message.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "Failed",
            Self::Configuration => "Configuration",
            Self::Empty => "Empty",
            Self::Corrupt => "Corrupt",
            Self::Removed => "Removed",
            Self::ForeignCluster => "ForeignCluster",
            Self::FormatTooNew => "FormatTooNew",
            Self::DiskFailed => "DiskFailed",
        }
    }
}

/// A failure that ends the process.
#[derive(Debug)]
pub struct Fatal {
    /// Its class.
    pub verdict: Verdict,
    /// What happened, what it means, what to do.
    pub message: String,
}

impl Fatal {
    /// A failure of a class.
    pub fn new(verdict: Verdict, message: impl Into<String>) -> Self {
        Self { verdict, message: message.into() }
    }

    /// `{"verdict":…,"message":…}`
    #[must_use]
    pub fn termination_message(&self) -> String {
        serde_json::json!({"verdict": self.verdict.name(), "message": self.message}).to_string()
    }
}

/// Writes a message where Kubernetes looks for it. Outside a pod there is no such file, and it goes to standard output.
pub fn write_termination(message: &str) {
    let path = Path::new("/dev/termination-log");
    if !path.exists() {
        println!("{message}");
    } else if let Err(error) = std::fs::write(path, message) {
        tracing::warn!("cannot write the termination message: {error}");
    }
}

/// An error with its causes, for one line of log.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.verdict.name())
    }
}

impl std::error::Error for Fatal {}

impl From<WalError> for Fatal {
    fn from(error: WalError) -> Self {
        Self::new(Verdict::DiskFailed, error_chain(&error))
    }
}

impl From<ReadFault> for Fatal {
    fn from(fault: ReadFault) -> Self {
        Self::new(Verdict::Corrupt, fault.message)
    }
}

impl From<quorate_machine::Fatal> for Fatal {
    fn from(error: quorate_machine::Fatal) -> Self {
        let verdict = match &error {
            quorate_machine::Fatal::ReadFault(_) | quorate_machine::Fatal::Undecodable { .. } => {
                Verdict::Corrupt
            }
            quorate_machine::Fatal::Unknown { .. }
            | quorate_machine::Fatal::FeatureLevel { .. } => Verdict::FormatTooNew,
        };
        Self::new(verdict, error_chain(&error))
    }
}

impl From<StoreError> for Fatal {
    fn from(error: StoreError) -> Self {
        let verdict = match &error {
            StoreError::Disk { .. } | StoreError::Failed => Verdict::DiskFailed,
            StoreError::Corrupt(_) => Verdict::Corrupt,
            StoreError::FormatTooNew { .. } => Verdict::FormatTooNew,
        };
        Self::new(verdict, error_chain(&error))
    }
}

impl From<DirectoryError> for Fatal {
    fn from(error: DirectoryError) -> Self {
        Self::new(Verdict::DiskFailed, error_chain(&error))
    }
}
