//! The figures of the proxy in short form: many refusals, many connections that time out, many changes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness_core::fault::{Decision, FaultProxy, ProxySpec, Towards, WireFault};
use harness_core::run::Seed;

use super::world::{LIMIT, ask, connect, echo};

#[test]
fn connecting_times_out_for_everybody_while_established_traffic_goes_on() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let established = connect(proxy.address()).unwrap();
    assert_eq!(ask(&established, "before").unwrap(), "before");
    let fault = proxy.apply(WireFault::connect_timeout()).unwrap();
    for n in 0..20 {
        let error = TcpStream::connect_timeout(&proxy.address(), Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "client {n}");
        assert_eq!(ask(&established, "during").unwrap(), "during");
    }
    // Who goes on trying gets through once it is healed.
    let address = proxy.address();
    let patient = std::thread::spawn(move || ask(&connect(address).unwrap(), "patient").unwrap());
    fault.lift().unwrap();
    for _ in 0..20 {
        assert_eq!(ask(&connect(proxy.address()).unwrap(), "after").unwrap(), "after");
    }
    assert_eq!(patient.join().unwrap(), "patient");
    fault.check_did_bite().unwrap();
}

#[test]
fn refusing_and_serving_take_turns_at_one_port() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let established = connect(proxy.address()).unwrap();
    let refuse = proxy.fault(WireFault::refuse()).unwrap();
    for n in 0..100 {
        refuse.apply().unwrap();
        let error = TcpStream::connect_timeout(&proxy.address(), LIMIT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "round {n}");
        refuse.lift().unwrap();
        assert_eq!(ask(&connect(proxy.address()).unwrap(), "served").unwrap(), "served", "round {n}");
        assert_eq!(ask(&established, "alive").unwrap(), "alive", "round {n}");
    }
}

/// A stream of bytes that no two places of share, to notice what is lost, doubled or exchanged.
fn stream_of(client: u64, len: u64) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(31).wrapping_add(n >> 8) ^ client) as u8).collect()
}

#[test]
fn random_changes_of_faults_leave_every_stream_byte_identical() {
    const CLIENTS: u64 = 24;
    const CHANGES: u64 = 1_000;
    let proxy = FaultProxy::to(echo()).unwrap();
    let address = proxy.address();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            std::thread::spawn(move || {
                let mut client = connect(address).unwrap();
                let bytes = stream_of(n, 200_000);
                let (mut sender, sent) = (client.try_clone().unwrap(), bytes.clone());
                let sending = std::thread::spawn(move || {
                    sender.write_all(&sent).unwrap();
                    sender.shutdown(std::net::Shutdown::Write).unwrap();
                });
                let (mut heard, mut piece) = (Vec::new(), vec![0; 1 + 900 * n as usize]); // the first reads byte by byte
                while let Some(len) = Some(client.read(&mut piece).unwrap()).filter(|len| *len > 0) {
                    heard.extend_from_slice(&piece[..len]);
                }
                sending.join().unwrap();
                heard == bytes
            })
        })
        .collect();
    let mut random = Seed::new(11).stream("changes");
    let mut applied = Vec::new();
    for _ in 0..CHANGES {
        let millis = |n| Duration::from_millis(n);
        let fault = match random.below(5) {
            0 => WireFault::latency_between(Duration::ZERO, millis(random.below(4))),
            1 => WireFault::bandwidth(1 << (20 + random.below(6))),
            2 => WireFault::slice(1 + random.below(5_000), Duration::ZERO),
            3 => WireFault::stall(),
            _ => WireFault::latency(millis(1)).share(500),
        };
        let fault = if random.below(3) == 0 { fault.towards(Towards::Client) } else { fault };
        assert!(fault.keeps_bytes());
        applied.push(proxy.apply(fault).unwrap());
        if applied.len() > random.below(4) as usize {
            applied.remove(random.below(applied.len() as u64) as usize).lift().unwrap();
        }
        std::thread::yield_now();
    }
    proxy.heal().unwrap();
    let broken: Vec<usize> =
        clients.into_iter().enumerate().filter_map(|(n, client)| (!client.join().unwrap()).then_some(n)).collect();
    assert!(broken.is_empty(), "streams of clients {broken:?} are not what was sent");
}

/// The log of one run: faults from the first byte on, streams that are cut at random, connections by turns.
fn log_of(seed: u64, run: u64) -> Vec<Decision> {
    let proxy = ProxySpec::new(echo())
        .seed(Seed::new(seed))
        .fault(WireFault::latency_between(Duration::ZERO, Duration::from_micros(900)))
        .fault(WireFault::corrupt(700))
        .fault(WireFault::reset_after(9_000).towards(Towards::Client).share(500))
        .start()
        .unwrap();
    let mut random = Seed::new(run).stream("chunks");
    for n in 0..3 {
        let mut client = connect(proxy.address()).unwrap();
        let (bytes, mut at) = (stream_of(n, 10_000), 0);
        while at < bytes.len() {
            let len = (1 + random.below(3_000) as usize).min(bytes.len() - at);
            let _ = client.write_all(&bytes[at..at + len]);
            at += len;
        }
        let _ = client.shutdown(std::net::Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
    }
    // What the server was sent depends on when a reset came; what the client was sent does not.
    proxy.log().into_iter().filter(|decision| decision.towards == Some(Towards::Client)).collect()
}

#[test]
fn same_seed_gives_the_same_log_however_the_streams_are_cut() {
    let first = log_of(7, 0);
    assert!(first.len() > 20, "{first:?}");
    for run in 1..5 {
        assert_eq!(log_of(7, run), first, "run {run}");
    }
    assert_ne!(log_of(8, 0), first);
}
