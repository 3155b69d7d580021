//! The goals, in the order in which they are measured: the short ones first.

use crate::figure::{Expected, Op};
use crate::part::Measured;
use crate::{Asked, Result, rates, verdicts};

/// One measurement, which may answer several goals.
type Measure = fn(&Asked) -> Result<Vec<Measured>>;

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

const fn ratio(goal: &'static str, op: Op, target: f64, rounds: usize) -> Expected {
    Expected { goal, op, target, rounds }
}

const fn count(goal: &'static str, op: Op, target: f64) -> Expected {
    Expected { goal, op, target, rounds: 1 }
}

/// Every goal and the part that holds its rounds.
pub(crate) const EXPECTED: &[(&str, Expected)] = &[
    ("ws.silence", ratio("ws.silence", Op::AtMost, 1.0 / 40.0, 5)),
    ("ws.rate", ratio("ws.rate_tokio_websockets", Op::AtLeast, 0.9, 5)),
    ("ws.rate", ratio("ws.rate_fastwebsockets", Op::AtLeast, 1.3, 5)),
    ("ws.memory", ratio("ws.memory_of_5_kib", Op::AtMost, 1.0, 3)),
    ("ws.memory", ratio("ws.memory_tungstenite", Op::AtMost, 1.0 / 25.0, 3)),
    ("ws.fleet", ratio("ws.fleet_rate", Op::AtLeast, 0.8, 5)),
    ("ws.fleet", ratio("ws.fleet_memory_of_80_mb", Op::AtMost, 1.0, 5)),
    ("ws.fleet", count("ws.fleet_alarms", Op::Exactly, 0.0)),
    ("ws.fuzz", count("ws.fuzz_inputs", Op::AtLeast, 10_000_000.0)),
    ("ws.verdicts", count("ws.verdicts_that_differ", Op::Exactly, 0.0)),
    ("ws.verdicts", count("ws.verdicts_compared", Op::Exactly, 988.0)),
    ("ws.verdicts", ratio("ws.verdicts_time", Op::AtMost, 0.25, 4)),
    ("ws.strict", count("ws.server_cases_strict", Op::Exactly, 247.0)),
    ("ws.client", count("ws.client_cases_strict", Op::Exactly, 247.0)),
];
