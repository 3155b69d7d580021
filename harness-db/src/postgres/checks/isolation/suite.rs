//! The ten anomalies at the three levels, on this server: thirty cells, each with its trace.
//!
//! A probe that finds nothing has proven nothing unless it can see. So every anomaly is also provoked with the same
//! statements and no transaction around them: there each must be seen, or its row is no evidence.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::{Duration, Instant};

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use serde::{Deserialize, Serialize};
use sqlx::Connection as _;
use sqlx::postgres::PgConnectOptions;

use super::anomaly::{Anomaly, Level, Shown};
use super::locks::Observer;
use super::script::{Actor, Step, line, perform};
use super::stage::LIMIT;
use super::trace::{Trace, read_order};
use crate::clerk;
use crate::postgres::{Database, sql};

const CLEAN: &str = "delete from harness_suite.test; insert into harness_suite.test values (1, 10), (2, 20)";
const CREATE: &str = "create schema harness_suite; \
                      create table harness_suite.test (id int primary key, value int not null) \
                      with (autovacuum_enabled = off)";
const DROP: &str = "drop schema if exists harness_suite cascade";
const TRANSACTIONS: [&str; 2] = ["commit", "rollback"];

/// A run of the anomaly suite that has not begun: await it.
#[must_use = "nothing is probed until it is awaited"]
#[derive(Debug, Clone)]
pub struct Suite {
    options: PgConnectOptions,
    observe: PgConnectOptions,
    repeats: u32,
    begin: BTreeMap<Level, String>,
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The anomaly was not seen: a step had to wait, failed, or read what a serial execution would.
    Prevented,
    /// The anomaly was seen.
    Possible,
}

/// One anomaly at one level.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cell {
    /// Which anomaly was provoked.
    pub anomaly: Anomaly,
    /// At which level; `None` without transactions, where it must be seen.
    pub level: Option<Level>,
    /// What the first run found.
    pub finding: Finding,
    /// How many of the repeats found something else: any is a defect.
    pub contradictions: u32,
    /// What happened in the first run, or in the first that contradicts it.
    pub trace: Trace,
    /// The slowest run.
    pub longest: Duration,
}

/// What all probes found. Its `Display` is the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Table {
    /// The cells, level by level, those without transactions first.
    pub cells: Vec<Cell>,
    /// How often each was run.
    pub repeats: u32,
}

/// The cells of one level.
#[derive(Debug, Clone, Copy)]
pub struct Row<'t> {
    table: &'t Table,
    level: Level,
}

impl Suite {
    pub(super) fn new(db: &Database) -> Self {
        let begin = Level::ALL.map(|level| (level, format!("begin isolation level {level}")));
        let (options, observe) = (db.options(), db.server().options().clone());
        Self { options, observe, repeats: 1, begin: begin.into() }
    }

    /// Runs every cell this often; all runs of a cell must find the same.
    pub fn repeats(mut self, repeats: u32) -> Self {
        self.repeats = repeats.max(1);
        self
    }

    /// Sets the statement that begins a transaction at this level, to prove the one a service uses; `begin isolation level …`
    /// unless set.
    pub fn begin(mut self, level: Level, statement: impl Into<String>) -> Self {
        self.begin.insert(level, statement.into());
        self
    }

    async fn run(self) -> CoreResult<Table> {
        let mut observer = Observer::connect(&self.observe).await?;
        let mut keeper = sql::connect(&self.options).await?;
        sql::run(&mut keeper, "create the table of the anomaly suite", format!("{DROP}; {CREATE}")).await?;
        let mut actors = Vec::new();
        for _ in 0..3 {
            let mut actor = Actor::connect(&self.options).await?;
            sql::run(&mut actor.connection, "find the table", "set search_path = harness_suite").await?;
            actors.push(actor);
        }
        let mut table = Table { cells: Vec::new(), repeats: self.repeats };
        for repeat in 0..self.repeats {
            let levels = [None].into_iter().chain(Level::ALL.map(Some));
            let cells = levels.flat_map(|level| Anomaly::ALL.map(|anomaly| (level, anomaly)));
            for (at, (level, anomaly)) in cells.enumerate() {
                let cell = self.cell(level, anomaly, &mut actors, &mut observer).await?;
                match repeat {
                    0 => table.cells.push(cell),
                    _ => table.cells[at].again(cell),
                }
            }
        }
        for actor in actors {
            let _ = actor.connection.close().await;
        }
        sql::run(&mut keeper, "drop the table of the anomaly suite", DROP).await?;
        let _ = keeper.close().await;
        Ok(table)
    }

    async fn cell(
        &self,
        level: Option<Level>,
        anomaly: Anomaly,
        actors: &mut [Actor],
        observer: &mut Observer,
    ) -> CoreResult<Cell> {
        let recipe = anomaly.recipe();
        let sessions = recipe.sessions.len();
        let actors = &mut actors[..sessions];
        sql::run(&mut actors[0].connection, "fill the table", CLEAN).await?;
        let begin = level.and_then(|level| self.begin.get(&level));
        let (steps, turns) = plan(recipe.sessions, recipe.order, begin.map(|begin| &**begin));
        let names: Vec<String> = (1..=sessions).map(|number| format!("T{number}")).collect();
        let begun = Instant::now();
        let trace = perform(&names, &steps, actors, turns, observer, LIMIT).await?;
        let longest = begun.elapsed();
        let rows =
            sql::rows(&mut actors[0].connection, "read the table", "select id, value from test order by id").await?;
        let after: Vec<String> = rows.iter().map(line).collect();
        let finding = match (recipe.is_seen)(&Shown { trace: &trace, after: &after }) {
            true => Finding::Possible,
            false => Finding::Prevented,
        };
        Ok(Cell { anomaly, level, finding, contradictions: 0, trace, longest })
    }
}

/// The steps of each session and their order; without a `begin`, the same without transactions.
fn plan(sessions: &[&[&'static str]], order: &str, begin: Option<&str>) -> (Vec<Vec<Step>>, Vec<usize>) {
    let order = read_order(order, sessions.len()).unwrap_or_default();
    let is_kept = |text: &str| begin.is_some() || !TRANSACTIONS.contains(&text);
    let mut turns: Vec<usize> = begin.map(|_| (0..sessions.len()).collect()).unwrap_or_default();
    let mut next = vec![0; sessions.len()];
    for turn in order {
        if is_kept(sessions[turn][next[turn]]) {
            turns.push(turn);
        }
        next[turn] += 1;
    }
    let steps = sessions.iter().map(|texts| {
        let texts = texts.iter().copied().filter(|text| is_kept(text));
        begin.into_iter().chain(texts).map(Step::from).collect()
    });
    (steps.collect(), turns)
}

impl IntoFuture for Suite {
    type Output = CoreResult<Table>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(clerk::run(move || self.run()))
    }
}

impl Cell {
    fn again(&mut self, other: Self) {
        self.longest = self.longest.max(other.longest);
        if self.finding != other.finding {
            if self.contradictions == 0 {
                self.trace = other.trace;
            }
            self.contradictions += 1;
        }
    }

    fn place(&self) -> String {
        let level = self.level.map_or("no transaction", Level::sql);
        format!("{} at {level}", self.anomaly)
    }
}

impl Table {
    /// One cell; `None` as level for the probe without transactions.
    #[must_use]
    pub fn cell(&self, level: impl Into<Option<Level>>, anomaly: Anomaly) -> Option<&Cell> {
        let level = level.into();
        self.cells.iter().find(|cell| cell.level == level && cell.anomaly == anomaly)
    }

    /// The cells of one level: `table.level(Level::RepeatableRead).prevents(Anomaly::LostUpdate)`.
    #[must_use]
    pub fn level(&self, level: Level) -> Row<'_> {
        Row { table: self, level }
    }

    /// Passes when every cell is as published for Postgres, every probe has shown that it can see, and all repeats agree.
    #[must_use]
    pub fn reproduces_postgres(&self) -> Outcome {
        let each = Level::ALL.into_iter().flat_map(|level| Anomaly::ALL.map(|anomaly| (level, anomaly)));
        let judged = each.map(|(level, anomaly)| {
            self.judge(
                level,
                anomaly,
                match level.is_known_to_prevent(anomaly) {
                    true => Finding::Prevented,
                    false => Finding::Possible,
                },
            )
        });
        match Outcome::worst(judged) {
            Outcome::Pass { .. } => Outcome::pass(format!(
                "30 cells as published, each run {} times; every probe saw its anomaly without transactions",
                self.repeats
            )),
            other => other,
        }
    }

    /// [`Table::reproduces_postgres`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the first cell that differs, its trace and the table; [`ErrorKind::NoEvidence`] when a
    /// probe could not see its anomaly anywhere.
    pub fn check_reproduces_postgres(&self) -> CoreResult<&Self> {
        self.check(self.reproduces_postgres())
    }

    fn judge(&self, level: Level, anomaly: Anomaly, wanted: Finding) -> Outcome {
        let (Some(cell), Some(control)) = (self.cell(level, anomaly), self.cell(None, anomaly)) else {
            return Outcome::no_evidence(format!("{anomaly} at {level} was not probed"));
        };
        for cell in [control, cell] {
            if cell.contradictions > 0 {
                let what = format!("{} of {} runs differ from the first", cell.contradictions, self.repeats);
                return Outcome::fail(format!("{}: {what}\n{}", cell.place(), cell.trace));
            }
        }
        if control.finding == Finding::Prevented {
            let what = "was not seen even without transactions, so that its absence proves nothing";
            return Outcome::no_evidence(format!("{anomaly} {what}\n{}", control.trace));
        }
        match cell.finding == wanted {
            true => Outcome::pass(format!("{}: {}", cell.place(), cell.finding)),
            false => Outcome::fail(format!("{} is {}, not {wanted}\n{}", cell.place(), cell.finding, cell.trace)),
        }
    }

    fn check(&self, outcome: Outcome) -> CoreResult<&Self> {
        let (kind, text) = match outcome {
            Outcome::Fail { witness } => (ErrorKind::Assertion, witness),
            Outcome::NoEvidence { why } => (ErrorKind::NoEvidence, why),
            _ => return Ok(self),
        };
        let (what, trace) = text.split_once('\n').unwrap_or((&text, ""));
        let error = Error::new(kind, what).log(trace.lines()).log(self.to_string().lines());
        Err(error.remedy("look at what begins the transactions: another level than declared shows exactly this"))
    }
}

impl<'t> Row<'t> {
    /// Passes when the anomaly was not seen at this level, though the same probe saw it without transactions.
    #[must_use]
    pub fn prevents(&self, anomaly: Anomaly) -> Outcome {
        self.table.judge(self.level, anomaly, Finding::Prevented)
    }

    /// [`Row::prevents`] as an error.
    ///
    /// # Errors
    /// As [`Table::check_reproduces_postgres`].
    pub fn check_prevents(&self, anomaly: Anomaly) -> CoreResult<&'t Table> {
        self.table.check(self.prevents(anomaly))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prevented => "prevented",
            Self::Possible => "possible",
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<38}", "")?;
        for head in ["no transaction", "read committed", "repeatable read", "serializable"] {
            write!(f, "{head:<17}")?;
        }
        for anomaly in Anomaly::ALL {
            write!(f, "\n{:<38}", anomaly.to_string())?;
            for level in [None].into_iter().chain(Level::ALL.map(Some)) {
                let found = self.cell(level, anomaly).map_or_else(
                    || "?".to_owned(),
                    |cell| match cell.contradictions {
                        0 => cell.finding.to_string(),
                        _ => format!("{} (flaky)", cell.finding),
                    },
                );
                write!(f, "{found:<17}")?;
            }
        }
        Ok(())
    }
}
