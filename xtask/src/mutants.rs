//! `cargo xtask mutants`: a seeded sample of changes to the judges, each of which some test has to notice.
//!
//! The changes are made by `cargo-mutants` in a copy of the tree. Resumable: what became of a change stays in
//! `target/mutants/` for as long as the code of the crate is the same, also when a run was cut off in the middle. Where only the
//! tests have changed since, what they did not notice is tried again; what earlier tests noticed counts, and is told apart.
//! Changes that no test can notice stand with their reasons in `.cargo/mutants.toml`.

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

    /// Enough was tried, with tests that pass without a change, and everything was noticed.
    fn is_met(&self, sound: bool) -> bool {
        sound && self.tested() >= SAMPLE && self.missed.is_empty()
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
    let (code, tests) = keys()?;
    let dir = target().join("mutants").join(code);
    println!("what becomes of each change is kept in {}", dir.display());
    let (begun, mut sample, mut tried) = (Instant::now(), Vec::new(), Tried::read(&dir, &tests));
    for changes in ordered(&all, asked.seed).chunks(BATCH) {
        let mut missing = tried.missing(changes);
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
            if !tried.missing(changes).is_empty() {
                return Err("cargo-mutants tried other changes than it had listed".to_owned());
            }
        }
        sample.extend_from_slice(changes);
        if tried.tally(&sample).tested() >= SAMPLE {
            break;
        }
    }
    let tally = tried.tally(&sample);
    println!(
        "\n{} of {} changes of {PACKAGE} in the sample, {} tested: {} noticed by a failed test, {} by tests that did not end \
         ({} of both by the tests as they were before their last change), {} unnoticed; {} do not compile",
        tally.tested() + tally.unviable,
        all.len(),
        tally.tested(),
        tally.caught,
        tally.endless,
        tally.earlier,
        tally.missed.len(),
        tally.unviable
    );
    tally.missed.iter().for_each(|name| println!("UNNOTICED {name}"));
    let met = tally.is_met(tried.sound);
    let result = json!({
        "schema": 1, "package": PACKAGE, "seed": asked.seed, "of": all.len(), "tested": tally.tested(), "caught": tally.caught,
        "endless": tally.endless, "earlier": tally.earlier, "unviable": tally.unviable, "unnoticed": tally.missed, "met": met,
    });
    let path = target().join("mutants/mutants.json");
    std::fs::write(&path, format!("{result:#}\n")).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(met)
}

/// Every change the tool knows, by name.
fn listed() -> Result<Vec<String>, String> {
    let output = mutants().arg("--list").output().map_err(|error| format!("cargo cannot be run: {error}"))?;
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
fn mutants() -> Command {
    let mut command = cargo(&["mutants", "--package", PACKAGE, "--all-features"]);
    command.current_dir(root());
    command
}

/// All changes in an order that the seed and they themselves decide, and not where they stand: code that changes elsewhere moves
/// nothing into a sample or out of it.
fn ordered(all: &[String], seed: u64) -> Vec<String> {
    let mut alike: BTreeMap<String, u32> = BTreeMap::new();
    let mut placed: Vec<(u64, &String)> = Vec::with_capacity(all.len());
    for name in all {
        // file:line:column: what
        let mut parts = name.splitn(4, ':');
        let own = format!("{}:{}", parts.next().unwrap_or_default(), parts.nth(2).unwrap_or_default());
        let nth = alike.entry(own.clone()).or_default();
        *nth += 1;
        let mut hash = DefaultHasher::new();
        (seed, own, *nth).hash(&mut hash);
        placed.push((hash.finish(), name));
    }
    placed.sort();
    placed.into_iter().map(|(_, name)| name.clone()).collect()
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
        let mut command = mutants();
        let baseline = if self.is_sound { "skip" } else { "run" };
        command.args(["--iterate", "--profile", PROFILE, "--timeout", LIMIT_S, "--baseline", baseline]);
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
    use std::path::Path;

    use serde_json::{Value, json};

    use super::{Asked, SAMPLE, Tally, Tried, minutes, ordered, parts};

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
        let met = |tried: &Tried| tried.tally(&sample).is_met(tried.sound);
        assert!(met(&tried("Success", &names)));
        assert!(!met(&tried("Failure", &names)), "tests that fail anyway notice everything");
        assert!(!met(&tried("Success", &names[1..])), "too few");
        let mut planted = names.clone();
        planted[7].1 = "MissedMutant";
        assert!(!met(&tried("Success", &planted)));
    }

    #[test]
    fn the_seed_orders_the_changes_and_code_elsewhere_does_not() {
        let change = |line: u32, what: u32| format!("src/a.rs:{line}:5: replace {what} with 0 in a::b");
        let all: Vec<String> = (0..500).map(|n| change(n, n / 2)).collect();
        let names = |order: &[String]| -> Vec<String> {
            order.iter().map(|name| name.rsplit(':').next().unwrap_or_default().to_owned()).collect()
        };
        assert_ne!(ordered(&all, 1), ordered(&all, 2));
        let mut back = ordered(&all, 1);
        back.sort_by_key(|name| all.iter().position(|other| other == name));
        assert_eq!(back, all, "each stands in it once");
        // Three lines further down, and one change more in another file: the order is the same.
        let mut moved: Vec<String> = (0..500).map(|n| change(n + 3, n / 2)).collect();
        moved.push("src/c.rs:1:1: replace d with ()".to_owned());
        let mut order = ordered(&moved, 1);
        order.retain(|name| !name.starts_with("src/c.rs"));
        assert_eq!(names(&order), names(&ordered(&all, 1)));
    }

    #[test]
    fn arguments_are_times_and_seeds() {
        let read = |words: &[&str]| Asked::read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&["--budget", "5m", "--seed", "3"]).unwrap().seed, 3);
        assert!(read(&["--budget"]).is_err() && read(&["--budget", "0m"]).is_err() && read(&["--count", "3"]).is_err());
        assert_eq!(minutes("60m").map(|time| time.as_secs()), Some(3_600));
    }
}
