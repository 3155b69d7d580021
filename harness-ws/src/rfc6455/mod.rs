//! Does a server speak RFC 6455? Every case of the Autobahn test suite's families 1 to 7 and 10, under the numbers people
//! know them by, the handshake, and what that suite lacks; run at the same time, on a connection each.
//!
//! The server has to echo each message. What it gets is right, odd or illegal; what it does is compared with what the
//! standard says. Besides the verdict each case tells how the connection ended, since closing has rules of its own.
//!
//! ```
//! # async fn example() -> harness_ws::Result {
//! use harness_ws::rfc6455::Rfc6455;
//!
//! let report = Rfc6455::of("ws://127.0.0.1:9001").run().await?;
//! print!("{report}"); // what is not right, a line each
//! report.findings().at_least(247).check()?;
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: compression (families 12 and 13), limits and round trips (9), clients.

mod case;
mod families;
mod handshake;
mod run;

use std::fmt;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use harness_core::{CoreResult, Error, ErrorKind};
use harness_props::Outcome;
use serde::Serialize;

use crate::findings::{Finding, Findings};
use crate::ws::{Connect, Ws};

/// What a case came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub enum Verdict {
    /// As the standard says.
    Ok,
    /// Within the standard, but later or laxer than it could be.
    NonStrict,
    /// Against the standard.
    Failed,
    /// Nothing is demanded; what happened is told.
    Informational,
    /// No connection, so no verdict.
    CouldNotRun,
}

/// How a case's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub enum Ending {
    /// As it should.
    Ok,
    /// With a close code that does not fit.
    WrongCode,
    /// Without both close frames, or with TCP left open, where a clean end is demanded.
    Unclean,
    /// The server left it to the client to end TCP (section 7.1.1 asks it of the server).
    FailedByClient,
    /// By the wrong side.
    Failed,
    /// With an answer to the close frame that breaks the protocol itself.
    Violation,
    /// Nothing is demanded.
    Informational,
    /// There was no connection.
    CouldNotRun,
}

/// One case and what it came to.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CaseReport {
    /// Its number: `5.19`; `H3` of the handshake, `F2` of what Autobahn lacks.
    pub id: &'static str,
    /// What is demanded, in a sentence.
    pub what: &'static str,
    /// The section of RFC 6455.
    pub section: &'static str,
    /// What it came to.
    pub verdict: Verdict,
    /// How the connection ended.
    pub ending: Ending,
    /// What was heard, in words.
    pub seen: String,
    /// How long it took.
    pub took: Duration,
    /// The conversation, where something was not right.
    pub evidence: Vec<String>,
}

impl Verdict {
    fn is_good(self) -> bool {
        matches!(self, Self::Ok | Self::Informational)
    }
}

impl CaseReport {
    fn could_not_run(id: &'static str, what: &'static str, section: &'static str, why: String) -> Self {
        let (verdict, ending) = (Verdict::CouldNotRun, Ending::CouldNotRun);
        Self { id, what, section, verdict, ending, seen: why, took: Duration::ZERO, evidence: Vec::new() }
    }

    /// The conclusion: a case that is against the standard or ends uncleanly fails, a lax one is degraded, one of which
    /// nothing is demanded is not applicable.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let told = format!("{} ({:?})", self.seen, self.ending);
        match (self.verdict, self.ending) {
            (Verdict::CouldNotRun, _) => Outcome::no_evidence(&self.seen),
            (Verdict::Informational, _) => Outcome::not_applicable(format!("nothing is demanded; {}", self.seen)),
            (Verdict::Failed, _) | (_, Ending::Failed | Ending::Unclean | Ending::Violation) => Outcome::fail(told),
            (Verdict::NonStrict, _) | (_, Ending::WrongCode | Ending::FailedByClient) => Outcome::degraded(told),
            (Verdict::Ok, _) => Outcome::pass(&self.seen),
        }
    }
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<7} {:?}/{:?}: {}; heard: {} (RFC 6455 §{})",
            self.id, self.verdict, self.ending, self.what, self.seen, self.section
        )
    }
}

/// A run of the cases against one server.
#[must_use = "nothing is run before `run`"]
#[derive(Debug, Clone)]
pub struct Rfc6455 {
    connect: Connect,
    at_once: usize,
    pace: run::Pace,
    only: Vec<String>,
    without: Vec<String>,
}

/// Every case and what it came to.
#[derive(Debug, Clone, Serialize)]
pub struct Rfc6455Report {
    target: String,
    cases: Vec<CaseReport>,
    took: Duration,
}

impl Rfc6455 {
    /// All cases against the echo server at this address.
    pub fn of(url: impl AsRef<str>) -> Self {
        Self::over(Ws::builder(url))
    }

    /// As [`Rfc6455::of`], with the headers, query and trust of a connection to be.
    pub fn over(connect: Connect) -> Self {
        let pace = run::Pace { limit: Duration::from_secs(2), apart: run::APART };
        Self { connect, at_once: 32, pace, only: Vec::new(), without: Vec::new() }
    }

    /// How many cases run at the same time; 32 unless told.
    pub fn at_once(mut self, cases: usize) -> Self {
        self.at_once = cases.max(1);
        self
    }

    /// How long a server may take for an answer; 2 s unless told. A case that waits on purpose waits a quarter of it.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.pace.limit = limit;
        self
    }

    /// How long passes between two writes that have to arrive apart; 1 ms unless told. With nought they are separate writes,
    /// and a server that is busy may read them together: so Autobahn does it, which waits 10 µs.
    pub fn apart(mut self, apart: Duration) -> Self {
        self.pace.apart = apart;
        self
    }

    /// Runs these only: numbers (`5.19`, `H2`) or the beginnings of them up to a dot (`6`, `7.9`), or `H` or `F`.
    pub fn only(mut self, cases: &[&str]) -> Self {
        self.only = cases.iter().map(|&case| case.to_owned()).collect();
        self
    }

    /// Leaves these out, told as in [`Rfc6455::only`].
    pub fn without(mut self, cases: &[&str]) -> Self {
        self.without = cases.iter().map(|&case| case.to_owned()).collect();
        self
    }

    /// Every case's number and what it demands.
    pub fn catalogue() -> impl Iterator<Item = (&'static str, &'static str)> {
        let known = families::CASES.iter().map(|case| (case.id.as_str(), case.what.as_str()));
        known.chain(handshake::ATTEMPTS.iter().map(|attempt| (attempt.id, attempt.what)))
    }

    fn is_wanted(&self, id: &str) -> bool {
        let fits = |name: &String| {
            let rest = id.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || matches!(name.as_str(), "H" | "F"))
        };
        (self.only.is_empty() || self.only.iter().any(fits)) && !self.without.iter().any(fits)
    }

    /// Runs the cases. A server that is not there, or does not echo, makes each of them [`Verdict::CouldNotRun`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an address that cannot be used, and when no case is wanted.
    pub async fn run(self) -> CoreResult<Rfc6455Report> {
        let begun = std::time::Instant::now();
        let target = self.connect.shown()?;
        let (connect, pace) = (self.connect.clone().open_limit(self.pace.limit), self.pace);
        let known: Vec<&'static case::Case> = families::CASES.iter().filter(|case| self.is_wanted(&case.id)).collect();
        let attempts: Vec<_> = handshake::ATTEMPTS.iter().filter(|attempt| self.is_wanted(attempt.id)).collect();
        if known.is_empty() && attempts.is_empty() {
            return Err(Error::new(ErrorKind::Config, "no case has a number of those that are wanted"));
        }
        let control = run::control(connect.clone(), pace.limit).await.map_err(|error| error.to_string());
        let shaken = stream::iter(attempts).map(|attempt| handshake::play(attempt, connect.clone(), pace.limit));
        let mut cases: Vec<CaseReport> = shaken.buffered(self.at_once).collect().await;
        match control {
            Ok(()) => {
                let played = stream::iter(known).map(|case| run::play(case, connect.clone(), pace));
                cases.extend(played.buffered(self.at_once).collect::<Vec<_>>().await);
            }
            Err(why) => cases.extend(known.into_iter().map(|case| {
                let why = format!("the server did not echo a message, which every case needs: {why}");
                CaseReport::could_not_run(&case.id, &case.what, case.section, why)
            })),
        }
        Ok(Rfc6455Report { target, cases, took: begun.elapsed() })
    }
}

impl Rfc6455Report {
    /// Every case, the handshake first.
    #[must_use]
    pub fn cases(&self) -> &[CaseReport] {
        &self.cases
    }

    /// One case by its number.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&CaseReport> {
        self.cases.iter().find(|case| case.id == id)
    }

    /// How many cases came to this.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.cases.iter().filter(|case| case.verdict == verdict).count()
    }

    /// The numbers of the cases that failed, by their verdict or by their ending.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        self.cases.iter().filter(|case| case.outcome().is_fail()).map(|case| case.id).collect()
    }

    /// The numbers of the cases that were not passed in every respect; those of which nothing is demanded are left out.
    #[must_use]
    pub fn deviations(&self) -> Vec<&'static str> {
        let deviates =
            |case: &&CaseReport| !matches!(case.outcome(), Outcome::Pass { .. } | Outcome::NotApplicable { .. });
        self.cases.iter().filter(deviates).map(|case| case.id).collect()
    }

    /// How long all of it took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The cases as findings, to be asserted with a minimum of executed ones.
    pub fn findings(&self) -> Findings {
        let finding = |case: &CaseReport| Finding {
            id: case.id,
            source: "RFC 6455",
            rule: case.what,
            outcome: case.outcome(),
            evidence: case.evidence.clone(),
        };
        Findings::new(self.target.clone(), self.cases.iter().map(finding).collect())
    }
}

impl fmt::Display for Rfc6455Report {
    /// The counts, and a line for each case that deviates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [Verdict::Ok, Verdict::NonStrict, Verdict::Failed, Verdict::Informational, Verdict::CouldNotRun]
            .map(|verdict| format!("{} {verdict:?}", self.count(verdict)));
        writeln!(f, "{}: {} cases, {}", self.target, self.cases.len(), counts.join(", "))?;
        let deviations = self.deviations();
        self.cases.iter().filter(|case| deviations.contains(&case.id)).try_for_each(|case| writeln!(f, "  {case}"))
    }
}
