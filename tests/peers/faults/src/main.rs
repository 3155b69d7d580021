//! Measures the fault proxy and its peers in turn, in one process on loopback, and writes the raw rounds.
//!
//! `peers-faults faults --out DIR --key KEY [--quick] [--fresh] [--only GOAL]…` writes `DIR/parts/<goal>.json`, one file per
//! goal; a part with the same key is kept. Nothing is judged here: `cargo xtask peers faults` does.

mod alone;
mod clean;
mod goals;
#[path = "../../driver/src/part.rs"]
mod part;
mod relay;
mod wire;

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
        if self.quick { 2 } else { 7 }
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
                unknown => return Err(format!("`{unknown}` is no argument of peers-faults").into()),
            }
        }
        Ok(asked)
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let result = match words.next().as_deref() {
        Some("faults") => Asked::read(words).and_then(|asked| all(&asked)),
        _ => Err("usage: peers-faults faults --out DIR --key KEY [--quick] [--fresh] [--only GOAL]…".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers-faults: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every goal that is wanted and not there yet. One that cannot be measured does not stop the others.
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
    Ok(())
}
