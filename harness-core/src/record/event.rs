//! What can be recorded.

use std::collections::BTreeMap;

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

/// Something worth an issue record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
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
    /// Unit of x: `s` for time since start, or another unit for a distribution.
    pub x_unit: String,
    /// `(x, y)` pairs in rising x.
    pub points: Vec<(f64, f64)>,
    /// Labelled moments on the x axis, such as the beginning of a fault.
    pub marks: Vec<(f64, String)>,
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
    /// Something worth an issue record.
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
