//! Isolation, proven by interleavings: what this server's levels prevent, and what the user's own functions do to each
//! other at every order of their statements.
//!
//! Nothing here sleeps and nothing depends on luck: sessions are let go one statement at a time, and a statement that waits
//! for a lock is seen to wait in the server's lock table.

mod anomaly;
mod ground;
mod judge;
mod locks;
mod orders;
mod probe;
mod script;
mod stage;
mod suite;
mod theatre;
mod trace;
mod wire;

pub use anomaly::{Anomaly, Level};
pub use judge::{End, Report, Run};
pub use probe::Probe;
pub use script::{Script, Step};
pub use suite::{Cell, Finding, Row, Suite, Table};
pub use trace::{Answer, Moment, Trace};

use super::Database;

/// Lets the server look for deadlocks at once, not after a second.
const HASTEN: &str = "set deadlock_timeout = '5ms'";
/// The same, where it is set as a connection begins.
const DEADLOCK_TIMEOUT: &str = "5ms";

/// The ten anomalies at the three levels, on the server of this database, in a schema of its own that goes afterwards.
///
/// ```no_run
/// use harness_db::isolation::{self, Anomaly, Level};
///
/// # async fn body() -> harness_db::Result {
/// let db = harness_db::postgres().await?;
/// let table = isolation::suite(&db).await?;
/// table.check_reproduces_postgres()?;
/// table.level(Level::Serializable).check_prevents(Anomaly::WriteSkew)?;
/// println!("{table}");
/// # Ok(()) }
/// ```
///
/// # Errors
/// When the server does not answer, or the user may not create a schema.
pub fn suite(db: &Database) -> Suite {
    Suite::new(db)
}

/// Sessions with their steps in one order, as data in and data out.
///
/// ```no_run
/// # async fn body() -> harness_db::Result {
/// # let db = harness_db::postgres().await?;
/// let trace = harness_db::isolation::script(&db)
///     .session("reader", ["begin", "select n from accounts for update", "commit"])
///     .session("writer", ["update accounts set n = 1"])
///     .order("1 1 2 1")
///     .run()
///     .await?;
/// assert!(trace.was_blocked(1, 1), "{trace}");
/// # Ok(()) }
/// ```
pub fn script(db: &Database) -> Script<'_> {
    Script::new(db)
}

/// The user's own functions, run against each other at every order of their statements.
///
/// Each session runs its function over a real connection that is held on the wire before each statement, so that the
/// functions need no change. Every interleaving begins with the same state: that of the database when the probe began, or
/// what [`Probe::setup`] makes.
///
/// ```no_run
/// use harness_db::isolation::{self, Anomaly};
/// use harness_db::sqlx::{self, Connection, PgConnection};
///
/// async fn transfer(c: &mut PgConnection, from: i32, to: i32, n: i32) -> Result<(), sqlx::Error> {
///     let mut t = c.begin().await?;
///     sqlx::query("update accounts set n = n - $2 where id = $1").bind(from).bind(n).execute(&mut *t).await?;
///     sqlx::query("update accounts set n = n + $2 where id = $1").bind(to).bind(n).execute(&mut *t).await?;
///     t.commit().await
/// }
///
/// # static APP: harness_db::Template = harness_db::Template::empty();
/// # async fn body() -> harness_db::Result {
/// let db = APP.database().await?;
/// isolation::probe(&db)
///     .session(async |c| transfer(c, 1, 2, 10).await)
///     .session(async |c| transfer(c, 2, 1, 10).await)
///     .invariant("money is neither made nor lost", "select sum(n) = 200 from accounts")
///     .every_interleaving()
///     .forbids(Anomaly::LostUpdate)
///     .await?;
/// # Ok(()) }
/// ```
pub fn probe(db: &Database) -> Probe<'_> {
    Probe::new(db)
}
