//! Plans of several statements, judged together.

use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind};

use super::Plan;
use crate::postgres::Database;

/// The plans of several statements; every check has to hold for each of them.
///
/// Made by [`Database::explain_all`], or collected from plans: `[a, b].into_iter().collect::<Plans>()`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Plans {
    /// The plans, in the order of the statements.
    pub plans: Vec<Plan>,
}

impl FromIterator<Plan> for Plans {
    fn from_iter<I: IntoIterator<Item = Plan>>(plans: I) -> Self {
        Self { plans: plans.into_iter().collect() }
    }
}

impl Database {
    /// Explains statements as they were captured, for example from a log or from [`Database::slowest`]: parameters stay
    /// open (`$1`), and the generic plan is judged.
    ///
    /// # Errors
    /// The first statement that cannot be explained, with the server's words.
    pub async fn explain_all<S: AsRef<str>>(&self, statements: impl IntoIterator<Item = S>) -> CoreResult<Plans> {
        let mut plans = Vec::new();
        for statement in statements {
            let explain = self.explain(statement.as_ref());
            // The statistics of the first are those of all.
            plans.push(if plans.is_empty() { explain.await? } else { explain.keep_statistics().await? });
        }
        Ok(Plans { plans })
    }
}

impl Plans {
    /// Holds when no statement reads any of these tables from end to end, and each table is read by some statement.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with every statement that scans, and the node; [`ErrorKind::NoEvidence`] without statements
    /// or without tables, or when no statement reads one of the tables.
    pub fn never_scans_any(&self, tables: &[&str]) -> CoreResult<&Self> {
        let failed: Vec<Error> =
            self.plans.iter().filter_map(|plan| plan.never_scans_any(tables).err()).filter(is_assertion).collect();
        if let Some(first) = failed.first() {
            let what = format!("{} of {} statements scan: {}", failed.len(), self.plans.len(), first.what());
            let lines =
                failed.iter().flat_map(|error| error.attempts().iter().filter(|line| !line.starts_with("planned")));
            let error = lines.fold(Error::new(ErrorKind::Assertion, what), |error, line| error.tried(line));
            return Err(error.remedy("create the index, or write the condition so that it can be used"));
        }
        let unread = tables.iter().find(|table| !self.plans.iter().any(|plan| plan.mentions(table)));
        let none = match (self.plans.is_empty(), tables.is_empty(), unread) {
            (true, ..) => "no statement was explained".to_owned(),
            (_, true, _) => "no table was named".to_owned(),
            (.., Some(table)) => format!("none of the {} statements reads table `{table}`", self.plans.len()),
            _ => return Ok(self),
        };
        Err(Error::new(ErrorKind::NoEvidence, none).remedy("name the tables, and explain statements that read them"))
    }
}

fn is_assertion(error: &Error) -> bool {
    error.kind() == ErrorKind::Assertion
}

impl fmt::Display for Plans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plans.iter().try_for_each(|plan| write!(f, "{plan}"))
    }
}
