//! `cargo xtask leftovers`: test runs are killed, and what is left is counted. Resumable: each round is a line in
//! `target/leftovers/<part>.jsonl`, kept for as long as the code and the seed are the same; the figures are in
//! `target/leftovers/leftovers.json`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::figure::{self, Expected, Op};
use crate::peers;
use crate::step::{self, Steps, cargo, has_nextest, target};

/// What is counted by one test, round by round.
struct Part {
    name: &'static str,
    what: &'static str,
    test: &'static str,
    rounds: u64,
    batch: u64,
    /// Variables beside those that count rounds.
    env: &'static [(&'static str, &'static str)],
}

const PARTS: &[Part] = &[
    Part {
        name: "kills",
        what: "kill -9 of a run with containers, children, databases, directories, a paused container and live faults",
        test: "leftovers::nothing_is_left_after_a_kill",
        rounds: 100,
        batch: 10,
        env: &[],
    },
    Part {
        name: "keepers",
        what: "the same with its keepers killed, too, and then the next start",
        test: "leftovers::nothing_is_left_of_a_killed_keeper_after_the_next_start",
        rounds: 100,
        batch: 10,
        env: &[],
    },
    Part {
        name: "neighbours",
        what: "16 binaries side by side that start 15 s apart, every fourth killed",
        test: "leftovers::neighbours::neighbours_lose_nothing_while_they_live",
        rounds: 1,
        batch: 1,
        env: &[("HARNESS_BINARIES", "16"), ("HARNESS_APART", "15000"), ("HARNESS_HOLDS", "50000")],
    },
];

/// The part, the field of its rounds that counts, and what that has to be.
const GOALS: &[(&str, &str, Expected)] = &[
    ("kills", "left", each("leftovers.after_a_kill", 0.0, 100)),
    ("kills", "full", sum("leftovers.kills_with_everything", 40.0)),
    ("keepers", "left", each("leftovers.after_the_next_start", 0.0, 100)),
    ("keepers", "had_left", sum("leftovers.kills_that_left_something", 40.0)),
    ("neighbours", "reaped", each("leftovers.premature_reaps", 0.0, 1)),
    ("neighbours", "left", each("leftovers.after_neighbours", 0.0, 1)),
];

const fn each(goal: &'static str, target: f64, rounds: usize) -> Expected {
    Expected { goal, op: Op::Exactly, target, rounds }
}

/// At least so many in all: without them the others would prove little.
const fn sum(goal: &'static str, target: f64) -> Expected {
    Expected { goal, op: Op::AtLeast, target, rounds: 1 }
}

/// Does the rounds that are missing, judges all, prints the table.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let mut words = arguments.iter().map(String::as_str);
    let (mut fresh, mut seed, mut only) = (false, "1".to_owned(), Vec::new());
    while let Some(word) = words.next() {
        match (word, PARTS.iter().find(|part| part.name == word)) {
            ("--fresh", _) => fresh = true,
            ("--seed", _) => seed = words.next().unwrap_or_default().to_owned(),
            (_, Some(part)) => only.push(part.name),
            _ => {
                eprintln!("usage: cargo xtask leftovers [kills] [keepers] [neighbours] [--seed N] [--fresh]");
                return ExitCode::from(64);
            }
        }
    }
    if !has_nextest() {
        eprintln!("xtask: leftovers runs its tests with nextest (cargo install cargo-nextest)");
        return ExitCode::from(3);
    }
    let out = target().join("leftovers");
    if let Err(error) = std::fs::create_dir_all(&out) {
        eprintln!("xtask: {} cannot be made: {error}", out.display());
        return ExitCode::from(3);
    }
    let key = format!("{} seed {seed}", peers::key(false));
    let mut steps = Steps::default();
    steps.run("provision: servers for the victims", || step::harness("provision", &[]));
    if steps.failed() {
        return steps.finish();
    }
    let mut whole = true;
    for part in PARTS.iter().filter(|part| only.is_empty() || only.contains(&part.name)) {
        println!("\n== {}: {}", part.name, part.what);
        whole &= done(part, &out, &key, &seed, fresh);
    }
    let figures: Vec<Value> = GOALS.iter().map(|(part, field, goal)| judged(&out, &key, part, field, goal)).collect();
    println!("\n{}", figure::head());
    figures.iter().for_each(|figure| println!("{}", figure::line(figure)));
    let results = json!({ "schema": 1, "machine": peers::machine(), "seed": seed, "goals": figures });
    let path = out.join("leftovers.json");
    let written = std::fs::write(&path, format!("{results:#}\n")).is_ok();
    println!("\nwritten: {}", path.display());
    steps.run("sweep: nothing is left", || step::harness("sweep", &["--check".to_owned()]));
    let asked = |goal: &&(&str, &str, Expected)| only.is_empty() || only.contains(&goal.0);
    let names: Vec<&str> = GOALS.iter().filter(asked).map(|(_, _, goal)| goal.goal).collect();
    let met = figures.iter().filter(|figure| names.iter().any(|name| figure["goal"] == **name));
    let all_met = met.clone().count() > 0 && met.clone().all(|figure| figure["met"] == true);
    let clean = !steps.failed();
    steps.finish();
    step::exit(whole && all_met && written && clean)
}

fn path(out: &Path, part: &str) -> PathBuf {
    out.join(format!("{part}.jsonl"))
}

/// The rounds of a part that count; the first line says for which code they do.
fn rounds(out: &Path, part: &str, key: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path(out, part)).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some(key) {
        return Vec::new();
    }
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Does what is missing of a part; false when a batch did nothing, since the next would not either.
fn done(part: &Part, out: &Path, key: &str, seed: &str, fresh: bool) -> bool {
    let path = path(out, part.name);
    if (fresh || rounds(out, part.name, key).is_empty())
        && let Err(error) = std::fs::write(&path, format!("{key}\n"))
    {
        eprintln!("xtask: {} cannot be written: {error}", path.display());
        return false;
    }
    loop {
        let there = rounds(out, part.name, key).len() as u64;
        if there >= part.rounds {
            return true;
        }
        let filter = format!("package(harness-tests) & test(={})", part.test);
        let mut command = cargo(&["nextest", "run", "--workspace", "--profile", "soak", "--no-tests", "fail"]);
        command.args(["--no-capture", "--filter-expr", &filter]).env("HARNESS_SEED", seed);
        command.env("HARNESS_FIGURES", &path).env("HARNESS_KILLS_FROM", there.to_string());
        command.env("HARNESS_KILLS", part.batch.min(part.rounds - there).to_string()).envs(part.env.iter().copied());
        let passed = command.status().is_ok_and(|status| status.success());
        let now = rounds(out, part.name, key).len() as u64;
        if now == there {
            eprintln!("xtask: no round of `{}` came to its end", part.name);
            return false;
        }
        println!("{}: {now} of {}{}", part.name, part.rounds, if passed { "" } else { ", with a failure" });
    }
}

/// The figure of one goal.
fn judged(out: &Path, key: &str, part: &str, field: &str, goal: &Expected) -> Value {
    let rounds = rounds(out, part, key);
    let number = |round: &Value| -> Option<u64> {
        match field {
            "full" => Some(u64::from(is_full(round))),
            "had_left" => round["before"].as_u64().map(|before| u64::from(before > 0)),
            field => round[field].as_u64(),
        }
    };
    let mut counts: Vec<Option<u64>> = rounds.iter().map(number).collect();
    if goal.op == Op::AtLeast && !counts.is_empty() {
        counts = vec![counts.into_iter().sum()];
    }
    let counts: Vec<Value> = counts.into_iter().map(|count| json!([count, null])).collect();
    let raw = json!({ "unit": "count", "peer": "", "rounds": counts });
    figure::judge(goal, (!counts.is_empty()).then_some(&raw), "not done with this code and this seed")
}

/// True when the victim of this round held a paused container and acting faults in the moment of its death or before.
fn is_full(round: &Value) -> bool {
    let had: Vec<&str> = round["had"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    ["a paused container", "everything"].iter().all(|stage| had.contains(stage))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{GOALS, judged, rounds};

    fn met(lines: &[Value], part: &str, name: &str) -> Value {
        let out = std::env::temp_dir().join(format!("xtask-leftovers-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&out).unwrap();
        let text: Vec<String> = lines.iter().map(Value::to_string).collect();
        std::fs::write(out.join(format!("{part}.jsonl")), format!("this code\n{}\n", text.join("\n"))).unwrap();
        let (_, field, goal) = GOALS.iter().find(|(_, _, goal)| goal.goal == name).unwrap();
        let figure = judged(&out, "this code", part, field, goal);
        assert!(rounds(&out, part, "other code").is_empty(), "rounds of other code count");
        std::fs::remove_dir_all(&out).unwrap();
        figure["met"].clone()
    }

    #[test]
    fn one_thing_left_in_a_hundred_kills_misses_the_goal_and_few_rounds_are_no_figure() {
        let kill = |left: u64| json!({"left": left, "had": ["a paused container", "everything"]});
        let mut kills = vec![kill(0); 100];
        assert_eq!(met(&kills, "kills", "leftovers.after_a_kill"), json!(true));
        assert_eq!(met(&kills, "kills", "leftovers.kills_with_everything"), json!(true));
        assert_eq!(met(&kills[..99], "kills", "leftovers.after_a_kill"), Value::Null);
        assert_eq!(met(&[], "kills", "leftovers.after_a_kill"), Value::Null);
        kills[42] = kill(1);
        assert_eq!(met(&kills, "kills", "leftovers.after_a_kill"), json!(false));
        let poor = vec![json!({"left": 0, "had": ["databases"]}); 100];
        assert_eq!(
            met(&poor, "kills", "leftovers.kills_with_everything"),
            json!(false),
            "nothing was there to be left"
        );
        let idle = vec![json!({"left": 0, "before": 0}); 100];
        assert_eq!(met(&idle, "keepers", "leftovers.kills_that_left_something"), json!(false));
        assert_eq!(met(&[json!({"reaped": 1})], "neighbours", "leftovers.premature_reaps"), json!(false));
        assert_eq!(
            met(&[json!({"left": 0})], "neighbours", "leftovers.premature_reaps"),
            Value::Null,
            "nobody counted"
        );
    }
}
