//! What every test of a service needs.

pub mod campaign;
pub mod client;
pub mod env;
pub mod error;
pub mod keeper;
pub mod record;
#[cfg(feature = "report")]
pub mod report;
pub mod run;
pub mod scope;
pub mod service;
pub mod slo;
#[cfg(feature = "http")]
pub mod stub;
pub mod wait;

pub use error::{CoreResult, Error, ErrorKind, Failure, Result};
pub use harness_props::Outcome;
