//! The schema of a database as data, compared and judged.
//!
//! ```no_run
//! # async fn body(db: harness_db::Database) -> harness_db::Result {
//! let schema = db.schema().await?;
//! schema.table("orders")?.column("user_id")?.type_is("bigint")?.not_null()?.references("users", "id")?;
//! schema.table("orders")?.privileges("app")?.can("select")?.cannot("delete")?;
//! schema.every_table_has_a_primary_key()?.every_foreign_key_is_indexed()?.no_invalid_indexes()?;
//! # Ok(()) }
//! ```
//!
//! A failure names the table and the column, what is there instead, and the names nearest to the one that was asked for.

mod catalog;
mod checks;
mod column;
mod diff;
mod nearest;
mod read;
mod table;

use harness_core::CoreResult;
use sqlx::{Connection as _, PgConnection};

pub use catalog::{
    Column, Constraint, ConstraintKind, Function, Index, Policy, Schema, Sequence, Table, UserType, View,
};
pub use column::ColumnCheck;
pub use diff::{Change, Object, SchemaDiff};
pub use table::{PolicyCheck, PrivilegeCheck, TableCheck};

pub(crate) use nearest::among;

use super::Database;

impl Database {
    /// Reads the catalog, in one snapshot.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn schema(&self) -> CoreResult<Schema> {
        let mut session = self.connect().await?;
        let schema = Schema::snapshot(&mut session).await;
        let _ = session.close().await;
        schema
    }
}

impl Schema {
    /// Reads the catalog in one snapshot, over a session that is in no transaction.
    pub(crate) async fn snapshot(session: &mut PgConnection) -> CoreResult<Self> {
        read::snapshot(session).await
    }

    /// Reads the catalog as this session sees it: inside a transaction with what it has not committed.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn read(session: &mut PgConnection) -> CoreResult<Self> {
        read::inside(session).await
    }
}
