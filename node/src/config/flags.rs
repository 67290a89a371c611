//! The table of every name that etcd v3.7 knows, and what becomes of each here.

/// What may stand behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Go's spelling of a truth value; the bare name means true.
    Bool,
    /// A whole number.
    Integer,
    /// Go's spelling of a time span (`1h30m`, `300ms`).
    Duration,
    /// Texts with commas between.
    List,
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does what etcd says it does.
    Served,
    /// It changes nothing, for the reason given, and a warning says so. Only what loses neither safety nor
    /// security by being left out may stand here.
    AcceptedWithWarning(&'static str),
    /// Any value but the default stops the start, for the reason given: leaving it out would weaken safety or
    /// security, or it is not served yet.
    Refused(&'static str),
}

/// One name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// As on the command line, without dashes; `ETCD_` and upper case with underscores in the environment.
    pub name: &'static str,
    /// What may stand behind it.
    pub kind: Kind,
    /// etcd's default, as text.
    pub default: &'static str,
    /// What becomes of it.
    pub fate: Fate,
}

const fn served(name: &'static str, kind: Kind, default: &'static str) -> Flag {
    Flag { name, kind, default, fate: Fate::Served }
}

const fn accepted(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    why: &'static str,
) -> Flag {
    Flag { name, kind, default, fate: Fate::AcceptedWithWarning(why) }
}

const fn refused(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Flag {
    Flag { name, kind, default, fate: Fate::Refused(why) }
}

const TLS: &str = "TLS is not served yet; without it the connection would be in the clear";
const DISCOVERY: &str = "discovery is not served yet; name the members in --initial-cluster";
const DISCOVERY_TUNING: &str = "discovery is not served";
const AUTH_TUNING: &str = "authentication is not served yet";
const BOLT: &str = "there is no bbolt here: rows are appended, and synced in the background";
const WAL_FILES: &str = "the log is purged by a budget of bytes, not by counting";
const PEER_TRANSPORT: &str = "the transport between members has timeouts of its own";
const COMPACTION_PACE: &str = "compaction paces itself in the background and holds up no request";
const CORRUPT_CHECK: &str =
    "the comparison of members' hashes is not served yet; without it divergence would go unnoticed";
const TRACING: &str = "distributed tracing is not served";
const GONE: &str = "etcd itself has ignored it since v3";

/// Every name, in etcd's order (`embed/config.go` AddFlags, `etcdmain/config.go`), ours at the end.
pub const FLAGS: &[Flag] = &[
    // The member.
    served("name", Kind::Text, "default"),
    served("data-dir", Kind::Text, ""),
    refused(
        "wal-dir",
        Kind::Text,
        "",
        "a directory of its own for the log is not served yet; it lies in the data directory",
    ),
    served("listen-peer-urls", Kind::List, "http://localhost:2380"),
    served("listen-client-urls", Kind::List, "http://localhost:2379"),
    served("listen-client-http-urls", Kind::List, ""),
    served("listen-metrics-urls", Kind::List, ""),
    accepted("max-snapshots", Kind::Integer, "5", WAL_FILES),
    accepted("max-wals", Kind::Integer, "5", WAL_FILES),
    accepted("snapshot-count", Kind::Integer, "10000", WAL_FILES),
    accepted("snapshot-catchup-entries", Kind::Integer, "5000", WAL_FILES),
    served("heartbeat-interval", Kind::Integer, "100"),
    served("election-timeout", Kind::Integer, "1000"),
    accepted(
        "initial-election-tick-advance",
        Kind::Bool,
        "true",
        "a member that starts waits one full election timeout",
    ),
    served("quota-backend-bytes", Kind::Integer, "0"),
    accepted("backend-bbolt-freelist-type", Kind::Text, "map", BOLT),
    accepted("backend-batch-interval", Kind::Duration, "100ms", BOLT),
    accepted("backend-batch-limit", Kind::Integer, "10000", BOLT),
    served("max-txn-ops", Kind::Integer, "128"),
    served("max-request-bytes", Kind::Integer, "1572864"),
    accepted(
        "grpc-keepalive-min-time",
        Kind::Duration,
        "5s",
        "a client that pings too often is answered, not cut off",
    ),
    served("grpc-keepalive-interval", Kind::Duration, "2h"),
    served("grpc-keepalive-timeout", Kind::Duration, "20s"),
    served("socket-reuse-port", Kind::Bool, "false"),
    accepted(
        "socket-reuse-address",
        Kind::Bool,
        "false",
        "listeners always set SO_REUSEADDR, so that a restart finds its port",
    ),
    served("max-concurrent-streams", Kind::Integer, "4294967295"),
    accepted("raft-read-timeout", Kind::Duration, "5s", PEER_TRANSPORT),
    accepted("raft-write-timeout", Kind::Duration, "5s", PEER_TRANSPORT),
    // The cluster.
    served("initial-advertise-peer-urls", Kind::List, "http://localhost:2380"),
    served("advertise-client-urls", Kind::List, "http://localhost:2379"),
    refused("discovery-endpoints", Kind::List, "", DISCOVERY),
    refused("discovery-token", Kind::Text, "", DISCOVERY),
    accepted("discovery-dial-timeout", Kind::Duration, "2s", DISCOVERY_TUNING),
    accepted("discovery-request-timeout", Kind::Duration, "5s", DISCOVERY_TUNING),
    accepted("discovery-keepalive-time", Kind::Duration, "2s", DISCOVERY_TUNING),
    accepted("discovery-keepalive-timeout", Kind::Duration, "6s", DISCOVERY_TUNING),
    accepted("discovery-insecure-transport", Kind::Bool, "true", DISCOVERY_TUNING),
    accepted("discovery-insecure-skip-tls-verify", Kind::Bool, "false", DISCOVERY_TUNING),
    accepted("discovery-cert", Kind::Text, "", DISCOVERY_TUNING),
    accepted("discovery-key", Kind::Text, "", DISCOVERY_TUNING),
    accepted("discovery-cacert", Kind::Text, "", DISCOVERY_TUNING),
    accepted("discovery-user", Kind::Text, "", DISCOVERY_TUNING),
    accepted("discovery-password", Kind::Text, "", DISCOVERY_TUNING),
    refused("discovery-srv", Kind::Text, "", DISCOVERY),
    refused("discovery-srv-name", Kind::Text, "", DISCOVERY),
    refused("discovery-fallback", Kind::Text, "exit", "the v2 proxy does not exist any more"),
    served("initial-cluster", Kind::Text, ""),
    served("initial-cluster-state", Kind::Text, "new"),
    served("initial-cluster-token", Kind::Text, "etcd-cluster"),
    served("strict-reconfig-check", Kind::Bool, "true"),
    accepted(
        "pre-vote",
        Kind::Bool,
        "true",
        "the pre-vote is always on: a member that was cut off must not disturb a working leader",
    ),
    accepted("v2-deprecation", Kind::Text, "gone", "there is no v2 store"),
    // Security.
    refused("cert-file", Kind::Text, "", TLS),
    refused("key-file", Kind::Text, "", TLS),
    refused("client-cert-file", Kind::Text, "", TLS),
    refused("client-key-file", Kind::Text, "", TLS),
    refused("client-cert-auth", Kind::Bool, "false", TLS),
    refused("client-crl-file", Kind::Text, "", TLS),
    refused("client-cert-allowed-hostname", Kind::List, "", TLS),
    refused("trusted-ca-file", Kind::Text, "", TLS),
    refused("auto-tls", Kind::Bool, "false", TLS),
    refused("peer-cert-file", Kind::Text, "", TLS),
    refused("peer-key-file", Kind::Text, "", TLS),
    refused("peer-client-cert-file", Kind::Text, "", TLS),
    refused("peer-client-key-file", Kind::Text, "", TLS),
    refused("peer-client-cert-auth", Kind::Bool, "false", TLS),
    refused("peer-trusted-ca-file", Kind::Text, "", TLS),
    refused("peer-auto-tls", Kind::Bool, "false", TLS),
    accepted("self-signed-cert-validity", Kind::Integer, "1", "no certificate is made here"),
    refused("peer-crl-file", Kind::Text, "", TLS),
    refused("peer-cert-allowed-cn", Kind::List, "", TLS),
    refused("peer-cert-allowed-hostname", Kind::List, "", TLS),
    refused("peer-skip-client-san-verification", Kind::Bool, "false", TLS),
    refused("cipher-suites", Kind::List, "", TLS),
    refused("tls-min-version", Kind::Text, "TLS1.2", TLS),
    refused("tls-max-version", Kind::Text, "", TLS),
    refused(
        "cors",
        Kind::List,
        "*",
        "an allow-list of origins is not served yet; every origin would be let in",
    ),
    refused(
        "host-whitelist",
        Kind::List,
        "*",
        "an allow-list of host names is not served yet; every host name would be let in",
    ),
    // Logs.
    refused("logger", Kind::Text, "zap", "etcd knows no other value either"),
    served("log-outputs", Kind::List, "default"),
    served("log-level", Kind::Text, "info"),
    served("log-format", Kind::Text, "json"),
    refused(
        "enable-log-rotation",
        Kind::Bool,
        "false",
        "log files are not served yet; log to standard error and let its reader rotate",
    ),
    accepted(
        "log-rotation-config-json",
        Kind::Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        "log files are not served",
    ),
    // History.
    served("auto-compaction-retention", Kind::Text, "0"),
    served("auto-compaction-mode", Kind::Text, "periodic"),
    // Looking inside.
    refused("enable-pprof", Kind::Bool, "false", "the profiler is not served yet"),
    served("metrics", Kind::Text, "basic"),
    refused("enable-distributed-tracing", Kind::Bool, "false", "tracing is not served yet"),
    accepted("distributed-tracing-address", Kind::Text, "localhost:4317", TRACING),
    accepted("distributed-tracing-service-name", Kind::Text, "etcd", TRACING),
    accepted("distributed-tracing-instance-id", Kind::Text, "", TRACING),
    accepted("distributed-tracing-sampling-rate", Kind::Integer, "0", TRACING),
    // Authentication.
    refused("auth-token", Kind::Text, "simple", "tokens other than simple are not served yet"),
    accepted("bcrypt-cost", Kind::Integer, "10", AUTH_TUNING),
    accepted("auth-token-ttl", Kind::Integer, "300", AUTH_TUNING),
    // What guards and paces.
    accepted("enable-grpc-gateway", Kind::Bool, "true", "the JSON gateway is not served yet"),
    refused("corrupt-check-time", Kind::Duration, "0s", CORRUPT_CHECK),
    accepted(
        "compact-hash-check-time",
        Kind::Duration,
        "1m",
        "the feature gate CompactHashCheck is not served",
    ),
    accepted("compaction-batch-limit", Kind::Integer, "1000", COMPACTION_PACE),
    accepted("compaction-sleep-interval", Kind::Duration, "10ms", COMPACTION_PACE),
    served("watch-progress-notify-interval", Kind::Duration, "10m"),
    accepted("downgrade-check-time", Kind::Duration, "5s", "a downgrade needs no polling here"),
    served("warning-apply-duration", Kind::Duration, "100ms"),
    served("warning-unary-request-duration", Kind::Duration, "300ms"),
    accepted("memory-mlock", Kind::Bool, "false", "no file is mapped into memory for long"),
    accepted("bootstrap-defrag-threshold-megabytes", Kind::Integer, "0", BOLT),
    served("max-learners", Kind::Integer, "1"),
    accepted("unsafe-no-fsync", Kind::Bool, "false", "every acknowledged write is synced, always"),
    refused(
        "force-new-cluster",
        Kind::Bool,
        "false",
        "the recovery of one member as a cluster of its own is not served yet",
    ),
    served("feature-gates", Kind::Text, ""),
    // What etcd takes and ignores (`etcdmain/config.go`, ignored).
    accepted("cluster-active-size", Kind::Text, "", GONE),
    accepted("cluster-remove-delay", Kind::Text, "", GONE),
    accepted("cluster-sync-interval", Kind::Text, "", GONE),
    accepted("config", Kind::Text, "", GONE),
    accepted("force", Kind::Bool, "", GONE),
    accepted("max-result-buffer", Kind::Text, "", GONE),
    accepted("max-retry-attempts", Kind::Text, "", GONE),
    accepted("peer-heartbeat-interval", Kind::Text, "", GONE),
    accepted("peer-election-timeout", Kind::Text, "", GONE),
    accepted("retry-interval", Kind::Text, "", GONE),
    accepted("snapshot", Kind::Bool, "", GONE),
    accepted("v", Kind::Bool, "", GONE),
    accepted("vv", Kind::Bool, "", GONE),
    // Ours.
    served("join-cluster-id", Kind::Text, ""),
    served("join-peers", Kind::List, ""),
    served("drain-delay", Kind::Duration, "0s"),
    // Read before all others.
    served("config-file", Kind::Text, ""),
    served("version", Kind::Bool, "false"),
];

/// What becomes of a feature gate that is switched away from its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// Whether it is on unless told otherwise.
    pub default: bool,
    /// What becomes of the other value.
    pub fate: Fate,
}

/// etcd 3.7's feature gates (`features/etcd_features.go`).
pub const GATES: &[Gate] = &[
    Gate {
        name: "StopGRPCServiceOnDefrag",
        default: false,
        fate: Fate::AcceptedWithWarning("defragmentation stops no request here"),
    },
    Gate {
        name: "TxnModeWriteWithSharedBuffer",
        default: true,
        fate: Fate::AcceptedWithWarning("there is no such buffer here"),
    },
    Gate { name: "InitialCorruptCheck", default: false, fate: Fate::Refused(CORRUPT_CHECK) },
    Gate { name: "CompactHashCheck", default: false, fate: Fate::Refused(CORRUPT_CHECK) },
    Gate {
        name: "LeaseCheckpoint",
        default: false,
        fate: Fate::AcceptedWithWarning("deadlines of leases are replicated, always"),
    },
    Gate {
        name: "LeaseCheckpointPersist",
        default: false,
        fate: Fate::AcceptedWithWarning("deadlines of leases are replicated, always"),
    },
    Gate {
        name: "SetMemberLocalAddr",
        default: false,
        fate: Fate::Refused("choosing the local address towards peers is not served yet"),
    },
    Gate {
        name: "FastLeaseKeepAlive",
        default: true,
        fate: Fate::AcceptedWithWarning("renewals are batched into the log, always"),
    },
    Gate {
        name: "PriorityRequest",
        default: false,
        fate: Fate::AcceptedWithWarning("no request is put before another"),
    },
];

/// The row of a name, if etcd or we know it.
#[must_use]
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// The environment's name of a flag: `ETCD_`, upper case, underscores (`client/pkg/flags`).
#[must_use]
pub fn environment_name(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::values;

    #[test]
    fn no_name_stands_twice() {
        let names: BTreeSet<&str> = FLAGS.iter().map(|flag| flag.name).collect();
        assert_eq!(names.len(), FLAGS.len());
    }

    #[test]
    fn every_default_is_a_value_of_its_kind() {
        for flag in FLAGS {
            assert!(
                values::same(flag.kind, flag.default, flag.default).is_ok(),
                "--{} has the default {:?}",
                flag.name,
                flag.default
            );
        }
    }

    #[test]
    fn what_is_about_tls_is_never_merely_accepted() {
        for flag in FLAGS.iter().filter(|flag| {
            ["cert", "key-file", "ca-file", "tls", "cipher", "crl"]
                .iter()
                .any(|part| flag.name.contains(part))
                && !flag.name.starts_with("discovery")
                && flag.name != "self-signed-cert-validity"
        }) {
            assert!(matches!(flag.fate, Fate::Refused(_)), "--{}", flag.name);
        }
    }

    #[test]
    fn the_names_of_etcds_page_are_all_here() {
        // The reference page's list (etcd-v3.md 1.5), as a second witness beside the table.
        let page = "name data-dir wal-dir listen-client-urls advertise-client-urls listen-peer-urls \
            initial-advertise-peer-urls initial-cluster initial-cluster-state initial-cluster-token \
            listen-metrics-urls listen-client-http-urls metrics heartbeat-interval election-timeout \
            snapshot-count snapshot-catchup-entries max-wals max-snapshots quota-backend-bytes \
            max-request-bytes max-txn-ops max-concurrent-streams auto-compaction-mode \
            auto-compaction-retention cert-file key-file client-cert-auth trusted-ca-file \
            client-crl-file auto-tls peer-cert-file peer-key-file peer-client-cert-auth \
            peer-trusted-ca-file peer-crl-file peer-auto-tls peer-cert-allowed-cn \
            peer-cert-allowed-hostname client-cert-allowed-hostname cipher-suites tls-min-version \
            tls-max-version auth-token auth-token-ttl bcrypt-cost strict-reconfig-check pre-vote \
            force-new-cluster unsafe-no-fsync corrupt-check-time compact-hash-check-time \
            feature-gates compaction-batch-limit compaction-sleep-interval \
            watch-progress-notify-interval warning-apply-duration warning-unary-request-duration \
            backend-batch-interval backend-batch-limit backend-bbolt-freelist-type \
            bootstrap-defrag-threshold-megabytes max-learners enable-grpc-gateway enable-pprof \
            discovery-srv discovery-token discovery-endpoints log-level log-format logger \
            log-outputs enable-log-rotation socket-reuse-port memory-mlock \
            enable-distributed-tracing distributed-tracing-address cors host-whitelist \
            self-signed-cert-validity initial-election-tick-advance";
        for name in page.split_whitespace() {
            assert!(find(name).is_some(), "--{name} is not in the table");
        }
    }
}
