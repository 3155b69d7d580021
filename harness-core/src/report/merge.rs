//! From records to a [`Model`]: a pure fold over the lines.

use std::collections::BTreeSet;

use harness_props::Outcome;
use jiff::Timestamp;

use super::downsample::downsample;
use super::model::{
    Attempt, Decision, Evidence, Model, Phase, Plot, RESULTS_SCHEMA, RunFacts, Scenario, ScopeRow, Series, Stamp, Torn,
    Totals,
};
use super::{panel, ticket};
use crate::record::{CriterionRecord, Event, Finding, Line, PanelRecord, Records, ScenarioRecord, SeriesRecord};

/// Points of a series that a report keeps.
const MAX_POINTS: usize = 300;

#[derive(Default)]
struct Merge {
    run: RunFacts,
    runs: Vec<String>,
    seeds: Vec<String>,
    attempts: BTreeSet<String>,
    decision: Option<Decision>,
    panel: Option<Vec<PanelRecord>>,
    matrix: Vec<CriterionRecord>,
    preflight: Vec<crate::record::PreflightRecord>,
    phases: Vec<Phase>,
    stamps: Vec<Stamp>,
    /// Every attempt of every scenario, in order of its beginning.
    tries: Vec<Scenario>,
    not_run: Vec<(ScenarioRecord, String)>,
    not_in_scope: Vec<ScopeRow>,
    findings: Vec<Finding>,
    unknown: usize,
    warnings: Vec<String>,
}

pub(super) fn merge(records: &Records) -> Model {
    let mut merge = Merge::default();
    for line in &records.lines {
        merge.line(line);
    }
    merge.finish(records)
}

/// Adds `item` unless it is there; lists of a run are short.
fn once<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// Milliseconds to three decimals, so that JSON carries them without loss.
fn rounded(ms: f64) -> f64 {
    if ms.is_finite() { (ms * 1000.0).round() / 1000.0 } else { 0.0 }
}

fn utc(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    at.map_or_else(String::new, |at| at.to_string())
}

fn unfinished(mut declared: ScenarioRecord, attempt: &str, why: String) -> Scenario {
    if declared.category.trim().is_empty() {
        declared.category = "uncategorised".to_owned();
    }
    Scenario {
        declared,
        attempt: attempt.to_owned(),
        ran: !attempt.is_empty(),
        outcome: Outcome::NoEvidence { why },
        took_ms: 0.0,
        message: String::new(),
        again: String::new(),
        steps: Vec::new(),
        criteria: Vec::new(),
        plots: Vec::new(),
        evidence: Vec::new(),
        earlier: Vec::new(),
        flaky: false,
    }
}

impl Merge {
    fn line(&mut self, line: &Line) {
        once(&mut self.runs, line.run.clone());
        if !self.attempts.contains(&line.attempt) {
            self.attempts.insert(line.attempt.clone());
        }
        match &line.event {
            Event::RunStarted { subject, seed, profile, plants, command, machine, choices, roles } => {
                let run = &mut self.run;
                for (kept, new) in [
                    (&mut run.subject, subject),
                    (&mut run.seed, seed),
                    (&mut run.profile, profile),
                    (&mut run.command, command),
                ] {
                    if kept.is_empty() {
                        kept.clone_from(new);
                    }
                }
                once(&mut self.seeds, seed.clone());
                plants.iter().for_each(|plant| once(&mut run.plants, plant.clone()));
                choices.iter().for_each(|choice| once(&mut run.choices, choice.clone()));
                once(&mut run.machines, machine.clone());
                run.roles.extend(roles.clone());
            }
            Event::Stamp { name } => self.stamps.push(Stamp { name: name.clone(), at: utc(line.at_ms) }),
            Event::Panel { rows } => self.panel = Some(rows.clone()),
            Event::Preflight(probe) => match self.preflight.iter_mut().find(|known| known.probe == probe.probe) {
                Some(known) => *known = probe.clone(),
                None => self.preflight.push(probe.clone()),
            },
            Event::PhaseStarted { phase, budget_ms, scenarios } => self.phase_started(phase, *budget_ms, scenarios),
            Event::PhaseFinished { phase, took_ms, overran } => {
                self.phase_started(phase, 0, &[]);
                if let Some(known) = self.phases.iter_mut().find(|known| known.name == *phase) {
                    known.took_ms = Some(rounded(*took_ms));
                    known.overran = *overran;
                }
            }
            Event::Finding(finding) => self.findings.push(finding.clone()),
            Event::NotInScope { row, why } => {
                once(&mut self.not_in_scope, ScopeRow { row: row.clone(), why: why.clone() });
            }
            Event::Decided { verdict, reasons, release, exit_code } => {
                self.decision = Some(Decision {
                    verdict: verdict.clone(),
                    reasons: reasons.clone(),
                    release: release.clone(),
                    exit_code: *exit_code,
                });
            }
            Event::Unknown => self.unknown += 1,
            _ => self.scenario_line(line),
        }
    }

    fn scenario_line(&mut self, line: &Line) {
        match &line.event {
            Event::ScenarioStarted(declared) => self.begin(&line.attempt, declared.clone()),
            Event::ScenarioNotRun { scenario, why } => self.not_run.push((scenario.clone(), why.clone())),
            Event::Criterion(criterion) if criterion.scenario.is_empty() => put(&mut self.matrix, criterion),
            Event::Criterion(criterion) => {
                put(&mut self.open(&line.attempt, &criterion.scenario).criteria, criterion);
            }
            Event::Step(step) => {
                let mut step = step.clone();
                step.took_ms = rounded(step.took_ms);
                self.open(&line.attempt, &step.scenario).steps.push(step);
            }
            Event::Series(series) => add_series(&mut self.open(&line.attempt, &series.scenario).plots, series),
            Event::Evidence { scenario, path, about } => {
                let evidence = Evidence { path: path.clone(), about: about.clone() };
                self.open(&line.attempt, scenario).evidence.push(evidence);
            }
            Event::ScenarioFinished { id, outcome, took_ms, message, again } => {
                let one = self.open(&line.attempt, id);
                one.outcome = outcome.clone();
                one.took_ms = rounded(*took_ms);
                one.message.clone_from(message);
                one.again.clone_from(again);
            }
            _ => {}
        }
    }

    fn phase_started(&mut self, name: &str, budget_ms: u64, scenarios: &[String]) {
        match self.phases.iter_mut().find(|known| known.name == name) {
            Some(known) => {
                known.budget_ms = known.budget_ms.max(budget_ms);
                scenarios.iter().for_each(|id| once(&mut known.scenarios, id.clone()));
            }
            None => self.phases.push(Phase {
                name: name.to_owned(),
                budget_ms,
                took_ms: None,
                overran: false,
                scenarios: scenarios.to_vec(),
            }),
        }
    }

    fn begin(&mut self, attempt: &str, declared: ScenarioRecord) {
        let why = "it began and its end was not recorded: the process was killed, or the record is torn";
        self.tries.push(unfinished(declared, attempt, why.to_owned()));
    }

    /// The attempt that events of this scenario belong to; one is made up, with a warning, if none was announced.
    fn open(&mut self, attempt: &str, id: &str) -> &mut Scenario {
        let belongs = |one: &Scenario| one.attempt == attempt && one.declared.id == id;
        if !self.tries.iter().any(belongs) {
            self.warnings.push(format!("scenario {id} has events in {attempt} without a beginning"));
            let declared = self.tries.iter().find(|one| one.declared.id == id);
            let declared = declared.map(|one| one.declared.clone()).unwrap_or_else(|| undeclared(id));
            self.begin(attempt, declared);
        }
        let at = self.tries.iter().rposition(belongs).unwrap_or(self.tries.len() - 1);
        &mut self.tries[at]
    }

    /// Folds the attempts: the last one counts.
    fn scenarios(&mut self) -> Vec<Scenario> {
        let mut scenarios: Vec<Scenario> = Vec::new();
        for mut scenario in std::mem::take(&mut self.tries) {
            if let Some(known) = scenarios.iter_mut().find(|known| known.declared.id == scenario.declared.id) {
                scenario.earlier = std::mem::take(&mut known.earlier);
                scenario.earlier.push(Attempt {
                    attempt: known.attempt.clone(),
                    outcome: known.outcome.clone(),
                    message: std::mem::take(&mut known.message),
                });
                *known = scenario;
            } else {
                scenarios.push(scenario);
            }
        }
        for scenario in &mut scenarios {
            let last = &scenario.outcome;
            scenario.flaky = (last.is_pass() || matches!(last, Outcome::Degraded { .. }))
                && scenario.earlier.iter().any(|one| one.outcome.is_fail() || one.outcome.is_no_evidence());
        }
        for (declared, why) in std::mem::take(&mut self.not_run) {
            if !scenarios.iter().any(|known| known.declared.id == declared.id) {
                scenarios.push(unfinished(declared, "", format!("not run: {why}")));
            }
        }
        for phase in &self.phases {
            for id in &phase.scenarios {
                if !scenarios.iter().any(|known| known.declared.id == *id) {
                    let declared = ScenarioRecord { phase: phase.name.clone(), ..undeclared(id) };
                    scenarios.push(unfinished(declared, "", "announced by its phase and never run".to_owned()));
                }
            }
        }
        scenarios
    }

    fn finish(mut self, records: &Records) -> Model {
        let scenarios = self.scenarios();
        self.warn(&scenarios);
        let mut run = self.run;
        run.id = self.runs.first().cloned().unwrap_or_default();
        run.attempts = self.attempts.len();
        let first = records.lines.iter().map(|line| line.at_ms).min();
        let last = records.lines.iter().map(|line| line.at_ms).max();
        run.started = first.map(utc).unwrap_or_default();
        run.finished = last.map(utc).unwrap_or_default();
        run.took_ms = last.unwrap_or_default() - first.unwrap_or_default();
        let torn = records.torn.iter().map(|torn| Torn {
            path: torn.path.display().to_string(),
            line: torn.line,
            why: torn.why.clone(),
        });
        let mut model = Model {
            schema: RESULTS_SCHEMA,
            generator: concat!("harness-core ", env!("CARGO_PKG_VERSION")).to_owned(),
            run,
            decision: self.decision,
            totals: Totals::default(),
            panel: Vec::new(),
            matrix: self.matrix,
            preflight: self.preflight,
            phases: self.phases,
            stamps: self.stamps,
            scenarios,
            not_in_scope: self.not_in_scope,
            tickets: Vec::new(),
            torn: torn.collect(),
            warnings: self.warnings,
            since: None,
        };
        model.totals = model.count();
        model.panel = panel::lines(&model, self.panel.as_deref());
        model.tickets = ticket::tickets(&model, &self.findings, first.unwrap_or_default());
        model
    }

    fn warn(&mut self, scenarios: &[Scenario]) {
        if self.runs.len() > 1 {
            self.warnings.push(format!("records of {} runs are mixed: {}", self.runs.len(), self.runs.join(", ")));
        }
        if self.seeds.len() > 1 {
            self.warnings.push(format!("processes used different seeds: {}", self.seeds.join(", ")));
        }
        if self.seeds.is_empty() {
            self.warnings
                .push("no record says what was under test: the first line of every file is missing".to_owned());
        }
        if self.unknown > 0 {
            self.warnings
                .push(format!("{} events of a newer writer were skipped: use a newer `harness`", self.unknown));
        }
        for scenario in scenarios.iter().filter(|scenario| scenario.outcome.is_pass()) {
            for criterion in scenario.criteria.iter().filter(|criterion| criterion.outcome.is_fail()) {
                let id = &scenario.declared.id;
                self.warnings
                    .push(format!("scenario {id} is recorded as pass, but its criterion {} failed", criterion.metric));
            }
        }
    }
}

fn undeclared(id: &str) -> ScenarioRecord {
    ScenarioRecord {
        id: id.to_owned(),
        title: "no declaration was recorded".to_owned(),
        category: "undeclared".to_owned(),
        ..ScenarioRecord::default()
    }
}

/// Adds a criterion; judged again, it replaces its predecessor in place.
fn put(criteria: &mut Vec<CriterionRecord>, new: &CriterionRecord) {
    let same = |known: &&mut CriterionRecord| known.metric == new.metric && known.requirement == new.requirement;
    match criteria.iter_mut().find(same) {
        Some(known) => *known = new.clone(),
        None => criteria.push(new.clone()),
    }
}

/// Adds a series to its plot; the same name again continues the series.
fn add_series(plots: &mut Vec<Plot>, record: &SeriesRecord) {
    let same = |plot: &Plot| (&plot.title, &plot.unit, &plot.x_unit) == (&record.plot, &record.unit, &record.x_unit);
    let at = plots.iter().position(same).unwrap_or_else(|| {
        plots.push(Plot {
            title: record.plot.clone(),
            unit: record.unit.clone(),
            x_unit: record.x_unit.clone(),
            series: Vec::new(),
            marks: Vec::new(),
        });
        plots.len() - 1
    });
    let plot = &mut plots[at];
    for (x, label) in record.marks.iter().filter(|(x, _)| x.is_finite()) {
        once(&mut plot.marks, (*x, label.clone()));
    }
    plot.marks.sort_by(|a, b| a.0.total_cmp(&b.0));
    let finite = record.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
    match plot.series.iter_mut().find(|series| series.name == record.name) {
        Some(series) => series.points.extend(finite),
        None => plot.series.push(Series { name: record.name.clone(), points: finite.collect() }),
    }
    for series in &mut plot.series {
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        downsample(&mut series.points, MAX_POINTS);
    }
}
