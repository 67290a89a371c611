//! What is counted, and how it is written down for Prometheus: etcd's names, types and label cases, to the letter.
//!
//! The text is written by hand in the classic format, since dashboards of etcd rely on gauges that end in `_total` and
//! on labels such as `To`, which libraries correct. Counters live with who counts; this file reads them at each scrape.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_machine::MemberId;
use quorate_storage::manifest::MANIFEST_FORMAT;

use crate::{
    config::version,
    grpc::methods::{COUNT, Call, METHODS},
    handle::Handle,
    peers::PeerMetrics,
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds, or takes away.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds in microseconds: Prometheus's defaults, which etcd's gRPC histograms have.
const USUAL: &[u64] = &[
    5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// Upper bounds in microseconds: 1 ms doubling 14 times, as etcd's disk histograms have them (`wal/metrics.go`).
const DISK: &[u64] = &[
    1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_024_000,
    2_048_000, 4_096_000, 8_192_000,
];

/// Upper bounds in microseconds: 0.1 ms doubling 16 times, as etcd's round trips between peers have them (`rafthttp/metrics.go`).
const ROUND_TRIP: &[u64] = &[
    100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 102_400, 204_800, 409_600,
    819_200, 1_638_400, 3_276_800,
];

/// The most bounds that a histogram has.
const BOUNDS_MAX: usize = 16;

/// Durations, by upper bound.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than there are bounds: what is above all of them.
    counts: [AtomicU64; BOUNDS_MAX + 1],
    sum_nanos: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() <= BOUNDS_MAX, "a histogram of {} bounds", bounds.len());
        Self {
            bounds,
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_nanos: AtomicU64::new(0),
        }
    }

    /// Of the way to a peer and back.
    #[must_use]
    pub fn round_trips() -> Self {
        Self::new(ROUND_TRIP)
    }

    /// Takes one in.
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        let at = self.bounds.partition_point(|bound| *bound < micros);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// gRPC's status codes by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// One call's counts.
#[derive(Debug)]
pub struct CallMetrics {
    /// Begun.
    pub started: Counter,
    /// Ended, by status code.
    pub handled: [Counter; CODES.len()],
    /// Messages from clients.
    pub received: Counter,
    /// Messages to clients.
    pub sent: Counter,
    /// How long they took; only with `--metrics=extensive`.
    pub handling: Histogram,
}

/// All calls' counts.
#[derive(Debug)]
pub struct GrpcMetrics {
    calls: [CallMetrics; COUNT],
    /// Bytes of messages to clients.
    pub sent_bytes: Counter,
    /// Bytes of messages from clients.
    pub received_bytes: Counter,
    /// `--metrics=extensive`
    pub extensive: bool,
}

impl GrpcMetrics {
    fn new(extensive: bool) -> Self {
        let calls = std::array::from_fn(|_| CallMetrics {
            started: Counter::default(),
            handled: std::array::from_fn(|_| Counter::default()),
            received: Counter::default(),
            sent: Counter::default(),
            handling: Histogram::new(USUAL),
        });
        Self {
            calls,
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            extensive,
        }
    }

    /// One call's counts.
    #[must_use]
    pub fn of(&self, call: Call) -> &CallMetrics {
        &self.calls[call as usize]
    }
}

/// What the WAL and files threads measure.
#[derive(Debug)]
pub struct DiskMetrics {
    /// Syncs of the WAL.
    pub wal_sync: Histogram,
    /// Writes to the WAL, without their sync.
    pub wal_write: Histogram,
    /// Bytes written to the WAL.
    pub wal_bytes: Counter,
    /// Checkpoints: the counterpart of etcd's backend commits.
    pub backend_commit: Histogram,
}

impl Default for DiskMetrics {
    fn default() -> Self {
        Self {
            wal_sync: Histogram::new(DISK),
            wal_write: Histogram::new(DISK),
            wal_bytes: Counter::default(),
            backend_commit: Histogram::new(DISK),
        }
    }
}

impl DiskMetrics {
    /// A batch is durable: its bytes, and how long writing and syncing took.
    pub fn wal_written(&self, bytes: u64, write: Duration, sync: Duration) {
        self.wal_bytes.add(bytes);
        self.wal_write.observe(write);
        self.wal_sync.observe(sync);
    }
}

/// What the apply thread measures.
#[derive(Debug)]
pub struct ApplyMetrics {
    /// Entries applied since the start.
    pub entries: Counter,
    /// Slices that took longer than `--warning-apply-duration`.
    pub slow: Counter,
    warn_after: Duration,
}

impl ApplyMetrics {
    fn new(warn_after: Duration) -> Self {
        Self { entries: Counter::default(), slow: Counter::default(), warn_after }
    }

    /// A slice of so many entries took so long.
    pub fn applied(&self, entries: usize, took: Duration) {
        self.entries.add(entries as u64);
        if took > self.warn_after {
            self.slow.add(1);
            tracing::warn!(entries, took_ms = took.as_millis(), "apply request took too long");
        }
    }
}

/// Proposals of this member's clients.
#[derive(Debug, Default)]
pub struct ProposalMetrics {
    /// Under way.
    pub pending: Gauge,
    /// Without a result.
    pub failed: Counter,
}

/// The answers of `/health`, `/livez` and `/readyz`.
#[derive(Debug, Default)]
pub struct HealthMetrics {
    /// `/health` said true.
    pub success: Counter,
    /// `/health` said false.
    pub failures: Counter,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    /// By the gRPC services.
    pub grpc: Arc<GrpcMetrics>,
    /// By the WAL and files threads.
    pub disk: Arc<DiskMetrics>,
    /// By the apply thread.
    pub apply: Arc<ApplyMetrics>,
    /// By the connections to peers.
    pub peers: Arc<PeerMetrics>,
    /// By the gRPC services.
    pub proposals: ProposalMetrics,
    /// By the health pages.
    pub health: HealthMetrics,
}

impl Metrics {
    /// Nothing counted yet; a slice of apply that takes longer than `warn_apply_after` will be logged.
    #[must_use]
    pub fn new(extensive: bool, warn_apply_after: Duration) -> Self {
        Self {
            grpc: Arc::new(GrpcMetrics::new(extensive)),
            disk: Arc::default(),
            apply: Arc::new(ApplyMetrics::new(warn_apply_after)),
            peers: Arc::default(),
            proposals: ProposalMetrics::default(),
            health: HealthMetrics::default(),
        }
    }

    /// The page `/metrics`.
    #[must_use]
    pub fn page(&self, handle: &Handle) -> String {
        let mut page = Page(String::with_capacity(16 * 1024));
        self.server(&mut page, handle);
        Self::names(&mut page, handle);
        Self::store(&mut page, handle);
        self.disk(&mut page);
        self.network(&mut page);
        self.calls(&mut page);
        process(&mut page);
        page.0
    }

    fn server(&self, page: &mut Page, handle: &Handle) {
        let (published, leadership) = (handle.published(), handle.leadership());
        let has_leader = leadership.leader != MemberId(0);
        let proposals = &self.proposals;
        page.rows(
            "gauge",
            &[
                ("etcd_server_has_leader", "1 if a leader is known", has_leader.into()),
                ("etcd_server_is_leader", "1 if this member leads", leadership.is_leader.into()),
                (
                    "etcd_server_is_learner",
                    "1 if this member does not vote",
                    leadership.is_learner.into(),
                ),
                (
                    "etcd_server_proposals_committed_total",
                    "The commit index",
                    leadership.commit_index.into(),
                ),
                (
                    "etcd_server_proposals_applied_total",
                    "The applied index",
                    published.applied_index.into(),
                ),
                (
                    "etcd_server_proposals_pending",
                    "Proposals without an answer yet",
                    proposals.pending.get().into(),
                ),
            ],
        );
        page.rows(
            "counter",
            &[
                (
                    "etcd_server_leader_changes_seen_total",
                    "Changes of leader since the start",
                    leadership.changes.into(),
                ),
                (
                    "etcd_server_proposals_failed_total",
                    "Proposals that failed",
                    proposals.failed.get().into(),
                ),
                (
                    "etcd_server_slow_apply_total",
                    "Slices of apply that took long",
                    self.apply.slow.get().into(),
                ),
                (
                    "etcd_server_health_success",
                    "Answers of /health that were true",
                    self.health.success.get().into(),
                ),
                (
                    "etcd_server_health_failures",
                    "Answers of /health that were false",
                    self.health.failures.get().into(),
                ),
            ],
        );
    }

    fn names(page: &mut Page, handle: &Handle) {
        for (name, label, text) in [
            ("etcd_server_id", "server_id", handle.member_id().to_string()),
            ("etcd_server_version", "server_version", version::ETCD_API.to_owned()),
            (
                "etcd_cluster_version",
                "cluster_version",
                version::ETCD_CLUSTER.trim_end_matches(".0").to_owned(),
            ),
        ] {
            page.labelled(name, "gauge", "Always 1; what it tells is the label");
            page.value(name, &format!("{label}=\"{text}\""), 1);
        }
    }

    fn store(page: &mut Page, handle: &Handle) {
        let (published, sizes) = (handle.published(), handle.sizes());
        let (point, level) = (published.point, published.feature_level.0);
        let committed = handle.leadership().commit_index;
        page.rows(
            "gauge",
            &[
                (
                    "etcd_server_quota_backend_bytes",
                    "Bytes that may be in use; 0 without a quota",
                    sizes.quota.into(),
                ),
                ("etcd_mvcc_db_total_size_in_bytes", "Bytes of the data files", sizes.total.into()),
                (
                    "etcd_mvcc_db_total_size_in_use_in_bytes",
                    "Bytes of live data in them",
                    sizes.in_use.into(),
                ),
                (
                    "etcd_debugging_mvcc_current_revision",
                    "The revision of the store",
                    point.revision.into(),
                ),
                (
                    "etcd_debugging_mvcc_compact_revision",
                    "History below it is gone",
                    point.compacted.max(0).into(),
                ),
                ("quorate_applied_index", "The applied index", published.applied_index.into()),
                ("quorate_committed_index", "The commit index", committed.into()),
                ("quorate_feature_level", "What all members have agreed to use", level.into()),
                ("quorate_storage_format", "The data directory's format", MANIFEST_FORMAT.into()),
            ],
        );
        if let Some(rows) = published.next_level_rows {
            let help = "Rows that only members of this build's feature level know";
            page.rows("gauge", &[("quorate_next_level_rows", help, rows.into())]);
        }
    }

    fn disk(&self, page: &mut Page) {
        let disk = &self.disk;
        for (name, help, histogram) in [
            ("etcd_disk_wal_fsync_duration_seconds", "Syncs of the log", &disk.wal_sync),
            (
                "etcd_disk_wal_write_duration_seconds",
                "Writes to the log without their syncs",
                &disk.wal_write,
            ),
            (
                "etcd_disk_backend_commit_duration_seconds",
                "Checkpoints of the data",
                &disk.backend_commit,
            ),
        ] {
            page.labelled(name, "histogram", help);
            page.histogram(name, "", histogram);
        }
        let written = disk.wal_bytes.get().into();
        page.rows(
            "gauge",
            &[("etcd_disk_wal_write_bytes_total", "Bytes written to the log", written)],
        );
    }

    fn network(&self, page: &mut Page) {
        type Read = fn(&crate::peers::PeerCounts) -> u64;
        let peers = self.peers.all();
        let rows: [(&str, &str, &str, Read); 4] = [
            ("etcd_network_peer_sent_bytes_total", "To", "Bytes sent to a peer", |counts| {
                load(&counts.sent_bytes)
            }),
            ("etcd_network_peer_received_bytes_total", "From", "Bytes from a peer", |counts| {
                load(&counts.received_bytes)
            }),
            (
                "etcd_network_peer_sent_failures_total",
                "To",
                "Messages that did not reach a peer",
                |counts| load(&counts.send_failures),
            ),
            (
                "etcd_network_peer_received_failures_total",
                "From",
                "Connections from a peer that broke",
                |counts| load(&counts.receive_failures),
            ),
        ];
        for (name, label, help, read) in rows {
            page.labelled(name, "counter", help);
            for (peer, counts) in &peers {
                page.value(name, &format!("{label}=\"{peer}\""), read(counts));
            }
        }
        let name = "etcd_network_peer_round_trip_time_seconds";
        page.labelled(name, "histogram", "The way to a peer and back");
        for (peer, counts) in &peers {
            page.histogram(name, &format!("To=\"{peer}\""), &counts.round_trip);
        }
        let (sent, received) = (self.grpc.sent_bytes.get(), self.grpc.received_bytes.get());
        page.rows(
            "counter",
            &[
                (
                    "etcd_network_client_grpc_sent_bytes_total",
                    "Bytes of gRPC messages to clients",
                    sent.into(),
                ),
                (
                    "etcd_network_client_grpc_received_bytes_total",
                    "Bytes of gRPC messages from clients",
                    received.into(),
                ),
            ],
        );
    }

    fn calls(&self, page: &mut Page) {
        type Read = fn(&CallMetrics) -> u64;
        let rows: [(&str, &str, Read); 3] = [
            ("grpc_server_started_total", "Calls begun", |call| call.started.get()),
            ("grpc_server_msg_received_total", "Messages from clients", |call| call.received.get()),
            ("grpc_server_msg_sent_total", "Messages to clients", |call| call.sent.get()),
        ];
        for (name, help, read) in rows {
            page.labelled(name, "counter", help);
            for method in &METHODS {
                page.value(name, &call_labels(method), read(self.grpc.of(method.call)));
            }
        }
        let name = "grpc_server_handled_total";
        page.labelled(name, "counter", "Calls ended, by status code");
        for method in &METHODS {
            for (code, count) in CODES.iter().zip(&self.grpc.of(method.call).handled) {
                // Codes that never came would make the page ten times as long.
                if count.get() > 0 || *code == "OK" {
                    let labels = format!("grpc_code=\"{code}\",{}", call_labels(method));
                    page.value(name, &labels, count.get());
                }
            }
        }
        if self.grpc.extensive {
            let name = "grpc_server_handling_seconds";
            page.labelled(name, "histogram", "How long calls took, streams to their end");
            for method in &METHODS {
                page.histogram(name, &call_labels(method), &self.grpc.of(method.call).handling);
            }
        }
    }
}

fn call_labels(method: &crate::grpc::methods::Method) -> String {
    let (service, name) = method.names();
    format!(
        "grpc_method=\"{name}\",grpc_service=\"{service}\",grpc_type=\"{}\"",
        method.shape.label()
    )
}

/// The page while it is written.
struct Page(String);

impl Page {
    fn labelled(&mut self, name: &str, kind: &str, help: &str) {
        line(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn value(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        line(&mut self.0, format_args!("{name}{{{labels}}} {value}"));
    }

    /// Numbers without labels.
    fn rows(&mut self, kind: &str, rows: &[(&str, &str, i128)]) {
        for (name, help, number) in rows {
            self.plain(name, kind, help, number);
        }
    }

    fn plain(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.labelled(name, kind, help);
        line(&mut self.0, format_args!("{name} {value}"));
    }

    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let separator = if labels.is_empty() { "" } else { "," };
        let bucket = format!("{name}_bucket");
        let mut total = 0;
        for (at, count) in histogram.counts.iter().enumerate().take(histogram.bounds.len() + 1) {
            total += load(count);
            let bound = histogram.bounds.get(at).map(|bound| (*bound as f64 / 1e6).to_string());
            let bound = bound.as_deref().unwrap_or("+Inf");
            self.value(&bucket, &format!("{labels}{separator}le=\"{bound}\""), total);
        }
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let sum = load(&histogram.sum_nanos) as f64 / 1e9;
        line(&mut self.0, format_args!("{name}_sum{braces} {sum}\n{name}_count{braces} {total}"));
    }
}

fn load(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string does not fail");
    out.push('\n');
}

/// The process, from /proc; what cannot be read is left out.
fn process(page: &mut Page) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
    if let Some(times) = process_times(&read("self/stat"), rustix::param::clock_ticks_per_second())
    {
        let resident = times.resident_pages * rustix::param::page_size() as u64;
        page.plain(
            "process_cpu_seconds_total",
            "counter",
            "User and system time",
            times.cpu_seconds,
        );
        page.plain("process_resident_memory_bytes", "gauge", "Resident memory", resident);
        if let Some(booted) = boot_seconds(&read("stat")) {
            let started = booted + times.start_seconds;
            page.plain("process_start_time_seconds", "gauge", "The start since the epoch", started);
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // The directory itself is open while it is read.
        let open = open.count().saturating_sub(1);
        page.plain("process_open_fds", "gauge", "Open file descriptors", open);
        page.plain("os_fd_used", "gauge", "Open file descriptors", open);
    }
    if let Some(limit) = descriptor_limit(&read("self/limits")) {
        page.plain("process_max_fds", "gauge", "File descriptors that may be open", limit);
        page.plain("os_fd_limit", "gauge", "File descriptors that may be open", limit);
    }
}

/// What /proc/self/stat says.
#[derive(Debug, PartialEq)]
struct ProcessTimes {
    cpu_seconds: f64,
    /// Since the boot.
    start_seconds: f64,
    resident_pages: u64,
}

/// Reads proc(5)'s `stat`. The second field is the command in parentheses and may hold anything.
fn process_times(stat: &str, ticks_per_second: u64) -> Option<ProcessTimes> {
    let fields: Vec<u64> = stat
        .rsplit_once(") ")?
        .1
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let ticks = ticks_per_second as f64;
    // Fields 14 and 15 are user and system time, 22 the start, 24 the resident pages; the list begins at field 4.
    Some(ProcessTimes {
        cpu_seconds: (fields.get(10)? + fields.get(11)?) as f64 / ticks,
        start_seconds: *fields.get(18)? as f64 / ticks,
        resident_pages: *fields.get(20)?,
    })
}

fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn descriptor_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_all() {
        let histogram = Histogram::new(DISK);
        for micros in [500, 1000, 1001, 4000, 9_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut page = Page(String::new());
        page.histogram("x", "", &histogram);
        let begin =
            "x_bucket{le=\"0.001\"} 2\nx_bucket{le=\"0.002\"} 3\nx_bucket{le=\"0.004\"} 4\n";
        let end = "x_bucket{le=\"8.192\"} 4\nx_bucket{le=\"+Inf\"} 5\nx_sum 9.006501\nx_count 5\n";
        assert!(page.0.starts_with(begin) && page.0.ends_with(end), "{}", page.0);
        assert_eq!(page.0.matches("_bucket").count(), 15);
        let handling = Histogram::new(USUAL);
        handling.observe(Duration::from_nanos(5_000_001));
        page.0.clear();
        page.histogram("x", "a=\"b\"", &handling);
        assert!(
            page.0
                .starts_with("x_bucket{a=\"b\",le=\"0.005\"} 0\nx_bucket{a=\"b\",le=\"0.01\"} 1\n")
        );
        assert!(
            page.0.contains("x_bucket{a=\"b\",le=\"10\"} 1\n")
                && page.0.contains("x_count{a=\"b\"} 1\n")
        );
    }

    #[test]
    fn calls_are_counted_by_code_and_labelled_as_etcd_labels_them() {
        let metrics = Metrics::new(true, Duration::from_secs(1));
        metrics.grpc.of(Call::Put).started.add(3);
        metrics.grpc.of(Call::Put).handled[8].add(1);
        metrics.grpc.of(Call::Put).handling.observe(Duration::from_millis(7));
        let mut page = Page(String::new());
        metrics.calls(&mut page);
        let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        for expected in [
            format!("grpc_server_started_total{{{labels}}} 3\n"),
            format!("grpc_server_handled_total{{grpc_code=\"ResourceExhausted\",{labels}}} 1\n"),
            format!("grpc_server_handling_seconds_bucket{{{labels},le=\"0.01\"}} 1\n"),
        ] {
            assert!(page.0.contains(&expected), "{expected}");
        }
        assert!(
            page.0.contains("grpc_type=\"bidi_stream\"")
                && page.0.contains("grpc_type=\"server_stream\"")
        );
    }

    #[test]
    fn the_process_is_read_from_proc() {
        let stat = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 5 0 1000 9999 77 18446744073709551615";
        let times = process_times(stat, 100).unwrap();
        assert_eq!(
            times,
            ProcessTimes { cpu_seconds: 2.0, start_seconds: 10.0, resident_pages: 77 }
        );
        assert_eq!(boot_seconds("cpu 1\nbtime 1700000000\n"), Some(1.7e9));
        assert_eq!(
            descriptor_limit("Max cpu time x\nMax open files            1024    4096 files\n"),
            Some(1024)
        );
        let mut page = Page(String::new());
        process(&mut page);
        for name in [
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            assert!(page.0.contains(&format!("\n{name} ")), "{name}");
        }
    }
}
