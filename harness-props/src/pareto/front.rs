//! The front of many points; less is better throughout.

use std::cmp::Ordering;

/// The filter hands over to divide and conquer beyond this front.
const FILTER: usize = 4_000;
/// Pairs that are compared one by one rather than divided.
const PAIRS: usize = 4_096;
/// Divided parts of this size are compared one by one.
const PART: usize = 48;
/// Runs that merging begins with.
const RUN: usize = 64;

pub(super) type Point<const D: usize> = ([f64; D], u32);

/// Indices of the front in ascending order.
pub(super) fn of(values: &[f64], objectives: usize, keep: bool) -> Vec<usize> {
    match objectives {
        1 => front::<1>(values, objectives, keep),
        2 => front::<2>(values, objectives, keep),
        3 => front::<3>(values, objectives, keep),
        4 => front::<4>(values, objectives, keep),
        5 => front::<5>(values, objectives, keep),
        6 => front::<6>(values, objectives, keep),
        7..=8 => front::<8>(values, objectives, keep),
        9..=16 => front::<16>(values, objectives, keep),
        _ => front::<32>(values, objectives, keep),
    }
}

/// Rows shorter than `D` are filled with zeros, which changes no comparison.
fn front<const D: usize>(values: &[f64], objectives: usize, keep: bool) -> Vec<usize> {
    let row = |at: usize| {
        let mut row = [0.0; D];
        row[..objectives].copy_from_slice(&values[at * objectives..(at + 1) * objectives]);
        row
    };
    let count = values.len() / objectives;
    let mut points = thinned::<D>(count, row);
    points.sort_unstable_by(|one, other| lexicographic(&one.0, &other.0).then(one.1.cmp(&other.1)));
    // Equal points follow one another now; from here on only the first of them is looked at.
    let mut distinct: Vec<Point<D>> = Vec::with_capacity(points.len());
    let mut repeats: Vec<(u32, u32)> = Vec::new();
    for point in points {
        match distinct.last() {
            Some(first) if first.0 == point.0 => repeats.push((first.1, point.1)),
            _ => distinct.push(point),
        }
    }
    let kept = match D {
        1 => distinct.into_iter().take(1).collect(),
        2 => staircase(distinct),
        3 => sweep(distinct),
        _ => filter(&distinct),
    };
    let mut indices: Vec<usize> = kept.iter().map(|point| point.1 as usize).collect();
    indices.sort_unstable();
    if keep && !repeats.is_empty() {
        let also = repeats.iter().filter(|(first, _)| indices.binary_search(&(*first as usize)).is_ok());
        let also: Vec<usize> = also.map(|(_, repeat)| *repeat as usize).collect();
        indices.extend(also);
        indices.sort_unstable();
    }
    indices
}

/// All points but those that a few good ones dominate: of evenly spread points nearly nothing is left to sort.
pub(super) fn thinned<const D: usize>(count: usize, row: impl Fn(usize) -> [f64; D]) -> Vec<Point<D>> {
    const PICKS: usize = 24;
    if count < 1_000 {
        return (0..count).map(|at| (row(at), at as u32)).collect();
    }
    // The best by sum of each part of the input.
    let mut picks: Vec<[f64; D]> = Vec::with_capacity(PICKS);
    for part in 0..PICKS {
        let best = (count * part / PICKS..count * (part + 1) / PICKS)
            .map(&row)
            .min_by(|one, other| sum(one).total_cmp(&sum(other)));
        picks.extend(best);
    }
    picks.sort_unstable_by(|one, other| sum(one).total_cmp(&sum(other)));
    let left = (0..count).map(|at| (row(at), at as u32));
    left.filter(|(point, _)| !picks.iter().any(|pick| covers(pick, point) && pick != point)).collect()
}

fn sum<const D: usize>(point: &[f64; D]) -> f64 {
    point.iter().sum()
}

#[inline]
fn covers<const D: usize>(one: &[f64; D], other: &[f64; D]) -> bool {
    // Without early exits: the compiler compares all at once.
    let mut all = true;
    for at in 0..D {
        all &= one[at] <= other[at];
    }
    all
}

fn lexicographic<const D: usize>(one: &[f64; D], other: &[f64; D]) -> Ordering {
    one.iter()
        .zip(other)
        .map(|(one, other)| one.total_cmp(other))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Two objectives: whoever is best so far in the second.
fn staircase<const D: usize>(points: Vec<Point<D>>) -> Vec<Point<D>> {
    let mut best = f64::INFINITY;
    points
        .into_iter()
        .filter(|point| {
            point.0[1] < best && {
                best = point.0[1];
                true
            }
        })
        .collect()
}

/// Three objectives: in order of the first, a staircase of the other two.
fn sweep<const D: usize>(points: Vec<Point<D>>) -> Vec<Point<D>> {
    let mut stairs: std::collections::BTreeMap<Ordered, f64> = std::collections::BTreeMap::new();
    let mut kept = Vec::new();
    for point in points {
        let (second, third) = (Ordered(point.0[1]), point.0[2]);
        if stairs.range(..=second).next_back().is_some_and(|(_, least)| *least <= third) {
            continue;
        }
        while let Some((step, _)) = stairs.range(second..).next().filter(|(_, least)| **least >= third) {
            let step = *step;
            stairs.remove(&step);
        }
        stairs.insert(second, third);
        kept.push(point);
    }
    kept
}

#[derive(Clone, Copy, PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Four and more: in order of sums a point can only be dominated by an earlier one.
fn filter<const D: usize>(distinct: &[Point<D>]) -> Vec<Point<D>> {
    let mut by_sum: Vec<(f64, u32)> =
        distinct.iter().enumerate().map(|(at, point)| (sum(&point.0), at as u32)).collect();
    // Sums that rounding made equal stay in lexicographic order, in which whoever dominates comes first too.
    by_sum.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    let mut kept: Vec<Point<D>> = Vec::new();
    for (_, at) in by_sum {
        let point = distinct[at as usize];
        if kept.iter().any(|one| covers(&one.0, &point.0)) {
            continue;
        }
        kept.push(point);
        if D == 4 && kept.len() > FILTER / 4 {
            return merged(distinct);
        }
        if kept.len() > FILTER {
            return divided(distinct);
        }
    }
    kept
}

/// Four objectives, distinct points in lexicographic order: only an earlier point can dominate a later one, so what is
/// left is to ask whether an earlier one covers it in the other three. Runs are merged by the second objective as in a
/// merge sort, and a tree of least fourths over thirds (Fenwick 1994) answers: n·log² n steps in all (Bentley 1980).
fn merged<const D: usize>(points: &[Point<D>]) -> Vec<Point<D>> {
    let [second, third, fourth] = [1, 2, 3].map(|axis| ranks(points, axis));
    let mut covered = vec![false; points.len()];
    for (part, chunk) in points.chunks(RUN).enumerate() {
        let first = part * RUN;
        for at in 1..chunk.len() {
            covered[first + at] = chunk[..at].iter().any(|one| covers(&one.0, &chunk[at].0));
        }
    }
    // Rank and index in one number: sorted by rank, and read without a look elsewhere.
    let keyed =
        |ranks: &[u32]| -> Vec<u64> { (0..).zip(ranks).map(|(at, rank)| u64::from(*rank) << 32 | at).collect() };
    let (mut by_second, mut by_third) = (keyed(&second), keyed(&third));
    for runs in [&mut by_second, &mut by_third] {
        runs.chunks_mut(RUN).for_each(<[u64]>::sort_unstable);
    }
    let mut seats = vec![0_u32; points.len()];
    let mut tree = Least::default();
    let mut width = RUN;
    while width < points.len() {
        for (by_second, by_third) in by_second.chunks_mut(2 * width).zip(by_third.chunks_mut(2 * width)) {
            by_third.sort(); // Two runs: one merge.
            if by_second.len() > width {
                tree.clear(seat(by_third, &mut seats));
                let (earlier, later) = by_second.split_at(width);
                let mut earlier = earlier.iter().peekable();
                for key in later {
                    while let Some(one) = earlier.next_if(|one| **one >> 32 <= *key >> 32) {
                        let one = *one as u32 as usize;
                        if !covered[one] {
                            tree.lower(seats[one], fourth[one]);
                        }
                    }
                    let at = *key as u32 as usize;
                    covered[at] = covered[at] || tree.least_to(seats[at]) <= fourth[at];
                }
                by_second.sort();
            }
        }
        width *= 2;
    }
    points.iter().zip(&covered).filter(|(_, covered)| !**covered).map(|(point, _)| *point).collect()
}

/// Places of the values of one objective among all; equal values share one.
fn ranks<const D: usize>(points: &[Point<D>], axis: usize) -> Vec<u32> {
    let mut order: Vec<(f64, u32)> = (0..).zip(points).map(|(at, point)| (point.0[axis], at)).collect();
    order.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    let mut ranks = vec![0; points.len()];
    let (mut rank, mut last) = (0, f64::NAN);
    for (value, at) in order {
        rank += u32::from(value != last);
        last = value;
        ranks[at as usize] = rank;
    }
    ranks
}

/// Gives everybody in an order their place in it, equal ranks the same; returns how many there are.
fn seat(order: &[u64], seats: &mut [u32]) -> usize {
    let (mut place, mut last) = (0, u64::MAX);
    for key in order {
        place += u32::from(key >> 32 != last);
        last = key >> 32;
        seats[*key as u32 as usize] = place;
    }
    place as usize
}

/// The least value among places 1 to n, as a Fenwick tree.
#[derive(Default)]
struct Least(Vec<u32>);

impl Least {
    fn clear(&mut self, places: usize) {
        self.0.clear();
        self.0.resize(places + 1, u32::MAX);
    }

    fn lower(&mut self, place: u32, value: u32) {
        let mut at = place as usize;
        while at < self.0.len() {
            self.0[at] = self.0[at].min(value);
            at += at & at.wrapping_neg();
        }
    }

    fn least_to(&self, place: u32) -> u32 {
        let (mut at, mut least) = (place as usize, u32::MAX);
        while at > 0 {
            least = least.min(self.0[at]);
            at &= at - 1;
        }
        least
    }
}

/// The front of distinct points in lexicographic order: of each half, and then the second without what the first
/// dominates. No point of the second half can dominate one of the first.
fn divided<const D: usize>(points: &[Point<D>]) -> Vec<Point<D>> {
    let mut fronts: Vec<Vec<Point<D>>> = points.chunks(PART).map(one_by_one).collect();
    let mut alive = Vec::new();
    while fronts.len() > 1 {
        let mut merged = Vec::with_capacity(fronts.len().div_ceil(2));
        let mut halves = fronts.into_iter();
        while let Some(mut first) = halves.next() {
            if let Some(second) = halves.next() {
                alive.clear();
                alive.resize(second.len(), true);
                let all: Vec<u32> = (0..second.len() as u32).collect();
                let by: Vec<u32> = (0..first.len() as u32).collect();
                Marriage { first: &first, second: &second, alive: &mut alive }.strike(by, all, 1);
                let left: Vec<Point<D>> =
                    second.iter().zip(&alive).filter(|(_, alive)| **alive).map(|(point, _)| *point).collect();
                first.extend(left);
            }
            merged.push(first);
        }
        fronts = merged;
    }
    fronts.pop().unwrap_or_default()
}

fn one_by_one<const D: usize>(points: &[Point<D>]) -> Vec<Point<D>> {
    let mut kept: Vec<Point<D>> = Vec::with_capacity(points.len());
    for point in points {
        if !kept.iter().any(|one| covers(&one.0, &point.0)) {
            kept.push(*point);
        }
    }
    kept
}

struct Marriage<'a, const D: usize> {
    first: &'a [Point<D>],
    second: &'a [Point<D>],
    alive: &'a mut [bool],
}

impl<const D: usize> Marriage<'_, D> {
    /// Strikes out of `all` what some of `by` covers in the objectives from `from` on; it does in those before. The
    /// depth is the logarithm of the number of points, times the number of objectives.
    fn strike(&mut self, mut by: Vec<u32>, mut all: Vec<u32>, from: usize) {
        all.retain(|other| self.alive[*other as usize]);
        if by.is_empty() || all.is_empty() {
            return;
        }
        if by.len() * all.len() <= PAIRS {
            for other in all {
                let point = &self.second[other as usize].0;
                let covered = by.iter().any(|one| {
                    let one = &self.first[*one as usize].0;
                    (from..D).all(|at| one[at] <= point[at])
                });
                self.alive[other as usize] &= !covered;
            }
            return;
        }
        if from + 2 >= D {
            return self.sweep(by, all, from);
        }
        let (first, second) = (self.first, self.second);
        let mut middle: Vec<f64> = by.iter().map(|at| first[*at as usize].0[from]).collect();
        middle.extend(all.iter().map(|at| second[*at as usize].0[from]));
        let seat = middle.len() / 2;
        let pivot = *middle.select_nth_unstable_by(seat, f64::total_cmp).1;
        let least = middle[..seat].iter().copied().fold(pivot, f64::min);
        // Below the pivot and not; if nothing is below, up to it and above.
        let low = |value: f64| if least < pivot { value < pivot } else { value <= pivot };
        let by_high: Vec<u32> = by.extract_if(.., |at| !low(first[*at as usize].0[from])).collect();
        let all_high: Vec<u32> = all.extract_if(.., |at| !low(second[*at as usize].0[from])).collect();
        if by_high.is_empty() && all_high.is_empty() {
            return self.strike(by, all, from + 1); // All are equal here.
        }
        self.strike(by.clone(), all_high.clone(), from + 1);
        self.strike(by, all, from);
        self.strike(by_high, all_high, from);
    }

    /// The last one or two objectives: in order of the one, the least of the other so far.
    fn sweep(&mut self, mut by: Vec<u32>, mut all: Vec<u32>, from: usize) {
        let (first, second) = (self.first, self.second);
        let last = D - 1;
        by.sort_unstable_by(|one, other| first[*one as usize].0[from].total_cmp(&first[*other as usize].0[from]));
        all.sort_unstable_by(|one, other| second[*one as usize].0[from].total_cmp(&second[*other as usize].0[from]));
        let mut least = f64::INFINITY;
        let mut next = 0;
        for other in all {
            let point = &second[other as usize].0;
            while let Some(one) = by.get(next).map(|at| &first[*at as usize].0).filter(|one| one[from] <= point[from]) {
                least = least.min(one[last]);
                next += 1;
            }
            self.alive[other as usize] &= least > point[last];
        }
    }
}
