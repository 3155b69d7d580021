//! What an experiment does, as data.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness_props::history::outage::{Contract, OutageRules, Steady};
use harness_props::history::{Ledger, Recovered};

use super::drive;
use super::report::Recovery;
use super::workload::Workload;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::fault::Fault;

/// A ledger that calls write to while the experiment runs.
pub type SharedLedger = Arc<Mutex<Ledger>>;

type Reading<T> = Pin<Box<dyn Future<Output = CoreResult<T>> + Send>>;
pub(super) type Read<T> = Box<dyn Fn() -> Reading<T> + Send + Sync>;

/// What is called, how long it is broken, and what is promised. Run with the fault that breaks it.
#[must_use = "an experiment breaks nothing until it is run"]
pub struct Experiment {
    pub(super) rules: OutageRules,
    pub(super) operations: Vec<(String, Arc<dyn Workload>)>,
    pub(super) every: Duration,
    pub(super) before: Duration,
    pub(super) broken_for: Duration,
    pub(super) patience: Duration,
    pub(super) most: usize,
    pub(super) backlog: Option<Read<u64>>,
    pub(super) ledger: Option<(SharedLedger, Read<Vec<Recovered>>)>,
}

impl fmt::Debug for Experiment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations: Vec<_> = self.operations.iter().map(|(name, _)| name).collect();
        f.debug_struct("Experiment")
            .field("operations", &operations)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl Experiment {
    /// A call every 20 ms, broken for one second after two windows of the steady state; a call hangs after five seconds.
    pub fn new(steady: Steady) -> Self {
        Self {
            every: Duration::from_millis(20),
            before: steady.window.saturating_mul(2),
            broken_for: Duration::from_secs(1),
            patience: Duration::from_secs(5),
            most: 1_000,
            operations: Vec::new(),
            backlog: None,
            ledger: None,
            rules: OutageRules::new(steady),
        }
    }

    /// Something that is called; several take turns.
    pub fn operation(mut self, name: impl Into<String>, workload: impl Workload + 'static) -> Self {
        self.operations.push((name.into(), Arc::new(workload)));
        self
    }

    /// How often one of the operations is called.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(Duration::from_micros(100));
        self
    }

    /// How long it is watched before it is broken; at least a window of the steady state.
    pub fn before(mut self, time: Duration) -> Self {
        self.before = time;
        self
    }

    /// How long it is broken.
    pub fn broken_for(mut self, time: Duration) -> Self {
        self.broken_for = time;
        self
    }

    /// How long a client waits before a call counts as hung.
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// How many calls may be under way at once; beyond it the experiment has no evidence, since calls could not be sent.
    pub fn at_most(mut self, calls: usize) -> Self {
        self.most = calls.max(1);
        self
    }

    /// What is promised while it is broken.
    pub fn while_broken(mut self, contract: Contract) -> Self {
        self.rules.contract = contract;
        self
    }

    /// How long after the healing it may take to be steady again.
    pub fn recovers_within(mut self, limit: Duration) -> Self {
        self.rules.recovers_within = limit;
        self
    }

    /// How much work is waiting, read once for each call.
    pub fn backlog<R: Future<Output = CoreResult<u64>> + Send + 'static>(
        mut self,
        read: impl Fn() -> R + Send + Sync + 'static,
    ) -> Self {
        self.backlog = Some(Box::new(move || Box::pin(read())));
        self
    }

    /// What calls have written down, and how to read in the end what is there: no acknowledged write may be lost.
    pub fn ledger<R: Future<Output = CoreResult<Vec<Recovered>>> + Send + 'static>(
        mut self,
        ledger: SharedLedger,
        read: impl Fn() -> R + Send + Sync + 'static,
    ) -> Self {
        self.ledger = Some((ledger, Box::new(move || Box::pin(read()))));
        self
    }

    /// Watches, breaks, heals, and watches until it is steady again or the time for that is over.
    ///
    /// A system that is not steady before is not broken at all.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an experiment without operations; errors of the fault itself, which is healed in any case; errors of reading
    /// the backlog or what is there in the end. What the system did wrong is no error: it stands in the report.
    pub async fn run(self, fault: impl Fault + 'static) -> CoreResult<Recovery> {
        if self.operations.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "the experiment calls nothing").remedy("name at least one operation")
            );
        }
        drive::run(self, fault).await
    }
}
