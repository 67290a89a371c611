//! Apply: every refusal, what stops a member, and that states are bytes for ever.

use bytes::Bytes;

use super::*;
use crate::{
    AlarmAction, Compare, CompareTarget, DeleteRange, Incarnation, KeyRange, Member, MemberId,
    ModelStore, Operation, Put, Range, Relation, RequestId, Txn, next_level::NEXT_COMMANDS,
};

const ALL: [Rejected; 18] = [
    Rejected::KeyNotFound,
    Rejected::Compacted,
    Rejected::FutureRevision,
    Rejected::LeaseNotFound,
    Rejected::LeaseExists,
    Rejected::NoSpace,
    Rejected::Corrupt,
    Rejected::MemberExists,
    Rejected::PeerUrlExists,
    Rejected::MemberNotFound,
    Rejected::MemberRemoved,
    Rejected::NotLearner,
    Rejected::TooManyLearners,
    Rejected::LastVoter,
    Rejected::LearnerUnpublished,
    Rejected::OtherIncarnation,
    Rejected::AuthRevisionOld,
    Rejected::FeatureLevel,
];

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(key: &'static str) -> Command {
    Command::Put(Put { key: bytes(key), value: bytes("v"), ..Put::default() })
}

fn put_with(change: impl FnOnce(&mut Put)) -> Command {
    let mut put = Put { key: bytes("a"), value: bytes("v"), ..Put::default() };
    change(&mut put);
    Command::Put(put)
}

fn txn(success: Vec<Operation>) -> Command {
    Command::Txn(Txn { success, ..Txn::default() })
}

fn get_at(revision: i64) -> Operation {
    Operation::Range(Range { revision, ..Range::of(KeyRange::Single(bytes("a"))) })
}

fn delete() -> Command {
    Command::DeleteRange(DeleteRange { range: KeyRange::Single(bytes("a")), prev_kv: false })
}

fn alarm(alarm: Alarm) -> Command {
    Command::Alarm { action: AlarmAction::Activate, member: MemberId(1), alarm }
}

fn member(id: u64, url: &str, learner: bool) -> Member {
    Member { id: MemberId(id), peer_urls: vec![url.into()], learner, ..Member::default() }
}

fn publish(id: u64, incarnation: u64) -> Command {
    Command::MemberPublish {
        id: MemberId(id),
        name: format!("m{id}"),
        client_urls: vec![format!("c{id}")],
        incarnation: Incarnation(incarnation),
        feature_level: FeatureLevel(1),
    }
}

const LEASE: LeaseId = LeaseId(7);

fn grant() -> Command {
    Command::LeaseGrant { id: LEASE, ttl: 5 }
}

fn remove(id: u64) -> Command {
    Command::MemberRemove { id: MemberId(id) }
}

fn new_machine() -> Machine<ModelStore> {
    let genesis = Genesis {
        cluster: ClusterId(0xabc),
        members: vec![member(1, "p1", false), member(2, "p2", false)],
        feature_level: FeatureLevel(1),
        index: 1,
    };
    Machine::new(genesis, ModelStore::default())
}

fn envelope(command: Command) -> Envelope {
    Envelope {
        request: RequestId { member: MemberId(1), life: 2, sequence: 3 },
        user: Bytes::new(),
        auth_revision: 0,
        feature_level: FeatureLevel(1),
        clock: LeaseTime(1000),
        command,
    }
}

fn apply(machine: &mut Machine<ModelStore>, command: Command) -> Applied {
    let index = machine.applied() + 1;
    machine.apply(index, &envelope(command).encode()).unwrap()
}

/// For every refusal: what goes before it, and each command that it refuses then. A new refusal must be added here.
fn examples(rejected: Rejected) -> (Vec<Command>, Vec<Command>) {
    match rejected {
        Rejected::KeyNotFound => (
            vec![],
            vec![
                put_with(|put| put.ignore_value = true),
                put_with(|put| put.ignore_lease = true),
                txn(vec![Operation::Put(Put { ignore_value: true, ..Put::default() })]),
            ],
        ),
        Rejected::Compacted => (
            vec![put("a"), put("a"), Command::Compact { revision: 3 }],
            vec![
                Command::Compact { revision: 3 },
                Command::Compact { revision: -1 },
                txn(vec![get_at(2)]),
                txn(vec![get_at(-7)]),
            ],
        ),
        Rejected::FutureRevision => (
            vec![put("a")],
            vec![
                Command::Compact { revision: 3 },
                // Its own revision does not exist before it.
                txn(vec![Operation::Put(Put { key: bytes("b"), ..Put::default() }), get_at(3)]),
            ],
        ),
        Rejected::LeaseNotFound => (
            vec![],
            vec![
                put_with(|put| put.lease = LEASE),
                // The lease is asked for before the key.
                put_with(|put| (put.lease, put.ignore_value) = (LEASE, true)),
                txn(vec![Operation::Put(Put { lease: LEASE, ..Put::default() })]),
                Command::LeaseRevoke { id: LEASE },
            ],
        ),
        Rejected::LeaseExists => (vec![grant()], vec![grant()]),
        Rejected::NoSpace | Rejected::Corrupt | Rejected::AuthRevisionOld => {
            gate_examples(rejected)
        }
        Rejected::TooManyLearners => (vec![], vec![]),
        // A build that knows no higher level has no command that needs one.
        Rejected::FeatureLevel => {
            (vec![], NEXT_COMMANDS.iter().copied().map(Command::Next).collect())
        }
        Rejected::MemberExists
        | Rejected::PeerUrlExists
        | Rejected::MemberNotFound
        | Rejected::MemberRemoved
        | Rejected::NotLearner
        | Rejected::LastVoter
        | Rejected::LearnerUnpublished
        | Rejected::OtherIncarnation => membership_examples(rejected),
    }
}

fn gate_examples(rejected: Rejected) -> (Vec<Command>, Vec<Command>) {
    let writes =
        || vec![put("a"), delete(), txn(vec![get_at(0)]), Command::Compact { revision: 1 }];
    match rejected {
        Rejected::NoSpace => (
            vec![alarm(Alarm::NoSpace)],
            vec![
                put("a"),
                grant(),
                txn(vec![Operation::Put(Put::default())]),
                txn(vec![Operation::Txn(Txn {
                    failure: vec![Operation::Put(Put::default())],
                    ..Txn::default()
                })]),
            ],
        ),
        Rejected::Corrupt => {
            let mut refused = writes();
            refused.extend([
                grant(),
                Command::LeaseRevoke { id: LEASE },
                Command::LeaseExpire { ids: vec![LEASE] },
            ]);
            // Asked before anything else.
            (vec![alarm(Alarm::NoSpace), alarm(Alarm::Corrupt)], refused)
        }
        Rejected::AuthRevisionOld => {
            let mut refused = writes();
            refused.extend([grant(), Command::LeaseRevoke { id: LEASE }]);
            (vec![], refused)
        }
        other => panic!("{other:?} is none of a gate"),
    }
}

fn membership_examples(rejected: Rejected) -> (Vec<Command>, Vec<Command>) {
    let promote = |id| Command::MemberPromote { id: MemberId(id) };
    let update =
        |id, url: &str| Command::MemberUpdate { id: MemberId(id), peer_urls: vec![url.into()] };
    match rejected {
        Rejected::MemberExists => (vec![], vec![Command::MemberAdd(member(1, "p9", false))]),
        Rejected::PeerUrlExists => {
            (vec![], vec![Command::MemberAdd(member(9, "p2", true)), update(1, "p2")])
        }
        Rejected::MemberNotFound => {
            (vec![], vec![promote(9), remove(9), update(9, "p9"), publish(9, 1)])
        }
        Rejected::MemberRemoved => (
            vec![remove(2)],
            vec![
                Command::MemberAdd(member(2, "p9", true)),
                promote(2),
                remove(2),
                update(2, "p9"),
                publish(2, 1),
            ],
        ),
        Rejected::NotLearner => (vec![publish(1, 1)], vec![promote(1), promote(2)]),
        Rejected::LastVoter => {
            (vec![Command::MemberAdd(member(3, "p3", true)), remove(1)], vec![remove(2)])
        }
        Rejected::LearnerUnpublished => {
            (vec![Command::MemberAdd(member(3, "p3", true))], vec![promote(3)])
        }
        Rejected::OtherIncarnation => (vec![publish(1, 1)], vec![publish(1, 2)]),
        other => panic!("{other:?} is none of membership"),
    }
}

#[test]
fn every_refusal_is_given_and_changes_nothing() {
    for rejected in ALL {
        let (before, refused) = examples(rejected);
        for command in refused {
            let mut machine = new_machine();
            for command in &before {
                apply(&mut machine, command.clone()).result.unwrap();
            }
            if rejected == Rejected::AuthRevisionOld {
                machine.state.set_auth_revision(4);
            }
            let foretold = machine.would_accept(&command);
            let rows = machine.store().to_rows();
            // Time passes with a refused entry too; with an empty one and this clock all else must be equal.
            let mut idle = Machine::restore(
                &machine.encode_state(),
                rows.clone().into_iter().collect::<ModelStore>(),
            )
            .unwrap();
            apply(&mut idle, Command::Clock).result.unwrap();
            let applied = apply(&mut machine, command.clone());
            assert_eq!(applied.result, Err(rejected), "{command:?}");
            assert!(applied.change_is_void());
            assert_eq!((applied.events.len(), applied.revision), (0, idle.revision()));
            assert_eq!(machine.encode_state(), idle.encode_state(), "{command:?}");
            assert_eq!(machine.digest(), idle.digest());
            assert_eq!(machine.store().to_rows(), rows);
            let of_membership = membership(&command);
            assert_eq!(foretold, if of_membership { Err(rejected) } else { Ok(()) });
        }
    }
}

fn membership(command: &Command) -> bool {
    matches!(
        command,
        Command::MemberAdd(_)
            | Command::MemberPromote { .. }
            | Command::MemberRemove { .. }
            | Command::MemberUpdate { .. }
            | Command::MemberPublish { .. }
    )
}

#[test]
fn what_the_leader_does_itself_needs_no_permission() {
    let mut machine = new_machine();
    machine.state.set_auth_revision(4);
    for command in [
        Command::Clock,
        Command::LeaseExpire { ids: vec![LEASE] },
        Command::LeaseRenew { ids: vec![LEASE] },
        Command::FeatureLevel { level: FeatureLevel(1) },
        alarm(Alarm::NoSpace),
        publish(1, 1),
        Command::MemberAdd(member(3, "p3", true)),
        remove(3),
    ] {
        assert!(apply(&mut machine, command.clone()).result.is_ok(), "{command:?}");
    }
    let index = machine.applied() + 1;
    let checked = Envelope { auth_revision: 4, ..envelope(delete()) };
    assert!(machine.apply_envelope(index, &checked).unwrap().result.is_ok());
}

#[test]
fn a_newer_entry_stops_the_member() {
    let mut machine = new_machine();
    let digest = machine.digest();
    let mut format = envelope(Command::Clock).encode().to_vec();
    format[0] = 2;
    let mut command = envelope(Command::Clock).encode().to_vec();
    *command.last_mut().unwrap() = 99;
    for entry in [format, command] {
        let fatal = machine.apply(2, &Bytes::from(entry)).unwrap_err();
        assert!(matches!(fatal, Fatal::Unknown { index: 2, .. }), "{fatal:?}");
        assert!(fatal.to_string().contains("upgrade it"), "it says what to do: {fatal}");
    }
    let (known, level) = (FEATURE_LEVEL_KNOWN, FeatureLevel(FEATURE_LEVEL_KNOWN.0 + 1));
    let stamped = Envelope { feature_level: level, ..envelope(Command::Clock) };
    let fatal = machine.apply(2, &stamped.encode()).unwrap_err();
    assert_eq!(fatal, Fatal::FeatureLevel { index: 2, level, known });
    let fatal = machine.apply(2, &Bytes::from_static(b"\x01\x01")).unwrap_err();
    assert!(matches!(fatal, Fatal::Undecodable { index: 2, .. }), "{fatal:?}");
    assert_eq!(machine.digest(), digest, "none of them was applied");
}

#[test]
fn a_failed_read_stops_the_member() {
    let mut machine = new_machine();
    apply(&mut machine, put("a")).result.unwrap();
    machine.store_mut().fail_reads("sector 7 is unreadable");
    for command in [put("a"), delete(), txn(vec![get_at(0)])] {
        let index = machine.applied() + 1;
        let fatal = machine.apply(index, &envelope(command).encode()).unwrap_err();
        let fault = ReadFault { message: "sector 7 is unreadable".into() };
        assert_eq!(fatal, Fatal::ReadFault(fault));
    }
}

#[test]
#[should_panic(expected = "INV-M2: apply goes entry by entry; 2 cannot follow 2")]
fn an_entry_is_applied_once() {
    let mut machine = new_machine();
    machine.apply_empty(2);
    machine.apply_empty(2);
}

#[test]
#[should_panic(expected = "INV-M2")]
fn no_entry_is_left_out() {
    let _ = new_machine().apply(3, &envelope(Command::Clock).encode());
}

#[test]
fn an_empty_entry_advances_the_index_and_nothing_else() {
    let mut machine = new_machine();
    let digest = machine.digest();
    machine.apply_empty(2);
    assert_eq!((machine.applied(), machine.revision(), machine.clock()), (2, 1, LeaseTime(0)));
    assert_ne!(machine.digest(), digest);
}

#[test]
fn keys_and_values_do_not_keep_the_entry_in_memory() {
    let mut machine = new_machine();
    let entry = envelope(put("a")).encode();
    let inside = entry.as_ptr_range();
    let applied = machine.apply(2, &entry).unwrap();
    let event = &applied.events[0];
    assert!(!inside.contains(&event.key.as_ptr()));
    assert!(!inside.contains(&event.kv.0.as_ptr()));
    let row = &machine.store().to_rows()[0];
    assert!(row.kv.0.as_ptr_range().contains(&row.key.as_ptr()), "the key is a slice of its pair");
}

/// A state with something in every field, and its bytes. They must never change (INV-M3).
#[test]
fn a_state_has_its_bytes_for_ever() {
    let mut machine = new_machine();
    for command in [
        grant(),
        put_with(|put| put.lease = LEASE),
        Command::Compact { revision: 2 },
        alarm(Alarm::NoSpace),
        publish(1, 5),
        remove(2),
    ] {
        apply(&mut machine, command).result.unwrap();
    }
    machine.state.set_auth_revision(3);
    let golden = concat!(
        "01",   // format
        "bc15", // cluster
        "07",   // applied
        "01",   // feature level
        "e807", // clock
        "03",   // auth revision
        "02",   // revision
        "02",   // compacted
        "ROWS", // digest of the rows
        "01", "01", "01", // alarms: NOSPACE of 1
        "01", "07", "05", // leases: id, ttl,
        "f02e", "01", "0161", // deadline, keys
        "01", "01", "026d31", "01", "027031", "01", "026331", "00", "05", "01", // members
        "01", "02", // removed
    );
    let rows = machine.state.rows_digest().to_le_bytes();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&machine.encode_state()), golden.replace("ROWS", &hex(&rows)));
    // Both digests are part of what members and releases compare.
    assert_eq!(
        (machine.state.rows_digest(), machine.digest()),
        (8_833_379_261_361_126_476, 13_090_375_332_365_162_197)
    );
    let state = machine.encode_state();
    let again = Machine::restore(&state, machine.into_store()).unwrap();
    assert_eq!(again.encode_state(), state);
    for length in 0..state.len() {
        let cut = State::decode(&state.slice(..length));
        assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "{length} bytes: {cut:?}");
    }
    let mut newer = state.to_vec();
    newer[0] = 9;
    assert!(State::decode(&Bytes::from(newer)).unwrap_err().is_unknown());
}

#[test]
fn damage_in_a_state_shows_in_the_digest() {
    let mut machine = new_machine();
    for command in [grant(), put_with(|put| put.lease = LEASE), alarm(Alarm::Corrupt)] {
        apply(&mut machine, command).result.unwrap();
    }
    let state = machine.encode_state();
    let mut noticed = 0;
    for bit in 8..state.len() * 8 {
        let mut damaged = state.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = State::decode(&Bytes::from(damaged)) {
            assert_ne!(other.digest(), machine.digest(), "bit {bit}");
            noticed += 1;
        }
    }
    assert!(noticed > 100, "most flips can be read");
}

/// 2,500 keys, more than two chunks of a scan, in one revision.
fn crowded() -> Machine<ModelStore> {
    let mut machine = new_machine();
    let puts = (0..2500).map(|number| {
        let key = Bytes::from(format!("k{number:04}"));
        let value = Bytes::from_static(if number == 2499 { b"last" } else { b"v" });
        Operation::Put(Put { key, value, ..Put::default() })
    });
    apply(&mut machine, txn(puts.collect())).result.unwrap();
    machine
}

#[test]
fn a_large_deletion_is_one_revision_in_the_order_of_the_keys() {
    let mut machine = crowded();
    let range = KeyRange::From(Bytes::new());
    let applied = apply(&mut machine, Command::DeleteRange(DeleteRange { range, prev_kv: true }));
    let Ok(Outcome::DeleteRange(outcome)) = applied.result else { panic!("a deletion") };
    assert_eq!((outcome.deleted, outcome.prev_kvs.len(), outcome.revision), (2500, 2500, 3));
    for (number, event) in applied.events.iter().enumerate() {
        assert_eq!((event.revision.main, event.revision.sub), (3, number as i64));
        assert_eq!(event.key, format!("k{number:04}"));
        assert_eq!(event.previous.unwrap().modified.sub, number as i64);
    }
    assert_eq!((applied.events.len(), machine.revision()), (2500, 3));
}

#[test]
fn a_comparison_sees_the_last_of_many_keys() {
    let mut machine = crowded();
    let mut succeeds = |relation, target| {
        let compare = Compare { range: KeyRange::From(Bytes::new()), relation, target };
        let txn = Txn { compare: vec![compare], ..Txn::default() };
        let Ok(Outcome::Txn(outcome)) = apply(&mut machine, Command::Txn(txn)).result else {
            panic!("a transaction")
        };
        outcome.succeeded
    };
    assert!(succeeds(Relation::Equal, CompareTarget::Version(1)));
    assert!(!succeeds(Relation::Equal, CompareTarget::Value(bytes("v"))));
    assert!(succeeds(Relation::NotEqual, CompareTarget::Value(bytes("w"))));
}

#[test]
fn a_difference_in_history_stays_in_the_digest() {
    let history = |first: &'static str| {
        let mut machine = new_machine();
        apply(&mut machine, put_with(|put| put.value = bytes(first))).result.unwrap();
        apply(&mut machine, put("a")).result.unwrap();
        apply(&mut machine, Command::Compact { revision: 3 }).result.unwrap();
        machine
    };
    assert_eq!(history("1").digest(), history("1").digest());
    assert_ne!(history("1").digest(), history("2").digest());
    let restored = |machine: Machine<ModelStore>| {
        let state = machine.encode_state();
        Machine::restore(&state, machine.into_store()).unwrap().digest()
    };
    assert_ne!(restored(history("1")), restored(history("2")));
}
