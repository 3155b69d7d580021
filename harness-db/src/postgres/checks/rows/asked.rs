//! A statement with its parameters, and as whom it is asked.

use std::fmt;

use harness_core::CoreResult;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Encode, PgConnection, Postgres, Type};

use crate::postgres::{Database, sql};

/// What is shared by all that run one statement of the user's.
pub(crate) struct Asked<'a> {
    database: &'a Database,
    pub(crate) sql: String,
    pub(crate) arguments: PgArguments,
    /// A parameter that could not be encoded: said when the statement is run.
    unbound: Option<sqlx::error::BoxDynError>,
    pub(crate) role: Option<String>,
    pub(crate) settings: Vec<(String, String)>,
}

impl fmt::Debug for Asked<'_> {
    /// Without the parameters' values, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Asked");
        fields.field("sql", &self.sql).field("parameters", &self.arguments.len()).finish_non_exhaustive()
    }
}

impl<'a> Asked<'a> {
    pub(crate) fn new(database: &'a Database, sql: String) -> Self {
        Self { database, sql, arguments: PgArguments::default(), unbound: None, role: None, settings: Vec::new() }
    }

    pub(crate) fn bind<'q>(&mut self, value: impl Encode<'q, Postgres> + Type<Postgres>) {
        if let Err(error) = self.arguments.add(value) {
            self.unbound = Some(error);
        }
    }

    /// A session to run it on; fails on a parameter that could not be encoded.
    pub(crate) async fn session(&mut self) -> CoreResult<PgConnection> {
        if let Some(error) = self.unbound.take() {
            return Err(sql::query_error("encode a parameter", sqlx::Error::Encode(error)));
        }
        self.database.connect().await
    }

    /// Takes on its role and settings, for the `session` or `local` to the transaction.
    pub(crate) async fn stand_in(&self, session: &mut PgConnection, scope: &str) -> CoreResult {
        let local = scope == "local";
        for (name, value) in &self.settings {
            let text = format!("select set_config({}, {}, {local})", sql::literal(name), sql::literal(value));
            sql::run(session, "take on a setting", text).await?;
        }
        match &self.role {
            Some(role) => sql::run(session, "take on a role", format!("set {scope} role {}", sql::ident(role))).await,
            None => Ok(()),
        }
    }
}
