//! One run of etcd's `benchmark` tool, and what it printed.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use crate::arguments::Plan;
use crate::cases::{Case, Work};
use crate::fill::RANGE_KEY;
use crate::limits::{
    CLIENTS_PER_CONNECTION, KEY_BYTES, LOAD_GRACE, LOAD_SLOWNESS_MAX, VALUE_BYTES,
};
use crate::servers;

/// What the tool found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Report {
    /// Operations a second.
    pub(crate) throughput: f64,
    /// Half of the operations took at most this long, in milliseconds.
    pub(crate) p50: f64,
    /// 99 of 100 operations took at most this long, in milliseconds.
    pub(crate) p99: f64,
}

/// Plays `total` operations of a case against a cluster.
pub(crate) async fn run(plan: &Plan, case: Case, total: usize, ports: &[u16]) -> Result<Report> {
    let mut command = servers::bound_command(&plan.benchmark);
    let endpoints: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let connections = case.clients.div_ceil(CLIENTS_PER_CONNECTION);
    command
        .arg(format!("--endpoints={}", endpoints.join(",")))
        .arg(format!("--clients={}", case.clients))
        .arg(format!("--conns={connections}"))
        .arg("--precise");
    if connections == 1 {
        // One connection to member 1 would measure a forwarded call in one round and a direct one in another.
        command.arg("--target-leader");
    }
    match case.work {
        Work::Put => command
            .arg("put")
            .arg(format!("--key-size={KEY_BYTES}"))
            .arg(format!("--val-size={VALUE_BYTES}"))
            .arg(format!("--key-space-size={}", plan.keys)),
        Work::Linearizable => command.args(["range", RANGE_KEY, "--consistency=l"]),
        Work::Serializable => command.args(["range", RANGE_KEY, "--consistency=s"]),
    };
    command.arg(format!("--total={total}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let at_most = Duration::from_secs(plan.seconds.into()) * LOAD_SLOWNESS_MAX + LOAD_GRACE;
    let child = command.spawn().context("start the load generator")?;
    let output = timeout(at_most, child.wait_with_output()).await;
    let output =
        output.with_context(|| format!("{} takes longer than {at_most:?}", case.name()))?;
    let output = output.context("wait for the load generator")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("the load generator ended with {}: {text}", output.status);
    }
    parse(&text).with_context(|| format!("{} of {total} operations", case.name()))
}

fn parse(text: &str) -> Result<Report> {
    if let Some((_, errors)) = text.split_once("Error distribution:") {
        bail!("operations failed, so the figures compare nothing: {}", errors.trim());
    }
    let number_behind = |words: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(words));
        let line = line.with_context(|| format!("the tool printed no `{words}`: {text}"))?;
        let number = line.split_whitespace().next().unwrap_or_default();
        number.parse().with_context(|| format!("`{words}{line}`"))
    };
    Ok(Report {
        throughput: number_behind("Requests/sec:")?,
        p50: number_behind("50% in ")? * 1e3,
        p99: number_behind("99% in ")? * 1e3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\nSummary:\n  Total:\t0.0543 secs.\n  Requests/sec:\t18402.17\n\nResponse time histogram:\n  \
                           0.0001 [1]\t|\n\nLatency distribution:\n  50% in 0.0021 secs.\n  95% in 0.003 secs.\n  \
                           99% in 5e-03 secs.\n  99.9% in 0.009 secs.\n";

    #[test]
    fn figures_are_read_in_milliseconds() {
        let report = parse(PRINTED).unwrap();
        assert_eq!(report, Report { throughput: 18402.17, p50: 2.1, p99: 5.0 });
    }

    #[test]
    fn a_run_with_failed_operations_is_no_figure() {
        let text =
            format!("{PRINTED}\nError distribution:\n  [3]\tetcdserver: too many requests\n");
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains("too many requests"), "{error}");
    }

    #[test]
    fn a_missing_line_is_said() {
        assert!(parse("Summary:\n").unwrap_err().to_string().contains("Requests/sec"));
    }
}
