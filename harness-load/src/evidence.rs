//! A run as evidence for the judges: of a breakpoint search, of an overload, of a recovery, of a baseline.

use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::slo::{Measured, Percent};

use crate::arrival::Phase;
use crate::baseline::{Runs, Saved};
use crate::breakpoint::{Observed, Overload, Recovery, Spike, recovery};
use crate::compare::Better;
use crate::engine::Cell;
use crate::gate::Gate;
use crate::run::LoadRun;
use crate::times::Times;
use crate::units::per_second;

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
    /// The figures of gates, one per run, to be kept or compared as a baseline: times (`p95("buy")`, `mean(ANY)`), of which
    /// less is better, and throughput and shares, of which more is.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when a run has no figure for a gate; [`ErrorKind::Config`] for a gate on a count or on a
    /// resource, whose normal is no ratio.
    pub fn of_loads<'r>(
        runs: impl IntoIterator<Item = &'r LoadRun>,
        gates: impl IntoIterator<Item = Gate>,
    ) -> CoreResult<Self> {
        let runs: Vec<&LoadRun> = runs.into_iter().collect();
        gates.into_iter().try_fold(Self::default(), |all, gate| {
            let figures = runs.iter().map(|run| figure(run, &gate)).collect::<CoreResult<Vec<f64>>>()?;
            Ok(match gate.stat.better() {
                Some(Better::Higher) => all.and_more(gate.name(), figures),
                _ => all.and(gate.name(), figures),
            })
        })
    }
}

impl Saved {
    /// The gate with the limit that normal operation keeps: for a time the worst stored run and a margin (0.2 for 20 %), for
    /// throughput the worst less a margin. Of a share what is missing to the whole is widened: from a normal of 99 % and a
    /// margin of 0.5 comes 98.5 %, and from 100 % comes 100 %.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] for a gate whose metric is not stored; [`ErrorKind::Config`] for one that
    /// [`Runs::of_loads`] does not keep, and for a margin that is none.
    pub fn gate(&self, gate: Gate, margin: f64) -> CoreResult<Gate> {
        let name = gate.name();
        let Some(better) = gate.stat.better() else { return Err(not_kept(&name)) };
        let Some(worst) = self.worst(&name, better) else {
            return Err(Error::new(ErrorKind::NoEvidence, format!("the baseline holds no `{name}`"))
                .remedy("save runs with this metric first"));
        };
        if !(margin.is_finite() && margin > -1.0) {
            return Err(Error::new(ErrorKind::Config, format!("a limit cannot have a margin of {margin}"))
                .remedy("give a share such as 0.2"));
        }
        Ok(match (better, gate.stat.is_share()) {
            (Better::Lower, _) => gate.at_most(Duration::from_nanos((worst * (1.0 + margin)).ceil() as u64)),
            (Better::Higher, false) => gate.at_least(per_second(worst * (1.0 - margin))),
            (Better::Higher, true) => {
                let share = (1.0 - (1.0 - worst).max(0.0) * (1.0 + margin)).clamp(0.0, 1.0);
                // Rounded down to the sixth digit, so that the worst stored run itself keeps a margin of nothing.
                gate.at_least(format!("{:.6}", (share * 1e8).floor() / 1e6).parse::<Percent>()?)
            }
        })
    }
}

fn not_kept(name: &str) -> Error {
    Error::new(ErrorKind::Config, format!("`{name}` is no time, no throughput and no share"))
        .remedy("keep quantiles, means, throughput and rates of success in a baseline")
}

fn figure(run: &LoadRun, gate: &Gate) -> CoreResult<f64> {
    if gate.stat.better().is_none() {
        return Err(not_kept(&gate.name()));
    }
    match run.measured(gate) {
        Measured::Quantile { nanos, .. } => Ok(nanos as f64),
        Measured::Mean { total_nanos, samples } if samples > 0 => Ok(total_nanos as f64 / samples as f64),
        Measured::Rate { count, window } if !window.is_zero() => Ok(count as f64 / window.as_secs_f64()),
        Measured::Share { hits, total } if total > 0 => Ok(hits as f64 / total as f64),
        Measured::Nothing { why } => {
            Err(Error::new(ErrorKind::NoEvidence, format!("a run has no `{}`: {why}", gate.name())))
        }
        _ => Err(Error::new(ErrorKind::NoEvidence, format!("a run has no figure of `{}`", gate.name()))),
    }
}
