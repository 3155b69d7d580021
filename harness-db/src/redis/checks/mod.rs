//! What a test can ask a Redis, beyond having one: the assertions, and the topologies that fail over, each shown red by a
//! planted defect.

mod bigkeys;
mod coherence;
mod commands;
mod diagnose;
mod events;
pub mod eviction;
mod failover;
mod hits;
mod info;
mod logical;
mod memory;
mod monitor;
mod pubsub;
mod slowlog;
mod tiers;
mod topology;
mod ttl;

use super::{Keyspace, OwnRedis, readiness, wire};

pub use bigkeys::{BigKey, BigKeys};
pub use coherence::{Coherence, CoherenceRun, Invalidations, Seen};
pub use commands::{Commands, calls};
pub use diagnose::{Cause, diagnose, diagnose_within};
pub use events::{KeyEvent, KeyEventLog, KeyEvents};
#[cfg(feature = "fault")]
pub use failover::FailoverFault;
pub use failover::{Failover, FailoverKind, FailoverRun, Target};
pub use harness_props::history::{Answer, FailoverLimits, FailoverTimeline, FailoverVerdict};
pub use hits::{HitRate, LookupCount, Lookups, lookups};
pub use logical::LogicalDb;
pub use memory::{Memory, MemoryPoint, MemorySampler, MemorySeries};
pub use monitor::Command;
pub use pubsub::{Heard, Message, Sequence, Subscriber};
pub use slowlog::{SlowCommand, SlowCommands, SlowWatch};
pub use tiers::Tiers;
pub use topology::{
    Cluster, ClusterRequest, Node, Replicas, ReplicasRequest, Role, Sentinel, SentinelRequest, redis_cluster,
    redis_replicas, redis_sentinel, slot_of,
};
pub use ttl::Ttls;
