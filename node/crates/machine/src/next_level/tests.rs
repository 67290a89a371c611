//! Feature level 2 on one machine: what is refused below it, what it writes, and that a build of level 1 meets none of it.

use bytes::Bytes;

use super::*;
use crate::{
    Applied, ClusterId, Command, Envelope, Fatal, Genesis, Incarnation, Machine, Member, MemberId,
    ModelStore, Outcome, Put, Rejected, RequestId, State,
};

const OLD: FeatureLevel = FeatureLevel(1);

fn member(id: u64) -> Member {
    Member { id: MemberId(id), peer_urls: vec![format!("p{id}")], ..Member::default() }
}

fn machine() -> Machine<ModelStore> {
    let genesis = Genesis {
        cluster: ClusterId(0xabc),
        members: vec![member(1), member(2)],
        feature_level: OLD,
        index: 1,
    };
    Machine::new(genesis, ModelStore::default())
}

fn entry(level: FeatureLevel, clock: u64, command: Command) -> Bytes {
    let request = RequestId { member: MemberId(1), life: 2, sequence: 3 };
    let envelope = Envelope::unstamped(request, command);
    Envelope { feature_level: level, clock: LeaseTime(clock), ..envelope }.encode()
}

fn try_apply(
    machine: &mut Machine<ModelStore>,
    clock: u64,
    command: Command,
) -> Result<Applied, Fatal> {
    let (index, level) = (machine.applied() + 1, machine.feature_level());
    machine.apply(index, &entry(level, clock, command))
}

fn apply(machine: &mut Machine<ModelStore>, clock: u64, command: Command) -> Applied {
    try_apply(machine, clock, command).unwrap()
}

fn publish(id: u64, feature_level: FeatureLevel) -> Command {
    Command::MemberPublish {
        id: MemberId(id),
        name: format!("m{id}"),
        client_urls: vec![format!("c{id}")],
        incarnation: Incarnation(id),
        feature_level,
    }
}

fn put() -> Command {
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    Command::Put(Put { key, value, ..Put::default() })
}

fn milestone() -> Command {
    Command::Next(NextCommand::Milestone)
}

fn raise() -> Command {
    Command::FeatureLevel { level: FEATURE_LEVEL_KNOWN }
}

fn rows(machine: &Machine<ModelStore>) -> u64 {
    machine.state().next().rows().unwrap()
}

/// All members know level 2, and the cluster has reached it.
fn reached() -> Machine<ModelStore> {
    let mut machine = machine();
    for command in [publish(1, FEATURE_LEVEL_KNOWN), publish(2, FEATURE_LEVEL_KNOWN), raise()] {
        apply(&mut machine, 0, command).result.unwrap();
    }
    assert_eq!(machine.feature_level(), FEATURE_LEVEL_KNOWN);
    machine
}

#[test]
fn below_the_level_the_command_is_refused_and_leaves_nothing() {
    let mut machine = machine();
    let before = machine.encode_state();
    let applied = apply(&mut machine, 0, milestone());
    assert_eq!(applied.result, Err(Rejected::FeatureLevel));
    assert_eq!(rows(&machine), 0);
    assert_eq!(machine.encode_state().len(), before.len(), "nothing but the applied index moved");
}

#[test]
fn the_level_waits_for_the_last_member_and_falls_back_with_no_publication() {
    let mut machine = machine();
    for (command, level) in [
        (publish(1, FEATURE_LEVEL_KNOWN), 1),
        (raise(), 1),
        // One that was rolled back says so, and counts again as one that does not know.
        (publish(2, FEATURE_LEVEL_KNOWN), 1),
        (publish(1, OLD), 1),
        (raise(), 1),
        (publish(1, FEATURE_LEVEL_KNOWN), 1),
        (Command::MemberAdd(Member { learner: true, ..member(3) }), 1),
        (raise(), 1),
        (publish(3, FEATURE_LEVEL_KNOWN), 1),
        (raise(), 2),
        (publish(1, OLD), 2),
    ] {
        apply(&mut machine, 0, command.clone()).result.unwrap();
        assert_eq!(machine.feature_level().0, level, "after {command:?}");
    }
}

#[test]
fn milestones_are_an_interval_and_a_write_apart_and_the_oldest_go() {
    let mut machine = reached();
    let mut clock = 1_000;
    let mut tell = |machine: &mut Machine<ModelStore>, later: u64, expected: u64| {
        clock += later;
        let due = machine.state().next().due(LeaseTime(clock)).is_some();
        let before = rows(machine);
        assert_eq!(apply(machine, clock, milestone()).result, Ok(Outcome::Done));
        assert_eq!(rows(machine), expected);
        assert_eq!(due, expected > before, "a leader proposes what apply will write");
    };
    tell(&mut machine, 0, 1);
    tell(&mut machine, MILESTONE_INTERVAL_MS, 1); // nothing was written
    apply(&mut machine, 0, put()).result.unwrap();
    tell(&mut machine, 0, 2);
    apply(&mut machine, 0, put()).result.unwrap();
    tell(&mut machine, MILESTONE_INTERVAL_MS - 1, 2); // too soon
    tell(&mut machine, 1, 3);
    for row in 4..=MILESTONES_MAX as u64 {
        apply(&mut machine, 0, put()).result.unwrap();
        tell(&mut machine, MILESTONE_INTERVAL_MS, row);
    }
    let full = machine.digest();
    apply(&mut machine, 0, put()).result.unwrap();
    let later = machine.clock().0 + MILESTONE_INTERVAL_MS;
    apply(&mut machine, later, milestone()).result.unwrap();
    assert_eq!(rows(&machine), MILESTONES_MAX as u64, "the table is bounded");
    assert_ne!(machine.digest(), full, "and goes on");
}

/// States that hold milestones are read by every later version: these bytes may not change.
#[test]
fn golden_bytes_of_the_command_and_of_a_state_with_a_milestone() {
    let bytes = entry(FEATURE_LEVEL_KNOWN, 7, milestone());
    assert_eq!(bytes[..3], [1, 2, 0], "format and level");
    assert_eq!(bytes.last(), Some(&17), "the tag is the whole command");
    assert_eq!(Envelope::decode(&bytes).unwrap().command, milestone());

    let mut machine = reached();
    apply(&mut machine, 0, put()).result.unwrap();
    let without = machine.encode_state();
    assert_eq!(without[0], 1, "without a row a state has the format of level 1");
    apply(&mut machine, 1_000, milestone()).result.unwrap();
    let with = machine.encode_state();
    assert_eq!(with[0], 2);
    assert!(with.ends_with(&[1, 6, 0xe8, 0x07, 2]), "count, index, clock, revision: {with:x?}");
    for length in 0..with.len() {
        let cut = State::decode(&with.slice(..length));
        assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "{length} bytes: {cut:?}");
    }
}

#[test]
fn a_row_is_in_the_digest_and_survives_a_restart() {
    let mut machine = reached();
    let before = machine.digest();
    let mut other = Machine::restore(&machine.encode_state(), ModelStore::default()).unwrap();
    apply(&mut machine, 1_000, milestone()).result.unwrap();
    apply(&mut other, 1_000, Command::Clock).result.unwrap();
    assert_ne!(machine.digest(), before);
    assert_ne!(machine.digest(), other.digest(), "the row alone makes the difference");
    let again = Machine::restore(&machine.encode_state(), ModelStore::default()).unwrap();
    assert_eq!((again.digest(), rows(&again)), (machine.digest(), 1));
    assert_eq!(again.encode_state(), machine.encode_state());
}

#[test]
fn a_build_of_level_1_stops_at_whatever_is_of_level_2() {
    let old = || machine().knowing(OLD).unwrap();
    for entry in [entry(FEATURE_LEVEL_KNOWN, 0, put()), entry(OLD, 0, milestone())] {
        let fatal = old().apply(2, &entry).unwrap_err();
        let (level, known) = (FEATURE_LEVEL_KNOWN, OLD);
        assert_eq!(fatal, Fatal::FeatureLevel { index: 2, level, known });
    }
    // It was put back in place of a build that had told of level 2, and nobody has heard that yet.
    let mut stale = old();
    apply(&mut stale, 0, publish(1, FEATURE_LEVEL_KNOWN)).result.unwrap();
    apply(&mut stale, 0, publish(2, FEATURE_LEVEL_KNOWN)).result.unwrap();
    let fatal = try_apply(&mut stale, 0, raise()).unwrap_err();
    assert!(matches!(fatal, Fatal::FeatureLevel { index: 4, .. }), "{fatal:?}");
    // The level alone is enough, before there is any row.
    let error = Machine::restore(&reached().encode_state(), ModelStore::default())
        .unwrap()
        .knowing(OLD)
        .unwrap_err();
    assert_eq!(error, DecodeError::UnknownLevel { level: 2, known: 1 });
    assert!(error.is_unknown());
}
