//! Verdicts against series whose truth is known, and samplers against planted waste.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{LeakRule, Monitor, ProcessSampler, Sampler, Watched, drift, external, returned_to_floor, tasks};
use crate::env::Settings;
use crate::error::ErrorKind;
use crate::run::{Seed, SeedStream, process_start};
use crate::service::{Dialogue, Exec, ProcessId};
use crate::slo::{Measured, Threshold, Unit};
use crate::wait::pause;

fn normal(random: &mut SeedStream) -> f64 {
    (-2.0 * (1.0 - random.unit()).ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos()
}

/// How a process of 100 MB grows to 150 MB while it warms up. Times are shares of the run.
#[derive(Debug, Clone, Copy)]
enum WarmUp {
    None,
    Step(f64),
    Ramp(f64),
    SlowsDown(f64),
}

/// Twenty minutes of one sample a second: noise of half a percent that remembers, and a leak of a share of the level.
fn memory(random: &mut SeedStream, warm_up: WarmUp, leak: f64) -> Vec<(f64, f64)> {
    const MEMORY: f64 = 0.9;
    let mut state = normal(random);
    let mut at = |n: u32| {
        let share = f64::from(n) / 1_200.0;
        let (level, end) = match warm_up {
            WarmUp::None => (1.0, 1.0),
            WarmUp::Step(when) => (1.0 + 0.5 * f64::from(u8::from(share > when)), 1.5),
            WarmUp::Ramp(until) => (1.0 + 0.5 * (share / until).min(1.0), 1.5),
            WarmUp::SlowsDown(scale) => (1.5 - 0.5 * (-share / scale).exp(), 1.5),
        };
        state = MEMORY * state + (1.0 - MEMORY * MEMORY).sqrt() * normal(random);
        (f64::from(n), 1e8 * (level + end * (leak * share + 0.005 * state)))
    };
    (0..1_200).map(&mut at).collect()
}

const WARM_UPS: [WarmUp; 6] = [
    WarmUp::None,
    WarmUp::Step(0.3),
    WarmUp::Ramp(0.3),
    WarmUp::SlowsDown(0.03),
    WarmUp::SlowsDown(0.05),
    WarmUp::SlowsDown(0.08),
];

/// Series of each kind; 2,000 in full form, told by `HARNESS_ROUNDS`.
fn rounds() -> u64 {
    Settings::get().rounds.unwrap_or(40)
}

/// The shares of series that end as a leak and as no evidence, over all warm-ups.
fn shares(warm_ups: &[WarmUp], leak: f64) -> (f64, f64) {
    let mut random = Seed::new(20_261_121).stream(&format!("leak {leak}"));
    let (mut leaks, mut unknown) = (0.0, 0.0);
    for warm_up in warm_ups {
        for _ in 0..rounds() {
            let outcome = LeakRule::default().judge(&memory(&mut random, *warm_up, leak)).outcome;
            leaks += f64::from(u8::from(outcome.is_fail()));
            unknown += f64::from(u8::from(outcome.is_no_evidence()));
        }
    }
    let all = (rounds() * warm_ups.len() as u64) as f64;
    println!(
        "figure: leak of {leak}, {all} series: {:.4} are leaks, {:.4} are no evidence",
        leaks / all,
        unknown / all
    );
    (leaks / all, unknown / all)
}

#[test]
fn a_warm_up_is_no_leak() {
    let (leaks, unknown) = shares(&WARM_UPS, 0.0);
    assert!(leaks <= 0.03, "{leaks}");
    assert!(unknown <= 0.05, "and it is not unknown, either: {unknown}");
}

#[test]
fn a_leak_of_five_percent_per_run_is_found_behind_any_warm_up() {
    let (leaks, _) = shares(&WARM_UPS, 0.05);
    assert!(leaks >= 0.99, "{leaks}");
}

#[test]
fn a_warm_up_that_is_not_over_is_no_evidence_and_no_leak() {
    let slow = [WarmUp::SlowsDown(0.15), WarmUp::SlowsDown(0.2), WarmUp::SlowsDown(0.4)];
    let (leaks, unknown) = shares(&slow, 0.0);
    assert!(leaks <= 0.03 && unknown >= 0.95, "{leaks} {unknown}");
    let mut random = Seed::new(1).stream("slow");
    let judged = LeakRule::default().judge(&memory(&mut random, WarmUp::SlowsDown(0.4), 0.0));
    assert!(judged.outcome.detail().contains("still warming up"), "{}", judged.outcome);
}

#[test]
fn a_leak_as_large_as_a_warm_up_is_a_leak() {
    let mut random = Seed::new(2).stream("large");
    for leak in [0.2, 0.5, 2.0] {
        let judged = LeakRule::default().judge(&memory(&mut random, WarmUp::None, leak));
        assert!(judged.outcome.is_fail(), "{leak}: {}", judged.outcome);
        assert!(judged.per_hour > 0.8 * leak * 1e8 * 3.0, "{leak}: {judged:?}");
    }
}

/// The same with only so many samples in the run.
fn short(random: &mut SeedStream, points: usize, warm_up: WarmUp, leak: f64) -> Vec<(f64, f64)> {
    let all = memory(random, warm_up, leak);
    (0..points).map(|n| all[n * all.len() / points]).collect()
}

#[test]
fn a_leak_that_rises_until_the_end_of_a_short_run_is_a_leak_and_a_slow_warm_up_is_none() {
    let mut random = Seed::new(7).stream("short");
    let (rule, mut false_alarms, mut warm_ups) = (LeakRule::default(), 0.0, 0.0);
    for points in 60..=120 {
        let judged = rule.judge(&short(&mut random, points, WarmUp::None, 2.0));
        assert!(judged.outcome.is_fail(), "{points} points: {}", judged.outcome);
        for scale in [0.15, 0.2, 0.4] {
            let judged = rule.judge(&short(&mut random, points, WarmUp::SlowsDown(scale), 0.0));
            false_alarms += f64::from(u8::from(judged.outcome.is_fail()));
            warm_ups += 1.0;
        }
    }
    assert!(false_alarms <= 0.03 * warm_ups, "{false_alarms} of {warm_ups}");
}

#[test]
fn noise_that_hides_a_leak_is_no_evidence() {
    let mut random = Seed::new(3).stream("loud");
    let loud: Vec<_> = (0..120).map(|n| (f64::from(n), 1e8 * (1.0 + 0.3 * normal(&mut random)))).collect();
    let judged = LeakRule::default().judge(&loud);
    assert!(judged.outcome.is_no_evidence() && judged.outcome.detail().contains("not ruled out"), "{}", judged.outcome);
}

#[test]
fn counts_leak_in_steps_and_an_allowance_is_not_a_leak() {
    let steps = |every: u32| -> Vec<_> { (0..600).map(|n| (f64::from(n), f64::from(40 + n / every))).collect() };
    assert!(LeakRule::default().judge(&steps(20)).outcome.is_fail(), "30 descriptors in the run");
    assert!(LeakRule::default().judge(&steps(1_000)).outcome.is_pass(), "none");
    assert!(LeakRule::default().allowance(40.0).judge(&steps(20)).outcome.is_pass(), "allowed");
}

#[test]
fn what_cannot_be_judged_is_no_evidence() {
    let line = |n: u32| -> Vec<_> { (0..n).map(|n| (f64::from(n), 1.0)).collect() };
    let rule = LeakRule::default();
    assert!(rule.judge(&[]).outcome.is_no_evidence());
    assert!(rule.judge(&line(59)).outcome.is_no_evidence());
    assert!(rule.judge(&line(60)).outcome.is_pass(), "{:?}", rule.judge(&line(60)));
    assert!(rule.judge(&[(5.0, 1.0); 600]).outcome.is_no_evidence(), "all at one moment");
    let mut broken = line(600);
    broken[7].1 = f64::NAN;
    assert!(rule.judge(&broken).outcome.detail().contains("at 7 s"));
    assert!(rule.floor(f64::NAN).judge(&line(600)).outcome.is_no_evidence());
    assert!(rule.warm_up_s(590.0).judge(&line(600)).outcome.is_no_evidence(), "nothing is left");
}

#[test]
fn a_creeping_latency_drifts_and_a_shaking_one_does_not() {
    let mut random = Seed::new(4).stream("drift");
    let mut creeping = |by: f64| -> Vec<_> {
        (0..300)
            .map(|n| (f64::from(n), 20.0 * (1.0 + by * f64::from(n) / 300.0 + 0.05 * normal(&mut random))))
            .collect()
    };
    assert!(drift(&creeping(0.3), 0.1).is_fail());
    assert!(drift(&creeping(0.0), 0.1).is_pass());
    assert!(drift(&creeping(0.0)[..50], 0.1).is_no_evidence());
    assert!(drift(&creeping(0.3), f64::NAN).is_no_evidence());
    // One bad minute in the last third is not a drift of the run.
    let mut burst = creeping(0.0);
    burst.iter_mut().skip(280).for_each(|point| point.1 *= 3.0);
    assert!(drift(&burst, 0.1).is_pass());
}

#[test]
fn what_does_not_come_back_after_the_load_is_named() {
    assert!(returned_to_floor(&[40.0, 41.0], &[42.0], 0.0, 2.0).is_pass());
    let stuck = returned_to_floor(&[40.0, 41.0], &[140.0], 0.1, 2.0);
    assert!(stuck.is_fail() && stuck.detail().contains("40 before, 140 after"), "{stuck}");
    assert!(returned_to_floor(&[], &[1.0], 0.1, 2.0).is_no_evidence());
    assert!(returned_to_floor(&[1.0], &[f64::NAN], 0.1, 2.0).is_no_evidence());
}

/// The readings of one sample by the last word of their names.
async fn one(sampler: &mut impl Sampler) -> std::collections::BTreeMap<String, f64> {
    let readings = sampler.sample().await.unwrap();
    let last = |name: &str| name.rsplit(' ').next().unwrap_or_default().to_owned();
    readings.into_iter().map(|reading| (last(&reading.name), reading.value)).collect()
}

/// Where all tests share a process, descriptors of one are waste to another.
static DESCRIPTORS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[cfg(target_os = "linux")]
#[tokio::test]
async fn planted_waste_of_each_kind_is_seen() {
    let _own = DESCRIPTORS.lock().await;
    let mut sampler = ProcessSampler::own("app");
    let before = one(&mut sampler).await;
    assert!(!before.contains_key("cpu"), "there is nothing to compare with yet");

    let files: Vec<_> = (0..20).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let sockets: Vec<_> = (0..5).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let held = held.clone();
            std::thread::spawn(move || drop(held.lock().map(|held| held.recv())))
        })
        .collect();
    let block = vec![1_u8; 64 << 20]; // written, so it is resident
    let begun = std::time::Instant::now();
    let mut turns = 0_u64;
    while begun.elapsed() < Duration::from_millis(60) {
        turns = std::hint::black_box(turns + 1);
    }
    let after = one(&mut sampler).await;
    let grown = |name: &str| after[name] - before[name];
    assert!(grown("descriptors") >= 25.0 && grown("sockets") >= 5.0 && grown("threads") >= 8.0, "{before:?} {after:?}");
    assert!(grown("rss") >= 60e6 && grown("pss") >= 60e6, "{before:?} {after:?}");
    assert!(after["cpu"] > 1.0 && after["cpu"] <= 101.0, "{after:?}");

    drop((files, sockets, hold, std::hint::black_box(block)));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let floor = one(&mut sampler).await;
    for name in ["descriptors", "sockets", "threads"] {
        let back = returned_to_floor(&[before[name]], &[floor[name]], 0.0, 2.0);
        assert!(back.is_pass(), "{name}: {back}");
    }
}

#[tokio::test]
async fn a_process_that_is_gone_is_a_gap_and_not_zero() {
    let gone = ProcessId { start: 1, ..ProcessId::own() };
    assert_eq!(ProcessSampler::of("ghost", gone).sample().await.unwrap_err().kind(), ErrorKind::Exited);
    let monitor = Monitor::new().every(Duration::from_millis(2)).watch(ProcessSampler::of("ghost", gone)).start();
    let watched = waited(monitor.unwrap(), |_| true).await;
    assert!(watched.gaps()["ghost"].count >= 1 && watched.all().next().is_none());
    let limit = Threshold::parse("memory", "< 2 GB", None).unwrap();
    let outcome = limit.judge(&watched.peak("ghost rss"));
    assert!(outcome.is_no_evidence() && outcome.detail().contains("does not run any more"), "{outcome}");
    assert!(watched.leak("ghost rss", &LeakRule::default()).outcome.is_no_evidence());
}

async fn waited(monitoring: super::Monitoring, enough: impl Fn(&Watched) -> bool) -> Watched {
    pause(Duration::from_millis(60)).await;
    let watched = monitoring.stop().await.unwrap();
    assert!(enough(&watched), "{watched:?}");
    watched
}

#[tokio::test(start_paused = true)]
async fn outside_series_are_kept_with_their_gaps_and_peaks() {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = calls.clone();
    let backends = external("backends", Unit::Count, move || {
        let n = counter.fetch_add(1, Ordering::Relaxed);
        async move {
            if n == 3 { Err(std::io::Error::other("too many clients")) } else { Ok(if n == 5 { 26.0 } else { 4.0 }) }
        }
    });
    let monitoring = Monitor::new().watch(backends).start().unwrap();
    pause(Duration::from_secs(100)).await; // virtual
    let watched = monitoring.stop().await.unwrap();
    let series = watched.series("backends").unwrap();
    assert!((85..115).contains(&series.samples()), "once a second: {}", series.samples());
    assert_eq!(
        (series.gaps(), watched.gaps()["backends"].why.as_str()),
        (1, "`backends` could not be read: too many clients")
    );
    let limit = Threshold::parse("backends", "< 25", None).unwrap();
    assert!(limit.judge(&watched.peak("backends")).is_fail());
    assert!(matches!(watched.mean("backends"), Measured::Value { value, .. } if value < 5.0));
    let records = watched.records("F1");
    assert_eq!((records[0].name.as_str(), records[0].points.len() as u64), ("backends", series.samples()));
    assert!(limit.judge(&watched.peak("frontends")).detail().contains("only: backends"));
}

#[tokio::test]
async fn tasks_that_pile_up_are_counted() {
    let runtime = tokio::runtime::Handle::current();
    let mut sampler = tasks("app", runtime);
    let before = one(&mut sampler).await["tasks"];
    let planted: Vec<_> = (0..50).map(|_| tokio::spawn(std::future::pending::<()>())).collect();
    assert_eq!(one(&mut sampler).await["tasks"] - before, 50.0);
    planted.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_sampler_that_hangs_is_a_gap_and_the_others_go_on() {
    let hung = external("hung", Unit::Count, std::future::pending::<Result<f64, std::io::Error>>);
    let fine = external("fine", Unit::Count, || async { Ok::<_, std::io::Error>(1.0) });
    let monitoring = Monitor::new().watch(hung).watch(fine).start().unwrap();
    pause(Duration::from_secs(30)).await; // virtual
    let watched = monitoring.stop().await.unwrap();
    assert!(watched.gaps()["hung"].why.contains("longer than 2 s"), "{:?}", watched.gaps());
    assert!(watched.series("fine").unwrap().samples() >= 5);
}

#[tokio::test]
async fn a_monitor_that_could_see_nothing_is_refused() {
    assert_eq!(Monitor::new().start().unwrap_err().kind(), ErrorKind::Config);
    let own = || Monitor::new().watch(ProcessSampler::own("app"));
    assert_eq!(own().every(Duration::ZERO).start().unwrap_err().kind(), ErrorKind::Config);
    let outside = std::thread::spawn(move || own().start().map(drop).unwrap_err().kind());
    assert_eq!(outside.join().unwrap(), ErrorKind::Config);
}

/// The part of a process in the processor time of itself and a service of 2 %.
async fn overhead(code: &str) -> Measured {
    let process = Dialogue::start(&Exec::new("sh").args(["-c", code])).unwrap();
    let id = ProcessId { pid: process.pid(), start: process_start(process.pid()).unwrap() };
    let read = || std::future::ready(Ok::<_, std::io::Error>(2.0));
    let service = external("service cpu", Unit::Percent, read);
    let monitor =
        Monitor::new().every(Duration::from_millis(50)).watch(ProcessSampler::of("harness", id)).watch(service);
    let monitor = monitor.start().unwrap();
    pause(Duration::from_secs(1)).await;
    let watched = monitor.stop().await.unwrap();
    assert!(matches!(watched.part_of("harness cpu", &["nobody"]), Measured::Nothing { .. }));
    watched.part_of("harness cpu", &["service cpu"])
}

#[tokio::test]
async fn overhead_of_the_harness_is_seen_with_a_burner_and_not_without() {
    let _own = DESCRIPTORS.lock().await;
    let limit = Threshold::parse("overhead", "<= 25 %", None).unwrap();
    let (calm, burning) = (overhead("exec sleep 60").await, overhead("while :; do :; done").await);
    assert!(limit.judge(&calm).is_pass(), "{}", limit.judge(&calm));
    assert!(limit.judge(&burning).is_fail(), "{}", limit.judge(&burning));
}
