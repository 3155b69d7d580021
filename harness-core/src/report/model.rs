//! What a run amounts to, ready to be shown.

use std::collections::BTreeMap;

use harness_props::Outcome;
use serde::{Deserialize, Serialize};

use super::since::Since;
use super::ticket::Ticket;
use crate::record::{CriterionRecord, Machine, PreflightRecord, Records, ScenarioRecord, StepRecord};

/// Version of `results.json`. Raised when an old reader would misread a new file.
pub const RESULTS_SCHEMA: u32 = 1;

/// A whole run, merged from its records. Every writer shows this and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// [`RESULTS_SCHEMA`] of the writer.
    pub schema: u32,
    /// Name and version of the writer.
    pub generator: String,
    /// Facts about the run.
    pub run: RunFacts,
    /// The decision; `None` when no campaign recorded one.
    pub decision: Option<Decision>,
    /// Counts over everything below.
    pub totals: Totals,
    /// The lines of the metrics panel.
    pub panel: Vec<PanelLine>,
    /// Rows of the release matrix: criteria that belong to no scenario.
    pub matrix: Vec<CriterionRecord>,
    /// Results of the pre-flight.
    pub preflight: Vec<PreflightRecord>,
    /// Phases in the order they began.
    pub phases: Vec<Phase>,
    /// Named moments of the campaign.
    pub stamps: Vec<Stamp>,
    /// Scenarios in the order they were declared, those that did not run included.
    pub scenarios: Vec<Scenario>,
    /// Rows that this run does not measure, on purpose.
    pub not_in_scope: Vec<ScopeRow>,
    /// Findings and failures, gravest first, one per distinct cause.
    pub tickets: Vec<Ticket>,
    /// Lines of records that could not be read.
    pub torn: Vec<Torn>,
    /// What is odd about the records themselves.
    pub warnings: Vec<String>,
    /// What is different since the run before; none without an archive, or in its first run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
}

/// Facts about the run as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Identifier of the run.
    pub id: String,
    /// What was under test.
    pub subject: String,
    /// Seed, as it is accepted by `HARNESS_SEED`.
    pub seed: String,
    /// Profile in use.
    pub profile: String,
    /// Planted defects in force; empty in an honest run.
    pub plants: Vec<String>,
    /// The command line that started it.
    pub command: String,
    /// The machines it ran on, each once.
    pub machines: Vec<Machine>,
    /// Choices made, each with its reason.
    pub choices: Vec<String>,
    /// Role names and what they answer for.
    pub roles: BTreeMap<String, String>,
    /// Time of the first event, UTC, RFC 3339; empty without events.
    pub started: String,
    /// Time of the last event, UTC, RFC 3339; empty without events.
    pub finished: String,
    /// Milliseconds between the two.
    pub took_ms: u64,
    /// Number of record files that were merged.
    pub attempts: usize,
}

/// The decision as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// `GO`, `CONDITIONAL` or `NO-GO`.
    pub verdict: String,
    /// Reasons, gravest first.
    pub reasons: Vec<String>,
    /// The release status, for example `awaiting approval`.
    pub release: String,
    /// Exit code.
    pub exit_code: u8,
}

/// How many of something ended how. The parts add up to `total`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All of them.
    pub total: usize,
    /// Held.
    pub pass: usize,
    /// Between target and critical.
    pub degraded: usize,
    /// Beyond what is tolerated.
    pub fail: usize,
    /// Could not be judged, or never ran.
    pub no_evidence: usize,
    /// Declared irrelevant.
    pub not_applicable: usize,
}

/// The counts that every written file repeats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Scenarios.
    pub scenarios: Tally,
    /// Criteria of scenarios and rows of the matrix.
    pub criteria: Tally,
    /// Scenarios whose earlier attempt failed and whose last one passed.
    pub flaky: usize,
}

/// One line of the metrics panel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PanelLine {
    /// What the line says.
    pub label: String,
    /// The measured value; empty means no data.
    pub value: String,
    /// What it is measured against, as written.
    pub target: String,
    /// Verdict; [`Outcome::NoEvidence`] without data.
    pub outcome: Outcome,
}

/// A phase with its budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Name.
    pub name: String,
    /// Budget in milliseconds.
    pub budget_ms: u64,
    /// Time taken in milliseconds; `None` when its end was not recorded.
    pub took_ms: Option<f64>,
    /// True if it took longer than its budget.
    pub overran: bool,
    /// Ids of its scenarios, in order.
    pub scenarios: Vec<String>,
}

/// A named moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Name.
    pub name: String,
    /// UTC, RFC 3339.
    pub at: String,
}

/// A scenario: its declaration, its last attempt, and what came before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// What it declared.
    pub declared: ScenarioRecord,
    /// Identifier of the attempt that counts; empty when it did not run.
    pub attempt: String,
    /// False when it was planned and did not run.
    pub ran: bool,
    /// Verdict of the last attempt.
    pub outcome: Outcome,
    /// Milliseconds.
    pub took_ms: f64,
    /// The failure message in full; empty on a pass.
    pub message: String,
    /// A command that runs it again with the same seed.
    pub again: String,
    /// Steps in order.
    pub steps: Vec<StepRecord>,
    /// Criteria in order.
    pub criteria: Vec<CriterionRecord>,
    /// Plots in order.
    pub plots: Vec<Plot>,
    /// Evidence in order.
    pub evidence: Vec<Evidence>,
    /// Earlier attempts, oldest first.
    pub earlier: Vec<Attempt>,
    /// True if an earlier attempt ended worse than the last one.
    pub flaky: bool,
}

/// An earlier attempt of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Identifier of the attempt.
    pub attempt: String,
    /// Verdict.
    pub outcome: Outcome,
    /// The failure message in full.
    pub message: String,
}

/// Series that share axes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    /// Its title.
    pub title: String,
    /// Unit of y.
    pub unit: String,
    /// Unit of x: `s`, `percentile`, or the unit of the bins of a distribution.
    pub x_unit: String,
    /// The series, at most 300 points each.
    pub series: Vec<Series>,
    /// Labelled moments in rising x; see [`crate::record::SeriesRecord::marks`].
    pub marks: Vec<(f64, String)>,
}

/// One series of a plot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// `(x, y)` pairs in rising x.
    pub points: Vec<(f64, f64)>,
}

/// Evidence that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Path, relative to the report where possible.
    pub path: String,
    /// What it is.
    pub about: String,
}

/// A row that is not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeRow {
    /// Row id and name.
    pub row: String,
    /// Why not.
    pub why: String,
}

/// A line of a record that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Torn {
    /// File.
    pub path: String,
    /// Line number, from 1.
    pub line: usize,
    /// Why it could not be read.
    pub why: String,
}

impl Model {
    /// Merges records into a run. Pure: the same records in the same order give the same model.
    ///
    /// The last attempt of a scenario counts, earlier ones stay visible. A scenario that began and never ended, or
    /// that a phase announced and nobody ran, has no evidence.
    #[must_use]
    pub fn from_records(records: &Records) -> Self {
        super::merge::merge(records)
    }

    /// Labels of panel lines without data, for a campaign whose decision depends on them.
    #[must_use]
    pub fn panel_gaps(&self) -> Vec<&str> {
        self.panel.iter().filter(|line| line.value.is_empty()).map(|line| line.label.as_str()).collect()
    }

    /// Rows of the decision matrix: the release matrix, or every scenario's criteria when there is none.
    pub fn matrix_rows(&self) -> impl Iterator<Item = &CriterionRecord> {
        let own = self.matrix.is_empty();
        self.matrix.iter().chain(self.scenarios.iter().filter(move |_| own).flat_map(|scenario| &scenario.criteria))
    }

    /// Counts outcomes again, from the scenarios and criteria themselves.
    #[must_use]
    pub fn count(&self) -> Totals {
        let criteria = self.matrix.iter().chain(self.scenarios.iter().flat_map(|scenario| &scenario.criteria));
        Totals {
            scenarios: self.scenarios.iter().map(|scenario| &scenario.outcome).collect(),
            criteria: criteria.map(|criterion| &criterion.outcome).collect(),
            flaky: self.scenarios.iter().filter(|scenario| scenario.flaky).count(),
        }
    }

    /// The categories in order of appearance, each with its scenarios.
    #[must_use]
    pub fn categories(&self) -> Vec<(&str, Vec<&Scenario>)> {
        let mut categories: Vec<(&str, Vec<&Scenario>)> = Vec::new();
        for scenario in &self.scenarios {
            let name = scenario.declared.category.as_str();
            match categories.iter_mut().find(|(known, _)| *known == name) {
                Some((_, members)) => members.push(scenario),
                None => categories.push((name, vec![scenario])),
            }
        }
        categories
    }
}

impl<'a> FromIterator<&'a Outcome> for Tally {
    fn from_iter<I: IntoIterator<Item = &'a Outcome>>(outcomes: I) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            tally.total += 1;
            match outcome {
                Outcome::Pass { .. } => tally.pass += 1,
                Outcome::Degraded { .. } => tally.degraded += 1,
                Outcome::Fail { .. } => tally.fail += 1,
                Outcome::NoEvidence { .. } => tally.no_evidence += 1,
                Outcome::NotApplicable { .. } => tally.not_applicable += 1,
            }
        }
        tally
    }
}
