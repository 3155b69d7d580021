//! Reading record files.

use std::path::{Path, PathBuf};

use super::{Line, SCHEMA};
use crate::error::{CoreResult, Error, ErrorKind};

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
