//! What came of a load, and holding it against gates.

use std::collections::BTreeMap;
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::monitor::Watched;
use harness_core::record::CriterionRecord;
use harness_core::run::Seed;
use harness_core::slo::{Measured, Threshold};
use harness_core::wait::seconds;
use harness_props::Outcome;

use crate::arrival::Phase;
use crate::engine::{Cell, Driven, Noted, Plan, Second};
use crate::gate::{ANY, Gate, Stat};
use crate::generator::Generator;
use crate::table;
use crate::times::Times;
use crate::tokens::Reduction;
use crate::watch::Watch;

/// A finished load. Its `Display` is a table for people.
#[derive(Debug)]
pub struct LoadRun {
    pub(crate) phases: Vec<Phase>,
    pub(crate) starts: Vec<Duration>,
    /// How long each phase was to last.
    pub(crate) asked: Vec<Duration>,
    /// The most iterations that were wanted, if that many ended.
    pub(crate) ended_by_count: Option<u64>,
    pub(crate) flows: Vec<String>,
    pub(crate) cells: Vec<Vec<Cell>>,
    pub(crate) examples: BTreeMap<String, String>,
    pub(crate) seconds: Vec<Second>,
    pub(crate) noted: Noted,
    pub(crate) watched: Option<Watched>,
    pub(crate) marks: Vec<(Duration, String)>,
    pub(crate) generator: Generator,
    pub(crate) peak_in_flight: usize,
    pub(crate) seed: Seed,
    pub(crate) interval: u64,
    pub(crate) gates: Vec<Gate>,
    pub(crate) watches: Vec<Watch>,
    pub(crate) warnings: Vec<String>,
    pub(crate) aborted: Option<(Duration, String)>,
    pub(crate) unoptimised: bool,
}

impl LoadRun {
    pub(crate) fn new(
        (mut phases, flows): (Vec<Phase>, Vec<String>),
        plan: &Plan,
        driven: Driven,
        (gates, marks, warnings): (Vec<Gate>, Vec<(Duration, String)>, Vec<String>),
        watched: Option<Watched>,
    ) -> Self {
        let Driven { books, noted, usage, pacing, clock_reads, shortened, watches, aborted, .. } = driven;
        let asked = phases.iter().map(|phase| phase.length).collect();
        let ended: u64 = books.cells.iter().flatten().map(Cell::ended).sum();
        let mut starts = Vec::with_capacity(phases.len());
        let mut end = Duration::ZERO;
        for (phase, shortened) in phases.iter_mut().zip(shortened.iter().scan(0, |before, sum| {
            let here = sum - *before;
            *before = *sum;
            Some(Duration::from_nanos(here))
        })) {
            starts.push(end);
            phase.length = phase.length.saturating_sub(shortened);
            if let Some((at, _)) = &aborted {
                phase.length = phase.length.min(at.saturating_sub(end));
            }
            end += phase.length;
        }
        let measured =
            || books.cells.iter().zip(&phases).filter(|(_, phase)| phase.measured).flat_map(|(cells, _)| cells);
        let generator = Generator {
            pacing,
            due: measured().map(Cell::ended).sum(),
            picked_in_time: measured().map(|cell| cell.picked_in_time).sum(),
            lateness: Times::merged(measured().map(|cell| &cell.lateness)),
            clock_reads,
            usage,
        };
        Self {
            starts,
            asked,
            ended_by_count: plan.most.filter(|most| ended >= *most),
            phases,
            flows,
            cells: books.cells,
            examples: books.examples,
            seconds: books.seconds,
            interval: books.interval,
            noted,
            watched,
            marks,
            generator,
            peak_in_flight: books.peak_in_flight,
            seed: plan.seed,
            gates,
            watches,
            warnings,
            aborted,
            unoptimised: cfg!(unoptimised),
        }
    }

    /// Why the run was ended before its time, and when: a gate with [`Gate::abort_after`] was breached for so long.
    #[must_use]
    pub fn aborted(&self) -> Option<(Duration, &str)> {
        self.aborted.as_ref().map(|(at, why)| (*at, why.as_str()))
    }

    /// Whether every measured phase lasted as long as it was to, within a fiftieth. A run that ended early, by a gate or by
    /// [`Load::at_most`](crate::Load::at_most), is no evidence for the length that was asked for.
    #[must_use]
    pub fn complete(&self) -> Outcome {
        let measured = || self.phases.iter().zip(&self.asked).filter(|(phase, _)| phase.measured);
        if let Some(most) = self.ended_by_count {
            return Outcome::no_evidence(format!("incomplete: the run ended after {most} iterations"));
        }
        if let Some((phase, asked)) = measured().find(|(phase, asked)| phase.length * 50 < **asked * 49) {
            let why = self.aborted().map(|(_, why)| format!(": {why}")).unwrap_or_default();
            let (lasted, asked) = (phase.length.as_secs_f64(), asked.as_secs_f64());
            return Outcome::no_evidence(format!(
                "incomplete: `{}` lasted {lasted:.1} s of {asked:.1} s{why}",
                phase.name
            ));
        }
        match measured().map(|(phase, _)| phase.length).sum::<Duration>() {
            Duration::ZERO => Outcome::no_evidence("nothing was measured"),
            length => Outcome::pass(format!("measured for {:.1} s, as asked", length.as_secs_f64())),
        }
    }

    /// What the machine might have run out of, said before the start.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The names of the phases with their lengths as they came to be.
    pub fn phases(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.phases.iter().map(|phase| (phase.name.as_str(), phase.length))
    }

    /// The seed that replays arrivals, flows and random data.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// What the generator says about itself.
    #[must_use]
    pub fn generator(&self) -> &Generator {
        &self.generator
    }

    /// The most iterations in flight at once, as the client saw it.
    #[must_use]
    pub fn peak_in_flight(&self) -> usize {
        self.peak_in_flight
    }

    /// The books of one flow in one phase; none for a name that is not there.
    #[must_use]
    pub fn cell(&self, phase: &str, flow: &str) -> Option<&Cell> {
        let phase = self.phases.iter().position(|known| known.name == phase)?;
        let flow = self.flows.iter().position(|known| known == flow)?;
        self.cells.get(phase)?.get(flow)
    }

    /// The first message of each kind of error.
    #[must_use]
    pub fn error_examples(&self) -> &BTreeMap<String, String> {
        &self.examples
    }

    /// How long a named step of a flow took in the measured phases.
    #[must_use]
    pub fn step(&self, flow: &str, name: &str) -> Option<&Times> {
        let flow = self.flows.iter().position(|known| known == flow)?;
        self.noted.steps.iter().find(|((of, step), _)| *of == flow && *step == name).map(|(_, times)| times)
    }

    /// What was used of something against what the dearer way would have used, as [`Iteration::used`](crate::Iteration::used)
    /// counted it in the measured phases.
    #[must_use]
    pub fn reduction(&self, what: &str) -> Option<&Reduction> {
        self.noted.used.get(what)
    }

    /// What the samplers of [`Load::watch`](crate::Load::watch) saw, warm-up and cool-down included; none without any.
    #[must_use]
    pub fn watched(&self) -> Option<&Watched> {
        self.watched.as_ref()
    }

    /// The cells a gate looks at with the time they cover; an error text for names that are not there.
    fn cells_of(&self, gate: &Gate) -> Result<(Vec<&Cell>, Duration), String> {
        if gate.flow != ANY && !self.flows.contains(&gate.flow) {
            return Err(format!("there is no flow `{}`, only {}", gate.flow, self.flows.join(", ")));
        }
        let in_phase = |phase: &&Phase| gate.phase.as_ref().map_or(phase.measured, |name| *name == phase.name);
        if let Some(name) = &gate.phase
            && !self.phases.iter().any(|phase| phase.name == *name)
        {
            return Err(format!("there is no phase `{name}`"));
        }
        let length = self.phases.iter().filter(in_phase).map(|phase| phase.length).sum();
        let phases = self.cells.iter().zip(&self.phases).filter(|(_, phase)| in_phase(phase));
        let cells = phases.flat_map(|(cells, _)| cells.iter().zip(&self.flows));
        Ok((cells.filter(|(_, flow)| gate.flow == ANY || gate.flow == **flow).map(|(cell, _)| cell).collect(), length))
    }

    /// What a gate looks at, with the evidence behind it. The limits of the gate matter only where more than 65,536
    /// samples made quantiles inexact: a limit inside the remaining span is [`Measured::Nothing`].
    #[must_use]
    pub fn measured(&self, gate: &Gate) -> Measured {
        match &gate.stat {
            Stat::Resource(series) => {
                let nothing = || Measured::nothing("nothing was watched: add `.watch(..)` to the load");
                return self.watched.as_ref().map_or_else(nothing, |watched| watched.peak(series));
            }
            Stat::Reduction { what, class } => {
                let Some(used) = self.reduction(what) else {
                    return Measured::nothing(format!("no iteration said what it used of `{what}`"));
                };
                return class.as_ref().map_or_else(|| used.overall(), |class| used.class(class));
            }
            _ => {}
        }
        let (cells, window) = match self.cells_of(gate) {
            Ok(found) => found,
            Err(why) => return Measured::nothing(why),
        };
        let sum = |of: fn(&Cell) -> u64| cells.iter().map(|cell| of(cell)).sum::<u64>();
        let due = sum(Cell::ended);
        if due == 0 {
            return Measured::nothing("nothing was due");
        }
        match &gate.stat {
            Stat::Quantile(q) => quantile(*q, &latencies(&cells, gate), gate),
            Stat::Mean => {
                let times = latencies(&cells, gate);
                Measured::Mean { total_nanos: times.total_nanos(), samples: times.len() }
            }
            Stat::Success => Measured::share(sum(|cell| cell.ok), due),
            Stat::Achieved => Measured::share(sum(|cell| cell.picked_in_time), due),
            Stat::Throughput => Measured::Rate { count: sum(|cell| cell.completed_in_phase), window },
            Stat::Errors(kind) if kind == ANY => Measured::count(sum(Cell::errors_total)),
            Stat::Errors(kind) => Measured::count(cells.iter().filter_map(|cell| cell.errors.get(kind)).sum()),
            Stat::Timeouts => Measured::count(sum(|cell| cell.timeouts)),
            Stat::Dropped => Measured::count(sum(|cell| cell.dropped)),
            Stat::Unfinished => Measured::count(sum(|cell| cell.unfinished)),
            Stat::Resource(_) | Stat::Reduction { .. } => Measured::nothing("no count of slots"), // judged above
        }
    }

    /// Judges gates without turning the verdict into an error.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a gate that means nothing.
    pub fn judge(&self, gates: impl IntoIterator<Item = Gate>) -> CoreResult<Judged> {
        let (mut rows, mut timed) = (Vec::new(), Vec::new());
        for gate in self.gates.iter().cloned().chain(gates) {
            timed.extend(gate.timed());
            rows.push(self.row(&gate)?);
        }
        let responses = self.cells.iter().zip(&self.phases).filter(|(_, phase)| phase.measured);
        let responses = Times::merged(responses.flat_map(|(cells, _)| cells).flat_map(both_responses));
        let p99 = Duration::from_nanos(responses.quantile(0.99).map_or(0, |span| span.high));
        let invalid = self.generator.was_the_limit(p99, &timed);
        let table = table::judged(self, &rows, invalid.as_deref());
        let aborted = self.aborted.as_ref().map(|(at, why)| format!("ended after {}: {why}", seconds(*at)));
        Ok(Judged { rows, invalid, aborted, table })
    }

    fn row(&self, gate: &Gate) -> CoreResult<Row> {
        let threshold = gate.threshold()?;
        if self.unoptimised && gate.is_about_speed() {
            let why = "skipped: harness-load was built at opt-level 0, where speed is the compiler's; add \
                       `[profile.dev.package.harness-load] opt-level = 2` or run with --release";
            let measured = Measured::nothing(why);
            return Ok(Row { outcome: threshold.judge(&measured), measured, threshold });
        }
        if gate.window.is_some() {
            let watch = self.watches.iter().find(|watch| watch.gate.name() == gate.name());
            if let Some((threshold, measured, outcome)) = watch.map(Watch::row) {
                return Ok(Row { threshold, measured, outcome });
            }
            let measured = Measured::nothing("a gate over a window must be given with `.gate(..)` before the run");
            return Ok(Row { outcome: threshold.judge(&measured), measured, threshold });
        }
        let measured = self.measured(gate);
        Ok(Row { outcome: threshold.judge(&measured), measured, threshold })
    }

    /// Holds the run against gates: `Ok` when every gate is a pass or degraded, else an error with the whole table.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when a gate fails; [`ErrorKind::NoEvidence`] when a gate has nothing to judge, when
    /// there is no gate, and, beginning with `invalid:`, when the generator was the limit, since no number of such a
    /// run is the system's; [`ErrorKind::Config`] for a gate that means nothing.
    pub fn check(&self, gates: impl IntoIterator<Item = Gate>) -> CoreResult<Judged> {
        let judged = self.judge(gates)?;
        judged.error().map_or(Ok(judged), Err)
    }
}

fn both_responses(cell: &Cell) -> [&Times; 2] {
    [&cell.response_ok, &cell.response_failed]
}

fn latencies(cells: &[&Cell], gate: &Gate) -> Times {
    match (gate.of_service, gate.of_successes) {
        (true, _) => Times::merged(cells.iter().map(|cell| &cell.service)),
        (false, true) => Times::merged(cells.iter().map(|cell| &cell.response_ok)),
        (false, false) => Times::merged(cells.iter().copied().flat_map(both_responses)),
    }
}

fn quantile(q: f64, times: &Times, gate: &Gate) -> Measured {
    if let Some(least) = gate.least_samples {
        return match times.quantile(q).filter(|_| q > 0.0 && q < 1.0 && times.len() >= least) {
            Some(span) => Measured::Quantile { q, nanos: span.high, samples: times.len() },
            None => Measured::nothing(format!("{least} samples are asked for, there are {}", times.len())),
        };
    }
    let measured = times.measured(q);
    let at = |nanos| Measured::Quantile { q, nanos, samples: times.len() };
    // A limit inside the span of an inexact figure would be judged on a rounded one.
    if times.exact_nanos().is_none()
        && matches!(measured, Measured::Quantile { .. })
        && let Some(span) = times.quantile(q)
        && let Ok(threshold) = gate.threshold()
        && threshold.judge(&at(span.low)).word() != threshold.judge(&at(span.high)).word()
    {
        return Measured::nothing(format!(
            "the quantile is too close to `{}` to tell; shorten the run",
            threshold.target()
        ));
    }
    measured
}

/// One gate, what was measured, and the conclusion.
#[derive(Debug, Clone)]
pub struct Row {
    /// The limits.
    pub threshold: Threshold,
    /// What was measured.
    pub measured: Measured,
    /// The conclusion.
    pub outcome: Outcome,
}

/// A run held against gates. Its `Display` is the table.
#[derive(Debug, Clone)]
pub struct Judged {
    rows: Vec<Row>,
    invalid: Option<String>,
    aborted: Option<String>,
    table: String,
}

impl Judged {
    /// The gates in the order given.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Why the generator was the limit, if it was; no row can be trusted then.
    #[must_use]
    pub fn invalid(&self) -> Option<&str> {
        self.invalid.as_deref()
    }

    /// The worst of all gates; no evidence when the run is invalid or there was no gate.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if let Some(why) = &self.invalid {
            return Outcome::no_evidence(format!("invalid: {why}"));
        }
        match &self.aborted {
            Some(why) => Outcome::fail(why.clone()),
            None => Outcome::worst(self.rows.iter().map(|row| row.outcome.clone())),
        }
    }

    /// The rows as criteria of a scenario, ready to be recorded. Of an invalid run none has evidence.
    #[must_use]
    pub fn criteria(&self, scenario: &str) -> Vec<CriterionRecord> {
        let measured = |row: &Row| match &self.invalid {
            Some(why) => Measured::nothing(format!("invalid: {why}")),
            None => row.measured.clone(),
        };
        self.rows.iter().map(|row| row.threshold.record(scenario, &measured(row))).collect()
    }

    /// Refuses degraded gates too.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the table when a gate is degraded, else as [`LoadRun::check`].
    pub fn strict(self) -> CoreResult<Self> {
        if let Some(error) = self.error() {
            return Err(error);
        }
        match self.outcome() {
            Outcome::Degraded { why } => {
                Err(self.report(ErrorKind::Assertion, &format!("the load missed a target: {why}")))
            }
            _ => Ok(self),
        }
    }

    fn error(&self) -> Option<Error> {
        match self.outcome() {
            Outcome::Fail { witness } => {
                Some(self.report(ErrorKind::Assertion, &format!("the load failed: {witness}")))
            }
            Outcome::NoEvidence { why } if self.invalid.is_some() => Some(
                self.report(ErrorKind::NoEvidence, &why)
                    .remedy("run it alone, on a machine with an idle core, in release, or lower the rate"),
            ),
            Outcome::NoEvidence { why } => {
                Some(self.report(ErrorKind::NoEvidence, &format!("the load proves nothing: {why}")))
            }
            _ => None,
        }
    }

    fn report(&self, kind: ErrorKind, what: &str) -> Error {
        Error::new(kind, format!("{what}\n{}", self.table.trim_end()))
    }
}

impl std::fmt::Display for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.table)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::ErrorKind;
    use harness_core::slo::{Measured, percent};

    use super::quantile;
    use crate::gate::{ANY, errors, mean, p50, success_rate, throughput};
    use crate::load::Load;
    use crate::times::Times;
    use crate::units::{millis, per_second, secs};

    /// Counts mean the same at any speed; times and rates of unoptimised code are no evidence.
    #[tokio::test(start_paused = true)]
    async fn unoptimised_build_skips_gates_on_speed_and_no_others() {
        let load = Load::open(per_second(100)).hold(secs(2)).flow("a", 1, async |_| Ok::<(), String>(()));
        let mut run = load.run().await.unwrap();
        let speed = || [p50(ANY).below(secs(9)), mean(ANY).below(secs(9)), throughput().at_least(per_second(1))];
        let counts = || [success_rate().at_least(percent(95)), errors(ANY).exactly(0)];
        run.unoptimised = false;
        assert!(run.check(speed().into_iter().chain(counts())).is_ok());
        run.unoptimised = true;
        for row in run.judge(speed()).unwrap().rows() {
            assert!(row.outcome.is_no_evidence() && row.outcome.detail().contains("opt-level 0"), "{row:?}");
        }
        assert!(run.check(counts()).is_ok());
        assert_eq!(run.check(speed()).unwrap_err().kind(), ErrorKind::NoEvidence);
    }

    /// Inexact times are never judged on a rounded figure: the limit is clearly beyond them, or there is no evidence.
    #[test]
    fn limit_inside_an_inexact_quantile_is_no_evidence() {
        let mut times = Times::with_exact_limit(10);
        (0..1_000).for_each(|_| times.record(Duration::from_nanos(250_000_123)));
        let span = times.quantile(0.5).unwrap();
        assert!(span.low < 250_000_000 && 250_000_123 <= span.high, "{span:?}");
        let measured = |limit| quantile(0.5, &times, &p50("*").below(limit).critical(millis(900)));
        assert!(matches!(measured(millis(250)), Measured::Nothing { .. }));
        for limit in [millis(249), millis(251)] {
            assert_eq!(measured(limit), Measured::Quantile { q: 0.5, nanos: span.high, samples: 1_000 });
        }
        assert!(matches!(quantile(0.999, &times, &p50("*")), Measured::Nothing { .. }), "one sample beyond p99.9");
    }
}
