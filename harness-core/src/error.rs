//! One error for the whole family, made to be read.
//!
//! [`Error`] says what failed, what was tried, what the last log lines were, where the evidence lies and what to do.
//! Its `Debug` is that report, because libtest prints `{:?}` when a test returns an error. [`Failure`] is the error
//! of a test body: any error converts into it with `?`, and the conversion marks the running test as failed, which is
//! how guards learn that their database or their logs must be kept.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;
use std::path::{Path, PathBuf};

/// A shorthand for what the harness itself returns.
pub type CoreResult<T = ()> = std::result::Result<T, Error>;

/// The words of a caught panic: what [`std::panic::catch_unwind`] returns is nearly always text.
#[must_use]
pub fn panic_words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message")
}

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The machine lacks something: an engine, an image, a binary, a capability.
    Environment,
    /// A setting, an argument or a file of the user is wrong.
    Config,
    /// Something took longer than its limit.
    Timeout,
    /// A connection could not be made or broke.
    Connect,
    /// A process ended though it should run.
    Exited,
    /// The other side broke its protocol.
    Protocol,
    /// The harness refused to do it, because it would harm something that is not its own.
    Refused,
    /// A check of the system under test did not hold.
    Assertion,
    /// There was nothing to judge.
    NoEvidence,
    /// Reading or writing files failed.
    Io,
}

/// The error of every harness crate.
///
/// Small on the stack; everything else is behind one pointer.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    what: String,
    tried: Vec<String>,
    log: Vec<String>,
    evidence: Option<PathBuf>,
    remedy: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of a kind, with a sentence that says what failed: ``could not start service `postgres` ``.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            what: what.into(),
            tried: Vec::new(),
            log: Vec::new(),
            evidence: None,
            remedy: None,
            source: None,
        }))
    }

    /// Adds one thing that was tried, with its result.
    #[must_use]
    pub fn tried(mut self, attempt: impl Into<String>) -> Self {
        self.0.tried.push(attempt.into());
        self
    }

    /// Adds the last log lines of the thing that failed.
    #[must_use]
    pub fn log(mut self, lines: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.log.extend(lines.into_iter().map(Into::into));
        self
    }

    /// Says where the evidence lies.
    #[must_use]
    pub fn evidence(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.evidence = Some(path.into());
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind of error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The first sentence alone.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// What was tried, in order.
    #[must_use]
    pub fn attempts(&self) -> &[String] {
        &self.0.tried
    }

    /// What to do about it, if known.
    #[must_use]
    pub fn remedy_text(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// Where the evidence lies, if any was kept.
    #[must_use]
    pub fn evidence_path(&self) -> Option<&Path> {
        self.0.evidence.as_deref()
    }

    /// True when the machine, not the system under test, is at fault: a missing engine is not a broken service.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        self.0.kind == ErrorKind::Environment
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.write_str(&inner.what)?;
        let mut cause: Option<&(dyn StdError + 'static)> = inner.source.as_ref().map(|s| &**s as _);
        while let Some(error) = cause {
            write!(f, "\n  because    {error}")?;
            cause = error.source();
        }
        for attempt in &inner.tried {
            write!(f, "\n  tried      {attempt}")?;
        }
        for (n, line) in inner.log.iter().enumerate() {
            let label = if n == 0 { "last log" } else { "" };
            write!(f, "\n  {label:<10} {line}")?;
        }
        if let Some(path) = &inner.evidence {
            write!(f, "\n  evidence   {}", path.display())?;
        }
        if let Some(remedy) = &inner.remedy {
            write!(f, "\n  remedy     {remedy}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|s| &**s as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, "input or output failed").caused_by(error)
    }
}

/// What a test body returns: `async fn my_test() -> harness_core::Result`.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// The error side of [`Result`]: any error, and the line where `?` met it.
///
/// Like `anyhow::Error` it does not implement [`std::error::Error`] itself, so that the conversion can be blanket.
/// Creating one marks the test that runs on this thread as failed (see [`crate::scope`]).
pub struct Failure {
    error: Box<dyn StdError + Send + Sync>,
    at: &'static Location<'static>,
}

impl Failure {
    /// The error that was converted.
    #[must_use]
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.error
    }

    /// The harness error inside, if it is one.
    #[must_use]
    pub fn harness(&self) -> Option<&Error> {
        self.error.downcast_ref()
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        crate::scope::mark_failed();
        Self { error: Box::new(error), at: Location::caller() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = self.harness() {
            fmt::Debug::fmt(error, f)?;
        } else {
            write!(f, "{}", self.error)?;
            let mut cause = self.error.source();
            while let Some(error) = cause {
                write!(f, "\n  because    {error}")?;
                cause = error.source();
            }
        }
        write!(f, "\n  at         {}:{}", self.at.file(), self.at.line())
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, ErrorKind, Failure};

    #[test]
    fn debug_is_the_report() {
        let error = Error::new(ErrorKind::Environment, "no Postgres could be had")
            .tried("url: HARNESS_POSTGRES_URL is not set")
            .tried("container: no engine answers")
            .log(["first", "second"])
            .evidence("/tmp/x")
            .remedy("run `harness provision`")
            .caused_by(std::io::Error::other("refused"));
        assert_eq!(
            format!("{error:?}"),
            "no Postgres could be had\n  because    refused\n  tried      url: HARNESS_POSTGRES_URL is not set\n  \
             tried      container: no engine answers\n  last log   first\n             second\n  evidence   /tmp/x\n  \
             remedy     run `harness provision`"
        );
        assert!(error.is_environment());
    }

    #[test]
    fn failure_keeps_the_line_and_the_source() {
        fn body() -> super::Result {
            Err(Error::new(ErrorKind::Assertion, "two is not three"))?;
            Ok(())
        }
        let failure: Failure = body().unwrap_err();
        assert_eq!(failure.harness().map(Error::kind), Some(ErrorKind::Assertion));
        let text = format!("{failure:?}");
        assert!(text.starts_with("two is not three") && text.contains("error.rs:"), "{text}");
    }
}
