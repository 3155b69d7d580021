//! What is different since the run before, and how earlier runs ended.
//!
//! Only verdicts are called better or worse. Figures stand side by side and are not judged: one run against one run says
//! nothing about speed.

use serde::{Deserialize, Serialize};

use super::archive::Kept;
use super::model::{Model, PanelLine, Tally};
use super::text::{count, minute};

/// Earlier runs that are shown.
const MOST: usize = 10;

/// What is different since an earlier run of the same subject and profile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Since {
    /// The run that this one is compared with; none when there was none of the same subject and profile, without plants.
    pub run: String,
    /// When it began, UTC, RFC 3339.
    pub started: String,
    /// Its decision.
    pub verdict: String,
    /// Whether it ran on the same machine and in the same build.
    pub same_machine: bool,
    /// How many scenarios were compared: those that ran both times.
    pub compared: usize,
    /// Scenarios and criteria that ended otherwise than before: the worse ones first, then in order of their names.
    pub changed: Vec<Change>,
    /// Earlier runs of the same subject, newest first.
    pub runs: Vec<Past>,
}

/// A scenario or criterion that ended otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Scenario id, or scenario id and metric.
    pub what: String,
    /// Word of the outcome before.
    pub before: String,
    /// Word of the outcome now.
    pub now: String,
    /// The figures before and now, as written; empty for scenarios.
    pub figures: (String, String),
    /// Whether it ended worse than before.
    pub is_worse: bool,
}

/// An earlier run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// Identifier of the run.
    pub run: String,
    /// When it began, UTC, RFC 3339.
    pub started: String,
    /// Profile in use.
    pub profile: String,
    /// Planted defects in force.
    pub plants: Vec<String>,
    /// Its decision.
    pub verdict: String,
    /// How many scenarios ended how.
    pub scenarios: Tally,
    /// Its key metrics.
    pub panel: Vec<PanelLine>,
}

impl Since {
    /// In words what was compared with what.
    #[must_use]
    pub fn sentence(&self) -> String {
        if self.run.is_empty() {
            return "No earlier run of this profile without planted defects: nothing to compare with.".to_owned();
        }
        let worse = self.changed.iter().filter(|change| change.is_worse).count();
        let elsewhere = if self.same_machine { "" } else { " It ran on another machine or in another build." };
        format!(
            "Compared with run {} of {} ({}): of {} that ran both times and their criteria {} ended worse, {} better.{elsewhere}",
            self.run,
            minute(&self.started),
            self.verdict,
            count(self.compared, "scenario"),
            worse,
            self.changed.len() - worse,
        )
    }
}

/// From good to bad; missing evidence is worse than a figure that is off, and better than a failure.
fn badness(word: &str) -> u8 {
    match word {
        "pass" | "not applicable" => 0,
        "degraded" => 1,
        "no evidence" => 2,
        _ => 3,
    }
}

impl Model {
    /// Compares this run with the last of `runs` that had the same subject and profile and no planted defects, and lists the
    /// earlier runs. `runs` are oldest first, as [`Archive::runs`](super::Archive::runs) gives them; this run itself is left out.
    pub fn compare(&mut self, runs: &[Kept]) {
        let now = Kept::of(self);
        // Processes that one shell starts share the id of their run.
        let is_same = |run: &Kept| (&run.run, &run.started) == (&now.run, &now.started);
        let earlier: Vec<&Kept> = runs.iter().filter(|run| run.subject == now.subject && !is_same(run)).collect();
        let before = earlier.iter().rev().find(|run| run.profile == now.profile && run.plants.is_empty());
        let mut since = before.map(|before| against(before, &now)).unwrap_or_default();
        since.runs = earlier.iter().rev().take(MOST).map(|run| past(run)).collect();
        self.since = (!since.runs.is_empty()).then_some(since);
    }
}

fn past(run: &Kept) -> Past {
    Past {
        run: run.run.clone(),
        started: run.started.clone(),
        profile: run.profile.clone(),
        plants: run.plants.clone(),
        verdict: run.verdict.clone(),
        scenarios: run.scenarios,
        panel: run.panel.clone(),
    }
}

fn against(before: &Kept, now: &Kept) -> Since {
    let change = |what: &str, before: (&str, &str), now: (&str, &str)| Change {
        what: what.to_owned(),
        before: before.1.to_owned(),
        now: now.1.to_owned(),
        figures: (before.0.to_owned(), now.0.to_owned()),
        is_worse: badness(now.1) > badness(before.1),
    };
    let scenarios = now.outcomes.iter().filter_map(|(id, word)| Some((id, before.outcomes.get(id)?, word)));
    let scenarios: Vec<_> = scenarios.collect();
    let compared = scenarios.len();
    let ran = |name: &str| {
        let of = name.split(' ').next().unwrap_or_default();
        scenarios.iter().any(|(id, ..)| *id == of) || !now.outcomes.contains_key(of)
    };
    let of_scenarios = scenarios.iter().map(|(id, was, is)| change(id, ("", was), ("", is)));
    let of_criteria = now.criteria.iter().filter(|(name, _)| ran(name)).filter_map(|(name, (figure, word))| {
        let (figure_before, word_before) = before.criteria.get(name)?;
        Some(change(name, (figure_before, word_before), (figure, word)))
    });
    let mut changed: Vec<Change> =
        of_scenarios.chain(of_criteria).filter(|change| change.before != change.now).collect();
    changed.sort_by(|a, b| (!a.is_worse, &a.what).cmp(&(!b.is_worse, &b.what)));
    Since {
        run: before.run.clone(),
        started: before.started.clone(),
        verdict: before.verdict.clone(),
        same_machine: before.machines == now.machines,
        compared,
        changed,
        runs: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::Kept;
    use crate::report::Model;
    use crate::report::sample;

    fn earlier(run: &str, started: &str) -> Kept {
        let kept = Kept::of(&sample::campaign());
        Kept { run: run.to_owned(), started: started.to_owned(), plants: Vec::new(), ..kept }
    }

    fn compared(runs: &[Kept]) -> Model {
        let mut model = sample::campaign();
        model.compare(runs);
        model
    }

    #[test]
    fn equal_run_shows_no_change_and_a_first_run_nothing() {
        assert_eq!(compared(&[]).since, None);
        let since = compared(&[earlier("a", "2026-01-01")]).since.unwrap();
        assert!(since.changed.is_empty() && since.compared > 0 && since.same_machine, "{since:?}");
        let own = Kept::of(&sample::campaign());
        assert_eq!(compared(&[own]).since, None, "a run is not compared with itself");
    }

    #[test]
    fn changed_verdict_is_named_and_a_changed_figure_alone_is_not() {
        let mut before = earlier("a", "2026-01-01");
        let id = before.outcomes.iter().find(|(_, word)| *word == "fail").unwrap().0.clone();
        before.outcomes.insert(id.clone(), "pass".to_owned());
        let passing = before.criteria.values_mut().find(|(_, word)| word == "pass").unwrap();
        passing.0 = "something else".to_owned();
        let since = compared(&[before]).since.unwrap();
        assert_eq!(since.changed.len(), 1, "{:?}", since.changed);
        assert!(since.changed[0].what == id && since.changed[0].is_worse);
    }

    #[test]
    fn runs_of_other_profiles_and_with_plants_are_history_and_no_measure() {
        let mut other = earlier("b", "2026-01-02");
        other.profile = "another".to_owned();
        let mut planted = earlier("c", "2026-01-03");
        planted.plants.push("something".to_owned());
        let since = compared(&[earlier("a", "2026-01-01"), other.clone(), planted.clone()]).since.unwrap();
        assert_eq!((&*since.run, since.runs.len(), &*since.runs[0].run), ("a", 3, "c"));
        let since = compared(&[other, planted]).since.unwrap();
        assert_eq!((&*since.run, since.compared, since.runs.len()), ("", 0, 2));
    }

    #[test]
    fn another_machine_is_said() {
        let mut before = earlier("a", "2026-01-01");
        before.machines[0].cores += 1;
        assert!(!compared(&[before]).since.unwrap().same_machine);
    }
}
