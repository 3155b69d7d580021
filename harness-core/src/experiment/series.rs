//! An experiment as plots.

use std::collections::BTreeMap;
use std::time::Duration;

use harness_props::history::outage::{Call, Reply};

use super::report::Recovery;
use crate::record::SeriesRecord;

/// Points of a line at most: a report stays small, however long it was watched.
const POINTS: u32 = 120;
/// No point stands for less time.
const FINEST: Duration = Duration::from_millis(100);

/// What the calls of one operation came to in one interval.
#[derive(Default)]
struct Interval {
    slowest: Duration,
    failed: u32,
}

impl Recovery {
    /// The slowest call and the failed calls over time, a line for each operation, with the time it was broken as a band; for a
    /// scenario's report.
    #[must_use]
    pub fn series(&self, scenario: &str) -> Vec<SeriesRecord> {
        let width = (self.timeline.ended / POINTS).max(FINEST);
        let mut operations: BTreeMap<&str, BTreeMap<u128, Interval>> = BTreeMap::new();
        for call in &self.timeline.calls {
            let intervals = operations.entry(&call.operation).or_default();
            intervals.entry(call.due.as_nanos() / width.as_nanos()).or_default().add(call);
        }
        let line = |plot: &str, operation: &str, unit: &str, points| SeriesRecord {
            scenario: scenario.to_owned(),
            plot: plot.to_owned(),
            name: operation.to_owned(),
            unit: unit.to_owned(),
            x_unit: "s".to_owned(),
            points,
            marks: self.marks(),
        };
        let plot = |plot: &str, unit: &str, y: &dyn Fn(&Interval) -> f64| -> Vec<SeriesRecord> {
            let x = |n: &u128| *n as f64 * width.as_secs_f64();
            let of = |(operation, intervals): (&&str, &BTreeMap<u128, Interval>)| {
                line(plot, operation, unit, intervals.iter().map(|(n, interval)| (x(n), y(interval))).collect())
            };
            operations.iter().map(of).collect()
        };
        let slowest = plot("slowest call over time", "ms", &|interval| interval.slowest.as_secs_f64() * 1e3);
        let failed = plot("errors over time", "/s", &|interval| f64::from(interval.failed) / width.as_secs_f64());
        slowest.into_iter().chain(failed).collect()
    }

    fn marks(&self) -> Vec<(f64, String)> {
        let moments = [(self.timeline.fault, "broken"), (self.timeline.healed, "healed")];
        moments.into_iter().filter_map(|(at, name)| Some((at?.as_secs_f64(), name.to_owned()))).collect()
    }
}

impl Interval {
    fn add(&mut self, call: &Call) {
        self.slowest = self.slowest.max(call.latency());
        self.failed += u32::from(call.reply != Reply::Ok);
    }
}
