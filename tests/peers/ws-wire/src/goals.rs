//! The goals, in the order in which they are measured: the short ones first.

use peers_common::Measure;

use crate::{rates, verdicts};

/// Everything that is measured of WebSocket.
pub(crate) const ALL: &[(&str, Measure)] = &[
    ("ws.silence", rates::silence),
    ("ws.rate", rates::pipelined),
    ("ws.memory", rates::memory),
    ("ws.fleet", rates::fleet),
    ("ws.fuzz", rates::fuzz),
    ("ws.verdicts", verdicts::against_wstest),
    ("ws.strict", verdicts::our_server),
    ("ws.client", verdicts::our_client),
];
