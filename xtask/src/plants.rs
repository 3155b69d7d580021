//! One planted defect per scenario of the campaign: the scenario must fail, the decision must be NO-GO, and a bystander
//! must pass. A check that cannot fail is a defect.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::step;

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
    let mut all = true;
    for row in &rows {
        let [plant, scenario, bystander] =
            ["plant", "scenario", "bystander"].map(|name| row[name].as_str().unwrap_or_default());
        let verdict = found(&executable, plant, scenario, bystander);
        println!("{:<28} {scenario:<3} {}", plant, verdict.as_ref().map_or_else(String::as_str, |()| "found"));
        all &= verdict.is_ok();
    }
    all
}

fn found(executable: &Path, plant: &str, scenario: &str, bystander: &str) -> Result<(), String> {
    let out = step::target().join("plants").join(plant);
    let _ = std::fs::remove_dir_all(&out);
    let run = Command::new(executable)
        .args(["--campaign", "--scenario", scenario, "--scenario", bystander, "--plant", plant, "--out"])
        .arg(&out)
        .current_dir(step::root())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("NOT RUN: {error}"))?;
    let told = |what: String| format!("{what}\n{}", String::from_utf8_lossy(&run.stdout));
    if run.status.code() != Some(1) {
        return Err(told(format!("NOT FOUND: ended with {} instead of 1 (NO-GO)", run.status)));
    }
    let results = std::fs::read_to_string(out.join("results.json")).map_err(|error| told(error.to_string()))?;
    let results: Value = serde_json::from_str(&results).map_err(|error| told(error.to_string()))?;
    for (id, expected) in [(scenario, "fail"), (bystander, "pass")] {
        let outcome = results["scenarios"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["declared"]["id"] == id))
            .and_then(|one| one["outcome"]["outcome"].as_str())
            .unwrap_or("not reported");
        if outcome != expected {
            return Err(told(format!("NOT AS EXPECTED: {id} is `{outcome}` instead of `{expected}`")));
        }
    }
    Ok(())
}
