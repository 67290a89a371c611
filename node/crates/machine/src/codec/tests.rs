//! The encoding of an entry: its bytes for ever, and what happens to damaged ones.

use proptest::prelude::*;

use super::*;
use crate::arbitrary;

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn envelope(command: Command) -> Envelope {
    Envelope {
        request: RequestId { member: MemberId(0x0102), life: 0x0304, sequence: 300 },
        user: bytes("root"),
        auth_revision: 9,
        feature_level: FeatureLevel(1),
        clock: LeaseTime(0x0506),
        command,
    }
}

/// format, feature level, clock, member, life, sequence, user, auth revision.
const HEAD: &str = "01 0100 0605000000000000 0201000000000000 0403000000000000 ac02 04726f6f74 09";

fn urls(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn everything_in_a_txn() -> Txn {
    let range = Range {
        limit: 5,
        revision: -1,
        order: SortOrder::Descend,
        target: SortTarget::Value,
        keys_only: true,
        count_only: true,
        min_mod_revision: 1,
        max_mod_revision: 2,
        min_create_revision: 3,
        max_create_revision: 4,
        ..Range::of(KeyRange::From(bytes("k")))
    };
    let compare =
        |relation, target| Compare { range: KeyRange::Single(bytes("c")), relation, target };
    Txn {
        compare: vec![
            compare(Relation::Equal, CompareTarget::Version(1)),
            compare(Relation::Greater, CompareTarget::CreateRevision(2)),
            compare(Relation::Less, CompareTarget::ModRevision(3)),
            compare(Relation::NotEqual, CompareTarget::Value(bytes("v"))),
            compare(Relation::Equal, CompareTarget::Lease(LeaseId(4))),
        ],
        success: vec![
            Operation::Range(range),
            Operation::DeleteRange(DeleteRange {
                range: KeyRange::Interval(bytes("a"), bytes("b")),
                prev_kv: true,
            }),
        ],
        failure: vec![Operation::Txn(Txn {
            success: vec![Operation::Put(Put {
                key: bytes("p"),
                ignore_lease: true,
                ..Put::default()
            })],
            ..Txn::default()
        })],
    }
}

/// One of each command, with the bytes behind the head. They must never change (INV-M3): if a row fails, the code is wrong.
fn golden() -> Vec<(Command, &'static str)> {
    let id = MemberId(7);
    let put = Put {
        key: bytes("foo"),
        value: bytes("bar"),
        lease: LeaseId(-1),
        prev_kv: true,
        ignore_value: false,
        ignore_lease: true,
    };
    let member = Member {
        id,
        name: "a".into(),
        peer_urls: urls(&["p", "q"]),
        client_urls: urls(&["c"]),
        learner: true,
        incarnation: Incarnation(5),
        feature_level: FeatureLevel(1),
    };
    vec![
        (Command::Put(put), "01 03666f6f 03626172 ffffffffffffffffff01 05"),
        (
            Command::DeleteRange(DeleteRange {
                range: KeyRange::Interval(bytes("a"), bytes("b")),
                prev_kv: true,
            }),
            "02 01 0161 0162 01",
        ),
        (
            Command::Txn(everything_in_a_txn()),
            "03 05 000163 00 00 01  000163 01 01 02  000163 02 02 03  000163 03 03 0176  000163 00 04 04 \
             02 00 02016b 05 ffffffffffffffffff01 02 04 03 01 02 03 04  02 01 0161 0162 01 \
             01 03 00 01 01 0170 00 00 04 00",
        ),
        (Command::Compact { revision: 300 }, "04 ac02"),
        (Command::LeaseGrant { id: LeaseId(1), ttl: 60 }, "05 01 3c"),
        (Command::LeaseRevoke { id: LeaseId(1) }, "06 01"),
        (Command::LeaseExpire { ids: vec![LeaseId(1), LeaseId(2)] }, "07 02 01 02"),
        (Command::LeaseRenew { ids: vec![LeaseId(3)] }, "08 01 03"),
        (
            Command::Alarm { action: AlarmAction::Deactivate, member: id, alarm: Alarm::Corrupt },
            "09 01 07 02",
        ),
        (Command::MemberAdd(member), "0a 07 0161 02 0170 0171 01 0163 01 05 01"),
        (Command::MemberPromote { id }, "0b 07"),
        (Command::MemberRemove { id }, "0c 07"),
        (Command::MemberUpdate { id, peer_urls: urls(&["p"]) }, "0d 07 01 0170"),
        (
            Command::MemberPublish {
                id,
                name: "a".into(),
                client_urls: urls(&["c"]),
                incarnation: Incarnation(5),
                feature_level: FeatureLevel(1),
            },
            "0e 07 0161 01 0163 05 01",
        ),
        (Command::FeatureLevel { level: FeatureLevel(2) }, "0f 02"),
        (Command::Clock, "10"),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_command_has_its_bytes_for_ever() {
    for (command, body) in golden() {
        let envelope = envelope(command);
        let expected = format!("{HEAD}{body}").replace(' ', "");
        let encoded = envelope.encode();
        assert_eq!(hex(&encoded), expected, "{:?}", envelope.command);
        assert_eq!(Envelope::decode(&encoded), Ok(envelope));
    }
}

#[test]
fn every_truncation_is_noticed() {
    for (command, _) in golden() {
        let whole = envelope(command).encode();
        for length in 0..whole.len() {
            let cut = whole.slice(..length);
            let result = Envelope::decode(&cut);
            assert!(
                matches!(result, Err(DecodeError::Truncated { .. })),
                "{length} of {} bytes: {result:?}",
                whole.len()
            );
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert_eq!(Envelope::decode(&Bytes::from(longer)), Err(DecodeError::Trailing { bytes: 1 }));
    }
}

#[test]
fn what_a_newer_build_wrote_is_told_from_damage() {
    let clock = envelope(Command::Clock).encode();
    let change = |at: usize, byte: u8| {
        let mut entry = clock.to_vec();
        entry[at] = byte;
        Bytes::from(entry)
    };
    let newer = DecodeError::UnknownFormat { what: "entry", found: 2 };
    assert_eq!(Envelope::decode(&change(0, 2)), Err(newer.clone()));
    assert_eq!(request_id(&change(0, 2)), Err(newer.clone()));
    assert_eq!(stamp(change(0, 2), FeatureLevel(1), LeaseTime(1)), Err(newer.clone()));
    assert!(newer.is_unknown());
    let unknown = Envelope::decode(&change(clock.len() - 1, 99)).unwrap_err();
    assert_eq!(unknown, DecodeError::UnknownCommand { tag: 99 });
    assert!(unknown.is_unknown());
    let put = envelope(Command::Put(Put::default())).encode();
    let mut flags = put.to_vec();
    *flags.last_mut().unwrap() = 8;
    let kind = Envelope::decode(&Bytes::from(flags)).unwrap_err();
    assert_eq!(kind, DecodeError::UnknownKind { what: "put flags", tag: 8 });
    assert!(kind.is_unknown());
    assert!(!DecodeError::Trailing { bytes: 1 }.is_unknown());
}

#[test]
fn nesting_is_bounded() {
    fn nest(depth: usize) -> Txn {
        let mut txn = Txn::default();
        for _ in 1..depth {
            txn = Txn { success: vec![Operation::Txn(txn)], ..Txn::default() };
        }
        txn
    }
    let deepest = envelope(Command::Txn(nest(TXN_DEPTH_MAX)));
    assert_eq!(nest(TXN_DEPTH_MAX).depth(), TXN_DEPTH_MAX);
    let encoded = deepest.encode();
    assert_eq!(Envelope::decode(&encoded), Ok(deepest));
    // One level more, spliced in by hand since `encode` refuses: no compares, one operation in the success list, a txn.
    let head = envelope(Command::Txn(Txn::default())).encode();
    let body = head.len() - 3;
    let deeper = [&encoded[..body], &[0, 1, 3], &encoded[body..], &[0]].concat();
    assert_eq!(Envelope::decode(&Bytes::from(deeper)), Err(DecodeError::TooDeep));
}

#[test]
#[should_panic(expected = "INV-M3")]
fn what_could_not_be_read_back_is_not_written() {
    let mut txn = Txn::default();
    for _ in 0..TXN_DEPTH_MAX {
        txn = Txn { failure: vec![Operation::Txn(txn)], ..Txn::default() };
    }
    let _ = envelope(Command::Txn(txn)).encode();
}

#[test]
fn keys_and_values_are_slices_of_the_entry() {
    let put = Put { key: bytes("foo"), value: bytes("bar"), ..Put::default() };
    let entry = envelope(Command::Put(put)).encode();
    let Command::Put(put) = Envelope::decode(&entry).unwrap().command else {
        panic!("a put was written")
    };
    let inside = entry.as_ptr_range();
    assert!(inside.contains(&put.key.as_ptr()));
    assert!(inside.contains(&put.value.as_ptr()));
}

#[test]
fn the_leader_stamps_without_knowing_the_command() {
    let original = envelope(Command::Compact { revision: 3 });
    let entry = original.encode();
    let shared = entry.clone();
    let stamped = stamp(entry, FeatureLevel(4), LeaseTime(77)).unwrap();
    let expected =
        Envelope { feature_level: FeatureLevel(4), clock: LeaseTime(77), ..original.clone() };
    assert_eq!(Envelope::decode(&stamped), Ok(expected));
    assert_eq!(Envelope::decode(&shared), Ok(original.clone()), "a shared entry is copied");
    assert_eq!(request_id(&stamped), Ok(original.request));
    assert_eq!(
        stamp(stamped.slice(..9), FeatureLevel(1), LeaseTime(1)),
        Err(DecodeError::Truncated { offset: 9 })
    );
}

proptest! {
    #[test]
    fn every_envelope_reads_back(envelope in arbitrary::envelope()) {
        let encoded = envelope.encode();
        prop_assert_eq!(request_id(&encoded).unwrap(), envelope.request);
        prop_assert_eq!(Envelope::decode(&encoded).unwrap(), envelope);
    }

    /// Damage gives an error or another envelope that reads back; it never panics and never takes memory without bound.
    #[test]
    fn damage_is_survived(
        envelope in arbitrary::envelope(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut damaged = envelope.encode().to_vec();
        let at = at.index(damaged.len());
        damaged[at] = byte;
        if let Ok(other) = Envelope::decode(&Bytes::from(damaged)) {
            prop_assert_eq!(Envelope::decode(&other.encode()).unwrap(), other);
        }
    }
}
