//! Scores, weights and ranks in exact numbers.
//!
//! With floating-point weights of 0.4, 0.2, 0.2, 0.2 two in five exact ties compare as unequal, and a tie-break never
//! happens. Here a score is a whole number of millionths of a point, a weight a whole part of a whole, and a composite
//! a fraction: equal is equal.
//!
//! ```
//! use harness_props::rank::{Score, Weights, ranking};
//!
//! let weights = Weights::decimals(&[0.4, 0.2, 0.2, 0.2])?;
//! let score = |points: [f64; 4]| -> Result<Vec<Score>, _> { points.map(Score::try_from).into_iter().collect() };
//! let (calm, swift) = (score([70.0, 50.0, 50.0, 40.0])?, score([60.0, 60.0, 60.0, 40.0])?);
//! assert_eq!(weights.composite(&calm)?, weights.composite(&swift)?); // both 56 exactly
//!
//! // The tie is broken by the first objective, then by name.
//! let order = ranking(&weights, &[("swift", &swift[..]), ("calm", &calm[..])], &[0])?;
//! assert_eq!(order, [1, 0]);
//! # Ok::<(), harness_props::rule::Refusal>(())
//! ```

use std::cmp::Ordering;
use std::fmt;

use crate::rule::{Refusal, RefusalKind};

/// Millionths in a point.
const POINT: i64 = 1_000_000;

/// A score in whole millionths of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Score(i64);

impl Score {
    /// So many points; beyond nine trillion the nearest that can be had.
    #[must_use]
    pub fn points(points: i32) -> Self {
        Self(i64::from(points) * POINT)
    }

    /// So many millionths of a point.
    #[must_use]
    pub fn millionths(millionths: i64) -> Self {
        Self(millionths)
    }

    /// As millionths.
    #[must_use]
    pub fn as_millionths(self) -> i64 {
        self.0
    }
}

/// The nearest millionth. Not finite, or beyond a billion points, is refused; −0 is 0.
impl TryFrom<f64> for Score {
    type Error = Refusal;

    fn try_from(points: f64) -> Result<Self, Refusal> {
        if !points.is_finite() || points.abs() > 1e9 {
            return Err(Refusal::new(RefusalKind::Number, format!("{points} is no score")));
        }
        Ok(Self((points * POINT as f64).round() as i64))
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.unsigned_abs() / POINT as u64, self.0.unsigned_abs() % POINT as u64);
        let sign = if self.0 < 0 { "-" } else { "" };
        match rest {
            0 => write!(f, "{sign}{whole}"),
            rest => f.write_str(format!("{sign}{whole}.{rest:06}").trim_end_matches('0')),
        }
    }
}

/// Weights as whole parts of their sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    parts: Vec<i64>,
    whole: i64,
}

impl Weights {
    /// Weights in the proportion of these parts: 2, 1, 1, 1 for 0.4, 0.2, 0.2, 0.2.
    ///
    /// # Errors
    /// A negative part, no part above zero, or a sum beyond a trillion.
    pub fn parts(parts: &[i64]) -> Result<Self, Refusal> {
        let refused = |why: &str| Refusal::new(RefusalKind::Weights, format!("weights {parts:?} {why}"));
        if parts.iter().any(|part| *part < 0) {
            return Err(refused("include a negative one"));
        }
        let whole: i128 = parts.iter().map(|part| i128::from(*part)).sum();
        match i64::try_from(whole) {
            Ok(0) => Err(refused("sum to nothing")),
            Ok(whole) if whole <= 1_000_000_000_000 => Ok(Self { parts: parts.to_vec(), whole }),
            _ => Err(refused("are too fine")),
        }
    }

    /// Weights as decimals that sum to exactly 1, each read as the shortest decimal that prints so: 0.4 is two fifths.
    ///
    /// # Errors
    /// A weight that is not finite, negative or finer than nine places; a sum that is not 1.
    pub fn decimals(weights: &[f64]) -> Result<Self, Refusal> {
        const UNIT: i64 = 1_000_000_000;
        let refused = |why: &str| Refusal::new(RefusalKind::Weights, format!("weights {weights:?} {why}"));
        let parts: Option<Vec<i64>> = weights.iter().map(|weight| decimal(*weight, 9)).collect();
        let parts = parts.ok_or_else(|| refused("are not decimals of nine places"))?;
        let whole: i128 = parts.iter().map(|part| i128::from(*part)).sum();
        if parts.iter().any(|part| *part < 0) {
            return Err(refused("include a negative one"));
        }
        if whole != i128::from(UNIT) {
            return Err(refused(&format!("sum to {}", whole as f64 / UNIT as f64)));
        }
        Ok(Self { parts, whole: UNIT })
    }

    /// The weighted sum.
    ///
    /// # Errors
    /// Another number of scores than of weights.
    pub fn composite(&self, scores: &[Score]) -> Result<Composite, Refusal> {
        if scores.len() != self.parts.len() {
            let why = format!("{} scores for {} weights", scores.len(), self.parts.len());
            return Err(Refusal::new(RefusalKind::Shape, why));
        }
        let sum = self.parts.iter().zip(scores).map(|(part, score)| i128::from(*part) * i128::from(score.0)).sum();
        Ok(Composite { sum, whole: self.whole })
    }

    /// True when every weight is above zero: then the best composite is never dominated.
    #[must_use]
    pub fn all_positive(&self) -> bool {
        self.parts.iter().all(|part| *part > 0)
    }
}

/// The shortest decimal that prints as this number, in units of 10^−places; nothing if it is finer or not finite.
fn decimal(number: f64, places: usize) -> Option<i64> {
    if !number.is_finite() {
        return None;
    }
    let text = number.to_string();
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    if rest.len() > places {
        return None;
    }
    let digits = format!("{whole}{rest:0<places$}");
    digits.parse().ok()
}

/// A weighted sum of scores as a fraction, in millionths of a point.
#[derive(Debug, Clone, Copy)]
pub struct Composite {
    sum: i128,
    whole: i64,
}

impl Composite {
    /// The nearest score, halves away from zero.
    #[must_use]
    pub fn score(self) -> Score {
        let whole = i128::from(self.whole);
        let half = if self.sum < 0 { -whole / 2 } else { whole / 2 };
        Score(((self.sum + half) / whole) as i64)
    }

    /// True when a claim is within half a unit of so many decimal places (0 to 6).
    #[must_use]
    pub fn agrees(self, claim: Score, places: u32) -> bool {
        let unit = i128::from(10_i64.pow(6 - places.min(6)));
        let off = (self.sum - i128::from(claim.0) * i128::from(self.whole)).abs();
        off * 2 <= unit * i128::from(self.whole)
    }
}

impl PartialEq for Composite {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Composite {}

impl PartialOrd for Composite {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Composite {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.sum * i128::from(other.whole)).cmp(&(other.sum * i128::from(self.whole)))
    }
}

/// The order of candidates, best first: by composite, then by the objectives of the tie-break, then by name. Total:
/// it does not depend on the order in which they are given.
///
/// # Errors
/// Another number of scores than of weights, or a tie-break by an objective that there is none of.
pub fn ranking<N: Ord>(weights: &Weights, candidates: &[(N, &[Score])], ties: &[usize]) -> Result<Vec<usize>, Refusal> {
    if let Some(tie) = ties.iter().find(|tie| **tie >= weights.parts.len()) {
        return Err(Refusal::new(RefusalKind::Shape, format!("there is no objective {tie} to break ties by")));
    }
    let composites: Vec<Composite> =
        candidates.iter().map(|(_, scores)| weights.composite(scores)).collect::<Result<_, _>>()?;
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|one, other| {
        let ((one_name, one_scores), (other_name, other_scores)) = (&candidates[*one], &candidates[*other]);
        let by_tie = || ties.iter().map(|tie| other_scores[*tie].cmp(&one_scores[*tie])).find(|order| order.is_ne());
        composites[*other]
            .cmp(&composites[*one])
            .then_with(|| by_tie().unwrap_or(Ordering::Equal))
            .then_with(|| one_name.cmp(other_name))
    });
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::{Score, Weights, ranking};
    use crate::generate::Random;

    #[test]
    fn bad_numbers_are_refused() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert!(Score::try_from(bad).is_err(), "{bad}");
            assert!(Weights::decimals(&[bad, 0.5]).is_err(), "{bad}");
        }
        assert_eq!(Score::try_from(-0.0).unwrap(), Score::points(0));
        for bad in [&[][..], &[0.0, 0.0], &[0.5, 0.6], &[0.3, 0.3, 0.3], &[-0.5, 1.5], &[1.0 / 3.0; 3]] {
            assert!(Weights::decimals(bad).is_err(), "{bad:?}");
        }
        assert!(Weights::parts(&[0, 0]).is_err() && Weights::parts(&[1, -1, 1]).is_err());
        assert!(Weights::parts(&[i64::MAX, i64::MAX]).is_err());
    }

    #[test]
    fn composite_is_the_exact_weighted_sum() {
        let weights = Weights::decimals(&[0.4, 0.2, 0.2, 0.2]).unwrap();
        let scores = [90, 80, 70, 61].map(Score::points);
        let composite = weights.composite(&scores).unwrap();
        assert_eq!(composite.score().to_string(), "78.2");
        assert!(composite.agrees(Score::try_from(78.2).unwrap(), 6) && composite.agrees(Score::points(78), 0));
        assert!(!composite.agrees(Score::try_from(78.200_001).unwrap(), 6));
        let swapped = Weights::decimals(&[0.2, 0.4, 0.2, 0.2]).unwrap();
        assert_ne!(swapped.composite(&scores).unwrap(), composite, "swapped weights are noticed");
    }

    /// Pairs with exactly equal composites: floating point sees two in five as different, here none is.
    #[test]
    fn exact_ties_are_broken_by_safety_and_never_by_rounding() {
        let weights = Weights::decimals(&[0.4, 0.2, 0.2, 0.2]).unwrap();
        let rounds = crate::env::rounds(10_000) as u64;
        let mut random = Random::new(8);
        let (mut wrong, mut split_by_floats) = (0, 0);
        for _ in 0..rounds {
            let one = [0; 4].map(|_| random.between(10, 90) as i32);
            let step = random.between(1, 4) as i32;
            // Twice as much less of the others makes up for more safety.
            let other = [one[0] + step, one[1] - 2 * step, one[2], one[3]];
            let scores = [one, other].map(|points| points.map(Score::points));
            let order = ranking(&weights, &[("a", &scores[0][..]), ("b", &scores[1][..])], &[0]).unwrap();
            wrong += u64::from(order != [1, 0]);
            let float = |points: [i32; 4]| {
                let [safety, cost, passenger, network] = points.map(f64::from);
                0.4 * safety + 0.2 * cost + 0.2 * passenger + 0.2 * network
            };
            split_by_floats += u64::from(float(one).to_bits() != float(other).to_bits());
        }
        assert_eq!(wrong, 0);
        println!("figure: {rounds} exact ties, none broken by rounding; floats split {split_by_floats} of them");
        assert!(split_by_floats * 10 > rounds, "the control: floats split {split_by_floats} of {rounds} ties");
    }

    #[test]
    fn ranking_does_not_depend_on_the_order_given() {
        let weights = Weights::parts(&[2, 1, 1, 1]).unwrap();
        let mut random = Random::new(1);
        for _ in 0..200 {
            let scores: Vec<[Score; 4]> =
                (0..5).map(|_| [0; 4].map(|_| Score::points(random.between(0, 3) as i32))).collect();
            let mut list: Vec<(usize, &[Score])> = scores.iter().enumerate().map(|(at, one)| (at, &one[..])).collect();
            let names = |list: &[(usize, &[Score])]| -> Vec<usize> {
                ranking(&weights, list, &[0]).unwrap().iter().map(|at| list[*at].0).collect()
            };
            let before = names(&list);
            random.shuffle(&mut list);
            assert_eq!(names(&list), before);
        }
    }

    #[test]
    fn raising_one_score_never_lowers_the_rank() {
        let weights = Weights::parts(&[2, 1, 1, 1]).unwrap();
        let mut random = Random::new(2);
        for _ in 0..500 {
            let mut scores: Vec<[Score; 4]> =
                (0..4).map(|_| [0; 4].map(|_| Score::points(random.between(0, 9) as i32))).collect();
            let place = |scores: &[[Score; 4]]| {
                let list: Vec<(usize, &[Score])> = scores.iter().enumerate().map(|(at, one)| (at, &one[..])).collect();
                ranking(&weights, &list, &[0]).unwrap().iter().position(|at| *at == 0).unwrap()
            };
            let before = place(&scores);
            let objective = random.index(4);
            scores[0][objective] =
                Score::millionths(scores[0][objective].as_millionths() + random.between(0, 5_000_000));
            assert!(place(&scores) <= before);
        }
    }
}
