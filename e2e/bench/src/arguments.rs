//! The command line, and what follows from it: which programs, which cases, how much.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use quorate_kubernetes::components::{BENCHMARK, ETCD};

use crate::cases::{self, Case};

/// Compares our server with etcd, side by side on this host.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub(crate) struct Arguments {
    /// Rounds; each plays both servers once
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Keys that each store is filled with before it is measured
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Seconds that each case should last
    #[arg(long, default_value_t = 12)]
    seconds: u32,
    /// A smoke run: one round, few keys, two seconds; its figures mean little
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this (`put`, `serializable 100`, `restart`); may be repeated
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
    /// Another release of our server than the one beside this program
    #[arg(long, value_name = "PROGRAM")]
    quorate: Option<PathBuf>,
}

/// What is to be done, with nothing left to decide.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Rounds to play.
    pub(crate) rounds: usize,
    /// Keys to fill in.
    pub(crate) keys: usize,
    /// Wanted length of a case, in seconds.
    pub(crate) seconds: u32,
    /// The cases under load, in order.
    pub(crate) cases: Vec<Case>,
    /// Whether a member is killed and started again at the end of a round.
    pub(crate) restart: bool,
    /// Our server.
    pub(crate) quorate: PathBuf,
    /// etcd's server.
    pub(crate) etcd: PathBuf,
    /// etcd's load generator.
    pub(crate) benchmark: PathBuf,
    /// Where data, logs and the table go.
    pub(crate) directory: PathBuf,
}

impl Arguments {
    /// Resolves the arguments; a program that is missing is said here and not in the middle of a run.
    pub(crate) fn plan(self) -> Result<Plan> {
        let is_meant = |name: &str| {
            self.only.is_empty() || self.only.iter().any(|words| name.contains(words.as_str()))
        };
        let cases: Vec<Case> =
            cases::all().into_iter().filter(|case| is_meant(&case.name())).collect();
        let restart = is_meant(cases::RESTART);
        if cases.is_empty() && !restart {
            let all: Vec<String> = cases::all().iter().map(Case::name).collect();
            bail!("no case is called {:?}; there are: {}, restart", self.only, all.join(", "));
        }
        let (rounds, keys, seconds) =
            if self.quick { (1, 20_000, 2) } else { (self.rounds, self.keys, self.seconds) };
        if rounds == 0 || keys == 0 || seconds == 0 {
            bail!("--rounds, --keys and --seconds start at 1");
        }
        let quorate = match self.quorate {
            Some(program) => program,
            None => beside_this_program()?,
        };
        let plan = Plan {
            rounds,
            keys,
            seconds,
            cases,
            restart,
            quorate,
            etcd: ETCD.program("etcd"),
            benchmark: BENCHMARK.program("benchmark"),
            directory: root().join("target/xtask"),
        };
        for program in [&plan.quorate, &plan.etcd, &plan.benchmark] {
            if !program.is_file() {
                bail!("{} is missing; `cargo xtask bench` builds it first", program.display());
            }
        }
        Ok(plan)
    }
}

fn beside_this_program() -> Result<PathBuf> {
    let here = std::env::current_exe().context("find this program's own path")?;
    Ok(here.with_file_name("quorate"))
}

/// The root of the repository.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this package lies two levels below the root").to_owned()
}
