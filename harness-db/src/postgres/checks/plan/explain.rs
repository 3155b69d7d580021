//! A query about to be explained: how it is asked, and which plan is judged.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use harness_core::wait::within;
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Connection as _, Encode, PgConnection, Postgres, Type};

use super::ask::{self, Asked, Question};
use super::{Node, Plan, Table};
use crate::postgres::checks::REFRESH;
use crate::postgres::{Database, sql};

/// Tables of up to this many pages (8 KiB each) are small: the planner reads them whole whatever the indexes.
const SMALL_PAGES: u64 = 16;
/// How long explaining may take, with running the query, unless set otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// A query about to be explained; await it to get its [`Plan`].
///
/// A query with parameters is prepared and explained as the server would run it: by a custom plan for the values that are
/// bound, by the generic plan when none are. So a statement captured elsewhere (`… where id = $1`) can be explained as it is.
#[must_use = "nothing is explained until it is awaited"]
pub struct Explain<'a> {
    database: &'a Database,
    sql: String,
    arguments: PgArguments,
    unbound: Option<sqlx::error::BoxDynError>,
    analyze: bool,
    as_planned: bool,
    refresh: bool,
    both: bool,
    limit: Duration,
    settings: Vec<(String, String)>,
}

impl fmt::Debug for Explain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explain")
            .field("sql", &self.sql)
            .field("parameters", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Explains a query: `db.explain("select …").bind(1).await?.uses_index("…")?`. It may be a `SELECT`, `INSERT`, `UPDATE`,
    /// `DELETE`, `MERGE` or `VALUES`.
    pub fn explain(&self, sql: impl Into<String>) -> Explain<'_> {
        Explain {
            database: self,
            sql: sql.into(),
            arguments: PgArguments::default(),
            unbound: None,
            analyze: false,
            as_planned: false,
            refresh: true,
            both: false,
            limit: LIMIT,
            settings: Vec::new(),
        }
    }
}

/// The two kinds of plan a prepared statement may get.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Plain,
    Custom,
    Generic,
}

impl Explain<'_> {
    /// Binds the next parameter.
    pub fn bind<'q>(mut self, value: impl Encode<'q, Postgres> + Type<Postgres>) -> Self {
        if let Err(error) = self.arguments.add(value) {
            self.unbound = Some(error);
        }
        self
    }

    /// Runs the query too, once per plan and in a transaction that is rolled back, so that the plan carries what came:
    /// rows, blocks, time. Sequences and whatever else lives outside transactions do move.
    pub fn analyze(mut self) -> Self {
        self.analyze = true;
        self
    }

    /// Judges the plan the server would use now, also on small tables.
    pub fn as_planned(mut self) -> Self {
        self.as_planned = true;
        self
    }

    /// Leaves the statistics as they are instead of refreshing them by `ANALYZE`. Without autovacuum, as on servers of the
    /// house, they may be those of an empty table.
    pub fn keep_statistics(mut self) -> Self {
        self.refresh = false;
        self
    }

    /// Asks for both plans of a prepared statement: the custom one, made for the values that are bound, and the generic one,
    /// made for any and used from the sixth execution on when it looks no dearer. Every check has to hold for both, and a
    /// failure says for which it does not.
    ///
    /// Source: PostgreSQL documentation, "PREPARE", `plan_cache_mode`.
    pub fn generic_and_custom(mut self) -> Self {
        self.both = true;
        self
    }

    /// How long explaining may take, with running the query; 60 s unless set.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Plans with this setting, for example `("enable_indexscan", "off")`.
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    async fn plan(mut self) -> CoreResult<Plan> {
        if let Some(error) = self.unbound.take() {
            return Err(sql::query_error("encode a parameter", sqlx::Error::Encode(error)));
        }
        let limit = self.limit;
        // The server gives up a little earlier than we do, so that nothing runs on behind our back.
        let give_up = format!("SET statement_timeout = {}", limit.mul_f64(0.9).as_millis().max(1));
        let mut session = self.database.connect().await?;
        sql::run(&mut session, "limit the time for explaining", give_up).await?;
        let plan = within(format!("explaining `{}`", self.sql), limit, self.plan_on(&mut session)).await?;
        let _ = session.close().await;
        // 57014: the statement was cancelled at its time limit.
        plan.map_err(|error| match sql::has_code(&error, "57014") {
            true => {
                Error::new(ErrorKind::Timeout, error.what()).remedy("raise the limit: `.limit(..)`").caused_by(error)
            }
            false => error,
        })
    }

    async fn plan_on(&self, session: &mut PgConnection) -> CoreResult<Plan> {
        if self.refresh {
            sql::run(session, "refresh the statistics", REFRESH).await?;
        }
        let question = Question::new(session, &self.sql, &self.arguments).await?;
        let mut plans = Vec::new();
        for variant in self.variants(&question)? {
            plans.push(self.variant(session, &question, variant).await?);
        }
        let generic = if plans.len() > 1 { plans.pop().map(Box::new) } else { None };
        let plan = plans.pop().ok_or_else(|| Error::new(ErrorKind::Protocol, "no plan was asked for"))?;
        Ok(Plan { generic, ..plan })
    }

    fn variants(&self, question: &Question) -> CoreResult<Vec<Variant>> {
        let needs = |what: &str| {
            let text = format!("`{}` has {} parameters and none is bound", self.sql, question.parameters);
            Err(Error::new(ErrorKind::Config, format!("{what}: {text}")).remedy("bind them: `.bind(value)`"))
        };
        match (question.parameters, question.values.is_empty()) {
            (0, _) => Ok(vec![Variant::Plain]),
            (_, true) if self.analyze => needs("cannot run the query"),
            (_, true) if self.both => needs("cannot make a custom plan"),
            (_, true) => Ok(vec![Variant::Generic]),
            (n, false) if n != question.values.len() => {
                let bound = question.values.len();
                let what = format!("`{}` has {n} parameters, and {bound} are bound", self.sql);
                Err(Error::new(ErrorKind::Config, what).remedy("bind each of them: `.bind(value)`"))
            }
            (_, false) if self.both => Ok(vec![Variant::Custom, Variant::Generic]),
            (_, false) => Ok(vec![Variant::Custom]),
        }
    }

    async fn variant(&self, session: &mut PgConnection, question: &Question, variant: Variant) -> CoreResult<Plan> {
        let mode = if variant == Variant::Generic { "force_generic_plan" } else { "force_custom_plan" };
        let asked = |force: bool, run: bool| Asked { mode, force, run, settings: &self.settings };
        let natural = question.ask(session, asked(false, false)).await?;
        let forced = question.ask(session, asked(true, false)).await?;
        let tables = ask::tables(session, natural.nodes.iter().chain(&forced.nodes)).await?;
        let is_forced = !self.as_planned && scans_small_tables_only(&natural.nodes, &tables);
        let judged = match (self.analyze, is_forced) {
            (true, force) => question.ask(session, asked(force, true)).await?,
            (false, true) => forced.clone(),
            (false, false) => natural.clone(),
        };
        let settings = judged.settings.into_iter().filter(|(name, _)| self.is_foreign(name, is_forced)).collect();
        Ok(Plan {
            sql: self.sql.clone(),
            variant: match variant {
                Variant::Plain => String::new(),
                Variant::Custom => "custom".to_owned(),
                Variant::Generic => "generic".to_owned(),
            },
            nodes: judged.nodes,
            as_planned: natural.nodes,
            discouraged: forced.nodes,
            basis: self.basis(is_forced),
            is_forced,
            tables,
            settings,
            took: judged.execution_ms.map(|ms| Duration::from_secs_f64(ms.max(0.0) / 1e3)),
            generic: None,
        })
    }

    fn basis(&self, is_forced: bool) -> String {
        let how = match is_forced {
            true => format!("tables are small (up to {SMALL_PAGES} pages), so sequential scans were discouraged"),
            false => "as the server plans it".to_owned(),
        };
        let statistics = if self.refresh { "statistics fresh by ANALYZE" } else { "statistics as they were found" };
        format!("{how}; {statistics}")
    }

    /// True for a setting that is not ours.
    fn is_foreign(&self, name: &str, is_forced: bool) -> bool {
        let ours = name == "plan_cache_mode" || is_forced && matches!(name, "enable_seqscan" | "jit");
        !ours || self.settings.iter().any(|(known, _)| known == name)
    }
}

fn scans_small_tables_only(nodes: &[Node], tables: &[Table]) -> bool {
    let pages = |node: &Node| {
        let of =
            |table: &&Table| node.relation.as_ref() == Some(&table.name) && node.schema.as_ref() == Some(&table.schema);
        tables.iter().find(of).map_or(0, |table| table.pages)
    };
    let scanned = nodes.iter().filter(|node| node.kind == "Seq Scan").map(pages).max();
    scanned.is_some_and(|pages| pages <= SMALL_PAGES)
}

impl<'a> IntoFuture for Explain<'a> {
    type Output = CoreResult<Plan>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.plan())
    }
}
