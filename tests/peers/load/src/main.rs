//! Measures the load generator and its peers in turn, against one server, and writes the raw rounds.
//!
//! `peers-load child …` plays the server, the generator and whatever else has to be a process of its own.

mod child;
mod goals;

use std::process::ExitCode;

fn main() -> ExitCode {
    peers_common::drive("load", &["--oha"], child::play, |asked| asked.all(goals::ALL.iter().copied()))
}
