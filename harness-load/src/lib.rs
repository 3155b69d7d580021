//! Load with honest numbers.
//!
//! ```
//! use harness_core::slo::percent;
//! use harness_load::{ANY, Iteration, Load, millis, p95, per_second, success_rate};
//!
//! async fn browse(iteration: Iteration) -> Result<(), std::io::Error> {
//!     iteration.step("list", async { Ok(()) }).await // a request to your service
//! }
//!
//! # async fn test() -> harness_load::Result {
//! let run = Load::open(per_second(500))
//!     .warm_up(millis(50))
//!     .hold(millis(250))
//!     .flow("browse", 8, browse)
//!     .flow("buy", 2, async |_| Ok::<(), std::io::Error>(()))
//!     .run()
//!     .await?;
//! assert_eq!(run.cell("hold", "browse").map(|cell| cell.ended()), Some(100));
//! println!("{run}");
//! # let gates = [
//! #     p95(ANY).below(millis(25_000)), // wide: this page is also compiled and run on busy machines
//! #     success_rate().at_least(percent(95)),
//! # ];
//! # if false {
//! run.check([p95(ANY).below(millis(250)).critical(millis(500)), success_rate().at_least(percent(95))])?;
//! # }
//! # run.check(gates)?;
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test()).unwrap();
//! ```
//!
//! What makes the numbers honest:
//!
//! - **Open loop.** Arrivals are planned beforehand ([`arrival`]); a slow system does not slow them down.
//! - **From the intended start.** A response counts from when its iteration was *due*. A server that stalls for 200 ms
//!   is seen by everybody who was due in those 200 ms, not by the one request that was under way.
//! - **Everything due is accounted for.** Each slot ends as exactly one of ok, error, timeout, dropped or unfinished;
//!   each run adds the columns up against a count made apart from it.
//! - **The generator is measured too.** How late it was, whether it took up what was due, how much processor time it
//!   had. When it could have been the limit, [`LoadRun::check`] says `invalid:` instead of blaming the system.
//! - **No samples, no pass.** A gate without evidence is an error, and a percentile needs five samples beyond it.
//!
//! Phases are first-class: [`Load::warm_up`] (or [until steady](Load::warm_up_until_steady)), [`Load::ramp`],
//! [`Load::hold`], [`Load::steps`], [`Load::spike`], [`Load::soak`], [`Load::replay`] and [`Load::cool_down`]; gates bind
//! to those that are measured. [`Load::closed`] is the other model, users who come back. [`target`] holds ready-made
//! users with a connection of their own for HTTP/1.1, WebSocket and Redis, and the trait for any other.
//!
//! What it does *not* do: it keeps 65,536 exact durations of a kind, then three digits; and it drives one core's worth of
//! load, not a farm. Iterations are polled one after the other on the thread that runs the load, so a flow that computes
//! for long should hand its work to `tokio::spawn`, or the generator will say that it was the limit.
//!
//! A current-thread runtime, which `#[tokio::test]` makes, is one core for the load *and* for whatever else runs on it.
//! Run the system under test as a process of its own.
//!
//! # Speed needs optimised code
//!
//! Where this crate is built at opt-level 0, gates on times and rates are skipped, which is no evidence and never a pass.
//! A consumer's workspace gets figures from plain `cargo test` with
//!
//! ```toml
//! [profile.dev.package.harness-load]
//! opt-level = 2
//! ```

pub mod arrival;
pub mod baseline;
pub mod breakpoint;
pub mod burst;
pub mod compare;
pub mod generator;
pub mod stages;
pub mod target;
pub mod tokens;

mod coarse;
mod engine;
mod evidence;
mod gate;
mod load;
mod preflight;
mod run;
mod series;
mod table;
mod times;
mod units;
mod watch;

pub use baseline::baseline;
pub use burst::Burst;
pub use compare::compare;
pub use engine::{Cell, End, Iteration};
pub use gate::{
    ANY, Bound, Gate, achieved_rate, dropped, errors, mean, p50, p95, p99, percentile, reduction, resource,
    success_rate, throughput, timeouts, unfinished,
};
pub use harness_core::error::{CoreResult, Error, ErrorKind, Result};
pub use harness_core::run::Seed;
pub use harness_core::slo::{Measured, Percent, percent};
pub use load::{HOLD, Load, Marks, Saturation, Think, WARM_UP};
pub use run::{Judged, LoadRun, Row};
pub use times::{Span, Times};
pub use units::{Rate, millis, per_second, secs};
