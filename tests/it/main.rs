//! Tests that cross the crates, in one binary.

mod architecture;
mod cli;
mod lean;
mod leftovers;
mod messages;
mod readme;
mod sources;
mod sql_load;
