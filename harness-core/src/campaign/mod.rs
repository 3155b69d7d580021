//! A campaign: scenarios in phases, run by one command, ending in one decision.
//!
//! A campaign is a test target with `harness = false`. The same program serves three callers: with `--campaign` it runs
//! its phases in order, writes reports and decides (exit code 0 GO, 1 NO-GO, 2 CONDITIONAL, 3 nothing could start, 64
//! usage); under `cargo test` its scenarios are tests; under nextest each scenario is a process of its own.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::time::Duration;
//!
//! use harness_core::campaign::{Campaign, Scenario};
//! use harness_core::slo::{Measured, Threshold};
//!
//! async fn fifty_agents(cx: &mut Scenario) -> harness_core::Result {
//!     let (ok, all) = (50, 50); // drive the system here
//!     cx.criterion(Threshold::parse("success", ">= 95 %", Some(">= 90 %"))?, Measured::share(ok, all));
//!     Ok(())
//! }
//!
//! fn main() -> ExitCode {
//!     Campaign::new("my service 1.0")
//!         .phase("concurrency", Duration::from_mins(15), |p| {
//!             p.scenario("A1", "fifty agents complete at once", fifty_agents)
//!                 .critical()
//!                 .expects("all fifty finish, at least 95 % with success")
//!                 .remedy("look for a lock held across an await")
//!         })
//!         .main()
//! }
//! ```
//!
//! What it does not do: it does not run scenarios in parallel (their figures would disturb each other), and it does not
//! capture their output.

mod args;
mod closing;
mod drive;
mod guard;
mod isolate;
mod machine;
mod manifest;
mod mask;
mod merged;
mod one;
mod plan;
mod preflight;
mod profile;
mod progress;
mod repeat;
mod scenario;
mod session;
mod tests_drive;
mod turn;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use self::args::{Args, Drive};
use self::isolate::LocalFuture;
use self::merged::Carried;
use self::session::Session;
use crate::env::Settings;
use crate::error::CoreResult;
use crate::record::PanelRecord;
use crate::slo::{Percent, Policy, ReleaseRow, codes, percent};

pub use guard::Guard;
pub use manifest::{Approver, MONITORING_PLAN, Manifest, Stamp};
pub use mask::{mask_secrets, mask_url};
pub use plan::Phase;
pub use preflight::{Probe, preflight};
pub use profile::Profile;
pub use scenario::Scenario;
pub use session::Setup;

trait Build<C>: Send + Sync {
    fn build<'a>(&'a self, setup: &'a Setup) -> LocalFuture<'a, CoreResult<C>>;
}

impl<C, F: AsyncFn(&Setup) -> CoreResult<C> + Send + Sync> Build<C> for F {
    fn build<'a>(&'a self, setup: &'a Setup) -> LocalFuture<'a, CoreResult<C>> {
        Box::pin(self(setup))
    }
}

trait Hook<C, T>: Send + Sync {
    fn call<'a>(&'a self, context: &'a C) -> LocalFuture<'a, T>;
}

impl<C, T, F: AsyncFn(&C) -> T + Send + Sync> Hook<C, T> for F {
    fn call<'a>(&'a self, context: &'a C) -> LocalFuture<'a, T> {
        Box::pin(self(context))
    }
}

type ContextProbes<C> = Arc<dyn Fn(&Arc<C>) -> Vec<Probe> + Send + Sync>;

/// A campaign under construction; `C` is the environment its scenarios share.
#[must_use = "a campaign runs when `main` is called"]
pub struct Campaign<C = ()> {
    subject: String,
    manifest: Manifest,
    guard: Option<Guard>,
    probes: Vec<Probe>,
    context_probes: Option<ContextProbes<C>>,
    environment: Arc<dyn Build<C>>,
    environment_limit: Duration,
    teardown: Option<Arc<dyn Hook<C, ()>>>,
    pause_hooks: Vec<(String, Arc<dyn Hook<C, String>>)>,
    phases: Vec<Phase<C>>,
    profiles: Vec<Profile>,
    rows: Vec<ReleaseRow>,
    panel: Option<Vec<PanelRecord>>,
    policy: Policy,
    floor: (Percent, u64),
    package: Option<String>,
    plan_file: Option<PathBuf>,
    expected: Option<usize>,
    problems: Vec<String>,
}

impl<C> std::fmt::Debug for Campaign<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Campaign").field("subject", &self.subject).field("phases", &self.phases).finish_non_exhaustive()
    }
}

impl Campaign<()> {
    /// A campaign about a subject, for example `pattern service 2.2.0`.
    pub fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            manifest: Manifest::default(),
            guard: None,
            probes: Vec::new(),
            context_probes: None,
            environment: Arc::new(async |_: &Setup| Ok(())),
            environment_limit: Duration::from_mins(10),
            teardown: None,
            pause_hooks: Vec::new(),
            phases: Vec::new(),
            profiles: Vec::new(),
            rows: Vec::new(),
            panel: None,
            policy: Policy::default(),
            floor: (percent(90), 10),
            package: None,
            plan_file: None,
            expected: None,
            problems: Vec::new(),
        }
    }

    /// How to build what scenarios share: servers, the system under test, clients. Built once per process, when the
    /// first scenario is due, in at most [`Campaign::environment_limit`].
    ///
    /// Comes before phases and whatever else uses the environment.
    pub fn environment<C>(
        mut self,
        build: impl AsyncFn(&Setup) -> CoreResult<C> + Send + Sync + 'static,
    ) -> Campaign<C> {
        let early = !self.phases.is_empty()
            || self.teardown.is_some()
            || self.context_probes.is_some()
            || !self.pause_hooks.is_empty();
        if early {
            self.problems
                .push("`environment` must come before phases, teardown, probes of it and pause hooks".to_owned());
        }
        Campaign {
            subject: self.subject,
            manifest: self.manifest,
            guard: self.guard,
            probes: self.probes,
            context_probes: None,
            environment: Arc::new(build),
            environment_limit: self.environment_limit,
            teardown: None,
            pause_hooks: Vec::new(),
            phases: Vec::new(),
            profiles: self.profiles,
            rows: self.rows,
            panel: self.panel,
            policy: self.policy,
            floor: self.floor,
            package: self.package,
            plan_file: self.plan_file,
            expected: self.expected,
            problems: self.problems,
        }
    }
}

impl<C: Send + Sync + 'static> Campaign<C> {
    /// How long building the environment may take; 10 minutes unless set.
    pub fn environment_limit(mut self, limit: Duration) -> Self {
        self.environment_limit = limit;
        self
    }

    /// Ends the environment, in at most a minute, after the last scenario.
    pub fn teardown(mut self, end: impl AsyncFn(&C) + Send + Sync + 'static) -> Self {
        self.teardown = Some(Arc::new(end));
        self
    }

    /// Refuses to start against anything that may be a real system; checked before everything else in every drive.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Probes that run before the environment is built.
    pub fn preflight(mut self, probes: impl IntoIterator<Item = Probe>) -> Self {
        self.probes.extend(probes);
        self
    }

    /// Probes of the environment, once it is built.
    pub fn preflight_of(mut self, probes: impl Fn(&Arc<C>) -> Vec<Probe> + Send + Sync + 'static) -> Self {
        self.context_probes = Some(Arc::new(probes));
        self
    }

    /// Adds a phase with its budget. Twice the budget is its hard limit.
    pub fn phase(mut self, name: &str, budget: Duration, plan: impl FnOnce(Phase<C>) -> Phase<C>) -> Self {
        self.phases.push(plan(Phase::new(name, budget)));
        self
    }

    /// A profile that `--profile` and `HARNESS_PROFILE` may name. Once there is one, others are refused, and one of them has
    /// to be called `default`.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profiles.push(profile);
        self
    }

    /// The release matrix: one row per figure that decides.
    pub fn matrix(mut self, rows: impl IntoIterator<Item = ReleaseRow>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// The lines of the metrics panel: label and metric name.
    pub fn panel<'a>(mut self, rows: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let rows = rows.into_iter().map(|(label, metric)| PanelRecord { label: label.into(), metric: metric.into() });
        self.panel = Some(rows.collect());
        self
    }

    /// How many scenarios must succeed; all of them unless set.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Roles and what they answer for.
    pub fn roles<'a>(mut self, roles: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.manifest.roles = roles.into_iter().map(|(role, duty)| (role.to_owned(), duty.to_owned())).collect();
        self
    }

    /// Whose approval a release needs, in the order they are listed.
    pub fn approvers<'a>(mut self, roles: impl IntoIterator<Item = &'a str>) -> Self {
        let approver = |role: &str| Approver { role: role.to_owned(), signed_at_ms: None };
        self.manifest.approvers = roles.into_iter().map(approver).collect();
        self
    }

    /// A fact for the manifest, such as the schedule or [`MONITORING_PLAN`].
    pub fn field(mut self, name: &str, text: &str) -> Self {
        self.manifest.fields.insert(name.to_owned(), text.to_owned());
        self
    }

    /// Fields without which the release is incomplete.
    pub fn required_fields<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.manifest.required = names.into_iter().map(str::to_owned).collect();
        self
    }

    /// Pauses for good when less than this share of scenarios succeeds, looked at after each one once `after` were
    /// judged; 90 % after 10 unless set.
    pub fn pause_below(mut self, share: Percent, after: u64) -> Self {
        self.floor = (share, after);
        self
    }

    /// Captures something when the campaign pauses, such as logs or database sessions; kept as evidence under `name`.
    pub fn on_pause(mut self, name: &str, capture: impl AsyncFn(&C) -> String + Send + Sync + 'static) -> Self {
        self.pause_hooks.push((name.to_owned(), Arc::new(capture)));
        self
    }

    /// The package of this target, for the line that runs a scenario again; cargo's unless set.
    pub fn package(mut self, name: &str) -> Self {
        self.package = Some(name.to_owned());
        self
    }

    /// A test plan that must name every scenario's id; relative to the working directory.
    pub fn plan_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.plan_file = Some(path.into());
        self
    }

    /// The number of scenarios there must be, so that none gets lost unnoticed.
    pub fn expects_scenarios(mut self, count: usize) -> Self {
        self.expected = Some(count);
        self
    }

    /// Runs with the arguments of this process: the whole `main` of a `harness = false` target.
    pub fn main(self) -> ExitCode {
        ExitCode::from(self.run(std::env::args().skip(1)))
    }

    /// Runs with the given arguments and returns the exit code (see [`codes`]). Not to be called from async code.
    #[must_use]
    pub fn run(mut self, args: impl IntoIterator<Item = String>) -> u8 {
        let mut args = match Args::parse(args) {
            Ok(args) => args,
            Err(problems) => return refuse("the arguments cannot be used", &problems),
        };
        if args.help {
            progress::print(args::HELP);
            return codes::GO;
        }
        if Settings::get().campaign && args.filters.is_empty() && !args.list {
            args.drive = Drive::Campaign;
        }
        let problems = self.settle();
        if !problems.is_empty() {
            return refuse("the campaign cannot be used", &problems);
        }
        let chosen = match plan::select(&self.phases, &args) {
            Ok(chosen) => chosen,
            Err(problems) => return refuse("nothing would run", &problems),
        };
        if args.list {
            tests_drive::list(&self, &args, &chosen);
            return codes::GO;
        }
        if let Some(problem) = self.unknown_profile(&args) {
            return refuse("nothing would run", &[problem]);
        }
        if chosen.is_empty() {
            progress::print("\nrunning 0 scenarios\n\ntest result: ok. 0 passed; the filter is for another target\n");
            return codes::GO;
        }
        self.start(&args, &chosen)
    }

    fn start(self, args: &Args, chosen: &[(usize, usize)]) -> u8 {
        if args.repeat == 1 {
            return self.once(args, chosen);
        }
        repeat::run(args.repeat, &args.out, |dir| {
            self.once(&Args { out: dir.to_owned(), archive: None, ..args.clone() }, chosen)
        })
    }

    fn once(&self, args: &Args, chosen: &[(usize, usize)]) -> u8 {
        let cannot = |error: crate::Error| {
            progress::complain(&format!("{error:?}"));
            if args.drive == Drive::Campaign { drive::cannot_open(&error) } else { codes::NOT_STARTED }
        };
        // Before this run's own record is there.
        let carried = match &args.resume {
            Some(dir) => {
                let plants = Session::plants(args);
                match merged::interrupted(self, dir, &Session::profile(args), &plants) {
                    Ok(carried) => carried,
                    Err(error) => return cannot(error),
                }
            }
            None => Carried::default(),
        };
        let session = match Session::open(args, self.package.clone()) {
            Ok(session) => Arc::new(session),
            Err(error) => return cannot(error),
        };
        if let Some(dir) = &args.decide {
            return merged::decide(self, args, dir, &session);
        }
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return cannot(error.into()),
        };
        let code = runtime.block_on(async {
            match args.drive {
                Drive::Campaign => drive::run(self, args, chosen, carried, &session).await,
                Drive::Tests => tests_drive::run(self, chosen, &session).await,
            }
        });
        // Tasks that a scenario left behind must not keep the process.
        runtime.shutdown_timeout(Duration::from_secs(2));
        code
    }

    /// The profile in force.
    fn profile_of(&self, session: &Session) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == session.setup.profile())
    }

    /// How long a scenario may take when so much is left of its phase.
    fn limit_of(&self, scenario: &plan::Planned<C>, left: Duration, session: &Session) -> Duration {
        let times = self.profile_of(session).map_or(1, |profile| profile.limits_times);
        scenario.limit.map_or(left, |limit| limit * times).min(left)
    }

    /// Why the profile that was asked for cannot be used.
    fn unknown_profile(&self, args: &Args) -> Option<String> {
        let name = Session::profile(args);
        let is_known = self.profiles.is_empty() || self.profiles.iter().any(|profile| profile.name == name);
        let names: Vec<_> = self.profiles.iter().map(|profile| profile.name.as_str()).collect();
        (!is_known).then(|| format!("there is no profile `{name}`; profiles here: {}", names.join(", ")))
    }

    /// Everything that makes this campaign unusable, all at once.
    fn settle(&mut self) -> Vec<String> {
        let mut problems = std::mem::take(&mut self.problems);
        problems.extend(plan::settle(&mut self.phases));
        problems.extend(self.profiles.iter().flat_map(|profile| profile.problems(&self.phases)));
        if !self.profiles.is_empty() && !self.profiles.iter().any(|profile| profile.name == session::DEFAULT_PROFILE) {
            problems.push(format!("no profile is called `{}`", session::DEFAULT_PROFILE));
        }
        problems.extend(self.rows.iter().filter_map(ReleaseRow::problem));
        problems.extend(Settings::get().problems.iter().cloned());
        let ids: Vec<_> = self.phases.iter().flat_map(|p| &p.scenarios).map(|s| s.record.id.as_str()).collect();
        if let Some(expected) = self.expected.filter(|expected| *expected != ids.len()) {
            problems.push(format!("{expected} scenarios are expected, {} are planned", ids.len()));
        }
        if let Some(path) = &self.plan_file {
            match std::fs::read_to_string(path) {
                Err(error) => problems.push(format!("the test plan {} cannot be read: {error}", path.display())),
                Ok(text) => {
                    let words: Vec<_> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
                    let missing = ids.iter().filter(|id| !words.contains(id));
                    problems.extend(missing.map(|id| format!("the test plan {} does not name {id}", path.display())));
                }
            }
        }
        problems
    }
}

fn refuse(what: &str, problems: &[String]) -> u8 {
    progress::complain(&format!("{what}:\n  {}", problems.join("\n  ")));
    codes::USAGE
}
