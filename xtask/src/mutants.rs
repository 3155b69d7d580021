//! `cargo xtask mutants`: a seeded sample of changes to the judges, each of which some test has to notice.
//!
//! The changes are made by `cargo-mutants` in a copy of the tree. Resumable: what became of a change stays in
//! `target/mutants/` for as long as the crate and its tests are the same, also when a run was cut off in the middle.

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
/// Changes per run of the tool: each run copies the tree and builds it once from scratch.
const BATCH: usize = 20;
/// Changes that no test need notice, each with its reason.
const REASONED: &str = "xtask/mutants.json";
/// Unoptimised, since each change is built once and most are noticed by the first quick test.
const PROFILE: &str = "mutants";
/// Many times what all tests take, so that a busy machine is not taken for tests that do not end.
const LIMIT_S: &str = "1800";

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

/// What became of the changes that were tried, by name.
#[derive(Debug, Default)]
struct Tried {
    /// The tests passed without a change: only then do they notice one.
    sound: bool,
    /// The tool's word for each change.
    changes: BTreeMap<String, String>,
}

impl Tried {
    fn add(&mut self, outcomes: &Value) {
        for outcome in outcomes["outcomes"].as_array().into_iter().flatten() {
            let word = outcome["summary"].as_str().unwrap_or_default();
            match outcome["scenario"]["Mutant"]["name"].as_str() {
                Some(name) => drop(self.changes.insert(name.to_owned(), word.to_owned())),
                None => self.sound |= word == "Success",
            }
        }
    }

    /// Everything that was written down in a directory, run by run.
    fn read(dir: &Path) -> Self {
        let mut tried = Self::default();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path().join("mutants.out/outcomes.json")).unwrap_or_default();
            // A file that was cut off says nothing; its changes are tried again.
            tried.add(&serde_json::from_str(&text).unwrap_or_default());
        }
        tried
    }

    fn has_all(&self, changes: &[String]) -> bool {
        changes.iter().all(|name| self.changes.contains_key(name))
    }

    fn tally(&self, sample: &[String]) -> Tally {
        let mut tally = Tally::default();
        for name in sample {
            match self.changes.get(name).map(String::as_str) {
                Some("CaughtMutant") => tally.caught += 1,
                Some("Timeout") => tally.endless += 1,
                Some("Unviable") => tally.unviable += 1,
                Some(_) => tally.missed.push(name.clone()),
                None => {}
            }
        }
        tally
    }
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

    /// What nobody noticed and nothing excuses.
    fn open(&self, reasoned: &BTreeMap<String, String>) -> Vec<String> {
        self.missed.iter().filter(|name| !reasoned.contains_key(*name)).cloned().collect()
    }

    /// Enough was tried, with tests that pass without a change, and nothing is left open.
    fn is_met(&self, sound: bool, reasoned: &BTreeMap<String, String>) -> bool {
        sound && self.tested() >= SAMPLE && self.open(reasoned).is_empty()
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
    let all = listed(&[])?;
    let reasoned = reasoned(&all)?;
    let dir = target().join("mutants").join(format!("{:016x}", key()?));
    let (begun, mut sample, mut tried) = (Instant::now(), Vec::new(), Tried::read(&dir));
    for shard in shards(all.len(), asked.seed) {
        let changes = listed(&shard)?;
        if !(tried.sound && tried.has_all(&changes)) {
            if begun.elapsed() >= asked.budget {
                println!("the budget of {} min is used up: run it again to go on", asked.budget.as_secs() / 60);
                break;
            }
            test(&shard, tried.sound, &dir)?;
            tried = Tried::read(&dir);
            if !tried.has_all(&changes) {
                return Err("cargo-mutants tried other changes than it had listed".to_owned());
            }
        }
        sample.extend(changes);
        if tried.tally(&sample).tested() >= SAMPLE {
            break;
        }
    }
    let tally = tried.tally(&sample);
    let open = tally.open(&reasoned);
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
    let met = tally.is_met(tried.sound, &reasoned);
    let result = json!({
        "schema": 1, "package": PACKAGE, "seed": asked.seed, "of": all.len(), "tested": tally.tested(), "caught": tally.caught,
        "endless": tally.endless, "unviable": tally.unviable, "unnoticed": tally.missed, "without_reason": open, "met": met,
    });
    let path = target().join("mutants/mutants.json");
    std::fs::write(&path, format!("{result:#}\n")).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(met)
}

/// Every change the tool knows, by name, or those of a shard.
fn listed(shard: &[String]) -> Result<Vec<String>, String> {
    let output = mutants(shard).arg("--list").output().map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo-mutants is missing or cannot read the tree (cargo install cargo-mutants --locked): {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    let names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    if names.is_empty() { Err("cargo-mutants lists nothing to change".to_owned()) } else { Ok(names) }
}

/// The tool, told what it is about.
fn mutants(shard: &[String]) -> Command {
    let mut command = cargo(&["mutants", "--package", PACKAGE, "--all-features"]);
    command.args(shard).current_dir(root());
    command
}

/// All changes in shards, each spread over the whole crate, in an order that only the seed decides: who wants a sample takes as
/// many as he needs. By the tool's own shards, since its patterns let changes through that they do not match.
fn shards(all: usize, seed: u64) -> Vec<[String; 4]> {
    let count = all.div_ceil(BATCH);
    let place = |shard: &usize| {
        let mut hash = DefaultHasher::new();
        (seed, shard).hash(&mut hash);
        hash.finish()
    };
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(place);
    let told =
        |shard| ["--sharding".to_owned(), "round-robin".to_owned(), "--shard".to_owned(), format!("{shard}/{count}")];
    order.into_iter().map(told).collect()
}

/// The crate with its tests, as it stands on the disk.
fn key() -> Result<u64, String> {
    let mut hash = DefaultHasher::new();
    let mut files = Vec::new();
    walk(&root().join(PACKAGE), &mut files)?;
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        (file, bytes).hash(&mut hash);
    }
    Ok(hash.finish())
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", dir.display());
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "toml") {
            files.push(path);
        }
    }
    Ok(())
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

/// Tries the changes of a shard, one after the other; first the tests without any, unless that was done.
fn test(shard: &[String], is_sound: bool, dir: &Path) -> Result<(), String> {
    let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let out = dir.join(begun.as_millis().to_string());
    std::fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let mut command = mutants(shard);
    command.args(["--profile", PROFILE, "--timeout", LIMIT_S, "--baseline", if is_sound { "skip" } else { "run" }]);
    match step::has_nextest() {
        true => command.args(["--test-tool", "nextest", "--cargo-test-arg=--profile=mutants"]),
        false => command.args(["--test-tool", "cargo"]),
    };
    // What it depends on is built once for all runs.
    command.arg("--output").arg(&out).env("CARGO_TARGET_DIR", target().join("mutants/build"));
    // 0: all noticed, 2: some not, 3: some did not end (https://mutants.rs/exit-codes.html).
    match command.status().map(|status| status.code()) {
        Ok(Some(0 | 2 | 3)) => Ok(()),
        Ok(Some(4)) => Err(format!("the tests of {PACKAGE} fail without any change: nothing can be said")),
        other => Err(format!("cargo-mutants ended with {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::{Asked, SAMPLE, Tally, Tried, minutes, shards};

    fn tried(baseline: &str, changes: &[(&str, &str)]) -> Tried {
        let outcome =
            |(name, summary): &(&str, &str)| json!({"scenario": {"Mutant": {"name": name}}, "summary": summary});
        let all: Vec<Value> = changes.iter().map(outcome).collect();
        let mut tried = Tried::default();
        tried.add(&json!({"outcomes": [json!({"scenario": "Baseline", "summary": baseline})]}));
        tried.add(&json!({"outcomes": all}));
        tried
    }

    #[test]
    fn what_no_test_noticed_is_missed_and_what_does_not_compile_is_not_tested() {
        let changes = [("a", "CaughtMutant"), ("b", "MissedMutant"), ("c", "Timeout"), ("d", "Unviable"), ("e", "?")];
        let tried = tried("Success", &changes);
        let sample: Vec<String> = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec();
        let tally = tried.tally(&sample);
        assert_eq!(tally, Tally { caught: 1, endless: 1, unviable: 1, missed: vec!["b".to_owned(), "e".to_owned()] });
        assert_eq!(tally.tested(), 4);
        assert!(tried.has_all(&sample[..5]) && !tried.has_all(&sample));
    }

    #[test]
    fn a_sample_is_met_only_when_it_is_whole_sound_and_nothing_is_open() {
        let sample: Vec<String> = (0..SAMPLE).map(|n| format!("change {n}")).collect();
        let names: Vec<(&str, &str)> = sample.iter().map(|name| (name.as_str(), "CaughtMutant")).collect();
        let none = BTreeMap::new();
        let met =
            |tried: &Tried, reasoned: &BTreeMap<String, String>| tried.tally(&sample).is_met(tried.sound, reasoned);
        assert!(met(&tried("Success", &names), &none));
        assert!(!met(&tried("Failure", &names), &none), "tests that fail anyway notice everything");
        assert!(!met(&tried("Success", &names[1..]), &none), "too few");
        let mut planted = names.clone();
        planted[7].1 = "MissedMutant";
        assert!(!met(&tried("Success", &planted), &none));
        assert!(met(&tried("Success", &planted), &BTreeMap::from([(sample[7].clone(), "the same".to_owned())])));
    }

    #[test]
    fn the_seed_alone_decides_the_order_of_the_shards_and_each_stands_in_it_once() {
        assert_eq!(shards(5_000, 1), shards(5_000, 1));
        assert_ne!(shards(5_000, 1), shards(5_000, 2));
        let mut all = shards(5_001, 3);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 251);
        assert!(all.iter().any(|shard| shard[3] == "250/251"));
    }

    #[test]
    fn arguments_are_times_and_seeds() {
        let read = |words: &[&str]| Asked::read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&["--budget", "5m", "--seed", "3"]).unwrap().seed, 3);
        assert!(read(&["--budget"]).is_err() && read(&["--budget", "0m"]).is_err() && read(&["--count", "3"]).is_err());
        assert_eq!(minutes("60m").map(|time| time.as_secs()), Some(3_600));
    }
}
