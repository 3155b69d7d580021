//! Judges over what was done to a system and what it says afterwards.

mod ledger;

pub use ledger::{Ledger, LedgerVerdict, Recovered, checksum};
