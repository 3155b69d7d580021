//! The judge of interleavings: each is compared with the serial orders of the same functions.
//!
//! The grounds are view equivalence (C. Papadimitriou, "The Theory of Database Concurrency Control", 1986) as far as it can
//! be seen from outside: the final state, who succeeded, and the rows that were read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use serde::{Deserialize, Serialize};

use super::anomaly::Anomaly;
use super::trace::{Answer, Trace, order, short};
use super::wire::is_serialization_failure;

/// Rows of a state that a message shows.
const SHOWN: usize = 6;

/// How a session's function ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum End {
    /// It returned Ok.
    Done,
    /// It returned an error.
    Failed {
        /// The SQLSTATE when a serialization failure or a deadlock was the reason.
        failure: Option<String>,
        /// The error's text.
        message: String,
    },
    /// It took no part in this run.
    Absent,
}

/// One interleaving, and what it left.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Run {
    /// What happened, step by step.
    pub trace: Trace,
    /// How each session ended.
    pub ends: Vec<End>,
    /// The state afterwards, row by row.
    pub state: Vec<String>,
    /// The invariants that did not hold afterwards.
    pub broken: Vec<String>,
    /// How often a session was run again.
    pub retries: u32,
    /// A digest of what each session read.
    pub(super) reads: Vec<u64>,
}

/// All interleavings that were run, and the serial orders they are compared with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The interleavings, in the order in which they were run.
    pub runs: Vec<Run>,
    /// How many orders the statements of the sessions have, as counted when each ran alone.
    pub possible: u128,
    /// True when every order that locks allow was run.
    pub is_every: bool,
    /// True when fewer were run than were asked for.
    pub is_cut_short: bool,
    /// Says how the interleavings were chosen.
    pub choice: String,
    pub(super) sessions: Vec<String>,
    pub(super) initial: Vec<String>,
    /// Every serial order that was needed: who, in order, and what came of it.
    pub(super) serial: Vec<(Vec<usize>, Run)>,
    /// Why nothing can be concluded from states, if so.
    pub(super) blind: Option<String>,
    pub(super) has_invariants: bool,
}

impl Run {
    /// Sessions that returned Ok.
    pub(super) fn done(&self) -> BTreeSet<usize> {
        (0..self.ends.len()).filter(|who| self.ends[*who] == End::Done).collect()
    }

    fn pattern(&self) -> Vec<bool> {
        self.ends.iter().map(|end| *end == End::Done).collect()
    }

    /// Serialization failures and deadlocks among the answers of the server.
    fn failures(&self) -> usize {
        (0..self.ends.len()).flat_map(|who| self.trace.codes(who)).filter(|code| is_serialization_failure(code)).count()
    }
}

impl Report {
    /// What an interleaving shows, or nothing when it equals a serial order.
    ///
    /// - No serial order of the sessions that succeeded ends in its state. If two of them overwrite the same row of the
    ///   initial state (each when it runs alone), it is a [`Anomaly::LostUpdate`], otherwise a [`Anomaly::WriteSkew`].
    /// - Some serial order ends in its state, but in none of those did every session read what it read here:
    ///   [`Anomaly::ReadSkew`].
    ///
    /// A session that failed counts as one that did nothing, or as one that failed in the serial order too.
    #[must_use]
    pub fn anomaly_of(&self, run: &Run) -> Option<Anomaly> {
        let done = run.done();
        let fits = |who: &[usize], serial: &Run| {
            let same_part = who.iter().copied().collect::<BTreeSet<_>>() == done && serial.done() == done;
            same_part || (who.len() == run.ends.len() && serial.pattern() == run.pattern())
        };
        let mut equal = self.serial.iter().filter(|(who, serial)| fits(who, serial) && serial.state == run.state);
        let reads = |serial: &Run| done.iter().all(|who| serial.reads[*who] == run.reads[*who]);
        match equal.next() {
            Some((_, first)) if reads(first) || equal.any(|(_, serial)| reads(serial)) => None,
            Some(_) => Some(Anomaly::ReadSkew),
            None if self.overwrite_in_common(&done) => Some(Anomaly::LostUpdate),
            None => Some(Anomaly::WriteSkew),
        }
    }

    fn overwrite_in_common(&self, done: &BTreeSet<usize>) -> bool {
        let mut seen = BTreeSet::new();
        done.iter().flat_map(|who| self.overwritten(*who)).any(|row| !seen.insert(row))
    }

    /// Rows of the initial state that are gone when this session has run alone.
    fn overwritten(&self, who: usize) -> BTreeSet<&String> {
        let Some(alone) = self.alone(who) else { return BTreeSet::new() };
        self.initial.iter().filter(|row| !alone.state.contains(row)).collect()
    }

    fn alone(&self, who: usize) -> Option<&Run> {
        self.serial.iter().find(|(order, _)| order[..] == [who]).map(|(_, run)| run)
    }

    fn writers(&self) -> usize {
        (0..self.sessions.len()).filter(|who| self.alone(*who).is_some_and(|run| run.state != self.initial)).count()
    }

    /// Passes when no interleaving shows this anomaly as [`Report::anomaly_of`] defines it. [`Anomaly::LostUpdate`],
    /// [`Anomaly::WriteSkew`], [`Anomaly::PredicateWriteSkew`] (the same as seen from outside) and [`Anomaly::ReadSkew`] can
    /// be told from outside; the others are the [`suite`](super::suite)'s. Degraded when another anomaly of the final state
    /// was seen, or when not every interleaving could be run though that was asked for.
    #[must_use]
    pub fn forbids(&self, anomaly: Anomaly) -> Outcome {
        let wanted = match anomaly {
            Anomaly::PredicateWriteSkew => Anomaly::WriteSkew,
            Anomaly::LostUpdate | Anomaly::WriteSkew | Anomaly::ReadSkew => anomaly,
            other => {
                let why =
                    "cannot be told from the outside of a function; Postgres shows it or not for every function alike";
                return Outcome::no_evidence(format!("{other} {why}: ask isolation::suite"));
            }
        };
        let needed = if wanted == Anomaly::ReadSkew { 1 } else { 2 };
        self.judge(needed, &wanted.to_string(), |found| found == wanted)
    }

    /// Passes when every interleaving ends in the state of some serial order.
    #[must_use]
    pub fn serial_equivalent(&self) -> Outcome {
        self.judge(1, "a state that no serial order gives", |found| found != Anomaly::ReadSkew)
    }

    fn judge(&self, needed: usize, what: &str, is_wanted: impl Fn(Anomaly) -> bool) -> Outcome {
        if let Some(why) = &self.blind {
            return Outcome::no_evidence(why.clone());
        }
        if self.runs.is_empty() {
            return Outcome::no_evidence("no interleaving was run");
        }
        if self.writers() < needed {
            let what =
                format!("{} of {} sessions change the state when they run alone", self.writers(), self.sessions.len());
            return Outcome::no_evidence(format!("{what}, {needed} must: the state query does not see what they do"));
        }
        let mut found: BTreeMap<Anomaly, usize> = BTreeMap::new();
        let kinds: Vec<Option<Anomaly>> = self.runs.iter().map(|run| self.anomaly_of(run)).collect();
        kinds.iter().flatten().for_each(|kind| *found.entry(*kind).or_default() += 1);
        let bad = kinds.iter().flatten().filter(|kind| is_wanted(**kind)).count();
        if let Some(at) = kinds.iter().position(|kind| kind.is_some_and(&is_wanted)) {
            let head = format!("{what} in {bad} of {} interleavings", self.runs.len());
            return Outcome::fail(format!("{head}\n{}", self.tell(&self.runs[at])));
        }
        let others = found.iter().filter(|(kind, _)| **kind != Anomaly::ReadSkew);
        let others: Vec<String> = others.map(|(kind, count)| format!("{kind} in {count}")).collect();
        match (others.is_empty(), !self.is_cut_short) {
            (true, true) => Outcome::pass(self.to_string()),
            (true, false) => Outcome::degraded(format!("not all could be run: {self}")),
            (false, _) => Outcome::degraded(format!("{self}; not asked about, but seen: {}", others.join(", "))),
        }
    }

    /// Passes when every invariant held after every interleaving and after every serial order.
    #[must_use]
    pub fn invariants(&self) -> Outcome {
        if !self.has_invariants {
            return Outcome::no_evidence("no invariant was declared");
        }
        let broken = |run: &&Run| !run.broken.is_empty();
        if let Some((who, run)) = self.serial.iter().find(|(_, run)| broken(&run)) {
            let what = format!("{}, without any interleaving: {}", run.broken.join("; "), self.names(who));
            return Outcome::fail(format!("{what}\n{}", run.trace));
        }
        let count = self.runs.iter().filter(broken).count();
        match self.runs.iter().find(broken) {
            Some(run) => {
                let head = format!("{} after {count} of {} interleavings", run.broken.join("; "), self.runs.len());
                Outcome::fail(format!("{head}\n{}", self.tell(run)))
            }
            None if self.runs.is_empty() => Outcome::no_evidence("no interleaving was run"),
            None => Outcome::pass(self.to_string()),
        }
    }

    /// Passes when serialization failures and deadlocks happened, and none of them reached a caller: all were run again.
    #[must_use]
    pub fn none_surface(&self) -> Outcome {
        let surfaced = |run: &&Run| run.ends.iter().any(|end| matches!(end, End::Failed { failure: Some(_), .. }));
        let (failures, count) = (self.failures(), self.runs.iter().filter(surfaced).count());
        match self.runs.iter().find(surfaced) {
            Some(run) => {
                let head = format!(
                    "a serialization failure reaches the caller in {count} of {} interleavings",
                    self.runs.len()
                );
                Outcome::fail(format!("{head}\n{}", self.tell(run)))
            }
            None if failures == 0 => {
                Outcome::no_evidence("no serialization failure happened, so that none could surface")
            }
            None => Outcome::pass(format!("{failures} serialization failures in {}, none surfaced", self.runs.len())),
        }
    }

    /// Serialization failures and deadlocks over all interleavings, as the server reported them.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.runs.iter().map(Run::failures).sum()
    }

    /// How often a session was run again, over all interleavings.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.runs.iter().map(|run| run.retries).sum()
    }

    /// [`Report::none_surface`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the interleaving, [`ErrorKind::NoEvidence`] when no failure happened.
    pub fn check_none_surface(&self) -> CoreResult<&Self> {
        checked(self.none_surface(), self.again())?;
        Ok(self)
    }

    pub(super) fn again(&self) -> &'static str {
        "run one interleaving alone with .only(\"…\"), as printed; lock what is read (select … for update), or use \
         serializable with .retries(n)"
    }

    /// What a person needs of an interleaving: its order, its table, its state beside the serial ones.
    fn tell(&self, run: &Run) -> String {
        let mut text = format!("again: .only(\"{}\")\n{}\n", run.trace.order(), run.trace);
        for (name, end) in self.sessions.iter().zip(&run.ends) {
            if let End::Failed { message, .. } = end {
                text += &format!("{name} returned: {}\n", short(message, 160));
            }
        }
        text += &format!("leaves          {}", self.difference(&run.state));
        let done = run.done();
        let of_these = |who: &[usize]| who.iter().copied().collect::<BTreeSet<_>>() == done;
        for (who, serial) in self.serial.iter().filter(|(who, _)| of_these(who)) {
            text += &format!("\nserial {:<8} {}", order(who), self.difference(&serial.state));
        }
        text
    }

    /// The rows of a state that are not in the initial one.
    fn difference(&self, state: &[String]) -> String {
        let new: Vec<String> =
            state.iter().filter(|row| !self.initial.contains(row)).map(|row| short(row, 80)).collect();
        let gone = self.initial.iter().filter(|row| !state.contains(row)).count();
        let more = if new.len() > SHOWN { format!(" … {} rows", new.len()) } else { String::new() };
        match (new.is_empty(), gone) {
            (true, 0) => "what was there before".to_owned(),
            (true, gone) => format!("{gone} rows fewer"),
            _ => format!("{}{more}", new[..new.len().min(SHOWN)].join(" | ")),
        }
    }

    fn names(&self, who: &[usize]) -> String {
        who.iter().map(|who| &*self.sessions[*who]).collect::<Vec<_>>().join(", then ")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocked = |run: &&Run| run.trace.moments.iter().any(|it| matches!(it.answer, Answer::Blocked { .. }));
        write!(
            f,
            "{} interleavings run, {}; {} orders of statements; {} of the runs met a lock; {} serialization failures, {} retries",
            self.runs.len(),
            self.choice,
            self.possible,
            self.runs.iter().filter(blocked).count(),
            self.failures(),
            self.retries()
        )
    }
}

/// A judgement as an error: the first line says what, the rest is shown below.
pub(super) fn checked(outcome: Outcome, remedy: &str) -> CoreResult {
    let (kind, text) = match outcome {
        Outcome::Fail { witness } => (ErrorKind::Assertion, witness),
        Outcome::NoEvidence { why } => (ErrorKind::NoEvidence, why),
        _ => return Ok(()),
    };
    let (what, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let error = Error::new(kind, what).log(rest.lines());
    Err(if kind == ErrorKind::Assertion { error.remedy(remedy) } else { error })
}
