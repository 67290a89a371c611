//! Clients: what they ask, one request at a time each, of whichever member.

use quorate_consensus::MemberId;

use super::{random::Random, translate::SECOND};
use crate::judge::{
    Compare, CompareTarget, Delete, Operation, Outcome, Put, Range, Relation, Request, Response,
    Selector, Sort, Txn,
};

/// Keys of a world: few, so that requests meet.
const KEYS: u64 = 9;

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) random: Random,
    /// The operation it waits for, and whom it asked.
    pub(crate) waits: Option<(usize, MemberId)>,
}

/// What all clients know together: enough to ask sensible things.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    /// Values written so far: each is used once.
    values: u64,
    leases: i64,
    /// Leases that may still be there.
    alive: Vec<i64>,
    /// The highest revision anybody was told of.
    pub(crate) revision: i64,
    /// The highest revision that anybody asked to compact to.
    pub(crate) compaction: i64,
    /// No leases are renewed or made any more.
    pub(crate) winding_down: bool,
}

impl Knowledge {
    /// Learns from an operation that ended.
    pub(crate) fn learn(&mut self, operation: &Operation) {
        let Outcome::Answered { revision, response } = &operation.outcome else { return };
        self.revision = self.revision.max(*revision);
        match (&operation.request, response) {
            (Request::Grant { id, .. }, _) => self.alive.push(*id),
            (Request::Revoke(id), _) | (Request::Renew(id), Response::Renew { alive: false }) => {
                self.alive.retain(|alive| alive != id);
            }
            (
                Request::Renew(_)
                | Request::Put(_)
                | Request::Delete(_)
                | Request::Range(_)
                | Request::Txn(_)
                | Request::Compact(_),
                _,
            ) => {}
        }
    }

    /// The next thing to ask.
    pub(crate) fn request(&mut self, random: &mut Random) -> Request {
        match random.below(100) {
            0..30 => Request::Put(self.put(random)),
            30..44 => Request::Range(self.range(random, false)),
            44..52 => Request::Range(self.range(random, true)),
            52..57 => self.old_range(random),
            57..73 => Request::Txn(self.txn(random)),
            73..76 => Request::Txn(self.read_only_txn(random)),
            76..84 => Request::Delete(delete(random)),
            84..87 => self.compact(random),
            87..91 if !self.winding_down => self.grant(random),
            91..97 if !self.winding_down => self
                .lease(random)
                .map_or_else(|| Request::Range(self.range(random, false)), Request::Renew),
            97..99 => self
                .lease(random)
                .map_or_else(|| Request::Range(self.range(random, false)), Request::Revoke),
            _ => Request::Put(self.put(random)),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        format!("v{}", self.values).into_bytes()
    }

    /// A value that may be large, so that segments fill and messages reach their bounds.
    fn sized_value(&mut self, random: &mut Random) -> Vec<u8> {
        let mut value = self.value();
        if random.chance(300) {
            value.resize(value.len() + random.size(32, 5), b'.');
        }
        value
    }

    fn lease(&self, random: &mut Random) -> Option<i64> {
        random.pick(&self.alive)
    }

    fn put(&mut self, random: &mut Random) -> Put {
        let mut put = Put {
            key: key(random),
            value: self.sized_value(random),
            prev: random.chance(400),
            ..Put::default()
        };
        if random.chance(350) {
            put.lease = self.lease(random).unwrap_or(0);
        } else if random.chance(100) {
            put.ignore_lease = true;
        } else if random.chance(60) {
            // Without a value of its own: told apart from others by its lease alone.
            (put.ignore_value, put.value) = (true, Vec::new());
        }
        put
    }

    fn range(&self, random: &mut Random, serializable: bool) -> Range {
        let sort = [Sort::Key, Sort::KeyDescending, Sort::Modified, Sort::ModifiedDescending];
        let plain = random.chance(600);
        Range {
            keys: keys(random),
            limit: i64::try_from(random.below(5)).expect("small"),
            sort: if plain { Sort::Key } else { sort[random.index(sort.len())] },
            keys_only: random.chance(150),
            count_only: random.chance(100),
            serializable,
            revision: 0,
        }
    }

    /// A range at an old revision, sometimes one that is to come or long gone.
    fn old_range(&self, random: &mut Random) -> Request {
        let back = i64::try_from(random.below(25)).expect("small");
        let revision = (self.revision + 3 - back).max(1);
        let serializable = random.chance(400);
        Request::Range(Range { revision, ..self.range(random, serializable) })
    }

    fn txn(&mut self, random: &mut Random) -> Txn {
        let compare = (0..random.below(3)).map(|_| self.compare(random)).collect();
        let success = self.branch(random, 0);
        let failure = self.branch(random, 0);
        Txn { compare, success, failure }
    }

    fn compare(&self, random: &mut Random) -> Compare {
        let relations = [Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less];
        let near = self.revision - i64::try_from(random.below(20)).expect("small");
        let few = i64::try_from(random.below(4)).expect("small");
        let target = match random.below(5) {
            0 => CompareTarget::Version(few),
            1 => CompareTarget::Create(near),
            2 => CompareTarget::Modified(near),
            3 => CompareTarget::Lease(few),
            _ => CompareTarget::Value(format!("v{}", random.below(self.values + 1)).into_bytes()),
        };
        let relation = relations[random.index(relations.len())];
        Compare { keys: Selector::key(&key(random)), relation, target }
    }

    /// At most one put, so that no key is put twice; deletions of other keys, reads, transactions within.
    fn branch(&mut self, random: &mut Random, depth: u32) -> Vec<Request> {
        let number = random.below(KEYS);
        let mut branch = Vec::new();
        if random.chance(800) {
            let (key, value) = (key_number(number), self.value());
            let prev = random.chance(300);
            branch.push(Request::Put(Put { key, value, prev, ..Put::default() }));
        }
        if random.chance(300) {
            let keys = Selector::key(&key_number((number + 1) % KEYS));
            branch.push(Request::Delete(Delete { keys, prev: random.chance(500) }));
        }
        if random.chance(400) {
            let range = Range { count_only: false, ..self.range(random, false) };
            branch.push(Request::Range(range));
        }
        if depth == 0 && branch.is_empty() && random.chance(500) {
            let compare = vec![self.compare(random)];
            let success = self.branch(random, 1);
            let failure = self.branch(random, 1);
            branch.push(Request::Txn(Txn { compare, success, failure }));
        }
        branch
    }

    fn read_only_txn(&self, random: &mut Random) -> Txn {
        Txn {
            compare: vec![self.compare(random)],
            success: vec![Request::Range(self.range(random, false))],
            failure: vec![
                Request::Range(self.range(random, false)),
                Request::Range(self.range(random, false)),
            ],
        }
    }

    fn compact(&mut self, random: &mut Random) -> Request {
        let back = i64::try_from(random.below(30)).expect("small");
        let revision = (self.revision + 1 - back).max(1);
        self.compaction = self.compaction.max(revision);
        Request::Compact(revision)
    }

    fn grant(&mut self, random: &mut Random) -> Request {
        self.leases += 1;
        Request::Grant { id: self.leases, ttl: random.between(5, 9) * SECOND }
    }
}

fn key_number(number: u64) -> Vec<u8> {
    // Two groups, so that ranges see some of them only.
    let group = if number.is_multiple_of(3) { 'a' } else { 'b' };
    format!("{group}/{number}").into_bytes()
}

fn key(random: &mut Random) -> Vec<u8> {
    key_number(random.below(KEYS))
}

/// One key, a group, a piece, or everything.
pub(crate) fn keys(random: &mut Random) -> Selector {
    match random.below(6) {
        0 | 1 => Selector::key(&key(random)),
        2 => Selector::prefix(b"a/"),
        3 => Selector::prefix(b"b/"),
        4 => {
            let (start, end) = (key(random), key(random));
            Selector { start: start.clone().min(end.clone()), end: start.max(end) }
        }
        _ => Selector::prefix(b""),
    }
}

fn delete(random: &mut Random) -> Delete {
    let keys = if random.chance(700) { Selector::key(&key(random)) } else { keys(random) };
    Delete { keys, prev: random.chance(400) }
}
