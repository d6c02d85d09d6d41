//! A small seeded generator: the core draws its timers from it and from nothing else.

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, every seed is good.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// A generator whose sequence differs by `seed` and by `stream`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self { state: seed };
        random.state = random.next_u64() ^ stream.wrapping_mul(GOLDEN_GAMMA);
        random
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range has no numbers");
        let span = u128::from(high - low) + 1;
        let offset = (u128::from(self.next_u64()) * span) >> 64;
        low + u64::try_from(offset).expect("the upper half of a product of two words is a word")
    }

    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_streams_differ() {
        let draw = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [(); 8].map(|()| random.between(0, u64::MAX))
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn numbers_fill_their_range_and_stay_in_it() {
        let mut random = Random::new(7, 0);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            let number = random.between(10, 14);
            seen[usize::try_from(number - 10).expect("small")] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.between(3, 3), 3);
    }
}
