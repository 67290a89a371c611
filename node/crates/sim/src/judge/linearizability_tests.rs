//! Tests of the check: histories of a correct store pass, and each way of lying is seen.

use super::*;
use crate::judge::{Compare, CompareTarget, Delete, Put, Relation, Selector, Txn};

/// A correct store that writes its own history: each operation takes effect between `invoked` and `returned`.
#[derive(Default)]
struct Store {
    model: Model,
    log: ChangeLog,
    history: Vec<Operation>,
}

impl Store {
    fn ask(&mut self, request: Request, invoked: u64, at: u64, returned: u64) -> usize {
        let outcome = match self.model.apply(&request) {
            Ok(effect) => {
                if !effect.changes.is_empty() {
                    self.log.transactions.push(Transaction {
                        revision: self.model.revision(),
                        changes: effect.changes,
                        first_seen: at,
                    });
                }
                Outcome::Answered { revision: self.model.revision(), response: effect.response }
            }
            Err(refusal) => Outcome::Refused(refusal),
        };
        self.history.push(Operation { client: 1, request, invoked, returned, outcome });
        self.history.len() - 1
    }

    fn check(&self) -> Result<Report, Violation> {
        check_history(&self.history, &self.log)
    }
}

fn put(key: &str, value: &str) -> Request {
    let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    Request::Put(Put { key, value, prev: true, ..Put::default() })
}

fn delete(key: &str) -> Request {
    Request::Delete(Delete { keys: Selector::key(key.as_bytes()), prev: true })
}

fn read(serializable: bool) -> Request {
    Request::Range(Range { keys: Selector::prefix(b""), serializable, ..Range::default() })
}

/// a=1, read, a=2, txn that deletes a if it is 2, read, compaction to 3.
fn story() -> Store {
    let mut store = Store::default();
    store.ask(put("a", "1"), 0, 5, 10);
    store.ask(read(false), 20, 25, 30);
    store.ask(put("a", "2"), 40, 45, 50);
    let compare = Compare {
        keys: Selector::key(b"a"),
        relation: Relation::Equal,
        target: CompareTarget::Value(b"2".to_vec()),
    };
    let txn =
        Txn { compare: vec![compare], success: vec![delete("a"), put("b", "3")], failure: vec![] };
    store.ask(Request::Txn(txn), 60, 65, 70);
    store.ask(read(false), 80, 85, 90);
    store.ask(Request::Compact(3), 100, 105, 110);
    store
}

#[test]
fn a_correct_history_passes_and_is_counted() {
    let report = story().check().unwrap();
    assert_eq!((report.writes, report.reads, report.refused), (3, 3, 0));
}

#[test]
fn a_write_of_unknown_outcome_may_have_happened_or_not() {
    let mut store = story();
    store.history[2].outcome = Outcome::Unknown;
    let vanished = Operation {
        request: put("z", "never"),
        outcome: Outcome::Unknown,
        ..store.history[2].clone()
    };
    store.history.push(vanished);
    let report = store.check().unwrap();
    assert_eq!((report.unknown_happened, report.unknown_vanished), (1, 1));
}

#[test]
fn a_write_that_failed_for_sure_must_not_have_happened() {
    let mut store = story();
    store.history[2].outcome = Outcome::Failed;
    assert_eq!(store.check().unwrap_err().law, "every revision has a maker");
}

#[test]
fn one_request_makes_one_revision() {
    let mut store = Store::default();
    store.ask(put("a", "1"), 0, 5, 10);
    // Applied twice, as a repeated message would do it.
    store.model.apply(&put("a", "1")).unwrap();
    let pair = store.model.get(b"a", 3).cloned();
    let changes = vec![super::super::Change { key: b"a".to_vec(), pair }];
    store.log.transactions.push(Transaction { revision: 3, changes, first_seen: 6 });
    assert_eq!(store.check().unwrap_err().law, "every revision has a maker");
}

#[test]
fn a_stale_linearizable_read_is_seen_and_a_serializable_one_is_not() {
    for serializable in [false, true] {
        let mut store = Store::default();
        store.ask(put("a", "1"), 0, 5, 10);
        store.ask(read(serializable), 11, 12, 13);
        store.ask(put("a", "2"), 20, 25, 30);
        // The read begins after the second write was answered, and shows the first.
        (store.history[1].invoked, store.history[1].returned) = (40, 50);
        assert_eq!(store.check().is_ok(), serializable);
    }
}

#[test]
fn nothing_is_older_than_what_a_serializable_read_saw() {
    let mut store = Store::default();
    store.ask(put("a", "1"), 0, 5, 100);
    store.ask(read(true), 11, 12, 13);
    store.ask(read(false), 20, 25, 30);
    assert!(store.check().is_ok());
    let stale = Response::Range { pairs: vec![], more: false, count: 0 };
    store.history[2].outcome = Outcome::Answered { revision: 1, response: stale };
    assert!(store.check().is_err());
}

#[test]
fn an_answer_that_the_model_would_not_give_is_seen() {
    let lies: [fn(&mut Response); 4] = [
        |response| {
            if let Response::Range { pairs, .. } = response {
                pairs[0].value.push(b'!');
            }
        },
        |response| {
            if let Response::Range { pairs, .. } = response {
                pairs[0].version += 1;
            }
        },
        |response| {
            if let Response::Range { count, .. } = response {
                *count += 1;
            }
        },
        |response| {
            if let Response::Range { pairs, .. } = response {
                pairs.clear();
            }
        },
    ];
    for lie in lies {
        let mut store = story();
        let Outcome::Answered { response, .. } = &mut store.history[1].outcome else { panic!() };
        lie(response);
        assert!(store.check().is_err());
    }
}

#[test]
fn a_lost_write_is_seen() {
    let mut store = Store::default();
    store.ask(put("a", "1"), 0, 5, 10);
    let mut other = Store::default();
    other.ask(put("b", "2"), 20, 25, 30);
    store.log = other.log;
    store.history.extend(other.history);
    assert!(store.check().is_err());
}

#[test]
fn nobody_sees_a_write_before_it_was_asked_for() {
    let mut store = story();
    store.history[2].invoked = 96;
    store.history[2].returned = 99;
    assert!(store.check().is_err(), "the read of 80..90 stands behind it");
}

#[test]
fn history_that_was_compacted_is_not_read_and_only_that_is_refused() {
    let at = |revision| {
        Request::Range(Range { keys: Selector::key(b"a"), revision, ..Range::default() })
    };
    let mut store = story();
    store.ask(at(2), 120, 125, 130);
    assert_eq!(store.history[6].outcome, Outcome::Refused(Refusal::Compacted));
    store.ask(at(3), 140, 145, 150);
    store.ask(at(99), 160, 165, 170);
    assert_eq!(store.history[8].outcome, Outcome::Refused(Refusal::FutureRevision));
    assert_eq!(store.check().unwrap().refused, 2);

    let mut wrong = story();
    wrong.ask(at(3), 120, 125, 130);
    wrong.history[6].outcome = Outcome::Refused(Refusal::Compacted);
    assert!(wrong.check().is_err());

    let mut late = story();
    late.ask(at(3), 120, 125, 130);
    late.history[6].request = at(2);
    assert!(late.check().is_err(), "revision 2 was answered though it is compacted");
}

#[test]
fn the_keys_of_a_lease_go_together() {
    let leased = |key: &str| {
        let (key, value) = (key.as_bytes().to_vec(), b"v".to_vec());
        Request::Put(Put { key, value, lease: 7, ..Put::default() })
    };
    let mut store = Store::default();
    store.ask(Request::Grant { id: 7, ttl: 5 }, 0, 1, 2);
    store.ask(leased("a"), 3, 4, 5);
    store.ask(leased("b"), 6, 7, 8);
    let revoke = store.ask(Request::Revoke(7), 9, 10, 11);
    assert_eq!(store.check().unwrap().expiries.len(), 0);
    // The same without anybody's revocation: the lease's time was up.
    store.history.remove(revoke);
    assert_eq!(store.check().unwrap().expiries[&4], BTreeSet::from([7]));
    store.log.transactions[2].changes.pop();
    assert_eq!(store.check().unwrap_err().law, "every revision has a maker");
}

#[test]
fn a_revocation_of_a_lease_whose_last_key_was_just_deleted_made_nothing() {
    let (key, value) = (b"a".to_vec(), b"v".to_vec());
    let mut store = Store::default();
    store.ask(Request::Grant { id: 7, ttl: 5 }, 0, 1, 2);
    store.ask(Request::Put(Put { key, value, lease: 7, ..Put::default() }), 3, 4, 5);
    store.ask(delete("a"), 6, 7, 8);
    // Its header names the revision of the deletion, and alone it could have made that.
    store.ask(Request::Revoke(7), 9, 10, 11);
    let report = store.check().unwrap();
    assert_eq!((report.writes, report.reads), (2, 2));
}

#[test]
fn the_end_of_a_lease_takes_no_other_revisions_maker() {
    let leased = Put { key: b"a".to_vec(), value: b"v".to_vec(), lease: 7, ..Put::default() };
    let mut store = Store::default();
    store.ask(Request::Grant { id: 7, ttl: 5 }, 0, 1, 2);
    store.ask(Request::Put(leased), 3, 4, 5);
    // The lease's time is up, and nobody asked for it.
    let expiry = store.ask(Request::Revoke(7), 6, 14, 15);
    store.ask(put("a", "1"), 16, 17, 18);
    // Asked before the lease ended, it may have made either revision; only the second one needs it.
    let late = store.ask(delete("a"), 7, 20, 21);
    store.history[late].outcome = Outcome::Unknown;
    store.history.remove(expiry);
    let report = store.check().unwrap();
    assert_eq!((report.unknown_happened, report.expiries.len()), (1, 1));
}
