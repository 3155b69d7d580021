//! Do the files of a report agree with one another?

use std::fs;
use std::path::Path;

use super::model::{Model, RESULTS_SCHEMA, Tally};
use super::panel::{tally_parts, tally_sentence};
use super::{html, junit, write};
use crate::error::{CoreResult, Error, ErrorKind};

/// Checks that the HTML page, the JUnit files, the summary and the tickets say what `results.json` says.
///
/// First the totals are compared, counted from the content of each file, then every file with what `results.json`
/// renders to. The second comparison is left out for a report of another version of this crate.
///
/// # Errors
/// [`ErrorKind::Assertion`] naming each file that disagrees and how; [`ErrorKind::Io`] when `results.json` cannot be
/// read; [`ErrorKind::Config`] when it is of a newer schema.
pub fn verify(dir: &Path) -> CoreResult<()> {
    let model = read(&dir.join("results.json"))?;
    let mut complaints = Vec::new();
    if model.count() != model.totals {
        complaints.push("results.json: its totals are not the sum of its scenarios and criteria".to_owned());
    }
    let own = model.generator == concat!("harness-core ", env!("CARGO_PKG_VERSION"));
    let mut junit = Tally::default();
    let mut junit_names = Vec::new();
    for (name, wanted) in write::render(&model)? {
        let Ok(text) = fs::read_to_string(dir.join(&name)) else {
            complaints.push(format!("{name}: missing or unreadable"));
            continue;
        };
        let before = complaints.len();
        match name.as_str() {
            "index.html" => complaints.extend(html::disagreement(&text, &model).map(|how| format!("{name}: {how}"))),
            "summary.md" if !text.contains(&tally_sentence(&model.totals.scenarios)) => {
                complaints.push(format!("{name}: does not say \"{}\"", tally_sentence(&model.totals.scenarios)));
            }
            _ if name.ends_with("-junit.xml") => {
                match junit::tally(&text) {
                    Ok(tally) => add(&mut junit, tally),
                    Err(how) => complaints.push(format!("{name}: {how}")),
                }
                junit_names.push(name.clone());
            }
            _ => {}
        }
        if own && complaints.len() == before && text != wanted {
            complaints
                .push(format!("{name}: line {} is not what results.json renders to", first_difference(&text, &wanted)));
        }
    }
    if junit != model.totals.scenarios {
        let (theirs, ours) = (tally_sentence(&junit), tally_sentence(&model.totals.scenarios));
        complaints.push(format!("{}: hold {theirs}; results.json holds {ours}", junit_names.join(", ")));
    }
    if complaints.is_empty() {
        return Ok(());
    }
    let what = format!("the files of the report in {} disagree", dir.display());
    let error = Error::new(ErrorKind::Assertion, what).remedy("write the report again from its records");
    Err(complaints.into_iter().fold(error, Error::tried))
}

/// Reads `results.json`.
pub(super) fn read(path: &Path) -> CoreResult<Model> {
    let text = fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorKind::Io, format!("could not read {}", path.display()))
            .caused_by(error)
            .remedy("write the report first")
    })?;
    let newer =
        |value: &serde_json::Value| value["schema"].as_u64().is_some_and(|schema| schema > u64::from(RESULTS_SCHEMA));
    if serde_json::from_str(&text).is_ok_and(|value| newer(&value)) {
        let what = format!("{} was written with a newer schema than {RESULTS_SCHEMA}", path.display());
        return Err(Error::new(ErrorKind::Config, what).remedy("use a newer `harness`"));
    }
    serde_json::from_str(&text).map_err(|error| {
        Error::new(ErrorKind::Assertion, format!("results.json: {} is not a result file", path.display()))
            .caused_by(error)
    })
}

fn add(sum: &mut Tally, more: Tally) {
    sum.total += more.total;
    sum.pass += more.pass;
    sum.degraded += more.degraded;
    sum.fail += more.fail;
    sum.no_evidence += more.no_evidence;
    sum.not_applicable += more.not_applicable;
}

/// Line number, from 1, of the first line that differs.
fn first_difference(a: &str, b: &str) -> usize {
    a.lines().zip(b.lines()).position(|(a, b)| a != b).unwrap_or_else(|| a.lines().count().min(b.lines().count())) + 1
}

/// How a page's counts differ from the wanted tally: `(what it is called, stated, counted, wanted)`.
pub(super) fn compare(
    wanted: &Tally,
    stated: impl Fn(&str) -> Option<usize>,
    counted: impl Fn(&str) -> usize,
) -> Option<String> {
    tally_parts(wanted).into_iter().find_map(|(n, outcome)| {
        let word = outcome.word();
        let (stated, counted) = (stated(word), counted(word));
        let differs = stated != Some(n) || counted != n;
        differs.then(|| {
            let stated = stated.map_or_else(|| "nothing".to_owned(), |stated| stated.to_string());
            format!("states {stated} and shows {counted} scenarios as {word}; results.json holds {n}")
        })
    })
}
