//! What the proxy costs, with and without a fault, beside the others.

use std::time::Duration;

use harness_core::fault::{FaultProxy, Towards, WireFault};

use crate::relay;
use crate::wire::{echo, megabytes_a_second, quantile, questions, sink};
use peers_common::{Asked, Measured, Result};

/// The latency of the comparison.
const DELAY: Duration = Duration::from_millis(20);

/// What a round trip of 64 bytes takes longer than without a proxy, at the median.
pub(crate) fn round_trips(asked: &Asked) -> Result<Vec<Measured>> {
    let count = asked.times(20_000, 500);
    let server = echo()?;
    let proxy = FaultProxy::to(server)?;
    let (tokio, noxious) = (relay::tokio_copy(server)?, relay::noxious(server, None)?);
    let (mut added, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..asked.rounds() {
        let median = |address| -> Result<f64> { Ok(quantile(&questions(address, count)?, 0.5)) };
        let (direct, ours, theirs, others) =
            (median(server)?, median(proxy.address())?, median(tokio)?, median(noxious)?);
        println!("  direct {direct:.1} µs, ours {ours:.1}, copy_bidirectional {theirs:.1}, noxious {others:.1}");
        added.push((ours - direct, theirs - direct));
        beside.push((ours - direct, others - direct));
    }
    Ok(vec![
        Measured::pairs("faults.added_p50", "tokio copy_bidirectional", "µs added to a round trip", &added),
        Measured::pairs("faults.added_p50_noxious", "noxious 1.0.4", "µs added to a round trip", &beside),
    ])
}

/// Bulk through a clean proxy and through one with 20 ms of latency.
pub(crate) fn bulk(asked: &Asked) -> Result<Vec<Measured>> {
    let bytes = asked.times(1 << 30, 64 << 20);
    let server = sink()?;
    let (proxy, delayed) = (FaultProxy::to(server)?, FaultProxy::to(server)?);
    let latency = delayed.apply(WireFault::latency(DELAY).towards(Towards::Server))?;
    let tokio = relay::tokio_copy(server)?;
    let (noxious, slow) = (relay::noxious(server, None)?, relay::noxious(server, Some(20))?);
    let mut rounds = [const { Vec::new() }; 4];
    for _ in 0..asked.rounds() {
        let rate = |address| megabytes_a_second(address, bytes);
        let (ours, theirs, late, others) =
            (rate(proxy.address())?, rate(tokio)?, rate(delayed.address())?, rate(noxious)?);
        let crawl = megabytes_a_second(slow, bytes / 256)?;
        println!(
            "  ours {ours:.0} MB/s, copy_bidirectional {theirs:.0}, noxious {others:.0}; with 20 ms ours {late:.0}, noxious {crawl:.1}"
        );
        for (rounds, pair) in rounds.iter_mut().zip([(ours, theirs), (ours, others), (late, ours), (late, crawl)]) {
            rounds.push(pair);
        }
    }
    latency.check_did_bite()?;
    let [clean, beside, kept, ahead] = rounds;
    Ok(vec![
        Measured::pairs("faults.bulk", "tokio copy_bidirectional, 256 KiB", "MB/s", &clean),
        Measured::pairs("faults.bulk_noxious", "noxious 1.0.4", "MB/s", &beside),
        Measured::pairs("faults.bulk_under_latency", "ourselves without the latency", "MB/s", &kept),
        Measured::pairs("faults.bulk_under_latency_noxious", "noxious 1.0.4 with 20 ms", "MB/s", &ahead)
            .note("noxious moves a 256th of the bytes"),
    ])
}

/// How far an injected delay of 20 ms is off, at the 99th percentile.
pub(crate) fn delay(asked: &Asked) -> Result<Vec<Measured>> {
    let count = asked.times(300, 20);
    let server = echo()?;
    let proxy = FaultProxy::to(server)?;
    let _latency = proxy.apply(WireFault::latency(DELAY).towards(Towards::Server))?;
    let mut rounds = Vec::new();
    for _ in 0..asked.rounds() {
        let off = quantile(&questions(proxy.address(), count)?, 0.99) / 1e3 - DELAY.as_secs_f64() * 1e3;
        println!("  {off:.2} ms off at p99");
        rounds.push((off, 2.0));
    }
    Ok(vec![
        Measured::pairs("faults.delay_off_p99_of_2_ms", "2 ms", "ms", &rounds)
            .note("for an idle machine: a whole round trip is counted as error"),
    ])
}
