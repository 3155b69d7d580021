//! JUnit XML: a file per category, a case per scenario.
//!
//! | outcome | in JUnit |
//! |---|---|
//! | pass, degraded | success (the property `outcome` tells them apart) |
//! | fail | `failure` |
//! | no evidence, not run | `error`, since many readers count `skipped` as green |
//! | not applicable | `skipped` |
//!
//! Earlier attempts of a flaky scenario are `flakyFailure` elements. Evidence is listed in `system-out` as
//! `[[ATTACHMENT|path]]`, which Jenkins, GitLab and Azure understand.

use std::time::Duration;

use harness_props::Outcome;
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};

use super::model::{Model, Scenario, Tally};
use super::text::{clean, count, one_line, short, slug};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::record::CriterionRecord;

/// File names and contents, one per category, in order of appearance.
pub(super) fn files(model: &Model) -> CoreResult<Vec<(String, String)>> {
    let mut files: Vec<(String, String)> = Vec::new();
    for (category, scenarios) in model.categories() {
        let stem = slug(category);
        let taken = |name: &str| files.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let mut name = format!("{stem}-junit.xml");
        let mut n = 2;
        while taken(&name) {
            name = format!("{stem}-{n}-junit.xml");
            n += 1;
        }
        let mut report = Report::new(one_line(&model.run.subject));
        report.add_test_suite(suite(model, category, &scenarios));
        let total: f64 = scenarios.iter().map(|one| one.took_ms).sum();
        report.set_time(milliseconds(total));
        let text = report.to_string().map_err(|error| {
            Error::new(ErrorKind::Io, format!("could not write the JUnit XML of category {category}")).caused_by(error)
        })?;
        files.push((name, text));
    }
    Ok(files)
}

/// The counts of a written file, for cross-checks.
pub(super) fn tally(xml: &str) -> Result<Tally, String> {
    let report = Report::deserialize_from_str(xml).map_err(|error| format!("is not JUnit XML: {error}"))?;
    let mut tally = Tally::default();
    let degraded = |case: &TestCase| {
        case.properties.iter().any(|one| one.name.as_str() == "outcome" && one.value.as_str() == "degraded")
    };
    for case in report.test_suites.iter().flat_map(|suite| &suite.test_cases) {
        tally.total += 1;
        match &case.status {
            TestCaseStatus::Success { .. } if degraded(case) => tally.degraded += 1,
            TestCaseStatus::Success { .. } => tally.pass += 1,
            TestCaseStatus::NonSuccess { kind: NonSuccessKind::Failure, .. } => tally.fail += 1,
            TestCaseStatus::NonSuccess { kind: NonSuccessKind::Error, .. } => tally.no_evidence += 1,
            TestCaseStatus::Skipped { .. } => tally.not_applicable += 1,
        }
    }
    let counted = (tally.total, tally.fail, tally.no_evidence, tally.not_applicable);
    let stated = (report.tests, report.failures, report.errors, report.test_suites.iter().map(|s| s.skipped).sum());
    let suites = report.test_suites.iter().fold((0, 0, 0, 0), |sum: (usize, usize, usize, usize), suite| {
        (sum.0 + suite.tests, sum.1 + suite.failures, sum.2 + suite.errors, sum.3 + suite.skipped)
    });
    if counted != stated || counted != suites {
        return Err(format!(
            "states (tests, failures, errors, skipped) = {stated:?} above and {suites:?} in its suites, and holds {counted:?}"
        ));
    }
    Ok(tally)
}

fn milliseconds(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default()
}

fn suite(model: &Model, category: &str, scenarios: &[&Scenario]) -> TestSuite {
    let mut suite = TestSuite::new(one_line(category));
    suite.set_time(milliseconds(scenarios.iter().map(|one| one.took_ms).sum()));
    if !model.run.started.is_empty() {
        suite.extra.insert("timestamp".into(), model.run.started.as_str().into());
    }
    let verdict = model.decision.as_ref().map_or("", |decision| decision.verdict.as_str());
    for (name, value) in [
        ("run", model.run.id.as_str()),
        ("seed", &model.run.seed),
        ("profile", &model.run.profile),
        ("plants", &model.run.plants.join(", ")),
        ("decision", verdict),
    ] {
        if !value.is_empty() {
            suite.add_property(Property::new(name, one_line(value)));
        }
    }
    suite.add_test_cases(scenarios.iter().map(|scenario| case(scenario)));
    suite
}

fn case(scenario: &Scenario) -> TestCase {
    let declared = &scenario.declared;
    let mut case = TestCase::new(one_line(&format!("{} {}", declared.id, declared.title)), status(scenario));
    case.set_classname(one_line(&declared.category));
    case.set_time(milliseconds(scenario.took_ms));
    case.set_assertions(scenario.criteria.len());
    for (name, value) in [
        ("outcome", scenario.outcome.word()),
        ("detail", scenario.outcome.detail()),
        ("phase", &declared.phase),
        ("critical", if declared.critical { "true" } else { "" }),
        ("expectation", &declared.expectation),
        ("remedy", &declared.remedy),
        ("requirements", &declared.requirements.join(" ")),
        ("again", &scenario.again),
        ("flaky", if scenario.flaky { "true" } else { "" }),
    ] {
        if !value.is_empty() {
            case.add_property(Property::new(name, one_line(value)));
        }
    }
    for criterion in &scenario.criteria {
        case.add_property(Property::new(one_line(&format!("criterion {}", criterion.metric)), sentence(criterion)));
    }
    if !scenario.evidence.is_empty() {
        let lines = scenario.evidence.iter().map(|one| format!("[[ATTACHMENT|{}]]", one_line(&one.path)));
        case.set_system_out(lines.collect::<Vec<_>>().join("\n"));
    }
    case
}

/// A criterion in one line: `238 ms; target < 250 ms, critical < 500 ms; 500 samples; pass: …`.
fn sentence(criterion: &CriterionRecord) -> String {
    let actual = super::panel::value_or_no_data(&criterion.actual);
    one_line(&format!(
        "{actual}; target {}, critical {}; {}; {}",
        criterion.target,
        criterion.critical,
        count(usize::try_from(criterion.samples).unwrap_or(usize::MAX), "sample"),
        criterion.outcome
    ))
}

fn status(scenario: &Scenario) -> TestCaseStatus {
    let outcome = &scenario.outcome;
    let mut status = match outcome {
        Outcome::Pass { .. } | Outcome::Degraded { .. } => TestCaseStatus::success(),
        Outcome::Fail { .. } => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Outcome::NoEvidence { .. } => TestCaseStatus::non_success(NonSuccessKind::Error),
        Outcome::NotApplicable { .. } => TestCaseStatus::skipped(),
    };
    if !matches!(status, TestCaseStatus::Success { .. }) {
        let full = if scenario.message.is_empty() { outcome.detail() } else { &scenario.message };
        status.set_message(short(outcome.detail(), 400)).set_type(outcome.word()).set_description(clean(full));
    }
    for earlier in &scenario.earlier {
        let kind = match earlier.outcome {
            Outcome::Fail { .. } => NonSuccessKind::Failure,
            Outcome::NoEvidence { .. } => NonSuccessKind::Error,
            _ => continue,
        };
        let mut rerun = TestRerun::new(kind);
        rerun.set_message(short(earlier.outcome.detail(), 400)).set_type(earlier.outcome.word());
        rerun.set_description(clean(&earlier.message));
        if !matches!(status, TestCaseStatus::Skipped { .. }) {
            status.add_rerun(rerun);
        }
    }
    status
}
