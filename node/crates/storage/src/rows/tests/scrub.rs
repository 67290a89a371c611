//! A scrub finds every damage that some reader would find some day, and calls nothing damaged that is whole.

use quorate_machine::Revision;

use super::damage::flip;
use super::{World, closed_store, directory, open, segments};
use crate::disk::Disk;
use crate::rows::frame::{ROW_HEADER_BYTES, RowHeader, SEGMENT_HEADER_BYTES, key_of, put_row};
use crate::rows::{RowStore, StoreError, Work};

/// Looks at everything; how many bytes of rows there were.
pub(super) fn scrubbed(store: &RowStore) -> Result<u64, StoreError> {
    let mut scrub = store.scrub();
    while scrub.step()? == Work::Some {}
    let (bytes, total) = scrub.progress();
    assert_eq!(bytes, total);
    Ok(bytes)
}

/// What a scrub says of the closed store of a world.
fn finding(world: &World) -> String {
    let store = open(world).unwrap().store;
    scrubbed(&store).expect_err("the damage is noticed").to_string()
}

/// Each row of a segment: where it begins, and its frame.
fn rows_of(world: &World, name: &str) -> Vec<(u64, Vec<u8>)> {
    let bytes = world.disk.read(&directory().join(name)).unwrap();
    let mut rows = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    while at < bytes.len() {
        let header = bytes[at..at + ROW_HEADER_BYTES].try_into().unwrap();
        let length = RowHeader::read(header).unwrap().frame_len();
        rows.push((at as u64, bytes[at..at + length].to_vec()));
        at += length;
    }
    rows
}

#[test]
fn a_flipped_bit_in_any_row_is_found_with_its_place_and_gone_when_it_is_flipped_back() {
    let world = closed_store();
    // Opening cuts off what is behind the checkpoint.
    drop(open(&world).unwrap());
    let names = segments(&world);
    assert!(names.len() > 2, "{names:?}");
    for name in &names {
        let length = world.disk.open(&directory().join(name)).unwrap().len().unwrap();
        for at in (SEGMENT_HEADER_BYTES as u64..length).step_by(13) {
            flip(&world, name, at);
            let said = finding(&world);
            assert!(said.contains(name) && said.contains("is damaged at byte"), "{at}: {said}");
            flip(&world, name, at);
        }
    }
    let bytes = scrubbed(&open(&world).unwrap().store).unwrap();
    assert!(bytes > 10_000, "{bytes}");
}

/// A row with its checksum, as a write that went astray leaves it.
fn stray(revision: Revision, tombstone: bool, kv: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_row(&mut frame, revision, tombstone, key_of(kv).unwrap(), kv);
    frame
}

#[test]
fn a_whole_row_in_the_place_of_another_is_found() {
    let world = closed_store();
    drop(open(&world).unwrap());
    let name = segments(&world).remove(0);
    let file = world.disk.open(&directory().join(&name)).unwrap();
    let rows = rows_of(&world, &name);
    let (at, frame) = &rows[5];
    let header = |frame: &[u8]| RowHeader::read(frame[..ROW_HEADER_BYTES].try_into().unwrap());
    let own = header(frame).unwrap();
    let older = header(&rows[1].1).unwrap().revision;
    let kv = &frame[ROW_HEADER_BYTES..];
    let mut nobodys = kv.to_vec();
    nobodys[2] ^= 1;
    for (stray, words) in [
        (stray(older, own.tombstone, kv), "is not younger than the one before it"),
        (stray(own.revision, !own.tombstone, kv), "is not the one that the index expects"),
        (stray(own.revision, own.tombstone, &nobodys), "the index names"),
    ] {
        assert!(stray.len() == frame.len() && stray != *frame, "it takes the place exactly");
        file.write_at(*at, &stray).unwrap();
        let said = finding(&world);
        assert!(said.contains(words) && said.contains("gen-1"), "{said}");
    }
    file.write_at(*at, frame).unwrap();
    scrubbed(&open(&world).unwrap().store).unwrap();
}

#[test]
fn a_scrub_goes_in_steps_and_tells_how_far_it_is() {
    let mut world = closed_store();
    world.restart(false);
    let mut scrub = world.store().scrub();
    let mut steps = 0;
    let mut before = 0;
    while scrub.step().unwrap() == Work::Some {
        let (bytes, total) = scrub.progress();
        assert!(before <= bytes && bytes <= total, "{before} {bytes} {total}");
        before = bytes;
        steps += 1;
    }
    assert!(steps >= 2 * segments(&world).len(), "{steps}");
    assert_eq!(scrub.step().unwrap(), Work::None, "it stays at its end");
}
