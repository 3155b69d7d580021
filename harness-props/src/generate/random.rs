//! Random numbers from a seed: the same on every machine and in every version.

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, good enough for test data.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A stream from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// An index below a length; 0 for an empty one.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number from `least` to `most`, both included; `least` when there is none in between.
    pub fn between(&mut self, least: i64, most: i64) -> i64 {
        let width = most.wrapping_sub(least) as u64;
        if most <= least {
            return least;
        }
        least.wrapping_add(if width == u64::MAX { self.bits() } else { self.below(width + 1) } as i64)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// One of a list, or nothing of an empty one.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.index(list.len()))
    }

    /// Puts a list in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_stream_is_splitmix64_so_that_seeds_mean_the_same_for_ever() {
        let mut random = Random::new(0);
        let first: Vec<u64> = (0..4).map(|_| random.bits()).collect();
        // Of the reference implementation (Vigna, splitmix64.c) with the seed 0.
        let reference = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f, 0xf88b_b8a8_724c_81ec];
        assert_eq!(first, reference);
    }

    #[test]
    fn numbers_reach_both_bounds_and_never_pass_them() {
        let mut random = Random::new(1);
        let drawn: Vec<i64> = (0..1_000).map(|_| random.between(-2, 3)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&-2), Some(&3)));
        assert_eq!((random.between(4, 4), random.between(5, 4), random.below(0)), (4, 5, 0));
        let wide: Vec<bool> = (0..100).map(|_| random.between(i64::MIN, i64::MAX) < 0).collect();
        assert!(wide.contains(&true) && wide.contains(&false));
        let share = (0..10_000).filter(|_| random.percent(30)).count();
        assert!((2_800..3_200).contains(&share), "{share} of 10,000 at 30 %");
    }
}
