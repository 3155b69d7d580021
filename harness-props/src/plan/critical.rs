//! The critical path method (Kelley and Walker 1959) over generalised precedence relations, in exact ticks.

use std::fmt;

use super::graph::{Order, bring_near};
use super::model::{Tie, Times};
use super::view::{ABSENT, Bond, NOWHERE, REFUSED, View};

/// Why there is no critical path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Undefined {
    /// Steps wait for one another (P009), or for themselves (P006).
    Cycle,
    /// A step waits for one that does not exist (P005).
    Dangling,
    /// Two steps have one name (P002).
    Names,
    /// A duration is missing, refused or negative (P027).
    Duration,
    /// The sum of all durations and lags does not fit (P027).
    Overflow,
}

impl fmt::Display for Undefined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cycle => "undefined while steps wait for themselves or one another (P006, P009)",
            Self::Names => "undefined while two steps have one name (P002)",
            Self::Dangling => "undefined while a dependency leads nowhere (P005)",
            Self::Duration => "undefined while a duration is missing or wrong (P027)",
            Self::Overflow => "undefined while the sum of durations overflows (P027)",
        })
    }
}

/// Earliest and latest times of every step, without regard to resources.
#[derive(Debug, Clone, Default)]
pub struct CriticalPath {
    ends: Ends,
    makespan: i64,
}

/// When each step ends at the earliest, how long the plan lasts after its latest end, and how long it can wait by itself.
#[derive(Debug, Clone)]
enum Ends {
    Long {
        finish: Vec<i64>,
        tail: Vec<i64>,
        free: Vec<i64>,
    },
    /// Where 32 bits are enough: a quarter of the memory.
    Short {
        seen: Vec<Seen>,
        tail: Vec<u32>,
    },
}

impl Default for Ends {
    fn default() -> Self {
        Self::Short { seen: Vec::new(), tail: Vec::new() }
    }
}

/// The end of a step, and the earliest start of those that wait for it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    finish: u32,
    next: u32,
}

/// The least start of a step, by one dependency on a step that starts at `start`.
pub(crate) fn bound(bond: Bond, start: i64, theirs: i64, ours: i64) -> i64 {
    match bond.tie {
        Tie::FinishStart => start + theirs + bond.lag,
        Tie::StartStart => start + bond.lag,
        Tie::FinishFinish => start + theirs + bond.lag - ours,
        Tie::StartFinish => start + bond.lag - ours,
    }
}

impl CriticalPath {
    pub(crate) fn of(view: &View, order: &Order) -> Result<Self, Undefined> {
        let count = view.len();
        let durations = &view.durations;
        if !view.repeated.is_empty() {
            return Err(Undefined::Names);
        }
        if !view.dangling.is_empty() {
            return Err(Undefined::Dangling);
        }
        if durations.len() != count || durations.iter().any(|ticks| *ticks < 0) {
            return Err(Undefined::Duration);
        }
        if !sums_fit(view) {
            return Err(Undefined::Overflow);
        }
        let sequence = order.sequence().ok_or(Undefined::Cycle)?;
        if let Some(tails) = order.tails() {
            return Self::plain(view, order, tails);
        }
        let mut early = vec![0_i64; count];
        let mut makespan = 0;
        for step in sequence.iter().map(|step| *step as usize) {
            let mut start = 0;
            for edge in view.edges(step) {
                let on = view.targets[edge] as usize;
                if on == step {
                    return Err(Undefined::Cycle);
                }
                start = start.max(bound(view.bond(edge), early[on], durations[on], durations[step]));
            }
            early[step] = start;
            makespan = makespan.max(start + durations[step]);
        }
        let mut late: Vec<i64> = durations.iter().map(|ticks| makespan - ticks).collect();
        let mut free: Vec<i64> = (0..count).map(|step| makespan - durations[step] - early[step]).collect();
        for step in sequence.iter().rev().map(|step| *step as usize) {
            for edge in view.edges(step) {
                let on = view.targets[edge] as usize;
                let reach = bound(view.bond(edge), 0, durations[on], durations[step]);
                late[on] = late[on].min(late[step] - reach);
                free[on] = free[on].min(early[step] - early[on] - reach);
            }
        }
        let finish = early.iter().zip(durations).map(|(start, ticks)| start + ticks).collect();
        let tail = late.iter().zip(durations).map(|(start, ticks)| makespan - start - ticks).collect();
        Ok(Self { ends: Ends::Long { finish, tail, free }, makespan })
    }

    /// Where every dependency is "starts after the end" and the times behind the ends are known: one more pass. One
    /// place in memory is touched per dependency, because in a large plan each of them is far away.
    fn plain(view: &View, order: &Order, tails: &[u32]) -> Result<Self, Undefined> {
        let durations = &view.durations;
        let mut seen: Vec<Seen> =
            durations.iter().map(|ticks| Seen { finish: *ticks as u32, next: u32::MAX }).collect();
        let mut makespan = 0;
        let mut dependencies = 0;
        for row in order.rows() {
            dependencies += row.on().len();
            bring_near(row.on().iter().map(|on| seen[*on as usize].finish));
            bring_near(row.steps().map(|(step, _)| seen[step].finish));
            for (step, before) in row.steps() {
                let start = before.iter().map(|on| seen[*on as usize].finish).max().unwrap_or(0);
                for on in before {
                    let next = &mut seen[*on as usize].next;
                    *next = start.min(*next);
                }
                let finish = &mut seen[step].finish;
                *finish += start;
                makespan = makespan.max(*finish);
            }
        }
        if dependencies < view.targets.len() {
            return Err(Undefined::Cycle); // some step waits for itself: nothing here waits for what does not exist
        }
        Ok(Self { ends: Ends::Short { seen, tail: tails.to_vec() }, makespan: i64::from(makespan) })
    }

    fn len(&self) -> usize {
        match &self.ends {
            Ends::Long { finish, .. } => finish.len(),
            Ends::Short { seen, .. } => seen.len(),
        }
    }

    fn finish(&self, step: usize) -> i64 {
        match &self.ends {
            Ends::Long { finish, .. } => finish[step],
            Ends::Short { seen, .. } => seen[step].finish.into(),
        }
    }

    fn late_finish(&self, step: usize) -> i64 {
        self.makespan
            - match &self.ends {
                Ends::Long { tail, .. } => tail[step],
                Ends::Short { tail, .. } => tail[step].into(),
            }
    }

    fn free_float(&self, step: usize) -> i64 {
        match &self.ends {
            Ends::Long { free, .. } => free[step],
            Ends::Short { seen, .. } => i64::from(seen[step].next).min(self.makespan) - i64::from(seen[step].finish),
        }
    }

    /// Length of the plan in ticks: nothing can be faster, whatever the resources.
    #[must_use]
    pub fn makespan(&self) -> i64 {
        self.makespan
    }

    /// The times of a step.
    #[must_use]
    pub fn times(&self, view: &View, step: usize) -> Times {
        let duration = view.durations[step];
        let (early_finish, late_finish) = (self.finish(step), self.late_finish(step));
        Times {
            early_start: early_finish - duration,
            early_finish,
            late_start: late_finish - duration,
            late_finish,
            total_float: self.total_float(step),
            free_float: self.free_float(step),
        }
    }

    /// How much later a step can start without moving the end.
    #[must_use]
    pub fn total_float(&self, step: usize) -> i64 {
        self.late_finish(step) - self.finish(step)
    }

    /// True when any delay of the step delays the end.
    #[must_use]
    pub fn is_critical(&self, step: usize) -> bool {
        self.total_float(step) == 0
    }

    /// Number of critical steps.
    #[must_use]
    pub fn critical_steps(&self) -> usize {
        (0..self.len()).filter(|step| self.is_critical(*step)).count()
    }

    /// True when a dependency leaves no room between two critical steps.
    fn is_tight(&self, view: &View, edge: usize, step: usize) -> bool {
        let on = view.targets[edge] as usize;
        let start = |step: usize| self.finish(step) - view.durations[step];
        let least = bound(view.bond(edge), start(on), view.durations[on], view.durations[step]);
        self.is_critical(on) && self.is_critical(step) && least == start(step)
    }

    /// One critical path, first step first; empty for an empty plan.
    #[must_use]
    pub fn path(&self, view: &View) -> Vec<usize> {
        let mut waited_for = vec![false; view.len()];
        view.targets.iter().filter(|on| **on != NOWHERE).for_each(|on| waited_for[*on as usize] = true);
        let last = (0..view.len())
            .filter(|step| self.is_critical(*step) && self.finish(*step) == self.makespan)
            .min_by_key(|step| (waited_for[*step], view.id(*step)));
        let mut path: Vec<usize> = last.into_iter().collect();
        while let Some(step) = path.last().copied() {
            let before = view.edges(step).filter(|edge| self.is_tight(view, *edge, step));
            let Some(on) = before.map(|edge| view.targets[edge] as usize).min_by_key(|on| view.id(*on)) else { break };
            path.push(on);
        }
        path.reverse();
        path
    }

    /// Number of critical paths from a step without dependencies to one that ends the plan; `u64::MAX` when there
    /// are more.
    #[must_use]
    pub fn paths(&self, view: &View, order: &Order) -> u64 {
        let Some(sequence) = order.sequence() else { return 0 };
        let mut ways = vec![0_u64; view.len()];
        let mut continued = vec![false; view.len()];
        for step in sequence.iter().map(|step| *step as usize).filter(|step| self.is_critical(*step)) {
            let tight = view.edges(step).filter(|edge| self.is_tight(view, *edge, step));
            let mut before: Vec<usize> = tight.map(|edge| view.targets[edge] as usize).collect();
            before.sort_unstable();
            before.dedup();
            before.iter().for_each(|on| continued[*on] = true);
            let sum = before.iter().fold(0_u64, |sum, on| sum.saturating_add(ways[*on]));
            ways[step] = if sum == 0 { 1 } else { sum };
        }
        let ends = (0..view.len()).filter(|step| self.is_critical(*step) && !continued[*step]);
        ends.fold(0_u64, |sum, step| sum.saturating_add(ways[step]))
    }
}

/// Sums of all durations and lags stay far from the ends of the number range, so that plain additions are exact.
pub(crate) fn sums_fit(view: &View) -> bool {
    let ticks = view.durations.iter().filter(|ticks| **ticks != ABSENT && **ticks != REFUSED);
    let sum: i128 = ticks.map(|ticks| i128::from(ticks.unsigned_abs())).sum();
    let lags: i128 = view
        .bonds
        .iter()
        .map(|bond| i128::from(bond.lag.unsigned_abs()) + i128::from(bond.max_lag.unwrap_or(0).unsigned_abs()))
        .sum();
    sum + lags < i128::from(i64::MAX / 4)
}

/// Length of a path of steps, if each waits for the one before; otherwise the first pair that is not connected.
pub(crate) fn length(view: &View, path: &[usize]) -> Result<i64, (usize, usize)> {
    let mut start = 0;
    for pair in path.windows(2) {
        let (on, step) = (pair[0], pair[1]);
        let edges =
            view.edges(step).filter(|edge| view.targets[*edge] != NOWHERE && view.targets[*edge] as usize == on);
        let ours = view.durations[step];
        start = edges.map(|edge| bound(view.bond(edge), start, view.durations[on], ours)).max().ok_or((on, step))?;
    }
    Ok(start + path.last().map_or(0, |last| view.durations[*last]))
}
