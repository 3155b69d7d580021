//! Records for tests: five small runs with known ends, and a realistic campaign of fourteen scenarios.

mod campaign;
mod many;

use std::collections::BTreeMap;

use harness_props::Outcome;

use crate::record::{
    CriterionRecord, Event, Line, Machine, PreflightRecord, Records, SCHEMA, ScenarioRecord, SeriesRecord, StepRecord,
};

pub(in crate::report) use campaign::{campaign, campaign_records};
pub(in crate::report) use many::many;

/// 2026-11-21 12:00:00 UTC.
const START_MS: u64 = 1_795_262_400_000;

/// Records under construction, on a clock of its own.
pub(in crate::report) struct Tape {
    pub(in crate::report) records: Records,
    attempt: String,
    /// Lines of each attempt.
    written: BTreeMap<String, u64>,
    at_ms: u64,
    noise: u64,
}

impl Tape {
    pub(in crate::report) fn new(subject: &str, plants: &[&str]) -> Self {
        let mut tape = Self {
            records: Records::default(),
            attempt: "main".into(),
            written: BTreeMap::new(),
            at_ms: START_MS,
            noise: 0x51f2a9,
        };
        tape.push(Event::RunStarted {
            subject: subject.into(),
            seed: "0x51f2a9".into(),
            profile: "local".into(),
            plants: plants.iter().map(|&plant| plant.into()).collect(),
            command: "cargo xtask campaign --profile local".into(),
            machine: Machine {
                cores: 2,
                memory_mib: 7936,
                kernel: "Linux 6.1.0-28-amd64".into(),
                cpu: "AMD EPYC 7B13".into(),
                build: "release".into(),
            },
            choices: vec![
                "postgres: container harness/postgres:17, since an engine answers and the image is present".into(),
                "redis: local redis-server 7.0.15, since no image is present".into(),
            ],
            roles: BTreeMap::from([
                ("Lead engineer".into(), "P1 within three days, P2 in the next sprint".into()),
                ("Release captain".into(), "P0 at once; decides about the release".into()),
            ]),
        });
        tape
    }

    pub(in crate::report) fn attempt(&mut self, name: &str) {
        self.attempt = name.into();
    }

    pub(in crate::report) fn push(&mut self, event: Event) {
        let written = self.written.entry(self.attempt.clone()).or_default();
        let seq = std::mem::replace(written, *written + 1);
        let (run, attempt) = ("7f3c9a1e2b40".into(), self.attempt.clone());
        self.records.lines.push(Line { schema: SCHEMA, run, attempt, seq, at_ms: self.at_ms, event });
    }

    pub(in crate::report) fn wait(&mut self, ms: f64) {
        self.at_ms += ms as u64;
    }

    /// A number in 0..1, the same at every run of the tests.
    fn noise(&mut self) -> f64 {
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.noise >> 40) as f64 / f64::from(1u32 << 24) * 1000.0).round() / 1000.0
    }

    pub(in crate::report) fn begin(&mut self, id: &str, category: &str, title: &str, critical: bool) {
        self.push(Event::ScenarioStarted(ScenarioRecord {
            id: id.into(),
            title: title.into(),
            category: category.into(),
            phase: category.into(),
            critical,
            expectation: format!("{title}, within the limits below and without a single lost or mixed answer."),
            remedy: "Compare the plot with the last green run, then read the service log around the mark.".into(),
            requirements: vec![format!("R-{:03}", 70 + self.records.lines.len() % 60)],
            tags: Vec::new(),
        }));
    }

    pub(in crate::report) fn step(&mut self, id: &str, label: &str, took_ms: f64, outcome: Outcome) {
        self.wait(took_ms);
        self.push(Event::Step(StepRecord { scenario: id.into(), label: label.into(), took_ms, outcome }));
    }

    pub(in crate::report) fn criterion(&mut self, id: &str, row: [&str; 4], samples: u64, outcome: Outcome) {
        let colour = match outcome {
            Outcome::Pass { .. } => "green",
            Outcome::Degraded { .. } => "yellow",
            Outcome::Fail { .. } => "red",
            _ => "",
        };
        let [metric, target, critical, actual] = row.map(str::to_owned);
        let requirement =
            if id.is_empty() { format!("R-{}", 127 + self.records.lines.len() % 10) } else { String::new() };
        self.push(Event::Criterion(CriterionRecord {
            scenario: id.into(),
            metric,
            requirement,
            target,
            critical,
            actual,
            samples,
            outcome,
            is_critical: id.is_empty(),
            colour: colour.into(),
        }));
    }

    pub(in crate::report) fn end(&mut self, id: &str, took_ms: f64, outcome: Outcome, message: &str) {
        self.wait(took_ms);
        let again = format!("HARNESS_SEED=0x51f2a9 cargo test -p pattern-service --test campaign -- {id}");
        self.push(Event::ScenarioFinished { id: id.into(), outcome, took_ms, message: message.into(), again });
    }

    fn series(&mut self, id: &str, plot: [&str; 4], points: Vec<(f64, f64)>, marks: &[(f64, &str)]) {
        let [plot, name, unit, x_unit] = plot.map(str::to_owned);
        let marks = marks.iter().map(|(at, label)| (*at, (*label).into())).collect();
        // JSON carries short decimals without loss.
        let points = points.into_iter().map(|(x, y)| (x, (y * 1000.0_f64).round() / 1000.0)).collect();
        self.push(Event::Series(SeriesRecord { scenario: id.into(), plot, name, unit, x_unit, points, marks }));
    }

    /// Percentiles over time, with a bump between two marks.
    fn latency(&mut self, id: &str, seconds: u32, base: f64, marks: &[(f64, &str)]) {
        for (name, factor) in [("p50", 1.0), ("p95", 1.9), ("p99", 2.6)] {
            let points = (0..seconds * 4).map(|n| {
                let t = f64::from(n) / 4.0;
                let broken = marks.len() >= 2 && t >= marks[0].0 && t < marks[1].0;
                let bump = if broken { 3.2 } else { 1.0 };
                (t, base * factor * bump * (0.85 + 0.3 * self.noise()))
            });
            let points = points.collect();
            let marks = if name == "p50" { marks } else { &[] };
            self.series(id, ["Latency over time", name, "ms", "s"], points, marks);
        }
    }

    fn throughput(&mut self, id: &str, seconds: u32, rate: f64, marks: &[(f64, &str)]) {
        for (name, level) in [("answered", 1.0), ("failed", 0.0)] {
            let points = (0..seconds).map(|n| {
                let t = f64::from(n);
                let broken = marks.len() >= 2 && t >= marks[0].0 && t < marks[1].0;
                let share = if broken { 1.0 - level } else { level };
                (t, rate * share * (0.96 + 0.08 * self.noise()))
            });
            let points = points.collect();
            let marks = if level > 0.0 { marks } else { &[] };
            self.series(id, ["Throughput", name, "requests/s", "s"], points, marks);
        }
    }

    pub(in crate::report) fn decided(&mut self, verdict: &str, reasons: &[&str], exit_code: u8) {
        for name in ["analysed", "decided"] {
            self.wait(400.0);
            self.push(Event::Stamp { name: name.into() });
        }
        let reasons = reasons.iter().map(|&reason| reason.into()).collect();
        let release = if verdict == "GO" { "awaiting approval by 3 of 3 roles" } else { "held back" };
        self.push(Event::Decided { verdict: verdict.into(), reasons, release: release.into(), exit_code });
    }
}

/// The small runs that golden files are made of, by name.
pub(in crate::report) fn small() -> Vec<(&'static str, Records)> {
    let pass = || Outcome::pass("500 samples, 50 at once");
    let runs = [
        ("all-green", "142 ms", pass(), "GO", vec![], 0),
        ("at-limits", "249.999999 ms", Outcome::pass("just below the target"), "GO", vec![], 0),
        (
            "degraded",
            "250 ms",
            Outcome::degraded("250 ms is not < 250 ms"),
            "CONDITIONAL",
            vec!["R-133 p95: 250 ms misses the target < 250 ms, within critical < 500 ms"],
            2,
        ),
        (
            "critical",
            "500 ms",
            Outcome::fail("500 ms is not < 500 ms"),
            "NO-GO",
            vec!["R-133 p95: 500 ms is beyond critical < 500 ms"],
            1,
        ),
        (
            "no-evidence",
            "",
            Outcome::no_evidence("p95 needs 100 samples, has 20"),
            "NO-GO",
            vec!["R-133 p95 is critical and has no evidence: needs 100 samples, has 20"],
            1,
        ),
    ];
    runs.into_iter()
        .map(|(name, actual, outcome, verdict, reasons, exit)| {
            (name, small_run(actual, &outcome, verdict, &reasons, exit))
        })
        .collect()
}

fn small_run(actual: &str, outcome: &Outcome, verdict: &str, reasons: &[&str], exit: u8) -> Records {
    let mut tape = Tape::new("pattern service 2.2.0", &[]);
    let samples = if outcome.is_no_evidence() { 20 } else { 500 };
    let probe = |probe: &str| PreflightRecord {
        probe: probe.into(),
        requirement: "R-014".into(),
        outcome: Outcome::pass("answers in 3 ms"),
        remedy: "run `harness provision`".into(),
        took_ms: 3.0,
        advisory: false,
    };
    tape.push(Event::Preflight(probe("postgres answers")));
    tape.push(Event::PhaseStarted {
        phase: "database".into(),
        budget_ms: 60_000,
        scenarios: vec!["D1".into(), "D2".into()],
    });
    tape.begin("D1", "database", "Queries answer in time", true);
    tape.step("D1", "warm up", 900.0, Outcome::pass("50 queries"));
    tape.criterion("D1", ["database p95", "< 250 ms", "< 500 ms", actual], samples, outcome.clone());
    let curve = vec![(0.0, 40.0), (50.0, 96.0), (90.0, 180.0), (95.0, 240.0), (99.0, 310.0), (99.9, 420.0)];
    tape.series("D1", ["Latency by percentile", "queries", "ms", "percentile"], curve, &[]);
    let message =
        if outcome.is_fail() { "p95 is beyond critical\n  measured  500 ms\n  limit     < 500 ms" } else { "" };
    tape.end("D1", 4_200.0, outcome.clone(), message);
    tape.begin("D2", "database", "Deadlocks are resolved", false);
    tape.end("D2", 1_250.0, Outcome::pass("40 forced, 40 resolved"), "");
    tape.push(Event::PhaseFinished { phase: "database".into(), took_ms: 5_450.0, overran: false });
    for row in [
        ["concurrency success", ">= 95 %", ">= 90 %", "95.7 %"],
        ["websocket success", ">= 99 %", ">= 95 %", "100 %"],
        ["throughput", ">= 100/s", ">= 50/s", "105/s"],
        ["token reduction", ">= 40 %", ">= 30 %", "42.3 %"],
        ["cache hit rate", "> 80 %", "> 70 %", "81.2 %"],
    ] {
        tape.criterion("", row, 500, Outcome::pass("500 samples"));
    }
    tape.criterion("", ["p95", "< 250 ms", "< 500 ms", actual], samples, outcome.clone());
    tape.push(Event::NotInScope { row: "R-180 rollback".into(), why: "needs a second deployment".into() });
    tape.decided(verdict, reasons, exit);
    tape.records
}
