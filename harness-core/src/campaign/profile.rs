//! Profiles: the same scenarios, measured for longer or shorter, and the plan that is printed before a run starts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::{Phase, batches};
use super::progress::clock;

/// One length of a campaign: its name, what it is for, how long all of it may take, and what is expected of each part.
///
/// A scenario learns the chosen profile from [`Scenario::profile`](super::Scenario::profile) and measures accordingly.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a profile is known when it is given to a campaign"]
pub struct Profile {
    pub(super) name: String,
    about: String,
    within: Option<Duration>,
    start: Duration,
    expected: BTreeMap<String, Duration>,
    keeps_slots: bool,
    pub(super) side_by_side: bool,
    pub(super) limits_times: u32,
}

impl Profile {
    /// A profile of this name; `default` is the one that runs when none is asked for.
    pub fn new(name: &str, about: &str) -> Self {
        Self {
            name: name.to_owned(),
            about: about.to_owned(),
            within: None,
            start: Duration::ZERO,
            expected: BTreeMap::new(),
            keeps_slots: false,
            side_by_side: false,
            limits_times: 1,
        }
    }

    /// How long a whole run may take; longer is said as an overrun.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = Some(limit);
        self
    }

    /// What pre-flight and the environment take, by experience.
    pub fn starts_in(mut self, time: Duration) -> Self {
        self.start = time;
        self
    }

    /// What each scenario takes, by experience: pairs of id and time. Every scenario needs one, and none may be unknown.
    pub fn takes<'a>(mut self, times: impl IntoIterator<Item = (&'a str, Duration)>) -> Self {
        self.expected.extend(times.into_iter().map(|(id, time)| (id.to_owned(), time)));
        self
    }

    /// The phases have their slots on a timeline, one after the other: the plan says when each begins.
    pub fn keeps_slots(mut self) -> Self {
        self.keeps_slots = true;
        self
    }

    /// Scenarios that [may](super::Phase::aside) run beside each other.
    pub fn side_by_side(mut self) -> Self {
        self.side_by_side = true;
        self
    }

    /// The limits of scenarios are this many times as long as they are written, for a profile that measures for longer.
    pub fn limits_times(mut self, times: u32) -> Self {
        self.limits_times = times.max(1);
        self
    }

    /// What makes it unusable for these phases.
    pub(super) fn problems<C>(&self, phases: &[Phase<C>]) -> Vec<String> {
        let ids = || phases.iter().flat_map(|phase| &phase.scenarios).map(|scenario| scenario.record.id.as_str());
        let name = &self.name;
        let mut problems: Vec<_> = ids()
            .filter(|id| !self.expected.contains_key(*id))
            .map(|id| format!("profile `{name}` does not say what {id} takes"))
            .collect();
        let unknown = self.expected.keys().filter(|id| !ids().any(|known| known == *id));
        problems.extend(unknown.map(|id| format!("profile `{name}` says what {id} takes, and there is no {id}")));
        problems
    }

    /// The time a run took, and whether that is longer than it may take.
    pub(super) fn total(&self, took: Duration) -> String {
        let word = if self.within.is_some_and(|limit| took > limit) { "overran" } else { "in all" };
        let limit = self.within.map_or_else(String::new, |limit| format!(", at most {}", clock(limit)));
        format!("profile `{}` {word}: {}{limit}", self.name, clock(took))
    }

    /// What will run, phase by phase, with the time it is expected to take.
    pub(super) fn plan<C>(&self, phases: &[Phase<C>], chosen: &[(usize, usize)]) -> String {
        let limit = self.within.map_or_else(String::new, |limit| format!("; at most {}", clock(limit)));
        let mut text = format!("plan: profile {}: {}{limit}", self.name, self.about);
        let (mut slot, mut all, mut planned) = (Duration::ZERO, self.start, 0);
        for (p, phase) in phases.iter().enumerate() {
            let (begins, ends) = (slot, slot + phase.budget);
            slot = ends;
            planned += phase.scenarios.len();
            let own: Vec<usize> = chosen.iter().filter(|(of, _)| *of == p).map(|(_, s)| *s).collect();
            if own.is_empty() {
                continue;
            }
            let id = |n: &usize| phase.scenarios[*n].record.id.as_str();
            let batches = batches(phase, &own, self.side_by_side);
            let longest = |batch: &Vec<usize>| batch.iter().filter_map(|n| self.expected.get(id(n))).max();
            let expected: Duration = batches.iter().filter_map(longest).sum();
            all += expected;
            let when = match self.keeps_slots {
                true => format!("T+{}..T+{} min", begins.as_secs() / 60, ends.as_secs() / 60),
                false => format!("budget {}", clock(phase.budget)),
            };
            let (name, count, of) = (&phase.name, own.len(), phase.scenarios.len());
            let expected = clock(expected);
            text.push_str(&format!("\n  {name:<12} {count:>2} of {of:<2}  expected {expected:<12} {when:<18} "));
            let together = |batch: &Vec<usize>| batch.iter().map(id).collect::<Vec<_>>().join("+");
            text.push_str(&batches.iter().map(together).collect::<Vec<_>>().join(" "));
        }
        let (count, all) = (chosen.len(), clock(all));
        text.push_str(&format!("\n  {:<12} {count:>2} of {planned:<2}  expected {all}, start included", "in all"));
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Profile;
    use crate::campaign::{Phase, Scenario};

    fn phases() -> Vec<Phase<()>> {
        async fn nothing(_: &mut Scenario) -> crate::Result {
            Ok(())
        }
        let minutes = |n: u64| Duration::from_secs(60 * n);
        vec![
            Phase::new("one", minutes(15)).scenario("A1", "a", nothing).scenario("A2", "b", nothing),
            Phase::new("two", minutes(10)).scenario("B1", "c", nothing),
        ]
    }

    fn short() -> Profile {
        let times = [("A1", 1), ("A2", 2), ("B1", 4)].map(|(id, seconds)| (id, Duration::from_secs(seconds)));
        Profile::new("short", "each once").takes(times).starts_in(Duration::from_secs(3))
    }

    #[test]
    fn plan_names_what_runs_and_adds_up_its_times() {
        let plan = short().within(Duration::from_secs(20)).plan(&phases(), &[(0, 0), (0, 1), (1, 0)]);
        for part in ["profile short: each once; at most 20 s", " 2 of 2 ", "3.0 s", "A1 A2", "3 of 3", "expected 10 s"]
        {
            assert!(plan.contains(part), "{part} is not in {plan}");
        }
        let some = short().keeps_slots().plan(&phases(), &[(1, 0)]);
        assert!(some.contains("T+15..T+25 min") && some.contains("1 of 3") && !some.contains("A1"), "{some}");
    }

    #[test]
    fn scenario_without_a_time_and_a_time_without_a_scenario_are_named() {
        assert!(short().problems(&phases()).is_empty());
        let short = Profile::new("short", "").takes([("A1", Duration::ZERO), ("Z9", Duration::ZERO)]);
        let problems = short.problems(&phases()).join("\n");
        for part in ["what A2 takes", "what B1 takes", "no Z9"] {
            assert!(problems.contains(part), "{problems}");
        }
        assert!(!problems.contains("A1"), "{problems}");
    }

    #[test]
    fn total_is_said_always_and_an_overrun_beyond_the_limit_alone() {
        let limited = short().within(Duration::from_secs(60));
        assert_eq!(limited.total(Duration::from_secs(60)), "profile `short` in all: 1 min 00 s, at most 1 min 00 s");
        assert_eq!(limited.total(Duration::from_secs(61)), "profile `short` overran: 1 min 01 s, at most 1 min 00 s");
        assert_eq!(short().total(Duration::from_secs(600)), "profile `short` in all: 10 min 00 s");
    }

    #[test]
    fn what_may_stand_aside_runs_together_where_the_profile_says_so_and_nowhere_else() {
        async fn nothing(_: &mut Scenario) -> crate::Result {
            Ok(())
        }
        let phase = |p: Phase<()>| {
            let p = p.scenario("A1", "a", nothing).scenario("A2", "b", nothing).aside();
            p.scenario("A3", "c", nothing).scenario("A4", "d", nothing).aside()
        };
        let phases = vec![phase(Phase::new("one", Duration::from_secs(60)))];
        let times = ["A1", "A2", "A3", "A4"].map(|id| (id, Duration::from_secs(2)));
        let profile = || Profile::new("p", "").takes(times);
        let all: Vec<_> = (0..4).map(|n| (0, n)).collect();
        let together = profile().side_by_side().plan(&phases, &all);
        assert!(together.contains("A1 A2+A4 A3") && together.contains("expected 6.0 s"), "{together}");
        let apart = profile().plan(&phases, &all);
        assert!(apart.contains("A1 A2 A3 A4") && apart.contains("expected 8.0 s"), "{apart}");
        let some = profile().side_by_side().plan(&phases, &[(0, 2), (0, 3)]);
        assert!(some.contains("A3 A4"), "{some}");
    }
}
