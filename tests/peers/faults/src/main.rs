//! Measures the fault proxy and its peers in turn, in one process on loopback, and writes the raw rounds.

mod alone;
mod clean;
mod goals;
mod relay;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let no_child = |_: &[String]| Err("this driver has no children".into());
    peers_common::drive("faults", &[], no_child, |asked| asked.all(goals::ALL.iter().copied()))
}
