//! What a test can ask a Postgres, beyond having one: the assertions, each shown red by a planted defect.

mod activity;
mod concurrent;
mod deadlocks;
mod diagnose;
pub mod frames;
mod indexes;
pub mod isolation;
mod latency;
mod locks;
pub mod migration;
pub mod partial;
mod plan;
mod pool;
mod reads;
pub mod refusal;
pub mod restore;
pub mod rows;
mod sampling;
pub mod schema;
mod serialization;
mod statements;
mod vector;

use super::{Database, Replica, sql};

/// Refreshes the statistics, in words that the server's count of statements does not confuse with those of somebody else.
pub(crate) const REFRESH: &str = "ANALYZE (VERBOSE false, SKIP_LOCKED false) /* harness_own */";

pub use activity::{Lasting, Session, SessionPoint, SessionSampler, SessionSeries, Sessions};
pub use concurrent::{Concurrent, Concurrently};
pub use deadlocks::Deadlocks;
pub use diagnose::{Cause, diagnose, diagnose_within};
pub use indexes::{IndexRow, IndexSurvey, IndexTable};
pub use latency::Latencies;
pub use locks::{Cycle, LockPoint, LockSeries, LockWait, LockWatch, Locks, LongestWait, Stall};
pub use migration::Migrations;
pub use plan::{Explain, Node, Plan, Plans, Table};
pub use pool::{Borrowed, Holder, PoolPoint, PoolReport, Stress, WatchedPool, watch_pool};
pub use refusal::sqlstate;
pub use schema::Schema;
pub use serialization::{Retries, RetryCounts, TransactionCounts};
pub use statements::{
    Ended, INJECTION_CORPUS, Parameterised, Reads, Returned, Slow, SlowList, Slowest, Statement, Statements, TableReads,
};
pub use vector::{Distance, Recall, VectorColumn, VectorColumns, VectorIndex, VectorLoad};
