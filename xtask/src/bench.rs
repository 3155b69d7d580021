//! `cargo xtask bench`: the benchmarks of the pattern service alone, in release, for as long as you like.

use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

use crate::step;

/// Names of benchmarks and the scenarios they are.
const BENCHMARKS: [(&str, &[&str]); 7] = [
    ("latency", &["E1"]),
    ("throughput", &["E2"]),
    ("stress", &["E3"]),
    ("tokens", &["E4", "E6"]),
    ("stages", &["E5"]),
    ("resources", &["E7"]),
    ("cache", &["E8"]),
];

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    scenarios: Vec<&'static str>,
    /// As it was written; the campaign reads it.
    duration: Option<String>,
}

/// Runs the benchmarks named by `--scenario`, for `--duration` each.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let asked = match parse(arguments) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!(
                "xtask: {problem}\nusage: cargo xtask bench --scenario all|{} [--duration 10s]",
                names().join("|")
            );
            return ExitCode::from(64);
        }
    };
    if !step::harness("provision", &[]) {
        eprintln!("xtask: provisioning failed; the lines above say what is missing");
        return ExitCode::from(3);
    }
    let Some(executable) = crate::campaign::build(&["--release"]) else {
        eprintln!("xtask: the campaign did not build");
        return ExitCode::from(3);
    };
    let out = step::target().join("bench");
    let _ = std::fs::remove_dir_all(&out);
    let mut command = Command::new(executable);
    command.arg("--campaign").arg("--out").arg(&out).args(asked.scenarios.iter().flat_map(|id| ["--scenario", id]));
    command.args(asked.duration.iter().flat_map(|duration| ["--duration", duration]));
    let package = step::root().join("examples/pattern-service");
    let run = command.current_dir(step::root()).env("CARGO_MANIFEST_DIR", package).stdin(Stdio::null()).output();
    let run = match run {
        Ok(run) => run,
        Err(error) => {
            eprintln!("xtask: the campaign could not be started: {error}");
            return ExitCode::from(3);
        }
    };
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if run.status.code() == Some(64) {
        eprint!("{said}");
        return ExitCode::from(64);
    }
    let results = std::fs::read_to_string(out.join("results.json")).unwrap_or_default();
    let results: Value = serde_json::from_str(&results).unwrap_or_default();
    let worst = report(&results, &asked.scenarios);
    if worst == 3 {
        eprint!("{said}");
    }
    println!("report: {}", out.join("index.html").display());
    ExitCode::from(worst)
}

fn names() -> Vec<&'static str> {
    BENCHMARKS.iter().map(|(name, _)| *name).collect()
}

fn parse(arguments: &[String]) -> Result<Asked, String> {
    let mut asked = Asked { scenarios: Vec::new(), duration: None };
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (flag, inline) = word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value)));
        let value = inline.or_else(|| words.next()).filter(|value| !value.is_empty());
        match (flag, value) {
            ("--scenario", Some("all")) => asked.scenarios.extend(BENCHMARKS.iter().flat_map(|(_, ids)| *ids)),
            ("--scenario", Some(name)) => {
                let ids = BENCHMARKS.iter().find(|(known, ids)| *known == name || *ids == [name]);
                asked.scenarios.extend(ids.ok_or_else(|| format!("`{name}` is no benchmark"))?.1);
            }
            ("--duration", Some(duration)) => asked.duration = Some(duration.to_owned()),
            ("--scenario" | "--duration", None) => return Err(format!("`{flag}` needs a value")),
            _ => return Err(format!("`{word}` is not known")),
        }
    }
    if asked.scenarios.is_empty() {
        return Err("no benchmark is named".to_owned());
    }
    asked.scenarios.sort_unstable();
    asked.scenarios.dedup();
    Ok(asked)
}

/// Prints a line per criterion and returns the exit code: 0 all pass, 1 one failed, 2 one is degraded, 3 no evidence.
fn report(results: &Value, scenarios: &[&str]) -> u8 {
    let all = results["scenarios"].as_array().map_or(&[][..], Vec::as_slice);
    let mut codes = Vec::new();
    for id in scenarios {
        let Some(scenario) = all.iter().find(|one| one["declared"]["id"] == *id) else {
            println!("{id}  did not run");
            codes.push(3);
            continue;
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let word = text(&scenario["outcome"]["outcome"]);
        println!("{id}  {}: {word}", text(&scenario["declared"]["title"]));
        for row in scenario["criteria"].as_array().into_iter().flatten() {
            let [metric, actual, target] = ["metric", "actual", "target"].map(|name| text(&row[name]));
            println!("      {metric:<28} {actual:>28}  {target:<10} {}", text(&row["outcome"]["outcome"]));
        }
        codes.push(match word.as_str() {
            "pass" => 0,
            "degraded" => 2,
            "fail" => 1,
            _ => 3,
        });
    }
    // A failure is worse than missing evidence, which is worse than a missed target.
    [1, 3, 2].into_iter().find(|code| codes.contains(code)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{parse, report};

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn selection_that_is_empty_or_unknown_is_refused() {
        for line in ["", "--duration 10s", "--scenario", "--scenario soup", "--what", "--scenario=latency --duration"] {
            assert!(parse(&words(line)).is_err(), "{line}");
        }
        assert_eq!(
            parse(&words("--scenario tokens --scenario=E1 --duration 5")).unwrap().scenarios,
            ["E1", "E4", "E6"]
        );
        assert_eq!(parse(&words("--scenario all --scenario latency")).unwrap().scenarios.len(), 8);
    }

    #[test]
    fn worst_scenario_decides_and_one_that_is_missing_is_no_pass() {
        let results = |words: &[(&str, &str)]| {
            let all = words.iter().map(|(id, word)| {
                serde_json::json!({"declared": {"id": id, "title": "x"}, "outcome": {"outcome": word}, "criteria": []})
            });
            serde_json::json!({"scenarios": all.collect::<Vec<_>>()})
        };
        let of = |words: &[(&str, &str)]| report(&results(words), &["E1", "E2"]);
        assert_eq!(of(&[("E1", "pass"), ("E2", "pass")]), 0);
        assert_eq!(of(&[("E1", "pass"), ("E2", "degraded")]), 2);
        assert_eq!(of(&[("E1", "no evidence"), ("E2", "degraded")]), 3);
        assert_eq!(of(&[("E1", "fail"), ("E2", "no evidence")]), 1);
        assert_eq!(of(&[("E1", "pass")]), 3);
    }
}
