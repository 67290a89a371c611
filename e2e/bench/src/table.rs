//! The figures of all rounds, as ratios with a verdict, for the terminal and as markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use quorate_kubernetes::components::{BENCHMARK, ETCD};

use crate::accounting::Usage;
use crate::arguments::Plan;
use crate::limits::TOLERANCE;
use crate::servers::Server;

/// What a row of the table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Operations a second.
    Throughput,
    /// Milliseconds.
    P50,
    /// Milliseconds.
    P99,
    /// Microseconds of CPU an operation, over all members.
    Cpu,
    /// Bytes that went to the disk an operation, over all members and whoever else was there.
    Written,
    /// MiB of the greatest member.
    Anonymous,
    /// MiB of the greatest member.
    Resident,
    /// Seconds.
    Seconds,
}

impl Metric {
    fn label(self) -> &'static str {
        match self {
            Metric::Throughput => "operations/s",
            Metric::P50 => "p50, ms",
            Metric::P99 => "p99, ms",
            Metric::Cpu => "server CPU, µs/op",
            Metric::Written => "to disk, B/op",
            Metric::Anonymous => "RssAnon, MiB",
            Metric::Resident => "VmRSS, MiB",
            Metric::Seconds => "seconds",
        }
    }

    fn short(self) -> &'static str {
        match self {
            Metric::Throughput => "/s",
            Metric::P50 => "ms p50",
            Metric::P99 => "ms p99",
            Metric::Cpu => "µs CPU",
            Metric::Written => "B to disk",
            Metric::Anonymous => "MiB RssAnon",
            Metric::Resident => "MiB VmRSS",
            Metric::Seconds => "s",
        }
    }

    /// Bytes to disk are told and not judged: they are bought for restart time and for commits that do not wait for the
    /// file system's journal, and they hold what the rest of the host writes.
    fn is_right(self, ratio: f64) -> bool {
        match self {
            Metric::Written => true,
            Metric::Throughput => ratio >= 1.0 - TOLERANCE,
            Metric::P50
            | Metric::P99
            | Metric::Cpu
            | Metric::Anonymous
            | Metric::Resident
            | Metric::Seconds => ratio <= 1.0 + TOLERANCE,
        }
    }
}

/// What one server did in one round.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    rows: Vec<(String, Metric, f64)>,
    rooms: Vec<(String, BTreeMap<String, f64>)>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

impl Figures {
    /// Adds a figure; rows stand in the table in the order of their first figure.
    pub(crate) fn record(&mut self, case: &str, metric: Metric, value: f64) {
        self.rows.push((case.to_owned(), metric, value));
    }

    /// Adds CPU per operation, thread by thread.
    pub(crate) fn record_rooms(&mut self, case: &str, used: &Usage, operations: f64) {
        let per_operation = |(name, cpu): (&String, &f64)| (name.clone(), cpu / operations);
        let rooms = used.threads.iter().map(per_operation).collect();
        self.rooms.push((case.to_owned(), rooms));
    }

    /// The figures of a case in one line.
    pub(crate) fn last_words(&self, case: &str) -> String {
        let of_case = self.rows.iter().filter(|(of, _, _)| of == case);
        let words = |(_, metric, value): &(String, Metric, f64)| {
            format!("{} {}", number(*value), metric.short())
        };
        of_case.map(words).collect::<Vec<_>>().join(", ")
    }

    fn value(&self, case: &str, metric: Metric) -> Option<f64> {
        let row = self.rows.iter().find(|(of, what, _)| of == case && *what == metric);
        row.map(|(_, _, value)| *value)
    }
}

/// One line of the table.
#[derive(Debug, PartialEq)]
struct Row {
    case: String,
    metric: Metric,
    /// Quorate by etcd, inside a round: median, least and greatest of the rounds.
    ratio: f64,
    least: f64,
    greatest: f64,
    quorate: f64,
    etcd: f64,
}

/// All rounds.
#[derive(Debug)]
pub(crate) struct Table {
    heading: String,
    etcd: Vec<Figures>,
    quorate: Vec<Figures>,
}

impl Table {
    /// A table without figures yet.
    pub(crate) fn new(plan: &Plan, host: &str) -> Table {
        let heading = format!(
            "quorate against etcd {} by `benchmark` {}: three members each, {} keys of 64 + 256 bytes, cases of \
             {} s; median of {} rounds. {host}.",
            ETCD.version, BENCHMARK.version, plan.keys, plan.seconds, plan.rounds
        );
        Table { heading, etcd: Vec::new(), quorate: Vec::new() }
    }

    /// Adds what a server did in the next round.
    pub(crate) fn add(&mut self, server: Server, figures: Figures) {
        match server {
            Server::Etcd => self.etcd.push(figures),
            Server::Quorate => self.quorate.push(figures),
        }
    }

    /// Whether nothing failed and every ratio is on the right side of 1.
    pub(crate) fn is_right(&self) -> bool {
        let rows = self.rows();
        !rows.is_empty()
            && self.failures().next().is_none()
            && rows.iter().all(|row| row.metric.is_right(row.ratio))
    }

    fn failures(&self) -> impl Iterator<Item = &String> {
        self.etcd.iter().chain(&self.quorate).flat_map(|figures| &figures.failures)
    }

    fn rows(&self) -> Vec<Row> {
        let mut names: Vec<(&String, Metric)> = Vec::new();
        for (case, metric, _) in self.etcd.iter().flat_map(|figures| &figures.rows) {
            if !names.contains(&(case, *metric)) {
                names.push((case, *metric));
            }
        }
        names.into_iter().filter_map(|(case, metric)| self.row(case, metric)).collect()
    }

    fn row(&self, case: &str, metric: Metric) -> Option<Row> {
        let rounds = self.quorate.iter().zip(&self.etcd);
        let pairs: Vec<(f64, f64)> = rounds
            .filter_map(|(q, e)| Some((q.value(case, metric)?, e.value(case, metric)?)))
            .collect();
        let ratios: Vec<f64> = pairs.iter().map(|(quorate, etcd)| quorate / etcd).collect();
        Some(Row {
            case: case.to_owned(),
            metric,
            ratio: median(&ratios)?,
            least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            greatest: ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            quorate: median(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>())?,
            etcd: median(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>())?,
        })
    }

    /// Where our CPU goes: the names of the rooms, greatest first, and per case the median of each.
    fn rooms(&self) -> (Vec<String>, Vec<(String, Vec<f64>)>) {
        let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut cases: Vec<&str> = Vec::new();
        for (case, rooms) in self.quorate.iter().flat_map(|figures| &figures.rooms) {
            if !cases.contains(&case.as_str()) {
                cases.push(case);
            }
            for (room, cpu) in rooms {
                samples.entry(room).or_default().push(*cpu);
            }
        }
        let mut rooms: Vec<(&str, f64)> =
            samples.iter().map(|(room, all)| (*room, all.iter().sum())).collect();
        rooms.sort_by(|a, b| b.1.total_cmp(&a.1));
        let of_case = |case: &str| {
            let value = |(room, _): &(&str, f64)| {
                let all = self.quorate.iter().flat_map(|figures| &figures.rooms);
                let all = all.filter(|(of, _)| of == case).filter_map(|(_, cpu)| cpu.get(*room));
                median(&all.copied().collect::<Vec<_>>()).unwrap_or(0.0)
            };
            (case.to_owned(), rooms.iter().map(value).collect())
        };
        let lines = cases.into_iter().map(of_case).collect();
        (rooms.iter().map(|(room, _)| (*room).to_owned()).collect(), lines)
    }

    /// The table in markdown, and below it the rooms.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.heading);
        self.write_rows(&mut text).expect("a string takes everything that is written to it");
        text
    }

    fn write_rows(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "| case | figure | quorate/etcd | min – max | quorate | etcd | |")?;
        writeln!(text, "| --- | --- | ---: | ---: | ---: | ---: | --- |")?;
        for row in self.rows() {
            let [ratio, least, greatest] = [row.ratio, row.least, row.greatest].map(number);
            let (quorate, etcd) = (number(row.quorate), number(row.etcd));
            let (case, label) = (&row.case, row.metric.label());
            let verdict = verdict(&row);
            writeln!(
                text,
                "| {case} | {label} | {ratio} | {least} – {greatest} | {quorate} | {etcd} | {verdict} |"
            )?;
        }
        for failure in self.failures() {
            writeln!(text, "\nFAILED: {failure}")?;
        }
        let (rooms, lines) = self.rooms();
        writeln!(text, "\nOur CPU by thread, µs an operation over three members:\n")?;
        writeln!(text, "| case | {} |", rooms.join(" | "))?;
        writeln!(text, "| --- |{}", " ---: |".repeat(rooms.len()))?;
        for (case, values) in lines {
            let values: Vec<String> = values.into_iter().map(number).collect();
            writeln!(text, "| {case} | {} |", values.join(" | "))?;
        }
        Ok(())
    }

    /// The same for a terminal: the markdown with its columns set under each other, and a closing line.
    pub(crate) fn text(&self) -> String {
        let wrong = self.rows().iter().filter(|row| !row.metric.is_right(row.ratio)).count();
        let failures = self.failures().count();
        let closing = format!(
            "on the wrong side of 1 by more than {:.0} %: {wrong}; failures: {failures}",
            TOLERANCE * 100.0
        );
        format!("{}\n{closing}", align(&self.markdown()))
    }
}

fn verdict(row: &Row) -> &'static str {
    if row.metric == Metric::Written {
        "not judged"
    } else if row.metric.is_right(row.ratio) {
        ""
    } else {
        "WRONG SIDE"
    }
}

/// Pads the cells of each table of a markdown text to the same width.
fn align(markdown: &str) -> String {
    let mut text = String::new();
    let mut table: Vec<Vec<&str>> = Vec::new();
    for line in markdown.lines().chain([""]) {
        if let Some(cells) = line.strip_prefix("| ") {
            let cells = cells.trim_end_matches('|').split('|').map(str::trim).collect();
            table.push(cells);
            continue;
        }
        push_aligned(&mut text, &table);
        table.clear();
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn push_aligned(text: &mut String, table: &[Vec<&str>]) {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = table.iter().filter(|row| !is_rule(row)).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in table.iter().filter(|row| !is_rule(row)) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            let is_number = cell.starts_with(|c: char| c.is_ascii_digit());
            let padded = if column > 0 && is_number {
                format!("{padding}{cell}")
            } else {
                format!("{cell}{padding}")
            };
            line.push_str(&padded);
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn is_rule(row: &[&str]) -> bool {
    row.first().is_some_and(|cell| cell.starts_with("---"))
}

/// Three significant digits, no exponent.
fn number(value: f64) -> String {
    match value.abs() {
        ..0.9995 => format!("{value:.3}"),
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        return Some(sorted[middle]);
    }
    let below = sorted.get(middle.checked_sub(1)?)?;
    Some((below + sorted[middle]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rounds: &[(f64, f64)], metric: Metric) -> Table {
        let mut table = Table { heading: "host".to_owned(), etcd: Vec::new(), quorate: Vec::new() };
        for (quorate, etcd) in rounds {
            for (server, value) in [(Server::Etcd, etcd), (Server::Quorate, quorate)] {
                let mut figures = Figures::default();
                figures.record("put 1", metric, *value);
                table.add(server, figures);
            }
        }
        table
    }

    #[test]
    fn a_ratio_is_taken_inside_a_round_and_the_median_of_the_rounds_counts() {
        // The third round met a slow host: both halved. Medians of the absolute figures would give 300/150.
        let table = table(&[(300.0, 100.0), (390.0, 150.0), (150.0, 200.0)], Metric::Throughput);
        let rows = table.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].ratio, rows[0].least, rows[0].greatest), (2.6, 0.75, 3.0));
        assert_eq!((rows[0].quorate, rows[0].etcd), (300.0, 150.0));
        assert!(table.is_right());
    }

    #[test]
    fn the_wrong_side_depends_on_the_metric_and_starts_beyond_the_tolerance() {
        let is_right = |ratio: f64, metric| table(&[(ratio, 1.0)], metric).is_right();
        assert!(is_right(0.96, Metric::Throughput) && !is_right(0.94, Metric::Throughput));
        for metric in [Metric::P50, Metric::Cpu, Metric::Resident, Metric::Seconds] {
            assert!(is_right(1.04, metric) && !is_right(1.06, metric) && is_right(0.1, metric));
        }
        assert!(table(&[(2.0, 1.0)], Metric::Written).text().contains("not judged"));
    }

    #[test]
    fn a_failure_or_a_table_without_rows_is_never_right() {
        let mut failed = table(&[(2.0, 1.0)], Metric::Throughput);
        failed.quorate[0].failures.push("round 1, quorate: gone".to_owned());
        assert!(!failed.is_right() && failed.text().contains("gone"));
        assert!(!table(&[], Metric::Throughput).is_right());
    }

    #[test]
    fn a_wrong_row_says_so_and_columns_stand_under_each_other() {
        let text = table(&[(5.0, 1.0)], Metric::P99).text();
        assert!(text.contains("WRONG SIDE") && text.contains("more than 5 %: 1;"), "{text}");
        let column = |words: &str| text.lines().find_map(|line| line.find(words));
        assert_eq!(column("quorate/etcd").unwrap() + "quorate/etcd".len(), {
            let line = text.lines().find(|line| line.starts_with("put 1")).unwrap();
            line.find("5.00").unwrap() + 4
        });
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0123, 0.5, 1.234, 56.78, 7200.4].map(number);
        assert_eq!(shown, ["0.012", "0.500", "1.23", "56.8", "7200"]);
    }
}
