//! The verbs of the binary `harness`, as functions that write to a given output, so that tests and automation can
//! call them.

pub mod diagnose;
pub mod doctor;
pub mod env;
pub mod flush;
pub mod provision;
pub mod report;
pub mod restart;
pub mod sweep;
pub mod talk;

/// Exit codes of the binary, as a campaign has them.
pub mod exit {
    /// Done, nothing to complain about.
    pub const OK: u8 = 0;
    /// Done, and something is wrong: leftovers found, a report that says NO-GO.
    pub const FAILED: u8 = 1;
    /// Nothing could start.
    pub const UNAVAILABLE: u8 = 3;
    /// The command line could not be understood (`EX_USAGE` of sysexits).
    pub const USAGE: u8 = 64;
}
