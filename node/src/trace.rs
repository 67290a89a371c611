//! Logs: structured, in the format and at the level that the flags ask for; a panic ends the process.

use tracing_subscriber::{EnvFilter, fmt::writer::BoxMakeWriter};

use crate::config::{Config, LogFormat, LogOutput};

/// Starts logging as the flags say, and tells what they have to be warned about.
pub fn start(config: &Config) {
    let output = match config.log_output {
        LogOutput::Stderr => BoxMakeWriter::new(std::io::stderr),
        LogOutput::Stdout => BoxMakeWriter::new(std::io::stdout),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(config.log_level))
        .with_writer(output);
    match config.log_format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Console => builder.with_ansi(false).init(),
    }
    abort_on_panic();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

/// Starts logging for a command that has no configuration.
pub fn start_plain() {
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    abort_on_panic();
}

/// An assertion that failed on one thread would leave the others serving a state that nobody vouches for.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("a bug: {panic}");
        print(panic);
        std::process::abort();
    }));
}
