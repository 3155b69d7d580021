//! A run as evidence for the judges: of a breakpoint search, of an overload, of a recovery, of a baseline.

use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::slo::Measured;

use crate::arrival::Phase;
use crate::baseline::Runs;
use crate::breakpoint::{Observed, Overload, Recovery, Spike, recovery};
use crate::engine::Cell;
use crate::gate::Gate;
use crate::run::LoadRun;
use crate::times::Times;

impl LoadRun {
    /// This run as one probe of a [`breakpoint`](crate::breakpoint) search: its rates, its p95, and what the gates say of it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a gate that means nothing; [`ErrorKind::NoEvidence`] for one without evidence, since a
    /// rate that nothing was judged at was not held.
    pub fn observed(&self, gates: impl IntoIterator<Item = Gate>) -> CoreResult<Observed> {
        let judged = self.judge(gates)?;
        let seconds = self.measured_length().as_secs_f64().max(1e-9);
        let cells = || self.measured_cells();
        let started: u64 = cells().map(|cell| cell.picked_in_time).sum();
        let completed: u64 = cells().map(|cell| cell.completed_in_phase).sum();
        let service: u128 = cells().map(|cell| cell.service.total_nanos()).sum();
        let responses = Times::merged(cells().flat_map(|cell| [&cell.response_ok, &cell.response_failed]));
        let latency = Duration::from_nanos(responses.quantile(0.95).map_or(0, |span| span.high));
        let mut observed = Observed::held(started as f64 / seconds, completed as f64 / seconds, latency);
        observed.in_flight = Some(service as f64 / 1e9 / seconds);
        if let Some(why) = judged.invalid() {
            return Ok(observed.generator(why));
        }
        let outcome = judged.outcome();
        match outcome.word() {
            "pass" | "degraded" => Ok(observed),
            "fail" => Ok(observed.broke(outcome.detail())),
            _ => Err(Error::new(ErrorKind::NoEvidence, "a probe judged nothing").tried(outcome.detail())),
        }
    }

    /// What a phase beyond the capacity did, against the best goodput seen below it. `refusals` are the kinds of errors
    /// with which the system turns requests away, such as `status 503`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a phase that is not there.
    pub fn overload(&self, phase: &str, peak: f64, refusals: &[&str]) -> CoreResult<Overload> {
        let n = self.phase(phase)?;
        let (cells, seconds) = (&self.cells[n], self.phases[n].length.as_secs_f64().max(1e-9));
        let sum = |of: &dyn Fn(&Cell) -> u64| cells.iter().map(of).sum::<u64>();
        let refused = |cell: &Cell| refusals.iter().filter_map(|kind| cell.errors.get(*kind)).sum();
        let failures = Times::merged(cells.iter().map(|cell| &cell.response_failed));
        Ok(Overload {
            peak,
            goodput: sum(&|cell| cell.completed_in_phase) as f64 / seconds,
            offered: sum(&Cell::ended) as f64 / seconds,
            failed: sum(&Cell::failed),
            refused: sum(&refused),
            // Of all failures: those that are no refusals are judged by their number, and are rarely quicker.
            refusal_p99: Duration::from_nanos(failures.quantile(0.99).map_or(0, |span| span.high)),
        })
    }

    /// Whether latency came back after a phase, second by second: a [`Spike`] that ended when the phase did. Seconds
    /// before it are those of measured phases; one in which nothing succeeded counts as endless.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a phase that is not there.
    pub fn recovery(&self, phase: &str, factor: f64, steady: usize, limit: Duration) -> CoreResult<Recovery> {
        let n = self.phase(phase)?;
        let (begun, ended) = (self.starts[n], self.starts[n] + self.phases[n].length);
        let is_measured = |at: Duration| {
            let during = self.starts.iter().zip(&self.phases).find(|(start, phase)| at < **start + phase.length);
            during.is_some_and(|(_, phase)| phase.measured)
        };
        let width = Duration::from_secs(self.interval);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (index, second) in self.seconds.iter().enumerate().filter(|(_, second)| second.due > 0) {
            let at = width * index as u32;
            let p95 = second.response.as_ref().filter(|_| second.ok > 0);
            let p95 = p95.map_or(f64::INFINITY, |response| response.quantile(0.95) as f64 / 1e3);
            match at {
                at if at + width <= begun && is_measured(at) => before.push(p95),
                at if at >= ended => after.push((at, p95)),
                _ => {} // the spike itself, and a second that is partly it
            }
        }
        Ok(recovery(&before, &after, Spike { ended, factor, steady, limit }))
    }

    fn phase(&self, name: &str) -> CoreResult<usize> {
        self.phases.iter().position(|phase| phase.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.phases.iter().map(|phase| phase.name.as_str()).collect();
            Error::new(ErrorKind::Config, format!("there is no phase `{name}`, only {}", known.join(", ")))
        })
    }

    fn measured_phases(&self) -> impl Iterator<Item = (&Phase, &Vec<Cell>)> {
        self.phases.iter().zip(&self.cells).filter(|(phase, _)| phase.measured)
    }

    fn measured_cells(&self) -> impl Iterator<Item = &Cell> {
        self.measured_phases().flat_map(|(_, cells)| cells)
    }

    fn measured_length(&self) -> Duration {
        self.measured_phases().map(|(phase, _)| phase.length).sum()
    }
}

impl Runs {
    /// The figures of gates on time (`p95("buy")`, `mean(ANY)`), one per run, to be kept or compared as a baseline.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when a run has no figure for a gate; [`ErrorKind::Config`] for a gate that is not about
    /// time, since less must be better.
    pub fn of_loads<'r>(
        runs: impl IntoIterator<Item = &'r LoadRun>,
        gates: impl IntoIterator<Item = Gate>,
    ) -> CoreResult<Self> {
        let runs: Vec<&LoadRun> = runs.into_iter().collect();
        gates.into_iter().try_fold(Self::default(), |all, gate| {
            let figures = runs.iter().map(|run| nanos(run, &gate)).collect::<CoreResult<Vec<f64>>>()?;
            Ok(all.and(gate.name(), figures))
        })
    }
}

fn nanos(run: &LoadRun, gate: &Gate) -> CoreResult<f64> {
    match run.measured(gate) {
        Measured::Quantile { nanos, .. } => Ok(nanos as f64),
        Measured::Mean { total_nanos, samples } if samples > 0 => Ok(total_nanos as f64 / samples as f64),
        Measured::Nothing { why } => {
            Err(Error::new(ErrorKind::NoEvidence, format!("a run has no `{}`: {why}", gate.name())))
        }
        _ => Err(Error::new(ErrorKind::Config, format!("`{}` is not a time", gate.name()))
            .remedy("keep quantiles and means in a baseline")),
    }
}
