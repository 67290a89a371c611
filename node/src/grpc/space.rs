//! Whether there is room under the quota: measured now and then, counted down in between.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::handle::Sizes;

/// How long a measure is good for. Measuring visits every segment of rows; a put must not.
const MEASURE_MS: u64 = 100;

/// What is known of the room.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// When it was measured last, one more than [`crate::clock::now_ms`] said; 0 for never.
    measured: AtomicU64,
    /// Bytes that may still be admitted before the next measure.
    room: AtomicI64,
}

impl Space {
    /// Whether so many bytes more fit. The quota is on live bytes: what compaction has set free may be used again at
    /// once, without a defragmentation. Two callers at once may both be let in by one measure; the quota is a guard
    /// against a full disk, not an exact sum, in etcd as well.
    pub(super) fn admit(&self, bytes: u64, now_ms: u64, measure: impl FnOnce() -> Sizes) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let measured = self.measured.load(Ordering::Relaxed);
        let fresh = measured != 0 && now_ms + 1 - measured.min(now_ms + 1) < MEASURE_MS;
        if fresh && self.room.fetch_sub(bytes, Ordering::Relaxed) >= bytes {
            return true;
        }
        let sizes = measure();
        let room = if sizes.quota == 0 {
            i64::MAX
        } else {
            i64::try_from(sizes.quota.saturating_sub(sizes.in_use)).unwrap_or(i64::MAX)
        };
        let fits = room >= bytes;
        self.room.store(if fits { room - bytes } else { room }, Ordering::Relaxed);
        self.measured.store(now_ms + 1, Ordering::Relaxed);
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(in_use: u64, quota: u64) -> Sizes {
        Sizes { total: 0, in_use, quota }
    }

    #[test]
    fn room_is_counted_down_between_measures() {
        let space = Space::default();
        assert!(space.admit(40, 0, || sizes(0, 100)));
        assert!(space.admit(40, 50, || panic!("measured again too soon")));
        assert!(!space.admit(40, 60, || sizes(80, 100)), "no room is measured, and refused");
        assert!(space.admit(20, 70, || sizes(80, 100)));
        assert!(space.admit(40, 300, || sizes(10, 100)), "compaction has made room");
    }

    #[test]
    fn a_measure_grows_old() {
        let space = Space::default();
        assert!(space.admit(1, 1000, || sizes(0, 100)));
        assert!(!space.admit(1, 1100, || sizes(100, 100)), "measured anew after 100 ms");
    }

    #[test]
    fn without_a_quota_everything_fits() {
        let space = Space::default();
        assert!(space.admit(u64::MAX, 0, || sizes(u64::MAX, 0)));
        assert!(space.admit(1 << 40, 0, || sizes(u64::MAX, 0)));
    }
}
