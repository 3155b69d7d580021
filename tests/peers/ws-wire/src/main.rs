//! Measures the WebSocket clients and the conformance cases beside their peers, and writes the raw rounds.
//!
//! `--wstest PATH` and `--python PATH` name an Autobahn `wstest` and a Python with `websockets`; without them what needs them
//! is said to be missing. `child …` plays a server.

mod child;
mod goals;
mod rates;
mod verdicts;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = ["--wstest", "--python"];
    peers_common::drive("ws", &options, child::play, |asked| asked.all(goals::ALL.iter().copied()))
}
