//! `cargo xtask mutants`: a seeded sample of changes to the judges, each of which some test has to notice.
//!
//! The changes are made by `cargo-mutants` in a copy of the tree. Resumable: what became of a change stays in
//! `target/mutants/` for as long as the code of the crate is the same, also when a run was cut off in the middle. Where only the
//! tests have changed since, what they did not notice is tried again; what earlier tests noticed counts, and is told apart.

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
/// Beside the outcomes of a run: the key of the tests it ran.
const TESTS: &str = "tests";
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

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Became {
    /// The tool's word for it.
    word: String,
    /// The tests were the ones of today.
    is_current: bool,
}

/// What became of the changes that were tried, by name.
#[derive(Debug, Default)]
struct Tried {
    /// The tests of today passed without a change: only then do they notice one.
    sound: bool,
    changes: BTreeMap<String, Became>,
}

impl Tried {
    fn add(&mut self, outcomes: &Value, is_current: bool) {
        for outcome in outcomes["outcomes"].as_array().into_iter().flatten() {
            let word = outcome["summary"].as_str().unwrap_or_default().to_owned();
            let Some(name) = outcome["scenario"]["Mutant"]["name"].as_str() else {
                self.sound |= is_current && word == "Success";
                continue;
            };
            let noticed = matches!(word.as_str(), "CaughtMutant" | "Timeout" | "Unviable");
            if is_current || noticed && !self.changes.contains_key(name) {
                self.changes.insert(name.to_owned(), Became { word, is_current });
            }
        }
    }

    /// Everything that was written down in a directory, run by run.
    fn read(dir: &Path, tests: &str) -> Self {
        let mut tried = Self::default();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            // A file that was cut off says nothing; its changes are tried again.
            let outcomes = serde_json::from_str(&read("mutants.out/outcomes.json")).unwrap_or_default();
            tried.add(&outcomes, read(TESTS) == tests);
        }
        tried
    }

    /// Those of which nothing is known.
    fn missing(&self, changes: &[String]) -> Vec<String> {
        changes.iter().filter(|name| !self.changes.contains_key(*name)).cloned().collect()
    }

    fn tally(&self, sample: &[String]) -> Tally {
        let mut tally = Tally::default();
        for name in sample {
            let Some(became) = self.changes.get(name) else { continue };
            match became.word.as_str() {
                "CaughtMutant" => tally.caught += 1,
                "Timeout" => tally.endless += 1,
                "Unviable" => tally.unviable += 1,
                _ => tally.missed.push(name.clone()),
            }
            tally.earlier += usize::from(!became.is_current && became.word != "Unviable");
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
    /// Of the noticed ones: by the tests as they were before they were last changed.
    earlier: usize,
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
    let (code, tests) = keys()?;
    let dir = target().join("mutants").join(code);
    println!("what becomes of each change is kept in {}", dir.display());
    let (begun, mut sample, mut tried) = (Instant::now(), Vec::new(), Tried::read(&dir, &tests));
    for shard in shards(all.len(), asked.seed) {
        let changes = listed(&shard)?;
        let mut missing = tried.missing(&changes);
        if missing.is_empty() && !tried.sound {
            missing.extend(changes.first().cloned()); // whatever is tried, the tests run without a change before it
        }
        if !missing.is_empty() {
            if begun.elapsed() >= asked.budget {
                println!("the budget of {} min is used up: run it again to go on", asked.budget.as_secs() / 60);
                break;
            }
            let run = Run { changes: &missing, all: &all, is_sound: tried.sound, tests: &tests };
            run.test(&dir)?;
            tried = Tried::read(&dir, &tests);
            if !tried.missing(&changes).is_empty() {
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
        "\n{} of {} changes of {PACKAGE} in the sample, {} tested: {} noticed by a failed test, {} by tests that did not end \
         ({} of both by the tests as they were before their last change), {} unnoticed ({} of them with a reason); {} do not \
         compile",
        tally.tested() + tally.unviable,
        all.len(),
        tally.tested(),
        tally.caught,
        tally.endless,
        tally.earlier,
        tally.missed.len(),
        tally.missed.len() - open.len(),
        tally.unviable
    );
    open.iter().for_each(|name| println!("UNNOTICED {name}"));
    let met = tally.is_met(tried.sound, &reasoned);
    let result = json!({
        "schema": 1, "package": PACKAGE, "seed": asked.seed, "of": all.len(), "tested": tally.tested(), "caught": tally.caught,
        "endless": tally.endless, "earlier": tally.earlier, "unviable": tally.unviable, "unnoticed": tally.missed, "without_reason": open, "met": met,
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

/// What the crate is, and what its tests are, as they stand on the disk.
fn keys() -> Result<(String, String), String> {
    let (mut code, mut tests, mut files) = (DefaultHasher::new(), DefaultHasher::new(), Vec::new());
    walk(&root().join(PACKAGE), &mut files)?;
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let (of_code, of_tests) = parts(&file, &text);
        (&file, of_code).hash(&mut code);
        (&file, of_tests).hash(&mut tests);
    }
    let hex = |hash: DefaultHasher| format!("{:016x}", hash.finish());
    Ok((hex(code), hex(tests)))
}

/// A file without its tests, and its tests: in this house they end the file, or are one.
fn parts<'t>(file: &Path, text: &'t str) -> (&'t str, &'t str) {
    let is_tests = file.ends_with("tests.rs")
        || file.strip_prefix(root()).is_ok_and(|file| file.iter().any(|part| part == "tests"));
    if is_tests {
        return ("", text);
    }
    text.split_at(text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len()))
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

/// One run of the tool.
struct Run<'a> {
    changes: &'a [String],
    all: &'a [String],
    is_sound: bool,
    /// The key of the tests.
    tests: &'a str,
}

impl Run<'_> {
    /// Tries the changes one after the other; first the tests without any, unless that was done.
    fn test(&self, dir: &Path) -> Result<(), String> {
        let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let out = dir.join(begun.as_millis().to_string());
        // Which ones is told by what it need not try again: it goes on where a run of all others has ended.
        let others: String =
            self.all.iter().filter(|name| !self.changes.contains(name)).map(|name| format!("{name}\n")).collect();
        let write = |name: &str, text: &str| {
            let path = out.join(name);
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        std::fs::create_dir_all(out.join("mutants.out")).map_err(|error| format!("{}: {error}", out.display()))?;
        write("mutants.out/caught.txt", &others)?;
        write(TESTS, self.tests)?;
        let mut command = mutants(&["--iterate".to_owned()]);
        let baseline = if self.is_sound { "skip" } else { "run" };
        command.args(["--profile", PROFILE, "--timeout", LIMIT_S, "--baseline", baseline]);
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
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use serde_json::{Value, json};

    use super::{Asked, SAMPLE, Tally, Tried, minutes, parts, shards};

    fn tried(baseline: &str, changes: &[(&str, &str)]) -> Tried {
        let mut tried = Tried::default();
        add(&mut tried, baseline, changes, true);
        tried
    }

    fn add(tried: &mut Tried, baseline: &str, changes: &[(&str, &str)], is_current: bool) {
        let outcome =
            |(name, summary): &(&str, &str)| json!({"scenario": {"Mutant": {"name": name}}, "summary": summary});
        let all: Vec<Value> = changes.iter().map(outcome).collect();
        tried.add(&json!({"outcomes": [json!({"scenario": "Baseline", "summary": baseline})]}), is_current);
        tried.add(&json!({"outcomes": all}), is_current);
    }

    #[test]
    fn what_no_test_noticed_is_missed_and_what_does_not_compile_is_not_tested() {
        let changes = [("a", "CaughtMutant"), ("b", "MissedMutant"), ("c", "Timeout"), ("d", "Unviable"), ("e", "?")];
        let tried = tried("Success", &changes);
        let sample: Vec<String> = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec();
        let tally = tried.tally(&sample);
        let missed = vec!["b".to_owned(), "e".to_owned()];
        assert_eq!(tally, Tally { caught: 1, endless: 1, unviable: 1, earlier: 0, missed });
        assert_eq!(tally.tested(), 4);
        assert_eq!(tried.missing(&sample), ["f"]);
    }

    #[test]
    fn what_earlier_tests_did_not_notice_is_tried_again_and_what_they_noticed_is_told_apart() {
        let mut tried = Tried::default();
        add(&mut tried, "Success", &[("a", "CaughtMutant"), ("b", "MissedMutant"), ("c", "Unviable")], false);
        let sample: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert!(!tried.sound, "the tests of today have not been run without a change");
        assert_eq!(tried.missing(&sample), ["b"]);
        assert_eq!(tried.tally(&sample), Tally { caught: 1, unviable: 1, earlier: 1, ..Tally::default() });
        add(&mut tried, "Success", &[("a", "MissedMutant"), ("b", "CaughtMutant")], true);
        assert!(tried.sound && tried.missing(&sample).is_empty());
        let now = Tally { caught: 1, unviable: 1, missed: vec!["a".to_owned()], ..Tally::default() };
        assert_eq!(tried.tally(&sample), now, "today's tests have the last word");
        add(&mut tried, "Success", &[("a", "CaughtMutant")], false);
        assert_eq!(tried.tally(&sample), now, "in whatever order the runs are read");
    }

    #[test]
    fn tests_at_the_end_of_a_file_and_files_of_tests_are_no_code() {
        let file = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(parts(Path::new("src/a.rs"), file), ("fn a() {}\n", "\n#[cfg(test)]\nmod tests {\n}\n"));
        assert_eq!(parts(Path::new("src/a/tests.rs"), "fn b() {}"), ("", "fn b() {}"));
        let declared = "#[cfg(test)]\nmod tests;\nfn a() {}\n";
        assert_eq!(parts(Path::new("src/a.rs"), declared), (declared, ""));
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
