//! Figures without a peer: refusals, connections that time out, changes under traffic, replay.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use harness_core::fault::{Decision, FaultProxy, ProxySpec, Towards, WireFault};
use harness_core::run::Seed;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::wire::{connect, echo, questions};
use peers_common::{Asked, Measured, Result};

/// A hundred connections that time out while established traffic goes on, and a hundred that succeed after.
pub(crate) fn connect_timeouts(asked: &Asked) -> Result<Vec<Measured>> {
    let count = asked.times(100, 5);
    let proxy = FaultProxy::to(echo()?)?;
    let mut established = connect(proxy.address())?;
    let mut talk = || -> Result { Ok(established.write_all(b"?").and_then(|()| established.read_exact(&mut [0]))?) };
    talk()?;
    let fault = proxy.apply(WireFault::connect_timeout())?;
    let mut failures = 0;
    for _ in 0..count {
        let kind = TcpStream::connect_timeout(&proxy.address(), Duration::from_millis(50)).map_err(|e| e.kind());
        failures += u64::from(!matches!(kind, Err(ErrorKind::TimedOut)));
        talk()?;
    }
    let patient: Vec<_> = (0..count)
        .map(|_| {
            let address = proxy.address();
            std::thread::spawn(move || questions(address, 1).map(|_| Instant::now()).map_err(|error| error.to_string()))
        })
        .collect();
    let healed = Instant::now();
    fault.lift()?;
    let mut worst = Duration::ZERO;
    for client in patient {
        match client.join() {
            Ok(Ok(answered)) => worst = worst.max(answered - healed),
            _ => failures += 1,
        }
    }
    println!("  {failures} failures; the last of {count} was answered {worst:.0?} after healing");
    Ok(vec![
        Measured::count("faults.connect_timeout_failures", &[failures]),
        Measured::pairs("faults.heal_of_1500_ms", "1.5 s", "s", &[(worst.as_secs_f64(), 1.5)]),
    ])
}

/// A thousand times refused and served at one port.
pub(crate) fn refusals(asked: &Asked) -> Result<Vec<Measured>> {
    let proxy = FaultProxy::to(echo()?)?;
    let refuse = proxy.fault(WireFault::refuse())?;
    let mut failures = 0;
    for _ in 0..asked.times(1_000, 20) {
        refuse.apply()?;
        let refused = TcpStream::connect(proxy.address()).map_err(|error| error.kind());
        refuse.lift()?;
        let served = questions(proxy.address(), 1).is_ok();
        failures += u64::from(!matches!(refused, Err(ErrorKind::ConnectionRefused)) || !served);
    }
    Ok(vec![Measured::count("faults.refusal_failures", &[failures])])
}

/// A thousand runs of one seed; how many gave another log than the first.
pub(crate) fn replay(asked: &Asked) -> Result<Vec<Measured>> {
    let server = echo()?;
    let first = log_of(server, 0)?;
    let mut others = 0;
    for run in 1..asked.times(1_000, 10) {
        others += u64::from(log_of(server, run)? != first);
    }
    println!("  {} decisions a log, {others} logs that differ", first.len());
    Ok(vec![Measured::count("faults.replays_that_differ", &[others]).detail("decisions", first.len())])
}

fn log_of(server: SocketAddr, run: u64) -> Result<Vec<Decision>> {
    let proxy = ProxySpec::new(server)
        .seed(Seed::new(7))
        .fault(WireFault::latency_between(Duration::ZERO, Duration::from_micros(500)))
        .fault(WireFault::corrupt(500))
        .start()?;
    let mut random = Seed::new(run).stream("chunks");
    let mut client = connect(proxy.address())?;
    let mut left = 20_000;
    while left > 0 {
        let len = (1 + random.below(4_000) as usize).min(left);
        client.write_all(&vec![left as u8; len])?;
        left -= len;
    }
    client.shutdown(std::net::Shutdown::Write)?;
    client.read_to_end(&mut Vec::new())?;
    Ok(proxy.log())
}

/// A hundred thousand changes over a thousand connections: streams that differ from what was sent, and the slowest change.
pub(crate) fn changes(asked: &Asked) -> Result<Vec<Measured>> {
    let (connections, changes) = asked.times((1_000, 100_000), (50, 2_000));
    let server = async_echo()?;
    let proxy = FaultProxy::to(server)?;
    let address = proxy.address();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (stop, over) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..connections).map(|n| runtime.spawn(client(address, n, over.clone()))).collect();
    let mut random = Seed::new(3).stream("changes");
    let (mut applied, mut slowest) = (Vec::new(), Duration::ZERO);
    while proxy.accepted() < connections {
        std::thread::sleep(Duration::from_millis(5));
    }
    for n in 0..changes {
        if n % 100 == 0 {
            std::thread::sleep(Duration::from_millis(20)); // traffic meets the faults
        }
        let fault = match random.below(5) {
            0 => WireFault::latency_between(Duration::ZERO, Duration::from_millis(random.below(5))),
            1 => WireFault::bandwidth(1 << (18 + random.below(8))),
            2 => WireFault::slice(1 + random.below(5_000), Duration::ZERO),
            3 => WireFault::stall(),
            _ => WireFault::latency(Duration::from_millis(1)).share(500),
        };
        let fault = if random.below(3) == 0 { fault.towards(Towards::Client) } else { fault };
        let begun = Instant::now();
        applied.push(proxy.apply(fault)?);
        if applied.len() > random.below(4) as usize {
            applied.remove(random.below(applied.len() as u64) as usize).lift()?;
        }
        slowest = slowest.max(begun.elapsed());
    }
    proxy.heal()?;
    stop.send_replace(true);
    let (mut broken, mut bytes) = (0, 0);
    for client in clients {
        match runtime.block_on(client)? {
            Ok(len) => bytes += len,
            Err(_) => broken += 1,
        }
    }
    if bytes == 0 {
        return Err("no byte met a fault".into());
    }
    println!("  {broken} broken streams, {bytes} bytes, slowest change {slowest:.1?}");
    Ok(vec![
        Measured::count("faults.broken_streams", &[broken])
            .detail("bytes", bytes)
            .detail("changes", changes)
            .detail("slowest_change_ms", slowest.as_secs_f64() * 1e3),
    ])
}

/// Sends a stream of numbers and reads it back slowly, until it is told to stop; how many bytes came back as they were sent.
async fn client(address: SocketAddr, n: u64, over: tokio::sync::watch::Receiver<bool>) -> Result<u64> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut read, mut write) = stream.into_split();
    let byte = move |at: u64| (at.wrapping_mul(31).wrapping_add(at >> 8) ^ n) as u8;
    let sending = tokio::spawn(async move {
        let mut at = 0_u64;
        while !*over.borrow() {
            let chunk: Vec<u8> = (at..at + 2_048).map(byte).collect();
            write.write_all(&chunk).await?;
            at += 2_048;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        write.shutdown().await?;
        Ok::<u64, std::io::Error>(at)
    });
    let (mut at, mut buffer) = (0_u64, vec![0; 1 + (n as usize * 7) % 4_096]);
    loop {
        let len = read.read(&mut buffer).await?;
        if len == 0 {
            break;
        }
        if !buffer[..len].iter().zip(at..).all(|(heard, at)| *heard == byte(at)) {
            return Err(format!("connection {n} differs at or after byte {at}").into());
        }
        at += len as u64;
    }
    match sending.await?? {
        sent if sent == at => Ok(at),
        sent => Err(format!("connection {n}: {sent} bytes sent, {at} came back").into()),
    }
}

fn async_echo() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
            #[expect(unreachable_code, reason = "tells the type of the errors above")]
            Ok::<(), std::io::Error>(())
        })
    });
    Ok(address)
}
