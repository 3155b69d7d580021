//! Sessions that are lists of steps, and an order of their steps.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::locks::Observer;
use super::stage::{Event, Events, LIMIT, Play, Stage};
use super::trace::{Answer, Trace, read_order};
use crate::postgres::frames::Gate;
use crate::postgres::{Database, sql};

type Called<'c> = Pin<Box<dyn Future<Output = Result<String, sqlx::Error>> + 'c>>;
type Call = Rc<dyn for<'c> Fn(&'c mut PgConnection) -> Called<'c>>;

/// One step of a session.
#[derive(Clone)]
pub struct Step(Kind);

#[derive(Clone)]
enum Kind {
    Sql(String),
    Call(String, Call),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Step {
    /// A statement.
    pub fn sql(text: impl Into<String>) -> Self {
        Self(Kind::Sql(text.into()))
    }

    /// A function over the session's connection, under a name. Its value is shown in the trace.
    pub fn call<F, T>(name: impl Into<String>, function: F) -> Self
    where
        F: AsyncFn(&mut PgConnection) -> Result<T, sqlx::Error> + 'static,
        T: fmt::Debug,
    {
        let function = Rc::new(function);
        let call: Call = Rc::new(move |connection| {
            let function = Rc::clone(&function);
            Box::pin(async move { function(connection).await.map(|value| format!("{value:?}")) })
        });
        Self(Kind::Call(name.into(), call))
    }

    fn text(&self) -> &str {
        match &self.0 {
            Kind::Sql(text) | Kind::Call(text, _) => text,
        }
    }

    async fn take(&self, connection: &mut PgConnection) -> Result<Answer, sqlx::Error> {
        let done = match &self.0 {
            Kind::Sql(text) => statement(connection, text).await,
            Kind::Call(_, call) => call(connection).await.map(|tag| Answer::Done { tag, rows: Vec::new() }),
        };
        match done {
            Err(sqlx::Error::Database(error)) => Ok(Answer::Failed {
                code: error.code().unwrap_or_default().into_owned(),
                message: error.message().to_owned(),
            }),
            other => other,
        }
    }
}

impl From<&str> for Step {
    fn from(text: &str) -> Self {
        Self::sql(text)
    }
}

impl From<String> for Step {
    fn from(text: String) -> Self {
        Self::sql(text)
    }
}

async fn statement(connection: &mut PgConnection, text: &str) -> Result<Answer, sqlx::Error> {
    let lower = text.trim_start().to_ascii_lowercase();
    let verb = lower.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_owned();
    let query = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
    if matches!(&*verb, "select" | "with" | "values" | "table" | "show" | "explain") || lower.contains("returning") {
        let rows: Vec<String> = query.fetch_all(connection).await?.iter().map(line).collect();
        return Ok(Answer::Done { tag: format!("{} rows", rows.len()), rows });
    }
    let done = query.execute(connection).await?;
    let tag = match &*verb {
        "insert" | "update" | "delete" | "merge" | "copy" => {
            format!("{} {}", verb.to_uppercase(), done.rows_affected())
        }
        _ => verb.to_uppercase(),
    };
    Ok(Answer::Done { tag, rows: Vec::new() })
}

/// A row of the simple protocol, whose values are texts.
pub(super) fn line(row: &PgRow) -> String {
    let value = |at: usize| match row.try_get_raw(at) {
        Ok(value) => value.as_str().map_or_else(|_| "NULL".to_owned(), str::to_owned),
        Err(error) => error.to_string(),
    };
    (0..row.len()).map(value).collect::<Vec<_>>().join(", ")
}

/// Sessions with their steps, to be run in one order; made by [`script`](super::script).
#[must_use = "nothing happens until it is run"]
#[derive(Debug)]
pub struct Script<'d> {
    database: &'d Database,
    sessions: Vec<(String, Vec<Step>)>,
    order: Option<String>,
    limit: Duration,
}

impl<'d> Script<'d> {
    pub(super) fn new(database: &'d Database) -> Self {
        Self { database, sessions: Vec::new(), order: None, limit: LIMIT }
    }

    /// Adds a session, on a connection of its own.
    pub fn session(mut self, name: impl Into<String>, steps: impl IntoIterator<Item = impl Into<Step>>) -> Self {
        self.sessions.push((name.into(), steps.into_iter().map(Into::into).collect()));
        self
    }

    /// Sets the order: one number per step, that of its session, from 1: `"1 2 2 1"`. A turn whose session is blocked is
    /// taken later, as soon as the session is let go. Unset: the sessions one after another.
    pub fn order(mut self, order: impl Into<String>) -> Self {
        self.order = Some(order.into());
        self
    }

    /// Sets how long a step may stay without an answer and without a lock that explains it; 10 s unless set.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the order does not fit the steps, or when a session ends in a transaction that another
    /// one waits for; [`ErrorKind::Timeout`] naming the step without an answer, and the state of its locks.
    pub async fn run(self) -> CoreResult<Trace> {
        let turns = self.turns()?;
        let mut observer = Observer::connect(self.database.server().options()).await?;
        let mut actors = Vec::new();
        for _ in &self.sessions {
            actors.push(Actor::connect(&self.database.options()).await?);
        }
        let names: Vec<String> = self.sessions.iter().map(|(name, _)| name.clone()).collect();
        let steps: Vec<Vec<Step>> = self.sessions.into_iter().map(|(_, steps)| steps).collect();
        let trace = perform(&names, &steps, &mut actors, turns, &mut observer, self.limit).await?;
        for actor in actors {
            let _ = actor.connection.close().await;
        }
        Ok(trace)
    }

    fn turns(&self) -> CoreResult<Vec<usize>> {
        let in_sequence =
            || self.sessions.iter().enumerate().flat_map(|(who, (_, steps))| steps.iter().map(move |_| who));
        let Some(order) = &self.order else { return Ok(in_sequence().collect()) };
        let wrong = |why: String| {
            let counts: Vec<String> =
                self.sessions.iter().map(|(name, steps)| format!("{name} has {} steps", steps.len())).collect();
            Error::new(ErrorKind::Config, format!("the order `{order}` does not fit: {why}")).tried(counts.join(", "))
        };
        let turns = read_order(order, self.sessions.len()).map_err(|word| wrong(format!("`{word}` is no session")))?;
        for (who, (name, steps)) in self.sessions.iter().enumerate() {
            let given = turns.iter().filter(|turn| **turn == who).count();
            if given != steps.len() {
                return Err(wrong(format!("it gives {name} {given} turns")));
            }
        }
        Ok(turns)
    }
}

/// A connection that plays steps.
pub(super) struct Actor {
    pub(super) connection: PgConnection,
    pid: i32,
}

impl Actor {
    pub(super) async fn connect(options: &sqlx::postgres::PgConnectOptions) -> CoreResult<Self> {
        let mut connection = sql::connect(options).await?;
        // Only superusers may; for others a deadlock ends after the server's own time, 1 s unless configured.
        let _ = sql::run(&mut connection, "hasten the deadlock detector", super::HASTEN).await;
        let rows = sql::rows(&mut connection, "ask for the server process", "select pg_backend_pid() as pid").await?;
        let pid = rows.first().map(|row| row.try_get("pid")).transpose();
        let pid = pid.map_err(|error| sql::query_error("ask for the server process", error))?.unwrap_or_default();
        Ok(Self { connection, pid })
    }

    async fn play(&mut self, who: usize, steps: &[Step], events: Events) {
        let tell = |event| drop(events.send((who, event)));
        tell(Event::Connected(self.pid));
        for step in steps {
            let gate = Gate::new();
            tell(Event::AtGate(gate.clone()));
            gate.opened().await;
            tell(Event::Began(step.text().to_owned()));
            match step.take(&mut self.connection).await {
                Ok(answer) => tell(Event::Done(answer)),
                Err(error) => return tell(Event::Broke(sql::query_error(&format!("run `{}`", step.text()), error))),
            }
        }
        tell(Event::Ended);
    }
}

/// Runs lists of steps in an order; a turn whose session cannot take it is kept for later.
pub(super) async fn perform(
    names: &[String],
    steps: &[Vec<Step>],
    actors: &mut [Actor],
    turns: Vec<usize>,
    observer: &mut Observer,
    limit: Duration,
) -> CoreResult<Trace> {
    let (stage, events) = Stage::new(names, observer, limit);
    let plays = actors.iter_mut().zip(steps).enumerate();
    let plays =
        plays.map(|(who, (actor, steps))| Box::pin(actor.play(who, steps, events.clone())) as Play<'_>).collect();
    stage.run(plays, &mut in_order(turns)).await
}

/// Takes the first turn left whose session is ready; when none is left, the first session that is.
pub(super) fn in_order(turns: Vec<usize>) -> impl FnMut(&[usize]) -> usize {
    let mut left = turns;
    move |ready| match left.iter().position(|turn| ready.contains(turn)) {
        Some(at) => left.remove(at),
        None => ready[0],
    }
}
