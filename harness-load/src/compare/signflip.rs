//! The sign-flip test in closed form: everything it says stands in the sorted means of subsets.
//!
//! Under the hypothesis that differences are symmetric about θ, flipping the signs of `d − θ` at random changes nothing.
//! A flip of the subset `S` gives a sum at least as large as the observed one exactly when the mean of `d` over `S` is
//! at most θ; so the p-value for every θ, and with it the confidence interval, is a rank among the means of all non-empty
//! subsets (Hartigan, *Using Subsample Values as Typical Values*, JASA 64, 1969). Up to 14 differences all subsets are
//! looked at, beyond that a seeded sample of them.

use harness_core::run::Seed;

/// Differences up to which all subsets are looked at: 16,383 of them.
const EXACT: usize = 14;
/// Subsets drawn beyond that.
const DRAWN: usize = 20_000;

/// The sorted means of subsets of differences.
#[derive(Debug, Clone)]
pub(super) struct SignFlip {
    means: Vec<f64>,
}

impl SignFlip {
    /// Of finite differences; the caller has refused others.
    pub(super) fn of(differences: &[f64]) -> Self {
        let mut means = if differences.len() <= EXACT { all(differences) } else { drawn(differences) };
        means.sort_unstable_by(f64::total_cmp);
        Self { means }
    }

    /// The chance of differences this far above, if they were symmetric about something at most `theta`.
    pub(super) fn p_above(&self, theta: f64) -> f64 {
        self.p(self.means.partition_point(|mean| *mean <= theta))
    }

    /// The chance of differences this far below, if they were symmetric about something at least `theta`.
    pub(super) fn p_below(&self, theta: f64) -> f64 {
        self.p(self.means.len() - self.means.partition_point(|mean| *mean < theta))
    }

    /// The interval that holds the centre; each side errs with a chance of at most `alpha`. None with too few differences.
    pub(super) fn interval(&self, alpha: f64) -> Option<(f64, f64)> {
        // A hair of tolerance keeps 0.01 × 1,000, which floats may put below 10, at 10.
        let rank = (alpha * (self.means.len() + 1) as f64 + 1e-9).floor() as usize;
        let at = rank.checked_sub(1)?;
        Some((*self.means.get(at)?, *self.means.get(self.means.len().checked_sub(rank)?)?))
    }

    fn p(&self, as_extreme: usize) -> f64 {
        (1 + as_extreme) as f64 / (1 + self.means.len()) as f64
    }
}

/// The smallest p-value this many differences can reach.
pub(super) fn finest(differences: usize) -> f64 {
    if differences <= EXACT { 0.5_f64.powi(differences as i32) } else { 1.0 / (1.0 + DRAWN as f64) }
}

fn all(differences: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; 1 << differences.len()];
    let mut means = Vec::with_capacity(sums.len());
    for subset in 1..sums.len() {
        let lowest = subset.trailing_zeros() as usize;
        sums[subset] = sums[subset & (subset - 1)] + differences[lowest];
        means.push(sums[subset] / f64::from(subset.count_ones()));
    }
    means
}

fn drawn(differences: &[f64]) -> Vec<f64> {
    let mut random = Seed::new(differences.len() as u64).stream("sign-flip");
    let mut draw = || {
        let (mut sum, mut size) = (0.0, 0_u32);
        for chunk in differences.chunks(64) {
            let bits = random.next_u64();
            for (n, difference) in chunk.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1) {
                debug_assert!(n < 64);
                sum += difference;
                size += 1;
            }
        }
        (size > 0).then(|| sum / f64::from(size))
    };
    (0..DRAWN).filter_map(|_| draw()).collect()
}

#[cfg(test)]
mod tests {
    use super::SignFlip;

    /// The definition, flip by flip.
    fn by_definition(differences: &[f64], theta: f64) -> f64 {
        let shifted: Vec<f64> = differences.iter().map(|d| d - theta).collect();
        let observed: f64 = shifted.iter().sum();
        let flipped = |flips: usize| -> f64 {
            shifted.iter().enumerate().map(|(n, d)| if flips >> n & 1 == 1 { -d } else { *d }).sum()
        };
        let flips = 1_usize << differences.len();
        (0..flips).filter(|flips| flipped(*flips) >= observed - 1e-12).count() as f64 / flips as f64
    }

    #[test]
    fn ranks_of_subset_means_are_the_test_by_definition() {
        let differences = [0.031, -0.012, 0.044, 0.027, 0.009, -0.003, 0.052, 0.018];
        let test = SignFlip::of(&differences);
        for theta in [-0.05, 0.0, 0.01, 0.0207, 0.03, 0.06] {
            assert!((test.p_above(theta) - by_definition(&differences, theta)).abs() < 1e-12, "{theta}");
        }
        let mirrored: Vec<f64> = differences.iter().map(|d| -d).collect();
        assert_eq!(test.p_below(0.01), SignFlip::of(&mirrored).p_above(-0.01));
    }

    #[test]
    fn the_interval_is_what_the_test_does_not_refuse() {
        let differences = [0.031, -0.012, 0.044, 0.027, 0.009, -0.003, 0.052, 0.018];
        let test = SignFlip::of(&differences);
        let (low, high) = test.interval(0.01).unwrap();
        assert!(test.p_above(low - 1e-9) <= 0.01 && test.p_above(low + 1e-9) > 0.01);
        assert!(test.p_below(high + 1e-9) <= 0.01 && test.p_below(high - 1e-9) > 0.01);
        assert!(SignFlip::of(&differences[..6]).interval(0.01).is_none(), "64 flips never reach 1 %");
    }

    #[test]
    fn sampled_subsets_agree_with_all_of_them() {
        let wave = |n: usize| -> Vec<f64> { (0..n).map(|n| 0.01 + 0.02 * (n as f64 * 1.7).sin()).collect() };
        let (exact, sampled) = (SignFlip::of(&wave(14)), SignFlip::of(&[wave(14), wave(14)].concat()));
        let (a, b) = (exact.interval(0.05).unwrap(), sampled.interval(0.05).unwrap());
        // Twice the pairs: the interval is narrower, about the same centre.
        assert!(b.1 - b.0 < a.1 - a.0 && (f64::midpoint(a.0, a.1) - f64::midpoint(b.0, b.1)).abs() < 0.003);
    }
}
