//! The plan of a load, as a test writes it.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::run::{Run, Seed};
use tokio::time::Instant;

use crate::arrival::{Arrivals, Phase, Schedule};
use crate::engine::{self, Classifiers, Flow, Iteration, Plan};
use crate::gate::ANY;
use crate::run::LoadRun;
use crate::units::Rate;

/// The name of the phase that [`Load::warm_up`] adds.
pub const WARM_UP: &str = "warm-up";
/// The name of the phase that [`Load::hold`] adds.
pub const HOLD: &str = "hold";

/// The longest time limit and drain: nothing in a test waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3_600);

/// A load to run: arrivals, phases, weighted flows.
///
/// ```no_run
/// # use harness_load::{Iteration, Load, millis, p95, per_second, percent, secs, success_rate};
/// # async fn browse(_: Iteration) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn buy(_: Iteration) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn test() -> harness_load::Result {
/// let run = Load::open(per_second(200)).warm_up(secs(5)).hold(secs(30))
///     .flow("browse", 8, browse)
///     .flow("buy", 2, buy)
///     .run()
///     .await?;
/// run.check([
///     p95("buy").below(millis(250)).critical(millis(500)),
///     success_rate().at_least(percent(95)).critical(percent(90)),
/// ])?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a load does nothing until `.run().await`"]
pub struct Load {
    rate: Rate,
    arrivals: Arrivals,
    phases: Vec<Phase>,
    flows: Vec<Flow>,
    classifiers: Classifiers,
    seed: Option<Seed>,
    limit: Duration,
    drain: Option<Duration>,
    in_flight: usize,
    queue: usize,
    marks: Marks,
}

impl Load {
    /// An open loop: iterations arrive at this rate, however slow the system is.
    pub fn open(rate: Rate) -> Self {
        Self {
            rate,
            arrivals: Arrivals::Constant,
            phases: Vec::new(),
            flows: Vec::new(),
            classifiers: Classifiers::default(),
            seed: None,
            limit: Duration::from_secs(10),
            drain: None,
            in_flight: 1_000,
            queue: 10_000,
            marks: Marks::default(),
        }
    }

    /// Arrivals like those of independent users: exponential gaps instead of even ones.
    pub fn poisson(mut self) -> Self {
        self.arrivals = Arrivals::Poisson;
        self
    }

    /// The seed of arrivals, flows and [`Iteration::random`]. Without it: the seed of the test run.
    pub fn seed(mut self, seed: Seed) -> Self {
        self.seed = Some(seed);
        self
    }

    /// A first phase that no gate looks at: connections open, pools grow, caches fill.
    pub fn warm_up(self, length: Duration) -> Self {
        self.phase(WARM_UP, length, false)
    }

    /// The phase that gates judge. May be called again (`hold 2`, `hold 3`); the phases then count together.
    pub fn hold(self, length: Duration) -> Self {
        self.phase(HOLD, length, true)
    }

    fn phase(mut self, name: &str, length: Duration, measured: bool) -> Self {
        let before = self.phases.iter().filter(|phase| phase.measured == measured).count();
        let name = if before == 0 { name.to_owned() } else { format!("{name} {}", before + 1) };
        self.phases.push(Phase { name, rate: self.rate, length, measured });
        self
    }

    /// How long to wait after the last due slot for what is still in flight. Without it: the time limit of an
    /// iteration. What has not ended by then is cancelled and counts as unfinished.
    pub fn drain(mut self, limit: Duration) -> Self {
        self.drain = Some(limit);
        self
    }

    /// The time limit of one iteration, counted from its start, to the millisecond; 10 s without this. It is then
    /// cancelled.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The most iterations in flight at once (1,000 without this), and how many more due slots may wait for a place
    /// (10,000 without this; 0 drops them at once). Waiting counts into the response; a slot beyond both is dropped.
    pub fn in_flight(mut self, most: usize, queue: usize) -> Self {
        (self.in_flight, self.queue) = (most, queue);
        self
    }

    /// A user path and its weight among the others: 8 and 2 send exactly eight of every ten slots to the first.
    ///
    /// Any async function of an [`Iteration`] will do; its error is anything that can be shown. Prefer an error type
    /// of your own or `std::io::Error` to [`harness_core::Result`], whose error marks the whole test as failed, even
    /// where a gate allows for some failures.
    pub fn flow<F, Fut, E>(mut self, name: impl Into<String>, weight: u32, body: F) -> Self
    where
        F: Fn(Iteration) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        self.flows.push(Flow::new(name.into(), weight, body));
        self
    }

    /// Names the kinds of an error type: `.classify(|e: &AppError| e.status().to_string())`. May be called once per
    /// error type. A run keeps 32 kinds and counts further ones as `other`, so name kinds, not messages.
    pub fn classify<E: 'static, K: Into<Cow<'static, str>>>(
        mut self,
        kind: impl Fn(&E) -> K + Send + Sync + 'static,
    ) -> Self {
        self.classifiers.add(kind);
        self
    }

    /// Moments to show in the series of this run, such as the beginning of a fault. Those before the start are left
    /// out.
    pub fn marks(mut self, marks: &Marks) -> Self {
        self.marks = marks.clone();
        self
    }

    /// Runs the load on the current tokio runtime and waits for its end: the phases, and at most the drain.
    ///
    /// Iterations share the runtime with the caller, since that is where connections live. Give a system under test
    /// that runs in the same process a runtime of its own, else its work delays the arrivals.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a plan that cannot be run; [`ErrorKind::NoEvidence`] when the books do not add up.
    /// Failing iterations are no error here: [`LoadRun::check`] judges them.
    pub async fn run(self) -> CoreResult<LoadRun> {
        let (plan, phases, marks) = self.plan()?;
        let scheduled = plan.schedule.counts();
        let driven = engine::drive(&plan).await?;
        let flows: Vec<String> = plan.flows.iter().map(|flow| flow.name.clone()).collect();
        driven.books.check_conservation(&scheduled, &flows)?;
        let marks = marks.since(driven.start);
        Ok(LoadRun::new(phases, flows, &plan, driven, marks))
    }

    fn plan(self) -> CoreResult<(Plan, Vec<Phase>, Marks)> {
        self.refuse_nonsense()?;
        let seed = self.seed.unwrap_or_else(|| Run::current().seed());
        let weights: Vec<u32> = self.flows.iter().map(|flow| flow.weight).collect();
        let plan = Plan {
            schedule: Schedule::new(&self.phases, &weights, self.arrivals, seed)?,
            measured: self.phases.iter().map(|phase| phase.measured).collect(),
            flows: self.flows,
            classifiers: Arc::new(self.classifiers),
            seed,
            limit: self.limit,
            drain: self.drain.unwrap_or(self.limit),
            in_flight: self.in_flight,
            queue: self.queue,
        };
        Ok((plan, self.phases, self.marks))
    }

    fn refuse_nonsense(&self) -> CoreResult {
        let refuse = |what: String, remedy: &str| Err(Error::new(ErrorKind::Config, what).remedy(remedy));
        if !self.phases.iter().any(|phase| phase.measured) {
            return refuse("nothing of this load is measured".to_owned(), "add `.hold(secs(30))`");
        }
        if self.in_flight == 0 {
            return refuse("no iteration may be in flight".to_owned(), "give `.in_flight(..)` at least 1");
        }
        if self.limit.is_zero() || self.limit.max(self.drain.unwrap_or_default()) > LONGEST_WAIT {
            let what = "iterations have no time at all, or more than a day".to_owned();
            return refuse(what, "give `.limit(..)` more than zero, and it and `.drain(..)` at most 24 hours");
        }
        for (n, flow) in self.flows.iter().enumerate() {
            if flow.name.is_empty() || flow.name == ANY || self.flows[..n].iter().any(|other| other.name == flow.name) {
                return refuse(
                    format!("`{}` cannot name flow {}", flow.name, n + 1),
                    "give every flow a name of its own",
                );
            }
        }
        Ok(())
    }
}

/// Labelled moments, shared with whoever makes them: a test that stops the database while the load runs.
#[derive(Debug, Clone, Default)]
pub struct Marks(Arc<Mutex<Vec<(Instant, String)>>>);

impl Marks {
    /// Marks this moment.
    pub fn add(&self, label: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), label.into()));
    }

    fn since(&self, start: Instant) -> Vec<(Duration, String)> {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let moments = marks.iter().filter_map(|(at, label)| Some((at.checked_duration_since(start)?, label.clone())));
        moments.collect()
    }
}
