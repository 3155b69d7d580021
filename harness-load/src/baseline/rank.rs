//! Two independent samples by rank: the stored one and the new one.

use super::pace::Drift;
use crate::compare::{Better, Judge, Row, Verdict};

/// The stored figures of one metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample<'a> {
    pub(super) better: Better,
    pub(super) figures: &'a [f64],
}

/// Judges runs of one metric against stored ones. `drift` is how much slower the machine itself has become.
///
/// The interval is that of Hodges and Lehmann (*Estimates of Location Based on Rank Tests*, 1963) over the logarithms, and
/// p the normal approximation of Mann and Whitney's test (*Annals of Mathematical Statistics* 18, 1947).
pub(super) fn row(judge: &Judge, metrics: usize, name: &str, old: Sample<'_>, new: &[f64], drift: Drift) -> Row {
    let sign = if old.better == Better::Lower { 1.0 } else { -1.0 };
    let old = old.figures;
    let mut shifts: Vec<f64> = old.iter().flat_map(|old| new.iter().map(move |new| sign * (new / old).ln())).collect();
    shifts.sort_unstable_by(f64::total_cmp);
    let (m, n) = (old.len() as f64, new.len() as f64);
    let (middle, deviation) = (m * n / 2.0, (m * n * (m + n + 1.0) / 12.0).sqrt());
    let above = shifts.iter().map(|shift| if *shift > 0.0 { 1.0 } else { f64::from(u8::from(*shift >= 0.0)) / 2.0 });
    let above: f64 = above.sum();
    let z = normal_quantile(1.0 - judge.alpha_each(metrics));
    let rank = ((middle - z * deviation).floor().max(0.0) as usize).min((shifts.len() - 1) / 2);
    let (low, high) = (shifts[rank], shifts[shifts.len() - 1 - rank]);
    let centre = f64::midpoint(shifts[(shifts.len() - 1) / 2], shifts[shifts.len() / 2]);
    // What the machine lost is not the code's fault; what it gained may hide a fault.
    let (low, high) = (low - drift.most.ln().max(0.0), high - drift.least.ln().min(0.0));
    let verdict = match () {
        () if low.exp_m1() >= judge.floor_share() => Verdict::Regressed,
        () if high.exp_m1() < judge.detect_share() => Verdict::Ok,
        () => Verdict::Inconclusive,
    };
    Row {
        name: name.to_owned(),
        samples: new.len(),
        change: centre.exp_m1(),
        low: low.exp_m1(),
        high: high.exp_m1(),
        p: upper_tail((above - middle - 0.5) / deviation),
        p_improved: upper_tail((middle - above - 0.5) / deviation),
        // Found nine times in ten: beyond the half-width, the floor and the drift.
        detectable: ((high - low) / 2.0 * 1.5 + drift.most.ln().max(0.0) - drift.least.ln().min(0.0)
            + judge.floor_share().ln_1p())
        .exp_m1(),
        verdict,
    }
}

/// The chance of a standard normal value above `z` (Abramowitz and Stegun 26.2.17, error below 1e-7).
fn upper_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let polynomial =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    ((-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * polynomial).clamp(0.0, 1.0)
}

/// The value below which a standard normal lies with this chance, by bisection.
fn normal_quantile(share: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if 1.0 - upper_tail(middle) < share { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::{normal_quantile, upper_tail};

    #[test]
    fn the_normal_distribution_is_the_one_in_the_tables() {
        for (z, tail) in [(0.0, 0.5), (1.0, 0.158_655), (1.96, 0.024_998), (2.326, 0.010_009), (-1.0, 0.841_345)] {
            assert!((upper_tail(z) - tail).abs() < 1e-5, "{z}: {}", upper_tail(z));
        }
        assert!((normal_quantile(0.99) - 2.326_35).abs() < 1e-4 && normal_quantile(0.5).abs() < 1e-6);
    }
}
