//! A target with a critical limit, and the three-way verdict.

use harness_props::Outcome;

use super::amount::{SCALE, Unit};
use super::colour::{self, Colour};
use super::limit::Limit;
use super::measured::Measured;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::record::CriterionRecord;

/// A metric's target and the limit beyond which it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a threshold does nothing until it judges a measured value"]
pub struct Threshold {
    metric: String,
    target: Limit,
    critical: Option<Limit>,
    resource: bool,
    decisive: bool,
    requirement: String,
}

impl Threshold {
    /// A threshold with a target only.
    ///
    /// Its critical limit is the target itself when it counts or proves something, and twice the target for a time, a
    /// size, or a share declared with [`Threshold::resource`].
    pub fn new(metric: impl Into<String>, target: Limit) -> Self {
        Self {
            metric: metric.into(),
            target,
            critical: None,
            resource: false,
            decisive: false,
            requirement: String::new(),
        }
    }

    /// Reads target and critical limit as written, for example `"< 250 ms"` and `Some("< 500 ms")`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a limit is malformed or the critical limit is not looser than the target.
    pub fn parse(metric: impl Into<String>, target: &str, critical: Option<&str>) -> CoreResult<Self> {
        let mut threshold = Self::new(metric, target.parse()?);
        threshold.critical = critical.map(str::parse).transpose()?;
        threshold.check()?;
        Ok(threshold)
    }

    /// Sets the critical limit.
    pub fn critical(mut self, limit: Limit) -> Self {
        self.critical = Some(limit);
        self
    }

    /// Declares the metric to be the use of a resource, such as CPU: critical is then twice the target, but never
    /// beyond 100 %.
    pub fn resource(mut self) -> Self {
        self.resource = true;
        self
    }

    /// Missing evidence for this metric forces NO-GO.
    pub fn decisive(mut self) -> Self {
        self.decisive = true;
        self
    }

    /// The requirement it answers.
    pub fn requirement(mut self, id: impl Into<String>) -> Self {
        self.requirement = id.into();
        self
    }

    /// The metric's name.
    #[must_use]
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// The target.
    #[must_use]
    pub fn target(&self) -> Limit {
        self.target
    }

    /// True if missing evidence forces NO-GO.
    #[must_use]
    pub fn is_decisive(&self) -> bool {
        self.decisive
    }

    /// The requirement it answers; empty if none.
    #[must_use]
    pub fn requirement_id(&self) -> &str {
        &self.requirement
    }

    /// The limit beyond which the metric fails.
    #[must_use]
    pub fn critical_limit(&self) -> Limit {
        let target = self.target;
        self.critical.unwrap_or_else(|| match target.unit() {
            Unit::Time | Unit::Bytes if target.op().is_ceiling() => target.with_value(target.value() * 2),
            Unit::Percent if self.resource && target.op().is_ceiling() => {
                let whole = SCALE * 100;
                target.with_value((target.value() * 2).min(whole.max(target.value())))
            }
            _ => target,
        })
    }

    /// Refuses a critical limit that a value could miss while it meets the target.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming both limits.
    pub fn check(&self) -> CoreResult {
        let critical = self.critical_limit();
        if self.target.implies(&critical) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "the critical limit `{critical}` of {} is not looser than its target `{}`",
                self.metric, self.target
            ),
        )
        .remedy("give both the same unit and direction, the critical limit the wider one"))
    }

    /// Judges a measured value: pass on target, degraded between target and critical, fail beyond, and no evidence
    /// when nothing was measured or units do not fit.
    #[must_use]
    pub fn judge(&self, measured: &Measured) -> Outcome {
        let (metric, target, critical) = (&self.metric, self.target, self.critical_limit());
        if let Err(error) = self.check() {
            return Outcome::no_evidence(error.what());
        }
        let (to_target, to_critical) = match (measured.compare(&target), measured.compare(&critical)) {
            (Ok(to_target), Ok(to_critical)) => (to_target, to_critical),
            (Err(why), _) | (_, Err(why)) => return Outcome::no_evidence(format!("{metric}: {why}")),
        };
        let actual = measured.display();
        if target.op().holds(to_target) {
            Outcome::pass(format!("{metric} {actual} ({target}; {} samples)", measured.samples()))
        } else if critical.op().holds(to_critical) {
            Outcome::degraded(format!("{metric} {actual}, target {target}, critical {critical}"))
        } else if critical == target {
            Outcome::fail(format!("{metric} {actual}, limit {target}"))
        } else {
            Outcome::fail(format!("{metric} {actual}, beyond critical {critical} (target {target})"))
        }
    }

    /// The advisory colour; nothing without evidence.
    #[must_use]
    pub fn colour(&self, measured: &Measured) -> Option<Colour> {
        colour::of(&self.target, measured)
    }

    /// Judges, and says it as a record of a scenario (empty for a row of a release matrix).
    #[must_use]
    pub fn record(&self, scenario: &str, measured: &Measured) -> CriterionRecord {
        CriterionRecord {
            scenario: scenario.to_owned(),
            metric: self.metric.clone(),
            requirement: self.requirement.clone(),
            target: self.target.to_string(),
            critical: self.critical_limit().to_string(),
            actual: measured.display(),
            samples: measured.samples(),
            outcome: self.judge(measured),
            is_critical: self.decisive,
            colour: self.colour(measured).map_or_else(String::new, |colour| colour.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Threshold;
    use crate::error::ErrorKind;
    use crate::slo::{Limit, Measured, Unit, percent};

    fn threshold(target: &str, critical: Option<&str>) -> Threshold {
        Threshold::parse("m", target, critical).unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn value(value: f64, unit: Unit) -> Measured {
        Measured::Value { value, unit, samples: 1 }
    }

    fn nanos(nanos: u64) -> Measured {
        Measured::Quantile { q: 0.95, nanos, samples: 1_000 }
    }

    fn rate(count: u64, seconds: u64) -> Measured {
        Measured::Rate { count, window: Duration::from_secs(seconds) }
    }

    /// Just inside, exactly on and just outside both limits, strictness as written.
    #[test]
    fn judges_boundaries_exactly_as_written() {
        let mb = 1_u64 << 20;
        let bytes = |max| Measured::Bytes { max, samples: 9 };
        for (target, critical, table) in [
            (
                "< 250 ms",
                Some("< 500 ms"),
                vec![
                    (nanos(249_999_999), "pass"),
                    (nanos(250_000_000), "degraded"),
                    (nanos(499_999_999), "degraded"),
                    (nanos(500_000_000), "fail"),
                ],
            ),
            ("<= 250 ms", None, vec![(nanos(250_000_000), "pass"), (nanos(250_000_001), "degraded")]),
            (
                ">= 95%",
                Some(">= 90 %"),
                vec![
                    (Measured::share(95, 100), "pass"),
                    (Measured::share(94, 100), "degraded"),
                    (Measured::share(9_496, 10_000), "degraded"),
                    (Measured::share(949_999_999, 1_000_000_000), "degraded"),
                    (Measured::share(90, 100), "degraded"),
                    (Measured::share(8_999, 10_000), "fail"),
                    (Measured::share(45, 47), "pass"),
                    (Measured::share(44, 47), "degraded"),
                    (Measured::share(42, 47), "fail"),
                ],
            ),
            (
                "> 80 %",
                Some("> 60 %"),
                vec![
                    (value(80.01, Unit::Percent), "pass"),
                    (value(80.0, Unit::Percent), "degraded"),
                    (value(60.01, Unit::Percent), "degraded"),
                    (value(60.0, Unit::Percent), "fail"),
                ],
            ),
            ("> 95 %", None, vec![(Measured::share(114, 119), "pass"), (Measured::share(113, 119), "fail")]),
            (
                ">= 100/s",
                Some(">= 50/s"),
                vec![
                    (rate(1_000, 10), "pass"),
                    (rate(999, 10), "degraded"),
                    (rate(500, 10), "degraded"),
                    (rate(499, 10), "fail"),
                    (rate(0, 10), "fail"),
                ],
            ),
            ("< 100/day", None, vec![(rate(99, 86_400), "pass"), (rate(100, 86_400), "fail"), (rate(0, 60), "pass")]),
            ("0", None, vec![(Measured::count(0), "pass"), (Measured::count(1), "fail")]),
            ("< 25", None, vec![(Measured::count(24), "pass"), (Measured::count(25), "fail")]),
            (
                "< 2 GB",
                None,
                vec![
                    (bytes(2_048 * mb - 1), "pass"),
                    (bytes(2_048 * mb), "degraded"),
                    (bytes(4_096 * mb - 1), "degraded"),
                    (bytes(4_096 * mb), "fail"),
                ],
            ),
            (
                "< 300 ms",
                None,
                vec![
                    (Measured::Mean { total_nanos: 899_999_999, samples: 3 }, "pass"),
                    (Measured::Mean { total_nanos: 900_000_000, samples: 3 }, "degraded"),
                    (Measured::Mean { total_nanos: 1_800_000_000, samples: 3 }, "fail"),
                ],
            ),
        ] {
            for (measured, word) in table {
                assert_eq!(threshold(target, critical).judge(&measured).word(), word, "{target} {measured:?}");
            }
        }
    }

    #[test]
    fn missing_evidence_never_passes() {
        let loose = threshold("<= 1000 h", None);
        for (threshold, measured) in [
            (&loose, Measured::nothing("no request was sent")),
            (&loose, Measured::mean(&[])),
            (&loose, Measured::Quantile { q: 0.5, nanos: 1, samples: 0 }),
            (&loose, Measured::count(1)),
            (&loose, value(f64::NAN, Unit::Time)),
            (&threshold(">= 0 %", None), Measured::share(0, 0)),
            (&threshold(">= 0 %", None), Measured::share(2, 1)),
            (&threshold(">= 0/s", None), rate(5, 0)),
            (&threshold("<= 9 GB", None), Measured::Bytes { max: 0, samples: 0 }),
        ] {
            assert!(threshold.judge(&measured).is_no_evidence(), "{measured:?}");
            assert_eq!(threshold.colour(&measured), None, "{measured:?}");
            assert_eq!(threshold.record("A1", &measured).colour, "");
        }
    }

    #[test]
    fn one_limit_is_critical_for_proofs_and_doubled_for_times_and_resources() {
        for (target, critical) in [
            ("0", "0"),
            ("< 25", "< 25"),
            (">= 95 %", ">= 95 %"),
            (">= 100/s", ">= 100/s"),
            ("< 250 ms", "< 500 ms"),
            ("> 5 s", "> 5 s"),
            ("< 2 GB", "< 4 GB"),
            ("< 80 %", "< 80 %"),
        ] {
            assert_eq!(threshold(target, None).critical_limit().to_string(), critical, "{target}");
        }
        assert_eq!(threshold("< 80 %", None).resource().critical_limit().to_string(), "< 100 %");
        assert_eq!(threshold("< 30 %", None).resource().critical_limit().to_string(), "< 60 %");
        assert_eq!(threshold("< 180 %", None).resource().critical_limit().to_string(), "< 180 %");
    }

    #[test]
    fn refuses_a_critical_limit_stricter_than_the_target() {
        for critical in ["< 100 ms", "> 500 ms", "< 500"] {
            let error = Threshold::parse("p95", "< 250 ms", Some(critical)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{critical}");
            assert!(error.what().contains("p95") && error.what().contains(critical), "{error}");
        }
        let built = Threshold::new("p", Limit::at_least(percent(95))).critical(Limit::at_least(percent(99)));
        assert!(built.judge(&Measured::share(100, 100)).is_no_evidence());
    }
}
