//! Criterion's benches as baselines that can fail.
//!
//! Criterion tests samples of one process against samples of another and ends with 0 either way. But samples of a process
//! share what that process met (its memory layout, where its threads were put, the neighbours of those seconds), so that
//! two processes may differ by half where nothing has changed, and each is sure of itself. This gate takes one figure of
//! each process and runs the benches in several. It reads what criterion wrote
//! (`target/criterion/**/new/{benchmark,sample}.json`), so it links no criterion and takes any version that writes those
//! files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use harness_core::env::Settings;
use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::monitor::trend::median;
use serde::Deserialize;

use super::again::{Again, PART, once_more};
use super::fingerprint::Fingerprint;
use super::pace::{Pace, Pacing};
use super::store::{Baseline, FEWEST_STORED, Runs, baseline, target_dir};
use crate::compare::{Comparison, Judge, Verdict};

/// Figures of so many processes are stored and compared.
const PROCESSES: usize = FEWEST_STORED;
/// A process may take so many times as long as the first one did, and a minute more.
const PATIENCE: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// What to do with the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Save,
    Compare,
    /// Compare with what is there, else save.
    Either,
    /// Nothing: the process that started this one judges them.
    Leave,
}

/// Keeps and compares the results of criterion's benches: [`criterion`].
#[must_use = "the gate judges nothing until it is finished"]
pub struct CriterionGate {
    baseline: Baseline,
    action: Action,
    dir: PathBuf,
    since: SystemTime,
    pacing: Option<Pacing>,
    measures: bool,
    setting: Option<String>,
    again: Again,
}

impl std::fmt::Debug for CriterionGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CriterionGate")
            .field("baseline", &self.baseline)
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
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
/// one, and `save:NAME` or `compare:NAME` use a named one. Its floor is 30 %, and a doubling must be ruled out; smaller
/// changes need [`compare`](crate::compare()).
///
/// Samples of one process share whatever that process met, so each process gives one figure per bench, the median of its
/// samples. [`CriterionGate::finish`] therefore runs the same executable nine times more, with the same arguments but short
/// (per bench 0.3 s to warm up, 0.6 s to measure and 20 samples, unless the arguments say otherwise), below
/// `CRITERION_HOME`s of their own. Meanwhile a thread reads the pace of the machine (1 % of a core):
/// what it lost since the baseline is taken off.
///
/// What two threads take to wake each other is part of what is measured, and on small or shared machines most of it. A bench
/// that runs a service and its client on one thread measures their work alone, and finds far smaller changes.
pub fn criterion(name: impl Into<String>) -> CriterionGate {
    // With these criterion runs nothing, or everything once.
    let measures = !std::env::args().any(|argument| ["--test", "--list"].contains(&argument.as_str()));
    let setting = Settings::get().baseline.as_deref();
    CriterionGate::told(name.into(), setting, target_dir().join("criterion"), measures, Box::new(once_more))
}

impl CriterionGate {
    pub(super) fn told(name: String, setting: Option<&str>, dir: PathBuf, measures: bool, again: Again) -> Self {
        let (verb, which) = setting.map_or(("", ""), |setting| setting.split_once(':').unwrap_or((setting, "")));
        let (action, wrong) = match verb {
            "" => (Action::Either, false),
            "save" => (Action::Save, false),
            "compare" => (Action::Compare, false),
            PART => (Action::Leave, false),
            _ => (Action::Either, true),
        };
        let full = if which.is_empty() { name } else { format!("{name}-{which}") };
        Self {
            baseline: baseline(full)
                .profile("criterion, medians of processes")
                .judge(Judge::default().floor(0.30).detect(1.0)),
            action,
            dir,
            since: SystemTime::now(),
            pacing: (measures && action != Action::Leave).then(Pacing::start),
            measures,
            setting: wrong.then(|| setting.unwrap_or_default().to_owned()),
            again,
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

    /// Runs the benches in further processes, saves or compares, prints what came of it, and says it as an exit code.
    #[must_use]
    pub fn finish(self) -> ExitCode {
        if self.action == Action::Leave {
            return ExitCode::SUCCESS;
        }
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

    /// The comparison; none when a baseline was saved, and in a process whose figures another one judges.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when no bench ran, or not in every process; [`ErrorKind::Config`] for a setting that means
    /// nothing; as [`Baseline::save`], [`Baseline::compare`] and [`run_to_end`](harness_core::service::run_to_end).
    pub fn judged(mut self) -> CoreResult<Option<Comparison>> {
        if let Some(setting) = &self.setting {
            return Err(Error::new(ErrorKind::Config, format!("HARNESS_BASELINE cannot be `{setting}`"))
                .remedy("set it to save, compare, save:NAME or compare:NAME"));
        }
        // It was started for its figures: were it to start others in turn, there would be no end.
        if self.action == Action::Leave {
            return Ok(None);
        }
        let mut processes = vec![benched(&self.dir, self.since)?];
        let saved = match self.action {
            Action::Compare => Some(self.baseline.known()?),
            Action::Either => self.baseline.load()?,
            Action::Save | Action::Leave => None,
        };
        // Said before further processes run for nothing.
        saved.as_ref().map_or(Ok(()), |saved| self.baseline.comparable(saved, &Fingerprint::here()))?;
        let limit = self.since.elapsed().unwrap_or_default() * PATIENCE + MINUTE;
        println!("baseline: the same benches in {} more processes", PROCESSES - processes.len());
        while processes.len() < PROCESSES {
            processes.push(self.one_more(limit)?);
        }
        let runs = figures(&processes)?;
        let pace = self.pacing.take().map_or_else(Pace::now, Pacing::stop);
        match saved {
            None => self.baseline.save_at(runs, pace).map(|_| None),
            Some(saved) => self.baseline.compare_here(&saved, &runs, &pace).map(Some),
        }
    }

    /// What the benches take in another process.
    fn one_more(&mut self, limit: Duration) -> CoreResult<Vec<(String, f64)>> {
        let results = self.dir.with_file_name(format!("criterion-again-{}", std::process::id()));
        let figures = (self.again)(&results, limit).and_then(|()| benched(&results, self.since));
        match std::fs::remove_dir_all(&results) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => figures.and(Err(error.into())),
            _ => figures,
        }
    }
}

/// The figures of all processes, bench by bench.
fn figures(processes: &[Vec<(String, f64)>]) -> CoreResult<Runs> {
    let [first, others @ ..] = processes else { return Ok(Runs::default()) };
    let names = |process: &[(String, f64)]| process.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    if let Some(other) = others.iter().find(|other| names(other) != names(first)) {
        let what = format!("one process ran {:?} and another {:?}", names(first), names(other));
        return Err(Error::new(ErrorKind::NoEvidence, what).remedy("let every run of the executable bench the same"));
    }
    let of = |at: usize| processes.iter().map(move |process| process[at].1);
    Ok(first.iter().enumerate().fold(Runs::default(), |runs, (at, (name, _))| runs.and(name, of(at))))
}

/// The median of the samples, in nanoseconds per iteration, of each bench that wrote since.
fn benched(dir: &Path, since: SystemTime) -> CoreResult<Vec<(String, f64)>> {
    let mut found = Vec::new();
    collect(dir, since, &mut found)?;
    found.sort();
    if found.is_empty() {
        return Err(Error::new(ErrorKind::NoEvidence, format!("no bench wrote to {}", dir.display()))
            .remedy("make the gate before the benches run, and check the filter"));
    }
    let one = |dir: &PathBuf| {
        let bench: Bench = read(&dir.join("benchmark.json"))?;
        let sample: Sample = read(&dir.join("sample.json"))?;
        if sample.iters.len() != sample.times.len() || sample.iters.is_empty() {
            let what = format!("{} has {} times of {} samples", dir.display(), sample.times.len(), sample.iters.len());
            return Err(Error::new(ErrorKind::Config, what));
        }
        let each: Vec<f64> = sample.times.iter().zip(&sample.iters).map(|(time, iters)| time / iters).collect();
        Ok((bench.full_id, median(&each)))
    };
    found.iter().map(one).collect()
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
            let fresh = written.is_ok_and(|written| written + Duration::from_secs(1) >= since);
            if path.ends_with("new") && fresh {
                found.push(path);
            } else {
                collect(&path, since, found)?;
            }
        }
    }
    Ok(())
}
