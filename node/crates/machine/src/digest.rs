//! A 64-bit hash for comparing members with each other: not for files, not against an adversary.

/// Mixes words one after the other. Its values go into encoded state, so the function may never change (INV-M3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(u64);

/// Odd constants with about as many ones as zeros (the fractional parts of the square roots of 2 and 3).
const FACTOR: u64 = 0x6a09_e667_f3bc_c909;
const OFFSET: u64 = 0xbb67_ae85_84ca_a73b;

impl Digest {
    pub(crate) fn new(domain: u64) -> Self {
        Self(0).word(domain)
    }

    /// Continues from a value that was kept.
    pub(crate) fn resume(value: u64) -> Self {
        Self(value)
    }

    /// One 64×64→128-bit multiplication a word, high half folded into the low one: every bit reaches every bit.
    #[must_use]
    pub(crate) fn word(self, word: u64) -> Self {
        let product = u128::from((self.0 ^ word).wrapping_add(OFFSET)) * u128::from(FACTOR);
        Self((product as u64) ^ ((product >> 64) as u64))
    }

    #[must_use]
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let mut digest = self.word(bytes.len() as u64);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            digest = digest.word(u64::from_le_bytes(word.try_into().expect("chunks of 8")));
        }
        let mut last = [0; 8];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        if rest.is_empty() { digest } else { digest.word(u64::from_le_bytes(last)) }
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_flipped_bit_anywhere_shows() {
        let base = vec![0_u8; 67];
        let mut seen = BTreeSet::from([Digest::new(1).bytes(&base).value()]);
        for bit in 0..base.len() * 8 {
            let mut other = base.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(Digest::new(1).bytes(&other).value()), "bit {bit} is not seen");
        }
    }

    #[test]
    fn where_a_string_ends_shows() {
        let first = Digest::new(1).bytes(b"ab").bytes(b"c");
        let second = Digest::new(1).bytes(b"a").bytes(b"bc");
        assert_ne!(first, second);
        assert_ne!(Digest::new(1).bytes(b"a"), Digest::new(1).bytes(b"a\0"));
    }

    #[test]
    fn the_function_does_not_change() {
        assert_eq!(Digest::new(1).bytes(b"quorate").value(), 13_859_305_712_757_658_377);
    }
}
