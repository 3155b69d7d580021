//! What a client sees of each fault of the proxy.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use harness_core::fault::{Fault, FaultProxy, ProxySpec, Towards, Upstream, WireFault};
use harness_core::run::Seed;
use harness_core::wait::{Progress, wait_for_blocking};

use super::world::{LIMIT, ask, connect, echo, is_silent};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The error of a connection that was reset.
fn kind_of_next_read(mut stream: &TcpStream) -> Result<usize, ErrorKind> {
    stream.read(&mut [0; 16]).map_err(|error| error.kind())
}

/// What becomes of a connection that is reset as soon as it is accepted: a client may meet it while it still connects.
fn kind_of_first_read(address: std::net::SocketAddr) -> Result<usize, ErrorKind> {
    connect(address).map_err(|error| error.kind()).and_then(|client| kind_of_next_read(&client))
}

#[test]
fn without_faults_bytes_pass_and_ends_are_handed_on() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let mut client = connect(proxy.address()).unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut sender = client.try_clone().unwrap();
    let sent = bytes.clone();
    let sending = std::thread::spawn(move || {
        sender.write_all(&sent).unwrap();
        sender.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    sending.join().unwrap();
    assert!(heard == bytes, "{} bytes of {}", heard.len(), bytes.len());
    let ended = wait_for_blocking("the record of the end", LIMIT, || match proxy.connections().remove(0) {
        seen if seen.end.is_some() => Progress::Ready(seen),
        seen => Progress::NotYet(format!("{seen:?}")),
    });
    let seen = ended.unwrap();
    assert_eq!(
        (seen.to_server, seen.to_client, seen.end.as_deref()),
        (3_000_000, 3_000_000, Some("closed by its ends"))
    );
    assert!(proxy.log().is_empty());
}

#[test]
fn latency_delays_both_ways_and_is_over_when_lifted() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let client = connect(proxy.address()).unwrap();
    let latency = proxy.apply(WireFault::latency(ms(30))).unwrap();
    let begun = Instant::now();
    assert_eq!(ask(&client, "hello").unwrap(), "hello");
    assert!(begun.elapsed() >= ms(60), "{:?}", begun.elapsed());
    assert_eq!(latency.bites().to_string(), "10 bytes delayed");
    latency.lift().unwrap();
    let bites = latency.bites();
    assert_eq!(ask(&client, "again").unwrap(), "again");
    assert_eq!(latency.bites(), bites, "a lifted fault bit");
}

#[test]
fn latency_of_an_hour_is_cut_short_by_healing() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let client = connect(proxy.address()).unwrap();
    let hour = proxy.apply(WireFault::latency(Duration::from_secs(3_600)).towards(Towards::Client)).unwrap();
    (&client).write_all(b"hello").unwrap();
    wait_for_blocking("the answer to be held", LIMIT, || hour.check_did_bite().into()).unwrap();
    assert!(is_silent(&client));
    proxy.heal().unwrap();
    let mut heard = [0; 5];
    (&client).read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
}

#[test]
fn stall_holds_everything_and_then_lets_it_go() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let client = connect(proxy.address()).unwrap();
    assert_eq!(ask(&client, "before").unwrap(), "before");
    let stall = proxy.apply(WireFault::stall()).unwrap();
    assert!(stall.check_did_bite().is_err(), "nothing was sent yet");
    (&client).write_all(b"during").unwrap();
    wait_for_blocking("bytes to be held", LIMIT, || stall.check_did_bite().into()).unwrap();
    assert!(is_silent(&client));
    stall.lift().unwrap();
    let mut heard = [0; 6];
    (&client).read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"during");
}

#[test]
fn reset_reaches_connections_that_are_idle() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let client = connect(proxy.address()).unwrap();
    assert_eq!(ask(&client, "before").unwrap(), "before");
    let reset = proxy.apply(WireFault::reset()).unwrap();
    assert_eq!(kind_of_next_read(&client), Err(ErrorKind::ConnectionReset));
    assert_eq!(reset.bites().to_string(), "1 connections reset");
    assert_eq!(proxy.log()[0].to_string(), "connection 1: fault 1 reset the connection");
    proxy.heal().unwrap();
    assert_eq!(ask(&connect(proxy.address()).unwrap(), "after").unwrap(), "after");
}

#[test]
fn reset_after_some_bytes_cuts_inside_a_message() {
    let fault = WireFault::reset_after(3).towards(Towards::Client);
    let proxy = ProxySpec::new(echo()).fault(fault).start().unwrap();
    let mut client = connect(proxy.address()).unwrap();
    client.write_all(b"hello").unwrap();
    let mut heard = Vec::new();
    let error = client.read_to_end(&mut heard).unwrap_err();
    assert_eq!((error.kind(), &heard[..]), (ErrorKind::ConnectionReset, &b"hel"[..]));
}

#[test]
fn half_close_ends_one_stream_and_leaves_the_other() {
    let fault = WireFault::half_close_after(3).towards(Towards::Client);
    let proxy = ProxySpec::new(echo()).fault(fault).start().unwrap();
    let mut client = connect(proxy.address()).unwrap();
    client.write_all(b"hello").unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"hel");
    client.write_all(b"still heard").unwrap();
    wait_for_blocking("the server to be sent it", LIMIT, || match proxy.connections()[0].to_server {
        16 => Progress::Ready(()),
        bytes => Progress::NotYet(format!("{bytes} bytes")),
    })
    .unwrap();
}

#[test]
fn black_hole_swallows_and_its_healing_resets_who_lost_something() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let (loser, idle) = (connect(proxy.address()).unwrap(), connect(proxy.address()).unwrap());
    assert_eq!(ask(&loser, "one").unwrap() + &ask(&idle, "two").unwrap(), "onetwo");
    let hole = proxy.apply(WireFault::black_hole()).unwrap();
    (&loser).write_all(b"gone").unwrap();
    wait_for_blocking("bytes to be lost", LIMIT, || hole.check_did_bite().into()).unwrap();
    assert!(is_silent(&loser));
    proxy.heal().unwrap();
    assert_eq!(kind_of_next_read(&loser), Err(ErrorKind::ConnectionReset));
    assert_eq!(ask(&idle, "whole").unwrap(), "whole");
    assert_eq!(hole.bites().to_string(), "4 bytes lost");
}

#[test]
fn corruption_turns_the_bits_that_the_log_names() {
    let proxy = ProxySpec::new(echo()).fault(WireFault::corrupt(64).towards(Towards::Server)).start().unwrap();
    let mut client = connect(proxy.address()).unwrap();
    client.write_all(&[0; 640]).unwrap();
    let mut heard = vec![0; 640];
    client.read_exact(&mut heard).unwrap();
    let turned: Vec<u64> = (0..640).filter(|n| heard[*n as usize] != 0).collect();
    assert_eq!(turned, proxy.log().iter().map(|decision| decision.offset).collect::<Vec<_>>());
    assert_eq!(turned.len(), 10);
}

#[test]
fn faults_of_accepting_show_before_a_byte_is_sent() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let reset = proxy.apply(WireFault::accept_reset()).unwrap();
    assert_eq!(kind_of_first_read(proxy.address()), Err(ErrorKind::ConnectionReset));
    reset.lift().unwrap();

    let silence = proxy.apply(WireFault::silence()).unwrap();
    let client = connect(proxy.address()).unwrap();
    (&client).write_all(b"hello").unwrap();
    wait_for_blocking("a connection in silence", LIMIT, || silence.check_did_bite().into()).unwrap();
    assert!(is_silent(&client));
    silence.lift().unwrap();
    let mut heard = [0; 5];
    (&client).read_exact(&mut heard).unwrap();

    let _delay = proxy.apply(WireFault::accept_delay(ms(80))).unwrap();
    let (client, begun) = (connect(proxy.address()).unwrap(), Instant::now());
    assert_eq!(ask(&client, "late").unwrap(), "late");
    assert!(begun.elapsed() >= ms(75), "{:?}", begun.elapsed());
    let texts: Vec<String> = proxy.log().iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "connection 1: fault 1 reset it",
            "connection 2: fault 2 left it in silence",
            "connection 3: fault 3 delayed it"
        ]
    );
}

#[test]
fn share_picks_connections_and_leaves_the_others_alone() {
    let proxy = ProxySpec::new(echo()).seed(Seed::new(5)).fault(WireFault::reset().share(500)).start().unwrap();
    let outcome = |_| connect(proxy.address()).and_then(|client| ask(&client, "hello")).is_ok();
    let lived = (0..40).map(outcome).filter(|lives| *lives).count();
    assert!((8..33).contains(&lived), "{lived} of 40");
    assert_eq!(proxy.log().len(), 40 - lived);
}

#[test]
fn fault_that_nobody_met_is_no_evidence() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let error = proxy.apply(WireFault::latency(ms(1))).unwrap().check_did_bite().unwrap_err();
    assert_eq!(error.kind(), harness_core::ErrorKind::NoEvidence);
    let text = format!("{error:?}");
    assert!(text.contains("never bit: 0 bytes delayed") && text.contains("accepted 0 connections"), "{text}");
}

#[test]
fn upstream_that_moves_is_found_and_one_that_never_was_is_recorded() {
    let port = Arc::new(AtomicU16::new(1));
    let asked = Arc::clone(&port);
    let upstream = Upstream::of("moving", move || Ok(([127, 0, 0, 1], asked.load(Ordering::Relaxed)).into()));
    let proxy = FaultProxy::to(upstream).unwrap();
    assert_eq!(kind_of_first_read(proxy.address()), Err(ErrorKind::ConnectionReset));
    let end = proxy.connections()[0].end.clone().unwrap();
    assert!(end.starts_with("the upstream moving was not reached: "), "{end}");
    for _ in 0..2 {
        port.store(echo().port(), Ordering::Relaxed);
        assert_eq!(ask(&connect(proxy.address()).unwrap(), "found").unwrap(), "found");
    }
    let named = FaultProxy::to(format!("localhost:{}", port.load(Ordering::Relaxed))).unwrap();
    assert_eq!(ask(&connect(named.address()).unwrap(), "named").unwrap(), "named");
}

#[test]
fn faults_are_idempotent_and_refuse_to_outlive_their_proxy() {
    let proxy = FaultProxy::to(echo()).unwrap();
    let refuse = proxy.apply(WireFault::refuse()).unwrap();
    refuse.apply().unwrap();
    assert_eq!(proxy.active(), ["refuse"]);
    refuse.lift().unwrap();
    refuse.lift().unwrap();
    proxy.heal().unwrap();
    assert_eq!(ask(&connect(proxy.address()).unwrap(), "hello").unwrap(), "hello");
    assert!(proxy.apply(WireFault::bandwidth(0)).is_err() && proxy.active().is_empty());

    let (address, client) = (proxy.address(), connect(proxy.address()).unwrap());
    drop(proxy);
    assert!(matches!(kind_of_next_read(&client), Ok(0) | Err(ErrorKind::ConnectionReset)));
    assert_eq!(connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let error = refuse.apply().unwrap_err();
    assert!(error.kind() == harness_core::ErrorKind::Refused && error.what().contains("has ended"), "{error:?}");
    refuse.lift().unwrap(); // healing what is gone is success
}

#[test]
fn proxy_goes_on_while_the_runtime_of_its_test_is_blocked() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let proxy = FaultProxy::to(echo()).unwrap();
        let slow = harness_core::fault::inject(proxy.fault(WireFault::latency(ms(20))).unwrap()).await.unwrap();
        let client = connect(proxy.address()).unwrap();
        assert_eq!(ask(&client, "hello").unwrap(), "hello"); // blocks the only thread, and its clock stands still
        assert_eq!(slow.heal().await.unwrap().count(), 10);
    });
}
