//! Runs a campaign several times and says how often each verdict came.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::merged::last_tries;
use super::progress::{clock, print};
use crate::error::CoreResult;
use crate::record::{Event, read_dir};
use crate::slo::codes;

/// What was counted over the repetitions.
#[derive(Debug, Default)]
pub(super) struct Tally {
    verdicts: BTreeMap<String, u64>,
    /// Words of each scenario's outcomes.
    scenarios: BTreeMap<String, BTreeMap<String, u64>>,
    took: Vec<Duration>,
    code: u8,
}

/// Runs `once` so often, each time with a directory of its own below `out`; returns the exit code of the worst.
pub(super) fn run(times: u32, out: &Path, mut once: impl FnMut(&Path) -> u8) -> u8 {
    let mut tally = Tally::default();
    for n in 1..=times {
        let dir = out.join(format!("repeat-{n:02}"));
        // Records of an earlier series would be counted as well.
        let _ = std::fs::remove_dir_all(&dir);
        print(&format!("repetition {n} of {times}: {}", dir.display()));
        let begun = Instant::now();
        let code = once(&dir);
        tally.add(&dir, code, begun.elapsed());
    }
    print(&format!("\n{tally}"));
    tally.code
}

impl Tally {
    fn add(&mut self, dir: &Path, code: u8, took: Duration) {
        self.code = worse(self.code, code);
        self.took.push(took);
        let verdict = self.read(dir).unwrap_or_else(|_| "no record".to_owned());
        *self.verdicts.entry(verdict).or_default() += 1;
    }

    /// Takes the outcomes of one run in and returns its verdict.
    fn read(&mut self, dir: &Path) -> CoreResult<String> {
        let records = read_dir(dir)?;
        for (id, finished) in last_tries(&records) {
            let words = self.scenarios.entry(id).or_default();
            *words.entry(finished.outcome.word().to_owned()).or_default() += 1;
        }
        let verdict = records.lines.iter().rev().find_map(|line| match &line.event {
            Event::Decided { verdict, .. } => Some(verdict.clone()),
            _ => None,
        });
        Ok(verdict.unwrap_or_else(|| "no decision".to_owned()))
    }
}

/// The graver of two exit codes: NO-GO, then what could not start, then CONDITIONAL.
fn worse(a: u8, b: u8) -> u8 {
    let rank = |code: u8| match code {
        codes::GO => 0,
        codes::CONDITIONAL => 1,
        codes::NOT_STARTED => 2,
        codes::NO_GO => 3,
        _ => 4,
    };
    if rank(b) > rank(a) { b } else { a }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let times = self.took.len() as u64;
        let shortest = self.took.iter().min().copied().unwrap_or_default();
        let longest = self.took.iter().max().copied().unwrap_or_default();
        write!(f, "{times} repetitions, {} to {} each", clock(shortest), clock(longest))?;
        for (verdict, count) in &self.verdicts {
            write!(f, "\n  {verdict:<12} {count} of {times} ({:.0} %)", *count as f64 * 100.0 / times.max(1) as f64)?;
        }
        let steady = |words: &BTreeMap<String, u64>| words.len() == 1 && words.get("pass") == Some(&times);
        for (id, words) in self.scenarios.iter().filter(|(_, words)| !steady(words)) {
            let words: Vec<_> = words.iter().map(|(word, count)| format!("{count} {word}")).collect();
            write!(f, "\n  {id:<12} {}", words.join(", "))?;
        }
        let steady = self.scenarios.values().filter(|words| steady(words)).count();
        write!(f, "\n  {steady} of {} scenarios passed each time", self.scenarios.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Tally, worse};
    use crate::slo::codes;

    #[test]
    fn graver_code_wins_in_either_order() {
        for (a, b, graver) in [
            (codes::GO, codes::CONDITIONAL, codes::CONDITIONAL),
            (codes::CONDITIONAL, codes::NO_GO, codes::NO_GO),
            (codes::NO_GO, codes::NOT_STARTED, codes::NO_GO),
            (codes::CONDITIONAL, codes::NOT_STARTED, codes::NOT_STARTED),
        ] {
            assert_eq!((worse(a, b), worse(b, a)), (graver, graver));
        }
    }

    #[test]
    fn directory_without_a_record_is_counted_as_such() {
        let mut tally = Tally::default();
        tally.add(std::path::Path::new("/nowhere/at/all"), codes::NOT_STARTED, std::time::Duration::from_secs(1));
        let text = tally.to_string();
        assert!(text.contains("no record") && text.contains("1 of 1 (100 %)"), "{text}");
    }
}
