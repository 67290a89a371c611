//! Tests of the laws: what a correct watch is told passes, and each broken law is seen.

use super::*;
use crate::judge::{Delete, Put, Request, Transaction, linearizability::replayed};

/// Revisions 2: a; 3: a, b in one; 4: b deleted; 5: x.
fn world() -> (ChangeLog, Model) {
    let put = |key: &str, value: &str| {
        let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        Request::Put(Put { key, value, ..Put::default() })
    };
    let both =
        crate::judge::Txn { success: vec![put("a", "2"), put("b", "1")], ..Default::default() };
    let requests = [
        put("a", "1"),
        Request::Txn(both),
        Request::Delete(Delete { keys: Selector::key(b"b"), prev: false }),
        put("x", "1"),
    ];
    let mut model = Model::default();
    let mut log = ChangeLog::default();
    for (request, time) in requests.iter().zip(1..) {
        let changes = model.apply(request).unwrap().changes;
        let revision = model.revision();
        log.transactions.push(Transaction { revision, changes, first_seen: time });
    }
    let model = replayed(&log).unwrap();
    (log, model)
}

fn events(log: &ChangeLog, model: &Model, revision: i64) -> Vec<WatchEvent> {
    let made = &log.at(revision).unwrap().changes;
    made.iter()
        .filter(|change| change.key < b"m".to_vec())
        .map(|change| WatchEvent {
            revision,
            key: change.key.clone(),
            pair: change.pair.clone(),
            prev: model.get(&change.key, revision - 1).cloned(),
        })
        .collect()
}

/// What a correct watch of the keys below "m" is told from revision 2 on.
fn watch() -> Watch {
    let (log, model) = world();
    let told = |revision| Note::Events { events: events(&log, &model, revision), compacted: 0 };
    Watch {
        name: "test".into(),
        keys: Selector { start: b"a".to_vec(), end: b"m".to_vec() },
        start: 2,
        no_put: false,
        no_delete: false,
        prev: true,
        notes: vec![
            Note::Created { revision: 3 },
            told(2),
            told(3),
            told(4),
            Note::Progress { revision: 5 },
        ],
        must_reach: Some(5),
    }
}

fn law(change: impl FnOnce(&mut Watch)) -> Result<(), &'static str> {
    let (log, model) = world();
    let mut watch = watch();
    change(&mut watch);
    check_watch(&watch, &log, &model).map_err(|violation| violation.law)
}

fn note(watch: &mut Watch, at: usize) -> &mut Vec<WatchEvent> {
    let Note::Events { events, .. } = &mut watch.notes[at] else { panic!() };
    events
}

#[test]
fn what_a_correct_watch_is_told_passes() {
    assert_eq!(law(|_| ()), Ok(()));
    assert_eq!(watch().next(), 6);
}

#[test]
fn several_revisions_may_come_together() {
    let together = |watch: &mut Watch| {
        let more = note(watch, 2).clone();
        note(watch, 1).extend(more);
        watch.notes.remove(2);
    };
    assert_eq!(law(together), Ok(()));
}

#[test]
fn order_and_uniqueness() {
    assert!(law(|watch| watch.notes.swap(1, 2)).is_err());
    assert_eq!(law(|watch| watch.notes.swap(0, 1)), Err("watch: ordered"));
    let again = |watch: &mut Watch| watch.notes.insert(2, watch.notes[1].clone());
    assert_eq!(law(again), Err("watch: unique, ordered"));
}

#[test]
fn reliability() {
    let skip = |watch: &mut Watch| drop(watch.notes.remove(2));
    assert_eq!(law(skip), Err("watch: reliable"));
    let short = |watch: &mut Watch| watch.notes.truncate(3);
    assert_eq!(law(short), Err("reliable"));
}

#[test]
fn atomicity() {
    let split = |watch: &mut Watch| {
        let second = note(watch, 2).pop().unwrap();
        watch.notes.insert(3, Note::Events { events: vec![second], compacted: 0 });
    };
    assert_eq!(law(split), Err("watch: atomic"));
    let lie = |watch: &mut Watch| note(watch, 1)[0].pair.as_mut().unwrap().value.push(b'!');
    assert_eq!(law(lie), Err("watch: atomic"));
}

#[test]
fn progress_stands_behind_what_it_covers() {
    assert_eq!(law(|watch| watch.notes.swap(3, 4)), Err("watch: bookmarkable"));
    let never = |watch: &mut Watch| watch.notes[4] = Note::Progress { revision: 6 };
    assert_eq!(law(never), Err("watch: bookmarkable"));
}

#[test]
fn the_pair_before_is_right_or_compacted() {
    let lose = |watch: &mut Watch| note(watch, 3)[0].prev = None;
    assert_eq!(law(lose), Err("watch: prev_kv"));
    let compacted = |watch: &mut Watch| {
        lose(watch);
        let Note::Events { compacted, .. } = &mut watch.notes[3] else { panic!() };
        *compacted = 4;
    };
    assert_eq!(law(compacted), Ok(()));
    let other = |watch: &mut Watch| note(watch, 3)[0].prev.as_mut().unwrap().version = 9;
    assert_eq!(law(other), Err("watch: prev_kv"));
}

#[test]
fn a_watch_ends_for_a_compaction_only_if_that_took_something() {
    let end = |compacted: i64| {
        move |watch: &mut Watch| {
            watch.notes.truncate(2);
            watch.notes.push(Note::Compacted { compacted });
        }
    };
    assert_eq!(law(end(3)), Ok(()));
    assert_eq!(law(end(2)), Err("watch: resumable"));
}

#[test]
fn filters_leave_out_what_they_say() {
    let no_delete = |watch: &mut Watch| {
        watch.no_delete = true;
        watch.notes.remove(3);
    };
    assert_eq!(law(no_delete), Ok(()));
    assert!(law(|watch| watch.no_delete = true).is_err());
}
