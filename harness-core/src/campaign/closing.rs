//! The end of a campaign: results written, rows judged, the decision made, said and written.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use harness_props::Outcome;

use super::Campaign;
use super::args::Args;
use super::machine::machine;
use super::manifest::{Manifest, Stamp};
use super::one::Finished;
use super::progress::{complain, print};
use super::session::Session;
use crate::error::CoreResult;
use crate::record::{CriterionRecord, Event, Records};
use crate::slo::{
    CriterionResult, Decision, Inputs, MatrixRow, Policy, ReleaseRow, ScenarioResult, Verdict, codes, decide,
    judge_rows,
};

pub(super) struct Closing<'a> {
    session: &'a Session,
    manifest: Manifest,
    out: PathBuf,
    /// Where the run is kept, and what it is compared with.
    #[cfg_attr(not(feature = "report"), expect(dead_code, reason = "reports are kept"))]
    archive: Option<PathBuf>,
    rows: &'a [ReleaseRow],
    policy: &'a Policy,
    /// What went wrong with the campaign's own papers; missing papers are missing evidence.
    trouble: Vec<String>,
    merged: Records,
}

impl<'a> Closing<'a> {
    pub(super) fn new<C>(campaign: &'a Campaign<C>, session: &'a Session, args: &Args) -> Self {
        let manifest = Manifest {
            run: crate::run::Run::current().id().to_owned(),
            subject: campaign.subject.clone(),
            seed: session.setup.seed().to_string(),
            profile: session.setup.profile().to_owned(),
            plants: session.setup.plants().to_vec(),
            machine: machine(),
            ..campaign.manifest.clone()
        };
        Self {
            session,
            manifest,
            out: args.out.clone(),
            archive: args.archive.clone(),
            rows: &campaign.rows,
            policy: &campaign.policy,
            trouble: Vec::new(),
            merged: Records::default(),
        }
    }

    pub(super) fn stamp(&mut self, stamp: Stamp) {
        self.stamp_at(stamp, SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64));
    }

    /// Records of other processes that belong to the same run.
    pub(super) fn merge(&mut self, records: Records) {
        self.merged = records;
    }

    /// Everything on record, in order of time.
    fn records(&self) -> CoreResult<Records> {
        let mut all = crate::record::read_file(self.session.recorder_path())?;
        if !self.merged.lines.is_empty() {
            all.lines.extend(self.merged.lines.iter().cloned());
            all.torn.extend(self.merged.torn.iter().cloned());
            all.lines.sort_by(|a, b| (a.at_ms, &a.attempt, a.seq).cmp(&(b.at_ms, &b.attempt, b.seq)));
        }
        Ok(all)
    }

    pub(super) fn stamp_at(&mut self, stamp: Stamp, at_ms: u64) {
        match self.manifest.stamp(stamp, at_ms) {
            Ok(()) => drop(self.session.record(Event::Stamp { name: stamp.word().to_owned() })),
            Err(error) => self.trouble.push(error.to_string()),
        }
    }

    /// Nothing could start: no verdict on the system, but nothing to release either.
    pub(super) fn not_started(&mut self, why: &str) -> u8 {
        let decision = Decision { verdict: Verdict::NoGo, reasons: vec![format!("nothing could start: {why}")] };
        self.say(&decision, codes::NOT_STARTED);
        codes::NOT_STARTED
    }

    /// Judges and decides; returns the exit code.
    pub(super) fn decide(&mut self, finished: &[Finished]) -> u8 {
        // Results first: a decision is made from what is on disk, not from what was about to be written.
        if let Err(error) = self.write_reports() {
            self.trouble.push(error.to_string());
        }
        self.stamp(Stamp::Reported);
        let scenarios: Vec<ScenarioResult> = finished.iter().map(Finished::result).collect();
        let metrics: Vec<_> = finished.iter().flat_map(|f| f.metrics.iter().cloned()).collect();
        let mut criteria: Vec<_> = finished.iter().flat_map(Finished::criterion_results).collect();
        for row in judge_rows(self.rows, &metrics, &scenarios, self.policy) {
            match row {
                MatrixRow::Judged(record) => {
                    criteria.push(CriterionResult {
                        name: record.metric.clone(),
                        critical: record.is_critical,
                        outcome: record.outcome.clone(),
                    });
                    self.session.record(Event::Criterion(record));
                }
                MatrixRow::NotInScope { row, why } => drop(self.session.record(Event::NotInScope { row, why })),
            }
        }
        self.stamp(Stamp::Analysed);
        self.trouble.extend(self.session.lost());
        criteria.extend(self.trouble.iter().map(|trouble| CriterionResult {
            name: "the campaign's own records".to_owned(),
            critical: true,
            outcome: Outcome::no_evidence(trouble),
        }));
        let findings = finished.iter().flat_map(|f| f.findings.iter().cloned()).collect();
        let decision = decide(&Inputs { policy: self.policy.clone(), scenarios, criteria, findings });
        self.stamp(Stamp::Decided);
        self.say(&decision, decision.verdict.exit_code());
        decision.verdict.exit_code()
    }

    fn say(&mut self, decision: &Decision, exit_code: u8) {
        let release = self.manifest.release_status(decision.verdict);
        self.manifest.verdict = Some(decision.verdict.to_string());
        self.session.record(Event::Decided {
            verdict: decision.verdict.to_string(),
            reasons: decision.reasons.clone(),
            release: release.clone(),
            exit_code,
        });
        let written = self.write_reports().and_then(|text| {
            self.manifest.write(&self.out.join("manifest.json"))?;
            Ok(text)
        });
        match written {
            Ok(text) => {
                print(&text);
                self.keep();
            }
            Err(error) => complain(&format!("the reports could not be written: {error:?}")),
        }
        let more = match decision.reasons.len() {
            0 | 1 => String::new(),
            n => format!("; {} more", n - 1),
        };
        let reason = decision.reasons.first().map_or("", String::as_str);
        print(&last_lines(&decision.verdict.to_string(), &format!("{reason}{more}"), &release));
    }

    /// Writes what can be written and returns the text for the terminal.
    #[cfg(feature = "report")]
    fn write_reports(&self) -> CoreResult<String> {
        use std::io::IsTerminal;

        use crate::report;

        let records = self.records()?;
        let mut model = report::Model::from_records(&records);
        if let Some(archive) = &self.archive {
            match report::Archive::at(archive).runs(&model.run.subject) {
                Ok((runs, unread)) => {
                    model.compare(&runs);
                    model.warnings.extend(unread);
                }
                Err(error) => model.warnings.push(error.to_string()),
            }
        }
        let written = report::write_all(&model, &self.out)?;
        let refused = crate::env::Settings::get().no_color.then_some("1");
        let style = report::Style::choose(std::io::stdout().is_terminal(), refused);
        let first = written.paths.first().map_or_else(String::new, |path| format!("report: {}", path.display()));
        Ok(format!("\n{}{}{first}", report::panel(&model, style), not_in_scope(&records)))
    }

    /// Keeps the report in the archive, if there is one.
    #[cfg(feature = "report")]
    fn keep(&self) {
        let Some(archive) = &self.archive else { return };
        match crate::report::Archive::at(archive).keep(&self.out) {
            Ok(place) => print(&format!("kept: {}", place.display())),
            Err(error) => complain(&format!("the run is not in the archive: {error:?}")),
        }
    }

    /// Without the `report` feature there is no report to keep.
    #[cfg(not(feature = "report"))]
    #[expect(clippy::unused_self, reason = "the other one needs it")]
    fn keep(&self) {}

    /// Without the `report` feature: the matrix alone.
    #[cfg(not(feature = "report"))]
    fn write_reports(&self) -> CoreResult<String> {
        let records = self.records()?;
        let mut text = String::from("\ndecision matrix");
        for line in &records.lines {
            match &line.event {
                Event::Criterion(record) => text.push_str(&format!("\n  {}", matrix_line(record))),
                Event::Decided { reasons, .. } => {
                    reasons.iter().for_each(|reason| text.push_str(&format!("\nreason: {reason}")));
                }
                _ => {}
            }
        }
        Ok(format!("{text}\n{}records: {}", not_in_scope(&records), self.session.recorder_path().display()))
    }
}

#[cfg_attr(feature = "report", expect(dead_code, reason = "the report's panel shows the matrix"))]
fn matrix_line(record: &CriterionRecord) -> String {
    let name = format!("{} {}", record.scenario, record.metric);
    let actual = if record.actual.is_empty() { "no data" } else { &record.actual };
    let (target, critical, word, colour) = (&record.target, &record.critical, record.outcome.word(), &record.colour);
    format!("{:<28} target {target:<10} critical {critical:<10} actual {actual:<24} {word} {colour}", name.trim())
        .trim_end()
        .to_owned()
}

fn not_in_scope(records: &Records) -> String {
    let mut text = String::new();
    for line in &records.lines {
        if let Event::NotInScope { row, why } = &line.event {
            text.push_str(&format!("not in scope: {row} ({why})\n"));
        }
    }
    text
}

/// The two lines that end every campaign.
pub(super) fn last_lines(verdict: &str, reason: &str, release: &str) -> String {
    format!("evidence: {verdict} ({})\nrelease: {release}", reason.replace('\n', " "))
}
