//! What every test of a service needs.

pub mod env;
pub mod error;
pub mod record;
pub mod run;
pub mod scope;
pub mod wait;

pub use error::{CoreResult, Error, ErrorKind, Failure, Result};
pub use harness_props::Outcome;
