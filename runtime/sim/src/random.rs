//! Where every choice of a run comes from: streams of random numbers with names, so that one more draw in one place does
//! not shift the draws in all others.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, every seed is good.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of this name under a seed.
    #[must_use]
    pub fn stream(seed: u64, name: &str) -> Self {
        Self { state: xxh3_64_with_seed(name.as_bytes(), seed) }
    }

    /// The stream of this name and number under a seed.
    #[must_use]
    pub fn numbered(seed: u64, name: &str, number: u64) -> Self {
        Self::stream(seed ^ number.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA), name)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// A number below `bound`; 0 if there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.any()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the upper half of a product of two words is a word")
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range has no numbers");
        low + self.below(high - low + 1)
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }
}

/// The finaliser of SplitMix64: every bit of the outcome depends on every bit of `word`.
#[must_use]
pub fn mix(word: u64) -> u64 {
    let mut mixed = word;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_repeatable_and_differ_by_name_seed_and_number() {
        let first = |mut random: Random| random.any();
        assert_eq!(first(Random::stream(1, "a")), first(Random::stream(1, "a")));
        assert_ne!(first(Random::stream(1, "a")), first(Random::stream(1, "b")));
        assert_ne!(first(Random::stream(1, "a")), first(Random::stream(2, "a")));
        assert_ne!(first(Random::numbered(1, "a", 0)), first(Random::numbered(1, "a", 1)));
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::stream(3, "range");
        for _ in 0..1000 {
            assert!((5..=9).contains(&random.between(5, 9)));
            assert!(random.below(3) < 3);
        }
        assert_eq!(random.below(0), 0);
    }
}
