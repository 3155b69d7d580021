//! Decides from the records of other processes, for example of a nextest run: the same plan, rows and policy. And finds in
//! the records of an interrupted run what it had finished.

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
use crate::error::{CoreResult, Error, ErrorKind};
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
    let mut closing = Closing::new(campaign, session, args);
    closing.merge(records);
    closing.stamp_at(Stamp::Prepared, began);
    closing.stamp_at(Stamp::Started, began);
    closing.decide(&finished)
}

/// What an interrupted run had finished.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Its scenarios, with their outcomes.
    pub(super) finished: Vec<Finished>,
    /// Its record, to be merged with that of the rest.
    pub(super) records: Records,
}

/// Reads the record of the interrupted run below `dir`: everything after the last decision there.
///
/// # Errors
/// Those of [`read_dir`]; [`ErrorKind::Refused`] when the last run came to its decision, or was about something else.
pub(super) fn interrupted<C>(
    campaign: &Campaign<C>,
    dir: &Path,
    profile: &str,
    plants: &[String],
) -> CoreResult<Carried> {
    let mut records = read_dir(dir)?;
    let decided = records.lines.iter().rposition(|line| matches!(line.event, Event::Decided { .. }));
    records.lines.drain(..decided.map_or(0, |at| at + 1));
    let place = dir.display();
    let refuse = |why: String, remedy: &str| Err(Error::new(ErrorKind::Refused, why).remedy(remedy));
    let mut starts = records.lines.iter().filter_map(|line| match &line.event {
        Event::RunStarted { subject, profile, plants, .. } => Some((subject, profile, plants)),
        _ => None,
    });
    let Some((of, in_profile, planted)) = starts.next() else {
        return refuse(
            format!("the last run below {place} came to its decision: there is nothing to resume"),
            "run anew",
        );
    };
    if *of != campaign.subject || in_profile != profile || planted != plants {
        let planted = if planted.is_empty() { "no defect".to_owned() } else { planted.join(", ") };
        let why =
            format!("the interrupted run below {place} was of `{of}`, profile {in_profile}, with {planted} planted");
        return refuse(why, "resume it with the same profile and plants");
    }
    let known = |id: &str| campaign.phases.iter().flat_map(|phase| &phase.scenarios).any(|one| one.record.id == id);
    let tries = last_tries(&records).into_iter();
    let finished = tries.filter(|(id, one)| one.has_ended && known(id)).map(|(_, one)| one);
    Ok(Carried { finished: finished.collect(), records })
}

/// The last try of every scenario; earlier ones are in the report, but do not count.
pub(super) fn last_tries(records: &Records) -> BTreeMap<String, Finished> {
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
            finished.has_ended = true;
            finished.outcome = outcome.clone();
            finished.took = Duration::try_from_secs_f64(took_ms / 1e3).unwrap_or_default();
            finished.message.clone_from(message);
        }
        _ => {}
    }
}
