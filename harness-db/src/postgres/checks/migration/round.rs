//! There and back: each migration up, down and up again, first with the rows of before, then with rows of its own.
//!
//! A way back that was tried on empty tables only has proven its syntax. So rows are put in between, and what the tables
//! hold is compared as well as what they are.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use harness_core::wait::within;
use harness_core::{CoreResult, Outcome};
use sqlx::{Connection as _, PgConnection, PgPool};

use super::apply::{Step, Way, run_sql};
use super::contents::{Contents, Extent};
use super::report::{RoundTripReport, StepReport};
use super::statements::split;
use super::{Answer, From, Migrations};
use crate::postgres::schema::Schema;
use crate::postgres::{Database, sql};

/// The SQLSTATE of a row that is there already.
const UNIQUE_VIOLATION: &str = "23505";

/// SQL that puts rows in after a version.
type Rows = Arc<dyn Fn(i64) -> String + Send + Sync>;
/// Queries of an application written for some version.
type Queries = Arc<dyn Fn(PgPool) -> Answer + Send + Sync>;

/// A round trip about to be made; await it to get its [`RoundTripReport`].
#[must_use = "nothing is migrated until it is awaited"]
pub struct RoundTrip<'a> {
    migrations: &'a Migrations,
    database: &'a Database,
    rows: Option<Rows>,
    old: Vec<(i64, Queries)>,
    lossy: Vec<(i64, String)>,
}

impl fmt::Debug for RoundTrip<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoundTrip").field("migrations", self.migrations).finish_non_exhaustive()
    }
}

impl Migrations {
    /// Begins a round trip through everything that is not applied yet. Awaited, it leaves all of it applied.
    ///
    /// Tables that earlier steps made must hold rows, else the data is [`Outcome::NoEvidence`]. A step without a way back
    /// is [`Outcome::NotApplicable`] and goes one way. A step that fails ends the trip; the rest is not reached.
    pub fn round_trip<'a>(&'a self, database: &'a Database) -> RoundTrip<'a> {
        RoundTrip { migrations: self, database, rows: None, old: Vec::new(), lossy: Vec::new() }
    }
}

impl<'a> RoundTrip<'a> {
    /// Runs this SQL after each version is applied, so that the next way back has something to lose; `""` for nothing.
    /// Statements whose rows went with the version's own tables are run again after its way up, one by one; those that
    /// meet their own rows are passed over.
    pub fn with_rows_between<S: Into<String>>(mut self, rows: impl Fn(i64) -> S + Send + Sync + 'static) -> Self {
        self.rows = Some(Arc::new(move |version| rows(version).into()));
        self
    }

    /// Queries of an application that was written for the schema of `version`. They must run there (else they are broken
    /// themselves) and after every later step: the release before must live with the schema after, or there is no rolling
    /// back.
    pub fn compatible_with<F, Fut, E>(mut self, version: i64, queries: F) -> Self
    where
        F: Fn(PgPool) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let boxed = move |pool| -> Answer {
            let answer = queries(pool);
            Box::pin(async move { answer.await.map_err(|error| format!("{error:#}")) })
        };
        self.old.push((version, Arc::new(boxed)));
        self
    }

    /// Says that this version loses or changes data on purpose, and why; its data is listed and not judged.
    pub fn loses_data(mut self, version: i64, why: impl Into<String>) -> Self {
        self.lossy.push((version, why.into()));
        self
    }

    async fn run(self) -> CoreResult<RoundTripReport> {
        let all = match &self.migrations.from {
            From::Own(_) => Vec::new(),
            From::Dir(_) | From::List(_) => self.migrations.read()?,
        };
        let steps: Vec<Step<'_>> = match &self.migrations.from {
            From::Own(runner) => vec![Step::Whole(runner)],
            From::Dir(_) | From::List(_) => {
                self.migrations.pending(self.database, &all).await?.into_iter().map(Step::Single).collect()
            }
        };
        let mut report = RoundTripReport { steps: Vec::new(), rerun: Outcome::no_evidence("not reached") };
        let mut steps = steps.iter();
        for step in steps.by_ref() {
            let one = self.step(step).await?;
            let failed = one.schema.is_fail();
            report.steps.push(one);
            if failed {
                break;
            }
        }
        let is_through = report.steps.last().is_some_and(|step| !step.schema.is_fail());
        report.steps.extend(steps.map(|step| blank(step, "not reached")));
        if is_through {
            report.rerun = self.migrations.rerun(self.database).await?;
        }
        Ok(report)
    }

    async fn step(&self, step: &Step<'_>) -> CoreResult<StepReport> {
        let mut report = blank(step, "the step did not get this far");
        let mut trip = Trip::begin(self, step).await?;
        match trip.travel().await? {
            Ok(()) => {
                let version = step.version();
                report.schema = match step.has_down() {
                    true => Outcome::pass("up, down, up: equal catalogs"),
                    false => Outcome::not_applicable("there is no way back"),
                };
                report.data = trip.data();
                report.compatible = self.old_application(version).await?;
            }
            Err(witness) => report.schema = Outcome::fail(witness),
        }
        let _ = trip.eye.close().await;
        if let Some((_, why)) = self.lossy.iter().find(|(version, _)| *version == step.version()) {
            report.data = Outcome::not_applicable(why.clone());
        }
        Ok(report)
    }

    /// Runs the old application's queries against the schema of now.
    async fn old_application(&self, now: i64) -> CoreResult<Outcome> {
        let mut outcomes = Vec::new();
        for (version, queries) in self.old.iter().filter(|(version, _)| *version <= now) {
            let what = format!("the queries written for version {version}");
            let answer = within(what.as_str(), self.migrations.limit, queries(self.database.pool().clone())).await?;
            outcomes.push(match answer {
                Ok(()) => Outcome::pass(format!("{what} run")),
                Err(words) if *version == now => Outcome::no_evidence(format!("{what} fail there already: {words}")),
                Err(words) => Outcome::fail(format!("{what} fail: {words}")),
            });
        }
        Ok(match outcomes.is_empty() {
            true => Outcome::not_applicable("no older application was given"),
            false => Outcome::worst(outcomes),
        })
    }
}

impl<'a> IntoFuture for RoundTrip<'a> {
    type Output = CoreResult<RoundTripReport>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

fn blank(step: &Step<'_>, why: &str) -> StepReport {
    let none = || Outcome::no_evidence(why);
    StepReport {
        version: step.version(),
        description: step.description(),
        schema: none(),
        data: none(),
        compatible: none(),
    }
}

/// One step on its way: what was there before it, and what it lost so far.
struct Trip<'t> {
    round: &'t RoundTrip<'t>,
    step: &'t Step<'t>,
    /// The session that looks; the migrations run over others.
    eye: PgConnection,
    before: Schema,
    /// What the tables held before.
    held: Contents,
    lost: Vec<String>,
    /// Rows that were in tables which the step could have harmed.
    at_stake: i64,
}

/// A witness of a step that failed.
type Travelled = Result<(), String>;

impl<'t> Trip<'t> {
    async fn begin(round: &'t RoundTrip<'t>, step: &'t Step<'t>) -> CoreResult<Self> {
        let mut eye = round.database.connect().await?;
        let before = Schema::snapshot(&mut eye).await?.without(&round.migrations.books());
        let held = Contents::read(&mut eye, &before).await?;
        Ok(Self { round, step, eye, before, held, lost: Vec::new(), at_stake: 0 })
    }

    async fn travel(&mut self) -> CoreResult<Travelled> {
        let before = self.before.clone();
        if let Err(witness) = self.go(Way::Up, &before).await? {
            return Ok(Err(witness));
        }
        let after = self.schema().await?;
        let arrived = self.read(&after).await?;
        self.note("on the way up", self.held.lost(&arrived, Extent::Common));
        self.at_stake = self.held.rows_shared_with(&self.held);
        if self.step.has_down() {
            // With the rows of before: nothing of theirs may be missing after the way back, nor after the next way up.
            if let Err(witness) = self.back_and_forth(&after, &arrived, false).await? {
                return Ok(Err(witness));
            }
        }
        let version = self.step.version();
        let rows = self.round.rows.as_ref().map(|rows| rows(version)).unwrap_or_default();
        if rows.trim().is_empty() {
            return Ok(Ok(()));
        }
        run_sql(self.round.database, &format!("the rows for version {version}"), &rows).await?;
        if self.step.has_down() {
            let filled = self.read(&after).await?;
            self.at_stake = self.at_stake.max(filled.rows_shared_with(&self.held));
            if let Err(witness) = self.back_and_forth(&after, &filled, true).await? {
                return Ok(Err(witness));
            }
            if self.read(&after).await? != filled {
                // What the step's own tables held went with them; the next step shall meet it again.
                put_again(self.round.database, &rows).await?;
            }
        }
        Ok(Ok(()))
    }

    async fn back_and_forth(&mut self, after: &Schema, there: &Contents, is_filled: bool) -> CoreResult<Travelled> {
        let before = self.before.clone();
        let with = if is_filled { " with its rows in" } else { "" };
        if let Err(witness) = self.go(Way::Down, after).await? {
            return Ok(Err(witness));
        }
        let back = self.schema().await?;
        if let Some(witness) = differs("the way back leads elsewhere than before", &before, &back) {
            return Ok(Err(witness));
        }
        let held = self.read(&back).await?;
        let lost = match is_filled {
            // Rows were added since: only what both sides know can be compared.
            true => there.lost(&held, Extent::Common),
            false => self.held.lost(&held, Extent::Of(&self.held)),
        };
        self.note(&format!("on the way back{with}"), lost);
        if let Err(witness) = self.go(Way::Up, &before).await? {
            return Ok(Err(format!("the second time: {witness}")));
        }
        let again = self.schema().await?;
        if let Some(witness) = differs("the second way up leads elsewhere than the first", after, &again) {
            return Ok(Err(witness));
        }
        // What the step itself brought is gone with the way back; what was there before it is not.
        let held = self.read(&again).await?;
        self.note(
            &format!("after there and back{with}"),
            there.lost(&held, Extent::Of(&self.held.restricted_to(there))),
        );
        Ok(Ok(()))
    }

    /// Makes a way; a failure is a witness that says what it left.
    async fn go(&self, way: Way, from: &Schema) -> CoreResult<Travelled> {
        let (round, migrations) = (self.round, self.round.migrations);
        match self.step.go(way, round.database, migrations.limit).await {
            Ok(_) => Ok(Ok(())),
            Err(error) => {
                let word = if way == Way::Up { "the way up" } else { "the way back" };
                let told = migrations.told(round.database, from, error).await;
                Ok(Err(format!("{word} fails: {}", format_args!("{told:?}"))))
            }
        }
    }

    async fn schema(&mut self) -> CoreResult<Schema> {
        Ok(Schema::snapshot(&mut self.eye).await?.without(&self.round.migrations.books()))
    }

    async fn read(&mut self, schema: &Schema) -> CoreResult<Contents> {
        Contents::read(&mut self.eye, schema).await
    }

    fn note(&mut self, place: &str, lost: Vec<String>) {
        self.lost.extend(lost.into_iter().map(|what| format!("{what} {place}")));
    }

    fn data(&self) -> Outcome {
        if let Some(first) = self.lost.first() {
            let more = self.lost.len() - 1;
            let more =
                if more > 0 { format!(" (and {more} more: {})", self.lost[1..].join("; ")) } else { String::new() };
            return Outcome::fail(format!("{first}{more}"));
        }
        match (self.held.has_no_table(), self.at_stake) {
            (true, _) => Outcome::not_applicable("there was no table before it"),
            (false, 0) => Outcome::no_evidence("no table held a row: put some in with `with_rows_between`"),
            (false, rows) => Outcome::pass(format!("{rows} rows kept")),
        }
    }
}

/// Runs the statements that put rows in once more; a row that is still there stays.
async fn put_again(database: &Database, rows: &str) -> CoreResult {
    let mut session = database.connect().await?;
    for statement in split(rows) {
        match sql::run(&mut session, "put the rows in again", statement.text).await {
            Err(error) if !sql::has_code(&error, UNIQUE_VIOLATION) => return Err(error),
            _ => {}
        }
    }
    let _ = session.close().await;
    Ok(())
}

fn differs(what: &str, a: &Schema, b: &Schema) -> Option<String> {
    let diff = a.diff(b);
    let first = diff.first()?;
    let more = diff.changes.len() - 1;
    let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
    Some(format!("{what}: {first}{more}"))
}
