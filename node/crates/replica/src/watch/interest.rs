//! Which watches want which keys: an index from a changed key to the live watches that cover it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_machine::KeyRange;

use super::{StreamId, WatchId};

/// A watch's name in the hub.
pub(super) type Name = (StreamId, WatchId);

/// The live watches by what they cover. Watches of one key are found by one look-up; ranges are grouped, so that a
/// thousand clients that watch the same prefix cost one comparison.
#[derive(Debug, Default)]
pub(super) struct Interest {
    keys: BTreeMap<Bytes, BTreeSet<Name>>,
    /// By start, then end; no end = everything from the start on.
    ranges: BTreeMap<(Bytes, Option<Bytes>), BTreeSet<Name>>,
}

impl Interest {
    /// A watch became live.
    pub(super) fn insert(&mut self, range: &KeyRange, name: Name) {
        match range {
            KeyRange::Single(key) => self.keys.entry(key.clone()).or_default().insert(name),
            KeyRange::Interval(start, end) => {
                self.ranges.entry((start.clone(), Some(end.clone()))).or_default().insert(name)
            }
            KeyRange::From(start) => {
                self.ranges.entry((start.clone(), None)).or_default().insert(name)
            }
        };
    }

    /// A watch is no longer live.
    pub(super) fn remove(&mut self, range: &KeyRange, name: Name) {
        match range {
            KeyRange::Single(key) => remove(&mut self.keys, key, name),
            KeyRange::Interval(start, end) => {
                remove(&mut self.ranges, &(start.clone(), Some(end.clone())), name);
            }
            KeyRange::From(start) => remove(&mut self.ranges, &(start.clone(), None), name),
        }
    }

    /// The live watches that cover a key.
    pub(super) fn of<'a>(&'a self, key: &'a Bytes) -> impl Iterator<Item = Name> + 'a {
        let single = self.keys.get(key).into_iter().flatten().copied();
        let ranges = self
            .ranges
            .iter()
            .take_while(move |((start, _), _)| start <= key)
            .filter(move |((_, end), _)| end.as_ref().is_none_or(|end| key < end))
            .flat_map(|(_, names)| names.iter().copied());
        single.chain(ranges)
    }
}

fn remove<K: Ord>(map: &mut BTreeMap<K, BTreeSet<Name>>, key: &K, name: Name) {
    if let Some(names) = map.get_mut(key) {
        names.remove(&name);
        if names.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(interest: &Interest, key: &'static str) -> Vec<i64> {
        interest.of(&Bytes::from_static(key.as_bytes())).map(|(_, watch)| watch.0).collect()
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_key_finds_the_watches_that_cover_it_and_no_others() {
        let ranges = [
            KeyRange::Single(bytes("b")),
            KeyRange::Interval(bytes("a"), bytes("c")),
            KeyRange::Interval(bytes("b"), bytes("b")),
            KeyRange::From(bytes("b")),
            KeyRange::From(bytes("")),
        ];
        let mut interest = Interest::default();
        for (id, range) in (0..).zip(&ranges) {
            interest.insert(range, (StreamId(1), WatchId(id)));
        }
        assert_eq!(names(&interest, "b"), [0, 4, 1, 3]);
        assert_eq!(names(&interest, "a"), [4, 1]);
        assert_eq!(names(&interest, "c"), [4, 3]);
        for (id, range) in (0..).zip(&ranges) {
            interest.remove(range, (StreamId(1), WatchId(id)));
        }
        assert_eq!(names(&interest, "b"), []);
        assert!(interest.keys.is_empty() && interest.ranges.is_empty());
    }
}
