//! The faults that act now, and the draws that decide where they bite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::wire::{Towards, WireFault, WireKind};
use crate::run::Seed;

/// A fault of a proxy with its number and its bites.
#[derive(Debug)]
pub(super) struct Applied {
    /// Counted from 1 in the order in which the faults of a proxy were made.
    pub(super) id: u32,
    pub(super) fault: WireFault,
    bites: AtomicU64,
}

impl Applied {
    pub(super) fn new(id: u32, fault: WireFault) -> Self {
        Self { id, fault, bites: AtomicU64::new(0) }
    }

    pub(super) fn bite(&self, count: u64) {
        self.bites.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn bites(&self) -> u64 {
        self.bites.load(Ordering::Relaxed)
    }

    /// True when the seed puts this connection into the fault's share.
    pub(super) fn hits(&self, seed: Seed, connection: u64) -> bool {
        let share = u64::from(self.fault.permille());
        share >= 1_000 || Place { seed, connection, towards: None }.draw(self.id, 0) % 1_000 < share
    }
}

/// All faults that are applied, in order.
pub(super) type Plan = Arc<Vec<Arc<Applied>>>;

/// One stream of one connection: where a decision is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) seed: Seed,
    pub(super) connection: u64,
    pub(super) towards: Option<Towards>,
}

impl Place {
    /// 64 bits that depend on the seed, the fault, the connection, the direction and the byte, and on nothing else: neither on
    /// the time nor on how TCP cuts a stream.
    pub(super) fn draw(self, fault: u32, offset: u64) -> u64 {
        let towards = self.towards.map_or(0, |towards| 1 + towards as u64);
        [self.seed.value(), u64::from(fault), self.connection, towards, offset].into_iter().fold(0, |state, word| {
            // The finaliser of SplitMix64 (Steele, Lea, Flood 2014) after each word.
            let mut z: u64 = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
    }
}

/// The faults that act on one stream now.
#[derive(Debug, Default)]
pub(super) struct Active(Vec<Arc<Applied>>);

/// How a fault ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EndKind {
    Reset,
    HalfClose,
}

impl Active {
    pub(super) fn of(plan: &Plan, place: Place) -> Self {
        let acts = |applied: &&Arc<Applied>| {
            place.towards.is_some_and(|towards| applied.fault.acts_towards(towards))
                && applied.hits(place.seed, place.connection)
        };
        Self(plan.iter().filter(acts).cloned().collect())
    }

    pub(super) fn is_clean(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Applied>> {
        self.0.iter()
    }

    pub(super) fn stall(&self) -> Option<&Arc<Applied>> {
        self.0.iter().find(|applied| matches!(applied.fault.kind(), WireKind::Stall))
    }

    pub(super) fn black_hole(&self) -> Option<&Arc<Applied>> {
        self.0.iter().find(|applied| matches!(applied.fault.kind(), WireKind::BlackHole))
    }

    /// True when something makes bytes wait.
    pub(super) fn delays(&self) -> bool {
        use WireKind::{Bandwidth, Latency, Slice};
        self.0.iter().any(|applied| matches!(applied.fault.kind(), Latency { .. } | Bandwidth { .. } | Slice { .. }))
    }

    /// The first end that is due in this stream: after how many bytes, and how.
    pub(super) fn end(&self) -> Option<(u64, EndKind, &Arc<Applied>)> {
        let ends = self.0.iter().filter_map(|applied| match applied.fault.kind() {
            WireKind::Reset { after } => Some((after, EndKind::Reset, applied)),
            WireKind::HalfClose { after } => Some((after, EndKind::HalfClose, applied)),
            _ => None,
        });
        ends.min_by_key(|(after, kind, _)| (*after, *kind))
    }

    /// Bytes per second, if they are limited.
    pub(super) fn bandwidth(&self) -> Option<u64> {
        let rates = self.0.iter().filter_map(|applied| match applied.fault.kind() {
            WireKind::Bandwidth { bytes_per_second } => Some(bytes_per_second),
            _ => None,
        });
        rates.min()
    }

    /// The longest piece and the time between two, if pieces are cut.
    pub(super) fn slice(&self) -> Option<(u64, Duration)> {
        let slices = self.0.iter().filter_map(|applied| match applied.fault.kind() {
            WireKind::Slice { bytes, pause } => Some((bytes, pause)),
            _ => None,
        });
        slices.min_by_key(|(bytes, _)| *bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Applied, Place, Seed, Towards, WireFault};

    #[test]
    fn draw_depends_on_every_part_of_its_place() {
        let place = |seed, connection, towards| Place { seed: Seed::new(seed), connection, towards };
        let (server, client) = (Some(Towards::Server), Some(Towards::Client));
        let draws = [
            place(1, 1, server).draw(1, 0),
            place(2, 1, server).draw(1, 0),
            place(1, 2, server).draw(1, 0),
            place(1, 1, client).draw(1, 0),
            place(1, 1, None).draw(1, 0),
            place(1, 1, server).draw(2, 0),
            place(1, 1, server).draw(1, 1),
        ];
        assert_eq!(BTreeSet::from(draws).len(), draws.len());
        assert_eq!(draws[0], place(1, 1, server).draw(1, 0));
    }

    #[test]
    fn share_hits_about_so_many_connections_and_always_the_same() {
        let third = Applied::new(3, WireFault::stall().share(333));
        let hit = |seed| (1..=3_000).filter(|n| third.hits(Seed::new(seed), *n)).collect::<Vec<u64>>();
        assert!((850..1_150).contains(&hit(7).len()), "{}", hit(7).len());
        assert_eq!(hit(7), hit(7));
        assert_ne!(hit(7), hit(8));
    }
}
