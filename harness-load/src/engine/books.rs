//! The books of a run: every due slot ends in exactly one column.

use std::collections::BTreeMap;
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use hdrhistogram::Histogram;

use crate::times::Times;
use crate::units::to_nanos;

/// The most kinds of error of one run; further ones are counted together as [`OTHER`].
const MOST_KINDS: usize = 32;
/// The kind that stands for all kinds beyond the most.
pub(crate) const OTHER: &str = "other";
/// The kind of an iteration that panicked.
pub(crate) const PANIC: &str = "panic";
/// The longest example message kept, in characters.
const LONGEST_EXAMPLE: usize = 160;

/// How an iteration ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It returned `Ok`.
    Ok,
    /// It returned an error or panicked.
    Error {
        /// The kind, as the classifier named it.
        kind: String,
        /// The message.
        message: String,
    },
    /// It ran into its time limit and was cancelled.
    Timeout,
    /// It was never started: too many were in flight and the queue was full.
    Dropped,
    /// It was still queued or running when the drain was over.
    Unfinished,
}

/// How long the parts of an iteration took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// From due to the end.
    pub(crate) response: Duration,
    /// From the start of the closure to the end, if it was started.
    pub(crate) service: Option<Duration>,
    /// What the generator itself added.
    pub(crate) lateness: Duration,
}

/// The books of one flow in one phase.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Returned `Ok`.
    pub ok: u64,
    /// Errors by kind, panics among them.
    pub errors: BTreeMap<String, u64>,
    /// Cancelled at the time limit.
    pub timeouts: u64,
    /// Never started.
    pub dropped: u64,
    /// No end before the drain was over.
    pub unfinished: u64,
    /// Slots taken up within their phase, or hardly later; fewer than scheduled means the generator fell behind.
    pub picked_in_time: u64,
    /// Iterations of this flow that returned `Ok` within this phase, whenever they were due: throughput.
    pub completed_in_phase: u64,
    /// From due to done, of successes.
    pub response_ok: Times,
    /// From due to the end, of everything else; dropped ones count with at least the time limit.
    pub response_failed: Times,
    /// From the start of the closure to its end.
    pub service: Times,
    /// What the generator added before the closure started.
    pub lateness: Times,
}

impl Cell {
    /// All errors.
    #[must_use]
    pub fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Everything that is not a success.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors_total() + self.timeouts + self.dropped + self.unfinished
    }

    /// The sum of all columns.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ok + self.failed()
    }

    fn book(&mut self, end: &End, spent: Spent) {
        match end {
            End::Ok => self.ok += 1,
            End::Error { kind, .. } => *self.errors.entry(kind.clone()).or_default() += 1,
            End::Timeout => self.timeouts += 1,
            End::Dropped => self.dropped += 1,
            End::Unfinished => self.unfinished += 1,
        }
        let response = if *end == End::Ok { &mut self.response_ok } else { &mut self.response_failed };
        response.record(spent.response);
        self.lateness.record(spent.lateness);
        if let Some(service) = spent.service {
            self.service.record(service);
        }
    }
}

/// One second of a run, for plots.
#[derive(Debug, Clone)]
pub(crate) struct Second {
    /// Slots due in it.
    pub(crate) due: u64,
    /// Successes that ended in it.
    pub(crate) ok: u64,
    /// Everything else that ended in it.
    pub(crate) failed: u64,
    /// Most in flight at once.
    pub(crate) in_flight: usize,
    /// Response in microseconds of the slots due in it; two digits are finer than a pixel.
    pub(crate) response: Option<Box<Histogram<u32>>>,
}

/// All books of a run.
#[derive(Debug)]
pub(crate) struct Books {
    /// By phase, then flow.
    pub(crate) cells: Vec<Vec<Cell>>,
    /// The first message of each kind of error.
    pub(crate) examples: BTreeMap<String, String>,
    /// By second since start.
    pub(crate) seconds: Vec<Second>,
    /// Most in flight at once.
    pub(crate) peak_in_flight: usize,
}

impl Books {
    pub(crate) fn new(phases: usize, flows: usize) -> Self {
        let cells = vec![vec![Cell::default(); flows]; phases];
        Self { cells, examples: BTreeMap::new(), seconds: Vec::new(), peak_in_flight: 0 }
    }

    /// Books the end of one slot. `due` and `ended` count from the start of the run.
    pub(crate) fn book(
        &mut self,
        (phase, flow): (usize, usize),
        due: Duration,
        ended: Duration,
        end: End,
        spent: Spent,
    ) {
        let end = match end {
            End::Error { kind, message } => End::Error { kind: self.known(kind, &message), message },
            other => other,
        };
        self.cells[phase][flow].book(&end, spent);
        let second = self.second(ended);
        if end == End::Ok {
            second.ok += 1
        } else {
            second.failed += 1
        }
        let second = self.second(due);
        second.due += 1;
        if second.response.is_none() {
            second.response = Histogram::new_with_bounds(1, 3_600_000_000, 2).ok().map(Box::new);
        }
        if let Some(histogram) = &mut second.response {
            histogram.saturating_record((to_nanos(spent.response) / 1_000).max(1));
        }
    }

    /// Notes how many are in flight at a moment.
    pub(crate) fn note_in_flight(&mut self, at: Duration, in_flight: usize) {
        self.peak_in_flight = self.peak_in_flight.max(in_flight);
        let second = self.second(at);
        second.in_flight = second.in_flight.max(in_flight);
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let index = at.as_secs() as usize;
        while self.seconds.len() <= index {
            self.seconds.push(Second { due: 0, ok: 0, failed: 0, in_flight: 0, response: None });
        }
        &mut self.seconds[index]
    }

    /// The kind itself while there are few, else [`OTHER`]. Keeps the first message of each.
    fn known(&mut self, kind: String, message: &str) -> String {
        let is_new = !self.examples.contains_key(&kind);
        let kind = if is_new && self.examples.len() >= MOST_KINDS { OTHER.to_owned() } else { kind };
        let example = || message.chars().take(LONGEST_EXAMPLE).collect();
        self.examples.entry(kind.clone()).or_insert_with(example);
        kind
    }

    /// Conservation: what was scheduled, counted apart from the run, is what ended.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] naming the flow: numbers of a run that lost slots are no evidence.
    pub(crate) fn check_conservation(&self, scheduled: &[Vec<u64>], flows: &[String]) -> CoreResult {
        for (phase, (counts, cells)) in scheduled.iter().zip(&self.cells).enumerate() {
            for ((scheduled, cell), flow) in counts.iter().zip(cells).zip(flows) {
                if *scheduled != cell.ended() {
                    let what = format!(
                        "internal error: flow `{flow}` had {scheduled} slots due in phase {phase}, {} ended",
                        cell.ended()
                    );
                    return Err(Error::new(ErrorKind::NoEvidence, what)
                        .tried(format!("counted {cell:?}"))
                        .remedy("this is a defect of harness-load; the numbers of this run mean nothing"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::ErrorKind;

    use super::{Books, End, MOST_KINDS, Spent};

    fn spent() -> Spent {
        Spent { response: Duration::from_millis(3), service: None, lateness: Duration::ZERO }
    }

    fn error(kind: usize) -> End {
        End::Error { kind: format!("kind {kind}"), message: String::new() }
    }

    #[test]
    fn lost_and_doubled_slots_are_found() {
        let mut books = Books::new(1, 1);
        let flows = ["browse".to_owned()];
        for _ in 0..3 {
            books.book((0, 0), Duration::ZERO, Duration::ZERO, End::Ok, spent());
        }
        assert!(books.check_conservation(&[vec![3]], &flows).is_ok());
        for scheduled in [2, 4] {
            let error = books.check_conservation(&[vec![scheduled]], &flows).unwrap_err();
            assert!(error.kind() == ErrorKind::NoEvidence && error.what().contains("browse"), "{error:?}");
        }
    }

    #[test]
    fn kinds_beyond_the_most_are_counted_as_other() {
        let mut books = Books::new(1, 1);
        for kind in (0..MOST_KINDS + 10).chain(0..2) {
            books.book((0, 0), Duration::ZERO, Duration::ZERO, error(kind), spent());
        }
        let cell = &books.cells[0][0];
        assert_eq!((cell.errors.len(), cell.errors["other"], cell.errors["kind 0"]), (MOST_KINDS + 1, 10, 2));
        assert_eq!(cell.ended(), MOST_KINDS as u64 + 12);
    }
}
