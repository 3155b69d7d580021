//! Processor time per request of ours and of others, by turns, on one keep-alive server.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::child::{self, Cpu, Server};
use peers_common::{Asked, Measured, Result};

/// Connections of both sides.
const USERS: &str = "32";

pub(crate) fn against_wrk(asked: &Asked) -> Result<Vec<Measured>> {
    against(asked, "load.wrk", "wrk 4 -t1", target, |address, seconds| {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "-c", USERS, "-d", &format!("{seconds}s"), &format!("http://{address}/")]);
        let (text, cpu) = child::measured(&mut wrk)?;
        let requests = text.lines().find_map(|line| line.trim().split_once(" requests in"));
        Ok((requests.ok_or("wrk did not say how many requests it made")?.0.parse()?, cpu))
    })
}

pub(crate) fn against_oha(asked: &Asked) -> Result<Vec<Measured>> {
    against(asked, "load.oha", "oha", target, |address, seconds| {
        let (text, cpu) = child::measured(&mut oha(asked, &["-z", &format!("{seconds}s"), "-c", USERS], address))?;
        let said: serde_json::Value = serde_json::from_str(&text)?;
        Ok((said["statusCodeDistribution"]["200"].as_u64().ok_or("oha did not say how many requests succeeded")?, cpu))
    })
}

/// Frameworks, all with the same bare client.
pub(crate) fn against_goose(asked: &Asked) -> Result<Vec<Measured>> {
    against(asked, "load.goose", "goose 0.19, bare client", framework("with-ours"), framework("with-goose"))
}

pub(crate) fn against_rlt(asked: &Asked) -> Result<Vec<Measured>> {
    against(asked, "load.rlt", "rlt 0.5, bare client", framework("with-ours"), framework("with-rlt"))
}

/// Our ready-made target.
fn target(address: SocketAddr, seconds: u64) -> Result<(u64, Cpu)> {
    let words = ["closed", &address.to_string(), &(seconds * 1_000).to_string(), USERS];
    let (text, cpu) = child::measured(&mut child::ours(&words)?)?;
    Ok((text.trim().parse()?, cpu))
}

/// A program beside this one; its last line says how many requests it made.
fn framework(name: &'static str) -> impl Fn(SocketAddr, u64) -> Result<(u64, Cpu)> {
    move |address, seconds| {
        let program = std::env::current_exe()?.with_file_name(name);
        let words = [address.to_string(), seconds.to_string(), USERS.to_owned()];
        let (text, cpu) = child::measured(Command::new(program).args(words))?;
        Ok((text.lines().last().unwrap_or_default().trim().parse()?, cpu))
    }
}

/// On one thread, without its screen.
pub(crate) fn oha(asked: &Asked, words: &[&str], address: SocketAddr) -> Command {
    let mut oha = Command::new(asked.path("--oha").unwrap_or("oha".as_ref()));
    oha.env("TOKIO_WORKER_THREADS", "1").args(["--no-tui", "--output-format", "json"]).args(words);
    oha.arg(format!("http://{address}/"));
    oha
}

fn against(
    asked: &Asked,
    goal: &'static str,
    peer: &'static str,
    ours: impl Fn(SocketAddr, u64) -> Result<(u64, Cpu)>,
    theirs: impl Fn(SocketAddr, u64) -> Result<(u64, Cpu)>,
) -> Result<Vec<Measured>> {
    let seconds = asked.times(3, 1);
    let server = Server::start(0, Duration::ZERO)?;
    let (mut rounds, mut rates, mut own) = (Vec::new(), Vec::new(), Vec::new());
    let micros = |requests: u64, time: Duration| time.as_secs_f64() * 1e6 / requests.max(1) as f64;
    let each = |(requests, cpu): (u64, Cpu)| micros(requests, cpu.total());
    // Sending and receiving cost every program the same in the kernel; what it adds itself is the rest.
    let outside = |(requests, cpu): (u64, Cpu)| micros(requests, cpu.user);
    for round in 0..asked.rounds() {
        // Who is first changes, since the one may heat the machine up for the other.
        let (ours, theirs) = if round % 2 == 0 {
            let ours = ours(server.address, seconds)?;
            (ours, theirs(server.address, seconds)?)
        } else {
            let theirs = theirs(server.address, seconds)?;
            (ours(server.address, seconds)?, theirs)
        };
        println!(
            "  {:.2} against {:.2} µs CPU per request, {:.2} against {:.2} of it outside the kernel",
            each(ours),
            each(theirs),
            outside(ours),
            outside(theirs)
        );
        own.push(serde_json::json!([outside(ours), outside(theirs)]));
        rounds.push((each(ours), each(theirs)));
        rates.push(serde_json::json!([ours.0 / seconds, theirs.0 / seconds]));
    }
    Ok(vec![
        Measured::pairs(goal, peer, "µs CPU per request", &rounds)
            .detail("requests_per_second", rates)
            .detail("outside_the_kernel", own),
    ])
}
