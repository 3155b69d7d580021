//! Everything there is, as long as it is small: all digraphs of up to five vertices, all permutations.

use crate::plan::{Id, Plan, Step};

/// All digraphs without self-loops on `n` labelled vertices, each as a plan of bare steps: 2^(n·(n−1)) of them.
#[derive(Debug, Clone)]
pub struct Digraphs {
    vertices: usize,
    next: u64,
    end: u64,
}

/// Enumerates all digraphs on up to 5 vertices (more are cut to 5): 1, 4, 64, 4,096 and 1,048,576.
#[must_use]
pub fn digraphs(vertices: usize) -> Digraphs {
    let vertices = vertices.min(5);
    Digraphs { vertices, next: 0, end: 1 << (vertices * vertices.saturating_sub(1)) }
}

impl Iterator for Digraphs {
    type Item = Plan;

    fn next(&mut self) -> Option<Plan> {
        if self.next == self.end {
            return None;
        }
        let mut bits = self.next;
        self.next += 1;
        let mut steps = Vec::with_capacity(self.vertices);
        for vertex in 0..self.vertices {
            let mut step = Step { id: Id::Number(vertex as u64), number: Some(vertex as i64 + 1), ..Step::default() };
            for other in (0..self.vertices).filter(|other| *other != vertex) {
                if bits & 1 == 1 {
                    step.after.push(Id::Number(other as u64).into());
                }
                bits >>= 1;
            }
            steps.push(step);
        }
        Some(Plan { steps, ..Plan::default() })
    }
}

/// Calls a function with every permutation of 0 to n−1 (Heap 1963); n is cut to 10.
pub fn permutations(n: usize, mut each: impl FnMut(&[usize])) {
    let n = n.min(10);
    let mut list: Vec<usize> = (0..n).collect();
    let mut counts = vec![0; n];
    each(&list);
    let mut at = 1;
    while at < n {
        if counts[at] < at {
            list.swap(if at % 2 == 0 { 0 } else { counts[at] }, at);
            each(&list);
            counts[at] += 1;
            at = 1;
        } else {
            counts[at] = 0;
            at += 1;
        }
    }
}
