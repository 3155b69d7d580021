//! How late an idle generator starts what is due, beside a pacer that sleeps with the runtime's timers.

use std::time::{Duration, Instant};

use harness_load::{Load, Times, per_second};

use crate::child::one_thread;
use peers_common::{Asked, Measured, Result};

const NOTE: &str = "for an idle machine: on a busy one the tail of both sides is its scheduler's";

pub(crate) fn against_tokio_sleep(asked: &Asked) -> Result<Vec<Measured>> {
    let length = asked.times(Duration::from_secs(2), Duration::from_millis(500));
    let mut goals = Vec::new();
    for (rate, names) in [
        (1_000_u32, ["load.late_p50_1000", "load.late_p99_1000"]),
        (5_000, ["load.late_p50_5000", "load.late_p99_5000"]),
    ] {
        let mut rounds = [Vec::new(), Vec::new()];
        for _ in 0..asked.rounds() {
            let load = Load::open(per_second(rate)).hold(length);
            let run = one_thread().block_on(load.flow("nothing", 1, async |_| Ok::<(), std::io::Error>(())).run())?;
            let theirs = one_thread().block_on(sleeping(rate, length));
            let micros = |times: &Times, q| times.quantile(q).map_or(0.0, |span| span.high as f64 / 1e3);
            for (rounds, q) in rounds.iter_mut().zip([0.5, 0.99]) {
                rounds.push((micros(&run.generator().lateness, q), micros(&theirs, q)));
            }
        }
        for (rounds, name) in rounds.iter().zip(names) {
            println!("  {name}: {rounds:.0?} µs");
            goals.push(Measured::pairs(name, "tokio::time::sleep_until", "µs late", rounds).note(NOTE));
        }
    }
    Ok(goals)
}

async fn sleeping(rate: u32, length: Duration) -> Times {
    let (start, mut times) = (Instant::now(), Times::default());
    for n in 0..(length.as_secs_f64() * f64::from(rate)) as u32 {
        let due = start + Duration::from_secs(1) * n / rate;
        tokio::time::sleep_until(due.into()).await;
        times.record(Instant::now().saturating_duration_since(due));
    }
    times
}
