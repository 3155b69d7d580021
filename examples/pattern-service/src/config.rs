//! Settings from flags and environment variables; every problem is reported at once, and secrets never show.
//!
//! `TMWS_DATABASE_URL` may also be given as `--database-url VALUE` or `--database-url=VALUE`, and so on; a flag wins.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use crate::log::Level;
use crate::plant::Plants;

/// Variable, flag and meaning of every setting.
pub const SETTINGS: [(&str, &str, &str); 19] = [
    ("TMWS_ENVIRONMENT", "environment", "testing | staging | production (required)"),
    ("TMWS_DATABASE_URL", "database-url", "postgresql://user:password@host:port/database (required)"),
    ("TMWS_REDIS_URL", "redis-url", "redis://host:port/db (required)"),
    ("TMWS_REDIS_SENTINELS", "redis-sentinels", "host:port,… of sentinels; they name the primary instead of redis-url"),
    ("TMWS_REDIS_MASTER", "redis-master", "the name the sentinels know the primary by; default mymaster"),
    ("TMWS_AUTH_ENABLED", "auth-enabled", "true | false; default true, but false in testing"),
    ("TMWS_TOKEN", "token", "bearer token, at least 16 characters; required when authentication is on"),
    ("TMWS_RATE_LIMIT", "rate-limit", "requests per second and identity when authentication is on; default 100"),
    ("TMWS_MODEL_URL", "model-url", "http:// address of the fallback model; without it fallback is refused"),
    ("TMWS_MODEL_TIMEOUT_MS", "model-timeout-ms", "time limit of one model call; default 2000"),
    ("TMWS_BREAKER_OPEN_MS", "breaker-open-ms", "how long the open circuit breaker refuses; default 5000"),
    ("TMWS_BASELINE_TOKENS", "baseline-tokens", "tokens a query costs without patterns; default 400"),
    ("TMWS_PATTERN_LIMIT_MS", "pattern-limit-ms", "time limit of one pattern execution; default 2000"),
    ("TMWS_START_LIMIT_MS", "start-limit-ms", "how long the start waits for Postgres; default 15000"),
    ("TMWS_MAX_IN_FLIGHT", "max-in-flight", "requests under way at once, others are refused; default 256"),
    ("TMWS_PATTERNS_FILE", "patterns-file", "pattern library; default: the one built in"),
    ("TMWS_RELEASE", "release", "name of the release this process is; default: the version of the package"),
    ("TMWS_LOG", "log", "error | warn | info | debug; default info"),
    ("HARNESS_PLANT", "plant", "planted defects, comma-separated; environment testing only"),
];

/// Where the service runs; decides which dangerous switches exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Planted defects and admin resets are available.
    Testing,
    /// Like production, with its own data.
    Staging,
    /// Authentication cannot be switched off.
    Production,
}

impl Environment {
    /// The value of `TMWS_ENVIRONMENT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Testing => "testing",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

/// A text that is shown as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself; do not print it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The secure profile.
#[derive(Debug, Clone)]
pub struct Auth {
    /// The bearer token that every caller shows.
    pub token: Secret,
    /// Accepted requests per identity in any one second.
    pub rate_limit: u32,
}

/// Checked settings of one process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where this process runs.
    pub environment: Environment,
    /// Address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Postgres address with password; use [`Config::database`] for the driver and [`masked`] for people.
    pub database_url: Secret,
    /// Redis address, possibly with password.
    pub redis_url: Secret,
    /// Logical Redis database taken from the path of the address.
    pub redis_db: i64,
    /// Addresses of sentinels that name the primary; empty when the address of Redis is the primary's.
    pub sentinels: Vec<SocketAddr>,
    /// The name the sentinels know the primary by.
    pub redis_master: String,
    /// The secure profile, or `None` when authentication is off.
    pub auth: Option<Auth>,
    /// Address of the fallback model.
    pub model_url: Option<String>,
    /// Time limit of one model call.
    pub model_timeout: Duration,
    /// How long an open circuit breaker refuses before it allows a trial.
    pub breaker_open: Duration,
    /// Tokens that a query costs without patterns.
    pub baseline_tokens: u64,
    /// Time limit of one pattern execution.
    pub pattern_limit: Duration,
    /// How long the start waits for Postgres.
    pub start_limit: Duration,
    /// Requests that may be under way at once.
    pub max_in_flight: usize,
    /// Pattern library; `None` is the one built in.
    pub patterns_file: Option<PathBuf>,
    /// The release this process is.
    pub release: String,
    /// Most detailed level written to standard error.
    pub log: Level,
    /// Planted defects.
    pub plants: Plants,
}

/// All that is wrong with the settings, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} problem(s) with the settings:", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Raw values by flag name, and the problems found so far.
struct Reader<'a> {
    flags: Vec<(String, String)>,
    env: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn arguments(&mut self, args: impl IntoIterator<Item = String>) {
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--") else {
                self.problems.push(format!("{arg}: flags begin with --; try --help"));
                continue;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            if name != "listen" && !SETTINGS.iter().any(|(_, known, _)| *known == name) {
                self.problems.push(format!("--{name}: no such flag; try --help"));
                continue;
            }
            match inline.or_else(|| args.next()) {
                Some(value) => self.flags.push((name.to_owned(), value)),
                None => self.problems.push(format!("--{name}: a value is missing")),
            }
        }
    }

    /// The value given for a variable; an empty one counts as not given.
    fn text(&self, variable: &str) -> Option<String> {
        let flag = SETTINGS.iter().find(|(name, _, _)| *name == variable).map_or("listen", |(_, flag, _)| *flag);
        let given = self.flags.iter().rev().find(|(name, _)| name == flag).map(|(_, value)| value.clone());
        given.or_else(|| (self.env)(variable)).filter(|value| !value.is_empty())
    }

    fn required(&mut self, variable: &str) -> Option<String> {
        let value = self.text(variable);
        if value.is_none() {
            let meaning = SETTINGS.iter().find(|(name, _, _)| *name == variable).map_or("", |(_, _, meaning)| *meaning);
            self.problems.push(format!("{variable} is missing: {meaning}"));
        }
        value
    }

    fn number(&mut self, variable: &str, default: u64, least: u64, most: u64) -> u64 {
        let Some(text) = self.text(variable) else { return default };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => number,
            _ => {
                self.problems.push(format!("{variable}={text}: a whole number from {least} to {most} is expected"));
                default
            }
        }
    }

    fn choice<T>(&mut self, variable: &str, parse: impl Fn(&str) -> Option<T>, expected: &str) -> Option<T> {
        let text = self.text(variable)?;
        let value = parse(&text);
        if value.is_none() {
            self.problems.push(format!("{variable}={text}: expected {expected}"));
        }
        value
    }
}

impl Config {
    /// Reads flags (without the program name) and variables.
    pub fn read(
        args: impl IntoIterator<Item = String>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let mut from = Reader { flags: Vec::new(), env, problems: Vec::new() };
        from.arguments(args);
        from.required("TMWS_ENVIRONMENT");
        let environment = from.choice("TMWS_ENVIRONMENT", environment, "testing, staging or production");
        let database_url = from.required("TMWS_DATABASE_URL").unwrap_or_default();
        let redis_url = from.required("TMWS_REDIS_URL").unwrap_or_default();
        if let Err(problem) = database_options(&database_url) {
            from.problems.push(format!("TMWS_DATABASE_URL={}: {problem}", masked(&database_url)));
        }
        let redis_db = redis_db(&redis_url).unwrap_or_else(|problem| {
            from.problems.push(format!("TMWS_REDIS_URL={}: {problem}", masked(&redis_url)));
            0
        });
        let plants = Plants::parse(&from.text("HARNESS_PLANT").unwrap_or_default());
        let plants = plants.unwrap_or_else(|unknown| {
            from.problems.push(format!("HARNESS_PLANT: {unknown}"));
            Plants::default()
        });
        if !plants.is_empty() && environment.is_some_and(|environment| environment != Environment::Testing) {
            from.problems.push("HARNESS_PLANT: planted defects exist in the environment testing only".to_owned());
        }
        let listen = from.choice("TMWS_LISTEN", |text| text.parse().ok(), "an address such as 127.0.0.1:8000");
        let config = Self {
            environment: environment.unwrap_or(Environment::Production),
            listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8000))),
            database_url: Secret(database_url),
            redis_url: Secret(redis_url),
            redis_db,
            sentinels: from.choice("TMWS_REDIS_SENTINELS", addresses, "host:port,host:port").unwrap_or_default(),
            redis_master: from.text("TMWS_REDIS_MASTER").unwrap_or_else(|| "mymaster".to_owned()),
            auth: auth(&mut from, environment),
            model_url: from.text("TMWS_MODEL_URL"),
            model_timeout: Duration::from_millis(from.number("TMWS_MODEL_TIMEOUT_MS", 2_000, 10, 120_000)),
            breaker_open: Duration::from_millis(from.number("TMWS_BREAKER_OPEN_MS", 5_000, 10, 600_000)),
            baseline_tokens: from.number("TMWS_BASELINE_TOKENS", 400, 1, 1_000_000),
            pattern_limit: Duration::from_millis(from.number("TMWS_PATTERN_LIMIT_MS", 2_000, 10, 60_000)),
            start_limit: Duration::from_millis(from.number("TMWS_START_LIMIT_MS", 15_000, 100, 600_000)),
            max_in_flight: from.number("TMWS_MAX_IN_FLIGHT", 256, 1, 100_000) as usize,
            patterns_file: from.text("TMWS_PATTERNS_FILE").map(PathBuf::from),
            release: from.text("TMWS_RELEASE").unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            log: from.choice("TMWS_LOG", Level::parse, "error, warn, info or debug").unwrap_or(Level::Info),
            plants,
        };
        if config
            .model_url
            .as_deref()
            .is_some_and(|url| !reqwest::Url::parse(url).is_ok_and(|url| url.scheme() == "http"))
        {
            from.problems.push("TMWS_MODEL_URL: an http:// address is expected".to_owned());
        }
        if from.problems.is_empty() { Ok(config) } else { Err(ConfigErrors(from.problems)) }
    }

    /// Driver options of the database; the address was checked when the settings were read.
    pub fn database(&self) -> Result<PgConnectOptions, String> {
        database_options(self.database_url.expose())
    }
}

fn environment(text: &str) -> Option<Environment> {
    [Environment::Testing, Environment::Staging, Environment::Production].into_iter().find(|e| e.name() == text)
}

/// Addresses separated by commas; nothing when one of them cannot be read.
fn addresses(text: &str) -> Option<Vec<SocketAddr>> {
    text.split(',').map(|address| address.trim().parse().ok()).collect()
}

fn auth(from: &mut Reader<'_>, environment: Option<Environment>) -> Option<Auth> {
    let rate_limit = from.number("TMWS_RATE_LIMIT", 100, 1, 10_000) as u32;
    let enabled = from.choice("TMWS_AUTH_ENABLED", |text| text.parse::<bool>().ok(), "true or false");
    let enabled = enabled.unwrap_or_else(|| environment != Some(Environment::Testing));
    if !enabled {
        if environment == Some(Environment::Production) {
            from.problems.push("TMWS_AUTH_ENABLED=false: authentication cannot be off in production".to_owned());
        }
        return None;
    }
    match from.text("TMWS_TOKEN") {
        Some(token) if token.len() >= 16 && token.bytes().all(|b| b.is_ascii_graphic()) => {
            Some(Auth { token: Secret(token), rate_limit })
        }
        Some(_) => {
            from.problems.push("TMWS_TOKEN: at least 16 visible ASCII characters are expected".to_owned());
            None
        }
        None => {
            from.problems.push("TMWS_TOKEN is missing: authentication is on".to_owned());
            None
        }
    }
}

fn database_options(url: &str) -> Result<PgConnectOptions, String> {
    if url.is_empty() {
        return Ok(PgConnectOptions::new_without_pgpass()); // its absence has been reported already
    }
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("an address such as postgresql://user@host:5432/database is expected".to_owned());
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| "this is not a valid address".to_owned())?;
    match options.get_database() {
        Some(name) if !name.is_empty() => Ok(options),
        _ => Err("the name of the database is missing in the path".to_owned()),
    }
}

/// The logical database in the path of a Redis address; an empty path is database 0.
fn redis_db(url: &str) -> Result<i64, String> {
    if url.is_empty() {
        return Ok(0);
    }
    let parsed = reqwest::Url::parse(url).map_err(|_| "this is not a valid address".to_owned())?;
    if parsed.scheme() != "redis" || parsed.host_str().is_none_or(str::is_empty) {
        return Err("an address such as redis://127.0.0.1:6379/1 is expected".to_owned());
    }
    let path = parsed.path().trim_start_matches('/');
    if path.is_empty() {
        return Ok(0);
    }
    path.parse::<u16>().map(i64::from).map_err(|_| format!("{path:?} in the path is no database number"))
}

/// An address with its password replaced, fit for logs.
pub fn masked(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(mut parsed) => {
            if parsed.password().is_some() {
                let _ = parsed.set_password(Some("***"));
            }
            parsed.set_query(None);
            parsed.to_string()
        }
        Err(_) => "(not an address)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str], vars: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let vars: Vec<(String, String)> = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let env = move |name: &str| vars.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        Config::read(args.iter().map(|arg| (*arg).to_owned()), &env)
    }

    const GOOD: [(&str, &str); 3] = [
        ("TMWS_ENVIRONMENT", "testing"),
        ("TMWS_DATABASE_URL", "postgresql://postgres:hunter2@127.0.0.1:5432/tmws_test"),
        ("TMWS_REDIS_URL", "redis://:hunter3@127.0.0.1:6379/1"),
    ];

    #[test]
    fn reads_the_testing_profile_and_masks_secrets() {
        let config = read(&["--listen", "127.0.0.1:0", "--plant=no-index"], &GOOD).unwrap();
        assert!(config.auth.is_none() && config.redis_db == 1 && config.listen.port() == 0);
        assert_eq!(config.plants.names(), ["no-index"]);
        assert!(config.sentinels.is_empty() && config.max_in_flight == 256);
        assert_eq!(config.database().unwrap().get_database(), Some("tmws_test"));
        let shown = format!("{config:?} {}", masked(config.database_url.expose()));
        assert!(!shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn reports_every_problem_at_once() {
        let vars = [
            ("TMWS_ENVIRONMENT", "live"),
            ("TMWS_DATABASE_URL", "mysql://u:hunter2@h/db"),
            ("TMWS_REDIS_URL", "redis://127.0.0.1:6379/one"),
            ("TMWS_RATE_LIMIT", "0"),
            ("TMWS_LOG", "loud"),
            ("TMWS_MODEL_URL", "ftp://x"),
            ("TMWS_REDIS_SENTINELS", "127.0.0.1:26379,there"),
            ("TMWS_MAX_IN_FLIGHT", "0"),
        ];
        let errors = read(&["--plant", "wrong", "--colour", "--listen=here"], &vars).unwrap_err();
        let text = errors.to_string();
        for part in [
            "=live",
            "TMWS_DATABASE_URL",
            "\"one\"",
            "RATE_LIMIT",
            "LOG=loud",
            "MODEL_URL",
            "\"wrong\"",
            "--colour",
            "=here",
            "TMWS_TOKEN",
            "SENTINELS=127",
            "MAX_IN_FLIGHT=0",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert_eq!(errors.0.len(), 12, "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn production_refuses_open_doors_and_plants() {
        let mut vars = GOOD.to_vec();
        vars[0].1 = "production";
        let errors = read(&["--auth-enabled", "false", "--plant", "no-index"], &vars).unwrap_err().to_string();
        assert!(errors.contains("cannot be off in production") && errors.contains("testing only"), "{errors}");
        assert!(read(&["--token", "0123456789abcdef"], &vars).unwrap().auth.is_some());
    }

    #[test]
    fn missing_settings_are_named() {
        let errors = read(&[], &[]).unwrap_err().to_string();
        for name in ["TMWS_ENVIRONMENT", "TMWS_DATABASE_URL", "TMWS_REDIS_URL"] {
            assert!(errors.contains(&format!("{name} is missing")), "{errors}");
        }
    }
}
