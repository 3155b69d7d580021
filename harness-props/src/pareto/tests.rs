//! The front against brute force, exact counts, and relations that hold for any set.

use super::{Duplicates, Points, Sense, hypervolume};
use crate::env::rounds;
use crate::generate::{Random, permutations};

fn points(rows: &[Vec<f64>]) -> Points {
    let mut points = Points::new(&vec![Sense::Minimise; rows[0].len()]).unwrap();
    rows.iter().for_each(|row| points.push(row).unwrap());
    points
}

fn brute(points: &Points) -> Vec<usize> {
    (0..points.len()).filter(|one| !(0..points.len()).any(|other| points.dominates(other, *one))).collect()
}

#[test]
fn front_of_small_sets_full_of_ties_is_that_of_brute_force() {
    let mut random = Random::new(5);
    for round in 0..rounds(10_000) {
        let objectives = 1 + random.index(6);
        let count = 1 + random.index(12);
        let levels = 1 + random.index(4) as i64;
        let rows: Vec<Vec<f64>> =
            (0..count).map(|_| (0..objectives).map(|_| random.between(0, levels) as f64).collect()).collect();
        let points = points(&rows);
        assert_eq!(points.front(Duplicates::Keep), brute(&points), "round {round}: {rows:?}");
        let first: Vec<usize> =
            brute(&points).into_iter().filter(|one| !(0..*one).any(|earlier| rows[earlier] == rows[*one])).collect();
        assert_eq!(points.front(Duplicates::First), first, "round {round}: {rows:?}");
    }
    println!("figure: {} fronts of small sets full of ties, each that of brute force", rounds(10_000));
}

#[test]
fn large_fronts_are_divided_and_stay_right() {
    let mut random = Random::new(6);
    for (objectives, levels) in [(3, 40), (4, 60), (4, 1_000_000), (5, 12), (9, 4)] {
        // Near one plane, so that most points are on the front.
        let rows: Vec<Vec<f64>> = (0..6_000)
            .map(|_| {
                let mut row: Vec<f64> = (1..objectives).map(|_| random.between(0, levels) as f64).collect();
                let sum: f64 = row.iter().sum();
                row.push((levels * objectives as i64) as f64 - sum + random.between(0, 1) as f64);
                row
            })
            .collect();
        let points = points(&rows);
        assert_eq!(points.front(Duplicates::Keep), brute(&points), "{objectives} objectives, {levels} levels");
    }
}

/// Of all permutations of n points the fronts hold n!·H(n) points: 109,584 for 8.
#[test]
fn front_sizes_of_all_permutations_sum_to_the_exact_count() {
    let mut total = 0;
    permutations(8, |order| {
        let rows: Vec<Vec<f64>> = order.iter().enumerate().map(|(at, other)| vec![at as f64, *other as f64]).collect();
        total += points(&rows).front(Duplicates::Keep).len();
    });
    assert_eq!(total, 109_584);
}

#[test]
fn relations_hold() {
    let mut random = Random::new(7);
    for _ in 0..500 {
        let objectives = 2 + random.index(3);
        let rows: Vec<Vec<f64>> =
            (0..20).map(|_| (0..objectives).map(|_| random.between(0, 9) as f64).collect()).collect();
        let front = points(&rows).front(Duplicates::Keep);
        let mapped: Vec<Vec<f64>> =
            rows.iter().map(|row| row.iter().map(|value| value.powi(3) + 1.0).collect()).collect();
        assert_eq!(points(&mapped).front(Duplicates::Keep), front, "an increasing map changes nothing");
        let swapped: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().rev().copied().collect()).collect();
        assert_eq!(points(&swapped).front(Duplicates::Keep), front, "objectives have no order");
        let mut flipped = Points::new(&vec![Sense::Maximise; objectives]).unwrap();
        rows.iter().for_each(|row| flipped.push(&row.iter().map(|value| -value).collect::<Vec<_>>()).unwrap());
        assert_eq!(flipped.front(Duplicates::Keep), front, "a flipped sense undoes a flipped sign");
        let mut more = rows.clone();
        more.push(rows[front[0]].iter().map(|value| value + 1.0).collect());
        assert_eq!(points(&more).front(Duplicates::Keep), front, "a dominated point adds nothing");
        let best =
            (0..rows.len()).min_by(|a, b| rows[*a].iter().sum::<f64>().total_cmp(&rows[*b].iter().sum())).unwrap();
        assert!(front.contains(&best), "the best of a positive weighting is on the front");
        let cut = random.index(rows.len() - 1) + 1;
        let halves = [&rows[..cut], &rows[cut..]]
            .map(|half| points(half).front(Duplicates::Keep).iter().map(|at| half[*at].clone()).collect::<Vec<_>>());
        let mut joined = halves.concat();
        joined = points(&joined).front(Duplicates::Keep).iter().map(|at| joined[*at].clone()).collect();
        let mut whole: Vec<_> = front.iter().map(|at| rows[*at].clone()).collect();
        joined.sort_by(|a, b| a.partial_cmp(b).unwrap());
        whole.sort_by(|a, b| a.partial_cmp(b).unwrap());
        assert_eq!(joined, whole, "the front of two fronts is the front of all");
    }
}

/// Three published mistakes as fronts of somebody else; each differs from ours within a hundred sets.
#[test]
fn known_mistakes_are_noticed() {
    type Front = fn(&Points) -> Vec<usize>;
    let drops_ties: Front = |points| points.front(Duplicates::First);
    let strict: Front = |points| {
        let beats = |a: usize, b: usize| points.row(a).iter().zip(points.row(b)).all(|(a, b)| a < b);
        (0..points.len()).filter(|one| !(0..points.len()).any(|other| beats(other, *one))).collect()
    };
    let weak: Front = |points| {
        let beats = |a: usize, b: usize| a != b && points.row(a).iter().zip(points.row(b)).all(|(a, b)| a <= b);
        (0..points.len()).filter(|one| !(0..points.len()).any(|other| beats(other, *one))).collect()
    };
    for mistake in [drops_ties, strict, weak] {
        let mut random = Random::new(9);
        let noticed = (0..100).any(|_| {
            let rows: Vec<Vec<f64>> = (0..6).map(|_| (0..2).map(|_| random.between(0, 3) as f64).collect()).collect();
            let points = points(&rows);
            mistake(&points) != points.front(Duplicates::Keep)
        });
        assert!(noticed);
    }
}

#[test]
fn bad_points_are_refused() {
    assert!(Points::new(&[]).is_err() && Points::new(&[Sense::Minimise; 33]).is_err());
    let mut points = Points::new(&[Sense::Minimise; 2]).unwrap();
    for bad in [&[1.0][..], &[1.0, f64::NAN], &[f64::INFINITY, 1.0], &[1.0, 2.0, 3.0]] {
        assert!(points.push(bad).is_err(), "{bad:?}");
    }
    assert!(points.front(Duplicates::Keep).is_empty());
    points.push(&[0.0, 1.0]).unwrap();
    points.push(&[-0.0, 1.0]).unwrap();
    assert_eq!(points.front(Duplicates::Keep), [0, 1], "-0 is 0");
}

#[test]
fn hypervolume_is_that_of_boxes() {
    assert_eq!(hypervolume(&[vec![3, 1], vec![1, 3], vec![2, 2]], &[0, 0]).unwrap(), 6);
    assert_eq!(hypervolume(&[vec![2, 2, 2], vec![1, 1, 1], vec![-1, 9, 9]], &[0, 0, 0]).unwrap(), 8);
    assert!(hypervolume(&[vec![1], vec![1, 2]], &[0]).is_err());
    assert!(hypervolume(&[vec![i64::MAX; 4]], &[i64::MIN; 4]).is_err());
}

#[test]
fn a_few_good_points_thin_out_the_rest_wherever_they_stand() {
    let mut random = Random::new(5);
    let rows: Vec<[f64; 2]> = (0..10_000).map(|_| [0, 1].map(|_| random.below(1_000_000) as f64)).collect();
    let left = super::front::thinned::<2>(rows.len(), |at| rows[at]);
    assert!(left.len() < 500, "{} of 10,000 are left to sort", left.len());
    // The only good point stands last.
    let last = |at: usize| if at == 4_999 { [0.0, 0.0] } else { [1.0 + at as f64, 6_000.0 - at as f64] };
    assert_eq!(super::front::thinned::<2>(5_000, last), [([0.0, 0.0], 4_999)]);
}
