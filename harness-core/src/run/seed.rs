//! One seed per run, split into independent named streams.

use std::fmt;

/// The 64-bit FNV-1a hash: stable over versions and machines, for names and seeds, not for security.
#[must_use]
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The number that replays a run. Printed as `0x51f2a9`, accepted by `HARNESS_SEED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// A seed from a number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number itself.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }

    /// A stream of random numbers that depends on the seed and the label only, so that adding a consumer elsewhere
    /// never changes what this one draws.
    #[must_use]
    pub fn stream(self, label: &str) -> SeedStream {
        SeedStream { state: self.0 ^ fnv(label.as_bytes()) }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, good enough for schedules and test data.
#[derive(Debug, Clone)]
pub struct SeedStream {
    state: u64,
}

impl SeedStream {
    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply-shift: the bias is below 2^-32 for the bounds tests use.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::Seed;

    #[test]
    fn streams_repeat_and_differ_by_label() {
        let draw = |label: &str| (0..4).scan(Seed::new(7).stream(label), |s, _| Some(s.next_u64())).collect::<Vec<_>>();
        assert_eq!(draw("a"), draw("a"));
        assert_ne!(draw("a"), draw("b"));
    }

    #[test]
    fn stays_in_bounds() {
        let mut stream = Seed::new(1).stream("bounds");
        assert!((0..1000).all(|_| stream.below(10) < 10));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&stream.unit())));
        assert_eq!(stream.below(0), 0);
    }
}
