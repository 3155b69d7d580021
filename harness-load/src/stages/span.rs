//! One stretch of one stage.

use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// A stretch of time of a stage, on any clock that all spans share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The stage: `match`, `execute`, `agent 3`.
    pub stage: String,
    /// Index of the span it is a part of, among the same spans.
    pub parent: Option<usize>,
    /// When it was asked for.
    pub queued: Duration,
    /// When it began; the time before is queueing.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
    /// How long it, with its parts, kept a processor busy between start and end.
    pub busy: Duration,
}

impl Span {
    pub(super) fn length(&self) -> Duration {
        self.end.saturating_sub(self.queued)
    }
}

/// Refuses spans whose times or parents cannot be.
pub(super) fn check(spans: &[Span]) -> CoreResult {
    if spans.is_empty() {
        return Err(Error::new(ErrorKind::NoEvidence, "no stage was recorded"));
    }
    for (n, span) in spans.iter().enumerate() {
        let parent = span.parent.map(|parent| spans.get(parent).filter(|_| parent != n));
        let wrong = match parent {
            Some(None) => "its parent is not there",
            Some(Some(parent)) if span.queued < parent.start || span.end > parent.end => {
                "it lies outside of its parent"
            }
            _ if span.start < span.queued || span.end < span.start => "it ends before it begins",
            _ if span.busy > span.end - span.start => "it was busy for longer than it took",
            _ if circles(spans, n) => "it is a part of itself",
            _ => continue,
        };
        return Err(Error::new(ErrorKind::Config, format!("span {n} (`{}`) cannot be: {wrong}", span.stage))
            .remedy("let all spans use one clock, and end parts before the whole"));
    }
    Ok(())
}

fn circles(spans: &[Span], from: usize) -> bool {
    let up = std::iter::successors(spans[from].parent, |at| spans.get(*at).and_then(|span| span.parent));
    up.take(spans.len() + 1).count() > spans.len()
}

/// How much of a span its stretches cover, overlaps counted once.
pub(super) fn covered(mut stretches: Vec<(Duration, Duration)>) -> Duration {
    stretches.sort_unstable();
    let (mut total, mut until) = (Duration::ZERO, Duration::ZERO);
    for (from, to) in stretches {
        total += to.saturating_sub(from.max(until));
        until = until.max(to);
    }
    total
}
