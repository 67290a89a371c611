//! etcd's meaning once more, as plainly as possible: whole maps copied for every revision. The machine is compared with it
//! over random histories. It shares the types of commands and outcomes, and no code.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    Alarm, AlarmAction, Command, Compare, CompareTarget, DeleteRange, DeleteRangeOutcome,
    EncodedKeyValue, KeyRange, LeaseId, MemberId, Operation, OperationOutcome, Outcome, Put,
    PutOutcome, Range, RangeOutcome, Rejected, Relation, SortOrder, SortTarget, Txn, TxnOutcome,
};

/// A pair, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

impl Pair {
    /// protobuf by hand: fields ascending, zeros left out.
    pub(crate) fn encode(&self) -> EncodedKeyValue {
        fn varint(out: &mut Vec<u8>, mut number: u64) {
            loop {
                let low = (number % 128) as u8;
                number /= 128;
                if number == 0 {
                    out.push(low);
                    return;
                }
                out.push(low + 128);
            }
        }
        let mut out = Vec::new();
        let bytes = |out: &mut Vec<u8>, tag, bytes: &Bytes| {
            if !bytes.is_empty() {
                out.push(tag);
                varint(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
        };
        let number = |out: &mut Vec<u8>, tag, number: i64| {
            if number != 0 {
                out.push(tag);
                varint(out, number as u64);
            }
        };
        bytes(&mut out, 10, &self.key);
        number(&mut out, 16, self.created);
        number(&mut out, 24, self.modified);
        number(&mut out, 32, self.version);
        bytes(&mut out, 42, &self.value);
        number(&mut out, 48, self.lease);
        EncodedKeyValue(out.into())
    }
}

pub(crate) type Pairs = BTreeMap<Bytes, Pair>;

/// One change: what a watcher is told, what the row says, what was there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) sub: i64,
    pub(crate) deleted: bool,
    pub(crate) told: Pair,
    pub(crate) row: Pair,
    pub(crate) previous: Option<Pair>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Naive {
    /// The pairs at each revision; the first two are empty.
    pub(crate) history: Vec<Pairs>,
    /// The changes of each revision.
    pub(crate) changes: Vec<Vec<Change>>,
    pub(crate) compacted: i64,
    pub(crate) leases: BTreeMap<LeaseId, (i64, u64)>,
    pub(crate) alarms: BTreeSet<(Alarm, MemberId)>,
    pub(crate) clock: u64,
}

/// A write on its way.
struct Draft<'a> {
    before: &'a Naive,
    pairs: Pairs,
    changes: Vec<Change>,
}

impl Naive {
    pub(crate) fn new() -> Self {
        Self {
            history: vec![Pairs::new(), Pairs::new()],
            changes: vec![Vec::new(), Vec::new()],
            compacted: -1,
            ..Self::default()
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.history.len() as i64 - 1
    }

    pub(crate) fn now(&self) -> &Pairs {
        self.history.last().unwrap()
    }

    pub(crate) fn apply(&mut self, clock: u64, command: &Command) -> Result<Outcome, Rejected> {
        self.clock = self.clock.max(clock);
        self.refuse(command)?;
        match command {
            Command::Put(put) => self.write(|draft| Ok(Outcome::Put(draft.put(put)?))),
            Command::DeleteRange(delete) => {
                self.write(|draft| Ok(Outcome::DeleteRange(draft.delete(delete))))
            }
            Command::Txn(txn) => self.write(|draft| {
                let (succeeded, responses) = draft.txn(txn)?;
                let revision = draft.revision();
                Ok(Outcome::Txn(TxnOutcome { succeeded, responses, revision }))
            }),
            Command::Compact { revision } if *revision <= self.compacted => {
                Err(Rejected::Compacted)
            }
            Command::Compact { revision } if *revision > self.revision() => {
                Err(Rejected::FutureRevision)
            }
            Command::Compact { revision } => {
                self.compacted = *revision;
                Ok(Outcome::Compact)
            }
            Command::LeaseGrant { id, .. } if self.leases.contains_key(id) => {
                Err(Rejected::LeaseExists)
            }
            Command::LeaseGrant { id, ttl } => {
                self.leases.insert(*id, (*ttl, self.clock + *ttl as u64 * 1000));
                Ok(Outcome::LeaseGrant { id: *id, ttl: *ttl })
            }
            Command::LeaseRevoke { id } if !self.leases.contains_key(id) => {
                Err(Rejected::LeaseNotFound)
            }
            Command::LeaseRevoke { id } => self.revoke(&[*id]),
            Command::LeaseExpire { ids } => {
                let clock = self.clock;
                let due = |id: &&LeaseId| {
                    self.leases.get(*id).is_some_and(|(_, deadline)| *deadline <= clock)
                };
                let due: Vec<LeaseId> = ids.iter().filter(due).copied().collect();
                self.revoke(&due)
            }
            Command::LeaseRenew { ids } => {
                let clock = self.clock;
                let mut renew = |id: &LeaseId| match self.leases.get_mut(id) {
                    Some((ttl, deadline)) => {
                        *deadline = clock + *ttl as u64 * 1000;
                        (*id, *ttl)
                    }
                    None => (*id, 0),
                };
                Ok(Outcome::LeaseRenew(ids.iter().map(&mut renew).collect()))
            }
            Command::Alarm { action, member, alarm } => {
                Ok(Outcome::Alarm(self.alarm(*action, *member, *alarm)))
            }
            Command::Clock => Ok(Outcome::Done),
            other => panic!("the naive model has no members: {other:?}"),
        }
    }

    fn refuse(&self, command: &Command) -> Result<(), Rejected> {
        fn puts(operations: &[Operation]) -> bool {
            operations.iter().any(|operation| match operation {
                Operation::Put(_) => true,
                Operation::Txn(txn) => puts(&txn.success) || puts(&txn.failure),
                _ => false,
            })
        }
        let on = |wanted| self.alarms.iter().any(|(alarm, _)| *alarm == wanted);
        let untouched =
            matches!(command, Command::LeaseRenew { .. } | Command::Alarm { .. } | Command::Clock);
        if on(Alarm::Corrupt) && !untouched {
            return Err(Rejected::Corrupt);
        }
        let large = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => puts(&txn.success) || puts(&txn.failure),
            _ => false,
        };
        if on(Alarm::NoSpace) && large { Err(Rejected::NoSpace) } else { Ok(()) }
    }

    fn alarm(
        &mut self,
        action: AlarmAction,
        member: MemberId,
        alarm: Alarm,
    ) -> Vec<(MemberId, Alarm)> {
        if action == AlarmAction::Activate {
            if alarm == Alarm::None {
                return vec![];
            }
            self.alarms.insert((alarm, member));
            return vec![(member, alarm)];
        }
        let mut cleared = vec![];
        for (on, of) in self.alarms.clone() {
            if (alarm == Alarm::None || alarm == on) && (member.0 == 0 || member == of) {
                self.alarms.remove(&(on, of));
                cleared.push((of, on));
            }
        }
        cleared
    }

    fn revoke(&mut self, ids: &[LeaseId]) -> Result<Outcome, Rejected> {
        self.write(|draft| {
            for (place, id) in ids.iter().enumerate() {
                let keys: Vec<Bytes> = draft
                    .pairs
                    .values()
                    .filter(|pair| pair.lease == id.0 && !ids[..place].contains(id))
                    .map(|pair| pair.key.clone())
                    .collect();
                for key in keys {
                    draft.remove(&key);
                }
            }
            Ok(Outcome::LeaseRevoke)
        })?;
        self.leases.retain(|id, _| !ids.contains(id));
        Ok(Outcome::LeaseRevoke)
    }

    fn write(
        &mut self,
        work: impl FnOnce(&mut Draft<'_>) -> Result<Outcome, Rejected>,
    ) -> Result<Outcome, Rejected> {
        let mut draft = Draft { before: self, pairs: self.now().clone(), changes: vec![] };
        let outcome = work(&mut draft)?;
        let Draft { before: _, pairs, changes } = draft;
        if !changes.is_empty() {
            self.history.push(pairs);
            self.changes.push(changes);
        }
        Ok(outcome)
    }

    /// A range outside of a write.
    pub(crate) fn range(&self, request: &Range) -> Result<RangeOutcome, Rejected> {
        self.range_over(request, self.revision(), self.now())
    }

    fn range_over(
        &self,
        request: &Range,
        now: i64,
        pairs: &Pairs,
    ) -> Result<RangeOutcome, Rejected> {
        if request.revision > now {
            return Err(Rejected::FutureRevision);
        }
        let at = if request.revision <= 0 { now } else { request.revision };
        if at < self.compacted {
            return Err(Rejected::Compacted);
        }
        let pairs = if at == now { pairs } else { &self.history[at as usize] };
        let mut found: Vec<Pair> = within(pairs, &request.range);
        let count = found.len() as i64;
        let outcome = RangeOutcome { kvs: vec![], more: false, count, revision: now };
        if request.count_only {
            return Ok(outcome);
        }
        found.retain(|pair| {
            (request.min_mod_revision == 0 || pair.modified >= request.min_mod_revision)
                && (request.max_mod_revision == 0 || pair.modified <= request.max_mod_revision)
                && (request.min_create_revision == 0 || pair.created >= request.min_create_revision)
                && (request.max_create_revision == 0 || pair.created <= request.max_create_revision)
        });
        let bounds = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        if request.order == SortOrder::None && request.limit > 0 && bounds == [0; 4] {
            found.truncate(request.limit as usize + 1);
        }
        found.sort_by(|left, right| {
            let ordering = match request.target {
                SortTarget::Key => left.key.cmp(&right.key),
                SortTarget::Version => left.version.cmp(&right.version),
                SortTarget::Create => left.created.cmp(&right.created),
                SortTarget::Mod => left.modified.cmp(&right.modified),
                SortTarget::Value => left.value.cmp(&right.value),
            };
            if request.order == SortOrder::Descend { ordering.reverse() } else { ordering }
        });
        let more = request.limit > 0 && found.len() as i64 > request.limit;
        if more {
            found.truncate(request.limit as usize);
        }
        for pair in &mut found {
            if request.keys_only {
                pair.value = Bytes::new();
                if request.target != SortTarget::Value {
                    pair.lease = 0;
                }
            }
        }
        Ok(RangeOutcome { kvs: found.iter().map(Pair::encode).collect(), more, ..outcome })
    }
}

fn within(pairs: &Pairs, range: &KeyRange) -> Vec<Pair> {
    let inside = |key: &Bytes| match range {
        KeyRange::Single(single) => key == single,
        KeyRange::Interval(start, end) => start <= key && key < end,
        KeyRange::From(start) => start <= key,
    };
    pairs.values().filter(|pair| inside(&pair.key)).cloned().collect()
}

impl Draft<'_> {
    fn revision(&self) -> i64 {
        self.before.revision() + i64::from(!self.changes.is_empty())
    }

    fn put(&mut self, put: &Put) -> Result<PutOutcome, Rejected> {
        if put.lease.0 != 0 && !self.before.leases.contains_key(&put.lease) {
            return Err(Rejected::LeaseNotFound);
        }
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && !self.before.now().contains_key(&put.key) {
            return Err(Rejected::KeyNotFound);
        }
        let previous = self.pairs.get(&put.key).cloned();
        let old = previous.clone().unwrap_or_default();
        let revision = self.before.revision() + 1;
        let new = Pair {
            key: put.key.clone(),
            value: if put.ignore_value { old.value } else { put.value.clone() },
            created: if previous.is_some() { old.created } else { revision },
            modified: revision,
            version: old.version + 1,
            lease: if put.ignore_lease { old.lease } else { put.lease.0 },
        };
        self.pairs.insert(put.key.clone(), new.clone());
        let sub = self.changes.len() as i64;
        let prev_kv = previous.as_ref().filter(|_| put.prev_kv).map(Pair::encode);
        self.changes.push(Change { sub, deleted: false, told: new.clone(), row: new, previous });
        Ok(PutOutcome { prev_kv, revision })
    }

    fn delete(&mut self, delete: &DeleteRange) -> DeleteRangeOutcome {
        let doomed = within(&self.pairs, &delete.range);
        for pair in &doomed {
            self.remove(&pair.key);
        }
        DeleteRangeOutcome {
            deleted: doomed.len() as i64,
            prev_kvs: if delete.prev_kv {
                doomed.iter().map(Pair::encode).collect()
            } else {
                vec![]
            },
            revision: self.revision(),
        }
    }

    fn remove(&mut self, key: &Bytes) {
        let previous = self.pairs.remove(key);
        let row = Pair { key: key.clone(), ..Pair::default() };
        let told = Pair { modified: self.before.revision() + 1, ..row.clone() };
        let sub = self.changes.len() as i64;
        self.changes.push(Change { sub, deleted: true, told, row, previous });
    }

    fn txn(&mut self, txn: &Txn) -> Result<(bool, Vec<OperationOutcome>), Rejected> {
        let succeeded = txn.compare.iter().all(|compare| holds(self.before.now(), compare));
        let mut responses = vec![];
        for operation in if succeeded { &txn.success } else { &txn.failure } {
            responses.push(match operation {
                Operation::Put(put) => OperationOutcome::Put(self.put(put)?),
                Operation::DeleteRange(delete) => {
                    OperationOutcome::DeleteRange(self.delete(delete))
                }
                Operation::Range(range) => {
                    let before = self.before;
                    if range.revision != 0 && range.revision > before.revision() {
                        return Err(Rejected::FutureRevision);
                    }
                    if range.revision != 0 && range.revision < before.compacted {
                        return Err(Rejected::Compacted);
                    }
                    let now = self.revision();
                    OperationOutcome::Range(before.range_over(range, now, &self.pairs)?)
                }
                Operation::Txn(txn) => {
                    let (succeeded, responses) = self.txn(txn)?;
                    OperationOutcome::Txn(TxnOutcome { succeeded, responses, revision: 0 })
                }
            });
        }
        Ok((succeeded, responses))
    }
}

fn holds(pairs: &Pairs, compare: &Compare) -> bool {
    let mut found = within(pairs, &compare.range);
    if found.is_empty() {
        if matches!(compare.target, CompareTarget::Value(_)) {
            return false;
        }
        found.push(Pair::default());
    }
    found.iter().all(|pair| {
        let ordering = match &compare.target {
            CompareTarget::Version(wanted) => pair.version.cmp(wanted),
            CompareTarget::CreateRevision(wanted) => pair.created.cmp(wanted),
            CompareTarget::ModRevision(wanted) => pair.modified.cmp(wanted),
            CompareTarget::Value(wanted) => pair.value.cmp(wanted),
            CompareTarget::Lease(wanted) => pair.lease.cmp(&wanted.0),
        };
        match compare.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
            Relation::NotEqual => ordering.is_ne(),
        }
    })
}

#[cfg(test)]
mod tests;
