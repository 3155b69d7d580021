//! The books of a run: every due slot ends in exactly one column.

use std::collections::BTreeMap;

use harness_core::error::{CoreResult, Error, ErrorKind};

use crate::coarse::Coarse;
use crate::times::Times;

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
    /// From due to the end. Nanoseconds, as all here.
    pub(crate) response: u64,
    /// From the start of the closure to the end, if it was started.
    pub(crate) service: Option<u64>,
    /// What the generator itself added.
    pub(crate) lateness: u64,
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
    /// Slots taken up, counted apart from their ends.
    pub picked: u64,
    /// Slots of the schedule that were never due: a warm-up that ended early, a run that was ended.
    pub not_due: u64,
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

    #[inline]
    fn book_ok(&mut self, spent: Spent) {
        self.ok += 1;
        self.response_ok.record_nanos(spent.response);
        self.book_parts(spent);
    }

    #[cold]
    fn book_failed(&mut self, end: &End, known_kind: Option<String>, spent: Spent) {
        match end {
            End::Ok => return self.book_ok(spent),
            End::Error { .. } => *self.errors.entry(known_kind.unwrap_or_default()).or_default() += 1,
            End::Timeout => self.timeouts += 1,
            End::Dropped => self.dropped += 1,
            End::Unfinished => self.unfinished += 1,
        }
        self.response_failed.record_nanos(spent.response);
        self.book_parts(spent);
    }

    #[inline]
    fn book_parts(&mut self, spent: Spent) {
        self.lateness.record_nanos(spent.lateness);
        if let Some(service) = spent.service {
            self.service.record_nanos(service);
        }
    }
}

/// The most intervals kept: beyond it neighbours are put together, so that memory does not grow with the run.
const MOST_INTERVALS: usize = 1_024;

/// One second of a run, for plots; more in runs of more than a quarter of an hour.
#[derive(Debug, Clone, Default)]
pub(crate) struct Second {
    /// Slots due in it.
    pub(crate) due: u64,
    /// Successes that ended in it.
    pub(crate) ok: u64,
    /// Everything else that ended in it.
    pub(crate) failed: u64,
    /// Most in flight at once.
    pub(crate) in_flight: usize,
    /// Response in microseconds of the slots due in it; within 1 %, which is finer than a pixel.
    pub(crate) response: Option<Box<Coarse>>,
}

impl Second {
    #[inline]
    fn note_due(&mut self, response: u64) {
        self.due += 1;
        self.in_flight = self.in_flight.max(1);
        self.response.get_or_insert_default().record(response / 1_000);
    }

    fn absorb(&mut self, other: Self) {
        self.due += other.due;
        self.ok += other.ok;
        self.failed += other.failed;
        self.in_flight = self.in_flight.max(other.in_flight);
        match (&mut self.response, other.response) {
            (Some(ours), Some(theirs)) => ours.add(&theirs),
            (ours @ None, theirs) => *ours = theirs,
            (Some(_), None) => {}
        }
    }
}

/// All books of a run. Times are nanoseconds since its start.
#[derive(Debug)]
pub(crate) struct Books {
    /// By phase, then flow.
    pub(crate) cells: Vec<Vec<Cell>>,
    /// The first message of each kind of error.
    pub(crate) examples: BTreeMap<String, String>,
    /// By interval since start.
    pub(crate) seconds: Vec<Second>,
    /// Length of an interval in seconds, a power of two.
    pub(crate) interval: u64,
    /// Start and index of the interval looked at last.
    current: (u64, usize),
    /// Most in flight at once.
    pub(crate) peak_in_flight: usize,
}

impl Books {
    pub(crate) fn new(phases: usize, flows: usize) -> Self {
        let cells = vec![vec![Cell::default(); flows]; phases];
        Self {
            cells,
            examples: BTreeMap::new(),
            seconds: vec![Second::default()],
            interval: 1,
            current: (0, 0),
            peak_in_flight: 0,
        }
    }

    /// Books the end of one slot.
    #[inline]
    pub(crate) fn book(&mut self, (phase, flow): (usize, usize), due: u64, ended: u64, end: &End, spent: Spent) {
        let is_ok = matches!(end, End::Ok);
        if is_ok {
            self.cells[phase][flow].book_ok(spent);
        } else {
            let known_kind = match end {
                End::Error { kind, message } => Some(self.known(kind, message)),
                _ => None,
            };
            self.cells[phase][flow].book_failed(end, known_kind, spent);
        }
        let second = self.second(ended);
        second.ok += u64::from(is_ok);
        second.failed += u64::from(!is_ok);
        self.second(due).note_due(spent.response);
        // Whoever never had to wait was in flight all the same.
        self.peak_in_flight = self.peak_in_flight.max(1);
    }

    /// Notes how many are in flight at a moment.
    pub(crate) fn note_in_flight(&mut self, at: u64, in_flight: usize) {
        self.peak_in_flight = self.peak_in_flight.max(in_flight);
        let second = self.second(at);
        second.in_flight = second.in_flight.max(in_flight);
    }

    #[inline]
    fn second(&mut self, at: u64) -> &mut Second {
        // Nearly always the same as last time, which spares a division.
        let index = match at.checked_sub(self.current.0) {
            Some(into) if into < self.interval * 1_000_000_000 => self.current.1,
            _ => self.find_second(at),
        };
        &mut self.seconds[index]
    }

    #[cold]
    fn find_second(&mut self, at: u64) -> usize {
        let mut index = (at / (1_000_000_000 * self.interval)) as usize;
        while index >= MOST_INTERVALS {
            let mut halves = std::mem::take(&mut self.seconds).into_iter();
            while let Some(mut first) = halves.next() {
                halves.next().into_iter().for_each(|second| first.absorb(second));
                self.seconds.push(first);
            }
            self.interval *= 2;
            index /= 2;
        }
        if self.seconds.len() <= index {
            self.seconds.resize_with(index + 1, Second::default);
        }
        self.current = (index as u64 * self.interval * 1_000_000_000, index);
        index
    }

    /// True when the medians of the last five whole seconds since `begun` lie within 5 % of each other, or within 50 µs,
    /// and nothing failed in them.
    pub(crate) fn is_steady(&self, begun: u64, now: u64) -> bool {
        const SECOND: u64 = 1_000_000_000;
        let (first, end) = (begun.div_ceil(SECOND), now / SECOND);
        if self.interval != 1 || end < first + 5 {
            return false;
        }
        let last = self.seconds.get(end as usize - 5..end as usize).unwrap_or_default();
        let medians = last.iter().filter(|second| second.failed == 0 && second.ok > 0);
        let medians: Vec<u64> = medians.filter_map(|s| Some(s.response.as_ref()?.quantile(0.5))).collect();
        let (low, high) = (medians.iter().min().copied(), medians.iter().max().copied());
        medians.len() == 5 && low.zip(high).is_some_and(|(low, high)| high - low <= (low / 20).max(50))
    }

    /// The kind itself while there are few, else [`OTHER`]. Keeps the first message of each.
    #[cold]
    fn known(&mut self, kind: &str, message: &str) -> String {
        let is_new = !self.examples.contains_key(kind);
        let kind = if is_new && self.examples.len() >= MOST_KINDS { OTHER } else { kind }.to_owned();
        let example = || message.chars().take(LONGEST_EXAMPLE).collect();
        self.examples.entry(kind.clone()).or_insert_with(example);
        kind
    }

    /// Conservation: what was scheduled, counted apart from the run, is what was taken up, is what ended. A closed loop
    /// has no schedule, so there what was taken up stands for it.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] naming the flow: numbers of a run that lost slots are no evidence.
    pub(crate) fn check_conservation(&self, scheduled: Option<&[Vec<u64>]>, flows: &[String]) -> CoreResult {
        for (phase, cells) in self.cells.iter().enumerate() {
            for (n, (cell, flow)) in cells.iter().zip(flows).enumerate() {
                let scheduled = scheduled.map_or(cell.picked, |scheduled| scheduled[phase][n]);
                if scheduled != cell.ended() + cell.not_due || cell.picked != cell.ended() {
                    let what = format!(
                        "internal error: flow `{flow}` had {scheduled} slots due in phase {phase}, {} were taken up, \
                         {} ended and {} were never due",
                        cell.picked,
                        cell.ended(),
                        cell.not_due,
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
    use harness_core::ErrorKind;

    use super::{Books, End, MOST_KINDS, Spent};

    fn spent() -> Spent {
        Spent { response: 3_000_000, service: None, lateness: 0 }
    }

    fn error(kind: usize) -> End {
        End::Error { kind: format!("kind {kind}"), message: String::new() }
    }

    #[test]
    fn lost_and_doubled_slots_are_found() {
        let mut books = Books::new(1, 1);
        let flows = ["browse".to_owned()];
        for _ in 0..3 {
            books.book((0, 0), 0, 0, &End::Ok, spent());
        }
        books.cells[0][0].picked = 3;
        assert!(books.check_conservation(Some(&[vec![3]]), &flows).is_ok());
        assert!(books.check_conservation(None, &flows).is_ok());
        for scheduled in [2, 4] {
            let error = books.check_conservation(Some(&[vec![scheduled]]), &flows).unwrap_err();
            assert!(error.kind() == ErrorKind::NoEvidence && error.what().contains("browse"), "{error:?}");
        }
        books.cells[0][0].picked = 4;
        assert_eq!(books.check_conservation(None, &flows).unwrap_err().kind(), ErrorKind::NoEvidence);
    }

    #[test]
    fn long_runs_keep_a_bounded_number_of_intervals() {
        let mut books = Books::new(1, 1);
        for second in 0..10_000 {
            books.book((0, 0), second * 1_000_000_000, second * 1_000_000_000, &End::Ok, spent());
        }
        assert!(books.seconds.len() <= super::MOST_INTERVALS && books.interval == 16, "{}", books.interval);
        assert_eq!(books.seconds.iter().map(|second| second.due).sum::<u64>(), 10_000);
        assert_eq!(books.seconds.iter().filter_map(|s| s.response.as_ref()).map(|r| r.len()).sum::<u64>(), 10_000);
    }

    #[test]
    fn steady_means_five_seconds_alike_and_without_failures() {
        let is_steady = |responses: &[u64], end: End| {
            let mut books = Books::new(1, 1);
            for (second, response) in responses.iter().enumerate() {
                let at = second as u64 * 1_000_000_000;
                books.book((0, 0), at, at, &end, Spent { response: *response * 1_000, ..spent() });
            }
            books.is_steady(0, responses.len() as u64 * 1_000_000_000)
        };
        assert!(is_steady(&[9_000, 3_000, 3_100, 3_000, 3_050, 3_000], End::Ok));
        assert!(!is_steady(&[3_000, 3_000, 3_000, 3_000, 3_400], End::Ok), "still rising");
        assert!(!is_steady(&[3_000; 4], End::Ok), "too short");
        assert!(!is_steady(&[3_000; 6], End::Timeout), "nothing succeeds");
    }

    #[test]
    fn kinds_beyond_the_most_are_counted_as_other() {
        let mut books = Books::new(1, 1);
        for kind in (0..MOST_KINDS + 10).chain(0..2) {
            books.book((0, 0), 0, 0, &error(kind), spent());
        }
        let cell = &books.cells[0][0];
        assert_eq!((cell.errors.len(), cell.errors["other"], cell.errors["kind 0"]), (MOST_KINDS + 1, 10, 2));
        assert_eq!(cell.ended(), MOST_KINDS as u64 + 12);
    }
}
