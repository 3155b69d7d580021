//! What the counted statements must not exceed.

use harness_core::{CoreResult, Error, ErrorKind};

use super::{Statement, Statements};

/// How many statements a failure shows.
const SHOWN: usize = 5;

impl<T> Statements<T> {
    /// The statements that count: all but the control of transactions and sessions.
    pub fn counted(&self) -> impl Iterator<Item = &Statement> {
        self.all.iter().filter(|statement| !statement.is_control())
    }

    /// How many statements ran, without the control of transactions and sessions.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.counted().map(|statement| statement.calls).sum()
    }

    /// Rows that all statements returned or changed.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.counted().map(|statement| statement.rows).sum()
    }

    /// Bytes of write-ahead log that all statements made.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        self.all.iter().map(|statement| statement.wal_bytes).sum()
    }

    /// The statements that took longest in total, at most `n`.
    #[must_use]
    pub fn top(&self, n: usize) -> &[Statement] {
        &self.all[..n.min(self.all.len())]
    }

    /// Leaves statements out whose text contains this, whatever its case: for example the catalogue queries of a driver.
    #[must_use]
    pub fn without(mut self, text: &str) -> Self {
        self.all.retain(|statement| !contains(statement, text));
        self
    }

    /// Holds when at most `n` statements ran: the guard against N+1.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the statements, the most repeated first; [`ErrorKind::NoEvidence`] when counts may be
    /// missing, or when nothing ran at all and `n` is not 0.
    pub fn at_most(&self, n: u64) -> CoreResult<&Self> {
        let calls = self.calls();
        if calls > n {
            return Err(self.too_many(format!("{calls} statements ran, at most {n} are allowed")));
        }
        self.evidence(n == 0)
    }

    /// Holds when no single statement ran more than `n` times.
    ///
    /// # Errors
    /// As [`Statements::at_most`].
    pub fn repeats_at_most(&self, n: u64) -> CoreResult<&Self> {
        match self.counted().map(|statement| statement.calls).max() {
            Some(most) if most > n => {
                Err(self.too_many(format!("one statement ran {most} times, at most {n} times are allowed")))
            }
            _ => self.evidence(n == 0),
        }
    }

    /// Holds when the statements made at most this many bytes of write-ahead log.
    ///
    /// # Errors
    /// As [`Statements::at_most`], with the statements that made most.
    pub fn wal_at_most(&self, bytes: u64) -> CoreResult<&Self> {
        let made = self.wal_bytes();
        if made <= bytes {
            return self.evidence(false);
        }
        let mut worst: Vec<&Statement> = self.all.iter().filter(|statement| statement.wal_bytes > 0).collect();
        worst.sort_by_key(|statement| std::cmp::Reverse(statement.wal_bytes));
        let what = format!("the statements made {made} bytes of write-ahead log, at most {bytes} are allowed");
        let line = |statement: &&Statement| {
            let (bytes, records) = (statement.wal_bytes, statement.wal_records);
            format!("{bytes} bytes in {records} records by {statement}")
        };
        let error = worst.iter().take(SHOWN).map(line).fold(Error::new(ErrorKind::Assertion, what), Error::tried);
        Err(error.remedy("write fewer rows, or fewer indexed columns"))
    }

    /// Holds when no statement's text contains this, whatever its case and spacing: `none_matching("delete from orders")`.
    ///
    /// # Errors
    /// As [`Statements::at_most`], with the statements that do.
    pub fn none_matching(&self, text: &str) -> CoreResult<&Self> {
        let found: Vec<&Statement> = self.all.iter().filter(|statement| contains(statement, text)).collect();
        if found.is_empty() {
            return self.evidence(false);
        }
        let what = format!("{} statements contain `{text}`", found.len());
        let lines = found.iter().take(SHOWN).map(ToString::to_string);
        Err(lines.fold(Error::new(ErrorKind::Assertion, what), Error::tried))
    }

    /// Nothing seen proves nothing, unless nothing is what was wanted.
    pub(super) fn evidence(&self, none_wanted: bool) -> CoreResult<&Self> {
        let none = |what: String, remedy: &str| Err(Error::new(ErrorKind::NoEvidence, what).remedy(remedy));
        match &self.incomplete {
            Some(why) => none(
                format!("{} statements were counted, and more may have run: {why}", self.calls()),
                "end every transaction inside the block, or run the test again",
            ),
            None if self.calls() == 0 && !none_wanted => none(
                "no statement reached this database while the block ran".to_owned(),
                "look which database the block uses; if none is right, say so: `at_most(0)`",
            ),
            None => Ok(self),
        }
    }

    fn too_many(&self, what: String) -> Error {
        let mut all: Vec<&Statement> = self.counted().collect();
        all.sort_by_key(|statement| std::cmp::Reverse(statement.calls));
        let more = all.len().saturating_sub(SHOWN);
        let lines = all.iter().take(SHOWN).map(ToString::to_string);
        let error = lines.fold(Error::new(ErrorKind::Assertion, what), Error::tried);
        let error = if more > 0 { error.tried(format!("… and {more} other statements")) } else { error };
        match all.first().is_some_and(|first| first.calls > 1) {
            true => error.remedy("load what one statement asks for again and again at once: a join, or `= any($1)`"),
            false => error,
        }
    }
}

fn contains(statement: &Statement, text: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    plain(&statement.text).contains(&plain(text))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::ErrorKind;

    use super::{Statement, Statements};

    fn seen(all: &[(&str, u64)]) -> Statements {
        let statement = |&(text, calls): &(&str, u64)| Statement {
            text: text.to_owned(),
            calls,
            wal_bytes: 100 * calls,
            ..Statement::default()
        };
        let all = all.iter().map(statement).collect();
        Statements { output: (), all, took: Duration::ZERO, incomplete: None }
    }

    #[test]
    fn repeated_statement_is_printed_with_its_count() {
        let seen = seen(&[("select * from users", 1), ("select *\n from orders where user_id = $1", 10), ("BEGIN", 5)]);
        assert!(seen.at_most(11).is_ok() && seen.repeats_at_most(10).is_ok());
        let text = format!("{:?}", seen.at_most(10).unwrap_err());
        assert!(text.starts_with("11 statements ran, at most 10"), "{text}");
        assert!(text.contains("tried      10× select * from orders where user_id = $1"), "{text}");
        assert!(seen.repeats_at_most(9).is_err());
    }

    #[test]
    fn nothing_seen_proves_nothing_unless_nothing_is_wanted() {
        let kind = |result: harness_core::CoreResult<&Statements>| result.unwrap_err().kind();
        let none = seen(&[("COMMIT", 1)]);
        assert!(none.at_most(0).is_ok());
        assert_eq!(kind(none.at_most(2)), ErrorKind::NoEvidence);
        assert_eq!(kind(none.wal_at_most(1000)), ErrorKind::NoEvidence);
        assert_eq!(kind(none.none_matching("x")), ErrorKind::NoEvidence);
        let part = Statements { incomplete: Some("planted".into()), ..seen(&[("select 1", 3)]) };
        assert_eq!(kind(part.at_most(3)), ErrorKind::NoEvidence, "a lower bound does not hold a limit");
        assert_eq!(kind(part.at_most(2)), ErrorKind::Assertion, "and breaks one all the same");
    }

    #[test]
    fn wal_and_forbidden_texts_are_found() {
        let seen = seen(&[("DELETE FROM  orders", 2), ("select 1", 1)]);
        assert!(seen.wal_at_most(300).is_ok() && seen.none_matching("truncate").is_ok());
        assert!(format!("{:?}", seen.wal_at_most(299).unwrap_err()).contains("200 bytes"));
        assert!(format!("{:?}", seen.none_matching("delete from orders").unwrap_err()).contains("2× DELETE"));
        assert_eq!(seen.without("delete").calls(), 1);
    }
}
