//! Plans that keep every rule of the catalogue, built so and never filtered.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::Random;
use crate::plan::{
    Agent, Automation, Choice, Criterion, Demand, Effect, Exclusion, Id, Kind, Link, Plan, PlanModel, Policy, Quantity,
    Resource, Rollback, Share, Step, Subject, Ticks, Tie, Window,
};

/// Most steps of a generated plan: sets of steps are words of 64 bits.
const MOST: usize = 64;

/// How the steps of a plan hang together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topology {
    /// One after the other.
    Chain,
    /// One, many at once, one.
    ForkJoin,
    /// Layers, each waiting for the one before.
    Layered,
    /// Nested parts in series and in parallel.
    SeriesParallel,
    /// Any earlier steps.
    Random,
}

const TOPOLOGIES: [Topology; 5] =
    [Topology::Chain, Topology::ForkJoin, Topology::Layered, Topology::SeriesParallel, Topology::Random];

/// What plans to generate.
#[derive(Debug, Clone)]
pub struct PlanConfig {
    steps: RangeInclusive<usize>,
    agents: usize,
    shuffled: bool,
    topology: Option<Topology>,
}

impl Default for PlanConfig {
    /// One to twelve steps, four agents, any topology, listed in random order.
    fn default() -> Self {
        Self { steps: 1..=12, agents: 4, shuffled: true, topology: None }
    }
}

impl PlanConfig {
    /// How many steps: from 1 to 64.
    #[must_use]
    pub fn steps(mut self, steps: RangeInclusive<usize>) -> Self {
        self.steps = (*steps.start()).clamp(1, MOST)..=(*steps.end()).clamp(1, MOST);
        self
    }

    /// How many agents; at least one.
    #[must_use]
    pub fn agents(mut self, agents: usize) -> Self {
        self.agents = agents.max(1);
        self
    }

    /// Whether the list is in random order; otherwise it is in order of the numbers.
    #[must_use]
    pub fn shuffled(mut self, shuffled: bool) -> Self {
        self.shuffled = shuffled;
        self
    }

    /// One topology only.
    #[must_use]
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = Some(topology);
        self
    }
}

/// A plan that keeps every rule, with every facet. The names are random and, unless told otherwise, so is the list
/// order: that an index order is a topological order never holds by accident.
#[must_use]
pub fn plan(config: &PlanConfig, random: &mut Random) -> Plan {
    let count = random.between(*config.steps.start() as i64, *config.steps.end() as i64) as usize;
    let topology = config.topology.unwrap_or_else(|| TOPOLOGIES[random.index(TOPOLOGIES.len())]);
    let waits = reduced(&edges(topology, count, random));
    let before = closure(&waits);
    let mut plan = charter(config, random);
    plan.steps = steps(&plan, &waits, random);
    effects(&mut plan, &before, random);
    schedule(&mut plan, &waits, random);
    lags(&mut plan, &waits, random);
    entries_and_terminals(&mut plan, &waits);
    if config.shuffled {
        random.shuffle(&mut plan.steps);
    }
    claim(&mut plan);
    let end = plan.steps.iter().filter_map(|step| step.finish).max().unwrap_or(0);
    plan.margin = Some(random.between(0, 5));
    plan.deadline = Some(end + plan.margin.unwrap_or(0) + random.between(0, 9));
    let undo = |step: &Step| step.rollback.as_ref().map_or(0, |rollback| rollback.duration);
    plan.recovery_window = Some(plan.steps.iter().map(undo).sum::<i64>() + random.between(0, 5));
    plan
}

/// What each step waits for, as bits of earlier steps.
fn edges(topology: Topology, count: usize, random: &mut Random) -> Vec<u64> {
    let some = |random: &mut Random, from: usize, to: usize| {
        let mut bits = 1_u64 << (from + random.index(to - from));
        for at in from..to {
            bits |= u64::from(random.percent(30)) << at;
        }
        bits
    };
    let mut waits = vec![0_u64; count];
    match topology {
        Topology::Chain => (1..count).for_each(|step| waits[step] = 1 << (step - 1)),
        Topology::ForkJoin => {
            for (step, set) in waits.iter_mut().enumerate().skip(1) {
                *set = if step + 1 == count && step > 1 { ((1 << step) - 1) & !1 } else { 1 };
            }
        }
        Topology::Layered => {
            let width = 1 + random.index(3);
            for (step, set) in waits.iter_mut().enumerate().skip(width) {
                let layer = step / width * width;
                *set = some(random, layer - width, layer);
            }
            // The first layer hangs together through the second, and through its first step if there is none.
            (1..width.min(count)).for_each(|step| waits[step] = 1);
        }
        Topology::SeriesParallel => {
            // Each new step goes on after one step, or joins two.
            for (step, set) in waits.iter_mut().enumerate().skip(1) {
                *set = 1 << random.index(step);
                if random.percent(40) {
                    *set |= 1 << random.index(step);
                }
            }
        }
        Topology::Random => (1..count).for_each(|step| waits[step] = some(random, 0, step)),
    }
    waits
}

fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(bit)
    })
}

fn closure(waits: &[u64]) -> Vec<u64> {
    let mut before = vec![0_u64; waits.len()];
    for step in 0..waits.len() {
        before[step] = bits(waits[step]).fold(waits[step], |set, on| set | before[on]);
    }
    before
}

/// Without what follows from others (transitive reduction; Aho, Garey, Ullman 1972).
fn reduced(waits: &[u64]) -> Vec<u64> {
    let before = closure(waits);
    waits.iter().map(|set| bits(*set).fold(*set, |left, on| left & !before[on])).collect()
}

fn charter(config: &PlanConfig, random: &mut Random) -> Plan {
    let kinds = [("work", 1, 9, false), ("call", 1, 9, false), ("check", 1, 9, false), ("mark", 0, 0, true)];
    let kind = |(name, min, max, milestone): &(&str, i64, i64, bool)| {
        ((*name).to_owned(), Kind { min: *min, max: *max, milestone: *milestone })
    };
    let mut agents: Vec<Agent> = (0..config.agents)
        .map(|at| {
            let other = ["work", "call", "check"][random.index(3)];
            let skills = [other, "mark"].map(str::to_owned).to_vec();
            Agent { id: format!("agent-{at}").into(), human: at % 2 == 0, skills, available: Vec::new() }
        })
        .collect();
    if let Some(last) = agents.last_mut() {
        last.available = vec![Window { from: random.between(0, 3), to: 1_000_000 }];
    }
    let mut resource = |id: &str, renewable| Resource {
        id: id.into(),
        capacity: if renewable { random.between(3, 6) } else { 1_000 },
        renewable,
    };
    Plan {
        phases: ["detect", "repair", "verify"].map(Id::from).to_vec(),
        kinds: kinds.iter().map(kind).collect(),
        actions: ["restore", "cancel"].map(str::to_owned).to_vec(),
        resources: vec![resource("crew", true), resource("slots", true), resource("parts", false)],
        agents,
        max_parallel: Some(3),
        load: Some(Share { min: 0, max: 100 }),
        ..Plan::default()
    }
}

fn steps(plan: &Plan, waits: &[u64], random: &mut Random) -> Vec<Step> {
    let count = waits.len();
    let mut labels: Vec<usize> = (0..count).collect();
    random.shuffle(&mut labels);
    let id = |at: usize| Id::from(format!("step-{:02}", labels[at]));
    let first_agent = random.index(plan.agents.len());
    let mut steps: Vec<Step> = Vec::with_capacity(count);
    for (at, set) in waits.iter().enumerate() {
        let agent = &plan.agents[(first_agent + at) % plan.agents.len()];
        let kind = agent.skills[usize::from(random.percent(10))].clone();
        let milestone = kind == "mark";
        let automated = !agent.human || random.percent(50);
        let criterion = Criterion {
            text: "it is done".to_owned(),
            metric: Some("errors".to_owned()),
            comparator: Some("<=".to_owned()),
            target: Some(random.between(0, 9) as f64),
        };
        let cost = Quantity { value: random.between(0, 100) as f64, unit: "EUR".to_owned(), min: 0.0, max: 100.0 };
        let states = ["open", "ready", "held"].map(str::to_owned).to_vec();
        let choice = Choice { value: states[random.index(3)].clone(), of: states };
        let mut demands = Vec::new();
        if !milestone && (at == 0 || random.percent(60)) {
            demands.push(Demand { resource: "crew".into(), amount: random.between(1, 3) });
        }
        if !milestone && random.percent(40) {
            demands.push(Demand { resource: "slots".into(), amount: random.between(1, 2) });
        }
        if random.percent(40) {
            demands.push(Demand { resource: "parts".into(), amount: random.between(1, 5) });
        }
        steps.push(Step {
            id: id(at),
            number: Some(at as i64 + 1),
            after: bits(*set).map(|on| Link::from(id(on))).collect(),
            title: Some(format!("Do part {}", labels[at])),
            texts: BTreeMap::from([("summary".to_owned(), format!("part {} of {count}", labels[at]))]),
            phase: Some(plan.phases[at * 3 / count].clone()),
            group: Some(format!("group-{}", at / 3).into()),
            duration: Some(Ticks::Whole(if milestone { 0 } else { random.between(1, 9) })),
            kind: Some(kind),
            agent: Some(agent.id.clone()),
            exclusive: random.percent(50),
            criteria: vec![criterion],
            automation: Some(Automation { automated, executor: automated.then(|| "runner".to_owned()) }),
            demands,
            quantities: BTreeMap::from([("cost".to_owned(), cost)]),
            choices: BTreeMap::from([("state".to_owned(), choice)]),
            ..Step::default()
        });
    }
    steps
}

fn effects(plan: &mut Plan, before: &[u64], random: &mut Random) {
    let count = plan.steps.len();
    let ids: Vec<Id> = plan.steps.iter().map(|step| step.id.clone()).collect();
    let mut pivots = 0_u64;
    for at in 0..count {
        let behind_pivot = before[at] & pivots != 0;
        let mut effect = Effect { effectful: random.percent(70), ..Effect::default() };
        effect.fallible = !behind_pivot && random.percent(30);
        if effect.effectful {
            effect.writes = (0..1 + random.index(2)).map(|key| format!("key-{at}-{key}")).collect();
        }
        if effect.effectful && random.percent(15) {
            effect.irreversible = Some("sent to people".to_owned());
            pivots |= 1 << at;
        } else if effect.effectful {
            let earlier: Vec<usize> = bits(before[at]).collect();
            let later: Vec<usize> = (at + 1..count).filter(|later| before[*later] >> at & 1 == 1).collect();
            let mut some = |list: &[usize]| -> Vec<Id> {
                let wanted = random.percent(50);
                random.pick(list).filter(|_| wanted).map(|one| ids[*one].clone()).into_iter().collect()
            };
            let (uses, after) = (some(&earlier), some(&later));
            plan.steps[at].rollback = Some(Rollback {
                action: plan.actions[random.index(plan.actions.len())].clone(),
                by: later.first().filter(|_| random.percent(10)).map(|one| ids[*one].clone()),
                uses,
                after,
                restores: effect.writes.clone(),
                duration: random.between(1, 3),
                idempotent: true,
            });
        }
        plan.steps[at].effect = Some(effect);
    }
}

fn ticks(step: &Step) -> i64 {
    match step.duration {
        Some(Ticks::Whole(ticks)) => ticks,
        _ => 0,
    }
}

/// Serial schedule generation: each step in turn at the first instant at which everything allows it.
fn schedule(plan: &mut Plan, waits: &[u64], random: &mut Random) {
    let count = plan.steps.len();
    let ties = random.percent(20);
    for at in 0..count {
        for link in &mut plan.steps[at].after {
            if random.percent(25) {
                link.lag = random.between(0, 2);
            }
            if ties && random.percent(40) {
                link.tie = [Tie::StartStart, Tie::FinishFinish, Tie::StartFinish][random.index(3)];
            }
        }
    }
    if count > 1 && random.percent(50) {
        let one = random.index(count);
        let other = (one + 1 + random.index(count - 1)) % count;
        plan.exclusions.push(Exclusion {
            one: plan.steps[one].id.clone(),
            other: plan.steps[other].id.clone(),
            setup: random.between(0, 2),
        });
    }
    for (at, set) in waits.iter().enumerate() {
        if random.percent(30) {
            plan.steps[at].release = Some(random.between(0, 5));
        }
        let mut start = plan.steps[at].release.unwrap_or(0);
        for (link, on) in plan.steps[at].after.iter().zip(bits(*set)) {
            start = start.max(least_start(link, &plan.steps[on], &plan.steps[at]));
        }
        while !fits(plan, at, start) {
            start += 1;
        }
        let end = start + ticks(&plan.steps[at]);
        plan.steps[at].start = Some(start);
        plan.steps[at].finish = Some(end);
        if random.percent(20) {
            plan.steps[at].deadline = Some(end + random.between(0, 5));
        }
    }
}

pub(crate) fn least_start(link: &Link, on: &Step, step: &Step) -> i64 {
    let (start, theirs, ours) = (on.start.unwrap_or(0), ticks(on), ticks(step));
    match link.tie {
        Tie::FinishStart => start + theirs + link.lag,
        Tie::StartStart => start + link.lag,
        Tie::FinishFinish => start + theirs + link.lag - ours,
        Tie::StartFinish => start + link.lag - ours,
    }
}

/// Whether a step can start here, next to all that are scheduled already.
fn fits(plan: &Plan, at: usize, start: i64) -> bool {
    let step = &plan.steps[at];
    let end = start + ticks(step);
    if start == end {
        return true;
    }
    let agent = plan.agents.iter().find(|agent| Some(&agent.id) == step.agent.as_ref());
    let there = |agent: &Agent| agent.available.iter().any(|window| window.from <= start && end <= window.to);
    if agent.is_some_and(|agent| !agent.available.is_empty() && !there(agent)) {
        return false;
    }
    let others: Vec<(&Step, i64, i64)> = plan.steps[..at]
        .iter()
        .filter_map(|other| Some((other, other.start?, other.start? + ticks(other))))
        .filter(|(_, from, to)| from < to)
        .collect();
    let apart = |(other, from, to): &(&Step, i64, i64)| {
        let gap = (start - to).max(from - end);
        let excluded = plan.exclusions.iter().filter(|pair| {
            (pair.one == step.id && pair.other == other.id) || (pair.other == step.id && pair.one == other.id)
        });
        let busy = other.exclusive && step.exclusive && other.agent == step.agent;
        excluded.map(|pair| pair.setup).all(|setup| gap >= setup) && (gap >= 0 || !busy)
    };
    let capacity = |instant: i64| {
        let running = || others.iter().filter(move |(_, from, to)| *from <= instant && instant < *to).map(|one| one.0);
        let few = plan.max_parallel.is_none_or(|most| (running().count() as i64) < most);
        few && step.demands.iter().all(|demand| {
            let resource = plan.resources.iter().find(|one| one.id == demand.resource && one.renewable);
            let taken = running().flat_map(|other| &other.demands).filter(|other| other.resource == demand.resource);
            resource.is_none_or(|one| taken.map(|other| other.amount).sum::<i64>() + demand.amount <= one.capacity)
        })
    };
    others.iter().all(apart) && (start..end).all(capacity)
}

/// Greatest lags that the schedule keeps.
fn lags(plan: &mut Plan, waits: &[u64], random: &mut Random) {
    for (at, set) in waits.iter().enumerate() {
        let step = plan.steps[at].clone();
        for (position, on) in bits(*set).enumerate() {
            if random.percent(20) {
                let link = &mut plan.steps[at].after[position];
                let lag = link.lag;
                let zero = Link { lag: 0, ..link.clone() };
                let gap = step.start.unwrap_or(0) - least_start(&zero, &plan.steps[on], &step);
                plan.steps[at].after[position].max_lag = Some(gap.max(lag) + random.between(0, 3));
            }
        }
    }
}

fn entries_and_terminals(plan: &mut Plan, waits: &[u64]) {
    let waited_for = waits.iter().fold(0, |all, set| all | set);
    for (at, step) in plan.steps.iter().enumerate() {
        if waits[at] == 0 {
            plan.entries.push(step.id.clone());
        }
        if waited_for >> at & 1 == 0 {
            plan.terminals.push(step.id.clone());
        }
    }
}

/// Computes again everything a plan claims about itself: times, critical path, makespan, width. A critical path is
/// only claimed when there is one from a first step to a last. Plans that have none of it are left alone.
pub fn claim(plan: &mut Plan) {
    let Ok(view) = plan.view() else { return };
    let subject = Subject::new(view, Policy::default());
    let (view, Ok(critical)) = (subject.view(), subject.critical()) else { return };
    let path = critical.path(view);
    let complete = match (path.first(), path.last()) {
        (Some(first), Some(last)) => {
            view.after(*first).next().is_none() && !(0..view.len()).any(|step| view.after(step).any(|on| on == *last))
        }
        _ => false,
    };
    plan.critical_path = complete.then(|| path.iter().map(|step| view.id(*step).clone()).collect());
    plan.sole = Some(critical.paths(view, subject.order()) == 1);
    for (at, step) in plan.steps.iter_mut().enumerate() {
        step.times = Some(critical.times(view, at));
        step.critical = Some(critical.is_critical(at));
    }
    let finish = plan.steps.iter().filter_map(|step| step.start.map(|start| start + ticks(step))).max();
    plan.makespan = Some(finish.unwrap_or_else(|| critical.makespan()));
    plan.width = subject.ancestors().map(|ancestors| crate::plan::width(ancestors, view.len()) as i64);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{PlanConfig, Topology, fits, plan};
    use crate::generate::Random;
    use crate::plan::Plan;

    #[test]
    fn agents_take_turns() {
        for seed in 0..20 {
            let made = plan(&PlanConfig::default().steps(12..=12).agents(5).shuffled(false), &mut Random::new(seed));
            let agents: Vec<_> = made.steps.iter().map(|step| step.agent.clone().unwrap()).collect();
            assert_eq!(agents[..5].iter().collect::<BTreeSet<_>>().len(), 5, "{agents:?}");
            assert!((5..12).all(|at| agents[at] == agents[at - 5]), "{agents:?}");
        }
    }

    #[test]
    fn only_the_two_of_an_exclusion_keep_apart() {
        let made = |exclusions: &str| {
            let steps = r#"{"id":"a","duration":2,"start":0},{"id":"b","duration":2},{"id":"c","duration":2}"#;
            Plan::from_json(&format!(r#"{{"steps":[{steps}],"exclusions":[{exclusions}]}}"#)).unwrap()
        };
        let pair = |one: &str, other: &str| made(&format!(r#"{{"one":"{one}","other":"{other}","setup":5}}"#));
        for others in [pair("c", "b"), pair("b", "c"), pair("a", "c"), pair("c", "a")] {
            assert!(fits(&others, 1, 2), "{:?}", others.exclusions);
        }
        for both in [pair("a", "b"), pair("b", "a")] {
            assert!(!fits(&both, 1, 6) && fits(&both, 1, 7), "{:?}", both.exclusions);
        }
    }

    #[test]
    fn topologies_are_what_they_are_called() {
        let counts = |topology: Topology, steps: usize| {
            let config = PlanConfig::default().steps(steps..=steps).topology(topology);
            let made = plan(&config, &mut Random::new(3));
            let mut waits: Vec<usize> = made.steps.iter().map(|step| step.after.len()).collect();
            waits.sort_unstable();
            waits
        };
        assert_eq!(counts(Topology::Chain, 5), [0, 1, 1, 1, 1]);
        assert_eq!(counts(Topology::ForkJoin, 6), [0, 1, 1, 1, 1, 4]);
        assert_eq!(counts(Topology::ForkJoin, 2), [0, 1]);
        for topology in [Topology::Layered, Topology::SeriesParallel, Topology::Random] {
            let waits = counts(topology, 9);
            assert!(waits[0] == 0 && waits.iter().sum::<usize>() >= 6, "{topology:?}: {waits:?}");
        }
    }
}
