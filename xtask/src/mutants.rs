//! `cargo xtask mutants`: a seeded sample of changes to the judges, each of which some test has to notice.
//!
//! The changes are made by `cargo-mutants` in a copy of the tree. Resumable: the sample goes in batches, and each batch
//! stays in `target/mutants/` for as long as the code and the seed are the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::step::{self, cargo, root, target};

/// The crate whose tests are tested: the judges everybody else relies on.
const PACKAGE: &str = "harness-props";
/// How many are enough to say something.
const SAMPLE: usize = 100;
/// Changes per run of the tool: each run copies and builds the tree once.
const BATCH: usize = 20;
/// Changes that no test need notice, each with its reason.
const REASONED: &str = "xtask/mutants.json";

/// How this run was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    budget: Duration,
    seed: u64,
}

impl Asked {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let mut asked = Self { budget: Duration::from_secs(3_600), seed: 1 };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("`{word}` needs a value"))?;
            match word.as_str() {
                "--budget" => {
                    asked.budget = minutes(value).ok_or_else(|| format!("`{value}` is no time such as 60m"))?
                }
                "--seed" => asked.seed = value.parse().map_err(|_| format!("`{value}` is no seed"))?,
                unknown => return Err(format!("`{unknown}` is no argument of mutants")),
            }
        }
        Ok(asked)
    }
}

fn minutes(text: &str) -> Option<Duration> {
    let count: u64 = text.strip_suffix('m')?.parse().ok()?;
    (count > 0).then(|| Duration::from_secs(count * 60))
}

/// What became of the sample.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    caught: usize,
    /// Noticed because the tests did not end.
    endless: usize,
    /// Does not compile: no change at all.
    unviable: usize,
    missed: Vec<String>,
}

impl Tally {
    fn tested(&self) -> usize {
        self.caught + self.endless + self.missed.len()
    }

    fn add(&mut self, outcomes: &Value) {
        for outcome in outcomes["outcomes"].as_array().into_iter().flatten() {
            let name = outcome["scenario"]["Mutant"]["name"].as_str();
            let Some(name) = name else { continue }; // the tree as it is
            match outcome["summary"].as_str() {
                Some("CaughtMutant") => self.caught += 1,
                Some("Timeout") => self.endless += 1,
                Some("Unviable") => self.unviable += 1,
                _ => self.missed.push(name.to_owned()),
            }
        }
    }
}

/// Runs the sample, or what is missing of it, and judges it.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let asked = match Asked::read(arguments) {
        Ok(asked) => asked,
        Err(error) => {
            eprintln!("xtask: {error}\nusage: cargo xtask mutants [--budget 60m] [--seed 1]");
            return ExitCode::from(64);
        }
    };
    match judged(&asked) {
        Ok(passed) => step::exit(passed),
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::from(3)
        }
    }
}

fn judged(asked: &Asked) -> Result<bool, String> {
    let all = listed()?;
    let sample = sampled(&all, asked.seed);
    let reasoned = reasoned(&all)?;
    let mut tally = Tally::default();
    let begun = Instant::now();
    for (number, batch) in sample.chunks(BATCH).enumerate() {
        let out = target().join("mutants").join(format!("{:016x}-{number}", key(asked.seed, batch)));
        let file = out.join("mutants.out/outcomes.json");
        if !is_whole(&file, batch.len()) {
            if begun.elapsed() >= asked.budget {
                println!("the budget of {} min is used up: run it again to go on", asked.budget.as_secs() / 60);
                break;
            }
            tested(batch, &out)?;
        }
        tally.add(&read(&file).ok_or_else(|| format!("{} cannot be read", file.display()))?);
    }
    let open: Vec<&String> = tally.missed.iter().filter(|name| !reasoned.contains_key(*name)).collect();
    println!(
        "\n{} of {} changes of {PACKAGE} in the sample, {} tested: {} noticed by a failed test, {} by tests that did not end, \
         {} unnoticed ({} of them with a reason); {} do not compile",
        tally.tested() + tally.unviable,
        all.len(),
        tally.tested(),
        tally.caught,
        tally.endless,
        tally.missed.len(),
        tally.missed.len() - open.len(),
        tally.unviable
    );
    open.iter().for_each(|name| println!("UNNOTICED {name}"));
    let passed = tally.tested() >= SAMPLE && open.is_empty();
    let result = json!({
        "schema": 1, "package": PACKAGE, "seed": asked.seed, "of": all.len(), "tested": tally.tested(), "caught": tally.caught,
        "endless": tally.endless, "unviable": tally.unviable, "unnoticed": tally.missed, "without_reason": open, "met": passed,
    });
    let path = target().join("mutants/mutants.json");
    std::fs::write(&path, format!("{result:#}\n")).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(passed)
}

/// Every change the tool knows, by name.
fn listed() -> Result<Vec<String>, String> {
    let output = cargo(&["mutants", "--list", "--package", PACKAGE]).current_dir(root()).output();
    let output = output.map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo-mutants is missing or cannot read the tree (cargo install cargo-mutants --locked): {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    let names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    if names.is_empty() { Err("cargo-mutants lists nothing to change".to_owned()) } else { Ok(names) }
}

/// A quarter more than needed, because some do not compile; in an order that only the seed decides.
fn sampled(all: &[String], seed: u64) -> Vec<String> {
    let place = |name: &String| {
        let mut hash = DefaultHasher::new();
        (seed, name).hash(&mut hash);
        hash.finish()
    };
    let mut order: Vec<&String> = all.iter().collect();
    order.sort_by_key(|name| place(name));
    order.into_iter().take(SAMPLE + SAMPLE / 4).cloned().collect()
}

fn key(seed: u64, batch: &[String]) -> u64 {
    let mut hash = DefaultHasher::new();
    let tree = Command::new("git").args(["rev-parse", &format!("HEAD:{PACKAGE}")]).current_dir(root()).output();
    (seed, batch, tree.map(|tree| tree.stdout).unwrap_or_default()).hash(&mut hash);
    hash.finish()
}

/// Reasons by the name of the change; one that the tool does not list any more is stale, and refused.
fn reasoned(all: &[String]) -> Result<BTreeMap<String, String>, String> {
    let text = std::fs::read_to_string(root().join(REASONED)).map_err(|error| format!("{REASONED}: {error}"))?;
    let reasons: BTreeMap<String, String> =
        serde_json::from_str(&text).map_err(|error| format!("{REASONED}: {error}"))?;
    match reasons.keys().find(|name| !all.contains(name)) {
        Some(stale) => Err(format!("{REASONED} names `{stale}`, which is no change any more: take it out")),
        None => Ok(reasons),
    }
}

fn read(file: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
}

fn is_whole(file: &Path, wanted: usize) -> bool {
    let changes = read(file).and_then(|outcomes| outcomes["total_mutants"].as_u64());
    changes == Some(wanted as u64) && file.with_file_name("is-whole").exists()
}

/// Tries the changes of a batch, one after the other.
fn tested(batch: &[String], out: &PathBuf) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(out);
    std::fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
    let names: Vec<String> = batch.iter().map(|name| literally(name)).collect();
    let mut command =
        cargo(&["mutants", "--package", PACKAGE, "--baseline", "skip", "--timeout", "120", "--no-shuffle"]);
    command.args(["--test-tool", if step::has_nextest() { "nextest" } else { "cargo" }]);
    command.arg("--re").arg(format!("^({})$", names.join("|"))).arg("--output").arg(out).current_dir(root());
    // 0: all noticed, 2: some not, 3: some did not end (https://mutants.rs/exit-codes.html).
    match command.status().map(|status| status.code()) {
        Ok(Some(0 | 2 | 3)) => {
            std::fs::write(out.join("mutants.out/is-whole"), "").map_err(|error| format!("{}: {error}", out.display()))
        }
        other => Err(format!("cargo-mutants ended with {other:?}")),
    }
}

/// A name as a pattern that matches it alone.
fn literally(name: &str) -> String {
    name.chars().fold(String::new(), |mut text, letter| {
        if letter.is_ascii_punctuation() {
            text.push('\\');
        }
        text.push(letter);
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Asked, Tally, literally, minutes, sampled};

    #[test]
    fn what_no_test_noticed_is_missed_and_what_does_not_compile_is_not_tested() {
        let outcome = |name: &str, summary: &str| json!({"scenario": {"Mutant": {"name": name}}, "summary": summary});
        let outcomes = json!({"outcomes": [
            json!({"scenario": "Baseline", "summary": "Success"}),
            outcome("a", "CaughtMutant"), outcome("b", "MissedMutant"), outcome("c", "Timeout"), outcome("d", "Unviable"),
        ]});
        let mut tally = Tally::default();
        tally.add(&outcomes);
        assert_eq!(tally, Tally { caught: 1, endless: 1, unviable: 1, missed: vec!["b".to_owned()] });
        assert_eq!(tally.tested(), 3);
    }

    #[test]
    fn the_seed_alone_decides_the_sample() {
        let all: Vec<String> = (0..500).map(|n| format!("change {n}")).collect();
        let reversed: Vec<String> = all.iter().rev().cloned().collect();
        assert_eq!(sampled(&all, 1), sampled(&reversed, 1));
        assert_ne!(sampled(&all, 1), sampled(&all, 2));
        assert_eq!(sampled(&all, 1).len(), 125);
    }

    #[test]
    fn arguments_are_times_and_seeds_and_names_are_literal() {
        let read = |words: &[&str]| Asked::read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&["--budget", "5m", "--seed", "3"]).unwrap().seed, 3);
        assert!(read(&["--budget"]).is_err() && read(&["--budget", "0m"]).is_err() && read(&["--count", "3"]).is_err());
        assert_eq!(minutes("60m").map(|time| time.as_secs()), Some(3_600));
        assert_eq!(literally("a.rs:1: replace + with -"), r"a\.rs\:1\: replace \+ with \-");
    }
}
