//! Who depends on whom: edges in compressed rows, strong components, and shortest cycles of a given shape.
//!
//! Nodes are transactions by the index of their operation; beyond them stand auxiliary nodes that bundle many edges of one
//! kind. Nothing here recurses: a component may be as large as the history.

/// The later transaction overwrote what the earlier one wrote.
pub(super) const WW: u8 = 1;
/// The later transaction read what the earlier one wrote.
pub(super) const WR: u8 = 2;
/// The later transaction overwrote what the earlier one read.
pub(super) const RW: u8 = 4;
/// Same process, one after the other.
pub(super) const SESSION: u8 = 8;
/// The earlier one ended before the later one began.
pub(super) const TIME: u8 = 16;
/// From an auxiliary node to a transaction: continues the edge that led to the auxiliary node.
pub(super) const THEN: u8 = 32;

/// Edges as they are found.
#[derive(Debug, Default)]
pub(super) struct Edges {
    list: Vec<(u32, u32, u8)>,
    nodes: u32,
}

impl Edges {
    /// No edges between so many transactions.
    pub(super) fn new(transactions: usize) -> Self {
        Self { list: Vec::new(), nodes: u32::try_from(transactions).unwrap_or(u32::MAX) }
    }

    /// Adds an edge, unless it would be a loop.
    pub(super) fn link(&mut self, from: u32, to: u32, kind: u8) {
        if from != to {
            self.list.push((from, to, kind));
        }
    }

    fn auxiliary(&mut self) -> u32 {
        self.nodes += 1;
        self.nodes - 1
    }

    /// Lets many transactions be linked to all of these with one or two edges each.
    pub(super) fn fan(&mut self, mut members: Vec<u32>) -> Fan {
        members.sort_unstable();
        members.dedup();
        let mut fan = Fan { up_to: Vec::new(), from: Vec::new(), members };
        if fan.members.len() < 2 {
            return fan;
        }
        for (n, member) in fan.members.iter().enumerate() {
            let node = self.auxiliary();
            self.link(node, *member, THEN);
            if n > 0 {
                self.link(node, fan.up_to[n - 1], THEN);
            }
            fan.up_to.push(node);
        }
        for member in fan.members.iter().rev() {
            let node = self.auxiliary();
            self.link(node, *member, THEN);
            if let Some(next) = fan.from.last() {
                self.link(node, *next, THEN);
            }
            fan.from.push(node);
        }
        fan.from.reverse();
        fan
    }

    /// Links a transaction to all members of a fan but itself.
    pub(super) fn link_all(&mut self, from: u32, fan: &Fan, kind: u8) {
        match (fan.members.as_slice(), fan.members.binary_search(&from)) {
            ([], _) => {}
            ([only], _) => self.link(from, *only, kind),
            (_, Err(_)) => self.list.extend(fan.up_to.last().map(|all| (from, *all, kind))),
            (_, Ok(at)) => {
                self.list.extend(at.checked_sub(1).map(|before| (from, fan.up_to[before], kind)));
                self.list.extend(fan.from.get(at + 1).map(|after| (from, *after, kind)));
            }
        }
    }

    /// How many edges there are of these kinds.
    pub(super) fn count(&self, kinds: u8) -> usize {
        self.list.iter().filter(|(_, _, kind)| kind & kinds != 0).count()
    }

    /// What these edges, their graph and the search in it take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let (edge, row) = (size_of::<(u32, u32, u8)>(), size_of::<u32>() + size_of::<u8>());
        // Rows twice while they are sorted; marks of components; two states of a search with where each came from.
        let node = 2 * size_of::<u32>() + 5 * size_of::<u32>() + 2 * (size_of::<u32>() + size_of::<(u32, u8)>());
        self.list.capacity() * edge + self.list.len() * row + self.nodes as usize * node
    }

    /// Sorted by where they begin.
    pub(super) fn graph(self) -> Graph {
        let nodes = self.nodes as usize;
        let mut start = vec![0_u32; nodes + 1];
        for (from, _, _) in &self.list {
            start[*from as usize + 1] += 1;
        }
        for n in 0..nodes {
            start[n + 1] += start[n];
        }
        let mut place = start.clone();
        let mut to = vec![0_u32; self.list.len()];
        let mut kind = vec![0_u8; self.list.len()];
        for (from, target, of) in self.list {
            let at = &mut place[from as usize];
            to[*at as usize] = target;
            kind[*at as usize] = of;
            *at += 1;
        }
        Graph { start, to, kind }
    }
}

/// Transactions that many others are linked to, through auxiliary nodes: one for each beginning of the list, one for each end.
#[derive(Debug)]
pub(super) struct Fan {
    members: Vec<u32>,
    /// Leads to the members up to this one.
    up_to: Vec<u32>,
    /// Leads to the members from this one on.
    from: Vec<u32>,
}

/// A graph in compressed rows.
#[derive(Debug)]
pub(super) struct Graph {
    start: Vec<u32>,
    to: Vec<u32>,
    kind: Vec<u8>,
}

/// No component: the node is alone.
pub(super) const ALONE: u32 = u32::MAX;

/// Strong components of more than one node.
#[derive(Debug)]
pub(super) struct Components {
    /// Component of each node; [`ALONE`] for the others. Edges between components lead to lower numbers.
    pub(super) of: Vec<u32>,
    /// Nodes of each component.
    pub(super) members: Vec<Vec<u32>>,
    /// All nodes that were visited, each component in one piece, what depends on others first.
    order: Vec<u32>,
}

impl Graph {
    /// How many nodes there are, auxiliary ones included.
    pub(super) fn nodes(&self) -> usize {
        self.start.len() - 1
    }

    /// Where the edges of these kinds lead from a node, each with its kind.
    pub(super) fn next(&self, node: u32, kinds: u8) -> impl Iterator<Item = (u32, u8)> + '_ {
        let range = self.start[node as usize] as usize..self.start[node as usize + 1] as usize;
        let edges = self.to[range.clone()].iter().zip(&self.kind[range]);
        edges.map(|(to, kind)| (*to, *kind)).filter(move |(_, kind)| kind & kinds != 0)
    }

    /// The length of the longest path to each node over edges of these kinds, by components: a path only climbs, so that one
    /// need not be looked for from a higher node to a lower one.
    pub(super) fn levels(&self, parts: &Components, kinds: u8) -> Vec<u32> {
        let mut level = vec![0; self.nodes()];
        let is_one =
            |a: &u32, b: &u32| parts.of[*a as usize] != ALONE && parts.of[*a as usize] == parts.of[*b as usize];
        let groups: Vec<&[u32]> = parts.order.chunk_by(is_one).collect();
        for group in groups.into_iter().rev() {
            let height = group.iter().map(|node| level[*node as usize]).max().unwrap_or(0);
            for node in group {
                level[*node as usize] = height;
            }
            for node in group {
                for (to, _) in self.next(*node, kinds) {
                    let is_same = parts.of[to as usize] != ALONE && parts.of[to as usize] == parts.of[*node as usize];
                    if !is_same {
                        level[to as usize] = level[to as usize].max(height + 1);
                    }
                }
            }
        }
        level
    }

    /// Strong components over edges of these kinds among these nodes (Tarjan, *Depth-First Search and Linear Graph
    /// Algorithms*, 1972, with a stack of its own).
    pub(super) fn components(
        &self,
        nodes: impl Iterator<Item = u32>,
        kinds: u8,
        inside: impl Fn(u32) -> bool,
    ) -> Components {
        const UNSEEN: u32 = u32::MAX;
        let count = self.nodes();
        let mut index = vec![UNSEEN; count];
        let mut low = vec![0_u32; count];
        let mut found = Components { of: vec![ALONE; count], members: Vec::new(), order: Vec::new() };
        let mut is_done = vec![false; count];
        let (mut stack, mut calls): (Vec<u32>, Vec<(u32, u32)>) = (Vec::new(), Vec::new());
        let mut next_index = 0;
        for root in nodes {
            if index[root as usize] != UNSEEN {
                continue;
            }
            calls.push((root, self.start[root as usize]));
            index[root as usize] = next_index;
            low[root as usize] = next_index;
            next_index += 1;
            stack.push(root);
            while let Some((node, edge)) = calls.last_mut() {
                let from = *node;
                if *edge < self.start[from as usize + 1] {
                    let at = *edge as usize;
                    *edge += 1;
                    let to = self.to[at];
                    if self.kind[at] & kinds == 0 || !inside(to) || is_done[to as usize] {
                        continue;
                    }
                    if index[to as usize] == UNSEEN {
                        index[to as usize] = next_index;
                        low[to as usize] = next_index;
                        next_index += 1;
                        stack.push(to);
                        calls.push((to, self.start[to as usize]));
                    } else {
                        low[from as usize] = low[from as usize].min(index[to as usize]);
                    }
                    continue;
                }
                calls.pop();
                if let Some((parent, _)) = calls.last() {
                    low[*parent as usize] = low[*parent as usize].min(low[from as usize]);
                }
                if low[from as usize] == index[from as usize] {
                    pop_component(from, &mut stack, &mut is_done, &mut found);
                }
            }
        }
        found
    }
}

fn pop_component(root: u32, stack: &mut Vec<u32>, is_done: &mut [bool], found: &mut Components) {
    let at = stack.iter().rposition(|node| *node == root).unwrap_or(0);
    let members = stack.split_off(at);
    for node in &members {
        is_done[*node as usize] = true;
    }
    found.order.extend(&members);
    if members.len() > 1 {
        let number = u32::try_from(found.members.len()).unwrap_or(ALONE);
        for node in &members {
            found.of[*node as usize] = number;
        }
        found.members.push(members);
    }
}

/// Breadth-first search that remembers how it came; made once, used often.
#[derive(Debug)]
pub(super) struct Search {
    stamp: Vec<u32>,
    round: u32,
    came: Vec<(u32, u8)>,
    queue: Vec<u32>,
    /// Nodes that may still be visited.
    pub(super) left: u64,
}

impl Search {
    pub(super) fn new(nodes: usize) -> Self {
        Self { stamp: vec![0; nodes * 2], round: 0, came: vec![(0, 0); nodes * 2], queue: Vec::new(), left: u64::MAX }
    }

    /// A shortest cycle that begins with the edge from `from` to `to` and returns over edges of these kinds within `inside`:
    /// its nodes in order, each with the kind of the edge that leaves it. `is_apart` forbids two anti-dependencies in a row.
    pub(super) fn cycle(
        &mut self,
        graph: &Graph,
        (from, to, first): (u32, u32, u8),
        kinds: u8,
        is_apart: bool,
        inside: impl Fn(u32) -> bool,
    ) -> Option<Vec<(u32, u8)>> {
        self.round += 1;
        self.queue.clear();
        // Where the last edge decides what may follow, a node is two states: reached over an anti-dependency or not.
        let state = |node: u32, last: u8| node * 2 + u32::from(is_apart && last & RW != 0);
        let begin = state(to, first);
        self.stamp[begin as usize] = self.round;
        self.queue.push(begin);
        let mut head = 0;
        while let Some(&at) = self.queue.get(head) {
            head += 1;
            if self.left == 0 {
                return None;
            }
            self.left -= 1;
            let node = at / 2;
            for (next, kind) in graph.next(node, kinds) {
                if !inside(next) || (is_apart && at % 2 == 1 && kind & RW != 0) {
                    continue;
                }
                // An auxiliary node passes on the edge that led to it.
                let last = if kind == THEN && at % 2 == 1 { RW } else { kind };
                if next == from {
                    if is_apart && last & RW != 0 && first & RW != 0 {
                        continue;
                    }
                    let mut cycle = vec![(node, kind)];
                    let mut at = at;
                    while at != begin {
                        let (before, kind) = self.came[at as usize];
                        cycle.push((before / 2, kind));
                        at = before;
                    }
                    cycle.push((from, first));
                    cycle.reverse();
                    return Some(cycle);
                }
                let reached = state(next, last);
                if self.stamp[reached as usize] != self.round {
                    self.stamp[reached as usize] = self.round;
                    self.came[reached as usize] = (at, kind);
                    self.queue.push(reached);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Edges, RW, Search, THEN, WR, WW};

    #[test]
    fn a_chain_and_a_ring_of_a_million_need_no_stack() {
        let mut edges = Edges::new(1_000_000);
        for n in 0..999_999 {
            edges.link(n, n + 1, WW);
        }
        let chain = edges.graph();
        assert!(chain.components(0..1_000_000, WW, |_| true).members.is_empty());
        let mut edges = Edges::new(1_000_000);
        for n in 0..1_000_000 {
            edges.link(n, (n + 1) % 1_000_000, WW);
        }
        assert_eq!(edges.graph().components(0..1_000_000, WW, |_| true).members[0].len(), 1_000_000);
    }

    #[test]
    fn bytes_grow_with_edges_and_nodes() {
        let edges = |nodes: u32, links: u32| {
            let mut edges = Edges::new(nodes as usize);
            (0..links).for_each(|n| edges.link(n % nodes, (n + 1) % nodes, WW));
            edges
        };
        let (alone, linked) = (edges(1_000, 0), edges(1_000, 500));
        // Seven numbers of four bytes and two states of a search of twelve bytes and up for each node.
        assert!((52_000..80_000).contains(&alone.bytes()), "{}", alone.bytes());
        assert_eq!(linked.bytes() - alone.bytes(), linked.list.capacity() * 12 + 500 * 5);
        assert_eq!(edges(2_000, 0).bytes(), 2 * alone.bytes());
    }

    #[test]
    fn a_fan_reaches_everybody_but_oneself() {
        for size in 1..6_u32 {
            let mut edges = Edges::new(7);
            let fan = edges.fan((0..size).collect());
            for from in 0..7 {
                edges.link_all(from, &fan, RW);
            }
            let graph = edges.graph();
            for from in 0..7 {
                let mut open: Vec<u32> = graph.next(from, RW).map(|(to, _)| to).collect();
                let mut reached = std::collections::BTreeSet::new();
                while let Some(node) = open.pop() {
                    if node < 7 {
                        reached.insert(node);
                    } else {
                        open.extend(graph.next(node, THEN).map(|(to, _)| to));
                    }
                }
                let expected = (0..size).filter(|to| *to != from).collect();
                assert_eq!(reached, expected, "{from} of {size}");
            }
        }
    }

    #[test]
    fn only_the_kinds_asked_for_make_a_cycle() {
        let mut edges = Edges::new(3);
        edges.link(0, 1, WW);
        edges.link(1, 2, WR);
        edges.link(2, 0, RW);
        let graph = edges.graph();
        assert!(graph.components(0..3, WW | WR, |_| true).members.is_empty());
        assert_eq!(graph.components(0..3, WW | WR | RW, |_| true).members.len(), 1);
        let mut search = Search::new(3);
        assert_eq!(search.cycle(&graph, (2, 0, RW), WW, false, |_| true), None);
        let cycle = search.cycle(&graph, (2, 0, RW), WW | WR, false, |_| true);
        assert_eq!(cycle, Some(vec![(2, RW), (0, WW), (1, WR)]));
    }

    #[test]
    fn two_anti_dependencies_in_a_row_are_kept_apart() {
        let mut edges = Edges::new(2);
        edges.link(0, 1, RW);
        edges.link(1, 0, RW);
        let skew = edges.graph();
        let mut search = Search::new(2);
        assert!(search.cycle(&skew, (0, 1, RW), RW | WW | WR, true, |_| true).is_none());
        assert!(search.cycle(&skew, (0, 1, RW), RW | WW | WR, false, |_| true).is_some());
    }
}
