//! What iterations note besides their end: times of steps, and what they used of something.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::times::Times;
use crate::tokens::Reduction;

/// The most step names of one run, and the most things whose use is counted; further ones go together as `other`.
const MOST_NAMES: usize = 64;

/// Shared by all iterations of a run; of measured phases only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Noted>>);

/// The notes of a whole run.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Times of steps by flow and name.
    pub(crate) steps: BTreeMap<(usize, &'static str), Times>,
    /// What was used of each thing, against what would have been.
    pub(crate) used: BTreeMap<&'static str, Reduction>,
}

impl Notes {
    pub(super) fn step(&self, flow: usize, name: &'static str, took: Duration) {
        let mut noted = self.lock();
        let is_known = noted.steps.len() < MOST_NAMES || noted.steps.contains_key(&(flow, name));
        noted.steps.entry((flow, if is_known { name } else { "other" })).or_default().record(took);
    }

    pub(super) fn used(&self, what: &'static str, class: &str, used: u64, baseline: u64) {
        let mut noted = self.lock();
        let is_known = noted.used.len() < MOST_NAMES || noted.used.contains_key(what);
        noted.used.entry(if is_known { what } else { "other" }).or_default().record(class, used, baseline);
    }

    pub(crate) fn take(&self) -> Noted {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
