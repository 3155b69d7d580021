//! Trends that a few wild values cannot bend: medians, Theil–Sen and Mann–Kendall.

/// The middle value; the mean of the two middle ones of an even number; not a number without values.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// The value below which a share of the values lie, by nearest rank; not a number without values.
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// A slope with the interval that holds it. In units of y per unit of x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slope {
    /// The median of the slopes between all pairs of points.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The Theil–Sen slope with its interval (Sen, *Estimates of the Regression Coefficient Based on Kendall's Tau*, JASA 63,
/// 1968). `z` is the normal quantile of the interval: 2.33 errs on each side with a chance of 1 %. None with fewer than
/// three distinct x.
#[must_use]
pub fn theil_sen(points: &[(f64, f64)], z: f64) -> Option<Slope> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (n, (x, y)) in points.iter().enumerate() {
        slopes.extend(points[n + 1..].iter().filter(|(later, _)| later != x).map(|(x2, y2)| (y2 - y) / (x2 - x)));
    }
    if slopes.len() < 3 {
        return None;
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let spread = z * kendall_deviation(points.len());
    let at = |rank: f64| slopes[(rank.max(0.0) as usize).min(slopes.len() - 1)];
    let half = slopes.len() as f64 / 2.0;
    Some(Slope {
        estimate: median(&slopes),
        low: at((half - spread / 2.0).floor()),
        high: at((half + spread / 2.0).ceil() - 1.0),
    })
}

/// The Mann–Kendall statistic as a normal deviate: beyond 2.33 a rise has a chance of 1 % in values without a trend or
/// memory (Mann, *Nonparametric Tests Against Trend*, Econometrica 13, 1945). 0 for fewer than three values.
#[must_use]
pub fn mann_kendall(values: &[f64]) -> f64 {
    if values.len() < 3 {
        return 0.0;
    }
    let rises = |n: usize| values[n + 1..].iter().map(|later| order(*later, values[n])).sum::<f64>();
    let score: f64 = (0..values.len()).map(rises).sum();
    (score - score.signum() * if score == 0.0 { 0.0 } else { 1.0 }) / kendall_deviation(values.len())
}

fn order(a: f64, b: f64) -> f64 {
    if a > b { 1.0 } else { f64::from(i8::from(a >= b)) - 1.0 }
}

/// The standard deviation of Kendall's score of so many values in random order.
fn kendall_deviation(count: usize) -> f64 {
    let n = count as f64;
    (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::{mann_kendall, median, quantile, theil_sen};

    #[test]
    fn wild_values_do_not_bend_the_slope() {
        let mut points: Vec<_> = (0..20).map(|n| (f64::from(n), 5.0 + 2.0 * f64::from(n))).collect();
        for wild in [3, 9, 14, 19] {
            points[wild].1 = 1e6;
        }
        let slope = theil_sen(&points, 2.33).unwrap();
        assert!((slope.estimate - 2.0).abs() < 1e-9 && slope.low <= 2.0 && slope.high >= 2.0, "{slope:?}");
        assert_eq!(theil_sen(&points[..2], 2.33), None);
    }

    #[test]
    fn a_rise_is_told_from_a_fall_and_from_nothing() {
        let rising: Vec<f64> = (0..20).map(f64::from).collect();
        let falling: Vec<f64> = rising.iter().rev().copied().collect();
        assert!(mann_kendall(&rising) > 5.0 && mann_kendall(&falling) < -5.0);
        assert_eq!(mann_kendall(&[7.0; 20]), 0.0);
        assert_eq!(mann_kendall(&[1.0, 2.0]), 0.0);
    }

    #[test]
    fn middles_and_ranks() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan() && quantile(&[], 0.5).is_nan());
        assert_eq!((quantile(&[4.0, 1.0, 2.0, 3.0], 0.25), quantile(&[5.0], 0.1)), (1.0, 5.0));
    }
}
