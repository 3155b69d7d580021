//! Do parallel things run in parallel?

use std::time::Duration;

use harness_core::wait::seconds;
use harness_props::Outcome;

use super::span::Span;

/// How much spans overlap. A sequence of quick agents may end in time; only this shows that they took turns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlap {
    /// Number of spans.
    pub spans: usize,
    /// The most that ran at one moment.
    pub peak: usize,
    /// From the first start to the last end.
    pub wall: Duration,
    /// Sum of their times from start to end; queueing is no work.
    pub work: Duration,
    /// Sum of what they kept processors busy for.
    pub busy: Duration,
}

impl Overlap {
    /// Of the spans that satisfy a predicate: the parts of one whole, or stages by name.
    pub fn of<'a>(spans: impl IntoIterator<Item = &'a Span>, which: impl Fn(&Span) -> bool) -> Self {
        let spans: Vec<&Span> = spans.into_iter().filter(|span| which(span)).collect();
        let begun = spans.iter().map(|span| span.start).min().unwrap_or_default();
        let ended = spans.iter().map(|span| span.end).max().unwrap_or_default();
        // An end comes before a start at the same moment: back to back is not at once.
        let starts = spans.iter().map(|span| (span.start, 1_i64));
        let mut changes: Vec<(Duration, i64)> = starts.chain(spans.iter().map(|span| (span.end, -1))).collect();
        changes.sort_unstable();
        let at_once = changes.iter().scan(0, |now, (_, change)| {
            *now += change;
            Some(*now)
        });
        Self {
            spans: spans.len(),
            peak: usize::try_from(at_once.max().unwrap_or(0)).unwrap_or(0),
            wall: ended.saturating_sub(begun),
            work: spans.iter().map(|span| span.end.saturating_sub(span.start)).sum(),
            busy: spans.iter().map(|span| span.busy).sum(),
        }
    }

    /// How many ran at once on average: their work by the time it took. 1 is one after the other.
    #[must_use]
    pub fn factor(&self) -> f64 {
        if self.wall.is_zero() { 0.0 } else { self.work.as_secs_f64() / self.wall.as_secs_f64() }
    }

    /// Requires that on average at least this share of them ran at once (0.8: of ten agents, eight).
    #[must_use]
    pub fn at_least(&self, share: f64) -> Outcome {
        if self.spans < 2 || self.wall.is_zero() || !(share > 0.0 && share <= 1.0) {
            let (spans, wall) = (self.spans, seconds(self.wall));
            return Outcome::no_evidence(format!(
                "{spans} spans over {wall} do not show whether they overlap by {share}"
            ));
        }
        let told = format!(
            "{} spans did {} of work in {}: {:.1} at once on average, {} at most",
            self.spans,
            seconds(self.work),
            seconds(self.wall),
            self.factor(),
            self.peak
        );
        let enough = self.factor() >= share * self.spans as f64;
        if enough { Outcome::pass(told) } else { Outcome::fail(format!("they take turns: {told}")) }
    }
}
