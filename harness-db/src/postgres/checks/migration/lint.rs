//! Migrations read before they run, by the rules of [squawk](https://squawkhq.com/docs/rules) 2.68: what locks a table for
//! long, what breaks the application that still runs, what cannot be taken back.
//!
//! The rules look at the text and know no tables: a `create index` on a table made two lines above is reported too. Allow a
//! rule for all files ([`Lint::allows`]), or in a file by `-- squawk-ignore ban-drop-column`.

use std::collections::BTreeSet;
use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use serde::{Deserialize, Serialize};
use squawk_linter::{Linter, Rule};
use squawk_syntax::SourceFile;

use super::Migrations;

/// One thing that a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// The file, or the version of SQL given as text.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The rule: `require-concurrent-index-creation`; `syntax-error` for what cannot be read.
    pub rule: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// What the rules found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lint {
    /// Every finding that is not allowed.
    pub findings: Vec<Finding>,
    /// How many migrations were read.
    pub files: usize,
    /// Findings that were allowed.
    pub allowed: usize,
}

impl Migrations {
    /// Reads every way up by squawk's default rules.
    ///
    /// # Errors
    /// As [`Migrations::read`].
    pub fn lint(&self) -> CoreResult<Lint> {
        let migrations = self.read()?;
        let mut lint = Lint { findings: Vec::new(), files: migrations.len(), allowed: 0 };
        for migration in &migrations {
            let file = migration.place();
            lint.findings.extend(findings(&file, &migration.up, !migration.no_tx));
        }
        Ok(lint)
    }
}

fn findings(file: &str, text: &str, in_transaction: bool) -> Vec<Finding> {
    let line = |at: usize| text.get(..at).map_or(0, |before| before.matches('\n').count()) + 1;
    let parsed = SourceFile::parse(text);
    let broken = parsed.errors().into_iter().map(|error| Finding {
        file: file.to_owned(),
        line: line(usize::from(error.range().start())),
        rule: "syntax-error".to_owned(),
        message: error.message().to_owned(),
        help: None,
    });
    let mut found: Vec<Finding> = broken.collect();
    let mut linter = Linter::with_default_rules();
    linter.settings.assume_in_transaction = in_transaction;
    found.extend(linter.lint(&parsed, text).into_iter().map(|violation| Finding {
        file: file.to_owned(),
        line: line(usize::from(violation.text_range.start())),
        rule: violation.code.to_string(),
        message: violation.message,
        help: violation.help,
    }));
    found.sort_by_key(|finding| finding.line);
    found
}

impl Lint {
    /// Allows a rule everywhere.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a rule that does not exist: allowing it would allow nothing.
    pub fn allows(mut self, rule: &str) -> CoreResult<Self> {
        let known = Rule::try_from(rule).map_err(|words| {
            Error::new(ErrorKind::Config, format!("there is no rule `{rule}`"))
                .tried(words)
                .remedy("the rules are listed at https://squawkhq.com/docs/rules")
        })?;
        let before = self.findings.len();
        self.findings.retain(|finding| finding.rule != known.to_string());
        self.allowed += before - self.findings.len();
        Ok(self)
    }

    /// Passes without findings.
    #[must_use]
    pub fn clean(&self) -> Outcome {
        let rules: BTreeSet<&str> = self.findings.iter().map(|finding| finding.rule.as_str()).collect();
        let rules: Vec<&str> = rules.into_iter().collect();
        match (self.files, self.findings.is_empty()) {
            (0, _) => Outcome::no_evidence("no migration was read"),
            (files, true) => Outcome::pass(format!("{files} migrations, {} findings allowed", self.allowed)),
            (_, false) => Outcome::fail(format!("{} findings: {}", self.findings.len(), rules.join(", "))),
        }
    }

    /// Holds without findings.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with file, line, rule and help of each; [`ErrorKind::NoEvidence`] without migrations.
    pub fn check(&self) -> CoreResult<&Self> {
        let (kind, what) = match self.clean() {
            Outcome::Fail { witness } => (ErrorKind::Assertion, witness),
            Outcome::NoEvidence { why } => (ErrorKind::NoEvidence, why),
            _ => return Ok(self),
        };
        Err(Error::new(kind, what).log(self.findings.iter().map(ToString::to_string)))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use harness_core::ErrorKind;

    use super::super::Migrations;

    fn rules(text: &str) -> Vec<String> {
        Migrations::sql([text]).lint().unwrap().findings.into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn an_index_that_locks_is_found_with_its_line_and_a_concurrent_one_is_not() {
        let lint =
            Migrations::sql(["set lock_timeout = '1s';\nset statement_timeout = '5s';\ncreate index i on orders (a);"]);
        let lint = lint.lint().unwrap();
        let found = lint.findings.iter().find(|finding| finding.rule == "require-concurrent-index-creation").unwrap();
        assert_eq!((found.line, lint.clean().is_fail()), (3, true), "{lint:?}");
        assert!(lint.check().is_err());
        let concurrent = "-- no-transaction\nset lock_timeout = '1s';\nset statement_timeout = '5s';\n\
                          create index concurrently if not exists i on orders (a);";
        assert!(!rules(concurrent).iter().any(|rule| rule.contains("concurrent")), "{:?}", rules(concurrent));
    }

    #[test]
    fn allowed_rules_go_and_rules_that_do_not_exist_are_refused() {
        let lint = Migrations::sql(["alter table orders drop column note;"]).lint().unwrap();
        assert!(lint.findings.iter().any(|finding| finding.rule == "ban-drop-column"), "{lint:?}");
        let rules: Vec<String> = lint.findings.iter().map(|finding| finding.rule.clone()).collect();
        let clean = rules.iter().try_fold(lint.clone(), |lint, rule| lint.allows(rule)).unwrap();
        assert!(clean.check().is_ok() && clean.allowed == lint.findings.len());
        assert_eq!(lint.allows("ban-drop-colunm").unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn what_cannot_be_read_is_a_finding_and_nothing_is_no_evidence() {
        assert!(rules("alter table (;").contains(&"syntax-error".to_owned()));
        let none = Migrations::list([]).lint().unwrap();
        assert_eq!(none.check().unwrap_err().kind(), ErrorKind::NoEvidence);
    }
}
