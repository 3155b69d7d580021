//! Planted defects of the campaign: each must turn its scenario red and the decision NO-GO, and leave a bystander green.
//! A check that cannot fail is a defect.
//!
//! The normal run (`cargo xtask plants --together`) plants those at once that the table calls `together`: they touch different
//! parts, so that one start of the service serves several of them. It uses the shortest profile, and runs go side by side.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::{lanes, step};

/// One run of the campaign: what is planted, what must be red and what green.
#[derive(Debug, Default, PartialEq, Eq)]
struct Run {
    label: String,
    plants: BTreeSet<String>,
    red: BTreeSet<String>,
    green: BTreeSet<String>,
}

/// The runs of a table: those together that may be, the others one at a time.
fn runs(rows: &[Value]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for row in rows {
        let [plant, scenario, bystander] =
            ["plant", "scenario", "bystander"].map(|name| row[name].as_str().unwrap_or_default().to_owned());
        let label = match row["together"].as_str() {
            Some(label) => label.to_owned(),
            None => format!("{plant} {scenario}"),
        };
        let at = runs.iter().position(|run| run.label == label).unwrap_or_else(|| {
            runs.push(Run { label, ..Run::default() });
            runs.len() - 1
        });
        let run = &mut runs[at];
        run.plants.insert(plant);
        run.red.insert(scenario);
        run.green.insert(bystander);
    }
    runs
}

/// Runs every pair of `examples/pattern-service/plants.json`; true when each plant was found where it should be.
pub(crate) fn each_is_found() -> bool {
    let Some(executable) = crate::campaign::build(&[]) else { return false };
    let table = step::root().join("examples/pattern-service/plants.json");
    let rows = match std::fs::read_to_string(&table).map(|text| serde_json::from_str::<Vec<Value>>(&text)) {
        Ok(Ok(rows)) if !rows.is_empty() => rows,
        other => {
            eprintln!("xtask: {} cannot be used: {other:?}", table.display());
            return false;
        }
    };
    let (begun, runs) = (Instant::now(), runs(&rows));
    let found = lanes::each(&runs, |run, own| {
        let begun = Instant::now();
        let verdict = found(&executable, run, own);
        let (plants, red, took) = (list(&run.plants), list(&run.red), begun.elapsed().as_secs_f64());
        let word = verdict.as_ref().map_or_else(String::as_str, |()| "found");
        println!("{took:>5.1} s  {red:<24} {plants}: {word}");
        verdict.is_ok()
    });
    let each = begun.elapsed().as_secs_f64() / rows.len() as f64;
    println!("{} of {} runs as expected, {each:.1} s a row", found.iter().filter(|found| **found).count(), found.len());
    found.iter().all(|found| *found)
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn found(executable: &Path, planted: &Run, own: &Path) -> Result<(), String> {
    let out = step::target().join("plants").join(planted.label.replace(' ', "-"));
    let _ = std::fs::remove_dir_all(&out);
    let mut command = lanes::smoke(executable, &out, own);
    command.args(planted.red.union(&planted.green).flat_map(|id| ["--scenario", id]));
    command.args(planted.plants.iter().flat_map(|plant| ["--plant", plant]));
    let run = command.output().map_err(|error| format!("NOT RUN: {error}"))?;
    let told = |what: String| format!("{what}\n{}", String::from_utf8_lossy(&run.stdout));
    if run.status.code() != Some(1) {
        return Err(told(format!("NOT FOUND: ended with {} instead of 1 (NO-GO)", run.status)));
    }
    let results = std::fs::read_to_string(out.join("results.json")).map_err(|error| told(error.to_string()))?;
    let results: Value = serde_json::from_str(&results).map_err(|error| told(error.to_string()))?;
    let expected = planted.red.iter().map(|id| (id, "fail")).chain(planted.green.iter().map(|id| (id, "pass")));
    for (id, expected) in expected {
        let outcome = results["scenarios"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["declared"]["id"] == **id))
            .and_then(|one| one["outcome"]["outcome"].as_str())
            .unwrap_or("not reported");
        if outcome != expected {
            return Err(told(format!("NOT AS EXPECTED: {id} is `{outcome}` instead of `{expected}`")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::runs;

    #[test]
    fn what_may_go_together_does_and_nothing_else() {
        let row = |plant: &str, scenario: &str, together: Option<&str>| match together {
            Some(label) => json!({"plant": plant, "scenario": scenario, "bystander": "B5", "together": label}),
            None => json!({"plant": plant, "scenario": scenario, "bystander": "B5"}),
        };
        let rows =
            [row("a", "A1", Some("x")), row("b", "B2", None), row("c", "C3", Some("x")), row("a", "D4", Some("x"))];
        let together = runs(&rows);
        assert_eq!(together.len(), 2);
        assert_eq!((together[0].plants.len(), together[0].red.len(), together[0].green.len()), (2, 3, 1));
        assert_eq!((together[1].plants.len(), together[1].label.as_str()), (1, "b B2"));
    }
}
