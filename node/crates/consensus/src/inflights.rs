//! The window of appends on their way to one follower, bounded in messages and in bytes.

use std::collections::VecDeque;

use crate::LogIndex;

/// Appends sent and not answered, in order of their last index.
#[derive(Clone, Debug)]
pub(crate) struct Inflights {
    sent: VecDeque<(LogIndex, usize)>,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

impl Inflights {
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { sent: VecDeque::new(), bytes: 0, messages_max, bytes_max }
    }

    /// Whether the next append must wait. The one that crosses the byte bound was let through, so that an entry
    /// larger than the bound can still travel.
    pub(crate) fn full(&self) -> bool {
        self.sent.len() >= self.messages_max || self.bytes >= self.bytes_max
    }

    pub(crate) fn add(&mut self, last_index: LogIndex, bytes: usize) {
        self.sent.push_back((last_index, bytes));
        self.bytes += bytes;
    }

    /// Everything up to `index` arrived.
    pub(crate) fn free(&mut self, index: LogIndex) {
        while let Some((last_index, bytes)) = self.sent.front().copied() {
            if last_index > index {
                break;
            }
            self.bytes -= bytes;
            self.sent.pop_front();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.sent.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_bytes_both_bound_the_window() {
        let mut window = Inflights::new(3, 100);
        for index in 1..=3 {
            assert!(!window.full());
            window.add(LogIndex(index), 10);
        }
        assert!(window.full());
        window.free(LogIndex(2));
        assert_eq!(window.sent.len(), 1);
        window.add(LogIndex(4), 500);
        assert!(window.full(), "bytes");
        window.free(LogIndex(3));
        assert!(window.full(), "the large one is still out");
        window.free(LogIndex(9));
        assert!(!window.full());
        assert_eq!(window.sent.len(), 0);
    }
}
