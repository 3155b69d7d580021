//! What has to be a process of its own: the server, and generators whose processor time is counted.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::ops::Sub;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use harness_load::target::HttpRequest;
use harness_load::{ANY, Load, p99, per_second};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use peers_common::Result;

/// Plays a part and ends.
pub(crate) fn play(words: &[String]) -> Result {
    let number = |n: usize| -> Result<u64> { Ok(words.get(n).ok_or("a number is missing")?.parse()?) };
    let address = || -> Result<SocketAddr> { Ok(words.get(1).ok_or("the address is missing")?.parse()?) };
    match words.first().map(String::as_str) {
        Some("serve") => one_thread().block_on(serve(number(1)?, Duration::from_millis(number(2)?))),
        Some("closed") => one_thread().block_on(closed(address()?, number(2)?, number(3)? as usize)),
        Some("open") => one_thread().block_on(open(address()?, number(2)?, number(3)?)),
        Some("memory") => one_thread().block_on(memory(number(1)?)),
        other => Err(format!("{other:?} is no part").into()),
    }
}

/// The runtime of everybody: one thread, as `wrk -t1`.
pub(crate) fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built")
}

/// A program of this binary, its address read from its first line where it serves.
pub(crate) fn start(words: &[&str]) -> Result<Child> {
    let here = std::env::current_exe()?;
    Ok(Command::new(here).arg("child").args(words).stdout(Stdio::piped()).stdin(Stdio::piped()).spawn()?)
}

/// A server, ended when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// One thread, keep-alive, two bytes of body. Every `every` requests (0: never) all of it stands still for `stall`.
    pub(crate) fn start(every: u64, stall: Duration) -> Result<Self> {
        let mut child = start(&["serve", &every.to_string(), &stall.as_millis().to_string()])?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().ok_or("no output")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

async fn serve(every: u64, stall: Duration) -> Result {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let served = Arc::new(AtomicU64::new(0));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream, served.clone(), every, stall));
    }
}

async fn connection(mut stream: TcpStream, served: Arc<AtomicU64>, every: u64, stall: Duration) -> std::io::Result<()> {
    let (mut buffer, mut filled) = (vec![0; 4_096], 0);
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            let n = served.fetch_add(1, Ordering::Relaxed);
            if every > 0 && n % every == every / 2 {
                std::thread::sleep(stall);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        }
    }
}

async fn closed(address: SocketAddr, millis: u64, users: usize) -> Result {
    let load = Load::closed(users).hold(Duration::from_millis(millis));
    let run = load.target("get", 1, HttpRequest::get(address, "/")).run().await?;
    println!("{}", run.cell("hold", "get").map_or(0, |cell| cell.ok));
    Ok(())
}

/// Says when it begins, so that who stops it knows, and what it makes of it in the end.
async fn open(address: SocketAddr, rate: u64, millis: u64) -> Result {
    let load = Load::open(per_second(rate as f64)).hold(Duration::from_millis(millis)).in_flight(64, 100_000);
    println!("begun");
    let run = load.target("get", 1, HttpRequest::get(address, "/")).run().await?;
    let judged = run.judge([p99(ANY).below(Duration::from_secs(1))])?;
    let response = &run.cell("hold", "get").ok_or("no cell")?.response_ok;
    let at = |q| response.quantile(q).map_or(0, |span| span.high);
    println!("{}", json!({ "p95": at(0.95), "p99": at(0.99), "invalid": judged.invalid() }));
    Ok(())
}

/// Resident memory of this process in the middle of a run of so many iterations: after the first million, and at its end.
async fn memory(iterations: u64) -> Result {
    let at = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let noted = at.clone();
    let load = Load::closed(8).hold(Duration::from_secs(3_600)).at_most(iterations);
    let flow = move |iteration: harness_load::Iteration| {
        for (n, place) in [(1_000_000, 0), (iterations - 1, 1)] {
            if iteration.n() == n {
                noted[place].store(resident(), Ordering::Relaxed);
            }
        }
        std::future::ready(Ok::<(), std::io::Error>(()))
    };
    let run = load.flow("nothing", 1, flow).run().await?;
    let done = run.cell("hold", "nothing").map_or(0, |cell| cell.ok);
    println!(
        "{}",
        json!({ "done": done, "first": at[0].load(Ordering::Relaxed), "last": at[1].load(Ordering::Relaxed) })
    );
    Ok(())
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}

/// Processor time: a program's own, and the kernel's on its behalf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Cpu {
    /// Of this process, or of all its children that have ended.
    pub(crate) fn now(who: UsageWho) -> Result<Self> {
        let usage = getrusage(who)?;
        let of = |time: TimeVal| Duration::from_micros(time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64);
        Ok(Self { user: of(usage.user_time()), system: of(usage.system_time()) })
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// Runs a program to its end: what it says, and the processor time it took.
pub(crate) fn measured(command: &mut Command) -> Result<(String, Cpu)> {
    let before = Cpu::now(UsageWho::RUSAGE_CHILDREN)?;
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut text = String::new();
    child.stdout.take().ok_or("no output")?.read_to_string(&mut text)?;
    if !child.wait()?.success() {
        return Err(format!("{command:?} failed: {text}").into());
    }
    Ok((text, Cpu::now(UsageWho::RUSAGE_CHILDREN)? - before))
}

/// This binary as a program to run.
pub(crate) fn ours(words: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").args(words);
    Ok(command)
}

/// The last line as JSON.
pub(crate) fn last_json(text: &str) -> Result<Value> {
    Ok(serde_json::from_str(text.lines().last().unwrap_or_default())?)
}
