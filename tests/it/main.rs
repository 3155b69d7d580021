//! Tests that cross the crates, in one binary.

mod architecture;
mod cli;
mod gates;
mod lean;
mod leftovers;
mod messages;
mod readme;
mod sources;
mod sql_load;
