//! Sets of small numbers, one bit each: the classes that a rule means, the blocks that an address is in.

/// A set of the numbers below a bound; sets that are combined have the same bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BitSet {
    words: Vec<u64>,
}

impl BitSet {
    /// The empty set of numbers below a bound.
    pub(crate) fn below(bound: usize) -> Self {
        Self {
            words: vec![0; bound.div_ceil(64)],
        }
    }

    /// The set of these numbers; those that are not below the bound are left out.
    pub(crate) fn of(bound: usize, numbers: impl IntoIterator<Item = usize>) -> Self {
        let mut set = Self::below(bound);
        for number in numbers {
            set.insert(number);
        }
        set
    }

    /// Adds a number that is below the bound.
    pub(crate) fn insert(&mut self, number: usize) {
        if let Some(word) = self.words.get_mut(number / 64) {
            *word |= bit(number);
        }
    }

    /// Takes a number out.
    pub(crate) fn remove(&mut self, number: usize) {
        if let Some(word) = self.words.get_mut(number / 64) {
            *word &= !bit(number);
        }
    }

    /// Whether a number is in it.
    pub(crate) fn contains(&self, number: usize) -> bool {
        self.words
            .get(number / 64)
            .is_some_and(|word| word & bit(number) != 0)
    }

    /// Whether some number is in both.
    pub(crate) fn meets(&self, other: &BitSet) -> bool {
        let mut words = self.words.iter().zip(&other.words);
        words.any(|(word, other)| word & other != 0)
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Adds what is in another set.
    pub(crate) fn add(&mut self, other: &BitSet) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// What is in both.
    pub(crate) fn and(&self, other: &BitSet) -> BitSet {
        self.zip(other, |word, other| word & other)
    }

    /// What is in this one only.
    pub(crate) fn without(&self, other: &BitSet) -> BitSet {
        self.zip(other, |word, other| word & !other)
    }

    /// The numbers in it, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let position = left.trailing_zeros();
                // Clears the lowest bit; nothing is left to clear at the end.
                left &= left.checked_sub(1)?;
                Some(index.saturating_mul(64).saturating_add(position as usize))
            })
        })
    }

    fn zip(&self, other: &BitSet, combine: impl Fn(u64, u64) -> u64) -> BitSet {
        let words = self.words.iter().zip(&other.words);
        Self {
            words: words.map(|(word, other)| combine(*word, *other)).collect(),
        }
    }
}

fn bit(number: usize) -> u64 {
    1_u64.rotate_left(u32::try_from(number % 64).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_in_order_across_words() {
        let numbers = [0, 1, 63, 64, 127, 128, 199];
        let set = BitSet::of(200, numbers);
        assert_eq!(set.iter().collect::<Vec<_>>(), numbers);
        assert!(set.contains(127) && !set.contains(126) && !set.contains(100_000));
    }

    #[test]
    fn sets_combine_as_sets_do() {
        let (odd, low) = (BitSet::of(100, (1..100).step_by(2)), BitSet::of(100, 0..10));
        assert_eq!(odd.and(&low), BitSet::of(100, [1, 3, 5, 7, 9]));
        assert!(odd.meets(&low) && !odd.meets(&BitSet::of(100, [0, 64, 98])));
        assert_eq!(low.without(&odd), BitSet::of(100, [0, 2, 4, 6, 8]));
        let mut all = odd.clone();
        all.add(&BitSet::of(100, (0..100).step_by(2)));
        assert_eq!(all, BitSet::of(100, 0..100));
        assert!(odd.without(&all).is_empty());
    }
}
