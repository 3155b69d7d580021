//! The campaign drive: pre-flight, environment, phases in order, and the way to the decision.

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness_props::Outcome;

use super::args::Args;
use super::closing::{self, Closing};
use super::isolate::{End, isolated};
use super::manifest::Stamp;
use super::merged::Carried;
use super::one::{self, Finished};
use super::plan::{Phase, Planned, batches};
use super::preflight::{masked, preflight};
use super::progress::{Progress, clock, complain, print};
use super::session::Session;
use super::{Campaign, Probe, mask};
use crate::record::{Event, PreflightRecord};
use crate::slo::{Limit, Measured, Threshold, codes, preflight_exit_code};

/// How long one pause hook, or the teardown, may take.
const HOOK: Duration = Duration::from_secs(60);

/// Runs the campaign and returns the exit code.
pub(super) async fn run<C: Send + Sync + 'static>(
    campaign: &Campaign<C>,
    args: &Args,
    chosen: &[(usize, usize)],
    carried: Carried,
    session: &Arc<Session>,
) -> u8 {
    let begun = Instant::now();
    let is_carried = |id: &str| carried.finished.iter().any(|one| one.record.id == id);
    let id_of = |(p, s): &(usize, usize)| campaign.phases[*p].scenarios[*s].record.id.as_str();
    let chosen: Vec<_> = chosen.iter().filter(|at| !is_carried(id_of(at))).copied().collect();
    let profile = campaign.profile_of(session);
    if let Some(profile) = profile.filter(|_| !args.preflight_only) {
        print(&profile.plan(&campaign.phases, &chosen));
    }
    if !carried.finished.is_empty() {
        print(&format!("resumed: {} scenarios had finished, {} are left", carried.finished.len(), chosen.len()));
    }
    let mut closing = Closing::new(campaign, session, args);
    closing.merge(carried.records);
    let prepared = prepare(campaign, session, true, args.preflight_only).await;
    print(&preflight_table(&prepared.probes));
    if args.preflight_only {
        tear_down(campaign, prepared.context).await;
        return preflight_code(&prepared.probes);
    }
    let Some(context) = prepared.context.filter(|_| prepared.problem.is_none()) else {
        let why = prepared.problem.unwrap_or_else(|| "the environment could not be built".to_owned());
        record_not_run(campaign, session, |_| Some(format!("nothing could start: {why}")));
        return closing.not_started(&why);
    };
    closing.stamp(Stamp::Prepared);
    closing.stamp(Stamp::Started);
    let mut phases = Phases {
        campaign,
        session,
        context: Arc::clone(&context),
        progress: Progress::new(chosen.len()),
        finished: carried.finished,
        paused: None,
        keep_going: args.keep_going,
    };
    for (p, phase) in campaign.phases.iter().enumerate() {
        let own: Vec<_> = chosen.iter().filter(|(of, _)| *of == p).map(|(_, s)| *s).collect();
        if !own.is_empty() {
            phases.phase(phase, &own).await;
        }
    }
    let mut finished = phases.finished;
    let failures: Vec<_> =
        finished.iter().filter(|f| !f.message.is_empty()).map(|f| one::failure_text(session, f)).collect();
    tear_down(campaign, Some(context)).await;
    let left_out = |id: &str| finished.iter().all(|f| f.record.id != id).then(|| "not selected".to_owned());
    let not_selected = record_not_run(campaign, session, left_out);
    finished.extend(not_selected);
    for failure in failures {
        print(&format!("\n{failure}"));
    }
    if let Some(profile) = profile {
        print(&profile.total(begun.elapsed()));
    }
    closing.decide(&finished)
}

/// Records every scenario for which there is a reason as not run.
fn record_not_run<C>(campaign: &Campaign<C>, session: &Session, why: impl Fn(&str) -> Option<String>) -> Vec<Finished> {
    let mut all = Vec::new();
    for scenario in campaign.phases.iter().flat_map(|phase| &phase.scenarios) {
        if let Some(why) = why(&scenario.record.id) {
            session.record(Event::ScenarioNotRun { scenario: scenario.record.clone(), why: why.clone() });
            all.push(Finished::not_run(scenario.record.clone(), &why));
        }
    }
    all
}

/// What stands after pre-flight.
pub(super) struct Prepared<C> {
    pub(super) probes: Vec<PreflightRecord>,
    pub(super) context: Option<Arc<C>>,
    /// Why nothing can start.
    pub(super) problem: Option<String>,
}

/// Guard, probes, environment, probes of the environment; stops at the first of these that fails.
pub(super) async fn prepare<C: Send + Sync + 'static>(
    campaign: &Campaign<C>,
    session: &Arc<Session>,
    with_probes: bool,
    preflight_only: bool,
) -> Prepared<C> {
    session.record_start(&campaign.subject, &campaign.manifest.roles);
    if let Some(panel) = &campaign.panel {
        session.record(Event::Panel { rows: panel.clone() });
    }
    let mut prepared = Prepared { probes: Vec::new(), context: None, problem: None };
    if let Some(guard) = &campaign.guard {
        let refusals = guard.refusals();
        let outcome = match refusals.is_empty() {
            true => Outcome::pass("every target is marked as a test"),
            false => Outcome::fail(refusals.join("; ")),
        };
        let remedy = "point the tests at a system of their own, with `test` in its host or database name";
        add(session, &mut prepared, vec![own_record("production guard", outcome, remedy, Duration::ZERO)]);
    }
    if prepared.problem.is_none() && with_probes {
        let records = preflight(campaign.probes.clone()).await;
        add(session, &mut prepared, records);
    }
    if prepared.problem.is_some() || (preflight_only && campaign.context_probes.is_none()) {
        return prepared;
    }
    build(campaign, session, &mut prepared).await;
    if let (Some(context), Some(probes)) = (&prepared.context, &campaign.context_probes)
        && with_probes
    {
        let probes: Vec<Probe> = probes(context);
        let records = preflight(probes).await;
        add(session, &mut prepared, records);
    }
    prepared
}

async fn build<C: Send + Sync + 'static>(campaign: &Campaign<C>, session: &Arc<Session>, prepared: &mut Prepared<C>) {
    let (begun, limit) = (Instant::now(), campaign.environment_limit);
    let (builder, setup) = (Arc::clone(&campaign.environment), Arc::clone(&session.setup));
    let work =
        move || -> super::isolate::LocalFuture<'static, _> { Box::pin(async move { builder.build(&setup).await }) };
    let outcome = match isolated("environment", limit, || {}, || {}, work).await {
        End::Done(Ok(context)) => {
            prepared.context = Some(Arc::new(context));
            Outcome::pass(format!("built in {}", clock(begun.elapsed())))
        }
        End::Done(Err(error)) => Outcome::fail(format!("{error:?}")),
        End::Panicked(message) => Outcome::fail(format!("panicked: {message}")),
        End::Cut | End::Stuck => Outcome::fail(format!("not built within {}", clock(limit))),
    };
    session.record_start(&campaign.subject, &campaign.manifest.roles);
    add(
        session,
        prepared,
        vec![own_record("environment", masked(&outcome), "see the attempts listed", begun.elapsed())],
    );
}

fn own_record(probe: &str, outcome: Outcome, remedy: &str, took: Duration) -> PreflightRecord {
    PreflightRecord {
        probe: probe.to_owned(),
        requirement: String::new(),
        outcome,
        remedy: remedy.to_owned(),
        took_ms: took.as_secs_f64() * 1e3,
        advisory: false,
    }
}

/// The exit code of pre-flight alone: advice that is missing counts as degraded.
fn preflight_code(probes: &[PreflightRecord]) -> u8 {
    let is_missing_advice = |probe: &PreflightRecord| probe.outcome.is_no_evidence() && !probe.stops();
    let outcome = |probe: &PreflightRecord| match is_missing_advice(probe) {
        true => Outcome::degraded(probe.outcome.detail()),
        false => probe.outcome.clone(),
    };
    preflight_exit_code(&probes.iter().map(outcome).collect::<Vec<_>>())
}

fn add<C>(session: &Session, prepared: &mut Prepared<C>, records: Vec<PreflightRecord>) {
    for record in &records {
        session.record(Event::Preflight(record.clone()));
    }
    let bad: Vec<_> = records.iter().filter(|record| record.stops()).collect();
    if let Some(first) = bad.first() {
        let more = if bad.len() > 1 { format!(" and {} more", bad.len() - 1) } else { String::new() };
        let line = first.outcome.detail().lines().next().unwrap_or_default();
        prepared.problem.get_or_insert_with(|| format!("{}: {line}{more}", first.probe));
    }
    prepared.probes.extend(records);
}

/// Every probe with its conclusion; what is not a pass with its remedy.
pub(super) fn preflight_table(probes: &[PreflightRecord]) -> String {
    let mut text = String::from("pre-flight");
    for probe in probes {
        text.push_str(&format!("\n  {:<12} {}: {}", probe.outcome.word(), probe.probe, probe.outcome.detail()));
        if !probe.outcome.is_pass() && !probe.remedy.is_empty() {
            text.push_str(&format!("\n               remedy: {}", probe.remedy));
        }
    }
    text
}

/// Ends the environment in bounded time; trouble is said, and changes nothing.
pub(super) async fn tear_down<C: Send + Sync + 'static>(campaign: &Campaign<C>, context: Option<Arc<C>>) {
    let (Some(context), Some(teardown)) = (context, campaign.teardown.clone()) else { return };
    let work = move || -> super::isolate::LocalFuture<'static, ()> {
        Box::pin(async move {
            teardown.call(&context).await;
        })
    };
    match isolated("teardown", HOOK, || {}, || {}, work).await {
        End::Done(()) => {}
        End::Panicked(message) => complain(&format!("teardown panicked: {message}")),
        End::Cut | End::Stuck => complain(&format!("teardown took longer than {}", clock(HOOK))),
    }
}

struct Phases<'a, C> {
    campaign: &'a Campaign<C>,
    session: &'a Arc<Session>,
    context: Arc<C>,
    progress: Progress,
    finished: Vec<Finished>,
    paused: Option<String>,
    keep_going: bool,
}

impl<C: Send + Sync + 'static> Phases<'_, C> {
    async fn phase(&mut self, phase: &Phase<C>, chosen: &[usize]) {
        let ids = chosen.iter().map(|n| phase.scenarios[*n].record.id.clone());
        if self.paused.is_none() {
            self.session.record(Event::PhaseStarted {
                phase: phase.name.clone(),
                budget_ms: u64::try_from(phase.budget.as_millis()).unwrap_or(u64::MAX),
                scenarios: ids.collect(),
            });
        }
        let (begun, started) = (Instant::now(), self.paused.is_none());
        let side_by_side = self.campaign.profile_of(self.session).is_some_and(|profile| profile.side_by_side);
        for batch in batches(phase, chosen, side_by_side) {
            let batch: Vec<_> = batch.into_iter().map(|n| &phase.scenarios[n]).collect();
            let left = phase.hard_limit().saturating_sub(begun.elapsed());
            let blocked = match &self.paused {
                Some(why) => Some(why.clone()),
                None if left.is_zero() => {
                    Some(format!("phase `{}` passed its hard limit of {}", phase.name, clock(phase.hard_limit())))
                }
                None => None,
            };
            match blocked {
                Some(why) => batch.into_iter().for_each(|scenario| self.not_run(phase, scenario, &why)),
                None => {
                    self.batch(phase, &batch, left).await;
                    self.pause_if_low().await;
                }
            }
        }
        if started {
            let took = begun.elapsed();
            let overran = took > phase.budget;
            self.session.record(Event::PhaseFinished {
                phase: phase.name.clone(),
                took_ms: took.as_secs_f64() * 1e3,
                overran,
            });
            if overran {
                let (took, budget) = (clock(took), clock(phase.budget));
                self.progress.line(&format!("[{}] overran: {took}, budget {budget}", phase.name));
            }
        }
    }

    fn not_run(&mut self, phase: &Phase<C>, scenario: &Planned<C>, why: &str) {
        self.session.record(Event::ScenarioNotRun { scenario: scenario.record.clone(), why: why.to_owned() });
        self.finished.push(Finished::not_run(scenario.record.clone(), why));
        self.progress.begins(&phase.name, &scenario.record.id, &scenario.record.title);
        self.progress.ended("not run", Duration::ZERO);
    }

    /// Runs one scenario, or several side by side.
    async fn batch(&mut self, phase: &Phase<C>, batch: &[&Planned<C>], left: Duration) {
        match batch {
            [one] => self.progress.begins(&phase.name, &one.record.id, &one.record.title),
            several => {
                let ids: Vec<_> = several.iter().map(|one| one.record.id.as_str()).collect();
                self.progress.begins(&phase.name, &ids.join("+"), "side by side");
            }
        }
        let limited = |one: &&Planned<C>| self.campaign.limit_of(one, left, self.session);
        let limits: Vec<_> = batch.iter().map(limited).collect();
        let progress = &mut self.progress;
        for finished in one::run(self.session, &self.context, batch, &limits, &mut || progress.tick()).await {
            self.progress.begins(&phase.name, &finished.record.id, &finished.record.title);
            self.progress.ended(finished.outcome.word(), finished.took);
            self.finished.push(finished);
        }
    }

    /// Pauses for good when too few scenarios succeed; what comes later would measure a broken system.
    async fn pause_if_low(&mut self) {
        let (floor, after) = self.campaign.floor;
        let (mut hits, mut total) = (0, 0);
        for finished in &self.finished {
            match finished.outcome {
                Outcome::Pass { .. } | Outcome::Degraded { .. } => (hits, total) = (hits + 1, total + 1),
                Outcome::Fail { .. } => total += 1,
                _ => {}
            }
        }
        if self.paused.is_some() || self.keep_going || total < after {
            return;
        }
        let success = Measured::share(hits, total);
        if !Threshold::new("success", Limit::at_least(floor)).judge(&success).is_fail() {
            return;
        }
        let why = format!("paused: {} succeeded, floor {}", success.display(), Limit::at_least(floor));
        self.progress.line(&why);
        self.paused = Some(why);
        for (name, hook) in &self.campaign.pause_hooks {
            let (hook, context) = (Arc::clone(hook), Arc::clone(&self.context));
            let work = move || -> super::isolate::LocalFuture<'static, String> {
                Box::pin(async move { hook.call(&context).await })
            };
            let text = match isolated(name, HOOK, || {}, || {}, work).await {
                End::Done(text) => mask::mask_secrets(&text),
                End::Panicked(message) => format!("could not be captured: {message}"),
                End::Cut | End::Stuck => format!("could not be captured within {}", clock(HOOK)),
            };
            // Evidence belongs to a scenario: the one after which the campaign paused.
            let last = self.finished.last().map_or("", |finished| finished.record.id.as_str());
            if let Err(error) = self.session.keep(last, &format!("paused-{name}"), text.as_bytes()) {
                self.progress.line(&format!("{name} could not be kept: {error}"));
            }
        }
    }
}

/// The code for a campaign that cannot even open its record.
pub(super) fn cannot_open(error: &crate::Error) -> u8 {
    print(&closing::last_lines("NO-GO", &format!("nothing could start: {}", error.what()), "refused by the evidence"));
    codes::NOT_STARTED
}
