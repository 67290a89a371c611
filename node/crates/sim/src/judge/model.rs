//! A model of etcd: every version of every key, and what a request means at any revision.
//!
//! Source of the meaning: etcd's `api/etcdserverpb/rpc.proto` and its documentation of the API. It keeps everything for good
//! and is slow; that makes it short. Compaction is a number that refuses reads.

use std::collections::BTreeMap;

use super::history::{
    Compare, CompareTarget, Delete, Put, Range, Refusal, Relation, Request, Response, Selector,
    Sort, Txn,
};

/// A key with everything that belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The revision of its creation.
    pub create_revision: i64,
    /// The revision of its last put.
    pub mod_revision: i64,
    /// Puts since its creation.
    pub version: i64,
    /// Its lease; 0 = none.
    pub lease: i64,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which key.
    pub key: Vec<u8>,
    /// What it is from now on; none = deleted.
    pub pair: Option<Pair>,
}

/// What a request does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The answer.
    pub response: Response,
    /// The changes, in order; if there are any they make the next revision.
    pub changes: Vec<Change>,
}

/// All versions of all keys.
#[derive(Clone, Debug)]
pub struct Model {
    revision: i64,
    compacted: i64,
    /// Per key, by revision: what it was from then on.
    versions: BTreeMap<Vec<u8>, Vec<(i64, Option<Pair>)>>,
    /// Leases that exist, by id.
    leases: BTreeMap<i64, u64>,
}

impl Default for Model {
    fn default() -> Self {
        Self { revision: 1, compacted: -1, versions: BTreeMap::new(), leases: BTreeMap::new() }
    }
}

impl Model {
    /// The last revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What a key was at a revision.
    #[must_use]
    pub fn get(&self, key: &[u8], at: i64) -> Option<&Pair> {
        let versions = self.versions.get(key)?;
        let known = versions.partition_point(|(revision, _)| *revision <= at);
        versions[..known].last().and_then(|(_, pair)| pair.as_ref())
    }

    /// The pairs of a set of keys at a revision, by key.
    pub fn pairs(&self, keys: &Selector, at: i64) -> impl Iterator<Item = &Pair> {
        let inside = self.versions.keys().filter(|key| keys.contains(key)).collect::<Vec<_>>();
        inside.into_iter().filter_map(move |key| self.get(key, at))
    }

    /// The keys that are attached to a lease at a revision.
    #[must_use]
    pub fn keys_of_lease(&self, lease: i64, at: i64) -> Vec<Vec<u8>> {
        let everything = Selector::prefix(b"");
        let all = self.pairs(&everything, at);
        all.filter(|pair| pair.lease == lease).map(|pair| pair.key.clone()).collect()
    }

    /// Adds the changes of the next revision, whoever made them.
    pub fn commit(&mut self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        self.revision += 1;
        for Change { key, pair } in changes {
            self.versions.entry(key.clone()).or_default().push((self.revision, pair.clone()));
        }
    }

    /// Does a request now.
    ///
    /// # Errors
    /// It is refused and has changed nothing.
    pub fn apply(&mut self, request: &Request) -> Result<Effect, Refusal> {
        self.check_leases(request)?;
        let effect = self.evaluate(request, self.revision, Some(self.compacted))?;
        match request {
            Request::Grant { id, ttl } => {
                self.leases.insert(*id, *ttl);
            }
            Request::Revoke(id) => {
                self.leases.remove(id);
            }
            Request::Compact(revision) => self.compacted = *revision,
            Request::Put(_)
            | Request::Delete(_)
            | Request::Range(_)
            | Request::Txn(_)
            | Request::Renew(_) => {}
        }
        self.commit(&effect.changes);
        Ok(effect)
    }

    fn check_leases(&self, request: &Request) -> Result<(), Refusal> {
        let known = |id: i64| id == 0 || self.leases.contains_key(&id);
        match request {
            Request::Put(put) if !known(put.lease) => Err(Refusal::LeaseNotFound),
            Request::Revoke(id) if !known(*id) => Err(Refusal::LeaseNotFound),
            Request::Grant { id, .. } if self.leases.contains_key(id) => Err(Refusal::LeaseExists),
            Request::Txn(txn) => {
                let succeeded =
                    txn.compare.iter().all(|compare| self.holds(compare, self.revision));
                let branch = if succeeded { &txn.success } else { &txn.failure };
                branch.iter().try_for_each(|request| self.check_leases(request))
            }
            Request::Put(_)
            | Request::Revoke(_)
            | Request::Grant { .. }
            | Request::Delete(_)
            | Request::Range(_)
            | Request::Compact(_)
            | Request::Renew(_) => Ok(()),
        }
    }

    /// What a request would do to the state at a revision. Leases are taken to exist: they have no revisions, so who knows
    /// when a lease ended says so elsewhere. `compacted` is what reads may not go behind, if that is known.
    ///
    /// # Errors
    /// It is refused.
    pub fn evaluate(
        &self,
        request: &Request,
        at: i64,
        compacted: Option<i64>,
    ) -> Result<Effect, Refusal> {
        let mut write = Write { model: self, at, compacted, changes: Vec::new() };
        let response = match request {
            Request::Compact(revision) if *revision > at => return Err(Refusal::FutureRevision),
            Request::Compact(revision) if compacted.is_some_and(|floor| *revision <= floor) => {
                return Err(Refusal::Compacted);
            }
            Request::Compact(_) => Response::Compact,
            Request::Grant { .. } => Response::Grant,
            Request::Renew(id) => Response::Renew { alive: self.leases.contains_key(id) },
            Request::Revoke(id) => {
                for key in self.keys_of_lease(*id, at) {
                    write.changes.push(Change { key, pair: None });
                }
                Response::Revoke
            }
            Request::Put(_) | Request::Delete(_) | Request::Range(_) | Request::Txn(_) => {
                write.check(request)?;
                write.perform(request)
            }
        };
        Ok(Effect { response, changes: write.changes })
    }

    fn holds(&self, compare: &Compare, at: i64) -> bool {
        let mut pairs = self.pairs(&compare.keys, at).peekable();
        if pairs.peek().is_none() {
            let missing = Pair::default();
            let of_value = matches!(compare.target, CompareTarget::Value(_));
            return !of_value && compare.holds_for(&missing);
        }
        pairs.all(|pair| compare.holds_for(pair))
    }
}

impl Compare {
    fn holds_for(&self, pair: &Pair) -> bool {
        let ordering = match &self.target {
            CompareTarget::Version(wanted) => pair.version.cmp(wanted),
            CompareTarget::Create(wanted) => pair.create_revision.cmp(wanted),
            CompareTarget::Modified(wanted) => pair.mod_revision.cmp(wanted),
            CompareTarget::Lease(wanted) => pair.lease.cmp(wanted),
            CompareTarget::Value(wanted) => pair.value.cmp(wanted),
        };
        match self.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
            Relation::NotEqual => ordering.is_ne(),
        }
    }
}

/// A request in the making, on top of the state at a revision.
struct Write<'a> {
    model: &'a Model,
    at: i64,
    compacted: Option<i64>,
    changes: Vec<Change>,
}

impl Write<'_> {
    /// The key as this request has left it so far.
    fn get(&self, key: &[u8]) -> Option<&Pair> {
        match self.changes.iter().rev().find(|change| change.key == key) {
            Some(change) => change.pair.as_ref(),
            None => self.model.get(key, self.at),
        }
    }

    /// What must be refused is refused before anything is written.
    fn check(&self, request: &Request) -> Result<(), Refusal> {
        match request {
            Request::Put(put) => {
                let keeps = put.ignore_value || put.ignore_lease;
                if keeps && self.get(&put.key).is_none() {
                    return Err(Refusal::KeyNotFound);
                }
                Ok(())
            }
            Request::Range(range) if range.revision > self.at => Err(Refusal::FutureRevision),
            Request::Range(range)
                if range.revision > 0 && self.compacted.is_some_and(|at| range.revision < at) =>
            {
                Err(Refusal::Compacted)
            }
            Request::Txn(txn) => {
                self.branch(txn).1.iter().try_for_each(|request| self.check(request))
            }
            Request::Range(_)
            | Request::Delete(_)
            | Request::Compact(_)
            | Request::Grant { .. }
            | Request::Revoke(_)
            | Request::Renew(_) => Ok(()),
        }
    }

    /// Comparisons see the state before the whole request.
    fn branch<'t>(&self, txn: &'t Txn) -> (bool, &'t [Request]) {
        let succeeded = txn.compare.iter().all(|compare| self.model.holds(compare, self.at));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn perform(&mut self, request: &Request) -> Response {
        match request {
            Request::Put(put) => self.put(put),
            Request::Delete(delete) => self.delete(delete),
            Request::Range(range) => self.range(range),
            Request::Txn(txn) => {
                let (succeeded, branch) = self.branch(txn);
                let responses = branch.iter().map(|request| self.perform(request)).collect();
                Response::Txn { succeeded, responses }
            }
            Request::Compact(_)
            | Request::Grant { .. }
            | Request::Revoke(_)
            | Request::Renew(_) => panic!("no part of a transaction: {request:?}"),
        }
    }

    fn put(&mut self, put: &Put) -> Response {
        let before = self.get(&put.key).cloned();
        let revision = self.at + 1;
        let mut pair = Pair {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: before.as_ref().map_or(revision, |pair| pair.create_revision),
            mod_revision: revision,
            version: before.as_ref().map_or(1, |pair| pair.version + 1),
            lease: put.lease,
        };
        if let Some(before) = &before {
            if put.ignore_value {
                pair.value.clone_from(&before.value);
            }
            if put.ignore_lease {
                pair.lease = before.lease;
            }
        }
        self.changes.push(Change { key: put.key.clone(), pair: Some(pair) });
        Response::Put { prev: before.filter(|_| put.prev) }
    }

    fn delete(&mut self, delete: &Delete) -> Response {
        let gone = self.current(&delete.keys);
        for pair in &gone {
            self.changes.push(Change { key: pair.key.clone(), pair: None });
        }
        let deleted = i64::try_from(gone.len()).expect("few keys");
        Response::Delete { deleted, prev: if delete.prev { gone } else { Vec::new() } }
    }

    /// The pairs as this request has left them so far, by key.
    fn current(&self, keys: &Selector) -> Vec<Pair> {
        let mut pairs: BTreeMap<&[u8], &Pair> =
            self.model.pairs(keys, self.at).map(|pair| (pair.key.as_slice(), pair)).collect();
        for change in self.changes.iter().filter(|change| keys.contains(&change.key)) {
            match &change.pair {
                Some(pair) => pairs.insert(&change.key, pair),
                None => pairs.remove(change.key.as_slice()),
            };
        }
        pairs.into_values().cloned().collect()
    }

    fn range(&self, range: &Range) -> Response {
        let mut pairs = if range.revision > 0 && range.revision <= self.at {
            self.model.pairs(&range.keys, range.revision).cloned().collect()
        } else {
            self.current(&range.keys)
        };
        let count = i64::try_from(pairs.len()).expect("few keys");
        if range.count_only {
            return Response::Range { pairs: Vec::new(), more: false, count };
        }
        match range.sort {
            Sort::Key => {}
            Sort::KeyDescending => pairs.reverse(),
            Sort::Modified => pairs.sort_by_key(|pair| pair.mod_revision),
            Sort::ModifiedDescending => pairs.sort_by_key(|pair| -pair.mod_revision),
        }
        let limit = if range.limit > 0 { range.limit } else { i64::MAX };
        let more = count > limit;
        pairs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        if range.keys_only {
            for pair in &mut pairs {
                pair.value.clear();
                // etcd 3.7 answers these from its index, which knows no leases.
                pair.lease = 0;
            }
        }
        Response::Range { pairs, more, count }
    }
}
