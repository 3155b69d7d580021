//! The only place in this crate that reads the environment.
//!
//! | variable | meaning |
//! |---|---|
//! | `HARNESS_SEED` | seed of everything random, decimal or `0x…`; default: derived from the run id |
//! | `HARNESS_KEEP` | how long a failed test's things stay, for example `15m`; default 15 minutes, 0 under `CI` |
//! | `HARNESS_TEST_LIMIT` | how long a test's scope may live before the process ends with what everybody was at; default: no limit |
//! | `HARNESS_OUT` | where records and evidence go; default `target/harness` |
//! | `HARNESS_OFFLINE` | `1`: nothing is fetched |
//! | `HARNESS_PLANT` | names of planted defects, handed to the system under test |
//! | `HARNESS_PROFILE` | name of the campaign profile |
//! | `HARNESS_PROVIDERS` | order of providers, for example `container,local` |
//! | `HARNESS_LINGER` | how long shared servers outlive their last user; default 10 s |
//! | `HARNESS_ROUNDS` | how often a figure that is repeated repeats; default: the short form |
//! | `HARNESS_BASELINE` | what benches do with stored baselines: `save` or `compare`, with `:name`; default: whichever fits |
//! | `HARNESS_TURNS` | directory of the locks by which scenarios that run alone take turns with other processes; default: that of temporary files |
//! | `HARNESS_CAMPAIGN` | `1`: a campaign runs to its decision, as with `--campaign` |
//! | `NO_COLOR` | no colour on a terminal (<https://no-color.org>) |
//! | `HARNESS_KEEPER` | set by the harness itself: this process is a keeper |

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::error::{CoreResult, Error, ErrorKind};

/// The harness settings of this process, read once.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// `HARNESS_SEED`, if set and well formed.
    pub seed: Option<u64>,
    /// `HARNESS_KEEP`.
    pub keep: Duration,
    /// True when `HARNESS_KEEP` is set and not zero: then evidence of tests that passed stays, too.
    pub keep_is_set: bool,
    /// `HARNESS_TEST_LIMIT`.
    pub test_limit: Option<Duration>,
    /// `HARNESS_OUT`.
    pub out: Option<PathBuf>,
    /// `HARNESS_OFFLINE`.
    pub offline: bool,
    /// `HARNESS_PLANT`, split at commas.
    pub plants: Vec<String>,
    /// `HARNESS_PROFILE`.
    pub profile: Option<String>,
    /// `HARNESS_PROVIDERS`, split at commas.
    pub providers: Option<Vec<String>>,
    /// `HARNESS_LINGER`.
    pub linger: Duration,
    /// `HARNESS_ROUNDS`, if set and well formed.
    pub rounds: Option<u64>,
    /// `HARNESS_BASELINE`.
    pub baseline: Option<String>,
    /// `HARNESS_TURNS`.
    pub turns: Option<PathBuf>,
    /// `HARNESS_CAMPAIGN`.
    pub campaign: bool,
    /// `NO_COLOR`.
    pub no_color: bool,
    /// `CARGO_PKG_NAME`: the package whose tests run, if cargo started them.
    pub package: Option<String>,
    /// `HARNESS_KEEPER`.
    pub(crate) keeper: Option<String>,
    /// True when `CI` is set.
    pub ci: bool,
    /// Base directory for state: `XDG_RUNTIME_DIR`, if it is set and usable.
    pub runtime_dir: Option<PathBuf>,
    /// What nextest says about this process, if it runs under nextest.
    pub nextest: Option<Nextest>,
    /// Settings that were set but could not be read, each with the reason.
    pub problems: Vec<String>,
}

/// Identifiers that nextest hands to each test process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nextest {
    /// `NEXTEST_RUN_ID`.
    pub run_id: String,
    /// `NEXTEST_BINARY_ID`.
    pub binary_id: String,
    /// `NEXTEST_TEST_NAME`.
    pub test_name: String,
    /// `NEXTEST_ATTEMPT`, counted from 1.
    pub attempt: u32,
}

impl Settings {
    /// The settings of this process.
    #[must_use]
    pub fn get() -> &'static Self {
        static SETTINGS: OnceLock<Settings> = OnceLock::new();
        SETTINGS.get_or_init(|| Self::read(|name| std::env::var(name).ok().filter(|value| !value.is_empty())))
    }

    /// Reads the settings through a lookup, so that tests need no environment.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let mut problems = Vec::new();
        let ci = lookup("CI").is_some();
        let seed = lookup("HARNESS_SEED").and_then(|text| {
            parse_seed(&text).map_err(|error| problems.push(format!("HARNESS_SEED: {}", error.what()))).ok()
        });
        let mut duration = |name: &str, default: Duration| match lookup(name) {
            None => default,
            Some(text) => parse_duration(&text).unwrap_or_else(|error| {
                problems.push(format!("{name}: {}", error.what()));
                default
            }),
        };
        let keep = duration("HARNESS_KEEP", if ci { Duration::ZERO } else { Duration::from_secs(15 * 60) });
        let linger = duration("HARNESS_LINGER", Duration::from_secs(10));
        let test_limit = duration("HARNESS_TEST_LIMIT", Duration::MAX);
        let rounds = lookup("HARNESS_ROUNDS").and_then(|text| {
            let rounds = text.parse().ok().filter(|rounds| *rounds > 0);
            if rounds.is_none() {
                problems.push(format!("HARNESS_ROUNDS: `{text}` is not a number of rounds (such as 200)"));
            }
            rounds
        });
        let flag = |name: &str| lookup(name).is_some_and(|value| value != "0");
        let list = |name: &str| {
            lookup(name).map(|text| {
                text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
            })
        };
        let nextest = match (lookup("NEXTEST_RUN_ID"), lookup("NEXTEST_TEST_NAME")) {
            (Some(run_id), Some(test_name)) => Some(Nextest {
                run_id,
                test_name,
                binary_id: lookup("NEXTEST_BINARY_ID").unwrap_or_default(),
                attempt: lookup("NEXTEST_ATTEMPT").and_then(|text| text.parse().ok()).unwrap_or(1),
            }),
            _ => None,
        };
        Self {
            seed,
            keep,
            keep_is_set: lookup("HARNESS_KEEP").is_some() && !keep.is_zero(),
            test_limit: Some(test_limit).filter(|limit| *limit != Duration::MAX),
            out: lookup("HARNESS_OUT").map(PathBuf::from),
            offline: flag("HARNESS_OFFLINE"),
            plants: list("HARNESS_PLANT").unwrap_or_default(),
            profile: lookup("HARNESS_PROFILE"),
            providers: list("HARNESS_PROVIDERS"),
            linger,
            rounds,
            baseline: lookup("HARNESS_BASELINE"),
            turns: lookup("HARNESS_TURNS").map(PathBuf::from),
            campaign: flag("HARNESS_CAMPAIGN"),
            no_color: flag("NO_COLOR"),
            package: lookup("CARGO_PKG_NAME"),
            keeper: lookup("HARNESS_KEEPER"),
            ci,
            runtime_dir: lookup("XDG_RUNTIME_DIR").map(PathBuf::from),
            nextest,
            problems,
        }
    }

    /// An error that lists every malformed setting, or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming each variable and what it accepts.
    pub fn validate(&self) -> CoreResult {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(self.problems.iter().fold(
            Error::new(ErrorKind::Config, "settings in the environment cannot be used").remedy("correct or unset them"),
            |error, problem| error.tried(problem),
        ))
    }
}

/// Reads `42` or `0x2a`.
///
/// # Errors
/// [`ErrorKind::Config`] when it is neither.
pub fn parse_seed(text: &str) -> CoreResult<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| {
        Error::new(ErrorKind::Config, format!("`{text}` is not a seed (a number such as 42 or 0x2a)")).caused_by(error)
    })
}

/// Reads `500ms`, `10s`, `10m`, `2h`, or a plain number of seconds.
///
/// # Errors
/// [`ErrorKind::Config`] when it is none of these.
pub fn parse_duration(text: &str) -> CoreResult<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    number.parse::<f64>().ok().and_then(|number| Duration::try_from_secs_f64(number * factor).ok()).ok_or_else(|| {
        Error::new(ErrorKind::Config, format!("`{text}` is not a duration (such as 500ms, 10s, 10m, 2h)"))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Settings, parse_duration};

    #[test]
    fn reads_durations_and_refuses_others() {
        for (text, millis) in [("500ms", 500), ("10", 10_000), ("10s", 10_000), ("1.5m", 90_000), ("2h", 7_200_000)] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "ten", "10 parsecs", "-1s", "1e400"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reports_all_malformed_settings_at_once() {
        let settings = Settings::read(|name| match name {
            "HARNESS_SEED" => Some("x".into()),
            "HARNESS_KEEP" => Some("soon".into()),
            "HARNESS_ROUNDS" => Some("0".into()),
            _ => None,
        });
        let text = format!("{:?}", settings.validate().unwrap_err());
        assert!(text.contains("HARNESS_SEED") && text.contains("HARNESS_KEEP"), "{text}");
        assert!(text.contains("HARNESS_ROUNDS: `0`"), "{text}");
    }

    #[test]
    fn keeps_nothing_in_ci_unless_told() {
        let ci = |name: &str| (name == "CI").then(|| "true".to_owned());
        assert_eq!(Settings::read(ci).keep, Duration::ZERO);
        assert_eq!(Settings::read(|_| None).keep, Duration::from_secs(900));
    }
}
