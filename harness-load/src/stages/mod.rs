//! Where does the time go, what kind of time is it, and do the things that should run at once do so?
//!
//! ```
//! use harness_load::stages::Stages;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let stages = Stages::new();
//! let request = stages.begin("request");
//! let found = request.stage("match").run(async { 42 }).await; // busy while polled, waiting in between
//! let execute = request.stage("execute"); // queued from here …
//! tokio::task::yield_now().await; // … say, for a permit …
//! execute.run(async { found + 1 }).await; // … until here
//! drop(request);
//! println!("{}", stages.attribution()?); // stages ranked by their own time, with what to do about the first
//! # harness_core::Result::Ok(())
//! # }).unwrap();
//! ```
//!
//! Spans of a service that measures itself are judged the same way: [`Reported`] reads `Server-Timing` of its answers,
//! and [`Attribution::of`] takes any [`Span`]s.
//!
//! What it does not do: it sees what a future does on the threads that poll it. Work handed to other threads or
//! processes counts as waiting, unless their spans are given, too.

mod attribute;
mod overlap;
mod record;
mod reported;
mod span;
#[cfg(test)]
mod tests;

pub use attribute::{Advice, Attribution, Class, Row};
pub use overlap::Overlap;
pub use record::{Open, Stage, Stages};
pub use reported::Reported;
pub use span::Span;
