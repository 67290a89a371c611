//! The floor registry: who still reads old revisions, so that compaction leaves them alone.
//!
//! Ranges, exports and watch replays pin the revision that they read at. Physical compaction goes no further than the least
//! pin; the logical one, a number of the machine's, does not wait. A pin that grows too old is revoked by whoever
//! keeps time, and its holder must ask [`Pin::is_held`] after each page that it has read: what was read before the answer
//! was yes is right, what comes after a no is discarded.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::PINS_MAX;

/// All pins.
#[derive(Clone, Default)]
pub(crate) struct Pins(Arc<Mutex<Registry>>);

#[derive(Default)]
struct Registry {
    held: BTreeMap<u64, Held>,
    next: u64,
    /// Physical compaction has begun up to here: nothing below can be pinned any more.
    compacting: i64,
}

struct Held {
    revision: i64,
    since: u64,
}

/// Holds compaction back until it is dropped or revoked.
pub struct Pin {
    pins: Pins,
    number: u64,
    revision: i64,
}

/// Why a revision cannot be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinRefused {
    /// It is compacted already.
    #[error("the revision has been compacted up to {0}: read at that revision or a later one")]
    Compacted(i64),
    /// There are too many.
    #[error("{PINS_MAX} readers hold old revisions already: try again when some have finished")]
    TooMany,
}

impl Pins {
    /// Pins a revision; `now` is the age's beginning, in whatever unit [`Pins::revoke`] is asked in.
    pub(crate) fn pin(&self, revision: i64, now: u64) -> Result<Pin, PinRefused> {
        let mut registry = self.0.lock();
        if revision < registry.compacting {
            return Err(PinRefused::Compacted(registry.compacting));
        }
        if registry.held.len() == PINS_MAX {
            return Err(PinRefused::TooMany);
        }
        registry.next += 1;
        let number = registry.next;
        registry.held.insert(number, Held { revision, since: now });
        Ok(Pin { pins: self.clone(), number, revision })
    }

    /// Revokes the pins that began before `before`; how many.
    pub(crate) fn revoke(&self, before: u64) -> usize {
        let mut registry = self.0.lock();
        let count = registry.held.len();
        registry.held.retain(|_, held| held.since >= before);
        count - registry.held.len()
    }

    /// How far a compaction to `scheduled` may go now. From then on nothing below can be pinned.
    pub(crate) fn begin_compaction(&self, scheduled: i64) -> i64 {
        let mut registry = self.0.lock();
        let least = registry.held.values().map(|held| held.revision).min();
        let target = least.map_or(scheduled, |least| least.min(scheduled));
        registry.compacting = registry.compacting.max(target);
        target
    }
}

impl Pin {
    /// The main revision that is pinned.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Whether everything read so far under this pin counts.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.pins.0.lock().held.contains_key(&self.number)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.0.lock().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_goes_as_far_as_the_least_pin_and_no_pin_behind_it() {
        let pins = Pins::default();
        let low = pins.pin(5, 100).unwrap();
        let high = pins.pin(9, 200).unwrap();
        assert_eq!(pins.begin_compaction(20), 5);
        assert_eq!(pins.pin(4, 0).err(), Some(PinRefused::Compacted(5)));
        assert!(pins.pin(5, 0).is_ok());
        assert_eq!(pins.revoke(150), 1);
        assert!(!low.is_held() && high.is_held());
        assert_eq!(pins.begin_compaction(20), 9);
        drop(high);
        assert_eq!(pins.begin_compaction(20), 20);
        assert_eq!(pins.pin(19, 0).err(), Some(PinRefused::Compacted(20)));
    }

    #[test]
    fn one_pin_too_many_is_refused() {
        let pins = Pins::default();
        let mut held: Vec<_> = (0..PINS_MAX).map(|_| pins.pin(1, 0).unwrap()).collect();
        assert_eq!(pins.pin(1, 0).err(), Some(PinRefused::TooMany));
        held.pop();
        assert!(pins.pin(1, 0).is_ok());
    }
}
