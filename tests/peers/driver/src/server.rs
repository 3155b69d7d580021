//! The shared server of this house, held alive for as long as a goal is measured.

use std::time::{Duration, Instant};

use harness_db::{Database, Template};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use crate::bare;
use peers_common::{Asked, Result};

/// The other side's maintenance database.
const THEIRS: &str = "peers_theirs";
/// After this the server is used as it is: somebody else keeps it busy.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// The server, and a session that looks at it.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) schema: Template,
    pub(crate) base: PgConnectOptions,
    pub(crate) admin: PgConnection,
    pub(crate) described: String,
    _alive: Database,
}

impl Bench {
    /// Attaches to the shared server, or starts it; the template of forty migrations is built afterwards.
    pub(crate) async fn start(asked: &Asked) -> Result<Self> {
        let schema = Template::migrations(crate::migrations(asked, "migrations"));
        let db = schema.database().await?;
        let base = db.server().options().clone();
        let admin = PgConnection::connect_with(&base).await?;
        let described = format!("{} by {:?}", db.server().capabilities().version, db.server().choice().provider);
        Ok(Self { schema, base, admin, described, _alive: db })
    }

    /// Runs one statement.
    pub(crate) async fn run(&mut self, text: impl Into<String>) -> Result {
        bare::run(&mut self.admin, text).await
    }

    /// The URL of a database for the other side, made if need be: what users of `DATABASE_URL` have.
    pub(crate) async fn their_url(&mut self) -> Result<String> {
        let found = sqlx::query("select 1 from pg_database where datname = $1").bind(THEIRS);
        if found.fetch_optional(&mut self.admin).await?.is_none() {
            self.run(format!("create database {THEIRS}")).await?;
        }
        Ok(self.base.clone().database(THEIRS).to_url_lossy().to_string())
    }

    /// Waits until nobody makes or drops a database and their number stands still for `quiet`, and says how long
    /// work went on: what one side left running would be paid by the other.
    pub(crate) async fn settle(&mut self, quiet: Duration) -> Result<Duration> {
        let begun = Instant::now();
        let (mut last, mut since) = ((0_i64, -1_i64), begun);
        while begun.elapsed() < SETTLE_LIMIT {
            let now: (i64, i64) = sqlx::query_as(
                "select (select count(*) from pg_stat_activity where state = 'active' \
                         and query ~* '^(create|drop|alter) database'), (select count(*) from pg_database)",
            )
            .fetch_one(&mut self.admin)
            .await?;
            if now.0 > 0 || now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() >= quiet {
                return Ok(since - begun);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("the server did not come to rest within {} s", SETTLE_LIMIT.as_secs()).into())
    }

    /// Seconds from here to the first row of a bare connection to the same server.
    pub(crate) async fn bare_connect_s(&self) -> Result<f64> {
        let begun = Instant::now();
        let mut connection = PgConnection::connect_with(&self.base).await?;
        first_row(&mut connection).await?;
        let took = begun.elapsed().as_secs_f64();
        connection.close().await?;
        Ok(took)
    }

    /// Seconds from here to the first row of a database of ours.
    pub(crate) async fn acquire_s(&self, template: Template) -> Result<f64> {
        let begun = Instant::now();
        let db = template.database().await?;
        first_row(db.pool()).await?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

/// `select 1`, the same on both sides.
pub(crate) async fn first_row<'c>(executor: impl sqlx::Executor<'c, Database = sqlx::Postgres>) -> Result {
    sqlx::query("select 1").fetch_one(executor).await?;
    Ok(())
}

/// The middle of a list; the mean of the two middle ones when there are two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}
