//! What the database must refuse, by SQLSTATE and constraint; and what it must accept.
//!
//! Each statement runs in a transaction that is rolled back, deferred constraints checked before: nothing stays of a
//! statement that was accepted by mistake. Codes are those of the PostgreSQL documentation, appendix A; both `23505` and
//! `unique_violation` are understood.

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use harness_core::{CoreResult, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgArguments, PgDatabaseError};
use sqlx::{AssertSqlSafe, Connection as _, Encode, PgConnection, Postgres, Type};

use super::rows::Asked;
use super::{Database, sql};

/// The conditions that tests ask for, by name.
const CONDITIONS: &[(&str, &str)] = &[
    ("22001", "string_data_right_truncation"),
    ("22003", "numeric_value_out_of_range"),
    ("22P02", "invalid_text_representation"),
    ("23000", "integrity_constraint_violation"),
    ("23001", "restrict_violation"),
    ("23502", "not_null_violation"),
    ("23503", "foreign_key_violation"),
    ("23505", "unique_violation"),
    ("23514", "check_violation"),
    ("23P01", "exclusion_violation"),
    ("25006", "read_only_sql_transaction"),
    ("25P02", "in_failed_sql_transaction"),
    ("40001", "serialization_failure"),
    ("40P01", "deadlock_detected"),
    ("42501", "insufficient_privilege"),
    ("42601", "syntax_error"),
    ("42703", "undefined_column"),
    ("42883", "undefined_function"),
    ("42P01", "undefined_table"),
    ("42P07", "duplicate_table"),
    ("44000", "with_check_option_violation"),
    ("53300", "too_many_connections"),
    ("55P03", "lock_not_available"),
    ("57014", "query_canceled"),
    ("57P01", "admin_shutdown"),
    ("P0001", "raise_exception"),
];

/// A statement that is tried and rolled back; made by [`Database::refuses`] and [`Database::accepts`].
#[must_use = "nothing is tried until it is awaited"]
pub struct Trial<'a> {
    asked: Asked<'a>,
    wanted: Option<Refusal>,
}

/// A refusal by the server, or the parts of one that are expected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refusal {
    /// The SQLSTATE: `23505`.
    pub code: String,
    /// The server's words.
    pub message: String,
    /// The constraint that was violated.
    pub constraint: Option<String>,
    /// The table it belongs to.
    pub table: Option<String>,
    /// The column, where the server names one.
    pub column: Option<String>,
}

impl fmt::Debug for Trial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("asked", &self.asked).field("wanted", &self.wanted).finish()
    }
}

impl Database {
    /// Holds when the server refuses this: `db.refuses("insert …").bind(1).with("23505").constraint("users_email_key").await?`.
    ///
    /// Say what it is refused for ([`Trial::with`] or [`Trial::constraint`]), else a misspelt statement would hold.
    pub fn refuses(&self, sql: impl Into<String>) -> Trial<'_> {
        Trial { wanted: Some(Refusal::default()), ..self.accepts(sql) }
    }

    /// Holds when the server accepts this; it is rolled back all the same.
    pub fn accepts(&self, sql: impl Into<String>) -> Trial<'_> {
        Trial { asked: Asked::new(self, sql.into()), wanted: None }
    }
}

impl Trial<'_> {
    /// Binds the next parameter.
    pub fn bind<'q>(mut self, value: impl Encode<'q, Postgres> + Type<Postgres>) -> Self {
        self.asked.bind(value);
        self
    }

    /// Tries it as this role (`set role`).
    pub fn as_role(mut self, role: impl Into<String>) -> Self {
        self.asked.role = Some(role.into());
        self
    }

    /// Tries it with this setting, for example `("app.tenant", "7")`.
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.asked.settings.push((name.into(), value.into()));
        self
    }

    /// Expects this SQLSTATE, by code or by name: `23505`, `unique_violation`.
    pub fn with(mut self, code: impl Into<String>) -> Self {
        self.wanted.get_or_insert_default().code = code.into();
        self
    }

    /// Expects this constraint to be the one that is violated.
    pub fn constraint(mut self, name: impl Into<String>) -> Self {
        self.wanted.get_or_insert_default().constraint = Some(name.into());
        self
    }

    /// Expects these words in the server's message.
    pub fn message(mut self, words: impl Into<String>) -> Self {
        self.wanted.get_or_insert_default().message = words.into();
        self
    }

    /// What happens to it: `None` when it is accepted.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn outcome(mut self) -> CoreResult<Option<Refusal>> {
        let mut session = self.asked.session().await?;
        let failed = |error| sql::query_error("begin the trial", error);
        let mut transaction = session.begin().await.map_err(failed)?;
        self.asked.stand_in(&mut transaction, "local").await?;
        let result = attempt(&mut transaction, &self.asked.sql, self.asked.arguments).await;
        let _ = transaction.rollback().await;
        let _ = session.close().await;
        match result {
            Ok(()) => Ok(None),
            Err(error) => match Refusal::of(&error) {
                Some(refusal) => Ok(Some(refusal)),
                None => Err(sql::query_error(&format!("try `{}`", self.asked.sql), error)),
            },
        }
    }

    async fn judge(self) -> CoreResult<Option<Refusal>> {
        let (text, wanted) = (self.asked.sql.clone(), self.wanted.clone());
        if wanted.as_ref().is_some_and(|wanted| wanted.code.is_empty() && wanted.constraint.is_none()) {
            return Err(Error::new(ErrorKind::Config, format!("what is `{text}` to be refused for?")).remedy(
                "say .with(\"23505\") or .constraint(\"users_email_key\"): a misspelt statement is refused too",
            ));
        }
        let found = self.outcome().await?;
        let what = match (&wanted, &found) {
            (None, None) => return Ok(found),
            (Some(wanted), Some(refusal)) if refusal.fits(wanted) => return Ok(found),
            (None, Some(_)) => format!("the server refuses `{text}`"),
            (Some(wanted), None) => format!("the server accepts `{text}`, which was to be refused with {wanted}"),
            (Some(wanted), Some(_)) => format!("`{text}` is refused, but not with {wanted}"),
        };
        let error = Error::new(ErrorKind::Assertion, what);
        Err(found.iter().fold(error, |error, refusal| error.tried(format!("the server says {refusal}"))))
    }
}

impl<'a> IntoFuture for Trial<'a> {
    type Output = CoreResult<Option<Refusal>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.judge())
    }
}

async fn attempt(session: &mut PgConnection, text: &str, arguments: PgArguments) -> Result<(), sqlx::Error> {
    sqlx::query_with(AssertSqlSafe(text.to_owned()), arguments).execute(&mut *session).await?;
    // A deferred constraint would speak at commit only, and there is none.
    sqlx::raw_sql("set constraints all immediate").execute(session).await.map(drop)
}

impl Refusal {
    /// The server's refusal inside a driver error; `None` when it is of another kind.
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Option<Self> {
        let sqlx::Error::Database(database) = error else { return None };
        let postgres = database.try_downcast_ref::<PgDatabaseError>()?;
        Some(Self {
            code: postgres.code().to_owned(),
            message: DatabaseError::message(postgres).to_owned(),
            constraint: DatabaseError::constraint(postgres).map(str::to_owned),
            table: DatabaseError::table(postgres).map(str::to_owned),
            column: postgres.column().map(str::to_owned),
        })
    }

    fn fits(&self, wanted: &Self) -> bool {
        let code = wanted.code.is_empty() || same_code(&self.code, &wanted.code);
        let constraint = wanted.constraint.is_none() || wanted.constraint == self.constraint;
        code && constraint && self.message.contains(&wanted.message)
    }
}

fn same_code(code: &str, wanted: &str) -> bool {
    code.eq_ignore_ascii_case(wanted) || name_of(code).is_some_and(|name| name == wanted)
}

fn name_of(code: &str) -> Option<&'static str> {
    CONDITIONS.iter().find(|(known, _)| *known == code).map(|(_, name)| *name)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = if self.code.is_empty() { "any code" } else { &self.code };
        f.write_str(code)?;
        if let Some(name) = name_of(&self.code) {
            write!(f, " ({name})")?;
        }
        for (word, value) in [("constraint", &self.constraint), ("table", &self.table), ("column", &self.column)] {
            if let Some(value) = value {
                write!(f, ", {word} `{value}`")?;
            }
        }
        match self.message.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", self.message),
        }
    }
}

/// The SQLSTATE of the server's refusal inside any error, however deep it lies.
#[must_use]
pub fn sqlstate_of(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let code = match error.downcast_ref::<sqlx::Error>() {
            Some(sqlx::Error::Database(database)) => database.code().map(Into::into),
            _ => error.downcast_ref::<PgDatabaseError>().map(|postgres| postgres.code().to_owned()),
        };
        if code.is_some() {
            return code;
        }
        cause = error.source();
    }
    None
}

/// Holds when the result of a function of yours failed because the server refused with this SQLSTATE (code or name).
///
/// Its error may be `sqlx::Error` or any error that carries one as its source.
///
/// # Errors
/// [`ErrorKind::Assertion`] with what happened instead.
pub fn sqlstate<T, E: StdError + 'static>(result: &Result<T, E>, wanted: &str) -> CoreResult {
    let what = format!("the result was to be refused with {wanted}");
    let instead = match result {
        Ok(_) => "it is Ok".to_owned(),
        Err(error) => match sqlstate_of(error) {
            Some(code) if same_code(&code, wanted) => return Ok(()),
            Some(code) => format!("it is {code} ({}): {error}", name_of(&code).unwrap_or("another condition")),
            None => format!("no refusal by the server is in it: {error}"),
        },
    };
    Err(Error::new(ErrorKind::Assertion, what).tried(instead))
}
