//! Damage of every file: found before anybody is served from it, named, and told with what to do.

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_machine::{KeyRange, Revision, Store, View};

use super::{World, closed_store, directory, open, segments};
use crate::checkpoint::machine_state;
use crate::disk::Disk;
use crate::rows::segment::segment_name;
use crate::rows::{Opened, StoreError};
use crate::sealed::seal;

pub(super) fn flip(world: &World, name: &str, at: u64) {
    let file = world.disk.open(&directory().join(name)).unwrap();
    let mut byte = [0];
    file.read_at(at, &mut byte).unwrap();
    file.write_at(at, &[byte[0] ^ 0x10]).unwrap();
}

fn message_of(outcome: Result<Opened, StoreError>) -> String {
    match outcome {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_checkpoint_is_fatal_at_the_start() {
    let world = closed_store();
    let length = world.disk.open(&directory().join("checkpoint")).unwrap().len().unwrap();
    for at in (0..length).step_by(7).chain(length - 12..length) {
        flip(&world, "checkpoint", at);
        let error = open(&world).err().unwrap_or_else(|| panic!("byte {at} flipped unnoticed"));
        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
        flip(&world, "checkpoint", at);
    }
    assert!(open(&world).is_ok());
}

#[test]
fn the_machines_state_is_read_alone_whole_or_not_at_all() {
    let world = closed_store();
    let whole = open(&world).unwrap().machine;
    let length = world.disk.open(&directory().join("checkpoint")).unwrap().len().unwrap();
    let mut noticed = 0;
    for at in 0..length {
        flip(&world, "checkpoint", at);
        match machine_state(&world.disk, &directory()) {
            Ok(state) => assert_eq!(state, whole, "byte {at}"),
            Err(StoreError::Corrupt(_)) => noticed += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
        flip(&world, "checkpoint", at);
    }
    assert!(noticed as usize > whole.len(), "{noticed} of {length}");
    assert_eq!(machine_state(&world.disk, &directory()).unwrap(), whole);
}

#[test]
fn a_checkpoint_cut_at_any_length_is_fatal_and_says_what_to_do() {
    let world = closed_store();
    let file = world.disk.open(&directory().join("checkpoint")).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    for length in (0..bytes.len()).step_by(11) {
        file.set_len(length as u64).unwrap();
        let message = message_of(open(&world));
        assert!(message.contains("/gen-1/checkpoint is damaged at byte"), "{message}");
        assert!(
            message.contains("remove this member, empty its data directory and add it again"),
            "{message}"
        );
        file.write_at(0, &bytes).unwrap();
    }
    file.write_at(bytes.len() as u64, b"more").unwrap();
    assert!(message_of(open(&world)).contains("something follows the checkpoint's end"));
}

#[test]
fn a_missing_file_is_fatal_and_named() {
    let world = closed_store();
    let first = segments(&world).remove(0);
    world.disk.remove_file(&directory().join(&first)).unwrap();
    let message = message_of(open(&world));
    assert!(message.contains(&first) && message.contains("the file is missing"), "{message}");
    let world = closed_store();
    world.disk.remove_file(&directory().join("checkpoint")).unwrap();
    assert!(message_of(open(&world)).contains("the checkpoint is missing"));
}

#[test]
fn a_segment_that_is_too_short_is_fatal() {
    let world = closed_store();
    let first = segments(&world).remove(0);
    let file = world.disk.open(&directory().join(&first)).unwrap();
    file.set_len(file.len().unwrap() - 1).unwrap();
    let message = message_of(open(&world));
    assert!(message.contains("the file ends here, and the checkpoint counts on"), "{message}");
}

#[test]
fn a_later_format_is_told_from_damage() {
    let world = closed_store();
    let first = segments(&world).remove(0);
    let later = [(first, b"QUORROW\n"), ("checkpoint".to_owned(), b"QUORCKP\n")];
    for (name, magic) in later {
        let file = world.disk.open(&directory().join(&name)).unwrap();
        file.write_at(0, &seal(magic, 2, b"what later versions say")).unwrap();
        let error = open(&world).err().expect("it opened");
        assert!(matches!(error, StoreError::FormatTooNew { format: 2, known: 1, .. }), "{error}");
        assert!(error.to_string().contains("start that version again"), "{error}");
    }
}

#[test]
fn a_flipped_bit_in_a_row_is_fatal_to_whoever_reads_it() {
    let mut world = closed_store();
    world.restart(false);
    let reader = world.store().reader();
    let all = KeyRange::From(Bytes::new());
    let at = Revision::end_of(world.model.main);
    let mut found = Vec::new();
    reader
        .scan(&all, at, &mut |key, version| {
            found.push((key.to_vec(), *version));
            ControlFlow::Continue(())
        })
        .unwrap();
    let (key, version) = found[0].clone();
    let name = segment_name(version.row.segment);
    for byte in 0..30 {
        let place = u64::from(version.row.offset) + byte;
        flip(&world, &name, place);
        let fault = reader.read(&key, &version).expect_err("the flip is noticed");
        assert!(fault.message.contains(&name) && fault.message.contains("is damaged"), "{fault}");
        let scan =
            reader.rows(version.modified, version.modified, &mut |_| ControlFlow::Continue(()));
        assert!(scan.is_err(), "byte {byte}");
        flip(&world, &name, place);
    }
    assert!(reader.read(&key, &version).is_ok());
}
