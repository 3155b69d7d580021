//! Failures kept as values: they stay what they are when generators change, and can be read (feature `proptest`).

use std::fmt::Debug;
use std::path::Path;

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{PlanConfig, Values, plans};
use crate::plan::Plan;
use crate::rule::{Refusal, RefusalKind};
use crate::shrink::Shrink;

/// Version of the failure file's form.
const VERSION: u32 = 1;

/// Smallest failing values of earlier runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failures<S> {
    version: u32,
    /// The values, oldest first. Files that held plans only call them `plans`.
    #[serde(alias = "plans")]
    pub values: Vec<S>,
}

impl<S> Default for Failures<S> {
    fn default() -> Self {
        Self { version: VERSION, values: Vec::new() }
    }
}

impl<S: Serialize + DeserializeOwned + PartialEq> Failures<S> {
    /// Reads the text of a failure file.
    ///
    /// # Errors
    /// Text that is no failure file of this version: an old failure that cannot be replayed is said, not skipped.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let refused = |why: String| Refusal::new(RefusalKind::Unreadable, format!("not a failure file: {why}"));
        let read: Self = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
        match read.version {
            VERSION => Ok(read),
            other => Err(refused(format!("version {other}, not {VERSION}"))),
        }
    }

    /// Adds a failure unless it is there.
    pub fn add(&mut self, value: S) {
        if !self.values.contains(&value) {
            self.values.push(value);
        }
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// Tests a property of plans: see [`check_values`].
///
/// # Panics
/// When the property fails, or the file cannot be read or written: this is a test.
#[track_caller]
pub fn check_plans<E: Debug>(file: &Path, cases: u32, config: PlanConfig, property: impl Fn(&Plan) -> Result<(), E>) {
    check_values(file, cases, &plans(config), property);
}

/// Tests a property of slates, drills, sets of failing agents, commands …: first on the failures of earlier runs that `file`
/// holds, then on new values. A new failure is shrunk and written to the file, as a value and not as a seed. A value that
/// JSON cannot hold, such as one with NaN in it, is shown and not kept.
///
/// # Panics
/// When the property fails, or the file cannot be read or written: this is a test.
#[track_caller]
pub fn check_values<S, E>(file: &Path, cases: u32, values: &Values<S>, property: impl Fn(&S) -> Result<(), E>)
where
    S: Shrink + Debug + Serialize + DeserializeOwned + PartialEq,
    E: Debug,
{
    let mut known = match std::fs::read_to_string(file) {
        Ok(text) => Failures::<S>::parse(&text).unwrap_or_else(|refusal| panic!("{}: {refusal}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Failures::default(),
        Err(error) => panic!("{}: {error}", file.display()),
    };
    let shown = |value: &S| serde_json::to_string_pretty(value).unwrap_or_else(|_| format!("{value:?}"));
    for value in &known.values {
        if let Err(why) = property(value) {
            panic!("a known failure of {} still fails: {why:?}\n{}", file.display(), shown(value));
        }
    }
    let runner = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let outcome = TestRunner::new(runner)
        .run(values, |value| property(&value).map_err(|why| TestCaseError::fail(format!("{why:?}"))));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, value)) => {
            known.add(value.clone());
            let text = known.text();
            // Only what reads back as itself is kept: a file that cannot be read would fail every later run.
            let kept = match Failures::<S>::parse(&text).is_ok_and(|read| read == known) {
                true => std::fs::write(file, text).map_err(|error| error.to_string()),
                false => Err("JSON cannot hold it".to_owned()),
            };
            panic!("{why}\nsmallest failing value, kept in {} ({kept:?}):\n{}", file.display(), shown(&value));
        }
        Err(TestError::Abort(why)) => panic!("the test was given up: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Failures, check_plans, check_values};
    use crate::generate::{PlanConfig, SlateConfig, slates, subsets};
    use crate::plan::Plan;
    use crate::solution::Slate;

    #[test]
    fn failures_are_kept_as_values_and_replayed_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plans.json");
        let small = |plan: &Plan| if plan.steps.len() < 3 { Ok(()) } else { Err("three steps") };
        let config = PlanConfig::default().steps(1..=12);
        let first = std::panic::catch_unwind(|| check_plans(&file, 200, config.clone(), small));
        assert!(first.is_err(), "the property does not hold");
        let kept = Failures::<Plan>::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(kept.values[0].steps.len(), 3, "shrunk to the least");
        let again = std::panic::catch_unwind(|| check_plans(&file, 0, config.clone(), small));
        let why = *again.unwrap_err().downcast::<String>().unwrap();
        assert!(why.starts_with("a known failure"), "{why}");
        check_plans(&file, 200, config, |_| Ok::<(), ()>(()));
        assert!(
            Failures::<Plan>::parse("{\"version\":9,\"values\":[]}").is_err() && Failures::<Plan>::parse("").is_err()
        );
    }

    #[test]
    fn slates_and_combinations_are_kept_and_replayed_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("slates.json");
        let few = |slate: &Slate| if slate.solutions.len() < 2 { Ok(()) } else { Err("two solutions") };
        let run = || check_values(&file, 100, &slates(SlateConfig::default().plans(false)), few);
        assert!(std::panic::catch_unwind(run).is_err());
        let kept = Failures::<Slate>::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!((kept.values[0].solutions.len(), kept.values[0].objectives.len()), (2, 0), "shrunk to the least");
        let again = std::panic::catch_unwind(|| check_values(&file, 0, &slates(SlateConfig::default()), few));
        assert!(again.unwrap_err().downcast::<String>().unwrap().starts_with("a known failure"));

        let file = dir.path().join("agents.json");
        let handles = |failed: &BTreeSet<String>| match failed.contains("map") && failed.contains("clock") {
            true => Err("nobody handles that"),
            false => Ok(()),
        };
        let agents = || subsets(["crew", "map", "clock", "fuel"]);
        assert!(std::panic::catch_unwind(|| check_values(&file, 200, &agents(), handles)).is_err());
        let kept = Failures::<BTreeSet<String>>::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(kept.values, [BTreeSet::from(["clock".to_owned(), "map".to_owned()])]);
    }

    #[test]
    fn a_value_that_json_cannot_hold_spoils_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("numbers.json");
        let nan = crate::generate::values(|_| vec![f64::NAN]);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check_values(&file, 1, &nan, |list: &Vec<f64>| if list.is_empty() { Ok(()) } else { Err(()) })
        }));
        assert!(run.unwrap_err().downcast::<String>().unwrap().contains("JSON cannot hold it"));
        assert!(!file.exists());
    }
}
