//! Plays the rounds: both servers in turn, each filled, loaded case by case, and restarted.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use quorate_kubernetes::Progress;

use crate::accounting::{Memory, disk_written};
use crate::arguments::Plan;
use crate::cases::{Case, FILL, MEMORY, RESTART, Work};
use crate::load::{self, Report};
use crate::servers::{Cluster, Server};
use crate::table::{Figures, Metric, Table};
use crate::{fill, limits};

const MIB: f64 = (1 << 20) as f64;

/// Operations per second that a server did last in a case: how many operations make up the wanted seconds.
type Rates = BTreeMap<(Server, String), f64>;

/// Plays everything that was planned, and prints and writes the table. Returns whether all of it is on the right side.
pub(crate) async fn play(plan: &Plan) -> Result<bool> {
    let progress = Progress::start();
    let host = host();
    progress.say(&host);
    let mut table = Table::new(plan, &host);
    let mut rates = Rates::new();
    for round in 1..=plan.rounds {
        for server in [Server::Etcd, Server::Quorate] {
            progress.say(format!("round {round} of {}: {server}", plan.rounds));
            let mut figures = Figures::default();
            let played = play_one(plan, server, round, &mut rates, &mut figures, &progress).await;
            if let Err(error) = played {
                progress.say(format!("  {server} FAILED: {error:#}"));
                figures.failures.push(format!("round {round}, {server}: {error:#}"));
            }
            table.add(server, figures);
        }
        // After every round, so that a run that is interrupted leaves what it had.
        let path = plan.directory.join("bench.md");
        fs::write(&path, table.markdown()).with_context(|| format!("write {path:?}"))?;
    }
    println!("\n{}", table.text());
    Ok(table.is_right())
}

async fn play_one(
    plan: &Plan,
    server: Server,
    round: usize,
    rates: &mut Rates,
    figures: &mut Figures,
    progress: &Progress,
) -> Result<()> {
    let mut cluster = Cluster::start(plan, server).await?;
    fill_measured(plan, &cluster, round, figures, progress).await?;
    let mut most = Memory::default();
    for case in &plan.cases {
        let rate = rates.get(&(server, case.name())).copied();
        let mut played = case_measured(plan, &cluster, *case, rate, &mut most, figures).await;
        // At a thousand clients etcd now and then refuses some ("too many requests"). Of ours that is a failure; the rival plays again.
        if let (Server::Etcd, Err(error)) = (server, &played) {
            progress.say(format!("  {:<18} again, since {error:#}", case.name()));
            played = case_measured(plan, &cluster, *case, rate, &mut most, figures).await;
        }
        let rate = played.with_context(|| case.name())?;
        progress.say(format!("  {:<18} {}", case.name(), figures.last_words(&case.name())));
        rates.insert((server, case.name()), rate);
    }
    most.raise(cluster.memory()?);
    figures.record(MEMORY, Metric::Anonymous, most.anonymous / MIB);
    figures.record(MEMORY, Metric::Resident, most.resident / MIB);
    progress.say(format!("  {MEMORY:<18} {}", figures.last_words(MEMORY)));
    if plan.restart {
        let (took, memory) = cluster.restart_follower(plan.keys).await?;
        figures.record(RESTART, Metric::Seconds, took.as_secs_f64());
        figures.record(RESTART, Metric::Anonymous, memory.anonymous / MIB);
        figures.record(RESTART, Metric::Resident, memory.resident / MIB);
        progress.say(format!("  {RESTART:<18} {}", figures.last_words(RESTART)));
    }
    cluster.stop().await
}

async fn fill_measured(
    plan: &Plan,
    cluster: &Cluster,
    round: usize,
    figures: &mut Figures,
    progress: &Progress,
) -> Result<()> {
    let disk_before = disk_written(&plan.directory)?;
    let before = cluster.usage()?;
    let took = fill::fill(&cluster.ports(), plan.keys, round as u64).await?;
    cluster.idle().await?;
    let used = cluster.usage()?.since(&before);
    let keys = plan.keys as f64;
    figures.record(FILL, Metric::Throughput, keys / took.as_secs_f64());
    figures.record(FILL, Metric::Cpu, used.cpu / keys);
    if let (Some(before), Some(after)) = (disk_before, disk_written(&plan.directory)?) {
        figures.record(FILL, Metric::Written, (after - before) / keys);
    }
    figures.record_rooms(FILL, &used, keys);
    progress.say(format!("  {FILL:<18} {}", figures.last_words(FILL)));
    Ok(())
}

/// Plays one case for about the planned seconds and returns its rate, for the next round to begin with.
async fn case_measured(
    plan: &Plan,
    cluster: &Cluster,
    case: Case,
    rate: Option<f64>,
    most: &mut Memory,
    figures: &mut Figures,
) -> Result<f64> {
    let ports = cluster.ports();
    let rate = match rate {
        Some(rate) => rate,
        // The tool counts operations and not seconds, so a short run says how many there are in one.
        None => {
            let few = limits::CALIBRATION_OPERATIONS + limits::CALIBRATION_ROUNDS * case.clients;
            load::run(plan, case, few, &ports).await?.throughput
        }
    };
    let total = (rate * f64::from(plan.seconds)) as usize;
    let total = total.max(limits::CALIBRATION_ROUNDS * case.clients);
    cluster.idle().await?;
    let disk_before = disk_written(&plan.directory)?;
    let before = cluster.usage()?;
    let report = cluster.sampled(most, load::run(plan, case, total, &ports)).await?;
    // Until the members rest again: what they put off belongs to the operations that caused it.
    cluster.sampled(most, cluster.idle()).await?;
    let used = cluster.usage()?.since(&before);
    let Report { throughput, p50, p99 } = report;
    let name = &case.name();
    figures.record(name, Metric::Throughput, throughput);
    figures.record(name, Metric::P50, p50);
    figures.record(name, Metric::P99, p99);
    figures.record(name, Metric::Cpu, used.cpu / total as f64);
    if let (Work::Put, Some(before), Some(after)) =
        (case.work, disk_before, disk_written(&plan.directory)?)
    {
        figures.record(name, Metric::Written, (after - before) / total as f64);
    }
    figures.record_rooms(name, &used, total as f64);
    Ok(throughput)
}

/// The host in one line, for whoever reads the table elsewhere.
fn host() -> String {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = file("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown CPU", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = file("/proc/sys/kernel/osrelease");
    let load = file("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    format!("{cores} cores of {model}, Linux {}, load {load} before the first round", kernel.trim())
}
