//! Roles, metrics and steps of escalation, refused before the first reading when nobody would be told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::engine::Alerts;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::slo::Threshold;

/// What a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Something happened that is no metric, and is not resolved.
    Incident,
    /// A metric has no value where one was due.
    Silent,
    /// A metric is yellow or worse.
    Yellow,
    /// A metric is past its target.
    Red,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incident => "unresolved",
            Self::Silent => "silent",
            Self::Yellow => "yellow",
            Self::Red => "red",
        })
    }
}

/// Somebody who answers for something.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a role does nothing until a policy has it"]
pub struct Role {
    pub(super) name: String,
    pub(super) duty: String,
    pub(super) contacts: Vec<(String, String)>,
}

impl Role {
    /// A role by its name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), duty: String::new(), contacts: Vec::new() }
    }

    /// What it is there for.
    pub fn duty(mut self, duty: impl Into<String>) -> Self {
        self.duty = duty.into();
        self
    }

    /// A channel on which it is reached, such as `pager`, and its handle there. Every contact gets every message.
    pub fn contact(mut self, channel: impl Into<String>, handle: impl Into<String>) -> Self {
        self.contacts.push((channel.into(), handle.into()));
        self
    }
}

/// Where a step leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A role is told.
    Role(String),
    /// A hook runs, such as a roll-back.
    Hook(String),
}

#[derive(Debug, Clone)]
pub(super) struct Metric {
    pub(super) threshold: Threshold,
    pub(super) class: String,
    pub(super) every: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) class: String,
    pub(super) signal: Signal,
    pub(super) hold: Duration,
    pub(super) target: Target,
}

/// Who is told what, and when. See the [room](super) for an example.
#[derive(Debug, Clone, Default)]
#[must_use = "a policy does nothing until it is opened"]
pub struct AlertPolicy {
    pub(super) roles: Vec<Role>,
    pub(super) classes: BTreeSet<String>,
    pub(super) metrics: BTreeMap<String, Metric>,
    pub(super) steps: Vec<Step>,
    repeated: Vec<String>,
}

impl AlertPolicy {
    /// A policy without anything in it, which cannot be opened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a role. Every role needs a duty and a contact.
    pub fn role(mut self, role: Role) -> Self {
        self.roles.push(role);
        self
    }

    /// Declares a class of incidents; classes of metrics are declared by the metrics.
    pub fn class(mut self, class: impl Into<String>) -> Self {
        self.classes.insert(class.into());
        self
    }

    /// A metric, known by the name in its threshold, whose alerts belong to a class.
    pub fn metric(self, threshold: Threshold, class: impl Into<String>) -> Self {
        self.insert(threshold, class.into(), None)
    }

    /// A metric that has to be read so often; without a reading for longer it is [`Signal::Silent`].
    pub fn metric_every(self, threshold: Threshold, class: impl Into<String>, every: Duration) -> Self {
        self.insert(threshold, class.into(), Some(every))
    }

    fn insert(mut self, threshold: Threshold, class: String, every: Option<Duration>) -> Self {
        self.classes.insert(class.clone());
        let name = threshold.metric().to_owned();
        if self.metrics.insert(name.clone(), Metric { threshold, class, every }).is_some() {
            self.repeated.push(name);
        }
        self
    }

    /// When a signal of this class has held for longer than `hold`, a role is told, once per episode. Zero: at once.
    pub fn tell(self, class: impl Into<String>, signal: Signal, hold: Duration, role: impl Into<String>) -> Self {
        self.step(class.into(), signal, hold, Target::Role(role.into()))
    }

    /// When a signal of this class has held for longer than `hold`, a hook runs, once per episode. Zero: at once.
    pub fn act(self, class: impl Into<String>, signal: Signal, hold: Duration, hook: impl Into<String>) -> Self {
        self.step(class.into(), signal, hold, Target::Hook(hook.into()))
    }

    fn step(mut self, class: String, signal: Signal, hold: Duration, target: Target) -> Self {
        self.steps.push(Step { class, signal, hold, target });
        self
    }

    /// The state machine, before its first reading.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with everything that would leave somebody untold: a step that leads to a role nobody declared, a
    /// role without duty or contact, a class without a step for what it can raise, a metric that is named twice, limits
    /// that contradict each other.
    pub fn open(self) -> CoreResult<Alerts> {
        let faults = self.faults();
        if faults.is_empty() {
            return Ok(Alerts::new(self));
        }
        let error = Error::new(ErrorKind::Config, "with this alert policy somebody would not be told")
            .remedy("declare what is missing, or take out what needs it");
        Err(faults.into_iter().fold(error, Error::tried))
    }

    fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.repeated.iter().map(|name| format!("metric `{name}` stands twice")).collect();
        if self.steps.is_empty() {
            faults.push("there is no step of escalation".to_owned());
        }
        let mut names = BTreeSet::new();
        for role in &self.roles {
            let name = &role.name;
            if !names.insert(name.as_str()) {
                faults.push(format!("role `{name}` stands twice"));
            }
            if role.duty.trim().is_empty() {
                faults.push(format!("role `{name}` has no duty"));
            }
            if role.contacts.is_empty() || role.contacts.iter().any(|(channel, handle)| blank(channel) || blank(handle))
            {
                faults.push(format!("role `{name}` has no contact, or one without channel or handle"));
            }
        }
        for Step { class, signal, target, .. } in &self.steps {
            if let Target::Role(role) = target
                && !names.contains(role.as_str())
            {
                faults.push(format!("{class}, {signal}: role `{role}` is not declared"));
            }
            if !self.classes.contains(class) {
                faults.push(format!("class `{class}` has a step, and nothing that could raise it"));
            }
        }
        for Metric { threshold, .. } in self.metrics.values() {
            faults.extend(threshold.check().err().map(|error| error.what().to_owned()));
        }
        faults.extend(self.untold());
        faults
    }

    /// What a class can raise and no step waits for.
    fn untold(&self) -> Vec<String> {
        let mut raised: BTreeSet<(&str, Signal)> = BTreeSet::new();
        for Metric { class, every, .. } in self.metrics.values() {
            raised.insert((class, Signal::Red));
            raised.extend(every.map(|_| (class.as_str(), Signal::Silent)));
        }
        let measured: BTreeSet<&str> = self.metrics.values().map(|metric| metric.class.as_str()).collect();
        let of_incidents = self.classes.iter().filter(|class| !measured.contains(class.as_str()));
        raised.extend(of_incidents.map(|class| (class.as_str(), Signal::Incident)));
        let waited: BTreeSet<(&str, Signal)> =
            self.steps.iter().map(|step| (step.class.as_str(), step.signal)).collect();
        raised
            .difference(&waited)
            .map(|(class, signal)| format!("class `{class}`: nobody is told when it is {signal}"))
            .collect()
    }
}

fn blank(text: &str) -> bool {
    text.trim().is_empty()
}
