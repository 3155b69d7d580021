//! Sessions over time, and what may be concluded from them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use harness_core::wait::seconds;
use harness_core::{CoreResult, Outcome};
use serde::{Deserialize, Serialize};

use super::Session;
use crate::postgres::checks::sampling::{hold, widest};

/// Sessions that are shown in a message before the rest is counted.
const SHOWN: usize = 5;

/// One sample: how many sessions, by state, by application and by what they wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionPoint {
    /// Time since sampling began.
    pub at: Duration,
    /// All client sessions of the database.
    pub total: u32,
    /// By state.
    pub by_state: BTreeMap<String, u32>,
    /// By application name.
    pub by_application: BTreeMap<String, u32>,
    /// By wait event (type and event) of the sessions that run a statement.
    pub by_wait: BTreeMap<String, u32>,
    /// Sessions whose state and statement the observer may not see; they count in `total` only.
    pub hidden: u32,
    /// The longest time a session has been idle in its transaction.
    pub longest_idle_in_transaction: Option<Duration>,
    /// The longest time a transaction has been open.
    pub longest_transaction: Option<Duration>,
    /// The longest time a statement has been running.
    pub longest_query: Option<Duration>,
}

/// Something that lasted: whose, how long at least, and when it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lasting {
    /// How long it had lasted when it was seen.
    pub lasted: Duration,
    /// When it was seen, since sampling began.
    pub at: Duration,
    /// Whose it was.
    pub session: Session,
}

/// Sessions over time. A sample that failed is a gap, never a zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionSeries {
    /// The samples, in order.
    pub points: Vec<SessionPoint>,
    /// Samples that failed: when, and why.
    pub gaps: Vec<(Duration, String)>,
    /// How long sampling went on.
    pub lasted: Duration,
    /// The session seen idle in its transaction for the longest time.
    pub longest_idle_in_transaction: Option<Lasting>,
    /// The session with the longest open transaction.
    pub longest_transaction: Option<Lasting>,
    /// The session with the longest running statement.
    pub longest_query: Option<Lasting>,
    /// The sessions of the first sample.
    pub at_start: Vec<Session>,
    /// The sessions of the last sample.
    pub at_end: Vec<Session>,
}

type Age = fn(&Session) -> Option<Duration>;

const IDLE_IN_TRANSACTION: Age = |session| session.is_idle_in_transaction().then_some(session.in_state);
const TRANSACTION: Age = |session| session.in_transaction;
const QUERY: Age = |session| (session.state == "active").then_some(session.in_state);

impl SessionPoint {
    pub(super) fn of(at: Duration, sessions: &[Session]) -> Self {
        let mut point = Self { at, total: u32::try_from(sessions.len()).unwrap_or(u32::MAX), ..Self::default() };
        for session in sessions {
            *point.by_application.entry(session.application.clone()).or_default() += 1;
            point.hidden += u32::from(session.is_hidden);
            *point.by_state.entry(session.state.clone()).or_default() += 1;
            if let Some(event) = session.waits_for.as_ref().filter(|_| session.state == "active") {
                *point.by_wait.entry(event.clone()).or_default() += 1;
            }
        }
        let longest = |age: Age| sessions.iter().filter_map(age).max();
        point.longest_idle_in_transaction = longest(IDLE_IN_TRANSACTION);
        point.longest_transaction = longest(TRANSACTION);
        point.longest_query = longest(QUERY);
        point
    }
}

impl SessionSeries {
    /// Adds one sample.
    pub(super) fn push(&mut self, at: Duration, sessions: Vec<Session>) {
        self.points.push(SessionPoint::of(at, &sessions));
        for (longest, age) in [
            (&mut self.longest_idle_in_transaction, IDLE_IN_TRANSACTION),
            (&mut self.longest_transaction, TRANSACTION),
            (&mut self.longest_query, QUERY),
        ] {
            for session in &sessions {
                if let Some(lasted) = age(session)
                    && longest.as_ref().is_none_or(|known| known.lasted < lasted)
                {
                    *longest = Some(Lasting { lasted, at, session: session.clone() });
                }
            }
        }
        if self.points.len() == 1 {
            self.at_start.clone_from(&sessions);
        }
        self.at_end = sessions;
        self.lasted = self.lasted.max(at);
    }

    /// The largest number of sessions seen; `None` without samples.
    #[must_use]
    pub fn max(&self) -> Option<u32> {
        self.points.iter().map(|point| point.total).max()
    }

    /// The number of sessions at the start.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.points.first().map(|point| point.total)
    }

    /// The number of sessions at the end.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.points.last().map(|point| point.total)
    }

    /// The longest time without a sample: what is shorter may have happened unseen.
    #[must_use]
    pub fn widest_gap(&self) -> Duration {
        widest(self.points.iter().map(|point| point.at), self.lasted)
    }

    /// `"40 samples, 2 gaps"`.
    fn grounds(&self) -> String {
        match self.gaps.last() {
            None => format!("{} samples, no gap", self.points.len()),
            Some((at, why)) => {
                format!(
                    "{} samples, gaps: {}, the last at +{}: {why}",
                    self.points.len(),
                    self.gaps.len(),
                    seconds(*at)
                )
            }
        }
    }

    /// Why nothing can be concluded from what was not seen: no sample, or no more samples than gaps.
    fn blind(&self) -> Option<Outcome> {
        let blind = self.points.is_empty() || self.gaps.len() >= self.points.len();
        blind.then(|| Outcome::no_evidence(format!("too few samples of sessions ({})", self.grounds())))
    }

    /// Passes when fewer than `limit` sessions were there at any time (strictly: 25 is not below 25).
    #[must_use]
    pub fn below(&self, limit: u32) -> Outcome {
        let worst = self.points.iter().max_by_key(|point| point.total);
        if let Some(worst) = worst.filter(|worst| worst.total >= limit) {
            let holders: Vec<String> =
                worst.by_application.iter().map(|(name, n)| format!("{n} of `{name}`")).collect();
            let (total, at) = (worst.total, seconds(worst.at));
            return Outcome::fail(format!(
                "{total} sessions at +{at}, fewer than {limit} are allowed: {}",
                holders.join(", ")
            ));
        }
        let most = self.max().unwrap_or_default();
        self.blind().unwrap_or_else(|| Outcome::pass(format!("at most {most} sessions in {}", self.grounds())))
    }

    /// Passes when this application never had more than `cap` sessions: the cap of its pool, as the server counts. An
    /// application that was never seen is no evidence.
    #[must_use]
    pub fn at_most_of(&self, application: &str, cap: u32) -> Outcome {
        let of = |point: &SessionPoint| point.by_application.get(application).copied().unwrap_or_default();
        let Some(worst) = self.points.iter().max_by_key(|point| of(point)).filter(|point| of(point) > 0) else {
            let seen: BTreeSet<&str> =
                self.points.iter().flat_map(|point| point.by_application.keys()).map(String::as_str).collect();
            let why = format!("no session of `{application}` was seen, only of {seen:?} ({})", self.grounds());
            return Outcome::no_evidence(why);
        };
        let (most, at) = (of(worst), seconds(worst.at));
        if most > cap {
            return Outcome::fail(format!(
                "{most} sessions of `{application}` at +{at}: its pool goes beyond its cap of {cap}"
            ));
        }
        let pass = || Outcome::pass(format!("at most {most} sessions of `{application}` in {}", self.grounds()));
        self.blind().unwrap_or_else(pass)
    }

    /// Passes when as many sessions are left at the end as were there at the start: none leaked, none lost. Those that are
    /// left over are named, with their last statement and since when.
    #[must_use]
    pub fn ends_as_it_began(&self) -> Outcome {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return Outcome::no_evidence("no sample of sessions");
        };
        if self.points.len() < 2 {
            return Outcome::no_evidence("fewer than two samples of sessions");
        }
        if let Some((at, why)) = self.gaps.last().filter(|(at, _)| *at > last.at) {
            return Outcome::no_evidence(format!("the end was not seen, blind since +{}: {why}", seconds(*at)));
        }
        if first.total == last.total {
            return Outcome::pass(format!("{} sessions at start and end", first.total));
        }
        let before: BTreeSet<i32> = self.at_start.iter().map(|session| session.pid).collect();
        let new: Vec<String> =
            self.at_end.iter().filter(|session| !before.contains(&session.pid)).map(Session::to_string).collect();
        let (shown, more) = (new.iter().take(SHOWN).cloned().collect::<Vec<_>>(), new.len().saturating_sub(SHOWN));
        let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        Outcome::fail(format!(
            "{} sessions at the start, {} at the end; there at the end only:\n  {}{more}",
            first.total,
            last.total,
            shown.join("\n  ")
        ))
    }

    /// Passes when no session was idle in its transaction for longer than `limit`: such a session keeps its locks and holds
    /// back vacuum.
    #[must_use]
    pub fn no_idle_in_transaction_longer_than(&self, limit: Duration) -> Outcome {
        self.none_longer(self.longest_idle_in_transaction.as_ref(), "idle in transaction", limit)
    }

    /// Passes when no transaction was open for longer than `limit`.
    #[must_use]
    pub fn no_transaction_longer_than(&self, limit: Duration) -> Outcome {
        self.none_longer(self.longest_transaction.as_ref(), "in one transaction", limit)
    }

    /// Passes when no statement ran for longer than `limit`.
    #[must_use]
    pub fn no_query_longer_than(&self, limit: Duration) -> Outcome {
        self.none_longer(self.longest_query.as_ref(), "in one statement", limit)
    }

    fn none_longer(&self, longest: Option<&Lasting>, what: &str, limit: Duration) -> Outcome {
        if let Some(worst) = longest.filter(|longest| longest.lasted > limit) {
            return Outcome::fail(format!(
                "a session was {what} for {} or longer, {} is allowed; seen at +{}:\n  {}",
                seconds(worst.lasted),
                seconds(limit),
                seconds(worst.at),
                worst.session
            ));
        }
        if let Some(outcome) = self.blind() {
            return outcome;
        }
        if let Some(point) = self.points.iter().find(|point| point.hidden > 0) {
            return Outcome::no_evidence(format!(
                "the observer may not see into {} sessions: grant it pg_read_all_stats, and set track_activities",
                point.hidden
            ));
        }
        let unseen = self.widest_gap();
        if unseen > limit {
            let unseen = seconds(unseen);
            return Outcome::no_evidence(format!("nothing was seen for {unseen}, in which it may have lasted longer"));
        }
        let most = longest.map_or_else(|| "never".to_owned(), |longest| format!("at most {}", seconds(longest.lasted)));
        Outcome::pass(format!("{what}: {most}, in {} at most {} apart", self.grounds(), seconds(unseen)))
    }

    /// The failed [`SessionSeries::below`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`](harness_core::ErrorKind::Assertion) when the limit was reached;
    /// [`ErrorKind::NoEvidence`](harness_core::ErrorKind::NoEvidence) without samples.
    pub fn check_below(&self, limit: u32) -> CoreResult<&Self> {
        hold(self.below(limit)).map(|()| self)
    }

    /// The failed [`SessionSeries::at_most_of`] as an error.
    ///
    /// # Errors
    /// As [`SessionSeries::check_below`].
    pub fn check_at_most_of(&self, application: &str, cap: u32) -> CoreResult<&Self> {
        hold(self.at_most_of(application, cap)).map(|()| self)
    }

    /// The failed [`SessionSeries::ends_as_it_began`] as an error.
    ///
    /// # Errors
    /// As [`SessionSeries::check_below`].
    pub fn check_ends_as_it_began(&self) -> CoreResult<&Self> {
        hold(self.ends_as_it_began()).map(|()| self)
    }

    /// The failed [`SessionSeries::no_idle_in_transaction_longer_than`] as an error.
    ///
    /// # Errors
    /// As [`SessionSeries::check_below`]; also no evidence when samples were too far apart to tell.
    pub fn check_no_idle_in_transaction_longer_than(&self, limit: Duration) -> CoreResult<&Self> {
        hold(self.no_idle_in_transaction_longer_than(limit)).map(|()| self)
    }

    /// The failed [`SessionSeries::no_transaction_longer_than`] as an error.
    ///
    /// # Errors
    /// As [`SessionSeries::check_no_idle_in_transaction_longer_than`].
    pub fn check_no_transaction_longer_than(&self, limit: Duration) -> CoreResult<&Self> {
        hold(self.no_transaction_longer_than(limit)).map(|()| self)
    }

    /// The failed [`SessionSeries::no_query_longer_than`] as an error.
    ///
    /// # Errors
    /// As [`SessionSeries::check_no_idle_in_transaction_longer_than`].
    pub fn check_no_query_longer_than(&self, limit: Duration) -> CoreResult<&Self> {
        hold(self.no_query_longer_than(limit)).map(|()| self)
    }
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
