//! How much a search may cost: past it a judge says what it explored, and never hangs.

use std::fmt;
use std::sync::Arc;

/// A bound on states visited, on memory for remembering them, and on whatever else the caller wants, such as time.
#[derive(Clone)]
pub struct Budget {
    states: u64,
    bytes: usize,
    stop: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl Default for Budget {
    /// Ten million states, 256 MiB.
    fn default() -> Self {
        Self { states: 10_000_000, bytes: 256 << 20, stop: None }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("states", &self.states).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Budget {
    /// How many states a search may visit.
    #[must_use]
    pub fn states(self, states: u64) -> Self {
        Self { states, ..self }
    }

    /// How many bytes a search may remember.
    #[must_use]
    pub fn bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    /// Stops as soon as this says so; it is asked every thousand states. This crate reads no clock: a time limit is
    /// `let begun = Instant::now(); budget.until(move || begun.elapsed() > limit)`.
    #[must_use]
    pub fn until(mut self, stop: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.stop = Some(Arc::new(stop));
        self
    }

    /// How many states a search may visit.
    pub(crate) fn limit(&self) -> u64 {
        self.states
    }

    /// How many bytes may be remembered.
    pub(crate) fn max_bytes(&self) -> usize {
        self.bytes
    }

    /// True when the caller's own bound says so.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop())
    }

    /// True when a search that visited so many states and remembers so many bytes has to end.
    pub(crate) fn is_spent(&self, states: u64, bytes: usize) -> bool {
        states >= self.states || bytes >= self.bytes || (states.is_multiple_of(1024) && self.is_stopped())
    }
}
