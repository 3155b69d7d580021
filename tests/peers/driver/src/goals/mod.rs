//! The goals, in the order in which they are measured: the short ones first.

mod acquire;
mod cold;
mod forty;
mod lean;
mod redis;
mod stampede;
mod sustained;

use std::future::Future;
use std::pin::Pin;

use peers_common::{Asked, Measured, Result};

type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Vec<Measured>>> + 'a>>;

/// One measurement, which may answer several goals.
pub(crate) struct Goal {
    pub(crate) name: &'static str,
    pub(crate) measure: for<'a> fn(&'a Asked) -> Measuring<'a>,
}

/// Everything that is measured of databases.
pub(crate) const ALL: &[Goal] = &[
    Goal { name: "db.acquire", measure: |asked| Box::pin(acquire::against_a_bare_connection(asked)) },
    Goal { name: "db.acquire_flat", measure: |asked| Box::pin(acquire::against_fewer_migrations(asked)) },
    Goal { name: "db.redis_acquire", measure: |asked| Box::pin(redis::acquire(asked)) },
    Goal { name: "db.redis_crosstalk", measure: |asked| Box::pin(redis::crosstalk(asked)) },
    Goal { name: "db.cold", measure: |asked| Box::pin(cold::against_initdb(asked)) },
    Goal { name: "db.shared", measure: |asked| Box::pin(cold::against_a_container(asked)) },
    Goal { name: "db.stampede", measure: |asked| Box::pin(stampede::measure(asked)) },
    Goal { name: "db.forty_tests", measure: |asked| Box::pin(forty::measure(asked)) },
    Goal { name: "db.sustained", measure: |asked| Box::pin(sustained::measure(asked)) },
    Goal { name: "db.lean", measure: |asked| Box::pin(lean::measure(asked)) },
];
