//! The index against a map of vectors: same history, same answers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The naive index: every version of every key.
#[derive(Clone, Default)]
struct Model(BTreeMap<Vec<u8>, Vec<Version>>);

impl Model {
    fn get(&self, key: &[u8], at: Revision) -> Option<Version> {
        self.0.get(key)?.iter().rev().find(|version| version.revision <= at).copied()
    }

    fn live(&self, start: &[u8], end: Option<&[u8]>, at: Revision) -> Vec<(Vec<u8>, Version)> {
        let inside = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
        let keys = self.0.keys().filter(|key| inside(key));
        let found = keys.filter_map(|key| Some((key.clone(), self.get(key, at)?)));
        found.filter(|(_, version)| !version.tombstone).collect()
    }

    fn compact(&mut self, at: i64) -> Vec<Version> {
        let mut dropped = Vec::new();
        for versions in self.0.values_mut() {
            let newest = versions.iter().rposition(|version| version.revision.main <= at);
            let mut place = 0;
            versions.retain(|version| {
                let is_newest = Some(place) == newest;
                place += 1;
                let gone = version.tombstone && version.revision.main < at;
                let stays = version.revision.main > at || (is_newest && !gone);
                if !stays {
                    dropped.push(*version);
                }
                stays
            });
        }
        self.0.retain(|_, versions| !versions.is_empty());
        dropped
    }
}

/// Writes to both as etcd numbers writes.
struct Pair {
    index: Index,
    model: Model,
    main: i64,
}

impl Pair {
    fn new() -> Pair {
        Pair { index: Index::new(), model: Model::default(), main: 1 }
    }

    /// One write with a change per key: a put, or a deletion of what lives.
    fn write(&mut self, changes: &[(Vec<u8>, bool)]) {
        self.main += 1;
        let mut sub = 0;
        for (key, delete) in changes {
            let revision = Revision { main: self.main, sub };
            let newest = self.model.get(key, NEWEST).filter(|version| !version.tombstone);
            if *delete && newest.is_none() {
                continue;
            }
            let (create, version) = match newest {
                _ if *delete => (0, 0),
                Some(newest) => (newest.create, newest.version + 1),
                None => (self.main, 1),
            };
            let offset = (self.main * 100 + sub) as u32;
            let at = RowAt { segment: 1, offset, len: 100 };
            let version = Version { revision, create, version, tombstone: *delete, at };
            self.index.put(key, &version);
            self.model.0.entry(key.clone()).or_default().push(version);
            sub += 1;
        }
    }

    fn compact(&mut self, at: i64, leaves_per_step: usize) {
        let mut dropped = Vec::new();
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            cursor = self.index.compact_step(&from, at, leaves_per_step, |v| dropped.push(*v));
        }
        let mut expected = self.model.compact(at);
        expected.sort_by_key(|version| (version.revision.main, version.revision.sub));
        dropped.sort_by_key(|version| (version.revision.main, version.revision.sub));
        assert_eq!(dropped, expected, "what a compaction at {at} drops");
    }

    fn reload(&mut self) {
        let mut builder = Builder::default();
        for leaf in self.index.snapshot() {
            builder.push(&leaf.image());
        }
        self.index = builder.finish();
    }

    fn check(&self, start: &[u8], end: Option<&[u8]>, at: Revision) {
        let mut found = Vec::new();
        self.index.scan(start, end, at, |key, version| {
            found.push((key.to_vec(), *version));
            ControlFlow::Continue(())
        });
        let expected = self.model.live(start, end, at);
        assert_eq!(self.index.count(start, end, at), expected.len() as u64);
        assert_eq!(found, expected, "scan of {start:?}..{end:?} at {at}");
        for (key, version) in &found {
            assert_eq!(self.index.get(key, at), Some(*version));
        }
    }

    fn check_all(&self) {
        let versions: usize = self.model.0.values().map(Vec::len).sum();
        assert_eq!(self.index.versions(), versions as u64);
        for key in self.model.0.keys() {
            for version in &self.model.0[key] {
                assert_eq!(self.index.get(key, version.revision), Some(*version), "{key:?}");
            }
        }
        self.check(&[], None, NEWEST);
    }
}

#[derive(Clone, Debug)]
enum Act {
    Write(Vec<(Vec<u8>, bool)>),
    Hammer(Vec<u8>, u16),
    Compact(u8, u8),
    Reload,
    Scan(Vec<u8>, Option<Vec<u8>>, u8),
}

/// Keys as stores have them: long common prefixes, one key the prefix of another, and arbitrary ones.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0u8..4, 0u16..300)
            .prop_map(|(kind, n)| format!("/registry/kind{kind}/{n:05}").into_bytes()),
        (1usize..40).prop_map(|n| vec![b'a'; n]),
        prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 1..70),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => prop::collection::btree_map(key(), prop::bool::weighted(0.25), 1..60)
            .prop_map(|changes| Act::Write(changes.into_iter().collect())),
        1 => (key(), 1u16..400).prop_map(|(key, n)| Act::Hammer(key, n)),
        1 => (any::<u8>(), 1u8..9).prop_map(|(at, pace)| Act::Compact(at, pace)),
        1 => Just(Act::Reload),
        2 => (key(), prop::option::of(key()), any::<u8>()).prop_map(|(a, b, at)| Act::Scan(a, b, at)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_a_map_of_vectors(acts in prop::collection::vec(act(), 1..120)) {
        let mut pair = Pair::new();
        let mut compacted = 0;
        let between = |low: i64, high: i64, share: u8| low + (high - low) * i64::from(share) / 255;
        for act in acts {
            match act {
                Act::Write(changes) => pair.write(&changes),
                Act::Hammer(key, times) => {
                    for turn in 0..times {
                        pair.write(&[(key.clone(), turn % 50 == 49)]);
                    }
                }
                Act::Compact(share, pace) => {
                    compacted = between(compacted, pair.main, share);
                    pair.compact(compacted, usize::from(pace));
                }
                Act::Reload => pair.reload(),
                Act::Scan(start, end, share) => {
                    let main = between(compacted, pair.main, share);
                    pair.check(&start, end.as_deref(), Revision::end_of(main));
                    pair.check(&start, end.as_deref(), Revision { main, sub: i64::from(share % 7) + 60 });
                }
            }
        }
        pair.check_all();
        pair.reload();
        pair.check_all();
    }
}

fn key_number(n: u64) -> Vec<u8> {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(3)
}

/// Lookups within a write see its earlier changes and not its later ones.
#[test]
fn a_lookup_honours_the_change_within_a_write() {
    let mut pair = Pair::new();
    for round in 0..40 {
        pair.write(&(0..3).map(|n| (vec![b'k', n], round % 5 == 4)).collect::<Vec<_>>());
    }
    for main in 2..=pair.main {
        for sub in 0..3 {
            let at = Revision { main, sub };
            assert_eq!(pair.index.get(b"k\x01", at), pair.model.get(b"k\x01", at), "at {at}");
        }
    }
}

#[test]
fn a_snapshot_does_not_move_while_the_index_does() {
    let mut pair = Pair::new();
    for n in 0..5000 {
        pair.write(&[(key_number(n), false)]);
    }
    let frozen = pair.model.clone();
    let at = Revision::end_of(pair.main);
    let snapshot = pair.index.snapshot();
    let mut builder = Builder::default();
    let mut turn = 0;
    for leaf in snapshot {
        builder.push(&leaf.image());
        for n in 0..50 {
            pair.write(&[(key_number((turn * 50 + n) * 7 % 9000), n % 3 == 0)]);
        }
        turn += 1;
    }
    assert!(turn > 30, "the index has {turn} leaves: too few to show anything");
    let restored = Pair { index: builder.finish(), model: frozen, main: 0 };
    restored.check(&[], None, at);
    restored.check(&[], None, NEWEST);
    pair.check_all();
}

/// Rising keys fill their leaves, and a compaction that drops nearly everything leaves hardly any.
#[test]
fn leaves_are_full_when_keys_rise_and_go_when_keys_go() {
    let mut pair = Pair::new();
    for n in 0u32..20_000 {
        pair.write(&[(n.to_be_bytes().repeat(4), false)]);
    }
    let bytes: usize = pair.index.snapshot().map(|leaf| leaf.image().bytes.len()).sum();
    let leaves = pair.index.snapshot().count();
    assert!(bytes / leaves > LEAF_BYTES_MAX * 9 / 10, "{bytes} bytes in {leaves} leaves");
    for n in 0u32..19_990 {
        pair.write(&[(n.to_be_bytes().repeat(4), true)]);
    }
    pair.write(&[(vec![0], false)]);
    pair.compact(pair.main, 3);
    assert!(pair.index.snapshot().count() <= 2);
    pair.check_all();
    pair.write(&[(vec![1], false), (vec![0xff; 20], false)]);
    pair.check_all();
}

/// A key with very many versions costs a count as little as one with a single version: a scan seeks past its entries.
#[test]
fn a_key_written_often_is_one_step_of_a_count() {
    let mut pair = Pair::new();
    for n in 0..20 {
        pair.write(&[(key_number(n), false)]);
    }
    for _ in 0..40_000 {
        pair.write(&[(key_number(7), false)]);
    }
    let leaves = pair.index.snapshot().count();
    assert!(leaves > 50, "{leaves} leaves: the versions did not spread");
    let mut seeks = 0;
    let mut from = Some(Vec::new());
    let mut steps = 0;
    while let Some(start) = from {
        from = pair.index.scan_until_run(&start, None, NEWEST, &mut |_, _| {
            steps += 1;
            ControlFlow::Continue(())
        });
        seeks += 1;
    }
    assert_eq!((seeks, steps), (2, 20));
    pair.compact(pair.main, 16);
    assert_eq!(pair.index.snapshot().count(), 1);
    pair.check_all();
}

#[test]
fn a_row_that_moved_is_found_at_its_new_place() {
    let mut pair = Pair::new();
    for round in 0..40 {
        for n in 0..200 {
            pair.write(&[(key_number(n), round == 20)]);
        }
    }
    let moved = RowAt { segment: 9, offset: 77, len: 100 };
    let version = pair.model.0[&key_number(50)][17];
    assert!(pair.index.relocate(&key_number(50), version.revision, moved));
    pair.model.0.get_mut(&key_number(50)).unwrap()[17].at = moved;
    pair.check_all();
    let wrong = Revision { main: version.revision.main + 1, sub: 0 };
    assert!(!pair.index.relocate(&key_number(50), wrong, moved));
    assert!(!pair.index.relocate(b"nobody", version.revision, moved));
}

#[test]
#[should_panic(expected = "INV-M1")]
fn a_version_that_is_not_newer_is_a_defect() {
    let mut pair = Pair::new();
    pair.write(&[(b"a".to_vec(), false)]);
    pair.main -= 1;
    pair.write(&[(b"a".to_vec(), false)]);
}
