//! What can be recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use harness_props::Outcome;
use serde::{Deserialize, Serialize};

/// One line of a record file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// [`super::SCHEMA`] of the writer.
    pub schema: u32,
    /// Identifier of the run.
    pub run: String,
    /// Identifier of the attempt: one process, one file.
    pub attempt: String,
    /// Position in the file, from 0.
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    pub event: Event,
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// Critical: crash, data corruption, security breach. Blocks; due in 24 hours.
    P0,
    /// High: performance below critical, partial failure. Due in 3 days.
    P1,
    /// Medium: minor failures, edge cases. Due in a week.
    P2,
    /// Low: cosmetic, documentation. Backlog.
    P3,
}

impl Severity {
    /// How long after the run the finding must be closed; `None` for the backlog.
    #[must_use]
    pub fn window(self) -> Option<Duration> {
        const DAY: u64 = 24 * 60 * 60;
        match self {
            Self::P0 => Some(Duration::from_secs(DAY)),
            Self::P1 => Some(Duration::from_secs(3 * DAY)),
            Self::P2 => Some(Duration::from_secs(7 * DAY)),
            Self::P3 => None,
        }
    }

    /// `critical`, `high`, `medium` or `low`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::P0 => "critical",
            Self::P1 => "high",
            Self::P2 => "medium",
            Self::P3 => "low",
        }
    }
}

/// What a finding is about, from which its severity follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// An acknowledged write is gone.
    DataLoss,
    /// A payload came back changed.
    Corruption,
    /// A security rule was broken.
    Security,
    /// The system died.
    Crash,
    /// A limit on time, rate or resources was passed beyond critical.
    Performance,
    /// Part of the system did not work.
    PartialFailure,
    /// Between target and critical.
    Minor,
    /// Wording, layout, documents.
    Cosmetic,
}

impl FindingKind {
    /// The severity that a finding of this kind has.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::DataLoss | Self::Corruption | Self::Security | Self::Crash => Severity::P0,
            Self::Performance | Self::PartialFailure => Severity::P1,
            Self::Minor => Severity::P2,
            Self::Cosmetic => Severity::P3,
        }
    }
}

/// Something that somebody has to look at; reports turn it into a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about; written as `about`, since `kind` names the event.
    #[serde(rename = "about")]
    pub kind: FindingKind,
    /// The scenario or criterion that found it.
    pub found_by: String,
    /// One sentence.
    pub text: String,
}

/// The machine a run was measured on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Number of cores the process may use.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Kernel name and release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// `release` or `debug`: absolute limits mean little in debug.
    pub build: String,
}

/// What a scenario declares before it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioRecord {
    /// Unique id, such as `A1`.
    pub id: String,
    /// One sentence.
    pub title: String,
    /// Category; a JUnit file per category.
    pub category: String,
    /// Phase it belongs to.
    pub phase: String,
    /// A failure alone forces NO-GO.
    pub critical: bool,
    /// What is expected, in words.
    pub expectation: String,
    /// What to do when it fails.
    pub remedy: String,
    /// Requirement ids it answers.
    pub requirements: Vec<String>,
    /// Words by which it can be chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// One step inside a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Scenario id.
    pub scenario: String,
    /// What was done.
    pub label: String,
    /// How long it took, milliseconds.
    pub took_ms: f64,
    /// What came of it.
    pub outcome: Outcome,
}

/// A criterion with its limits as written, its measured value and its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CriterionRecord {
    /// Scenario that measured it; empty for rows of a release matrix.
    pub scenario: String,
    /// Metric name.
    pub metric: String,
    /// Requirement id, if it answers one.
    pub requirement: String,
    /// Target as written, for example `< 250 ms`.
    pub target: String,
    /// Critical limit as written.
    pub critical: String,
    /// The measured value, formatted with its unit; empty without evidence.
    pub actual: String,
    /// Number of samples behind it.
    pub samples: u64,
    /// Verdict.
    pub outcome: Outcome,
    /// Missing evidence here forces NO-GO.
    pub is_critical: bool,
    /// Advisory colour: `green`, `yellow` or `red`; empty without evidence.
    pub colour: String,
}

/// A series over time, ready to plot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesRecord {
    /// Scenario id.
    pub scenario: String,
    /// Plot it belongs to, for example `latency over time`; series of one plot share axes.
    pub plot: String,
    /// Name in the legend, for example `p95`.
    pub name: String,
    /// Unit of y, for example `ms`.
    pub unit: String,
    /// Unit of x: `s` for time since start, `percentile` for a percentile curve (x from 0 to 100), any other unit for
    /// a distribution whose points are bins.
    pub x_unit: String,
    /// `(x, y)` pairs in rising x.
    pub points: Vec<(f64, f64)>,
    /// Labelled moments on the x axis. They pair up in order: a beginning and an end make a band, such as a fault and
    /// its healing; an odd last one is a single moment.
    pub marks: Vec<(f64, String)>,
}

/// One line of the metrics panel: its label, and the criterion that fills it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PanelRecord {
    /// What the line says, for example `Database P95`.
    pub label: String,
    /// The metric name of the criterion it shows.
    pub metric: String,
}

/// The result of one pre-flight probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreflightRecord {
    /// What was probed.
    pub probe: String,
    /// Requirement id, if it answers one.
    pub requirement: String,
    /// Verdict.
    pub outcome: Outcome,
    /// What to do about it.
    pub remedy: String,
    /// How long it took, milliseconds.
    pub took_ms: f64,
    /// Whether it only advises: then missing evidence stops nothing, and is no pass either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub advisory: bool,
}

impl PreflightRecord {
    /// Whether nothing may start because of it.
    #[must_use]
    pub fn stops(&self) -> bool {
        self.outcome.is_fail() || (self.outcome.is_no_evidence() && !self.advisory)
    }
}

/// What happened. New kinds may be added; readers show [`Event::Unknown`] as a count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// First line of every file.
    RunStarted {
        /// What is under test, for example `pattern service 2.2.0`.
        subject: String,
        /// Seed of the run, printed as it is accepted.
        seed: String,
        /// Profile in use.
        profile: String,
        /// Planted defects in force; empty in an honest run.
        plants: Vec<String>,
        /// The command line that started it.
        command: String,
        /// The machine.
        machine: Machine,
        /// Choices made, each with its reason, for example `postgres: container, image present`.
        choices: Vec<String>,
        /// Role names and what they answer for.
        roles: BTreeMap<String, String>,
    },
    /// A named moment of the campaign's own schedule: `prepared`, `started`, `reported`, `analysed`, `decided`.
    Stamp {
        /// Name.
        name: String,
    },
    /// The lines of the metrics panel, in order; without this event reports show their usual six.
    Panel {
        /// The lines.
        rows: Vec<PanelRecord>,
    },
    /// A pre-flight probe ended.
    Preflight(PreflightRecord),
    /// A phase began.
    PhaseStarted {
        /// Name.
        phase: String,
        /// Budget in milliseconds.
        budget_ms: u64,
        /// Ids of its scenarios, in order.
        scenarios: Vec<String>,
    },
    /// A phase ended.
    PhaseFinished {
        /// Name.
        phase: String,
        /// Milliseconds.
        took_ms: f64,
        /// True if it took longer than its budget.
        overran: bool,
    },
    /// A scenario began.
    ScenarioStarted(ScenarioRecord),
    /// A step inside a scenario ended.
    Step(StepRecord),
    /// A series to plot.
    Series(SeriesRecord),
    /// A metric was measured; rows of a release matrix are judged from these, also by a later process.
    Metric {
        /// Scenario id.
        scenario: String,
        /// Name.
        name: String,
        /// The value with its evidence.
        measured: crate::slo::Measured,
    },
    /// A criterion was judged.
    Criterion(CriterionRecord),
    /// Evidence was kept.
    Evidence {
        /// Scenario id.
        scenario: String,
        /// Path, relative to the run's directory where possible.
        path: String,
        /// What it is.
        about: String,
    },
    /// Something that somebody has to look at.
    Finding(Finding),
    /// A scenario ended.
    ScenarioFinished {
        /// Scenario id.
        id: String,
        /// Verdict.
        outcome: Outcome,
        /// Milliseconds.
        took_ms: f64,
        /// The failure message in full; empty on a pass.
        message: String,
        /// A command that runs this scenario again with the same seed.
        again: String,
    },
    /// A scenario that was planned and did not run.
    ScenarioNotRun {
        /// The declaration.
        scenario: ScenarioRecord,
        /// Why.
        why: String,
    },
    /// A test that could not run here: it proved nothing.
    Skipped {
        /// Name of the test.
        test: String,
        /// What the machine lacks.
        capability: String,
        /// In words.
        why: String,
    },
    /// A row of the release matrix that this run does not measure, on purpose.
    NotInScope {
        /// Row id and name.
        row: String,
        /// Why not.
        why: String,
    },
    /// The decision.
    Decided {
        /// `GO`, `CONDITIONAL` or `NO-GO`.
        verdict: String,
        /// Reasons, gravest first.
        reasons: Vec<String>,
        /// The release status, for example `awaiting approval`.
        release: String,
        /// Exit code.
        exit_code: u8,
    },
    /// An event of a newer writer.
    #[serde(other)]
    Unknown,
}
