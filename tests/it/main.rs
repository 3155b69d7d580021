//! Tests that cross the crates, in one binary.

mod architecture;
mod cli;
mod leftovers;
mod messages;
mod readme;
