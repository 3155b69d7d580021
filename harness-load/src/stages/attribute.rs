//! Own time by stage, what kind of time it is, and what to do about it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use harness_core::error::CoreResult;
use harness_core::wait::seconds;
use harness_props::Outcome;

use super::span::{Span, check, covered};

/// A stage stands out when its own time is this many times what it would be if all took the same.
const STANDS_OUT: f64 = 1.5;

/// What kind of time a stage mostly spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A processor works on it.
    Cpu,
    /// It waits for an answer from elsewhere.
    Network,
    /// It waits for its turn.
    Queue,
    /// None of these is half of it.
    Mixed,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "CPU",
            Self::Network => "network",
            Self::Queue => "queuing",
            Self::Mixed => "mixed",
        })
    }
}

/// What usually helps against a kind of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Keep results instead of computing them again.
    Cache,
    /// Ask for many things at once instead of one after the other.
    Batch,
    /// Take it off the path of the request, or let more of it run at once.
    Async,
    /// Measure closer first.
    Split,
}

impl Advice {
    fn against(class: Class) -> Self {
        match class {
            Class::Cpu => Self::Cache,
            Class::Network => Self::Batch,
            Class::Queue => Self::Async,
            Class::Mixed => Self::Split,
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cache => "cache: keep results instead of computing them again",
            Self::Batch => "batch: ask for many at once, or at the same time, instead of one after the other",
            Self::Async => "async: take it off the path of the request, or let more of it run at once",
            Self::Split => "split it into smaller stages first",
        })
    }
}

/// One stage over all its spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The stage.
    pub stage: String,
    /// Number of spans.
    pub count: usize,
    /// From when it was asked for to its end, its parts included.
    pub total: Duration,
    /// The same without what its parts cover: what it is ranked by, since a caller is not slow because of its callee.
    pub own: Duration,
    /// Of its own time: waiting for its turn.
    pub queue: Duration,
    /// Of its own time: on a processor.
    pub cpu: Duration,
    /// Of its own time: the rest, waiting for others.
    pub network: Duration,
}

impl Row {
    /// What most of its own time is.
    #[must_use]
    pub fn class(&self) -> Class {
        let kinds = [(self.queue, Class::Queue), (self.cpu, Class::Cpu), (self.network, Class::Network)];
        kinds.into_iter().find(|(time, _)| *time * 2 > self.own).map_or(Class::Mixed, |(_, class)| class)
    }
}

/// Where the time went. Its `Display` is a table with advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    rows: Vec<Row>,
    whole: Duration,
    unattributed: Duration,
}

impl Attribution {
    /// Attributes the time of spans to their stages.
    ///
    /// A span without a parent that has parts is a whole: its own time belongs to no stage and is reported as unattributed.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`](harness_core::ErrorKind::NoEvidence) without spans,
    /// [`ErrorKind::Config`](harness_core::ErrorKind::Config) for one whose times or parent cannot be.
    pub fn of(spans: &[Span]) -> CoreResult<Self> {
        check(spans)?;
        let mut parts: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
        for (n, span) in spans.iter().enumerate() {
            if let Some(parent) = span.parent {
                parts[parent].push(n);
            }
        }
        let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
        let (mut whole, mut unattributed) = (Duration::ZERO, Duration::ZERO);
        for (n, span) in spans.iter().enumerate() {
            let inside = covered(parts[n].iter().map(|part| (spans[*part].queued, spans[*part].end)).collect());
            let own = span.length().saturating_sub(inside);
            if span.parent.is_none() {
                whole += span.length();
                if !parts[n].is_empty() {
                    unattributed += own;
                    continue;
                }
            }
            let queue = (span.start - span.queued).min(own);
            let parts_busy: Duration = parts[n].iter().map(|part| spans[*part].busy).sum();
            let cpu = span.busy.saturating_sub(parts_busy).min(own - queue);
            let row = rows.entry(&span.stage).or_insert_with(|| Row {
                stage: span.stage.clone(),
                count: 0,
                total: Duration::ZERO,
                own: Duration::ZERO,
                queue: Duration::ZERO,
                cpu: Duration::ZERO,
                network: Duration::ZERO,
            });
            row.count += 1;
            row.total += span.length();
            row.own += own;
            row.queue += queue;
            row.cpu += cpu;
            row.network += own - queue - cpu;
        }
        let mut rows: Vec<Row> = rows.into_values().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.own));
        Ok(Self { rows, whole, unattributed })
    }

    /// Stages, the one with the most own time first.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// One stage by name.
    #[must_use]
    pub fn row(&self, stage: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.stage == stage)
    }

    /// Time of all wholes together.
    #[must_use]
    pub fn whole(&self) -> Duration {
        self.whole
    }

    /// Time of wholes that no stage covers.
    #[must_use]
    pub fn unattributed(&self) -> Duration {
        self.unattributed
    }

    /// The stage that stands out, with its class and what usually helps; none when all take about the same.
    #[must_use]
    pub fn bottleneck(&self) -> Option<(&Row, Class, Advice)> {
        let first = self.rows.first().filter(|row| !row.own.is_zero())?;
        let all: Duration = self.rows.iter().map(|row| row.own).sum();
        let fair = all.as_secs_f64() / self.rows.len() as f64;
        let stands_out = self.rows.len() == 1 || first.own.as_secs_f64() >= STANDS_OUT * fair;
        let class = first.class();
        stands_out.then(|| (first, class, Advice::against(class)))
    }

    /// Holds the recorded wholes against a measurement from outside, such as a client's sum of latencies: they must agree
    /// within a share, or the recording leaves something out.
    #[must_use]
    pub fn accounts_for(&self, outside: Duration, tolerance: f64) -> Outcome {
        if outside.is_zero() || !(tolerance > 0.0 && tolerance.is_finite()) {
            return Outcome::no_evidence(format!("nothing from outside ({}) to hold it against", seconds(outside)));
        }
        let share = self.whole.as_secs_f64() / outside.as_secs_f64();
        let told = format!("{} recorded, {} seen from outside", seconds(self.whole), seconds(outside));
        if (share - 1.0).abs() <= tolerance { Outcome::pass(told) } else { Outcome::fail(told) }
    }

    /// At most this share of the wholes may belong to no stage.
    #[must_use]
    pub fn leaves_unattributed_at_most(&self, share: f64) -> Outcome {
        if self.whole.is_zero() || !share.is_finite() {
            return Outcome::no_evidence("no whole with parts was recorded");
        }
        let left = self.unattributed.as_secs_f64() / self.whole.as_secs_f64();
        let told = format!("{} of {} belong to no stage", seconds(self.unattributed), seconds(self.whole));
        if left <= share { Outcome::pass(told) } else { Outcome::fail(told) }
    }
}

impl fmt::Display for Attribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<24} {:>7} {:>9} {:>9}  mostly", "stage", "spans", "own", "total")?;
        for row in &self.rows {
            let (own, total) = (seconds(row.own), seconds(row.total));
            writeln!(f, "  {:<24} {:>7} {own:>9} {total:>9}  {}", row.stage, row.count, row.class())?;
        }
        writeln!(f, "  {:<24} {:>7} {:>9}", "(no stage)", "", seconds(self.unattributed))?;
        match self.bottleneck() {
            Some((row, class, advice)) => write!(f, "  bottleneck: {} ({class}); {advice}", row.stage),
            None => f.write_str("  bottleneck: none stands out"),
        }
    }
}
