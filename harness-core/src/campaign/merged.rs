//! Decides from the records of other processes, for example of a nextest run: the same plan, rows and policy.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use harness_props::Outcome;

use super::Campaign;
use super::args::Args;
use super::closing::Closing;
use super::manifest::Stamp;
use super::one::Finished;
use super::progress::complain;
use super::session::Session;
use crate::record::{Event, Records, read_dir};
use crate::slo::codes;

/// Reads the records below `dir`, judges and decides; returns the exit code.
pub(super) fn decide<C>(campaign: &Campaign<C>, args: &Args, dir: &Path, session: &Arc<Session>) -> u8 {
    let records = match read_dir(dir) {
        Ok(records) => records,
        Err(error) => {
            complain(&format!("{error:?}"));
            return codes::NOT_STARTED;
        }
    };
    session.record_start(&campaign.subject, &campaign.manifest.roles);
    let mut tries = last_tries(&records);
    let mut finished = Vec::new();
    for scenario in campaign.phases.iter().flat_map(|phase| &phase.scenarios) {
        finished.push(tries.remove(&scenario.record.id).unwrap_or_else(|| {
            let why = format!("no record below {}", dir.display());
            session.record(Event::ScenarioNotRun { scenario: scenario.record.clone(), why: why.clone() });
            Finished::not_run(scenario.record.clone(), &why)
        }));
    }
    let began = records.lines.first().map_or(0, |line| line.at_ms);
    let mut closing = Closing::new(campaign, session, &args.out);
    closing.merge(records);
    closing.stamp_at(Stamp::Prepared, began);
    closing.stamp_at(Stamp::Started, began);
    closing.decide(&finished)
}

/// The last try of every scenario; earlier ones are in the report, but do not count.
fn last_tries(records: &Records) -> BTreeMap<String, Finished> {
    let mut tries = BTreeMap::<String, (String, Finished)>::new();
    for line in &records.lines {
        let (id, began) = match &line.event {
            Event::ScenarioStarted(record) => (&record.id, Some(record)),
            Event::Criterion(record) => (&record.scenario, None),
            Event::Metric { scenario, .. } => (scenario, None),
            Event::Finding(finding) => (&finding.found_by, None),
            Event::ScenarioFinished { id, .. } => (id, None),
            _ => continue,
        };
        if let Some(record) = began {
            let mut finished = Finished::not_run(record.clone(), "");
            finished.outcome = Outcome::fail("it began and never ended: its process was killed");
            tries.insert(id.clone(), (line.attempt.clone(), finished));
        } else if let Some((attempt, finished)) = tries.get_mut(id)
            && *attempt == line.attempt
        {
            take(finished, &line.event);
        }
    }
    tries.into_iter().map(|(id, (_, finished))| (id, finished)).collect()
}

fn take(finished: &mut Finished, event: &Event) {
    match event {
        Event::Criterion(record) => finished.criteria.push(record.clone()),
        Event::Metric { name, measured, .. } => finished.metrics.push((name.clone(), measured.clone())),
        Event::Finding(finding) => finished.findings.push(finding.clone()),
        Event::ScenarioFinished { outcome, took_ms, message, .. } => {
            finished.outcome = outcome.clone();
            finished.took = Duration::try_from_secs_f64(took_ms / 1e3).unwrap_or_default();
            finished.message.clone_from(message);
        }
        _ => {}
    }
}
