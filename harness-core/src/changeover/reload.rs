//! A hot reload: every instance is asked until the new configuration is due.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use harness_props::Outcome;
use harness_props::history::reload::{Reload, Report};

use super::Polling;
use crate::error::CoreResult;
use crate::wait::{pause, within};

/// How often an instance is asked in the time it has.
const ASKED: u32 = 10;

type Asking = Pin<Box<dyn Future<Output = CoreResult<(String, u64)>> + Send>>;
type Ask = Arc<dyn Fn() -> Asking + Send + Sync>;

/// A change of the configuration that every instance has to see in time, without being started anew.
///
/// ```no_run
/// use std::time::Duration;
/// use harness_core::changeover::HotReload;
/// # async fn version_of(_: &'static str) -> harness_core::CoreResult<(String, u64)> { Ok(("v2".to_owned(), 1)) }
/// # async fn write_config() -> harness_core::CoreResult { Ok(()) }
///
/// # async fn example() -> harness_core::CoreResult {
/// let seen = HotReload::new("v2", Duration::from_secs(2))
///     .instance("one", || version_of("http://127.0.0.1:8001/version"))
///     .instance("two", || version_of("http://127.0.0.1:8002/version"))
///     .run(write_config())
///     .await?;
/// assert!(seen.is_pass(), "{seen}");
/// # Ok(()) }
/// ```
#[must_use = "nothing is asked before `run`"]
pub struct HotReload {
    version: String,
    within: Duration,
    is_valid: bool,
    instances: Vec<(String, Ask)>,
}

impl HotReload {
    /// Everybody works with this version within this time.
    pub fn new(version: impl Into<String>, within: Duration) -> Self {
        Self { version: version.into(), within, is_valid: true, instances: Vec::new() }
    }

    /// An instance, and how to ask it for the version it works with and its life: what changes when it is started anew, such as its
    /// process id. An answer that fails says nothing.
    pub fn instance<R>(mut self, name: impl Into<String>, ask: impl Fn() -> R + Send + Sync + 'static) -> Self
    where
        R: Future<Output = CoreResult<(String, u64)>> + Send + 'static,
    {
        self.instances.push((name.into(), Arc::new(move || Box::pin(ask()) as Asking)));
        self
    }

    /// The new configuration is not valid: everybody has to keep the old one.
    pub fn invalid(mut self) -> Self {
        self.is_valid = false;
        self
    }

    /// Asks everybody, makes the change, and asks on until it is due.
    ///
    /// # Errors
    /// Those of the change.
    pub async fn run(self, change: impl Future<Output = CoreResult>) -> CoreResult<Outcome> {
        let every = (self.within / ASKED).max(Duration::from_millis(1));
        let begun = crate::wait::Pace::real();
        let start = |(name, ask): &(String, Ask)| {
            let ask = Arc::clone(ask);
            let asking = move || {
                let asking = ask();
                async move { within("an instance", every * ASKED, asking).await.and_then(|answer| answer) }
            };
            (name.clone(), begun.now(), Polling::start(every, asking))
        };
        let polled: Vec<_> = self.instances.iter().map(start).collect();
        pause(every * 2).await;
        let before = begun.now();
        change.await?;
        let changed = begun.now();
        pause(self.within + every * 2).await;
        let reload = Reload::new(&*self.version, changed, self.within).instances(polled.iter().map(|(name, ..)| name));
        let reload = if self.is_valid { reload } else { reload.invalid() };
        let mut reports = Vec::new();
        for (name, since, polling) in polled {
            for (at, answer) in polling.stop().await {
                let at = since + at;
                // While the change is made, either version is right; what counts begins when it is done.
                if let (Ok((version, life)), false) = (answer, (before..changed).contains(&at)) {
                    reports.push(Report::new(name.clone(), version, life, at));
                }
            }
        }
        Ok(reload.judge(&reports))
    }
}

impl fmt::Debug for HotReload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.instances.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "HotReload({} within {:?} at {})", self.version, self.within, names.join(", "))
    }
}
