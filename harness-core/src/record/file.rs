//! Writing and reading record files.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Event, Line, SCHEMA};
use crate::error::{CoreResult, Error, ErrorKind};

/// Appends events to one attempt's file. Cheap to share; each event is one write, so a kill tears at most one line.
#[derive(Debug)]
pub struct Recorder {
    run: String,
    attempt: String,
    path: PathBuf,
    file: Mutex<(File, u64)>,
}

impl Recorder {
    /// Creates `<dir>/<attempt>.ndjson`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the directory or file cannot be made.
    pub fn create(dir: &Path, run: &str, attempt: &str) -> CoreResult<Self> {
        let path = dir.join(format!("{attempt}.ndjson"));
        let file = std::fs::create_dir_all(dir).and_then(|()| File::create(&path)).map_err(|error| {
            Error::new(ErrorKind::Io, format!("could not create the record {}", path.display()))
                .caused_by(error)
                .remedy("set HARNESS_OUT to a directory that can be written")
        })?;
        Ok(Self { run: run.to_owned(), attempt: attempt.to_owned(), path, file: Mutex::new((file, 0)) })
    }

    /// Where the record is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one event and returns the line as written.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the file cannot be written, for example on a full disk.
    pub fn write(&self, event: Event) -> CoreResult<Line> {
        let mut guard = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (file, seq) = &mut *guard;
        let line = Line {
            schema: SCHEMA,
            run: self.run.clone(),
            attempt: self.attempt.clone(),
            seq: *seq,
            at_ms: now_ms(),
            event,
        };
        let mut text = serde_json::to_vec(&line)
            .map_err(|error| Error::new(ErrorKind::Io, "an event could not be written as JSON").caused_by(error))?;
        text.push(b'\n');
        file.write_all(&text).map_err(|error| {
            Error::new(ErrorKind::Io, format!("could not append to the record {}", self.path.display()))
                .caused_by(error)
        })?;
        *seq += 1;
        Ok(line)
    }
}

/// A line that could not be read, for example because the writer was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornLine {
    /// File.
    pub path: PathBuf,
    /// Line number, from 1.
    pub line: usize,
    /// Why it could not be read.
    pub why: String,
}

/// What was read from one or several files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    /// Lines in order of time, then attempt, then position.
    pub lines: Vec<Line>,
    /// Lines that were lost.
    pub torn: Vec<TornLine>,
}

/// Reads one file. Torn lines are reported, not fatal.
///
/// # Errors
/// [`ErrorKind::Io`] when the file cannot be opened.
pub fn read_file(path: &Path) -> CoreResult<Records> {
    let bytes = std::fs::read(path).map_err(|error| {
        Error::new(ErrorKind::Io, format!("could not read the record {}", path.display())).caused_by(error)
    })?;
    let mut records = Records::default();
    for (n, raw) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, raw)| !raw.is_empty()) {
        match serde_json::from_slice::<Line>(raw) {
            Ok(line) if line.schema > SCHEMA => records.torn.push(TornLine {
                path: path.to_owned(),
                line: n + 1,
                why: format!("written with schema {}, this reader knows {SCHEMA}: use a newer `harness`", line.schema),
            }),
            Ok(line) => records.lines.push(line),
            Err(error) => {
                records.torn.push(TornLine { path: path.to_owned(), line: n + 1, why: error.to_string() });
            }
        }
    }
    Ok(records)
}

/// Reads and merges every `.ndjson` file below a directory.
///
/// # Errors
/// [`ErrorKind::Io`] when the directory cannot be listed, [`ErrorKind::NoEvidence`] when it holds no record.
pub fn read_dir(dir: &Path) -> CoreResult<Records> {
    let mut paths = Vec::new();
    collect(dir, &mut paths)?;
    if paths.is_empty() {
        return Err(Error::new(ErrorKind::NoEvidence, format!("no records (*.ndjson) below {}", dir.display()))
            .remedy("run the tests first, or name the directory of a run"));
    }
    paths.sort();
    let mut all = Records::default();
    for path in paths {
        let mut one = read_file(&path)?;
        all.lines.append(&mut one.lines);
        all.torn.append(&mut one.torn);
    }
    all.lines.sort_by(|a, b| (a.at_ms, &a.attempt, a.seq).cmp(&(b.at_ms, &b.attempt, b.seq)));
    Ok(all)
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> CoreResult {
    let entries = std::fs::read_dir(dir)
        .map_err(|error| Error::new(ErrorKind::Io, format!("could not list {}", dir.display())).caused_by(error))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "ndjson") {
            paths.push(path);
        }
    }
    Ok(())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
