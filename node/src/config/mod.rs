//! etcd's flags, environment and file, read into one validated [`Config`].
//!
//! Three steps, each in a file: `flags.rs` is the table of every name with its default and its fate, `sources.rs`
//! collects what was given, and this file turns it into the struct, or says why not. Defaults live in the table and
//! nowhere else.

mod cluster;
mod flags;
mod prepare;
mod sources;
mod values;
pub mod version;

use std::{path::PathBuf, time::Duration};

pub use cluster::{InitialCluster, Start};
use flags::{Fate, GATES};
pub use prepare::Form;
use sources::Settings;
pub use values::Url;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Be a member.
    Serve(Box<Config>),
    /// `prepare form`: make a data directory that holds a new cluster of one voter, and exit.
    PrepareForm(Form),
    /// Print this and exit with success.
    Print(String),
}

/// Why the program does not start. The text names the flag, what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Console,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error; also etcd's `default`.
    Stderr,
    /// Standard output.
    Stdout,
}

/// When the leader compacts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Keep this much time of history.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

/// What a client connection must put up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How often the server pings; none for never.
    pub interval: Option<Duration>,
    /// How long it waits for the answer.
    pub timeout: Duration,
}

/// Everything a member is told at its start, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `--name`
    pub name: String,
    /// `--data-dir`
    pub data_dir: PathBuf,
    /// `--listen-peer-urls`
    pub listen_peer_urls: Vec<Url>,
    /// `--initial-advertise-peer-urls`
    pub advertise_peer_urls: Vec<Url>,
    /// `--listen-client-urls`
    pub listen_client_urls: Vec<Url>,
    /// `--advertise-client-urls`
    pub advertise_client_urls: Vec<Url>,
    /// `--listen-client-http-urls`: when not empty, plain HTTP is served there and not on the client URLs.
    pub listen_client_http_urls: Vec<Url>,
    /// `--listen-metrics-urls`: further listeners for metrics and health.
    pub listen_metrics_urls: Vec<Url>,
    /// What a fresh data directory is for.
    pub start: Start,
    /// `--initial-cluster-token`: enters the ids of cluster and members.
    pub initial_cluster_token: String,
    /// `--heartbeat-interval`, the length of a tick.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`
    pub election_timeout: Duration,
    /// `--quota-backend-bytes`; none when switched off by a negative number.
    pub quota_bytes: Option<u64>,
    /// `--max-txn-ops`
    pub max_txn_ops: usize,
    /// `--max-request-bytes`
    pub max_request_bytes: usize,
    /// `--max-concurrent-streams`, of one connection.
    pub max_concurrent_streams: u32,
    /// `--grpc-keepalive-*`
    pub keepalive: Keepalive,
    /// `--socket-reuse-port`
    pub reuse_port: bool,
    /// `--auto-compaction-*`
    pub auto_compaction: Option<AutoCompaction>,
    /// `--strict-reconfig-check`
    pub strict_reconfig_check: bool,
    /// `--max-learners`
    pub max_learners: usize,
    /// `--watch-progress-notify-interval`, at least 100 ms.
    pub watch_progress_notify_interval: Duration,
    /// `--warning-apply-duration`
    pub warning_apply_duration: Duration,
    /// `--warning-unary-request-duration`
    pub warning_unary_request_duration: Duration,
    /// `--metrics=extensive`: histograms of gRPC handling times.
    pub extensive_metrics: bool,
    /// `--log-level`, as a directive of `tracing`.
    pub log_level: &'static str,
    /// `--log-format`
    pub log_format: LogFormat,
    /// `--log-outputs`
    pub log_output: LogOutput,
    /// `--drain-delay` (ours): how long connections are still accepted after a SIGTERM.
    pub drain_delay: Duration,
    /// What was accepted and changes nothing, or is unwise; to be logged once the log is open.
    pub warnings: Vec<String>,
}

/// etcd's quota when none is given (`server/storage/quota.go`).
const DEFAULT_QUOTA: u64 = 2 * 1024 * 1024 * 1024;
/// Beyond this etcd only warns; so do we.
const SUGGESTED_QUOTA_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Beyond this etcd warns of large requests (`etcdserver.go` recommendedMaxRequestBytes).
const SUGGESTED_REQUEST_MAX: usize = 10 * 1024 * 1024;
/// etcd's greatest election timeout (`embed/config.go`).
const ELECTION_TIMEOUT_MAX_MS: u64 = 50_000;
/// etcd's smallest progress interval (`api/v3rpc/watch.go`).
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

impl Config {
    /// How long a request may take: five seconds for queue, computation and disk, and two election timeouts for a
    /// possible election (etcd `config.go` ReqTimeout).
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// Checks the initial cluster, when the data directory turns out to be empty.
    ///
    /// # Errors
    /// etcd's text for the first rule that is broken.
    pub fn verify_start(&self) -> Result<(), ConfigError> {
        match &self.start {
            Start::New(cluster) => cluster.verify(&self.name, &self.advertise_peer_urls, true),
            Start::Existing(cluster) => {
                cluster.verify(&self.name, &self.advertise_peer_urls, false)
            }
            Start::Join { .. } => Ok(()),
        }
    }
}

/// Reads a command line, the program's name first, and the environment.
///
/// # Errors
/// The first thing that is wrong, as a text to show.
pub fn read(
    mut arguments: impl Iterator<Item = String>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Invocation, ConfigError> {
    let path = arguments.next().unwrap_or_default();
    let program = path.rsplit('/').next().unwrap_or_default();
    let (arguments, environment): (Vec<_>, Vec<_>) = (arguments.collect(), environment.collect());
    read_as(program, &arguments, &environment, |path| std::fs::read_to_string(path))
}

fn read_as(
    program: &str,
    arguments: &[String],
    environment: &[(String, String)],
    read_file: impl FnOnce(&str) -> std::io::Result<String>,
) -> Result<Invocation, ConfigError> {
    if let Some((first, rest)) = arguments.split_first() {
        match first.as_str() {
            "prepare" => return prepare::read(rest).map(Invocation::PrepareForm),
            "-h" | "-help" | "--help" | "help" => return Ok(Invocation::Print(help(program))),
            _ => {}
        }
    }
    let mut settings = sources::command_line(arguments)?;
    if values::boolean(settings.text("version")).unwrap_or(false) {
        return Ok(Invocation::Print(version::text(program)));
    }
    sources::environment(&mut settings, environment);
    let path = settings.text("config-file").to_owned();
    if !path.is_empty() {
        let content = read_file(&path).map_err(|error| {
            ConfigError::new(format!("--config-file {path} cannot be read: {error}"))
        })?;
        let mut from_file = sources::file(&path, &content)?;
        let others = settings.iter().filter(|(flag, _)| flag.name != "config-file").count();
        if others > 0 {
            from_file.warnings.push(format!(
                "{others} flags or environment variables are ignored, since --config-file is given"
            ));
        }
        settings = from_file;
    }
    validate(program, settings).map(|config| Invocation::Serve(Box::new(config)))
}

/// The list of what is served, for `--help`.
fn help(program: &str) -> String {
    let mut text = format!(
        "Usage: {program} [--flag=value ...]\n       {program} prepare form --token … --name … --data-dir … \
         --peer-url … --client-url …\n\nFlags are etcd's; each may stand in the environment as ETCD_NAME or in a \
         YAML file (--config-file).\n\n"
    );
    for flag in flags::FLAGS.iter().filter(|flag| flag.fate == Fate::Served) {
        text.push_str(&format!("  --{}", flag.name));
        if !flag.default.is_empty() {
            text.push_str(&format!(" (default {})", flag.default));
        }
        text.push('\n');
    }
    text.push_str("\nEvery other flag of etcd 3.7 is known, and refused or accepted with a warning by name.\n");
    text
}

/// Sorts what was given by its fate: warnings for what changes nothing, an error for what is refused.
fn judge(settings: &Settings, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for (flag, given) in settings.iter() {
        let default = sources::is_default(flag, given)?;
        match flag.fate {
            Fate::Served => {}
            Fate::AcceptedWithWarning(why) if default => {
                warnings.push(format!("{} has its default value: {why}", given.label));
            }
            Fate::AcceptedWithWarning(why) => {
                warnings.push(format!("{} changes nothing: {why}", given.label));
            }
            Fate::Refused(why) if default => {
                warnings.push(format!(
                    "{} has its default value; another would be refused: {why}",
                    given.label
                ));
            }
            Fate::Refused(why) => {
                return Err(ConfigError::new(format!(
                    "{}={} is refused: {why}",
                    given.label, given.value
                )));
            }
        }
    }
    Ok(())
}

/// Judges `--feature-gates=A=true,B=false` gate by gate.
fn judge_gates(settings: &Settings, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for part in values::list(settings.text("feature-gates")) {
        let (name, value) = part.split_once('=').ok_or_else(|| {
            ConfigError::new(format!("missing bool value for feature gate {part}"))
        })?;
        let gate = GATES
            .iter()
            .find(|gate| gate.name == name)
            .ok_or_else(|| ConfigError::new(format!("unrecognized feature gate: {name}")))?;
        let on = values::boolean(value).map_err(|_| {
            ConfigError::new(format!("invalid value of {name}={value}: not a truth value"))
        })?;
        match gate.fate {
            _ if on == gate.default => {}
            Fate::Served => {}
            Fate::AcceptedWithWarning(why) => {
                warnings.push(format!("feature gate {name}={on} changes nothing: {why}"));
            }
            Fate::Refused(why) => {
                return Err(ConfigError::new(format!(
                    "feature gate {name}={on} is refused: {why}"
                )));
            }
        }
    }
    Ok(())
}

/// Typed access to settings, with errors that name the flag.
struct Reader<'a>(&'a Settings);

impl Reader<'_> {
    fn value<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        parse(self.0.text(name)).map_err(|error| {
            ConfigError::new(format!("invalid value for {}: {error}", self.0.label(name)))
        })
    }

    fn boolean(&self, name: &str) -> Result<bool, ConfigError> {
        self.value(name, values::boolean)
    }

    fn duration(&self, name: &str) -> Result<Duration, ConfigError> {
        self.value(name, values::duration)
    }

    fn urls(&self, name: &str) -> Result<Vec<Url>, ConfigError> {
        self.value(name, values::urls)
    }

    /// A number of a type that it must fit.
    fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<T, ConfigError> {
        self.value(name, |text| {
            T::try_from(values::integer(text)?).map_err(|_| format!("{text} is out of range"))
        })
    }

    fn listen(&self, name: &str) -> Result<Vec<Url>, ConfigError> {
        let urls = self.urls(name)?;
        for url in &urls {
            url.bind_address().map_err(|error| {
                ConfigError::new(format!("invalid value for {}: {error}", self.0.label(name)))
            })?;
        }
        Ok(urls)
    }

    fn advertise(&self, name: &str) -> Result<Vec<Url>, ConfigError> {
        let urls = self.urls(name)?;
        for url in &urls {
            url.check_host().map_err(|error| {
                ConfigError::new(format!("{} must be \"host:port\" ({error})", self.0.label(name)))
            })?;
        }
        Ok(urls)
    }
}

fn validate(program: &str, mut settings: Settings) -> Result<Config, ConfigError> {
    let mut warnings = std::mem::take(&mut settings.warnings);
    judge(&settings, &mut warnings)?;
    judge_gates(&settings, &mut warnings)?;
    let read = Reader(&settings);

    let name = settings.text("name").to_owned();
    let advertise_peer_urls = read.advertise("initial-advertise-peer-urls")?;
    if advertise_peer_urls.is_empty() {
        return Err(ConfigError::new(
            "--initial-advertise-peer-urls is empty: other members could not reach this one",
        ));
    }
    let start = cluster::start(&settings, &name, &advertise_peer_urls)?;
    let (heartbeat_interval, election_timeout) = ticks(&read)?;
    let (log_level, log_format, log_output) = log(&settings)?;
    let data_dir = match settings.text("data-dir") {
        "" if program == "etcd" => format!("{name}.etcd"),
        "" => format!("{name}.quorate"),
        given => given.to_owned(),
    };
    let config = Config {
        data_dir: data_dir.into(),
        listen_peer_urls: read.listen("listen-peer-urls")?,
        listen_client_urls: read.listen("listen-client-urls")?,
        advertise_client_urls: advertise_client_urls(&read)?,
        listen_client_http_urls: read.listen("listen-client-http-urls")?,
        listen_metrics_urls: read.listen("listen-metrics-urls")?,
        initial_cluster_token: settings.text("initial-cluster-token").to_owned(),
        quota_bytes: quota(&read)?,
        max_txn_ops: read.number("max-txn-ops")?,
        max_request_bytes: read.number("max-request-bytes")?,
        max_concurrent_streams: read.number("max-concurrent-streams")?,
        keepalive: keepalive(&read)?,
        reuse_port: read.boolean("socket-reuse-port")?,
        auto_compaction: auto_compaction(&read)?,
        strict_reconfig_check: read.boolean("strict-reconfig-check")?,
        max_learners: read.number("max-learners")?,
        watch_progress_notify_interval: read
            .duration("watch-progress-notify-interval")?
            .max(PROGRESS_INTERVAL_MIN),
        warning_apply_duration: read.duration("warning-apply-duration")?,
        warning_unary_request_duration: read.duration("warning-unary-request-duration")?,
        extensive_metrics: extensive_metrics(&read)?,
        drain_delay: read.duration("drain-delay")?,
        name,
        advertise_peer_urls,
        start,
        heartbeat_interval,
        election_timeout,
        log_level,
        log_format,
        log_output,
        warnings: Vec::new(),
    };
    if config.listen_peer_urls.is_empty() || config.listen_client_urls.is_empty() {
        return Err(ConfigError::new(
            "--listen-peer-urls and --listen-client-urls must not be empty",
        ));
    }
    advise(&config, &mut warnings);
    Ok(Config { warnings, ..config })
}

/// What etcd warns of at its start.
fn advise(config: &Config, warnings: &mut Vec<String>) {
    if config.name == "default" {
        warnings.push(
            "it isn't recommended to use default name, please set a value for --name; members of one cluster must \
             not share a name"
                .to_owned(),
        );
    }
    if config.quota_bytes.is_some_and(|quota| quota > SUGGESTED_QUOTA_MAX) {
        warnings.push("--quota-backend-bytes is above the suggested maximum of 8 GiB".to_owned());
    }
    if config.max_request_bytes > SUGGESTED_REQUEST_MAX {
        warnings.push("--max-request-bytes is above the suggested maximum of 10 MiB".to_owned());
    }
}

fn ticks(read: &Reader<'_>) -> Result<(Duration, Duration), ConfigError> {
    let heartbeat: u64 = read.number("heartbeat-interval")?;
    let election: u64 = read.number("election-timeout")?;
    let refuse = |message: String| Err(ConfigError::new(message));
    if heartbeat == 0 {
        return refuse("--heartbeat-interval must be >0 (set to 0ms)".to_owned());
    }
    if election == 0 {
        return refuse("--election-timeout must be >0 (set to 0ms)".to_owned());
    }
    if heartbeat.saturating_mul(5) > election {
        return refuse(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > ELECTION_TIMEOUT_MAX_MS {
        return refuse(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_TIMEOUT_MAX_MS}ms"
        ));
    }
    Ok((Duration::from_millis(heartbeat), Duration::from_millis(election)))
}

fn advertise_client_urls(read: &Reader<'_>) -> Result<Vec<Url>, ConfigError> {
    if read.0.is_given("listen-client-urls") && !read.0.is_given("advertise-client-urls") {
        return Err(ConfigError::new(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ));
    }
    read.advertise("advertise-client-urls")
}

fn quota(read: &Reader<'_>) -> Result<Option<u64>, ConfigError> {
    let bytes: i64 = read.number("quota-backend-bytes")?;
    Ok(match u64::try_from(bytes) {
        Ok(0) => Some(DEFAULT_QUOTA),
        Ok(bytes) => Some(bytes),
        Err(_) => None,
    })
}

fn keepalive(read: &Reader<'_>) -> Result<Keepalive, ConfigError> {
    let interval = read.duration("grpc-keepalive-interval")?;
    Ok(Keepalive {
        interval: Some(interval).filter(|interval| !interval.is_zero()),
        timeout: read.duration("grpc-keepalive-timeout")?,
    })
}

fn auto_compaction(read: &Reader<'_>) -> Result<Option<AutoCompaction>, ConfigError> {
    let mode = read.0.text("auto-compaction-mode");
    let retention = read.0.text("auto-compaction-retention");
    let plain: Option<i64> = retention.parse().ok().filter(|number| *number >= 0);
    match (mode, plain) {
        ("periodic" | "revision", Some(0)) => Ok(None),
        ("revision", Some(revisions)) => Ok(Some(AutoCompaction::Revision(revisions))),
        // A bare number means hours.
        ("periodic", Some(hours)) => {
            let hours = u64::try_from(hours).expect("filtered to be at least 0");
            Ok(Some(AutoCompaction::Periodic(Duration::from_secs(hours.saturating_mul(3600)))))
        }
        ("periodic", None) => {
            let span = read.duration("auto-compaction-retention")?;
            Ok(Some(span).filter(|span| !span.is_zero()).map(AutoCompaction::Periodic))
        }
        ("revision", None) => Err(ConfigError::new(format!(
            "--auto-compaction-retention={retention} must be a number of revisions in the mode revision"
        ))),
        ("", _) => Err(ConfigError::new("undefined auto-compaction-mode")),
        (unknown, _) => Err(ConfigError::new(format!("unknown auto-compaction-mode {unknown:?}"))),
    }
}

fn extensive_metrics(read: &Reader<'_>) -> Result<bool, ConfigError> {
    read.value("metrics", |text| match text {
        "basic" | "" => Ok(false),
        "extensive" => Ok(true),
        _ => Err(format!("{text:?} is neither basic nor extensive")),
    })
}

fn log(settings: &Settings) -> Result<(&'static str, LogFormat, LogOutput), ConfigError> {
    let level = match settings.text("log-level") {
        "debug" => "debug",
        "info" => "info",
        "warn" => "warn",
        // tracing knows nothing above an error.
        "error" | "dpanic" | "panic" | "fatal" => "error",
        other => return Err(ConfigError::new(format!("unrecognized level: {other:?}"))),
    };
    let format = match settings.text("log-format") {
        "json" => LogFormat::Json,
        "console" => LogFormat::Console,
        other => {
            return Err(ConfigError::new(format!(
                "unknown log-format {other:?}, expected \"json\" or \"console\""
            )));
        }
    };
    let output = match values::list(settings.text("log-outputs")).as_slice() {
        ["default" | "stderr"] | [] => LogOutput::Stderr,
        ["stdout"] => LogOutput::Stdout,
        others => {
            return Err(ConfigError::new(format!(
                "--log-outputs={}: only one of stderr and stdout is served; let their reader write files",
                others.join(",")
            )));
        }
    };
    Ok((level, format, output))
}

#[cfg(test)]
mod tests;
