//! Gates that look at a sliding window while the load runs, and end it when it cannot come good any more.

use std::collections::VecDeque;
use std::time::Duration;

use harness_core::error::CoreResult;
use harness_core::monitor::Latest;
use harness_core::slo::{Measured, Op, Threshold, Unit};
use harness_core::wait::seconds;
use harness_props::Outcome;

use crate::coarse::Coarse;
use crate::engine::End;
use crate::gate::{ANY, Gate, Stat};
use crate::units::to_nanos;

/// Time between two looks, in nanoseconds: a breach that lasts is seen at most this much later.
pub(crate) const LOOK: u64 = 100_000_000;
/// A window moves in steps of a twentieth of it, and at least of a look.
const STEPS: u64 = 20;

/// What became of one slot.
#[derive(Debug)]
pub(crate) struct Seen<'e> {
    pub(crate) flow: u32,
    pub(crate) is_ok: bool,
    pub(crate) end: &'e End,
    /// Response in nanoseconds.
    pub(crate) spent: u64,
}

/// A gate at work.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) gate: Gate,
    threshold: Threshold,
    flow: Option<u32>,
    /// Responses from here on miss the target, or the critical limit.
    limits: Option<[u64; 2]>,
    window: Option<u64>,
    patience: Option<u64>,
    step: u64,
    begun: Option<u64>,
    /// Of the resource that is watched.
    unit: Option<Unit>,
    steps: VecDeque<Step>,
    sum: Step,
    breached_since: Option<u64>,
    worst: Option<(Outcome, Measured)>,
}

/// What ended in one step of the window.
#[derive(Debug, Clone, Default)]
struct Step {
    start: u64,
    ended: u64,
    ok: u64,
    matching: u64,
    /// Beyond the target and beyond the critical limit.
    beyond: [u64; 2],
    total_nanos: u128,
    /// What a resource was.
    level: f64,
    /// For people; the verdict comes from the exact counts.
    responses: Option<Box<Coarse>>,
}

impl Watch {
    /// A gate over a window, or one that may end the run.
    ///
    /// # Errors
    /// As [`Gate::threshold`].
    pub(crate) fn new(gate: &Gate, flows: &[String]) -> CoreResult<Self> {
        let threshold = gate.threshold()?;
        let flow = flows.iter().position(|flow| *flow == gate.flow).map(|flow| flow as u32);
        let window = gate.window.map(to_nanos);
        let limits = gate.time_limits().map(|(op, limits)| {
            // The first nanosecond that misses the limit.
            limits.map(|limit| to_nanos(limit).saturating_add(u64::from(op == Op::AtMost)))
        });
        Ok(Self {
            gate: gate.clone(),
            threshold,
            flow,
            limits,
            window,
            patience: gate.abort_after.map(to_nanos),
            step: window.map_or(LOOK, |window| (window / STEPS).max(LOOK)),
            begun: None,
            unit: None,
            steps: VecDeque::new(),
            sum: Step::new(0),
            breached_since: None,
            worst: None,
        })
    }

    pub(crate) fn flow(&self) -> Option<u32> {
        self.flow
    }

    /// From this age on an iteration misses the critical limit whatever becomes of it.
    pub(crate) fn beyond_nanos(&self) -> Option<u64> {
        self.limits.map(|[_, critical]| critical)
    }

    /// Counts what became of a slot of a measured phase.
    pub(crate) fn note(&mut self, now: u64, seen: &Seen<'_>) {
        if matches!(self.gate.stat, Stat::Resource(_)) {
            return;
        }
        self.begun.get_or_insert(now);
        if self.gate.flow != ANY && self.flow != Some(seen.flow) || self.gate.of_successes && !seen.is_ok {
            return;
        }
        let matching = match (&self.gate.stat, seen.end) {
            (Stat::Errors(kind), End::Error { kind: its, .. }) => kind == ANY || kind == its,
            (Stat::Timeouts, End::Timeout) | (Stat::Dropped, End::Dropped) | (Stat::Unfinished, End::Unfinished) => {
                true
            }
            _ => false,
        };
        let beyond = self.limits.map_or([false; 2], |limits| limits.map(|limit| seen.spent >= limit));
        if self.window.is_some() && self.steps.back().is_none_or(|step| now >= step.start + self.step) {
            self.steps.push_back(Step::new(now));
        }
        let wants_histogram = matches!(self.gate.stat, Stat::Quantile(_));
        for step in self.steps.back_mut().into_iter().chain([&mut self.sum]) {
            step.add(seen, matching, beyond, wants_histogram);
        }
    }

    /// Takes down what a watched resource is now; does nothing for gates on slots.
    pub(crate) fn see(&mut self, now: u64, latest: &Latest) {
        let Stat::Resource(series) = &self.gate.stat else { return };
        if self.window.is_none() {
            self.steps.clear();
        }
        let Some(reading) = latest.get(series) else { return };
        self.begun.get_or_insert(now);
        self.unit = Some(reading.unit);
        self.steps.push_back(Step { level: reading.value, ..Step::new(now) });
    }

    /// Judges the window that ends now, with those in flight that are already beyond the limit. Why the run must end,
    /// if it must.
    pub(crate) fn look(&mut self, now: u64, overdue: u64) -> Option<String> {
        let begun = self.begun?;
        while let Some(window) = self.window
            && self.steps.front().is_some_and(|step| step.start + self.step + window <= now)
        {
            if let Some(old) = self.steps.pop_front() {
                self.sum.subtract(&old);
            }
        }
        let is_full = self.window.is_none_or(|window| now.saturating_sub(begun) >= window);
        // A window that is not full yet proves nothing good; what it proves bad stands in the full ones, too.
        let (outcome, measured) = if is_full { self.judge(overdue) } else { return None };
        if outcome.is_no_evidence() {
            self.breached_since = None;
            return None;
        }
        let is_breach = matches!(outcome, Outcome::Fail { .. });
        if self.worst.as_ref().is_none_or(|(worst, _)| rank(&outcome) > rank(worst)) {
            self.worst = Some((outcome, measured.clone()));
        }
        if !is_breach {
            self.breached_since = None;
            return None;
        }
        let since = *self.breached_since.get_or_insert(now);
        let lasted = now - since;
        (self.patience? <= lasted).then(|| {
            format!(
                "`{}` was beyond its critical limit ({}, measured {}) for {}",
                self.gate.name(),
                self.threshold.critical_limit(),
                measured.display(),
                seconds(Duration::from_nanos(lasted)),
            )
        })
    }

    /// The last look, at the end of the run.
    pub(crate) fn end(&mut self, now: u64) {
        let _ended = self.look(now, 0);
    }

    /// The worst window with its verdict.
    pub(crate) fn row(&self) -> (Threshold, Measured, Outcome) {
        let missing = || {
            let over =
                self.gate.window.map_or_else(|| "phase".to_owned(), |window| format!("window of {}", seconds(window)));
            Measured::nothing(format!("no {over} had enough samples"))
        };
        match &self.worst {
            Some((outcome, measured)) => (self.threshold.clone(), measured.clone(), outcome.clone()),
            None => (self.threshold.clone(), missing(), self.threshold.judge(&missing())),
        }
    }

    fn judge(&self, overdue: u64) -> (Outcome, Measured) {
        let sum = &self.sum;
        let measured = match &self.gate.stat {
            Stat::Quantile(q) => self.quantile(*q, overdue),
            Stat::Mean => Measured::Mean { total_nanos: sum.total_nanos, samples: sum.ended },
            Stat::Success => Measured::share(sum.ok, sum.ended),
            Stat::Throughput | Stat::Achieved => match self.window {
                Some(window) => Measured::Rate { count: sum.ok, window: Duration::from_nanos(window) },
                None => Measured::nothing("a rate needs a window"),
            },
            Stat::Errors(_) | Stat::Timeouts | Stat::Dropped | Stat::Unfinished => Measured::count(sum.matching),
            Stat::Resource(series) => match self.unit.filter(|_| !self.steps.is_empty()) {
                Some(unit) => {
                    let samples = self.steps.len() as u64;
                    let total: f64 = self.steps.iter().map(|step| step.level).sum();
                    Measured::Value { value: total / samples as f64, unit, samples }
                }
                None => Measured::nothing(format!("`{series}` was not sampled")),
            },
            Stat::Reduction { .. } => Measured::nothing("what was saved is known at the end"),
        };
        (self.threshold.judge(&measured), measured)
    }

    /// The quantile for people, moved to the side of each limit that the exact counts say it is on.
    fn quantile(&self, q: f64, overdue: u64) -> Measured {
        let samples = self.sum.ended + overdue;
        if (samples as f64) < 5.0 / (1.0 - q) - 1e-6 {
            return Measured::nothing(format!("{samples} samples are too few"));
        }
        let Some([target, critical]) = self.limits else { return Measured::nothing("it has no limit on time") };
        let rank = (q * samples as f64 - 1e-9).ceil() as u64;
        let holds = self.sum.beyond.map(|beyond| samples.saturating_sub(beyond + overdue) >= rank);
        let shown = self.sum.responses.as_ref().map_or(0, |responses| responses.quantile(q) * 1_000);
        let nanos = match holds {
            [true, _] => shown.min(target.saturating_sub(1)),
            [false, true] => shown.clamp(target, critical.saturating_sub(1).max(target)),
            [false, false] => shown.max(critical),
        };
        Measured::Quantile { q, nanos, samples }
    }
}

impl Step {
    fn new(start: u64) -> Self {
        Self { start, ..Self::default() }
    }

    fn add(&mut self, seen: &Seen<'_>, matching: bool, beyond: [bool; 2], wants_histogram: bool) {
        self.ended += 1;
        self.ok += u64::from(seen.is_ok);
        self.matching += u64::from(matching);
        self.beyond[0] += u64::from(beyond[0]);
        self.beyond[1] += u64::from(beyond[1]);
        self.total_nanos += u128::from(seen.spent);
        if wants_histogram {
            self.responses.get_or_insert_default().record(seen.spent / 1_000);
        }
    }

    fn subtract(&mut self, old: &Self) {
        self.ended -= old.ended;
        self.ok -= old.ok;
        self.matching -= old.matching;
        self.beyond = [self.beyond[0] - old.beyond[0], self.beyond[1] - old.beyond[1]];
        self.total_nanos -= old.total_nanos;
        if let (Some(sum), Some(old)) = (&mut self.responses, &old.responses) {
            sum.subtract(old);
        }
    }
}

fn rank(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Fail { .. } => 2,
        Outcome::Degraded { .. } => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{LOOK, Seen, Watch};
    use crate::engine::End;
    use crate::gate::{ANY, Gate, p95, success_rate};
    use crate::units::{millis, secs, to_nanos};
    use harness_core::slo::percent;

    /// 100 per second for `length` seconds, each with the response of its time in seconds; the time of the end, if any.
    fn run(gate: &Gate, length: u64, response_ms: impl Fn(f64) -> u64) -> (Watch, Option<f64>) {
        let mut watch = Watch::new(gate, &["a".to_owned()]).unwrap();
        for n in 0..length * 100 {
            let now = n * 10_000_000;
            let spent = to_nanos(millis(response_ms(now as f64 / 1e9)));
            let is_ok = spent < to_nanos(secs(1));
            watch.note(now, &Seen { flow: 0, is_ok, end: if is_ok { &End::Ok } else { &End::Timeout }, spent });
            if now.is_multiple_of(LOOK) && watch.look(now, 0).is_some() {
                return (watch, Some(now as f64 / 1e9));
            }
        }
        (watch, None)
    }

    fn gate() -> Gate {
        p95(ANY).below(millis(100)).critical(millis(200)).over(secs(2)).abort_after(secs(1))
    }

    #[test]
    fn healthy_run_is_not_ended() {
        let (watch, ended) = run(&gate(), 10, |_| 99);
        assert!(ended.is_none() && watch.row().2.is_pass(), "{watch:?}");
    }

    /// From 5 s on everything is slow; 6 % of a 2 s window are so at 5.12 s, and a second later the run ends.
    #[test]
    fn lasting_breach_ends_the_run_within_a_look() {
        let (watch, ended) = run(&gate(), 20, |at| if at < 5.0 { 50 } else { 200 });
        let ended = ended.unwrap();
        assert!((6.1..6.4).contains(&ended), "{ended}");
        assert_eq!(watch.row().2.word(), "fail");
    }

    #[test]
    fn short_breach_fails_without_ending_the_run_and_a_whole_run_would_hide_it() {
        let slow = |at: f64| if (10.0..10.2).contains(&at) { 200 } else { 50 };
        let patient = gate().abort_after(secs(5));
        let (watch, ended) = run(&patient, 60, slow);
        assert!(ended.is_none());
        assert_eq!(watch.row().2.word(), "fail", "20 of 200 in one window");
        let whole = p95(ANY).below(millis(100)).critical(millis(200)).abort_after(secs(1));
        assert!(run(&whole, 60, slow).0.row().2.is_pass(), "20 of 6,000 in the whole run");
    }

    #[test]
    fn limits_are_exact_in_windows_too() {
        for (response, word) in [(99, "pass"), (100, "degraded"), (199, "degraded"), (200, "fail")] {
            assert_eq!(run(&gate().abort_after(secs(100)), 4, |_| response).0.row().2.word(), word, "{response} ms");
        }
    }

    #[test]
    fn those_in_flight_beyond_the_limit_count_before_they_end() {
        let mut watch = run(&gate(), 4, |_| 50).0;
        assert!(watch.look(to_nanos(secs(4)), 0).is_none() && watch.row().2.is_pass());
        assert!(watch.look(to_nanos(secs(4)) + LOOK, 50).is_none());
        assert_eq!(watch.row().2.word(), "fail", "50 hang");
    }

    #[test]
    fn success_share_and_missing_evidence() {
        let gate = success_rate().at_least(percent(95)).critical(percent(90)).over(secs(1)).abort_after(secs(1));
        let (watch, ended) = run(&gate, 10, |at| if at < 3.0 { 1 } else { 1_000 });
        assert!(ended.is_some_and(|at| (4.0..4.4).contains(&at)) && watch.row().2.word() == "fail", "{ended:?}");
        let (watch, _) = run(&gate.over(secs(60)), 10, |_| 1);
        assert!(watch.row().2.is_no_evidence(), "no window was ever full");
    }
}
