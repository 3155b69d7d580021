//! Measures plan rules, Pareto fronts and judges of histories beside others in turn, and writes the raw rounds.
//!
//! `--python PATH` names a Python with `moocore` and `numpy`; without it what needs them is said to be missing. `peers-props
//! child COUNT` checks one large history in a process of its own, so that its memory can be read.

mod fronts;
mod graphs;
mod history;
#[allow(dead_code, reason = "shared with the tests of the crate, which use all of it")]
#[path = "../../../../harness-props/tests/it/simulated.rs"]
mod simulated;

use std::process::ExitCode;
use std::time::Instant;

use peers_common::Measure;

/// Every goal, by name.
const ALL: &[(&str, Measure)] = &[
    ("props.graph", graphs::against_petgraph),
    ("props.uniform", fronts::uniform),
    ("props.sphere", fronts::sphere),
    ("props.history.speed", history::speed),
    ("props.history.adya", history::against_adya),
    ("props.history.memory", history::memory),
    ("props.history.register", history::against_porcupine),
    ("props.history.disagreements", history::disagreements),
];

fn main() -> ExitCode {
    peers_common::drive("props", &["--python"], history::child, |asked| asked.all(ALL.iter().copied()))
}

/// Seconds that some work took, and what it made.
pub(crate) fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begun = Instant::now();
    let output = work();
    (begun.elapsed().as_secs_f64(), output)
}
