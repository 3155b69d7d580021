//! One process's share of a run: its record file, its directory, its seed, and how to run a scenario again.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::args::{Args, Drive};
use super::machine;
use crate::env::Settings;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::record::{Event, Line, Recorder};
use crate::run::{Run, Seed, process_start};

/// What the environment of a campaign is built from.
#[derive(Debug)]
pub struct Setup {
    plants: Vec<String>,
    profile: String,
    duration: Option<Duration>,
    seed: Seed,
    dir: PathBuf,
    choices: Mutex<Vec<String>>,
}

impl Setup {
    /// Names of planted defects for the system under test; empty in an honest run.
    #[must_use]
    pub fn plants(&self) -> &[String] {
        &self.plants
    }

    /// The settings profile; `default` unless chosen.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// How long scenarios are to measure, where `--duration` says so.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        self.duration
    }

    /// The seed of the run.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// The directory of this run, for logs and other files of the environment.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Notes a choice and its reason for the report, for example `postgres: container, image present`.
    pub fn choice(&self, text: impl Into<String>) {
        lock(&self.choices).push(text.into());
    }
}

/// A mutex that a panicking scenario may have poisoned is still good: what it guards is only ever appended to.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(super) struct Session {
    recorder: Recorder,
    /// The first error while recording: lost records are lost evidence.
    lost: Mutex<Option<Error>>,
    pub(super) setup: std::sync::Arc<Setup>,
    /// Evidence paths are recorded relative to this.
    base: PathBuf,
    package: Option<String>,
    target: String,
}

/// The profile that runs when none is asked for.
pub(super) const DEFAULT_PROFILE: &str = "default";

impl Session {
    /// The profile asked for by arguments or environment.
    pub(super) fn profile(args: &Args) -> String {
        let asked = args.profile.clone().or_else(|| Settings::get().profile.clone());
        asked.unwrap_or_else(|| DEFAULT_PROFILE.to_owned())
    }

    /// The planted defects asked for by environment and arguments.
    pub(super) fn plants(args: &Args) -> Vec<String> {
        let mut plants = Settings::get().plants.clone();
        let more: Vec<_> = args.plants.iter().filter(|plant| !plants.contains(plant)).cloned().collect();
        plants.extend(more);
        plants
    }

    /// Opens the record of this process. Under the campaign drive everything goes below `--out`, beside the reports.
    pub(super) fn open(args: &Args, package: Option<String>) -> CoreResult<Self> {
        let (settings, run) = (Settings::get(), Run::current());
        let campaign = args.drive == Drive::Campaign;
        let pid = std::process::id();
        // The start tick tells processes apart that had the same id one after the other.
        let process = format!("{pid}-{}", process_start(pid).unwrap_or_default());
        let (base, dir) = if campaign {
            let base = std::path::absolute(&args.out).unwrap_or_else(|_| args.out.clone());
            let dir = base.join(format!("run-{}-{process}", run.id()));
            (base, dir)
        } else {
            (run.out().to_owned(), run.out().to_owned())
        };
        let attempt = match &settings.nextest {
            Some(nextest) if !campaign => format!("campaign-{process}-attempt{}", nextest.attempt),
            _ => format!("campaign-{process}"),
        };
        Ok(Self {
            recorder: Recorder::create(&dir, run.id(), &attempt)?,
            lost: Mutex::new(None),
            setup: std::sync::Arc::new(Setup {
                plants: Self::plants(args),
                profile: Self::profile(args),
                duration: args.duration,
                seed: run.seed(),
                dir,
                choices: Mutex::new(Vec::new()),
            }),
            base,
            package: package.or_else(|| Settings::get().package.clone()),
            target: target_name(),
        })
    }

    pub(super) fn record(&self, event: Event) -> Option<Line> {
        match self.recorder.write(event) {
            Ok(line) => Some(line),
            Err(error) => {
                lock(&self.lost).get_or_insert(error);
                None
            }
        }
    }

    /// Why records were lost, if they were.
    pub(super) fn lost(&self) -> Option<String> {
        lock(&self.lost).as_ref().map(ToString::to_string)
    }

    pub(super) fn recorder_path(&self) -> &Path {
        self.recorder.path()
    }

    /// Says who and where we are; again after the environment was built, with the choices made.
    pub(super) fn record_start(&self, subject: &str, roles: &std::collections::BTreeMap<String, String>) {
        self.record(Event::RunStarted {
            subject: subject.to_owned(),
            seed: self.setup.seed.to_string(),
            profile: self.setup.profile.clone(),
            plants: self.setup.plants.clone(),
            command: super::mask::mask_secrets(&std::env::args().collect::<Vec<_>>().join(" ")),
            machine: machine::machine(),
            choices: lock(&self.setup.choices).clone(),
            roles: roles.clone(),
        });
    }

    /// The directory of one scenario's evidence.
    pub(super) fn evidence_dir(&self, id: &str) -> PathBuf {
        self.setup.dir.join(id)
    }

    /// Keeps a file as evidence and records it.
    pub(super) fn keep(&self, id: &str, name: &str, bytes: &[u8]) -> CoreResult<PathBuf> {
        let safe: String =
            name.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
        let safe = safe.trim_start_matches('.');
        if safe.is_empty() {
            return Err(Error::new(ErrorKind::Config, format!("`{name}` is not a name for evidence")));
        }
        let dir = self.evidence_dir(id);
        let path = dir.join(safe);
        std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, bytes)).map_err(|error| {
            Error::new(ErrorKind::Io, format!("could not keep the evidence {}", path.display())).caused_by(error)
        })?;
        let shown = path.strip_prefix(&self.base).unwrap_or(&path).to_string_lossy().into_owned();
        self.record(Event::Evidence { scenario: id.to_owned(), path: shown, about: name.to_owned() });
        Ok(path)
    }

    /// The command that runs one scenario again with the same seed, defects and profile.
    pub(super) fn again(&self, id: &str) -> String {
        let mut line = format!("HARNESS_SEED={}", self.setup.seed);
        if !self.setup.plants.is_empty() {
            line.push_str(&format!(" HARNESS_PLANT={}", self.setup.plants.join(",")));
        }
        if self.setup.profile != DEFAULT_PROFILE {
            line.push_str(&format!(" HARNESS_PROFILE={}", self.setup.profile));
        }
        let package = self.package.as_ref().map_or_else(String::new, |package| format!(" -p {package}"));
        line.push_str(&format!(" cargo test{package} --test {} -- {id}", self.target));
        line
    }
}

/// `campaign` for `target/debug/deps/campaign-0123456789abcdef`.
fn target_name() -> String {
    let exe = std::env::current_exe().unwrap_or_default();
    let stem = exe.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match stem.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => name.to_owned(),
        _ => stem,
    }
}
