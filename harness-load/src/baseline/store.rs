//! The file of a baseline, and holding runs against it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::run::fnv;
use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::pace::Pace;
use super::rank::{Sample, row};
use crate::compare::{Better, Comparison, Judge};

/// Version of the file; a file of another is refused.
const SCHEMA: u32 = 3;
/// Fewest runs that are stored, and that are compared with stored ones.
pub(super) const FEWEST_STORED: usize = 10;
const FEWEST_NEW: usize = 5;

/// Figures of several runs, by metric.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[must_use = "runs are to be saved or compared"]
pub struct Runs(Vec<Figures>);

/// The figures of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Figures {
    metric: String,
    better: Better,
    figures: Vec<f64>,
}

impl Runs {
    /// The figures of one metric of which less is better, one per run or block of a run.
    pub fn of(metric: impl Into<String>, figures: impl IntoIterator<Item = f64>) -> Self {
        Self::default().and(metric, figures)
    }

    /// Another metric of the same runs, of which less is better.
    pub fn and(self, metric: impl Into<String>, figures: impl IntoIterator<Item = f64>) -> Self {
        self.with(metric.into(), Better::Lower, figures)
    }

    /// Another metric of the same runs, of which more is better: throughput, the share of successes.
    pub fn and_more(self, metric: impl Into<String>, figures: impl IntoIterator<Item = f64>) -> Self {
        self.with(metric.into(), Better::Higher, figures)
    }

    fn with(mut self, metric: String, better: Better, figures: impl IntoIterator<Item = f64>) -> Self {
        self.0.push(Figures { metric, better, figures: figures.into_iter().collect() });
        self
    }

    /// The names of the metrics.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|one| one.metric.as_str())
    }

    /// The figures of a metric.
    #[must_use]
    pub fn figures(&self, metric: &str) -> Option<&[f64]> {
        self.find(metric).map(|one| one.figures.as_slice())
    }

    fn find(&self, metric: &str) -> Option<&Figures> {
        self.0.iter().find(|one| one.metric == metric)
    }

    pub(super) fn check(&self, fewest: usize) -> CoreResult {
        if self.0.is_empty() {
            return Err(Error::new(ErrorKind::NoEvidence, "there is no metric to keep or to compare"));
        }
        for Figures { metric: name, figures, .. } in &self.0 {
            if let Some(wrong) = figures.iter().find(|figure| !(figure.is_finite() && **figure > 0.0)) {
                return Err(Error::new(ErrorKind::Config, format!("a figure of `{name}` is {wrong}, not above zero")));
            }
            if figures.len() < fewest {
                return Err(Error::new(
                    ErrorKind::NoEvidence,
                    format!("`{name}` has {} runs, {fewest} are needed", figures.len()),
                )
                .remedy("one run says nothing about the next: repeat it"));
            }
        }
        Ok(())
    }
}

/// What stands in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    schema: u32,
    name: String,
    /// What was run, as text.
    pub profile: String,
    /// Its hash; equal profiles have equal hashes.
    pub profile_hash: String,
    /// Machine and build.
    pub fingerprint: Fingerprint,
    /// How fast the machine was then.
    pub(super) pace: Pace,
    /// Milliseconds since the Unix epoch.
    pub saved_at_ms: u64,
    /// The figures.
    pub runs: Runs,
}

impl Saved {
    /// A limit for a metric that normal operation keeps: the worst stored run and a margin (0.2 for 20 %). None for a metric
    /// that was not stored, and for one of which more is better: that has a [`Saved::floor`].
    #[must_use]
    pub fn ceiling(&self, metric: &str, margin: f64) -> Option<f64> {
        self.worst(metric, Better::Lower).map(|worst| worst * (1.0 + margin))
    }

    /// The same for a metric of which more is better: the worst stored run less a margin.
    #[must_use]
    pub fn floor(&self, metric: &str, margin: f64) -> Option<f64> {
        self.worst(metric, Better::Higher).map(|worst| worst * (1.0 - margin))
    }

    pub(crate) fn worst(&self, metric: &str, better: Better) -> Option<f64> {
        let stored = self.runs.find(metric).filter(|one| one.better == better)?;
        stored.figures.iter().copied().reduce(if better == Better::Lower { f64::max } else { f64::min })
    }
}

/// A named baseline.
#[derive(Debug, Clone)]
#[must_use = "a baseline does nothing until it is saved or compared with"]
pub struct Baseline {
    name: String,
    profile: String,
    dir: PathBuf,
    judge: Judge,
}

/// A baseline of this name, in `target/baselines` beside the running executable, with a floor of 10 % and 20 % as the
/// worsening that must not slip through.
pub fn baseline(name: impl Into<String>) -> Baseline {
    let dir = target_dir().join("baselines");
    Baseline { name: name.into(), profile: String::new(), dir, judge: Judge::default().floor(0.10).detect(0.20) }
}

impl Baseline {
    /// What is run, in words that change whenever the load does: `200/s for 30 s, seed 7`.
    pub fn profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = profile.into();
        self
    }

    /// Where the file lies; give a directory under version control to share it among equal machines.
    pub fn in_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// How runs are judged.
    pub fn judge(mut self, judge: Judge) -> Self {
        self.judge = judge;
        self
    }

    /// Runs old and new side by side instead: nothing is stored, nothing goes stale.
    pub fn interleaved(&self) -> crate::compare::Compare {
        crate::compare::compare(&self.name)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let readable: String = self.name.chars().map(safe).collect();
        // Two names that read the same as file names are two files.
        let suffix =
            if readable == self.name { String::new() } else { format!("-{:08x}", fnv(self.name.as_bytes()) >> 32) };
        self.dir.join(format!("{readable}{suffix}.json"))
    }

    /// Keeps runs as the baseline; replaces an older one in one step. At least ten runs of each metric.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] with too few runs, [`ErrorKind::Config`] for figures that are none, [`ErrorKind::Io`].
    pub fn save(&self, runs: Runs) -> CoreResult<Saved> {
        self.save_at(runs, Pace::now())
    }

    pub(super) fn save_at(&self, runs: Runs, pace: Pace) -> CoreResult<Saved> {
        runs.check(FEWEST_STORED)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let saved = Saved {
            schema: SCHEMA,
            name: self.name.clone(),
            profile: self.profile.clone(),
            profile_hash: self.hash(),
            fingerprint: Fingerprint::here(),
            pace,
            saved_at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            runs,
        };
        let path = self.path();
        let failed = |error: std::io::Error| self.error(ErrorKind::Io, "cannot be written").caused_by(error);
        let text = serde_json::to_string_pretty(&saved).map_err(|error| failed(error.into()))?;
        std::fs::create_dir_all(&self.dir).map_err(failed)?;
        // Beside it and then renamed: who reads it meanwhile reads the old one or the new one.
        let half = path.with_extension(format!("{}.part", std::process::id()));
        std::fs::write(&half, text + "\n").and_then(|()| std::fs::rename(&half, &path)).map_err(failed)?;
        Ok(saved)
    }

    /// Reads it. None if there is no file.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a file of another schema, [`ErrorKind::Config`] for one that cannot be understood,
    /// [`ErrorKind::Io`].
    pub fn load(&self) -> CoreResult<Option<Saved>> {
        let text = match std::fs::read_to_string(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error(ErrorKind::Io, "cannot be read").caused_by(error)),
        };
        let garbled = |error: serde_json::Error| self.error(ErrorKind::Config, "is no baseline").caused_by(error);
        let value: serde_json::Value = serde_json::from_str(&text).map_err(garbled)?;
        match value["schema"].as_u64() {
            Some(schema) if schema == u64::from(SCHEMA) => {}
            Some(schema) => {
                let what = format!("has schema {schema}; this harness reads {SCHEMA}");
                return Err(self.error(ErrorKind::Refused, &what));
            }
            None => return Err(self.error(ErrorKind::Config, "is no baseline: it states no schema")),
        }
        serde_json::from_value(value).map(Some).map_err(garbled)
    }

    /// Holds new runs, at least five, against the stored ones. Metrics that are new are left out; one that is gone is
    /// missing evidence.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] without a baseline, with too few runs, or for a metric that was stored and is missing;
    /// [`ErrorKind::Refused`] for a baseline of another machine, build, profile or schema, naming what differs;
    /// [`ErrorKind::Config`] for figures that are none; [`ErrorKind::Io`].
    pub fn compare(&self, runs: &Runs) -> CoreResult<Comparison> {
        self.compare_here(&self.known()?, runs, &Pace::now())
    }

    /// It, or the error that says there is none.
    pub(super) fn known(&self) -> CoreResult<Saved> {
        let missing = || self.error(ErrorKind::NoEvidence, "does not exist").remedy("save one first");
        self.load()?.ok_or_else(missing)
    }

    pub(super) fn compare_here(&self, saved: &Saved, runs: &Runs, pace: &Pace) -> CoreResult<Comparison> {
        self.compare_with(saved, runs, &Fingerprint::here(), pace)
    }

    pub(super) fn compare_with(
        &self,
        saved: &Saved,
        runs: &Runs,
        here: &Fingerprint,
        pace: &Pace,
    ) -> CoreResult<Comparison> {
        self.judge.check()?;
        runs.check(FEWEST_NEW)?;
        saved.runs.check(FEWEST_STORED)?;
        self.comparable(saved, here)?;
        let Some(drift) = pace.against(&saved.pace) else {
            return Err(self.error(ErrorKind::Config, "states no usable pace of its machine"));
        };
        let known: Vec<_> = saved.runs.0.iter().collect();
        let mut rows = Vec::with_capacity(known.len());
        for old in &known {
            let name = &old.metric;
            let Some(new) = runs.find(name) else {
                return Err(self.error(ErrorKind::NoEvidence, &format!("has `{name}`, which was not measured now")));
            };
            if old.better != new.better {
                let what = format!("has `{name}` the other way round: once less of it is better, once more");
                return Err(self.error(ErrorKind::Config, &what));
            }
            let (old, new) = (Sample { better: old.better, figures: &old.figures }, new.figures.as_slice());
            rows.push(row(&self.judge, known.len(), name, old, new, drift));
        }
        Ok(Comparison::judged(rows, self.judge))
    }

    /// Whether new runs from here say anything about the stored ones.
    pub(super) fn comparable(&self, saved: &Saved, here: &Fingerprint) -> CoreResult {
        let mut differences = saved.fingerprint.differences(here);
        if saved.profile_hash != self.hash() {
            differences.push(format!("profile: `{}` there, `{}` here", saved.profile, self.profile));
        }
        if !differences.is_empty() {
            let error = self.error(ErrorKind::Refused, "is not of this machine, build and load");
            let error = differences.into_iter().fold(error, Error::tried);
            return Err(error.remedy("save a new one here, or run old and new interleaved"));
        }
        Ok(())
    }

    pub(super) fn hash(&self) -> String {
        format!("{:016x}", fnv(self.profile.as_bytes()))
    }

    fn error(&self, kind: ErrorKind, what: &str) -> Error {
        Error::new(kind, format!("baseline `{}` ({}) {what}", self.name, self.path().display()))
    }
}

/// The cargo target directory this executable was built into, else `target` in the working directory.
pub(super) fn target_dir() -> PathBuf {
    target_dir_of(&std::env::current_exe().unwrap_or_default())
}

/// Cargo tags the directories that it makes (<https://bford.info/cachedir>), and puts tests and benches into `<profile>/deps`;
/// a directory that was there before it, such as a restored cache, has no tag.
pub(super) fn target_dir_of(exe: &Path) -> PathBuf {
    let tagged = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    let above_deps = || exe.parent().filter(|dir| dir.ends_with("deps")).and_then(|deps| deps.ancestors().nth(2));
    tagged.or_else(above_deps).map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
}
