//! How much can it take, why not more, and what happens beyond it?
//!
//! [`Search`] doubles the rate until the system breaks, bisects, and confirms both ends twice. It believes no probe that
//! contradicts its own numbers, and when the generator was the limit it says "at least", never "equals".
//! [`Usl`] fits Gunther's law of scaling to what was seen; [`Overload`] judges what is left of the goodput beyond the
//! capacity, how the rest was turned away, and how soon a spike is forgotten.
//!
//! A probe is a closure, so the same search runs on a load ([`LoadRun::observed`](crate::LoadRun::observed)), on a
//! recording, or on a model in a test:
//!
//! ```
//! use harness_load::breakpoint::Search;
//! use harness_load::{ANY, Load, millis, p95, per_second, secs};
//!
//! # async fn call(_: harness_load::Iteration) -> Result<(), String> { Ok(()) }
//! # async fn example() -> harness_load::Result {
//! let found = Search::from(per_second(50)).up_to(per_second(800)).run(async |rate| {
//!     let run = Load::open(rate).warm_up(secs(1)).hold(secs(3)).flow("call", 1, call).run().await?;
//!     run.observed([p95(ANY).below(millis(250))])
//! }).await?;
//! println!("{found}");
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(example()).unwrap();
//! ```
//!
//! [`LoadRun::overload`](crate::LoadRun::overload) and [`LoadRun::recovery`](crate::LoadRun::recovery) read the other two from a
//! run that has a phase beyond the capacity.

mod overload;
mod probe;
mod search;
#[cfg(test)]
mod tests;
mod usl;

pub use overload::{Overload, Recovery, Spike, recovery};
pub use probe::{Observed, Said};
pub use search::{Breakpoint, Capacity, Probe, Search, Why};
pub use usl::{Usl, knee};
