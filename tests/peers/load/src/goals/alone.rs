//! Figures without a peer: the cost of an iteration that does nothing, memory, quantiles.

use std::hint::black_box;
use std::time::{Duration, Instant};

use harness_load::{Load, Times};
use nix::sys::resource::UsageWho;

use crate::child::{self, Cpu};
use peers_common::{Asked, Measured, Result};

/// An iteration of nothing against the clock reads it makes and its three records.
pub(crate) fn noop(asked: &Asked) -> Result<Vec<Measured>> {
    let iterations = asked.times(3_000_000, 200_000);
    let (mut rounds, mut reads_each) = (Vec::new(), 0.0);
    for _ in 0..asked.rounds() {
        let before = Cpu::now(UsageWho::RUSAGE_SELF)?;
        let load = Load::closed(32).hold(Duration::from_secs(3_600)).at_most(iterations);
        let flow = |_| std::future::ready(Ok::<(), std::io::Error>(()));
        let run = child::one_thread().block_on(load.flow("nothing", 1, flow).run())?;
        let ours = (Cpu::now(UsageWho::RUSAGE_SELF)? - before).total();
        reads_each = run.generator().clock_reads as f64 / iterations as f64;
        let before = Cpu::now(UsageWho::RUSAGE_SELF)?;
        let mut times = [Times::default(), Times::default(), Times::default()];
        // As an engine of nothing else would do it: read the clock before and after, record what it said.
        let start = Instant::now();
        for _ in 0..iterations {
            let begun = Instant::now();
            let ended = Instant::now();
            times[0].record_nanos((black_box(ended) - begun).as_nanos() as u64);
            times[1].record_nanos((ended - begun).as_nanos() as u64);
            times[2].record_nanos((begun - start).subsec_nanos().into());
        }
        for _ in 2 * iterations..run.generator().clock_reads {
            black_box(Instant::now());
        }
        black_box(&times);
        let floor = (Cpu::now(UsageWho::RUSAGE_SELF)? - before).total();
        let nanos = |cpu: Duration| cpu.as_nanos() as f64 / iterations as f64;
        println!("  {:.0} ns an iteration, its floor {:.0} ns", nanos(ours), nanos(floor));
        rounds.push((nanos(ours), nanos(floor)));
    }
    Ok(vec![
        Measured::pairs("load.noop", "clock reads and three records", "ns CPU per iteration", &rounds)
            .detail("clock_reads_per_iteration", reads_each),
    ])
}

/// The worst error of a quantile of ten million values, as a share of what is allowed.
pub(crate) fn quantile(asked: &Asked) -> Result<Vec<Measured>> {
    let count = asked.times(10_000_000, 1_000_000);
    let (mut times, mut exact, mut state) = (Times::default(), Vec::with_capacity(count), 7_u64);
    let mut unit = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    for _ in 0..count {
        // Log-normal around a millisecond, by Box and Muller.
        let normal = (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
        let nanos = (1e6 * (1.2 * normal).exp()) as u64;
        times.record_nanos(nanos);
        exact.push(nanos);
    }
    exact.sort_unstable();
    let error = |q: f64| {
        let truth = exact[((q * count as f64).ceil() as usize).clamp(1, count) - 1] as f64;
        let span = times.quantile(q).map_or(0, |span| span.high) as f64;
        (span - truth).abs() / truth
    };
    let worst = [0.5, 0.9, 0.95, 0.99, 0.999, 0.9999].map(error).into_iter().fold(0.0, f64::max);
    println!("  worst error {:.4} %", worst * 100.0);
    Ok(vec![Measured::pairs("load.quantile", "what is allowed: 0.1 %", "relative error", &[(worst, 0.001)])])
}

/// Growth of resident memory between the first million iterations and the last of fifty million.
pub(crate) fn memory(asked: &Asked) -> Result<Vec<Measured>> {
    let iterations = asked.times(50_000_000, 2_000_000_u64);
    let (text, _) = child::measured(&mut child::ours(&["memory", &iterations.to_string()])?)?;
    let seen = child::last_json(&text)?;
    let at = |name: &str| seen[name].as_u64().ok_or("the child did not say how much memory it had");
    if at("done")? != iterations {
        return Err(format!("{} of {iterations} iterations were done", seen["done"]).into());
    }
    let growth = at("last")?.saturating_sub(at("first")?);
    println!("  {growth} bytes more after {iterations} iterations, of {}", at("first")?);
    Ok(vec![
        Measured::pairs("load.memory", "what is allowed: 1 MiB", "bytes of growth", &[(growth as f64, 1_048_576.0)])
            .detail("resident_after_1m", at("first")?),
    ])
}
