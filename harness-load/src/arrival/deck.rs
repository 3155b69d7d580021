//! Which flow a slot belongs to.

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::run::SeedStream;

/// The longest cycle: weights are shares, and finer shares than this mean nothing in a test.
const LONGEST_CYCLE: u64 = 100_000;

/// Deals flows like cards: a deck holds each flow as often as its weight says (in lowest terms), is shuffled by the
/// seed, dealt to the last card and shuffled again. Over every full deck the shares are exact; within it the order is
/// random, so that flows do not march in step with anything periodic in the system.
#[derive(Debug, Clone)]
pub struct Deck {
    cards: Vec<usize>,
    next: usize,
    stream: SeedStream,
}

impl Deck {
    /// A deck for these weights.
    ///
    /// # Errors
    /// `Config` when there is no flow, a weight is 0, or the weights in lowest terms add up to more than 100,000.
    pub fn new(weights: &[u32], stream: SeedStream) -> CoreResult<Self> {
        let refuse = |what: String| Error::new(ErrorKind::Config, what);
        if weights.is_empty() {
            return Err(
                refuse("a load without flows does nothing".to_owned()).remedy("add `.flow(\"browse\", 1, browse)`")
            );
        }
        if let Some(flow) = weights.iter().position(|weight| *weight == 0) {
            return Err(refuse(format!("flow {} has weight 0", flow + 1)).remedy("give it a weight or leave it out"));
        }
        let common = weights.iter().copied().fold(0, gcd);
        let total: u64 = weights.iter().map(|weight| u64::from(weight / common)).sum();
        if total > LONGEST_CYCLE {
            return Err(refuse(format!("the weights add up to {total} in lowest terms, the most is {LONGEST_CYCLE}"))
                .remedy("use rounder weights, for example 8 and 2"));
        }
        let cards = weights.iter().enumerate();
        let cards = cards.flat_map(|(flow, weight)| std::iter::repeat_n(flow, (weight / common) as usize)).collect();
        Ok(Self { cards, next: 0, stream })
    }

    /// Slots in one full deck.
    #[must_use]
    pub fn cycle(&self) -> usize {
        self.cards.len()
    }

    /// Fisher-Yates.
    fn shuffle(&mut self) {
        for i in (1..self.cards.len()).rev() {
            let j = self.stream.below(i as u64 + 1) as usize;
            self.cards.swap(i, j);
        }
    }
}

impl Iterator for Deck {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.next == 0 {
            self.shuffle();
        }
        let card = self.cards.get(self.next).copied();
        self.next = (self.next + 1) % self.cards.len();
        card
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use harness_core::run::Seed;

    use super::Deck;

    fn deck(weights: &[u32]) -> Deck {
        Deck::new(weights, Seed::new(3).stream("flows")).unwrap()
    }

    #[test]
    fn shares_are_exact_over_every_cycle() {
        let dealt: Vec<_> = deck(&[800, 200, 100]).take(110).collect();
        for cycle in dealt.chunks(11) {
            let count = |flow| cycle.iter().filter(|card| **card == flow).count();
            assert_eq!([count(0), count(1), count(2)], [8, 2, 1]);
        }
        assert_ne!(dealt[..11], dealt[11..22], "the order must not repeat");
    }

    #[test]
    fn same_seed_deals_the_same() {
        assert!(deck(&[3, 1]).take(100).eq(deck(&[3, 1]).take(100)));
    }

    #[test]
    fn impossible_weights_are_refused() {
        for weights in [&[][..], &[1, 0], &[1, 1_000_003]] {
            assert!(Deck::new(weights, Seed::new(1).stream("")).is_err(), "{weights:?}");
        }
    }
}
