//! Tickets: what a run found, once per distinct cause, with a severity, somebody to look at it and a due date.

use std::time::Duration;

use harness_props::Outcome;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::model::Model;
use super::text::{one_line, slug};
use crate::record::{CriterionRecord, Finding, FindingKind, Severity};
use crate::run::fnv;

/// One thing that somebody has to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Stable over runs: the same cause, found by the same scenario, has the same fingerprint whatever its figures.
    pub fingerprint: String,
    /// What was found, one sentence.
    pub title: String,
    /// What it is about.
    pub about: FindingKind,
    /// Follows from `about`.
    pub severity: Severity,
    /// The role that answers for this severity; empty when no role names it.
    pub assignee: String,
    /// The scenario or criterion that found it.
    pub found_by: String,
    /// When the run began, UTC, RFC 3339.
    pub created: String,
    /// When it must be closed, UTC, RFC 3339; empty for the backlog.
    pub due: String,
    /// What to do meanwhile, from the scenario that found it.
    pub remedy: String,
    /// Where the report shows it, relative to the ticket file.
    pub report: String,
    /// How often it was found in this run.
    pub times: usize,
}

/// Findings as recorded, then failures that nobody recorded a finding for; gravest first, one per fingerprint.
pub(super) fn tickets(model: &Model, findings: &[Finding], started_ms: u64) -> Vec<Ticket> {
    let mut all: Vec<Finding> = findings.to_vec();
    for scenario in &model.scenarios {
        let id = &scenario.declared.id;
        let covered = |name: &str| findings.iter().any(|finding| finding.found_by == name);
        let kind = match &scenario.outcome {
            Outcome::Fail { .. } => FindingKind::PartialFailure,
            Outcome::Degraded { .. } => FindingKind::Minor,
            _ => continue,
        };
        if !covered(id) {
            all.push(Finding { kind, found_by: id.clone(), text: scenario.outcome.detail().to_owned() });
        }
    }
    for row in &model.matrix {
        let kind = match &row.outcome {
            Outcome::Fail { .. } => FindingKind::Performance,
            Outcome::Degraded { .. } => FindingKind::Minor,
            _ => continue,
        };
        if !findings.iter().any(|finding| finding.found_by == row.metric) && !told_by_scenario(model, row) {
            let text = format!("{} is {} (target {})", row.metric, row.actual, row.target);
            all.push(Finding { kind, found_by: row.metric.clone(), text });
        }
    }
    let mut tickets: Vec<Ticket> = Vec::new();
    for finding in all {
        let ticket = ticket(model, &finding, started_ms);
        match tickets.iter_mut().find(|known| known.fingerprint == ticket.fingerprint) {
            Some(known) => known.times += 1,
            None => tickets.push(ticket),
        }
    }
    tickets.sort_by_key(|ticket| ticket.severity);
    tickets
}

/// True if the scenario that measured a row's metric ended like the row and so has a ticket of its own.
fn told_by_scenario(model: &Model, row: &CriterionRecord) -> bool {
    let told = |outcome: &Outcome| outcome.is_fail() || matches!(outcome, Outcome::Degraded { .. });
    let same = |one: &CriterionRecord| one.metric == row.metric && one.outcome.word() == row.outcome.word();
    model.scenarios.iter().any(|scenario| told(&scenario.outcome) && scenario.criteria.iter().any(same))
}

fn ticket(model: &Model, finding: &Finding, started_ms: u64) -> Ticket {
    let severity = finding.kind.severity();
    let scenario = model.scenarios.iter().find(|one| one.declared.id == finding.found_by);
    let place = scenario.map_or_else(|| "findings".to_owned(), |one| format!("s-{}", slug(&one.declared.id)));
    Ticket {
        fingerprint: fingerprint(finding),
        title: one_line(&finding.text),
        about: finding.kind,
        severity,
        assignee: assignee(model, severity),
        found_by: finding.found_by.clone(),
        created: at(started_ms, Duration::ZERO),
        due: severity.window().map_or_else(String::new, |window| at(started_ms, window)),
        remedy: scenario.map(|one| one.declared.remedy.clone()).unwrap_or_default(),
        report: format!("index.html#{place}"),
        times: 1,
    }
}

/// The first role, by name, whose duty names the severity as a word: `P0`, or `critical`.
fn assignee(model: &Model, severity: Severity) -> String {
    let code = format!("{severity:?}").to_lowercase();
    let names = |duty: &str| {
        duty.to_lowercase().split(|c: char| !c.is_alphanumeric()).any(|word| word == code || word == severity.word())
    };
    model.run.roles.iter().find(|(_, duty)| names(duty)).map(|(role, _)| role.clone()).unwrap_or_default()
}

/// Digits do not count: `3 orders missing` and `5 orders missing` are one cause.
fn fingerprint(finding: &Finding) -> String {
    let mut shape = format!("{:?}\n{}\n", finding.kind, finding.found_by);
    let mut in_number = false;
    for c in one_line(&finding.text).chars() {
        let digit = c.is_ascii_digit() || (in_number && matches!(c, '.' | ','));
        if !digit {
            shape.push(c);
        } else if !in_number {
            shape.push('#');
        }
        in_number = digit;
    }
    format!("{:016x}", fnv(shape.as_bytes()))
}

fn at(started_ms: u64, plus: Duration) -> String {
    let ms = u128::from(started_ms) + plus.as_millis();
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(String::new, |at| at.to_string())
}
