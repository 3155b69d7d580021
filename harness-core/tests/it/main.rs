//! Tests of this crate that need processes of their own, in one binary.

mod act;
mod census;
#[cfg(feature = "containers")]
mod container;
#[cfg(feature = "fault")]
mod faults;
mod keeper;
mod scope;
mod service;
mod world;
