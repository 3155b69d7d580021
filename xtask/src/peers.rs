//! `cargo xtask peers db|load|faults|ws|props`: ours and the others in one run, on one server; the raw rounds come from a workspace of its own.
//!
//! Resumable: each goal's rounds stay in `target/peers/parts/`, and are kept for as long as the code, the providers and
//! the size of the run are the same.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

use crate::figure::{self, Expected, Op};
use crate::step::{self, Steps, cargo, passes, root, target};
use crate::{pythons, servers, tools};

const fn ratio(goal: &'static str, op: Op, target: f64) -> Expected {
    Expected { goal, op, target, rounds: 5 }
}

const fn count(goal: &'static str, target: f64) -> Expected {
    Expected { goal, op: Op::Exactly, target, rounds: 1 }
}

/// Every goal, and the part that holds its rounds: one that nobody measured stands in the table as missing.
const DB: &[(&str, Expected)] = &[
    ("db.forty_tests", ratio("db.forty_tests", Op::AtMost, 0.1)),
    ("db.forty_tests", ratio("db.forty_tests_inline", Op::AtMost, 1.0 / 3.0)),
    ("db.acquire", ratio("db.acquire", Op::AtMost, 2.0)),
    ("db.acquire_flat", ratio("db.acquire_flat", Op::AtMost, 1.1)),
    ("db.sustained", ratio("db.sustained", Op::AtLeast, 0.9)),
    ("db.sustained", count("db.sustained_failures", 0.0)),
    ("db.cold", ratio("db.cold_start", Op::AtMost, 1.0 / 3.0)),
    ("db.shared", ratio("db.cold_shared", Op::AtMost, 1.0 / 20.0)),
    ("db.stampede", count("db.stampede_servers", 1.0)),
    ("db.stampede", count("db.stampede_builds", 1.0)),
    ("db.stampede", count("db.stampede_failures", 0.0)),
    ("db.redis_acquire", ratio("db.redis_acquire", Op::AtMost, 2.0)),
    ("db.redis_crosstalk", count("db.redis_crosstalk", 0.0)),
    ("db.lean", Expected { goal: "db.lean", op: Op::AtMost, target: 0.4, rounds: 3 }),
];

/// Goals of load. A ratio to what is allowed, such as 1 MiB, is at most 1.
const LOAD: &[(&str, Expected)] = &[
    ("load.wrk", ratio("load.wrk", Op::AtMost, 1.0)),
    ("load.oha", ratio("load.oha", Op::AtMost, 0.65)),
    ("load.goose", ratio("load.goose", Op::AtMost, 0.5)),
    ("load.rlt", ratio("load.rlt", Op::AtMost, 0.5)),
    ("load.noop", ratio("load.noop", Op::AtMost, 1.6)),
    ("load.late", ratio("load.late_p50_1000", Op::AtMost, 1.0 / 8.0)),
    ("load.late", ratio("load.late_p99_1000", Op::AtMost, 1.0 / 8.0)),
    ("load.late", ratio("load.late_p50_5000", Op::AtMost, 1.0 / 8.0)),
    ("load.late", ratio("load.late_p99_5000", Op::AtMost, 1.0 / 8.0)),
    ("load.stall", count("load.stall_outside_3_percent", 0.0)),
    ("load.stopped", count("load.stopped_failures", 0.0)),
    ("load.memory", Expected { goal: "load.memory", op: Op::AtMost, target: 1.0, rounds: 1 }),
    ("load.quantile", Expected { goal: "load.quantile", op: Op::AtMost, target: 1.0, rounds: 1 }),
];

/// Goals of the WebSocket wire. What needs Autobahn's `wstest` or a Python with `websockets` says so where they cannot
/// be had.
const WS: &[(&str, Expected)] = &[
    ("ws.silence", ratio("ws.silence", Op::AtMost, 1.0 / 40.0)),
    ("ws.rate", ratio("ws.rate_tokio_websockets", Op::AtLeast, 0.9)),
    ("ws.rate", ratio("ws.rate_fastwebsockets", Op::AtLeast, 1.3)),
    ("ws.memory", Expected { goal: "ws.memory_of_5_kib", op: Op::AtMost, target: 1.0, rounds: 3 }),
    ("ws.memory", Expected { goal: "ws.memory_tungstenite", op: Op::AtMost, target: 1.0 / 25.0, rounds: 3 }),
    ("ws.fleet", ratio("ws.fleet_rate", Op::AtLeast, 0.8)),
    ("ws.fleet", ratio("ws.fleet_memory_of_80_mb", Op::AtMost, 1.0)),
    ("ws.fleet", count("ws.fleet_alarms", 0.0)),
    ("ws.fuzz", Expected { goal: "ws.fuzz_inputs", op: Op::AtLeast, target: 10_000_000.0, rounds: 1 }),
    ("ws.verdicts", count("ws.verdicts_that_differ", 0.0)),
    ("ws.verdicts", count("ws.verdicts_compared", 988.0)),
    ("ws.verdicts", Expected { goal: "ws.verdicts_time", op: Op::AtMost, target: 0.25, rounds: 4 }),
    ("ws.strict", count("ws.server_cases_strict", 247.0)),
    ("ws.client", count("ws.client_cases_strict", 247.0)),
];

/// Goals of plan rules, Pareto fronts and the judges of histories.
const PROPS: &[(&str, Expected)] = &[
    ("props.graph", ratio("props.graph", Op::AtMost, 0.25)),
    ("props.graph", Expected { goal: "props.graph_memory", op: Op::AtMost, target: 1.0, rounds: 1 }),
    ("props.graph", count("props.graph_deep_failures", 0.0)),
    ("props.uniform", ratio("props.uniform", Op::AtLeast, 10.0)),
    ("props.sphere", ratio("props.sphere", Op::AtLeast, 3.0)),
    ("props.history.speed", ratio("props.history.speed", Op::AtLeast, 1.0)),
    ("props.history.adya", ratio("props.history.adya", Op::AtLeast, 5.0)),
    ("props.history.memory", Expected { goal: "props.history.memory", op: Op::AtMost, target: 1.0, rounds: 1 }),
    ("props.history.register", ratio("props.history.register", Op::AtLeast, 10.0)),
    ("props.history.disagreements", count("props.history.disagreements", 0.0)),
];

/// Goals of the fault proxy. What is counted must not happen.
const FAULTS: &[(&str, Expected)] = &[
    ("faults.clean", ratio("faults.added_p50", Op::AtMost, 1.3)),
    ("faults.clean", ratio("faults.added_p50_noxious", Op::AtMost, 1.0)),
    ("faults.bulk", ratio("faults.bulk", Op::AtLeast, 0.8)),
    ("faults.bulk", ratio("faults.bulk_under_latency", Op::AtLeast, 0.5)),
    ("faults.bulk", ratio("faults.bulk_under_latency_noxious", Op::AtLeast, 50.0)),
    ("faults.delay", ratio("faults.delay_off_p99_of_2_ms", Op::AtMost, 1.0)),
    ("faults.timeouts", count("faults.connect_timeout_failures", 0.0)),
    ("faults.timeouts", Expected { goal: "faults.heal_of_1500_ms", op: Op::AtMost, target: 1.0, rounds: 1 }),
    ("faults.refusals", count("faults.refusal_failures", 0.0)),
    ("faults.replay", count("faults.replays_that_differ", 0.0)),
    ("faults.changes", count("faults.broken_streams", 0.0)),
];

/// What is measured, by which program, and the word that makes it measure.
struct Area {
    name: &'static str,
    goals: &'static [(&'static str, Expected)],
    driver: &'static str,
    word: &'static str,
    /// Packages beside the driver's.
    with: &'static [&'static str],
}

const AREAS: &[Area] = &[
    Area { name: "db", goals: DB, driver: "peers", word: "db", with: &[] },
    Area { name: "load", goals: LOAD, driver: "peers-load", word: "load", with: &["peers-frameworks"] },
    Area { name: "faults", goals: FAULTS, driver: "peers-faults", word: "faults", with: &[] },
    Area { name: "ws", goals: WS, driver: "peers-ws-wire", word: "ws", with: &[] },
    Area { name: "props", goals: PROPS, driver: "peers-props", word: "props", with: &[] },
];

/// Measures what is not there yet, judges everything, prints the table and writes `target/peers/<area>.json`.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    if arguments == ["servers"] {
        return servers::run();
    }
    let found = arguments.split_first().and_then(|(name, rest)| Some((AREAS.iter().find(|a| a.name == name)?, rest)));
    let Some((area, rest)) = found else {
        eprintln!(
            "usage: cargo xtask peers db|load|faults|ws|props [--quick] [--fresh] [--only GOAL]…, or peers servers"
        );
        return ExitCode::from(64);
    };
    let out = target().join("peers");
    let quick = rest.iter().any(|word| word == "--quick");
    let key = key(quick);
    let mut steps = Steps::default();
    if area.name == "db" {
        steps.run("migrations: 40, and 10 and 1,000 that end in the same tables", || match write_migrations(&out) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("xtask: could not write the migrations: {error}");
                false
            }
        });
    }
    steps.run("build: ours and the others, optimised", || match area.name {
        "db" => build(&out),
        _ => {
            let packages = [&[area.driver], area.with].concat();
            let packages: Vec<&str> = packages.iter().flat_map(|package| ["--package", *package]).collect();
            passes(&mut in_peers(&out, &[&["build", "--release"], &packages[..]].concat()))
        }
    });
    let mut driver = Command::new(target().join("peers-build/release").join(area.driver));
    driver.arg(area.word).arg("--out").arg(&out).args(["--key", &key]).args(rest).current_dir(root());
    // Without what is installed here the goals that need it say so, and the others are measured.
    let given = |option: &str| rest.iter().any(|word| word == option);
    if area.name == "props" && !given("--python") {
        steps.run("python: moocore in target/peers/python", || {
            pythons::environment("python", &["moocore==0.3.2", "numpy"]);
            true
        });
        driver.arg("--python").arg(out.join("python/bin/python"));
    }
    if area.name == "load" && !given("--oha") {
        let mut oha = None;
        steps.run("oha in target/peers/oha", || {
            oha = tools::oha();
            true
        });
        oha.into_iter().for_each(|oha| {
            driver.arg("--oha").arg(oha);
        });
    }
    if area.name == "ws" && !given("--python") {
        steps.run("python: websockets in target/peers/websockets", || {
            pythons::environment("websockets", &["websockets==17.4"]);
            true
        });
        driver.arg("--python").arg(out.join("websockets/bin/python"));
    }
    if area.name == "ws" && !given("--wstest") {
        let mut there = false;
        steps.run("python 2.7: Autobahn in target/peers/wstest", || {
            there = pythons::autobahn();
            true
        });
        if there {
            driver.arg("--wstest").arg(out.join("wstest/bin/wstest"));
        }
    }
    steps.run("measure: ours and the others by turns", || passes(&mut driver));
    let measured = !steps.failed();
    let figures: Vec<Value> = area.goals.iter().map(|(part, expected)| judged(&out, part, expected, &key)).collect();
    println!("\n{}", figure::head());
    for figure in &figures {
        println!("{}", figure::line(figure));
    }
    for figure in figures.iter().filter(|figure| figure["met"].is_null()) {
        println!(
            "no figure for {}: {}",
            figure["goal"].as_str().unwrap_or_default(),
            figure["why"].as_str().unwrap_or("")
        );
    }
    let results = json!({ "schema": 1, "machine": machine(), "quick": quick, "goals": figures });
    let path = out.join(format!("{}.json", area.name));
    let written = std::fs::write(&path, format!("{results:#}\n")).is_ok();
    println!("\nwritten: {}", path.display());
    steps.finish();
    // A quick run proves the machinery, no figure: there only what is MISSED would be news, and nothing is judged.
    let asked = |figure: &&Value| is_asked(rest, figure["goal"].as_str().unwrap_or_default());
    let all_met = figures.iter().filter(asked).all(|figure| figure["met"] == true);
    step::exit(measured && written && (quick || all_met))
}

fn is_asked(rest: &[String], goal: &str) -> bool {
    let mut only = rest.windows(2).filter(|pair| pair[0] == "--only").map(|pair| pair[1].as_str()).peekable();
    only.peek().is_none() || only.any(|prefix| goal.starts_with(prefix))
}

fn judged(out: &Path, part: &str, expected: &Expected, key: &str) -> Value {
    let text = std::fs::read_to_string(out.join("parts").join(format!("{part}.json"))).unwrap_or_default();
    let part: Value = serde_json::from_str(&text).unwrap_or_default();
    if part["key"] != key {
        return figure::judge(expected, None, "not measured with this code and these settings");
    }
    let missing = part["error"].as_str().unwrap_or("the part does not hold this goal");
    let raw = part["goals"].as_array().and_then(|goals| goals.iter().find(|goal| goal["goal"] == expected.goal));
    figure::judge(expected, raw, missing)
}

/// What has to be the same for an earlier run's rounds to count.
pub(crate) fn key(quick: bool) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(root()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    let mut hash = DefaultHasher::new();
    git(&["diff", "HEAD"]).hash(&mut hash);
    for name in ["HARNESS_PROVIDERS", "HARNESS_POSTGRES_URL", "HARNESS_REDIS_URL"] {
        std::env::var(name).unwrap_or_default().hash(&mut hash);
    }
    let commit: String = git(&["rev-parse", "HEAD"]).chars().take(12).collect();
    format!("{commit}-{:08x}{}", hash.finish() as u32, if quick { "-quick" } else { "" })
}

/// Builds the driver and the forty tests, and writes down where the tests are, so that no round pays for cargo.
fn build(out: &Path) -> bool {
    // All of the workspace each time: one set of features, so that no step builds a dependency again.
    let list = ["nextest", "list", "--release", "--workspace", "--list-type", "binaries-only"];
    let list = [&list[..], &["--message-format", "json"]].concat();
    passes(&mut in_peers(out, &["build", "--release", "--workspace", "--bins", "--tests"]))
        && written(&mut in_peers(out, &list), &out.join("binaries.json"))
        && written(&mut in_peers(out, &["metadata", "--format-version", "1"]), &out.join("cargo.json"))
}

/// Cargo in the workspace of the peers.
pub(crate) fn in_peers(out: &Path, arguments: &[&str]) -> Command {
    let mut command = cargo(arguments);
    command.current_dir(root().join("tests/peers")).env("CARGO_TARGET_DIR", target().join("peers-build"));
    command.env("PEERS_MIGRATIONS", out.join("migrations"));
    // Set by the cargo that runs this very program; build scripts that look at them would build again.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name.to_string_lossy().starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command and writes what it says to a file.
fn written(command: &mut Command, path: &Path) -> bool {
    match command.stderr(std::process::Stdio::inherit()).output() {
        Ok(output) if output.status.success() => std::fs::write(path, output.stdout).is_ok(),
        other => {
            eprintln!("xtask: {} was not made: {other:?}", path.display());
            false
        }
    }
}

/// The schema of all sides: 80 tables with 160 indexes. In 40 steps; and in 10 and in 1,000 steps, where the further steps
/// change the tables, so that only the number of steps differs.
fn write_migrations(out: &Path) -> std::io::Result<()> {
    let table = |n: usize| {
        format!(
            "create table t_{n:02} (\n  id bigint primary key,\n  name text not null,\n  note text,\n  made timestamptz \
             not null default now()\n);\ncreate index t_{n:02}_name on t_{n:02} (name);\n"
        )
    };
    for (name, steps) in [("migrations", 40), ("migrations-10", 10), ("migrations-1000", 80)] {
        let each = 80 / steps;
        let texts = (0..steps).map(|step| (0..each).map(|n| table(step * each + n + 1)).collect::<String>());
        let mut texts: Vec<String> = texts.collect();
        if name == "migrations-1000" {
            let columns = ["note", "name", "made"];
            texts.extend((0..920).map(|n| {
                format!("comment on column t_{:02}.{} is 'step {n}';\n", n % 80 + 1, columns[n % columns.len()])
            }));
        }
        write_dir(&out.join(name), &texts)?;
    }
    Ok(())
}

/// Writes numbered files, and leaves them alone where they are as they should be: a touched file is built again.
fn write_dir(dir: &Path, texts: &[String]) -> std::io::Result<()> {
    let files: Vec<(PathBuf, &String)> =
        texts.iter().enumerate().map(|(n, text)| (dir.join(format!("{:04}_step.sql", n + 1)), text)).collect();
    let is_there = files.iter().all(|(path, text)| std::fs::read_to_string(path).is_ok_and(|there| there == **text));
    let count = std::fs::read_dir(dir).map_or(0, Iterator::count);
    if is_there && count == files.len() {
        return Ok(());
    }
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir)?;
    files.iter().try_for_each(|(path, text)| std::fs::write(path, text))
}

/// What the figures were measured on.
pub(crate) fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let rustc = Command::new("rustc").arg("--version").output();
    json!({
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": read("/proc/meminfo").lines().next().unwrap_or_default(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").trim(),
        "rustc": rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default(),
    })
}
