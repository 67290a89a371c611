//! HashKV: the bytes that it covers, and that physical compaction never shows.

use super::*;
use crate::{
    ClusterId, Command, DeleteRange, Envelope, FeatureLevel, Genesis, KeyRange, LeaseTime, Machine,
    MemberId, ModelStore, Put, RequestId, Store,
};

/// CRC32C by its definition, bit by bit: reflected polynomial 0x82F63B78, inverted before and after.
pub(crate) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let mut crc = !crc;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn the_crc_is_castagnoli() {
    // The check value of CRC-32C in the catalogues (RFC 3720 appendix B.4 has others).
    assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(crc32c(0, b"12345"), b"6789"), 0xe306_9283);
}

fn machine(commands: &[Command]) -> Machine<ModelStore> {
    let genesis = Genesis {
        cluster: ClusterId(1),
        members: vec![],
        feature_level: FeatureLevel(1),
        index: 1,
    };
    let mut machine = Machine::new(genesis, ModelStore::default());
    for command in commands {
        let index = machine.applied() + 1;
        let envelope = Envelope {
            request: RequestId { member: MemberId(1), life: 1, sequence: index },
            user: Bytes::new(),
            auth_revision: 0,
            feature_level: FeatureLevel(1),
            clock: LeaseTime(0),
            command: command.clone(),
        };
        machine.apply_envelope(index, &envelope).unwrap().result.unwrap();
    }
    machine
}

fn put(key: &'static str, value: &'static str) -> Command {
    let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes()));
    Command::Put(Put { key, value, ..Put::default() })
}

fn delete(key: &'static str) -> Command {
    let range = KeyRange::Single(Bytes::from_static(key.as_bytes()));
    Command::DeleteRange(DeleteRange { range, prev_kv: false })
}

fn hash_at(machine: &Machine<ModelStore>, revision: i64) -> Result<KeyValueHash, RangeError> {
    hash_kv(&machine.store().reader(), revision, machine.read_point(), crc32c)
}

/// The hash over these bytes of rows, (row key, value) one after the other.
fn expected(rows: &[(&[u8], &[u8])]) -> u32 {
    rows.iter().fold(crc32c(0, b"key"), |hash, (key, kv)| crc32c(crc32c(hash, key), kv))
}

const A2: (&[u8], &[u8]) =
    (b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0", b"\x0a\x01a\x10\x02\x18\x02\x20\x01\x2a\x011");
const B3: (&[u8], &[u8]) =
    (b"\0\0\0\0\0\0\0\x03_\0\0\0\0\0\0\0\0", b"\x0a\x01b\x10\x03\x18\x03\x20\x01\x2a\x012");
const A4_DELETED: (&[u8], &[u8]) = (b"\0\0\0\0\0\0\0\x04_\0\0\0\0\0\0\0\0t", b"\x0a\x01a");

#[test]
fn rows_are_hashed_as_etcd_stores_them() {
    let machine = machine(&[put("a", "1"), put("b", "2"), delete("a")]);
    let whole = KeyValueHash {
        hash: expected(&[A2, B3, A4_DELETED]),
        compact_revision: -1,
        hash_revision: 4,
    };
    assert_eq!(hash_at(&machine, 0), Ok(whole));
    assert_eq!(hash_at(&machine, 3).unwrap().hash, expected(&[A2, B3]));
    assert_eq!(hash_at(&machine, 1).unwrap().hash, expected(&[]));
    assert_eq!(hash_at(&machine, 5), Err(Rejected::FutureRevision.into()));
}

#[test]
fn physical_compaction_never_shows() {
    let mut machine =
        machine(&[put("a", "1"), put("b", "2"), delete("a"), Command::Compact { revision: 4 }]);
    let hash = KeyValueHash { hash: expected(&[B3]), compact_revision: 4, hash_revision: 4 };
    loop {
        assert_eq!(hash_at(&machine, 0), Ok(hash));
        assert_eq!(hash_at(&machine, 4), Ok(hash));
        assert_eq!(hash_at(&machine, 3), Err(Rejected::Compacted.into()));
        if machine.store_mut().reclaim(1) == 0 {
            break;
        }
    }
    assert_eq!(machine.store().to_rows().len(), 1, "the superseded rows are gone");
}

#[test]
fn without_any_key_left_the_versions_at_the_compacted_revision_count() {
    let mut machine = machine(&[
        put("a", "1"),
        put("b", "2"),
        Command::Compact { revision: 3 },
        delete("a"),
        delete("b"),
    ]);
    let b5: (&[u8], &[u8]) = (b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\0t", b"\x0a\x01b");
    let hash = expected(&[A2, B3, A4_DELETED, b5]);
    assert_eq!(hash_at(&machine, 0).unwrap().hash, hash);
    machine.store_mut().reclaim(usize::MAX);
    assert_eq!(hash_at(&machine, 0).unwrap().hash, hash);
}

#[test]
fn chunks_do_not_show() {
    let many: Vec<Command> = (0..2 * HASH_CHUNK_ROWS + 7)
        .map(|number| {
            let key = Bytes::from(format!("{:05}", number % 1500));
            Command::Put(Put { key, ..Put::default() })
        })
        .collect();
    let mut machine = machine(&many);
    let last = machine.revision();
    let open = hash_at(&machine, last).unwrap();
    let rows = machine.store().to_rows();
    let newest = |row: &&crate::Row| {
        !rows.iter().any(|other| other.key == row.key && other.revision > row.revision)
    };
    let compacted = rows.iter().filter(newest).fold(crc32c(0, BUCKET), |hash, row| {
        let (key, length) = revision_key(row.revision, false);
        crc32c(crc32c(hash, &key[..length]), &row.kv.0)
    });
    assert_ne!(open.hash, compacted, "there are superseded rows");
    let index = machine.applied() + 1;
    let compact = Envelope {
        request: RequestId::default(),
        user: Bytes::new(),
        auth_revision: 0,
        feature_level: FeatureLevel(1),
        clock: LeaseTime(0),
        command: Command::Compact { revision: last },
    };
    machine.apply_envelope(index, &compact).unwrap().result.unwrap();
    assert_eq!(hash_at(&machine, 0).unwrap().hash, compacted);
}

#[test]
fn the_hash_of_everything_covers_leases_and_not_the_applied_index() {
    let grant = Command::LeaseGrant { id: crate::LeaseId(1), ttl: 5 };
    let hash = |machine: &Machine<ModelStore>| {
        hash_all(&machine.store().reader(), machine.state(), crc32c).unwrap()
    };
    let bare = machine(&[put("a", "1")]);
    let idle = machine(&[put("a", "1"), Command::Clock]);
    let leased = machine(&[put("a", "1"), grant]);
    assert_eq!(hash(&bare), hash(&idle));
    assert_ne!(hash(&bare), hash(&leased));
}

/// Two compactions of a store whose past has puts, overwrites and deletions on both sides of each.
fn twice_compacted() -> (Machine<ModelStore>, [KeyValueHash; 2]) {
    let mut machine = machine(&[
        put("a", "1"),
        put("b", "1"),
        put("a", "2"),
        delete("b"),
        put("c", "1"),
        put("b", "2"),
        put("b", "3"),
        put("a", "3"),
        delete("c"),
        put("d", "1"),
    ]);
    let mut before = Vec::new();
    for revision in [5, 9] {
        before.push(hash_at(&machine, revision).unwrap());
        let index = machine.applied() + 1;
        let command = Command::Compact { revision };
        let compact = Envelope {
            request: RequestId::default(),
            user: Bytes::new(),
            auth_revision: 0,
            feature_level: FeatureLevel(1),
            clock: LeaseTime(0),
            command,
        };
        machine.apply_envelope(index, &compact).unwrap().result.unwrap();
    }
    (machine, before.try_into().unwrap())
}

/// Walks to the end; `meanwhile` runs between the steps.
fn walk(
    of: Compacted,
    machine: &mut Machine<ModelStore>,
    mut meanwhile: impl FnMut(&mut Machine<ModelStore>),
) -> KeyValueHash {
    let mut walk = HashWalk::new(of, crc32c);
    loop {
        let step = walk.step(&machine.store().reader()).unwrap();
        if let Some(hash) = step {
            return hash;
        }
        meanwhile(machine);
    }
}

#[test]
fn a_hash_under_the_compacted_revision_before_is_the_one_from_before_the_compaction() {
    let (mut machine, before) = twice_compacted();
    for (revision, before) in [5, 9].into_iter().zip(before) {
        let now = hash_at(&machine, revision);
        assert!(now.is_err() || now.unwrap().hash != before.hash, "the compaction shows");
    }
    let first = walk(Compacted { previous: -1, revision: 5 }, &mut machine, |_| {});
    let second = walk(Compacted { previous: 5, revision: 9 }, &mut machine, |_| {});
    assert_eq!([first, second], before);
    assert_eq!((first.compact_revision, first.hash_revision), (-1, 5));
    assert_eq!((second.compact_revision, second.hash_revision), (5, 9));
}

#[test]
fn a_walk_that_comes_after_the_rows_are_gone_would_differ() {
    let (mut machine, before) = twice_compacted();
    machine.store_mut().reclaim(usize::MAX);
    let late = walk(Compacted { previous: 5, revision: 9 }, &mut machine, |_| {});
    assert_ne!(late.hash, before[1].hash);
}

#[test]
fn between_the_steps_of_a_walk_others_write() {
    let many: Vec<Command> = (0..3 * HASH_CHUNK_ROWS)
        .map(|number| {
            let key = Bytes::from(format!("{:05}", number % 1500));
            Command::Put(Put { key, ..Put::default() })
        })
        .collect();
    let mut machine = machine(&many);
    let revision = machine.revision();
    let whole = hash_at(&machine, revision).unwrap();
    let mut steps = 0;
    let hash = walk(Compacted { previous: -1, revision }, &mut machine, |machine| {
        steps += 1;
        let main = machine.revision() + steps;
        machine.store_mut().append(crate::Row {
            revision: Revision { main, sub: 0 },
            key: Bytes::from_static(b"00007"),
            kv: crate::EncodedKeyValue(Bytes::from_static(b"later")),
            created: main,
            version: 1,
            tombstone: false,
        });
    });
    assert_eq!(hash, whole);
    assert_eq!(steps, 3, "as many chunks, and the one that finds no more");
}

#[test]
fn a_step_holds_few_rows_or_few_bytes() {
    let large = "x".repeat(HASH_CHUNK_BYTES / 2);
    let puts: Vec<Command> = (0..6)
        .map(|number| {
            let (key, value) = (Bytes::from(number.to_string()), Bytes::from(large.clone()));
            Command::Put(Put { key, value, ..Put::default() })
        })
        .collect();
    let mut machine = machine(&puts);
    let revision = machine.revision();
    let whole = hash_at(&machine, revision).unwrap();
    let mut pauses = 0;
    let hash = walk(Compacted { previous: -1, revision }, &mut machine, |_| pauses += 1);
    assert_eq!((hash, pauses), (whole, 3));
}
