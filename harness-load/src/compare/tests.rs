//! The detector against noise whose truth is known, and the driver on a clock that only moves when told.

use std::cell::Cell;
use std::time::Duration;

use harness_core::ErrorKind;
use harness_core::env::Settings;
use harness_core::run::{Seed, SeedStream};

use super::{Comparison, Judge, Metric, Verdict, compare};
use harness_core::monitor::trend::median;

/// A standard normal number (Box and Muller, 1958).
fn normal(random: &mut SeedStream) -> f64 {
    let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.unit()).cos()
}

/// The median of 30 windows of one second: 5 % from window to window with memory, and one in fifty takes twice as long.
fn run_of(random: &mut SeedStream, level: f64) -> f64 {
    const MEMORY: f64 = 0.6;
    let mut state = normal(random);
    let mut window = || {
        state = MEMORY * state + (1.0 - MEMORY * MEMORY).sqrt() * normal(random);
        let spike = if random.unit() < 0.02 { 2.0 } else { 1.0 };
        level * (1.0 + 0.05 * state) * spike
    };
    median(&(0..30).map(|_| window()).collect::<Vec<_>>())
}

/// A comparison of eight pairs. Runs differ by `noise`; what a pair does not share of it is a tenth.
fn compared(random: &mut SeedStream, noise: f64, factor: f64) -> Comparison {
    let mut pair = || {
        let shared = (noise * normal(random)).exp();
        let own = |random: &mut SeedStream| shared * (0.1 * noise * normal(random)).exp();
        let (old, new) = (own(random), own(random) * factor);
        (run_of(random, old), run_of(random, new))
    };
    let pairs: Vec<_> = (0..8).map(|_| pair()).collect();
    Judge::default().judge([Metric::new("p50", pairs)]).unwrap()
}

const NOISES: [f64; 3] = [0.005, 0.0266, 0.08];

/// 4,000 in full form, told by `HARNESS_ROUNDS`; a twentieth of it in the normal run.
fn rounds() -> u64 {
    Settings::get().rounds.unwrap_or(200)
}

fn share_of(label: &str, noise: f64, factor: f64, verdict: Verdict) -> f64 {
    let mut random = Seed::new(20_261_121).stream(&format!("{label} {noise}"));
    let found = (0..rounds()).filter(|_| compared(&mut random, noise, factor).verdict() == verdict).count();
    let share = found as f64 / rounds() as f64;
    println!("figure: {label} at a noise of {noise}: {found} of {} are {verdict:?} ({share:.4})", rounds());
    share
}

/// How far a share may lie beside its limit by chance: three standard errors in the short form, nothing in the full one.
fn chance(limit: f64) -> f64 {
    if rounds() >= 4_000 { 0.0 } else { 3.0 * (limit * (1.0 - limit) / rounds() as f64).sqrt() }
}

#[test]
fn equal_things_alarm_in_one_of_a_hundred_comparisons_at_most() {
    for noise in NOISES {
        let alarms = share_of("equal", noise, 1.0, Verdict::Regressed);
        assert!(alarms <= 0.01 + chance(0.01), "{alarms}");
    }
}

#[test]
fn the_same_noise_fools_one_run_against_one_run() {
    let mut random = Seed::new(20_261_121).stream("naive");
    let mut level = || {
        let run = (0.08 * normal(&mut random)).exp();
        run_of(&mut random, run)
    };
    let alarms = (0..400).filter(|_| level() * 1.05 < level()).count();
    assert!(alarms > 80, "a fixed limit of 5 % alarms in a fifth of comparisons of equal things: {alarms} of 400");
}

#[test]
fn ten_and_twenty_percent_are_found_at_every_noise() {
    for noise in NOISES {
        let ten = share_of("ten percent", noise, 1.10, Verdict::Regressed);
        assert!(ten >= 0.98 - chance(0.98), "{ten}");
        let twenty = share_of("twenty percent", noise, 1.20, Verdict::Regressed);
        assert!(twenty >= 0.999 - chance(0.999), "{twenty}");
    }
}

#[test]
fn noise_beyond_measure_is_inconclusive_and_never_ok() {
    let mut random = Seed::new(3).stream("loud");
    let loud = |random: &mut SeedStream| (10.0 * (0.5 * normal(random)).exp(), 10.0 * (0.5 * normal(random)).exp());
    let pairs: Vec<_> = (0..8).map(|_| loud(&mut random)).collect();
    let comparison = Judge::default().judge([Metric::new("p50", pairs)]).unwrap();
    assert_eq!(comparison.verdict(), Verdict::Inconclusive);
    assert!(comparison.outcome().is_no_evidence() && comparison.rows()[0].detectable > 0.10, "{comparison}");
    assert_eq!(comparison.check().unwrap_err().kind(), ErrorKind::NoEvidence);
}

/// Eight pairs that lean by `change`, with a little of everything around it.
fn leaning(name: &str, change: f64) -> Metric {
    Metric::new(name, (0..8).map(|n| (100.0, 100.0 * (1.0 + change) * (1.0 + (f64::from(n) * 2.1).sin() / 200.0))))
}

#[test]
fn one_slow_metric_among_equal_ones_is_the_only_one_named() {
    let judge = Judge::default().alpha(0.02);
    let comparison = judge.judge([leaning("p50", 0.0), leaning("p95", 0.2), leaning("rate", 0.0)]).unwrap();
    let regressed: Vec<_> = comparison.rows().iter().filter(|row| row.verdict == Verdict::Regressed).collect();
    assert_eq!(regressed.len(), 1, "{comparison}");
    assert_eq!(regressed[0].name, "p95");
    let error = comparison.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Assertion);
    assert!(error.what().contains("p95 +20") && error.what().contains("regressed"), "{error}");
}

#[test]
fn holm_lets_ten_metrics_alarm_no_oftener_than_one() {
    let mut random = Seed::new(11).stream("many");
    let judge = Judge::default().alpha(0.05).floor(0.0);
    let mut noise = |name: usize| {
        let pairs: Vec<_> = (0..10).map(|_| (1.0, (0.05 * normal(&mut random)).exp())).collect();
        Metric::new(format!("metric {name}"), pairs)
    };
    let mut alarms = [0, 0];
    for _ in 0..40 {
        let metrics: Vec<_> = (0..10).map(&mut noise).collect();
        let alone = |metric: &Metric| judge.judge([metric.clone()]).unwrap().verdict() == Verdict::Regressed;
        alarms[0] += usize::from(metrics.iter().any(alone));
        alarms[1] += usize::from(judge.judge(metrics).unwrap().verdict() == Verdict::Regressed);
    }
    assert!(alarms[0] > 10, "without the adjustment many alarm: {alarms:?}");
    assert!(alarms[1] <= 6, "with it one in twenty: {alarms:?}");
}

#[test]
fn more_can_be_better() {
    let fewer = leaning("rate", -0.15).higher_is_better();
    assert_eq!(Judge::default().judge([fewer]).unwrap().verdict(), Verdict::Regressed);
    let less = Judge::default().judge([leaning("p50", -0.15)]).unwrap();
    assert_eq!(less.verdict(), Verdict::Ok);
    assert!(less.to_string().contains("improved"), "{less}");
}

#[test]
fn figures_that_are_none_are_refused_by_name() {
    for wrong in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        let mut pairs = vec![(1.0, 1.0); 8];
        pairs[5].1 = wrong;
        let error = Judge::default().judge([Metric::new("p50", pairs)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.what().starts_with("pair 5 of `p50`"), "{error}");
    }
    for judge in [
        Judge::default().alpha(0.0),
        Judge::default().alpha(f64::NAN),
        Judge::default().detect(0.0),
        Judge::default().floor(-0.1),
        Judge::default().floor(0.2),
    ] {
        assert_eq!(judge.judge([leaning("p50", 0.0)]).unwrap_err().kind(), ErrorKind::Config, "{judge:?}");
    }
}

#[test]
fn too_few_pairs_are_no_evidence_and_the_error_says_how_many_are_needed() {
    let few = Metric::new("p50", vec![(1.0, 1.0); 6]);
    let error = Judge::default().judge([few]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoEvidence);
    assert!(error.what().contains("has 6 pairs") && error.what().contains("need 7"), "{error}");
    let ten = (0..10).map(|n| leaning(&n.to_string(), 0.0));
    assert!(Judge::default().judge(ten).unwrap_err().what().contains("need 10"));
    assert_eq!(Judge::default().judge([]).unwrap_err().kind(), ErrorKind::NoEvidence);
}

/// A machine with a clock of its own: work moves it, and it slows down steadily.
struct Machine {
    at: Cell<Duration>,
    calls: Cell<u32>,
}

impl Machine {
    fn new() -> Self {
        Self { at: Cell::new(Duration::ZERO), calls: Cell::new(0) }
    }

    async fn work(&self, micros: f64) -> Result<(), std::io::Error> {
        self.calls.set(self.calls.get() + 1);
        let drift = 1.0 + f64::from(self.calls.get()) * 1e-4;
        let jitter = 1.0 + 0.05 * Seed::new(self.calls.get().into()).stream("jitter").unit();
        self.at.set(self.at.get() + Duration::from_secs_f64(micros * drift * jitter / 1e6));
        Ok(())
    }
}

async fn driven(new_micros: f64) -> Comparison {
    let machine = Machine::new();
    let comparison = compare("search").round(Duration::from_millis(20)).clock(|| machine.at.get());
    comparison.run(async || machine.work(1_000.0).await, async || machine.work(new_micros).await).await.unwrap()
}

#[tokio::test]
async fn a_planted_slowdown_of_15_percent_is_found_on_a_machine_that_drifts() {
    let comparison = driven(1_150.0).await;
    assert_eq!(comparison.verdict(), Verdict::Regressed, "{comparison}");
    assert!((comparison.rows()[0].change - 0.15).abs() < 0.01, "{comparison}");
    assert_eq!(driven(1_000.0).await.verdict(), Verdict::Ok);
}

#[tokio::test]
async fn closures_too_short_for_the_clock_share_samples() {
    let machine = Machine::new();
    let calls = &machine.calls;
    let looks = Cell::new(0_u32);
    let clock = || {
        looks.set(looks.get() + 1);
        machine.at.get()
    };
    let comparison = compare("tiny").round(Duration::from_millis(2)).clock(clock);
    let comparison = comparison.run(async || machine.work(0.5).await, async || machine.work(0.6).await).await.unwrap();
    assert_eq!(comparison.verdict(), Verdict::Regressed, "{comparison}");
    assert!(calls.get() > 2 * looks.get(), "{} calls, {} looks at the clock", calls.get(), looks.get());
}

#[tokio::test]
async fn a_side_that_fails_or_takes_no_time_has_no_speed() {
    let machine = Machine::new();
    let failing = compare("search").clock(|| machine.at.get());
    let failed = async || Err(std::io::Error::other("refused"));
    let error = failing.run(async || machine.work(1_000.0).await, failed).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Assertion);
    assert!(error.what().contains("the new one failed: refused"), "{error}");
    let nothing = async || Ok::<(), std::io::Error>(());
    let error = compare("void").clock(|| Duration::ZERO).run(nothing, nothing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoEvidence, "{error}");
    let error = compare("few").pairs(3).run(nothing, nothing).await.unwrap_err();
    assert!(error.what().contains("7 are needed"), "{error}");
}
