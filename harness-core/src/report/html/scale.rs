//! Axes: nice ticks and the way from values to pixels.

use crate::report::text::trimmed;

/// One axis.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    from_px: f64,
    to_px: f64,
    percentile: bool,
    /// Values and labels of its ticks.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// A linear axis over whole steps of 1, 2 or 5 times a power of ten, about `steps` of them.
    pub(super) fn linear(low: f64, high: f64, steps: f64, pixels: (f64, f64), snap: bool) -> Self {
        let span = if high > low { high - low } else { low.abs().max(1.0) };
        let step = nice_step(span / steps);
        let (low, high) = if snap {
            ((low / step).floor() * step, (low.max(low + span) / step).ceil() * step)
        } else {
            (low, low + span)
        };
        let first = (low / step - 1e-9).ceil() as i64;
        let last = (high / step + 1e-9).floor() as i64;
        let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let ticks = (first..=last.min(first + 24)).map(|n| {
            let value = n as f64 * step;
            (value, tick_label(value, decimals))
        });
        Self { low, high, from_px: pixels.0, to_px: pixels.1, percentile: false, ticks: ticks.collect() }
    }

    /// A percentile axis that gives each further nine the same room.
    pub(super) fn percentile(low: f64, high: f64, pixels: (f64, f64)) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let ticks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999].into_iter().filter(|p| (low..=high).contains(p));
        let ticks = ticks.map(|p| (p, trimmed(p, 3))).collect();
        Self { low: nines(low), high: nines(high), from_px: pixels.0, to_px: pixels.1, percentile: true, ticks }
    }

    /// The pixel of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = if self.percentile { nines(value) } else { value };
        let share = (value - self.low) / (self.high - self.low);
        self.from_px + share.clamp(-0.01, 1.01) * (self.to_px - self.from_px)
    }
}

/// How many nines a percentile has: 90 is 1, 99 is 2; 100 counts as 99.999.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile.clamp(0.0, 99.999) / 100.0).log10()
}

fn nice_step(rough: f64) -> f64 {
    let magnitude = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * magnitude >= rough * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * magnitude
}

fn tick_label(value: f64, decimals: usize) -> String {
    match value.abs() {
        big if big >= 1e9 => format!("{}G", trimmed(value / 1e9, 2)),
        big if big >= 1e6 => format!("{}M", trimmed(value / 1e6, 2)),
        big if big >= 1e4 => format!("{}k", trimmed(value / 1e3, 2)),
        _ => trimmed(value, decimals),
    }
}

#[cfg(test)]
mod tests {
    use super::Axis;

    fn labels(low: f64, high: f64) -> String {
        let axis = Axis::linear(low, high, 4.0, (0.0, 100.0), true);
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(0.0, 238.0), "0 100 200 300");
        assert_eq!(labels(0.0, 1.0), "0 0.5 1");
        assert_eq!(labels(0.0, 0.037), "0 0.01 0.02 0.03 0.04");
        assert_eq!(labels(0.0, 84_000.0), "0 50k 100k");
        assert_eq!(labels(0.0, 0.0), "0 0.5 1");
        assert_eq!(labels(7.0, 7.0).split(' ').count(), 5);
    }

    #[test]
    fn each_nine_has_the_same_room() {
        let axis = Axis::percentile(0.0, 99.99, (0.0, 400.0));
        for (p, px) in [(0.0, 0.0), (90.0, 100.0), (99.0, 200.0), (99.99, 400.0)] {
            assert!((axis.at(p) - px).abs() < 0.01, "{p}: {}", axis.at(p));
        }
    }
}
