//! The goals, in the order in which they are measured: the short ones first.

mod alone;
mod cpu;
mod late;
mod stall;

use peers_common::Measure;

/// Everything that is measured of load.
pub(crate) const ALL: &[(&str, Measure)] = &[
    ("load.noop", alone::noop),
    ("load.quantile", alone::quantile),
    ("load.memory", alone::memory),
    ("load.late", late::against_tokio_sleep),
    ("load.wrk", cpu::against_wrk),
    ("load.oha", cpu::against_oha),
    ("load.goose", cpu::against_goose),
    ("load.rlt", cpu::against_rlt),
    ("load.stopped", stall::stopped_generator),
    ("load.stall", stall::stalling_server),
];
