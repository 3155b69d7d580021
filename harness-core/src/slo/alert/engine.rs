//! The state machine: readings and time in, notices out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::{AlertPolicy, Signal, Target};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::slo::{Colour, Measured};
use crate::wait::seconds;

/// Something that has to be said or done now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Counted from 1; a message that is sent again keeps its number.
    pub number: u64,
    /// When it became due, since the beginning.
    pub at: Duration,
    /// Since when the signal holds.
    pub since: Duration,
    /// The metric, or the key of the incident.
    pub subject: String,
    /// Its class.
    pub class: String,
    /// What holds.
    pub signal: Signal,
    /// The last value with its target, or what happened.
    pub text: String,
    /// Who is told, or what runs.
    pub target: Target,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} since {}: {}", self.subject, self.signal, seconds(self.since), self.text)
    }
}

/// A signal that holds.
#[derive(Debug, Clone)]
struct Episode {
    since: Duration,
    text: String,
    /// Steps of the policy that have been taken in it.
    taken: BTreeSet<usize>,
}

#[derive(Debug, Clone, Default)]
struct Subject {
    class: String,
    every: Option<Duration>,
    heard: Duration,
    episodes: BTreeMap<Signal, Episode>,
}

impl Subject {
    fn begin(&mut self, signal: Signal, since: Duration, text: &str) {
        let fresh = || Episode { since, text: String::new(), taken: BTreeSet::new() };
        text.clone_into(&mut self.episodes.entry(signal).or_insert_with(fresh).text);
    }
}

/// An open policy: what holds since when, and who was told of it.
///
/// What comes out depends on readings and their times alone, not on how often time is advanced between them.
#[derive(Debug, Clone)]
pub struct Alerts {
    policy: AlertPolicy,
    subjects: BTreeMap<String, Subject>,
    now: Duration,
    raised: u64,
}

impl Alerts {
    pub(super) fn new(policy: AlertPolicy) -> Self {
        let subject = |(name, metric): (&String, &super::policy::Metric)| {
            let fresh = Subject { class: metric.class.clone(), every: metric.every, ..Subject::default() };
            (name.clone(), fresh)
        };
        let subjects = policy.metrics.iter().map(subject).collect();
        Self { policy, subjects, now: Duration::ZERO, raised: 0 }
    }

    pub(super) fn policy(&self) -> &AlertPolicy {
        &self.policy
    }

    /// Takes a reading of a metric, at a time since the beginning. Returns what became due before it and by it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a metric that the policy does not have, [`ErrorKind::Refused`] for a time that goes back.
    pub fn observe(&mut self, at: Duration, metric: &str, measured: &Measured) -> CoreResult<Vec<Notice>> {
        let Some(known) = self.policy.metrics.get(metric) else {
            return Err(Error::new(ErrorKind::Config, format!("metric `{metric}` is not in the alert policy"))
                .remedy("declare it with its threshold and class"));
        };
        let (colour, target) = (known.threshold.colour(measured), known.threshold.target());
        let text = match colour {
            Some(_) => format!("{}, target {target}", measured.display()),
            None => known.threshold.judge(measured).detail().to_owned(),
        };
        let mut notices = self.advance(at)?;
        let subject = self.subjects.entry(metric.to_owned()).or_default();
        match colour {
            // Nothing is known: what held before may hold still.
            None => subject.begin(Signal::Silent, at, &text),
            Some(colour) => {
                subject.heard = at;
                let holds = match colour {
                    Colour::Green => &[][..],
                    Colour::Yellow => &[Signal::Yellow],
                    Colour::Red => &[Signal::Yellow, Signal::Red],
                };
                subject.episodes.retain(|signal, _| holds.contains(signal));
                holds.iter().for_each(|signal| subject.begin(*signal, at, &text));
            }
        }
        notices.extend(self.due());
        Ok(notices)
    }

    /// Something happened that is no metric. It holds until it is resolved; saying it again changes its text only.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a class without a step for incidents, [`ErrorKind::Refused`] for a time that goes back.
    pub fn incident(&mut self, at: Duration, class: &str, key: &str, text: &str) -> CoreResult<Vec<Notice>> {
        let is_routed = |step: &super::policy::Step| step.class == class && step.signal == Signal::Incident;
        if !self.policy.steps.iter().any(is_routed) || self.policy.metrics.contains_key(key) {
            return Err(Error::new(ErrorKind::Config, format!("incident `{key}` of class `{class}` leads to nobody"))
                .remedy("add a step for incidents of this class, and give the incident a key that is no metric"));
        }
        let mut notices = self.advance(at)?;
        let subject = self.subjects.entry(key.to_owned()).or_default();
        class.clone_into(&mut subject.class);
        subject.begin(Signal::Incident, at, text);
        notices.extend(self.due());
        Ok(notices)
    }

    /// An incident is over; the next one of its key begins a new episode.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a time that goes back.
    pub fn resolve(&mut self, at: Duration, key: &str) -> CoreResult<Vec<Notice>> {
        let notices = self.advance(at)?;
        if let Some(subject) = self.subjects.get_mut(key) {
            subject.episodes.remove(&Signal::Incident);
        }
        Ok(notices)
    }

    /// Lets time pass. Returns what became due meanwhile, in the order in which it did.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a time that goes back.
    pub fn advance(&mut self, to: Duration) -> CoreResult<Vec<Notice>> {
        if to < self.now {
            let what = format!("time went back, from {} to {}", seconds(self.now), seconds(to));
            return Err(Error::new(ErrorKind::Refused, what).remedy("feed readings in the order of their times"));
        }
        self.now = to;
        for subject in self.subjects.values_mut() {
            if let Some(every) = subject.every
                && subject.heard + every < to
            {
                let text = format!("no reading for more than {}", seconds(every));
                let since = subject.heard + every;
                subject.episodes.entry(Signal::Silent).or_insert_with(|| Episode {
                    since,
                    text,
                    taken: BTreeSet::new(),
                });
            }
        }
        Ok(self.due())
    }

    /// True while this signal of a metric or an incident holds.
    #[must_use]
    pub fn holds(&self, subject: &str, signal: Signal) -> bool {
        self.subjects.get(subject).is_some_and(|subject| subject.episodes.contains_key(&signal))
    }

    /// What is due and not yet said.
    fn due(&mut self) -> Vec<Notice> {
        let (now, mut due) = (self.now, Vec::new());
        for (name, subject) in &mut self.subjects {
            for (signal, episode) in &mut subject.episodes {
                for (n, step) in self.policy.steps.iter().enumerate() {
                    let at = episode.since.saturating_add(step.hold);
                    let is_due = now > at || step.hold.is_zero();
                    if step.class != subject.class || step.signal != *signal || !is_due || !episode.taken.insert(n) {
                        continue;
                    }
                    let (subject, class) = (name.clone(), step.class.clone());
                    let (text, target) = (episode.text.clone(), step.target.clone());
                    due.push(Notice {
                        number: 0,
                        at,
                        since: episode.since,
                        subject,
                        class,
                        signal: *signal,
                        text,
                        target,
                    });
                }
            }
        }
        due.sort_by_key(|notice| notice.at);
        for notice in &mut due {
            self.raised += 1;
            notice.number = self.raised;
        }
        due
    }
}
