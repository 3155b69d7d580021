//! The databases of one template: how many there are, and how many there should be.

use std::collections::VecDeque;
use std::time::Duration;

use super::Caller;

/// Databases of one template made before they are asked for, while tests run.
pub(super) const MOST_READY: usize = 16;
/// Requests for a template that are further apart than this belong to different runs of tests.
pub(super) const RUN_ENDS: Duration = Duration::from_secs(5);
/// A template that nobody has asked for this long leaves the room to others.
pub(super) const STALE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    No,
    Looking,
    Building(Caller),
    Yes,
}

/// The databases of one template.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) known: Known,
    pub(super) ready: VecDeque<Ready>,
    pub(super) cloning: usize,
    /// Used databases that may come back: empty of sessions, or looked at now.
    pub(super) settling: usize,
    /// The last one did.
    pub(super) comes_back: bool,
    pub(super) asked: u64,
    pub(super) asked_at: Duration,
    /// Requests of the run of tests that goes on, or was the last.
    pub(super) run: usize,
    /// Requests of the one before.
    pub(super) run_before: usize,
    pub(super) out: usize,
    /// The most databases that were out at the same time.
    pub(super) peak: usize,
    /// Cloning ahead failed; the next request tries again.
    pub(super) stuck: bool,
}

#[derive(Debug)]
pub(super) struct Ready {
    pub(super) name: String,
    pub(super) connections: u32,
    pub(super) used: bool,
}

impl Shelf {
    pub(super) fn new() -> Self {
        Self {
            known: Known::No,
            ready: VecDeque::new(),
            cloning: 0,
            settling: 0,
            comes_back: false,
            asked: 0,
            asked_at: Duration::ZERO,
            run: 0,
            run_before: 0,
            out: 0,
            peak: 0,
            stuck: false,
        }
    }

    pub(super) fn asked(&mut self, now: Duration) {
        if now.saturating_sub(self.asked_at) >= RUN_ENDS {
            self.run_before = std::mem::take(&mut self.run);
        }
        self.asked_at = now;
        self.asked += 1;
        self.run += 1;
        self.stuck = false;
    }

    /// How many a run of tests takes, where nothing has to be made or taken back meanwhile.
    pub(super) fn run_takes(&self) -> usize {
        if self.asked < 2 || self.stuck { 0 } else { self.run.max(self.run_before) }
    }

    pub(super) fn is_stale(&self, now: Duration) -> bool {
        now.saturating_sub(self.asked_at) >= STALE
    }

    /// How many should stand ready: none for a template that was asked for once, else twice what was out at a time.
    pub(super) fn target(&self) -> usize {
        if self.asked < 2 || self.stuck { 0 } else { (2 * self.peak).clamp(2, MOST_READY) }
    }

    /// How many are missing of `most`, without those that are cloned now.
    pub(super) fn lacks(&self, most: usize) -> usize {
        most.saturating_sub(self.ready.len() + self.coming(self.settling + self.out))
    }

    /// How many of the databases that are away will come without a clone being made for them.
    pub(super) fn coming(&self, away: usize) -> usize {
        if self.comes_back { away } else { 0 }
    }
}
