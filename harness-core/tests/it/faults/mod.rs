//! Faults on purpose: what a client sees of each, and that it is over when it is healed.

#[cfg(feature = "containers")]
mod container;
mod many;
mod outage;
mod proxy;
mod world;
