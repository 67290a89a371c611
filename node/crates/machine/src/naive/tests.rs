//! The machine against the naive model, over random histories with physical compaction at a random pace.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    Applied, ClusterId, Envelope, FeatureLevel, Genesis, LeaseTime, Machine, ModelStore,
    RangeCursor, RangeError, RequestId, Store, View, arbitrary, hash::tests::crc32c, hash_kv,
    range, read_txn,
};

fn genesis() -> Genesis {
    Genesis { cluster: ClusterId(1), members: vec![], feature_level: FeatureLevel(1), index: 1 }
}

fn entry(sequence: u64, clock: u64, command: &Command) -> Bytes {
    Envelope {
        request: RequestId { member: MemberId(1), life: 1, sequence },
        user: Bytes::new(),
        auth_revision: 0,
        feature_level: FeatureLevel(1),
        clock: LeaseTime(clock),
        command: command.clone(),
    }
    .encode()
}

fn rejected<T>(result: Result<T, RangeError>) -> Result<T, Rejected> {
    result.map_err(|error| match error {
        RangeError::Rejected(rejected) => rejected,
        RangeError::Fault(fault) => panic!("{fault}"),
    })
}

fn check_applied(applied: &Applied, naive: &Naive, wrote: bool) {
    assert_eq!(applied.revision, naive.revision());
    let changes = if wrote { naive.changes.last().unwrap().as_slice() } else { &[] };
    assert_eq!(applied.events.len(), changes.len());
    for (event, change) in applied.events.iter().zip(changes) {
        assert_eq!((event.revision.main, event.revision.sub), (naive.revision(), change.sub));
        assert_eq!(event.key, change.told.key);
        assert_eq!(event.deleted, change.deleted);
        assert_eq!(event.kv, change.told.encode());
        let previous =
            event.previous.map(|version| (version.modified.main, version.created, version.version));
        let expected =
            change.previous.as_ref().map(|pair| (pair.modified, pair.created, pair.version));
        assert_eq!(previous, expected);
    }
}

fn check_now(machine: &Machine<ModelStore>, naive: &Naive) {
    machine.check_invariants();
    assert_eq!(machine.compacted(), naive.compacted);
    let leases: BTreeMap<_, _> = machine
        .leases()
        .iter()
        .map(|lease| (lease.id, (lease.granted_ttl, lease.deadline.0)))
        .collect();
    assert_eq!(leases, naive.leases);
    for id in naive.leases.keys() {
        let keys: Vec<_> = machine.leases().keys(*id).cloned().collect();
        let expected: Vec<_> = naive
            .now()
            .values()
            .filter(|pair| pair.lease == id.0)
            .map(|pair| pair.key.clone())
            .collect();
        assert_eq!(keys, expected, "INV-M4: the keys of lease {id}");
    }
}

fn check_range(machine: &Machine<ModelStore>, naive: &Naive, request: &Range, chunk: usize) {
    let reader = machine.store().reader();
    let point = machine.read_point();
    let expected = naive.range(request);
    assert_eq!(rejected(range(&reader, request, point)), expected, "{request:?}");
    if !request.is_streamable() {
        return;
    }
    let cursor = RangeCursor::new(request, point);
    let (Ok(mut cursor), Ok(expected)) = (cursor.clone(), &expected) else {
        assert_eq!(cursor.map(|_| ()), expected.map(|_| ()));
        return;
    };
    let mut kvs = vec![];
    let end = loop {
        let part = cursor.next(&reader, chunk).unwrap();
        assert!(part.kvs.len() <= chunk);
        kvs.extend(part.kvs);
        if let Some(end) = part.end {
            break end;
        }
    };
    assert_eq!((&kvs, end.more, end.count), (&expected.kvs, expected.more, expected.count));
}

/// The hash by its definition, over all rows that ever were.
fn naive_hash(naive: &Naive, revision: i64) -> u32 {
    let live_at =
        if naive.history[revision as usize].is_empty() { naive.compacted } else { revision };
    let live = naive.history.get(live_at.max(0) as usize).unwrap();
    let mut hash = crc32c(0, b"key");
    for (main, changes) in naive.changes.iter().enumerate().take(revision as usize + 1) {
        for change in changes {
            let kept = live.get(&change.row.key).is_some_and(|pair| {
                pair.modified == main as i64 && !change.deleted && *pair == change.row
            });
            if main as i64 <= naive.compacted && !kept {
                continue;
            }
            hash = crc32c(hash, &(main as i64).to_be_bytes());
            hash = crc32c(hash, b"_");
            hash = crc32c(hash, &change.sub.to_be_bytes());
            if change.deleted {
                hash = crc32c(hash, b"t");
            }
            hash = crc32c(hash, &change.row.encode().0);
        }
    }
    hash
}

fn check_history(machine: &Machine<ModelStore>, naive: &Naive) {
    let reader = machine.store().reader();
    for revision in naive.compacted.max(1)..=naive.revision() {
        let request = Range { revision, ..Range::of(KeyRange::From(Bytes::new())) };
        check_range(machine, naive, &request, 2);
        let hash = hash_kv(&reader, revision, machine.read_point(), crc32c).unwrap();
        assert_eq!(hash.hash, naive_hash(naive, revision), "HashKV at {revision}");
        let range = &request.range;
        let count = reader.count(range, crate::Revision::end_of(revision)).unwrap();
        assert_eq!(count, naive.history[revision as usize].len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_machine_means_what_the_naive_model_means(
        steps in vec((arbitrary::step(), 0_usize..4), 1..60),
        ranges in vec(arbitrary::few_keys(), 1..20),
    ) {
        let mut naive = Naive::new();
        let mut machine = Machine::new(genesis(), ModelStore::default());
        let mut clock = 0;
        for (sequence, ((passed, command), pace)) in steps.iter().enumerate() {
            clock += passed;
            if let Command::Txn(txn) = command && txn.is_read_only() && naive.alarms.is_empty() {
                let alone = read_txn(&machine.store().reader(), txn, machine.read_point());
                let alone = rejected(alone).map(Outcome::Txn);
                prop_assert_eq!(alone, naive.clone().apply(clock, command));
            }
            let before = naive.revision();
            let expected = naive.apply(clock, command);
            let applied = machine
                .apply(sequence as u64 + 2, &entry(sequence as u64, clock, command))
                .unwrap();
            prop_assert_eq!(&applied.result, &expected, "{:?}", command);
            check_applied(&applied, &naive, naive.revision() > before);
            check_now(&machine, &naive);
            machine.store_mut().reclaim(*pace);
        }
        for request in &ranges {
            check_range(&machine, &naive, request, 1);
            check_range(&machine, &naive, request, 3);
        }
        check_history(&machine, &naive);
    }

    /// Two members apply the same entries; one of them restarts from its stored state again and again, and they compact
    /// at different paces.
    #[test]
    fn equal_entries_give_equal_digests(
        steps in vec((arbitrary::step(), any::<bool>()), 1..40),
    ) {
        let mut steady = Machine::new(genesis(), ModelStore::default());
        let mut restarting = Machine::new(genesis(), ModelStore::default());
        let mut clock = 0;
        let mut seen = BTreeSet::from([steady.digest()]);
        for (sequence, ((passed, command), restart)) in steps.iter().enumerate() {
            clock += passed;
            let index = sequence as u64 + 2;
            let entry = entry(sequence as u64, clock, command);
            let applied = steady.apply(index, &entry).unwrap();
            prop_assert_eq!(&restarting.apply(index, &entry).unwrap(), &applied);
            prop_assert_eq!(steady.digest(), restarting.digest());
            prop_assert_eq!(steady.encode_state(), restarting.encode_state());
            prop_assert!(seen.insert(steady.digest()), "every entry shows in the digest");
            steady.store_mut().reclaim(1);
            if *restart {
                let state = restarting.encode_state();
                restarting = Machine::restore(&state, restarting.into_store()).unwrap();
                restarting.check_invariants();
                restarting.store_mut().reclaim(usize::MAX);
                prop_assert_eq!(steady.digest(), restarting.digest());
            }
        }
        steady.store_mut().reclaim(usize::MAX);
        restarting.store_mut().reclaim(usize::MAX);
        prop_assert_eq!(steady.store().to_rows(), restarting.store().to_rows());
    }
}
