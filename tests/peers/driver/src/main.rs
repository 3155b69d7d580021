//! Measures this house and its peers in turn, against the server this house starts, and writes the raw rounds.
//!
//! `peers db --out DIR --key KEY [--quick] [--fresh] [--only GOAL]…` writes `DIR/parts/<goal>.json`, one file per goal as it
//! is done; a part with the same key is kept. Nothing is judged here: `cargo xtask peers` reads the parts, judges them and
//! writes the table. `peers child …` plays one short-lived test process.

mod bare;
mod child;
mod goals;
mod part;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What goes wrong in a measurement, in its own words.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
/// A measurement or why there is none.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

/// A goal that hangs ends as a goal that could not be measured.
const GOAL_LIMIT: Duration = Duration::from_secs(45 * 60);

/// How this run was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// `target/peers`.
    pub(crate) out: PathBuf,
    /// What was measured: parts with another key are measured again.
    pub(crate) key: String,
    /// Few rounds: shows that the machinery works, proves no figure.
    pub(crate) quick: bool,
    /// Measures again what is there.
    pub(crate) fresh: bool,
    /// Prefixes of goals; all when empty.
    pub(crate) only: Vec<String>,
}

impl Asked {
    /// Rounds of an interleaved measurement: five is the least a figure is judged by.
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 2 } else { 5 }
    }

    /// `full`, or `quick` in a quick run.
    pub(crate) fn times(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Generated migrations of this name.
    pub(crate) fn migrations(&self, name: &str) -> &'static str {
        Box::leak(self.out.join(name).display().to_string().into_boxed_str())
    }

    fn read(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut asked = Self::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
            match word.as_str() {
                "--out" => asked.out = PathBuf::from(value()?),
                "--key" => asked.key = value()?,
                "--only" => asked.only.push(value()?),
                "--quick" => asked.quick = true,
                "--fresh" => asked.fresh = true,
                unknown => return Err(format!("`{unknown}` is no argument of peers").into()),
            }
        }
        Ok(asked)
    }

    fn wants(&self, goal: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|prefix| goal.starts_with(prefix.as_str()))
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let result = match words.next().as_deref() {
        Some("child") => child::run(&words.collect::<Vec<_>>()),
        Some("db") => Asked::read(words).and_then(|asked| all(&asked)),
        _ => Err("usage: peers db --out DIR --key KEY [--quick] [--fresh] [--only GOAL]…".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Every goal that is wanted and not there yet. One that cannot be measured does not stop the others.
fn all(asked: &Asked) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for goal in goals::ALL.iter().filter(|goal| asked.wants(goal.name)) {
        if !asked.fresh && part::is_there(asked, goal.name) {
            println!("{:<24} kept from an earlier run", goal.name);
            continue;
        }
        println!("{:<24} measuring …", goal.name);
        let begun = std::time::Instant::now();
        let measured = runtime.block_on(async {
            match tokio::time::timeout(GOAL_LIMIT, (goal.measure)(asked)).await {
                Ok(measured) => measured,
                Err(_) => Err(format!("took longer than {} s", GOAL_LIMIT.as_secs()).into()),
            }
        });
        match &measured {
            Ok(_) => println!("{:<24} done in {:.0} s", goal.name, begun.elapsed().as_secs_f64()),
            Err(error) => println!("{:<24} could not be measured: {error}", goal.name),
        }
        part::write(asked, goal.name, measured)?;
    }
    Ok(())
}
