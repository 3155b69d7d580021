//! Histories: what clients asked and were told, in one order, legal by construction, and as text.

mod edn;
mod history;
pub(crate) mod key;
mod recorder;
#[cfg(test)]
mod tests;
mod text;

pub use history::{End, History, HistoryError, Kind, Moment, Operation};
pub use key::Key;
pub(crate) use key::KeyHash;
pub use recorder::{Pending, Process, Recorder};
