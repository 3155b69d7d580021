//! What came of a load, and holding it against gates.

use std::collections::BTreeMap;
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::record::CriterionRecord;
use harness_core::run::Seed;
use harness_core::slo::{Measured, Threshold};
use harness_props::Outcome;

use crate::arrival::Phase;
use crate::engine::{Cell, Driven, Plan, Second};
use crate::gate::{ANY, Gate, Stat};
use crate::generator::Generator;
use crate::table;
use crate::times::Times;

/// A finished load. Its `Display` is a table for people.
#[derive(Debug)]
pub struct LoadRun {
    pub(crate) phases: Vec<Phase>,
    pub(crate) starts: Vec<Duration>,
    pub(crate) flows: Vec<String>,
    pub(crate) cells: Vec<Vec<Cell>>,
    pub(crate) examples: BTreeMap<String, String>,
    pub(crate) seconds: Vec<Second>,
    pub(crate) steps: BTreeMap<(usize, &'static str), Times>,
    pub(crate) marks: Vec<(Duration, String)>,
    pub(crate) generator: Generator,
    pub(crate) peak_in_flight: usize,
    pub(crate) seed: Seed,
}

impl LoadRun {
    pub(crate) fn new(
        phases: Vec<Phase>,
        flows: Vec<String>,
        plan: &Plan,
        driven: Driven,
        marks: Vec<(Duration, String)>,
    ) -> Self {
        let Driven { books, steps, usage, pacing, .. } = driven;
        let measured =
            || books.cells.iter().zip(&phases).filter(|(_, phase)| phase.measured).flat_map(|(cells, _)| cells);
        let generator = Generator {
            pacing,
            due: measured().map(Cell::ended).sum(),
            picked_in_time: measured().map(|cell| cell.picked_in_time).sum(),
            lateness: Times::merged(measured().map(|cell| &cell.lateness)),
            usage,
        };
        Self {
            starts: (0..phases.len()).map(|phase| plan.schedule.phase_start(phase)).collect(),
            phases,
            flows,
            cells: books.cells,
            examples: books.examples,
            seconds: books.seconds,
            steps: steps.take(),
            marks,
            generator,
            peak_in_flight: books.peak_in_flight,
            seed: plan.seed,
        }
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
        self.steps.iter().find(|((of, step), _)| *of == flow && *step == name).map(|(_, times)| times)
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

    /// What a gate looks at, with the evidence behind it. The limits of the gate matter only where more than a million
    /// samples made quantiles inexact: a limit inside the remaining span is [`Measured::Nothing`].
    #[must_use]
    pub fn measured(&self, gate: &Gate) -> Measured {
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
            Stat::Throughput => Measured::Rate { count: sum(|cell| cell.completed_in_phase), window },
            Stat::Errors(kind) if kind == ANY => Measured::count(sum(Cell::errors_total)),
            Stat::Errors(kind) => Measured::count(cells.iter().filter_map(|cell| cell.errors.get(kind)).sum()),
            Stat::Timeouts => Measured::count(sum(|cell| cell.timeouts)),
            Stat::Dropped => Measured::count(sum(|cell| cell.dropped)),
            Stat::Unfinished => Measured::count(sum(|cell| cell.unfinished)),
        }
    }

    /// Judges gates without turning the verdict into an error.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a gate that means nothing.
    pub fn judge(&self, gates: impl IntoIterator<Item = Gate>) -> CoreResult<Judged> {
        let (mut rows, mut timed) = (Vec::new(), Vec::new());
        for gate in gates {
            let threshold = gate.threshold()?;
            let measured = self.measured(&gate);
            timed.extend(gate.timed());
            rows.push(Row { outcome: threshold.judge(&measured), measured, threshold });
        }
        let responses = self.cells.iter().zip(&self.phases).filter(|(_, phase)| phase.measured);
        let responses = Times::merged(responses.flat_map(|(cells, _)| cells).flat_map(both_responses));
        let p99 = Duration::from_nanos(responses.quantile(0.99).map_or(0, |span| span.high));
        let invalid = self.generator.was_the_limit(p99, &timed);
        let table = table::judged(self, &rows, invalid.as_deref());
        Ok(Judged { rows, invalid, table })
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
    if let Some(sorted) = times.exact_nanos() {
        return Measured::quantile(q, sorted);
    }
    let Some(span) = times.quantile(q).filter(|_| q > 0.0 && (1.0 - q) * times.len() as f64 >= 5.0) else {
        return Measured::nothing(format!("{} are too few samples for quantile {q}", times.len()));
    };
    let at = |nanos| Measured::Quantile { q, nanos, samples: times.len() };
    // A limit inside the span would be judged on a rounded figure.
    if let Ok(threshold) = gate.threshold()
        && threshold.judge(&at(span.low)).word() != threshold.judge(&at(span.high)).word()
    {
        return Measured::nothing(format!(
            "the quantile is too close to `{}` to tell; shorten the run",
            threshold.target()
        ));
    }
    at(span.high)
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
        Outcome::worst(self.rows.iter().map(|row| row.outcome.clone()))
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

    use harness_core::slo::Measured;

    use super::quantile;
    use crate::gate::p50;
    use crate::times::Times;
    use crate::units::millis;

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
