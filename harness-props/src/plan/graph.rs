//! Orders, cycles and reachability. Nothing here recurses: a chain of a million steps is a loop, not a stack.

use std::collections::VecDeque;
use std::ops::Range;

use super::view::{NOWHERE, View};

/// Components up to this size get a breadth-first search from every step, so that their shortest cycle is proven.
const PROVEN: usize = 2_000;
/// Steps of a bigger component that a search starts from.
const TRIED: usize = 4;
const UNSEEN: u32 = u32::MAX;
/// Steps whose dependencies are looked up together: in a large plan each lies in distant memory, and many such looks at once
/// take little longer than one.
const TOGETHER: usize = 64;

/// The steps in an order in which each stands after what it waits for. Dependencies of a step on itself and dangling
/// ones are left out of it: they have rules of their own.
#[derive(Debug, Clone, Default)]
pub struct Order {
    sequence: Vec<u32>,
    components: Vec<Vec<u32>>,
    tails: Vec<u32>,
    waits: Waits,
}

/// What the steps wait for, from the last of the sequence to the first: copied once, to be read in the order in which it lies.
#[derive(Debug, Clone, Default)]
struct Waits {
    on: Vec<u32>,
    /// Where in `on` those of each step end.
    ends: Vec<u32>,
}

/// Some steps of the order that stand in a row.
pub(crate) struct Row<'a> {
    order: &'a Order,
    /// In the lists of what is waited for.
    places: Range<usize>,
}

impl<'a> Row<'a> {
    /// What any of them waits for, but for itself and what does not exist.
    pub(crate) fn on(&self) -> &'a [u32] {
        self.order.waits.of(self.places.clone())
    }

    /// Each step with what it waits for, in order.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (usize, &'a [u32])> {
        let Order { sequence, waits, .. } = self.order;
        let last = sequence.len() - 1;
        self.places.clone().rev().map(move |at| (sequence[last - at] as usize, waits.of(at..at + 1)))
    }
}

/// A step while the order is sought: how many steps that wait for it are open, and the longest time behind its end.
#[derive(Clone, Copy, Default)]
struct Open {
    dependents: u32,
    tail: u32,
}

impl Order {
    /// Computes the order (Kahn 1962), and for what is left the strongly connected components (Tarjan 1972).
    ///
    /// From the ends backwards: this needs the lists of what is waited for, and no second graph. The times behind the
    /// ends fall out of the same pass; in a large plan each look at a step is a look into distant memory.
    pub(crate) fn of(view: &View) -> Self {
        if view.has_short_ticks() {
            Self::peel(view, |step| view.durations[step] as u32)
        } else {
            Self::peel(view, |_| 0)
        }
    }

    fn peel(view: &View, ticks: impl Fn(usize) -> u32) -> Self {
        let count = view.len();
        let mut open = vec![Open::default(); count];
        let mut listed = true;
        for begin in (0..count).step_by(TOGETHER) {
            let steps = begin..count.min(begin + TOGETHER);
            let edges = view.edges(begin).start..view.edges(steps.end - 1).end;
            bring_near(view.targets[edges].iter().filter_map(|on| open.get(*on as usize)).map(|open| open.dependents));
            for step in steps {
                for on in real(view, step) {
                    open[on].dependents += 1;
                    listed &= on < step;
                }
            }
        }
        // One place more than there are steps, so that the next one can be written before it is known to be one.
        let mut sequence = vec![0_u32; count + 1];
        // Final when a step is found, and wanted again when its turn comes.
        let mut tails = vec![0_u32; count + 1];
        let mut found = 0;
        for step in (0..count).rev() {
            sequence[found] = step as u32;
            found += usize::from(listed || open[step].dependents == 0);
        }
        let mut waits = Waits { on: Vec::with_capacity(view.targets.len()), ends: Vec::with_capacity(count) };
        let mut durations = [0; TOGETHER];
        let mut next = 0;
        while next < found {
            let steps = next..found.min(next + TOGETHER);
            for (step, duration) in sequence[steps.clone()].iter().zip(&mut durations) {
                *duration = ticks(*step as usize);
            }
            waits.add(view, &sequence[steps.clone()]);
            bring_near(waits.of(steps.clone()).iter().map(|on| open[*on as usize].dependents));
            for (at, duration) in steps.clone().zip(durations) {
                let tail = if listed { open[sequence[at] as usize].tail } else { tails[at] };
                let tail = tail.wrapping_add(duration);
                for on in waits.of(at..at + 1) {
                    let theirs = &mut open[*on as usize];
                    theirs.dependents -= 1;
                    theirs.tail = theirs.tail.max(tail);
                    sequence[found] = *on;
                    tails[found] = theirs.tail;
                    found += usize::from(!listed && theirs.dependents == 0);
                }
            }
            next = steps.end;
        }
        sequence.truncate(found);
        sequence.reverse();
        let components = if found == count { Vec::new() } else { components(view, &open) };
        let tails = if view.has_short_ticks() { open.iter().map(|step| step.tail).collect() } else { Vec::new() };
        Self { sequence, components, tails, waits }
    }

    /// The steps in order, some at a time. Nothing while there are cycles.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let steps = self.sequence().unwrap_or_default();
        let starts = (0..steps.len()).step_by(TOGETHER).rev();
        starts.map(move |begin| Row { order: self, places: begin..steps.len().min(begin + TOGETHER) })
    }

    /// The longest time from the end of each step to the end of the plan, where that is known: in a plan without lags
    /// whose durations together fit in 32 bits. Meaningless while there are cycles.
    pub(crate) fn tails(&self) -> Option<&[u32]> {
        (!self.tails.is_empty()).then_some(&self.tails)
    }

    /// The steps in order, or nothing if there is a cycle.
    #[must_use]
    pub fn sequence(&self) -> Option<&[u32]> {
        self.components.is_empty().then_some(&self.sequence)
    }

    /// The sets of steps that wait for one another, each sorted.
    #[must_use]
    pub fn components(&self) -> &[Vec<u32>] {
        &self.components
    }
}

/// Reads distant memory before it is worked on: reads without consequences overlap, and changes in between would keep them
/// from it.
pub(crate) fn bring_near(values: impl Iterator<Item = u32>) {
    std::hint::black_box(values.fold(0, |all, value| all ^ value));
}

impl Waits {
    /// What the steps at these places wait for.
    fn of(&self, places: Range<usize>) -> &[u32] {
        let begin = places.start.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.on[begin as usize..self.ends[places.end - 1] as usize]
    }

    /// Adds what these steps wait for.
    fn add(&mut self, view: &View, steps: &[u32]) {
        let mut edges = [(0, 0); TOGETHER];
        for (step, edges) in steps.iter().zip(&mut edges) {
            let range = view.edges(*step as usize);
            *edges = (range.start, range.end);
        }
        bring_near(edges[..steps.len()].iter().filter_map(|(start, _)| view.targets.get(*start)).copied());
        for (step, (start, end)) in steps.iter().zip(edges) {
            self.on.extend(view.targets[start..end].iter().filter(|on| **on != NOWHERE && *on != step));
            self.ends.push(self.on.len() as u32);
        }
    }
}

/// What a step waits for, without itself and without what does not exist.
fn real(view: &View, step: usize) -> impl Iterator<Item = usize> + '_ {
    view.targets[view.edges(step)]
        .iter()
        .copied()
        .filter(move |on| *on != NOWHERE && *on as usize != step)
        .map(|on| on as usize)
}

/// Strongly connected components of two or more steps among those with open dependents.
fn components(view: &View, open: &[Open]) -> Vec<Vec<u32>> {
    let count = view.len();
    let (mut index, mut low) = (vec![UNSEEN; count], vec![0_u32; count]);
    let mut on_stack = vec![false; count];
    let (mut stack, mut calls): (Vec<u32>, Vec<(u32, u32)>) = (Vec::new(), Vec::new());
    let mut clock = 0;
    let mut found = Vec::new();
    for root in (0..count).filter(|step| open[*step].dependents > 0) {
        if index[root] != UNSEEN {
            continue;
        }
        calls.push((root as u32, 0));
        while let Some((step, edge)) = calls.pop() {
            let at = step as usize;
            if edge == 0 {
                index[at] = clock;
                low[at] = clock;
                clock += 1;
                stack.push(step);
                on_stack[at] = true;
            }
            let edges = view.edges(at);
            let mut deeper = false;
            for position in edges.start + edge as usize..edges.end {
                let on = view.targets[position];
                if on == NOWHERE || open[on as usize].dependents == 0 || on == step {
                    continue;
                }
                if index[on as usize] == UNSEEN {
                    // Come back to this same edge afterwards, and then see what was learnt behind it.
                    calls.push((step, (position - edges.start) as u32 + 1));
                    calls.push((on, 0));
                    deeper = true;
                    break;
                }
                if on_stack[on as usize] {
                    low[at] = low[at].min(index[on as usize]);
                }
            }
            if deeper {
                continue;
            }
            if low[at] == index[at] {
                let start = stack.iter().rposition(|member| *member == step).unwrap_or(0);
                let mut component = stack.split_off(start);
                component.iter().for_each(|member| on_stack[*member as usize] = false);
                if component.len() > 1 {
                    component.sort_unstable();
                    found.push(component);
                }
            }
            if let Some((parent, _)) = calls.last() {
                low[*parent as usize] = low[*parent as usize].min(low[at]);
            }
        }
    }
    found.sort_unstable();
    found
}

/// A cycle in the direction "waits for", beginning with its least name; and whether no shorter one exists.
pub(crate) fn shortest_cycle(view: &View, component: &[u32]) -> (Vec<u32>, bool) {
    let inside = |step: u32| component.binary_search(&step).ok();
    let degree = |step: u32| real(view, step as usize).filter(|on| inside(*on as u32).is_some()).count();
    let proven = component.len() <= PROVEN || component.iter().all(|step| degree(*step) == 1);
    let starts: Vec<u32> = if component.len() <= PROVEN {
        component.to_vec()
    } else {
        let mut by_degree: Vec<(usize, u32)> = component.iter().map(|step| (degree(*step), *step)).collect();
        by_degree.sort_unstable();
        let tried = if proven { 1 } else { TRIED };
        by_degree.iter().take(tried).map(|(_, step)| *step).collect()
    };
    let mut best: Vec<u32> = Vec::new();
    let mut parent = vec![UNSEEN; component.len()];
    for start in starts {
        parent.fill(UNSEEN);
        let mut open = VecDeque::from([start]);
        'search: while let Some(step) = open.pop_front() {
            for on in real(view, step as usize) {
                let Some(seat) = inside(on as u32) else { continue };
                if on as u32 == start {
                    let mut cycle = vec![step];
                    while let Some(last) = cycle.last().copied().filter(|last| *last != start) {
                        cycle.push(inside(last).map_or(start, |seat| parent[seat]));
                    }
                    cycle.reverse();
                    if best.is_empty() || cycle.len() < best.len() {
                        best = cycle;
                    }
                    break 'search;
                }
                if parent[seat] == UNSEEN {
                    parent[seat] = step;
                    open.push_back(on as u32);
                }
            }
        }
        if best.len() == 2 {
            break;
        }
    }
    let least = (0..best.len()).min_by_key(|at| view.id(best[*at] as usize)).unwrap_or(0);
    best.rotate_left(least);
    (best, proven)
}

/// Who waits for whom, directly or through others, as bits.
#[derive(Debug, Clone, Default)]
pub struct Ancestors {
    words: usize,
    bits: Vec<u64>,
}

impl Ancestors {
    pub(crate) fn of(view: &View, order: &Order) -> Option<Self> {
        let count = view.len();
        if count > 4_096 {
            return None;
        }
        let sequence = order.sequence()?;
        let words = count.div_ceil(64);
        let mut bits = vec![0_u64; words * count];
        for step in sequence.iter().map(|step| *step as usize) {
            for on in real(view, step) {
                for word in 0..words {
                    bits[step * words + word] |= bits[on * words + word];
                }
                bits[step * words + on / 64] |= 1 << (on % 64);
            }
        }
        Some(Self { words, bits })
    }

    /// True when `step` waits for `earlier`, directly or through others.
    #[must_use]
    pub fn waits_for(&self, step: usize, earlier: usize) -> bool {
        self.bits[step * self.words + earlier / 64] >> (earlier % 64) & 1 == 1
    }

    /// How many steps a step waits for.
    #[must_use]
    pub fn count(&self, step: usize) -> usize {
        self.bits[step * self.words..(step + 1) * self.words].iter().map(|word| word.count_ones() as usize).sum()
    }
}

/// The most steps of which none waits for another: by Dilworth's theorem (1950) the number of steps less a greatest
/// matching in the transitive closure.
pub(crate) fn width(ancestors: &Ancestors, count: usize) -> usize {
    let mut taken_by = vec![UNSEEN; count];
    let mut matched = 0;
    let mut came_from = vec![UNSEEN; count];
    for root in 0..count {
        // An augmenting path by breadth first: `came_from[later]` is the earlier step from which it was reached.
        came_from.fill(UNSEEN);
        let mut open = VecDeque::from([root as u32]);
        let mut end = None;
        'search: while let Some(earlier) = open.pop_front() {
            for later in 0..count {
                if came_from[later] != UNSEEN || !ancestors.waits_for(later, earlier as usize) {
                    continue;
                }
                came_from[later] = earlier;
                if taken_by[later] == UNSEEN {
                    end = Some(later);
                    break 'search;
                }
                open.push_back(taken_by[later]);
            }
        }
        let Some(mut later) = end else { continue };
        matched += 1;
        loop {
            let earlier = came_from[later];
            let before = taken_by.iter().position(|taken| *taken == earlier);
            taken_by[later] = earlier;
            match before {
                Some(before) if earlier != root as u32 => later = before,
                _ => break,
            }
        }
    }
    count - matched
}
