//! A plan as plain data: for those who have no type of their own, for files, for generators.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rule::{Refusal, RefusalKind};

/// Name of a step, an agent or anything else that is referred to: a number or a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A number; cheaper to look up than a text.
    Number(u64),
    /// A text.
    Text(Box<str>),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Id {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Id {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// A span of time in ticks, the plan's own unit (seconds, minutes, …: one for all), or a text that says what was given
/// instead of one. Exact: a fraction, an infinity or NaN is kept as refused and reported by rule P027.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawTicks", into = "RawTicks")]
pub enum Ticks {
    /// A whole number of ticks.
    Whole(i64),
    /// What was given and is not one.
    Refused(String),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RawTicks {
    Whole(i64),
    Float(f64),
    Text(String),
}

impl From<RawTicks> for Ticks {
    fn from(raw: RawTicks) -> Self {
        match raw {
            RawTicks::Whole(ticks) => ticks.into(),
            RawTicks::Float(float) => float.into(),
            RawTicks::Text(text) => Self::Refused(text),
        }
    }
}

impl From<Ticks> for RawTicks {
    fn from(ticks: Ticks) -> Self {
        match ticks {
            Ticks::Whole(ticks) => Self::Whole(ticks),
            Ticks::Refused(text) => Self::Text(text),
        }
    }
}

impl From<i64> for Ticks {
    fn from(ticks: i64) -> Self {
        // The two least values mark "absent" and "refused" in the compact view.
        if ticks < i64::MIN + 2 { Self::Refused(ticks.to_string()) } else { Self::Whole(ticks) }
    }
}

impl From<u32> for Ticks {
    fn from(ticks: u32) -> Self {
        Self::Whole(ticks.into())
    }
}

impl From<f64> for Ticks {
    fn from(ticks: f64) -> Self {
        // 2^53: beyond it a float no longer tells neighbours apart.
        if ticks.fract() == 0.0 && ticks.abs() <= 9_007_199_254_740_992.0 {
            Self::Whole(ticks as i64)
        } else {
            Self::Refused(ticks.to_string())
        }
    }
}

/// Milliseconds.
impl From<Duration> for Ticks {
    fn from(duration: Duration) -> Self {
        i64::try_from(duration.as_millis()).map_or_else(|_| Self::Refused(format!("{duration:?}")), Self::Whole)
    }
}

/// What a dependency ties together (Elmaghraby and Kamburowski 1992: generalised precedence relations).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tie {
    /// Starts after the other has finished.
    #[default]
    FinishStart,
    /// Starts after the other has started.
    StartStart,
    /// Finishes after the other has finished.
    FinishFinish,
    /// Finishes after the other has started.
    StartFinish,
}

/// A dependency of one step on another. In files a bare id stands for a plain one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawLink", into = "RawLink")]
pub struct Link {
    /// The step that is waited for.
    pub on: Id,
    /// What is tied to what.
    pub tie: Tie,
    /// Ticks that have to pass in between; negative is a lead.
    pub lag: i64,
    /// Ticks that may pass at most.
    pub max_lag: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RawLink {
    Bare(Id),
    Full {
        on: Id,
        #[serde(default)]
        tie: Tie,
        #[serde(default)]
        lag: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_lag: Option<i64>,
    },
}

impl From<RawLink> for Link {
    fn from(raw: RawLink) -> Self {
        match raw {
            RawLink::Bare(on) => on.into(),
            RawLink::Full { on, tie, lag, max_lag } => Self { on, tie, lag, max_lag },
        }
    }
}

impl From<Link> for RawLink {
    fn from(link: Link) -> Self {
        if link.is_plain() {
            return Self::Bare(link.on);
        }
        Self::Full { on: link.on, tie: link.tie, lag: link.lag, max_lag: link.max_lag }
    }
}

impl<T: Into<Id>> From<T> for Link {
    fn from(on: T) -> Self {
        Self { on: on.into(), tie: Tie::FinishStart, lag: 0, max_lag: None }
    }
}

impl Link {
    /// True for finish-to-start without lags.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.tie == Tie::FinishStart && self.lag == 0 && self.max_lag.is_none()
    }
}

macro_rules! data {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "is_default")] pub $field: $type,)*
        }
    };
}
pub(crate) use data;

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for Id {
    fn default() -> Self {
        Self::Text("".into())
    }
}

data! {
/// A condition by which a step is known to have succeeded.
Criterion {
    /// In words.
    text: String,
    /// What is measured.
    metric: Option<String>,
    /// How it is compared: `<`, `<=`, `=`, `>=`, `>`.
    comparator: Option<String>,
    /// With what.
    target: Option<f64>,
}}

data! {
/// Whether a machine or a person does a step.
Automation {
    /// True when a machine does it.
    automated: bool,
    /// The program or action that does it.
    executor: Option<String>,
}}

data! {
/// How the effect of a step is taken back.
Rollback {
    /// Name of the action.
    action: String,
    /// The step that takes it back, if it is one of the plan.
    by: Option<Id>,
    /// Steps whose effect has to be there while this is taken back.
    uses: Vec<Id>,
    /// Steps that have to be taken back before this one.
    after: Vec<Id>,
    /// Keys of the state that it restores.
    restores: Vec<String>,
    /// How long it takes, in ticks.
    duration: i64,
    /// Doing it twice is doing it once.
    idempotent: bool,
}}

data! {
/// What a step does to the world.
Effect {
    /// True when something is changed that has to be taken back on failure.
    effectful: bool,
    /// Keys of the state that it changes.
    writes: Vec<String>,
    /// Why it cannot be taken back, if it cannot: the step is a pivot.
    irreversible: Option<String>,
    /// It can fail for good, so that what was done before has to be taken back.
    fallible: bool,
}}

data! {
/// Times that a plan claims for a step, by the critical path method.
Times {
    /// Earliest start.
    early_start: i64,
    /// Earliest finish.
    early_finish: i64,
    /// Latest start.
    late_start: i64,
    /// Latest finish.
    late_finish: i64,
    /// Delay that does not move the end.
    total_float: i64,
    /// Delay that moves no other step.
    free_float: i64,
}}

data! {
/// A measured or estimated number with its unit and its limits.
Quantity {
    /// The number.
    value: f64,
    /// Its unit; the same name has the same unit in all steps.
    unit: String,
    /// Least value allowed.
    min: f64,
    /// Greatest value allowed.
    max: f64,
}}

data! {
/// A value out of a list.
Choice {
    /// What was chosen.
    value: String,
    /// What can be.
    of: Vec<String>,
}}

data! {
/// How much of a resource a step uses while it runs.
Demand {
    /// The resource.
    resource: Id,
    /// How much.
    amount: i64,
}}

data! {
/// One step. What is absent is absent: nothing is filled in.
Step {
    /// Its name, unique in the plan.
    id: Id,
    /// Its number, from 1.
    number: Option<i64>,
    /// What it waits for.
    after: Vec<Link>,
    /// Its title.
    title: Option<String>,
    /// Other texts, by field.
    texts: BTreeMap<String, String>,
    /// The phase it belongs to.
    phase: Option<Id>,
    /// The group or sub-plan it belongs to.
    group: Option<Id>,
    /// What kind of work it is.
    kind: Option<String>,
    /// Who is responsible.
    agent: Option<Id>,
    /// The agent can do nothing else meanwhile.
    exclusive: bool,
    /// How its success is known.
    criteria: Vec<Criterion>,
    /// How long it takes.
    duration: Option<Ticks>,
    /// Machine or person.
    automation: Option<Automation>,
    /// What it changes.
    effect: Option<Effect>,
    /// How that is taken back.
    rollback: Option<Rollback>,
    /// When it starts.
    start: Option<i64>,
    /// When it finishes.
    finish: Option<i64>,
    /// It cannot start earlier.
    release: Option<i64>,
    /// It has to be finished by then.
    deadline: Option<i64>,
    /// The times the plan claims for it.
    times: Option<Times>,
    /// The plan claims that it is critical.
    critical: Option<bool>,
    /// What it uses.
    demands: Vec<Demand>,
    /// Numbers, by field.
    quantities: BTreeMap<String, Quantity>,
    /// Choices, by field.
    choices: BTreeMap<String, Choice>,
}}

impl Step {
    /// A text field by name; `title` and all others alike.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<&str> {
        if field == "title" { self.title.as_deref() } else { self.texts.get(field).map(String::as_str) }
    }
}

data! {
/// A half-open span of time: from the first tick, up to and without the last.
Window {
    /// First tick.
    from: i64,
    /// First tick after it.
    to: i64,
}}

data! {
/// Who can be responsible.
Agent {
    /// Its name.
    id: Id,
    /// A person.
    human: bool,
    /// Kinds of work it can do.
    skills: Vec<String>,
    /// When it works; empty is always.
    available: Vec<Window>,
}}

data! {
/// A kind of work and what is reasonable for it.
Kind {
    /// Least duration in ticks.
    min: i64,
    /// Greatest duration in ticks.
    max: i64,
    /// Takes no time: a mark in the plan.
    milestone: bool,
}}

data! {
/// Something that steps use.
Resource {
    /// Its name.
    id: Id,
    /// How much there is: at any time if it is renewable, in all if it is not.
    capacity: i64,
    /// It is there again when a step has finished.
    renewable: bool,
}}

data! {
/// Two steps that must not run at once.
Exclusion {
    /// One.
    one: Id,
    /// The other.
    other: Id,
    /// Ticks that have to lie between them.
    setup: i64,
}}

data! {
/// Least and greatest share of the work per agent, in percent of all ticks.
Share {
    /// Least.
    min: i64,
    /// Greatest.
    max: i64,
}}

data! {
/// A plan: its steps, and what it says about itself.
Plan {
    /// The steps, in list order.
    steps: Vec<Step>,
    /// Where it begins, if declared.
    entries: Vec<Id>,
    /// Where it ends, if declared.
    terminals: Vec<Id>,
    /// The phases, in order.
    phases: Vec<Id>,
    /// The roster.
    agents: Vec<Agent>,
    /// The kinds of work.
    kinds: BTreeMap<String, Kind>,
    /// The actions by which steps can be taken back.
    actions: Vec<String>,
    /// What there is to use.
    resources: Vec<Resource>,
    /// What must not run at once.
    exclusions: Vec<Exclusion>,
    /// Most steps at once.
    max_parallel: Option<i64>,
    /// When all has to be finished.
    deadline: Option<i64>,
    /// Ticks that should be left before the deadline.
    margin: Option<i64>,
    /// Ticks within which all has to be taken back.
    recovery_window: Option<i64>,
    /// The critical path it claims.
    critical_path: Option<Vec<Id>>,
    /// It claims that there is no other critical path.
    sole: Option<bool>,
    /// The length it claims, in ticks.
    makespan: Option<i64>,
    /// The most steps that could run at once, as it claims.
    width: Option<i64>,
    /// How work should be shared.
    load: Option<Share>,
}}

impl Plan {
    /// Reads a plan from JSON.
    ///
    /// # Errors
    /// Text that is no JSON, or has a field that is not one of a plan.
    pub fn from_json(text: &str) -> Result<Self, Refusal> {
        let refused = |why: String| Refusal::new(RefusalKind::Unreadable, format!("not a plan: {why}"));
        if !text.trim_start().starts_with('{') {
            return Err(refused("it is no JSON object".to_owned())); // serde would read a list as fields in order
        }
        serde_json::from_str(text).map_err(|error| refused(error.to_string()))
    }

    /// The plan as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Plans hold no maps with other keys than texts, the one thing that JSON cannot write.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The index of a step by its name.
    #[must_use]
    pub fn position(&self, id: &Id) -> Option<usize> {
        self.steps.iter().position(|step| &step.id == id)
    }
}
