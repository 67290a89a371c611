//! The server's options under etcd's names, typed.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Options of the server, under etcd's names in camel case. What is absent has etcd's default.
///
/// A change restarts the members one at a time (see `updateStrategy`).
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("(has(self.electionTimeout) ? self.electionTimeout : 1000) >= 5 * \
        (has(self.heartbeatInterval) ? self.heartbeatInterval : 100)",
        "electionTimeout must be at least 5 times heartbeatInterval (defaults: 1000 and 100 \
            milliseconds); raise electionTimeout or lower heartbeatInterval"),
    validation = ("!has(self.autoCompactionMode) || has(self.autoCompactionRetention)",
        "autoCompactionMode does nothing without autoCompactionRetention; set \
            autoCompactionRetention, for instance \"1h\" (Periodic) or \"1000\" (Revision)"),
)]
pub struct StoreOptions {
    /// Time between heartbeats of the leader, in milliseconds. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub heartbeat_interval: Option<i32>,
    /// Time without a leader after which a member campaigns, in milliseconds; at least five
    /// heartbeats. Default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 50000))]
    pub election_timeout: Option<i32>,
    /// Size of the data, in bytes, at which writes are refused with the alarm NOSPACE. 0 is etcd's
    /// default (2 GiB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub quota_backend_bytes: Option<i64>,
    /// Largest request that is accepted, in bytes. Default 1572864 (1.5 MiB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 104_857_600))]
    pub max_request_bytes: Option<i64>,
    /// Most operations in one transaction. Default 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_txn_ops: Option<i32>,
    /// How `autoCompactionRetention` is read: as a time (Periodic, the default) or as a number of
    /// revisions (Revision).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_compaction_mode: Option<AutoCompactionMode>,
    /// How much history automatic compaction keeps: "1h", "30m", or a number. Absent or "0": no
    /// automatic compaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+|([0-9]+(\.[0-9]+)?(ms|s|m|h))+)$"), length(max = 32))]
    pub auto_compaction_retention: Option<String>,
    /// Time after which an idle watch gets a progress notification if it asked for them: "10m",
    /// "5s". Default 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub watch_progress_notify_interval: Option<String>,
    /// Least severe log line that is written. Default Info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

impl StoreOptions {
    /// The command-line flags of these options, in a fixed order: what is absent gives no flag.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        let mut flag = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                flags.push(format!("--{name}={value}"));
            }
        };
        flag("heartbeat-interval", self.heartbeat_interval.map(|v| v.to_string()));
        flag("election-timeout", self.election_timeout.map(|v| v.to_string()));
        flag("quota-backend-bytes", self.quota_backend_bytes.map(|v| v.to_string()));
        flag("max-request-bytes", self.max_request_bytes.map(|v| v.to_string()));
        flag("max-txn-ops", self.max_txn_ops.map(|v| v.to_string()));
        flag("auto-compaction-mode", self.auto_compaction_mode.map(|v| v.flag().to_owned()));
        flag("auto-compaction-retention", self.auto_compaction_retention.clone());
        flag("watch-progress-notify-interval", self.watch_progress_notify_interval.clone());
        flag("log-level", self.log_level.map(|v| v.flag().to_owned()));
        flags
    }
}

/// How the retention of automatic compaction is read (etcd: `--auto-compaction-mode`).
#[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompactionMode {
    /// The retention is a time.
    Periodic,
    /// The retention is a number of revisions.
    Revision,
}

impl AutoCompactionMode {
    fn flag(self) -> &'static str {
        match self {
            Self::Periodic => "periodic",
            Self::Revision => "revision",
        }
    }
}

/// Severity of log lines (etcd: `--log-level`).
#[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What an operator of the cluster wants to know.
    Info,
    /// What may need attention.
    Warn,
    /// What needs attention.
    Error,
}

impl LogLevel {
    fn flag(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_carry_etcds_names_and_only_what_is_set() {
        assert!(StoreOptions::default().flags().is_empty());
        let options = StoreOptions {
            heartbeat_interval: Some(50),
            auto_compaction_mode: Some(AutoCompactionMode::Revision),
            auto_compaction_retention: Some("1000".into()),
            log_level: Some(LogLevel::Warn),
            ..StoreOptions::default()
        };
        assert_eq!(
            options.flags(),
            [
                "--heartbeat-interval=50",
                "--auto-compaction-mode=revision",
                "--auto-compaction-retention=1000",
                "--log-level=warn"
            ]
        );
    }
}
