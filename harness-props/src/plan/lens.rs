//! Any type as a plan: a trait for your own, closures for everybody else's.

use std::fmt;

use super::model::{Agent, Automation, Criterion, Demand, Effect, Id, Link, Plan, Rollback, Step, Ticks};
use super::view::{Paths, View};
use crate::rule::Refusal;

/// A type that can be seen as a plan.
///
/// Implement it with a [`PlanLens`], which says what each facet is. Facets that are not supplied make the rules that
/// need them skipped, visibly.
pub trait PlanModel {
    /// The plan in the form that rules read.
    ///
    /// # Errors
    /// More steps or dependencies than can be addressed (2³² − 2).
    fn view(&self) -> Result<View, Refusal>;
}

type Of<P, T> = Box<dyn Fn(&P, usize) -> T + Send + Sync>;
type OfAll<P, T> = Box<dyn Fn(&P) -> T + Send + Sync>;
type Fill<P, T> = Box<dyn Fn(&P, usize, &mut T) + Send + Sync>;

/// How to read a foreign type as a plan: one closure per facet, each given the plan and the index of a step.
///
/// ```
/// use harness_props::plan::{PlanLens, PlanValidator};
///
/// struct Job { code: String, needs: Vec<String>, eta: u32 }
/// let jobs = vec![
///     Job { code: "a".into(), needs: vec!["b".into()], eta: 3 },
///     Job { code: "b".into(), needs: vec!["a".into()], eta: 4 },
/// ];
/// let lens = PlanLens::new(|jobs: &Vec<Job>| jobs.len())
///     .id(|jobs, i| jobs[i].code.clone())
///     .after(|jobs, i| jobs[i].needs.clone())
///     .duration(|jobs, i| Some(jobs[i].eta))
///     .root("/jobs")
///     .named("after", "needs");
///
/// let report = PlanValidator::standard().check_view(lens.view(&jobs).unwrap());
/// assert_eq!(report.codes(""), [("P009".to_owned(), "/jobs/0/needs".to_owned())]);
/// assert!(report.violations[0].message.contains("a -> b -> a"));
/// assert!(report.why_skipped("P022").is_some(), "nobody said who is responsible");
/// ```
pub struct PlanLens<P: ?Sized> {
    len: OfAll<P, usize>,
    id: Of<P, Id>,
    after: Option<Fill<P, Vec<Link>>>,
    number: Option<Of<P, Option<i64>>>,
    duration: Option<Of<P, Option<Ticks>>>,
    rich: Vec<(&'static str, Fill<P, Step>)>,
    charter: Option<OfAll<P, Plan>>,
    paths: Paths,
}

impl<P: ?Sized> fmt::Debug for PlanLens<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facets: Vec<_> = self.rich.iter().map(|(facet, _)| facet).collect();
        f.debug_struct("PlanLens").field("facets", &facets).field("paths", &self.paths).finish_non_exhaustive()
    }
}

macro_rules! facets {
    ($($(#[$doc:meta])* $name:ident($field:ident): $type:ty;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(self, read: impl Fn(&P, usize) -> $type + Send + Sync + 'static) -> Self {
            self.step(stringify!($name), move |plan, index, step| step.$field = read(plan, index))
        })*
    };
}

impl<P: ?Sized> PlanLens<P> {
    /// A lens over a plan with so many steps. Until told otherwise a step's name is its index.
    #[must_use]
    pub fn new(len: impl Fn(&P) -> usize + Send + Sync + 'static) -> Self {
        Self {
            len: Box::new(len),
            id: Box::new(|_, index| Id::Number(index as u64)),
            after: None,
            number: None,
            duration: None,
            rich: Vec::new(),
            charter: None,
            paths: Paths::default(),
        }
    }

    /// The name of a step.
    #[must_use]
    pub fn id<I: Into<Id>>(mut self, read: impl Fn(&P, usize) -> I + Send + Sync + 'static) -> Self {
        self.id = Box::new(move |plan, index| read(plan, index).into());
        self
    }

    /// What a step waits for: ids, or [`Link`]s with lags.
    #[must_use]
    pub fn after<I>(mut self, read: impl Fn(&P, usize) -> I + Send + Sync + 'static) -> Self
    where
        I: IntoIterator<Item: Into<Link>>,
    {
        self.after = Some(Box::new(move |plan, index, out| out.extend(read(plan, index).into_iter().map(Into::into))));
        self
    }

    /// The number of a step, from 1.
    #[must_use]
    pub fn number(mut self, read: impl Fn(&P, usize) -> Option<i64> + Send + Sync + 'static) -> Self {
        self.number = Some(Box::new(read));
        self
    }

    /// How long a step takes, in ticks; a [`std::time::Duration`] counts in milliseconds.
    #[must_use]
    pub fn duration<T: Into<Ticks>>(mut self, read: impl Fn(&P, usize) -> Option<T> + Send + Sync + 'static) -> Self {
        self.duration = Some(Box::new(move |plan, index| read(plan, index).map(Into::into)));
        self
    }

    facets! {
        /// The title of a step.
        title(title): Option<String>;
        /// The phase of a step.
        phase(phase): Option<Id>;
        /// The group or sub-plan of a step.
        group(group): Option<Id>;
        /// What kind of work a step is.
        kind(kind): Option<String>;
        /// Who is responsible for a step.
        agent(agent): Option<Id>;
        /// How a step's success is known.
        criteria(criteria): Vec<Criterion>;
        /// Machine or person.
        automation(automation): Option<Automation>;
        /// What a step changes.
        effect(effect): Option<Effect>;
        /// How that is taken back.
        rollback(rollback): Option<Rollback>;
        /// When a step starts.
        start(start): Option<i64>;
        /// When a step finishes.
        finish(finish): Option<i64>;
        /// What a step uses.
        demands(demands): Vec<Demand>;
    }

    /// Any other facet: its name, and a closure that fills it into a [`Step`].
    #[must_use]
    pub fn step(mut self, facet: &'static str, read: impl Fn(&P, usize, &mut Step) + Send + Sync + 'static) -> Self {
        self.rich.push((facet, Box::new(read)));
        self
    }

    /// The roster, so that responsible agents are known.
    #[must_use]
    pub fn roster(self, read: impl Fn(&P) -> Vec<Agent> + Send + Sync + 'static) -> Self {
        self.charter(move |plan| Plan { agents: read(plan), ..Plan::default() })
    }

    /// What the plan says about itself: a [`Plan`] whose steps are ignored.
    #[must_use]
    pub fn charter(mut self, read: impl Fn(&P) -> Plan + Send + Sync + 'static) -> Self {
        self.charter = Some(Box::new(read));
        self
    }

    /// JSON pointer to the list of steps, as reports shall write it; default `/steps`.
    #[must_use]
    pub fn root(mut self, pointer: impl Into<String>) -> Self {
        self.paths.root = Some(pointer.into());
        self
    }

    /// The user's own name of a field, as reports shall write it.
    #[must_use]
    pub fn named(mut self, ours: impl Into<String>, theirs: impl Into<String>) -> Self {
        self.paths.names.push((ours.into(), theirs.into()));
        self
    }

    /// A plan seen through the lens.
    ///
    /// # Errors
    /// More steps or dependencies than can be addressed (2³² − 2).
    pub fn view(&self, plan: &P) -> Result<View, Refusal> {
        let count = (self.len)(plan);
        let ids = (0..count).map(|index| (self.id)(plan, index)).collect();
        let mut view = View::build(ids, |index, out| {
            if let Some(after) = &self.after {
                after(plan, index, out);
            }
        })?;
        if self.after.is_none() {
            view.facets.remove("after");
        }
        if let Some(number) = &self.number {
            view.facets.insert("number");
            view.numbers = (0..count).map(|index| number(plan, index).unwrap_or(super::view::ABSENT)).collect();
        }
        if let Some(duration) = &self.duration {
            view.facets.insert("duration");
            view.durations.reserve_exact(count);
            (0..count).for_each(|index| view.push_duration(duration(plan, index)));
        }
        if !self.rich.is_empty() {
            view.steps = (0..count)
                .map(|index| {
                    let mut step = Step { id: view.ids[index].clone(), ..Step::default() };
                    self.rich.iter().for_each(|(_, fill)| fill(plan, index, &mut step));
                    step
                })
                .collect();
            view.facets.extend(self.rich.iter().map(|(facet, _)| *facet));
        }
        if let Some(charter) = &self.charter {
            view.charter = Plan { steps: Vec::new(), ..charter(plan) };
        }
        charter_facets(&mut view);
        view.paths = self.paths.clone();
        Ok(view)
    }
}

/// Facets of the plan as a whole are supplied when they are there.
fn charter_facets(view: &mut View) {
    let charter = &view.charter;
    let there = [
        ("entries", !charter.entries.is_empty()),
        ("terminals", !charter.terminals.is_empty()),
        ("phases", !charter.phases.is_empty()),
        ("roster", !charter.agents.is_empty()),
        ("kinds", !charter.kinds.is_empty()),
        ("actions", !charter.actions.is_empty()),
        ("resources", !charter.resources.is_empty()),
        ("exclusions", !charter.exclusions.is_empty()),
        ("max_parallel", charter.max_parallel.is_some()),
        ("plan_deadline", charter.deadline.is_some()),
        ("margin", charter.margin.is_some()),
        ("recovery_window", charter.recovery_window.is_some()),
        ("critical_path", charter.critical_path.is_some()),
        ("sole", charter.sole.is_some()),
        ("makespan", charter.makespan.is_some()),
        ("width", charter.width.is_some()),
        ("load", charter.load.is_some()),
        ("calendar", charter.agents.iter().any(|agent| !agent.available.is_empty())),
    ];
    view.facets.extend(there.iter().filter(|(_, there)| *there).map(|(facet, _)| *facet));
}

/// What a complete plan has is supplied even when no step has it, so that leaving a field out everywhere is an error
/// and not a way around the rule; what only some plans have is supplied when any step has it.
impl PlanModel for Plan {
    fn view(&self) -> Result<View, Refusal> {
        let steps = &self.steps;
        let ids = steps.iter().map(|step| step.id.clone()).collect();
        let mut view = View::build(ids, |index, out| out.extend(steps[index].after.iter().cloned()))?;
        view.numbers = steps.iter().map(|step| step.number.unwrap_or(super::view::ABSENT)).collect();
        steps.iter().for_each(|step| view.push_duration(step.duration.clone()));
        view.steps = steps.iter().map(|step| Step { after: Vec::new(), ..step.clone() }).collect();
        view.charter = Self { steps: Vec::new(), ..self.clone() };
        view.facets.extend(["number", "title", "duration", "agent", "criteria", "automation", "effect", "rollback"]);
        let any = |has: fn(&Step) -> bool| steps.iter().any(has);
        let there = [
            ("phase", any(|step| step.phase.is_some())),
            ("group", any(|step| step.group.is_some())),
            ("kind", any(|step| step.kind.is_some())),
            ("start", any(|step| step.start.is_some())),
            ("finish", any(|step| step.finish.is_some())),
            ("release", any(|step| step.release.is_some() || step.deadline.is_some())),
            ("times", any(|step| step.times.is_some())),
            ("critical", any(|step| step.critical.is_some())),
            ("exclusive", any(|step| step.exclusive)),
            ("demands", any(|step| !step.demands.is_empty())),
            ("quantities", any(|step| !step.quantities.is_empty())),
            ("choices", any(|step| !step.choices.is_empty())),
        ];
        view.facets.extend(there.iter().filter(|(_, there)| *there).map(|(facet, _)| *facet));
        charter_facets(&mut view);
        Ok(view)
    }
}

/// The same view again; what a lens returned can be checked more than once.
impl PlanModel for View {
    fn view(&self) -> Result<View, Refusal> {
        Ok(self.clone())
    }
}
