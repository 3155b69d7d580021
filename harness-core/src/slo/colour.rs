//! Advisory colours: green, yellow within a tenth of the limit, red past it.

use std::fmt;

use super::amount::{SCALE, Unit};
use super::limit::Limit;
use super::measured::Measured;

/// How close a metric is to its target. Advice for people; decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Colour {
    /// On the right side with room to spare.
    Green,
    /// On the right side, within a tenth of the limit.
    Yellow,
    /// Past the limit.
    Red,
}

impl Colour {
    /// The worst of many. A missing colour (no evidence) is never green: without a red one the whole has none.
    #[must_use]
    pub fn worst(all: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        let all: Vec<_> = all.into_iter().collect();
        let worst = all.iter().flatten().max().copied();
        if all.contains(&None) && worst != Some(Self::Red) { None } else { worst }
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Red => "red",
        })
    }
}

/// The colour of a value against its target.
///
/// A share with a lower limit counts its complement: 95 % of success is 5 % of failure, and the band is a tenth of
/// those 5 %. Otherwise even 100 % would lie within a tenth of 95 %.
pub(super) fn of(target: &Limit, measured: &Measured) -> Option<Colour> {
    let order = measured.compare(target).ok()?;
    if !target.op().holds(order) {
        return Some(Colour::Red);
    }
    let (value, whole) = (target.value(), 100 * SCALE);
    let near = if target.op().is_ceiling() {
        // A limit of zero has no band: nothing lies below it.
        let edge = target.with_value(value - value / 10);
        value > 0 && measured.compare(&edge).ok()?.is_ge()
    } else if target.op().is_floor() {
        let band = if target.unit() == Unit::Percent { whole.saturating_sub(value) / 10 } else { value / 10 };
        band > 0 && measured.compare(&target.with_value(value + band)).ok()?.is_le()
    } else {
        false
    };
    Some(if near { Colour::Yellow } else { Colour::Green })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Colour::{self, Green, Red, Yellow};
    use crate::slo::{Measured, Threshold, Unit};

    fn colour(target: &str, measured: &Measured) -> Option<Colour> {
        Threshold::parse("m", target, None).unwrap_or_else(|error| panic!("{error:?}")).colour(measured)
    }

    fn ms(ms: u64) -> Measured {
        Measured::Quantile { q: 0.95, nanos: ms * 1_000_000, samples: 100 }
    }

    fn share(value: f64) -> Measured {
        Measured::Value { value, unit: Unit::Percent, samples: 100 }
    }

    #[test]
    fn bands_are_a_tenth_of_the_limit_and_of_the_complement_for_floors_of_shares() {
        for (target, measured, expected) in [
            ("< 250 ms", ms(224), Green),
            ("< 250 ms", ms(225), Yellow),
            ("< 250 ms", ms(226), Yellow),
            ("< 250 ms", ms(250), Red),
            ("<= 250 ms", ms(250), Yellow),
            (">= 100/s", Measured::Rate { count: 111, window: Duration::from_secs(1) }, Green),
            (">= 100/s", Measured::Rate { count: 110, window: Duration::from_secs(1) }, Yellow),
            (">= 100/s", Measured::Rate { count: 99, window: Duration::from_secs(1) }, Red),
            (">= 95 %", share(95.5), Yellow),
            (">= 95 %", share(95.51), Green),
            (">= 95 %", share(94.99), Red),
            ("> 80 %", share(82.0), Yellow),
            ("> 80 %", share(82.1), Green),
            ("> 80 %", share(80.0), Red),
            (">= 100 %", share(100.0), Green),
            ("< 80 %", share(71.9), Green),
            ("< 80 %", share(72.0), Yellow),
            ("0", Measured::count(0), Green),
            ("0", Measured::count(1), Red),
            ("<= 0", Measured::count(0), Green),
        ] {
            assert_eq!(colour(target, &measured), Some(expected), "{target} {measured:?}");
        }
    }

    #[test]
    fn the_worst_colour_wins_and_a_missing_one_is_not_green() {
        assert_eq!(Colour::worst([Some(Green), Some(Yellow)]), Some(Yellow));
        assert_eq!(Colour::worst([Some(Green), None, Some(Red)]), Some(Red));
        assert_eq!(Colour::worst([Some(Green), None]), None);
        assert_eq!(Colour::worst([]), None);
    }
}
