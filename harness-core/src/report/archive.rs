//! The archive: every run's report is kept whole in a directory of its own, and never written over.
//!
//! ```text
//! archive/
//!   20261121T120000Z-2f9c41d07a3e/   a run, by its beginning and its id: report, manifest, records and evidence, read-only
//!     kept.json                      what later runs are compared with
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::model::{Model, PanelLine, Tally};
use super::verify::read;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::record::Machine;

/// Name of the file with what later runs are compared with.
const KEPT: &str = "kept.json";
/// Version of that file.
const SCHEMA: u32 = 1;

/// A directory of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    dir: PathBuf,
}

/// A run in the archive, as far as later runs are compared with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Version of the format.
    pub schema: u32,
    /// Identifier of the run.
    pub run: String,
    /// What was under test.
    pub subject: String,
    /// Profile in use.
    pub profile: String,
    /// Planted defects in force; such a run is kept, and nothing is compared with it.
    pub plants: Vec<String>,
    /// Time of the first event, UTC, RFC 3339.
    pub started: String,
    /// The decision; `NO DECISION` without one.
    pub verdict: String,
    /// The machines it ran on.
    pub machines: Vec<Machine>,
    /// How many scenarios ended how.
    pub scenarios: Tally,
    /// The lines of the metrics panel.
    pub panel: Vec<PanelLine>,
    /// Word of the outcome of each scenario that ran, by id.
    pub outcomes: BTreeMap<String, String>,
    /// Figure and word of the outcome of each criterion and row of the matrix, by name.
    pub criteria: BTreeMap<String, (String, String)>,
}

impl Kept {
    /// What is kept of a run.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        let ran = model.scenarios.iter().filter(|one| one.ran);
        Self {
            schema: SCHEMA,
            run: model.run.id.clone(),
            subject: model.run.subject.clone(),
            profile: model.run.profile.clone(),
            plants: model.run.plants.clone(),
            started: model.run.started.clone(),
            verdict: model.decision.as_ref().map_or("NO DECISION", |decision| &decision.verdict).to_owned(),
            machines: model.run.machines.clone(),
            scenarios: model.totals.scenarios,
            panel: model.panel.clone(),
            outcomes: ran.map(|one| (one.declared.id.clone(), one.outcome.word().to_owned())).collect(),
            criteria: model
                .scenarios
                .iter()
                .flat_map(|one| &one.criteria)
                .chain(&model.matrix)
                .map(|row| {
                    let name = format!("{} {}", row.scenario, row.metric).trim().to_owned();
                    (name, (row.actual.clone(), row.outcome.word().to_owned()))
                })
                .collect(),
        }
    }
}

impl Archive {
    /// The archive in this directory, which need not be there yet.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Its runs of a subject, oldest first, and why others could not be read.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the directory is there and cannot be listed.
    pub fn runs(&self, subject: &str) -> CoreResult<(Vec<Kept>, Vec<String>)> {
        if !self.dir.exists() {
            return Ok((Vec::new(), Vec::new()));
        }
        let entries = fs::read_dir(&self.dir).map_err(|error| failed("list the archive", &self.dir, error))?;
        let (mut runs, mut unread) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry.map_err(|error| failed("list the archive", &self.dir, error))?.path().join(KEPT);
            if !path.exists() {
                continue; // somebody else's, or a copy that was broken off
            }
            let text = fs::read_to_string(&path).map_err(|error| error.to_string());
            match text.and_then(|text| serde_json::from_str::<Kept>(&text).map_err(|error| error.to_string())) {
                Ok(kept) if kept.schema > SCHEMA => {
                    unread.push(format!("{}: of a newer version, not compared", path.display()));
                }
                Ok(kept) if kept.subject == subject => runs.push(kept),
                Ok(_) => {}
                Err(why) => unread.push(format!("{}: {why}, not compared", path.display())),
            }
        }
        runs.sort_by(|a, b| (&a.started, &a.run).cmp(&(&b.started, &b.run)));
        unread.sort();
        Ok((runs, unread))
    }

    /// Keeps a report that was written to `report`: its files, its manifest, its records and its evidence. Returns where.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when this run is kept already: nothing is ever written over. [`ErrorKind::Io`] when it cannot
    /// be written; nothing half-written is taken for a run. [`ErrorKind::Assertion`] when there is no report.
    pub fn keep(&self, report: &Path) -> CoreResult<PathBuf> {
        let model = read(&report.join("results.json"))?;
        let id = &model.run.id;
        let begun: String = model.run.started.chars().filter(char::is_ascii_alphanumeric).collect();
        let name = format!("{begun}-{id}");
        let place = self.dir.join(&name);
        if place.exists() {
            return Err(Error::new(ErrorKind::Refused, format!("run {id} is kept already in {}", place.display()))
                .remedy("give each run an archive once, or another --archive"));
        }
        let unfinished = self.dir.join(format!(".{name}.{}", std::process::id()));
        let copied = copy(report, &unfinished, &|name| belongs(name, id)).and_then(|()| {
            let text = serde_json::to_string_pretty(&Kept::of(&model)).map_err(std::io::Error::other)?;
            write_once(&unfinished.join(KEPT), text.as_bytes())?;
            fs::rename(&unfinished, &place)
        });
        copied.map_err(|error| {
            let _ = fs::remove_dir_all(&unfinished);
            failed("keep the run", &place, error)
        })?;
        Ok(place)
    }
}

/// Whether something at the top of a report directory is of this run: other runs may have been there before.
fn belongs(name: &str, run: &str) -> bool {
    let is_report = [".html", ".xml", ".md", ".json"].iter().any(|end| name.ends_with(end)) && !name.starts_with('.');
    is_report || name.strip_prefix("run-").is_some_and(|rest| rest.split('-').next() == Some(run))
}

fn copy(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let (source, copied) = (entry.path(), to.join(&name));
        if !name.to_str().is_some_and(wanted) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&source, &copied, &|_| true)?;
        } else if entry.file_type()?.is_file() {
            write_once(&copied, &fs::read(&source)?)?;
        }
    }
    Ok(())
}

/// Writes a file that nobody is to change.
fn write_once(path: &Path, content: &[u8]) -> std::io::Result<()> {
    fs::write(path, content)?;
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(path, permissions)
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("could not {what} ({})", path.display()))
        .caused_by(error)
        .remedy("give --archive a directory that can be written")
}

#[cfg(test)]
mod tests {
    use super::{Archive, ErrorKind, KEPT};
    use crate::report::sample;
    use crate::report::write_all;

    #[test]
    fn run_is_kept_whole_once_and_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let (report, archive) = (dir.path().join("report"), Archive::at(dir.path().join("archive")));
        let model = sample::campaign();
        write_all(&model, &report).unwrap();
        for (name, text) in [("evidence.txt", "ours"), ("nested/deep.txt", "ours too")] {
            let path = report.join(format!("run-{}-1-2", model.run.id)).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::create_dir_all(report.join("run-another-1-2")).unwrap();
        let place = archive.keep(&report).unwrap();
        let own = place.join(format!("run-{}-1-2", model.run.id));
        assert_eq!(std::fs::read_to_string(own.join("nested/deep.txt")).unwrap(), "ours too");
        assert!(!place.join("run-another-1-2").exists(), "the evidence of another run");
        assert!(std::fs::metadata(place.join("index.html")).unwrap().permissions().readonly());
        let (runs, unread) = archive.runs(&model.run.subject).unwrap();
        assert_eq!((runs.len(), unread.len(), &runs[0].run), (1, 0, &model.run.id));
        assert_eq!(archive.keep(&report).unwrap_err().kind(), ErrorKind::Refused);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_what_is_elsewhere_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::at(dir.path());
        assert_eq!(archive.runs("nothing").unwrap(), (Vec::new(), Vec::new()));
        for (run, text) in [("torn", "{\"schema\":1,"), ("newer", "")] {
            std::fs::create_dir_all(dir.path().join(run)).unwrap();
            let mut kept = super::Kept::of(&sample::campaign());
            kept.schema = 99;
            let newer = serde_json::to_string(&kept).unwrap();
            std::fs::write(dir.path().join(run).join(KEPT), if text.is_empty() { &newer } else { text }).unwrap();
        }
        std::fs::create_dir_all(dir.path().join("broken-off")).unwrap();
        let (runs, unread) = archive.runs(&sample::campaign().run.subject).unwrap();
        assert_eq!((runs.len(), unread.len()), (0, 2), "{unread:?}");
        assert!(unread[0].contains("newer") && unread[1].contains("torn"), "{unread:?}");
    }
}
