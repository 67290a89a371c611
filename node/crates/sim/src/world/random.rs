//! The one source of randomness: a seed, split for each part of the world so that a change in one does not move the others.

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed);
        random.roll();
        random
    }

    /// A generator of its own for a part of the world.
    #[must_use]
    pub fn split(&self, label: u64) -> Self {
        Self::new(self.0 ^ label.wrapping_add(1).wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// An index of a list that is not empty.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("lists are short")
    }

    /// Happens `in_thousand` times of a thousand.
    pub fn chance(&mut self, in_thousand: u64) -> bool {
        self.below(1000) < in_thousand
    }

    /// One of a list; none of an empty one.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        if list.is_empty() { None } else { Some(list[self.index(list.len())]) }
    }

    /// A size that is often small and sometimes large: `low` doubled up to so many times.
    pub fn size(&mut self, low: usize, doublings: u64) -> usize {
        low << self.between(0, doublings)
    }
}
