//! The command line: which chore is meant, and which room does it.

use std::process::Command;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use quorate_kubernetes::{Cluster, Options, Progress, components, layout, packages, status};

use crate::{cargo, gate, licences, soak, step};

/// The chores of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// The fast gate: format, lints, unit and script tests, layering, documentation, licences
    Check(Selection),
    /// The whole gate: `check`, then the simulator, real servers, and the operator on a real Kubernetes
    Test(Selection),
    /// Every matrix and long run; an interrupted soak goes on where it stopped
    Soak,
    /// Plays the story of the README on a real Kubernetes of three nodes
    Demo(PassedOn),
    /// Compares our server with etcd, side by side on this host
    Bench(PassedOn),
    /// The test bed: a real Kubernetes of three nodes on this host
    #[command(subcommand)]
    Cluster(ClusterChore),
    /// Fetches and builds everything foreign that the other chores need, ahead of time
    Install,
}

/// Which steps of a gate to run.
#[derive(Debug, clap::Args)]
struct Selection {
    /// Only the steps whose name contains this; may be repeated
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
    /// Names the steps and runs none
    #[arg(long)]
    list: bool,
}

/// Arguments for the program behind a chore.
#[derive(Debug, clap::Args)]
struct PassedOn {
    /// Handed to the program as they are; `--help` after `--` says which there are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum ClusterChore {
    /// Brings it up, or takes the one that runs; prints the KUBECONFIG to use
    Up {
        /// How many nodes
        #[arg(long, default_value_t = Options::default().nodes)]
        nodes: usize,
    },
    /// Takes it down and asserts that nothing of it is left
    Down,
    /// Says what runs, and fails when that is not a whole bed
    Status,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        match self.chore {
            Chore::Check(selection) => run_gate("check", gate::check(), &selection),
            Chore::Test(selection) => run_gate("test", gate::test(), &selection),
            Chore::Soak => soak::run(),
            Chore::Demo(passed_on) => {
                let program =
                    ["run", "--quiet", "--package", "quorate-e2e-cluster", "--bin", "demo"];
                hand_over(&program, &passed_on.arguments)
            }
            Chore::Bench(passed_on) => {
                let progress = &Progress::start();
                components::ETCD.ensure(progress)?;
                components::BENCHMARK.ensure(progress)?;
                progress.say("building the release of our server and of the comparison");
                let build = ["build", "--quiet", "--release", "--package", "quorate"];
                hand_over(&build, &[])?;
                let program = ["run", "--quiet", "--release", "--package", "quorate-bench"];
                hand_over(&program, &passed_on.arguments)
            }
            Chore::Cluster(chore) => chore.run(),
            Chore::Install => install(),
        }
    }
}

impl ClusterChore {
    fn run(&self) -> Result<()> {
        match self {
            ClusterChore::Up { nodes } => {
                Cluster::up(&Options { nodes: *nodes })?;
                println!("\nexport KUBECONFIG={}", layout::kubeconfig().display());
                println!("export PATH={}:$PATH", components::KUBERNETES.directory().display());
                Ok(())
            }
            ClusterChore::Down => quorate_kubernetes::down(),
            ClusterChore::Status => {
                let status = status()?;
                print!("{status}");
                if !status.is_whole() {
                    bail!("no whole test bed runs here; `cargo xtask cluster up` brings one up");
                }
                println!("KUBECONFIG={}", layout::kubeconfig().display());
                Ok(())
            }
        }
    }
}

fn run_gate(name: &str, steps: Vec<step::Step>, selection: &Selection) -> Result<()> {
    let is_meant = |step: &step::Step| {
        selection.only.is_empty() || selection.only.iter().any(|words| step.name.contains(words))
    };
    let steps: Vec<step::Step> = steps.into_iter().filter(is_meant).collect();
    if steps.is_empty() {
        bail!("no step of `{name}` is called {:?}; `--list` names them", selection.only);
    }
    if selection.list {
        for step in &steps {
            println!("{:<12} {} (at least {} cases)", step.name, step.says, step.cases_min);
        }
        return Ok(());
    }
    cargo::freshen()?;
    step::run_all(name, &steps)
}

/// Runs a cargo command on this terminal, as if it had been typed.
fn hand_over(cargo_words: &[&str], arguments: &[String]) -> Result<()> {
    let mut command: Command = cargo::command(cargo_words);
    if !arguments.is_empty() {
        command.arg("--").args(arguments);
    }
    let status = command.status()?;
    if !status.success() {
        bail!("`{}` ended with {status}", quorate_kubernetes::command::describe(&command));
    }
    Ok(())
}

fn install() -> Result<()> {
    let progress = &Progress::start();
    packages::ensure(progress)?;
    for component in components::ALL {
        let directory = component.ensure(progress)?;
        progress.say(format!("{} {}: {}", component.name, component.version, directory.display()));
    }
    let program = licences::ensure(progress)?;
    progress.say(format!("cargo-deny: {}", program.display()));
    Ok(())
}
