//! What runs use over time, in constant memory, and whether it leaks.
//!
//! A [`Monitor`] asks its [`Sampler`]s again and again and keeps a [`Series`] per name. What could not be read is a gap,
//! never a zero, and a series full of gaps judges nothing. A ceiling is a [`Threshold`](crate::slo::Threshold) on
//! [`Watched::peak`]; [`LeakRule`] tells a leak from a warm-up, [`drift`] the end of a run from its beginning, and
//! [`returned_to_floor`] whether everything was given back.
//!
//! Ready-made: [`ProcessSampler`] for any process, [`CgroupSampler`] for a container, [`HostSampler`] for the whole machine, [`tasks`] for a
//! tokio runtime, [`external`] for what a closure can ask for, such as the backends of a Postgres or the memory of a Redis.
//! [`LogFigures`] reads figures out of a log.
//!
//! What it does not do: it does not read memory that an allocator keeps but nobody uses; RSS counts it, and a leak of
//! less than [`LeakRule::floor`] per run is not one. Longer runs see smaller leaks.

pub(crate) mod cgroup;
mod host;
mod leak;
mod log;
mod process;
mod series;
#[cfg(test)]
mod tests;
pub mod trend;
mod watch;

use std::future::Future;
use std::pin::Pin;

use crate::error::{CoreResult, Error};
use crate::slo::Unit;

pub use cgroup::CgroupSampler;
pub use host::HostSampler;
pub use leak::{Leak, LeakRule, drift, returned_to_floor};
pub use log::{LogFigures, LogFound};
pub use process::ProcessSampler;
pub use series::Series;
pub use watch::{Gap, Latest, Monitor, Monitoring, Watched};

/// One value of one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What it is called; series are kept by name.
    pub name: String,
    /// What it is a number of.
    pub unit: Unit,
    /// The value in the canonical form of its unit: bytes, nanoseconds, per second, hundredths, or a count.
    pub value: f64,
}

/// What a sampler returns: readings, or why there are none.
pub type Sampled<'a> = Pin<Box<dyn Future<Output = CoreResult<Vec<Reading>>> + Send + 'a>>;

/// Something that can be read again and again.
pub trait Sampler: Send {
    /// Who it is, for the report of gaps.
    fn name(&self) -> &str;

    /// Reads it once. An error is a gap in every series it feeds.
    fn sample(&mut self) -> Sampled<'_>;
}

/// Reads on a thread for blocking work: a process with many descriptors takes a millisecond to read, which a load on the
/// same runtime would feel.
async fn off_the_runtime<S: Clone + Send + 'static>(
    sampler: &mut S,
    read: impl FnOnce(&mut S) -> CoreResult<Vec<Reading>> + Send + 'static,
) -> CoreResult<Vec<Reading>> {
    let mut reader = sampler.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let readings = read(&mut reader);
        (reader, readings)
    });
    let (reader, readings) = reading
        .await
        .map_err(|error| Error::new(crate::ErrorKind::Io, "the reader of a sampler ended").caused_by(error))?;
    *sampler = reader;
    readings
}

/// A file of the kernel, whole.
fn text(path: impl AsRef<std::path::Path>) -> CoreResult<String> {
    let path = path.as_ref();
    std::fs::read_to_string(path).map_err(|error| {
        Error::new(crate::ErrorKind::Io, format!("{} cannot be read", path.display())).caused_by(error)
    })
}

/// A series from a closure: what it returns is in the canonical form of the unit.
///
/// ```
/// # use harness_core::{monitor::{Monitor, external}, slo::Unit};
/// # async fn used_memory() -> Result<f64, std::io::Error> { Ok(1e6) }
/// let monitor = Monitor::new().watch(external("redis memory", Unit::Bytes, used_memory));
/// ```
pub fn external<F, A, E>(name: &str, unit: Unit, read: F) -> impl Sampler + use<F, A, E>
where
    F: FnMut() -> A + Send,
    A: Future<Output = Result<f64, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    External { name: name.to_owned(), unit, read }
}

struct External<F> {
    name: String,
    unit: Unit,
    read: F,
}

impl<F, A, E> Sampler for External<F>
where
    F: FnMut() -> A + Send,
    A: Future<Output = Result<f64, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(&mut self) -> Sampled<'_> {
        let (name, unit, read) = (self.name.clone(), self.unit, (self.read)());
        Box::pin(async move {
            let value = read.await.map_err(|error| {
                Error::new(crate::ErrorKind::Io, format!("`{name}` could not be read")).caused_by(error)
            })?;
            Ok(vec![Reading { name, unit, value }])
        })
    }
}

/// The number of living tasks of a runtime (`RuntimeMetrics::num_alive_tasks`), as `<label> tasks`.
pub fn tasks(label: &str, runtime: tokio::runtime::Handle) -> impl Sampler + use<> {
    external(&format!("{label} tasks"), Unit::Count, move || {
        let alive = runtime.metrics().num_alive_tasks();
        async move { Ok::<_, std::convert::Infallible>(alive as f64) }
    })
}
