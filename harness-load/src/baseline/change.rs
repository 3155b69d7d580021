//! When did a history of figures move?

use harness_core::monitor::trend::median;

/// Fewest figures on each side of a change: two bad nights are not a trend.
const SHORTEST: usize = 4;
/// Figures further than this from their neighbours' median, in standard deviations, are pulled in.
const WILD: f64 = 4.0;

/// A moment from which on the figures are others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChangePoint {
    /// Index of the first figure of the new level.
    pub at: usize,
    /// Median of the level before.
    pub before: f64,
    /// Median of the level after.
    pub after: f64,
}

/// The change points of a history, oldest first; none in fewer than eight figures or where one is no number.
///
/// Optimal partitioning with a penalty per change (Jackson and others, *An Algorithm for Optimal Partitioning of Data on an
/// Interval*, 2005; the pruned form is PELT, Killick and others 2012). The penalty is `6 ln n` noise variances, twice
/// the modified information criterion of Zhang and Siegmund (2007), since the noise is estimated, too, and nightly figures
/// remember each other. For trends only: a gate compares runs.
#[must_use]
pub fn change_points(history: &[f64]) -> Vec<ChangePoint> {
    let n = history.len();
    if n < 2 * SHORTEST || history.iter().any(|figure| !figure.is_finite()) {
        return Vec::new();
    }
    let steps: Vec<f64> = history.windows(2).map(|two| (two[1] - two[0]).abs()).collect();
    // The median step of normal noise is 0.9539 deviations: 0.6745 times the root of two.
    let noise = (median(&steps) / 0.953_9).max(median(history).abs() * 1e-6).max(f64::MIN_POSITIVE);
    let tame: Vec<f64> = (0..n).map(|at| tamed(history, at, noise) / noise).collect();
    let sums = |of: fn(f64) -> f64| -> Vec<f64> {
        let running = tame.iter().scan(0.0, |sum, figure| {
            *sum += of(*figure);
            Some(*sum)
        });
        std::iter::once(0.0).chain(running).collect()
    };
    let (sum, squares) = (sums(|x| x), sums(|x| x * x));
    let cost =
        |from: usize, to: usize| squares[to] - squares[from] - (sum[to] - sum[from]).powi(2) / (to - from) as f64;
    let penalty = 6.0 * (n as f64).ln();
    let (mut best, mut last) = (vec![f64::INFINITY; n + 1], vec![0; n + 1]);
    best[0] = -penalty;
    for to in SHORTEST..=n {
        let total = |from: usize| best[from] + cost(from, to) + penalty;
        let cheapest = (0..=to - SHORTEST).map(|from| (total(from), from)).min_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((total, from)) = cheapest {
            (best[to], last[to]) = (total, from);
        }
    }
    let mut ends = vec![n];
    while let Some(&end) = ends.last().filter(|end| **end > 0) {
        ends.push(last[end]);
    }
    ends.reverse();
    let level = |from: usize, to: usize| median(&history[from..to]);
    ends.windows(3)
        .map(|three| ChangePoint { at: three[1], before: level(three[0], three[1]), after: level(three[1], three[2]) })
        .collect()
}

/// A figure, pulled in to what its neighbours allow: one wild night moves no level.
fn tamed(history: &[f64], at: usize, noise: f64) -> f64 {
    let near = median(&history[at.saturating_sub(3)..(at + 4).min(history.len())]);
    history[at].clamp(near - WILD * noise, near + WILD * noise)
}
