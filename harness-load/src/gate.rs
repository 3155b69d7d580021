//! Gates: what a run is held against.

use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::slo::{Amount, Limit, Op, Percent, Threshold, Unit};
use harness_core::wait::seconds;

use crate::compare::Better;
use crate::generator::Timed;
use crate::units::Rate;

/// The number in a limit: a duration, a share, a rate or a count.
#[derive(Debug, Clone, Copy)]
pub struct Bound(Kind);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Amount(Amount),
    Time(Duration),
    Rate(Rate),
}

impl Bound {
    fn limit(self, op: Op) -> CoreResult<Limit> {
        let rate = match self.0 {
            Kind::Amount(amount) => return Ok(Limit::new(op, amount)),
            Kind::Time(duration) => return Ok(Limit::new(op, duration)),
            Kind::Rate(rate) => rate,
        };
        rate.millionths()?;
        let sign = match op {
            Op::Below => "<",
            Op::AtMost => "<=",
            Op::Above => ">",
            Op::AtLeast => ">=",
            Op::Exactly => "=",
        };
        format!("{sign} {rate}").parse()
    }
}

impl From<Amount> for Bound {
    fn from(amount: Amount) -> Self {
        Self(Kind::Amount(amount))
    }
}

impl From<Duration> for Bound {
    fn from(duration: Duration) -> Self {
        Self(Kind::Time(duration))
    }
}

impl From<Percent> for Bound {
    fn from(share: Percent) -> Self {
        Self(Kind::Amount(share.into()))
    }
}

impl From<u64> for Bound {
    fn from(count: u64) -> Self {
        Self(Kind::Amount(count.into()))
    }
}

impl From<Rate> for Bound {
    fn from(rate: Rate) -> Self {
        Self(Kind::Rate(rate))
    }
}

/// A flow name that means all flows together.
pub const ANY: &str = "*";

/// What a gate looks at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stat {
    Quantile(f64),
    Mean,
    Success,
    Throughput,
    Achieved,
    Errors(String),
    Timeouts,
    Dropped,
    Unfinished,
    /// The largest value of a watched series.
    Resource(String),
    /// What was saved of something, of all classes or one.
    Reduction {
        what: String,
        class: Option<String>,
    },
}

impl Stat {
    /// Which direction is good, of what runs can be compared by: counts and resources have no ratio.
    pub(crate) fn better(&self) -> Option<Better> {
        match self {
            Self::Quantile(_) | Self::Mean => Some(Better::Lower),
            Self::Success | Self::Throughput | Self::Achieved => Some(Better::Higher),
            _ => None,
        }
    }

    pub(crate) fn is_share(&self) -> bool {
        matches!(self, Self::Success | Self::Achieved)
    }
}

/// A statistic with its limits, for [`LoadRun::check`](crate::LoadRun::check): `p95("buy").below(millis(250))`.
///
/// A gate binds to the measured phases unless [`Gate::phase`] names one. Latencies are response times, counted from
/// when an iteration was *due*, over everything that was due: failures and timeouts with the time they took, dropped
/// slots with at least the time limit.
#[derive(Debug, Clone)]
#[must_use = "a gate does nothing until a run is checked against it"]
pub struct Gate {
    pub(crate) stat: Stat,
    pub(crate) flow: String,
    pub(crate) phase: Option<String>,
    pub(crate) of_service: bool,
    pub(crate) of_successes: bool,
    pub(crate) window: Option<Duration>,
    pub(crate) abort_after: Option<Duration>,
    pub(crate) least_samples: Option<u64>,
    target: Option<(Op, Bound)>,
    critical: Option<Bound>,
}

/// The median response of a flow ([`ANY`] for all).
pub fn p50(flow: impl Into<String>) -> Gate {
    percentile(50.0, flow)
}

/// The 95th percentile of responses of a flow; needs 100 samples.
pub fn p95(flow: impl Into<String>) -> Gate {
    percentile(95.0, flow)
}

/// The 99th percentile of responses of a flow; needs 500 samples.
pub fn p99(flow: impl Into<String>) -> Gate {
    percentile(99.0, flow)
}

/// Any percentile of responses by nearest rank: `percentile(99.9, "buy")`. Five samples must lie beyond it.
pub fn percentile(percent: f64, flow: impl Into<String>) -> Gate {
    Gate::new(Stat::Quantile(percent / 100.0)).flow(flow)
}

/// The mean response of a flow, failures included (see [`Gate::of_successes`]).
pub fn mean(flow: impl Into<String>) -> Gate {
    Gate::new(Stat::Mean).flow(flow)
}

/// Successes among all that was due, of all flows (see [`Gate::flow`]).
pub fn success_rate() -> Gate {
    Gate::new(Stat::Success)
}

/// Successes that ended within the measured phases, per second.
pub fn throughput() -> Gate {
    Gate::new(Stat::Throughput)
}

/// The share of due slots that the generator took up in time: `achieved_rate().at_least(percent(99))`.
pub fn achieved_rate() -> Gate {
    Gate::new(Stat::Achieved)
}

/// The number of errors of a kind ([`ANY`] for all kinds); panics are of kind `panic`.
pub fn errors(kind: impl Into<String>) -> Gate {
    Gate::new(Stat::Errors(kind.into()))
}

/// The number of iterations cancelled at their time limit.
pub fn timeouts() -> Gate {
    Gate::new(Stat::Timeouts)
}

/// The number of slots that were never started because too many were in flight.
pub fn dropped() -> Gate {
    Gate::new(Stat::Dropped)
}

/// The number of iterations without an end when the drain was over.
pub fn unfinished() -> Gate {
    Gate::new(Stat::Unfinished)
}

/// The largest value of a series that [`Load::watch`](crate::Load::watch) samples, in any unit:
/// `resource("service rss").below(mebibytes(2_048))`. With [`Gate::over`] the worst mean of a window, which is how a share of
/// processor time is meant.
pub fn resource(series: impl Into<String>) -> Gate {
    Gate::new(Stat::Resource(series.into()))
}

/// The share saved of what [`Iteration::used`](crate::Iteration::used) counted, weighted by what was really asked:
/// `reduction("tokens").at_least(percent(40))`.
pub fn reduction(what: impl Into<String>) -> Gate {
    Gate::new(Stat::Reduction { what: what.into(), class: None })
}

impl Gate {
    fn new(stat: Stat) -> Self {
        Self {
            stat,
            flow: ANY.to_owned(),
            phase: None,
            of_service: false,
            of_successes: false,
            window: None,
            abort_after: None,
            least_samples: None,
            target: None,
            critical: None,
        }
    }

    /// Looks at one flow only.
    pub fn flow(mut self, flow: impl Into<String>) -> Self {
        self.flow = flow.into();
        self
    }

    /// Looks at one class of a [`reduction`] only; changes no other gate.
    pub fn class(mut self, name: impl Into<String>) -> Self {
        if let Stat::Reduction { class, .. } = &mut self.stat {
            *class = Some(name.into());
        }
        self
    }

    /// Looks at one phase only, measured or not: `warm-up` or `hold`.
    pub fn phase(mut self, phase: impl Into<String>) -> Self {
        self.phase = Some(phase.into());
        self
    }

    /// Looks at service times, from the start of the closure, instead of responses. Hides queueing: for diagnosis.
    pub fn of_service(mut self) -> Self {
        self.of_service = true;
        self
    }

    /// Leaves failures out of a latency.
    pub fn of_successes(mut self) -> Self {
        self.of_successes = true;
        self
    }

    /// Says a percentile from `n` samples on, as a fixed number of consecutive requests asks for, and from fewer nothing. Without
    /// this five samples have to lie beyond a percentile; p99 of a hundred is the second slowest, and says as little.
    pub fn from_samples(mut self, n: u64) -> Self {
        self.least_samples = Some(n.max(1));
        self
    }

    /// Looks at a sliding window instead of the whole phase: the worst full window counts. Only for gates given with
    /// [`Load::gate`](crate::Load::gate), since windows are watched while the load runs.
    pub fn over(mut self, window: Duration) -> Self {
        self.window = Some(window);
        self
    }

    /// Ends the run once the critical limit has been missed for this long without a break, at most 0.2 s later. Only for
    /// gates given with [`Load::gate`](crate::Load::gate).
    pub fn abort_after(mut self, breach: Duration) -> Self {
        self.abort_after = Some(breach);
        self
    }

    /// The target, as `<`.
    pub fn below(self, limit: impl Into<Bound>) -> Self {
        self.target(Op::Below, limit)
    }

    /// The target, as `<=`.
    pub fn at_most(self, limit: impl Into<Bound>) -> Self {
        self.target(Op::AtMost, limit)
    }

    /// The target, as `>`.
    pub fn above(self, limit: impl Into<Bound>) -> Self {
        self.target(Op::Above, limit)
    }

    /// The target, as `>=`.
    pub fn at_least(self, limit: impl Into<Bound>) -> Self {
        self.target(Op::AtLeast, limit)
    }

    /// The target, as `=`.
    pub fn exactly(self, limit: impl Into<Bound>) -> Self {
        self.target(Op::Exactly, limit)
    }

    /// The limit beyond which the gate fails, compared like the target. Without it: the target for counts, shares and
    /// rates, twice the target for times.
    pub fn critical(mut self, limit: impl Into<Bound>) -> Self {
        self.critical = Some(limit.into());
        self
    }

    fn target(mut self, op: Op, limit: impl Into<Bound>) -> Self {
        self.target = Some((op, limit.into()));
        self
    }

    /// The metric's name in tables: `p95 buy`, `success rate`, `errors panic`.
    #[must_use]
    pub fn name(&self) -> String {
        let what = match &self.stat {
            Stat::Quantile(q) => format!("p{}", (q * 1e5).round() / 1e3),
            Stat::Mean => "mean".to_owned(),
            Stat::Success => "success rate".to_owned(),
            Stat::Throughput => "throughput".to_owned(),
            Stat::Achieved => "achieved rate".to_owned(),
            Stat::Errors(kind) if kind == ANY => "errors".to_owned(),
            Stat::Errors(kind) => format!("errors `{kind}`"),
            Stat::Timeouts => "timeouts".to_owned(),
            Stat::Dropped => "dropped".to_owned(),
            Stat::Unfinished => "unfinished".to_owned(),
            Stat::Resource(series) => series.clone(),
            Stat::Reduction { what, class: None } => format!("{what} saved"),
            Stat::Reduction { what, class: Some(class) } => format!("{what} saved {class}"),
        };
        let parts = [
            (self.flow != ANY).then_some(self.flow.as_str()),
            self.of_service.then_some("(service)"),
            self.of_successes.then_some("(successes)"),
            self.phase.as_deref(),
        ];
        let name = parts.into_iter().flatten().fold(what, |name, part| format!("{name} {part}"));
        match self.window {
            Some(window) => format!("{name} over {}", seconds(window)),
            None => name,
        }
    }

    /// The threshold this gate stands for.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] without a target, for a limit that cannot be, of another unit than the statistic, or
    /// for a critical limit that is stricter than the target.
    pub fn threshold(&self) -> CoreResult<Threshold> {
        let refuse = |why: String| Error::new(ErrorKind::Config, format!("gate `{}`: {why}", self.name()));
        let Some((op, target)) = self.target else {
            return Err(
                refuse("it has no limit".to_owned()).remedy("add `.below(millis(250))` or `.at_least(percent(95))`")
            );
        };
        let limit = |bound: Bound| {
            let limit = bound.limit(op)?;
            match self.unit() {
                Some(unit) if limit.unit() != unit => {
                    Err(refuse(format!("`{limit}` limits {}, it measures {}", limit.unit().word(), unit.word())))
                }
                _ => Ok(limit),
            }
        };
        let is_watched = self.window.is_some() || self.abort_after.is_some();
        if is_watched && matches!(self.stat, Stat::Reduction { .. }) {
            return Err(
                refuse("what was saved is known at the end".to_owned()).remedy("leave out `.over` and `.abort_after`")
            );
        }
        let mut threshold = Threshold::new(self.name(), limit(target)?);
        if let Some(critical) = self.critical {
            threshold = threshold.critical(limit(critical)?);
        }
        threshold.check()?;
        Ok(threshold)
    }

    /// What a gate on time looks at: the quantile and its target. A mean is moved by any iteration, so it counts as p99.
    pub(crate) fn timed(&self) -> Option<Timed> {
        let Some((_, Bound(Kind::Time(limit)))) = self.target.filter(|_| self.unit() == Some(Unit::Time)) else {
            return None;
        };
        let quantile = if let Stat::Quantile(q) = self.stat { q } else { 0.99 };
        Some(Timed { quantile, limit })
    }

    /// The limits on time, target and critical, and how they are compared.
    pub(crate) fn time_limits(&self) -> Option<(Op, [Duration; 2])> {
        let Some((op, Bound(Kind::Time(target)))) = self.target.filter(|_| self.unit() == Some(Unit::Time)) else {
            return None;
        };
        let critical = match self.critical {
            Some(Bound(Kind::Time(critical))) => critical,
            _ => target.saturating_mul(2),
        };
        Some((op, [target, critical]))
    }

    /// True if the verdict depends on how fast code runs, and not only on counts.
    pub(crate) fn is_about_speed(&self) -> bool {
        matches!(self.unit(), Some(Unit::Time | Unit::PerSecond))
    }

    /// None for a resource, which has the unit of its series.
    fn unit(&self) -> Option<Unit> {
        Some(match self.stat {
            Stat::Quantile(_) | Stat::Mean => Unit::Time,
            Stat::Success | Stat::Achieved | Stat::Reduction { .. } => Unit::Percent,
            Stat::Throughput => Unit::PerSecond,
            Stat::Errors(_) | Stat::Timeouts | Stat::Dropped | Stat::Unfinished => Unit::Count,
            Stat::Resource(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use harness_core::ErrorKind;
    use harness_core::slo::percent;

    use super::{ANY, errors, p95, p99, success_rate, throughput};
    use crate::units::{millis, per_second};

    #[test]
    fn gates_say_their_name_and_limits() {
        let gate = p95("buy").of_service().phase("warm-up").below(millis(250)).critical(millis(500));
        let threshold = gate.threshold().unwrap();
        assert_eq!(threshold.metric(), "p95 buy (service) warm-up");
        assert_eq!(format!("{} {}", threshold.target(), threshold.critical_limit()), "< 250 ms < 500 ms");
        assert_eq!(errors("panic").at_most(0).threshold().unwrap().target().to_string(), "<= 0");
        assert_eq!(throughput().at_least(per_second(12.5)).threshold().unwrap().target().to_string(), ">= 12.5/s");
    }

    #[test]
    fn gates_that_mean_nothing_are_refused() {
        for gate in [
            p99(ANY),
            p99(ANY).below(percent(5)),
            success_rate().at_least(millis(5)),
            throughput().at_least(per_second(f64::NAN)),
            p95(ANY).below(millis(250)).critical(millis(100)),
            p95(ANY).below(millis(250)).critical(percent(100)),
        ] {
            assert_eq!(gate.threshold().unwrap_err().kind(), ErrorKind::Config, "{gate:?}");
        }
    }
}
