//! The drives of `cargo test` and nextest: scenarios as tests, no decision.

use std::sync::Arc;

use harness_props::Outcome;

use super::Campaign;
use super::args::Args;
use super::drive::{preflight_table, prepare, tear_down};
use super::one::{self, Finished};
use super::progress::{clock, print};
use super::session::Session;
use crate::env::Settings;
use crate::slo::{MatrixRow, codes, judge_rows};

/// Prints the chosen scenarios the way libtest does.
pub(super) fn list<C>(campaign: &Campaign<C>, args: &Args, chosen: &[(usize, usize)]) {
    let mut lines: Vec<String> =
        chosen.iter().map(|(p, s)| format!("{}: test", campaign.phases[*p].scenarios[*s].name)).collect();
    if !args.terse {
        lines.push(format!("\n{} tests, 0 benchmarks", chosen.len()));
        let plan = |profile: &super::Profile| profile.plan(&campaign.phases, chosen);
        lines.extend(campaign.profiles.iter().map(|profile| format!("\n{}", plan(profile))));
    }
    if !lines.is_empty() {
        print(&lines.join("\n"));
    }
}

/// Runs the chosen scenarios in order; 0 unless something is beyond critical or proves nothing.
pub(super) async fn run<C: Send + Sync + 'static>(
    campaign: &Campaign<C>,
    chosen: &[(usize, usize)],
    session: &Arc<Session>,
) -> u8 {
    let total: usize = campaign.phases.iter().map(|phase| phase.scenarios.len()).sum();
    // Under nextest a process runs one scenario: probing the world again each time would cost more than it tells.
    let prepared = prepare(campaign, session, Settings::get().nextest.is_none(), false).await;
    let Some(context) = prepared.context.filter(|_| prepared.problem.is_none()) else {
        print(&preflight_table(&prepared.probes));
        print("\ntest result: FAILED. nothing could start");
        return codes::NOT_STARTED;
    };
    print(&format!("\nrunning {} scenarios", chosen.len()));
    let mut finished = Vec::new();
    for (p, s) in chosen {
        let phase = &campaign.phases[*p];
        let scenario = &phase.scenarios[*s];
        let limit = campaign.limit_of(scenario, phase.hard_limit(), session);
        for one in one::run(session, &context, &[scenario], &[limit], &mut || {}).await {
            print(&format!("test {} ... {} ({})", scenario.name, word(&one), clock(one.took)));
            finished.push(one);
        }
    }
    let failures: Vec<_> =
        finished.iter().filter(|f| !f.message.is_empty()).map(|f| one::failure_text(session, f)).collect();
    for failure in failures {
        print(&format!("\n{failure}"));
    }
    tear_down(campaign, Some(context)).await;
    let beyond = if finished.len() == total { rows_beyond_critical(campaign, &finished) } else { Vec::new() };
    for row in &beyond {
        print(&format!("\nrelease matrix: {row}"));
    }
    summary(&finished, total - finished.len(), !beyond.is_empty(), session)
}

fn word(finished: &Finished) -> &'static str {
    match &finished.outcome {
        Outcome::Pass { .. } => "ok",
        Outcome::NotApplicable { .. } => "ok (not applicable)",
        Outcome::Degraded { .. } => "ok (degraded)",
        Outcome::NoEvidence { .. } if finished.fails_plain_test() => "FAILED (no evidence)",
        Outcome::NoEvidence { .. } => "no evidence",
        Outcome::Fail { .. } => "FAILED",
    }
}

/// Rows that all scenarios together put beyond critical.
fn rows_beyond_critical<C>(campaign: &Campaign<C>, finished: &[Finished]) -> Vec<String> {
    let scenarios: Vec<_> = finished.iter().map(Finished::result).collect();
    let metrics: Vec<_> = finished.iter().flat_map(|f| f.metrics.iter().cloned()).collect();
    let rows = judge_rows(&campaign.rows, &metrics, &scenarios, &campaign.policy).into_iter();
    rows.filter_map(|row| match row {
        MatrixRow::Judged(row) if row.outcome.is_fail() => Some(format!("{}: {}", row.metric, row.outcome)),
        _ => None,
    })
    .collect()
}

fn summary(finished: &[Finished], filtered: usize, beyond: bool, session: &Session) -> u8 {
    let count = |pick: fn(&Finished) -> bool| finished.iter().filter(|f| pick(f)).count();
    let bad = count(Finished::fails_plain_test);
    if let Some(error) = session.lost() {
        print(&format!("\nrecords were lost: {error}"));
    }
    let failed = bad > 0 || beyond || session.lost().is_some();
    print(&format!(
        "\ntest result: {}. {} passed; {bad} failed; {} degraded; {} without evidence; {filtered} filtered out; records in {}\n",
        if failed { "FAILED" } else { "ok" },
        count(|f| f.outcome.is_pass()),
        count(|f| matches!(f.outcome, Outcome::Degraded { .. })),
        count(|f| f.outcome.is_no_evidence()),
        session.setup.dir().display(),
    ));
    if failed { codes::NO_GO } else { codes::GO }
}
