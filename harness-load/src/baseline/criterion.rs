//! Criterion's benches as baselines that can fail.
//!
//! Criterion tests samples of one process against samples of another and ends with 0 either way. This gate reads what it
//! wrote (`target/criterion/**/new/{benchmark,sample}.json`), so it links no criterion and takes any version that
//! writes those files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use harness_core::env::Settings;
use harness_core::error::{CoreResult, Error, ErrorKind};
use serde::Deserialize;

use super::pace::{Pace, Pacing};
use super::store::{Baseline, Runs, baseline, target_dir};
use crate::compare::{Comparison, Judge, Verdict};

/// What to do with the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Save,
    Compare,
    /// Compare with what is there, else save.
    Either,
}

/// Keeps and compares the results of criterion's benches: [`criterion`].
#[derive(Debug)]
#[must_use = "the gate judges nothing until it is finished"]
pub struct CriterionGate {
    baseline: Baseline,
    action: Action,
    dir: PathBuf,
    since: SystemTime,
    pacing: Option<Pacing>,
    measures: bool,
    setting: Option<String>,
}

/// A gate for the benches of this process; make it before they run. `name` keeps benches of different targets apart.
///
/// ```no_run
/// # fn benches() {}
/// fn main() -> std::process::ExitCode {
///     let gate = harness_load::baseline::criterion("checkout");
///     benches(); // criterion_group!(benches, …)
///     gate.finish() // 0 ok or saved, 1 regressed, 2 cannot be told, 3 nothing to judge
/// }
/// ```
///
/// The first time it saves; from then on it compares. `HARNESS_BASELINE=save` replaces the baseline, `compare` insists on
/// one, and `save:NAME` or `compare:NAME` use a named one. Its floor is 30 %, and a doubling must be ruled out: samples of
/// one process share whatever that process met, so smaller changes need [`compare`](crate::compare()). While the benches
/// run, a thread reads the pace of the machine (1 % of a core): what it lost since the baseline is taken off.
pub fn criterion(name: impl Into<String>) -> CriterionGate {
    // With these criterion runs nothing, or everything once.
    let measures = !std::env::args().any(|argument| ["--test", "--list"].contains(&argument.as_str()));
    CriterionGate::told(name.into(), Settings::get().baseline.as_deref(), target_dir().join("criterion"), measures)
}

impl CriterionGate {
    pub(super) fn told(name: String, setting: Option<&str>, dir: PathBuf, measures: bool) -> Self {
        let (verb, which) = setting.map_or(("", ""), |setting| setting.split_once(':').unwrap_or((setting, "")));
        let (action, wrong) = match verb {
            "" => (Action::Either, false),
            "save" => (Action::Save, false),
            "compare" => (Action::Compare, false),
            _ => (Action::Either, true),
        };
        let full = if which.is_empty() { name } else { format!("{name}-{which}") };
        Self {
            baseline: baseline(full).profile("criterion samples").judge(Judge::default().floor(0.30).detect(1.0)),
            action,
            dir,
            since: SystemTime::now(),
            pacing: measures.then(Pacing::start),
            measures,
            setting: wrong.then(|| setting.unwrap_or_default().to_owned()),
        }
    }

    /// Keeps baselines in another directory, such as one under version control.
    pub fn in_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.baseline = self.baseline.in_dir(dir);
        self
    }

    /// How results are judged.
    pub fn judge(mut self, judge: Judge) -> Self {
        self.baseline = self.baseline.judge(judge);
        self
    }

    /// Saves or compares, prints what came of it, and says it as an exit code.
    #[must_use]
    pub fn finish(self) -> ExitCode {
        if !self.measures {
            println!("baseline: nothing was measured, so nothing was compared");
            return ExitCode::SUCCESS;
        }
        let path = self.baseline.path();
        match self.judged() {
            Ok(None) => {
                println!("baseline: saved to {}; nothing was compared", path.display());
                ExitCode::SUCCESS
            }
            Ok(Some(comparison)) => {
                println!("baseline: {}\n{comparison}", path.display());
                match comparison.verdict() {
                    Verdict::Ok => ExitCode::SUCCESS,
                    Verdict::Regressed => ExitCode::from(1),
                    Verdict::Inconclusive => ExitCode::from(2),
                }
            }
            Err(error) => {
                println!("baseline: {error:?}");
                ExitCode::from(3)
            }
        }
    }

    /// The comparison; none when a baseline was saved.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when no bench ran; [`ErrorKind::Config`] for a setting that means nothing; as
    /// [`Baseline::save`] and [`Baseline::compare`].
    pub fn judged(mut self) -> CoreResult<Option<Comparison>> {
        let pace = self.pacing.take().map_or_else(Pace::now, Pacing::stop);
        if let Some(setting) = &self.setting {
            return Err(Error::new(ErrorKind::Config, format!("HARNESS_BASELINE cannot be `{setting}`"))
                .remedy("set it to save, compare, save:NAME or compare:NAME"));
        }
        let runs = self.runs()?;
        let saves = match self.action {
            Action::Save => true,
            Action::Compare => false,
            Action::Either => self.baseline.load()?.is_none(),
        };
        match saves {
            true => self.baseline.save_at(runs, pace).map(|_| None),
            false => self.baseline.compare_at(&runs, &pace).map(Some),
        }
    }

    /// Nanoseconds per iteration of each sample, for each bench that ran since the gate was made.
    fn runs(&self) -> CoreResult<Runs> {
        let mut found = Vec::new();
        collect(&self.dir, self.since, &mut found)?;
        found.sort();
        if found.is_empty() {
            return Err(Error::new(ErrorKind::NoEvidence, format!("no bench wrote to {}", self.dir.display()))
                .remedy("make the gate before the benches run, and check the filter"));
        }
        found.iter().try_fold(Runs::default(), |runs, dir| {
            let bench: Bench = read(&dir.join("benchmark.json"))?;
            let sample: Sample = read(&dir.join("sample.json"))?;
            if sample.iters.len() != sample.times.len() {
                let what =
                    format!("{} has {} times of {} samples", dir.display(), sample.times.len(), sample.iters.len());
                return Err(Error::new(ErrorKind::Config, what));
            }
            Ok(runs.and(bench.full_id, sample.times.iter().zip(&sample.iters).map(|(time, iters)| time / iters)))
        })
    }
}

#[derive(Deserialize)]
struct Bench {
    full_id: String,
}

#[derive(Deserialize)]
struct Sample {
    iters: Vec<f64>,
    times: Vec<f64>,
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> CoreResult<T> {
    let failed = |what: &str| Error::new(ErrorKind::Config, format!("{} {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed("cannot be read").caused_by(error))?;
    serde_json::from_str(&text).map_err(|error| failed("is not what criterion writes").caused_by(error))
}

/// Directories `new` below this one whose sample was written since.
fn collect(dir: &Path, since: SystemTime, found: &mut Vec<PathBuf>) -> CoreResult {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) }; // nothing was ever benched here
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            let sample = path.join("sample.json");
            let written = std::fs::metadata(&sample).and_then(|data| data.modified());
            // Some file systems keep whole seconds only.
            let fresh = written.is_ok_and(|written| written + std::time::Duration::from_secs(1) >= since);
            if path.ends_with("new") && fresh {
                found.push(path);
            } else {
                collect(&path, since, found)?;
            }
        }
    }
    Ok(())
}
