//! Any type as a slate: a trait for your own, closures for everybody else's.

use std::collections::BTreeSet;
use std::fmt;

use super::model::{Constraint, Objective, Override, Slate, Solution, Totals, TradeOff};
use crate::plan::Plan;
use crate::rule::Names;

/// A type that can be seen as a slate.
///
/// Implement it with a [`SlateLens`], which says what each facet is. Facets that are not supplied make the rules that need
/// them skipped, visibly.
pub trait SlateModel {
    /// The slate in the form that rules read.
    fn view(&self) -> SlateView;
}

/// A slate in the form that rules read, with the facets it has and the names of its type.
#[derive(Debug, Clone, PartialEq)]
pub struct SlateView {
    pub(super) slate: Slate,
    /// Facets that the type has; all of them if there is no list.
    pub(super) facets: Option<BTreeSet<&'static str>>,
    pub(super) names: Names,
}

impl SlateView {
    /// The slate itself.
    #[must_use]
    pub fn slate(&self) -> &Slate {
        &self.slate
    }

    pub(super) fn has(&self, facet: &str) -> bool {
        self.facets.as_ref().is_none_or(|facets| facets.contains(facet))
    }
}

impl SlateModel for Slate {
    fn view(&self) -> SlateView {
        SlateView { slate: self.clone(), facets: None, names: Names::default() }
    }
}

/// The same view again; what a lens returned can be checked more than once.
impl SlateModel for SlateView {
    fn view(&self) -> SlateView {
        self.clone()
    }
}

type Fill<P> = Box<dyn Fn(&P, usize, &mut Solution) + Send + Sync>;
type FillAll<P> = Box<dyn Fn(&P, &mut Slate) + Send + Sync>;

/// How to read a foreign type as a slate: one closure per facet, those of solutions given the index of one.
///
/// ```
/// use harness_props::solution::{SlateLens, SlateValidator};
///
/// struct Option_ { key: &'static str, risk: f64, spend: f64, place: i64 }
/// struct Answer { picks: Vec<Option_>, choice: &'static str }
/// let answer = Answer {
///     picks: vec![
///         Option_ { key: "wait", risk: 10.0, spend: 60.0, place: 1 },
///         Option_ { key: "swap", risk: 20.0, spend: 70.0, place: 2 },
///     ],
///     choice: "swap",
/// };
/// let lens = SlateLens::new(|answer: &Answer| answer.picks.len())
///     .id(|answer, i| answer.picks[i].key)
///     .scores(|answer, i| [("risk", answer.picks[i].risk), ("spend", answer.picks[i].spend)])
///     .rank(|answer, i| Some(answer.picks[i].place))
///     .recommended(|answer| Some(answer.choice.to_owned()))
///     .root("/picks")
///     .named("rank", "place")
///     .named("recommended", "choice");
///
/// let report = SlateValidator::standard().check(&lens.view(&answer));
/// assert_eq!(report.codes(""), [("S034".to_owned(), "/choice".to_owned())]);
/// assert!(report.why_skipped("S031").is_some(), "nobody claimed a composite");
/// ```
pub struct SlateLens<P: ?Sized> {
    len: Box<dyn Fn(&P) -> usize + Send + Sync>,
    each: Vec<Fill<P>>,
    whole: Vec<FillAll<P>>,
    facets: BTreeSet<&'static str>,
    root: String,
    named: Vec<(String, String)>,
}

impl<P: ?Sized> fmt::Debug for SlateLens<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlateLens").field("facets", &self.facets).field("root", &self.root).finish_non_exhaustive()
    }
}

macro_rules! of_solutions {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(self, read: impl Fn(&P, usize) -> $type + Send + Sync + 'static) -> Self {
            self.solution(stringify!($name), move |from, at, solution| solution.$name = read(from, at))
        })*
    };
}

macro_rules! of_slates {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(self, read: impl Fn(&P) -> $type + Send + Sync + 'static) -> Self {
            self.whole(stringify!($name), move |from, slate| slate.$name = read(from))
        })*
    };
}

impl<P: ?Sized> SlateLens<P> {
    /// A lens over a slate with so many solutions. Until told otherwise a solution's name is its index.
    #[must_use]
    pub fn new(len: impl Fn(&P) -> usize + Send + Sync + 'static) -> Self {
        Self {
            len: Box::new(len),
            each: Vec::new(),
            whole: Vec::new(),
            facets: BTreeSet::new(),
            root: "/solutions".to_owned(),
            named: Vec::new(),
        }
    }

    /// The name of a solution.
    #[must_use]
    pub fn id<I: Into<String>>(self, read: impl Fn(&P, usize) -> I + Send + Sync + 'static) -> Self {
        self.solution("id", move |from, at, solution| solution.id = read(from, at).into())
    }

    /// The scores of a solution, in points from 0 to 100, by objective.
    #[must_use]
    pub fn scores<N: Into<String>, I: IntoIterator<Item = (N, f64)>>(
        self,
        read: impl Fn(&P, usize) -> I + Send + Sync + 'static,
    ) -> Self {
        self.solution("scores", move |from, at, solution| {
            solution.scores = read(from, at).into_iter().map(|(name, score)| (name.into(), score)).collect();
        })
    }

    /// By how much a solution keeps each constraint; negative is broken.
    #[must_use]
    pub fn margins<N: Into<String>, I: IntoIterator<Item = (N, f64)>>(
        self,
        read: impl Fn(&P, usize) -> I + Send + Sync + 'static,
    ) -> Self {
        self.solution("margins", move |from, at, solution| {
            solution.margins = read(from, at).into_iter().map(|(name, margin)| (name.into(), margin)).collect();
        })
    }

    of_solutions! {
        /// The composite a solution claims.
        composite: Option<f64>;
        /// The rank a solution claims, from 1.
        rank: Option<i64>;
        /// How sure a solution is, from 0 to 1.
        confidence: Option<f64>;
        /// How sure it would be if nothing was missing.
        full_confidence: Option<f64>;
        /// What is uncertain about a solution, in words.
        uncertainty: Vec<String>;
        /// Why a solution is preferred.
        trade_off: Option<TradeOff>;
        /// How a solution is carried out.
        plan: Option<Plan>;
        /// What a solution claims about its plan.
        totals: Option<Totals>;
    }

    of_slates! {
        /// The objectives, with sense and weight; the first breaks ties.
        objectives: Vec<Objective>;
        /// Objectives by which ties are broken, in order.
        tie_break: Vec<String>;
        /// The constraints.
        constraints: Vec<Constraint>;
        /// What was rejected for breaking a constraint.
        rejected: Vec<Solution>;
        /// What would be allowed too but is not offered.
        others: Vec<Solution>;
        /// Name of the one that is recommended.
        recommended: Option<String>;
        /// Preferences that gave way.
        overrides: Vec<Override>;
        /// Binding constraints that pull apart.
        conflict: Vec<String>;
        /// Whether it is an answer of last resort.
        fallback: bool;
        /// Why the recommended one was chosen.
        reasoning: Option<String>;
        /// Inputs that were missing.
        missing: Vec<String>;
        /// Warnings in the output.
        warnings: Vec<String>;
    }

    /// Any other facet of a solution: its name, and a closure that fills it in.
    #[must_use]
    pub fn solution(
        mut self,
        facet: &'static str,
        read: impl Fn(&P, usize, &mut Solution) + Send + Sync + 'static,
    ) -> Self {
        self.facets.insert(facet);
        self.each.push(Box::new(read));
        self
    }

    /// Any other facet of the slate as a whole: its name, and a closure that fills it in. Solutions it fills in are lost.
    #[must_use]
    pub fn whole(mut self, facet: &'static str, read: impl Fn(&P, &mut Slate) + Send + Sync + 'static) -> Self {
        self.facets.insert(facet);
        self.whole.push(Box::new(read));
        self
    }

    /// JSON pointer to the list of solutions, as reports shall write it; default `/solutions`.
    #[must_use]
    pub fn root(mut self, pointer: impl Into<String>) -> Self {
        self.root = pointer.into();
        self
    }

    /// The user's own name of a field, of solutions or of the slate, as reports shall write it.
    #[must_use]
    pub fn named(mut self, ours: impl Into<String>, theirs: impl Into<String>) -> Self {
        self.named.push((ours.into(), theirs.into()));
        self
    }

    /// A slate seen through the lens.
    #[must_use]
    pub fn view(&self, from: &P) -> SlateView {
        let mut slate = Slate::default();
        self.whole.iter().for_each(|fill| fill(from, &mut slate));
        slate.solutions = (0..(self.len)(from))
            .map(|at| {
                let mut solution = Solution { id: at.to_string(), ..Solution::default() };
                self.each.iter().for_each(|fill| fill(from, at, &mut solution));
                solution
            })
            .collect();
        if !self.facets.contains("objectives") {
            // Who scores by something has that as an objective, in no order and with no weight.
            let names: BTreeSet<&String> = slate.solutions.iter().flat_map(|one| one.scores.keys()).collect();
            let named = |name: &&String| Objective { name: (*name).clone(), ..Objective::default() };
            slate.objectives = names.iter().map(named).collect();
        }
        SlateView { slate, facets: Some(self.supplied()), names: self.names() }
    }

    /// What rules may ask for: the facets, and what follows from them.
    fn supplied(&self) -> BTreeSet<&'static str> {
        let mut facets = self.facets.clone();
        if facets.contains("objectives") {
            facets.extend(["sense", "weight"]);
        }
        if facets.contains("fallback") || facets.contains("conflict") {
            facets.insert("caution");
        }
        facets
    }

    fn names(&self) -> Names {
        let mut names = Names::default().named("/solutions", &self.root);
        for (ours, theirs) in &self.named {
            names = names
                .named(&format!("/{ours}"), &format!("/{theirs}"))
                .named(&format!("/solutions/*/{ours}"), &format!("{}/*/{theirs}", self.root));
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::{SlateLens, SlateModel, SlateView};
    use crate::generate::{Random, SlateConfig, slate};
    use crate::mutate::slates;
    use crate::solution::{Slate, SlateValidator};

    /// Somebody else's type, with everything a slate has under other names.
    struct Foreign(Slate);

    fn lens() -> SlateLens<Foreign> {
        SlateLens::new(|from: &Foreign| from.0.solutions.len())
            .solution("composite", |from, at, one| *one = from.0.solutions[at].clone())
            .whole("recommended", |from, slate| *slate = from.0.clone())
            .root("/answer/picks")
            .named("scores", "points")
            .named("recommended", "choice")
            .named("margins", "slack")
    }

    impl SlateModel for Foreign {
        fn view(&self) -> SlateView {
            // Every facet of the catalogue is there.
            let facets = [
                "objectives",
                "sense",
                "weight",
                "rank",
                "constraints",
                "rejected",
                "others",
                "epsilon",
                "noise",
                "hypervolume",
                "missing",
                "trade_off",
                "plan",
                "totals",
                "confidence",
                "full_confidence",
                "uncertainty",
                "conflict",
                "reasoning",
                "caution",
            ];
            facets.into_iter().fold(lens(), |lens, facet| lens.whole(facet, |_, _| {})).view(self)
        }
    }

    #[test]
    fn a_foreign_type_is_judged_like_ours_with_paths_in_its_own_names() {
        let validator = SlateValidator::standard();
        let mut random = Random::new(41);
        let mut named = 0;
        for mutator in slates() {
            let broken = (0..400).find_map(|_| {
                let slate = slate(&SlateConfig::default(), &mut random);
                mutator.broken(&slate, &mut random)
            });
            let broken = broken.unwrap_or_else(|| panic!("{} never applied", mutator.code()));
            let ours = validator.check(&broken.subject);
            let theirs = validator.check(&Foreign(broken.subject));
            assert_eq!((&ours.totals, &ours.ran), (&theirs.totals, &theirs.ran), "{}", mutator.code());
            assert_eq!(ours.primary(), theirs.primary());
            let path = broken.path.replacen("/solutions", "/answer/picks", 1);
            let path = path
                .replacen("/scores", "/points", 1)
                .replacen("/recommended", "/choice", 1)
                .replacen("/margins", "/slack", 1);
            assert!(theirs.codes("").iter().any(|(_, at)| *at == path), "{}: {path} in {theirs}", mutator.code());
            named += usize::from(path != broken.path);
        }
        assert!(named > 15, "most places have names of their own: {named}");
    }

    #[test]
    fn facets_that_are_not_supplied_are_skipped_and_not_missed() {
        let from = Foreign(slate(&SlateConfig::default(), &mut Random::new(1)));
        let bare =
            SlateLens::new(|from: &Foreign| from.0.solutions.len()).id(|from, at| from.0.solutions[at].id.clone());
        let report = SlateValidator::standard().check(&bare.view(&from));
        assert_eq!(report.why_skipped("S034"), Some("needs `rank`, which is not supplied"));
        assert!(report.ran.contains(&"S002".to_owned()) && !report.totals.contains_key("S034"));
        // Without any facet list the same absence is an error.
        let ours = Slate { solutions: from.0.solutions.clone(), ..Slate::default() };
        assert!(SlateValidator::standard().check(&ours).totals.contains_key("S034"));
        let must = SlateValidator::standard().must_run("S034").check(&bare.view(&from));
        assert!(must.outcome().is_no_evidence(), "{}", must.outcome());
    }
}
