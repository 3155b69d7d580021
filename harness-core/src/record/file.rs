//! Writing record files.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::SCHEMA;
#[cfg(feature = "checks")]
use super::{Event, Line};
use crate::error::{CoreResult, Error, ErrorKind};

/// A [`Line`](super::Line) whose event is anything that reads like one.
#[derive(Serialize)]
struct Written<'a, E> {
    schema: u32,
    run: &'a str,
    attempt: &'a str,
    seq: u64,
    at_ms: u64,
    event: &'a E,
}

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
    #[cfg(feature = "checks")]
    pub fn write(&self, event: Event) -> CoreResult<Line> {
        let (seq, at_ms) = self.append(&event)?;
        let (run, attempt) = (self.run.clone(), self.attempt.clone());
        Ok(Line { schema: SCHEMA, run, attempt, seq, at_ms, event })
    }

    /// Appends one event; returns its position, and when it was.
    pub(crate) fn append<E: Serialize>(&self, event: &E) -> CoreResult<(u64, u64)> {
        let mut guard = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (file, next) = &mut *guard;
        let (seq, at_ms) = (*next, now_ms());
        let line = Written { schema: SCHEMA, run: &self.run, attempt: &self.attempt, seq, at_ms, event };
        let mut text = serde_json::to_vec(&line)
            .map_err(|error| Error::new(ErrorKind::Io, "an event could not be written as JSON").caused_by(error))?;
        text.push(b'\n');
        file.write_all(&text).map_err(|error| {
            Error::new(ErrorKind::Io, format!("could not append to the record {}", self.path.display()))
                .caused_by(error)
        })?;
        *next += 1;
        Ok((seq, at_ms))
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
