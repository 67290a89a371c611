//! Whether a history is linearizable, given what happened at each revision.
//!
//! 1. Every answered request is compared with the model's answer at the revision of its header: as the write that made that
//!    revision, or as something that changed nothing in the state there.
//! 2. Every revision has exactly one maker: an answered write, a write of unknown outcome, or the end of leases, whose keys then
//!    all go in that one revision. What was refused or failed for sure made none.
//! 3. Real time: what was asked after something was answered stands behind it (a write strictly), and nobody has seen a write
//!    before it was asked for. A serializable read may be old, but is of one state that existed, and nothing later is older than
//!    what it saw.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Violation,
    history::{ChangeLog, Operation, Outcome, Range, Refusal, Request, Response, Transaction},
    matching::matching,
    model::{Effect, Model},
};

/// What a history was found to consist of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Answered requests that made a revision.
    pub writes: usize,
    /// Answered requests that changed nothing.
    pub reads: usize,
    /// Requests refused by the store's meaning.
    pub refused: usize,
    /// Requests of unknown outcome that happened.
    pub unknown_happened: usize,
    /// Requests of unknown outcome that left no trace.
    pub unknown_vanished: usize,
    /// Revisions in which leases ended, with the leases.
    pub expiries: BTreeMap<i64, BTreeSet<i64>>,
}

/// The model with everything in it that the log tells.
///
/// # Errors
/// The log has gaps.
pub fn replayed(log: &ChangeLog) -> Result<Model, Violation> {
    let mut model = Model::default();
    for transaction in &log.transactions {
        if transaction.revision != model.revision() + 1 || transaction.changes.is_empty() {
            let what = format!("revision {} after {}", transaction.revision, model.revision());
            return Err(Violation::new("revisions grow by one per write", what));
        }
        model.commit(&transaction.changes);
    }
    Ok(model)
}

/// Checks a whole history.
///
/// # Errors
/// The first law that it breaks.
pub fn check_history(history: &[Operation], log: &ChangeLog) -> Result<Report, Violation> {
    let model = replayed(log)?;
    let mut check = Check {
        history,
        log,
        model,
        makers: BTreeMap::new(),
        undecided: Vec::new(),
        compactions: compactions(history),
        report: Report::default(),
        floors: floors(history),
    };
    for (at, operation) in history.iter().enumerate() {
        check.operation(at, operation)?;
    }
    check.explain_the_rest()?;
    check.nobody_sees_the_future()?;
    Ok(check.report)
}

/// For each operation, the highest revision that had been answered to anybody before it was asked.
fn floors(history: &[Operation]) -> Vec<i64> {
    let answered = |operation: &Operation| match operation.outcome {
        Outcome::Answered { revision, .. } => Some((operation.returned, revision)),
        Outcome::Refused(_) | Outcome::Failed | Outcome::Unknown => None,
    };
    let mut returns: Vec<(u64, i64)> = history.iter().filter_map(answered).collect();
    returns.sort_unstable();
    let mut highest = 1;
    for (_, revision) in &mut returns {
        highest = highest.max(*revision);
        *revision = highest;
    }
    let floor = |operation: &Operation| {
        let before = returns.partition_point(|(returned, _)| *returned < operation.invoked);
        returns[..before].last().map_or(1, |(_, revision)| *revision)
    };
    history.iter().map(floor).collect()
}

fn compactions(history: &[Operation]) -> Vec<(&Operation, i64)> {
    let asked = history.iter().filter_map(|operation| {
        let Request::Compact(revision) = operation.request else { return None };
        Some((operation, revision))
    });
    asked.collect()
}

struct Check<'a> {
    history: &'a [Operation],
    log: &'a ChangeLog,
    model: Model,
    /// The answered request that made a revision.
    makers: BTreeMap<i64, usize>,
    /// Answered requests that may have made their header's revision, or nothing at it: a revocation of a lease whose keys
    /// somebody else had just deleted looks the same.
    undecided: Vec<usize>,
    /// Requests to compact, with their revisions: few among many.
    compactions: Vec<(&'a Operation, i64)>,
    report: Report,
    floors: Vec<i64>,
}

impl Check<'_> {
    fn operation(&mut self, at: usize, operation: &Operation) -> Result<(), Violation> {
        match &operation.outcome {
            Outcome::Answered { revision, response } => {
                self.answered(at, operation, *revision, response)
            }
            Outcome::Refused(refusal) => {
                self.report.refused += 1;
                self.refused(at, operation, *refusal)
            }
            Outcome::Failed | Outcome::Unknown => Ok(()),
        }
    }

    fn answered(
        &mut self,
        at: usize,
        operation: &Operation,
        revision: i64,
        response: &Response,
    ) -> Result<(), Violation> {
        let floor = self.floors[at];
        if revision < 1 || revision > self.log.last() {
            return Err(unexplained(operation, "a revision that never was", &revision));
        }
        if revision < floor && !is_serializable(&operation.request) {
            let what = format!("revision {floor} had been answered before it was asked");
            return Err(unexplained(operation, &what, &revision));
        }
        let effect = self.model.evaluate(&operation.request, revision, None);
        let idle = |effect: &Effect| effect.changes.is_empty() && same(&effect.response, response);
        let changed_nothing = effect.as_ref().is_ok_and(idle);
        let made = self.made(operation, revision, response);
        if made && changed_nothing {
            self.undecided.push(at);
        } else if made {
            if let Some(other) = self.makers.insert(revision, at) {
                return Err(unexplained(operation, "a revision made twice", &self.history[other]));
            }
            if revision <= floor {
                let what = format!("a new write at a revision answered before ({floor})");
                return Err(unexplained(operation, &what, &revision));
            }
            self.report.writes += 1;
            return Ok(());
        }
        if !changed_nothing {
            return Err(unexplained(operation, "the model says otherwise", &effect));
        }
        self.report.reads += 1;
        self.history_was_there(operation)
    }

    /// Whether an answered request is the one that made its header's revision.
    fn made(&self, operation: &Operation, revision: i64, response: &Response) -> bool {
        let Some(transaction) = self.log.at(revision) else { return false };
        self.could_have_made(operation, transaction)
            .is_some_and(|expected| same(&expected, response))
    }

    /// What a request would have been answered had it made a revision; none if it cannot have.
    fn could_have_made(&self, operation: &Operation, made: &Transaction) -> Option<Response> {
        let effect = self.model.evaluate(&operation.request, made.revision - 1, None).ok()?;
        (effect.changes == made.changes).then_some(effect.response)
    }

    /// A read at an old revision must not be answered once that was compacted away.
    fn history_was_there(&self, operation: &Operation) -> Result<(), Violation> {
        let Request::Range(Range { revision, serializable: false, .. }) = &operation.request else {
            return Ok(());
        };
        let gone = self.compactions().find(|(compaction, floor)| {
            let done = matches!(compaction.outcome, Outcome::Answered { .. });
            done && compaction.returned < operation.invoked && *revision > 0 && revision < floor
        });
        match gone {
            Some((compaction, _)) => {
                Err(unexplained(operation, "its revision had been compacted", compaction))
            }
            None => Ok(()),
        }
    }

    fn compactions(&self) -> impl Iterator<Item = (&Operation, i64)> {
        self.compactions.iter().map(|(operation, revision)| (*operation, *revision))
    }

    /// A refusal must have been right at some moment between question and answer.
    fn refused(&self, at: usize, operation: &Operation, refusal: Refusal) -> Result<(), Violation> {
        let seen = |transaction: &&Transaction| transaction.first_seen <= operation.returned;
        let ceiling = self.log.transactions.iter().rev().find(seen).map_or(1, |t| t.revision);
        let floor = if is_serializable(&operation.request) { 1 } else { self.floors[at] };
        let right = match refusal {
            Refusal::KeyNotFound => (floor..=ceiling.max(floor)).any(|revision| {
                self.model.evaluate(&operation.request, revision, None) == Err(refusal)
            }),
            Refusal::FutureRevision => {
                deepest_revision(&operation.request).is_some_and(|wanted| wanted > floor)
            }
            Refusal::Compacted => {
                let oldest = oldest_revision(&operation.request);
                let compacts = matches!(operation.request, Request::Compact(_));
                self.compactions().any(|(compaction, floor)| {
                    let may_have =
                        !matches!(compaction.outcome, Outcome::Refused(_) | Outcome::Failed);
                    let behind = |wanted: i64| wanted < floor || (compacts && wanted == floor);
                    may_have
                        && compaction.invoked <= operation.returned
                        && !std::ptr::eq(compaction, operation)
                        && oldest.is_some_and(behind)
                })
            }
            // Leases have a law of their own; only that an id is taken is known here, since none is asked for twice.
            Refusal::LeaseNotFound => true,
            Refusal::LeaseExists => false,
        };
        if right {
            Ok(())
        } else {
            Err(unexplained(operation, "a refusal without a reason", &refusal))
        }
    }

    /// Finds a maker for every revision that no answered request made.
    fn explain_the_rest(&mut self) -> Result<(), Violation> {
        let unknown =
            (0..self.history.len()).filter(|at| self.history[*at].outcome == Outcome::Unknown);
        let candidates: Vec<usize> = unknown.chain(self.undecided.iter().copied()).collect();
        let unknowns = candidates.len() - self.undecided.len();
        let mut open: Vec<(&Transaction, Option<BTreeSet<i64>>)> = self
            .log
            .transactions
            .iter()
            .filter(|transaction| !self.makers.contains_key(&transaction.revision))
            .map(|transaction| (transaction, self.ended_leases(transaction)))
            .collect();
        // What may also be the end of a lease comes last: it must not take the only possible maker from another revision.
        open.sort_by_key(|(_, leases)| leases.is_some());
        let edges: Vec<Vec<usize>> = open
            .iter()
            .map(|(made, _)| {
                let possible = candidates.iter().enumerate();
                let possible = possible.filter(|(_, at)| self.may_have_made(**at, made));
                possible.map(|(place, _)| place).collect()
            })
            .collect();
        let explained = matching(&edges, candidates.len());
        for ((made, leases), maker) in open.into_iter().zip(explained) {
            match (maker, leases) {
                (Some(place), _) if place < unknowns => self.report.unknown_happened += 1,
                (Some(_), _) => {}
                (None, Some(leases)) => {
                    self.report.expiries.insert(made.revision, leases);
                }
                (None, None) => {
                    let what = format!("nobody asked for {made:?}");
                    return Err(Violation::new("every revision has a maker", what));
                }
            }
        }
        self.report.unknown_vanished = unknowns - self.report.unknown_happened;
        Ok(())
    }

    /// Whether a request of unknown outcome, or one that is undecided, may be what made a revision.
    fn may_have_made(&self, at: usize, made: &Transaction) -> bool {
        let operation = &self.history[at];
        let in_time = match operation.outcome {
            Outcome::Answered { revision, .. } => {
                revision == made.revision && revision > self.floors[at]
            }
            Outcome::Refused(_) | Outcome::Failed | Outcome::Unknown => {
                operation.invoked <= made.first_seen
            }
        };
        in_time && self.could_have_made(operation, made).is_some()
    }

    /// The leases whose end a revision is: it deletes all their keys and nothing else.
    fn ended_leases(&self, made: &Transaction) -> Option<BTreeSet<i64>> {
        let before = made.revision - 1;
        let mut leases = BTreeSet::new();
        let mut deleted = BTreeSet::new();
        for change in &made.changes {
            let pair = self.model.get(&change.key, before)?;
            if change.pair.is_some() || pair.lease == 0 {
                return None;
            }
            leases.insert(pair.lease);
            deleted.insert(change.key.clone());
        }
        let attached: BTreeSet<Vec<u8>> =
            leases.iter().flat_map(|lease| self.model.keys_of_lease(*lease, before)).collect();
        (attached == deleted).then_some(leases)
    }

    /// No answer may show a write that was not asked for yet.
    fn nobody_sees_the_future(&self) -> Result<(), Violation> {
        let mut earliest: BTreeMap<i64, u64> = BTreeMap::new();
        for operation in self.history {
            if let Outcome::Answered { revision, .. } = operation.outcome {
                let seen = earliest.entry(revision).or_insert(u64::MAX);
                *seen = (*seen).min(operation.returned);
            }
        }
        let mut seen = u64::MAX;
        for revision in (2..=self.log.last()).rev() {
            seen = seen.min(earliest.get(&revision).copied().unwrap_or(u64::MAX));
            let Some(maker) = self.makers.get(&revision) else { continue };
            if self.history[*maker].invoked > seen {
                let what = "somebody had seen it before it was asked for, at";
                return Err(unexplained(&self.history[*maker], what, &seen));
            }
        }
        Ok(())
    }
}

fn unexplained(operation: &Operation, what: &str, with: &dyn std::fmt::Debug) -> Violation {
    Violation::new("linearizable", format!("{operation:?}: {what}: {with:?}"))
}

/// Equal but for what the model cannot know: whether a lease without keys is still there.
fn same(expected: &Response, got: &Response) -> bool {
    matches!((expected, got), (Response::Renew { .. }, Response::Renew { .. })) || expected == got
}

fn is_serializable(request: &Request) -> bool {
    matches!(request, Request::Range(Range { serializable: true, .. }))
}

/// The highest and lowest revision that a request names.
fn named_revisions(request: &Request, named: &mut Vec<i64>) {
    match request {
        Request::Range(range) if range.revision > 0 => named.push(range.revision),
        Request::Compact(revision) => named.push(*revision),
        Request::Txn(txn) => {
            for request in txn.success.iter().chain(&txn.failure) {
                named_revisions(request, named);
            }
        }
        Request::Range(_)
        | Request::Put(_)
        | Request::Delete(_)
        | Request::Grant { .. }
        | Request::Revoke(_)
        | Request::Renew(_) => {}
    }
}

fn deepest_revision(request: &Request) -> Option<i64> {
    let mut named = Vec::new();
    named_revisions(request, &mut named);
    named.into_iter().max()
}

fn oldest_revision(request: &Request) -> Option<i64> {
    let mut named = Vec::new();
    named_revisions(request, &mut named);
    named.into_iter().min()
}

#[cfg(test)]
#[path = "linearizability_tests.rs"]
mod tests;
