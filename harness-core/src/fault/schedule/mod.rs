//! Faults on a time line: data that is printed in one line and replayed from it.
//!
//! ```
//! use harness_core::fault::Schedule;
//!
//! let line = "500ms..2000ms redis: latency 20ms; 1000ms..1500ms postgres: kill";
//! let schedule: Schedule = line.parse().unwrap();
//! assert_eq!(schedule.to_string(), line);
//! assert_eq!(schedule.end(), std::time::Duration::from_secs(2));
//! ```

mod chaos;
mod play;
mod shrink;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ContainerFault, Fault, FaultProxy, Outage};
use crate::env::parse_duration;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::Service;

pub use chaos::Chaos;
pub use play::{Played, PlayedStep};
pub use shrink::ShrunkSchedule;

use super::proxy::duration_text;

/// One fault on the time line: from when, until when, on what, which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Step {
    /// Injected this long after the begin.
    pub at: Duration,
    /// Healed this long after the begin.
    pub until: Duration,
    /// Name of the target.
    pub target: String,
    /// The fault in the words of the target: `latency 20ms` of a proxy, `kill` of a service.
    pub fault: String,
}

/// Faults on a time line, in the order of their begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    steps: Vec<Step>,
}

impl Schedule {
    /// No faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A schedule of these steps.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a step that ends before it begins, or whose words would not be read back.
    pub fn of(steps: impl IntoIterator<Item = Step>) -> CoreResult<Self> {
        let mut steps: Vec<Step> = steps.into_iter().collect();
        for step in &steps {
            let wrong = match step {
                Step { at, until, .. } if at > until => "it ends before it begins",
                Step { target, .. } if target.is_empty() || target.contains([':', ';']) => "its target has no name",
                Step { fault, .. } if fault.trim().is_empty() || fault.contains(';') => "its fault has no name",
                _ => continue,
            };
            return Err(Error::new(ErrorKind::Config, format!("the step `{step}` makes no sense: {wrong}")));
        }
        steps.sort();
        Ok(Self { steps })
    }

    /// Adds a fault of a target, from `at` for as long as `lasts`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] as [`Schedule::of`].
    pub fn then(mut self, at: Duration, lasts: Duration, target: &str, fault: impl fmt::Display) -> CoreResult<Self> {
        let step = Step { at, until: at.saturating_add(lasts), target: target.to_owned(), fault: fault.to_string() };
        self.steps.push(step);
        Self::of(self.steps)
    }

    /// The steps, by their begins.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// When the last fault is healed.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.steps.iter().map(|step| step.until).max().unwrap_or_default()
    }

    /// Holds when everything is healed before a load of this length ends: a fault that outlasts it shows no recovery.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the first step that does not fit.
    pub fn check_within(&self, load: Duration) -> CoreResult {
        match self.steps.iter().find(|step| step.until >= load) {
            None => Ok(()),
            Some(step) => {
                let what = format!("the step `{step}` is not over before the load ends at {}", duration_text(load));
                Err(Error::new(ErrorKind::Config, what).remedy("hold the load longer, or end the fault earlier"))
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{} {}: {}", duration_text(self.at), duration_text(self.until), self.target, self.fault)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().enumerate().try_for_each(|(n, step)| {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{step}")
        })
    }
}

impl FromStr for Schedule {
    type Err = Error;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> CoreResult<Self> {
        let steps = text.split(';').map(str::trim).filter(|step| !step.is_empty()).map(|step| {
            let unknown =
                || Error::new(ErrorKind::Config, format!("`{step}` is no step such as `1s..2s redis: stall`"));
            let (times, rest) = step.split_once(' ').ok_or_else(unknown)?;
            let (at, until) = times.split_once("..").ok_or_else(unknown)?;
            let (target, fault) = rest.split_once(':').ok_or_else(unknown)?;
            Ok(Step {
                at: parse_duration(at)?,
                until: parse_duration(until)?,
                target: target.trim().to_owned(),
                fault: fault.trim().to_owned(),
            })
        });
        Self::of(steps.collect::<CoreResult<Vec<_>>>()?)
    }
}

/// Something that makes faults of their names.
pub trait Target: Send + Sync {
    /// A new fault of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when there is none of this name.
    fn fault(&self, name: &str) -> CoreResult<Arc<dyn Fault>>;
}

impl Target for FaultProxy {
    fn fault(&self, name: &str) -> CoreResult<Arc<dyn Fault>> {
        Ok(Arc::new(Self::fault(self, name.parse()?)?))
    }
}

impl Target for Service {
    fn fault(&self, name: &str) -> CoreResult<Arc<dyn Fault>> {
        Outage::named(self, name).map(|outage| Arc::new(outage) as Arc<dyn Fault>).or_else(|unknown| {
            let fault = ContainerFault::named(self, name).map_err(|also| unknown.tried(also.what()))?;
            Ok(Arc::new(fault) as Arc<dyn Fault>)
        })
    }
}

impl<T: Target + ?Sized> Target for Arc<T> {
    fn fault(&self, name: &str) -> CoreResult<Arc<dyn Fault>> {
        (**self).fault(name)
    }
}

/// The targets of a schedule, by name.
#[derive(Clone, Default)]
pub struct Targets(BTreeMap<String, Arc<dyn Target>>);

impl Targets {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a target.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, target: impl Target + 'static) -> Self {
        self.0.insert(name.into(), Arc::new(target));
        self
    }

    /// A new fault for a step.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when there is no such target, or it has no such fault.
    pub fn fault(&self, step: &Step) -> CoreResult<Arc<dyn Fault>> {
        let target = self.0.get(&step.target).ok_or_else(|| {
            let known = self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            Error::new(ErrorKind::Config, format!("no target has the name `{}`", step.target))
                .tried(format!("the targets are {known}"))
        })?;
        target.fault(&step.fault).map_err(|error| error.tried(format!("for the step `{step}`")))
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
