//! Writing all files of a report.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::follow_up::FollowUp;
use super::model::{Model, RESULTS_SCHEMA};
use super::ticket::Ticket;
use super::{html, junit, summary};
use crate::error::{CoreResult, Error, ErrorKind};

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The files: `index.html` first, then JUnit, Markdown, JSON and tickets.
    pub paths: Vec<PathBuf>,
}

/// The content of `tickets.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketFile {
    /// [`RESULTS_SCHEMA`] of the writer.
    pub schema: u32,
    /// Identifier of the run.
    pub run: String,
    /// What was under test.
    pub subject: String,
    /// Gravest first.
    pub tickets: Vec<Ticket>,
    /// What has to happen before the next decision; after a NO-GO only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<FollowUp>,
}

/// Writes every file of the report into `dir`, each whole or not at all.
///
/// Paths of evidence are shown as recorded: write the report where they are relative to.
///
/// # Errors
/// [`ErrorKind::Io`] when a file cannot be written.
pub fn write_all(model: &Model, dir: &Path) -> CoreResult<Written> {
    let failed = |path: &Path, error: std::io::Error| {
        Error::new(ErrorKind::Io, format!("could not write the report {}", path.display()))
            .caused_by(error)
            .remedy("set HARNESS_OUT to a directory that can be written")
    };
    fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    let mut paths = Vec::new();
    for (name, text) in render(model)? {
        let path = dir.join(&name);
        let unfinished = dir.join(format!(".{name}.{}", std::process::id()));
        fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(|error| failed(&path, error))?;
        paths.push(path);
    }
    Ok(Written { paths })
}

/// Names and contents of all files.
pub(super) fn render(model: &Model) -> CoreResult<Vec<(String, String)>> {
    let mut files = vec![("index.html".to_owned(), html::page(model)?)];
    files.extend(junit::files(model)?);
    files.push(("summary.md".to_owned(), summary::render(model)));
    files.push(("results.json".to_owned(), json(model)?));
    let tickets = TicketFile {
        schema: RESULTS_SCHEMA,
        run: model.run.id.clone(),
        subject: model.run.subject.clone(),
        tickets: model.tickets.clone(),
        follow_up: FollowUp::of(model),
    };
    files.push(("tickets.json".to_owned(), json(&tickets)?));
    Ok(files)
}

fn json(value: &impl Serialize) -> CoreResult<String> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(ErrorKind::Io, "the results could not be written as JSON").caused_by(error))?;
    text.push('\n');
    Ok(text)
}
