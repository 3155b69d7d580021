//! The slowest statements of a database, with their plans and notes on request.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind};

use super::Statement;
use super::source::{Snapshot, Source};
use crate::postgres::{Database, Explain, Plan};

/// A question for the slowest statements; await it to get the [`SlowList`].
#[derive(Debug)]
#[must_use = "nothing is asked until it is awaited"]
pub struct Slowest<'a> {
    database: &'a Database,
    most: usize,
    plans: bool,
}

/// The slowest statements, longest total time first.
#[derive(Debug)]
#[non_exhaustive]
pub struct SlowList {
    /// The statements.
    pub rows: Vec<Slow>,
}

/// A slow statement with what is known about it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Slow {
    /// The statement and its figures.
    pub statement: Statement,
    /// Its generic plan, or why there is none; `None` unless plans were asked for.
    pub plan: Option<CoreResult<Plan>>,
    /// What stands out.
    pub notes: Vec<String>,
}

impl Database {
    /// The statements that took most time in this database since it was made, at most `n` of them.
    ///
    /// ```
    /// # async fn example() -> harness_db::Result {
    /// let db = harness_db::postgres().await?;
    /// # if !db.server().capabilities().pg_stat_statements { return Ok(()) } // nothing is counted here
    /// sqlx::query("select count(*) from pg_class").execute(db.pool()).await?;
    /// println!("{}", db.slowest(10).with_plans().await?); // query, plan, time, notes
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
    /// ```
    pub fn slowest(&self, n: usize) -> Slowest<'_> {
        Slowest { database: self, most: n, plans: false }
    }
}

impl Slowest<'_> {
    /// Explains each statement too: the generic plan, since the values are not known any more.
    pub fn with_plans(mut self) -> Self {
        self.plans = true;
        self
    }

    /// # Errors
    /// [`ErrorKind::Environment`] when the server does not count statements; [`ErrorKind::NoEvidence`] when none was counted.
    async fn list(self) -> CoreResult<SlowList> {
        let mut source = Source::open(self.database).await?;
        let now = source.snapshot(true).await;
        source.close().await;
        let (mut all, _) = now?.since(&Snapshot::default());
        all.retain(|statement| !statement.is_control());
        if all.is_empty() {
            let what = format!("no statement was counted in `{}`", self.database.name());
            return Err(Error::new(ErrorKind::NoEvidence, what).remedy("run the service's work on this database first"));
        }
        all.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.text.cmp(&b.text)));
        all.truncate(self.most);
        let mut rows = Vec::with_capacity(all.len());
        for statement in all {
            let plan = match self.plans {
                true => Some(self.database.explain(&*statement.text).await),
                false => None,
            };
            let notes = notes(&statement, plan.as_ref());
            rows.push(Slow { statement, plan, notes });
        }
        Ok(SlowList { rows })
    }
}

impl<'a> IntoFuture for Slowest<'a> {
    type Output = CoreResult<SlowList>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.list())
    }
}

/// What stands out in a statement's figures and plan.
fn notes(statement: &Statement, plan: Option<&CoreResult<Plan>>) -> Vec<String> {
    let mut notes = Vec::new();
    let per_call = |total: u64| total / statement.calls.max(1);
    if per_call(statement.temp_blocks) > 0 {
        notes.push(format!("goes to disk: {} temporary blocks per call", per_call(statement.temp_blocks)));
    }
    if statement.blocks > 10 * statement.rows.max(statement.calls) {
        notes.push(format!("touches {} blocks for {} rows", statement.blocks, statement.rows));
    }
    match plan {
        Some(Ok(plan)) => {
            let scans = plan.as_planned.iter().filter(|node| node.kind.ends_with("Seq Scan"));
            notes.extend(scans.filter_map(|node| {
                let table = plan.tables.iter().find(|table| node.relation.as_ref() == Some(&table.name))?;
                Some(format!("scans {table}"))
            }));
        }
        Some(Err(error)) => notes.push(format!("no plan: {error}")),
        None => {}
    }
    notes
}

impl Slow {
    /// Explains it on a database, to bind values of your own: `slow.explain(&db).bind(7).await?`.
    pub fn explain<'a>(&self, database: &'a Database) -> Explain<'a> {
        database.explain(&*self.statement.text)
    }
}

impl SlowList {
    /// Holds when the mean time of every listed statement is below this.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the statements that are not, slowest mean first.
    pub fn mean_below(&self, limit: Duration) -> CoreResult<&Self> {
        let mut slow: Vec<&Slow> = self.rows.iter().filter(|row| row.statement.mean() >= limit).collect();
        slow.sort_by_key(|row| std::cmp::Reverse(row.statement.mean()));
        let Some(first) = slow.first() else { return Ok(self) };
        let (n, mean, limit) = (slow.len(), seconds(first.statement.mean()), seconds(limit));
        let what = format!("{n} statements take {limit} or more on average, the slowest {mean}");
        let lines = slow.iter().flat_map(|row| {
            std::iter::once(row.statement.to_string()).chain(row.notes.iter().map(|note| format!("  note: {note}")))
        });
        let error = lines.fold(Error::new(ErrorKind::Assertion, what), Error::tried);
        Err(error.remedy("look at its plan: `db.slowest(10).with_plans()`"))
    }
}

impl fmt::Display for SlowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10} {:>10} {:>8} {:>10}  statement", "mean", "total", "calls", "rows")?;
        for row in &self.rows {
            let Statement { calls, rows, total, .. } = &row.statement;
            let (mean, total) = (seconds(row.statement.mean()), seconds(*total));
            writeln!(f, "{mean:>10} {total:>10} {calls:>8} {rows:>10}  {}", row.statement.short(160))?;
            if let Some(Ok(plan)) = &row.plan {
                plan.nodes
                    .iter()
                    .try_for_each(|node| writeln!(f, "{:44}{:indent$}{node}", "", "", indent = node.depth * 2))?;
            }
            row.notes.iter().try_for_each(|note| writeln!(f, "{:44}note: {note}", ""))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Slow, SlowList, Statement, notes};

    fn slow(text: &str, ms: u64, calls: u64) -> Slow {
        let statement = Statement {
            text: text.to_owned(),
            calls,
            total: Duration::from_millis(ms * calls),
            ..Statement::default()
        };
        Slow { statement, plan: None, notes: vec!["planted".to_owned()] }
    }

    #[test]
    fn slow_mean_is_named_and_a_large_total_is_not() {
        let list = SlowList { rows: vec![slow("select often", 1, 9000), slow("select slowly", 300, 2)] };
        assert!(list.mean_below(Duration::from_millis(301)).is_ok());
        let text = format!("{:?}", list.mean_below(Duration::from_millis(300)).unwrap_err());
        assert!(
            text.contains("2× select slowly") && text.contains("note: planted") && !text.contains("often"),
            "{text}"
        );
    }

    #[test]
    fn notes_say_what_stands_out_only() {
        assert!(notes(&slow("a", 1, 2).statement, None).is_empty());
        let heavy = Statement { temp_blocks: 8, blocks: 900, rows: 3, ..slow("a", 1, 2).statement };
        let all = notes(&heavy, None);
        assert_eq!(all, ["goes to disk: 4 temporary blocks per call", "touches 900 blocks for 3 rows"]);
    }
}
