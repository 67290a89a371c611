//! The algebra of majorities: what a set of voters has agreed on.

use std::collections::{BTreeMap, BTreeSet};

use crate::MemberId;

/// How many of this many voters are a majority.
pub(crate) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The greatest value that a majority of voters has reached; the default for no voters, since nobody can agree.
pub(crate) fn agreed<T: Copy + Ord + Default>(
    voters: &BTreeSet<MemberId>,
    reached: impl Fn(MemberId) -> T,
) -> T {
    if voters.is_empty() {
        return T::default();
    }
    let mut values: Vec<T> = voters.iter().map(|voter| reached(*voter)).collect();
    values.sort_unstable();
    // Sorted ascending, the value at n - majority has a majority at or above it.
    values[values.len() - majority(values.len())]
}

/// Where a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    Won,
    Lost,
    Open,
}

/// Counts the votes of voters, and of nobody else.
pub(crate) fn tally(voters: &BTreeSet<MemberId>, votes: &BTreeMap<MemberId, bool>) -> Tally {
    let needed = majority(voters.len());
    let count =
        |wanted| votes.iter().filter(|(id, vote)| **vote == wanted && voters.contains(id)).count();
    if voters.is_empty() {
        Tally::Lost
    } else if count(true) >= needed {
        Tally::Won
    } else if voters.len() - count(false) < needed {
        Tally::Lost
    } else {
        Tally::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::Dice;

    fn voters(count: u64) -> BTreeSet<MemberId> {
        (1..=count).map(MemberId).collect()
    }

    /// The naive definition: the greatest candidate value that at least a majority has reached.
    fn agreed_naively(values: &[u64]) -> u64 {
        let holds = |value: u64| values.iter().filter(|v| **v >= value).count() * 2 > values.len();
        values.iter().copied().filter(|value| holds(*value)).max().unwrap_or(0)
    }

    #[test]
    fn agreement_equals_the_naive_definition() {
        let mut dice = Dice::new(11, 0);
        for _ in 0..5_000 {
            let values: Vec<u64> = (0..dice.roll() % 8).map(|_| dice.roll() % 6).collect();
            let got = agreed(&voters(values.len() as u64), |id| values[id.0 as usize - 1]);
            assert_eq!(got, agreed_naively(&values), "{values:?}");
        }
    }

    #[test]
    fn only_voters_count() {
        let ids = voters(3);
        let cast = |votes: &[(u64, bool)]| {
            tally(&ids, &votes.iter().map(|(id, vote)| (MemberId(*id), *vote)).collect())
        };
        assert_eq!(cast(&[(1, true), (9, true), (8, true)]), Tally::Open);
        assert_eq!(cast(&[(1, true), (2, true)]), Tally::Won);
        assert_eq!(cast(&[(1, true), (2, false)]), Tally::Open);
        assert_eq!(cast(&[(1, true), (2, false), (3, false)]), Tally::Lost);
        assert_eq!(tally(&voters(0), &BTreeMap::new()), Tally::Lost);
        assert_eq!(
            tally(&voters(4), &BTreeMap::from([(MemberId(1), false), (MemberId(2), false)])),
            Tally::Lost
        );
    }
}
