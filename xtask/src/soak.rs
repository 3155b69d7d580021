//! `cargo xtask soak`: what the normal run does in short form, at full length.
//!
//! Resumable: each item goes in batches, and `target/soak/<item>.json` says after each how far it is. A batch that fails
//! ends its item; one that finds no test is missing evidence and ends it, too. What a test prints on a line that begins
//! with `figure: ` is kept beside the result.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::step::{self, cargo, has_nextest, root, target};

/// One thing that is repeated.
struct Item {
    name: &'static str,
    what: &'static str,
    /// Which tests, as a nextest filter.
    tests: &'static str,
    /// All of them; the test is told by `HARNESS_ROUNDS` how many of a batch it is to do.
    rounds: u64,
    /// Rounds at a time: all of them where seeds are counted from nought, since a second batch would repeat the first.
    batch: u64,
}

const ITEMS: &[Item] = &[
    Item {
        name: "redis-crosstalk",
        what: "16 tests that flush their keyspaces at once never meet",
        tests: "package(harness-db) & test(/^crosstalk::sixteen/)",
        rounds: 10_000,
        batch: 2_000,
    },
    Item {
        name: "connections",
        what: "64 tests of 5 connections each all get theirs",
        tests: "package(harness-db) & test(/^connections::sixty_four/)",
        rounds: 100,
        batch: 20,
    },
    Item {
        name: "isolation",
        what: "the anomalies of each isolation level, without one flake",
        tests: "package(harness-db) & test(/^isolation::repeats_of_the_table/)",
        rounds: 200,
        batch: 50,
    },
    Item {
        name: "load-conservation",
        what: "every slot of random load plans ends once, with panics and cancellations",
        tests: "package(harness-load) & test(/^conservation::every_slot/)",
        rounds: 10_000,
        batch: 10_000,
    },
    Item {
        name: "regressions",
        what: "interleaved comparisons over synthetic noise: alarms for equal things, 10 % and 20 % found",
        tests: "package(harness-load) & test(/^compare::tests::(equal_things|ten_and_twenty)/)",
        rounds: 4_000,
        batch: 4_000,
    },
    Item {
        name: "comparisons",
        what: "the same piece of work against itself, and against 15 % more, on the clock on the wall",
        tests: "package(harness-load) & test(/^comparing::equal_work/)",
        rounds: 100,
        batch: 25,
    },
    Item {
        name: "breakpoints",
        what: "the capacity of systems whose capacity is known, within 5 % and in 14 probes",
        tests: "package(harness-load) & test(/^breakpoint::tests::every_capacity/)",
        rounds: 10_000,
        batch: 10_000,
    },
    Item {
        name: "leaks",
        what: "synthetic series with warm-ups: leaks found, warm-ups not called leaks",
        tests: "package(harness-core) & test(/^monitor::tests::a_(warm_up_is|leak_of_five)/)",
        rounds: 2_000,
        batch: 2_000,
    },
    Item {
        name: "gaps",
        what: "a listener that is away for 10 ms is seen by a request each millisecond, and one that is not is not",
        tests: "package(harness-core) & test(/^changeover::tests::gap_of_ten/)",
        rounds: 100,
        batch: 50,
    },
    Item {
        name: "misrouting",
        what: "one message of a million that reaches the wrong session is found, with twenty seeds",
        tests: "package(harness-ws) & test(/one_misrouted_message/)",
        rounds: 20,
        batch: 20,
    },
    Item {
        name: "silence",
        what: "silence proven by a fence never flakes, on an idle and on a busy machine",
        tests: "package(harness-ws) & test(/silences_by_fence_never_flake/)",
        rounds: 1_000,
        batch: 250,
    },
    Item {
        name: "seeded-bugs",
        what: "every planted defect of a server meets every check, and no check but its own notices it",
        tests: "package(harness-ws) & test(/each_defect_|each_planted_defect/)",
        rounds: 1,
        batch: 1,
    },
    Item {
        name: "ws-inputs",
        what: "damaged frames, messages and events into the readers: no panic, bounded memory",
        tests: "package(harness-ws) & test(/damaged_inputs_do_no_harm/)",
        rounds: 10_000_000,
        batch: 2_500_000,
    },
    Item {
        name: "mutated-plans",
        what: "defects of every rule of plans, slates, drills, timelines and migrations, found by their rule alone, and as many valid plans",
        tests: "package(harness-props) & test(/^mutate::tests::(every_mutant|valid_plans)/)",
        rounds: 10_000,
        batch: 10_000,
    },
    Item {
        name: "small-graphs",
        what: "the acyclic ones of all digraphs of five steps, and shrinking to the true minimum",
        tests: "package(harness-props) & test(/^(plan::tests::acyclic_digraphs|shrink::tests::cycles_shrink)/)",
        rounds: 1_000,
        batch: 1_000,
    },
    Item {
        name: "anomalies",
        what: "each class of transaction anomaly planted with 500 seeds and found as what it is, and 10,000 clean histories",
        tests: "package(harness-props) & test(/^histories::(every_planted|clean_histories)/)",
        rounds: 500,
        batch: 500,
    },
    Item {
        name: "ties",
        what: "fronts of small sets full of ties against brute force, and ranks of exact ties",
        tests: "package(harness-props) & test(/^(pareto::tests::front_of_small|rank::tests::)/)",
        rounds: 1_000_000,
        batch: 1_000_000,
    },
];

/// Runs every item, or those that are named, from where they stand. `--fresh` begins again.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let names: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();
    let unknown = names.iter().find(|name| ITEMS.iter().all(|item| item.name != **name));
    let unknown = unknown
        .copied()
        .or_else(|| arguments.iter().map(String::as_str).find(|word| word.starts_with("--") && *word != "--fresh"));
    if let Some(unknown) = unknown {
        let known: Vec<&str> = ITEMS.iter().map(|item| item.name).collect();
        eprintln!("xtask: `{unknown}` is no item of soak; there are {} (and --fresh)", known.join(", "));
        return ExitCode::from(64);
    }
    if !has_nextest() {
        eprintln!("xtask: soak runs its tests with nextest (cargo install cargo-nextest)");
        return ExitCode::from(3);
    }
    let fresh = arguments.iter().any(|word| word == "--fresh");
    let mut all = true;
    for item in ITEMS.iter().filter(|item| names.is_empty() || names.contains(&item.name)) {
        println!("\n== {}: {}", item.name, item.what);
        all &= soaked(item, fresh);
    }
    println!();
    for item in ITEMS {
        println!("{}", line(item));
    }
    step::exit(all)
}

fn path(item: &Item) -> PathBuf {
    target().join("soak").join(format!("{}.json", item.name))
}

/// What stands in the item's file, if it is about this commit.
fn state(item: &Item) -> Value {
    let text = std::fs::read_to_string(path(item)).unwrap_or_default();
    let state: Value = serde_json::from_str(&text).unwrap_or_default();
    if state["commit"] == commit() { state } else { Value::Null }
}

fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Runs the batches that are missing; true when all rounds passed.
fn soaked(item: &Item, fresh: bool) -> bool {
    let before = if fresh { Value::Null } else { state(item) };
    let mut done = before["done"].as_u64().unwrap_or_default();
    let mut took_s = before["took_s"].as_f64().unwrap_or_default();
    let mut figures = before["figures"].as_array().cloned().unwrap_or_default();
    while done < item.rounds {
        let batch = item.batch.min(item.rounds - done);
        let begun = Instant::now();
        let ended = batch_of(item, batch, &mut figures);
        took_s += begun.elapsed().as_secs_f64();
        done += if ended.is_ok() { batch } else { 0 };
        let met = match &ended {
            Ok(()) if done >= item.rounds => json!(true),
            Ok(()) | Err(Ended::NoTests) => Value::Null,
            Err(Ended::Failed) => json!(false),
        };
        let why = ended.as_ref().err().map_or("", |ended| ended.why());
        let state = json!({
            "schema": 1, "item": item.name, "what": item.what, "commit": commit(), "rounds": item.rounds, "done": done,
            "took_s": took_s, "met": met, "why": why, "figures": figures,
        });
        let path = path(item);
        let kept = std::fs::create_dir_all(path.with_file_name(""))
            .and_then(|()| std::fs::write(&path, format!("{state:#}\n")));
        if let Err(error) = kept {
            eprintln!("xtask: {} cannot be written: {error}", path.display());
            return false;
        }
        if ended.is_err() {
            return false;
        }
    }
    true
}

/// Why a batch is no evidence for its item.
enum Ended {
    Failed,
    NoTests,
}

impl Ended {
    fn why(&self) -> &'static str {
        match self {
            Self::Failed => "a round failed; its output stands above",
            Self::NoTests => "no test has this name here",
        }
    }
}

fn batch_of(item: &Item, rounds: u64, figures: &mut Vec<Value>) -> Result<(), Ended> {
    let mut command = cargo(&["nextest", "run", "--workspace", "--profile", "soak", "--no-tests", "fail"]);
    command.args(["--filter-expr", item.tests]);
    command.env("HARNESS_ROUNDS", rounds.to_string());
    // What nextest has to say, the output of tests included, it says there.
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(|_| Ended::Failed)?;
    for line in child.stderr.take().into_iter().flat_map(|said| BufReader::new(said).lines()).map_while(Result::ok) {
        eprintln!("{line}");
        figures.extend(line.trim().strip_prefix("figure: ").map(|figure| json!(figure)));
    }
    match child.wait().map(|status| status.code()) {
        Ok(Some(0)) => Ok(()),
        // https://docs.rs/nextest-metadata: NextestExitCode::NO_TESTS_RUN
        Ok(Some(4)) => Err(Ended::NoTests),
        _ => Err(Ended::Failed),
    }
}

fn line(item: &Item) -> String {
    let state = state(item);
    let verdict = match (state["met"].as_bool(), state["why"].as_str().filter(|why| !why.is_empty())) {
        (Some(true), _) => "held",
        (_, Some(why)) => why,
        _ => "not finished with this code",
    };
    let done = state["done"].as_u64().unwrap_or_default();
    let figures = state["figures"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let figures: String = figures.map(|figure| format!("\n{:<18} {figure}", "")).collect();
    format!("{:<18} {done:>6} of {:>6} rounds  {verdict}{figures}", item.name, item.rounds)
}
