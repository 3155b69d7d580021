//! The judge of assignments: every task to one worker that is fit, alive and not too busy, when it is due, and to another one if
//! that dies.
//!
//! ```
//! use std::time::Duration;
//! use harness_props::history::assignment::{Claim, Limits, Task, Worker, judge};
//!
//! let ms = Duration::from_millis;
//! let tasks = [Task::new("t1").kind("print").due(ms(100))];
//! let workers = [Worker::new("w1").can("print"), Worker::new("w2").can("scan")];
//! let once = [Claim::granted("t1", "w1", ms(105)).done(ms(300)), Claim::refused("t1", "w2", ms(105))];
//! assert!(judge(&tasks, &workers, &once, &Limits::default().late(ms(50))).outcome().is_pass());
//!
//! let raced = [Claim::granted("t1", "w1", ms(105)), Claim::granted("t1", "w2", ms(105))];
//! let verdict = judge(&tasks, &workers, &raced, &Limits::default());
//! assert_eq!(verdict.outcome().detail(), "1 assigned twice: t1 to w1 and w2; 1 unfit: t1 (print) to w2");
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::witness::{conclude, list};
use crate::Outcome;

/// A task that was accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name, unique.
    pub id: String,
    /// What a worker has to be able to do for it.
    pub kind: Option<String>,
    /// When it may be assigned at the earliest, on the recorder's clock.
    pub due: Option<Duration>,
}

impl Task {
    /// A task that anybody can do at any time.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// What a worker has to be able to do for it.
    #[must_use]
    pub fn kind(self, kind: impl Into<String>) -> Self {
        Self { kind: Some(kind.into()), ..self }
    }

    /// When it is due.
    #[must_use]
    pub fn due(self, due: Duration) -> Self {
        Self { due: Some(due), ..self }
    }
}

/// A worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its name, unique.
    pub id: String,
    /// What it can do.
    pub can: BTreeSet<String>,
    /// When it died, if it did.
    pub died: Option<Duration>,
}

impl Worker {
    /// A worker that lives and can do nothing in particular.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// Something it can do.
    #[must_use]
    pub fn can(mut self, kind: impl Into<String>) -> Self {
        self.can.insert(kind.into());
        self
    }

    /// When it died.
    #[must_use]
    pub fn died(self, at: Duration) -> Self {
        Self { died: Some(at), ..self }
    }

    /// Dead for so long that it must be known.
    fn is_dead(&self, at: Duration, noticed: Duration) -> bool {
        self.died.is_some_and(|died| at >= died.saturating_add(noticed))
    }
}

/// An attempt to give a task to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The task.
    pub task: String,
    /// The worker.
    pub worker: String,
    /// When.
    pub at: Duration,
    /// Whether the worker got it. Refused claims are what shows that there was a race.
    pub is_granted: bool,
    /// When it had done it, if it had.
    pub done: Option<Duration>,
}

impl Claim {
    /// The worker got the task.
    pub fn granted(task: impl Into<String>, worker: impl Into<String>, at: Duration) -> Self {
        Self { task: task.into(), worker: worker.into(), at, is_granted: true, done: None }
    }

    /// The worker asked for the task and did not get it.
    pub fn refused(task: impl Into<String>, worker: impl Into<String>, at: Duration) -> Self {
        Self { is_granted: false, ..Self::granted(task, worker, at) }
    }

    /// When it had done it.
    #[must_use]
    pub fn done(self, at: Duration) -> Self {
        Self { done: Some(at), ..self }
    }
}

/// What else was promised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    late: Option<Duration>,
    early: Duration,
    noticed: Duration,
    spread_percent: Option<u32>,
    is_raced: bool,
}

impl Limits {
    /// How long after it is due a task may be assigned.
    #[must_use]
    pub fn late(self, most: Duration) -> Self {
        Self { late: Some(most), ..self }
    }

    /// By how much clocks may be off: so long before it is due is not early.
    #[must_use]
    pub fn early(self, most: Duration) -> Self {
        Self { early: most, ..self }
    }

    /// How long after a worker's death it may still be given tasks, because nobody can know.
    #[must_use]
    pub fn noticed(self, within: Duration) -> Self {
        Self { noticed: within, ..self }
    }

    /// The most that one worker may be given, in percent of a fair share: 150 is half as much again. Tasks go by kind, and a
    /// share is one of those workers that can do the kind and live.
    #[must_use]
    pub fn spread(self, percent: u32) -> Self {
        Self { spread_percent: Some(percent), ..self }
    }

    /// Asks for evidence of a race: without a claim that was refused there is none.
    #[must_use]
    pub fn raced(self) -> Self {
        Self { is_raced: true, ..self }
    }
}

/// What the judge of assignments found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AssignmentVerdict {
    /// Tasks that were accepted.
    pub tasks: usize,
    /// Claims that were granted.
    pub granted: usize,
    /// Claims that were refused.
    pub refused: usize,
    /// Tasks that were given to another worker after theirs had died.
    pub reassigned: usize,
    /// Tasks that nobody got.
    pub unassigned: Vec<String>,
    /// Tasks that two workers had at once, or that were given again when they were done.
    pub doubled: Vec<String>,
    /// Tasks given to workers that cannot do them.
    pub unfit: Vec<String>,
    /// Tasks given before they were due.
    pub early: Vec<String>,
    /// Tasks given too long after they were due.
    pub late: Vec<String>,
    /// Tasks given to workers that were dead.
    pub to_the_dead: Vec<String>,
    /// Tasks whose worker died and that nobody else got.
    pub abandoned: Vec<String>,
    /// Workers with more than their share.
    pub overloaded: Vec<String>,
    /// Claims of tasks or by workers that nobody knows.
    pub unknown: Vec<String>,
    missing: Option<String>,
}

/// Judges who got what.
#[must_use]
pub fn judge(tasks: &[Task], workers: &[Worker], claims: &[Claim], limits: &Limits) -> AssignmentVerdict {
    let by_name: BTreeMap<&str, &Worker> = workers.iter().map(|worker| (worker.id.as_str(), worker)).collect();
    let known: BTreeSet<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
    let mut of: BTreeMap<&str, Vec<&Claim>> = BTreeMap::new();
    let mut verdict = AssignmentVerdict { tasks: tasks.len(), ..AssignmentVerdict::default() };
    for claim in claims {
        if !known.contains(claim.task.as_str()) || !by_name.contains_key(claim.worker.as_str()) {
            verdict.unknown.push(format!("{} to {}", claim.task, claim.worker));
        } else if claim.is_granted {
            verdict.granted += 1;
            of.entry(&claim.task).or_default().push(claim);
        } else {
            verdict.refused += 1;
        }
    }
    for task in tasks {
        let mut granted = of.remove(task.id.as_str()).unwrap_or_default();
        granted.sort_by_key(|claim| claim.at);
        let id = &task.id;
        if granted.is_empty() {
            verdict.unassigned.push(id.clone());
        }
        for claim in &granted {
            let Claim { worker, at, .. } = claim;
            let known = by_name[worker.as_str()];
            if let Some(kind) = task.kind.as_ref().filter(|kind| !known.can.contains(*kind)) {
                verdict.unfit.push(format!("{id} ({kind}) to {worker}"));
            }
            if known.is_dead(*at, limits.noticed) {
                verdict.to_the_dead.push(format!("{id} to {worker} at {at:?}"));
            }
            if let Some(due) = task.due.filter(|due| at.saturating_add(limits.early) < *due) {
                verdict.early.push(format!("{id} at {at:?}, due at {due:?}"));
            }
        }
        let late =
            |due: Duration| limits.late.is_some_and(|late| granted.first().is_some_and(|first| first.at > due + late));
        if let Some(due) = task.due.filter(|due| late(*due)) {
            verdict.late.push(format!("{id} at {:?}, due at {due:?}", granted[0].at));
        }
        for pair in granted.windows(2) {
            // Given again is right only when the one who had it died over it before.
            let died = by_name[pair[0].worker.as_str()].died.filter(|died| *died <= pair[1].at);
            let is_over = died.is_some_and(|died| pair[0].done.is_none_or(|done| done > died));
            match is_over {
                true => verdict.reassigned += 1,
                false => verdict.doubled.push(format!("{id} to {} and {}", pair[0].worker, pair[1].worker)),
            }
        }
        if let Some(last) = granted.last() {
            let died = by_name[last.worker.as_str()].died;
            if died.is_some_and(|died| last.done.is_none_or(|done| done > died)) {
                verdict.abandoned.push(format!("{id} by {}", last.worker));
            }
        }
    }
    spread(tasks, workers, claims, limits, &mut verdict);
    if verdict.missing.is_none() {
        verdict.missing = match () {
            () if tasks.is_empty() => Some("there were no tasks".to_owned()),
            () if limits.is_raced && verdict.refused == 0 => Some("no claim was refused: there was no race".to_owned()),
            () => None,
        };
    }
    verdict
}

fn spread(tasks: &[Task], workers: &[Worker], claims: &[Claim], limits: &Limits, verdict: &mut AssignmentVerdict) {
    let Some(percent) = limits.spread_percent else { return };
    let kinds: BTreeSet<Option<&str>> = tasks.iter().map(|task| task.kind.as_deref()).collect();
    let mut is_seen = false;
    for kind in kinds {
        let own: BTreeSet<&str> =
            tasks.iter().filter(|task| task.kind.as_deref() == kind).map(|task| task.id.as_str()).collect();
        let fit = |worker: &&Worker| kind.is_none_or(|kind| worker.can.contains(kind));
        let alive = workers.iter().filter(|worker| fit(worker) && worker.died.is_none()).count();
        // With less than two tasks for each there is no spread to speak of.
        if alive < 2 || own.len() < 2 * alive {
            continue;
        }
        is_seen = true;
        let most = (own.len() * percent as usize).div_ceil(alive * 100);
        for worker in workers {
            let granted = claims.iter().filter(|claim| claim.is_granted && claim.worker == worker.id);
            let has = granted.filter(|claim| own.contains(claim.task.as_str())).count();
            if has > most {
                verdict.overloaded.push(format!("{} with {has} of {}, more than {most}", worker.id, own.len()));
            }
        }
    }
    if !is_seen {
        verdict.missing =
            Some("no kind has two workers that live and two tasks for each: no spread was seen".to_owned());
    }
}

impl AssignmentVerdict {
    /// Pass with coverage, Fail with the tasks, or NoEvidence when there were none, no race where one was asked for, or no
    /// spread to be seen.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let found = [
            list("unassigned", &self.unassigned),
            list("assigned twice", &self.doubled),
            list("unfit", &self.unfit),
            list("early", &self.early),
            list("late", &self.late),
            list("to the dead", &self.to_the_dead),
            list("abandoned", &self.abandoned),
            list("overloaded", &self.overloaded),
            list("unknown", &self.unknown),
        ];
        let Self { tasks, granted, refused, reassigned, .. } = self;
        conclude(found, self.missing.as_deref(), || {
            format!("{tasks} tasks, {granted} claims granted, {refused} refused, {reassigned} reassigned")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Claim, Limits, Task, Worker, judge};
    use crate::generate::Random;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn limits() -> Limits {
        Limits::default().late(ms(50)).early(ms(2)).noticed(ms(20)).spread(150).raced()
    }

    #[test]
    fn a_spread_needs_two_tasks_for_each_that_lives() {
        let spread = |tasks: usize| {
            let workers: Vec<Worker> = (0..3).map(|n| Worker::new(format!("w{n}")).can("print")).collect();
            let all: Vec<Task> = (0..tasks).map(|n| Task::new(format!("t{n}")).kind("print").due(ms(0))).collect();
            let granted = |n: usize| Claim::granted(format!("t{n}"), format!("w{}", n % 3), ms(1)).done(ms(2));
            let claims: Vec<Claim> = (0..tasks).map(granted).collect();
            judge(&all, &workers, &claims, &Limits::default().spread(100)).outcome()
        };
        assert!(spread(5).is_no_evidence() && spread(5).detail().contains("no spread was seen"), "{}", spread(5));
        assert!(spread(6).is_pass(), "{}", spread(6));
    }

    /// A hive that keeps every rule: two kinds, three workers each, the first of which dies at 500 with its last task undone.
    fn hive(random: &mut Random) -> (Vec<Task>, Vec<Worker>, Vec<Claim>) {
        let workers: Vec<Worker> = (0..6)
            .map(|n| Worker {
                died: (n == 0).then(|| ms(500)),
                ..Worker::new(format!("w{n}")).can(["print", "scan"][n % 2])
            })
            .collect();
        let (mut tasks, mut claims) = (Vec::new(), Vec::new());
        for n in 0..60_usize {
            let due = ms(10 * n as u64 + random.below(5));
            tasks.push(Task::new(format!("t{n}")).kind(["print", "scan"][n % 2]).due(due));
            let at = due + ms(random.below(50));
            // Round and round; the dead one is left out from its death on.
            let who = match n % 6 {
                0 if at >= ms(500) => 2 + 2 * random.index(2),
                who => who,
            };
            let claim = Claim::granted(format!("t{n}"), format!("w{who}"), at);
            claims.push(Claim::refused(format!("t{n}"), format!("w{}", (who + 2) % 6), at));
            if who == 0 && at + ms(60) > ms(500) {
                claims.push(claim);
                claims.push(Claim::granted(format!("t{n}"), "w2", ms(530)).done(ms(590)));
            } else {
                claims.push(claim.done(at + ms(60)));
            }
        }
        (tasks, workers, claims)
    }

    #[test]
    fn each_planted_defect_is_found_as_what_it_is_and_a_sound_hive_passes() {
        type Break = fn(&mut Vec<Task>, &mut Vec<Worker>, &mut Vec<Claim>);
        let defects: [(&str, Break); 9] = [
            ("unassigned", |_, _, claims| claims.retain(|claim| claim.task != "t7")),
            ("assigned twice", |_, _, claims| claims.push(Claim::granted("t7", "w3", ms(400)))),
            ("unfit", |_, _, claims| {
                claims
                    .iter_mut()
                    .filter(|claim| claim.is_granted && claim.task == "t7")
                    .for_each(|claim| claim.worker = "w2".into());
            }),
            // A clock that jumps ahead.
            ("early", |tasks, _, _| tasks[7].due = Some(ms(500))),
            ("late", |tasks, _, _| tasks[57].due = Some(ms(1))),
            ("to the dead", |_, workers, claims| {
                workers.push(Worker::new("w9").can("scan").died(ms(1)));
                claims
                    .iter_mut()
                    .filter(|claim| claim.is_granted && claim.task == "t7")
                    .for_each(|claim| claim.worker = "w9".into());
                // It died before: what it is given is nobody's afterwards either.
                claims.push(Claim::granted("t7", "w1", ms(700)).done(ms(760)));
            }),
            ("abandoned", |_, workers, claims| {
                workers.push(Worker::new("w8").can("print").died(ms(700)));
                claims.iter_mut().filter(|claim| claim.is_granted && claim.task == "t58").for_each(|claim| {
                    claim.worker = "w8".into();
                    claim.done = None;
                });
            }),
            ("overloaded", |_, _, claims| {
                claims
                    .iter_mut()
                    .filter(|claim| claim.is_granted && claim.worker == "w3")
                    .for_each(|claim| claim.worker = "w1".into());
            }),
            ("unknown", |_, _, claims| claims.push(Claim::granted("nothing", "w1", ms(1)))),
        ];
        let mut random = Random::new(91);
        for _ in 0..crate::env::rounds(30) {
            let (tasks, workers, claims) = hive(&mut random);
            let verdict = judge(&tasks, &workers, &claims, &limits());
            assert!(verdict.outcome().is_pass(), "{}", verdict.outcome());
            for (what, change) in &defects {
                let (mut tasks, mut workers, mut claims) = (tasks.clone(), workers.clone(), claims.clone());
                change(&mut tasks, &mut workers, &mut claims);
                let outcome = judge(&tasks, &workers, &claims, &limits()).outcome();
                assert!(outcome.is_fail() && outcome.detail().contains(&format!(" {what}: ")), "{what}: {outcome}");
                assert!(!outcome.detail().contains(';'), "{what} and nothing else: {outcome}");
            }
        }
    }

    #[test]
    fn all_on_one_worker_is_no_spread_and_few_tasks_show_none() {
        let workers = [Worker::new("a"), Worker::new("b")];
        let run = |count: usize, who: fn(usize) -> &'static str| {
            let tasks: Vec<Task> = (0..count).map(|n| Task::new(n.to_string())).collect();
            let claims: Vec<Claim> =
                (0..count).map(|n| Claim::granted(n.to_string(), who(n), ms(1)).done(ms(2))).collect();
            judge(&tasks, &workers, &claims, &Limits::default().spread(120)).outcome()
        };
        assert_eq!(run(20, |_| "a").detail(), "1 overloaded: a with 20 of 20, more than 12");
        assert!(run(20, |n| ["a", "b"][n % 2]).is_pass());
        assert!(run(3, |n| ["a", "b"][n % 2]).is_no_evidence());
    }

    #[test]
    fn without_a_race_or_tasks_there_is_no_evidence() {
        let (workers, tasks) = ([Worker::new("a")], [Task::new("t")]);
        let one = [Claim::granted("t", "a", ms(1)).done(ms(2))];
        assert!(judge(&tasks, &workers, &one, &Limits::default()).outcome().is_pass());
        assert!(judge(&tasks, &workers, &one, &Limits::default().raced()).outcome().is_no_evidence());
        assert!(judge(&[], &workers, &[], &Limits::default()).outcome().is_no_evidence());
    }

    #[test]
    fn a_task_of_a_dead_worker_goes_to_one_other_and_only_if_undone() {
        let workers = [Worker::new("a").died(ms(10)), Worker::new("b"), Worker::new("c")];
        let tasks = [Task::new("t")];
        let at = |claims: &[Claim]| judge(&tasks, &workers, claims, &Limits::default()).outcome().detail().to_owned();
        let (left, again) = (Claim::granted("t", "a", ms(1)), Claim::granted("t", "b", ms(20)).done(ms(30)));
        assert_eq!(at(&[left.clone(), again.clone()]), "1 tasks, 2 claims granted, 0 refused, 1 reassigned");
        assert_eq!(at(std::slice::from_ref(&left)), "1 abandoned: t by a");
        let third = Claim::granted("t", "c", ms(25)).done(ms(40));
        assert_eq!(at(&[left.clone(), again.clone(), third]), "1 assigned twice: t to b and c");
        assert_eq!(at(&[left.done(ms(5)), again]), "1 assigned twice: t to a and b", "it was done");
    }
}
