//! kill -9 of any one member under full load: nothing acknowledged is lost, the history is linearizable, watchers are told
//! everything once and in order, and leases end neither early nor late.

#![allow(clippy::unwrap_used, reason = "a test says that it failed by a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_e2e_store::cluster::{Cluster, Server};
use quorate_e2e_store::load::{Evidence, LEASE_SECONDS, Load};
use quorate_e2e_store::member::Member;
use quorate_e2e_store::observer::change_log;
use quorate_kubernetes::Progress;
use quorate_sim::judge::linearizability::replayed;
use quorate_sim::judge::{
    ChangeLog, LeaderTime, Operation, Outcome, Report, Request, Response, check_history,
    check_leases, check_watch,
};

/// Kills in the gate. The soak sets `QUORATE_KILLS=20`.
const KILLS: usize = 3;

/// Acknowledged writes between two faults: two seconds' worth, so that leases of six seconds live through several.
const WRITES_BETWEEN: u64 = 3000;

/// How long so many may take, with an election between and compilers beside.
const WRITES_IN: Duration = Duration::from_secs(60);

/// How long it may take until as many leases as kills have ended: four clients hold one each, for up to three lives.
const LEASES_END_IN: Duration = Duration::from_secs(60);

/// The rate that counts as full load, in writes a second. The soak asks for it; a host of the gate may be shared.
const RATE_MIN: f64 = 500.0;

/// A time without any acknowledged write longer than this is counted as without a leader.
const QUIET: u64 = 300_000_000;

/// What clock ticks, the search for ended leases and the watchers' way may add to the life of a lease.
const LATE_MAX: u64 = 2_500_000_000;

/// What may be missing from the life of a lease: the distance of two ticks.
const EARLY_MAX: u64 = 150_000_000;

fn kills() -> usize {
    std::env::var("QUORATE_KILLS").map_or(KILLS, |text| text.parse().unwrap())
}

#[test]
fn kill_9_under_full_load_loses_nothing() {
    let progress = Progress::start();
    let mut cluster = Cluster::start(Server::Quorate, 3, &[]).unwrap();
    // What a killed member finds when it starts again.
    cluster.allow(&["a crash cut off the log's last write"]);
    let load = Load::start(cluster.members.iter().map(Member::client_url).collect()).unwrap();
    load.wait_writes(WRITES_BETWEEN, WRITES_IN).unwrap();
    for round in 0..kills() {
        let leader = cluster.leader().unwrap();
        // Leader and followers take turns.
        let victim = if round % 2 == 0 { leader } else { (leader + 1 + round / 2 % 2) % 3 };
        let role = if victim == leader { "the leader" } else { "a follower" };
        cluster.members[victim].kill().unwrap();
        assert!(!cluster.members[victim].is_running());
        load.wait_writes(WRITES_BETWEEN, WRITES_IN).unwrap();
        cluster.members[victim].start().unwrap();
        cluster.members[victim].wait_ready().unwrap();
        load.wait_writes(WRITES_BETWEEN, WRITES_IN).unwrap();
        progress.say(format!("{} killed, {role}; {} writes so far", round + 1, load.writes()));
    }
    load.wait_ended_leases(kills() as u64, LEASES_END_IN).unwrap();
    let evidence = load.stop().unwrap();
    cluster.wait_level().unwrap();
    let hashes = cluster.hashes().unwrap();
    assert!(hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    progress.say(format!("{} operations to judge", evidence.operations.len()));
    let log = change_log(&evidence.observations[0], &evidence.observations[1..]);
    let report = judge(&evidence, &log);
    progress.say(format!(
        "{} writes, {} reads, {} refused, {} of unknown end happened, {} did not; {} leases ended by themselves",
        report.writes,
        report.reads,
        report.refused,
        report.unknown_happened,
        report.unknown_vanished,
        report.expiries.len(),
    ));
    assert!(report.writes as u64 > WRITES_BETWEEN * (2 * kills() as u64 + 1));
    let ended: usize = report.expiries.values().map(BTreeSet::len).sum();
    assert!(ended >= kills(), "{ended} leases ended: too little was shown of leases");
    let rate = rate(&evidence.acknowledged);
    progress.say(format!("{rate:.0} writes/s while there was a leader"));
    if std::env::var_os("QUORATE_KILLS").is_some() {
        assert!(rate >= RATE_MIN, "{rate:.0} writes/s is no full load");
    }
}

fn judge(evidence: &Evidence, log: &ChangeLog) -> Report {
    // A renewal's header is filled before the lease is renewed (`v3rpc/lease.go`), so its revision says nothing of real time;
    // what it does is judged by the law of leases.
    let is_renewal = |operation: &&Operation| matches!(operation.request, Request::Renew(_));
    let history: Vec<Operation> =
        evidence.operations.iter().filter(|operation| !is_renewal(operation)).cloned().collect();
    let report = check_history(&history, log).unwrap_or_else(|broken| panic!("{broken}"));
    let model = replayed(log).unwrap_or_else(|broken| panic!("{broken}"));
    for observation in &evidence.observations {
        let end = observation.watches.last().unwrap();
        assert!(end.must_reach.is_some(), "{} never got to the end", end.name);
        for watch in &observation.watches {
            // A stream that broke before it was made was told nothing.
            if !watch.notes.is_empty() {
                check_watch(watch, log, &model).unwrap_or_else(|broken| panic!("{broken}"));
            }
        }
    }
    let streams = |at: usize| evidence.observations[at].watches.len();
    assert!((0..3).map(streams).sum::<usize>() > 3, "no watcher ever lost its member");
    // Leader time never runs faster than ours, so a lease that is early by our clock is early.
    let time = LeaderTime { at_most: &|time| time, slack: EARLY_MAX };
    check_leases(&evidence.operations, log, &report, &time)
        .unwrap_or_else(|broken| panic!("{broken}"));
    no_lease_is_late(evidence, log);
    report
}

/// A lease that a new leader had started anew would outlive its time by up to a whole life.
fn no_lease_is_late(evidence: &Evidence, log: &ChangeLog) {
    let mut renewed: BTreeMap<i64, u64> = BTreeMap::new();
    for operation in &evidence.operations {
        // What may have happened counts as if it had, at the latest time that it can have.
        let id = match (&operation.request, &operation.outcome) {
            (_, Outcome::Failed | Outcome::Refused(_)) => continue,
            (
                Request::Renew(_),
                Outcome::Answered { response: Response::Renew { alive: false }, .. },
            ) => continue,
            (Request::Grant { id, .. } | Request::Renew(id), _) => *id,
            _ => continue,
        };
        let last = renewed.entry(id).or_default();
        *last = (*last).max(operation.returned);
    }
    let gone: BTreeMap<&[u8], u64> = log
        .transactions
        .iter()
        .flat_map(|one| one.changes.iter().map(move |change| (one.first_seen, change)))
        .filter(|(_, change)| change.pair.is_none())
        .map(|(seen, change)| (change.key.as_slice(), seen))
        .collect();
    let changed: BTreeSet<&[u8]> = log
        .transactions
        .iter()
        .flat_map(|one| one.changes.iter().map(|change| change.key.as_slice()))
        .collect();
    let end = *evidence.acknowledged.last().unwrap();
    let mut judged = 0;
    for (id, renewed) in renewed {
        let key = format!("lease/{id}").into_bytes();
        if !changed.contains(key.as_slice()) {
            continue;
        }
        let seen = gone.get(key.as_slice()).copied();
        let until = seen.unwrap_or(end).min(end);
        let due = renewed
            + LEASE_SECONDS * 1_000_000_000
            + quiet(&evidence.acknowledged, renewed, until)
            + LATE_MAX;
        assert!(
            until <= due,
            "lease {id}, last renewed at {renewed}, was due by {due} and was there until {until} (gone: {seen:?})"
        );
        judged += usize::from(seen.is_some());
    }
    assert!(judged > 0, "no lease ended within the run");
}

/// The time within a span in which nobody acknowledged anything for longer than [`QUIET`].
fn quiet(acknowledged: &[u64], from: u64, to: u64) -> u64 {
    let inside = acknowledged.iter().copied().filter(|&time| time > from && time < to);
    let mut quiet = 0;
    let mut last = from;
    for time in inside.chain([to.max(from)]) {
        if time - last > QUIET {
            quiet += time - last;
        }
        last = time;
    }
    quiet
}

/// Writes a second, the time without a leader left out.
fn rate(acknowledged: &[u64]) -> f64 {
    let (first, last) = (acknowledged[0], acknowledged[acknowledged.len() - 1]);
    let busy = last - first - quiet(acknowledged, first, last);
    acknowledged.len() as f64 / (busy as f64 / 1e9)
}
