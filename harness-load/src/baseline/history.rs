//! A history of baselines: the medians of every night, and when they moved.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::monitor::trend::median;
use serde::{Deserialize, Serialize};

use super::change::{ChangePoint, change_points};
use super::fingerprint::Fingerprint;
use super::store::{Baseline, Runs};

/// Version of a line; one of another is refused.
const SCHEMA: u32 = 1;
/// Fewest entries that can show a change.
const FEWEST: usize = 8;

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    schema: u32,
    at_ms: u64,
    profile_hash: String,
    fingerprint: Fingerprint,
    /// The median of each metric.
    medians: Vec<(String, f64)>,
}

/// The comparable entries of a history, oldest first.
#[derive(Debug, Clone)]
#[must_use = "a history says nothing until it is asked"]
pub struct History {
    path: PathBuf,
    entries: Vec<Entry>,
    left_out: usize,
}

/// A change and when it came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// What changed, by position among the figures.
    pub change: ChangePoint,
    /// When the first figure of the new level was kept, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl Baseline {
    /// Adds the medians of these runs to the history of this baseline, a line in a file beside it. Each night's runs belong
    /// there whether or not they are saved as the baseline.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] without a metric or without a figure of one, [`ErrorKind::Config`] for figures that are
    /// none, [`ErrorKind::Io`].
    pub fn append(&self, runs: &Runs) -> CoreResult {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.append_as(runs, Fingerprint::here(), u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn append_as(&self, runs: &Runs, fingerprint: Fingerprint, at_ms: u64) -> CoreResult {
        runs.check(1)?;
        let medians = runs.metrics().filter_map(|name| Some((name.to_owned(), median(runs.figures(name)?)))).collect();
        let entry = Entry { schema: SCHEMA, at_ms, profile_hash: self.hash(), fingerprint, medians };
        let path = self.history_path();
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Io, format!("history {} cannot be written", path.display())).caused_by(error)
        };
        let line = serde_json::to_string(&entry).map_err(|error| failed(error.into()))? + "\n";
        std::fs::create_dir_all(path.with_file_name("")).map_err(failed)?;
        // One write at the end of the file: two processes that append do not mix their lines.
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(failed)
    }

    /// Reads what [`Baseline::append`] kept on this machine, with this build and this load; entries of others are left out
    /// and counted, since a new compiler moves figures as much as new code does.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a line that cannot be understood, [`ErrorKind::Refused`] for one of another schema,
    /// [`ErrorKind::Io`]. A last line that was cut off is left out.
    pub fn history(&self) -> CoreResult<History> {
        self.history_of(&Fingerprint::here())
    }

    pub(super) fn history_of(&self, here: &Fingerprint) -> CoreResult<History> {
        let path = self.history_path();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                let what = format!("history {} cannot be read", path.display());
                return Err(Error::new(ErrorKind::Io, what).caused_by(error));
            }
        };
        let (mut entries, mut left_out) = (Vec::new(), 0);
        for (n, line) in text.split_inclusive('\n').enumerate() {
            let Some(line) = line.strip_suffix('\n') else {
                left_out += 1; // its writer was killed
                break;
            };
            let wrong = |kind, what: &str| Error::new(kind, format!("line {} of {} {what}", n + 1, path.display()));
            let value: serde_json::Value = serde_json::from_str(line)
                .map_err(|error| wrong(ErrorKind::Config, "is no entry of a history").caused_by(error))?;
            if value["schema"] != SCHEMA {
                return Err(wrong(
                    ErrorKind::Refused,
                    &format!("has schema {}; this harness reads {SCHEMA}", value["schema"]),
                ));
            }
            let entry: Entry = serde_json::from_value(value)
                .map_err(|error| wrong(ErrorKind::Config, "is no entry of a history").caused_by(error))?;
            if entry.fingerprint == *here && entry.profile_hash == self.hash() {
                entries.push(entry);
            } else {
                left_out += 1;
            }
        }
        entries.sort_by_key(|entry| entry.at_ms);
        Ok(History { path, entries, left_out })
    }

    /// The file of the history.
    #[must_use]
    pub fn history_path(&self) -> PathBuf {
        self.path().with_extension("history.ndjson")
    }
}

impl History {
    /// How many entries can be compared.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many are of another machine, build or load, or were cut off.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The medians of a metric, oldest first.
    #[must_use]
    pub fn figures(&self, metric: &str) -> Vec<f64> {
        self.of(metric).map(|(_, figure)| figure).collect()
    }

    /// When the figures of a metric moved, oldest change first; empty when they did not.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] with fewer than eight figures: so few show no change, and no calm either.
    pub fn moved(&self, metric: &str) -> CoreResult<Vec<Moved>> {
        let (times, figures): (Vec<u64>, Vec<f64>) = self.of(metric).unzip();
        if figures.len() < FEWEST {
            let what = format!(
                "{} figures of `{metric}` in {} show no change and no calm",
                figures.len(),
                self.path.display()
            );
            let error = Error::new(ErrorKind::NoEvidence, what);
            let error = if self.left_out == 0 {
                error
            } else {
                error.tried(format!("{} entries are of another machine, build or load, or were cut off", self.left_out))
            };
            return Err(error.remedy(format!("append {FEWEST} at least, one per night")));
        }
        let changes = change_points(&figures).into_iter();
        Ok(changes.map(|change| Moved { change, at_ms: times[change.at] }).collect())
    }

    fn of(&self, metric: &str) -> impl Iterator<Item = (u64, f64)> {
        self.entries.iter().filter_map(move |entry| {
            let (_, figure) = entry.medians.iter().find(|(name, _)| name == metric)?;
            Some((entry.at_ms, *figure))
        })
    }
}

#[cfg(test)]
mod tests {
    use harness_core::ErrorKind;

    use super::{Fingerprint, Runs};
    use crate::baseline::{Baseline, baseline};

    /// A night a line; the figures wobble by a percent.
    fn nights(dir: &std::path::Path, figures: impl IntoIterator<Item = f64>) -> Baseline {
        let checkout = baseline("checkout").profile("200/s").in_dir(dir);
        for (n, figure) in figures.into_iter().enumerate() {
            let wobble = [0.99, 1.0, 1.01].map(|factor| figure * factor * (1.0 + 0.004 * ((n * 7 % 5) as f64 - 2.0)));
            checkout.append_as(&Runs::of("p95", wobble), Fingerprint::here(), 1_000 * (n as u64 + 1)).unwrap();
        }
        checkout
    }

    #[test]
    fn a_stored_series_that_moved_says_when_and_one_that_did_not_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let calm = nights(dir.path(), [20.0; 30]).history().unwrap();
        assert_eq!((calm.len(), calm.left_out(), calm.moved("p95").unwrap()), (30, 0, vec![]));
        let dir = tempfile::tempdir().unwrap();
        let slower = nights(dir.path(), (0..30).map(|n| if n < 18 { 20.0 } else { 23.0 })).history().unwrap();
        let moved = slower.moved("p95").unwrap();
        assert_eq!((moved.len(), moved[0].change.at, moved[0].at_ms), (1, 18, 19_000), "{moved:?}");
        assert!(moved[0].change.after / moved[0].change.before > 1.1, "{moved:?}");
    }

    #[test]
    fn entries_of_another_machine_or_load_move_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let checkout = nights(dir.path(), [20.0; 10]);
        let elsewhere = Fingerprint { cpu: "another".to_owned(), ..Fingerprint::here() };
        for n in 0..10 {
            checkout.append_as(&Runs::of("p95", [90.0]), elsewhere.clone(), 100_000 + n).unwrap();
            checkout.clone().profile("400/s").append(&Runs::of("p95", [50.0])).unwrap();
        }
        let history = checkout.history().unwrap();
        assert_eq!((history.len(), history.left_out(), history.moved("p95").unwrap()), (10, 20, vec![]));
        assert_eq!(checkout.history_of(&elsewhere).unwrap().figures("p95"), [90.0; 10]);
    }

    #[test]
    fn too_few_figures_and_files_that_cannot_be_used_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let checkout = nights(dir.path(), [20.0; 7]);
        let error = checkout.history().unwrap().moved("p95").unwrap_err();
        assert!(error.kind() == ErrorKind::NoEvidence && error.what().contains("7 figures of `p95`"), "{error}");
        assert_eq!(checkout.history().unwrap().moved("p99").unwrap_err().kind(), ErrorKind::NoEvidence);
        assert_eq!(checkout.append(&Runs::of("p95", [f64::NAN])).unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(checkout.append(&Runs::of("p95", [])).unwrap_err().kind(), ErrorKind::NoEvidence);
        let whole = std::fs::read_to_string(checkout.history_path()).unwrap();
        let read = |text: &str| {
            std::fs::write(checkout.history_path(), text).unwrap();
            checkout.history()
        };
        let torn = read(&whole[..whole.len() - 5]).unwrap();
        assert_eq!((torn.len(), torn.left_out()), (6, 1), "the last line was cut off");
        let error = read(&format!("{whole}nonsense\n")).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.what().starts_with("line 8 of"), "{error}");
        assert_eq!(read("{\"schema\": 9}\n").unwrap_err().kind(), ErrorKind::Refused);
        std::fs::remove_file(checkout.history_path()).unwrap();
        assert!(checkout.history().unwrap().is_empty(), "nothing was kept yet");
    }
}
