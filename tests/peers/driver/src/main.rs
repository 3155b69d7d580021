//! Measures databases of this house and of its peers in turn, against the server this house starts, and writes the raw rounds.
//!
//! `peers child …` plays one short-lived test process.

mod bare;
mod child;
mod goals;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use peers_common::{Asked, Result};

/// A goal that hangs ends as a goal that could not be measured.
const GOAL_LIMIT: Duration = Duration::from_secs(45 * 60);

fn main() -> ExitCode {
    peers_common::drive("db", &[], child::run, all)
}

fn all(asked: &Asked) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    asked.all(goals::ALL.iter().map(|goal| {
        let measure = |asked: &Asked| {
            runtime.block_on(async {
                match tokio::time::timeout(GOAL_LIMIT, (goal.measure)(asked)).await {
                    Ok(measured) => measured,
                    Err(_) => Err(format!("took longer than {} s", GOAL_LIMIT.as_secs()).into()),
                }
            })
        };
        (goal.name, measure)
    }))
}

/// Generated migrations of this name.
pub(crate) fn migrations(asked: &Asked, name: &str) -> &'static str {
    Box::leak(asked.out.join(name).display().to_string().into_boxed_str())
}
