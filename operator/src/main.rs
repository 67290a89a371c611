//! The operator's binary: parses its flags, starts tracing, runs.

mod admin;
mod args;
mod cluster_series;
#[cfg(feature = "drill")]
mod crash_points;
mod error_policy;
mod events;
mod execute;
#[cfg(feature = "drill")]
mod late_watches;
mod lease;
mod limits;
mod metrics;
mod observe;
mod reconcile;
mod refusals;
mod run;
mod status;
mod store_client;
mod watches;
mod words;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, LogFormat};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // One provider for the whole process, chosen before anything can ask for the default.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing has installed a provider before the first statement of main");
    if let Err(error) = start_tracing(&args) {
        eprintln!("quorate-operator: --log-level: {error}");
        return ExitCode::from(2);
    }
    match run::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_tracing(args: &Args) -> Result<(), tracing_subscriber::filter::ParseError> {
    // kube logs each failed request as an error; whoever made it logs it too, knowing what it means.
    let silent = "kube_client::client::builder=off".parse().expect("a constant directive");
    let filter = EnvFilter::try_new(&args.log_level)?.add_directive(silent);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
