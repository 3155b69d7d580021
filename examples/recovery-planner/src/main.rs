//! `recovery-planner validate FILE…`: judges plans and slates of solutions, and says what is wrong with them.
//!
//! A file with a `solutions` list is a slate, any other a plan. `--json` writes the reports as JSON. The exit code is 0
//! when all are valid, 1 when a rule of severity error is broken, 2 when a file cannot be read, 64 for wrong usage.

use std::path::Path;
use std::process::ExitCode;

use harness_props::Outcome;
use harness_props::plan::{Plan, PlanValidator};
use harness_props::rule::Report;
use harness_props::solution::{Slate, SlateValidator};

const USAGE: &str = "usage: recovery-planner validate [--json] FILE…";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|word| word == "--json");
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--json").collect();
    let files = match words.split_first() {
        Some((&"validate", files)) if !files.is_empty() && files.iter().all(|file| !file.starts_with("--")) => files,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    let mut worst = 0;
    let mut reports = serde_json::Map::new();
    for file in files {
        match judge(Path::new(file)) {
            Ok(report) => {
                worst = worst.max(u8::from(!report.is_valid()));
                if json {
                    reports.insert((*file).to_owned(), serde_json::json!(report));
                } else {
                    println!("{file}: {}", verdict(&report.outcome()));
                    print!("{report}");
                }
            }
            Err(why) => {
                worst = 2;
                eprintln!("{file}: {why}");
            }
        }
    }
    if json {
        println!("{:#}", serde_json::Value::Object(reports));
    }
    ExitCode::from(worst)
}

/// Reads a file and judges what it holds.
fn judge(file: &Path) -> Result<Report, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("not JSON: {error}"))?;
    if value.get("solutions").is_some() {
        let slate = Slate::from_json(&text).map_err(|refusal| refusal.to_string())?;
        return Ok(SlateValidator::standard().check(&slate));
    }
    let plan = Plan::from_json(&text).map_err(|refusal| refusal.to_string())?;
    Ok(PlanValidator::standard().check(&plan))
}

fn verdict(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Pass { .. } => "valid",
        Outcome::Degraded { .. } => "valid, with warnings",
        _ => "not valid",
    }
}
