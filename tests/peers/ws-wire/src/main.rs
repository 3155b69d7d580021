//! Measures the WebSocket clients and the conformance cases beside their peers, and writes the raw rounds and the judged table.
//!
//! `peers-ws-wire ws --out DIR --key KEY [--quick] [--fresh] [--only GOAL]…` writes `DIR/parts/<goal>.json`, one file per
//! goal, and `DIR/ws-wire.json`, judged by the arithmetic of xtask. `--wstest PATH` and `--python PATH` name an Autobahn
//! `wstest` and a Python with `websockets`; without them what needs them is said to be missing. `child …` plays a server.

mod child;
#[path = "../../../../xtask/src/figure.rs"]
mod figure;
mod goals;
#[path = "../../driver/src/part.rs"]
mod part;
mod rates;
mod verdicts;

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

/// What goes wrong in a measurement, in its own words.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
/// A measurement or why there is none.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

/// How this run was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// `target/peers`.
    pub(crate) out: PathBuf,
    /// What was measured: parts with another key are measured again.
    pub(crate) key: String,
    /// Few rounds: shows that the machinery works, proves no figure.
    pub(crate) quick: bool,
    /// Autobahn's `wstest`.
    pub(crate) wstest: Option<PathBuf>,
    /// A Python that has `websockets`.
    pub(crate) python: Option<PathBuf>,
    fresh: bool,
    only: Vec<String>,
}

impl Asked {
    /// Rounds of an interleaved measurement.
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 2 } else { 5 }
    }

    /// `full`, or `quick` in a quick run.
    pub(crate) fn times<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    fn read(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut asked = Self::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
            match word.as_str() {
                "--out" => asked.out = PathBuf::from(value()?),
                "--key" => asked.key = value()?,
                "--only" => asked.only.push(value()?),
                "--wstest" => asked.wstest = Some(PathBuf::from(value()?)),
                "--python" => asked.python = Some(PathBuf::from(value()?)),
                "--quick" => asked.quick = true,
                "--fresh" => asked.fresh = true,
                unknown => return Err(format!("`{unknown}` is no argument of peers-ws-wire").into()),
            }
        }
        Ok(asked)
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let result = match words.next().as_deref() {
        Some("child") => child::play(&words.collect::<Vec<_>>()),
        Some("ws") => Asked::read(words).and_then(|asked| all(&asked)),
        _ => Err("usage: peers-ws-wire ws --out DIR --key KEY [--quick] [--fresh] [--only GOAL]…".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers-ws-wire: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every goal that is wanted and not there yet, then the table.
fn all(asked: &Asked) -> Result {
    for (name, measure) in goals::ALL {
        let is_wanted = asked.only.is_empty() || asked.only.iter().any(|prefix| name.starts_with(prefix.as_str()));
        if !is_wanted {
            continue;
        }
        if !asked.fresh && part::is_there(asked, name) {
            println!("{name:<24} kept from an earlier run");
            continue;
        }
        println!("{name:<24} measuring …");
        let begun = std::time::Instant::now();
        let measured = measure(asked);
        match &measured {
            Ok(_) => println!("{name:<24} done in {:.0} s", begun.elapsed().as_secs_f64()),
            Err(error) => println!("{name:<24} could not be measured: {error}"),
        }
        part::write(asked, name, measured)?;
    }
    let figures: Vec<Value> = goals::EXPECTED.iter().map(|(part, expected)| judged(asked, part, expected)).collect();
    println!("\n{}", figure::head());
    for figure in &figures {
        println!("{}", figure::line(figure));
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let machine = json!({ "cpus": std::thread::available_parallelism().map_or(0, usize::from), "load": load.trim() });
    let table = json!({ "schema": 1, "machine": machine, "quick": asked.quick, "goals": figures });
    Ok(std::fs::write(asked.out.join("ws-wire.json"), format!("{table:#}\n"))?)
}

fn judged(asked: &Asked, part: &str, expected: &figure::Expected) -> Value {
    let text = std::fs::read_to_string(asked.out.join("parts").join(format!("{part}.json"))).unwrap_or_default();
    let part: Value = serde_json::from_str(&text).unwrap_or_default();
    if part["key"] != asked.key.as_str() {
        return figure::judge(expected, None, "not measured with this code and these settings");
    }
    let missing = part["error"].as_str().unwrap_or("the part does not hold this goal");
    let raw = part["goals"].as_array().and_then(|goals| goals.iter().find(|goal| goal["goal"] == expected.goal));
    figure::judge(expected, raw, missing)
}
