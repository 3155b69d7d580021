//! What the service counts of its cache tiers, and what Redis counts.

use harness_core::Outcome;

/// Counters of the cache tiers, from two sources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheCounters {
    pub(super) local_hits: u64,
    pub(super) local_misses: u64,
    pub(super) shared_hits: u64,
    pub(super) shared_misses: u64,
    pub(super) redis_reads: u64,
}

impl CacheCounters {
    /// What was counted since an earlier reading.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            local_hits: self.local_hits - before.local_hits,
            local_misses: self.local_misses - before.local_misses,
            shared_hits: self.shared_hits - before.shared_hits,
            shared_misses: self.shared_misses - before.shared_misses,
            redis_reads: self.redis_reads - before.redis_reads,
        }
    }

    /// Reads that either tier answered.
    pub(crate) fn served(self) -> u64 {
        self.local_hits + self.shared_hits
    }

    /// Reads in all: each asks the local tier first.
    pub(crate) fn asked(self) -> u64 {
        self.local_hits + self.local_misses
    }

    /// Compares the service's count of reads of the shared tier with what Redis says it was asked.
    pub(crate) fn agrees_with_redis(self) -> Outcome {
        let (service, redis) = (self.shared_hits + self.shared_misses, self.redis_reads);
        match service == redis {
            true => Outcome::pass(format!("{service} reads by both counts")),
            false => Outcome::fail(format!("the service counts {service} reads of the shared tier, Redis {redis}")),
        }
    }
}
