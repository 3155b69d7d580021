//! Records stages of futures as they run.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::error::{CoreResult, Error, ErrorKind};

use super::attribute::Attribution;
use super::span::Span;

/// Spans that are kept; further ones are counted and make the attribution no evidence.
const MOST_SPANS: usize = 200_000;

type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A recorder of stages. Clones record into the same place.
#[derive(Clone)]
pub struct Stages {
    spans: Arc<Mutex<Kept>>,
    clock: Clock,
}

#[derive(Default)]
struct Kept {
    /// Reserved when a stage is asked for, filled when it ends.
    spans: Vec<Option<Span>>,
    dropped: u64,
}

impl std::fmt::Debug for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stages").field("spans", &self.kept().spans.len()).finish_non_exhaustive()
    }
}

impl Default for Stages {
    fn default() -> Self {
        Self::new()
    }
}

impl Stages {
    /// Records by the monotonic clock.
    #[must_use]
    pub fn new() -> Self {
        let begun = Instant::now();
        Self::with_clock(move || begun.elapsed())
    }

    /// Records by another clock, such as a virtual one: time since any fixed moment, never falling.
    pub fn with_clock(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { spans: Arc::default(), clock: Arc::new(clock) }
    }

    /// Begins a whole, such as a request; it ends when it is dropped.
    pub fn begin(&self, name: impl Into<String>) -> Open {
        let mut stage = self.reserve(name.into(), None);
        stage.start = Some(stage.queued);
        Open(stage)
    }

    /// What was recorded so far, wholes before their parts.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] while a span is open, and when there were too many to keep.
    pub fn spans(&self) -> CoreResult<Vec<Span>> {
        let kept = self.kept();
        if kept.dropped > 0 {
            let what = format!("{} spans beyond the first {MOST_SPANS} were not kept", kept.dropped);
            return Err(Error::new(ErrorKind::NoEvidence, what).remedy("record a part of the requests"));
        }
        let spans: Option<Vec<Span>> = kept.spans.iter().cloned().collect();
        spans.ok_or_else(|| {
            let open = kept.spans.iter().filter(|span| span.is_none()).count();
            Error::new(ErrorKind::NoEvidence, format!("{open} spans are still open"))
                .remedy("drop what `begin` returned before asking where the time went")
        })
    }

    /// Where the time went.
    ///
    /// # Errors
    /// As [`Stages::spans`] and [`Attribution::of`].
    pub fn attribution(&self) -> CoreResult<Attribution> {
        Attribution::of(&self.spans()?)
    }

    fn reserve(&self, name: String, parent: Option<usize>) -> Stage {
        let queued = (self.clock)();
        let mut kept = self.kept();
        let id = (kept.spans.len() < MOST_SPANS).then_some(kept.spans.len());
        match id {
            Some(_) => kept.spans.push(None),
            None => kept.dropped += 1,
        }
        drop(kept);
        Stage { stages: self.clone(), id, name, parent, queued, start: None, busy: Duration::ZERO }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A whole that is under way: [`Stages::begin`].
#[derive(Debug)]
#[must_use = "a whole ends when it is dropped"]
pub struct Open(Stage);

impl Open {
    /// Asks for a part. From here to [`Stage::run`] it counts as queued.
    pub fn stage(&self, name: impl Into<String>) -> Stage {
        self.0.stages.reserve(name.into(), self.0.id)
    }

    /// Asks for a part that has parts itself, and begins it at once.
    pub fn begin(&self, name: impl Into<String>) -> Self {
        let mut stage = self.stage(name);
        stage.start = Some(stage.queued);
        Self(stage)
    }
}

/// A part that was asked for: [`Open::stage`]. One that is dropped before it ran was queued all the time.
#[derive(Debug)]
#[must_use = "a stage is to be run"]
pub struct Stage {
    stages: Stages,
    id: Option<usize>,
    name: String,
    parent: Option<usize>,
    queued: Duration,
    start: Option<Duration>,
    busy: Duration,
}

impl Stage {
    /// Runs it: busy while it is polled, waiting in between. A future that is dropped before its end is recorded up to there.
    pub async fn run<F: Future>(mut self, future: F) -> F::Output {
        let clock = self.stages.clock.clone();
        self.start = Some(clock());
        let mut future = pin!(future);
        poll_fn(|context| {
            let begun = clock();
            let polled = future.as_mut().poll(context);
            self.busy += clock().saturating_sub(begun);
            polled
        })
        .await
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let end = (self.stages.clock)();
        let span = Span {
            stage: std::mem::take(&mut self.name),
            parent: self.parent,
            queued: self.queued,
            start: self.start.unwrap_or(end),
            end,
            busy: self.busy,
        };
        if let Some(slot) = self.stages.kept().spans.get_mut(id) {
            *slot = Some(span);
        }
    }
}
