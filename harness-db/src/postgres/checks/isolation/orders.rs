//! Which orders of turns are run: all that are possible, a seeded choice of them, or one.

use std::collections::BTreeSet;

use harness_core::run::SeedStream;

/// Walks through all orders by depth first search: each run takes the first choices of the last one up to its last
/// alternative, and that alternative. Since choices are made among the sessions that are ready, orders that a lock makes
/// impossible are left out, and steps that only some orders have (a retry) are walked through too.
#[derive(Debug, Default)]
pub(super) struct Walk {
    prefix: Vec<usize>,
    choices: Vec<(Vec<usize>, usize)>,
}

impl Walk {
    /// The choice at the next turn of this run.
    pub(super) fn choose(&mut self, ready: &[usize]) -> usize {
        let wanted = self.prefix.get(self.choices.len()).copied();
        let chosen = wanted.filter(|wanted| ready.contains(wanted)).unwrap_or(ready[0]);
        self.choices.push((ready.to_vec(), chosen));
        chosen
    }

    /// Moves on to the next order; false when there is none.
    pub(super) fn advance(&mut self) -> bool {
        let mut choices = std::mem::take(&mut self.choices);
        while let Some((ready, chosen)) = choices.pop() {
            if let Some(next) = ready.into_iter().find(|other| *other > chosen) {
                self.prefix = choices.iter().map(|(_, chosen)| *chosen).chain([next]).collect();
                return true;
            }
        }
        false
    }
}

/// One order by chance, each equally likely: a session is taken with the weight of the steps it has left.
pub(super) fn by_chance(steps: &[usize], stream: &mut SeedStream) -> Vec<usize> {
    let mut left = steps.to_vec();
    let mut turns = Vec::new();
    loop {
        let all: usize = left.iter().sum();
        if all == 0 {
            return turns;
        }
        let mut at = usize::try_from(stream.below(all as u64)).unwrap_or_default();
        let who = left.iter().position(|steps| match at < *steps {
            true => true,
            false => {
                at -= steps;
                false
            }
        });
        let Some(who) = who else { return turns };
        left[who] -= 1;
        turns.push(who);
    }
}

/// How many orders there are: the multinomial coefficient, as far as numbers go.
pub(super) fn possible(steps: &[usize]) -> u128 {
    let (mut all, mut taken) = (1_u128, 0_u128);
    for steps in steps {
        for n in 1..=*steps as u128 {
            taken += 1;
            // Exact at every point: a product of k consecutive numbers over k! is a whole number.
            all = all.saturating_mul(taken) / n;
        }
    }
    all
}

/// All orders of these sessions, one after another.
pub(super) fn permutations(who: &[usize]) -> Vec<Vec<usize>> {
    if who.len() < 2 {
        return vec![who.to_vec()];
    }
    let with_first = |at: usize| {
        let mut rest = who.to_vec();
        let first = rest.remove(at);
        permutations(&rest).into_iter().map(move |rest| [vec![first], rest].concat())
    };
    (0..who.len()).flat_map(with_first).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use harness_core::run::Seed;

    use super::{Walk, by_chance, permutations, possible};

    /// Sessions without locks: everybody with steps left is ready.
    fn walk(steps: &[usize]) -> Vec<Vec<usize>> {
        let (mut walk, mut orders) = (Walk::default(), Vec::new());
        loop {
            let (mut left, mut order) = (steps.to_vec(), Vec::new());
            loop {
                let ready: Vec<usize> = (0..left.len()).filter(|who| left[*who] > 0).collect();
                if ready.is_empty() {
                    break;
                }
                let who = walk.choose(&ready);
                left[who] -= 1;
                order.push(who);
            }
            orders.push(order);
            if !walk.advance() {
                return orders;
            }
        }
    }

    #[test]
    fn walk_visits_every_order_once() {
        for steps in [&[2, 2][..], &[3, 3], &[1, 2, 2], &[4], &[0, 1]] {
            let orders = walk(steps);
            assert_eq!(orders.len() as u128, possible(steps), "{steps:?}");
            assert_eq!(orders.iter().collect::<BTreeSet<_>>().len(), orders.len());
        }
    }

    #[test]
    fn chance_is_seeded_and_fair_in_count() {
        let draw = |seed| by_chance(&[3, 2], &mut Seed::new(seed).stream("x"));
        assert_eq!(draw(1), draw(1));
        assert_eq!(draw(2).iter().filter(|who| **who == 0).count(), 3);
        let mut stream = Seed::new(3).stream("all");
        let seen: BTreeSet<_> = (0..400).map(|_| by_chance(&[3, 2], &mut stream)).collect();
        assert_eq!(seen.len() as u128, possible(&[3, 2]), "every order is drawn sooner or later");
    }

    #[test]
    fn counts_are_the_multinomials() {
        assert_eq!([possible(&[3, 3]), possible(&[8, 8]), possible(&[2, 2, 2]), possible(&[])], [20, 12_870, 90, 1]);
        assert_eq!(permutations(&[0, 2, 5]).len(), 6);
    }
}
