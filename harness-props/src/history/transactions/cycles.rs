//! Which shapes of cycles there are, by component: the fewest kinds of edges first.

use super::anomaly::{Anomaly, Class, Isolation, Level, Order};
use super::graph::{ALONE, Components, Edges, Graph, RW, SESSION, Search, THEN, TIME, WR, WW};
use super::judge::Findings;
use crate::history::Budget;

/// Nodes, each with the kind of the edge that leaves it.
type Cycle = Vec<(u32, u8)>;

/// Nodes that a search may visit for a shape that the guarantee allows anyway: it is only mentioned.
const MENTION: u64 = 200_000;

/// Finds the cycles of every shape, in no order, in that of sessions, and in real time, as far as the guarantee goes.
pub(super) fn find(edges: Edges, isolation: Isolation, budget: &Budget, findings: &mut Findings) {
    let graph = edges.graph();
    for variant in [Order::Free, Order::Session, Order::RealTime] {
        let extra = match variant {
            Order::Free => THEN,
            Order::Session => THEN | SESSION,
            Order::RealTime => THEN | SESSION | TIME,
        };
        if variant > isolation.order {
            break;
        }
        let all = graph.components(0..graph.nodes() as u32, WW | WR | RW | extra, |_| true);
        if all.members.is_empty() {
            continue;
        }
        let search = Search::new(graph.nodes());
        let mut hunt = Hunt { search, graph: &graph, extra, variant, isolation, budget, findings };
        for number in 0..all.members.len() {
            hunt.component(&all, number);
        }
    }
}

/// The search within the components of one variant.
struct Hunt<'a> {
    graph: &'a Graph,
    search: Search,
    extra: u8,
    variant: Order,
    isolation: Isolation,
    budget: &'a Budget,
    findings: &'a mut Findings,
}

impl Hunt<'_> {
    /// The gravest shape of a component: what holds a graver one holds lesser ones too, through the same transactions, and no
    /// level allows the graver and forbids the lesser.
    fn component(&mut self, all: &Components, number: usize) {
        let members = &all.members[number];
        let inside = |node: u32| all.of[node as usize] as usize == number;
        let nodes = || members.iter().copied();
        let writes = self.graph.components(nodes(), WW | self.extra, inside);
        if self.dependencies(&writes, members, WW, WW | self.extra, Class::G0) {
            return;
        }
        let without_anti = WW | WR | self.extra;
        let reads = self.graph.components(nodes(), without_anti, inside);
        if self.dependencies(&reads, members, WR, without_anti, Class::G1c) {
            return;
        }
        let mut anti: Vec<(u32, u32, u8)> = Vec::new();
        for node in nodes() {
            anti.extend(self.graph.next(node, RW).filter(|(to, _)| inside(*to)).map(|(to, kind)| (node, to, kind)));
        }
        // A single anti-dependency is closed by a path of the others, which only climbs.
        let level = self.graph.levels(&reads, without_anti);
        let has_single = self.first(Class::GSingle, &anti, |search, graph, edge| {
            let top = level[edge.0 as usize];
            let below = |node: u32| inside(node) && level[node as usize] <= top;
            if below(edge.1) { search.cycle(graph, edge, without_anti, false, below) } else { None }
        });
        let shapes = without_anti | RW;
        let _ = has_single
            || self.first(Class::GNonadjacent, &anti, |search, graph, edge| {
                search.cycle(graph, edge, shapes, true, inside)
            })
            || self.first(Class::G2Item, &anti, |search, graph, edge| {
                search.cycle(graph, edge, shapes, false, inside).filter(is_skew)
            });
    }

    /// Looks for a shape from one anti-dependency after the other; true when it was found.
    fn first(
        &mut self,
        class: Class,
        anti: &[(u32, u32, u8)],
        mut cycle: impl FnMut(&mut Search, &Graph, (u32, u32, u8)) -> Option<Cycle>,
    ) -> bool {
        let is_forbidden = Anomaly { class, order: self.variant }.is_forbidden_by(self.isolation);
        // At a level that forbids every shape, which of them it is decides nothing.
        let is_decisive = is_forbidden && (class != Class::GNonadjacent || self.isolation.level < Level::Serializable);
        self.search.left = if is_decisive { self.budget.limit() } else { self.budget.limit().min(MENTION) };
        for edge in anti {
            if let Some(cycle) = cycle(&mut self.search, self.graph, *edge) {
                self.note(class, Some(cycle));
                return true;
            }
            if self.search.left == 0 || self.budget.is_stopped() {
                self.findings.is_incomplete |= is_decisive;
                return false;
            }
        }
        false
    }

    /// A cycle over these kinds that has at least one edge of `kind`; true when there is one.
    fn dependencies(&mut self, parts: &Components, members: &[u32], kind: u8, kinds: u8, class: Class) -> bool {
        if parts.members.is_empty() {
            return false;
        }
        let edge = members.iter().filter(|node| parts.of[**node as usize] != ALONE).find_map(|node| {
            let part = parts.of[*node as usize];
            let (to, kind) = self.graph.next(*node, kind).find(|(to, _)| parts.of[*to as usize] == part)?;
            Some((*node, to, kind))
        });
        if let Some(edge) = edge {
            let part = parts.of[edge.0 as usize];
            self.search.left = u64::MAX;
            let cycle = self.search.cycle(self.graph, edge, kinds, false, |node| parts.of[node as usize] == part);
            self.note(class, cycle);
        }
        edge.is_some()
    }

    fn note(&mut self, class: Class, cycle: Option<Cycle>) {
        let Some(cycle) = cycle else { return };
        let kinds = cycle.iter().fold(0, |kinds, (_, kind)| kinds | kind);
        let order = match (kinds & TIME != 0, kinds & SESSION != 0) {
            (true, _) => Order::RealTime,
            (false, true) => Order::Session,
            (false, false) => Order::Free,
        };
        let class = if class == Class::GNonadjacent && is_long_fork(&cycle) { Class::LongFork } else { class };
        if order == self.variant {
            self.findings.cycle(Anomaly { class, order }, cycle);
        }
    }
}

/// True for a cycle with anti-dependencies in a row, where edges over auxiliary nodes count once.
fn is_skew(cycle: &Cycle) -> bool {
    let kinds: Vec<u8> = cycle.iter().map(|(_, kind)| *kind).filter(|kind| *kind != THEN).collect();
    let next = kinds.iter().cycle().skip(1);
    kinds.len() > 1 && kinds.iter().zip(next).any(|(kind, next)| kind & next & RW != 0)
}

/// True for four transactions in which two readings and two anti-dependencies take turns.
fn is_long_fork(cycle: &Cycle) -> bool {
    let kinds: Vec<u8> = cycle.iter().map(|(_, kind)| *kind).filter(|kind| *kind != THEN).collect();
    matches!(kinds[..], [WR, RW, WR, RW] | [RW, WR, RW, WR])
}

#[cfg(test)]
mod tests {
    use super::{Cycle, RW, THEN, WR, is_long_fork, is_skew};

    fn cycle(kinds: &[u8]) -> Cycle {
        (0..).zip(kinds).map(|(node, kind)| (node, *kind)).collect()
    }

    #[test]
    fn a_skew_has_two_anti_dependencies_in_a_row_around_the_ring() {
        for kinds in [&[RW, RW][..], &[RW, WR, RW], &[WR, RW, RW], &[RW, THEN, RW], &[WR, RW, THEN, THEN, RW, WR]] {
            assert!(is_skew(&cycle(kinds)), "{kinds:?}");
        }
        for kinds in [&[RW][..], &[WR, WR], &[RW, WR], &[WR, RW, WR], &[RW, WR, RW, WR], &[RW, THEN]] {
            assert!(!is_skew(&cycle(kinds)), "{kinds:?}");
        }
    }

    #[test]
    fn a_long_fork_takes_turns() {
        for kinds in [&[WR, RW, WR, RW][..], &[RW, WR, RW, WR], &[RW, THEN, WR, RW, WR]] {
            assert!(is_long_fork(&cycle(kinds)), "{kinds:?}");
        }
        for kinds in [&[RW, RW][..], &[RW, WR, WR, RW], &[WR, RW, WR, RW, WR], &[WR, RW]] {
            assert!(!is_long_fork(&cycle(kinds)), "{kinds:?}");
        }
    }
}
