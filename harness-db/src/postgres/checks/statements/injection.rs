//! Whether values reach the server as values: a corpus of payloads goes in and has to come back byte for byte, and the
//! number of distinct statements may not grow.
//!
//! The server replaces literals by parameters before it tells statements apart. A value that is pasted into the text stays
//! invisible as long as it is a literal; once it breaks out of its quotes the statement is another one, or is none.

use std::collections::BTreeSet;
use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind, Outcome};

use super::Statement;
use super::source::Source;
use crate::postgres::Database;

/// Values that break out of a statement they are pasted into, and values that careless escaping damages.
pub const INJECTION_CORPUS: &[&str] = &[
    "' or '1'='1",
    "' or 1=1 --",
    "' || 'concatenated",
    "'); drop table users; --",
    "'; select pg_sleep(0); --",
    "' union select null --",
    "') union select current_user --",
    "1; delete from users",
    "1 or 1=1",
    "it's",
    "''",
    "'",
    "\\'",
    "\\",
    "\\\\' or 1=1 --",
    "\" or \"\"=\"",
    "/* comment */",
    "-- comment",
    "' /* */ or /* */ '1'='1",
    "$1",
    "$$ dollar $$",
    "$tag$ quoted $tag$",
    "%' or '%'='",
    "100%_\\%",
    "{\"key\": \"it's\"}",
    "E'\\x27 or 1=1'",
    "\u{2019} or 1=1 --",
    "\u{ff07} or 1=1 --",
    "line one\nline two\r\n\ttabbed",
    "grüße, 世界, 🐘",
    "",
    " leading and trailing ",
];

/// What the statements are when nothing is wrong with the value.
const PLAIN: [&str; 2] = ["plain", "another plain value"];

/// What became of one payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Returned {
    /// It came back as it was.
    Same,
    /// Something else came back.
    Altered(String),
    /// An error came back.
    Refused(String),
}

/// What a corpus of payloads did to the statements.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Parameterised {
    /// Each payload, and what became of it.
    pub payloads: Vec<(String, Returned)>,
    /// Distinct statements that plain values needed.
    pub plain: Vec<Statement>,
    /// Distinct statements that only payloads brought forth.
    pub grown: Vec<Statement>,
    /// Why statements may be missing, if they may.
    pub incomplete: Option<String>,
}

impl Database {
    /// Sends [`INJECTION_CORPUS`] through code that stores a value and reads it back, and watches the statements.
    ///
    /// ```
    /// # async fn example() -> harness_db::Result {
    /// let db = harness_db::postgres().await?;
    /// # if !db.server().capabilities().pg_stat_statements { return Ok(()) } // nothing is counted here
    /// let echo = async |value: &str| sqlx::query_scalar::<_, String>("select $1").bind(value).fetch_one(db.pool()).await;
    /// db.parameterised(echo).await?.check()?;
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`Database::parameterised_with`].
    pub async fn parameterised<E: fmt::Display>(
        &self,
        round_trip: impl AsyncFnMut(&str) -> Result<String, E>,
    ) -> CoreResult<Parameterised> {
        self.parameterised_with(INJECTION_CORPUS, round_trip).await
    }

    /// [`Database::parameterised`] with payloads of your own.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when even a plain value fails; [`ErrorKind::NoEvidence`] without payloads, or when no
    /// statement reached this database; [`ErrorKind::Environment`] when the server does not count statements.
    pub async fn parameterised_with<E: fmt::Display>(
        &self,
        payloads: &[&str],
        mut round_trip: impl AsyncFnMut(&str) -> Result<String, E>,
    ) -> CoreResult<Parameterised> {
        let mut source = Source::open(self).await?;
        let begun = source.snapshot(false).await?;
        for value in PLAIN {
            let returned = judge(value, round_trip(value).await);
            if returned != Returned::Same {
                let what = format!("the code under test does not even return the plain value `{value}`: {returned}");
                return Err(Error::new(ErrorKind::Assertion, what));
            }
        }
        let slow = source.settle(&begun).await?;
        let between = source.snapshot(true).await?;
        let mut judged = Vec::with_capacity(payloads.len());
        for payload in payloads {
            judged.push(((*payload).to_owned(), judge(payload, round_trip(payload).await)));
        }
        let open = source.settle(&between).await?;
        let after = source.snapshot(true).await?;
        source.close().await;
        let (mut plain, lost) = between.since(&begun);
        plain.retain(|statement| !statement.is_control());
        if plain.is_empty() || payloads.is_empty() {
            let what = if payloads.is_empty() { "no payload was sent" } else { "no statement reached this database" };
            return Err(Error::new(ErrorKind::NoEvidence, what).remedy("look which database the code under test uses"));
        }
        let known: BTreeSet<i64> = plain.iter().map(|statement| statement.id).collect();
        let (mut grown, lost_later) = after.since(&between);
        grown.retain(|statement| !statement.is_control() && !known.contains(&statement.id));
        let incomplete = lost.or(lost_later).or(slow).or(open);
        Ok(Parameterised { payloads: judged, plain, grown, incomplete })
    }
}

fn judge<E: fmt::Display>(sent: &str, result: Result<String, E>) -> Returned {
    match result {
        Ok(back) if back == sent => Returned::Same,
        Ok(back) => Returned::Altered(back),
        Err(error) => Returned::Refused(error.to_string()),
    }
}

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => f.write_str("came back as it was"),
            Self::Altered(back) => write!(f, "came back as {back:?}"),
            Self::Refused(error) => write!(f, "was refused: {error}"),
        }
    }
}

impl Parameterised {
    /// Passes when every payload came back byte for byte and no payload brought forth a statement that plain values did not
    /// need.
    #[must_use]
    pub fn holds(&self) -> Outcome {
        let wrong: Vec<_> = self.payloads.iter().filter(|(_, returned)| *returned != Returned::Same).collect();
        if let Some((payload, returned)) = wrong.first() {
            let (n, all) = (wrong.len(), self.payloads.len());
            let grown = self.grown.first().map(|s| format!("; it runs as `{}`", s.short(120))).unwrap_or_default();
            return Outcome::fail(format!(
                "{n} of {all} payloads were not kept as values: {payload:?} {returned}{grown}"
            ));
        }
        if let Some(first) = self.grown.first() {
            let (n, text) = (self.grown.len(), first.short(120));
            return Outcome::fail(format!(
                "payloads brought forth {n} statements that plain values do not need: `{text}`"
            ));
        }
        match (&self.incomplete, self.payloads.len()) {
            (_, 0) => Outcome::no_evidence("no payload was sent"),
            (Some(why), _) => Outcome::no_evidence(format!("statements may be missing: {why}")),
            (None, n) => Outcome::pass(format!("{n} payloads kept as values by {} statements", self.plain.len())),
        }
    }

    /// [`Parameterised::holds`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the payloads that broke out and the statements they made; [`ErrorKind::NoEvidence`].
    pub fn check(&self) -> CoreResult {
        match self.holds() {
            Outcome::Fail { witness } => {
                let wrong = self.payloads.iter().filter(|(_, returned)| *returned != Returned::Same);
                let lines = wrong.skip(1).take(4).map(|(payload, returned)| format!("payload: {payload:?} {returned}"));
                let lines = lines.chain(self.grown.iter().take(4).map(|statement| format!("statement: {statement}")));
                let error = lines.fold(Error::new(ErrorKind::Assertion, witness), Error::tried);
                Err(error.remedy("bind the value as a parameter (`$1`) instead of pasting it into the text"))
            }
            Outcome::NoEvidence { why } => Err(Error::new(ErrorKind::NoEvidence, why)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Parameterised, Returned, Statement};

    fn found(returned: Returned, grown: &[&str], incomplete: Option<&str>) -> Parameterised {
        let statement = |text: &&str| Statement { text: (*text).to_owned(), calls: 1, ..Statement::default() };
        Parameterised {
            payloads: vec![("it's".to_owned(), returned)],
            plain: vec![statement(&"insert")],
            grown: grown.iter().map(statement).collect(),
            incomplete: incomplete.map(str::to_owned),
        }
    }

    #[test]
    fn altered_refused_and_new_statements_are_red_each_alone() {
        assert!(found(Returned::Same, &[], None).holds().is_pass());
        assert!(found(Returned::Altered("its".into()), &[], None).holds().is_fail());
        assert!(found(Returned::Refused("syntax error".into()), &[], None).holds().is_fail());
        let outcome = found(Returned::Same, &["select $1 or $2"], None).holds();
        assert!(outcome.is_fail() && outcome.detail().contains("select $1 or $2"), "{outcome}");
    }

    #[test]
    fn missing_counts_are_no_evidence_and_heal_nothing() {
        assert!(found(Returned::Same, &[], Some("planted")).holds().is_no_evidence());
        assert!(found(Returned::Same, &["x"], Some("planted")).holds().is_fail());
        let none = Parameterised { payloads: Vec::new(), ..found(Returned::Same, &[], None) };
        assert!(none.holds().is_no_evidence());
    }
}
