//! The election timer: counts ticks and draws each timeout from a seeded generator (thesis §3.4).

/// Counts ticks since the last sign of a leader, against a timeout drawn anew at each reset.
#[derive(Clone, Debug)]
pub(crate) struct ElectionTimer {
    dice: Dice,
    election_ticks: u32,
    timeout: u32,
    elapsed: u32,
}

impl ElectionTimer {
    pub(crate) fn new(election_ticks: u32, dice: Dice) -> Self {
        let mut timer = Self { dice, election_ticks, timeout: election_ticks, elapsed: 0 };
        timer.reset();
        timer
    }

    /// Starts over with a fresh timeout from [election, 2 × election): two members that tied once are
    /// unlikely to tie again.
    pub(crate) fn reset(&mut self) {
        self.elapsed = 0;
        let spread = u64::from(self.election_ticks.max(1));
        self.timeout = self.election_ticks + (self.dice.roll() % spread) as u32;
    }

    /// A leader lives: starts over with the same timeout.
    pub(crate) fn hear(&mut self) {
        self.elapsed = 0;
    }

    /// Counts a tick; true when the timeout has passed, and then the count starts over.
    pub(crate) fn tick(&mut self) -> bool {
        self.elapsed += 1;
        if self.elapsed < self.timeout {
            return false;
        }
        self.reset();
        true
    }

    /// Whether a leader was heard so recently that an election would only disturb it (thesis §4.2.3).
    pub(crate) fn in_lease(&self) -> bool {
        self.elapsed < self.election_ticks
    }
}

/// A splitmix64 generator: eight lines, no dependency, the same numbers on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Mixes `salt` into `seed`, so that members which were given one seed still differ.
    pub(crate) fn new(seed: u64, salt: u64) -> Self {
        let mut dice = Self(seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.roll();
        dice
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_fill_the_interval_and_repeat_with_the_seed() {
        let mut first = ElectionTimer::new(10, Dice::new(7, 1));
        let mut again = ElectionTimer::new(10, Dice::new(7, 1));
        let mut other = ElectionTimer::new(10, Dice::new(7, 2));
        let mut seen = std::collections::BTreeSet::new();
        let mut differs = false;
        for _ in 0..500 {
            assert_eq!(first.timeout, again.timeout);
            differs |= first.timeout != other.timeout;
            seen.insert(first.timeout);
            for timer in [&mut first, &mut again, &mut other] {
                timer.reset();
            }
        }
        assert!(differs, "the member's id is part of the seed");
        assert_eq!(seen, (10..20).collect());
    }

    #[test]
    fn the_timer_fires_once_and_starts_over() {
        let mut timer = ElectionTimer::new(3, Dice::new(1, 1));
        let timeout = timer.timeout;
        assert_eq!((1..=timeout).filter(|_| timer.tick()).count(), 1);
        assert_eq!(timer.elapsed, 0);
        assert!(timer.in_lease());
    }
}
