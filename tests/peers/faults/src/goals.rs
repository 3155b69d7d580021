//! The goals, in the order in which they are measured: the short ones first.

use crate::{alone, clean};
use peers_common::Measure;

/// Everything that is measured of faults.
pub(crate) const ALL: &[(&str, Measure)] = &[
    ("faults.timeouts", alone::connect_timeouts),
    ("faults.refusals", alone::refusals),
    ("faults.clean", clean::round_trips),
    ("faults.bulk", clean::bulk),
    ("faults.delay", clean::delay),
    ("faults.replay", alone::replay),
    ("faults.changes", alone::changes),
];
