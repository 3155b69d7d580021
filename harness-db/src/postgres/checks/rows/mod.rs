//! What a query gives, compared with what was expected: as a list, a set or a bag.
//!
//! ```no_run
//! use harness_db::rows;
//!
//! # async fn body(db: harness_db::Database) -> harness_db::Result {
//! let users = db.rows("select id, email from users order by id").await?;
//! users.is_list(rows![[1, "a@b.c"], [2, null]])?.has(rows![{"id": 1}])?;
//! users.is_bag(&db.rows("select id, email from users_copy").await?)?;
//! # Ok(()) }
//! ```
//!
//! # How cells are compared
//! - `null` equals SQL NULL and nothing else: not `0`, not `''`, not the JSON `null` in a `jsonb` column.
//! - A number equals an integer or `numeric` of the same value exactly (`1.50` is `1.5`), and a `real` or `double precision`
//!   exactly unless [`Rows::tolerance`] says how far off it may be. A text column never equals a number.
//! - A string equals the text of a value of any type that JSON has no form for: texts, dates, UUIDs, enums, and `numeric`
//!   where a number literal would lose digits. Times are shown in UTC.
//! - Arrays and objects equal `json`, `jsonb`, arrays and composites of the same content; the order of keys is no matter.
//! - Two queries are compared by the types of their columns and the texts of their cells.

mod asked;
mod cell;
mod compare;
mod query;

use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use asked::Asked;
pub use query::RowsQuery;

/// How many rows of a kind a message shows.
const SHOWN: usize = 10;

/// Rows written down: `rows![[1, "a"], [2, null]]`, or with names `rows![{"id": 1, "name": "a"}]`.
///
/// Each row is written as [`serde_json::json!`] has it: expressions and variables are welcome.
#[macro_export]
macro_rules! rows {
    ($($row:tt),* $(,)?) => {
        $crate::postgres::rows::Expected::new(::std::vec![$($crate::serde_json::json!($row)),*])
    };
}

/// What a query gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rows {
    /// The query.
    pub sql: String,
    /// Its columns.
    pub columns: Vec<RowColumn>,
    /// Its rows, a cell per column.
    pub rows: Vec<Vec<Cell>>,
    /// How far a number may be off; `None` for exactly equal.
    pub tolerance: Option<f64>,
}

/// One column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RowColumn {
    /// Its name.
    pub name: String,
    /// Its type: `int8`, `text`, `timestamptz`, …
    pub type_name: String,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cell {
    /// As Postgres writes it; `None` for NULL.
    pub text: Option<String>,
    /// As JSON (`to_jsonb`).
    pub json: Value,
}

/// Rows that are expected; made by [`rows!`](crate::rows!) or from another answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected(Vec<Want>);

#[derive(Debug, Clone, PartialEq)]
enum Want {
    List(Vec<Value>),
    Fields(Map<String, Value>),
    Actual(Vec<(String, Option<String>)>),
    /// Neither a list nor an object.
    Odd(Value),
}

impl Expected {
    /// Rows as JSON arrays (by place) or objects (by name).
    pub fn new(rows: impl IntoIterator<Item = Value>) -> Self {
        let want = |row| match row {
            Value::Array(cells) => Want::List(cells),
            Value::Object(fields) => Want::Fields(fields),
            other => Want::Odd(other),
        };
        Self(rows.into_iter().map(want).collect())
    }
}

impl From<&Rows> for Expected {
    fn from(rows: &Rows) -> Self {
        let types = || rows.columns.iter().map(|column| column.type_name.clone());
        let want = |row: &Vec<Cell>| Want::Actual(types().zip(row.iter().map(|cell| cell.text.clone())).collect());
        Self(rows.rows.iter().map(want).collect())
    }
}

impl Rows {
    /// Lets numbers be off by up to this much, for computed `real` and `double precision` values.
    #[must_use]
    pub fn tolerance(mut self, most: f64) -> Self {
        self.tolerance = Some(most.abs());
        self
    }

    /// Holds when these rows came, in this order.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the rows that are missing or extra; [`ErrorKind::Config`] when the expected rows do not
    /// fit the query's columns.
    pub fn is_list(&self, expected: impl Into<Expected>) -> CoreResult<&Self> {
        let wanted = self.fitted(expected.into(), true)?;
        let same = |at: usize| matches!((wanted.get(at), self.rows.get(at)), (Some(a), Some(b)) if self.equal(a, b));
        let Some(at) = (0..wanted.len().max(self.rows.len())).find(|at| !same(*at)) else { return Ok(self) };
        let unordered = self.unpaired(&wanted);
        let what = match unordered.0.is_empty() && unordered.1.is_empty() {
            true => format!("the rows are right, their order is not: row {} is another", at + 1),
            false => format!("row {} is another", at + 1),
        };
        let missing: Vec<usize> = (at..wanted.len()).filter(|at| !same(*at)).collect();
        let extra: Vec<usize> = (at..self.rows.len()).filter(|at| !same(*at)).collect();
        Err(self.wrong(what, &wanted, &missing, &extra))
    }

    /// Holds when these rows came, each at least once, and no others: order and repetition do not matter.
    ///
    /// # Errors
    /// As [`Rows::is_list`].
    pub fn is_set(&self, expected: impl Into<Expected>) -> CoreResult<&Self> {
        let wanted = self.fitted(expected.into(), true)?;
        let missing: Vec<usize> =
            (0..wanted.len()).filter(|at| !self.rows.iter().any(|row| self.equal(&wanted[*at], row))).collect();
        let extra: Vec<usize> =
            (0..self.rows.len()).filter(|at| !wanted.iter().any(|want| self.equal(want, &self.rows[*at]))).collect();
        self.judge("as a set", &wanted, &missing, &extra)
    }

    /// Holds when these rows came, each as often as it is written, in any order.
    ///
    /// # Errors
    /// As [`Rows::is_list`].
    pub fn is_bag(&self, expected: impl Into<Expected>) -> CoreResult<&Self> {
        let wanted = self.fitted(expected.into(), true)?;
        let (missing, extra) = self.unpaired(&wanted);
        self.judge("as a bag", &wanted, &missing, &extra)
    }

    /// Holds when each of these rows came, among others. A row written with names says only what it names.
    ///
    /// # Errors
    /// As [`Rows::is_list`].
    pub fn has(&self, expected: impl Into<Expected>) -> CoreResult<&Self> {
        let wanted = self.fitted(expected.into(), false)?;
        if wanted.is_empty() {
            return Err(Error::new(ErrorKind::Config, "no row was asked for").remedy("rows![{\"id\": 1}]"));
        }
        let missing: Vec<usize> =
            (0..wanted.len()).filter(|at| !self.rows.iter().any(|row| self.equal(&wanted[*at], row))).collect();
        let others: Vec<usize> = (0..self.rows.len()).collect();
        match missing.is_empty() {
            true => Ok(self),
            false => Err(self.wrong("a row is missing".to_owned(), &wanted, &missing, &others)),
        }
    }

    /// Holds when no row came.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the rows that came.
    pub fn is_empty(&self) -> CoreResult<&Self> {
        let all: Vec<usize> = (0..self.rows.len()).collect();
        self.judge("empty", &[], &[], &all)
    }

    /// Holds when so many rows came.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the rows that came.
    pub fn count_is(&self, count: usize) -> CoreResult<&Self> {
        let all: Vec<usize> = (0..self.rows.len()).collect();
        match self.rows.len() == count {
            true => Ok(self),
            false => Err(self.wrong(format!("{} rows came, {count} were expected", self.rows.len()), &[], &[], &all)),
        }
    }

    /// Holds when no cell is NULL: no record is partial.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming the columns and showing the rows; [`ErrorKind::NoEvidence`] without rows.
    pub fn is_complete(&self) -> CoreResult<&Self> {
        if self.rows.is_empty() {
            return Err(Error::new(ErrorKind::NoEvidence, "no row came, so none could be partial")
                .tried(format!("query: {}", self.sql)));
        }
        let partial = self.partial();
        if partial.is_empty() {
            return Ok(self);
        }
        let empty = self.columns.iter().enumerate().filter_map(|(at, column)| {
            let n = self.rows.iter().filter(|row| row[at].text.is_none()).count();
            (n > 0).then(|| format!("{} ({n})", column.name))
        });
        let what = format!("{} of {} rows are partial, NULL in {}", partial.len(), self.rows.len(), join(empty));
        Err(self.wrong(what, &[], &[], &partial))
    }

    /// The places of the rows that hold a NULL.
    #[must_use]
    pub fn partial(&self) -> Vec<usize> {
        (0..self.rows.len()).filter(|at| self.rows[*at].iter().any(|cell| cell.text.is_none())).collect()
    }

    /// Expected and actual rows that find no partner, by place.
    fn unpaired(&self, wanted: &[Want]) -> (Vec<usize>, Vec<usize>) {
        let mut free: Vec<usize> = (0..self.rows.len()).collect();
        let missing = (0..wanted.len()).filter(|at| {
            let partner = free.iter().position(|row| self.equal(&wanted[*at], &self.rows[*row]));
            partner.map(|partner| free.remove(partner)).is_none()
        });
        (missing.collect(), free)
    }

    fn judge(&self, how: &str, wanted: &[Want], missing: &[usize], extra: &[usize]) -> CoreResult<&Self> {
        match missing.is_empty() && extra.is_empty() {
            true => Ok(self),
            false => {
                let what = format!("{how} the rows are others: {} missing, {} extra", missing.len(), extra.len());
                Err(self.wrong(what, wanted, missing, extra))
            }
        }
    }

    /// The error with a table: `-` what was expected and did not come, `+` what came instead.
    fn wrong(&self, what: String, wanted: &[Want], missing: &[usize], extra: &[usize]) -> Error {
        let head = self.columns.iter().map(|column| format!("{} {}", column.name, column.type_name));
        let mut lines = vec![format!("  | {} |", head.collect::<Vec<_>>().join(" | "))];
        let more = |n: usize| (n > SHOWN).then(|| format!("  … and {} more", n - SHOWN));
        lines.extend(missing.iter().take(SHOWN).map(|at| format!("- | {} |", self.show_want(&wanted[*at]))));
        lines.extend(more(missing.len()));
        lines.extend(extra.iter().take(SHOWN).map(|at| format!("+ | {} |", self.show(&self.rows[*at]))));
        lines.extend(more(extra.len()));
        Error::new(ErrorKind::Assertion, what)
            .tried(format!("query: {} ({} rows came)", self.sql, self.rows.len()))
            .log(lines)
            .remedy("`-` was expected and did not come, `+` came instead")
    }
}

fn join(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.columns.iter().map(|column| format!("{} {}", column.name, column.type_name));
        write!(f, "| {} |", head.collect::<Vec<_>>().join(" | "))?;
        self.rows.iter().try_for_each(|row| write!(f, "\n| {} |", self.show(row)))
    }
}
