//! The operator's flags and their environment variables.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{ArgAction, Parser, ValueEnum};
use rand::RngExt as _;

use crate::limits;

/// Where a pod finds the name of its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Runs clusters of the Quorate store on Kubernetes.
///
/// Each flag can also be given by the environment variable named with it.
#[derive(Clone, Debug, Parser)]
#[command(name = "quorate-operator", version)]
pub(crate) struct Args {
    /// Namespaces whose StoreClusters are served, separated by commas; all when absent
    #[arg(long, env = "QUORATE_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACE")]
    pub(crate) namespaces: Vec<String>,

    /// Act only while holding a Lease, so that of several operators one acts
    #[arg(
        long,
        env = "QUORATE_LEADER_ELECT",
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) leader_elect: bool,

    /// Name of that Lease
    #[arg(long, env = "QUORATE_LEASE_NAME", default_value = "quorate-operator")]
    pub(crate) lease_name: String,

    /// Namespace of that Lease; the operator's own when absent
    #[arg(long, env = "QUORATE_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) lease_namespace: Option<String>,

    /// This process in the Lease and in events: its pod's name; when absent, host name and a
    /// random part
    #[arg(long, env = "POD_NAME")]
    pub(crate) identity: Option<String>,

    /// Address of /metrics
    #[arg(long, env = "QUORATE_METRICS_BIND", default_value = "0.0.0.0:8080")]
    pub(crate) metrics_bind: SocketAddr,

    /// Address of /healthz and /readyz
    #[arg(long, env = "QUORATE_HEALTH_BIND", default_value = "0.0.0.0:8081")]
    pub(crate) health_bind: SocketAddr,

    /// Repository of the store's image: a StoreCluster that names no image runs this one, tagged
    /// with its version
    #[arg(long, env = "QUORATE_STORE_IMAGE_REPOSITORY", default_value = "quorate/quorate")]
    pub(crate) store_image_repository: String,

    /// StoreClusters that are reconciled at the same time, in each served namespace
    #[arg(
        long,
        env = "QUORATE_CONCURRENCY",
        default_value_t = limits::CONCURRENCY_DEFAULT,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) concurrency: u16,

    /// Kubeconfig file; when absent, the pod's service account, or $KUBECONFIG, or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Context within the kubeconfig file
    #[arg(long, requires = "kubeconfig")]
    pub(crate) context: Option<String>,

    /// What to log: a level, or directives such as `info,kube=debug`
    #[arg(long, env = "QUORATE_LOG", default_value = "info")]
    pub(crate) log_level: String,

    /// How to log
    #[arg(long, env = "QUORATE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

impl Args {
    /// The scopes to watch: `None` is all namespaces, and then the only one.
    pub(crate) fn scopes(&self) -> Vec<Option<String>> {
        let mut names: Vec<String> = self
            .namespaces
            .iter()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort();
        names.dedup();
        if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() }
    }

    /// The name of this process, different from that of every other live one.
    ///
    /// A pod's name is unique, and a restarted container of the same pod may take its own Lease
    /// again at once, since its predecessor is dead. A host name is not unique: two processes of
    /// one host must not take each other for themselves.
    pub(crate) fn identity(&self) -> String {
        if let Some(identity) = self.identity.as_ref().filter(|name| !name.is_empty()) {
            return identity.clone();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "operator" } else { host.trim() };
        format!("{host}_{:016x}", rand::rng().random::<u64>())
    }

    /// The namespace of the Lease.
    ///
    /// # Errors
    ///
    /// When none was given and the process does not run in a pod.
    pub(crate) fn lease_namespace(&self) -> anyhow::Result<String> {
        if let Some(namespace) = &self.lease_namespace {
            return Ok(namespace.clone());
        }
        let namespace = std::fs::read_to_string(NAMESPACE_FILE).with_context(|| {
            format!(
                "read the operator's own namespace from {NAMESPACE_FILE}: outside a pod, give \
                 --lease-namespace or --leader-elect=false"
            )
        })?;
        Ok(namespace.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Args {
        Args::try_parse_from([&["quorate-operator"], arguments].concat()).unwrap()
    }

    #[test]
    fn the_flags_are_consistent() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn no_namespaces_means_all_and_doubles_count_once() {
        assert_eq!(parse(&[]).scopes(), [None]);
        assert_eq!(parse(&["--namespaces="]).scopes(), [None]);
        let scopes = parse(&["--namespaces=b,a", "--namespaces", "b"]).scopes();
        assert_eq!(scopes, [Some("a".to_owned()), Some("b".to_owned())]);
    }

    #[test]
    fn leader_election_is_on_unless_said_otherwise() {
        assert!(parse(&[]).leader_elect);
        assert!(parse(&["--leader-elect"]).leader_elect);
        assert!(!parse(&["--leader-elect=false"]).leader_elect);
    }

    #[test]
    fn identities_without_a_pod_name_differ() {
        let args = parse(&["--identity="]);
        assert_ne!(args.identity(), args.identity());
        assert_eq!(parse(&["--identity=pod-1"]).identity(), "pod-1");
    }

    #[test]
    fn zero_concurrency_is_refused() {
        assert!(Args::try_parse_from(["quorate-operator", "--concurrency=0"]).is_err());
    }
}
