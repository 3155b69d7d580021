//! The plan of a campaign: phases, scenarios, their names, and what makes a plan unusable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::args::Args;
use super::isolate::LocalFuture;
use super::scenario::Scenario;
use crate::error::Result;
use crate::record::ScenarioRecord;
use crate::slo::Threshold;

/// A scenario's body, without its type.
pub(super) trait Body<C>: Send + Sync {
    fn run<'a>(&'a self, cx: &'a mut Scenario<C>) -> LocalFuture<'a, Result>;
}

impl<C, F: AsyncFn(&mut Scenario<C>) -> Result + Send + Sync> Body<C> for F {
    fn run<'a>(&'a self, cx: &'a mut Scenario<C>) -> LocalFuture<'a, Result> {
        Box::pin(self(cx))
    }
}

/// A planned scenario.
pub(super) struct Planned<C> {
    pub(super) record: ScenarioRecord,
    /// `<category>::<id>_<slug>`.
    pub(super) name: String,
    pub(super) criteria: Vec<Threshold>,
    pub(super) exclusive: bool,
    pub(super) aside: bool,
    pub(super) limit: Option<Duration>,
    pub(super) body: Arc<dyn Body<C>>,
}

/// A phase being planned; settings after [`Phase::scenario`] apply to that scenario.
#[must_use = "a phase is part of a campaign when it is returned from the closure"]
pub struct Phase<C = ()> {
    pub(super) name: String,
    pub(super) budget: Duration,
    pub(super) scenarios: Vec<Planned<C>>,
    problems: Vec<String>,
}

impl<C> std::fmt::Debug for Phase<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<_> = self.scenarios.iter().map(|scenario| &scenario.record.id).collect();
        f.debug_struct("Phase")
            .field("name", &self.name)
            .field("budget", &self.budget)
            .field("scenarios", &ids)
            .finish()
    }
}

impl<C> Phase<C> {
    pub(super) fn new(name: &str, budget: Duration) -> Self {
        Self { name: name.to_owned(), budget, scenarios: Vec::new(), problems: Vec::new() }
    }

    /// Time after which the phase is cut: twice its budget.
    pub(super) fn hard_limit(&self) -> Duration {
        self.budget * 2
    }

    /// Adds a scenario: a unique id such as `A1`, a title, and an async function of [`Scenario`]. Its category is the
    /// phase's name until [`Phase::category`] says otherwise. It needs [`Phase::expects`] and [`Phase::remedy`].
    pub fn scenario(
        mut self,
        id: &str,
        title: &str,
        body: impl AsyncFn(&mut Scenario<C>) -> Result + Send + Sync + 'static,
    ) -> Self {
        self.scenarios.push(Planned {
            record: ScenarioRecord {
                id: id.to_owned(),
                title: title.to_owned(),
                category: self.name.clone(),
                phase: self.name.clone(),
                ..ScenarioRecord::default()
            },
            name: String::new(),
            criteria: Vec::new(),
            exclusive: false,
            aside: false,
            limit: None,
            body: Arc::new(body),
        });
        self
    }

    fn last(mut self, setting: &str, change: impl FnOnce(&mut Planned<C>)) -> Self {
        match self.scenarios.last_mut() {
            Some(scenario) => change(scenario),
            None => self.problems.push(format!("phase `{}`: `{setting}` stands before any scenario", self.name)),
        }
        self
    }

    /// A failure of the scenario, or missing evidence, alone forces NO-GO.
    pub fn critical(self) -> Self {
        self.last("critical", |scenario| scenario.record.critical = true)
    }

    /// Runs alone on this machine, even between processes.
    pub fn exclusive(self) -> Self {
        self.last("exclusive", |scenario| scenario.exclusive = true)
    }

    /// May run beside the others of its phase that may too, in a [profile](super::Profile::side_by_side) that saves time so: it
    /// mostly waits, judges no time that a neighbour could spoil, and looks at nothing that a neighbour changes.
    pub fn aside(self) -> Self {
        self.last("aside", |scenario| scenario.aside = true)
    }

    /// The scenario's category: the first part of its name, and its JUnit file.
    pub fn category(self, category: &str) -> Self {
        self.last("category", |scenario| category.clone_into(&mut scenario.record.category))
    }

    /// What is expected, in words.
    pub fn expects(self, text: &str) -> Self {
        self.last("expects", |scenario| text.clone_into(&mut scenario.record.expectation))
    }

    /// What to do when it fails.
    pub fn remedy(self, text: &str) -> Self {
        self.last("remedy", |scenario| text.clone_into(&mut scenario.record.remedy))
    }

    /// A word by which `--tag` finds it; may be called several times.
    pub fn tag(self, tag: &str) -> Self {
        self.last("tag", |scenario| scenario.record.tags.push(tag.to_owned()))
    }

    /// A requirement the scenario answers; may be called several times.
    pub fn requirement(self, id: &str) -> Self {
        self.last("requirement", |scenario| scenario.record.requirements.push(id.to_owned()))
    }

    /// A criterion fed by [`Scenario::metric`] under the threshold's name; a metric never reported is no evidence.
    pub fn criterion(self, threshold: Threshold) -> Self {
        self.last("criterion", |scenario| scenario.criteria.push(threshold))
    }

    /// Hard limit of the scenario; otherwise the phase's, twice its budget.
    pub fn limit(self, limit: Duration) -> Self {
        self.last("limit", |scenario| scenario.limit = Some(limit))
    }
}

/// What runs at the same time, in order: one scenario alone or, side by side, all of the phase that may, where the first of
/// them stands.
pub(super) fn batches<C>(phase: &Phase<C>, chosen: &[usize], side_by_side: bool) -> Vec<Vec<usize>> {
    let (mut batches, mut beside) = (Vec::<Vec<usize>>::new(), None::<usize>);
    for n in chosen {
        match beside {
            Some(at) if phase.scenarios[*n].aside => batches[at].push(*n),
            _ => {
                if side_by_side && phase.scenarios[*n].aside {
                    beside = Some(batches.len());
                }
                batches.push(vec![*n]);
            }
        }
    }
    batches
}

/// Fills in the names and lists everything that makes the plan unusable.
pub(super) fn settle<C>(phases: &mut [Phase<C>]) -> Vec<String> {
    let mut problems = Vec::new();
    let (mut ids, mut names) = (BTreeMap::<String, u32>::new(), BTreeMap::<String, u32>::new());
    for phase in phases.iter_mut() {
        problems.append(&mut phase.problems);
        *names.entry(phase.name.clone()).or_default() += 1;
        if phase.scenarios.is_empty() {
            problems.push(format!("phase `{}` has no scenario", phase.name));
        }
        if phase.budget.is_zero() {
            problems.push(format!("phase `{}` has no budget", phase.name));
        }
        for scenario in &mut phase.scenarios {
            let record = &scenario.record;
            scenario.name = format!("{}::{}_{}", slug(&record.category), record.id, slug(&record.title));
            *ids.entry(record.id.to_ascii_lowercase()).or_default() += 1;
            problems.extend(problems_of(scenario));
        }
    }
    let twice = |kind: &str, all: &BTreeMap<String, u32>| -> Vec<String> {
        let more = all.iter().filter(|(_, count)| **count > 1);
        more.map(|(name, count)| format!("{kind} `{name}` is planned {count} times")).collect()
    };
    problems.extend(twice("scenario", &ids));
    problems.extend(twice("phase", &names));
    if phases.is_empty() {
        problems.push("the campaign has no scenario".to_owned());
    }
    problems
}

fn problems_of<C>(scenario: &Planned<C>) -> Vec<String> {
    let (record, mut problems) = (&scenario.record, Vec::new());
    let id = &record.id;
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        problems.push(format!("scenario `{id}`: an id consists of letters, digits and `-`"));
    }
    for (what, text) in [
        ("title", &record.title),
        ("expectation (`expects`)", &record.expectation),
        ("remedy (`remedy`)", &record.remedy),
        ("category", &record.category),
    ] {
        if text.trim().is_empty() {
            problems.push(format!("scenario `{id}` has no {what}"));
        }
    }
    if scenario.limit.is_some_and(|limit| limit.is_zero()) {
        problems.push(format!("scenario `{id}` has a limit of zero"));
    }
    for threshold in &scenario.criteria {
        if let Err(error) = threshold.check() {
            problems.push(format!("scenario `{id}`: {}", error.what()));
        }
    }
    problems
}

/// Lower-case words joined by `_`, for names that people type.
fn slug(text: &str) -> String {
    let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("_").to_lowercase()
}

/// The positions (phase, scenario) that the arguments ask for, in order.
///
/// A bare filter that matches nothing is an empty selection, because cargo hands filters to every target. Whatever
/// names something of this campaign (`--scenario`, `--category`, `--tag`, `--exact`) must exist.
pub(super) fn select<C>(phases: &[Phase<C>], args: &Args) -> std::result::Result<Vec<(usize, usize)>, Vec<String>> {
    let all = || phases.iter().flat_map(|phase| &phase.scenarios);
    let is_id = |scenario: &Planned<C>, text: &str| scenario.record.id.eq_ignore_ascii_case(text);
    let is_category = |scenario: &Planned<C>, text: &str| {
        scenario.record.category == text || slug(&scenario.record.category) == slug(text)
    };
    let has_tag = |scenario: &Planned<C>, text: &str| scenario.record.tags.iter().any(|tag| tag == text);
    let mut problems = Vec::new();
    for (flag, wanted, exists) in [
        ("--scenario", &args.scenarios, &(|text: &str| all().any(|s| is_id(s, text))) as &dyn Fn(&str) -> bool),
        ("--category", &args.categories, &|text: &str| all().any(|s| is_category(s, text))),
        ("--tag", &args.tags, &|text: &str| all().any(|s| has_tag(s, text))),
    ] {
        problems.extend(wanted.iter().filter(|w| !exists(w)).map(|w| format!("{flag} {w}: there is none")));
    }
    if args.exact {
        let missing = args.filters.iter().filter(|f| !all().any(|s| s.name == **f || is_id(s, f)));
        problems.extend(missing.map(|filter| format!("--exact {filter}: there is none")));
    }
    let filtered = |scenario: &Planned<C>, filter: &String| match args.exact {
        true => scenario.name == *filter || is_id(scenario, filter),
        // An id means that scenario alone: `A1` is not also `A10`.
        false if all().any(|other| is_id(other, filter)) => is_id(scenario, filter),
        false => scenario.name.contains(filter.as_str()),
    };
    let wanted = |scenario: &Planned<C>| {
        !args.ignored_only
            && !args.bench
            && (args.scenarios.is_empty() || args.scenarios.iter().any(|id| is_id(scenario, id)))
            && (args.categories.is_empty() || args.categories.iter().any(|c| is_category(scenario, c)))
            && (args.tags.is_empty() || args.tags.iter().any(|tag| has_tag(scenario, tag)))
            && (args.filters.is_empty() || args.filters.iter().any(|filter| filtered(scenario, filter)))
            && !args.skip.iter().any(|skip| filtered(scenario, skip))
    };
    let mut chosen = Vec::new();
    for (p, phase) in phases.iter().enumerate() {
        chosen.extend(phase.scenarios.iter().enumerate().filter(|(_, s)| wanted(s)).map(|(s, _)| (p, s)));
    }
    let named = !args.scenarios.is_empty() || !args.categories.is_empty() || !args.tags.is_empty();
    if problems.is_empty() && named && chosen.is_empty() && !args.ignored_only && !args.bench {
        problems.push("--scenario, --category, --tag and the filters together leave nothing to run".to_owned());
    }
    if !problems.is_empty() {
        let valid: Vec<_> = all().map(|s| s.name.as_str()).collect();
        problems.push(format!("scenarios here: {}", valid.join(", ")));
        return Err(problems);
    }
    Ok(chosen)
}
