//! All rules of structure and the critical path against one topological order of the same graph.

use harness_props::generate::Random;
use harness_props::plan::{PlanLens, PlanValidator, Policy, Subject, View, rules};
use harness_props::rule::Validator;
use peers_common::{Asked, Measured, Result};
use petgraph::Directed;
use petgraph::graph::Graph;

use crate::seconds;

/// Dependencies per step.
const DENSITY: usize = 3;

/// A random acyclic graph: each step waits for up to three steps that are earlier in a hidden order.
fn edges(steps: usize, seed: u64) -> Vec<Vec<u32>> {
    let mut random = Random::new(seed);
    let mut order: Vec<u32> = (0..steps as u32).collect();
    for at in (1..steps).rev() {
        order.swap(at, random.index(at + 1));
    }
    let mut after = vec![Vec::new(); steps];
    for at in 1..steps {
        let own = &mut after[order[at] as usize];
        for _ in 0..DENSITY.min(at) {
            let before = order[random.index(at)];
            if !own.contains(&before) {
                own.push(before);
            }
        }
    }
    after
}

fn view(after: Vec<Vec<u32>>) -> Result<View> {
    let lens = PlanLens::new(|after: &Vec<Vec<u32>>| after.len())
        .id(|_, at| at as u64)
        .after(|after, at| after[at].iter().map(|before| u64::from(*before)).collect::<Vec<_>>())
        .duration(|_, at| Some(1 + (at % 7) as i64));
    Ok(lens.view(&after).map_err(|refusal| refusal.to_string())?)
}

/// The rules of structure, P001 to P016; the list order is a matter of taste, and left out.
fn structure() -> Validator<Subject> {
    Validator::new(rules().into_iter().filter(|rule| rule.code() < "P017" && rule.code() != "P004").collect())
}

pub(crate) fn against_petgraph(asked: &Asked) -> Result<Vec<Measured>> {
    let steps = asked.times(1_000_000, 50_000);
    let after = edges(steps, 1);
    let mut theirs: Graph<(), (), Directed, u32> = Graph::with_capacity(steps, steps * DENSITY);
    for _ in 0..steps {
        theirs.add_node(());
    }
    for (own, before) in after.iter().enumerate().flat_map(|(own, list)| list.iter().map(move |before| (own, *before)))
    {
        theirs.add_edge(before.into(), (own as u32).into(), ());
    }
    let ours = view(after)?;
    let validator = structure();
    let mut rounds = Vec::new();
    for _ in 0..asked.rounds() {
        let subject = Subject::new(ours.clone(), Policy::default());
        let (mine, makespan) = seconds(|| {
            let report = validator.check(&subject);
            report.is_clean().then(|| subject.critical().map(|path| path.makespan()))
        });
        let makespan = makespan.ok_or("a valid plan is accused")?.map_err(|why| format!("{why:?}"))?;
        let (other, order) = seconds(|| petgraph::algo::toposort(&theirs, None));
        order.map_err(|_| "petgraph sees a cycle")?;
        println!("  {mine:.3} s against {other:.3} s, makespan {makespan}");
        rounds.push((mine, other));
    }
    let parts = ours.len() + ours.dependencies();
    let note = format!(
        "{steps} steps, {} dependencies: P001 to P016 and the critical path; toposort alone",
        ours.dependencies()
    );
    let bytes = (ours.bytes() as f64, (64 * parts) as f64);
    let failures = u64::from(!deep(steps)?);
    Ok(vec![
        Measured::pairs("props.graph", "petgraph", "s", &rounds).note(note),
        Measured::pairs("props.graph_memory", "64 bytes a part", "bytes", &[bytes]),
        Measured::count("props.graph_deep_failures", &[failures])
            .note(format!("a chain and a cycle of {steps} steps in a thread of 2 MiB")),
    ])
}

/// A chain is clean and a cycle is named, on the stack of a test's thread. (An overflow would abort the process: a part
/// that is not there.)
fn deep(steps: usize) -> Result<bool> {
    let chain = move |closed: bool| -> Vec<Vec<u32>> {
        let first = if closed { vec![steps as u32 - 1] } else { Vec::new() };
        std::iter::once(first).chain((1..steps).map(|at| vec![at as u32 - 1])).collect()
    };
    let work = move || -> Result<bool> {
        let clean = PlanValidator::standard().check_view(view(chain(false))?).is_clean();
        let closed = PlanValidator::standard().check_view(view(chain(true))?);
        Ok(clean && closed.primary().into_iter().eq(["P009"]))
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(work)?;
    thread.join().map_err(|_| "a judge panicked")?
}
