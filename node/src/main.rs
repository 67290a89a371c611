//! The store: a Raft-replicated key-value server that speaks etcd's v3 API.

#![expect(
    unreachable_pub,
    reason = "a binary exports nothing; `pub` says what the other rooms of it may use"
)]

mod apply_loop;
mod auto_compaction;
mod boot;
mod clock;
mod compaction_hashing;
mod config;
mod consensus_loop;
mod fatal;
mod files_loop;
mod grpc;
mod handle;
mod http;
mod limits;
mod metrics;
mod peers;
mod pending;
mod publication;
mod renewals;
mod run;
mod scrub;
mod snapshots;
mod trace;
mod wal_loop;
mod watch_stream;
mod watchdog;

use std::process::ExitCode;

use config::{Config, Invocation};
use fatal::{Fatal, Verdict};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match config::read(std::env::args(), std::env::vars()) {
        Ok(Invocation::Print(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Invocation::PrepareForm(form)) => {
            trace::start_plain();
            finish(boot::prepare_form(&form).map(|message| fatal::write_termination(&message)))
        }
        Ok(Invocation::Serve(config)) => {
            trace::start(&config);
            finish(serve(*config))
        }
        Err(error) => {
            trace::start_plain();
            finish(Err(Fatal::new(Verdict::Configuration, error.to_string())))
        }
    }
}

fn serve(config: Config) -> Result<(), Fatal> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| {
        Fatal::new(Verdict::Failed, format!("cannot start the runtime: {error}"))
    })?;
    let data = config.data_dir.clone();
    let outcome = runtime.block_on(run::run(config));
    if let Err(fatal) = &outcome {
        scrub::leave_mark(&data, fatal);
    }
    outcome
}

fn finish(outcome: Result<(), Fatal>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            tracing::error!(verdict = fatal.verdict.name(), "{}", fatal.message);
            fatal::write_termination(&fatal.termination_message());
            ExitCode::from(fatal.verdict.exit_code())
        }
    }
}
