//! The campaign of the pattern service: phases, scenarios, release matrix, decision.
//!
//! `cargo xtask campaign` runs it to a decision and a report; `cargo test -p pattern-service --test campaign` and
//! nextest run the same scenarios without one. The environment of a scenario is built in `world.rs`.

mod benchmark;
mod cache;
mod concurrency;
mod counters;
mod database;
mod env;
mod failover;
mod instance;
mod links;
mod migration;
mod once;
mod overload;
mod pace;
mod phases;
mod preflight;
mod protocol;
mod recovery;
mod release;
mod resilience;
mod security;
mod traffic;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use crate::world::World;

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn main() -> ExitCode {
    let campaign = release::campaign().package("pattern-service");
    let campaign = pace::profiles().into_iter().fold(campaign, |campaign, profile| campaign.profile(profile));
    match env::guard() {
        Some(guard) => campaign.guard(guard),
        None => campaign,
    }
    .expects_scenarios(47)
    .environment(World::start)
    .teardown(World::stop)
    .preflight(preflight::tools())
    .preflight_of(preflight::parts)
    .phase("concurrency", minutes(15), phases::concurrency)
    .phase("websocket", minutes(10), phases::websocket)
    .phase("database", minutes(20), phases::database)
    .phase("benchmark", minutes(30), phases::benchmark)
    .phase("recovery", minutes(15), phases::recovery)
    .on_pause("logs", World::last_logs)
    .on_pause("sessions", World::busy_sessions)
    .main()
}
