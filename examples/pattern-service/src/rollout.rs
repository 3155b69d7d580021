//! Two releases side by side: which of them serves an agent, and in which steps the new one takes over.
//!
//! Pure: whoever routes traffic asks [`Split::takes_new`], and whoever decides asks [`Split::step`]. An agent stays where it is
//! as long as the share does not change, and moves once when it grows.

use std::collections::BTreeSet;

use crate::embed::hash;

/// Shares of traffic on the new release, in percent, in the order in which they may follow each other.
pub const STEPS: [u8; 4] = [0, 10, 50, 100];

/// Why a step was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The watch of the present step did not end green.
    #[error("{0} % is not proven: {1}")]
    NotGreen(u8, String),
    /// The share is not the next one.
    #[error("from {0} % to {1} % is no step; the next one is {2} %")]
    Jump(u8, u8, u8),
    /// There is nothing beyond all of the traffic.
    #[error("the new release has all of the traffic already")]
    Done,
}

/// How traffic is divided at present.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    share: u8,
    internal: BTreeSet<String>,
}

impl Split {
    /// Everybody on the old release, except these agents of our own.
    pub fn closed(internal: impl IntoIterator<Item = String>) -> Self {
        Self { share: 0, internal: internal.into_iter().collect() }
    }

    /// The share of agents on the new release, in percent, those of our own aside.
    pub fn share(&self) -> u8 {
        self.share
    }

    /// Whether the new release serves this agent.
    pub fn takes_new(&self, agent: &str) -> bool {
        // Salted, so that agents are not divided as some other use of the same hash divides them.
        self.internal.contains(agent) || hash(&format!("rollout:{agent}")) % 100 < u64::from(self.share)
    }

    /// Moves to the next share. `watch` is what the present one has shown: nothing, or why it is not good enough.
    ///
    /// # Errors
    /// [`Refused`] when the watch was not green or the share is not the next one.
    pub fn step(&mut self, to: u8, watch: Result<(), String>) -> Result<(), Refused> {
        let next = STEPS.into_iter().find(|step| *step > self.share).ok_or(Refused::Done)?;
        if to != next {
            return Err(Refused::Jump(self.share, to, next));
        }
        watch.map_err(|why| Refused::NotGreen(self.share, why))?;
        self.share = to;
        Ok(())
    }

    /// Everybody back on the old release, at once and whatever the watch says; those of our own as well.
    pub fn roll_back(&mut self) {
        *self = Self::default();
    }
}
