//! The databases of the harness, on real servers.

mod acl;
mod blocking;
mod census;
mod child;
mod clones;
mod coherence;
mod connections;
mod crosstalk;
mod diagnoses;
mod exclusive;
mod failing;
mod failover;
#[cfg(feature = "fault")]
mod faults;
mod figure;
mod first;
mod frames;
mod fulldisk;
mod guests;
mod isolation;
mod keyspaces;
mod latencies;
mod locks;
mod migrations;
mod own;
mod partial;
mod plans;
mod pools;
mod probes;
mod processes;
mod redis_checks;
mod redis_own_checks;
#[cfg(feature = "tls")]
mod redis_tls;
mod replica;
mod restore;
mod retries;
mod rows;
mod schema;
mod sessions;
mod statements;
mod templates;
mod testtx;
#[cfg(feature = "tls")]
mod tls;
mod topology;
#[cfg(feature = "tls")]
mod topology_access;
mod vectors;

/// How often a test that counts rounds does its work: as said here in the normal run, and as `cargo xtask soak` says in the
/// long one.
fn rounds(usual: u32) -> u32 {
    std::env::var("HARNESS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
