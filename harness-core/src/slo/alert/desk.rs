//! Sends what alerts say, runs hooks, and keeps what could not be delivered.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use harness_props::Outcome;
use serde::{Deserialize, Serialize};

use super::engine::{Alerts, Notice};
use super::policy::{Signal, Target};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::Run;
use crate::slo::Measured;
use crate::wait::within;

/// How long a sink or a hook may take, unless said otherwise.
const LIMIT: Duration = Duration::from_secs(10);

/// What a sink gets: one notice for one contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The run it comes from.
    pub run: String,
    /// The notice's number; a message that is sent again carries the same, so that a receiver can drop the second.
    pub number: u64,
    /// When it became due, milliseconds since the beginning.
    pub at_ms: u64,
    /// Since when the signal holds, milliseconds since the beginning.
    pub since_ms: u64,
    /// The metric, or the key of the incident.
    pub subject: String,
    /// Its class.
    pub class: String,
    /// What holds.
    pub signal: Signal,
    /// One sentence.
    pub text: String,
    /// Who is told.
    pub role: String,
    /// Its handle on this channel.
    pub handle: String,
}

/// What sending a message comes to.
pub type Sending<'a> = Pin<Box<dyn Future<Output = CoreResult> + Send + 'a>>;

/// Something that carries messages: a webhook, a mail relay, a file.
pub trait Sink: Send + Sync {
    /// Sends one message. `Ok` means that the other side has taken it.
    fn send<'a>(&'a self, message: &'a Message) -> Sending<'a>;
}

/// A message that nobody has taken yet.
#[derive(Debug)]
#[non_exhaustive]
pub struct Undelivered {
    /// The channel it should go over.
    pub channel: String,
    /// The message.
    pub message: Message,
    /// How often it was tried.
    pub tries: u32,
    /// The last error.
    pub error: Error,
}

/// A hook that ran.
#[derive(Debug)]
#[non_exhaustive]
pub struct HookRun {
    /// Its name.
    pub hook: String,
    /// The notice that made it run.
    pub notice: Notice,
    /// What came of it.
    pub result: CoreResult,
}

/// What was sent and done.
#[derive(Debug, Default)]
#[must_use = "what could not be delivered is known to nobody else"]
#[non_exhaustive]
pub struct DeskReport {
    /// Messages that were taken, by channel, in the order they were taken.
    pub delivered: Vec<(String, Message)>,
    /// Messages that were not.
    pub undelivered: Vec<Undelivered>,
    /// Hooks that ran.
    pub hooks: Vec<HookRun>,
}

impl DeskReport {
    /// Fail with every message that nobody took and every hook that failed; NoEvidence when nothing was ever raised.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let lost = self.undelivered.iter().map(|lost| {
            let Undelivered { channel, message, tries, error } = lost;
            format!("`{}` did not reach {} over {channel} in {tries} tries: {error}", message.text, message.handle)
        });
        let failed = self
            .hooks
            .iter()
            .filter_map(|run| run.result.as_ref().err().map(|error| format!("hook `{}` failed: {error}", run.hook)));
        let witnesses: Vec<_> = lost.chain(failed).collect();
        match (witnesses.is_empty(), self.delivered.len(), self.hooks.len()) {
            (false, ..) => Outcome::fail(witnesses.join("; ")),
            (true, 0, 0) => Outcome::no_evidence("no alert was raised, so none could be lost"),
            (true, delivered, hooks) => Outcome::pass(format!("{delivered} messages delivered, {hooks} hooks run")),
        }
    }
}

type Hook = Box<dyn FnMut(Notice) -> Pin<Box<dyn Future<Output = CoreResult> + Send>> + Send>;

/// Where alerts are sent from.
///
/// Feed it instead of its [`Alerts`]: each call sends what became due, and tries again what is still to be delivered.
#[must_use = "a desk that is not closed reports nothing"]
pub struct Desk {
    alerts: Alerts,
    sinks: BTreeMap<String, Box<dyn Sink>>,
    hooks: BTreeMap<String, Hook>,
    limit: Duration,
    report: DeskReport,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels: Vec<_> = self.sinks.keys().collect();
        f.debug_struct("Desk").field("channels", &channels).field("report", &self.report).finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk without sinks and hooks, which gives each ten seconds.
    pub fn new(alerts: Alerts) -> Self {
        let (sinks, hooks) = (BTreeMap::new(), BTreeMap::new());
        Self { alerts, sinks, hooks, limit: LIMIT, report: DeskReport::default() }
    }

    /// What carries the messages of a channel.
    pub fn sink(mut self, channel: impl Into<String>, sink: impl Sink + 'static) -> Self {
        self.sinks.insert(channel.into(), Box::new(sink));
        self
    }

    /// What a step with this hook runs.
    pub fn hook<F>(mut self, name: impl Into<String>, mut hook: impl FnMut(Notice) -> F + Send + 'static) -> Self
    where
        F: Future<Output = CoreResult> + Send + 'static,
    {
        self.hooks.insert(name.into(), Box::new(move |notice| Box::pin(hook(notice))));
        self
    }

    /// How long a sink or a hook may take.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Checks that every contact has a sink and every step its hook.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with every channel and hook that is missing.
    pub fn check(&self) -> CoreResult {
        let policy = self.alerts.policy();
        let contacts = policy.roles.iter().flat_map(|role| role.contacts.iter().map(move |contact| (role, contact)));
        let dead =
            contacts.filter(|(_, (channel, _))| !self.sinks.contains_key(channel)).map(|(role, (channel, handle))| {
                format!("role `{}`: {handle} is on channel `{channel}`, which has no sink", role.name)
            });
        let missing = policy.steps.iter().filter_map(|step| match &step.target {
            Target::Hook(hook) if !self.hooks.contains_key(hook) => Some(format!("hook `{hook}` is missing")),
            _ => None,
        });
        let faults: Vec<_> = dead.chain(missing).collect();
        if faults.is_empty() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Config, "the alert desk could not deliver everything")
            .remedy("give it a sink for each channel and each hook that the policy names");
        Err(faults.into_iter().fold(error, Error::tried))
    }

    /// [`Alerts::observe`], and sends what is due.
    ///
    /// # Errors
    /// As there. What cannot be delivered is no error here: it stands in the report.
    pub async fn observe(&mut self, at: Duration, metric: &str, measured: &Measured) -> CoreResult {
        let notices = self.alerts.observe(at, metric, measured)?;
        self.send(notices).await;
        Ok(())
    }

    /// [`Alerts::incident`], and sends what is due.
    ///
    /// # Errors
    /// As there.
    pub async fn incident(&mut self, at: Duration, class: &str, key: &str, text: &str) -> CoreResult {
        let notices = self.alerts.incident(at, class, key, text)?;
        self.send(notices).await;
        Ok(())
    }

    /// [`Alerts::resolve`], and sends what is due.
    ///
    /// # Errors
    /// As there.
    pub async fn resolve(&mut self, at: Duration, key: &str) -> CoreResult {
        let notices = self.alerts.resolve(at, key)?;
        self.send(notices).await;
        Ok(())
    }

    /// [`Alerts::advance`], and sends what is due.
    ///
    /// # Errors
    /// As there.
    pub async fn advance(&mut self, to: Duration) -> CoreResult {
        let notices = self.alerts.advance(to)?;
        self.send(notices).await;
        Ok(())
    }

    /// What was sent so far.
    #[must_use = "looking has no other use"]
    pub fn report(&self) -> &DeskReport {
        &self.report
    }

    /// Tries a last time what is still to be delivered.
    pub async fn close(mut self) -> DeskReport {
        self.send(Vec::new()).await;
        self.report
    }

    async fn send(&mut self, notices: Vec<Notice>) {
        // Those that wait go first, so that messages arrive in order where they can.
        for mut waiting in std::mem::take(&mut self.report.undelivered) {
            waiting.tries += 1;
            self.carry(waiting.channel, waiting.message, waiting.tries).await;
        }
        for notice in notices {
            match notice.target.clone() {
                Target::Role(role) => {
                    let contacts = self.alerts.policy().roles.iter().filter(|known| known.name == role);
                    for (channel, handle) in contacts.flat_map(|role| role.contacts.clone()).collect::<Vec<_>>() {
                        self.carry(channel, message(&notice, &role, handle), 1).await;
                    }
                }
                Target::Hook(hook) => {
                    let result = match self.hooks.get_mut(&hook) {
                        Some(run) => within(format!("hook `{hook}`"), self.limit, run(notice.clone())).await.flatten(),
                        None => Err(Error::new(ErrorKind::Config, format!("hook `{hook}` is missing"))),
                    };
                    self.report.hooks.push(HookRun { hook, notice, result });
                }
            }
        }
    }

    async fn carry(&mut self, channel: String, message: Message, tries: u32) {
        let sent = match self.sinks.get(&channel) {
            Some(sink) => within(format!("channel `{channel}`"), self.limit, sink.send(&message)).await.flatten(),
            None => Err(Error::new(ErrorKind::Config, format!("channel `{channel}` has no sink"))),
        };
        match sent {
            Ok(()) => self.report.delivered.push((channel, message)),
            Err(error) => self.report.undelivered.push(Undelivered { channel, message, tries, error }),
        }
    }
}

fn message(notice: &Notice, role: &str, handle: String) -> Message {
    Message {
        run: Run::current().id().to_owned(),
        number: notice.number,
        at_ms: notice.at.as_millis() as u64,
        since_ms: notice.since.as_millis() as u64,
        subject: notice.subject.clone(),
        class: notice.class.clone(),
        signal: notice.signal,
        text: notice.to_string(),
        role: role.to_owned(),
        handle,
    }
}
