//! The probe: the user's functions, at every order of their statements.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;

use super::anomaly::Anomaly;
use super::judge::{Report, checked};
use super::orders::possible;
use super::stage::LIMIT;
use super::theatre::Theatre;
use crate::postgres::{Database, sql};

/// Sessions that take part; each more multiplies the orders.
const MOST_SESSIONS: usize = 5;

/// Functions that are run against each other; made by [`probe`](super::probe).
///
/// Its futures run on the task of the caller, because the functions need not be `Send`. When a run cannot be carried to its
/// end, the tables stay as it left them.
#[must_use = "nothing is run until one of its judges is awaited"]
pub struct Probe<'d> {
    pub(super) database: &'d Database,
    pub(super) players: Vec<Player<'d>>,
    pub(super) invariants: Vec<(String, String)>,
    pub(super) setup: Option<String>,
    pub(super) state: Option<String>,
    pub(super) retries: u32,
    pub(super) limit: Duration,
    pub(super) most: Option<usize>,
    pub(super) only: Option<String>,
    pub(super) seed: Option<u64>,
}

pub(super) type Part<'d> = Pin<Box<dyn Future<Output = Result<(), Trouble>> + 'd>>;

pub(super) struct Player<'d> {
    pub(super) name: String,
    pub(super) start: Box<dyn Fn(Door) -> Part<'d> + 'd>,
}

/// How a function reaches the database.
pub(super) struct Door {
    pub(super) options: PgConnectOptions,
    pub(super) url: String,
}

pub(super) enum Trouble {
    /// The function returned an error.
    Function(String),
    /// The harness could not do its part.
    Harness(Error),
}

impl fmt::Debug for Probe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.players.iter().map(|player| &*player.name).collect();
        f.debug_struct("Probe").field("sessions", &names).field("retries", &self.retries).finish_non_exhaustive()
    }
}

impl<'d> Probe<'d> {
    pub(super) fn new(database: &'d Database) -> Self {
        Self {
            database,
            players: Vec::new(),
            invariants: Vec::new(),
            setup: None,
            state: None,
            retries: 0,
            limit: LIMIT,
            most: None,
            only: None,
            seed: None,
        }
    }

    /// Adds a session: a function over a connection, `async |c| transfer(c, 1, 2, 10).await`. What it leaves uncommitted is
    /// rolled back when it returns.
    pub fn session<F, T, E>(self, function: F) -> Self
    where
        F: AsyncFn(&mut PgConnection) -> Result<T, E> + 'd,
        E: fmt::Display,
    {
        let function = Rc::new(function);
        self.player(move |door| {
            let function = Rc::clone(&function);
            Box::pin(async move {
                let mut connection = sql::connect(&door.options).await.map_err(Trouble::Harness)?;
                function(&mut connection).await.map(drop).map_err(|error| Trouble::Function(error.to_string()))
            })
        })
    }

    /// Adds a session that makes its own connections from a URL: a service's own pool, or another driver. They are closed
    /// when it returns.
    pub fn session_url<F, T, E>(self, function: F) -> Self
    where
        F: AsyncFn(String) -> Result<T, E> + 'd,
        E: fmt::Display,
    {
        let function = Rc::new(function);
        self.player(move |door| {
            let function = Rc::clone(&function);
            Box::pin(
                async move { function(door.url).await.map(drop).map_err(|error| Trouble::Function(error.to_string())) },
            )
        })
    }

    fn player(mut self, start: impl Fn(Door) -> Part<'d> + 'd) -> Self {
        let name = format!("session {}", self.players.len() + 1);
        self.players.push(Player { name, start: Box::new(start) });
        self
    }

    /// Sets the SQL that makes the state every interleaving begins with. Unset: the tables as they are when the probe begins
    /// are copied, and put back before each.
    pub fn setup(mut self, sql: impl Into<String>) -> Self {
        self.setup = Some(sql.into());
        self
    }

    /// Sets the query whose rows are the state that is compared. Unset: all rows of all tables. Needed when tables hold
    /// what differs from run to run, such as times.
    pub fn state(mut self, query: impl Into<String>) -> Self {
        self.state = Some(query.into());
        self
    }

    /// Adds a query that must give true after every interleaving: `("money stays", "select sum(n) = 200 from accounts")`.
    pub fn invariant(mut self, name: impl Into<String>, query: impl Into<String>) -> Self {
        self.invariants.push((name.into(), query.into()));
        self
    }

    /// Runs a session again, up to this often and on a new connection, when it fails by a serialization failure (`40001`) or
    /// a deadlock (`40P01`), as Postgres asks of its clients. 0 unless set.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets how long a statement may stay without an answer and without a lock that explains it, and how long a function
    /// may stay without a statement; 10 s unless set.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Every order of the statements that locks allow: what is run unless something else is said.
    pub fn every_interleaving(mut self) -> Self {
        (self.most, self.only) = (None, None);
        self
    }

    /// Up to this many interleavings: all when there are no more, else a choice by the run's seed.
    pub fn at_most(mut self, most: usize) -> Self {
        self.most = Some(most.max(1));
        self
    }

    /// Sets the seed of the choice; the run's seed unless set.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// This one interleaving, as a failure prints it: `"1 2 1 2"`.
    pub fn only(mut self, order: impl Into<String>) -> Self {
        self.only = Some(order.into());
        self
    }

    /// Holds when no interleaving shows the anomaly, and every declared invariant holds. What counts as the anomaly is
    /// defined at [`Report::anomaly_of`].
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the interleaving as a table, what it leaves beside what serial orders leave, and the
    /// line that runs it again; [`ErrorKind::NoEvidence`] when nothing could be concluded; and as [`Probe::run`].
    pub async fn forbids(self, anomaly: Anomaly) -> CoreResult<Report> {
        self.judged(|report| report.forbids(anomaly)).await
    }

    /// Holds when every interleaving ends in the state of some serial order, and every declared invariant holds.
    ///
    /// # Errors
    /// As [`Probe::forbids`].
    pub async fn serial_equivalent(self) -> CoreResult<Report> {
        self.judged(Report::serial_equivalent).await
    }

    /// Holds when every declared invariant holds after every interleaving.
    ///
    /// # Errors
    /// As [`Probe::forbids`].
    pub async fn keeps_invariants(self) -> CoreResult<Report> {
        self.judged(Report::invariants).await
    }

    async fn judged(self, judge: impl FnOnce(&Report) -> Outcome) -> CoreResult<Report> {
        let report = self.run().await?;
        let outcome = judge(&report);
        let outcome = if report.has_invariants { outcome.worse(report.invariants()) } else { outcome };
        if let Outcome::Degraded { why } = &outcome {
            eprintln!("harness: degraded: {why}");
        }
        checked(outcome, report.again())?;
        Ok(report)
    }

    /// Runs the interleavings and judges nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when a function fails alone or sends no statement; [`ErrorKind::Config`] when there are too
    /// many interleavings and no number was given; [`ErrorKind::Timeout`] naming the session and the step that got no answer.
    pub async fn run(self) -> CoreResult<Report> {
        if !(2..=MOST_SESSIONS).contains(&self.players.len()) {
            let what = format!("a probe takes 2 to {MOST_SESSIONS} sessions, not {}", self.players.len());
            return Err(Error::new(ErrorKind::Config, what));
        }
        let mut theatre = Theatre::open(&self).await?;
        let mut report = theatre.rehearse().await?;
        let steps: Vec<usize> =
            report.serial[..self.players.len()].iter().map(|(_, run)| run.trace.turns.len()).collect();
        report.possible = possible(&steps);
        theatre.play_all(&steps, &mut report).await?;
        theatre.serial_orders(&mut report).await?;
        theatre.ground.leave().await?;
        Ok(report)
    }
}
