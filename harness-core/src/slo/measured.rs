//! A measured value with the evidence behind it.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::amount::{SCALE, Unit};
use super::limit::Limit;
use super::wide::compare_products;

/// What was measured. Counts stay counts, so that no comparison is made on a rounded figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "measured", rename_all = "snake_case")]
pub enum Measured {
    /// Nothing usable, and why; never a pass.
    Nothing {
        /// What is missing.
        why: String,
    },
    /// How many there were; zero is a count like any other.
    Count {
        /// How many.
        count: u64,
    },
    /// `hits` of `total`.
    Share {
        /// Those that count.
        hits: u64,
        /// All of them; zero is no evidence.
        total: u64,
    },
    /// A figure from elsewhere. It is compared as the decimal number it prints as.
    Value {
        /// The figure in the unit's canonical form (nanoseconds, bytes, per second, hundredths).
        value: f64,
        /// Its unit.
        unit: Unit,
        /// Number of samples behind it; zero is no evidence.
        samples: u64,
    },
    /// A quantile of durations.
    Quantile {
        /// Which one, in `(0, 1)`.
        q: f64,
        /// Nanoseconds.
        nanos: u64,
        /// Number of samples.
        samples: u64,
    },
    /// A mean of durations.
    Mean {
        /// Sum in nanoseconds.
        #[serde(with = "as_text")]
        total_nanos: u128,
        /// Number of samples.
        samples: u64,
    },
    /// Events over a time; zero events in a real window is evidence, an empty window is not.
    Rate {
        /// Events.
        count: u64,
        /// Time they were counted for.
        window: Duration,
    },
    /// The largest of sampled sizes.
    Bytes {
        /// Bytes.
        max: u64,
        /// Number of samples.
        samples: u64,
    },
}

/// 128-bit numbers as text: JSON readers that buffer a tagged record cannot carry them as numbers.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Measured {
    /// Nothing usable, and why.
    pub fn nothing(why: impl Into<String>) -> Self {
        Self::Nothing { why: why.into() }
    }

    /// A count.
    #[must_use]
    pub fn count(count: u64) -> Self {
        Self::Count { count }
    }

    /// `hits` of `total`.
    #[must_use]
    pub fn share(hits: u64, total: u64) -> Self {
        Self::Share { hits, total }
    }

    /// The `q` quantile of durations sorted in rising order, by nearest rank.
    ///
    /// At least `ceil(5 / (1 - q))` samples are needed, so that five lie beyond it: 100 for p95, 500 for p99. With
    /// fewer it is [`Measured::Nothing`].
    #[must_use]
    pub fn quantile(q: f64, sorted_nanos: &[u64]) -> Self {
        let name = quantile_name(q);
        if !(q > 0.0 && q < 1.0) {
            return Self::nothing(format!("{q} is not a quantile between 0 and 1"));
        }
        let samples = sorted_nanos.len();
        // The tolerance keeps 5 / (1 - 0.95), which floats put a hair above 100, at 100.
        let needed = (5.0 / (1.0 - q) - 1e-6).ceil() as usize;
        if samples < needed {
            return Self::nothing(format!("{name} needs {needed} samples, has {samples}"));
        }
        let rank = ((q * samples as f64 - 1e-9).ceil() as usize).clamp(1, samples);
        Self::Quantile { q, nanos: sorted_nanos[rank - 1], samples: samples as u64 }
    }

    /// A duration that samples gave, such as the longest of them.
    #[must_use]
    pub fn time(duration: Duration, samples: u64) -> Self {
        Self::Value { value: duration.as_nanos() as f64, unit: Unit::Time, samples }
    }

    /// The mean of durations in nanoseconds.
    #[must_use]
    pub fn mean(nanos: &[u64]) -> Self {
        Self::Mean { total_nanos: nanos.iter().map(|n| u128::from(*n)).sum(), samples: nanos.len() as u64 }
    }

    /// The number of samples behind it; a count is one sample.
    #[must_use]
    pub fn samples(&self) -> u64 {
        match self {
            Self::Nothing { .. } => 0,
            Self::Count { .. } => 1,
            Self::Share { total, .. } => *total,
            Self::Rate { count, .. } => *count,
            Self::Value { samples, .. }
            | Self::Quantile { samples, .. }
            | Self::Mean { samples, .. }
            | Self::Bytes { samples, .. } => *samples,
        }
    }

    /// What it is a number of; nothing has no unit.
    #[must_use]
    pub fn unit(&self) -> Option<Unit> {
        Some(match self {
            Self::Nothing { .. } => return None,
            Self::Count { .. } => Unit::Count,
            Self::Share { .. } => Unit::Percent,
            Self::Value { unit, .. } => *unit,
            Self::Quantile { .. } | Self::Mean { .. } => Unit::Time,
            Self::Rate { .. } => Unit::PerSecond,
            Self::Bytes { .. } => Unit::Bytes,
        })
    }

    /// The figure for people, with its unit; empty without evidence.
    #[must_use]
    pub fn display(&self) -> String {
        if self.missing().is_some() {
            return String::new();
        }
        match self {
            Self::Nothing { .. } => String::new(),
            Self::Count { count } => count.to_string(),
            Self::Share { hits, total } => {
                // Cut, not rounded: 94.96 % must not read as 95 %, nor 99.999 % as 100 %.
                let hundredths = u128::from(*hits) * 10_000 / u128::from(*total);
                format!("{}.{:02} % ({hits} of {total})", hundredths / 100, hundredths % 100)
            }
            Self::Value { value, unit, .. } => show(*value, *unit),
            Self::Quantile { nanos, .. } => show(*nanos as f64, Unit::Time),
            Self::Mean { total_nanos, samples } => show(*total_nanos as f64 / *samples as f64, Unit::Time),
            Self::Rate { count, window } => show(*count as f64 / window.as_secs_f64(), Unit::PerSecond),
            Self::Bytes { max, .. } => show(*max as f64, Unit::Bytes),
        }
    }

    /// Why this is no evidence, if it is none.
    pub(super) fn missing(&self) -> Option<String> {
        match self {
            Self::Nothing { why } => Some(why.clone()),
            Self::Share { hits, total } if hits > total => Some(format!("{hits} of {total} is not a share")),
            Self::Value { value, .. } if !value.is_finite() => Some(format!("the value is {value}")),
            Self::Rate { window, .. } if window.is_zero() => Some("the window of the rate is empty".to_owned()),
            Self::Rate { .. } => None,
            other if other.samples() == 0 => Some("no samples".to_owned()),
            _ => None,
        }
    }

    /// Compares with a limit's number, exactly; the reason when it cannot be compared.
    pub(super) fn compare(&self, limit: &Limit) -> Result<Ordering, String> {
        if let Some(why) = self.missing() {
            return Err(why);
        }
        if let Some(unit) = self.unit()
            && unit != limit.unit()
        {
            return Err(format!("{} was measured, but `{limit}` limits {}", unit.word(), limit.unit().word()));
        }
        let value = limit.value();
        Ok(match self {
            Self::Nothing { why } => return Err(why.clone()),
            Self::Count { count: n } | Self::Quantile { nanos: n, .. } | Self::Bytes { max: n, .. } => {
                (u128::from(*n) * SCALE).cmp(&value)
            }
            Self::Share { hits, total } => compare_products(u128::from(*hits), 100 * SCALE, value, u128::from(*total)),
            Self::Mean { total_nanos, samples } => compare_products(*total_nanos, SCALE, value, u128::from(*samples)),
            Self::Rate { count, window } => {
                let period_nanos = limit.period_s() * 1_000_000_000;
                compare_products(u128::from(*count) * SCALE, period_nanos, value, window.as_nanos())
            }
            Self::Value { value: figure, .. } => compare_decimal(*figure * limit.period_s() as f64, value),
        })
    }
}

impl From<&Measured> for Measured {
    fn from(measured: &Measured) -> Self {
        measured.clone()
    }
}

/// Compares a float, taken as the decimal number it prints as, with millionths.
fn compare_decimal(figure: f64, millionths: u128) -> Ordering {
    let text = figure.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    if whole.starts_with('-') && figure != 0.0 {
        return Ordering::Less;
    }
    let Ok(whole) = whole.trim_start_matches('-').parse::<u128>() else { return Ordering::Greater };
    let micro: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let rest = fraction.chars().skip(6).any(|digit| digit != '0');
    let number = whole.saturating_mul(SCALE).saturating_add(micro.parse().unwrap_or(0));
    number.cmp(&millionths).then(if rest { Ordering::Greater } else { Ordering::Equal })
}

/// `p95` for 0.95, `p99.9` for 0.999.
pub(super) fn quantile_name(q: f64) -> String {
    format!("p{}", (q * 100_000.0).round() / 1_000.0)
}

/// A figure in the unit a person would choose.
fn show(value: f64, unit: Unit) -> String {
    let steps: &[(f64, &str)] = match unit {
        Unit::Count => return trim(value),
        Unit::Percent => return format!("{} %", trim(value)),
        Unit::PerSecond => return format!("{}/s", trim(value)),
        Unit::Time => &[(60e9, "min"), (1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
        Unit::Bytes => &[(1_073_741_824.0, "GB"), (1_048_576.0, "MB"), (1_024.0, "KB"), (1.0, "B")],
    };
    let (factor, name) = steps.iter().find(|(factor, _)| value.abs() >= *factor).unwrap_or(&steps[steps.len() - 1]);
    format!("{} {name}", trim(value / factor))
}

/// At most three decimals, none of them a trailing zero.
fn trim(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;
    use std::time::Duration;

    use super::{Measured, compare_decimal};
    use crate::slo::Unit;

    #[test]
    fn a_quantile_needs_five_samples_beyond_it() {
        let nanos: Vec<u64> = (1..=1_000).collect();
        assert_eq!(Measured::quantile(0.95, &nanos), Measured::Quantile { q: 0.95, nanos: 950, samples: 1_000 });
        assert_eq!(Measured::quantile(0.99, &nanos[..500]), Measured::Quantile { q: 0.99, nanos: 495, samples: 500 });
        assert_eq!(Measured::quantile(0.99, &nanos[..499]), Measured::nothing("p99 needs 500 samples, has 499"));
        assert_eq!(Measured::quantile(0.95, &nanos[..99]), Measured::nothing("p95 needs 100 samples, has 99"));
        assert_eq!(Measured::quantile(0.95, &nanos[..100]).samples(), 100);
        assert_eq!(Measured::quantile(0.5, &nanos[..10]), Measured::Quantile { q: 0.5, nanos: 5, samples: 10 });
        assert_eq!(Measured::quantile(0.999, &[]), Measured::nothing("p99.9 needs 5000 samples, has 0"));
        for q in [0.0, 1.0, f64::NAN, -1.0] {
            assert!(matches!(Measured::quantile(q, &nanos), Measured::Nothing { .. }), "{q}");
        }
    }

    #[test]
    fn a_float_is_the_number_it_prints_as() {
        assert_eq!(compare_decimal(42.3, 42_300_000), Ordering::Equal);
        assert_eq!(compare_decimal(0.1 + 0.2, 300_000), Ordering::Greater);
        assert_eq!(compare_decimal(94.999_999_99, 95_000_000), Ordering::Less);
        assert_eq!(compare_decimal(-1.0, 0), Ordering::Less);
        assert_eq!(compare_decimal(-0.0, 0), Ordering::Equal);
        assert_eq!(compare_decimal(1e300, u128::MAX), Ordering::Greater);
        assert_eq!(compare_decimal(1e-300, 0), Ordering::Greater);
    }

    #[test]
    fn figures_read_well_and_never_round_a_share_up() {
        for (measured, text) in [
            (Measured::share(9_496, 10_000), "94.96 % (9496 of 10000)"),
            (Measured::share(99_999, 100_000), "99.99 % (99999 of 100000)"),
            (Measured::Quantile { q: 0.95, nanos: 238_000_000, samples: 1_000 }, "238 ms"),
            (Measured::mean(&[1_000_000, 2_000_000]), "1.5 ms"),
            (Measured::Rate { count: 1_050, window: Duration::from_secs(10) }, "105/s"),
            (Measured::Bytes { max: 512 << 20, samples: 3 }, "512 MB"),
            (Measured::Value { value: 42.3, unit: Unit::Percent, samples: 10 }, "42.3 %"),
            (Measured::count(0), "0"),
            (Measured::nothing("x"), ""),
            (Measured::share(0, 0), ""),
        ] {
            assert_eq!(measured.display(), text);
        }
    }

    #[test]
    fn survives_the_record_format() {
        for measured in [
            Measured::Mean { total_nanos: u128::MAX, samples: 3 },
            Measured::Rate { count: 3, window: Duration::from_millis(1) },
            Measured::count(3),
        ] {
            let text = serde_json::to_string(&measured).unwrap();
            assert_eq!(serde_json::from_str::<Measured>(&text).unwrap(), measured, "{text}");
        }
    }
}
