//! One test's life: what it makes, what it leaves when it fails, and the end of everything in reverse order.
//!
//! ```
//! use harness_core::scope::TestScope;
//!
//! # fn main() -> harness_core::CoreResult {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let scope = TestScope::new("saves a user");
//! let name = scope.unique("user");
//! scope.on_teardown("forget the user", async move || {
//!     let _ = name;
//!     Ok(())
//! });
//! scope.evidence("answer.json", b"{}")?; // stays when the test fails
//! scope.shutdown().await
//! # })
//! # }
//! ```
//!
//! How a scope learns that its test failed: a panic, [`TestScope::fail`], or an error that became a
//! [`crate::Failure`] on the test's thread, as `?` in a test that returns [`crate::Result`] does. An error returned
//! through another type is not seen, and neither is one that a task on another thread swallows.

#[cfg(feature = "checks")]
mod census;
#[cfg(not(feature = "checks"))]
#[path = "census_off.rs"]
mod census;
mod evidence;
mod limit;
mod mark;
mod skip;
mod teardown;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::env::Settings;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::keeper::RunSlot;
use crate::run::{fnv, test_name};
use crate::service::{Port, ProcessId};
use crate::watchdog::Parties;

use census::Counts;
use evidence::Evidence;
use limit::Limit;
use mark::Mark;
use teardown::{Step, Teardowns};

#[cfg(feature = "checks")]
pub use census::{Census, Listing, Register};
pub use mark::{mark_failed, test_failed};
pub use skip::skip;

/// A single teardown may take this long.
pub const TEARDOWN_LIMIT: Duration = Duration::from_secs(30);

/// A test's life. Ends by [`TestScope::shutdown`], or by `Drop` when the test fails before it gets there.
#[must_use = "dropped here means everything in it ends here"]
pub struct TestScope {
    /// Taken by whichever end comes first.
    inner: Option<Inner>,
}

struct Inner {
    name: String,
    mark: Mark,
    reasons: Mutex<Vec<String>>,
    evidence: Evidence,
    teardowns: Teardowns,
    temp_dirs: Mutex<Vec<(RunSlot, PathBuf)>>,
    counts: Counts,
    parties: Parties,
    limit: Mutex<Option<Limit>>,
}

impl TestScope {
    /// A scope with a name of its own, for example of one part of a test.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        let inner = Inner {
            evidence: Evidence::of(&name),
            mark: Mark::begin(),
            reasons: Mutex::default(),
            teardowns: Teardowns::default(),
            temp_dirs: Mutex::default(),
            counts: Counts::default(),
            parties: Parties::new(),
            limit: Mutex::default(),
            name,
        };
        let scope = Self { inner: Some(inner) };
        if let Some(limit) = Settings::get().test_limit {
            scope.limit(limit);
        }
        scope
    }

    /// The scope of the running test, named after it.
    pub fn current() -> Self {
        Self::new(test_name())
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.as_ref().map_or("", |inner| &inner.name)
    }

    /// A fresh directory. It goes with the scope; a failed test's stays for `HARNESS_KEEP`; a killed test's goes soon
    /// after its process. The first one in a process takes some milliseconds. Blocking.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] or [`ErrorKind::Io`] when it cannot be made.
    pub fn temp_dir(&self) -> CoreResult<PathBuf> {
        let slot = RunSlot::attach()?;
        let dir = slot.temp_dir()?;
        if let Some(inner) = &self.inner {
            locked(&inner.temp_dirs).push((slot, dir.clone()));
        }
        Ok(dir)
    }

    /// A name nobody else on this machine has: the prefix, this process and a number. Safe in file and database names
    /// if the prefix is.
    #[must_use]
    pub fn unique(&self, prefix: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = ProcessId::own();
        let process = fnv(format!("{}/{}", own.pid, own.start).as_bytes()) >> 24;
        format!("{prefix}_{process:010x}_{}", COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// A port nobody else has while the value lives.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when none is free.
    pub fn port(&self) -> CoreResult<Port> {
        Port::reserve()
    }

    /// Runs this at the end of the scope: the last registered first, each for at most [`TEARDOWN_LIMIT`], whatever the
    /// others do.
    pub fn on_teardown<F, Fut>(&self, label: impl Into<String>, work: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = CoreResult> + Send + 'static,
    {
        if let Some(inner) = &self.inner {
            inner.teardowns.push(Step::new(label.into(), work));
        }
    }

    /// Writes a file that stays when the test fails. Returns where it is.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it cannot be written.
    pub fn evidence(&self, name: &str, bytes: impl AsRef<[u8]>) -> CoreResult<PathBuf> {
        let path = self.evidence_path(name)?;
        let written = std::fs::write(&path, bytes);
        written.map_err(|error| evidence::unwritable(&path, error))?;
        Ok(path)
    }

    /// Copies a file to where it stays when the test fails. Returns where that is.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it cannot be copied.
    pub fn evidence_file(&self, file: &Path) -> CoreResult<PathBuf> {
        let path = self.evidence_path(&file.file_name().unwrap_or_default().to_string_lossy())?;
        let copied = std::fs::copy(file, &path);
        copied.map_err(|error| evidence::unwritable(&path, error).tried(format!("from {}", file.display())))?;
        Ok(path)
    }

    /// A path below `<out>/<test>/` for somebody else to write to.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when its directory cannot be made.
    pub fn evidence_path(&self, name: &str) -> CoreResult<PathBuf> {
        match &self.inner {
            Some(inner) => inner.evidence.path(name),
            None => Err(Error::new(ErrorKind::Refused, "the scope has ended")),
        }
    }

    /// Who takes part in the test: workers and clients [join](Parties::join) and say what they are at, and
    /// [`TestScope::limit`] prints it when the test hangs.
    #[must_use]
    pub fn parties(&self) -> Parties {
        self.inner.as_ref().map(|inner| inner.parties.clone()).unwrap_or_default()
    }

    /// Ends the process with the state of everybody when the scope lives longer than this: a hang fails with what each was at,
    /// where the time-out of a whole suite shows nothing. A thread that blocks does not stop it. `HARNESS_TEST_LIMIT` sets it
    /// for every scope; the last call counts.
    ///
    /// The whole process ends, with exit code 101: with nextest that is this test, else also those beside it.
    pub fn limit(&self, limit: Duration) {
        if let Some(inner) = &self.inner {
            let guard = Limit::start(&inner.name, limit, inner.parties.clone());
            *locked(&inner.limit) = Some(guard);
        }
    }

    /// Marks the test as failed, for this reason.
    pub fn fail(&self, reason: impl Into<String>) {
        if let Some(inner) = &self.inner {
            locked(&inner.reasons).push(reason.into());
            inner.mark.set();
        }
    }

    /// True when the test is known to have failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.inner.as_ref().is_some_and(Inner::failed)
    }

    /// Ends everything in the scope, last made first.
    ///
    /// # Errors
    /// Every teardown that failed or took too long, in one error. The others ran nevertheless.
    pub async fn shutdown(mut self) -> CoreResult {
        let Some(inner) = self.inner.take() else { return Ok(()) };
        let mut failures = inner.teardowns.run().await;
        failures.extend(inner.counts.leaks().await);
        inner.finish(failures)
    }
}

impl Drop for TestScope {
    /// The fallback: the same on a thread of its own with its own runtime, bounded, never panicking.
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        // Asked here: another thread does not know whether this one panics.
        if std::thread::panicking() {
            inner.mark.set();
        }
        let failures = inner.teardowns.run_aside();
        if !inner.counts.is_empty() && !inner.failed() {
            eprintln!("harness: the census of `{}` was not taken: end the scope with `shutdown`", inner.name);
        }
        if let Err(error) = inner.finish(failures) {
            eprintln!("harness: {error:?}");
        }
    }
}

impl Inner {
    fn failed(&self) -> bool {
        self.mark.is_set() || std::thread::panicking()
    }

    fn finish(self, failures: Vec<(String, Error)>) -> CoreResult {
        for (label, error) in &failures {
            locked(&self.reasons).push(format!("teardown `{label}`: {error}"));
        }
        let failed = self.failed() || !failures.is_empty();
        self.end_temp_dirs(failed);
        if failed {
            self.report();
        } else {
            self.evidence.end();
        }
        teardown::as_one(&self.name, failures)
    }

    fn end_temp_dirs(&self, failed: bool) {
        let keep = failed && !Settings::get().keep.is_zero();
        for (slot, dir) in locked(&self.temp_dirs).drain(..) {
            // What cannot be kept or removed here is ended by the run's keeper.
            let _ = if keep { slot.keep_dir(&dir) } else { std::fs::remove_dir_all(&dir).map_err(Error::from) };
            if keep {
                eprintln!("harness: kept directory {}", dir.display());
            }
        }
    }

    fn report(&self) {
        let reasons = locked(&self.reasons).join("; ");
        let reasons = if reasons.is_empty() { String::new() } else { format!(": {reasons}") };
        let mut text = format!("test `{}` failed{reasons}", self.name);
        if let Some(dir) = self.evidence.dir() {
            text.push_str(&format!("\n  evidence   {}", dir.display()));
        }
        text.push_str(&format!("\n  again      {}", evidence::again(&self.name)));
        eprintln!("{text}");
    }
}

impl fmt::Debug for TestScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestScope").field("name", &self.name()).field("failed", &self.failed()).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
