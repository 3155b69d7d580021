//! From many verdicts to one: NO-GO before CONDITIONAL before GO.

use std::fmt;

use harness_props::Outcome;

use super::amount::percent;
use super::exit::codes;
use super::limit::Limit;
use super::measured::Measured;
use super::threshold::Threshold;
use crate::record::{CriterionRecord, Finding};

/// The decision about a release, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Everything that was asked for was shown.
    Go,
    /// Within what is tolerated, with conditions.
    Conditional,
    /// Something forbids it, or what would allow it was not shown.
    NoGo,
}

impl Verdict {
    /// The exit code of a process that ends with this verdict.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Go => codes::GO,
            Self::Conditional => codes::CONDITIONAL,
            Self::NoGo => codes::NO_GO,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Go => "GO",
            Self::Conditional => "CONDITIONAL",
            Self::NoGo => "NO-GO",
        })
    }
}

/// How many scenarios must succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    success: Threshold,
    go_with_failures: bool,
}

impl Default for Policy {
    /// Every scenario must succeed.
    fn default() -> Self {
        Self::new(Limit::at_least(percent(100)), Limit::at_least(percent(100)))
    }
}

impl Policy {
    /// A target and a critical limit on the share of scenarios that succeeded.
    #[must_use]
    pub fn new(target: Limit, critical: Limit) -> Self {
        Self { success: Threshold::new("scenario success", target).critical(critical), go_with_failures: false }
    }

    /// Non-critical scenarios that failed, were degraded or lack evidence do not stand in the way of GO while the
    /// target on the success rate is met.
    #[must_use]
    pub fn go_within_target(mut self) -> Self {
        self.go_with_failures = true;
        self
    }

    /// The threshold on the share of scenarios that succeeded.
    pub fn success(&self) -> &Threshold {
        &self.success
    }
}

/// A scenario as the decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioResult {
    /// Unique id.
    pub id: String,
    /// Its category.
    pub category: String,
    /// Its failure, or missing evidence, forces NO-GO.
    pub critical: bool,
    /// What came of it; a scenario that did not run is [`Outcome::NoEvidence`].
    pub outcome: Outcome,
}

/// A criterion as the decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CriterionResult {
    /// Where it was measured and what it is.
    pub name: String,
    /// Missing evidence forces NO-GO; being beyond critical always does.
    pub critical: bool,
    /// Its verdict.
    pub outcome: Outcome,
}

/// Everything the decision depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// How many scenarios must succeed.
    pub policy: Policy,
    /// Every planned scenario, run or not.
    pub scenarios: Vec<ScenarioResult>,
    /// Criteria of scenarios and rows of the release matrix.
    pub criteria: Vec<CriterionResult>,
    /// What scenarios found.
    pub findings: Vec<Finding>,
}

impl Inputs {
    /// The share of scenarios that passed or were degraded.
    ///
    /// Scenarios without evidence are reasons of their own and not counted, unless the policy tolerates failures:
    /// then they count as failed, since missing evidence must not cost less than a failure.
    #[must_use]
    pub fn success(&self) -> Measured {
        success_of(&self.scenarios, self.policy.go_with_failures)
    }
}

fn success_of(scenarios: &[ScenarioResult], missing_counts: bool) -> Measured {
    let (mut hits, mut total) = (0, 0);
    for scenario in scenarios {
        match scenario.outcome {
            Outcome::Pass { .. } | Outcome::Degraded { .. } => (hits, total) = (hits + 1, total + 1),
            Outcome::Fail { .. } => total += 1,
            Outcome::NoEvidence { .. } => total += u64::from(missing_counts),
            Outcome::NotApplicable { .. } => {}
        }
    }
    if total == 0 { Measured::nothing("no scenario was judged") } else { Measured::share(hits, total) }
}

/// The verdict and what led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, gravest first; for GO what was shown.
    pub reasons: Vec<String>,
}

/// Decides.
///
/// NO-GO: a finding that blocks, a critical scenario failed, a criterion beyond critical, critical evidence missing, or
/// the success rate beyond its critical limit or unknown. CONDITIONAL: a finding of high severity, anything degraded,
/// a failed scenario, missing evidence. GO otherwise. A worse input never leads to a better verdict.
#[must_use]
pub fn decide(inputs: &Inputs) -> Decision {
    // Each reason with its verdict and its rank among the reasons for the same verdict.
    let mut reasons: Vec<(Verdict, u8, String)> = Vec::new();
    for finding in &inputs.findings {
        let severity = finding.kind.severity();
        let verdict = match severity {
            _ if severity.blocks() => Verdict::NoGo,
            crate::record::Severity::P1 => Verdict::Conditional,
            _ => Verdict::Go,
        };
        reasons.push((verdict, 0, format!("{severity:?} finding by {}: {}", finding.found_by, finding.text)));
    }
    reasons.extend(scenario_reasons(inputs));
    for criterion in &inputs.criteria {
        reasons.extend(reason_of(criterion, 2));
    }
    let success = inputs.policy.success.judge(&inputs.success());
    reasons.extend(reason_of(
        &CriterionResult { name: "success policy".to_owned(), critical: true, outcome: success.clone() },
        3,
    ));
    let verdict = reasons.iter().map(|(verdict, ..)| *verdict).max().unwrap_or(Verdict::Go);
    reasons.sort_by_key(|(verdict, rank, _)| (std::cmp::Reverse(*verdict), *rank));
    let mut reasons: Vec<String> = reasons.into_iter().map(|(_, _, text)| text).collect();
    if verdict == Verdict::Go {
        reasons.insert(0, format!("{} criteria on target, {}", inputs.criteria.len(), success.detail()));
    }
    Decision { verdict, reasons }
}

/// Scenarios with the same to say.
struct Group<'a> {
    verdict: Verdict,
    rank: u8,
    name: &'static str,
    text: String,
    ids: Vec<&'a str>,
}

/// What scenarios say against GO, each with its verdict and rank.
fn scenario_reasons(inputs: &Inputs) -> Vec<(Verdict, u8, String)> {
    // Scenarios that lack evidence for the same reason, such as a pause, share one line.
    let mut groups: Vec<Group<'_>> = Vec::new();
    for scenario in &inputs.scenarios {
        let name = if scenario.critical { "critical scenario" } else { "scenario" };
        let (mut verdict, rank, word) = match (&scenario.outcome, scenario.critical) {
            (Outcome::Pass { .. } | Outcome::NotApplicable { .. }, _) => continue,
            (Outcome::Fail { .. }, true) => (Verdict::NoGo, 1, "failed"),
            (Outcome::Fail { .. }, false) => (Verdict::Conditional, 1, "failed"),
            (Outcome::NoEvidence { .. }, true) => (Verdict::NoGo, 4, "without evidence"),
            (Outcome::NoEvidence { .. }, false) => (Verdict::Conditional, 4, "without evidence"),
            (Outcome::Degraded { .. }, _) => (Verdict::Conditional, 5, "is degraded"),
        };
        if inputs.policy.go_with_failures && !scenario.critical {
            verdict = Verdict::Go;
        }
        let first_line = scenario.outcome.detail().lines().next().unwrap_or_default();
        let text = format!("{word}: {first_line}");
        match groups.iter_mut().find(|group| rank == 4 && group.name == name && group.text == text) {
            Some(group) => group.ids.push(&scenario.id),
            None => groups.push(Group { verdict, rank, name, text, ids: vec![&scenario.id] }),
        }
    }
    let lines = groups.into_iter().map(|Group { verdict, rank, name, text, ids }| {
        let plural = if ids.len() > 1 { "s" } else { "" };
        (verdict, rank, format!("{name}{plural} {} {text}", ids.join(", ")))
    });
    lines.collect()
}

fn reason_of(criterion: &CriterionResult, rank: u8) -> Option<(Verdict, u8, String)> {
    let (verdict, rank, word) = match (&criterion.outcome, criterion.critical) {
        (Outcome::Pass { .. } | Outcome::NotApplicable { .. }, _) => return None,
        (Outcome::Fail { .. }, _) => (Verdict::NoGo, rank, "beyond critical"),
        (Outcome::NoEvidence { .. }, true) => (Verdict::NoGo, 4, "no critical evidence"),
        (Outcome::NoEvidence { .. }, false) => (Verdict::Conditional, 4, "no evidence"),
        (Outcome::Degraded { .. }, _) => (Verdict::Conditional, rank, "degraded"),
    };
    Some((verdict, rank, format!("{}: {word}: {}", criterion.name, criterion.outcome.detail())))
}

/// Where a row of the release matrix takes its value from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Metric(Threshold),
    Category(String),
    OutOfScope(String),
}

/// A row of the release matrix: data of the consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRow {
    name: String,
    requirement: String,
    critical: bool,
    source: Source,
}

impl ReleaseRow {
    /// The name under which the share of successful scenarios can be used as a metric.
    pub const SCENARIO_SUCCESS: &'static str = "scenario_success";

    fn new(name: impl Into<String>, source: Source) -> Self {
        Self { name: name.into(), requirement: String::new(), critical: false, source }
    }

    /// A row judged by a threshold on the metric that scenarios report under the threshold's name. When several
    /// scenarios report it the worst counts.
    #[must_use]
    pub fn metric(name: impl Into<String>, threshold: Threshold) -> Self {
        let requirement = threshold.requirement_id().to_owned();
        Self { requirement, ..Self::new(name, Source::Metric(threshold)) }
    }

    /// A row that holds when every scenario of a category holds; a category nobody ran is no evidence.
    #[must_use]
    pub fn category(name: impl Into<String>, category: impl Into<String>) -> Self {
        Self::new(name, Source::Category(category.into()))
    }

    /// A row that this campaign does not measure, on purpose; listed, not counted.
    #[must_use]
    pub fn not_in_scope(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(name, Source::OutOfScope(why.into()))
    }

    /// The requirement it answers.
    #[must_use]
    pub fn requirement(mut self, id: impl Into<String>) -> Self {
        self.requirement = id.into();
        self
    }

    /// Missing evidence for this row forces NO-GO.
    #[must_use]
    pub fn critical(mut self) -> Self {
        self.critical = true;
        self
    }

    /// Problems that make the row useless, such as limits that contradict each other.
    #[cfg(feature = "campaign")]
    pub(crate) fn problem(&self) -> Option<String> {
        match &self.source {
            _ if self.name.trim().is_empty() => Some("a row of the release matrix has no name".to_owned()),
            Source::Metric(threshold) => {
                threshold.check().err().map(|error| format!("row `{}`: {}", self.name, error.what()))
            }
            Source::OutOfScope(why) if why.trim().is_empty() => {
                Some(format!("row `{}` is not in scope without a reason", self.name))
            }
            _ => None,
        }
    }

    fn judge(&self, metrics: &[(String, Measured)], scenarios: &[ScenarioResult], policy: &Policy) -> MatrixRow {
        let record = match &self.source {
            Source::OutOfScope(why) => return MatrixRow::NotInScope { row: self.title(), why: why.clone() },
            Source::Metric(threshold) if threshold.metric() == Self::SCENARIO_SUCCESS => {
                threshold.record("", &success_of(scenarios, policy.go_with_failures))
            }
            Source::Metric(threshold) => judge_metric(threshold, metrics),
            Source::Category(category) => judge_category(category, scenarios),
        };
        MatrixRow::Judged(CriterionRecord {
            metric: self.name.clone(),
            requirement: self.requirement.clone(),
            is_critical: self.critical,
            ..record
        })
    }

    fn title(&self) -> String {
        if self.requirement.is_empty() { self.name.clone() } else { format!("{} {}", self.requirement, self.name) }
    }
}

fn judge_metric(threshold: &Threshold, metrics: &[(String, Measured)]) -> CriterionRecord {
    let judged = metrics.iter().filter(|(name, _)| name == threshold.metric());
    judged.map(|(_, measured)| threshold.record("", measured)).reduce(worse_record).unwrap_or_else(|| {
        let why = format!("no scenario reported the metric `{}`", threshold.metric());
        CriterionRecord { outcome: Outcome::no_evidence(&why), ..threshold.record("", &Measured::nothing(why)) }
    })
}

fn worse_record(a: CriterionRecord, b: CriterionRecord) -> CriterionRecord {
    if a.outcome.clone().worse(b.outcome.clone()) == a.outcome { a } else { b }
}

fn judge_category(category: &str, scenarios: &[ScenarioResult]) -> CriterionRecord {
    let own: Vec<_> = scenarios.iter().filter(|scenario| scenario.category == category).collect();
    let passed = own.iter().filter(|scenario| scenario.outcome.is_pass()).count();
    let outcome = match Outcome::worst(own.iter().map(|scenario| match &scenario.outcome {
        Outcome::Fail { witness } => Outcome::fail(format!("{}: {witness}", scenario.id)),
        Outcome::NoEvidence { why } => Outcome::no_evidence(format!("{}: {why}", scenario.id)),
        Outcome::Degraded { why } => Outcome::degraded(format!("{}: {why}", scenario.id)),
        other => other.clone(),
    })) {
        Outcome::Pass { .. } => Outcome::pass(format!("{passed} of {} scenarios", own.len())),
        Outcome::NoEvidence { .. } if own.is_empty() => {
            Outcome::no_evidence(format!("no scenario of category `{category}` was planned"))
        }
        other => other,
    };
    CriterionRecord {
        scenario: String::new(),
        metric: String::new(),
        requirement: String::new(),
        target: "all pass".to_owned(),
        critical: "all pass".to_owned(),
        actual: if own.is_empty() { String::new() } else { format!("{passed} of {}", own.len()) },
        samples: own.len() as u64,
        outcome,
        is_critical: false,
        colour: String::new(),
    }
}

/// A row of the release matrix after the run.
#[derive(Debug, Clone, PartialEq)]
pub enum MatrixRow {
    /// Judged; `metric` is the row's name.
    Judged(CriterionRecord),
    /// Left out on purpose.
    NotInScope {
        /// Row id and name.
        row: String,
        /// Why.
        why: String,
    },
}

/// Judges the rows of a release matrix from the metrics (name and value) and scenarios of a run.
#[must_use]
pub fn judge_rows(
    rows: &[ReleaseRow],
    metrics: &[(String, Measured)],
    scenarios: &[ScenarioResult],
    policy: &Policy,
) -> Vec<MatrixRow> {
    rows.iter().map(|row| row.judge(metrics, scenarios, policy)).collect()
}

#[cfg(test)]
mod tests;
