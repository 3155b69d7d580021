//! What every driver has: its arguments, the loop over its goals, and the file that holds the raw rounds of a goal.
//!
//! `DRIVER WORD --out DIR --key KEY [--quick] [--fresh] [--only GOAL]…` writes `DIR/parts/<goal>.json`, one file per goal as it
//! is done; a part with the same key is kept. Nothing is judged here: `cargo xtask peers` reads the parts, judges them and
//! writes the table. `DRIVER child …` plays whatever has to be a process of its own.

mod part;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

pub use part::Measured;

/// What goes wrong in a measurement, in its own words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// A measurement or why there is none.
pub type Result<T = ()> = std::result::Result<T, Failure>;
/// Measures one goal.
pub type Measure = fn(&Asked) -> Result<Vec<Measured>>;

/// How this run was asked for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `target/peers`.
    pub out: PathBuf,
    /// What was measured: parts with another key are measured again.
    pub key: String,
    /// Few rounds: shows that the machinery works, proves no figure.
    pub quick: bool,
    fresh: bool,
    only: Vec<String>,
    paths: BTreeMap<String, PathBuf>,
}

impl Asked {
    /// Rounds of an interleaved measurement: five is the least a figure is judged by.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.times(5, 2)
    }

    /// `full`, or `quick` in a quick run.
    #[must_use]
    pub fn times<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The path given for an option of this driver, such as `--python`.
    #[must_use]
    pub fn path(&self, option: &str) -> Option<&Path> {
        self.paths.get(option).map(PathBuf::as_path)
    }

    fn read(mut words: impl Iterator<Item = String>, options: &[&str]) -> Result<Self> {
        let mut asked = Self::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
            match word.as_str() {
                "--out" => asked.out = PathBuf::from(value()?),
                "--key" => asked.key = value()?,
                "--only" => asked.only.push(value()?),
                "--quick" => asked.quick = true,
                "--fresh" => asked.fresh = true,
                option if options.contains(&option) => {
                    let path = PathBuf::from(value()?);
                    asked.paths.insert(word, path);
                }
                unknown => return Err(format!("`{unknown}` is no argument here").into()),
            }
        }
        Ok(asked)
    }

    fn wants(&self, goal: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|prefix| goal.starts_with(prefix.as_str()))
    }

    /// Every goal that is wanted and not there yet. One that cannot be measured does not stop the others.
    ///
    /// # Errors
    /// When a part cannot be written.
    pub fn all<M>(&self, goals: impl IntoIterator<Item = (&'static str, M)>) -> Result
    where
        M: FnOnce(&Self) -> Result<Vec<Measured>>,
    {
        for (name, measure) in goals.into_iter().filter(|(name, _)| self.wants(name)) {
            if !self.fresh && part::is_there(self, name) {
                println!("{name:<28} kept from an earlier run");
                continue;
            }
            println!("{name:<28} measuring …");
            let begun = Instant::now();
            let measured = measure(self);
            match &measured {
                Ok(_) => println!("{name:<28} done in {:.0} s", begun.elapsed().as_secs_f64()),
                Err(error) => println!("{name:<28} could not be measured: {error}"),
            }
            part::write(self, name, measured)?;
        }
        Ok(())
    }
}

/// Plays a driver: `word` measures with `all`, `child` plays a part of a measurement. `options` take a path each.
pub fn drive(
    word: &str,
    options: &[&str],
    child: impl FnOnce(&[String]) -> Result,
    all: impl FnOnce(&Asked) -> Result,
) -> ExitCode {
    let mut words = std::env::args().skip(1);
    let result = match words.next() {
        Some(first) if first == "child" => child(&words.collect::<Vec<_>>()),
        Some(first) if first == word => Asked::read(words, options).and_then(|asked| all(&asked)),
        _ => {
            Err(format!("the first argument is `{word}`, then --out DIR --key KEY [--quick] [--fresh] [--only GOAL]…")
                .into())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
