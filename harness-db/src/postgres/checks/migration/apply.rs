//! Applies and takes back; a step that fails says what it left.

use std::time::Duration;

use harness_core::wait::within;
use harness_core::{CoreResult, Error, ErrorKind};
use serde::{Deserialize, Serialize};

use super::runner::Runner;
use super::{From, Migrations, OwnRunner, drift};
use crate::postgres::books::Migration;
use crate::postgres::schema::Schema;
use crate::postgres::{Database, sql};

/// One migration that was applied or taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Applied {
    /// Its number; 0 for a runner of the user's own.
    pub version: i64,
    /// What its name says.
    pub description: String,
    /// How long it took.
    pub took: Duration,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// One step of a set of migrations: a single one, or all that a runner of the user's own does.
#[derive(Debug)]
pub(super) enum Step<'a> {
    Single(&'a Migration),
    Whole(&'a OwnRunner),
}

impl Step<'_> {
    pub(super) fn version(&self) -> i64 {
        match self {
            Self::Single(migration) => migration.version,
            Self::Whole(_) => 0,
        }
    }

    pub(super) fn description(&self) -> String {
        match self {
            Self::Single(migration) => migration.description.clone(),
            Self::Whole(_) => "all, by a runner of your own".to_owned(),
        }
    }

    pub(super) fn has_down(&self) -> bool {
        match self {
            Self::Single(migration) => migration.down.is_some(),
            Self::Whole(runner) => runner.down.is_some(),
        }
    }

    /// Makes the step; `None` when another runner was faster.
    pub(super) async fn go(&self, way: Way, database: &Database, limit: Duration) -> CoreResult<Option<Duration>> {
        match self {
            Self::Single(migration) => {
                let mut runner = Runner::open(database, limit).await?;
                let done = match way {
                    Way::Up => runner.up(migration).await,
                    Way::Down => runner.down(migration).await.map(Some),
                };
                runner.close().await;
                done
            }
            Self::Whole(runner) => own(runner, way, database, limit).await.map(Some),
        }
    }
}

async fn own(runner: &OwnRunner, way: Way, database: &Database, limit: Duration) -> CoreResult<Duration> {
    let (what, run) = match way {
        Way::Up => ("your own runner", Some(&runner.up)),
        Way::Down => ("your own way back", runner.down.as_ref()),
    };
    let run = run.ok_or_else(|| Error::new(ErrorKind::Config, "your own runner has no way back"))?;
    let begun = std::time::Instant::now();
    let done = within(what, limit, run(database.url())).await?;
    let took = begun.elapsed();
    done.map(|()| took).map_err(|words| Error::new(ErrorKind::Config, format!("{what} failed")).tried(words))
}

impl Migrations {
    /// Applies what is not applied yet, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] before anything is applied when an applied migration was edited or is missing; and when a
    /// migration fails: with file, line, the server's words, and whether it was rolled back or left half-applied.
    pub async fn apply(&self, database: &Database) -> CoreResult<Vec<Applied>> {
        self.apply_to(database, i64::MAX).await
    }

    /// Applies what is not applied yet, up to and with this version.
    ///
    /// # Errors
    /// As [`Migrations::apply`].
    pub async fn apply_to(&self, database: &Database, version: i64) -> CoreResult<Vec<Applied>> {
        if let From::Own(runner) = &self.from {
            let took = own(runner, Way::Up, database, self.limit).await?;
            return Ok(vec![Applied { version: 0, description: Step::Whole(runner).description(), took }]);
        }
        let migrations = self.read()?;
        let mut done = Vec::new();
        for migration in self.pending(database, &migrations).await? {
            if migration.version > version {
                break;
            }
            let before = database.schema().await?;
            match Step::Single(migration).go(Way::Up, database, self.limit).await {
                Ok(took) => done.extend(took.map(|took| applied(migration, took))),
                Err(error) => return Err(self.told(database, &before, error).await),
            }
        }
        Ok(done)
    }

    /// Takes back everything above this version, the youngest first; 0 takes back all.
    ///
    /// # Errors
    /// As [`Migrations::apply`], and when one of them has no way back.
    pub async fn revert_to(&self, database: &Database, version: i64) -> CoreResult<Vec<Applied>> {
        if let From::Own(runner) = &self.from {
            let took = own(runner, Way::Down, database, self.limit).await?;
            return Ok(vec![Applied { version: 0, description: Step::Whole(runner).description(), took }]);
        }
        let migrations = self.read()?;
        let pending = self.pending(database, &migrations).await?;
        let is_pending = |one: &Migration| pending.iter().any(|other| other.version == one.version);
        let mut done = Vec::new();
        for migration in migrations.iter().rev().filter(|one| one.version > version && !is_pending(one)) {
            let before = database.schema().await?;
            match Step::Single(migration).go(Way::Down, database, self.limit).await {
                Ok(took) => done.extend(took.map(|took| applied(migration, took))),
                Err(error) => return Err(self.told(database, &before, error).await),
            }
        }
        Ok(done)
    }

    /// What is not applied yet; refuses a database that drifted.
    pub(super) async fn pending<'m>(
        &self,
        database: &Database,
        migrations: &'m [Migration],
    ) -> CoreResult<Vec<&'m Migration>> {
        let mut session = database.connect().await?;
        let applied = super::runner::records(&mut session).await;
        let _ = sqlx::Connection::close(session).await;
        let applied = applied?;
        // A gap is run late, as sqlx does; the check of drift reports it.
        let mut drifts = drift::compare(migrations, &applied);
        drifts.retain(|drift| !matches!(drift, drift::Drift::OutOfOrder { .. }));
        if let Some(error) = drift::refused(&drifts, ErrorKind::Config) {
            return Err(error);
        }
        let is_applied = |one: &&Migration| applied.iter().any(|record| record.version == one.version);
        Ok(migrations.iter().filter(|one| !is_applied(one)).collect())
    }

    /// The error of a failed step, with what the step left behind.
    pub(super) async fn told(&self, database: &Database, before: &Schema, error: Error) -> Error {
        let after = match database.schema().await {
            Ok(after) => after,
            Err(blind) => return error.tried(format!("what it left could not be read: {blind}")),
        };
        let diff = before.clone().without(&self.books()).diff(&after.without(&self.books()));
        if diff.is_empty() {
            return error.tried("rolled back: the schema is as before");
        }
        error
            .tried(format!("left half-applied: {} objects differ from before", diff.changes.len()))
            .log(diff.to_string().lines())
            .remedy("`-` was before, `+` is now; make the migration safe to repeat, or split it")
    }
}

fn applied(migration: &Migration, took: Duration) -> Applied {
    Applied { version: migration.version, description: migration.description.clone(), took }
}

/// Runs SQL of the user's, with a name for messages.
pub(super) async fn run_sql(database: &Database, what: &str, text: &str) -> CoreResult {
    let mut session = database.connect().await?;
    let done = sql::run(&mut session, what, text).await;
    let _ = sqlx::Connection::close(session).await;
    done.map_err(|error| Error::new(ErrorKind::Config, format!("{what}: the SQL fails")).caused_by(error))
}
