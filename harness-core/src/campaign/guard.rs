//! Refuses to run destructive tests against anything that might be somebody's real system.

use super::mask::mask_url;
use crate::error::{CoreResult, Error, ErrorKind};

/// What must be true before the first connection is made.
///
/// ```
/// use harness_core::campaign::Guard;
///
/// let guard = Guard::new()
///     .environment("APP_ENVIRONMENT", Some("testing"))
///     .url("database", "postgres://app:s3cret@127.0.0.1/app_test")
///     .url("cache", "redis://127.0.0.1:6379/1");
/// assert!(guard.check().is_ok());
/// assert!(guard.url("database", "postgres://app@db.prod.example/app_test").check().is_err());
/// ```
#[derive(Debug, Clone)]
#[must_use = "a guard refuses nothing until it is checked or given to a campaign"]
pub struct Guard {
    expected: String,
    denied: Vec<String>,
    allow_redis_zero: bool,
    environments: Vec<(String, Option<String>)>,
    urls: Vec<(String, String)>,
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

impl Guard {
    /// A guard that expects the marker `testing` and denies `prod`, `production` and `live`.
    pub fn new() -> Self {
        Self {
            expected: "testing".to_owned(),
            denied: ["prod", "production", "live"].map(str::to_owned).to_vec(),
            allow_redis_zero: false,
            environments: Vec::new(),
            urls: Vec::new(),
        }
    }

    /// The environment marker of the system under test: the variable's name and its value, if it is set.
    pub fn environment(mut self, variable: &str, value: Option<&str>) -> Self {
        self.environments.push((variable.to_owned(), value.map(str::to_owned)));
        self
    }

    /// A URL that tests will write to. Its host or database name must carry the word `test`, or, for HTTP and Redis,
    /// lie on this machine; a Redis URL must name a logical database other than 0.
    pub fn url(mut self, name: &str, url: &str) -> Self {
        self.urls.push((name.to_owned(), url.to_owned()));
        self
    }

    /// Another word that no host or database name may contain.
    pub fn deny(mut self, word: &str) -> Self {
        self.denied.push(word.to_ascii_lowercase());
        self
    }

    /// Accepts Redis database 0, for servers that belong to the tests alone.
    pub fn allow_redis_zero(mut self) -> Self {
        self.allow_redis_zero = true;
        self
    }

    /// Everything that speaks against running, without a secret in it.
    #[must_use]
    pub fn refusals(&self) -> Vec<String> {
        let mut refusals = Vec::new();
        for (variable, value) in &self.environments {
            match value.as_deref() {
                Some(value) if value == self.expected => {}
                Some(value) => {
                    refusals.push(format!("{variable} is `{value}`, only `{}` may be tested", self.expected))
                }
                None => refusals.push(format!("{variable} is not set, it must be `{}`", self.expected)),
            }
        }
        for (name, url) in &self.urls {
            if let Some(why) = self.against(url) {
                refusals.push(format!("{name} {}: {why}", mask_url(url)));
            }
        }
        refusals
    }

    /// Refuses when anything speaks against running.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with every refusal at once.
    pub fn check(&self) -> CoreResult {
        let refusals = self.refusals();
        if refusals.is_empty() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Refused, "this does not look like a test environment; nothing was touched")
            .remedy("point the tests at a system of their own, with `test` in its host or database name");
        Err(refusals.into_iter().fold(error, Error::tried))
    }

    fn against(&self, url: &str) -> Option<String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Some("it is not a URL (scheme://host/…)".to_owned());
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some(word) = words(authority).chain(words(path)).find(|word| self.denied.contains(word)) {
            return Some(format!("it carries the denied word `{word}`"));
        }
        let marked =
            words(authority).chain(words(path)).any(|word| matches!(word.as_str(), "test" | "tests" | "testing"));
        let local = is_loopback(authority);
        match scheme {
            "redis" | "rediss" if !self.allow_redis_zero && matches!(path, "" | "0") => {
                Some("it names logical database 0; tests use another, such as /1".to_owned())
            }
            "redis" | "rediss" | "http" | "https" | "ws" | "wss" if local => None,
            _ if marked => None,
            _ => Some("neither its host nor its database name carries the word `test`".to_owned()),
        }
    }
}

/// Lower-case words between punctuation, without trailing digits: `db-prod1` is `db` and `prod`.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()).to_ascii_lowercase())
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::Guard;
    use crate::error::ErrorKind;

    #[test]
    fn accepts_what_is_marked_as_a_test() {
        for url in [
            "postgres://postgres@localhost/tmws_test",
            "postgres://u:p@test-db.internal:5432/app",
            "redis://127.0.0.1:6379/1",
            "http://127.0.0.1:8080/",
            "http://[::1]:8080/health",
            "https://testing.example/api",
        ] {
            assert_eq!(Guard::new().url("x", url).refusals(), [""; 0], "{url}");
        }
    }

    #[test]
    fn refuses_what_may_be_real() {
        for (url, why) in [
            ("postgres://postgres@localhost/tmws", "neither its host"),
            ("postgres://postgres@localhost/latest", "neither its host"),
            ("postgres://u@contest.example/app", "neither its host"),
            ("postgres://u@db.prod.example/app_test", "denied word `prod`"),
            ("postgres://u@db-prod2/app_test", "denied word `prod`"),
            ("postgres://u@localhost/production_test", "denied word `production`"),
            ("redis://127.0.0.1:6379/0", "logical database 0"),
            ("redis://127.0.0.1:6379", "logical database 0"),
            ("redis://cache.example/1", "neither its host"),
            ("http://api.example/", "neither its host"),
            ("localhost:5432", "not a URL"),
        ] {
            let refusals = Guard::new().url("x", url).refusals();
            assert!(refusals.len() == 1 && refusals[0].contains(why), "{url}: {refusals:?}");
        }
        assert!(Guard::new().allow_redis_zero().url("x", "redis://127.0.0.1/0").check().is_ok());
        assert!(Guard::new().deny("Hera").url("x", "http://127.0.0.1/hera").check().is_err());
    }

    #[test]
    fn refuses_every_environment_but_testing_and_names_all_at_once_without_secrets() {
        for value in [None, Some("production"), Some("staging"), Some("Testing"), Some("")] {
            assert!(Guard::new().environment("APP_ENVIRONMENT", value).check().is_err(), "{value:?}");
        }
        let error = Guard::new()
            .environment("APP_ENVIRONMENT", Some("production"))
            .url("database", "postgres://u:hunter2@db/app")
            .check()
            .unwrap_err();
        assert_eq!((error.kind(), error.attempts().len()), (ErrorKind::Refused, 2));
        let text = format!("{error:?}");
        assert!(text.contains("u:***@db") && !text.contains("hunter2"), "{text}");
    }
}
