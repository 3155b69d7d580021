//! A run over time and as a distribution, ready to plot.

use harness_core::record::SeriesRecord;

use crate::engine::Second;
use crate::run::LoadRun;
use crate::times::Times;

/// The percentiles of a distribution plot.
const PERCENTILES: [f64; 13] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.99];

impl LoadRun {
    /// The run second by second: response percentiles of what was due in each second, rates, failures, the most
    /// in flight, and what was watched. Phases and the marks of the load are labelled.
    #[must_use]
    pub fn series(&self, scenario: &str) -> Vec<SeriesRecord> {
        let latency = |q: f64| {
            let at = move |second: &Second| Some(second.response.as_ref()?.quantile(q) as f64 / 1e3);
            self.points(move |second, _| at(second))
        };
        let series = |plot: &str, name: &str, unit: &str, points| SeriesRecord {
            scenario: scenario.to_owned(),
            plot: plot.to_owned(),
            name: name.to_owned(),
            unit: unit.to_owned(),
            x_unit: "s".to_owned(),
            points,
            marks: self.all_marks(),
        };
        let mut all = vec![
            series("latency over time", "p50", "ms", latency(0.5)),
            series("latency over time", "p95", "ms", latency(0.95)),
            series("latency over time", "p99", "ms", latency(0.99)),
            series("rate over time", "due", "/s", self.points(|second, width| Some(second.due as f64 / width))),
            series("rate over time", "completed", "/s", self.points(|second, width| Some(second.ok as f64 / width))),
            series("errors over time", "failed", "/s", self.points(|second, width| Some(second.failed as f64 / width))),
            series("in flight over time", "most in flight", "", self.points(|second, _| Some(second.in_flight as f64))),
        ];
        let resources = self.watched.iter().flat_map(|watched| watched.records(scenario));
        all.extend(resources.map(|record| SeriesRecord { marks: self.all_marks(), ..record }));
        all
    }

    /// Response percentiles of each flow in the measured phases; x is the percentile. A percentile is left out when
    /// fewer than five samples lie beyond it.
    #[must_use]
    pub fn distribution(&self, scenario: &str) -> Vec<SeriesRecord> {
        let flows = self.flows.iter().enumerate();
        flows
            .map(|(flow, name)| {
                let measured = self.cells.iter().zip(&self.phases).filter(|(_, phase)| phase.measured);
                let responses =
                    measured.flat_map(|(cells, _)| [&cells[flow].response_ok, &cells[flow].response_failed]);
                let times = Times::merged(responses);
                let told = PERCENTILES.iter().filter(|p| times.len() as f64 * (100.0 - *p) / 100.0 >= 5.0 - 1e-6);
                let points = told.filter_map(|p| Some((*p, times.quantile(p / 100.0)?.high as f64 / 1e6)));
                SeriesRecord {
                    scenario: scenario.to_owned(),
                    plot: "latency distribution".to_owned(),
                    name: name.clone(),
                    unit: "ms".to_owned(),
                    x_unit: "percentile".to_owned(),
                    points: points.collect(),
                    marks: Vec::new(),
                }
            })
            .collect()
    }

    /// One point per interval, a second in runs of up to a quarter of an hour; `width` is how much of the second lies within the phases (1 during the drain).
    fn points(&self, y: impl Fn(&Second, f64) -> Option<f64>) -> Vec<(f64, f64)> {
        let end = self
            .starts
            .last()
            .zip(self.phases.last())
            .map_or(0.0, |(start, last)| (*start + last.length).as_secs_f64());
        let interval = self.interval as f64;
        let seconds = self.seconds.iter().enumerate().map(|(n, second)| (n as f64 * interval, second));
        let width = |x: f64| if end > x { (end - x).min(interval) } else { interval };
        seconds.filter_map(|(x, second)| Some((x, y(second, width(x))?))).collect()
    }

    fn all_marks(&self) -> Vec<(f64, String)> {
        // A run of one phase has no border worth a mark; reports pair marks up into bands, so none may be idle.
        let starts = self.starts.iter().zip(&self.phases).filter(|_| self.phases.len() > 1);
        let phases = starts.map(|(start, phase)| (start.as_secs_f64(), phase.name.clone()));
        let marks = self.marks.iter().map(|(at, label)| (at.as_secs_f64(), label.clone()));
        let mut all: Vec<_> = phases.chain(marks).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all
    }
}
