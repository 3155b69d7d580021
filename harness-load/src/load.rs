//! The plan of a load, as a test writes it.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::monitor::{Latest, Monitor, Monitoring, Sampler};
use harness_core::run::{Run, Seed};
use tokio::time::Instant;

use crate::arrival::{Arrivals, Curve, Kind, Phase, Schedule, Shape, Trace};
use crate::engine::{self, Classifiers, Closed, Flow, Iteration, Plan};
use crate::gate::{ANY, Gate};
use crate::preflight;
use crate::run::LoadRun;
use crate::target::{self, Target};
use crate::units::{Rate, per_second};
use crate::watch::Watch;

/// The name of the phase that [`Load::warm_up`] adds.
pub const WARM_UP: &str = "warm-up";
/// The name of the phase that [`Load::hold`] adds.
pub const HOLD: &str = "hold";

/// The most iterations in flight: seats are numbered, and each takes memory.
const MOST_IN_FLIGHT: usize = 1_000_000;

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
    model: Model,
    arrivals: Arrivals,
    phases: Vec<Phase>,
    flows: Vec<Flow>,
    classifiers: Classifiers,
    seed: Option<Seed>,
    limit: Duration,
    drain: Option<Duration>,
    in_flight: usize,
    queue: usize,
    most: Option<u64>,
    gates: Vec<Gate>,
    marks: Marks,
    monitor: Option<Monitor>,
    watch_every: Duration,
    /// What was wrong with a call of the builder; said when the load is to run.
    refused: Option<Error>,
}

/// A load that means something, ready to run.
struct Planned {
    plan: Plan,
    phases: Vec<Phase>,
    gates: Vec<Gate>,
    marks: Marks,
    monitor: Option<Monitor>,
}

/// Who decides when the next iteration starts.
#[derive(Debug)]
enum Model {
    /// The plan.
    Open(Rate),
    /// The users, who come back when they are served.
    Closed(Closed),
}

/// How long a user of a closed loop pauses between two iterations.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Think {
    /// Not at all: as many requests as the system takes.
    #[default]
    None,
    /// Always as long.
    Fixed(Duration),
    /// Exponentially distributed with this mean, from the seed.
    Exponential(Duration),
}

/// What becomes of a slot that is due while as many are in flight as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saturation {
    /// It waits; with this many waiting already it is dropped.
    Queue(usize),
    /// It is dropped.
    Drop,
    /// It starts all the same, up to this many in flight; then it is dropped.
    Spawn(usize),
}

impl Load {
    /// An open loop: iterations arrive at this rate, however slow the system is.
    ///
    /// A flow of several steps with pauses between them ([`Iteration::step`], [`Iteration::think`]) makes it *partly open*:
    /// sessions arrive, what happens within one waits for its answers (Schroeder, Wierman and Harchol-Balter, "Open versus
    /// closed", NSDI 2006).
    pub fn open(rate: Rate) -> Self {
        Self::new(Model::Open(rate))
    }

    /// A closed loop: so many users, each of whom comes back when they are served and have thought.
    ///
    /// It cannot show what a stall does to those who would have come meanwhile: they do not come. Good for finding out how
    /// much a system takes at most, wrong for judging its latency under a rate.
    pub fn closed(users: usize) -> Self {
        let closed = Closed { users, think: Think::None, stagger: Duration::ZERO };
        Self { in_flight: users, queue: 0, ..Self::new(Model::Closed(closed)) }
    }

    fn new(model: Model) -> Self {
        Self {
            model,
            arrivals: Arrivals::Constant,
            phases: Vec::new(),
            flows: Vec::new(),
            classifiers: Classifiers::default(),
            seed: None,
            limit: Duration::from_secs(10),
            drain: None,
            in_flight: 1_000,
            queue: 10_000,
            most: None,
            gates: Vec::new(),
            marks: Marks::default(),
            monitor: None,
            watch_every: Duration::from_millis(500),
            refused: None,
        }
    }

    /// Arrivals like those of independent users: exponential gaps instead of even ones.
    pub fn poisson(mut self) -> Self {
        self.arrivals = Arrivals::Poisson;
        self
    }

    /// How users of a closed loop pause; refused for an open one, where the plan decides.
    pub fn think(mut self, think: Think) -> Self {
        match &mut self.model {
            Model::Closed(closed) => closed.think = think,
            Model::Open(_) => self
                .refuse("users of an open loop do not come back", "think inside the flow, with `iteration.think(..)`"),
        }
        self
    }

    /// The seed of arrivals, flows and [`Iteration::random`]. Without it: the seed of the test run.
    pub fn seed(mut self, seed: Seed) -> Self {
        self.seed = Some(seed);
        self
    }

    /// A first phase that no gate looks at: connections open, pools grow, caches fill.
    pub fn warm_up(self, length: Duration) -> Self {
        self.steady_rate(Kind::WarmUp, length)
    }

    /// A warm-up that ends as soon as the median responses of five seconds are within 5 % of each other and nothing failed,
    /// and after `at_most` in any case.
    pub fn warm_up_until_steady(mut self, at_most: Duration) -> Self {
        self = self.warm_up(at_most);
        self.phases.iter_mut().last().into_iter().for_each(|phase| phase.until_steady = true);
        self
    }

    /// The rate rises, or falls, evenly to the rate of this load. In a closed loop the users join one after the other.
    pub fn ramp(mut self, from: Rate, length: Duration) -> Self {
        match &mut self.model {
            Model::Open(rate) => {
                let rate = *rate;
                self.curve(Kind::Ramp, Curve::ramp(from, rate, length))
            }
            Model::Closed(closed) => {
                closed.stagger = length;
                self.phase(Kind::Ramp, Shape::Users, length)
            }
        }
    }

    /// The phase that gates judge. May be called again (`hold 2`, `hold 3`); the phases then count together.
    pub fn hold(self, length: Duration) -> Self {
        self.steady_rate(Kind::Hold, length)
    }

    /// From here on the phases have another rate; refused for a closed loop.
    pub fn rate(mut self, to: Rate) -> Self {
        match &mut self.model {
            Model::Open(rate) => *rate = to,
            Model::Closed(_) => self.refuse_rate(),
        }
        self
    }

    /// A multiple of the rate for a short time; judged.
    pub fn spike(self, times: f64, length: Duration) -> Self {
        self.with_rate(|load, rate| load.phase(Kind::Spike, Shape::Rate(per_second(rate.as_f64() * times)), length))
    }

    /// A staircase from the rate of this load to another, in so many levels, both ends included; each level is a `hold` of
    /// its own (`hold`, `hold 2`, …), so that it can be judged by its name.
    pub fn steps(self, to: Rate, levels: u32, each: Duration) -> Self {
        self.with_rate(|mut load, from| {
            if levels < 2 {
                load.refuse(
                    "a staircase of fewer than two steps leads nowhere",
                    "give it at least 2, or `.hold(..)` one rate",
                );
            }
            for level in 0..levels {
                let share = f64::from(level) / f64::from((levels - 1).max(1));
                let rate = per_second(from.as_f64() + (to.as_f64() - from.as_f64()) * share);
                load = load.phase(Kind::Hold, Shape::Rate(rate), each);
            }
            load
        })
    }

    /// Any rate over time that [`Curve`] can say, judged as a hold.
    pub fn hold_curve(self, curve: Curve) -> Self {
        self.with_rate(|load, _| load.curve(Kind::Hold, Ok(curve)))
    }

    /// Arrivals that were recorded elsewhere, judged as a hold.
    pub fn replay(self, trace: Trace) -> Self {
        let length = trace.length();
        self.with_rate(|load, _| load.phase(Kind::Hold, Shape::Trace(trace), length))
    }

    /// A long hold, named `soak`; judged.
    pub fn soak(self, length: Duration) -> Self {
        self.steady_rate(Kind::Soak, length)
    }

    /// A last phase at a tenth of the rate that no gate looks at: things go back to rest. In a closed loop the users stay.
    pub fn cool_down(self, length: Duration) -> Self {
        let shape = match &self.model {
            Model::Open(rate) => Shape::Rate(per_second(rate.as_f64() / 10.0)),
            Model::Closed(_) => Shape::Users,
        };
        self.phase(Kind::CoolDown, shape, length)
    }

    fn steady_rate(self, kind: Kind, length: Duration) -> Self {
        let shape = match &self.model {
            Model::Open(rate) => Shape::Rate(*rate),
            Model::Closed(_) => Shape::Users,
        };
        self.phase(kind, shape, length)
    }

    fn with_rate(mut self, add: impl FnOnce(Self, Rate) -> Self) -> Self {
        match self.model {
            Model::Open(rate) => add(self, rate),
            Model::Closed(_) => {
                self.refuse_rate();
                self
            }
        }
    }

    fn curve(mut self, kind: Kind, curve: CoreResult<Curve>) -> Self {
        match curve {
            Ok(curve) => {
                let length = curve.length();
                self.phase(kind, Shape::Curve(curve), length)
            }
            Err(error) => {
                self.refused.get_or_insert(error);
                self
            }
        }
    }

    fn phase(mut self, kind: Kind, shape: Shape, length: Duration) -> Self {
        let before = self.phases.iter().filter(|phase| phase.kind == kind).count();
        let word = kind.word();
        let name = if before == 0 { word.to_owned() } else { format!("{word} {}", before + 1) };
        self.phases.push(Phase { name, kind, shape, length, measured: kind.is_measured(), until_steady: false });
        self
    }

    fn refuse_rate(&mut self) {
        self.refuse("a closed loop has no rate", "use `Load::open(..)`, or leave rates, spikes, steps and traces out");
    }

    fn refuse(&mut self, what: &str, remedy: &str) {
        self.refused.get_or_insert_with(|| Error::new(ErrorKind::Config, what).remedy(remedy));
    }

    /// Ends the run after so many iterations, whatever the phases say. What the schedule still holds is then not due.
    pub fn at_most(mut self, iterations: u64) -> Self {
        self.most = Some(iterations);
        self
    }

    /// A gate that is judged with those given to [`LoadRun::check`]. Only gates given here can look at a window
    /// ([`Gate::over`]) or end the run ([`Gate::abort_after`]).
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gates.push(gate);
        self
    }

    /// What becomes of slots that are due while as many are in flight as may be; `Queue(10_000)` without this.
    pub fn saturation(mut self, policy: Saturation) -> Self {
        match policy {
            Saturation::Queue(most) => self.queue = most,
            Saturation::Drop => self.queue = 0,
            Saturation::Spawn(most) => (self.in_flight, self.queue) = (self.in_flight.max(most), 0),
        }
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

    /// A flow whose iterations are calls of a [`Target`], each user of which keeps its connection.
    pub fn target(mut self, name: impl Into<String>, weight: u32, target: impl Target) -> Self {
        self.flows.push(target::flow(name.into(), weight, target));
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

    /// Samples something while the load runs, such as a [`ProcessSampler`](harness_core::monitor::ProcessSampler) of the
    /// service: plotted on the time axis of the load, kept in [`LoadRun::watched`], judged by [`resource`](crate::resource).
    pub fn watch(mut self, sampler: impl Sampler + 'static) -> Self {
        self.monitor = Some(self.monitor.take().unwrap_or_default().watch(sampler));
        self
    }

    /// How often samples are taken; every half second without this.
    pub fn watch_every(mut self, interval: Duration) -> Self {
        self.watch_every = interval;
        self
    }

    /// What this machine may run out of under this load, descriptors and ephemeral ports: to be looked at before it starts.
    /// [`LoadRun::warnings`] says the same afterwards.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        preflight::warnings(self.in_flight)
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
        let Planned { mut plan, phases, gates, marks, monitor } = self.plan()?;
        let monitoring = monitor.map(Monitor::start).transpose()?;
        plan.latest = monitoring.as_ref().map(Monitoring::latest).unwrap_or_default();
        let warnings = preflight::warnings(plan.in_flight);
        let scheduled = plan.closed.is_none().then(|| plan.schedule.counts());
        let driven = engine::drive(&mut plan).await?;
        let watched = match monitoring {
            Some(monitoring) => Some(monitoring.stop().await?),
            None => None,
        };
        let flows: Vec<String> = plan.flows.iter().map(|flow| flow.name.clone()).collect();
        driven.books.check_conservation(scheduled.as_deref(), &flows)?;
        let marks = marks.since(driven.start);
        Ok(LoadRun::new((phases, flows), &plan, driven, (gates, marks, warnings), watched))
    }

    fn plan(mut self) -> CoreResult<Planned> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        self.refuse_nonsense()?;
        let seed = self.seed.unwrap_or_else(|| Run::current().seed());
        let weights: Vec<u32> = self.flows.iter().map(|flow| flow.weight).collect();
        let flows: Vec<String> = self.flows.iter().map(|flow| flow.name.clone()).collect();
        for gate in &self.gates {
            let _means_something = gate.threshold()?;
        }
        let watched = self.gates.iter().filter(|gate| gate.window.is_some() || gate.abort_after.is_some());
        let plan = Plan {
            schedule: Schedule::new(&self.phases, &weights, self.arrivals, seed)?,
            measured: self.phases.iter().map(|phase| phase.measured).collect(),
            until_steady: self.phases.iter().map(|phase| phase.until_steady).collect(),
            closed: match self.model {
                Model::Open(_) => None,
                Model::Closed(closed) => Some(closed),
            },
            most: self.most,
            flows: self.flows,
            classifiers: Arc::new(self.classifiers),
            seed,
            limit: self.limit,
            drain: self.drain.unwrap_or(self.limit),
            in_flight: self.in_flight,
            queue: self.queue,
            latest: Latest::default(),
            watches: watched.map(|gate| Watch::new(gate, &flows)).collect::<CoreResult<_>>()?,
        };
        let monitor = self.monitor.map(|monitor| monitor.every(self.watch_every));
        Ok(Planned { plan, phases: self.phases, gates: self.gates, marks: self.marks, monitor })
    }

    fn refuse_nonsense(&self) -> CoreResult {
        let refuse = |what: String, remedy: &str| Err(Error::new(ErrorKind::Config, what).remedy(remedy));
        if !self.phases.iter().any(|phase| phase.measured) {
            return refuse("nothing of this load is measured".to_owned(), "add `.hold(secs(30))`");
        }
        if self.in_flight == 0 {
            let remedy = "give `.in_flight(..)`, `Load::closed(..)` or `Saturation::Spawn(..)` at least 1";
            return refuse("no iteration may be in flight".to_owned(), remedy);
        }
        if self.in_flight > MOST_IN_FLIGHT {
            let what = format!("{} iterations cannot be in flight in one process", self.in_flight);
            return refuse(what, "give at most a million");
        }
        for gate in &self.gates {
            if gate.window.is_some_and(|window| window.is_zero()) {
                return refuse(
                    format!("gate `{}` looks at a window of no length", gate.name()),
                    "give `.over(secs(10))`",
                );
            }
            if gate.flow != ANY && !self.flows.iter().any(|flow| flow.name == gate.flow) {
                return refuse(format!("gate `{}` names no flow of this load", gate.name()), "name one of its flows");
            }
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
