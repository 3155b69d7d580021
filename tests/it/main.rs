//! Tests that cross the crates, in one binary.

mod architecture;
mod leftovers;
mod messages;
mod readme;
