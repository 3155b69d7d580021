//! What the numbers say when the server stands still, and when the generator does, against the closed form.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use harness_load::arrival::{Arrivals, Kind, Phase, Schedule, Shape};
use harness_load::target::HttpRequest;
use harness_load::{Load, Seed, per_second};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cpu::oha;
use crate::child::{self, Server, one_thread};
use peers_common::{Asked, Measured, Result};

/// Low, so that what was held up is served quickly: the closed form has no queue after the stall.
const RATE: u32 = 200;

/// p95, p99 and maximum for stalls of 50, 200 and 1,000 ms, even and Poisson arrivals, 1 to 64 connections.
pub(crate) fn stalling_server(asked: &Asked) -> Result<Vec<Measured>> {
    let (mut outside, mut worst, mut cases) = (0, 0.0_f64, Vec::new());
    for stall in asked.times(&[50, 200, 1_000][..], &[50, 200]) {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            for connections in asked.times(&[1, 8, 64][..], &[8]) {
                let errors = one_case(Duration::from_millis(*stall), arrivals, *connections)?;
                let case = errors.into_iter().map(f64::abs).fold(0.0, f64::max);
                println!(
                    "  {stall} ms, {arrivals:?}, {connections}: off by {:.1?} %",
                    errors.map(|error| error * 100.0)
                );
                outside += u64::from(case > 0.03);
                worst = worst.max(case);
                cases.push(serde_json::json!({ "stall_ms": stall, "arrivals": format!("{arrivals:?}"), "connections": connections, "off": errors }));
            }
        }
    }
    Ok(vec![Measured::count("load.stall_outside_3_percent", &[outside]).detail("worst", worst).detail("cases", cases)])
}

/// Relative errors of p95, p99 and the maximum.
fn one_case(stall: Duration, arrivals: Arrivals, connections: usize) -> Result<[f64; 3]> {
    // One stall in eight times its length, and at least 4 s, so that 5 % of all slots are due in stalls.
    let every = (8.0 * stall.as_secs_f64() * f64::from(RATE)) as u64;
    let length = Duration::from_secs(4).max(stall * 8);
    let (server, seed, rate) = (Server::start(every, stall)?, Seed::new(11), per_second(RATE));
    let load = Load::open(rate).hold(length).seed(seed).in_flight(connections, 100_000);
    let load = if arrivals == Arrivals::Poisson { load.poisson() } else { load };
    let run = one_thread().block_on(load.target("get", 1, HttpRequest::get(server.address, "/")).run())?;
    let response = &run.cell("hold", "get").ok_or("no cell")?.response_ok;
    let phase = Phase {
        name: "hold".to_owned(),
        kind: Kind::Hold,
        shape: Shape::Rate(rate),
        length,
        measured: true,
        until_steady: false,
    };
    let due: Vec<f64> =
        Schedule::new(&[phase], &[1], arrivals, seed)?.slots().map(|due| due.at.as_secs_f64()).collect();
    if due.len() as u64 != response.len() {
        return Err(format!("{} of {} requests succeeded\n{run}", response.len(), due.len()).into());
    }
    // Whoever is due during a stall is answered at its end; everybody else at once.
    let mut truth: Vec<f64> = vec![0.0; due.len()];
    for begun in (0..due.len()).filter(|n| *n as u64 % every == every / 2) {
        let end = due[begun] + stall.as_secs_f64();
        for n in (begun..due.len()).take_while(|n| due[*n] < end) {
            truth[n] = end - due[n];
        }
    }
    truth.sort_by(f64::total_cmp);
    Ok([0.95, 0.99, 1.0].map(|q| {
        let expected = truth[((q * truth.len() as f64).ceil() as usize).clamp(1, truth.len()) - 1];
        response.quantile(q).map_or(0, |span| span.high) as f64 / 1e9 / expected - 1.0
    }))
}

/// The generator is stopped for 300 ms three times in 8 s: it must tell the truth and say that it is to blame.
pub(crate) fn stopped_generator(asked: &Asked) -> Result<Vec<Measured>> {
    let server = Server::start(0, Duration::ZERO)?;
    let (mut failed, mut said) = (Vec::new(), Vec::new());
    for _ in 0..asked.times(3, 1) {
        let mut generator = child::start(&["open", &server.address.to_string(), "1000", "8000"])?;
        let mut output = BufReader::new(generator.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let truth = stop_three_times(generator.id())?;
        line.clear();
        output.read_line(&mut line)?;
        generator.wait()?;
        let ours = child::last_json(&line)?;
        let off = ours["p99"].as_f64().unwrap_or(0.0) / 1e9 / truth - 1.0;
        let names_it = ours["invalid"].as_str().is_some_and(|why| why.contains("the generator"));
        println!("  p99 off by {:.1} %, invalid: {}", off * 100.0, ours["invalid"]);
        failed.push(u64::from(off.abs() > 0.05 || !names_it));
        said.push(serde_json::json!({ "off": off, "truth_s": truth, "invalid": ours["invalid"] }));
    }
    let beside = stopped_oha(asked, &server).unwrap_or_else(|error| serde_json::json!({ "why": error.to_string() }));
    println!("  oha beside it: {beside}");
    Ok(vec![Measured::count("load.stopped_failures", &failed).detail("runs", said).detail("oha", beside)])
}

/// The 99th percentile that 8 s with these stops must have, in seconds.
fn stop_three_times(id: u32) -> Result<f64> {
    let process = Pid::from_raw(id as i32);
    let mut stops = Vec::new();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(1_200));
        kill(process, Signal::SIGSTOP)?;
        let stopped = Instant::now();
        std::thread::sleep(Duration::from_millis(300));
        kill(process, Signal::SIGCONT)?;
        stops.push(stopped.elapsed().as_secs_f64());
    }
    // Who is due during a stop waits for the rest of it: at 1,000/s one in each millisecond.
    let mut waits: Vec<f64> =
        stops.iter().flat_map(|stop| (0..(stop * 1e3) as u32).map(move |ms| stop - f64::from(ms) / 1e3)).collect();
    waits.sort_by(|a, b| b.total_cmp(a));
    waits.get(80).copied().ok_or_else(|| "the stops were too short".into())
}

fn stopped_oha(asked: &Asked, server: &Server) -> Result<serde_json::Value> {
    let words = ["-z", "8s", "-q", "1000", "-c", "64", "--latency-correction"];
    let mut child = oha(asked, &words, server.address)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let truth = stop_three_times(child.id())?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().ok_or("no output")?, &mut text)?;
    child.wait()?;
    let said: serde_json::Value = serde_json::from_str(&text)?;
    Ok(serde_json::json!({ "p99_s": said["latencyPercentiles"]["p99"], "truth_s": truth }))
}
