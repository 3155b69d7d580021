//! P001 to P016: names, numbers, dependencies.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;

use super::{CYCLIC, DANGLING, LARGE, REPEATED, resolvable};
use crate::plan::graph::{Order, shortest_cycle};
use crate::plan::model::Id;
use crate::plan::view::{ABSENT, NOWHERE, Subject, View};
use crate::rule::{Findings, Rule, Severity};

pub(super) fn rules() -> Vec<Rule<Subject>> {
    use Severity::{Error, Warning};
    vec![
        Rule::new("P001", Error, "a plan has at least one step", not_empty),
        Rule::new("P002", Error, "step ids are unique", unique_ids),
        Rule::new("P003", Error, "step numbers are exactly 1 to N", numbered).needs(&["number"]),
        Rule::new("P004", Warning, "the list is in order of the numbers", listed_in_order)
            .needs(&["number"])
            .implied_by(&["P003"])
            .off(),
        Rule::new("P005", Error, "every dependency names an existing step", no_dangling).needs(&["after"]),
        Rule::new("P006", Error, "no step waits for itself", no_self_dependency).needs(&["after"]),
        Rule::new("P007", Error, "no step waits for a later number", only_earlier)
            .needs(&["after", "number"])
            .implied_by(&["P003", "P006", "P009"]),
        Rule::new("P008", Warning, "no step names a dependency twice", no_repeated_dependency).needs(&["after"]),
        Rule::new("P009", Error, "the dependency graph has no cycle", acyclic).needs(&["after"]),
        Rule::new("P010", Warning, "no dependency follows from others", no_redundant_dependency)
            .needs(&["after"])
            .off(),
        Rule::new("P011", Error, "every step leads to a terminal step", leads_to_terminal)
            .needs(&["after", "terminals"]),
        Rule::new("P012", Error, "every step is reached from an entry step", reached_from_entry)
            .needs(&["after", "entries"]),
        Rule::new("P013", Warning, "the plan hangs together", connected).needs(&["after"]).off(),
        Rule::new("P014", Error, "phases exist, and no step waits for a later phase", phases_in_order)
            .needs(&["phase", "phases"])
            .implied_by(&["P009"]),
        Rule::new("P015", Error, "groups do not wait for one another", groups_acyclic).needs(&["after", "group"]),
        Rule::new("P016", Error, "no two ids differ only in spelling", distinct_when_normalised),
    ]
}

fn not_empty(plan: &Subject, found: &mut Findings) {
    if plan.view().is_empty() && !plan.policy().allow_empty {
        found.add(plan.view().plan_path("steps"), "the plan has no steps", json!({"steps": 0}));
    }
}

fn unique_ids(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (first, second) in view.repeated.iter().map(|(first, second)| (*first as usize, *second as usize)) {
        found.at(&[second as u32], || {
            let id = view.id(second);
            let message = format!("the id `{id}` is taken by step {first} of the list");
            (view.step_path(second, "id"), message, json!({"id": id, "first": first, "second": second}))
        });
    }
}

fn numbered(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let count = view.len();
    let mut seen = vec![false; count];
    let (mut repeated, mut outside) = (None, None);
    for (step, number) in view.numbers.iter().enumerate() {
        match usize::try_from(*number).ok().filter(|number| (1..=count).contains(number)) {
            Some(number) if seen[number - 1] => repeated = repeated.or(Some(step)),
            Some(number) => seen[number - 1] = true,
            None => outside = outside.or(Some(step)),
        }
    }
    let Some(missing) = seen.iter().position(|seen| !seen).map(|at| at + 1) else { return };
    let first = [repeated, outside].into_iter().flatten().min();
    let path = first.map_or_else(|| view.plan_path("steps"), |step| view.step_path(step, "number"));
    let number = |step: usize| match view.numbers[step] {
        ABSENT => json!(null),
        number => json!(number),
    };
    let wrong = match (outside, repeated) {
        (Some(step), _) if view.numbers[step] == ABSENT => format!("; `{}` has none", view.id(step)),
        (Some(step), _) => format!("; `{}` has {}", view.id(step), number(step)),
        (None, Some(step)) => format!("; {} is used twice", number(step)),
        (None, None) => String::new(),
    };
    let witness = json!({"missing": missing, "repeated": repeated.map(number), "outside": outside.map(number)});
    found.add(path, format!("the numbers are not 1 to {count}: {missing} is missing{wrong}"), witness);
}

fn listed_in_order(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if let Some(at) = view.numbers.windows(2).position(|pair| pair[0] > pair[1]) {
        let (first, second) = (view.numbers[at], view.numbers[at + 1]);
        let message = format!("number {first} is listed before {second}");
        found.add(view.step_path(at + 1, "number"), message, json!({"first": first, "second": second}));
    }
}

fn no_dangling(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (step, position, name) in &view.dangling {
        let step = *step as usize;
        found.at(&[step as u32], || {
            let nearest = nearest(name, view);
            let hint = nearest.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let message = format!("`{}` waits for `{name}`, which does not exist{hint}", view.id(step));
            let witness = json!({"step": view.id(step), "position": position, "name": name, "nearest": nearest});
            (view.step_path(step, &format!("after/{position}")), message, witness)
        });
    }
}

/// The name with the least edit distance (Levenshtein), if it is near and the plan is not large.
fn nearest<'a>(name: &Id, view: &'a View) -> Option<&'a Id> {
    let wanted: Vec<char> = name.to_string().chars().take(64).collect();
    let near = view.ids.iter().take(2_000).map(|id| (distance(&wanted, &id.to_string()), id)).min()?;
    (near.0 * 2 <= wanted.len()).then_some(near.1)
}

fn distance(wanted: &[char], given: &str) -> usize {
    let mut row: Vec<usize> = (0..=wanted.len()).collect();
    for (line, letter) in given.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for column in 0..wanted.len() {
            let change = diagonal + usize::from(wanted[column] != letter);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[wanted.len()]
}

/// Every dependency that leads somewhere: the step, the position in its list, and what it waits for.
fn dependencies(view: &View) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
    (0..view.len()).flat_map(move |step| {
        let targets = view.targets[view.edges(step)].iter().enumerate();
        targets.filter(|(_, on)| **on != NOWHERE).map(move |(position, on)| (step, position, *on as usize))
    })
}

fn no_self_dependency(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for step in 0..view.len() {
        let targets = &view.targets[view.edges(step)];
        for position in (0..targets.len()).filter(|position| targets[*position] as usize == step) {
            found.at(&[step as u32], || {
                let id = view.id(step);
                let witness = json!({"step": id, "position": position});
                (view.step_path(step, &format!("after/{position}")), format!("`{id}` waits for itself"), witness)
            });
        }
    }
}

fn only_earlier(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for step in 0..view.len() {
        let own = view.numbers[step];
        for (position, on) in view.targets[view.edges(step)].iter().enumerate() {
            if *on == NOWHERE || view.numbers[*on as usize] < own {
                continue;
            }
            let on = *on as usize;
            found.at(&[step as u32, on as u32], || {
                let (id, theirs) = (view.id(step), view.numbers[on]);
                let message = format!("`{id}`, number {own}, waits for `{}`, number {theirs}", view.id(on));
                let witness = json!({"from": id, "to": view.id(on), "number": own, "waits_for": theirs});
                (view.step_path(step, &format!("after/{position}")), message, witness)
            });
        }
    }
}

fn no_repeated_dependency(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let mut sorted: Vec<(u32, usize)> = Vec::new();
    for step in 0..view.len() {
        let targets = &view.targets[view.edges(step)];
        let repeats = match targets {
            [] | [_] => false,
            [one, other] => one == other,
            many if many.len() <= 8 => (1..many.len()).any(|at| many[..at].contains(&many[at])),
            _ => true,
        };
        if !repeats {
            continue;
        }
        sorted.clear();
        sorted.extend(targets.iter().enumerate().map(|(position, on)| (*on, position)));
        sorted.sort_unstable();
        let twice = sorted.windows(2).filter(|pair| pair[0].0 == pair[1].0 && pair[0].0 != NOWHERE);
        for (first, second, on) in twice.map(|pair| (pair[0].1, pair[1].1, pair[0].0 as usize)) {
            found.at(&[step as u32], || {
                let message = format!("`{}` waits for `{}` twice", view.id(step), view.id(on));
                let witness = json!({"step": view.id(step), "on": view.id(on), "positions": [first, second]});
                (view.step_path(step, &format!("after/{second}")), message, witness)
            });
        }
    }
}

/// A cycle as people read it; long ones are shortened.
fn chain(view: &View, cycle: &[u32]) -> String {
    let mut names: Vec<String> = cycle.iter().take(12).map(|step| view.id(*step as usize).to_string()).collect();
    if cycle.len() > 12 {
        names.push(format!("({} more)", cycle.len() - 12));
    }
    names.extend(cycle.first().map(|step| view.id(*step as usize).to_string()));
    names.join(" -> ")
}

fn acyclic(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for component in plan.order().components() {
        found.at(component, || {
            let (cycle, proven) = shortest_cycle(view, component);
            let names: Vec<&Id> = cycle.iter().take(1_000).map(|step| view.id(*step as usize)).collect();
            let hedge = if proven { "" } else { " (not proven to be the shortest)" };
            let message = format!("{} steps wait for one another: {}{hedge}", cycle.len(), chain(view, &cycle));
            let witness = json!({"cycle": names, "steps": cycle.len(), "shortest": proven, "tangle": component.len()});
            (view.step_path(cycle.first().map_or(0, |step| *step as usize), "after"), message, witness)
        });
    }
}

fn no_redundant_dependency(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if !resolvable(view, found) {
        return;
    }
    let Some(ancestors) = plan.ancestors() else { return found.skip(LARGE) };
    for (step, position, on) in dependencies(view) {
        let plain = view.bond(view.edges(step).start + position) == Default::default();
        let Some(via) = view.after(step).find(|via| *via != on && *via != step && ancestors.waits_for(*via, on)) else {
            continue;
        };
        if !plain || step == on {
            continue;
        }
        found.at(&[step as u32, on as u32], || {
            let (id, on, via) = (view.id(step), view.id(on), view.id(via));
            let message = format!("`{id}` waits for `{on}` through `{via}` already");
            (view.step_path(step, &format!("after/{position}")), message, json!({"step": id, "on": on, "via": via}))
        });
    }
}

/// The indices of declared steps; those that do not exist are reported.
fn declared(view: &View, field: &str, names: &[Id], found: &mut Findings) -> Vec<usize> {
    let index: HashMap<&Id, usize> = view.ids.iter().enumerate().map(|(step, id)| (id, step)).collect();
    let mut steps = Vec::new();
    for (position, name) in names.iter().enumerate() {
        match index.get(name) {
            Some(step) => steps.push(*step),
            None => {
                let path = view.plan_path(&format!("{field}/{position}"));
                found.add(path, format!("`{name}` is declared but is no step"), json!({"name": name}));
            }
        }
    }
    steps
}

fn leads_to_terminal(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if !resolvable(view, found) {
        return;
    }
    let mut open = declared(view, "terminals", &view.charter.terminals, found);
    let mut leads = vec![false; view.len()];
    while let Some(step) = open.pop() {
        if !std::mem::replace(&mut leads[step], true) {
            open.extend(view.after(step));
        }
    }
    for step in (0..view.len()).filter(|step| !leads[*step]) {
        found.at(&[step as u32], || {
            let message = format!("`{}` leads to no terminal step", view.id(step));
            (view.step_path(step, ""), message, json!({"step": view.id(step)}))
        });
    }
}

fn reached_from_entry(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if !resolvable(view, found) {
        return;
    }
    let mut dependents: Vec<Vec<u32>> = vec![Vec::new(); view.len()];
    dependencies(view).for_each(|(step, _, on)| dependents[on].push(step as u32));
    let mut open = declared(view, "entries", &view.charter.entries, found);
    let mut reached = vec![false; view.len()];
    while let Some(step) = open.pop() {
        if !std::mem::replace(&mut reached[step], true) {
            open.extend(dependents[step].iter().map(|step| *step as usize));
        }
    }
    for step in (0..view.len()).filter(|step| !reached[*step]) {
        found.at(&[step as u32], || {
            let before = view.after(step).next().map(|on| view.id(on));
            let message = format!("`{}` is not reached from any entry step", view.id(step));
            (view.step_path(step, ""), message, json!({"step": view.id(step), "unreached_before": before}))
        });
    }
}

fn connected(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if !resolvable(view, found) {
        return;
    }
    let mut parent: Vec<u32> = (0..view.len() as u32).collect();
    let root = |parent: &mut Vec<u32>, mut step: u32| {
        while parent[step as usize] != step {
            parent[step as usize] = parent[parent[step as usize] as usize];
            step = parent[step as usize];
        }
        step
    };
    for (step, _, on) in dependencies(view) {
        let (one, other) = (root(&mut parent, step as u32), root(&mut parent, on as u32));
        parent[one.max(other) as usize] = one.min(other);
    }
    let mut parts: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for step in 0..view.len() as u32 {
        parts.entry(root(&mut parent, step)).or_default().push(step);
    }
    if parts.len() > 1
        && let Some(least) = parts.values().min_by_key(|part| part.len())
    {
        found.at(least, || {
            let names: Vec<&Id> = least.iter().take(20).map(|step| view.id(*step as usize)).collect();
            let message = format!("the plan falls into {} parts; the least has {} steps", parts.len(), least.len());
            (view.step_path(least[0] as usize, ""), message, json!({"parts": parts.len(), "least": names}))
        });
    }
}

fn phases_in_order(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let place: HashMap<&Id, usize> = view.charter.phases.iter().enumerate().map(|(at, phase)| (phase, at)).collect();
    let phase = |step: usize| view.steps[step].phase.as_ref();
    for step in 0..view.len() {
        let Some(own) = phase(step) else { continue };
        let Some(at) = place.get(own) else {
            // No cycle explains this one: the scope is never within one.
            found.at(&[step as u32, NOWHERE], || {
                let message = format!("`{}` is of phase `{own}`, which does not exist", view.id(step));
                (view.step_path(step, "phase"), message, json!({"step": view.id(step), "phase": own}))
            });
            continue;
        };
        for (position, on) in view.targets[view.edges(step)].iter().enumerate().filter(|(_, on)| **on != NOWHERE) {
            let theirs = phase(*on as usize);
            if theirs.and_then(|phase| place.get(phase)).is_some_and(|theirs| theirs > at) {
                found.at(&[step as u32, *on], || {
                    let (id, on) = (view.id(step), view.id(*on as usize));
                    let message = format!("`{id}` waits for `{on}`, which is of a later phase");
                    let witness = json!({"from": id, "to": on, "phases": [own, theirs]});
                    (view.step_path(step, &format!("after/{position}")), message, witness)
                });
            }
        }
    }
}

fn groups_acyclic(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if plan.order().sequence().is_none() {
        return found.skip(CYCLIC);
    }
    if !view.dangling.is_empty() || !view.repeated.is_empty() {
        return found.skip(if view.dangling.is_empty() { REPEATED } else { DANGLING });
    }
    let mut edges: BTreeMap<&Id, BTreeMap<&Id, (usize, usize)>> = BTreeMap::new();
    for step in 0..view.len() {
        let Some(own) = &view.steps[step].group else { continue };
        let to = edges.entry(own).or_default();
        for on in view.after(step) {
            if let Some(theirs) = view.steps[on].group.as_ref().filter(|theirs| *theirs != own) {
                to.entry(theirs).or_insert((step, on));
            }
        }
    }
    let names: Vec<Id> = edges.keys().map(|id| (*id).clone()).collect();
    let built = View::build(names, |at, out| {
        out.extend(edges.values().nth(at).into_iter().flat_map(|to| to.keys()).map(|id| (*id).clone().into()));
    });
    let Ok(groups) = built else { return };
    for component in Order::of(&groups).components() {
        let (cycle, _) = shortest_cycle(&groups, component);
        let name = |at: usize| groups.id(cycle[at % cycle.len()] as usize);
        let pairs: Vec<(usize, usize)> =
            (0..cycle.len()).filter_map(|at| edges.get(name(at))?.get(name(at + 1)).copied()).collect();
        let steps: Vec<(&Id, &Id)> = pairs.iter().map(|(step, on)| (view.id(*step), view.id(*on))).collect();
        let message = format!("groups wait for one another: {}", chain(&groups, &cycle));
        let witness =
            json!({"groups": cycle.iter().map(|at| groups.id(*at as usize)).collect::<Vec<_>>(), "steps": steps});
        found.add(view.step_path(pairs.first().map_or(0, |pair| pair.0), "group"), message, witness);
    }
}

fn distinct_when_normalised(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if !view.ids.iter().any(|id| matches!(id, Id::Text(_))) {
        return; // Numbers have one spelling.
    }
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(view.len());
    for step in 0..view.len() {
        let first = *seen.entry((plan.policy().normalised)(&view.id(step).to_string())).or_insert(step);
        if view.id(first) != view.id(step) {
            found.at(&[step as u32], || {
                let (one, other) = (view.id(first), view.id(step));
                let message = format!("`{one}` and `{other}` differ only in spelling");
                (view.step_path(step, "id"), message, json!({"one": one, "other": other}))
            });
        }
    }
}
