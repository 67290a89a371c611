//! The law of leases: none ends before its time, none is used after its end, and none lives on long after its time.
//!
//! Time here is *leader time*: time during which the cluster had a leader that could count it. A lease may outlive its TTL by
//! leaderless time; it may never end before, whoever leads. The caller says how leader time relates to the history's times; wall
//! time is a bound from above (leader time never runs faster), so a checker of real processes passes that.

use std::collections::BTreeMap;

use super::{
    Violation,
    history::{ChangeLog, Operation, Outcome, Refusal, Request, Response},
    linearizability::{Report, replayed},
};

/// How leader time relates to the times of a history.
pub struct LeaderTime<'a> {
    /// At most so much leader time had passed at a time.
    pub at_most: &'a dyn Fn(u64) -> u64,
    /// What the clock may be off by: the distance of two ticks, drift.
    pub slack: u64,
}

#[derive(Debug, Default)]
struct Life {
    ttl: u64,
    /// When the grant was asked for.
    granted: Option<u64>,
    /// When the last renewal that succeeded was asked for, or the grant.
    renewed: u64,
    /// When the first request to revoke it was asked for.
    revoke_asked: Option<u64>,
    /// By when it was certainly gone.
    ended: Option<u64>,
    /// The revision in which its keys went.
    ended_at: Option<i64>,
}

/// Checks all leases of a history; `report` is what the check for linearizability found in it.
///
/// # Errors
/// The first law that is broken.
pub fn check_leases(
    history: &[Operation],
    log: &ChangeLog,
    report: &Report,
    time: &LeaderTime<'_>,
) -> Result<(), Violation> {
    let lives = lives(history, log, report);
    for (id, life) in &lives {
        not_early(*id, life, time)?;
    }
    for operation in history {
        used_while_alive(operation, &lives)?;
    }
    keys_stay_gone(log, &lives)
}

fn lives(history: &[Operation], log: &ChangeLog, report: &Report) -> BTreeMap<i64, Life> {
    let mut lives: BTreeMap<i64, Life> = BTreeMap::new();
    for operation in history {
        if let (Request::Grant { id, ttl }, Outcome::Answered { .. } | Outcome::Unknown) =
            (&operation.request, &operation.outcome)
        {
            let life = lives.entry(*id).or_default();
            (life.ttl, life.granted, life.renewed) =
                (*ttl, Some(operation.invoked), life.renewed.max(operation.invoked));
        }
    }
    for operation in history {
        match &operation.request {
            Request::Renew(id) => renewed(lives.entry(*id).or_default(), operation),
            Request::Revoke(id) => revoked(lives.entry(*id).or_default(), operation),
            Request::Put(put) => {
                if operation.outcome == Outcome::Refused(Refusal::LeaseNotFound) {
                    end(lives.entry(put.lease).or_default(), operation.returned);
                }
            }
            Request::Grant { .. }
            | Request::Delete(_)
            | Request::Range(_)
            | Request::Txn(_)
            | Request::Compact(_) => {}
        }
    }
    for (revision, leases) in &report.expiries {
        for lease in leases {
            let life = lives.entry(*lease).or_default();
            life.ended_at = Some(*revision);
            if let Some(seen) = log.at(*revision) {
                end(life, seen.first_seen);
            }
        }
    }
    lives
}

fn renewed(life: &mut Life, operation: &Operation) {
    let Outcome::Answered { response, .. } = &operation.outcome else { return };
    if *response == (Response::Renew { alive: true }) {
        life.renewed = life.renewed.max(operation.invoked);
    } else {
        end(life, operation.returned);
    }
}

fn revoked(life: &mut Life, operation: &Operation) {
    let asked = life.revoke_asked.map_or(operation.invoked, |asked| asked.min(operation.invoked));
    match &operation.outcome {
        Outcome::Refused(Refusal::LeaseNotFound) => end(life, operation.returned),
        Outcome::Answered { .. } => {
            life.revoke_asked = Some(asked);
            end(life, operation.returned);
        }
        Outcome::Unknown => life.revoke_asked = Some(asked),
        Outcome::Refused(_) | Outcome::Failed => {}
    }
}

fn end(life: &mut Life, by: u64) {
    life.ended = Some(life.ended.unwrap_or(u64::MAX).min(by));
}

/// Every renewal that was answered with "alive" came before the end, so the end is at least a TTL behind the last of them.
fn not_early(id: i64, life: &Life, time: &LeaderTime<'_>) -> Result<(), Violation> {
    let (Some(_), Some(ended)) = (life.granted, life.ended) else { return Ok(()) };
    if life.revoke_asked.is_some_and(|asked| asked <= ended) {
        return Ok(());
    }
    // An unknown grant may have happened at any time after it was asked, or not at all.
    let lived = (time.at_most)(ended).saturating_sub((time.at_most)(life.renewed));
    if lived + time.slack < life.ttl {
        let what = format!(
            "lease {id} was gone {lived} of leader time after it was asked for or renewed, its TTL is {}: {life:?}",
            life.ttl
        );
        return Err(Violation::new("no lease ends before its time", what));
    }
    Ok(())
}

/// A put that attached a key did so between the lease's begin and end.
fn used_while_alive(operation: &Operation, lives: &BTreeMap<i64, Life>) -> Result<(), Violation> {
    let (Request::Put(put), Outcome::Answered { revision, .. }) =
        (&operation.request, &operation.outcome)
    else {
        return Ok(());
    };
    if put.lease == 0 || put.ignore_lease {
        return Ok(());
    }
    let life = lives.get(&put.lease);
    let born = life.and_then(|life| life.granted);
    let right = born.is_some_and(|granted| granted <= operation.returned)
        && life.is_some_and(|life| life.ended.is_none_or(|ended| operation.invoked <= ended))
        && life.is_some_and(|life| life.ended_at.is_none_or(|end| *revision < end));
    if right {
        return Ok(());
    }
    let what = format!("{operation:?} attached a key to {life:?}");
    Err(Violation::new("no lease is used before or after its life", what))
}

/// Once a lease has ended with its keys, no key carries it any more: none does at its end, and no later change brings it
/// back. (One look at the state and one pass over the log: a history of real processes has 200,000 revisions.)
fn keys_stay_gone(log: &ChangeLog, lives: &BTreeMap<i64, Life>) -> Result<(), Violation> {
    let model = replayed(log)?;
    let broken = |id: i64, end: i64, key: &[u8], at: i64| {
        let what = format!("lease {id} ended at {end} and {key:?} carries it at {at}");
        Err(Violation::new("a lease's keys go with it", what))
    };
    for (id, life) in lives {
        let Some(end) = life.ended_at else { continue };
        if let Some(key) = model.keys_of_lease(*id, end).first() {
            return broken(*id, end, key, end);
        }
    }
    for transaction in &log.transactions {
        for pair in transaction.changes.iter().filter_map(|change| change.pair.as_ref()) {
            let end = lives.get(&pair.lease).and_then(|life| life.ended_at);
            if let Some(end) = end.filter(|end| *end < transaction.revision) {
                return broken(pair.lease, end, &pair.key, transaction.revision);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(request: Request, times: (u64, u64), outcome: Outcome) -> Operation {
        Operation { client: 1, request, invoked: times.0, returned: times.1, outcome }
    }

    fn answered(response: Response) -> Outcome {
        Outcome::Answered { revision: 1, response }
    }

    fn check(history: &[Operation], slack: u64) -> Result<(), Violation> {
        let time = LeaderTime { at_most: &|time| time, slack };
        check_leases(history, &ChangeLog::default(), &Report::default(), &time)
    }

    #[test]
    fn a_lease_that_is_gone_before_its_ttl_is_seen() {
        let history = |gone: u64| {
            [
                operation(Request::Grant { id: 7, ttl: 100 }, (0, 5), answered(Response::Grant)),
                operation(Request::Renew(7), (50, 55), answered(Response::Renew { alive: true })),
                operation(
                    Request::Renew(7),
                    (gone - 1, gone),
                    answered(Response::Renew { alive: false }),
                ),
            ]
        };
        assert!(check(&history(150), 0).is_ok());
        assert!(check(&history(149), 0).is_err());
        assert!(check(&history(149), 1).is_ok());
    }

    #[test]
    fn a_revoked_lease_may_go_at_once_and_is_not_used_afterwards() {
        let put = super::super::Put { key: b"k".to_vec(), lease: 7, ..Default::default() };
        let history = [
            operation(Request::Grant { id: 7, ttl: 100 }, (0, 5), answered(Response::Grant)),
            operation(Request::Revoke(7), (10, 20), answered(Response::Revoke)),
        ];
        assert!(check(&history, 0).is_ok());
        let mut history = history.to_vec();
        let late = operation(Request::Put(put), (21, 30), answered(Response::Put { prev: None }));
        history.push(late);
        assert!(check(&history, 0).is_err());
    }
}
