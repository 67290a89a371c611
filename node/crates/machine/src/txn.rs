//! Transactions: every comparison first, then every check, then the operations in order.
//!
//! Source: `server/etcdserver/txn/txn.go` (compareToPath, checkTxn, executeTxn).

use std::cmp::Ordering;

use crate::{
    Compare, CompareTarget, KeyValue, LeaseId, Operation, OperationOutcome, Range, ReadFault,
    ReadPoint, Rejected, Relation, Revision, State, Store, Txn, TxnOutcome, Version, View,
    limits::SCAN_CHUNK_KEYS,
    range::{RangeError, damaged, keys, range, rest_after},
    write::{Write, check_put},
};

/// Which branches run: decided for the whole transaction before its first write.
struct Path {
    succeeded: bool,
    /// One for each transaction within the branch, in order.
    within: Vec<Path>,
}

impl Path {
    fn branch<'a>(&self, txn: &'a Txn) -> &'a [Operation] {
        if self.succeeded { &txn.success } else { &txn.failure }
    }
}

/// A transaction that only reads, on the caller's own task: it takes no entry of the log.
///
/// # Errors
/// See [`RangeError`].
///
/// # Panics
/// If it writes ([`Txn::is_read_only`]).
pub fn read_txn<V: View + ?Sized>(
    view: &V,
    txn: &Txn,
    point: ReadPoint,
) -> Result<TxnOutcome, RangeError> {
    let path = choose(view, txn, point)?;
    check(view, None, txn, &path, point)?;
    let responses = read(view, txn, &path, point)?;
    Ok(TxnOutcome { succeeded: path.succeeded, responses, revision: point.revision })
}

/// Applies a transaction within a write. Refused, it has written nothing.
pub(crate) fn apply_txn<S: Store>(
    write: &mut Write<'_, S>,
    txn: &Txn,
) -> Result<TxnOutcome, RangeError> {
    let point = write.point();
    let path = choose(&*write.store, txn, point)?;
    check(&*write.store, Some(&*write.state), txn, &path, point)?;
    let responses = execute(write, txn, &path)?;
    Ok(TxnOutcome { succeeded: path.succeeded, responses, revision: write.point().revision })
}

fn choose<V: View + ?Sized>(view: &V, txn: &Txn, point: ReadPoint) -> Result<Path, ReadFault> {
    let mut succeeded = true;
    for compare in &txn.compare {
        succeeded = holds(view, compare, Revision::end_of(point.revision))?;
        if !succeeded {
            break;
        }
    }
    let mut path = Path { succeeded, within: Vec::new() };
    for operation in path.branch(txn) {
        match operation {
            Operation::Txn(txn) => path.within.push(choose(view, txn, point)?),
            Operation::Range(_) | Operation::Put(_) | Operation::DeleteRange(_) => {}
        }
    }
    Ok(path)
}

/// Whether all keys of the range satisfy it. A range without keys is compared as one key of which everything is zero,
/// and has no value: comparing that fails.
fn holds<V: View + ?Sized>(view: &V, compare: &Compare, at: Revision) -> Result<bool, ReadFault> {
    let mut rest = Some(compare.range.clone());
    let mut is_empty = true;
    while let Some(range) = rest {
        let found = keys(view, &range, at, SCAN_CHUNK_KEYS)?;
        let full = found.len() == SCAN_CHUNK_KEYS;
        for (key, version) in &found {
            if !holds_for(view, compare, key, version)? {
                return Ok(false);
            }
        }
        is_empty &= found.is_empty();
        rest = found.last().filter(|_| full).and_then(|(last, _)| rest_after(&range, last));
    }
    if !is_empty {
        return Ok(true);
    }
    Ok(match &compare.target {
        CompareTarget::Value(_) => false,
        CompareTarget::Version(wanted)
        | CompareTarget::CreateRevision(wanted)
        | CompareTarget::ModRevision(wanted)
        | CompareTarget::Lease(LeaseId(wanted)) => compare.relation.holds(0.cmp(wanted)),
    })
}

fn holds_for<V: View + ?Sized>(
    view: &V,
    compare: &Compare,
    key: &[u8],
    version: &Version,
) -> Result<bool, ReadFault> {
    let pair = || -> Result<KeyValue, ReadFault> {
        view.read(key, version)?.decode().map_err(|error| damaged(key, version, &error))
    };
    let ordering = match &compare.target {
        CompareTarget::Version(wanted) => version.version.cmp(wanted),
        CompareTarget::CreateRevision(wanted) => version.created.cmp(wanted),
        CompareTarget::ModRevision(wanted) => version.modified.main.cmp(wanted),
        CompareTarget::Value(wanted) => pair()?.value.cmp(wanted),
        CompareTarget::Lease(wanted) => pair()?.lease.cmp(wanted),
    };
    Ok(compare.relation.holds(ordering))
}

impl Relation {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Greater => ordering.is_gt(),
            Self::Less => ordering.is_lt(),
            Self::NotEqual => ordering.is_ne(),
        }
    }
}

/// What can be refused is refused before the first write: half a transaction must not be applied.
fn check<V: View + ?Sized>(
    view: &V,
    state: Option<&State>,
    txn: &Txn,
    path: &Path,
    point: ReadPoint,
) -> Result<(), RangeError> {
    let mut within = path.within.iter();
    for operation in path.branch(txn) {
        match operation {
            Operation::Range(range) => check_range(range, point)?,
            Operation::Put(put) => {
                check_put(state.expect("a transaction that only reads"), view, put, point)?;
            }
            Operation::DeleteRange(_) => {}
            Operation::Txn(txn) => {
                let path = within.next().expect("a path for each transaction within");
                check(view, state, txn, path, point)?;
            }
        }
    }
    Ok(())
}

/// A range in a transaction may name no revision that the transaction itself makes. Unlike outside of one, a negative
/// revision counts as older than everything (`txn/range.go`, checkRange).
fn check_range(range: &Range, point: ReadPoint) -> Result<(), Rejected> {
    if range.revision == 0 {
        Ok(())
    } else if range.revision > point.revision {
        Err(Rejected::FutureRevision)
    } else if range.revision < point.compacted {
        Err(Rejected::Compacted)
    } else {
        Ok(())
    }
}

fn execute<S: Store>(
    write: &mut Write<'_, S>,
    txn: &Txn,
    path: &Path,
) -> Result<Vec<OperationOutcome>, RangeError> {
    let mut within = path.within.iter();
    let mut responses = Vec::with_capacity(path.branch(txn).len());
    for operation in path.branch(txn) {
        responses.push(match operation {
            Operation::Range(request) => {
                OperationOutcome::Range(range(&*write.store, request, write.point())?)
            }
            Operation::Put(put) => OperationOutcome::Put(write.put(put)?),
            Operation::DeleteRange(delete) => {
                OperationOutcome::DeleteRange(write.delete_range(delete)?)
            }
            Operation::Txn(txn) => {
                let path = within.next().expect("a path for each transaction within");
                nested(path, execute(write, txn, path)?)
            }
        });
    }
    Ok(responses)
}

fn read<V: View + ?Sized>(
    view: &V,
    txn: &Txn,
    path: &Path,
    point: ReadPoint,
) -> Result<Vec<OperationOutcome>, RangeError> {
    let mut within = path.within.iter();
    let mut responses = Vec::with_capacity(path.branch(txn).len());
    for operation in path.branch(txn) {
        responses.push(match operation {
            Operation::Range(request) => OperationOutcome::Range(range(view, request, point)?),
            Operation::Txn(txn) => {
                let path = within.next().expect("a path for each transaction within");
                nested(path, read(view, txn, path, point)?)
            }
            Operation::Put(_) | Operation::DeleteRange(_) => {
                panic!("a transaction that writes is applied, not read")
            }
        });
    }
    Ok(responses)
}

fn nested(path: &Path, responses: Vec<OperationOutcome>) -> OperationOutcome {
    OperationOutcome::Txn(TxnOutcome { succeeded: path.succeeded, responses, revision: 0 })
}
