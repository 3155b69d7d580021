//! Rates that change: ramps, spikes and steps as one idea, a rate that is linear in pieces.
//!
//! Slot k is due when the curve has promised k arrivals, that is at the time t with Λ(t) = k, where Λ is the integral of
//! the rate. A Poisson process with a changing rate is the same with the unit process's arrival times in place of k
//! (time rescaling; Daley and Vere-Jones, *An Introduction to the Theory of Point Processes*, 2003, section 7.4).

use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::run::SeedStream;

use crate::units::Rate;

/// A rate over time, linear in pieces.
///
/// ```
/// use harness_load::arrival::Curve;
/// use harness_load::{per_second, secs};
///
/// let ramp = Curve::ramp(per_second(0), per_second(100), secs(10))?;
/// let due: Vec<_> = ramp.due_times().collect();
/// assert_eq!(due.len(), 500); // the area below the ramp
/// assert!(due[0..10].iter().all(|at| *at < secs(2)), "few in the beginning");
/// # harness_core::CoreResult::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pieces: Vec<Piece>,
}

/// Rates are per nanosecond, times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Piece {
    start: f64,
    length: f64,
    from: f64,
    to: f64,
    /// Arrivals promised before this piece.
    before: f64,
}

impl Piece {
    fn area(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.length
    }

    /// When, after its start, the piece has promised this many arrivals of its own. The form of the root that divides
    /// by a sum of positives loses no digits where the slope is small.
    fn time_of(&self, arrivals: f64) -> f64 {
        if arrivals <= 0.0 {
            return 0.0;
        }
        let slope = (self.to - self.from) / self.length;
        let root = (self.from * self.from + 2.0 * slope * arrivals).max(0.0).sqrt();
        2.0 * arrivals / (self.from + root)
    }
}

impl Curve {
    /// A rate that changes evenly. Either end may be zero, not both.
    ///
    /// # Errors
    /// `Config` for a rate that is negative, not a number or beyond a million per second, for two rates of zero, and for
    /// no length.
    pub fn ramp(from: Rate, to: Rate, length: Duration) -> CoreResult<Self> {
        Self { pieces: Vec::new() }.then_ramp(from, to, length)
    }

    /// Always the same rate.
    ///
    /// # Errors
    /// As [`Curve::ramp`].
    pub fn flat(rate: Rate, length: Duration) -> CoreResult<Self> {
        Self::ramp(rate, rate, length)
    }

    /// A rate, then suddenly `peak` for `width`, then the rate again, with `around` on either side.
    ///
    /// # Errors
    /// As [`Curve::ramp`].
    pub fn spike(rate: Rate, peak: Rate, around: Duration, width: Duration) -> CoreResult<Self> {
        Self::flat(rate, around)?.then_ramp(peak, peak, width)?.then_ramp(rate, rate, around)
    }

    /// A staircase: `steps` levels from one rate to another, both included, `each` long.
    ///
    /// # Errors
    /// As [`Curve::ramp`], and for fewer than two steps.
    pub fn steps(from: Rate, to: Rate, steps: u32, each: Duration) -> CoreResult<Self> {
        if steps < 2 {
            return Err(Error::new(ErrorKind::Config, format!("a staircase of {steps} steps leads nowhere"))
                .remedy("give it at least 2 steps, or hold one rate"));
        }
        let level = |n: u32| {
            let share = f64::from(n) / f64::from(steps - 1);
            crate::per_second(from.as_f64() + (to.as_f64() - from.as_f64()) * share)
        };
        let mut curve = Self { pieces: Vec::new() };
        for n in 0..steps {
            curve = curve.then_ramp(level(n), level(n), each)?;
        }
        Ok(curve)
    }

    /// The same curve, then a ramp.
    ///
    /// # Errors
    /// As [`Curve::ramp`].
    pub fn then_ramp(mut self, from: Rate, to: Rate, length: Duration) -> CoreResult<Self> {
        let zero_or_real = |rate: Rate| if rate.as_f64() == 0.0 { Ok(0) } else { rate.millionths() };
        let (low, high) = (zero_or_real(from)?, zero_or_real(to)?);
        if low == 0 && high == 0 {
            return Err(Error::new(ErrorKind::Config, "a ramp from 0/s to 0/s does nothing")
                .remedy("give one of its ends a rate above 0"));
        }
        if length.is_zero() {
            return Err(
                Error::new(ErrorKind::Config, "a piece of a rate has no length").remedy("give it more than zero time")
            );
        }
        let (start, before) =
            self.pieces.last().map_or((0.0, 0.0), |last| (last.start + last.length, last.before + last.area()));
        let per_nano = |millionths: u64| millionths as f64 / 1e15;
        let length = length.as_nanos() as f64;
        self.pieces.push(Piece { start, length, from: per_nano(low), to: per_nano(high), before });
        Ok(self)
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.pieces.last().map_or(Duration::ZERO, |last| nanos(last.start + last.length))
    }

    /// How many arrivals it promises.
    #[must_use]
    pub fn arrivals(&self) -> f64 {
        self.pieces.last().map_or(0.0, |last| last.before + last.area())
    }

    /// Even arrivals: the due times of slots 0, 1, 2, …
    pub fn due_times(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        self.clone().at_areas((0_u64..).map(|k| k as f64))
    }

    /// Arrivals of a Poisson process with this rate, drawn from the seed.
    pub fn poisson(&self, mut stream: SeedStream) -> impl Iterator<Item = Duration> + Send + use<> {
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let gaps = std::iter::repeat_with(move || -(1.0 - stream.unit()).ln());
        self.clone().at_areas(gaps.scan(0.0, |sum, gap| {
            *sum += gap;
            Some(*sum)
        }))
    }

    /// The times at which the promised arrivals reach these numbers, which rise; ends with the curve.
    fn at_areas(self, areas: impl Iterator<Item = f64> + Send) -> impl Iterator<Item = Duration> + Send {
        let mut piece = 0;
        // Rounding of a sum of many areas must not add a slot on the very end, which belongs to what follows.
        let end = self.arrivals() * (1.0 - 1e-12);
        areas.take_while(move |area| *area < end).filter_map(move |area| {
            while self.pieces.get(piece + 1).is_some_and(|next| area >= next.before * (1.0 - 1e-12)) {
                piece += 1;
            }
            let piece = self.pieces.get(piece)?;
            Some(nanos(piece.start + piece.time_of(area - piece.before).min(piece.length)))
        })
    }
}

fn nanos(nanos: f64) -> Duration {
    // Half a thousandth of a nanosecond: 5 ms must not become 4.999999 ms.
    Duration::from_nanos((nanos + 5e-4) as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::ErrorKind;
    use harness_core::run::Seed;

    use super::Curve;
    use crate::units::{millis, per_second, secs};

    #[test]
    fn flat_curve_is_constant_arrivals() {
        let flat: Vec<_> = Curve::flat(per_second(200), secs(5)).unwrap().due_times().collect();
        assert_eq!(flat.len(), 1_000);
        assert!(flat.iter().enumerate().all(|(k, at)| *at == millis(5) * k as u32));
    }

    /// From 0 to a over L the k-th slot is due at L · sqrt(k / N), N = a L / 2.
    #[test]
    fn ramp_follows_the_square_root() {
        let due: Vec<_> = Curve::ramp(per_second(0), per_second(100), secs(10)).unwrap().due_times().collect();
        assert_eq!(due.len(), 500);
        for (k, at) in due.iter().enumerate() {
            let expected = 10.0 * (k as f64 / 500.0).sqrt();
            assert!((at.as_secs_f64() - expected).abs() < 1e-8, "slot {k}: {at:?} instead of {expected}");
        }
        let down: Vec<_> = Curve::ramp(per_second(100), per_second(0), secs(10)).unwrap().due_times().collect();
        assert_eq!(down.len(), 500);
        assert!(down.is_sorted() && down[250] < secs(3), "half of them in the first 29 %: {:?}", down[250]);
    }

    #[test]
    fn spike_and_steps_hold_their_levels() {
        let spike = Curve::spike(per_second(10), per_second(100), secs(2), secs(1)).unwrap();
        let during = |from, to| spike.due_times().filter(|at| (secs(from)..secs(to)).contains(at)).count();
        assert_eq!([during(0, 2), during(2, 3), during(3, 5)], [20, 100, 20]);
        let steps = Curve::steps(per_second(10), per_second(40), 4, secs(1)).unwrap();
        let during = |n| steps.due_times().filter(|at| (secs(n)..secs(n + 1)).contains(at)).count();
        assert_eq!([during(0), during(1), during(2), during(3)], [10, 20, 30, 40]);
        assert_eq!((spike.length(), steps.length()), (secs(5), secs(4)));
    }

    #[test]
    fn poisson_on_a_ramp_has_the_ramps_counts() {
        let ramp = Curve::ramp(per_second(0), per_second(2_000), secs(20)).unwrap();
        let draw = |seed| ramp.poisson(Seed::new(seed).stream("a")).collect::<Vec<_>>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let times = draw(7);
        // Of 20,000 a quarter falls into the first half; deviations of five sigma.
        let early = times.iter().filter(|at| **at < secs(10)).count() as f64;
        assert!((times.len() as f64 - 20_000.0).abs() < 710.0 && (early - 5_000.0).abs() < 360.0, "{early}");
        assert!(times.is_sorted() && times.last().unwrap() < &secs(20));
    }

    #[test]
    fn nonsense_is_refused() {
        let rate = |number: f64| per_second(number);
        for curve in [
            Curve::ramp(rate(0.0), rate(0.0), secs(1)),
            Curve::ramp(rate(f64::NAN), rate(1.0), secs(1)),
            Curve::ramp(rate(-1.0), rate(1.0), secs(1)),
            Curve::ramp(rate(1.0), rate(1.0), Duration::ZERO),
            Curve::ramp(rate(1.0), rate(1e9), secs(1)),
            Curve::steps(rate(1.0), rate(2.0), 1, secs(1)),
            Curve::spike(rate(1.0), rate(2.0), Duration::ZERO, secs(1)),
        ] {
            assert_eq!(curve.unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
