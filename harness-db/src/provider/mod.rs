//! Where servers come from: the chain of providers, and what became of each attempt.
//!
//! URL (`HARNESS_POSTGRES_URL`, `HARNESS_REDIS_URL`) → a live shared server of this user → container → local binaries →
//! portable binaries fetched once. `HARNESS_PROVIDERS=container,local` sets another order and leaves the rest out. A
//! test process never runs a package manager, never builds an image and never pulls one: `harness provision` does.

use std::fmt;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind};
use serde::{Deserialize, Serialize};

#[cfg(any(feature = "containers", feature = "portable"))]
pub mod image;
pub mod local;
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) mod own;
#[cfg(feature = "portable")]
pub mod portable;
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) mod recipe;
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) mod shared;

/// One way to have a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Provider {
    /// Somebody started it and gave its URL.
    Url,
    /// A shared server that an earlier process of this user started and that still runs.
    Shared,
    /// A container of an engine on this machine.
    Container,
    /// Binaries installed on this machine.
    Local,
    /// Binaries fetched once into the cache of this user.
    Portable,
}

impl Provider {
    /// All that start something, in the default order.
    pub const STARTERS: [Self; 3] = [Self::Container, Self::Local, Self::Portable];

    /// Its name in `HARNESS_PROVIDERS`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Shared => "shared",
            Self::Container => "container",
            Self::Local => "local",
            Self::Portable => "portable",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One provider that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// Which one.
    pub provider: Provider,
    /// Whether it gave the server.
    pub worked: bool,
    /// What it gave, or why not.
    pub outcome: String,
    /// How long asking took.
    pub took: Duration,
    /// What would make it work.
    pub remedy: Option<String>,
}

impl Attempt {
    /// An attempt that gave nothing.
    pub(crate) fn failed(provider: Provider, outcome: impl Into<String>, remedy: Option<&str>) -> Self {
        Self {
            provider,
            worked: false,
            outcome: outcome.into(),
            took: Duration::ZERO,
            remedy: remedy.map(str::to_owned),
        }
    }

    /// An attempt that ended in an error.
    pub(crate) fn from_error(provider: Provider, error: &Error) -> Self {
        // The whole report, one line: the chain's error shows each attempt as one line.
        let text = format!("{error:?}");
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with("remedy ")).collect();
        Self::failed(provider, lines.join("; "), error.remedy_text())
    }

    /// An attempt that gave a server.
    pub(crate) fn worked(provider: Provider, outcome: impl Into<String>) -> Self {
        Self { worked: true, ..Self::failed(provider, outcome, None) }
    }

    /// The same attempt with the time it took.
    pub(crate) fn took(self, took: Duration) -> Self {
        Self { took, ..self }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.provider, self.outcome, seconds(self.took))?;
        match &self.remedy {
            Some(remedy) => write!(f, " -> {remedy}"),
            None => Ok(()),
        }
    }
}

/// Which provider gave a server, and what was tried before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Choice {
    /// `postgres` or `redis`.
    pub service: String,
    /// The provider that gave it.
    pub provider: Provider,
    /// What it is: version and origin.
    pub what: String,
    /// Everything that was asked, in order; the last one worked.
    pub attempts: Vec<Attempt>,
}

impl Choice {
    /// The one line that is printed when a server starts.
    #[must_use]
    pub fn line(&self) -> String {
        let before: Vec<String> = self
            .attempts
            .iter()
            .filter(|a| !a.worked && a.provider != Provider::Url)
            .map(|a| format!("{}: {}", a.provider, a.outcome))
            .collect();
        let took = self.attempts.last().map_or(Duration::ZERO, |attempt| attempt.took);
        let reason = match before.is_empty() {
            true => "first in the order of providers".to_owned(),
            false => before.join("; "),
        };
        format!("harness: {} from {} ({}), up in {} [{reason}]", self.service, self.provider, self.what, seconds(took))
    }
}

static CHOICES: Mutex<Vec<Choice>> = Mutex::new(Vec::new());

/// The servers this process uses: where each came from and what was tried before.
#[must_use]
pub fn choices() -> Vec<Choice> {
    CHOICES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Remembers a choice for [`choices`].
pub(crate) fn remember(choice: &Choice) {
    let mut choices = CHOICES.lock().unwrap_or_else(PoisonError::into_inner);
    if !choices.contains(choice) {
        choices.push(choice.clone());
    }
}

/// The URL with its password replaced, fit for messages.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn masked(url: &str) -> String {
    let (Some(at), Some(start)) = (url.rfind('@'), url.find("://").map(|at| at + 3)) else {
        return url.to_owned();
    };
    match url.get(start..at).and_then(|user| user.find(':')) {
        Some(colon) => format!("{}:***{}", &url[..start + colon], &url[at..]),
        None => url.to_owned(),
    }
}

/// Says one line to whoever runs the tests; past libtest's capture, since it concerns all tests.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The providers to ask, from `HARNESS_PROVIDERS`.
///
/// # Errors
/// [`ErrorKind::Config`] naming the word that is no provider.
pub fn order(words: Option<&[String]>) -> CoreResult<Vec<Provider>> {
    let Some(words) = words else {
        return Ok([&[Provider::Url][..], &Provider::STARTERS].concat());
    };
    let all = [&[Provider::Url, Provider::Shared][..], &Provider::STARTERS].concat();
    let read = |word: &String| {
        all.iter().copied().find(|provider| provider.name() == word).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("HARNESS_PROVIDERS names `{word}`, which is no provider"))
                .remedy("use url, container, local, portable, in the order you want them tried")
        })
    };
    words.iter().map(read).collect()
}

/// The error when every provider failed: all attempts, each with its remedy.
pub(crate) fn nothing_worked(service: &str, attempts: &[Attempt]) -> Error {
    let title = match service {
        "redis" => "Redis",
        _ => "Postgres",
    };
    let what = format!("no {title} could be had");
    let error = attempts
        .iter()
        .fold(Error::new(ErrorKind::Environment, what), |error, attempt| error.tried(attempt.to_string()));
    let upper = service.to_uppercase();
    let mut remedy = format!("run `harness provision`, or set HARNESS_{upper}_URL to a {title} that tests may use");
    if service == "postgres" && crate::env::DbSettings::get().database_url_is_set {
        remedy.push_str(" (DATABASE_URL is set but never adopted: it may be a real database)");
    }
    error.remedy(remedy)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::ErrorKind;

    use super::{Attempt, Choice, Provider, nothing_worked, order};

    #[test]
    fn order_is_read_and_a_wrong_word_is_named() {
        let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(order(None).unwrap()[..2], [Provider::Url, Provider::Container]);
        assert_eq!(order(Some(&words("local,url"))).unwrap(), [Provider::Local, Provider::Url]);
        let error = order(Some(&words("local,docker"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.what().contains("`docker`"), "{error}");
    }

    #[test]
    fn one_error_lists_every_attempt_and_remedy() {
        let attempts = [
            Attempt::failed(Provider::Container, "no engine answers", Some("start the engine")),
            Attempt::failed(Provider::Local, "PostgreSQL 14.9 is too old", None).took(Duration::from_millis(4)),
        ];
        let text = format!("{:?}", nothing_worked("postgres", &attempts));
        for part in
            ["container: no engine answers", "-> start the engine", "local: PostgreSQL 14.9", "harness provision"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn choice_is_one_line_with_its_reason() {
        let choice = Choice {
            service: "postgres".into(),
            provider: Provider::Local,
            what: "PostgreSQL 15.1".into(),
            attempts: vec![
                Attempt::failed(Provider::Container, "no engine answers", None),
                Attempt::worked(Provider::Local, "/usr/lib").took(Duration::from_millis(900)),
            ],
        };
        assert_eq!(
            choice.line(),
            "harness: postgres from local (PostgreSQL 15.1), up in 900 ms [container: no engine answers]"
        );
    }
}
