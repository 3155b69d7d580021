//! Measures the judges of histories and other checkers in turn, and writes the raw rounds.
//!
//! `peers-props-history props-history --out DIR --key KEY [--quick] [--fresh] [--only GOAL]…` writes `DIR/parts/<goal>.json`,
//! one file per goal; a part with the same key is kept. Nothing is judged here. `peers-props-history child …` checks one
//! large history in a process of its own, so that its memory can be read.

mod goals;
#[path = "../../driver/src/part.rs"]
mod part;
#[allow(dead_code, reason = "shared with the tests of the crate, which use all of it")]
#[path = "../../../../harness-props/tests/it/simulated.rs"]
mod simulated;

use std::path::PathBuf;
use std::process::ExitCode;

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
                "--quick" => asked.quick = true,
                "--fresh" => asked.fresh = true,
                unknown => return Err(format!("`{unknown}` is no argument of peers-props-history").into()),
            }
        }
        Ok(asked)
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let result =
        match words.next().as_deref() {
            Some("child") => goals::child(words.next().and_then(|count| count.parse().ok()).unwrap_or(1_000_000)),
            Some("props-history") => Asked::read(words).and_then(|asked| all(&asked)),
            _ => Err("usage: peers-props-history props-history --out DIR --key KEY [--quick] [--fresh] [--only GOAL]…"
                .into()),
        };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers-props-history: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every goal that is wanted and not there yet. One that cannot be measured does not stop the others.
fn all(asked: &Asked) -> Result {
    for (name, measure) in goals::ALL {
        if !asked.only.is_empty() && !asked.only.iter().any(|prefix| name.starts_with(prefix.as_str())) {
            continue;
        }
        if !asked.fresh && part::is_there(asked, name) {
            println!("{name:<28} kept from an earlier run");
            continue;
        }
        println!("{name:<28} measuring …");
        let begun = std::time::Instant::now();
        let measured = measure(asked);
        match &measured {
            Ok(_) => println!("{name:<28} done in {:.0} s", begun.elapsed().as_secs_f64()),
            Err(error) => println!("{name:<28} could not be measured: {error}"),
        }
        part::write(asked, name, measured)?;
    }
    Ok(())
}
