//! `cargo xtask plants`: each planted defect of the service against all scenarios of the campaign, in the shortest
//! profile. What turns red has to be what `examples/pattern-service/matrix.json` says, no less and no more.
//!
//! Each run leaves its reports below `target/plants/matrix/`; a run of the same executable that is there already is not run
//! again, so that an interrupted matrix goes on where it was. Runs go side by side; one with a surprise is repeated alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;

use crate::{lanes, step};

/// What a defect is expected to do to the campaign.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// Scenarios that fail.
    #[serde(default)]
    red: BTreeSet<String>,
    /// Scenarios that may fail or pass, each with the reason: figures that lie close to their limit.
    #[serde(default)]
    may: BTreeMap<String, String>,
    /// Why no scenario finds it, if so.
    #[serde(default)]
    gap: Option<String>,
}

/// What one run showed: the outcome of each scenario.
type Seen = BTreeMap<String, String>;

/// What differs between the table and a run; empty when nothing does.
fn surprises(expected: &Expected, seen: &Seen, planned: usize) -> Vec<String> {
    let mut found = Vec::new();
    if seen.len() != planned {
        found.push(format!("{} of {planned} scenarios were reported", seen.len()));
    }
    for (id, outcome) in seen {
        let is_red = outcome == "fail";
        match (expected.red.contains(id), expected.may.contains_key(id)) {
            (_, true) => {}
            (true, _) if !is_red => found.push(format!("{id} is `{outcome}` instead of red")),
            (false, _) if is_red => found.push(format!("{id} is red")),
            (false, _) if outcome == "no_evidence" => found.push(format!("{id} has no evidence")),
            _ => {}
        }
    }
    let unknown = expected.red.iter().chain(expected.may.keys()).filter(|id| !seen.contains_key(*id));
    found.extend(unknown.map(|id| format!("{id} was not reported")));
    if expected.red.is_empty() && expected.gap.is_none() {
        found.push("the table names no scenario that finds it".to_owned());
    }
    found
}

/// Runs what was not run yet; true when there was no surprise.
pub(crate) fn run(only: &[String], fresh: bool) -> bool {
    let Some(executable) = crate::campaign::build(&[]) else { return false };
    let (table, plants) = match (table(), plants()) {
        (Ok(table), Ok(plants)) => (table, plants),
        (Err(why), _) | (_, Err(why)) => {
            eprintln!("xtask: {why}");
            return false;
        }
    };
    let unknown: Vec<_> = table.keys().chain(only).filter(|name| *name != NONE && !plants.contains(name)).collect();
    if !unknown.is_empty() {
        eprintln!("xtask: the service has no plants {unknown:?}");
        return false;
    }
    let base = step::target().join("plants/matrix");
    if fresh {
        let _ = std::fs::remove_dir_all(&base);
    }
    let begun = Instant::now();
    let matrix = Matrix { stamp: stamp(&executable), executable, base, table };
    let names = std::iter::once(NONE.to_owned()).chain(plants);
    let names: Vec<_> = names.filter(|name| only.is_empty() || only.contains(name)).collect();
    let mut all = lanes::each(&names, |name, own| matrix.one(name, own, ""));
    for (name, run) in names.iter().zip(&mut all).filter(|(_, run)| !run.surprises.is_empty()) {
        matrix.forget(name); // a neighbour may have been the reason
        *run = matrix.one(name, &std::env::temp_dir(), " (alone)");
    }
    let bad = all.iter().filter(|run| !run.surprises.is_empty()).count();
    let seen = matrix.base.join("seen.json");
    let red: BTreeMap<_, _> = names.iter().zip(&all).map(|(name, run)| (name, &run.red)).collect();
    if let Ok(text) = serde_json::to_string_pretty(&red) {
        let _ = std::fs::write(&seen, text + "\n");
    }
    let took = begun.elapsed().as_secs_f64();
    println!("{} runs, {bad} with surprises, {took:.0} s; what was red: {}", all.len(), seen.display());
    bad == 0
}

/// What a defect did to the campaign.
struct Run {
    red: Vec<String>,
    surprises: Vec<String>,
}

/// The runs of one build.
struct Matrix {
    executable: PathBuf,
    stamp: String,
    base: PathBuf,
    table: BTreeMap<String, Expected>,
}

impl Matrix {
    fn forget(&self, name: &str) {
        let _ = std::fs::remove_dir_all(self.base.join(name));
    }

    /// Runs it unless it was run, says what came of it, and compares that with the table.
    fn one(&self, name: &str, own: &Path, how: &str) -> Run {
        let begun = Instant::now();
        let (seen, planned) = match self.seen_of(name, own) {
            Ok(seen) => seen,
            Err(why) => {
                println!("{name:<28} NOT RUN{how}: {why}");
                return Run { red: Vec::new(), surprises: vec![why] };
            }
        };
        let unplanted = Expected { gap: Some("nothing is planted".to_owned()), ..Expected::default() };
        let other = if name == NONE { unplanted } else { Expected::default() };
        let surprises = surprises(self.table.get(name).unwrap_or(&other), &seen, planned);
        let red = seen.iter().filter(|(_, word)| *word == "fail").map(|(id, _)| id.clone());
        let run = Run { red: red.collect(), surprises };
        let verdict = if run.surprises.is_empty() { "as expected".to_owned() } else { run.surprises.join("; ") };
        let (took, red) = (begun.elapsed().as_secs_f64(), run.red.join(" "));
        println!("{name:<28} {took:>5.1} s  red {red:<28} {verdict}{how}");
        run
    }

    /// The outcomes of a run, from its report if this very executable made one, else from a run that is made now.
    fn seen_of(&self, plant: &str, own: &Path) -> Result<(Seen, usize), String> {
        let out = self.base.join(plant);
        let mark = out.join("made-by");
        if std::fs::read_to_string(&mark).is_ok_and(|made_by| made_by == self.stamp)
            && let Ok(seen) = read(&out)
        {
            return Ok(seen);
        }
        let _ = std::fs::remove_dir_all(&out);
        let mut command = lanes::smoke(&self.executable, &out, own);
        if plant != NONE {
            command.args(["--plant", plant]);
        }
        command.env("CARGO_MANIFEST_DIR", step::root().join("examples/pattern-service"));
        let ran = command.output().map_err(|error| error.to_string())?;
        let told = || String::from_utf8_lossy(&ran.stdout).lines().rev().take(3).collect::<Vec<_>>().join(" / ");
        if !matches!(ran.status.code(), Some(0..=2)) {
            return Err(format!("{}: {}", ran.status, told()));
        }
        let seen = read(&out)?;
        std::fs::write(&mark, &self.stamp).map_err(|error| error.to_string())?;
        Ok(seen)
    }
}

/// The run without any defect: nothing may be red.
const NONE: &str = "none";

fn table() -> Result<BTreeMap<String, Expected>, String> {
    let path = step::root().join("examples/pattern-service/matrix.json");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The names of all plants, as the service itself lists them.
fn plants() -> Result<Vec<String>, String> {
    let service = step::target().join("debug/pattern-service");
    let help =
        Command::new(&service).arg("--help").output().map_err(|error| format!("{}: {error}", service.display()))?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let names: Vec<String> = help
        .lines()
        .skip_while(|line| !line.starts_with("Planted defects"))
        .skip(1)
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    if names.is_empty() { Err("the service lists no planted defects".to_owned()) } else { Ok(names) }
}

/// What tells one build from another.
fn stamp(executable: &Path) -> String {
    let of = |path: &Path| {
        let meta = std::fs::metadata(path).ok();
        let changed = meta.as_ref().and_then(|meta| meta.modified().ok()?.duration_since(UNIX_EPOCH).ok());
        format!("{}-{}", meta.map_or(0, |meta| meta.len()), changed.map_or(0, |at| at.as_millis()))
    };
    format!("{} {}", of(executable), of(&step::target().join("debug/pattern-service")))
}

fn read(out: &Path) -> Result<(Seen, usize), String> {
    let path = out.join("results.json");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let results: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let all = results["scenarios"].as_array().ok_or("the report lists no scenarios")?;
    let word = |one: &Value| {
        let id = one["declared"]["id"].as_str()?.to_owned();
        Some((id, one["outcome"]["outcome"].as_str()?.to_owned()))
    };
    Ok((all.iter().filter_map(word).collect(), all.len()))
}

#[cfg(test)]
mod tests {
    use super::{Expected, Seen, surprises};

    fn seen(pairs: &[(&str, &str)]) -> Seen {
        pairs.iter().map(|(id, word)| ((*id).to_owned(), (*word).to_owned())).collect()
    }

    fn expected(red: &[&str], may: &[&str]) -> Expected {
        let may = may.iter().map(|id| ((*id).to_owned(), "close to its limit".to_owned())).collect();
        Expected { red: red.iter().map(|id| (*id).to_owned()).collect(), may, gap: None }
    }

    #[test]
    fn surprises_are_found_in_both_directions_and_nothing_else_is() {
        let run = seen(&[("A1", "pass"), ("B2", "fail"), ("C3", "degraded")]);
        assert_eq!(surprises(&expected(&["B2"], &[]), &run, 3), Vec::<String>::new());
        assert_eq!(surprises(&expected(&["B2"], &["C3"]), &run, 3), Vec::<String>::new());
        assert_eq!(surprises(&expected(&["A1", "B2"], &[]), &run, 3), ["A1 is `pass` instead of red"]);
        assert_eq!(surprises(&expected(&["C3"], &["B2"]), &run, 3), ["C3 is `degraded` instead of red"]);
        let silent = seen(&[("A1", "no_evidence"), ("B2", "fail")]);
        assert_eq!(surprises(&expected(&["B2"], &[]), &silent, 2), ["A1 has no evidence"]);
        assert_eq!(surprises(&expected(&["B2"], &[]), &run, 4), ["3 of 4 scenarios were reported"]);
        assert_eq!(surprises(&expected(&["B2", "Z9"], &[]), &run, 3), ["Z9 was not reported"]);
        assert_eq!(surprises(&expected(&[], &["B2"]), &run, 3), ["the table names no scenario that finds it"]);
    }
}
